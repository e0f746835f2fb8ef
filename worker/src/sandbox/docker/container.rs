//! Makes containers, removes them off the critical path, and sweeps what nobody holds.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bollard::{
    body_full,
    container::LogOutput,
    models::{
        ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType, MountVolumeOptions,
        VolumeCreateRequest,
    },
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
        ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions, StartContainerOptions,
        UploadToContainerOptionsBuilder,
    },
};
use futures::{StreamExt, stream};
use parking_lot::{Mutex, MutexGuard};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::task::TaskTracker;

use super::{
    DockerConfig, MachineSpec, ResourceLimits, SandboxError,
    egress::EgressRules,
    engine::{Engine, NONCE, status},
    image::{self, Image, Images},
    job_resources::{ContainerHandle, JobResources},
    machine::{DockerMachine, TEMP, WORKSPACE},
    network::Networks,
};
use crate::sandbox::{
    ACTIONS_API_HOST, INIT, SHARED_WORKSPACE,
    init_client::{InitClient, InitReader},
};

/// Our first process, as it stands in a container.
pub(super) const INIT_PATH: &str = "/longshore/bin/longshore-init";
const INIT_DIRECTORY: &str = "/longshore/bin";
const INIT_NAME: &str = "longshore-init";
/// From the start of a container to the first word of its first process.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// What root in a container keeps: enough to install packages, change owners and switch users, nothing for the host.
const CAPABILITIES: [&str; 9] =
    ["CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID", "SYS_CHROOT"];
/// Bytes of what a failing first process says.
const COMPLAINT_LIMIT: usize = 4096;

/// Containers of this worker.
pub(super) struct Containers {
    pub(super) engine: Arc<Engine>,
    pub(super) images: Images,
    networks: Networks,
    egress: EgressRules,
    /// Starts at a time. More only adds latency.
    starts: Semaphore,
    init_volume: OnceCell<String>,
    /// Nonces of machines that must not be swept.
    live: Mutex<HashSet<String>>,
    pub(super) removals: TaskTracker,
}

/// What a machine has of its job's workspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Workspace {
    /// It is the job's own machine.
    Own,
    /// It works for the job.
    Shared,
    None,
}

impl Containers {
    pub(super) async fn new(engine: Arc<Engine>, config: &DockerConfig) -> Result<Self, SandboxError> {
        let networks = Networks::new(Arc::clone(&engine), config.addresses).await?;
        let egress = EgressRules::new(config.addresses);
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        let containers = Self {
            engine,
            images: Images::default(),
            networks,
            egress,
            starts: Semaphore::new(2 * cores),
            init_volume: OnceCell::new(),
            live: Mutex::default(),
            removals: TaskTracker::new(),
        };
        containers.close_egress().await?;
        Ok(containers)
    }

    /// Sees to it that the rules stand which keep jobs from this host and its private networks.
    async fn close_egress(&self) -> Result<(), SandboxError> {
        let network = self.networks.take().await?;
        self.egress.ensure(&network).await;
        self.networks.give_back(network);
        Ok(())
    }

    /// Makes and starts a machine.
    pub(super) async fn make(self: &Arc<Self>, spec: &MachineSpec) -> Result<Arc<DockerMachine>, SandboxError> {
        let image = self.images.find(&self.engine, &spec.image, spec.credentials.as_ref()).await?;
        let init = self.init_volume.get_or_try_init(|| self.fill_init_volume(&spec.image)).await?;
        let _start = self.starts.acquire().await.map_err(|_| SandboxError::Start("the worker is closing".into()))?;
        let resources = self.resources().await?;
        let made = self.create(&resources, spec, Workspace::Own, &image, init).await;
        // Somebody may have removed it from the engine (`docker network prune`).
        if let (Err(_), Some(network)) = (&made, &resources.network)
            && self.networks.is_lost(network).await
        {
            let resources = self.resources().await?;
            return self.create(&resources, spec, Workspace::Own, &image, init).await;
        }
        made
    }

    /// What the containers of a new job share. From here on dropping it removes what was made.
    async fn resources(self: &Arc<Self>) -> Result<Arc<JobResources>, SandboxError> {
        let network = match self.egress.are_set() {
            true => Some(self.networks.take().await?),
            false => None,
        };
        let nonce = hex::encode(rand::random::<[u8; 16]>());
        self.live().insert(nonce.clone());
        Ok(JobResources::new(Arc::clone(self), nonce, network))
    }

    /// Makes and starts a further machine of a job.
    pub(super) async fn create_additional(
        &self,
        resources: &Arc<JobResources>,
        spec: &MachineSpec,
        workspace: bool,
    ) -> Result<Arc<DockerMachine>, SandboxError> {
        let image = self.images.find(&self.engine, &spec.image, spec.credentials.as_ref()).await?;
        let init = self.init_volume.get_or_try_init(|| self.fill_init_volume(&spec.image)).await?;
        let workspace = if workspace { Workspace::Shared } else { Workspace::None };
        self.create(resources, spec, workspace, &image, init).await
    }

    async fn create(
        &self,
        resources: &Arc<JobResources>,
        spec: &MachineSpec,
        workspace: Workspace,
        image: &Arc<Image>,
        init: &str,
    ) -> Result<Arc<DockerMachine>, SandboxError> {
        let handle = resources.reserve();
        let (init, home) = tokio::time::timeout(READY_TIMEOUT, self.start(&handle, spec, workspace, image, init))
            .await
            .unwrap_or_else(|_| Err(SandboxError::Start(format!("not ready after {} s", READY_TIMEOUT.as_secs()))))?;
        Ok(Arc::new(DockerMachine::new(handle, Arc::clone(image), init, home)))
    }

    async fn start(
        &self,
        handle: &ContainerHandle,
        spec: &MachineSpec,
        workspace: Workspace,
        image: &Image,
        init: &str,
    ) -> Result<(InitClient, String), SandboxError> {
        let api = &self.engine.api;
        let (resources, name) = (&handle.resources, &handle.name);
        self.make_volume(resources, resources.name()).await?;
        self.make_volumes(resources, &spec.volumes).await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let body = self.body(resources, spec, workspace, image, init);
        api.create_container(Some(options), body).await.map_err(|error| self.engine.error("create", error))?;
        let options = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
        let attached =
            api.attach_container(name, Some(options)).await.map_err(|error| self.engine.error("attach", error))?;
        let started = api.start_container(name, None::<StartContainerOptions>).await;
        started.map_err(|error| self.engine.error("start", error))?;
        let (init, ready) = InitClient::open(incoming(attached.output), attached.input, &resources.nonce).await?;
        let from_image =
            image.program.environment.iter().find(|(name, _)| name == "HOME").map(|(_, home)| home.clone());
        let home = from_image.unwrap_or(ready.home);
        Ok((init, if home.is_empty() { "/".into() } else { home }))
    }

    /// Makes what is missing of a job's own volumes.
    pub(super) async fn make_volumes(
        &self,
        resources: &JobResources,
        volumes: &[(String, String)],
    ) -> Result<(), SandboxError> {
        for (name, _) in volumes {
            self.make_volume(resources, resources.volume(name)).await?;
        }
        Ok(())
    }

    async fn make_volume(&self, resources: &JobResources, name: String) -> Result<(), SandboxError> {
        let labels = self.engine.labels(Some(&resources.nonce));
        let volume = VolumeCreateRequest { name: Some(name), labels: Some(labels), ..VolumeCreateRequest::default() };
        let made = self.engine.api.create_volume(volume).await;
        made.map(drop).map_err(|error| self.engine.error("make a volume", error))
    }

    fn body(
        &self,
        resources: &JobResources,
        spec: &MachineSpec,
        workspace: Workspace,
        image: &Image,
        init: &str,
    ) -> ContainerCreateBody {
        let user = if spec.user.is_empty() { &image.program.user } else { &spec.user };
        let mut mounts = vec![mount(init, INIT_DIRECTORY, true)];
        let targets = match workspace {
            Workspace::Own => vec![WORKSPACE],
            Workspace::Shared => vec![WORKSPACE, SHARED_WORKSPACE],
            Workspace::None => Vec::new(),
        };
        mounts.extend(targets.iter().map(|target| mount(&resources.name(), target, false)));
        mounts.extend(spec.volumes.iter().map(|(name, target)| mount(&resources.volume(name), target, false)));
        ContainerCreateBody {
            image: Some(spec.image.clone()),
            entrypoint: Some(vec![INIT_PATH.into()]),
            cmd: Some(vec![
                resources.nonce.clone(),
                user.clone(),
                // Init gives it to the user; what is shared stays whose it is.
                if workspace == Workspace::Own { WORKSPACE } else { TEMP }.into(),
                TEMP.into(),
                spec.limits.open_files.to_string(),
            ]),
            // Init is root even where steps are not: it gives them their user, and they cannot touch it.
            user: Some("0:0".into()),
            env: Some(variables(&spec.environment)),
            hostname: (!spec.hostname.is_empty()).then(|| spec.hostname.clone()),
            working_dir: Some("/".into()),
            labels: Some(self.engine.labels(Some(&resources.nonce))),
            open_stdin: Some(true),
            stdin_once: Some(false),
            attach_stdin: Some(true),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            tty: Some(false),
            // An image's own check would cost an exec every few seconds.
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
            host_config: Some(HostConfig {
                mounts: Some(mounts),
                log_config: Some(HostConfigLogConfig { typ: Some("none".into()), config: None }),
                extra_hosts: Some(vec![format!("{ACTIONS_API_HOST}:127.0.0.1")]),
                ..hardened(resources.network.as_deref(), &spec.limits)
            }),
            ..ContainerCreateBody::default()
        }
    }

    /// Puts our first process into a volume, by a container that is never started.
    async fn fill_init_volume(&self, image: &str) -> Result<String, SandboxError> {
        let api = &self.engine.api;
        let error = |error| self.engine.error("bring longshore-init to the engine", error);
        let hash = hex::encode(Sha256::digest(INIT));
        let nonce = hex::encode(rand::random::<[u8; 8]>());
        let name = format!("longshore-init-{}-{nonce}", hash.get(..12).unwrap_or(&hash));
        self.live().insert(nonce.clone());
        let labels = self.engine.labels(Some(&nonce));
        let volume = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels.clone()),
            ..VolumeCreateRequest::default()
        };
        api.create_volume(volume).await.map_err(error)?;
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec![INIT_NAME.into()]),
            labels: Some(labels),
            host_config: Some(HostConfig {
                mounts: Some(vec![mount(&name, INIT_DIRECTORY, false)]),
                network_mode: Some("none".into()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let options = CreateContainerOptionsBuilder::new().name(&name).build();
        api.create_container(Some(options), body).await.map_err(error)?;
        let upload = UploadToContainerOptionsBuilder::new().path(INIT_DIRECTORY).build();
        let archive = init_archive().map_err(|error| SandboxError::Start(error.to_string()))?;
        let uploaded = api.upload_to_container(&name, Some(upload), body_full(archive.into())).await;
        let removal = RemoveContainerOptionsBuilder::new().force(true).build();
        api.remove_container(&name, Some(removal)).await.map_err(error)?;
        uploaded.map_err(error)?;
        Ok(name)
    }

    /// Removes containers and volumes that carry our labels and that nobody holds; takes over empty networks, and sets the
    /// rules of egress again where they are gone.
    pub(super) async fn sweep(&self) -> Result<usize, SandboxError> {
        let api = &self.engine.api;
        let mut swept = 0;
        let options = ListContainersOptionsBuilder::new().all(true).filters(&self.engine.ours()).build();
        let containers = api.list_containers(Some(options)).await;
        for container in containers.map_err(|error| self.engine.error("list containers", error))? {
            if self.is_live(container.labels.as_ref().and_then(|labels| labels.get(NONCE))) {
                continue;
            }
            if let Some(id) = container.id {
                swept += usize::from(self.remove_container(&id).await);
            }
        }
        let options = ListVolumesOptionsBuilder::new().filters(&self.engine.ours()).build();
        let volumes =
            api.list_volumes(Some(options)).await.map_err(|error| self.engine.error("list volumes", error))?;
        for volume in volumes.volumes.unwrap_or_default() {
            if !self.is_live(volume.labels.get(NONCE)) {
                swept += usize::from(self.remove_volume(&volume.name).await);
            }
        }
        self.networks.adopt().await?;
        self.close_egress().await?;
        image::sweep(&self.engine).await;
        Ok(swept)
    }

    /// Waits for removals, then removes networks and volumes that only a living worker needs.
    pub(super) async fn close(&self) {
        self.starts.close();
        self.removals.close();
        self.removals.wait().await;
        if let Some(volume) = self.init_volume.get() {
            self.remove_volume(volume).await;
        }
        self.networks.close().await;
    }

    pub(super) async fn remove_container(&self, name: &str) -> bool {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        gone("container", name, self.engine.api.remove_container(name, Some(options)).await)
    }

    async fn remove_volume(&self, name: &str) -> bool {
        gone("volume", name, self.engine.api.remove_volume(name, None::<RemoveVolumeOptions>).await)
    }

    /// Removes what a job's containers shared. `clean`: none of them is left.
    pub(super) async fn clear(&self, nonce: String, network: Option<String>, clean: bool) {
        let options = ListVolumesOptionsBuilder::new().filters(&self.engine.of(&nonce)).build();
        let listed = self.engine.api.list_volumes(Some(options)).await.unwrap_or_default();
        for volume in listed.volumes.unwrap_or_default() {
            self.remove_volume(&volume.name).await;
        }
        if let Some(network) = network {
            match clean {
                true => self.networks.give_back(network),
                false => self.networks.forget(&network),
            }
        }
        self.live().remove(&nonce);
    }

    fn is_live(&self, nonce: Option<&String>) -> bool {
        nonce.is_some_and(|nonce| self.live().contains(nonce))
    }

    fn live(&self) -> MutexGuard<'_, HashSet<String>> {
        self.live.lock()
    }
}

fn gone(kind: &str, name: &str, removed: Result<(), bollard::errors::Error>) -> bool {
    match removed {
        Ok(()) => true,
        Err(error) if status(&error) == Some(404) => true,
        Err(error) => {
            tracing::warn!(kind, name, %error, "not removed; the next sweep tries again");
            false
        }
    }
}

/// What every container of a job may do and use.
pub(super) fn hardened(network: Option<&str>, limits: &ResourceLimits) -> HostConfig {
    let number = |value: u64| Some(i64::try_from(value).unwrap_or(i64::MAX));
    HostConfig {
        network_mode: Some(network.unwrap_or("none").to_owned()),
        cap_drop: Some(vec!["ALL".into()]),
        cap_add: Some(CAPABILITIES.map(String::from).to_vec()),
        security_opt: Some(vec!["no-new-privileges".into()]),
        ipc_mode: Some("private".into()),
        memory: number(limits.memory),
        // The same as memory: no swap on top of it.
        memory_swap: number(limits.memory),
        nano_cpus: number(limits.cpu_millis.saturating_mul(1_000_000)),
        pids_limit: number(limits.processes),
        shm_size: number(limits.shared_memory),
        ..HostConfig::default()
    }
}

pub(super) fn variables(environment: &BTreeMap<String, String>) -> Vec<String> {
    environment.iter().map(|(name, value)| format!("{name}={value}")).collect()
}

pub(super) fn mount(volume: &str, target: &str, read_only: bool) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(volume.to_owned()),
        target: Some(target.to_owned()),
        read_only: Some(read_only),
        volume_options: Some(MountVolumeOptions { no_copy: Some(true), ..MountVolumeOptions::default() }),
        ..Mount::default()
    }
}

fn init_archive() -> std::io::Result<Vec<u8>> {
    let mut header = tar::Header::new_gnu();
    header.set_mode(0o555);
    header.set_size(INIT.len() as u64);
    let mut archive = tar::Builder::new(Vec::with_capacity(INIT.len() + 4096));
    archive.append_data(&mut header, INIT_NAME, INIT)?;
    archive.into_inner()
}

/// Standard output of the first process. What it complains of on standard error is the reason of the end.
fn incoming(
    output: impl futures::Stream<Item = Result<LogOutput, bollard::errors::Error>> + Send + Unpin + 'static,
) -> InitReader {
    stream::unfold((output, String::new()), |(mut output, mut complaint)| async move {
        loop {
            match output.next().await {
                Some(Ok(LogOutput::StdErr { message })) if complaint.len() < COMPLAINT_LIMIT => {
                    complaint.push_str(&String::from_utf8_lossy(&message));
                }
                Some(Ok(LogOutput::StdOut { message })) => return Some((Ok(message), (output, complaint))),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Some((Err(std::io::Error::other(error)), (output, complaint))),
                None if complaint.is_empty() => return None,
                None => {
                    return Some((Err(std::io::Error::other(complaint.trim().to_owned())), (output, String::new())));
                }
            }
        }
    })
    .boxed()
}
