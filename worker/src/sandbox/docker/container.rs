//! Makes containers, removes them off the critical path, and sweeps what nobody holds.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bollard::{
    body_full,
    container::LogOutput,
    models::{ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, VolumeCreateRequest},
    query_parameters::{
        AttachContainerOptionsBuilder, CreateContainerOptionsBuilder, ListContainersOptionsBuilder,
        ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
        UploadToContainerOptionsBuilder,
    },
};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::{OnceCell, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    DockerConfig, MachineSpec, SandboxError,
    cleanup::Cleanup,
    container_handle::ContainerHandle,
    egress::EgressRules,
    engine::{Engine, NONCE, PROCESS},
    hardening::{filled_mount, hardened, mount, variables},
    image::{Image, Images},
    job_cgroup::JobCgroups,
    job_resources::JobResources,
    layout::{INIT_DIRECTORY, INIT_NAME, INIT_PATH, TEMP, WORKSPACE},
    network::Networks,
    process_identity,
    volume_images::{FILE_SYSTEM, MOUNT_OPTIONS, VolumeImages},
};
use crate::sandbox::{
    ACTIONS_API_HOST, DiskBound, INIT, InitConnection, SHARED_WORKSPACE, VolumeMount, init_client::InitReader,
};

/// How long the engine may take to make and start a container.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Volumes that an image may declare.
const IMAGE_VOLUMES: usize = 16;
/// How an engine says that it does not reach the device of a volume.
const NOT_MOUNTED: &str = "failed to mount local volume";
/// Bytes of what a failing first process says.
const COMPLAINT_LIMIT: usize = 4096;

/// Containers of this worker.
pub(super) struct Containers {
    pub(super) engine: Arc<Engine>,
    pub(super) images: Images,
    pub(super) cleanup: Arc<Cleanup>,
    egress: EgressRules,
    has_job_limits: bool,
    /// `None`: each container of a job has limits of its own alone.
    cgroups: Option<Arc<JobCgroups>>,
    /// Bytes that a container may write beside its volumes; `None`: the engine's storage has no quotas.
    layer_bytes: Option<u64>,
    /// Bytes that stay free on the engine's disk; 0: no such floor.
    pub(super) min_free: u64,
    /// `None`: volumes are folders of the engine, without a bound of their own.
    volume_images: Mutex<Option<Arc<VolumeImages>>>,
    /// Starts at a time. More only adds latency.
    starts: Semaphore,
    /// Cancelled: no machine is started any more.
    closing: CancellationToken,
    init_volume: OnceCell<String>,
}

/// A container that runs.
pub(super) struct StartedContainer {
    pub(super) handle: ContainerHandle,
    pub(super) image: Arc<Image>,
    pub(super) connection: InitConnection,
    /// Its user is one that the job named.
    pub(super) has_own_user: bool,
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
        let job_limits = config.job_limits.clone();
        let has_job_limits = job_limits.is_some();
        let cgroups = job_limits.and_then(|limits| JobCgroups::open(&engine.info, engine.root.is_some(), limits));
        let asked = config.volumes.as_ref().map(|(_, bytes)| *bytes).filter(|bytes| *bytes > 0);
        let layer_bytes = asked.filter(|_| engine.layers_have_quotas());
        let images = Images::new(Arc::clone(&engine), config);
        let volume_images = Mutex::new(volume_images(&engine, config).await);
        let containers = Self {
            engine,
            has_job_limits,
            cgroups,
            layer_bytes,
            min_free: config.min_free,
            volume_images,
            images,
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
            image = self.images.find(&spec.image, spec.credentials.as_ref()) => image?,
            () = self.closing.cancelled() => return Err(closing()),
        };
        let init = self.init_volume.get_or_try_init(|| self.fill_init_volume(&image.id)).await?;
        let _start = self.starts.acquire().await.map_err(|_| closing())?;
        let resources = self.resources().await?;
        let made = self.create(&resources, spec, Workspace::Own, &image, init).await;
        if let Err(SandboxError::Start(cause)) = &made
            && cause.contains(NOT_MOUNTED)
            && self.volume_images.lock().take().is_some()
        {
            tracing::warn!(
                cause,
                "the engine cannot mount volumes of a fixed size: what jobs write is counted instead"
            );
            let resources = self.resources().await?;
            return self.create(&resources, spec, Workspace::Own, &image, init).await;
        }
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
        let nonce = self.cleanup.new_nonce();
        let cgroup = self.cgroups.as_ref().map(|groups| groups.make(&nonce)).transpose();
        let cgroup = cgroup.map_err(|error| SandboxError::Start(format!("a control group for the job: {error}")))?;
        // From here on all of it goes with them.
        let mut resources = JobResources::new(Arc::clone(&self.cleanup), nonce, cgroup);
        resources.layer_bytes = self.layer_bytes;
        if self.egress.are_set() {
            resources.network = Some(self.cleanup.networks.take().await?);
        }
        Ok(Arc::new(resources))
    }

    /// Makes and starts a further machine of a job.
    pub(super) async fn create_additional(
        &self,
        resources: &Arc<JobResources>,
        spec: &MachineSpec,
        workspace: bool,
    ) -> Result<StartedContainer, SandboxError> {
        let image = self.images.find(&spec.image, spec.credentials.as_ref()).await?;
        let init = self.init_volume.get_or_try_init(|| self.fill_init_volume(&image.id)).await?;
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
        let connection = tokio::time::timeout(START_TIMEOUT, self.start(&handle, spec, workspace, image, init))
            .await
            .unwrap_or_else(|_| {
            Err(SandboxError::Start(format!("not ready after {} s", START_TIMEOUT.as_secs())))
        })?;
        let has_own_user = !spec.user.is_empty();
        Ok(StartedContainer { handle, image: Arc::clone(image), connection, has_own_user })
    }

    async fn start(
        &self,
        handle: &ContainerHandle,
        spec: &MachineSpec,
        workspace: Workspace,
        image: &Image,
        init: &str,
    ) -> Result<InitConnection, SandboxError> {
        let api = &self.engine.api;
        let (resources, name) = (&handle.resources, &handle.name);
        self.make_volume(resources, resources.name()).await?;
        let volumes = self.make_volumes(resources, name, &spec.volumes).await?;
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let mut body = self.body(resources, spec, workspace, image, init);
        if let Some(config) = &mut body.host_config {
            config.mounts.get_or_insert_default().extend(volumes);
            self.mount_image_volumes(resources, name, image, config).await?;
        }
        api.create_container(Some(options), body).await.map_err(|error| self.engine.error("create", error))?;
        let options = AttachContainerOptionsBuilder::new().stdin(true).stdout(true).stderr(true).stream(true).build();
        let attached =
            api.attach_container(name, Some(options)).await.map_err(|error| self.engine.error("attach", error))?;
        let started = api.start_container(name, None::<StartContainerOptions>).await;
        started.map_err(|error| self.engine.error("start", error))?;
        Ok(InitConnection::Streams(incoming(attached.output), attached.input))
    }

    /// Makes what is missing of the volumes that a job wants in a container.
    pub(super) async fn make_volumes(
        &self,
        resources: &JobResources,
        container: &str,
        volumes: &[VolumeMount],
    ) -> Result<Vec<Mount>, SandboxError> {
        let mut mounts = Vec::new();
        for (number, VolumeMount { name, target, read_only }) in volumes.iter().enumerate() {
            let volume = match name.as_str() {
                "" => format!("{container}-own-{number}"),
                name => resources.volume(name),
            };
            self.make_volume(resources, volume.clone()).await?;
            mounts.push(mount(&volume, target, *read_only));
        }
        Ok(mounts)
    }

    /// Gives a container volumes for what its image declares as such (`VOLUME`). The engine's own would have no labels,
    /// and no bound.
    pub(super) async fn mount_image_volumes(
        &self,
        resources: &JobResources,
        container: &str,
        image: &Image,
        config: &mut HostConfig,
    ) -> Result<(), SandboxError> {
        let clean = |path: &str| {
            let parts: Vec<_> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
            format!("/{}", parts.join("/"))
        };
        let mounts = config.mounts.get_or_insert_default();
        let mut taken: HashSet<String> = mounts.iter().filter_map(|mount| mount.target.as_deref()).map(clean).collect();
        let targets: Vec<_> =
            image.volumes.iter().map(|path| clean(path)).filter(|path| taken.insert(path.clone())).collect();
        if targets.len() > IMAGE_VOLUMES {
            let cause = format!("its image declares {} volumes; {IMAGE_VOLUMES} are allowed", targets.len());
            return Err(SandboxError::Refused(cause));
        }
        for (number, target) in targets.iter().enumerate() {
            let name = format!("{container}-image-{number}");
            self.make_volume(resources, name.clone()).await?;
            mounts.push(filled_mount(&name, target));
        }
        Ok(())
    }

    async fn make_volume(&self, resources: &JobResources, name: String) -> Result<(), SandboxError> {
        resources.add_volume(&name)?;
        let images = self.volume_images.lock().clone();
        let device = match (resources.device(&name), images) {
            (Some(device), _) => Some(device),
            (None, Some(images)) => {
                let failed = |error| SandboxError::Start(format!("make a volume: {error}"));
                Some(resources.hold_volume(&name, images.take().await.map_err(failed)?))
            }
            (None, None) => None,
        };
        let pairs = |device| {
            [("type", FILE_SYSTEM.to_owned()), ("device", device), ("o", MOUNT_OPTIONS.to_owned())]
                .map(|(key, value)| (key.to_owned(), value))
        };
        let volume = VolumeCreateRequest {
            name: Some(name),
            labels: Some(self.engine.labels(Some(&resources.nonce))),
            driver_opts: device.map(|device| pairs(device).into()),
            ..VolumeCreateRequest::default()
        };
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
        ContainerCreateBody {
            image: Some(image.id.clone()),
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
                cgroup_parent: resources.cgroup_parent(),
                storage_opt: resources.storage_options(),
                runtime: (!spec.runtime.is_empty()).then(|| spec.runtime.clone()),
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
        // With the volumes that the image declares.
        let removal = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        api.remove_container(&name, Some(removal)).await.map_err(error)?;
        uploaded.map_err(error)?;
        Ok(name)
    }

    /// Removes containers and volumes that carry our labels and that nobody holds, and those of workers whose process is
    /// gone; takes over empty networks, and sets the rules of egress again where they are gone.
    pub(super) async fn sweep(&self) -> Result<usize, SandboxError> {
        let api = &self.engine.api;
        let mut swept = 0;
        let options = ListContainersOptionsBuilder::new().all(true).filters(&Engine::anybodys()).build();
        let containers = api.list_containers(Some(options)).await;
        for container in containers.map_err(|error| self.engine.error("list containers", error))? {
            if let (Some(id), Some(labels)) = (container.id, container.labels)
                && self.is_left_behind(&labels)
            {
                swept += usize::from(self.cleanup.remove_container(&id).await);
            }
        }
        let options = ListVolumesOptionsBuilder::new().filters(&Engine::anybodys()).build();
        let volumes =
            api.list_volumes(Some(options)).await.map_err(|error| self.engine.error("list volumes", error))?;
        for volume in volumes.volumes.unwrap_or_default() {
            if self.is_left_behind(&volume.labels) {
                swept += usize::from(self.cleanup.remove_volume(&volume.name).await);
            }
        }
        self.cleanup.networks.remove_orphans().await;
        self.cleanup.networks.adopt().await?;
        self.close_egress().await?;
        self.images.sweep().await;
        if let Some(groups) = &self.cgroups {
            groups.sweep();
        }
        Ok(swept)
    }

    /// Whether nobody holds something of these labels: it is ours, and of no machine that lives, or its process is gone.
    fn is_left_behind(&self, labels: &HashMap<String, String>) -> bool {
        if self.engine.is_ours(labels) {
            return !self.cleanup.is_live(labels.get(NONCE));
        }
        labels.get(PROCESS).is_some_and(|process| process_identity::is_gone(process))
    }

    /// What an operator should know of limits that each container of a job has anew.
    pub(super) fn unshared_limits(&self) -> Option<String> {
        (self.has_job_limits && self.cgroups.is_none()).then(|| {
            "the services of a job have its memory and processes anew, in equal parts, and so has each of its Docker actions: \
             to share them needs root beside an engine whose option native.cgroupdriver is cgroupfs"
                .to_owned()
        })
    }

    pub(super) fn disk_bound(&self) -> DiskBound {
        match (&self.engine.root, self.volume_images.lock().is_some()) {
            (_, true) => DiskBound::Volumes,
            (Some(_), false) => DiskBound::Counted,
            (None, false) => DiskBound::None,
        }
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

/// Volumes of a fixed size, where the configuration asks for them and this machine can make them.
async fn volume_images(engine: &Engine, config: &DockerConfig) -> Option<Arc<VolumeImages>> {
    let (folder, size) = config.volumes.clone().filter(|(_, size)| *size > 0)?;
    // Another machine's engine would look for our devices in vain.
    engine.root.as_ref()?;
    let owner = engine.root_of_containers();
    let opened = tokio::task::spawn_blocking(move || VolumeImages::open(&folder, size, owner)).await;
    match opened.unwrap_or_else(|error| Err(error.to_string())) {
        Ok(images) => Some(images),
        Err(cause) => {
            tracing::warn!(
                cause,
                "volumes of jobs have no bound of their own, so what jobs write is counted every few seconds: volumes of \
                 a fixed size need root, loop devices and e2fsprogs"
            );
            None
        }
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
