//! One running container, as the engine has it: what only the engine can do for its job.

use std::sync::{Arc, atomic::Ordering};

use bytes::Bytes;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use parking_lot::{Mutex, MutexGuard};

use super::{
    container::{Containers, StartedContainer},
    container_handle::ContainerHandle,
    disk, image,
    job_resources::JobResources,
    layout::{INIT_PATH, TEMP, WORKSPACE},
    service::{self, DockerService},
};
use crate::sandbox::{
    ACTIONS_API_PORT, DiskBreach, ImageProgram, MachineControl, MachineDescription, MachineSpec, STAGE_IMAGE,
    SandboxError, StartedMachine,
    service::{Service, ServiceSpec},
};

pub(super) struct DockerMachine {
    containers: Arc<Containers>,
    /// Taken by `destroy`.
    living: Mutex<Option<Living>>,
}

struct Living {
    handle: ContainerHandle,
    services: Vec<Arc<DockerService>>,
}

impl DockerMachine {
    pub(super) fn started(containers: &Arc<Containers>, started: StartedContainer) -> StartedMachine {
        let StartedContainer { handle, image, connection, has_own_user } = started;
        let home = image.program.environment.iter().find(|(name, _)| name == "HOME").map(|(_, home)| home.clone());
        // What the image sets is the home of the image's own user.
        let home = home.filter(|_| !has_own_user);
        let description = MachineDescription {
            nonce: handle.resources.nonce.clone(),
            image_digest: image.digest.clone(),
            program: image.program.clone(),
            workspace: WORKSPACE.into(),
            temp: TEMP.into(),
            home,
            init_path: INIT_PATH.into(),
            loopback_port: ACTIONS_API_PORT,
            in_container: true,
        };
        let living = Mutex::new(Some(Living { handle, services: Vec::new() }));
        StartedMachine {
            description,
            connection,
            control: Arc::new(Self { containers: Arc::clone(containers), living }),
        }
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

impl MachineControl for DockerMachine {
    fn watch_disk(&self, limit: u64) -> BoxFuture<'_, DiskBreach> {
        async move {
            // Not held while it is counted: the job may end.
            let job = self.resources().map(|(job, _)| (job.nonce.clone(), Arc::clone(&job.image_bytes)));
            match job {
                Ok((nonce, made)) => {
                    disk::watch(&self.containers.engine, &nonce, limit, self.containers.min_free, &made).await
                }
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    }

    fn start_services(&self, specs: Vec<ServiceSpec>) -> BoxFuture<'_, Result<Vec<Arc<dyn Service>>, SandboxError>> {
        async move {
            let mut all: Vec<Arc<dyn Service>> = Vec::new();
            for (number, spec) in specs.iter().enumerate() {
                let (resources, _) = self.resources()?;
                let started = service::start(&self.containers, &resources, (number, specs.len()), spec).await;
                let service = started.map_err(|error| error.context(&format!("services.{}", spec.name)))?;
                all.push(Arc::clone(&service) as Arc<dyn Service>);
                self.lock().as_mut().ok_or_else(gone)?.services.push(service);
            }
            Ok(all)
        }
        .boxed()
    }

    fn create_container(
        &self,
        spec: MachineSpec,
        workspace: bool,
    ) -> BoxFuture<'_, Result<StartedMachine, SandboxError>> {
        async move {
            let (resources, _) = self.resources()?;
            let started = self.containers.create_additional(&resources, &spec, workspace).await?;
            Ok(Self::started(&self.containers, started))
        }
        .boxed()
    }

    fn pack(&self, path: String) -> BoxStream<'static, Result<Bytes, SandboxError>> {
        match self.resources() {
            Ok((_, name)) => image::pack(Arc::clone(&self.containers.engine), &name, path),
            Err(error) => futures::stream::iter([Err(error)]).boxed(),
        }
    }

    fn commit_image(&self, name: String, program: ImageProgram) -> BoxFuture<'_, Result<(), SandboxError>> {
        async move {
            let (job, container) = self.resources()?;
            if name.starts_with(STAGE_IMAGE) {
                job.add_image(&name);
            }
            let bytes = image::commit(&self.containers.engine, &container, &name, &program).await?;
            job.image_bytes.fetch_add(bytes, Ordering::Relaxed);
            Ok(())
        }
        .boxed()
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
