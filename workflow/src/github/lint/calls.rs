//! Workflows that jobs call.

use std::collections::HashSet;

use crate::dialect::surroundings::{RepositoryFile, Surroundings};
use crate::dialect::workflow_ref::WorkflowRef;
use crate::github::report::Report;
use crate::github::workflow_ref::resolve;
use crate::yaml::YamlNode;

use super::start;
use super::walk::{jobs, of_this_repository, plain};

pub(super) fn check(root: &YamlNode, around: &dyn Surroundings, report: &mut Report<'_>) {
    let mut seen = HashSet::new();
    for (_, job) in jobs(root) {
        let Some((uses, text)) = job.get("uses").and_then(|uses| Some((uses, plain(uses)?))) else { continue };
        // One that many jobs call is complained of once.
        if text.is_empty() || !seen.insert(text) {
            continue;
        }
        match resolve(&WorkflowRef::local(""), text) {
            Ok(place) if place.remote.is_none() && around.file(&place.path) == RepositoryFile::Missing => {
                report.warning(uses.span, format!("there is no workflow `{text}`"));
            }
            Ok(_) => {}
            Err(_) if of_this_repository(text).is_some() && text.contains('@') => {
                let help = "leave out `@` and what follows: the workflow is taken from the same commit".to_owned();
                report.warning_with(
                    uses.span,
                    format!("`{text}`: a workflow of this repository has no version"),
                    Some(help),
                );
            }
            Err(why) => report.warning(uses.span, why),
        }
    }
}

/// Places of references to workflows that nobody looks at here: those of other repositories, and what an expression
/// gives. A run that reaches one refuses what it can't use.
pub(super) fn not_looked_at(root: &YamlNode) -> Vec<(usize, usize)> {
    let is_other = |uses: &&YamlNode| {
        let text = uses.text().unwrap_or_default();
        let parts = text.split('@').next().unwrap_or_default().split('/').filter(|part| !part.is_empty()).count();
        text.contains("${{") || (!text.starts_with(['.', '/', '$']) && text.contains('@') && parts > 2)
    };
    jobs(root).filter_map(|(_, job)| job.get("uses")).filter(is_other).map(|uses| start(uses.span)).collect()
}
