//! Back end without isolation: processes of this machine, for trusted use where there is no engine.
//!
//! The same `longshore-init` runs here as in a container, as a child of the worker, on a socket that the job's process has
//! the other end of. It collects what steps leave
//! behind and ends it with the machine; it keeps nothing from reading this user's files or the network.

use std::{
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, net::UnixStream},
    },
    process::Stdio,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use parking_lot::Mutex;
use tempfile::TempDir;
use tokio::process::Child;

use super::{
    INIT, ImageProgram, InitConnection, MachineControl, MachineDescription, MachineSpec, Sandbox, SandboxError,
    SandboxKind, StartedMachine, no_containers,
};

/// How long init may take to end what runs below it, before it is killed itself.
const ENDING: Duration = Duration::from_secs(10);

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

    fn make(&self, spec: &MachineSpec) -> Result<StartedMachine, SandboxError> {
        let refuse = |error: std::io::Error| SandboxError::Start(format!("longshore-init on this machine: {error}"));
        let folder = tempfile::Builder::new().prefix("job-").tempdir_in(self.root.path()).map_err(refuse)?;
        let nonce = hex::encode(rand::random::<[u8; 16]>());
        let (near, far) = UnixStream::pair().map_err(refuse)?;
        let output = OwnedFd::from(far.try_clone().map_err(refuse)?);
        let child = tokio::process::Command::new(self.root.path().join("longshore-init"))
            .args([&nonce, &spec.user])
            .args([folder.path().join("workspace"), folder.path().join("temp")])
            .arg(spec.limits.open_files.to_string())
            .stdin(Stdio::from(OwnedFd::from(far)))
            .stdout(Stdio::from(output))
            .spawn()
            .map_err(refuse)?;
        let path = |name| folder.path().join(name).to_string_lossy().into_owned();
        let description = MachineDescription {
            nonce,
            // Nothing else of the worker's environment is meant for jobs.
            program: ImageProgram {
                environment: std::env::var("PATH").map(|path| ("PATH".to_owned(), path)).into_iter().collect(),
                ..ImageProgram::default()
            },
            workspace: path("workspace"),
            temp: path("temp"),
            home: Some(std::env::var("HOME").unwrap_or_else(|_| "/".into())),
            init_path: self.root.path().join("longshore-init").to_string_lossy().into_owned(),
            // Any port: jobs share this machine's loopback.
            loopback_port: 0,
            ..MachineDescription::default()
        };
        let living = Mutex::new(Some(Living { child, _folder: folder, _root: Arc::clone(&self.root) }));
        let control = Arc::new(HostMachine { living });
        Ok(StartedMachine { description, connection: InitConnection::Socket(near), control })
    }
}

impl Sandbox for HostSandbox {
    fn kind(&self) -> SandboxKind {
        SandboxKind::Host
    }

    fn start(&self, spec: MachineSpec) -> BoxFuture<'_, Result<StartedMachine, SandboxError>> {
        std::future::ready(self.make(&spec)).boxed()
    }

    /// Nothing to sweep: init ends with its worker, and takes all with it.
    fn sweep(&self) -> BoxFuture<'_, Result<usize, SandboxError>> {
        std::future::ready(Ok(0)).boxed()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

/// Init ends, with all below it, when whoever has the other end of its socket closes it.
struct HostMachine {
    /// Taken by `destroy`.
    living: Mutex<Option<Living>>,
}

struct Living {
    child: Child,
    _folder: TempDir,
    _root: Arc<TempDir>,
}

impl MachineControl for HostMachine {
    fn create_container(&self, _: MachineSpec, _: bool) -> BoxFuture<'_, Result<StartedMachine, SandboxError>> {
        std::future::ready(Err(no_containers("a further container"))).boxed()
    }

    fn pack(&self, path: String) -> BoxStream<'static, Result<Bytes, SandboxError>> {
        futures::stream::iter([Err(no_containers(&format!("reading {path}")))]).boxed()
    }

    fn commit_image(&self, name: String, _: ImageProgram) -> BoxFuture<'_, Result<(), SandboxError>> {
        std::future::ready(Err(no_containers(&format!("the image {name}")))).boxed()
    }

    fn destroy(&self) -> BoxFuture<'_, ()> {
        async move {
            let living = self.living.lock().take();
            if let Some(mut living) = living {
                // It ends by itself: it was told to, or its socket broke. Its folder goes after it.
                if tokio::time::timeout(ENDING, living.child.wait()).await.is_err() {
                    let _ = living.child.kill().await;
                }
            }
        }
        .boxed()
    }
}
