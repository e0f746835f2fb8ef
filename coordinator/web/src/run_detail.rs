//! A run with all that belongs to it: caches, artifacts and events, the run it repeats and those that repeat it.

use std::collections::{HashMap, HashSet};

use super::{
    Refusal, Web, artifacts,
    auth::Caller,
    dto::{CacheView, EventView, RunLink, RunView},
    job_details::{self, JobDetails},
    people,
    test_reports::TestReportView,
};
use domain::run::RunState;
use store::{CacheUse, Filter, Page, Status, Store, Summary};

/// Most reruns that are listed.
const RERUNS: u32 = 50;
/// Most workers whose names are looked up.
const WORKERS: usize = 16;

/// The run as this caller may see it.
pub(super) async fn run(web: &Web, caller: &Caller, state: RunState) -> Result<RunView, Refusal> {
    let (id, store) = (state.id.clone(), &web.store);
    let details = JobDetails::read(store, &state, job_details::SHOWN).await?;
    let artifacts = artifacts::of(web, caller, &state).await?;
    let caches = store.cache_uses(&id).await?.into_iter().map(CacheView::from).collect();
    let tests = store.test_reports(&id).await?.into_iter().map(TestReportView::from).collect();
    let events = store.outbox_of(&id).await?.into_iter().map(EventView::from).collect();
    let filter = Filter { previous: Some(id), reader: caller.reader.clone(), ..Filter::default() };
    let mut reruns = store.list(&filter, Page { before: None, limit: RERUNS }).await?;
    reruns.reverse();
    let earlier = match &state.rerun {
        Some(rerun) => store.run(&rerun.previous).await?,
        None => None,
    };
    let earlier = earlier.filter(|earlier| caller.reader.may_read(&earlier.visibility));
    let planned = state.planned.as_deref();
    let inputs = planned.map(|planned| planned.inputs.clone());
    let declared = planned.map(|planned| planned.plan.dialect.dispatch_inputs(&planned.plan));
    let actor_name = people::name(web, &state.request.actor);
    let worker_names = worker_names(store, &state).await?;
    let mut view = RunView::new(state, details);
    for approval in view.jobs.iter_mut().filter_map(|job| job.approval.as_mut()).chain(view.approval.as_mut()) {
        approval.by_name = approval.by.as_deref().map(|by| people::name(web, by));
    }
    Ok(RunView {
        actor_name,
        worker_names,
        inputs,
        declared,
        artifacts: Some(artifacts),
        tests: Some(tests),
        caches: Some(caches),
        events: Some(events),
        reruns: Some(reruns.into_iter().map(RunLink::from).collect()),
        previous_run: earlier.as_ref().map(RunLink::from),
        ..view
    })
}

/// Names of the workers that a run's jobs have, by their ids.
pub(super) async fn worker_names(store: &Store, state: &RunState) -> Result<HashMap<String, String>, Refusal> {
    let of_jobs = state.jobs.values().filter_map(|job| job.attempts.last());
    let ids: HashSet<&String> = of_jobs.map(|attempt| &attempt.worker).collect();
    let mut names = HashMap::new();
    for id in ids.into_iter().take(WORKERS) {
        names.extend(store.worker(id).await?.map(|worker| (worker.id, worker.name)));
    }
    Ok(names)
}

impl From<CacheUse> for CacheView {
    fn from(used: CacheUse) -> Self {
        Self {
            job: used.job,
            attempt: used.attempt,
            outcome: used.outcome.as_str(),
            key: used.key,
            found: used.found,
            size: used.size,
            at: used.at,
        }
    }
}

impl From<Summary> for RunLink {
    fn from(run: Summary) -> Self {
        Self { id: run.id, serial: run.serial, attempt: run.attempt, status: run.status.as_str() }
    }
}

impl From<&RunState> for RunLink {
    fn from(run: &RunState) -> Self {
        Self { id: run.id.clone(), serial: run.serial, attempt: run.attempt, status: Status::of(run).as_str() }
    }
}
