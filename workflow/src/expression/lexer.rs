//! Text to tokens. Every token is checked against the one before it, so the parser sees only well-formed sequences.

use super::ast::Operator;
use super::syntax_fault::SyntaxFault;
use super::{ExpressionError, ExpressionErrorKind, Value, number};

#[derive(Debug, Clone)]
pub(super) enum Kind {
    Literal(Value),
    Context,
    Property,
    Function,
    Wildcard,
    Dot,
    Comma,
    Open(Bracket),
    Close(Bracket),
    Operator(Operator),
}

/// What a bracket encloses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bracket {
    Group,
    Index,
    Call,
}

#[derive(Debug, Clone)]
pub(super) struct Token<'t> {
    pub(super) kind: Kind,
    pub(super) text: &'t str,
    /// Byte offset in the expression.
    pub(super) start: usize,
}

/// What may come next, told by the last token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// An operand: at the start, after an operator, a comma, `(`.
    Operand,
    /// An operand or `*`.
    Index,
    /// An operand or `)`.
    Arguments,
    /// A property name or `*`.
    Property,
    /// The `(` of a call.
    Call,
    /// An operator, `.`, `[`, `,` or a closing bracket.
    Continuation,
    /// The same without `.` and `[`: literals have no properties.
    AfterLiteral,
}

pub(super) struct Lexer<'t> {
    text: &'t str,
    position: usize,
    next: Next,
    open: Vec<Bracket>,
}

impl<'t> Lexer<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, position: 0, next: Next::Operand, open: Vec::new() }
    }

    /// Whether the expression may end here.
    pub(super) fn complete(&self) -> bool {
        self.open.is_empty() && matches!(self.next, Next::Continuation | Next::AfterLiteral)
    }

    /// The next token; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token<'t>>, ExpressionError> {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start().len();
        let rest = self.rest();
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let (length, kind) = match first {
            '(' if self.next == Next::Call => (1, Some(Kind::Open(Bracket::Call))),
            '(' => (1, Some(Kind::Open(Bracket::Group))),
            '[' => (1, Some(Kind::Open(Bracket::Index))),
            ')' if self.open.last() == Some(&Bracket::Call) => (1, Some(Kind::Close(Bracket::Call))),
            ')' => (1, Some(Kind::Close(Bracket::Group))),
            ']' => (1, Some(Kind::Close(Bracket::Index))),
            ',' => (1, Some(Kind::Comma)),
            '*' => (1, Some(Kind::Wildcard)),
            '\'' => string(rest),
            '!' | '<' | '>' | '=' | '&' | '|' => operator(rest),
            '.' if !matches!(self.next, Next::Operand | Next::Index | Next::Arguments) => (1, Some(Kind::Dot)),
            '.' | '-' | '+' | '0'..='9' => numeral(rest),
            _ => self.keyword(rest, first.len_utf8()),
        };
        let token = rest.get(..length).unwrap_or(rest);
        let start = self.position;
        let Some(kind) = kind else {
            return Err(SyntaxFault::UnexpectedSymbol.error(ExpressionErrorKind::Lexing, self.text, token, start));
        };
        let Some(next) = self.follow(&kind) else {
            return Err(SyntaxFault::UnexpectedSymbol.error(ExpressionErrorKind::Parsing, self.text, token, start));
        };
        self.next = next;
        self.position += token.len();
        Ok(Some(Token { kind, text: token, start }))
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.position..).unwrap_or("")
    }

    /// What may follow `kind`; `None` where `kind` itself may not stand here. Keeps account of the open brackets.
    fn follow(&mut self, kind: &Kind) -> Option<Next> {
        let wants_operand = matches!(self.next, Next::Operand | Next::Index | Next::Arguments);
        let ends_operand = matches!(self.next, Next::Continuation | Next::AfterLiteral);
        match kind {
            Kind::Literal(_) => wants_operand.then_some(Next::AfterLiteral),
            Kind::Context => wants_operand.then_some(Next::Continuation),
            Kind::Function => wants_operand.then_some(Next::Call),
            Kind::Operator(Operator::Not) => wants_operand.then_some(Next::Operand),
            Kind::Operator(_) => ends_operand.then_some(Next::Operand),
            Kind::Property => (self.next == Next::Property).then_some(Next::Continuation),
            Kind::Wildcard => matches!(self.next, Next::Property | Next::Index).then_some(Next::Continuation),
            Kind::Dot => (self.next == Next::Continuation).then_some(Next::Property),
            Kind::Comma => (ends_operand && self.open.last() == Some(&Bracket::Call)).then_some(Next::Operand),
            Kind::Open(bracket) => {
                let (legal, next) = match bracket {
                    Bracket::Group => (wants_operand, Next::Operand),
                    Bracket::Index => (self.next == Next::Continuation, Next::Index),
                    Bracket::Call => (self.next == Next::Call, Next::Arguments),
                };
                self.open.push(*bracket);
                legal.then_some(next)
            }
            Kind::Close(bracket) => {
                let empty_call = *bracket == Bracket::Call && self.next == Next::Arguments;
                let matches = self.open.pop() == Some(*bracket);
                (matches && (ends_operand || empty_call)).then_some(Next::Continuation)
            }
        }
    }

    fn keyword(&self, rest: &str, first: usize) -> (usize, Option<Kind>) {
        let length = token_length(rest, first, |_| false);
        let word = rest.get(..length).unwrap_or(rest);
        if !is_name(word) {
            return (length, None);
        }
        let after = rest.get(length..).unwrap_or("").trim_start();
        let kind = match word {
            _ if self.next == Next::Property => Kind::Property,
            "null" => Kind::Literal(Value::Null),
            "true" => Kind::Literal(Value::Bool(true)),
            "false" => Kind::Literal(Value::Bool(false)),
            "NaN" => Kind::Literal(Value::Number(f64::NAN)),
            "Infinity" => Kind::Literal(Value::Number(f64::INFINITY)),
            _ if after.starts_with('(') => Kind::Function,
            _ => Kind::Context,
        };
        (length, Some(kind))
    }
}

/// Whether `word` may name a context, property or function.
fn is_name(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// The length of a token whose first `first` bytes belong to it: to the next boundary that is not in `within`.
fn token_length(rest: &str, first: usize, within: impl Fn(char) -> bool) -> usize {
    let boundary = |character: char| {
        matches!(character, '(' | '[' | ')' | ']' | ',' | '.' | '!' | '>' | '<' | '=' | '&' | '|')
            || character.is_whitespace()
    };
    let tail = rest.get(first..).unwrap_or("");
    tail.find(|character| boundary(character) && !within(character)).map_or(rest.len(), |end| first + end)
}

fn numeral(rest: &str) -> (usize, Option<Kind>) {
    let length = token_length(rest, 1, |character| character == '.');
    let number = rest.get(..length).map_or(f64::NAN, number::parse);
    (length, (!number.is_nan()).then_some(Kind::Literal(Value::Number(number))))
}

/// Text between single quotes; a quote inside is written twice.
fn string(rest: &str) -> (usize, Option<Kind>) {
    let mut text = String::new();
    let mut position = 1;
    while let Some((part, _)) = rest.get(position..).and_then(|tail| tail.split_once('\'')) {
        text.push_str(part);
        position += part.len() + 1;
        if !rest.get(position..).is_some_and(|tail| tail.starts_with('\'')) {
            return (position, Some(Kind::Literal(text.into())));
        }
        text.push('\'');
        position += 1;
    }
    (rest.len(), None)
}

fn operator(rest: &str) -> (usize, Option<Kind>) {
    const OPERATORS: [(&str, Operator); 9] = [
        ("!=", Operator::NotEqual),
        (">=", Operator::GreaterOrEqual),
        ("<=", Operator::LessOrEqual),
        ("==", Operator::Equal),
        ("&&", Operator::And),
        ("||", Operator::Or),
        ("!", Operator::Not),
        (">", Operator::Greater),
        ("<", Operator::Less),
    ];
    match OPERATORS.iter().find(|(text, _)| rest.starts_with(text)) {
        Some((text, operator)) => (text.len(), Some(Kind::Operator(*operator))),
        None => (token_length(rest, 1, |_| false), None),
    }
}
