//! Which entries of a context a text names, for questions that are asked before anything is evaluated.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::{Value, ast::ExpressionNode, interpolate::expressions};

/// Entries of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedEntries {
    /// These, in lower case.
    Some(BTreeSet<String>),
    /// Maybe any: the context is used whole, or by a name that is worked out.
    All,
}

impl Default for NamedEntries {
    fn default() -> Self {
        Self::Some(BTreeSet::new())
    }
}

impl NamedEntries {
    /// Whether this entry is among them. Case makes no difference.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        match self {
            Self::Some(names) => names.contains(&name.to_lowercase()),
            Self::All => true,
        }
    }

    /// Takes in others.
    pub fn extend(&mut self, other: Self) {
        match (&mut *self, other) {
            (Self::Some(names), Self::Some(more)) => names.extend(more),
            (_, Self::All) => *self = Self::All,
            (Self::All, _) => {}
        }
    }
}

/// Entries of `context` that the `${{ }}` in a tree's texts name. What can't be read names nothing: it fails by itself.
#[must_use]
pub fn named_in(tree: &Json, context: &str) -> NamedEntries {
    let mut found = NamedEntries::default();
    match tree {
        Json::String(text) => {
            for (_, expression) in expressions(text) {
                if let Some(root) = &expression.root {
                    found.extend(of(root, context));
                }
            }
        }
        Json::Array(items) => items.iter().for_each(|item| found.extend(named_in(item, context))),
        Json::Object(entries) => entries.values().for_each(|value| found.extend(named_in(value, context))),
        Json::Null | Json::Bool(_) | Json::Number(_) => {}
    }
    found
}

fn of(root: &ExpressionNode, context: &str) -> NamedEntries {
    let is_it = |node: &ExpressionNode| matches!(node, ExpressionNode::Context { name, .. } if name.eq_ignore_ascii_case(context));
    let (mut names, mut uses, mut named) = (BTreeSet::new(), 0_usize, 0_usize);
    root.visit(&mut |node| {
        if is_it(node) {
            uses += 1;
        }
        if let ExpressionNode::Index { target, key, .. } = node
            && let (true, ExpressionNode::Literal(Value::String(name))) = (is_it(target), &**key)
        {
            named += 1;
            names.insert(name.to_lowercase());
        }
    });
    if uses == named { NamedEntries::Some(names) } else { NamedEntries::All }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_are_found_at_any_depth_and_a_context_used_whole_may_be_any() {
        let some = |names: &[&str]| NamedEntries::Some(names.iter().map(|name| (*name).to_owned()).collect());
        for (tree, expected) in [
            (json!("secrets.A is only text"), some(&[])),
            (json!({"env": {"T": "x-${{ secrets.TOKEN }}-${{ vars.B }}"}}), some(&["token"])),
            (json!(["${{ secrets['a'] || Secrets.b }}", "${{ format('{0}', secrets.c) }}"]), some(&["a", "b", "c"])),
            (json!("${{ toJSON(secrets) }}"), NamedEntries::All),
            (json!("${{ secrets[format('a')] }}"), NamedEntries::All),
            (json!("${{ secrets.* }}"), NamedEntries::All),
            (json!("${{ broken"), some(&[])),
        ] {
            assert_eq!(named_in(&tree, "secrets"), expected, "{tree}");
        }
        assert!(some(&["token"]).has("TOKEN") && !some(&["token"]).has("OTHER") && NamedEntries::All.has("OTHER"));
    }
}
