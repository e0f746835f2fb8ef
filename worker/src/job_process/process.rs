//! One process for a job, as its worker has it: starts it, hears it, ends it and removes what it had.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream as StdUnixStream, process::ExitStatusExt as _},
    },
    path::PathBuf,
    process::ExitStatus,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt as _, StreamExt as _};
use prost::Message as _;
use proto::{
    FROM_JOB_PROCESS_LIMIT, TO_JOB_PROCESS_LIMIT,
    job_process::{
        FromJobProcess, MachineAnswer, MachineRequest, Run, Setup, Step, ToJobProcess,
        from_job_process::Message as FromMessage, to_job_process::Message as ToMessage,
    },
};
use rustix::process::{Signal, kill_process_group};
use tempfile::TempDir;
use tokio::{
    net::UnixStream,
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::{AbortOnDropHandle, TaskTracker},
};
use tracing::{debug, warn};

use super::{
    cgroup::Group,
    forked_process::{ForkClient, ForkedProcess},
    limits::ProcessLimits,
    machines::Machines,
    scratch::{self, ScratchLimits},
    socket::{self, FrameReader, FrameWriter},
};
use crate::{config::JobLimits, log::spool::SpoolProgress, sandbox::Sandbox};

/// Messages to a process that may wait. With more it does not listen any more.
const OUTGOING: usize = 256;
/// What is asked of the sandbox at a time.
const CALLS: usize = 64;
/// How long the kernel may take to end a process.
const ENDING: Duration = Duration::from_secs(10);
/// Starts processes of jobs.
pub(super) struct Spawner {
    pub(super) processes: ForkClient,
    pub(super) sandbox: Arc<dyn Sandbox>,
    pub(super) setup: Setup,
    pub(super) limits: JobLimits,
    pub(super) process_limits: ProcessLimits,
    /// Folder of the temporary folders of jobs.
    pub(super) scratch: PathBuf,
    /// What each of them may have.
    pub(super) scratch_limits: ScratchLimits,
    /// Machines that jobs wait for.
    pub(super) awaited: watch::Sender<usize>,
    /// What hears the processes and removes what they had.
    pub(super) drivers: TaskTracker,
}

/// What a process says of its job.
pub(super) enum JobEvent {
    /// The machine that it was told to prepare is there, or why not.
    Prepared(Result<(), String>),
    Begun,
    Step(Step),
    Log(SpoolProgress),
    Finished(Bytes),
    /// It still answers.
    Alive,
}

type Outgoing = (ToMessage, Option<OwnedFd>);

/// One process. Dropped, it is ended, and everything that it had is removed.
pub(super) struct JobProcess {
    pub(super) events: mpsc::Receiver<JobEvent>,
    outgoing: mpsc::Sender<Outgoing>,
    runtime: Arc<OnceLock<String>>,
    ended: Arc<OnceLock<String>>,
    over: CancellationToken,
    _end: DropGuard,
}

impl JobProcess {
    /// Gives it its job.
    pub(super) fn run(&self, run: Run) -> bool {
        let _ = self.runtime.set(run.runtime.clone());
        self.send(ToMessage::Run(run))
    }

    /// False where it does not listen.
    pub(super) fn send(&self, message: ToMessage) -> bool {
        self.outgoing.try_send((message, None)).is_ok()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.is_cancelled()
    }

    /// Why it ended, once its events are over.
    pub(super) fn reason(&self) -> String {
        self.ended.get().cloned().unwrap_or_else(|| "nobody knows why".to_owned())
    }
}

impl Spawner {
    /// Starts a process that knows no job yet.
    pub(super) async fn spawn(self: &Arc<Self>) -> io::Result<JobProcess> {
        let scratch = tempfile::Builder::new().prefix(scratch::PREFIX).tempdir_in(&self.scratch)?;
        let (messages, their_messages) = StdUnixStream::pair()?;
        let (sockets, their_sockets) = StdUnixStream::pair()?;
        let process = self.processes.start(scratch.path(), [their_messages.into(), their_sockets.into()]).await?;
        let name = scratch.path().file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // It does nothing before its first message.
        let group = self.process_limits.apply(&name, process.number)?;
        let (reader, writer) =
            socket::framed(socket::from_std(messages)?, FROM_JOB_PROCESS_LIMIT, TO_JOB_PROCESS_LIMIT);
        let (outgoing, queue) = mpsc::channel(OUTGOING);
        let (events, received) = mpsc::channel(16);
        let _ = outgoing.try_send((ToMessage::Setup(self.setup.clone()), None));
        let writing = AbortOnDropHandle::new(tokio::spawn(write_all(writer, socket::from_std(sockets)?, queue)));
        let (end, over) = (CancellationToken::new(), CancellationToken::new());
        let (runtime, ended) = (Arc::<OnceLock<String>>::default(), Arc::new(OnceLock::new()));
        let driver = Driver {
            process,
            group,
            scratch,
            scratch_limits: self.scratch_limits,
            reader,
            machines: Arc::new(Machines::new(
                Arc::clone(&self.sandbox),
                self.limits.clone(),
                self.awaited.clone(),
                Arc::clone(&runtime),
            )),
            events,
            outgoing: outgoing.clone(),
            end: end.clone(),
            ended: Arc::clone(&ended),
            over: over.clone(),
            _writing: writing,
        };
        self.drivers.spawn(driver.run());
        Ok(JobProcess { events: received, outgoing, runtime, ended, over, _end: end.drop_guard() })
    }
}

async fn write_all(mut writer: FrameWriter, sockets: UnixStream, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some((message, socket)) = queue.recv().await {
        if let Some(socket) = socket
            && socket::send_socket(&sockets, &socket).await.is_err()
        {
            return;
        }
        let frame = ToJobProcess { message: Some(message) }.encode_to_vec();
        // The reading side hears of a process that is gone.
        if writer.send(Bytes::from(frame)).await.is_err() {
            return;
        }
    }
}

/// Hears a process to its end.
struct Driver {
    process: ForkedProcess,
    group: Group,
    scratch: TempDir,
    scratch_limits: ScratchLimits,
    reader: FrameReader,
    machines: Arc<Machines>,
    events: mpsc::Sender<JobEvent>,
    outgoing: mpsc::Sender<Outgoing>,
    end: CancellationToken,
    ended: Arc<OnceLock<String>>,
    over: CancellationToken,
    _writing: AbortOnDropHandle<()>,
}

impl Driver {
    async fn run(mut self) {
        let mut calls = JoinSet::new();
        let end = self.end.clone();
        let excess = scratch::watch(self.scratch.path().to_owned(), self.process.number, self.scratch_limits);
        let fault = tokio::select! {
            () = end.cancelled() => None,
            excess = excess => Some(excess),
            fault = self.listen(&mut calls) => fault,
        };
        let told = end.is_cancelled();
        self.over.cancel();
        self.group.kill();
        // Its number is not another's before its status was asked for.
        let _ = kill_process_group(self.process.number, Signal::KILL);
        let status = tokio::time::timeout(ENDING, self.process.wait()).await;
        let reason = match fault {
            Some(fault) => fault,
            None if told => "it was told to".to_owned(),
            None => why(status.ok().and_then(Result::ok), self.group.ran_out_of_memory()),
        };
        debug!(process = %self.process.number, reason, "the process of a job ended");
        let _ = self.ended.set(reason);
        let Self { events, machines, group, scratch, .. } = self;
        // Whoever waits for it goes on; the rest nobody needs to see.
        drop(events);
        calls.shutdown().await;
        machines.destroy().await;
        let removed = tokio::task::spawn_blocking(move || {
            drop(group);
            scratch.close()
        });
        if let Ok(Err(error)) = removed.await {
            warn!(%error, "the temporary folder of a job was not removed; the next start tries again");
        }
    }

    /// Reads to the end. Gives what the process did wrong, if that is why it is to end.
    async fn listen(&mut self, calls: &mut JoinSet<()>) -> Option<String> {
        loop {
            tokio::select! {
                frame = self.reader.next() => {
                    let frame = match frame? {
                        Ok(frame) => frame.freeze(),
                        // The other end is gone, in the middle of a message.
                        Err(error) if error.kind() != io::ErrorKind::InvalidData => return None,
                        Err(_) => return Some("it sent a message that is too long".to_owned()),
                    };
                    let message = FromJobProcess::decode(frame).ok().and_then(|message| message.message);
                    let Some(message) = message else { return Some("it sent what is no message".to_owned()) };
                    if let Err(fault) = self.take(message, calls).await {
                        return Some(fault);
                    }
                }
                Some(_) = calls.join_next() => {}
            }
        }
    }

    async fn take(&mut self, message: FromMessage, calls: &mut JoinSet<()>) -> Result<(), String> {
        let event = match message {
            FromMessage::Request(request) => {
                if calls.len() >= CALLS {
                    return Err(format!("it asked for more than {CALLS} things at a time"));
                }
                calls.spawn(self.answer(request));
                return Ok(());
            }
            FromMessage::Prepared(prepared) if prepared.error.is_empty() => JobEvent::Prepared(Ok(())),
            FromMessage::Prepared(prepared) => JobEvent::Prepared(Err(prepared.error)),
            FromMessage::Begun(_) => JobEvent::Begun,
            FromMessage::Step(step) => JobEvent::Step(step),
            FromMessage::Log(log) => JobEvent::Log(SpoolProgress {
                bytes: log.bytes,
                sha256: Some(log.sha256).filter(|hash| !hash.is_empty()),
            }),
            FromMessage::Finished(finished) => JobEvent::Finished(finished.report),
            FromMessage::Pong(_) => JobEvent::Alive,
        };
        // Nobody wants it any more: this process is about to be ended.
        let _ = self.events.send(event).await;
        Ok(())
    }

    fn answer(&self, request: MachineRequest) -> impl Future<Output = ()> + Send + 'static {
        let (machines, outgoing) = (Arc::clone(&self.machines), self.outgoing.clone());
        async move {
            let MachineRequest { id, call } = request;
            let ((reply, socket), packing) = machines.answer(&call).await;
            // Without a number nobody waits for it.
            if id != 0 {
                let answer = MachineAnswer { id, reply: reply.into(), socket: socket.is_some() };
                let _ = outgoing.send((ToMessage::Answer(answer), socket)).await;
            }
            if let Some(packing) = packing {
                packing.run().await;
            }
        }
    }
}

/// Why a process ended that was not told to.
fn why(status: Option<ExitStatus>, ran_out_of_memory: bool) -> String {
    if ran_out_of_memory {
        return "it needed more memory than limits.process_memory allows".to_owned();
    }
    match status.map(|status| (status.signal(), status.code())) {
        Some((Some(signal), _)) => format!("killed by signal {signal}"),
        Some((_, Some(code))) => format!("exit code {code}; the worker's own log says more"),
        _ => "it could not be ended".to_owned(),
    }
}
