//! Jobs in containers of a Docker Engine (API 1.41 or later).
//!
//! [`DockerSandbox`] holds what a worker owns on the engine. `container` starts containers, `machine` is one of them,
//! `service` starts services; `job_resources` is what the containers of one job share, `cleanup` removes it with the last
//! of them; `network` keeps networks, `disk` counts what jobs use of it, `volume_images` bounds their volumes, `egress`
//! closes private addresses to jobs, `image` finds or pulls images, `image_access` says whose they are,
//! `image_registry` which registries are asked.

mod cleanup;
mod container;
mod container_handle;
mod disk;
mod egress;
mod engine;
mod engine_info;
mod hardening;
mod image;
mod image_access;
mod image_registry;
mod job_cgroup;
mod job_resources;
mod layout;
mod machine;
mod network;
mod process_identity;
mod pulled_images;
mod service;
mod volume_images;

use std::{path::PathBuf, sync::Arc};

use futures::{FutureExt, future::BoxFuture};

pub use self::engine_info::{EngineBounds, EngineInfo, engine_bounds, engine_info};
use self::{container::Containers, engine::Engine, machine::DockerMachine};
use super::{DiskBound, JobPaths, MachineSpec, ResourceLimits, Sandbox, SandboxError, SandboxKind, StartedMachine};

/// What a worker may set for its engine.
#[derive(Debug, Clone)]
pub struct DockerConfig {
    /// Label: whose machines these are. Two workers of one name on one engine sweep each other's machines.
    pub worker: String,
    /// Label: the pool (coordinator) the worker belongs to.
    pub pool: String,
    /// Path of the engine's socket; `None`: `DOCKER_HOST`, else `/var/run/docker.sock`.
    pub socket: Option<String>,
    /// Block of IPv4 addresses for job networks, of which each takes a /28: address and prefix length.
    pub addresses: (std::net::Ipv4Addr, u8),
    /// What all containers of a job may use together, where the engine lets us say so; `None`: each has its own limits.
    pub job_limits: Option<ResourceLimits>,
    /// Where volumes of a fixed size are kept, and how many bytes each has; `None`: they are folders of the engine.
    pub volumes: Option<(PathBuf, u64)>,
    /// Images of the engine that every job may use without asking their registry; one that ends with `*` stands for all
    /// that begin so. `None`: all that are there.
    pub local_images: Option<Vec<String>>,
    /// Registries that jobs may have the engine ask though their addresses are not public: `HOST` for all its ports, or
    /// `HOST:PORT`.
    pub private_registries: Vec<String>,
    /// File that knows which images were pulled, for the next process.
    pub pulled_images: Option<PathBuf>,
    /// Bytes of images that were pulled, and of images that were built; 0: any number.
    pub image_bytes: u64,
    /// Bytes that stay free on the engine's disk: below them the job ends that uses most. 0: no such floor.
    pub min_free: u64,
}

impl Default for DockerConfig {
    fn default() -> Self {
        Self {
            worker: "worker".into(),
            pool: "longshore".into(),
            socket: None,
            addresses: ([10, 213, 0, 0].into(), 16),
            job_limits: None,
            volumes: None,
            local_images: None,
            private_registries: Vec::new(),
            pulled_images: None,
            image_bytes: 0,
            min_free: 0,
        }
    }
}

/// Runs jobs in containers.
pub struct DockerSandbox {
    containers: Arc<Containers>,
}

impl DockerSandbox {
    /// Connects, sets the egress rules, and removes what an earlier process of this worker left.
    pub async fn connect(config: DockerConfig) -> Result<Arc<Self>, SandboxError> {
        let engine = Arc::new(Engine::connect(&config).await?);
        let containers = Arc::new(Containers::new(engine, &config).await?);
        containers.sweep().await?;
        Ok(Arc::new(Self { containers }))
    }
}

impl Sandbox for DockerSandbox {
    fn kind(&self) -> SandboxKind {
        SandboxKind::Docker
    }

    fn paths(&self) -> Option<JobPaths> {
        Some(JobPaths { workspace: layout::WORKSPACE.into(), temp: layout::TEMP.into() })
    }

    fn disk_bound(&self) -> DiskBound {
        self.containers.disk_bound()
    }

    fn warnings(&self) -> Vec<String> {
        let mut warnings = self.containers.engine.escapes.clone();
        warnings.extend(self.containers.unshared_limits());
        warnings
    }

    fn start(&self, spec: MachineSpec) -> BoxFuture<'_, Result<StartedMachine, SandboxError>> {
        async move { Ok(DockerMachine::started(&self.containers, self.containers.make(&spec).await?)) }.boxed()
    }

    fn sweep(&self) -> BoxFuture<'_, Result<usize, SandboxError>> {
        self.containers.sweep().boxed()
    }

    fn stop_starts(&self) {
        self.containers.stop_starts();
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            self.containers.stop_starts();
            self.containers.close().await;
        }
        .boxed()
    }
}
