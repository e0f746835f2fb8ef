//! Makes containers, removes them off the critical path, and sweeps what nobody holds.

use std::{sync::Arc, time::Duration};

use bollard::{
    body_full,
    container::LogOutput,
    models::{ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, VolumeCreateRequest},
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
        ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
        UploadToContainerOptionsBuilder,
    },
};
use futures::{StreamExt, stream};
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    DockerConfig, MachineSpec, SandboxError,
    cleanup::Cleanup,
    container_handle::ContainerHandle,
    egress::EgressRules,
    engine::{Engine, NONCE},
    hardening::{hardened, mount, variables},
    image::{self, Image, Images},
    job_resources::JobResources,
    layout::{INIT_DIRECTORY, INIT_NAME, INIT_PATH, TEMP, WORKSPACE},
    network::Networks,
};
use crate::sandbox::{
    ACTIONS_API_HOST, INIT, SHARED_WORKSPACE,
    init_client::{InitClient, InitReader},
};

/// From the start of a container to the first word of its first process.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of what a failing first process says.
const COMPLAINT_LIMIT: usize = 4096;

/// Containers of this worker.
pub(super) struct Containers {
    pub(super) engine: Arc<Engine>,
    pub(super) images: Images,
    pub(super) cleanup: Arc<Cleanup>,
    egress: EgressRules,
    /// Starts at a time. More only adds latency.
    starts: Semaphore,
    /// Cancelled: no machine is started any more.
    closing: CancellationToken,
    init_volume: OnceCell<String>,
}

/// A container whose first process answers.
pub(super) struct StartedContainer {
    pub(super) handle: ContainerHandle,
    pub(super) image: Arc<Image>,
    pub(super) init: InitClient,
    /// Home directory of its user.
    pub(super) home: String,
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
        let cleanup = Arc::new(Cleanup::new(Arc::clone(&engine), networks));
        let containers = Self {
            engine,
            images: Images::default(),
            cleanup,
            egress,
            starts: Semaphore::new(2 * cores),
            closing: CancellationToken::new(),
            init_volume: OnceCell::new(),
        };
        containers.close_egress().await?;
        Ok(containers)
    }

    /// Sees to it that the rules stand which keep jobs from this host and its private networks.
    async fn close_egress(&self) -> Result<(), SandboxError> {
        let network = self.cleanup.networks.take().await?;
        self.egress.ensure(&network).await;
        self.cleanup.networks.give_back(network);
        Ok(())
    }

    /// Makes and starts a machine.
    pub(super) async fn make(&self, spec: &MachineSpec) -> Result<StartedContainer, SandboxError> {
        let closing = || SandboxError::Start("the worker is closing".into());
        // A pull may take minutes, and nothing is left of one that is cut off.
        let image = tokio::select! {
            image = self.images.find(&self.engine, &spec.image, spec.credentials.as_ref()) => image?,
            () = self.closing.cancelled() => return Err(closing()),
        };
        let init = self.init_volume.get_or_try_init(|| self.fill_init_volume(&spec.image)).await?;
        let _start = self.starts.acquire().await.map_err(|_| closing())?;
        let resources = self.resources().await?;
        let made = self.create(&resources, spec, Workspace::Own, &image, init).await;
        // Somebody may have removed it from the engine (`docker network prune`).
        if let (Err(_), Some(network)) = (&made, &resources.network)
            && self.cleanup.networks.is_lost(network).await
        {
            let resources = self.resources().await?;
            return self.create(&resources, spec, Workspace::Own, &image, init).await;
        }
        made
    }

    /// What the containers of a new job share. From here on dropping it removes what was made.
    async fn resources(&self) -> Result<Arc<JobResources>, SandboxError> {
        let network = match self.egress.are_set() {
            true => Some(self.cleanup.networks.take().await?),
            false => None,
        };
        Ok(JobResources::new(Arc::clone(&self.cleanup), network))
    }

    /// Makes and starts a further machine of a job.
    pub(super) async fn create_additional(
        &self,
        resources: &Arc<JobResources>,
        spec: &MachineSpec,
        workspace: bool,
    ) -> Result<StartedContainer, SandboxError> {
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
    ) -> Result<StartedContainer, SandboxError> {
        let handle = ContainerHandle::new(resources);
        let (init, home) = tokio::time::timeout(READY_TIMEOUT, self.start(&handle, spec, workspace, image, init))
            .await
            .unwrap_or_else(|_| Err(SandboxError::Start(format!("not ready after {} s", READY_TIMEOUT.as_secs()))))?;
        Ok(StartedContainer { handle, image: Arc::clone(image), init, home })
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
        let nonce = self.cleanup.new_nonce();
        let name = format!("longshore-init-{}-{nonce}", hash.get(..12).unwrap_or(&hash));
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
            if self.cleanup.is_live(container.labels.as_ref().and_then(|labels| labels.get(NONCE))) {
                continue;
            }
            if let Some(id) = container.id {
                swept += usize::from(self.cleanup.remove_container(&id).await);
            }
        }
        let options = ListVolumesOptionsBuilder::new().filters(&self.engine.ours()).build();
        let volumes =
            api.list_volumes(Some(options)).await.map_err(|error| self.engine.error("list volumes", error))?;
        for volume in volumes.volumes.unwrap_or_default() {
            if !self.cleanup.is_live(volume.labels.get(NONCE)) {
                swept += usize::from(self.cleanup.remove_volume(&volume.name).await);
            }
        }
        self.cleanup.networks.adopt().await?;
        self.close_egress().await?;
        image::sweep(&self.engine).await;
        Ok(swept)
    }

    /// Lets no further machine be started.
    pub(super) fn stop_starts(&self) {
        self.closing.cancel();
        self.starts.close();
    }

    /// Waits for removals, then removes networks and volumes that only a living worker needs.
    pub(super) async fn close(&self) {
        self.cleanup.removals.close();
        self.cleanup.removals.wait().await;
        if let Some(volume) = self.init_volume.get() {
            self.cleanup.remove_volume(volume).await;
        }
        self.cleanup.networks.close().await;
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
