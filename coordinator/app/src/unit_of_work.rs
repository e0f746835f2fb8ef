//! An event for a run with all that follows from it at once: concurrency groups change, and other runs with them. One
//! batch, so that no crash shows a group and a run that disagree.

use std::collections::{HashMap, VecDeque};

use anyhow::Context;

use super::run_service::{Applied, RunService};
use domain::group::{
    self, Group, Member,
    circle::{self, Search},
};
use domain::run::{self, Effect, Event, Phase, Refused, State};
use store::{Batch, Change};

/// Changes under way: rows as they will be, over those of the store.
pub(super) struct UnitOfWork<'a> {
    run_service: &'a RunService,
    runs: HashMap<String, State>,
    groups: HashMap<String, Group>,
    news: VecDeque<(String, Event)>,
    /// Jobs that asked for a group.
    asked: Vec<(String, String)>,
    batch: Batch,
}

impl<'a> UnitOfWork<'a> {
    /// What becomes of the run, and everything there is to write. An event that is refused writes nothing.
    pub(super) async fn of(run_service: &'a RunService, run: &str, event: Event) -> anyhow::Result<(Applied, Batch)> {
        let (runs, groups) = (HashMap::new(), HashMap::new());
        let (news, asked) = (VecDeque::new(), Vec::new());
        let mut this = Self { run_service, runs, groups, news, asked, batch: Batch::new() };
        if let Err(refused) = this.tell(run, event).await? {
            return Ok((Applied::Unchanged(refused), Batch::new()));
        }
        loop {
            while let Some((run, event)) = this.news.pop_front() {
                if let Err(refused) = this.tell(&run, event).await? {
                    tracing::debug!(run, %refused, "news of a concurrency group changes nothing");
                }
            }
            // Only now is it known who still waits.
            let Some((run, job)) = this.asked.pop() else { break };
            if let Some(to) = this.closes_circle(&run, &job).await? {
                this.news.push_back((run, Event::GivesWay { job, to }));
            }
        }
        let state = this.runs.remove(run).with_context(|| format!("there is no run {run}"))?;
        Ok((Applied::Changed(Box::new(state)), this.batch))
    }

    /// To what a job gives way whose ask closed a circle of waits.
    async fn closes_circle(&mut self, run: &str, job: &str) -> anyhow::Result<Option<String>> {
        let Some(state) = self.run(run).await? else { return Ok(None) };
        let Some(group) = state.jobs.get(job).and_then(run::Job::waits_for) else { return Ok(None) };
        let repository = &state.request.repository.address;
        self.write_ledger(repository).await?;
        let Some(first) = self.holder(repository, group).await? else { return Ok(None) };
        let mut search = Search::new(&state, job);
        let mut met = search.meets(&first);
        while let Some(member) = search.next_holder().filter(|_| !met) {
            let Some(holding) = self.run(&member.run).await? else { continue };
            for waited in holding.waits_below(member.job.as_deref()) {
                let holder = self.holder(repository, &waited).await?;
                met |= holder.is_some_and(|holder| search.meets(&holder));
            }
        }
        Ok(met.then(|| circle::told(group, &first)))
    }

    async fn write_ledger(&mut self, repository: &str) -> anyhow::Result<()> {
        let key = group::ledger(repository);
        if self.groups.contains_key(&key) {
            return Ok(());
        }
        let known = self.run_service.store().group(&key).await?;
        let next = known.map_or_else(|| Group::new(key.clone()), |known| Group { version: known.version + 1, ..known });
        self.batch.push(Change::Group(next.clone()));
        self.groups.insert(key, next);
        Ok(())
    }

    async fn holder(&mut self, repository: &str, group: &str) -> anyhow::Result<Option<Member>> {
        let key = group::key(repository, group);
        match self.groups.get(&key) {
            Some(group) => Ok(group.holder.clone()),
            None => Ok(self.run_service.store().group(&key).await?.and_then(|group| group.holder)),
        }
    }

    /// A run as it will be.
    async fn run(&self, id: &str) -> anyhow::Result<Option<State>> {
        match self.runs.get(id) {
            Some(state) => Ok(Some(state.clone())),
            None => Ok(self.run_service.store().run(id).await?),
        }
    }

    async fn tell(&mut self, run: &str, event: Event) -> anyhow::Result<Result<(), Refused>> {
        let known = match self.runs.remove(run) {
            Some(state) => Some(state),
            None => self.run_service.store().run(run).await?,
        };
        let state = known.with_context(|| format!("there is no run {run}"))?;
        let before = state;
        let (state, effects) = match run::advance(&before, event, self.run_service.now()) {
            Ok(next) => next,
            Err(refused) => {
                self.runs.insert(run.to_owned(), before);
                return Ok(Err(refused));
            }
        };
        let publisher = match &state.phase {
            Phase::Done { .. } => self.run_service.publisher_of(&state).await?,
            _ => None,
        };
        for effect in &effects {
            let (event, name) = match effect {
                Effect::Join { job, ask } => {
                    let since = self.run_service.now();
                    let member = Member { run: state.id.clone(), serial: state.serial, job: job.clone(), since };
                    self.asked.extend(job.iter().map(|job| (state.id.clone(), job.clone())));
                    (group::Event::Asked { member, ask: ask.clone() }, &ask.group)
                }
                Effect::Leave { job, group } => (group::Event::Left { run: state.id.clone(), job: job.clone() }, group),
                _ => continue,
            };
            self.group(&group::key(&state.request.repository.address, name), event).await?;
        }
        self.batch.extend(self.run_service.changes(&state, effects, publisher.as_ref())?);
        self.batch.extend(self.run_service.hooks(Some(&before), &state));
        self.runs.insert(run.to_owned(), state);
        Ok(Ok(()))
    }

    async fn group(&mut self, key: &str, event: group::Event) -> anyhow::Result<()> {
        let known = match self.groups.remove(key) {
            Some(group) => Some(group),
            None => self.run_service.store().group(key).await?,
        };
        let group = known.unwrap_or_else(|| Group::new(key.to_owned()));
        // Refused: it gave way, and had left the group with that.
        let next = match group::advance(&group, event, self.run_service.now()) {
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
