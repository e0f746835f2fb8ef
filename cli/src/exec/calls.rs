//! Reads a workflow and all it calls: from the checkout, and from the repositories it names.

use indexmap::IndexMap;
use workflow::{
    diagnostic::Diagnostic,
    github::{
        family::{Family, Unread},
        place::Place,
    },
};

use super::{checkout::Checkout, sources::ExecSources};

/// A workflow with what it calls, where that can be run, and what is to be said of it.
pub(super) struct Read {
    pub(super) family: Option<Family>,
    pub(super) findings: Vec<Diagnostic>,
    /// Repositories that called workflows come from, and their commits.
    pub(super) origins: IndexMap<String, String>,
}

/// Reads until nothing is missing.
pub(super) async fn read(path: &str, text: &str, checkout: &Checkout, sources: &ExecSources) -> Read {
    let mut origins = IndexMap::new();
    let find = async |place: &Place| {
        let text = called(place, checkout, sources, &mut origins).await;
        text.map_err(|error| Unread::Missing(format!("{error:#}")))
    };
    let (family, findings) = crate::calls::read(path, text, find).await;
    Read { family, findings, origins }
}

async fn called(
    place: &Place,
    checkout: &Checkout,
    sources: &ExecSources,
    origins: &mut IndexMap<String, String>,
) -> anyhow::Result<String> {
    let Some(origin) = &place.origin else { return checkout.read(&place.path) };
    // Once resolved, a repository stays at its commit: all its files are of one.
    let commit = origins.get(&origin.to_string()).cloned();
    let (commit, text) = sources.workflow(origin, commit, &place.path).await?;
    origins.insert(origin.to_string(), commit);
    Ok(text)
}
