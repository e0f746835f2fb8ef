//! An event for a run with all that follows from it at once: concurrency groups change, and other runs with them. One
//! batch, so that no crash shows a group and a run that disagree.

use std::collections::{HashMap, VecDeque};

use anyhow::Context;

use super::engine::{Applied, Engine};
use crate::{
    group::{self, Group, Member},
    run::{self, Effect, Event, Phase, Refused, State},
    store::{Batch, Change},
};

/// Changes under way: rows as they will be, over those of the store.
pub(super) struct Cascade<'a> {
    engine: &'a Engine,
    runs: HashMap<String, State>,
    groups: HashMap<String, Group>,
    news: VecDeque<(String, Event)>,
    batch: Batch,
}

impl<'a> Cascade<'a> {
    /// What becomes of the run, and everything there is to write. An event that is refused writes nothing.
    pub(super) async fn of(engine: &'a Engine, run: &str, event: Event) -> anyhow::Result<(Applied, Batch)> {
        let (runs, groups) = (HashMap::new(), HashMap::new());
        let mut this = Self { engine, runs, groups, news: VecDeque::new(), batch: Batch::new() };
        if let Err(refused) = this.tell(run, event).await? {
            return Ok((Applied::Unchanged(refused), Batch::new()));
        }
        while let Some((run, event)) = this.news.pop_front() {
            if let Err(refused) = this.tell(&run, event).await? {
                tracing::debug!(run, %refused, "news of a concurrency group changes nothing");
            }
        }
        let state = this.runs.remove(run).with_context(|| format!("there is no run {run}"))?;
        Ok((Applied::Changed(Box::new(state)), this.batch))
    }

    async fn tell(&mut self, run: &str, event: Event) -> anyhow::Result<Result<(), Refused>> {
        let known = match self.runs.remove(run) {
            Some(state) => Some(state),
            None => self.engine.store().run(run).await?,
        };
        let state = known.with_context(|| format!("there is no run {run}"))?;
        let before = state;
        let (state, effects) = match run::advance(&before, event, self.engine.now()) {
            Ok(next) => next,
            Err(refused) => {
                self.runs.insert(run.to_owned(), before);
                return Ok(Err(refused));
            }
        };
        let publisher = match &state.phase {
            Phase::Done { .. } => self.engine.publisher_of(&state).await?,
            _ => None,
        };
        for effect in &effects {
            let (event, name) = match effect {
                Effect::Join { job, ask } => {
                    let since = self.engine.now();
                    let member = Member { run: state.id.clone(), serial: state.serial, job: job.clone(), since };
                    (group::Event::Asked { member, ask: ask.clone() }, &ask.group)
                }
                Effect::Leave { job, group } => (group::Event::Left { run: state.id.clone(), job: job.clone() }, group),
                _ => continue,
            };
            self.group(&group::key(&state.request.repository.address, name), event).await?;
        }
        self.batch.extend(self.engine.changes(&state, effects, publisher.as_ref())?);
        self.batch.extend(self.engine.hooks(Some(&before), &state));
        self.runs.insert(run.to_owned(), state);
        Ok(Ok(()))
    }

    async fn group(&mut self, key: &str, event: group::Event) -> anyhow::Result<()> {
        let known = match self.groups.remove(key) {
            Some(group) => Some(group),
            None => self.engine.store().group(key).await?,
        };
        let group = known.unwrap_or_else(|| Group::new(key.to_owned()));
        // Refused: it gave way, and had left the group with that.
        let next = match group::advance(&group, event, self.engine.now()) {
            Ok((next, effects)) => {
                self.batch.push(Change::Group(next.clone()));
                self.news.extend(effects.into_iter().map(group::Effect::told));
                next
            }
            Err(_) => group,
        };
        self.groups.insert(key.to_owned(), next);
        Ok(())
    }
}
