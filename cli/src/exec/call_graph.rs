//! Reads a workflow and the workflows it calls: from the checkout, and from the repositories it names.

use indexmap::IndexMap;
use workflow::{
    diagnostic::Diagnostic,
    dialect::{
        call_graph::{CallGraph, UnavailableFile},
        workflow_ref::WorkflowRef,
    },
};

use super::{checkout::Checkout, sources::ExecSources};

/// A workflow with what it calls, where that can be run, and what is to be said of it.
pub(super) struct ReadCallGraph {
    pub(super) graph: Option<CallGraph>,
    pub(super) findings: Vec<Diagnostic>,
    /// Repositories that called workflows come from, and their commits.
    pub(super) origins: IndexMap<String, String>,
}

/// Reads until nothing is missing.
pub(super) async fn read(path: &str, text: &str, checkout: &Checkout, sources: &ExecSources) -> ReadCallGraph {
    let mut origins = IndexMap::new();
    let find = async |place: &WorkflowRef| {
        let text = called(place, checkout, sources, &mut origins).await;
        text.map_err(|error| UnavailableFile::Missing(format!("{error:#}")))
    };
    let (graph, findings) = crate::workflow_files::read(path, text, find).await;
    ReadCallGraph { graph, findings, origins }
}

async fn called(
    place: &WorkflowRef,
    checkout: &Checkout,
    sources: &ExecSources,
    origins: &mut IndexMap<String, String>,
) -> anyhow::Result<String> {
    let Some(remote) = &place.remote else { return checkout.read(&place.path) };
    // Once resolved, a repository stays at its commit: all its files are of one.
    let commit = origins.get(&remote.to_string()).cloned();
    let (commit, text) = sources.workflow(remote, commit, &place.path).await?;
    origins.insert(remote.to_string(), commit);
    Ok(text)
}
