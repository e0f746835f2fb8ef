//! x
pub mod oracle;
