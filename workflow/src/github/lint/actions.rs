//! What steps give to actions, held against what the actions take.

use crate::dialect::surroundings::{RepositoryFile, Surroundings};
use crate::github::report::Report;
use crate::github::workflow_ref::split_uses;
use crate::spelling::{listed, suggestion};
use crate::yaml::YamlNode;

use super::action_file::{self, ActionShape};
use super::known_actions;
use super::walk::{jobs, of_this_repository, plain, steps};

/// Inputs that every Docker action takes (GitHub docs: "Metadata syntax", `runs.args`).
const OF_EVERY_IMAGE: [&str; 2] = ["args", "entrypoint"];

pub(super) fn check(root: &YamlNode, around: &dyn Surroundings, report: &mut Report<'_>) {
    for (_, job) in jobs(root) {
        // Whether the workspace has nothing but what the repository has.
        let mut only_checkout = true;
        for step in steps(job) {
            let Some((uses, text)) = step.get("uses").and_then(|uses| Some((uses, plain(uses)?))) else {
                only_checkout = false;
                continue;
            };
            if let Some(image) = text.strip_prefix("docker://") {
                self::image(uses, image, report);
            } else if let Some(folder) = of_this_repository(text) {
                // `$/` is the commit, whatever steps made of the workspace.
                let certain = only_checkout || text.starts_with('$');
                local(step, uses, folder, around, certain, report);
            } else if let Some((name, reference)) = text.rsplit_once('@') {
                remote(step, uses, (name, reference), around, report);
            }
            only_checkout &= is_plain_checkout(step, text);
        }
    }
}

/// The shape of what a step uses, as far as it is known.
pub(super) fn shape_of(uses: &str, around: &dyn Surroundings) -> Option<ActionShape> {
    if let Some(folder) = of_this_repository(uses) {
        return match file_of(folder, around) {
            RepositoryFile::Text(text) => action_file::read(&text).0,
            RepositoryFile::Missing | RepositoryFile::Unknown => None,
        };
    }
    let (name, reference) = uses.rsplit_once('@')?;
    let fetched = || {
        let (repository, folder) = split_uses(name)?;
        action_file::read(&around.fetched_action(&repository, &folder, reference)?).0
    };
    fetched().or_else(|| known_actions::shape(name))
}

fn is_plain_checkout(step: &YamlNode, uses: &str) -> bool {
    let elsewhere = |with: &YamlNode| with.get("repository").is_some() || with.get("path").is_some();
    let of_submodules = |with: &YamlNode| with.get("submodules").is_some();
    uses.to_lowercase().starts_with("actions/checkout@")
        && !step.get("with").is_some_and(|with| elsewhere(with) || of_submodules(with))
}

fn image(uses: &YamlNode, image: &str, report: &mut Report<'_>) {
    let (name, tag) = match image.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (image, None),
    };
    if name.is_empty() {
        report.warning_with(uses.span, "`docker://` names no image", Some("write `docker://IMAGE:TAG`".to_owned()));
    } else if tag == Some("") {
        let help = format!("write `docker://{name}:TAG`, or leave the `:` out");
        report.warning_with(uses.span, format!("the tag of the image `{name}` is empty"), Some(help));
    }
}

/// `action.yml` of a folder of the repository.
fn file_of(folder: &str, around: &dyn Surroundings) -> RepositoryFile {
    let folder = folder.trim_end_matches('/');
    let parts = folder.split('/').filter(|part| !matches!(*part, "" | "."));
    let folder = parts.collect::<Vec<_>>().join("/");
    if folder.split('/').any(|part| part == "..") {
        return RepositoryFile::Unknown;
    }
    let path = |name: &str| if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    for name in ["action.yml", "action.yaml"] {
        match around.file(&path(name)) {
            RepositoryFile::Missing => {}
            found => return found,
        }
    }
    match around.file(&path("Dockerfile")) {
        RepositoryFile::Missing => RepositoryFile::Missing,
        _ => RepositoryFile::Unknown,
    }
}

fn local(
    step: &YamlNode,
    uses: &YamlNode,
    folder: &str,
    around: &dyn Surroundings,
    certain: bool,
    report: &mut Report<'_>,
) {
    match file_of(folder, around) {
        RepositoryFile::Text(text) => {
            let (shape, wrong) = action_file::read(&text);
            for why in wrong {
                report.warning(uses.span, format!("the action in `{folder}` is not right: {why}"));
            }
            if let Some(shape) = shape {
                inputs(step, uses, &shape, report);
            }
        }
        RepositoryFile::Missing if certain => {
            let help = "name a folder that has an `action.yml`".to_owned();
            report.warning_with(uses.span, format!("there is no action in `{folder}`"), Some(help));
        }
        RepositoryFile::Missing | RepositoryFile::Unknown => {}
    }
}

fn remote(
    step: &YamlNode,
    uses: &YamlNode,
    (name, reference): (&str, &str),
    around: &dyn Surroundings,
    report: &mut Report<'_>,
) {
    if let Some(oldest) = known_actions::newer_than(name, reference) {
        let message = format!("`{name}@{reference}` was made for a Node that is not maintained any more");
        report.warning_with(uses.span, message, Some(format!("`{name}@v{oldest}` is the oldest that is not")));
        // What an old version takes is not in the table.
        return;
    }
    let uses_text = uses.text().unwrap_or_default();
    if let Some(shape) = shape_of(uses_text, around) {
        inputs(step, uses, &shape, report);
    }
}

fn inputs(step: &YamlNode, uses: &YamlNode, shape: &ActionShape, report: &mut Report<'_>) {
    let with = step.get("with");
    let given = with.map(YamlNode::entries).unwrap_or_default();
    // What one expression gives may be anything.
    let is_open = |node: &YamlNode| node.text().is_some_and(|text| text.contains("${{"));
    let dynamic = with.is_some_and(is_open) || given.iter().any(|(key, _)| is_open(key));
    let missing: Vec<&str> = shape
        .required()
        .filter(|name| !given.iter().any(|(key, _)| key.text().is_some_and(|key| key.eq_ignore_ascii_case(name))))
        .collect();
    let action = if shape.name.is_empty() { uses.text().unwrap_or_default() } else { &shape.name };
    if let (Some(first), false) = (missing.first(), dynamic) {
        let what = if missing.len() == 1 { "the input" } else { "the inputs" };
        let message = format!("`{action}` needs {what} {}", listed(missing.iter().copied()));
        report.warning_with(uses.span, message, Some(format!("give it under `with:`, as `{first}: …`")));
    }
    for (key, _) in given {
        let Some(text) = key.text().filter(|text| !text.contains("${{")) else { continue };
        if let Some(why) = shape.deprecation(text) {
            let near = suggestion(text, shape.names());
            let help = if why.is_empty() { near } else { Some(why.to_owned()) };
            report.warning_with(key.span, format!("the input `{text}` of `{action}` is deprecated"), help);
        } else if !shape.takes(text) {
            let of_image = OF_EVERY_IMAGE.iter().any(|known| known.eq_ignore_ascii_case(text));
            let known = || match shape.names().next() {
                Some(_) => format!("it takes {}", listed(shape.names())),
                None if of_image => "only Docker actions take it".to_owned(),
                None => "it takes none".to_owned(),
            };
            let help = suggestion(text, shape.names()).unwrap_or_else(known);
            report.warning_with(key.span, format!("`{action}` takes no input `{text}`"), Some(help));
        }
    }
}
