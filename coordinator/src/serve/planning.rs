//! A run's files are fetched and read until its plan needs no more of them.

use anyhow::Context;
use indexmap::IndexMap;
use workflow::github::{
    family::{Known, Unread},
    place::Place,
};

use super::{supply::Supply, tasks::Tasks};
use crate::{
    plan::{self, Facts, Numbers, Step},
    run::{Planned, State},
    source::{
        Resolved, SourceError, Wanted,
        lock::Lock,
        outside::{Asked, Found, Need},
    },
};

/// Why there is no plan.
pub(super) enum Failure {
    /// The author can read why.
    Author(String),
    /// It may be there in a moment.
    NotYet(String),
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        match error {
            SourceError::NotYet(why) => Self::NotYet(why),
            SourceError::Refused(why) => Self::Author(why),
        }
    }
}

/// Repositories of called workflows, each resolved once for a plan: all its files are of one commit.
type Origins = IndexMap<String, Result<Found, String>>;

impl Tasks {
    pub(super) async fn plan(&self, state: &State) -> Result<Planned, Failure> {
        let request = &state.request;
        let path = plan::workflow_path(&request.workflow).map_err(Failure::Author)?.to_owned();
        let wanted = Wanted {
            commit: request.commit.clone(),
            branch: request.branch.clone(),
            reference: request.reference.clone(),
        };
        let found = self.sources.resolve(&request.repository, &wanted).await?;
        let mut supply = Supply::new(self, &found);
        let text = match supply.text(&path).await? {
            Some(text) => Some(text.map_err(|why| Failure::Author(format!("{path}: {why}")))?),
            None => None,
        };
        let facts = Facts {
            commit: found.commit.clone(),
            reference: found.reference.clone(),
            default_branch: found.default_branch.clone(),
            description: found.description.clone(),
            trusted: found.trusted,
            maintainers: found.maintainers.clone(),
            relays: found.relays.clone(),
            definition: supply.of(&path).map(|supplied| supplied.event.clone()),
        };
        let numbers = Numbers { serial: state.serial, number: state.number, attempt: state.attempt };
        let (mut known, mut origins) = (Known::new(), Origins::new());
        loop {
            match plan::plan(request, &facts, text.as_deref(), &known, numbers).map_err(Failure::Author)? {
                Step::Planned(mut planned) => {
                    let commit = |(name, found): (String, Result<Found, String>)| Some((name, found.ok()?.commit));
                    planned.origins = origins.into_iter().filter_map(commit).collect();
                    planned.supplied = supply.used();
                    return Ok(*planned);
                }
                Step::Needs(places) => {
                    for place in places {
                        let text = self.called(&found, &mut supply, &place, &mut origins).await?;
                        known.insert(place, text.map_err(Unread::Missing));
                    }
                }
            }
        }
    }

    /// The text of a called workflow, or why there is none.
    async fn called(
        &self,
        own: &Resolved,
        supply: &mut Supply<'_>,
        place: &Place,
        origins: &mut Origins,
    ) -> Result<Result<String, String>, Failure> {
        let Some(origin) = &place.origin else {
            let text = supply.text(&place.path).await?;
            return Ok(text.unwrap_or_else(|| Err(format!("there is no such file at commit {}", own.commit))));
        };
        let name = origin.to_string();
        if !origins.contains_key(&name) {
            let lock: Option<Lock> = self.sources.lock_of(&own.repository.address, &own.commit).await?;
            let need = Need::Tree(lock.as_ref());
            let asked = Asked { repository: &origin.repository, reference: &origin.reference, need };
            let found = match self.sources.find(&asked).await {
                Ok(found) => Ok(found),
                Err(SourceError::Refused(why)) => Err(why),
                Err(error) => return Err(error.into()),
            };
            origins.insert(name.clone(), found);
        }
        let found = match origins.get(&name) {
            Some(Ok(found)) => found,
            Some(Err(why)) => return Ok(Err(why.clone())),
            None => return Ok(Err(format!("{name} was not looked for"))),
        };
        let bytes = self.sources.file(found, &place.path, self.config.limits.workflow_bytes).await?;
        Ok(bytes.ok_or_else(|| format!("{name} has no such file at commit {}", found.commit)).and_then(utf8))
    }
}

pub(super) async fn read(found: Resolved, path: String, limit: usize) -> Result<Option<Vec<u8>>, Failure> {
    let read = tokio::task::spawn_blocking(move || found.file(&path, limit)).await.context("reading was ended");
    match read {
        Err(error) => Err(Failure::NotYet(format!("{error:#}"))),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(bytes)) => Ok(bytes),
    }
}

pub(super) fn utf8(bytes: Vec<u8>) -> Result<String, String> {
    String::from_utf8(bytes).map_err(|_| "it is not UTF-8 text: save it as UTF-8".into())
}
