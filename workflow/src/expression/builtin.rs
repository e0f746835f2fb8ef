//! The names of the functions that every expression may call, and how many arguments they take. GitHub docs,
//! "HostFunctions".

use super::syntax_fault::SyntaxFault;

/// A function of the language itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Builtin {
    Case,
    Contains,
    EndsWith,
    Format,
    FromJson,
    Join,
    StartsWith,
    ToJson,
}

const BUILTINS: [(&str, Builtin); 8] = [
    ("case", Builtin::Case),
    ("contains", Builtin::Contains),
    ("endsWith", Builtin::EndsWith),
    ("format", Builtin::Format),
    ("fromJSON", Builtin::FromJson),
    ("join", Builtin::Join),
    ("startsWith", Builtin::StartsWith),
    ("toJSON", Builtin::ToJson),
];

/// The names of those that may be called everywhere.
pub(crate) const FUNCTIONS: [&str; 8] =
    ["case", "contains", "endsWith", "format", "fromJSON", "join", "startsWith", "toJSON"];

/// The fewest and the most arguments of each function. `success` and `failure` take job names in a job's `if:`.
const ARITIES: [(&str, usize, usize); 13] = [
    ("case", 3, MAX_ARGUMENTS),
    ("contains", 2, 2),
    ("endsWith", 2, 2),
    ("format", 1, MAX_ARGUMENTS),
    ("fromJSON", 1, 1),
    ("join", 1, 2),
    ("startsWith", 2, 2),
    ("toJSON", 1, 1),
    ("always", 0, 0),
    ("cancelled", 0, 0),
    ("success", 0, MAX_ARGUMENTS),
    ("failure", 0, MAX_ARGUMENTS),
    ("hashFiles", 1, MAX_ARGUMENTS),
];

const MAX_ARGUMENTS: usize = 255;

/// What is wrong with calling `name` with `count` arguments.
pub(super) fn arity_fault(name: &str, count: usize) -> Option<SyntaxFault> {
    let (_, least, most) = ARITIES.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))?;
    if count < *least {
        Some(SyntaxFault::TooFewParameters)
    } else if count > *most {
        Some(SyntaxFault::TooManyParameters)
    } else if Builtin::named(name) == Some(Builtin::Case) && count.is_multiple_of(2) {
        Some(SyntaxFault::EvenParameters)
    } else {
        None
    }
}

impl Builtin {
    pub(super) fn named(name: &str) -> Option<Self> {
        BUILTINS.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, builtin)| *builtin)
    }
}
