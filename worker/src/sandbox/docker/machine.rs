//! One running container as a [`Machine`].

use std::sync::Arc;

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use parking_lot::{Mutex, MutexGuard};

use super::{
    container::INIT_PATH,
    disk,
    ground::{Ground, Holding},
    image::{self, Image},
    service::{self, DockerService},
};
use crate::sandbox::{
    Command, Exit, Handle, Machine, MachineSpec, ORIGIN_PORT, OutputSink, Port, Program, SandboxError, Stream,
    conversation::Conversation,
    service::{Service, ServiceSpec},
};

/// Workspace of a job, a volume.
pub(super) const WORKSPACE: &str = "/workspace";
/// Scripts, command files, event payloads.
pub(super) const TEMP: &str = "/longshore/temp";

pub(super) struct DockerMachine {
    /// Taken by `destroy`.
    living: Mutex<Option<Living>>,
    image: Arc<Image>,
    conversation: Conversation,
    home: String,
}

struct Living {
    holding: Holding,
    services: Vec<Arc<DockerService>>,
}

impl DockerMachine {
    pub(super) fn new(holding: Holding, image: Arc<Image>, conversation: Conversation, home: String) -> Self {
        let living = Living { holding, services: Vec::new() };
        Self { living: Mutex::new(Some(living)), image, conversation, home }
    }

    pub(super) fn is_lost(&self) -> bool {
        self.conversation.is_lost()
    }

    fn ground(&self) -> Result<(Arc<Ground>, String), SandboxError> {
        let living = self.lock();
        let holding = &living.as_ref().ok_or_else(gone)?.holding;
        Ok((Arc::clone(&holding.ground), holding.name.clone()))
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

    fn image_program(&self) -> Program {
        self.image.program.clone()
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

    fn run<'a>(&'a self, command: Command, output: &'a dyn OutputSink) -> BoxFuture<'a, Result<Exit, SandboxError>> {
        self.conversation.run(command, output).boxed()
    }

    fn signal<'a>(&'a self, process: &'a Handle, signal: i32) -> BoxFuture<'a, ()> {
        self.conversation.signal(process, signal).boxed()
    }

    fn unpack<'a>(
        &'a self,
        directory: &'a str,
        clean: bool,
        archive: BoxStream<'a, std::io::Result<Bytes>>,
    ) -> BoxFuture<'a, Result<(), SandboxError>> {
        self.conversation.unpack(directory, clean, archive).boxed()
    }

    fn read<'a>(
        &'a self,
        paths: &'a [String],
        limit: u64,
    ) -> BoxFuture<'a, Result<Vec<(String, Bytes)>, SandboxError>> {
        self.conversation.read(paths, limit, "").boxed()
    }

    fn hash_files<'a>(&'a self, patterns: &'a [String]) -> BoxFuture<'a, Result<Option<String>, SandboxError>> {
        self.conversation.hash(WORKSPACE, patterns).boxed()
    }

    fn serve(&self, spec: ServiceSpec) -> BoxFuture<'_, Result<Arc<dyn Service>, SandboxError>> {
        async move {
            let (ground, number) = {
                let living = self.lock();
                let living = living.as_ref().ok_or_else(gone)?;
                (Arc::clone(&living.holding.ground), living.services.len())
            };
            let service = service::start(&ground, number, &spec).await?;
            self.lock().as_mut().ok_or_else(gone)?.services.push(Arc::clone(&service));
            Ok(service as Arc<dyn Service>)
        }
        .boxed()
    }

    fn forward<'a>(&'a self, routes: &'a [(u16, String, u16)]) -> BoxFuture<'a, Result<(), SandboxError>> {
        async move {
            let routes = routes.iter().map(|(port, address, to)| format!("{port}={address}:{to}"));
            let command = Command {
                argv: [INIT_PATH, "forward"].map(String::from).into_iter().chain(routes).collect(),
                directory: "/".into(),
                // Low ports are root's.
                user: "0:0".into(),
                ..Command::default()
            };
            let said = Said::default();
            let exit = self.conversation.run(command, &said).await?;
            let said = said.0.into_inner();
            if exit.code == 0 { Ok(()) } else { Err(SandboxError::Refused(said.trim().to_owned())) }
        }
        .boxed()
    }

    fn beside(&self, spec: MachineSpec, workspace: bool) -> BoxFuture<'_, Result<Arc<dyn Machine>, SandboxError>> {
        async move {
            let (ground, _) = self.ground()?;
            let machine = ground.containers.make_beside(&ground, &spec, workspace).await?;
            Ok(machine as Arc<dyn Machine>)
        }
        .boxed()
    }

    fn pack<'a>(&'a self, path: &'a str, limit: usize) -> BoxFuture<'a, Result<Vec<u8>, SandboxError>> {
        async move {
            let (ground, name) = self.ground()?;
            image::pack(&ground.containers.engine, &name, path, limit).await
        }
        .boxed()
    }

    fn keep<'a>(&'a self, name: &'a str, program: &'a Program) -> BoxFuture<'a, Result<(), SandboxError>> {
        async move {
            let (ground, container) = self.ground()?;
            image::keep(&ground.containers.engine, &container, name, program).await
        }
        .boxed()
    }

    fn helper(&self) -> String {
        INIT_PATH.into()
    }

    fn disk_used(&self) -> BoxFuture<'_, Result<Option<u64>, SandboxError>> {
        async move {
            // Not held while it is counted: the job may end.
            let (engine, nonce) = {
                let (ground, _) = self.ground()?;
                (Arc::clone(&ground.containers.engine), ground.nonce.clone())
            };
            disk::used(&engine, &nonce).await
        }
        .boxed()
    }

    fn listen(&self) -> BoxFuture<'_, Result<Port, SandboxError>> {
        self.conversation.listen(ORIGIN_PORT).boxed()
    }

    /// Returns at once: removing takes the engine 100 ms, and nobody has to wait for it. `Sandbox::close` does.
    fn destroy(&self) -> BoxFuture<'_, ()> {
        drop(self.lock().take());
        std::future::ready(()).boxed()
    }
}

fn gone() -> SandboxError {
    SandboxError::Lost("the job's container was removed".into())
}

/// The few words of a helper.
#[derive(Default)]
struct Said(Mutex<String>);

impl OutputSink for Said {
    fn write(&self, _stream: Stream, data: Bytes, _time_ms: u64) -> BoxFuture<'_, ()> {
        let mut said = self.0.lock();
        if said.len() < 4096 {
            said.push_str(&String::from_utf8_lossy(&data));
        }
        std::future::ready(()).boxed()
    }
}
