//! Back end without isolation: processes of this machine, for trusted use where there is no engine.
//!
//! The same `longshore-init` runs here as in a container, as a child of the worker. It collects what steps leave
//! behind and ends it with the machine; it keeps nothing from reading this user's files or the network.

use std::{os::unix::fs::PermissionsExt, process::Stdio, sync::Arc};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::process::Child;
use tokio_util::io::ReaderStream;

use super::{
    Command, DiskBreach, INIT, JobSpec, LoopbackPort, Machine, MachineSpec, OutputSink, ProcessExit, ProcessHandle,
    Sandbox, SandboxError, SandboxKind, init_client::InitClient, no_containers,
};

/// Runs jobs as processes of this machine.
pub struct HostSandbox {
    /// Holds the folders of machines; removed with the last of them.
    root: Arc<TempDir>,
}

impl HostSandbox {
    /// Prepares a folder. Says in the log that nothing here is isolated.
    pub fn new() -> Result<Arc<Self>, SandboxError> {
        tracing::warn!("sandbox `host`: jobs run as this user on this machine, WITHOUT isolation; trusted use only");
        let refuse =
            |error| SandboxError::Engine(format!("cannot make a folder for jobs (is TMPDIR writable?): {error}"));
        let root = tempfile::Builder::new().prefix("longshore-host-").tempdir().map_err(refuse)?;
        let program = root.path().join("longshore-init");
        std::fs::write(&program, INIT).map_err(refuse)?;
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).map_err(refuse)?;
        Ok(Arc::new(Self { root: Arc::new(root) }))
    }

    async fn make(&self, spec: MachineSpec) -> Result<Arc<dyn Machine>, SandboxError> {
        let refuse = |error: std::io::Error| SandboxError::Start(format!("longshore-init on this machine: {error}"));
        let folder = tempfile::Builder::new().prefix("job-").tempdir_in(self.root.path()).map_err(refuse)?;
        let nonce = hex::encode(rand::random::<[u8; 16]>());
        let mut child = tokio::process::Command::new(self.root.path().join("longshore-init"))
            .args([&nonce, &spec.user])
            .args([folder.path().join("workspace"), folder.path().join("temp")])
            .arg(spec.limits.open_files.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(refuse)?;
        let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(SandboxError::Start("longshore-init has no pipes".into()));
        };
        let incoming = ReaderStream::with_capacity(output, 64 << 10).boxed();
        let (init, _) = InitClient::open(incoming, Box::pin(input), &nonce).await?;
        let path = |name| folder.path().join(name).to_string_lossy().into_owned();
        let (workspace, temp) = (path("workspace"), path("temp"));
        let init_path = self.root.path().join("longshore-init").to_string_lossy().into_owned();
        let living = Mutex::new(Some(Living { child, _folder: folder, _root: Arc::clone(&self.root) }));
        Ok(Arc::new(HostMachine { init, living, workspace, temp, init_path }))
    }
}

impl Sandbox for HostSandbox {
    fn kind(&self) -> SandboxKind {
        SandboxKind::Host
    }

    fn acquire(&self, spec: JobSpec) -> BoxFuture<'_, Result<Arc<dyn Machine>, SandboxError>> {
        async move {
            match spec.services.first() {
                Some(service) => Err(no_containers(&format!("services.{0}: service {0}", service.name))),
                None => self.make(spec.machine).await,
            }
        }
        .boxed()
    }

    /// Nothing to sweep: init ends with its worker, and takes all with it.
    fn sweep(&self) -> BoxFuture<'_, Result<usize, SandboxError>> {
        std::future::ready(Ok(0)).boxed()
    }

    fn warm(&self, _images: &[String]) {}

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// Dropped, it closes init's input, which ends init and all below it.
struct HostMachine {
    init: InitClient,
    /// Taken by `destroy`.
    living: Mutex<Option<Living>>,
    workspace: String,
    temp: String,
    init_path: String,
}

struct Living {
    child: Child,
    _folder: TempDir,
    _root: Arc<TempDir>,
}

impl Machine for HostMachine {
    fn image_digest(&self) -> Option<String> {
        None
    }

    /// The worker's PATH; nothing else of its environment is meant for jobs.
    fn image_environment(&self) -> Vec<(String, String)> {
        std::env::var("PATH").map(|path| ("PATH".to_owned(), path)).into_iter().collect()
    }

    fn workspace(&self) -> String {
        self.workspace.clone()
    }

    fn temp(&self) -> String {
        self.temp.clone()
    }

    fn home(&self) -> String {
        std::env::var("HOME").unwrap_or_else(|_| "/".into())
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
        self.init.hash(&self.workspace, patterns).boxed()
    }

    fn watch_disk(&self, _limit: u64) -> BoxFuture<'_, DiskBreach> {
        std::future::pending().boxed()
    }

    fn init_path(&self) -> String {
        self.init_path.clone()
    }

    /// Any port: jobs share this machine's loopback.
    fn listen(&self) -> BoxFuture<'_, Result<LoopbackPort, SandboxError>> {
        self.init.listen(0).boxed()
    }

    fn destroy(&self) -> BoxFuture<'_, ()> {
        async move {
            let living = self.living.lock().take();
            if let Some(mut living) = living {
                self.init.shutdown().await;
                // It ends by itself: it was told to, or its pipes broke. Its folder goes after it.
                let _ = living.child.wait().await;
            }
        }
        .boxed()
    }
}
