//! A machine of any back end, as its job has it: what its first process does, and what only the back end can do.

use std::{os::unix::net::UnixStream, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture, stream::BoxStream};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use super::{
    Command, ContainerHost, DiskBreach, ImageProgram, LoopbackPort, Machine, MachineSpec, OutputSink, OutputStream,
    ProcessExit, ProcessHandle, SandboxError,
    init_client::{InitClient, InitReader, InitWriter},
    service::{Service, ServiceSpec},
};

/// From the start of a machine to the first word of its first process.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of one read from a first process.
const PIECE: usize = 64 << 10;

/// The way to a machine's first process.
pub enum InitConnection {
    /// A socket, which another process may be given.
    Socket(UnixStream),
    /// What it writes, and what it reads.
    Streams(InitReader, InitWriter),
}

/// What is known of a machine when it has started.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct MachineDescription {
    /// What its first process must know.
    pub nonce: String,
    /// As [`Machine::image_digest`].
    pub image_digest: Option<String>,
    /// What its image runs, and the environment that it sets.
    pub program: ImageProgram,
    /// As [`Machine::workspace`].
    pub workspace: String,
    /// As [`Machine::temp`].
    pub temp: String,
    /// Home directory for steps; `None`: what its first process says.
    pub home: Option<String>,
    /// As [`Machine::init_path`].
    pub init_path: String,
    /// The port that [`Machine::listen`] opens; 0: any.
    pub loopback_port: u16,
    /// It is a container among others.
    pub in_container: bool,
}

/// A machine that was started.
pub struct StartedMachine {
    /// What is known of it.
    pub description: MachineDescription,
    /// The way to its first process, to which nobody has spoken.
    pub connection: InitConnection,
    /// What its back end does with it.
    pub control: Arc<dyn MachineControl>,
}

/// What the back end of a machine does with it. Dropped, it ends and removes the machine.
pub trait MachineControl: Send + Sync {
    /// As [`Machine::watch_disk`].
    fn watch_disk(&self, _limit: u64) -> BoxFuture<'_, DiskBreach> {
        std::future::pending().boxed()
    }
    /// Starts services beside it, in this order.
    fn start_services(&self, specs: Vec<ServiceSpec>) -> BoxFuture<'_, Result<Vec<Arc<dyn Service>>, SandboxError>> {
        let refused = specs.first().map(|service| no_containers(&format!("services.{0}: service {0}", service.name)));
        std::future::ready(refused.map_or(Ok(Vec::new()), Err)).boxed()
    }
    /// As [`ContainerHost::create_container`].
    fn create_container(
        &self,
        spec: MachineSpec,
        workspace: bool,
    ) -> BoxFuture<'_, Result<StartedMachine, SandboxError>>;
    /// A file or folder of the machine as a tar archive, whose names begin with its own.
    fn pack(&self, path: String) -> BoxStream<'static, Result<Bytes, SandboxError>>;
    /// As [`ContainerHost::commit_image`].
    fn commit_image(&self, name: String, program: ImageProgram) -> BoxFuture<'_, Result<(), SandboxError>>;
    /// What its first process complained of before it ended, where only the back end has it.
    fn complaint(&self) -> BoxFuture<'_, Option<String>> {
        std::future::ready(None).boxed()
    }
    /// Ends and removes it, and its services.
    fn destroy(&self) -> BoxFuture<'_, ()>;
}

/// A machine whose first process answers.
pub(crate) struct JobMachine {
    init: InitClient,
    description: MachineDescription,
    home: String,
    control: Arc<dyn MachineControl>,
    services: Mutex<Vec<Arc<dyn Service>>>,
}

impl JobMachine {
    /// Makes contact with its first process.
    pub(crate) async fn open(started: StartedMachine) -> Result<Self, SandboxError> {
        let StartedMachine { description, connection, control } = started;
        let (incoming, outgoing) = streams(connection)?;
        let opened =
            tokio::time::timeout(READY_TIMEOUT, InitClient::open(incoming, outgoing, &description.nonce)).await;
        let opened = opened
            .unwrap_or_else(|_| Err(SandboxError::Start(format!("not ready after {} s", READY_TIMEOUT.as_secs()))));
        let (init, ready) = match opened {
            Ok(opened) => opened,
            Err(error) => return Err(control.complaint().await.map_or(error, SandboxError::Start)),
        };
        let home = description.home.clone().unwrap_or(ready.home);
        let home = if home.is_empty() { "/".into() } else { home };
        Ok(Self { init, description, home, control, services: Mutex::default() })
    }

    /// Starts services, and leads ports of the machine's localhost to them.
    pub(crate) async fn start_services(&self, specs: Vec<ServiceSpec>) -> Result<(), SandboxError> {
        if specs.is_empty() {
            return Ok(());
        }
        let ports: Vec<_> = specs.iter().map(|spec| spec.ports.clone()).collect();
        let services = self.control.start_services(specs).await?;
        let mut routes = Vec::new();
        for (service, ports) in services.iter().zip(ports) {
            routes.extend(ports.iter().map(|(near, far)| format!("{near}={}:{far}", service.address())));
        }
        self.services.lock().extend(services);
        if routes.is_empty() { Ok(()) } else { self.forward(routes).await }
    }

    async fn forward(&self, routes: Vec<String>) -> Result<(), SandboxError> {
        let command = Command {
            argv: [&self.description.init_path, "forward"].map(String::from).into_iter().chain(routes).collect(),
            directory: "/".into(),
            // Low ports are root's.
            user: "0:0".into(),
            ..Command::default()
        };
        let output = HelperOutput::default();
        let exit = self.init.run(command, &output).await?;
        let text = output.0.into_inner();
        if exit.code == 0 { Ok(()) } else { Err(SandboxError::Refused(format!("services: {}", text.trim()))) }
    }

    /// Waits until its first process is gone.
    pub(crate) async fn lost(&self) -> String {
        self.init.lost().await
    }
}

fn streams(connection: InitConnection) -> Result<(InitReader, InitWriter), SandboxError> {
    match connection {
        InitConnection::Streams(incoming, outgoing) => Ok((incoming, outgoing)),
        InitConnection::Socket(socket) => {
            let refuse = |error: std::io::Error| SandboxError::Start(format!("the way to its first process: {error}"));
            socket.set_nonblocking(true).map_err(refuse)?;
            let (reading, writing) = tokio::net::UnixStream::from_std(socket).map_err(refuse)?.into_split();
            Ok((ReaderStream::with_capacity(reading, PIECE).boxed(), Box::pin(writing)))
        }
    }
}

impl Machine for JobMachine {
    fn image_digest(&self) -> Option<String> {
        self.description.image_digest.clone()
    }

    fn image_environment(&self) -> Vec<(String, String)> {
        self.description.program.environment.clone()
    }

    fn workspace(&self) -> String {
        self.description.workspace.clone()
    }

    fn temp(&self) -> String {
        self.description.temp.clone()
    }

    fn home(&self) -> String {
        self.home.clone()
    }

    fn run<'a>(
        &'a self,
        command: Command,
        output: &'a dyn OutputSink,
    ) -> BoxFuture<'a, Result<ProcessExit, SandboxError>> {
        self.init.run(command, output).boxed()
    }

    fn signal<'a>(&'a self, process: &'a ProcessHandle, signal: i32) -> BoxFuture<'a, ()> {
        self.init.signal(process, signal).boxed()
    }

    fn unpack<'a>(
        &'a self,
        directory: &'a str,
        clean: bool,
        archive: BoxStream<'a, std::io::Result<Bytes>>,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.init.unpack(directory, clean, archive).boxed()
    }

    fn read<'a>(
        &'a self,
        paths: &'a [String],
        limit: u64,
    ) -> BoxFuture<'a, Result<Vec<(String, Bytes)>, SandboxError>> {
        self.init.read(paths, limit, "").boxed()
    }

    fn hash_files<'a>(&'a self, patterns: &'a [String]) -> BoxFuture<'a, Result<Option<String>, SandboxError>> {
        self.init.hash(&self.description.workspace, patterns).boxed()
    }

    fn init_path(&self) -> String {
        self.description.init_path.clone()
    }

    fn watch_disk(&self, limit: u64) -> BoxFuture<'_, DiskBreach> {
        self.control.watch_disk(limit)
    }

    fn listen(&self) -> BoxFuture<'_, Result<LoopbackPort, SandboxError>> {
        self.init.listen(self.description.loopback_port).boxed()
    }

    fn containers(&self) -> Option<&dyn ContainerHost> {
        self.description.in_container.then_some(self as &dyn ContainerHost)
    }

    fn destroy(&self) -> BoxFuture<'_, ()> {
        async move {
            self.services.lock().clear();
            if !self.description.in_container {
                self.init.shutdown().await;
            }
            self.control.destroy().await;
        }
        .boxed()
    }
}

impl ContainerHost for JobMachine {
    fn services(&self) -> Vec<Arc<dyn Service>> {
        self.services.lock().clone()
    }

    fn image_program(&self) -> ImageProgram {
        self.description.program.clone()
    }

    fn create_container(
        &self,
        spec: MachineSpec,
        workspace: bool,
    ) -> BoxFuture<'_, Result<Arc<dyn Machine>, SandboxError>> {
        async move {
            let machine = Self::open(self.control.create_container(spec, workspace).await?).await?;
            Ok(Arc::new(machine) as Arc<dyn Machine>)
        }
        .boxed()
    }

    fn pack<'a>(&'a self, path: &'a str, limit: usize) -> BoxFuture<'a, Result<Vec<u8>, SandboxError>> {
        async move {
            let mut pieces = self.control.pack(path.to_owned());
            let mut archive = Vec::new();
            while let Some(piece) = pieces.next().await {
                archive.extend_from_slice(&piece?);
                if archive.len() > limit {
                    let mib = limit >> 20;
                    return Err(SandboxError::Refused(format!(
                        "{path} has more than {mib} MiB: keep what is not needed out of it"
                    )));
                }
            }
            Ok(archive)
        }
        .boxed()
    }

    fn commit_image<'a>(&'a self, name: &'a str, program: &'a ImageProgram) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.control.commit_image(name.to_owned(), program.clone())
    }
}

pub(crate) fn no_containers(what: &str) -> SandboxError {
    SandboxError::Refused(format!(
        "{what} needs containers, which the back end `host` has not: use a worker with Docker"
    ))
}

/// The few words of a helper.
#[derive(Default)]
struct HelperOutput(Mutex<String>);

impl OutputSink for HelperOutput {
    fn write(&self, _stream: OutputStream, data: Bytes, _time_ms: u64) -> BoxFuture<'_, ()> {
        let mut said = self.0.lock();
        if said.len() < 4096 {
            said.push_str(&String::from_utf8_lossy(&data));
        }
        std::future::ready(()).boxed()
    }
}
