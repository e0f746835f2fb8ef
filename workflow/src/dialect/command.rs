//! One program that is to be run as a job.

use indexmap::IndexMap;

/// A program, and what it gets.
#[derive(Debug, Clone, Copy)]
pub struct Command<'a> {
    /// Name or path.
    pub program: &'a str,
    /// Its arguments.
    pub arguments: &'a [String],
    /// Its standard input.
    pub input: &'a str,
    /// Its environment, beside what every step has.
    pub env: &'a IndexMap<String, String>,
    /// Names of secrets that are in its environment too, in the place of values of `env`.
    pub secrets: &'a [String],
    /// Label of the workers that run it.
    pub label: &'a str,
}
