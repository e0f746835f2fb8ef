//! Reads a workflow and all it calls: from the checkout, and from the repositories it names.

use anyhow::Result;
use indexmap::IndexMap;
use workflow::{
    diagnostic::Diagnostic,
    github::{
        family::{self, Family, Gathered, Known},
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
pub(super) async fn read(path: &str, text: &str, checkout: &Checkout, sources: &ExecSources) -> Result<Read> {
    let (mut known, mut origins) = (Known::new(), IndexMap::new());
    loop {
        match family::gather(path, text, &known, family::BOUNDS) {
            Gathered::Read(family, findings) => return Ok(Read { family: family.map(|all| *all), findings, origins }),
            Gathered::Missing(places) => {
                for place in places {
                    let text = called(&place, checkout, sources, &mut origins).await;
                    known.insert(place, text);
                }
            }
        }
    }
}

async fn called(
    place: &Place,
    checkout: &Checkout,
    sources: &ExecSources,
    origins: &mut IndexMap<String, String>,
) -> Result<String, String> {
    let Some(origin) = &place.origin else { return checkout.read(&place.path).map_err(|error| format!("{error:#}")) };
    // Once resolved, a repository stays at its commit: all its files are of one.
    let commit = origins.get(&origin.to_string()).cloned();
    let (commit, text) = sources.workflow(origin, commit, &place.path).await.map_err(|error| format!("{error:#}"))?;
    origins.insert(origin.to_string(), commit);
    Ok(text)
}
