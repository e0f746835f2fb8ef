//! Runs one attempt beside the session: journal, job, log, result.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use proto::worker::{self as wire, Job, Result as Report};
use secrecy::SecretString;
use tracing::{info, warn};
use workflow::plan::{Conclusion, JobOrder, JobReport, Reason};

use super::{
    Worker, actions_tunnel,
    attempt_trace::AttemptTrace,
    attempts::AttemptHandles,
    journal::JournalEntry,
    log_upload::{self, LogUploadEnd},
    report,
};
use crate::{
    job::{self, ProgressReporter},
    log::{LogSink as _, spool::Spool},
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
                let spool = worker.journal.reopen(&attempt).await.context("spool")?;
                tokio::spawn(resume_delivery(worker.clone(), entry, report, spool, handles));
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
    spool: Spool,
    handles: AttemptHandles,
) {
    if let Err(error) = spool.finish().await {
        warn!(%error, "a spool can't be read");
    }
    let shipped = log_upload::run(&spool, worker.bulk.subscribe(), entry.attempt(), entry.token.clone());
    deliver(&worker, report, handles, shipped).await;
}

async fn run(worker: Arc<Worker>, attempt: wire::Attempt, job: Job, handles: AttemptHandles) {
    let mut entry = JournalEntry::new(&attempt, &job.token);
    let spool = match worker.journal.begin(entry.clone()).await {
        Ok(spool) => Arc::new(spool),
        Err(error) => {
            let text = format!("the worker's data folder can't be written: {error:#}");
            worker.attempts.ended(&attempt);
            let report = result(&attempt, &failed(Reason::StartFailed(text)));
            return deliver(&worker, report, handles, std::future::ready(LogUploadEnd::Closed)).await;
        }
    };
    let shipping = log_upload::run(&spool, worker.bulk.subscribe(), attempt.clone(), job.token.clone());
    let working = async {
        let report = execute(&worker, &attempt, job, &handles, spool.clone()).await;
        if let Err(error) = spool.finish().await {
            warn!(%error, "the end of a log could not be written");
        }
        let report = result(&attempt, &report);
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

async fn execute(
    worker: &Arc<Worker>,
    attempt: &wire::Attempt,
    job: Job,
    handles: &AttemptHandles,
    spool: Arc<Spool>,
) -> JobReport {
    let order: JobOrder = match serde_json::from_slice(&job.order) {
        Ok(order) => order,
        Err(error) => {
            let text = format!("this worker does not understand the order: {error}; is it older than its coordinator?");
            return failed(Reason::StartFailed(text));
        }
    };
    info!(run = attempt.run, job = attempt.job, attempt = attempt.attempt, "job begins");
    let image = image(&worker.config.labels, &order.runs_on);
    let runtime = worker.config.runtime(&order.runs_on);
    let sources = worker.mirrors.clone().for_attempt(worker.bulk.subscribe(), attempt.clone(), job.token.clone());
    let access = (!job.runtime_token.is_empty()).then(|| job::ActionsApiAccess {
        token: job.runtime_token.into(),
        id_token: job.id_token,
        tunnel: Arc::new(actions_tunnel::ActionsTunnel::new(
            worker.address.subscribe(),
            attempt.clone(),
            job.token.clone(),
        )),
    });
    let work = job::JobAttempt {
        order,
        secrets: job.secrets.into_iter().map(|(name, value)| (name, SecretString::from(value))).collect(),
        image,
        runtime,
        limits: worker.config.job_limits(),
        node: worker.config.node.clone(),
        checked_out: false,
        actions_api: access,
        cancel: handles.cancel.clone(),
        kill: handles.kill.clone(),
    };
    let trace = AttemptTrace::new(attempt.clone(), now_ms());
    let observer = Arc::new(ProgressSender { worker: worker.clone(), attempt: attempt.clone(), trace });
    // A task of its own: a bug in it must cost one job, not the worker.
    let mut task = tokio::spawn(worker.executor.execute(work, sources, spool, observer));
    let limit = match job.time_limit_ms {
        0 => Duration::MAX,
        ms => Duration::from_millis(ms),
    };
    let (ended, timed_out) = match tokio::time::timeout(limit, &mut task).await {
        Ok(ended) => (ended, false),
        Err(_) => {
            handles.kill.cancel();
            (task.await, true)
        }
    };
    let mut report = ended.unwrap_or_else(|error| failed(Reason::SandboxLost(format!("the worker failed: {error}"))));
    if timed_out {
        report.conclusion = Conclusion::Failure;
        report.reason = Some(Reason::Timeout);
    }
    info!(run = attempt.run, job = attempt.job, conclusion = report.conclusion.as_str(), "job ended");
    report
}

/// The image of the first label that names one.
fn image(images: &BTreeMap<String, String>, labels: &[String]) -> String {
    let named = labels.iter().find_map(|label| images.get(label));
    named.or_else(|| images.values().next()).cloned().unwrap_or_default()
}

fn result(attempt: &wire::Attempt, report: &JobReport) -> Report {
    Report { attempt: Some(attempt.clone()), report: report::encode(report).into() }
}

fn failed(reason: Reason) -> JobReport {
    JobReport { started_at_ms: now_ms(), finished_at_ms: now_ms(), ..JobReport::failed(reason) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_image_is_that_of_the_first_label_that_names_one() {
        let images = BTreeMap::from([("big".to_owned(), "b".to_owned()), ("ubuntu".to_owned(), "u".to_owned())]);
        let labels = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        for (asked, expected) in [
            (labels(&["ubuntu"]), "u"),
            (labels(&["gpu", "ubuntu", "big"]), "u"),
            (labels(&["gpu"]), "b"),
            (labels(&[]), "b"),
        ] {
            assert_eq!(image(&images, &asked), expected, "{asked:?}");
        }
        assert_eq!(image(&BTreeMap::new(), &labels(&["ubuntu"])), "");
    }
}
