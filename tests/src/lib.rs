//! The system from outside: what the tests share.

pub mod oracle;
