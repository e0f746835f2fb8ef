//! What must hold, whatever happens: the promises of the design that a pool keeps to its users.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use anyhow::Result;
use domain::{
    group,
    run::{JobPhase, RunPhase, RunState},
};
use nostr::{Event, JsonUtil};
use workflow::plan::Reason;

use crate::{clock, coordinator::Machinery, worker::Worker, workload};

/// Kinds of a status and of a result.
const STATUS: u16 = 30100;
const RESULT: u16 = 5101;
/// How long a job may wait without a reason that people can read.
const WITHOUT_REASON: Duration = Duration::from_secs(90);

/// Promise 9 while things happen: whatever waits says why.
pub(crate) async fn always(machinery: &Machinery) -> Result<()> {
    for asked in machinery.relay.published_requests() {
        let Some(state) = machinery.store.run_by_event(&asked.request.id).await? else { continue };
        let reasons = machinery.store.wait_reasons(&state.id).await?;
        for (key, job) in &state.jobs {
            if let JobPhase::Queued { since } = &job.phase {
                let waited = Duration::from_millis(clock::now().saturating_sub(*since));
                let is_explained = reasons.get(key).is_some_and(|reason| !reason.is_empty());
                if waited > WITHOUT_REASON && !is_explained && machinery.observer.is_calm() {
                    let run = machinery.observer.run(state.id.as_str());
                    machinery.observer.violated(format!("{run} {key} waits for {waited:?} and nothing says why"));
                }
            }
        }
    }
    Ok(())
}

/// Everything else, once all has ended.
pub(crate) async fn at_the_end(machinery: &Machinery, workers: &[Arc<Worker>]) -> Result<()> {
    let violated = |what: String| machinery.observer.violated(what);
    let published = published(machinery)?;
    for asked in machinery.relay.published_requests() {
        let Some(state) = machinery.store.run_by_event(&asked.request.id).await? else {
            violated("a request has no run".into());
            continue;
        };
        let run = machinery.observer.run(state.id.as_str());
        if !matches!(state.phase, RunPhase::Done { .. }) {
            violated(format!("{run} never ended: {:?}, its jobs: {}", state.phase, jobs(&state)));
            continue;
        }
        let broken = [
            answered_once(&run, &asked.request.id, &published),
            attempts_count_once(machinery, &run, &state),
            only_disturbed_workers_lose(machinery, &run, &state, workers),
        ];
        broken.into_iter().flatten().for_each(violated);
    }
    let queued = machinery.store.queued().await?.len();
    if queued > 0 {
        violated(format!("{queued} jobs of ended runs are queued"));
    }
    if machinery.store.next_work_due(0).await?.is_some() {
        violated("some work was never done".into());
    }
    let leases = machinery.store.leases().await?.len();
    if leases > 0 {
        violated(format!("{leases} leases of ended runs are left"));
    }
    for worker in workers.iter().filter(|worker| !worker.is_empty()) {
        violated(format!("worker {} still has attempts of ended runs", worker.id()));
    }
    for name in workload::groups() {
        let key = group::key(&domain::run::testing::request().repository.address, name);
        if let Some(holder) = machinery.store.group(&key).await?.and_then(|group| group.holder) {
            let run = machinery.observer.run(holder.run.as_str());
            violated(format!("the group {name} is still held by {run}"));
        }
    }
    Ok(())
}

/// Everything that the relay took, by the request that it is about.
fn published(machinery: &Machinery) -> Result<BTreeMap<String, Vec<Event>>> {
    let mut published: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for event in machinery.relay.taken().values() {
        let event = Event::from_json(event)?;
        let about: BTreeSet<String> = event
            .tags
            .iter()
            .filter(|tag| tag.kind().as_str() == "e")
            .filter_map(|tag| tag.content())
            .map(str::to_owned)
            .collect();
        for id in about {
            published.entry(id).or_default().push(event.clone());
        }
    }
    Ok(published)
}

/// Promises 1 and 3: exactly one result and one last status, and nothing under two ids. Here all requests are of authors
/// that the policy knows: to strangers beyond the rate of refusals a pool owes no answer.
fn answered_once(run: &str, request: &str, published: &BTreeMap<String, Vec<Event>>) -> Option<String> {
    let events = published.get(request).map(Vec::as_slice).unwrap_or_default();
    let of = |kind: u16| events.iter().filter(move |event| event.kind.as_u16() == kind);
    let status = |event: &Event| {
        let found = event.tags.iter().find(|tag| tag.kind().as_str() == "status");
        found.and_then(|tag| tag.content()).unwrap_or_default().to_owned()
    };
    let results = of(RESULT).count();
    if results != 1 {
        return Some(format!("{run} has {results} published results"));
    }
    let last = of(STATUS).filter(|event| !matches!(status(event).as_str(), "queued" | "running")).count();
    if last != 1 {
        return Some(format!("{run} has {last} published last statuses"));
    }
    let running = of(STATUS).filter(|event| status(event) == "running").count();
    if running > 1 {
        return Some(format!("{run} is published as running {running} times"));
    }
    let mut stamps = BTreeSet::new();
    let again = of(STATUS).find(|event| !stamps.insert(event.created_at));
    again.map(|event| format!("{run} has two statuses of one moment, {}", status(event)))
}

/// Promise 2: of the attempts of a job at most the last one counts, and what was acknowledged is what counts.
fn attempts_count_once(machinery: &Machinery, run: &str, state: &RunState) -> Option<String> {
    for (key, job) in &state.jobs {
        let counted = job.attempts.iter().filter(|attempt| attempt.lost.is_none()).count();
        let last_counts = job.attempts.last().is_none_or(|attempt| attempt.lost.is_none());
        if counted > 1 || (counted == 1 && !last_counts) {
            return Some(format!("{run} {key}: of {} attempts {counted} count", job.attempts.len()));
        }
    }
    let acknowledged = machinery.observer.acknowledgements();
    for ((_, key, number), report) in acknowledged.iter().filter(|((id, ..), _)| state.id == id.as_str()) {
        let attempt =
            state.jobs.get(key.as_str()).and_then(|job| job.attempts.iter().find(|attempt| attempt.number == *number));
        let Some(attempt) = attempt else {
            return Some(format!("{run} {key} attempt {number} was acknowledged and is not known"));
        };
        // A report that asks for another try ends its own attempt; whatever else ended it had ended it before.
        if let Some(lost) = &attempt.lost
            && Some(lost) != report.reason.as_ref()
        {
            return Some(format!("{run} {key} attempt {number} was acknowledged though it was lost: {lost:?}"));
        }
    }
    None
}

/// Promise 4, and the terms of leases: who is there and renews loses nothing, whatever becomes of the coordinator.
fn only_disturbed_workers_lose(
    machinery: &Machinery,
    run: &str,
    state: &RunState,
    workers: &[Arc<Worker>],
) -> Option<String> {
    for (key, job) in &state.jobs {
        for attempt in &job.attempts {
            // One that never reached its worker is lost with the session that it was meant for.
            let reached = machinery.observer.was_assigned(&(state.id.to_string(), key.to_string(), attempt.number));
            let by_loss = reached && matches!(attempt.lost, Some(Reason::WorkerLost(_)));
            let worker = workers.iter().find(|worker| worker.id() == attempt.worker);
            if by_loss && worker.is_some_and(|worker| !worker.is_disturbed()) {
                let number = attempt.number;
                return Some(format!(
                    "{run} {key} attempt {number} was lost to a worker that was there: {:?}",
                    attempt.lost
                ));
            }
        }
    }
    None
}

fn jobs(state: &RunState) -> String {
    state.jobs.iter().map(|(key, job)| format!("{key} {:?}", job.phase)).collect::<Vec<_>>().join(", ")
}
