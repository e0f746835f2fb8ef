//! Which parts of the contexts a text may print: what the values of its expressions are made of.

use super::{
    Value,
    ast::{Callee, ExpressionNode},
    builtin::Builtin,
    interpolate::expressions,
};

/// A part of a context whose text may stand in a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintedPath {
    /// Where it is named: a byte offset in the text.
    pub position: usize,
    /// The context and the keys below it, in lower case; `*` for any.
    pub keys: Vec<String>,
}

/// The parts of contexts whose text may stand in `text` once it is evaluated. What is only compared or searched is none
/// of them. What can't be read names nothing: it fails by itself.
#[must_use]
pub fn printed_in(text: &str) -> Vec<PrintedPath> {
    let mut found = Vec::new();
    for (start, expression) in expressions(text) {
        if let Some(root) = &expression.root {
            collect(root, start, &mut found);
        }
    }
    found
}

fn collect(node: &ExpressionNode, start: usize, found: &mut Vec<PrintedPath>) {
    match node {
        ExpressionNode::Literal(_)
        | ExpressionNode::Wildcard
        | ExpressionNode::Not(_)
        | ExpressionNode::Compare(..)
        | ExpressionNode::Call { callee: Callee::Host, .. } => {}
        ExpressionNode::Context { .. } | ExpressionNode::Index { .. } => {
            let mut keys = Vec::new();
            match path(node, &mut keys) {
                Some(at) => found.push(PrintedPath { position: start + at, keys }),
                // A part of what a function made, e.g. `fromJSON(…).a`.
                None => below(node, start, found),
            }
        }
        ExpressionNode::Call { callee: Callee::Builtin(builtin), args, .. } => match builtin {
            Builtin::Contains | Builtin::StartsWith | Builtin::EndsWith => {}
            Builtin::Format | Builtin::FromJson | Builtin::Join | Builtin::ToJson => {
                args.iter().for_each(|argument| collect(argument, start, found));
            }
            // Pairs of a condition and a value, then a value.
            Builtin::Case => {
                let is_value = |at: usize| at % 2 == 1 || at + 1 == args.len();
                let values = args.iter().enumerate().filter(|(at, _)| is_value(*at));
                values.for_each(|(_, value)| collect(value, start, found));
            }
        },
        // Its value is the last, or one that is empty, zero or false.
        ExpressionNode::All(nodes) => nodes.last().into_iter().for_each(|node| collect(node, start, found)),
        ExpressionNode::Any(nodes) => nodes.iter().for_each(|node| collect(node, start, found)),
    }
}

/// The keys of a chain of accesses that begins with a context, and where that is.
fn path(node: &ExpressionNode, keys: &mut Vec<String>) -> Option<usize> {
    match node {
        ExpressionNode::Context { name, at } => {
            keys.push(name.to_lowercase());
            Some(*at)
        }
        ExpressionNode::Index { target, key, .. } => {
            let at = path(target, keys)?;
            keys.push(match &**key {
                ExpressionNode::Literal(Value::String(key)) => key.to_lowercase(),
                _ => "*".to_owned(),
            });
            Some(at)
        }
        _ => None,
    }
}

fn below(node: &ExpressionNode, start: usize, found: &mut Vec<PrintedPath>) {
    match node {
        ExpressionNode::Index { target, .. } => below(target, start, found),
        other => collect(other, start, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_printed_is_found_and_what_is_compared_is_not() {
        for (text, expected) in [
            ("no expression", vec![]),
            ("x ${{ github.head_ref }}", vec![(6, "github.head_ref")]),
            ("${{ GitHub['Event'].issue.title }}", vec![(4, "github.event.issue.title")]),
            ("${{ github.event.commits[0].message }}", vec![(4, "github.event.commits.*.message")]),
            ("${{ join(github.event.commits.*.message, ' ') }}", vec![(9, "github.event.commits.*.message")]),
            ("${{ toJSON(github) }} ${{ github[env.a] }}", vec![(11, "github"), (26, "github.*")]),
            ("${{ fromJSON(github.event.issue.body).a.b }}", vec![(13, "github.event.issue.body")]),
            ("${{ github.ref == 'refs/heads/main' && 'a' || 'b' }}", vec![]),
            ("${{ contains(github.ref, 'x') }} ${{ !github.ref }}", vec![]),
            ("${{ github.head_ref || github.ref_name }}", vec![(4, "github.head_ref"), (23, "github.ref_name")]),
            (
                "${{ case(github.ref == 'x', env.a, github.ref, env.b, env.c) }}",
                vec![(28, "env.a"), (47, "env.b"), (54, "env.c")],
            ),
            ("${{ hashFiles(github.ref) }} ${{ broken", vec![]),
        ] {
            let found: Vec<_> = printed_in(text).into_iter().map(|one| (one.position, one.keys.join("."))).collect();
            let expected: Vec<_> = expected.into_iter().map(|(at, path)| (at, path.to_owned())).collect();
            assert_eq!(found, expected, "{text}");
        }
    }
}
