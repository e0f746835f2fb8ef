//! Runs attempts in processes of their own, and says what became of one whose process did not come to its end.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use prost::Message as _;
use proto::{
    STEP_CLEANUP,
    job_process::{Cancel, Coordinator, Kill, Ping, Run, Setup, to_job_process::Message as ToMessage},
    worker::LogStream,
};
use serde::{Deserialize, de::IgnoredAny};
use sha2::{Digest as _, Sha256};
use tokio::{
    sync::watch,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};
use tokio_util::task::TaskTracker;
use tracing::{info, warn};
use workflow::plan::{Conclusion, Reason};

use super::{
    forked_process::ForkClient,
    limits::ProcessLimits,
    pool::{ProcessPool, Refill},
    process::{JobEvent, JobProcess, Spawner},
    scratch::ScratchLimits,
};
use crate::{
    config::Config,
    coordinator_client::{AssignedJob, Executor, encode_report, failed},
    job::{self, ProgressReporter},
    log::{LogSink as _, Record},
    sandbox::{Sandbox, SandboxKind},
};

/// Between two questions whether a process still answers.
const PING: Duration = Duration::from_secs(5);
/// How long it may answer nothing at all.
const SILENCE: Duration = Duration::from_secs(30);
/// How long it may take to end, once told to end everything at once. Its containers are removed anyway.
const KILL_GRACE: Duration = Duration::from_secs(15);
/// How long after every limit of time of a job its process is ended.
const OVERTIME: Duration = Duration::from_secs(60);
/// Most processes that wait for a job without a machine.
const SPARE: usize = 4;

/// Jobs in processes of their own: what a worker does outside tests.
pub struct ProcessExecutor {
    sandbox: Arc<dyn Sandbox>,
    config: Config,
    spawner: Arc<Spawner>,
    pool: Arc<ProcessPool>,
}

/// What is to be known of an order before its process has it.
#[derive(Debug, Default, Deserialize)]
struct Placement {
    runs_on: Vec<String>,
    timeout_ms: u64,
    job: PlacedJob,
}

#[derive(Debug, Default, Deserialize)]
struct PlacedJob {
    container: Option<IgnoredAny>,
}

impl ProcessExecutor {
    /// Starts the processes that wait for jobs. Says how they are limited.
    pub fn start(config: &Config, sandbox: Arc<dyn Sandbox>) -> anyhow::Result<Self> {
        let data = std::path::absolute(&config.data).context("the data folder")?;
        let scratch = data.join("scratch");
        prepare_scratch(&scratch).with_context(|| format!("folder {}", scratch.display()))?;
        let name = hex::encode(Sha256::digest(data.as_os_str().as_encoded_bytes()));
        let process_limits = ProcessLimits::new(&config.limits, name.get(..12).unwrap_or(&name));
        match process_limits.describe() {
            (text, true) => info!("the process of each job is limited by {text}"),
            (text, false) => warn!("the process of each job is limited by {text}"),
        }
        let text = |path: &Option<std::path::PathBuf>| {
            let path = path.as_deref().map(std::path::absolute).transpose()?;
            std::io::Result::Ok(path.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())
        };
        let paths = sandbox.paths();
        let limits = config.job_limits();
        let setup = Setup {
            data: data.to_string_lossy().into_owned(),
            ca_file: text(&config.ca_file)?,
            sandbox: sandbox.kind().to_string(),
            workspace: paths.as_ref().map(|paths| paths.workspace.clone()).unwrap_or_default(),
            temp: paths.map(|paths| paths.temp).unwrap_or_default(),
            limits: serde_json::to_vec(&limits)?.into(),
            node: text(&config.node)?,
            traced: telemetry::is_exporting(),
            disk_bound: serde_json::to_vec(&sandbox.disk_bound())?.into(),
            mirror_bytes: config.disk.mirror_bytes,
        };
        let spawner = Arc::new(Spawner {
            processes: ForkClient::new(),
            sandbox: Arc::clone(&sandbox),
            setup,
            scratch_limits: ScratchLimits { bytes: limits.disk, min_free: config.disk.min_free },
            limits,
            process_limits,
            scratch,
            awaited: watch::Sender::new(0),
            drivers: TaskTracker::new(),
        });
        let pool = ProcessPool::new(Arc::clone(&spawner), wanted(config, sandbox.kind()));
        Ok(Self { sandbox, config: config.clone(), spawner, pool })
    }

    /// Ends all processes and machines.
    pub async fn close(&self) {
        self.sandbox.stop_starts();
        self.pool.close().await;
        self.spawner.drivers.close();
        self.spawner.drivers.wait().await;
        self.spawner.process_limits.remove();
        self.sandbox.close().await;
    }
}

/// Processes that wait, each with the machine of an image or without one.
fn wanted(config: &Config, kind: SandboxKind) -> HashMap<Option<String>, usize> {
    let spare = SPARE.min(config.slots as usize).max(1);
    let warm = config.pool.size;
    if kind == SandboxKind::Host {
        return HashMap::from([(Some(String::new()), spare)]);
    }
    if warm == 0 {
        return HashMap::from([(None, spare)]);
    }
    // A job of a runtime has a container of its own making.
    let plain = config.labels.iter().filter(|(label, _)| !config.runtimes.contains_key(*label));
    let images: BTreeSet<&String> = plain.map(|(_, image)| image).collect();
    let machines = images.into_iter().map(|image| (Some(image.clone()), warm));
    machines.chain([(None, 1)]).collect()
}

/// The folder of jobs' temporary folders, without those of an earlier life.
fn prepare_scratch(scratch: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(scratch) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    std::fs::create_dir_all(scratch)?;
    std::fs::set_permissions(scratch, std::os::unix::fs::PermissionsExt::from_mode(0o700))
}

/// The image of the first label that names one.
fn image(images: &BTreeMap<String, String>, labels: &[String]) -> String {
    let named = labels.iter().find_map(|label| images.get(label));
    named.or_else(|| images.values().next()).cloned().unwrap_or_default()
}

impl Executor for ProcessExecutor {
    fn execute(&self, job: AssignedJob, observer: Arc<dyn ProgressReporter>) -> BoxFuture<'static, Vec<u8>> {
        // What is no order is refused by its process, with the reason.
        let placement: Placement = serde_json::from_slice(&job.job.order).unwrap_or_default();
        let image = image(&self.config.labels, &placement.runs_on);
        let limits = &self.config.limits;
        let longest = job::longest(placement.timeout_ms, limits).min(job.time_limit()).saturating_add(OVERTIME);
        let runtime = self.config.runtime(&placement.runs_on);
        // What waits is of the engine's own runtime.
        let warm = (placement.job.container.is_none() && runtime.is_empty()).then(|| match self.sandbox.kind() {
            SandboxKind::Host => String::new(),
            SandboxKind::Docker => image.clone(),
        });
        let pool = Arc::clone(&self.pool);
        async move {
            match pool.take(warm).await {
                Ok((process, refill)) => RunningJob { process, job, observer, started: false, refill: Some(refill) }
                    .run(image, runtime, longest)
                    .await
                    .into(),
                Err(error) => {
                    let text = format!("no process for it could be started on the worker: {error}");
                    encode_report(&failed(Reason::StartFailed(text)))
                }
            }
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, ()> {
        Box::pin(async {
            match self.sandbox.sweep().await {
                Ok(0) => {}
                Ok(count) => info!(count, "removed containers of an earlier life of this worker"),
                Err(error) => warn!(%error, "leftovers of an earlier life of this worker could not be removed"),
            }
        })
    }
}

/// A job and its process.
struct RunningJob {
    process: JobProcess,
    job: AssignedJob,
    observer: Arc<dyn ProgressReporter>,
    started: bool,
    refill: Option<Refill>,
}

impl RunningJob {
    /// Gives the report: the process's, or why there is none.
    async fn run(mut self, image: String, runtime: String, longest: Duration) -> Bytes {
        match self.until_end(image, runtime, longest).await {
            Ok(report) => report,
            Err(reason) => {
                let mut report = failed(reason);
                report.started = self.started;
                if matches!(report.reason, Some(Reason::Cancelled(_))) {
                    report.conclusion = Conclusion::Cancelled;
                }
                if let Some(reason) = &report.reason {
                    self.log_end(reason).await;
                }
                encode_report(&report).into()
            }
        }
    }

    async fn until_end(&mut self, image: String, runtime: String, longest: Duration) -> Result<Bytes, Reason> {
        let mut coordinator = self.job.coordinator.clone();
        let url = coordinator.borrow_and_update().clone().unwrap_or_default();
        let run = Run {
            job: self.job.job.encode_to_vec().into(),
            image,
            log: std::path::absolute(self.job.log.path()).unwrap_or_default().to_string_lossy().into_owned(),
            coordinator: url,
            runtime,
        };
        let silent = || Reason::ProcessLost(format!("it did not answer for {} s", SILENCE.as_secs()));
        if !self.process.run(run) {
            return Err(silent());
        }
        let (mut cancelled, mut killed) = (false, false);
        let mut end = Instant::now() + longest.min(Duration::from_secs(366 * 24 * 3600));
        let mut heard = Instant::now();
        let mut pings = interval(PING);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let mut sent = true;
            tokio::select! {
                event = self.process.events.recv() => {
                    heard = Instant::now();
                    match event {
                        Some(JobEvent::Finished(report)) => return Ok(report),
                        Some(JobEvent::Begun) => {
                            self.started = true;
                            self.refill = None;
                            self.observer.begun();
                        }
                        Some(JobEvent::Step(step)) => {
                            self.observer.step(step.index, &step.name, &step.state, &step.outcome);
                        }
                        Some(JobEvent::Log(progress)) => self.job.log.advance(progress),
                        Some(JobEvent::Alive | JobEvent::Prepared(_)) => {}
                        None => return Err(Reason::ProcessLost(self.process.reason())),
                    }
                }
                () = self.job.cancel.cancelled(), if !cancelled => {
                    cancelled = true;
                    sent = self.process.send(ToMessage::Cancel(Cancel {}));
                }
                () = self.job.kill.cancelled(), if !killed => {
                    killed = true;
                    end = end.min(Instant::now() + KILL_GRACE);
                    sent = self.process.send(ToMessage::Kill(Kill {}));
                }
                Ok(()) = coordinator.changed() => {
                    let url = coordinator.borrow_and_update().clone().unwrap_or_default();
                    sent = self.process.send(ToMessage::Coordinator(Coordinator { url }));
                }
                _ = pings.tick() => {
                    if heard.elapsed() > SILENCE {
                        return Err(if killed { ended_at_once() } else { silent() });
                    }
                    sent = self.process.send(ToMessage::Ping(Ping {}));
                }
                () = sleep_until(end) => return Err(if killed { ended_at_once() } else { Reason::Timeout }),
            }
            if !sent && !self.process.is_over() {
                return Err(silent());
            }
        }
    }

    /// The last words of a log whose writer is gone.
    async fn log_end(&self, reason: &Reason) {
        let log = self.job.log.clone();
        if log.is_finished() {
            return;
        }
        let text = format!("##[error]{reason}\n");
        let record = Record {
            time_ms: workflow::time::unix_millis(std::time::SystemTime::now()),
            step: STEP_CLEANUP,
            stream: LogStream::Notice.into(),
            text: text.into(),
            mark: None,
        };
        let written = async {
            let spool = tokio::task::spawn_blocking(move || log.open()).await.map_err(std::io::Error::other)??;
            spool.append(vec![record]).await?;
            spool.finish().await
        };
        if let Err(error) = written.await {
            warn!(%error, "the end of a log could not be written");
        }
    }
}

fn ended_at_once() -> Reason {
    Reason::Cancelled("the job was ended at once".into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
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

    #[test]
    fn a_job_with_a_container_of_its_own_is_told_from_others() {
        let placed = |container: &str| -> Placement {
            let text =
                format!(r#"{{"runs_on": ["a"], "timeout_ms": 1, "job": {{"id": "x", "container": {container}}}}}"#);
            serde_json::from_str(&text).unwrap()
        };
        assert!(placed("null").job.container.is_none());
        assert!(placed(r#"{"image": "b"}"#).job.container.is_some());
    }
}
