//! One event for a run, with everything that follows from it at once: concurrency groups change, and other runs with
//! them. All of it is one batch, so that no crash shows a group and a run that disagree.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use anyhow::Context;

use super::{
    effect_rows::{RowMaker, RunTransition},
    metrics::runs::Observed,
    run_secrets::RunSecrets,
    state_cache::{Snapshot, StateCache, WriteSet, Written},
};
use domain::{
    group::{
        self, Group, GroupEffect, GroupEvent, Member,
        deadlock::{self, DeadlockSearch},
    },
    id::{JobKey, RunId},
    run::{self, Millis, RunEffect, RunEvent, RunPhase, RunRefusal, RunState},
};
use store::{Batch, Change, Store};

/// Where a unit of work reads from, and what makes its rows.
pub(super) struct Sources<'a> {
    pub(super) store: &'a Store,
    pub(super) cache: &'a StateCache,
    pub(super) secrets: &'a RunSecrets,
    pub(super) rows: &'a RowMaker,
    pub(super) now: Millis,
}

/// What became of an event.
pub(super) enum Outcome {
    /// The run changes, and perhaps others.
    Commit(Changes),
    /// The event changes nothing, as `read` says.
    Refused { refusal: RunRefusal, read: Snapshot<RunState> },
}

/// What is to be written.
pub(super) struct Changes {
    /// The run as it will be.
    pub(super) state: Arc<RunState>,
    pub(super) set: WriteSet,
    pub(super) batch: Batch,
    /// What metrics and traces record once it is committed.
    pub(super) observed: Vec<Observed>,
}

/// Computes what an event changes. Nothing is written.
///
/// # Errors
/// There is no such run, the store can't be read, or a result can't be signed.
pub(super) async fn compute(sources: &Sources<'_>, run: &RunId, event: RunEvent) -> anyhow::Result<Outcome> {
    let (set, events, joined) = (WriteSet::default(), VecDeque::new(), Vec::new());
    let mut unit =
        UnitOfWork { sources, set, read: HashMap::new(), events, joined, batch: Batch::new(), observed: Vec::new() };
    if let Err(refusal) = unit.apply(run, event).await? {
        let read = unit.snapshot(run).await?.with_context(|| format!("there is no run {run}"))?;
        return Ok(Outcome::Refused { refusal, read });
    }
    loop {
        while let Some((run, event)) = unit.events.pop_front() {
            if let Err(refused) = unit.apply(&run, event).await? {
                tracing::debug!(run = run.as_str(), %refused, "an event of a concurrency group changes nothing");
            }
        }
        // Only now is it known who still waits.
        let Some((run, job)) = unit.joined.pop() else { break };
        if let Some(to) = unit.would_deadlock(&run, &job).await? {
            unit.events.push_back((run, RunEvent::Preempted { job, to }));
        }
    }
    let state = unit.run(run).await?.with_context(|| format!("there is no run {run}"))?;
    Ok(Outcome::Commit(Changes { state, set: unit.set, batch: unit.batch, observed: unit.observed }))
}

/// Changes under way: rows as they will be, over those of the cache and the store.
struct UnitOfWork<'a> {
    sources: &'a Sources<'a>,
    set: WriteSet,
    /// Runs that were read and not changed.
    read: HashMap<RunId, Snapshot<RunState>>,
    /// Events that follow, with the run they are for.
    events: VecDeque<(RunId, RunEvent)>,
    /// Jobs that asked for a group and may still wait for it.
    joined: Vec<(RunId, JobKey)>,
    batch: Batch,
    observed: Vec<Observed>,
}

impl UnitOfWork<'_> {
    async fn apply(&mut self, id: &RunId, event: RunEvent) -> anyhow::Result<Result<(), RunRefusal>> {
        let now = self.sources.now;
        let read = self.snapshot(id).await?.with_context(|| format!("there is no run {id}"))?;
        let (state, effects) = match run::advance(&read.state, event, now) {
            Ok(next) => next,
            Err(refusal) => return Ok(Err(refusal)),
        };
        let after = Arc::new(state);
        let publisher = match &after.phase {
            RunPhase::Done { .. } => self.sources.secrets.publisher_of(&after).await?,
            _ => None,
        };
        for effect in &effects {
            let (event, name) = match effect {
                RunEffect::Join { job, ask } => {
                    let member = Member { run: after.id.clone(), serial: after.serial, job: job.clone(), since: now };
                    self.joined.extend(job.iter().map(|job| (after.id.clone(), job.clone())));
                    (GroupEvent::JoinRequested { member, ask: ask.clone() }, &ask.group)
                }
                RunEffect::Leave { job, group } => {
                    (GroupEvent::Left { run: after.id.clone(), job: job.clone() }, group)
                }
                _ => continue,
            };
            self.advance_group(&group::key(&after.group_scope(), name), event).await?;
        }
        let before = read.state.clone();
        let first = match self.set.runs.remove(id) {
            Some(written) => written.before,
            None => Some(read),
        };
        self.read.remove(id);
        self.set.runs.insert(id.clone(), Written { before: first, after: after.clone() });
        self.observed.push(Observed::of(Some(&before), &after, now));
        let transition = RunTransition { before: Some(before), after, effects, publisher };
        self.batch.extend(self.sources.rows.rows(transition, now)?);
        Ok(Ok(()))
    }

    async fn advance_group(&mut self, key: &str, event: GroupEvent) -> anyhow::Result<()> {
        let known = self.group(key).await?;
        let first = Group::new(key.to_owned());
        let group = known.as_ref().map_or(&first, |known| &known.state);
        // Refused: it was preempted, and had left the group with that.
        let Ok((next, effects)) = group::advance(group, event, self.sources.now) else { return Ok(()) };
        self.events.extend(effects.into_iter().map(GroupEffect::into_run_event));
        self.write_group(known, next);
        Ok(())
    }

    fn write_group(&mut self, known: Option<Snapshot<Group>>, next: Group) {
        let before = match self.set.groups.remove(&next.key) {
            Some(written) => written.before,
            None => known,
        };
        self.batch.push(Change::Group(next.clone()));
        self.set.groups.insert(next.key.clone(), Written { before, after: Arc::new(next) });
    }

    /// Returns the lock holder that `job` must yield to, if waiting for it would deadlock.
    async fn would_deadlock(&mut self, run: &RunId, job: &JobKey) -> anyhow::Result<Option<String>> {
        let Some(state) = self.run(run).await? else { return Ok(None) };
        let Some(group) = state.jobs.get(job).and_then(|job| job.waits_for()) else { return Ok(None) };
        let scope = &state.group_scope();
        self.lock_scope(scope).await?;
        let Some(first) = self.holder(scope, group).await? else { return Ok(None) };
        let mut search = DeadlockSearch::new(&state, job);
        let mut met = search.visit_holder(&first);
        while let Some(member) = search.next_holder().filter(|_| !met) {
            let Some(holding) = self.run(&member.run).await? else { continue };
            for waited in holding.waits_below(member.job.as_ref()) {
                let holder = self.holder(scope, &waited).await?;
                met |= holder.is_some_and(|holder| search.visit_holder(&holder));
            }
        }
        Ok(met.then(|| deadlock::describe(group, &first)))
    }

    /// Writes a row that all deadlock checks of a scope write: of two at once, one is refused and sees the other.
    async fn lock_scope(&mut self, scope: &str) -> anyhow::Result<()> {
        let key = group::deadlock_check_key(scope);
        if self.set.groups.contains_key(&key) {
            return Ok(());
        }
        let known = self.group(&key).await?;
        let next = match &known {
            Some(known) => Group { version: known.state.version + 1, ..Group::clone(&known.state) },
            None => Group::new(key),
        };
        self.write_group(known, next);
        Ok(())
    }

    async fn holder(&self, scope: &str, group: &str) -> anyhow::Result<Option<Member>> {
        Ok(self.group(&group::key(scope, group)).await?.and_then(|group| group.state.holder.clone()))
    }

    /// A group as it will be.
    async fn group(&self, key: &str) -> anyhow::Result<Option<Snapshot<Group>>> {
        if let Some(written) = self.set.groups.get(key) {
            return Ok(Some(written.snapshot()));
        }
        match self.sources.cache.group(key).await {
            Some(group) => Ok(Some(group)),
            None => Ok(self.sources.store.group(key).await?.map(Snapshot::stored)),
        }
    }

    /// A run as it will be.
    async fn run(&mut self, id: &RunId) -> anyhow::Result<Option<Arc<RunState>>> {
        Ok(self.snapshot(id).await?.map(|snapshot| snapshot.state))
    }

    async fn snapshot(&mut self, id: &RunId) -> anyhow::Result<Option<Snapshot<RunState>>> {
        if let Some(written) = self.set.runs.get(id) {
            return Ok(Some(written.snapshot()));
        }
        if let Some(read) = self.read.get(id) {
            return Ok(Some(read.clone()));
        }
        let read = match self.sources.cache.run(id).await {
            Some(read) => Some(read),
            None => self.sources.store.run(id).await?.map(Snapshot::stored),
        };
        if let Some(read) = &read {
            self.read.insert(id.clone(), read.clone());
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests;
