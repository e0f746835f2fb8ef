//! Tokens to a tree, by operator precedence with two stacks: brackets cost no call depth, however many there are.

use super::ast::{Callee, ExpressionNode, Operator};
use super::builtin::{self, Builtin};
use super::lexer::{Bracket, Kind, Lexer, Token};
use super::limits::{MAX_DEPTH, MAX_LENGTH};
use super::syntax_fault::SyntaxFault;
use super::{Expression, ExpressionError, ExpressionErrorKind, Value};

/// Parses `text`, an expression without its `${{ }}`. Empty text is an expression whose value is null.
///
/// # Errors
/// What is no expression, or one that is too long or too deep. Names of contexts and host functions are not judged:
/// see [`parse_known`] and [`Expression::evaluate`].
pub fn parse(text: &str) -> Result<Expression, ExpressionError> {
    Parser::new(text, None).parse()
}

/// Parses as [`parse`] does, and takes only the given contexts and, beside GitHub's own, the given functions.
///
/// # Errors
/// As [`parse`], and the first name that is unknown.
pub fn parse_known(text: &str, contexts: &[&str], functions: &[&str]) -> Result<Expression, ExpressionError> {
    Parser::new(text, Some(KnownNames { contexts, functions })).parse()
}

struct KnownNames<'k> {
    contexts: &'k [&'k str],
    functions: &'k [&'k str],
}

fn lists(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// A finished part of the tree and how deep it is.
struct Operand {
    node: ExpressionNode,
    depth: usize,
}

/// What waits for its right side.
enum Waiting<'t> {
    Operator(Operator),
    Group,
    Index {
        /// Where the key stands.
        at: usize,
    },
    Call {
        name: &'t str,
        callee: Callee,
        at: usize,
        /// Where the `(` is: GitHub's place for a wrong number of arguments.
        open: usize,
        /// How many operands there were before the arguments.
        below: usize,
    },
}

struct Parser<'t> {
    text: &'t str,
    known: Option<KnownNames<'t>>,
    operands: Vec<Operand>,
    waiting: Vec<Waiting<'t>>,
    function: Option<Token<'t>>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, known: Option<KnownNames<'t>>) -> Self {
        Self { text, known, operands: Vec::new(), waiting: Vec::new(), function: None }
    }

    fn parse(mut self) -> Result<Expression, ExpressionError> {
        if self.text.encode_utf16().count() > MAX_LENGTH {
            return Err(ExpressionError::new(
                ExpressionErrorKind::Limit,
                format!("Exceeded max expression length {MAX_LENGTH}"),
                0,
            ));
        }
        let mut lexer = Lexer::new(self.text);
        let mut last = None;
        let mut indexing = false;
        while let Some(token) = lexer.next()? {
            let opened_index = matches!(token.kind, Kind::Open(Bracket::Index));
            last = Some((token.text, token.start));
            self.push(token, indexing)?;
            indexing = opened_index;
        }
        let Some((token, start)) = last else {
            return Ok(Expression { root: None, text: self.text.into() });
        };
        let incomplete = || SyntaxFault::UnexpectedEnd.error(ExpressionErrorKind::Parsing, self.text, token, start);
        if !lexer.complete() {
            return Err(incomplete());
        }
        let incomplete = incomplete();
        self.reduce_to(0)?;
        let root = self.operands.pop().ok_or(incomplete)?.node;
        Ok(Expression { root: Some(root), text: self.text.into() })
    }

    /// `indexing`: the token before was `[`.
    fn push(&mut self, token: Token<'t>, indexing: bool) -> Result<(), ExpressionError> {
        match token.kind {
            Kind::Literal(value) => self.operand(ExpressionNode::Literal(value), 0),
            Kind::Context => {
                if self.known.as_ref().is_some_and(|known| !lists(known.contexts, token.text)) {
                    return Err(self.fault(SyntaxFault::UnrecognizedContext, token.text, token.start));
                }
                self.operand(ExpressionNode::Context { name: token.text.into(), at: token.start }, 0)
            }
            Kind::Wildcard if indexing => self.operand(ExpressionNode::Wildcard, 0),
            Kind::Wildcard => self.index(Operand { node: ExpressionNode::Wildcard, depth: 1 }, token.start),
            Kind::Property => {
                let name = ExpressionNode::Literal(Value::from(token.text));
                self.index(Operand { node: name, depth: 1 }, token.start)
            }
            Kind::Dot => Ok(()),
            Kind::Function => {
                let unknown = Builtin::named(token.text).is_none()
                    && self.known.as_ref().is_some_and(|known| !lists(known.functions, token.text));
                if unknown {
                    return Err(self.fault(SyntaxFault::UnrecognizedFunction, token.text, token.start));
                }
                self.function = Some(token);
                Ok(())
            }
            Kind::Operator(Operator::Not) => {
                self.waiting.push(Waiting::Operator(Operator::Not));
                Ok(())
            }
            Kind::Operator(operator) => {
                self.reduce_to(operator.precedence())?;
                self.waiting.push(Waiting::Operator(operator));
                Ok(())
            }
            Kind::Comma => self.reduce_to(0),
            Kind::Open(bracket) => self.open(bracket, token.start),
            Kind::Close(_) => self.close(),
        }
    }

    fn open(&mut self, bracket: Bracket, open: usize) -> Result<(), ExpressionError> {
        let waiting = match (bracket, self.function.take()) {
            (Bracket::Call, Some(function)) => Waiting::Call {
                name: function.text,
                callee: Builtin::named(function.text).map_or(Callee::Host, Callee::Builtin),
                at: function.start,
                open,
                below: self.operands.len(),
            },
            (Bracket::Index, _) => Waiting::Index { at: self.after_space(open + 1) },
            (Bracket::Group | Bracket::Call, _) => Waiting::Group,
        };
        self.waiting.push(waiting);
        Ok(())
    }

    fn close(&mut self) -> Result<(), ExpressionError> {
        self.reduce_to(0)?;
        match self.waiting.pop() {
            Some(Waiting::Index { at }) => {
                let key = self.pop()?;
                self.index(key, at)
            }
            Some(Waiting::Call { name, callee, at, open, below }) => {
                let args = self.operands.split_off(below.min(self.operands.len()));
                if let Some(fault) = builtin::arity_fault(name, args.len()) {
                    return Err(self.fault(fault, "(", open));
                }
                let depth = args.iter().map(|arg| arg.depth).max().unwrap_or(0);
                let args = args.into_iter().map(|arg| arg.node).collect();
                self.operand(ExpressionNode::Call { name: name.into(), callee, args, at }, depth)
            }
            Some(Waiting::Group | Waiting::Operator(_)) | None => Ok(()),
        }
    }

    /// Applies the operators that wait and bind at least as tightly as `precedence`, up to the innermost bracket.
    fn reduce_to(&mut self, precedence: u8) -> Result<(), ExpressionError> {
        while let Some(Waiting::Operator(operator)) = self.waiting.last() {
            let operator = *operator;
            if operator.precedence() < precedence {
                break;
            }
            self.waiting.pop();
            self.apply(operator)?;
        }
        Ok(())
    }

    fn apply(&mut self, operator: Operator) -> Result<(), ExpressionError> {
        let right = self.pop()?;
        if operator == Operator::Not {
            return self.operand(ExpressionNode::Not(Box::new(right.node)), right.depth);
        }
        let left = self.pop()?;
        match operator {
            Operator::And | Operator::Or => {
                let mut depth = 0;
                let mut nodes = Vec::new();
                for operand in [left, right] {
                    match (operator, operand.node) {
                        (Operator::And, ExpressionNode::All(inner)) | (Operator::Or, ExpressionNode::Any(inner)) => {
                            depth = depth.max(operand.depth - 1);
                            if nodes.is_empty() {
                                nodes = inner;
                            } else {
                                nodes.extend(inner);
                            }
                        }
                        (_, node) => {
                            depth = depth.max(operand.depth);
                            nodes.push(node);
                        }
                    }
                }
                let node =
                    if operator == Operator::And { ExpressionNode::All(nodes) } else { ExpressionNode::Any(nodes) };
                self.operand(node, depth)
            }
            _ => {
                let depth = left.depth.max(right.depth);
                self.operand(ExpressionNode::Compare(operator, Box::new(left.node), Box::new(right.node)), depth)
            }
        }
    }

    fn index(&mut self, key: Operand, at: usize) -> Result<(), ExpressionError> {
        let target = self.pop()?;
        let depth = target.depth.max(key.depth);
        let node = ExpressionNode::Index { target: Box::new(target.node), key: Box::new(key.node), at };
        self.operand(node, depth)
    }

    fn after_space(&self, at: usize) -> usize {
        let rest = self.text.get(at..).unwrap_or_default();
        at + (rest.len() - rest.trim_start().len())
    }

    /// Puts down a node whose deepest child is `below` deep.
    fn operand(&mut self, node: ExpressionNode, below: usize) -> Result<(), ExpressionError> {
        let depth = below + 1;
        if depth > MAX_DEPTH {
            return Err(ExpressionError::new(
                ExpressionErrorKind::Limit,
                format!("Exceeded max expression depth {MAX_DEPTH}"),
                0,
            ));
        }
        self.operands.push(Operand { node, depth });
        Ok(())
    }

    /// The lexer lets no operator pass without its operands; a mistake there is an error, not a panic.
    fn pop(&mut self) -> Result<Operand, ExpressionError> {
        self.operands.pop().ok_or_else(|| self.fault(SyntaxFault::UnexpectedEnd, "", self.text.len()))
    }

    fn fault(&self, fault: SyntaxFault, token: &str, start: usize) -> ExpressionError {
        fault.error(ExpressionErrorKind::Parsing, self.text, token, start)
    }
}
