//! The worker's sandbox as the process of a job has it: machines are started by the worker, and spoken to from here.

use std::{
    collections::HashMap,
    os::{fd::OwnedFd, unix::net::UnixStream},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::{
    FutureExt as _, StreamExt as _,
    future::BoxFuture,
    stream::{self, BoxStream},
};
use parking_lot::Mutex;
use proto::job_process::{MachineRequest, from_job_process::Message as FromMessage};
use tokio::sync::{oneshot, watch};
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};

use super::{
    calls::{MachineCall, MachineReply, ServiceDescription},
    socket,
    worker_link::WorkerLink,
};
use crate::sandbox::{
    DiskBound, DiskBreach, ImageProgram, InitConnection, JobMachine, JobPaths, JobSpec, Machine, MachineControl,
    MachineSpec, Sandbox, SandboxError, SandboxKind, StartedMachine,
    service::{Service, ServiceSpec, ServiceState},
};

type Reply = (MachineReply, Option<OwnedFd>);

/// Calls of the worker that are under way.
pub(super) struct Calls {
    link: WorkerLink,
    waiting: Mutex<HashMap<u64, oneshot::Sender<Reply>>>,
    next: AtomicU64,
}

impl Calls {
    pub(super) fn new(link: WorkerLink) -> Self {
        Self { link, waiting: Mutex::default(), next: AtomicU64::new(1) }
    }

    async fn call(&self, call: &MachineCall) -> Result<Reply, SandboxError> {
        let lost = || SandboxError::Lost("the worker does not answer".into());
        let call = serde_json::to_vec(call).map_err(|error| SandboxError::Refused(error.to_string()))?;
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (answer, answered) = oneshot::channel();
        self.waiting.lock().insert(id, answer);
        self.link.send(FromMessage::Request(MachineRequest { id, call: call.into() }));
        match answered.await.map_err(|_| lost())? {
            (MachineReply::Failed(error), _) => Err(error),
            answer => Ok(answer),
        }
    }

    /// The worker answered. Whoever asked may have gone.
    pub(super) fn answer(&self, id: u64, reply: &[u8], socket: Option<OwnedFd>) {
        let reply = serde_json::from_slice(reply).unwrap_or_else(|error| {
            MachineReply::Failed(SandboxError::Lost(format!("an answer of the worker: {error}")))
        });
        if let Some(waiting) = self.waiting.lock().remove(&id) {
            let _ = waiting.send((reply, socket));
        }
    }

    /// A machine from the answer to its start.
    fn started(self: &Arc<Self>, reply: Reply) -> Result<StartedMachine, SandboxError> {
        match reply {
            (MachineReply::Started { machine, description }, Some(socket)) => Ok(StartedMachine {
                description: *description,
                connection: InitConnection::Socket(UnixStream::from(socket)),
                control: Arc::new(RemoteMachine { calls: Arc::clone(self), number: machine }),
            }),
            _ => Err(unexpected()),
        }
    }
}

fn unexpected() -> SandboxError {
    SandboxError::Lost("the worker answered something else".into())
}

/// A machine that was started before its job came.
struct PreparedMachine {
    spec: MachineSpec,
    machine: Arc<JobMachine>,
}

pub(super) struct RemoteSandbox {
    kind: SandboxKind,
    paths: Option<JobPaths>,
    disk_bound: DiskBound,
    calls: Arc<Calls>,
    prepared: watch::Sender<Option<PreparedMachine>>,
}

impl RemoteSandbox {
    pub(super) fn new(kind: SandboxKind, paths: Option<JobPaths>, disk_bound: DiskBound, calls: Arc<Calls>) -> Self {
        Self { kind, paths, disk_bound, calls, prepared: watch::Sender::new(None) }
    }

    /// Starts a machine for the job that comes.
    pub(super) async fn prepare(&self, spec: MachineSpec) -> Result<(), SandboxError> {
        let machine = Arc::new(JobMachine::open(self.start(spec.clone()).await?).await?);
        self.prepared.send_replace(Some(PreparedMachine { spec, machine }));
        Ok(())
    }

    /// Whether a machine that was made before its job was known serves that job. Back ends without images ignore them.
    fn is_alike(&self, prepared: &MachineSpec, wanted: &MachineSpec) -> bool {
        let image = if self.kind.needs_docker_engine() { &prepared.image } else { &wanted.image };
        *wanted == MachineSpec { attempt: wanted.attempt.clone(), image: image.clone(), ..prepared.clone() }
    }

    /// Waits until the prepared machine is gone, before a job had it.
    pub(super) async fn lost(&self) -> String {
        let mut prepared = self.prepared.subscribe();
        let machine = match prepared.wait_for(Option::is_some).await {
            Ok(prepared) => prepared.as_ref().map(|prepared| Arc::clone(&prepared.machine)),
            Err(_) => None,
        };
        match machine {
            Some(machine) => machine.lost().await,
            None => std::future::pending().await,
        }
    }
}

impl Sandbox for RemoteSandbox {
    fn kind(&self) -> SandboxKind {
        self.kind
    }

    fn paths(&self) -> Option<JobPaths> {
        self.paths.clone()
    }

    fn disk_bound(&self) -> DiskBound {
        self.disk_bound
    }

    fn start(&self, spec: MachineSpec) -> BoxFuture<'_, Result<StartedMachine, SandboxError>> {
        async move {
            let reply = self.calls.call(&MachineCall::Start(Box::new(spec))).await?;
            self.calls.started(reply)
        }
        .boxed()
    }

    /// The prepared machine, where the job asks for one like it.
    fn acquire(&self, spec: JobSpec) -> BoxFuture<'_, Result<Arc<dyn Machine>, SandboxError>> {
        async move {
            let JobSpec { machine: wanted, services } = spec;
            let prepared = self.prepared.send_replace(None);
            let machine = match prepared {
                Some(prepared) if self.is_alike(&prepared.spec, &wanted) => prepared.machine,
                other => {
                    drop(other);
                    Arc::new(JobMachine::open(self.start(wanted).await?).await?)
                }
            };
            // Dropped where a service does not start, the machine is removed with all that did.
            machine.start_services(services).await?;
            Ok(machine as Arc<dyn Machine>)
        }
        .boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, SandboxError>> {
        std::future::ready(Ok(0)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

struct RemoteMachine {
    calls: Arc<Calls>,
    number: u64,
}

impl Drop for RemoteMachine {
    fn drop(&mut self) {
        let call = MachineCall::Destroy { machine: self.number };
        if let Ok(call) = serde_json::to_vec(&call) {
            // Nobody waits for the answer, which has no number of its own.
            self.calls.link.send(FromMessage::Request(MachineRequest { id: 0, call: call.into() }));
        }
    }
}

impl MachineControl for RemoteMachine {
    fn watch_disk(&self, limit: u64) -> BoxFuture<'_, DiskBreach> {
        async move {
            match self.calls.call(&MachineCall::WatchDisk { machine: self.number, limit }).await {
                Ok((MachineReply::DiskBreach(breach), _)) => breach,
                // The machine is gone.
                _ => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn start_services(&self, specs: Vec<ServiceSpec>) -> BoxFuture<'_, Result<Vec<Arc<dyn Service>>, SandboxError>> {
        async move {
            let (calls, machine) = (&self.calls, self.number);
            match calls.call(&MachineCall::StartServices { machine, specs }).await? {
                (MachineReply::Services(services), _) => Ok(services
                    .into_iter()
                    .enumerate()
                    .map(|(service, description)| {
                        Arc::new(RemoteService { calls: Arc::clone(calls), machine, service, description })
                            as Arc<dyn Service>
                    })
                    .collect()),
                _ => Err(unexpected()),
            }
        }
        .boxed()
    }

    fn create_container(
        &self,
        spec: MachineSpec,
        workspace: bool,
    ) -> BoxFuture<'_, Result<StartedMachine, SandboxError>> {
        async move {
            let call = MachineCall::CreateContainer { machine: self.number, spec: Box::new(spec), workspace };
            let reply = self.calls.call(&call).await?;
            self.calls.started(reply)
        }
        .boxed()
    }

    fn pack(&self, path: String) -> BoxStream<'static, Result<Bytes, SandboxError>> {
        let (calls, machine) = (Arc::clone(&self.calls), self.number);
        let opening = async move {
            let opened = match calls.call(&MachineCall::Pack { machine, path: path.clone() }).await {
                Ok((MachineReply::Packed, Some(socket))) => pieces(UnixStream::from(socket), path),
                Ok(_) => Err(unexpected()),
                Err(error) => Err(error),
            };
            opened.unwrap_or_else(|error| stream::iter([Err(error)]).boxed())
        };
        stream::once(opening).flatten().boxed()
    }

    fn commit_image(&self, name: String, program: ImageProgram) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            let call = MachineCall::CommitImage { machine: self.number, name, program: Box::new(program) };
            self.calls.call(&call).await.map(drop)
        }
        .boxed()
    }

    fn complaint(&self) -> BoxFuture<'_, Option<String>> {
        async move {
            match self.calls.call(&MachineCall::Complaint { machine: self.number }).await {
                Ok((MachineReply::Text(text), _)) => text,
                _ => None,
            }
        }
        .boxed()
    }

    fn destroy(&self) -> BoxFuture<'_, ()> {
        async move {
            // What cannot be removed now is swept later.
            let _ = self.calls.call(&MachineCall::Destroy { machine: self.number }).await;
        }
        .boxed()
    }
}

/// The pieces of a file that the worker packs, to their end.
fn pieces(socket: UnixStream, path: String) -> Result<BoxStream<'static, Result<Bytes, SandboxError>>, SandboxError> {
    let socket = socket::from_std(socket).map_err(|error| SandboxError::Lost(format!("reading {path}: {error}")))?;
    let frames = FramedRead::new(socket, LengthDelimitedCodec::new());
    let read = stream::unfold(Some((frames, path)), |state| async move {
        let (mut frames, path) = state?;
        match frames.next().await {
            Some(Ok(piece)) if piece.is_empty() => None,
            Some(Ok(piece)) => Some((Ok(piece.freeze()), Some((frames, path)))),
            Some(Err(_)) | None => Some((Err(SandboxError::Lost(format!("reading {path} broke off"))), None)),
        }
    });
    Ok(read.boxed())
}

struct RemoteService {
    calls: Arc<Calls>,
    machine: u64,
    service: usize,
    description: ServiceDescription,
}

impl Service for RemoteService {
    fn id(&self) -> &str {
        &self.description.id
    }

    fn network(&self) -> &str {
        &self.description.network
    }

    fn address(&self) -> &str {
        &self.description.address
    }

    fn state(&self) -> BoxFuture<'_, Result<ServiceState, SandboxError>> {
        async move {
            match self.calls.call(&MachineCall::ServiceState { machine: self.machine, service: self.service }).await? {
                (MachineReply::State(state), _) => Ok(state),
                _ => Err(unexpected()),
            }
        }
        .boxed()
    }

    fn last_lines(&self) -> BoxFuture<'_, String> {
        async move {
            match self.calls.call(&MachineCall::ServiceLines { machine: self.machine, service: self.service }).await {
                Ok((MachineReply::Text(Some(text)), _)) => text,
                _ => String::new(),
            }
        }
        .boxed()
    }
}
