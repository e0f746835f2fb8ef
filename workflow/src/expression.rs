//! GitHub's expression language, whole: lexer, parser, values, operators, functions and limits.
//!
//! Source of the rules: GitHub docs, "Evaluate expressions in workflows and actions" and "Contexts reference", and the
//! tables GitHub tests its own implementation with. Read in this order: `lexer` cuts text into tokens, `parser`
//! builds a tree of `ast` nodes, `evaluate` walks it with `functions`, and `interpolate` finds expressions
//! inside other text. Nothing here panics; the depth of every recursion is bounded, and its cost by [`EvaluationLimits`].

mod ast;
mod builtin;
mod case_fold;
mod compare;
mod evaluate;
mod evaluated;
mod functions;
mod interpolate;
mod json;
mod lexer;
mod limits;
mod named;
mod number;
mod parser;
mod printed;
mod static_type;
mod syntax_fault;
pub(crate) mod total;
pub(crate) mod type_check;
mod value;

pub(crate) use builtin::FUNCTIONS;
pub(crate) use compare::equal;
pub(crate) use interpolate::expressions;
pub use interpolate::{check, check_condition, condition, interpolate, interpolate_text, interpolate_tree};
pub use limits::EvaluationLimits;
pub use named::{NamedEntries, named_in};
pub use parser::{parse, parse_known};
pub use printed::{PrintedPath, printed_in};
pub use static_type::{ObjectType, StaticType};
pub(crate) use type_check::word_length;
pub use type_check::{ContextTypes, TypeFault, type_check};
pub use value::{Object, Value};

use ast::ExpressionNode;
use limits::Meter;

/// What a host answers for a function that depends on the run: `success()`, `failure()`, `cancelled()`, `always()`,
/// `hashFiles(...)`.
pub trait HostFunctions: Sync {
    /// The function's result; `None` where there is no function of that name. Names are compared without case.
    fn call(&self, name: &str, args: &[Value]) -> Option<Result<Value, HostFunctionError>>;
}

/// Why a host function gave no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostFunctionError {
    /// It was called wrongly or could not do its work; the message goes to the author.
    #[error("{0}")]
    Failed(String),
    /// The answer is not known yet: evaluate again later.
    #[error("the answer is not known yet")]
    Pending,
}

/// A host without functions of its own.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoHostFunctions;

impl HostFunctions for NoHostFunctions {
    fn call(&self, _name: &str, _args: &[Value]) -> Option<Result<Value, HostFunctionError>> {
        None
    }
}

/// What an expression may see while it is evaluated.
#[derive(Clone, Copy)]
pub struct Scope<'a> {
    /// The contexts by name (`github`, `env`, `matrix`, ...). A name that is not here is an error, as on GitHub.
    pub contexts: &'a Object,
    /// The host's functions.
    pub functions: &'a dyn HostFunctions,
    /// What one evaluation may cost.
    pub limits: EvaluationLimits,
}

/// What kind of mistake stopped an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExpressionErrorKind {
    /// A piece of text is no token of the language.
    Lexing,
    /// The tokens make no expression, or a name is unknown.
    Parsing,
    /// The expression is well formed, but has no value here.
    Evaluation,
    /// It is too long, too deep or too costly.
    Limit,
    /// A host function does not know its answer yet.
    Pending,
}

/// Why an expression has no value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ExpressionError {
    /// What kind of mistake it is.
    pub kind: ExpressionErrorKind,
    /// The mistake in GitHub's words, where GitHub has words for it.
    pub message: String,
    /// Where it is: a byte offset into the text that was given.
    pub position: usize,
}

impl ExpressionError {
    fn new(kind: ExpressionErrorKind, message: impl Into<String>, position: usize) -> Self {
        Self { kind, message: message.into(), position }
    }

    /// The same error for a text in which the expression starts at byte `offset`.
    fn moved(mut self, offset: usize) -> Self {
        self.position += offset;
        self
    }
}

/// A parsed expression, ready to be evaluated any number of times.
#[derive(Debug, Clone)]
pub struct Expression {
    /// `None` for an empty text, whose value is null.
    root: Option<ExpressionNode>,
    text: Box<str>,
}

impl Expression {
    /// The value in `scope`.
    ///
    /// # Errors
    /// An unknown name, a wrong argument, a limit, or [`ExpressionErrorKind::Pending`] from a host function.
    pub fn evaluate(&self, scope: &Scope<'_>) -> Result<Value, ExpressionError> {
        self.evaluate_metered(scope, &mut Meter::new(scope.limits))
    }

    fn evaluate_metered(&self, scope: &Scope<'_>, meter: &mut Meter) -> Result<Value, ExpressionError> {
        match &self.root {
            Some(root) => evaluate::evaluate(root, &self.text, scope, meter),
            None => Ok(Value::Null),
        }
    }

    /// Bytes of its text.
    pub(crate) fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Whether it calls `success`, `failure`, `cancelled` or `always`. An `if:` that does not runs only after success
    /// (GitHub docs, "Status check functions").
    #[must_use]
    pub fn calls_status_function(&self) -> bool {
        self.functions().iter().any(|name| {
            ["success", "failure", "cancelled", "always"].iter().any(|status| name.eq_ignore_ascii_case(status))
        })
    }

    /// The contexts it names, as written, each spelling once, in order.
    #[must_use]
    pub fn contexts(&self) -> Vec<&str> {
        self.names(|node| match node {
            ExpressionNode::Context { name, .. } => Some(name),
            _ => None,
        })
    }

    /// The functions it calls, as written, each spelling once, in order.
    #[must_use]
    pub fn functions(&self) -> Vec<&str> {
        self.names(|node| match node {
            ExpressionNode::Call { name, .. } => Some(name),
            _ => None,
        })
    }

    fn names<'a>(&'a self, pick: impl Fn(&'a ExpressionNode) -> Option<&'a str>) -> Vec<&'a str> {
        let mut names = Vec::new();
        if let Some(root) = &self.root {
            root.visit(&mut |node| {
                if let Some(name) = pick(node)
                    && !names.contains(&name)
                {
                    names.push(name);
                }
            });
        }
        names
    }
}
