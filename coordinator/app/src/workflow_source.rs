//! Where a run's own workflow files come from: the commit, or a definition where one may stand for them.

use anyhow::Context;
use indexmap::IndexMap;

use super::definitions::Definitions;
use domain::run::DefinitionOverride;
use planning::repository_config::{self, RepositoryConfig};
use source::{MaintainerSet, ResolvedRevision, SourceError};

/// Why there is no plan.
pub(super) enum PlanError {
    /// The author can read why.
    Author(String),
    /// It may be there in a moment.
    NotYet(String),
}

impl From<SourceError> for PlanError {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::NotYet(why) => Self::NotYet(why),
            SourceError::Refused(why) => Self::Author(why),
        }
    }
}

/// Gives the files of one plan.
pub(super) struct WorkflowSource<'a> {
    definitions: Definitions,
    /// What the operator lets definitions do in this repository.
    operator: config::Definitions,
    /// Bytes of one file.
    limit: usize,
    found: &'a ResolvedRevision,
    /// What definitions may do, once it was asked for.
    policy: Option<config::Definitions>,
    /// What came from definitions, by path.
    used: IndexMap<String, DefinitionOverride>,
}

impl<'a> WorkflowSource<'a> {
    pub(super) fn new(
        definitions: Definitions,
        operator: config::Definitions,
        limit: usize,
        found: &'a ResolvedRevision,
    ) -> Self {
        Self { definitions, operator, limit, found, policy: None, used: IndexMap::new() }
    }

    /// The text at a path, or what is wrong with it; `None`: there is none.
    pub(super) async fn text(&mut self, path: &str) -> Result<Option<Result<String, String>>, PlanError> {
        let bytes = read(self.found.clone(), path.to_owned(), self.limit).await?;
        let replaces = bytes.is_some();
        if self.policy().await?.supply(replaces)
            && let Some(text) = self.defined(path, replaces).await?
        {
            return Ok(Some(Ok(text)));
        }
        Ok(bytes.map(utf8))
    }

    /// The definition that the file at a path came from.
    pub(super) fn of(&self, path: &str) -> Option<&DefinitionOverride> {
        self.used.get(path)
    }

    /// All that came from definitions.
    pub(super) fn used(self) -> Vec<DefinitionOverride> {
        self.used.into_values().collect()
    }

    async fn defined(&mut self, path: &str, replaces: bool) -> Result<Option<String>, PlanError> {
        let standing = MaintainerSet { maintainers: self.found.maintainers.clone(), relays: self.found.relays.clone() };
        let found = self.definitions.at(&self.found.repository.address, path, &standing).await;
        let found =
            found.map_err(|error| PlanError::NotYet(format!("its definitions can't be looked for: {error:#}")))?;
        let Some(definition) = found else { return Ok(None) };
        let supplied = DefinitionOverride {
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
    async fn policy(&mut self) -> Result<config::Definitions, PlanError> {
        if let Some(policy) = self.policy {
            return Ok(policy);
        }
        let operator = self.operator;
        let mut own = None;
        if operator != config::Definitions::Off
            && self.found.proven
            && let Some(bytes) = read(self.found.clone(), repository_config::PATH.to_owned(), self.limit).await?
        {
            let text = utf8(bytes).map_err(|why| PlanError::Author(format!("{}: {why}", repository_config::PATH)))?;
            own = RepositoryConfig::read(&text).map_err(PlanError::Author)?.definitions;
        }
        let policy = operator.with(own);
        self.policy = Some(policy);
        Ok(policy)
    }
}

async fn read(found: ResolvedRevision, path: String, limit: usize) -> Result<Option<Vec<u8>>, PlanError> {
    let read = tokio::task::spawn_blocking(move || found.file(&path, limit)).await.context("reading was ended");
    match read {
        Err(error) => Err(PlanError::NotYet(format!("{error:#}"))),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

pub(super) fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text: save it as UTF-8".into())
}
