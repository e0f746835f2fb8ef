//! What is wrong with a token, and the error message for it.

use super::{ExpressionError, ExpressionErrorKind};

/// What is wrong with a token, in GitHub's words.
#[derive(Debug, Clone, Copy)]
pub(super) enum SyntaxFault {
    UnexpectedSymbol,
    UnexpectedEnd,
    UnrecognizedContext,
    UnrecognizedFunction,
    TooFewParameters,
    TooManyParameters,
    EvenParameters,
}

impl SyntaxFault {
    /// The error about `token`, which stands at byte `start` of `text`. The message counts from one, in UTF-16 units.
    pub(super) fn error(self, kind: ExpressionErrorKind, text: &str, token: &str, start: usize) -> ExpressionError {
        let description = match self {
            Self::UnexpectedSymbol => "Unexpected symbol",
            Self::UnexpectedEnd => "Unexpected end of expression",
            Self::UnrecognizedContext => "Unrecognized named-value",
            Self::UnrecognizedFunction => "Unrecognized function",
            Self::TooFewParameters => "Too few parameters supplied",
            Self::TooManyParameters => "Too many parameters supplied",
            Self::EvenParameters => "Even number of parameters supplied, requires an odd number of parameters",
        };
        let place = text.get(..start).unwrap_or(text).encode_utf16().count() + 1;
        let message = format!("{description}: '{token}'. Located at position {place} within expression: {text}");
        ExpressionError::new(kind, message, start)
    }
}
