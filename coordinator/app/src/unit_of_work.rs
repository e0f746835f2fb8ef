//! An event for a run with all that follows from it at once: concurrency groups change, and other runs with them. One
//! batch, so that no crash shows a group and a run that disagree.

use std::collections::{HashMap, VecDeque};

use anyhow::Context;

use super::{
    metrics::runs::Observed,
    run_service::{Applied, RunService},
};
use domain::group::{
    self, Group, Member,
    deadlock::{self, DeadlockSearch},
};
use domain::run::{self, RunEffect, RunEvent, RunPhase, RunRefusal, RunState};
use store::{Batch, Change};

/// Changes under way: rows as they will be, over those of the store.
pub(super) struct UnitOfWork<'a> {
    run_service: &'a RunService,
    runs: HashMap<String, RunState>,
    groups: HashMap<String, Group>,
    events: VecDeque<(String, RunEvent)>,
    /// Jobs that asked for a group and may still wait for it.
    joined: Vec<(String, String)>,
    batch: Batch,
    observed: Vec<Observed>,
}

impl<'a> UnitOfWork<'a> {
    /// What becomes of the run, and everything there is to write. An event that is refused writes nothing.
    pub(super) async fn of(
        run_service: &'a RunService,
        run: &str,
        event: RunEvent,
    ) -> anyhow::Result<(Applied, Batch, Vec<Observed>)> {
        let (runs, groups) = (HashMap::new(), HashMap::new());
        let (events, joined) = (VecDeque::new(), Vec::new());
        let mut this = Self { run_service, runs, groups, events, joined, batch: Batch::new(), observed: Vec::new() };
        if let Err(refused) = this.apply(run, event).await? {
            return Ok((Applied::Unchanged(refused), Batch::new(), Vec::new()));
        }
        loop {
            while let Some((run, event)) = this.events.pop_front() {
                if let Err(refused) = this.apply(&run, event).await? {
                    tracing::debug!(run, %refused, "an event of a concurrency group changes nothing");
                }
            }
            // Only now is it known who still waits.
            let Some((run, job)) = this.joined.pop() else { break };
            if let Some(to) = this.would_deadlock(&run, &job).await? {
                this.events.push_back((run, RunEvent::Preempted { job, to }));
            }
        }
        let state = this.runs.remove(run).with_context(|| format!("there is no run {run}"))?;
        Ok((Applied::Changed(Box::new(state)), this.batch, this.observed))
    }

    /// Returns the lock holder that `job` must yield to, if waiting for it would deadlock.
    async fn would_deadlock(&mut self, run: &str, job: &str) -> anyhow::Result<Option<String>> {
        let Some(state) = self.run(run).await? else { return Ok(None) };
        let Some(group) = state.jobs.get(job).and_then(run::Job::waits_for) else { return Ok(None) };
        let repository = &state.request.repository.address;
        self.lock_repository(repository).await?;
        let Some(first) = self.holder(repository, group).await? else { return Ok(None) };
        let mut search = DeadlockSearch::new(&state, job);
        let mut met = search.visit_holder(&first);
        while let Some(member) = search.next_holder().filter(|_| !met) {
            let Some(holding) = self.run(&member.run).await? else { continue };
            for waited in holding.waits_below(member.job.as_deref()) {
                let holder = self.holder(repository, &waited).await?;
                met |= holder.is_some_and(|holder| search.visit_holder(&holder));
            }
        }
        Ok(met.then(|| deadlock::describe(group, &first)))
    }

    async fn lock_repository(&mut self, repository: &str) -> anyhow::Result<()> {
        let key = group::deadlock_check_key(repository);
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
    async fn run(&self, id: &str) -> anyhow::Result<Option<RunState>> {
        match self.runs.get(id) {
            Some(state) => Ok(Some(state.clone())),
            None => Ok(self.run_service.store().run(id).await?),
        }
    }

    async fn apply(&mut self, run: &str, event: RunEvent) -> anyhow::Result<Result<(), RunRefusal>> {
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
            RunPhase::Done { .. } => self.run_service.publisher_of(&state).await?,
            _ => None,
        };
        for effect in &effects {
            let (event, name) = match effect {
                RunEffect::Join { job, ask } => {
                    let since = self.run_service.now();
                    let member = Member { run: state.id.clone(), serial: state.serial, job: job.clone(), since };
                    self.joined.extend(job.iter().map(|job| (state.id.clone(), job.clone())));
                    (group::GroupEvent::JoinRequested { member, ask: ask.clone() }, &ask.group)
                }
                RunEffect::Leave { job, group } => {
                    (group::GroupEvent::Left { run: state.id.clone(), job: job.clone() }, group)
                }
                _ => continue,
            };
            self.group(&group::key(&state.request.repository.address, name), event).await?;
        }
        self.batch.extend(self.run_service.changes(&state, effects, publisher.as_ref())?);
        self.batch.extend(self.run_service.hooks(Some(&before), &state));
        self.observed.push(Observed::of(Some(&before), &state, self.run_service.now()));
        self.runs.insert(run.to_owned(), state);
        Ok(Ok(()))
    }

    async fn group(&mut self, key: &str, event: group::GroupEvent) -> anyhow::Result<()> {
        let known = match self.groups.remove(key) {
            Some(group) => Some(group),
            None => self.run_service.store().group(key).await?,
        };
        let group = known.unwrap_or_else(|| Group::new(key.to_owned()));
        // Refused: it gave way, and had left the group with that.
        let next = match group::advance(&group, event, self.run_service.now()) {
            Ok((next, effects)) => {
                self.batch.push(Change::Group(next.clone()));
                self.events.extend(effects.into_iter().map(group::GroupEffect::into_run_event));
                next
            }
            Err(_) => group,
        };
        self.groups.insert(key.to_owned(), next);
        Ok(())
    }
}
