//! What the containers of one job share, and how all of it goes: in the background, the containers first.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::container::Containers;

/// Network, workspace and volumes of one job; dropped with its last container, they are removed.
pub(super) struct JobResources {
    pub(super) containers: Arc<Containers>,
    /// On the label of everything of the job.
    pub(super) nonce: String,
    /// `None`: the job has none.
    pub(super) network: Option<String>,
    made: AtomicUsize,
    /// A container could not be removed: it may still stand in the network.
    left: AtomicBool,
}

impl JobResources {
    pub(super) fn new(containers: Arc<Containers>, nonce: String, network: Option<String>) -> Arc<Self> {
        Arc::new(Self { containers, nonce, network, made: 0.into(), left: false.into() })
    }

    /// Name of the workspace volume, and of the first container.
    pub(super) fn name(&self) -> String {
        format!("longshore-{}", self.nonce)
    }

    /// A volume that the job knows by `name`. Nobody else's can be named by it.
    pub(super) fn volume(&self, name: &str) -> String {
        format!("{}-{name}", self.name())
    }

    /// A place for one more container.
    pub(super) fn reserve(self: &Arc<Self>) -> ContainerHandle {
        let name = match self.made.fetch_add(1, Ordering::Relaxed) {
            0 => self.name(),
            number => format!("{}.{number}", self.name()),
        };
        ContainerHandle { resources: Arc::clone(self), name }
    }
}

impl Drop for JobResources {
    fn drop(&mut self) {
        // Without a runtime the process is ending; the next one sweeps.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (nonce, network) = (std::mem::take(&mut self.nonce), self.network.take());
        let (containers, clean) = (Arc::clone(&self.containers), !*self.left.get_mut());
        let clear = async move { containers.clear(nonce, network, clean).await };
        self.containers.removals.spawn_on(clear, &runtime);
    }
}

/// One container; dropped, it is removed.
pub(super) struct ContainerHandle {
    pub(super) resources: Arc<JobResources>,
    pub(super) name: String,
}

impl Drop for ContainerHandle {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (resources, name) = (Arc::clone(&self.resources), std::mem::take(&mut self.name));
        let removal = async move {
            if !resources.containers.remove_container(&name).await {
                resources.left.store(true, Ordering::Relaxed);
            }
        };
        self.resources.containers.removals.spawn_on(removal, &runtime);
    }
}
