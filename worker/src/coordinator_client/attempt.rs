//! Runs one attempt beside the session: journal, job, log, result.

use std::{sync::Arc, time::SystemTime};

use anyhow::Context as _;
use proto::worker::{self as wire, Job, Result as Report};
use tracing::{info, warn};
use workflow::plan::Reason;

use super::{
    Worker,
    assigned_job::{AssignedJob, failed},
    attempt_trace::AttemptTrace,
    attempts::AttemptHandles,
    journal::JournalEntry,
    log_upload::{self, LogUploadEnd},
    report,
};
use crate::{
    job::ProgressReporter,
    log::{LogSink as _, spool::SpoolFile},
};

/// Starts an attempt, or does nothing where it runs already.
pub(super) fn start(worker: &Arc<Worker>, job: Job) {
    let Some(attempt) = job.attempt.clone() else { return };
    let Some(handles) = worker.attempts.add(&attempt) else { return };
    tokio::spawn(run(worker.clone(), attempt, job, handles));
}

/// Goes on with what an earlier life left: results are brought to their end; what was running is lost, and the
/// coordinator learns that by not being told of it.
pub(super) async fn resume(worker: &Arc<Worker>) -> anyhow::Result<()> {
    for entry in worker.journal.entries().await.context("journal")? {
        let attempt = entry.attempt();
        match entry.report() {
            Some(report) => {
                let Some(handles) = worker.attempts.add(&attempt) else { continue };
                worker.attempts.ended(&attempt);
                let log = worker.journal.reopen(&attempt).await.context("spool")?;
                tokio::spawn(resume_delivery(worker.clone(), entry, report, log, handles));
            }
            None => {
                warn!(run = attempt.run, job = attempt.job, "this worker ended while the job ran; the job is lost");
                worker.journal.remove(&attempt).await;
            }
        }
    }
    Ok(())
}

async fn resume_delivery(
    worker: Arc<Worker>,
    entry: JournalEntry,
    report: Report,
    log: SpoolFile,
    handles: AttemptHandles,
) {
    finish(&log).await;
    let shipped = log_upload::run(&log, worker.bulk.subscribe(), entry.attempt(), entry.token.clone());
    deliver(&worker, report, handles, shipped).await;
}

async fn run(worker: Arc<Worker>, attempt: wire::Attempt, job: Job, handles: AttemptHandles) {
    let mut entry = JournalEntry::new(&attempt, &job.token);
    let log = match worker.journal.begin(entry.clone()).await {
        Ok(log) => log,
        Err(error) => {
            let text = format!("the worker's data folder can't be written: {error:#}");
            worker.attempts.ended(&attempt);
            let report = report::encode(&failed(Reason::StartFailed(text)));
            let report = Report { attempt: Some(attempt), report: report.into() };
            return deliver(&worker, report, handles, std::future::ready(LogUploadEnd::Closed)).await;
        }
    };
    let shipping = log_upload::run(&log, worker.bulk.subscribe(), attempt.clone(), job.token.clone());
    let working = async {
        info!(run = attempt.run, job = attempt.job, attempt = attempt.attempt, "job begins");
        let trace = AttemptTrace::new(attempt.clone(), now_ms());
        let observer = Arc::new(ProgressSender { worker: worker.clone(), attempt: attempt.clone(), trace });
        let job = AssignedJob {
            job,
            log: log.clone(),
            data: worker.config.data.clone(),
            mirror_bytes: worker.config.disk.mirror_bytes,
            ca_file: worker.config.ca_file.clone(),
            coordinator: worker.address.subscribe(),
            cancel: handles.cancel.clone(),
            kill: handles.kill.clone(),
        };
        // A task of its own: a bug in it must cost one job, not the worker.
        let report = tokio::spawn(worker.executor.execute(job, observer)).await;
        let report = report
            .unwrap_or_else(|error| report::encode(&failed(Reason::ProcessLost(format!("its task failed: {error}")))));
        finish(&log).await;
        info!(run = attempt.run, job = attempt.job, "job ended");
        let report = Report { attempt: Some(attempt.clone()), report: report.into() };
        entry.end(&report);
        if let Err(error) = worker.journal.complete(entry).await {
            warn!(%error, "a result could not be written to the journal; it is kept in memory");
        }
        worker.attempts.ended(&attempt);
        report
    };
    // The log goes while the job runs; one that is refused for good ends the shipping, not the job.
    let (shipped, report) = tokio::join!(
        async {
            let shipped = shipping.await;
            if shipped == LogUploadEnd::Stale {
                worker.attempts.forget(&attempt);
            }
            shipped
        },
        working
    );
    deliver(&worker, report, handles, std::future::ready(shipped)).await;
}

/// Reports the result once the log is there, and forgets the attempt once that is answered.
async fn deliver(
    worker: &Worker,
    report: Report,
    handles: AttemptHandles,
    shipped: impl Future<Output = LogUploadEnd>,
) {
    let Some(attempt) = report.attempt.clone() else { return };
    let forgotten = handles.forget.cancelled();
    tokio::pin!(forgotten);
    tokio::select! {
        () = &mut forgotten => {}
        shipped = shipped => {
            match shipped {
                LogUploadEnd::Closed => worker.attempts.report(report),
                LogUploadEnd::Stale => worker.attempts.forget(&attempt),
                LogUploadEnd::Refused(reason) => {
                    warn!(run = attempt.run, job = attempt.job, reason, "the log was refused; its job's result goes without it");
                    worker.attempts.report(report);
                }
            }
            forgotten.await;
        }
    }
    worker.journal.remove(&attempt).await;
    worker.attempts.remove(&attempt);
}

/// What the log lacks of its end where its writer did not come to it.
async fn finish(log: &SpoolFile) {
    if log.is_finished() {
        return;
    }
    let opening = log.clone();
    let opened = tokio::task::spawn_blocking(move || opening.open()).await.map_err(std::io::Error::other);
    let finished = match opened.flatten() {
        Ok(spool) => spool.finish().await.map(drop),
        Err(error) => Err(error),
    };
    if let Err(error) = finished {
        warn!(%error, "the end of a log could not be written");
    }
}

/// Puts what a job reaches into the table of attempts.
struct ProgressSender {
    worker: Arc<Worker>,
    attempt: wire::Attempt,
    trace: AttemptTrace,
}

impl ProgressReporter for ProgressSender {
    fn begun(&self) {
        self.trace.begun(now_ms());
        self.worker.attempts.begun(&self.attempt);
    }

    /// The coordinator reads steps from the marks in the log.
    fn step(&self, index: u32, name: &str, state: &str, _outcome: &str) {
        self.trace.step(index, name, state, now_ms());
    }
}

fn now_ms() -> u64 {
    workflow::time::unix_millis(SystemTime::now())
}
