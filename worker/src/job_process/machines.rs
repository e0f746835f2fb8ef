//! Answers what a job's process asks of the sandbox.
//!
//! The process may ask for anything, so what it gets is what any job may have: machines within the worker's limits, and
//! nothing of another job.

use std::{
    collections::HashMap,
    io,
    os::{fd::OwnedFd, unix::net::UnixStream as StdUnixStream},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::BytesMut;
use futures::{SinkExt as _, StreamExt as _};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::UnixStream,
    sync::watch,
};
use tokio_util::{
    codec::{FramedWrite, LengthDelimitedCodec},
    task::AbortOnDropHandle,
};

use super::{
    calls::{MachineCall, MachineReply, ServiceDescription},
    socket,
};
use crate::{
    config::JobLimits,
    sandbox::{
        InitConnection, MachineControl, MachineSpec, Sandbox, SandboxError, StartedMachine,
        service::{Service, ServiceSpec},
    },
};

/// Machines of one job at a time: its own, and those of Docker actions and of builds.
const MACHINES: usize = 64;
/// Bytes that are carried together.
const PIECE: usize = 64 << 10;

/// The machines of one job.
pub(super) struct Machines {
    sandbox: Arc<dyn Sandbox>,
    limits: JobLimits,
    /// Machines that jobs wait for.
    awaited: watch::Sender<usize>,
    /// The engine's runtime for the job, once there is one.
    runtime: Arc<OnceLock<String>>,
    served: Mutex<HashMap<u64, ServedMachine>>,
    next: AtomicU64,
}

#[derive(Clone)]
struct ServedMachine {
    control: Arc<dyn MachineControl>,
    services: Vec<Arc<dyn Service>>,
    /// What its first process complained of.
    complaint: Arc<OnceLock<String>>,
    _carrying: Option<Arc<AbortOnDropHandle<()>>>,
}

/// An answer, and the socket that goes with it.
type Answer = (MachineReply, Option<OwnedFd>);

impl Machines {
    pub(super) fn new(
        sandbox: Arc<dyn Sandbox>,
        limits: JobLimits,
        awaited: watch::Sender<usize>,
        runtime: Arc<OnceLock<String>>,
    ) -> Self {
        Self { sandbox, limits, awaited, runtime, served: Mutex::default(), next: AtomicU64::new(1) }
    }

    /// Answers one call; a file that is packed goes after the answer.
    pub(super) async fn answer(&self, call: &[u8]) -> ((Vec<u8>, Option<OwnedFd>), Option<Packing>) {
        let mut packing = None;
        let answered = match serde_json::from_slice(call) {
            Ok(MachineCall::Pack { machine, path }) => self.pack(machine, path).await.map(|(socket, pack)| {
                packing = Some(pack);
                (MachineReply::Packed, Some(socket))
            }),
            Ok(call) => self.call(call).await,
            Err(error) => {
                Err(SandboxError::Refused(format!("the worker does not understand what its job asks: {error}")))
            }
        };
        let (reply, socket) = answered.unwrap_or_else(|error| (MachineReply::Failed(error), None));
        ((serde_json::to_vec(&reply).unwrap_or_default(), socket), packing)
    }

    async fn call(&self, call: MachineCall) -> Result<Answer, SandboxError> {
        let reply = match call {
            MachineCall::Start(mut spec) => {
                self.limit(&mut spec);
                let _awaited = self.runtime.get().map(|_| Awaited::new(&self.awaited));
                let started = self.sandbox.start(*spec).await?;
                return self.serve(started);
            }
            MachineCall::CreateContainer { machine, mut spec, workspace } => {
                self.limit(&mut spec);
                let started = self.find(machine)?.control.create_container(*spec, workspace).await?;
                return self.serve(started);
            }
            MachineCall::StartServices { machine, mut specs } => {
                for ServiceSpec { machine, .. } in &mut specs {
                    self.limit(machine);
                }
                let services = self.find(machine)?.control.start_services(specs).await?;
                let descriptions = services.iter().map(|service| ServiceDescription {
                    id: service.id().to_owned(),
                    network: service.network().to_owned(),
                    address: service.address().to_owned(),
                });
                let reply = MachineReply::Services(descriptions.collect());
                if let Some(served) = self.served.lock().get_mut(&machine) {
                    served.services = services;
                }
                reply
            }
            MachineCall::ServiceState { machine, service } => {
                MachineReply::State(self.service(machine, service)?.state().await?)
            }
            MachineCall::ServiceLines { machine, service } => {
                MachineReply::Text(Some(self.service(machine, service)?.last_lines().await))
            }
            MachineCall::CommitImage { machine, name, program } => {
                self.find(machine)?.control.commit_image(name, *program).await?;
                MachineReply::Done
            }
            MachineCall::WatchDisk { machine, limit } => {
                MachineReply::DiskBreach(self.find(machine)?.control.watch_disk(limit).await)
            }
            MachineCall::Complaint { machine } => MachineReply::Text(self.find(machine)?.complaint.get().cloned()),
            MachineCall::Destroy { machine } => {
                let served = self.served.lock().remove(&machine);
                if let Some(served) = served {
                    served.control.destroy().await;
                }
                MachineReply::Done
            }
            MachineCall::Pack { .. } => return Err(SandboxError::Refused("a file is packed on its own".into())),
        };
        Ok((reply, None))
    }

    /// Ends and removes all of them.
    pub(super) async fn destroy(&self) {
        let all: Vec<_> = self.served.lock().drain().map(|(_, served)| served).collect();
        for served in all {
            served.control.destroy().await;
        }
    }

    fn limit(&self, spec: &mut MachineSpec) {
        spec.runtime = self.runtime.get().cloned().unwrap_or_default();
        let most = self.limits.resources();
        spec.limits.memory = spec.limits.memory.min(most.memory);
        spec.limits.processes = spec.limits.processes.min(most.processes);
        if most.cpu_millis > 0 {
            spec.limits.cpu_millis = spec.limits.cpu_millis.clamp(1, most.cpu_millis);
        }
    }

    fn find(&self, machine: u64) -> Result<ServedMachine, SandboxError> {
        let gone = || SandboxError::Lost("the job's container was removed".into());
        self.served.lock().get(&machine).cloned().ok_or_else(gone)
    }

    fn service(&self, machine: u64, service: usize) -> Result<Arc<dyn Service>, SandboxError> {
        let gone = || SandboxError::Lost("there is no such service".into());
        self.find(machine)?.services.get(service).cloned().ok_or_else(gone)
    }

    fn serve(&self, started: StartedMachine) -> Result<Answer, SandboxError> {
        let StartedMachine { description, connection, control } = started;
        let complaint = Arc::new(OnceLock::new());
        let failed = |error: io::Error| SandboxError::Start(format!("the way to its first process: {error}"));
        let (socket, carrying) = hand_over(connection, &complaint).map_err(failed)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut served = self.served.lock();
        if served.len() >= MACHINES {
            return Err(SandboxError::Refused(format!("a job may have {MACHINES} containers at a time")));
        }
        let _carrying = carrying.map(Arc::new);
        served.insert(number, ServedMachine { control, services: Vec::new(), complaint, _carrying });
        Ok((MachineReply::Started { machine: number, description: Box::new(description) }, Some(socket)))
    }

    async fn pack(&self, machine: u64, path: String) -> Result<(OwnedFd, Packing), SandboxError> {
        let mut pieces = self.find(machine)?.control.pack(path);
        // What is not there is seen with the first piece.
        let first = pieces.next().await.transpose()?;
        let failed = |error: io::Error| SandboxError::Lost(format!("a socket for a file: {error}"));
        let (near, far) = StdUnixStream::pair().map_err(failed)?;
        let near = socket::from_std(near).map_err(failed)?;
        let rest = futures::stream::iter(first.map(Ok)).chain(pieces).boxed();
        Ok((far.into(), Packing { to: FramedWrite::new(near, LengthDelimitedCodec::new()), pieces: rest }))
    }
}

/// A file on its way to a job's process, at the pace at which that reads.
pub(super) struct Packing {
    to: FramedWrite<UnixStream, LengthDelimitedCodec>,
    pieces: futures::stream::BoxStream<'static, Result<bytes::Bytes, SandboxError>>,
}

impl Packing {
    pub(super) async fn run(mut self) {
        while let Some(piece) = self.pieces.next().await {
            // Without its end the reader knows that something is missing.
            let Ok(piece) = piece else { return };
            if !piece.is_empty() && self.to.send(piece).await.is_err() {
                return;
            }
        }
        let _ = self.to.send(bytes::Bytes::new()).await;
    }
}

/// A socket to a machine's first process, and what carries its bytes where the process has none itself.
fn hand_over(
    connection: InitConnection,
    complaint: &Arc<OnceLock<String>>,
) -> io::Result<(OwnedFd, Option<AbortOnDropHandle<()>>)> {
    let (incoming, outgoing) = match connection {
        InitConnection::Socket(socket) => return Ok((socket.into(), None)),
        InitConnection::Streams(incoming, outgoing) => (incoming, outgoing),
    };
    let (near, far) = StdUnixStream::pair()?;
    let (reading, writing) = socket::from_std(near)?.into_split();
    let complaint = Arc::clone(complaint);
    let carrying = tokio::spawn(async move {
        tokio::join!(carry_up(incoming, writing, &complaint), carry_down(reading, outgoing));
    });
    Ok((far.into(), Some(AbortOnDropHandle::new(carrying))))
}

async fn carry_up(
    mut incoming: impl futures::Stream<Item = io::Result<bytes::Bytes>> + Unpin,
    mut to: impl tokio::io::AsyncWrite + Unpin,
    complaint: &OnceLock<String>,
) {
    while let Some(piece) = incoming.next().await {
        match piece {
            Ok(piece) => {
                if to.write_all(&piece).await.is_err() {
                    return;
                }
            }
            Err(error) => {
                let _ = complaint.set(error.to_string());
                break;
            }
        }
    }
    let _ = to.shutdown().await;
}

async fn carry_down(mut from: impl tokio::io::AsyncRead + Unpin, mut to: impl tokio::io::AsyncWrite + Unpin) {
    let mut buffer = BytesMut::with_capacity(PIECE);
    while let Ok(1..) = from.read_buf(&mut buffer).await {
        if to.write_all(&buffer).await.is_err() || to.flush().await.is_err() {
            return;
        }
        buffer.clear();
    }
}

/// Counts a machine that a job waits for.
struct Awaited<'a>(&'a watch::Sender<usize>);

impl<'a> Awaited<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
