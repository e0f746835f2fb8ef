//! What the containers of one job share, and how all of it goes: in the background, the containers first.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::cleanup::Cleanup;

/// Network, workspace and volumes of one job; dropped with its last container, they are removed.
pub(super) struct JobResources {
    cleanup: Arc<Cleanup>,
    /// On the label of everything of the job.
    pub(super) nonce: String,
    /// `None`: the job has none.
    pub(super) network: Option<String>,
    made: AtomicUsize,
    /// A container could not be removed: it may still stand in the network.
    left: AtomicBool,
}

impl JobResources {
    /// `network`: taken from those of the worker.
    pub(super) fn new(cleanup: Arc<Cleanup>, network: Option<String>) -> Arc<Self> {
        let nonce = cleanup.new_nonce();
        Arc::new(Self { cleanup, nonce, network, made: 0.into(), left: false.into() })
    }

    /// Name of the workspace volume, and of the first container.
    pub(super) fn name(&self) -> String {
        format!("longshore-{}", self.nonce)
    }

    /// A volume that the job knows by `name`. Nobody else's can be named by it.
    pub(super) fn volume(&self, name: &str) -> String {
        format!("{}-{name}", self.name())
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
        let clear = async move { cleanup.clear(nonce, network, clean).await };
        self.cleanup.removals.spawn_on(clear, &runtime);
    }
}
