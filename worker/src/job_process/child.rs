//! The process of one job: what it is told, what it does and what it says.

use std::{
    io,
    os::{fd::AsFd, unix::net::UnixStream as StdUnixStream},
    path::PathBuf,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use futures::StreamExt as _;
use prost::Message as _;
use proto::{
    FROM_JOB_PROCESS_LIMIT, TO_JOB_PROCESS_LIMIT,
    job_process::{
        Begun, Finished, LogProgress, Pong, Prepared, Run, Setup, Step, ToJobProcess,
        from_job_process::Message as FromMessage, to_job_process::Message as ToMessage,
    },
};
use tokio::{net::UnixStream, sync::watch, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    lifeline,
    remote_sandbox::{Calls, RemoteSandbox},
    socket::{self, FrameReader},
    worker_link::WorkerLink,
};
use crate::{
    config::JobLimits,
    coordinator_client::{AssignedJob, JobSettings, encode_report},
    job::{self, ProgressReporter},
    log::spool::{SpoolFile, SpoolProgress},
    sandbox::{JobPaths, SandboxKind},
};

/// Serves the worker that started this process, over standard input and output, until its one job has ended.
pub async fn run() -> anyhow::Result<()> {
    let not_started = "this command is for `longshore worker` alone, which starts it for each job";
    let messages = duplicate(io::stdin()).context(not_started)?;
    let sockets = duplicate(io::stdout()).context(not_started)?;
    lifeline::watch(messages.try_clone().context(not_started)?).context(not_started)?;
    // A file that grows over its limit is an error of whoever writes it, not the end of all.
    let _too_large = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::from_raw(SIGXFSZ));
    let messages = socket::from_std(messages).context(not_started)?;
    let sockets = socket::from_std(sockets).context(not_started)?;
    let (mut reader, writer) = socket::framed(messages, TO_JOB_PROCESS_LIMIT, FROM_JOB_PROCESS_LIMIT);
    let Some(ToMessage::Setup(setup)) = receive(&mut reader).await.context(not_started)? else { bail!(not_started) };
    let (link, _writing) = WorkerLink::new(writer);
    Child::new(setup, link)?.serve(reader, sockets).await
}

/// The signal of a process that wrote more than RLIMIT_FSIZE into a file.
const SIGXFSZ: i32 = 25;

fn duplicate(stream: impl AsFd) -> io::Result<StdUnixStream> {
    Ok(StdUnixStream::from(stream.as_fd().try_clone_to_owned()?))
}

async fn receive(reader: &mut FrameReader) -> anyhow::Result<Option<ToMessage>> {
    let Some(frame) = reader.next().await.transpose()? else { return Ok(None) };
    let message = ToJobProcess::decode(frame.freeze())?.message;
    Ok(Some(message.context("the worker sent a message that this process does not know")?))
}

struct Child {
    data: PathBuf,
    mirror_bytes: u64,
    ca_file: Option<PathBuf>,
    settings: JobSettings,
    traced: bool,
    link: WorkerLink,
    calls: Arc<Calls>,
    sandbox: Arc<RemoteSandbox>,
    coordinator: watch::Sender<Option<String>>,
    cancel: CancellationToken,
    kill: CancellationToken,
}

impl Child {
    fn new(setup: Setup, link: WorkerLink) -> anyhow::Result<Self> {
        let Setup { data, ca_file, sandbox, workspace, temp, limits, node, traced, disk_bound, mirror_bytes } = setup;
        let limits: JobLimits = serde_json::from_slice(&limits).context("limits of the job")?;
        let disk_bound = serde_json::from_slice(&disk_bound).context("bound of the disk")?;
        let kind: SandboxKind = sandbox.parse().map_err(anyhow::Error::msg)?;
        let paths = (!workspace.is_empty()).then_some(JobPaths { workspace, temp });
        let calls = Arc::new(Calls::new(link.clone()));
        Ok(Self {
            data: data.into(),
            mirror_bytes,
            ca_file: (!ca_file.is_empty()).then(|| ca_file.into()),
            settings: JobSettings { limits, node: (!node.is_empty()).then(|| node.into()), ..JobSettings::default() },
            traced,
            sandbox: Arc::new(RemoteSandbox::new(kind, paths, disk_bound, Arc::clone(&calls))),
            calls,
            link,
            coordinator: watch::Sender::new(None),
            cancel: CancellationToken::new(),
            kill: CancellationToken::new(),
        })
    }

    async fn serve(self, mut reader: FrameReader, sockets: UnixStream) -> anyhow::Result<()> {
        let mut job = JoinSet::new();
        loop {
            tokio::select! {
                Some(ended) = job.join_next() => return ended.context("the job's task"),
                lost = self.sandbox.lost(), if job.is_empty() => {
                    tracing::debug!(reason = lost, "a machine that waited for a job is gone");
                    return Ok(());
                }
                message = receive(&mut reader) => match message? {
                    None => return Ok(()),
                    Some(ToMessage::Setup(_)) => bail!("a second setup came"),
                    Some(ToMessage::Prepare(prepare)) => self.prepare(&prepare.image),
                    Some(ToMessage::Run(run)) => {
                        ensure!(job.is_empty(), "a second job came");
                        job.spawn(self.job(run)?);
                    }
                    Some(ToMessage::Coordinator(coordinator)) => self.follow(coordinator.url),
                    Some(ToMessage::Cancel(_)) => self.cancel.cancel(),
                    Some(ToMessage::Kill(_)) => self.kill.cancel(),
                    Some(ToMessage::Ping(_)) => self.link.send(FromMessage::Pong(Pong {})),
                    Some(ToMessage::Answer(answer)) => {
                        let socket = match answer.socket {
                            true => Some(socket::receive_socket(&sockets).await.context("a socket of the worker")?),
                            false => None,
                        };
                        self.calls.answer(answer.id, &answer.reply, socket);
                    }
                }
            }
        }
    }

    fn follow(&self, url: String) {
        self.coordinator.send_replace((!url.is_empty()).then_some(url));
    }

    fn prepare(&self, image: &str) {
        let (sandbox, link) = (Arc::clone(&self.sandbox), self.link.clone());
        let spec = job::plain_machine(image, String::new(), &self.settings.limits);
        tokio::spawn(async move {
            let error = sandbox.prepare(spec).await.err().map(|error| error.to_string()).unwrap_or_default();
            link.send(FromMessage::Prepared(Prepared { error }));
        });
    }

    /// The job, to the last word about it.
    fn job(&self, run: Run) -> anyhow::Result<impl Future<Output = ()> + Send + 'static> {
        self.follow(run.coordinator);
        let log = SpoolFile::new(run.log);
        let job = AssignedJob {
            job: proto::worker::Job::decode(run.job).context("the coordinator's message")?,
            log: log.clone(),
            data: self.data.clone(),
            mirror_bytes: self.mirror_bytes,
            ca_file: self.ca_file.clone(),
            coordinator: self.coordinator.subscribe(),
            cancel: self.cancel.clone(),
            kill: self.kill.clone(),
        };
        let settings = JobSettings { image: run.image, runtime: run.runtime, ..self.settings.clone() };
        let (sandbox, link, traced) = (Arc::clone(&self.sandbox), self.link.clone(), self.traced);
        let sink = Arc::new(log.open().context("the job's log")?);
        Ok(async move {
            let sending = AbortOnDropHandle::new(tokio::spawn(send_progress(log.progress(), link.clone())));
            let observer = Arc::new(ProgressSender { link: link.clone(), traced });
            let report = Box::pin(job.run(settings, sandbox, sink, observer)).await;
            drop(sending);
            let end = log.progress().borrow().clone();
            link.send(FromMessage::Log(progress(end)));
            link.send_and_wait(FromMessage::Finished(Finished { report: encode_report(&report).into() })).await;
        })
    }
}

/// What was written meanwhile is told together.
async fn send_progress(mut log: watch::Receiver<SpoolProgress>, link: WorkerLink) {
    while log.changed().await.is_ok() {
        let to = log.borrow_and_update().clone();
        link.send_and_wait(FromMessage::Log(progress(to))).await;
    }
}

fn progress(to: SpoolProgress) -> LogProgress {
    LogProgress { bytes: to.bytes, sha256: to.sha256.unwrap_or_default() }
}

struct ProgressSender {
    link: WorkerLink,
    traced: bool,
}

impl ProgressReporter for ProgressSender {
    fn begun(&self) {
        self.link.send(FromMessage::Begun(Begun {}));
    }

    fn step(&self, index: u32, name: &str, state: &str, outcome: &str) {
        if self.traced {
            let [name, state, outcome] = [name, state, outcome].map(str::to_owned);
            self.link.send(FromMessage::Step(Step { index, name, state, outcome }));
        }
    }
}
