//! The tree an expression is parsed into.

use super::Value;
use super::builtin::Builtin;

/// An operator between or before operands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Not,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    Equal,
    NotEqual,
    And,
    Or,
}

impl Operator {
    /// Higher binds tighter.
    pub(super) fn precedence(self) -> u8 {
        match self {
            Self::Not => 5,
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => 4,
            Self::Equal | Self::NotEqual => 3,
            Self::And => 2,
            Self::Or => 1,
        }
    }
}

/// What a call calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Callee {
    Builtin(Builtin),
    Host,
}

/// One node; the parser keeps the tree at most [`super::limits::MAX_DEPTH`] deep, so walking it may recurse.
#[derive(Debug, Clone)]
pub(super) enum ExpressionNode {
    Literal(Value),
    /// The `*` of `a.*` and `a[*]`.
    Wildcard,
    Context {
        name: Box<str>,
        at: usize,
    },
    Call {
        name: Box<str>,
        callee: Callee,
        args: Vec<ExpressionNode>,
        at: usize,
    },
    Index {
        target: Box<ExpressionNode>,
        key: Box<ExpressionNode>,
        /// Where the key stands.
        at: usize,
    },
    Not(Box<ExpressionNode>),
    Compare(Operator, Box<ExpressionNode>, Box<ExpressionNode>),
    /// `a && b && c`, flat.
    All(Vec<ExpressionNode>),
    /// `a || b || c`, flat.
    Any(Vec<ExpressionNode>),
}

impl ExpressionNode {
    /// Calls `see` for this node and everything below it, in reading order.
    pub(super) fn visit<'a>(&'a self, see: &mut impl FnMut(&'a ExpressionNode)) {
        see(self);
        match self {
            Self::Literal(_) | Self::Wildcard | Self::Context { .. } => {}
            Self::Call { args: nodes, .. } | Self::All(nodes) | Self::Any(nodes) => {
                for node in nodes {
                    node.visit(see);
                }
            }
            Self::Index { target: left, key: right, .. } | Self::Compare(_, left, right) => {
                left.visit(see);
                right.visit(see);
            }
            Self::Not(node) => node.visit(see),
        }
    }
}
