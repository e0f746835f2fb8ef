//! Parts of a file's tree that several checks look at. The tree may have any shape.

use crate::yaml::{YamlNode, YamlValue};

/// Jobs by their ids.
pub(super) fn jobs(root: &YamlNode) -> impl Iterator<Item = (&YamlNode, &YamlNode)> {
    root.get("jobs").map(YamlNode::entries).unwrap_or_default().iter().map(|(id, job)| (id, job))
}

/// The steps of a job, those of `parallel` groups in their places.
pub(super) fn steps(job: &YamlNode) -> impl Iterator<Item = &YamlNode> {
    job.get("steps").map(YamlNode::items).unwrap_or_default().iter().flat_map(|entry| match entry.get("parallel") {
        Some(YamlNode { value: YamlValue::Sequence(members), .. }) => members.as_slice(),
        _ => std::slice::from_ref(entry),
    })
}

/// The steps of all jobs.
pub(super) fn all_steps(root: &YamlNode) -> impl Iterator<Item = &YamlNode> {
    jobs(root).flat_map(|(_, job)| steps(job))
}

/// The key of a mapping's entry.
pub(super) fn key<'n>(node: &'n YamlNode, name: &str) -> Option<&'n YamlNode> {
    node.entries().iter().map(|(key, _)| key).find(|key| key.text() == Some(name))
}

/// One node, or each of a list.
pub(super) fn listed(node: Option<&YamlNode>) -> &[YamlNode] {
    match node {
        Some(YamlNode { value: YamlValue::Sequence(items), .. }) => items,
        Some(node) => std::slice::from_ref(node),
        None => &[],
    }
}

/// The text of a scalar that has no expression in it.
pub(super) fn plain(node: &YamlNode) -> Option<&str> {
    node.text().filter(|text| !text.contains("${{"))
}

/// Whether there is an expression in a value, at any depth.
pub(super) fn is_dynamic(node: &YamlNode) -> bool {
    match &node.value {
        YamlValue::Scalar(scalar) => scalar.text.contains("${{"),
        YamlValue::Sequence(items) | YamlValue::Tagged(_, items) => items.iter().any(is_dynamic),
        YamlValue::Mapping(entries) => entries.iter().any(|(key, value)| is_dynamic(key) || is_dynamic(value)),
    }
}

/// The path of what `uses` names in the repository of the file.
pub(super) fn of_this_repository(uses: &str) -> Option<&str> {
    uses.strip_prefix("./").or_else(|| uses.strip_prefix("$/"))
}

/// Declarations of an event: the value below its name in `on:`.
pub(super) fn event<'n>(root: &'n YamlNode, name: &str) -> Option<&'n YamlNode> {
    root.get("on")?.get(name)
}

/// Whether the file names an event, in whatever form.
pub(super) fn names_event(root: &YamlNode, name: &str) -> bool {
    let Some(on) = root.get("on") else { return false };
    on.get(name).is_some() || listed(Some(on)).iter().any(|node| node.text() == Some(name))
}
