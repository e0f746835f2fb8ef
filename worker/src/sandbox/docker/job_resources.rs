//! What the containers of one job share, and how all of it goes: in the background, the containers first.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;

use super::{SandboxError, cleanup::Cleanup, job_cgroup::JobCgroup, volume_images::VolumeImage};

/// Volumes of one job: its workspace, those that its container and services name, and those that their images declare.
/// Each may cost the worker a loop device and an open file as long as the job lasts.
const VOLUMES: usize = 32;

/// Network, workspace and volumes of one job; dropped with its last container, they are removed.
pub(super) struct JobResources {
    cleanup: Arc<Cleanup>,
    /// On the label of everything of the job.
    pub(super) nonce: String,
    /// `None`: the job has none.
    pub(super) network: Option<String>,
    made: AtomicUsize,
    /// What its containers use counts together.
    cgroup: Option<JobCgroup>,
    /// Bytes that each container may write beside its volumes, where the engine's storage has quotas.
    pub(super) layer_bytes: Option<u64>,
    /// Names of its volumes.
    volumes: Mutex<HashSet<String>>,
    /// What volumes of a fixed size are made of, by their names.
    images: Mutex<HashMap<String, VolumeImage>>,
    /// Images that go with the job.
    made_images: Mutex<Vec<String>>,
    /// Bytes of all images that it made, beside those that they began with.
    pub(super) image_bytes: Arc<AtomicU64>,
    /// A container could not be removed: it may still stand in the network.
    left: AtomicBool,
}

impl JobResources {
    /// Without a network. `nonce`: new, and live.
    pub(super) fn new(cleanup: Arc<Cleanup>, nonce: String, cgroup: Option<JobCgroup>) -> Self {
        Self {
            cleanup,
            nonce,
            network: None,
            cgroup,
            layer_bytes: None,
            made: 0.into(),
            volumes: Mutex::default(),
            images: Mutex::default(),
            made_images: Mutex::default(),
            image_bytes: Arc::default(),
            left: false.into(),
        }
    }

    /// The group that its containers belong to, as the engine takes it.
    pub(super) fn cgroup_parent(&self) -> Option<String> {
        self.cgroup.as_ref().map(JobCgroup::parent)
    }

    /// Name of the workspace volume, and of the first container.
    pub(super) fn name(&self) -> String {
        format!("longshore-{}", self.nonce)
    }

    /// A volume that the job knows by `name`. Nobody else's can be named by it.
    pub(super) fn volume(&self, name: &str) -> String {
        format!("{}-{name}", self.name())
    }

    /// Options of the engine's storage for a container.
    pub(super) fn storage_options(&self) -> Option<HashMap<String, String>> {
        Some(HashMap::from([("size".to_owned(), self.layer_bytes?.to_string())]))
    }

    /// Takes a volume into the number that the job may have.
    pub(super) fn add_volume(&self, volume: &str) -> Result<(), SandboxError> {
        let mut volumes = self.volumes.lock();
        if volumes.len() >= VOLUMES && !volumes.contains(volume) {
            let cause = format!("a job may have {VOLUMES} volumes, with those of its services and of their images");
            return Err(SandboxError::Refused(cause));
        }
        volumes.insert(volume.to_owned());
        Ok(())
    }

    /// The device of a volume that was made, or was to be.
    pub(super) fn device(&self, volume: &str) -> Option<String> {
        self.images.lock().get(volume).map(|image| image.device.clone())
    }

    /// Keeps what a volume is made of; gives its device. The first of two for one name stays.
    pub(super) fn hold_volume(&self, volume: &str, image: VolumeImage) -> String {
        self.images.lock().entry(volume.to_owned()).or_insert(image).device.clone()
    }

    /// Notes an image that is about to be made, and goes with the job.
    pub(super) fn add_image(&self, name: &str) {
        self.made_images.lock().push(name.to_owned());
    }

    /// Name of a further container.
    pub(super) fn next_name(&self) -> String {
        match self.made.fetch_add(1, Ordering::Relaxed) {
            0 => self.name(),
            number => format!("{}.{number}", self.name()),
        }
    }

    /// Removes a container in the background; what the job's containers share goes after it.
    pub(super) fn remove(self: &Arc<Self>, container: String) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let resources = Arc::clone(self);
        let removal = async move {
            if !resources.cleanup.remove_container(&container).await {
                resources.left.store(true, Ordering::Relaxed);
            }
        };
        self.cleanup.removals.spawn_on(removal, &runtime);
    }
}

impl Drop for JobResources {
    fn drop(&mut self) {
        // Without a runtime the process is ending; the next one sweeps.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (nonce, network) = (std::mem::take(&mut self.nonce), self.network.take());
        let (cleanup, clean) = (Arc::clone(&self.cleanup), !*self.left.get_mut());
        let (images, cgroup) = (std::mem::take(self.images.get_mut()), self.cgroup.take());
        let made_images = std::mem::take(self.made_images.get_mut());
        let clear = async move {
            cleanup.clear(nonce, network, clean).await;
            cleanup.remove_images(made_images).await;
            // The engine has none of them mounted any more: with this their devices end.
            drop(images);
            if let Some(cgroup) = cgroup {
                cgroup.remove().await;
            }
        };
        self.cleanup.removals.spawn_on(clear, &runtime);
    }
}
