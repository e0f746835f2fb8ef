//! Tokens to a tree, by operator precedence with two stacks: brackets cost no call depth, however many there are.

use super::ast::{Callee, Node, Operator};
use super::functions::{self, Builtin};
use super::lexer::{Bracket, Kind, Lexer, Token};
use super::limits::{MAX_DEPTH, MAX_LENGTH};
use super::{Error, ErrorKind, Expression, Value};

/// Parses `text`, an expression without its `${{ }}`. Empty text is an expression whose value is null.
///
/// # Errors
/// What is no expression, or one that is too long or too deep. Names of contexts and host functions are not judged:
/// see [`parse_known`] and [`Expression::evaluate`].
pub fn parse(text: &str) -> Result<Expression, Error> {
    Parser::new(text, None).parse()
}

/// Parses as [`parse`] does, and takes only the given contexts and, beside GitHub's own, the given functions.
///
/// # Errors
/// As [`parse`], and the first name that is unknown.
pub fn parse_known(text: &str, contexts: &[&str], functions: &[&str]) -> Result<Expression, Error> {
    Parser::new(text, Some(Known { contexts, functions })).parse()
}

/// What is wrong with a token, in GitHub's words.
#[derive(Debug, Clone, Copy)]
pub(super) enum Fault {
    UnexpectedSymbol,
    UnexpectedEnd,
    UnrecognizedContext,
    UnrecognizedFunction,
    TooFewParameters,
    TooManyParameters,
    EvenParameters,
}

impl Fault {
    /// The error about `token`, which stands at byte `start` of `text`. The message counts from one, in UTF-16 units.
    pub(super) fn error(self, kind: ErrorKind, text: &str, token: &str, start: usize) -> Error {
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
        Error::new(kind, message, start)
    }
}

struct Known<'k> {
    contexts: &'k [&'k str],
    functions: &'k [&'k str],
}

fn lists(names: &[&str], name: &str) -> bool {
    names.iter().any(|known| known.eq_ignore_ascii_case(name))
}

/// A finished part of the tree and how deep it is.
struct Operand {
    node: Node,
    depth: usize,
}

/// What waits for its right side.
enum Waiting<'t> {
    Operator(Operator),
    Group,
    Index,
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
    known: Option<Known<'t>>,
    operands: Vec<Operand>,
    waiting: Vec<Waiting<'t>>,
    function: Option<Token<'t>>,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str, known: Option<Known<'t>>) -> Self {
        Self { text, known, operands: Vec::new(), waiting: Vec::new(), function: None }
    }

    fn parse(mut self) -> Result<Expression, Error> {
        if self.text.encode_utf16().count() > MAX_LENGTH {
            return Err(Error::new(ErrorKind::Limit, format!("Exceeded max expression length {MAX_LENGTH}"), 0));
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
        let incomplete = || Fault::UnexpectedEnd.error(ErrorKind::Parsing, self.text, token, start);
        if !lexer.complete() {
            return Err(incomplete());
        }
        let incomplete = incomplete();
        self.reduce_to(0)?;
        let root = self.operands.pop().ok_or(incomplete)?.node;
        Ok(Expression { root: Some(root), text: self.text.into() })
    }

    /// `indexing`: the token before was `[`.
    fn push(&mut self, token: Token<'t>, indexing: bool) -> Result<(), Error> {
        match token.kind {
            Kind::Literal(value) => self.operand(Node::Literal(value), 0),
            Kind::Context => {
                if self.known.as_ref().is_some_and(|known| !lists(known.contexts, token.text)) {
                    return Err(self.fault(Fault::UnrecognizedContext, token.text, token.start));
                }
                self.operand(Node::Context { name: token.text.into(), at: token.start }, 0)
            }
            Kind::Wildcard if indexing => self.operand(Node::Wildcard, 0),
            Kind::Wildcard => self.index(Operand { node: Node::Wildcard, depth: 1 }),
            Kind::Property => {
                let name = Node::Literal(Value::from(token.text));
                self.index(Operand { node: name, depth: 1 })
            }
            Kind::Dot => Ok(()),
            Kind::Function => {
                let unknown = Builtin::named(token.text).is_none()
                    && self.known.as_ref().is_some_and(|known| !lists(known.functions, token.text));
                if unknown {
                    return Err(self.fault(Fault::UnrecognizedFunction, token.text, token.start));
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

    fn open(&mut self, bracket: Bracket, open: usize) -> Result<(), Error> {
        let waiting = match (bracket, self.function.take()) {
            (Bracket::Call, Some(function)) => Waiting::Call {
                name: function.text,
                callee: Builtin::named(function.text).map_or(Callee::Host, Callee::Builtin),
                at: function.start,
                open,
                below: self.operands.len(),
            },
            (Bracket::Index, _) => Waiting::Index,
            (Bracket::Group | Bracket::Call, _) => Waiting::Group,
        };
        self.waiting.push(waiting);
        Ok(())
    }

    fn close(&mut self) -> Result<(), Error> {
        self.reduce_to(0)?;
        match self.waiting.pop() {
            Some(Waiting::Index) => {
                let index = self.pop()?;
                self.index(index)
            }
            Some(Waiting::Call { name, callee, at, open, below }) => {
                let args = self.operands.split_off(below.min(self.operands.len()));
                if let Some(fault) = functions::arity_fault(name, args.len()) {
                    return Err(self.fault(fault, "(", open));
                }
                let depth = args.iter().map(|arg| arg.depth).max().unwrap_or(0);
                let args = args.into_iter().map(|arg| arg.node).collect();
                self.operand(Node::Call { name: name.into(), callee, args, at }, depth)
            }
            Some(Waiting::Group | Waiting::Operator(_)) | None => Ok(()),
        }
    }

    /// Applies the operators that wait and bind at least as tightly as `precedence`, up to the innermost bracket.
    fn reduce_to(&mut self, precedence: u8) -> Result<(), Error> {
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

    fn apply(&mut self, operator: Operator) -> Result<(), Error> {
        let right = self.pop()?;
        if operator == Operator::Not {
            return self.operand(Node::Not(Box::new(right.node)), right.depth);
        }
        let left = self.pop()?;
        match operator {
            Operator::And | Operator::Or => {
                let mut depth = 0;
                let mut nodes = Vec::new();
                for operand in [left, right] {
                    match (operator, operand.node) {
                        (Operator::And, Node::All(inner)) | (Operator::Or, Node::Any(inner)) => {
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
                let node = if operator == Operator::And { Node::All(nodes) } else { Node::Any(nodes) };
                self.operand(node, depth)
            }
            _ => {
                let depth = left.depth.max(right.depth);
                self.operand(Node::Compare(operator, Box::new(left.node), Box::new(right.node)), depth)
            }
        }
    }

    fn index(&mut self, index: Operand) -> Result<(), Error> {
        let target = self.pop()?;
        let depth = target.depth.max(index.depth);
        self.operand(Node::Index(Box::new(target.node), Box::new(index.node)), depth)
    }

    /// Puts down a node whose deepest child is `below` deep.
    fn operand(&mut self, node: Node, below: usize) -> Result<(), Error> {
        let depth = below + 1;
        if depth > MAX_DEPTH {
            return Err(Error::new(ErrorKind::Limit, format!("Exceeded max expression depth {MAX_DEPTH}"), 0));
        }
        self.operands.push(Operand { node, depth });
        Ok(())
    }

    /// The lexer lets no operator pass without its operands; a mistake there is an error, not a panic.
    fn pop(&mut self) -> Result<Operand, Error> {
        self.operands.pop().ok_or_else(|| self.fault(Fault::UnexpectedEnd, "", self.text.len()))
    }

    fn fault(&self, fault: Fault, token: &str, start: usize) -> Error {
        fault.error(ErrorKind::Parsing, self.text, token, start)
    }
}
