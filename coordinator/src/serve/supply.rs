//! Where a run's own workflow files come from: the commit, or a definition where one may stand for them.

use indexmap::IndexMap;

use super::{
    planning::{Failure, read, utf8},
    tasks::Tasks,
};
use crate::{
    config,
    plan::own::{self, Own},
    run::Supplied,
    source::{Resolved, Standing},
};

/// Gives the files of one plan.
pub(super) struct Supply<'a> {
    tasks: &'a Tasks,
    found: &'a Resolved,
    /// What definitions may do, once it was asked for.
    policy: Option<config::Definitions>,
    /// What came from definitions, by path.
    used: IndexMap<String, Supplied>,
}

impl<'a> Supply<'a> {
    pub(super) fn new(tasks: &'a Tasks, found: &'a Resolved) -> Self {
        Self { tasks, found, policy: None, used: IndexMap::new() }
    }

    /// The text at a path, or what is wrong with it; `None`: there is none.
    pub(super) async fn text(&mut self, path: &str) -> Result<Option<Result<String, String>>, Failure> {
        let limit = self.tasks.config.limits.workflow_bytes;
        let bytes = read(self.found.clone(), path.to_owned(), limit).await?;
        let replaces = bytes.is_some();
        if self.policy().await?.supply(replaces)
            && let Some(text) = self.defined(path, replaces).await?
        {
            return Ok(Some(Ok(text)));
        }
        Ok(bytes.map(utf8))
    }

    /// The definition that the file at a path came from.
    pub(super) fn of(&self, path: &str) -> Option<&Supplied> {
        self.used.get(path)
    }

    /// All that came from definitions.
    pub(super) fn used(self) -> Vec<Supplied> {
        self.used.into_values().collect()
    }

    async fn defined(&mut self, path: &str, replaces: bool) -> Result<Option<String>, Failure> {
        let standing = Standing { maintainers: self.found.maintainers.clone(), relays: self.found.relays.clone() };
        let found = self.tasks.definitions.at(&self.found.repository.address, path, &standing).await;
        let found =
            found.map_err(|error| Failure::NotYet(format!("its definitions can't be looked for: {error:#}")))?;
        let Some(definition) = found else { return Ok(None) };
        let supplied = Supplied {
            path: path.to_owned(),
            event: definition.event,
            author: definition.author,
            sha256: definition.sha256,
            replaces,
        };
        self.used.insert(path.to_owned(), supplied);
        Ok(definition.text)
    }

    /// The operator's word, and the repository's own where its maintainers stand for the commit.
    async fn policy(&mut self) -> Result<config::Definitions, Failure> {
        if let Some(policy) = self.policy {
            return Ok(policy);
        }
        let operator = self.tasks.engine.definitions_policy(&self.found.repository);
        let mut own = None;
        if operator != config::Definitions::Off && self.found.trusted {
            let limit = self.tasks.config.limits.workflow_bytes;
            if let Some(bytes) = read(self.found.clone(), own::PATH.to_owned(), limit).await? {
                let text = utf8(bytes).map_err(|why| Failure::Author(format!("{}: {why}", own::PATH)))?;
                own = Own::read(&text).map_err(Failure::Author)?.definitions;
            }
        }
        let policy = operator.with(own);
        self.policy = Some(policy);
        Ok(policy)
    }
}
