//! Says how runs and their jobs fare to whoever follows a repository (NIP-C1): work of the store.
//!
//! A row is added with each change that readers see, and comes again before what was said expires. What is said is made of
//! the run as it stands then, and of what was said before: nothing is kept beside the events themselves.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::future::{BoxFuture, FutureExt as _};
use nostr::PublicKey;
use work::{BackOff, Outcome, WorkHandler};

use super::{keyed_locks::KeyedLocks, log_publisher::LogPublisher, run_service::RunService};
use domain::{
    id::{JobKey, RunId},
    run::{Job, JobPhase, Millis, RunPhase, RunState},
};
use nostr_client::protocol::nip_c1::{
    EndWord, JobEnd, Provenance, PublishedReports, QuotedJob, RunReport, Stage, is_by_service,
};
use store::{Batch, ClaimedWork, WorkKind};

/// Runs looked at at the same time.
const PARALLEL: u32 = 8;
/// The progress of one run is said no more often (ms) than this while nothing ends: public relays bear no more. Where jobs
/// end, those of a moment are said together.
const EVERY: Millis = 10_000;
const ENDS: Millis = 1_000;
/// A run has this long (ms) to begin before its waiting is said: of one that finds a free worker it never is.
const BEGINS: Millis = 1_000;
/// It is said again after this (ms), which is half of what it lives.
const AGAIN: Millis = 15 * 60_000;
/// That a run is held is said again for so long (ms).
const HELD: Millis = 2 * 3_600_000;
/// A run that another hand is at is looked at again after this (ms).
const BUSY: Millis = 250;
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(2), longest: Duration::from_secs(60) };

/// The handler of [`WorkKind::ReportRun`].
pub(super) struct RunReporter {
    pub(super) run_service: RunService,
    pub(super) log_publisher: LogPublisher,
    pub(super) us: PublicKey,
    /// A relay that we publish to, and one that we read; may be empty.
    pub(super) relays: [String; 2],
    /// Runs that are being looked at: a row may be claimed anew while its run changes.
    pub(super) locks: KeyedLocks<RunId>,
}

impl RunReporter {
    async fn look(&self, row: &ClaimedWork) -> anyhow::Result<Batch> {
        let done = vec![row.complete()];
        let Some(run) = &row.run else { return Ok(done) };
        let now = self.run_service.now();
        let Some(_lock) = self.locks.try_lock(run) else {
            return Ok(vec![row.retry(now.saturating_add(BUSY), "what was new before is being said")]);
        };
        let store = self.run_service.store();
        let Some(state) = store.run(run).await? else { return Ok(done) };
        let [relay, heard_on] = &self.relays;
        let Some(mut report) = RunReport::of(&state, self.us, relay, heard_on) else { return Ok(done) };
        let events = store.events_of(run).await?;
        let mut published = PublishedReports::read(events.iter().map(String::as_str));
        drop(events);
        if published.ended {
            return Ok(done);
        }
        let is_new = |(key, _): &(&JobKey, &Arc<Job>)| !published.jobs.contains_key(key.as_str());
        let ended = |(key, job): (&JobKey, &Arc<Job>)| Some((key.clone(), JobEnd::of(&state, key, job)?));
        let new: Vec<(JobKey, JobEnd)> = state.jobs.iter().filter(is_new).filter_map(ended).collect();
        let end = match &state.phase {
            RunPhase::Done { end, .. } => Some(end),
            _ => None,
        };
        let running = |(key, job): (&JobKey, &Arc<Job>)| {
            matches!(job.phase, JobPhase::Running { .. } | JobPhase::Cancelling { .. }).then(|| key.to_string())
        };
        let running: Vec<String> = state.jobs.iter().filter_map(running).collect();
        let waits = new.is_empty() && running.is_empty() && state.started_at.is_none();
        let next = next_progress(&published, state.created_at, waits, !new.is_empty());
        if end.is_none() && now < next {
            return Ok(vec![row.retry(next, "its progress was said a moment ago, or it may begin")]);
        }
        if is_by_service(&state) {
            let standing = || self.run_service.served().request_of(&state.request);
            let standing = || {
                standing().map(|(request, requester, relay)| Provenance { manual: false, request, relay, requester })
            };
            report.provenance = published.service_request.take().or_else(standing);
        }
        let mut drafts = Vec::new();
        for (key, of) in new {
            let draft = report.job_result(&self.detailed(&state, &key, of).await?);
            let id = draft.event.id.context("a draft has an id")?;
            published.jobs.insert(key.to_string(), id);
            drafts.push(draft);
        }
        let quoted: Vec<QuotedJob> = state.jobs.iter().filter_map(|(key, job)| quoted(&published, key, job)).collect();
        let stage = match end {
            Some(end) => {
                let word = EndWord::of(end.conclusion, end.reason.as_ref(), false);
                drafts.push(report.result(word, &quoted, end.at / 1000));
                Stage::Concluded(word)
            }
            None if waits => Stage::Queued,
            None => Stage::InProgress(&running),
        };
        let stamp = (now / 1000).max(published.progress_at.map_or(0, |at| at + 1));
        drafts.push(report.progress(stage, &quoted, stamp));
        let mut batch = self.run_service.outbox().reports(&state, &drafts, now)?;
        batch.push(match end {
            Some(_) => row.complete(),
            // It may wait for a month, and anybody can have runs wait: it is told of anew when it is decided.
            None if state.is_held() && now.saturating_sub(state.created_at) > HELD => row.complete(),
            None => row.retry(now.saturating_add(AGAIN), "said again before it expires"),
        });
        Ok(batch)
    }

    /// The end of a job with its log and what its worker reported.
    async fn detailed(&self, state: &RunState, key: &JobKey, end: JobEnd) -> anyhow::Result<JobEnd> {
        let Some((attempt, _)) = end.attempt else { return Ok(end) };
        let reused = state.jobs.get(key).and_then(|job| job.reused.as_ref());
        let run = reused.map_or(&state.id, |reused| &reused.run);
        let end = match self.run_service.store().report(run, key, attempt).await? {
            Some(report) => end.with_report(report),
            None => end,
        };
        let (logs, tail) = self.log_publisher.job_log(state, run, key, attempt).await?;
        Ok(JobEnd { logs, tail, ..end })
    }
}

/// The earliest moment at which the progress of a run that goes on may be said.
fn next_progress(published: &PublishedReports, created_at: Millis, waits: bool, has_ends: bool) -> Millis {
    match published.progress_at {
        Some(at) => at.saturating_mul(1000).saturating_add(if has_ends { ENDS } else { EVERY }),
        None if waits => created_at.saturating_add(BEGINS),
        None => 0,
    }
}

/// A job by its result, where that was said.
fn quoted(published: &PublishedReports, key: &JobKey, job: &Job) -> Option<QuotedJob> {
    let event = *published.jobs.get(key.as_str())?;
    let failed = matches!(job.phase, JobPhase::Done { conclusion: workflow::plan::Conclusion::Failure, .. });
    Some(QuotedJob { event, job: key.to_string(), failed })
}

impl WorkHandler for RunReporter {
    fn kind(&self) -> WorkKind {
        WorkKind::ReportRun
    }

    fn parallelism(&self) -> u32 {
        PARALLEL
    }

    fn acts_outside(&self) -> bool {
        // Blobs and events alike are rows of the outcome's commit, or before it.
        false
    }

    fn back_off(&self) -> BackOff {
        BACK_OFF
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        async move {
            let row = rows.first().context("a claim has a row")?;
            self.look(row).await.map(Outcome::Store)
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_begins_at_once_is_never_said_to_wait_and_is_said_to_run_at_once() {
        let (nothing, before) =
            (PublishedReports::default(), PublishedReports { progress_at: Some(7), ..PublishedReports::default() });
        assert_eq!(next_progress(&nothing, 7_300, true, false), 8_300, "that it waits is said when it has waited");
        assert_eq!(next_progress(&nothing, 7_300, false, false), 0);
        assert_eq!(next_progress(&before, 7_300, true, false), 17_000);
        assert_eq!(next_progress(&before, 7_300, false, false), 17_000);
        assert_eq!(next_progress(&before, 7_300, false, true), 8_000, "ends are said together, a second apart");
    }
}
