//! One running container as a [`Machine`].

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use parking_lot::{Mutex, MutexGuard};

use super::{
    container::{Containers, StartedContainer},
    container_handle::ContainerHandle,
    disk,
    image::{self, Image},
    job_resources::JobResources,
    layout::{INIT_PATH, TEMP, WORKSPACE},
    service::{self, DockerService},
};
use crate::sandbox::{
    ACTIONS_API_PORT, Command, ContainerHost, DiskBreach, ImageProgram, LoopbackPort, Machine, MachineSpec, OutputSink,
    OutputStream, ProcessExit, ProcessHandle, SandboxError,
    init_client::InitClient,
    service::{Service, ServiceSpec},
};

pub(super) struct DockerMachine {
    containers: Arc<Containers>,
    /// Taken by `destroy`.
    living: Mutex<Option<Living>>,
    image: Arc<Image>,
    init: InitClient,
    home: String,
}

struct Living {
    handle: ContainerHandle,
    services: Vec<Arc<DockerService>>,
}

impl DockerMachine {
    pub(super) fn new(containers: &Arc<Containers>, started: StartedContainer) -> Arc<Self> {
        let StartedContainer { handle, image, init, home } = started;
        let living = Mutex::new(Some(Living { handle, services: Vec::new() }));
        Arc::new(Self { containers: Arc::clone(containers), living, image, init, home })
    }

    /// Starts services, and leads ports of the machine's localhost to them.
    pub(super) async fn start_services(&self, specs: &[ServiceSpec]) -> Result<(), SandboxError> {
        let mut routes = Vec::new();
        for (number, spec) in specs.iter().enumerate() {
            let (resources, _) = self.resources()?;
            let started = service::start(&self.containers, &resources, (number, specs.len()), spec).await;
            let service = started.map_err(|error| error.context(&format!("services.{}", spec.name)))?;
            routes.extend(spec.ports.iter().map(|(near, far)| format!("{near}={}:{far}", service.address())));
            self.lock().as_mut().ok_or_else(gone)?.services.push(service);
        }
        if routes.is_empty() { Ok(()) } else { self.forward(routes).await }
    }

    async fn forward(&self, routes: Vec<String>) -> Result<(), SandboxError> {
        let command = Command {
            argv: [INIT_PATH, "forward"].map(String::from).into_iter().chain(routes).collect(),
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

    pub(super) fn is_lost(&self) -> bool {
        self.init.is_lost()
    }

    fn resources(&self) -> Result<(Arc<JobResources>, String), SandboxError> {
        let living = self.lock();
        let handle = &living.as_ref().ok_or_else(gone)?.handle;
        Ok((Arc::clone(&handle.resources), handle.name.clone()))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Living>> {
        self.living.lock()
    }
}

impl Machine for DockerMachine {
    fn image_digest(&self) -> Option<String> {
        self.image.digest.clone()
    }

    fn image_environment(&self) -> Vec<(String, String)> {
        self.image.program.environment.clone()
    }

    fn workspace(&self) -> String {
        WORKSPACE.into()
    }

    fn temp(&self) -> String {
        TEMP.into()
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
        self.init.hash(WORKSPACE, patterns).boxed()
    }

    fn init_path(&self) -> String {
        INIT_PATH.into()
    }

    fn watch_disk(&self, limit: u64) -> BoxFuture<'_, DiskBreach> {
        async move {
            // Not held while it is counted: the job may end.
            let nonce = self.resources().map(|(resources, _)| resources.nonce.clone());
            match nonce {
                Ok(nonce) => disk::watch(&self.containers.engine, &nonce, limit, self.containers.min_free).await,
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn listen(&self) -> BoxFuture<'_, Result<LoopbackPort, SandboxError>> {
        self.init.listen(ACTIONS_API_PORT).boxed()
    }

    fn containers(&self) -> Option<&dyn ContainerHost> {
        Some(self)
    }

    /// Returns at once: removing takes the engine 100 ms, and nobody has to wait for it. `Sandbox::close` does.
    fn destroy(&self) -> BoxFuture<'_, ()> {
        drop(self.lock().take());
        std::future::ready(()).boxed()
    }
}

impl ContainerHost for DockerMachine {
    fn services(&self) -> Vec<Arc<dyn Service>> {
        let living = self.lock();
        let services = living.iter().flat_map(|living| &living.services);
        services.map(|service| Arc::clone(service) as Arc<dyn Service>).collect()
    }

    fn image_program(&self) -> ImageProgram {
        self.image.program.clone()
    }

    fn create_container(
        &self,
        spec: MachineSpec,
        workspace: bool,
    ) -> BoxFuture<'_, Result<Arc<dyn Machine>, SandboxError>> {
        async move {
            let (resources, _) = self.resources()?;
            let machine = DockerMachine::new(
                &self.containers,
                self.containers.create_additional(&resources, &spec, workspace).await?,
            );
            Ok(machine as Arc<dyn Machine>)
        }
        .boxed()
    }

    fn pack<'a>(&'a self, path: &'a str, limit: usize) -> BoxFuture<'a, Result<Vec<u8>, SandboxError>> {
        async move {
            let (_, name) = self.resources()?;
            image::pack(&self.containers.engine, &name, path, limit).await
        }
        .boxed()
    }

    fn commit_image<'a>(&'a self, name: &'a str, program: &'a ImageProgram) -> BoxFuture<'a, Result<(), SandboxError>> {
        async move {
            let (_, container) = self.resources()?;
            image::commit(&self.containers.engine, &container, name, program).await
        }
        .boxed()
    }
}

fn gone() -> SandboxError {
    SandboxError::Lost("the job's container was removed".into())
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
