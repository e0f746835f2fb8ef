//! The system from outside: what drives it in system tests, measures it against a conformance corpus, and times it.

pub mod conformance;
pub mod harness;
