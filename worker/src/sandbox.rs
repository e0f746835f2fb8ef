//! Where a job's steps run: one container for a job (`docker`), or processes of this machine (`host`).
//!
//! A [`Sandbox`] starts a [`Machine`] for each job: the place where its processes run. One that is a container among
//! others is a [`ContainerHost`] too, which services and Docker actions need. Who starts machines and who speaks to their
//! first process may be two processes of this worker: [`StartedMachine`] is what one hands to the other.
//!
//! Contract of a back end:
//! - `start` gives a machine that nobody used before, with an empty workspace.
//! - Several processes may run at once, each signalled by the handle of its command; `signal` and `destroy` may come at
//!   any time.
//! - Output arrives in order for each stream through the [`OutputSink`]; a slow sink slows the process, not the worker.
//! - `destroy` ends every process of the machine and removes all it had. It never fails loudly: what cannot be
//!   removed now is swept later.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use futures::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

pub mod docker;
pub mod host;
mod init_client;
mod kind;
mod machine;
mod secret_text;
pub mod service;
mod tunnel;

pub(crate) use self::machine::{JobMachine, no_containers};
pub use self::{
    kind::SandboxKind,
    machine::{InitConnection, MachineControl, MachineDescription, StartedMachine},
    tunnel::LoopbackPort,
};
use service::{Service, ServiceSpec};

/// Name of a machine's own loopback, for the services that actions call: actions take `*.localhost` for GitHub itself.
pub const ACTIONS_API_HOST: &str = "ci.localhost";
/// Their port, where a machine has a loopback of its own.
pub const ACTIONS_API_PORT: u16 = 4480;

/// `longshore-init`, the first process of every machine, for the architecture this worker was built for.
const INIT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/longshore-init"));

/// Where the machines of Docker actions have the job's workspace (GitHub docs, "Dockerfile support").
pub const SHARED_WORKSPACE: &str = "/github/workspace";

/// Name of images that live between two stages of a build.
pub const STAGE_IMAGE: &str = "localhost/longshore-stage";

/// What a job needs of its machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineSpec {
    /// Image reference; the `host` back end ignores it.
    pub image: String,
    /// Which attempt it is for. Labels can't tell: a warm machine is made before its job is known.
    pub attempt: String,
    /// Environment of the container (job `container.env`), not of steps.
    pub environment: BTreeMap<String, String>,
    /// Host name inside; empty: the engine's choice.
    pub hostname: String,
    /// User of the container, empty: the image's.
    pub user: String,
    /// Volumes of the job, each shared by its containers and removed with it.
    pub volumes: Vec<VolumeMount>,
    /// Runtime of the engine that starts it (`runsc`); empty: the engine's own.
    pub runtime: String,
    /// For the image's registry.
    pub credentials: Option<Credentials>,
    /// Limits for this job.
    pub limits: ResourceLimits,
}

/// A volume of a job in one of its containers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// The same name is the same volume in all containers of the job; empty: a volume of this container alone.
    pub name: String,
    /// Absolute path in the container.
    pub target: String,
    /// Nothing can be written to it here.
    pub read_only: bool,
}

/// What an image runs, and how, where nobody says otherwise.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageProgram {
    /// Its entrypoint.
    pub entrypoint: Vec<String>,
    /// Its command: arguments of the entrypoint, or all of it.
    pub command: Vec<String>,
    /// Working directory; empty: `/`.
    pub directory: String,
    /// User; empty: root.
    pub user: String,
    /// Variables.
    pub environment: Vec<(String, String)>,
}

/// A user of an image registry.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Credentials {
    /// Name.
    pub username: String,
    /// Password or token.
    #[serde(with = "secret_text")]
    pub password: SecretString,
}

impl PartialEq for Credentials {
    fn eq(&self, other: &Self) -> bool {
        self.username == other.username && self.password.expose_secret() == other.password.expose_secret()
    }
}

impl Eq for Credentials {}

/// Limits of one job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResourceLimits {
    /// Bytes.
    pub memory: u64,
    /// Thousandths of a CPU.
    pub cpu_millis: u64,
    /// Processes and threads.
    pub processes: u64,
    /// Open files for each process.
    pub open_files: u64,
    /// Bytes of /dev/shm.
    pub shared_memory: u64,
}

impl Default for ResourceLimits {
    fn default() -> Self {
        Self { memory: 4 << 30, cpu_millis: 0, processes: 4096, open_files: 65_536, shared_memory: 64 << 20 }
    }
}

/// One process to run.
#[derive(Debug, Clone, Default)]
pub struct Command {
    /// Program and arguments.
    pub argv: Vec<String>,
    /// The whole environment.
    pub environment: Vec<(String, String)>,
    /// Working directory inside.
    pub directory: String,
    /// It is made if it is missing; else nothing is started.
    pub make_directory: bool,
    /// User; empty: the machine's.
    pub user: String,
    /// Files written before the start: path inside, content, mode.
    pub files: Vec<(String, Bytes, u32)>,
    /// Files read after the end.
    pub collect: Vec<String>,
    /// Bytes given as standard input.
    pub input: Bytes,
    /// Where `argv[0]` is looked for; empty: in the PATH of `environment`.
    pub search_path: String,
    /// Names its process for signals.
    pub handle: ProcessHandle,
}

/// Names a process while it runs; every command has one of its own.
#[derive(Debug, Clone, Default)]
pub struct ProcessHandle(Arc<AtomicU64>);

impl ProcessHandle {
    /// The number its machine gave it; 0: it does not run.
    fn number(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, number: u64) {
        self.0.store(number, Ordering::Release);
    }
}

/// How a process ended.
#[derive(Debug, Clone, Default)]
pub struct ProcessExit {
    /// Exit code; 128 + signal where a signal ended it.
    pub code: i32,
    /// The signal that ended it, or 0.
    pub signal: i32,
    /// Collected files: path, content. Missing files are left out.
    pub files: Vec<(String, Bytes)>,
    /// Collected files that are longer than may be sent, with their first bytes.
    pub too_long: Vec<(String, Bytes)>,
    /// The memory limit was hit while it ran.
    pub out_of_memory: bool,
}

/// Which pipe output came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// Takes a process's output. `write` returns when there is room again.
pub trait OutputSink: Send + Sync {
    /// Bytes as they came; chunk borders mean nothing. `time_ms` is Unix time.
    fn write(&self, stream: OutputStream, data: Bytes, time_ms: u64) -> BoxFuture<'_, ()>;
}

/// Why a job must end for the disk it uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
pub enum DiskBreach {
    /// It uses all that it may.
    #[error("the job used the {} MiB of disk that it may use", limit >> 20)]
    Limit {
        /// Bytes.
        limit: u64,
    },
    /// It uses the most of a disk that is nearly full.
    #[error(
        "the worker's disk has {} MiB left, less than its {} MiB in reserve, and this job used the most of it: {} MiB",
        free >> 20, min_free >> 20, used >> 20
    )]
    LowSpace {
        /// Bytes that were left.
        free: u64,
        /// Bytes that shall be left.
        min_free: u64,
        /// Bytes of the job.
        used: u64,
    },
}

/// What keeps a job from filling the disk of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DiskBound {
    /// Its volumes are file systems of a fixed size; the rest of what it writes is counted.
    Volumes,
    /// All that it writes is counted every few seconds.
    Counted,
    /// Nothing.
    None,
}

impl std::fmt::Display for DiskBound {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Volumes => "volumes of a fixed size",
            Self::Counted => "disk counted",
            Self::None => "disk without a limit",
        })
    }
}

/// Why a sandbox could not do what was asked.
#[derive(Debug, Clone, thiserror::Error, Serialize, Deserialize)]
pub enum SandboxError {
    /// No engine answers, or it refuses the connection. Says what to do.
    #[error("{0}")]
    Engine(String),
    /// The image is not there, and cannot be had now or here.
    #[error("image {image}: {cause}")]
    Image {
        /// Its reference.
        image: String,
        /// What went wrong.
        cause: String,
    },
    /// The machine did not start.
    #[error("container did not start: {0}")]
    Start(String),
    /// The machine or its engine went away.
    #[error("container lost: {0}")]
    Lost(String),
    /// A program of a step is not in the machine.
    #[error("{0}")]
    NotFound(String),
    /// The request itself is wrong (a bad path, an unknown user, an image that its registry does not give).
    #[error("{0}")]
    Refused(String),
}

impl SandboxError {
    /// Says of what the error is, in front of a refusal's own words.
    fn context(self, what: &str) -> Self {
        match self {
            Self::Refused(text) => Self::Refused(format!("{what}: {text}")),
            Self::Start(text) => Self::Start(format!("{what}: {text}")),
            error => error,
        }
    }
}

/// What a job needs: its own place, and the services beside it. All of it is known before anything is made.
#[derive(Debug, Clone, Default)]
pub struct JobSpec {
    /// The job's own machine.
    pub machine: MachineSpec,
    /// Containers that serve the job, in the order of their start.
    pub services: Vec<ServiceSpec>,
}

impl From<MachineSpec> for JobSpec {
    fn from(machine: MachineSpec) -> Self {
        Self { machine, services: Vec::new() }
    }
}

/// Folders of a job as its steps see them, absolute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobPaths {
    /// `GITHUB_WORKSPACE`.
    pub workspace: String,
    /// Scripts, command files and event payloads.
    pub temp: String,
}

/// A back end: makes places for jobs.
pub trait Sandbox: Send + Sync {
    /// Which one it is.
    fn kind(&self) -> SandboxKind;
    /// What keeps jobs from filling the disk.
    fn disk_bound(&self) -> DiskBound {
        DiskBound::None
    }
    /// What its operator should know of it.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }
    /// The paths of every machine, where they are the same for all; `None`: each has its own.
    fn paths(&self) -> Option<JobPaths> {
        None
    }
    /// A fresh machine, running, its workspace empty. Nobody has spoken to its first process yet.
    fn start(&self, spec: MachineSpec) -> BoxFuture<'_, Result<StartedMachine, SandboxError>>;
    /// A fresh machine that answers, and its services started.
    fn acquire(&self, spec: JobSpec) -> BoxFuture<'_, Result<Arc<dyn Machine>, SandboxError>> {
        Box::pin(async move {
            let machine = JobMachine::open(self.start(spec.machine).await?).await?;
            // Dropped where a service does not start, the machine is removed with all that did.
            machine.start_services(spec.services).await?;
            Ok(Arc::new(machine) as Arc<dyn Machine>)
        })
    }
    /// Removes everything of this worker that no live machine holds; called at start and every minute.
    fn sweep(&self) -> BoxFuture<'_, Result<usize, SandboxError>>;
    /// Lets no further machine be started. [`Self::close`] follows once all that was started is given back.
    fn stop_starts(&self) {}
    /// Ends every machine.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// A running place for the processes of one job.
pub trait Machine: Send + Sync {
    /// Image digest (`sha256:…`), where known.
    fn image_digest(&self) -> Option<String>;
    /// Environment that the image sets, PATH among it.
    fn image_environment(&self) -> Vec<(String, String)>;
    /// Absolute path of the workspace as steps see it.
    fn workspace(&self) -> String;
    /// Absolute path of a directory for scripts, command files and event payloads, as steps see it.
    fn temp(&self) -> String;
    /// Home directory for steps.
    fn home(&self) -> String;
    /// Runs one process to its end.
    fn run<'a>(
        &'a self,
        command: Command,
        output: &'a dyn OutputSink,
    ) -> BoxFuture<'a, Result<ProcessExit, SandboxError>>;
    /// Signals the group of a process that runs here, e.g. 2, 15 or 9. Of another: nothing happens.
    fn signal<'a>(&'a self, process: &'a ProcessHandle, signal: i32) -> BoxFuture<'a, ()>;
    /// Unpacks a tar archive below a directory (made if missing, emptied first with `clean`).
    fn unpack<'a>(
        &'a self,
        directory: &'a str,
        clean: bool,
        archive: futures::stream::BoxStream<'a, std::io::Result<Bytes>>,
    ) -> BoxFuture<'a, Result<(), SandboxError>>;
    /// Reads small files; missing ones are left out.
    fn read<'a>(&'a self, paths: &'a [String], limit: u64)
    -> BoxFuture<'a, Result<Vec<(String, Bytes)>, SandboxError>>;
    /// GitHub's `hashFiles` below the workspace; `None` where nothing matches.
    fn hash_files<'a>(&'a self, patterns: &'a [String]) -> BoxFuture<'a, Result<Option<String>, SandboxError>>;
    /// Waits until the job must end for the disk that its machines and services use. `limit`: bytes, 0 for none. Where
    /// that cannot be seen, it waits for ever.
    fn watch_disk(&self, limit: u64) -> BoxFuture<'_, DiskBreach>;
    /// Absolute path of `longshore-init` as processes of the machine see it: it packs files for the worker.
    fn init_path(&self) -> String;
    /// Opens the port on its loopback where its programs reach the services that actions call.
    fn listen(&self) -> BoxFuture<'_, Result<LoopbackPort, SandboxError>>;
    /// The containers around it; `None`: this back end has none.
    fn containers(&self) -> Option<&dyn ContainerHost> {
        None
    }
    /// Ends and removes it, and its services.
    fn destroy(&self) -> BoxFuture<'_, ()>;
}

impl dyn Machine + '_ {
    /// The containers around it, for something that cannot do without: `what` needs them.
    pub fn need_containers(&self, what: &str) -> Result<&dyn ContainerHost, SandboxError> {
        self.containers().ok_or_else(|| no_containers(what))
    }
}

/// What a machine can do that is a container itself, among others of its job.
pub trait ContainerHost: Send + Sync {
    /// The services of its job, in the order of its [`JobSpec`].
    fn services(&self) -> Vec<Arc<dyn Service>>;
    /// A further machine of the job, in its network. It shares the workspace, at [`SHARED_WORKSPACE`] too, or has none.
    fn create_container(
        &self,
        spec: MachineSpec,
        workspace: bool,
    ) -> BoxFuture<'_, Result<Arc<dyn Machine>, SandboxError>>;
    /// What the machine's image itself would run.
    fn image_program(&self) -> ImageProgram;
    /// A file or folder of the machine as a tar archive, whose names begin with its own; at most `limit` bytes.
    fn pack<'a>(&'a self, path: &'a str, limit: usize) -> BoxFuture<'a, Result<Vec<u8>, SandboxError>>;
    /// Stores the machine's files, without volumes, as an image of this worker: `localhost/…`.
    fn commit_image<'a>(&'a self, name: &'a str, program: &'a ImageProgram) -> BoxFuture<'a, Result<(), SandboxError>>;
}
