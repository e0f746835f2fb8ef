//! What the containers of one job share, and how all of it goes: in the background, the containers first.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::container::Containers;

/// Network, workspace and volumes of one job; dropped with its last container, they are removed.
pub(super) struct Ground {
    pub(super) containers: Arc<Containers>,
    /// On the label of everything of the job.
    pub(super) nonce: String,
    /// `None`: the job has none.
    pub(super) network: Option<String>,
    made: AtomicUsize,
    /// A container could not be removed: it may still stand in the network.
    left: AtomicBool,
}

impl Ground {
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
    pub(super) fn hold(self: &Arc<Self>) -> Holding {
        let name = match self.made.fetch_add(1, Ordering::Relaxed) {
            0 => self.name(),
            number => format!("{}.{number}", self.name()),
        };
        Holding { ground: Arc::clone(self), name }
    }
}

impl Drop for Ground {
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
pub(super) struct Holding {
    pub(super) ground: Arc<Ground>,
    pub(super) name: String,
}

impl Drop for Holding {
    fn drop(&mut self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (ground, name) = (Arc::clone(&self.ground), std::mem::take(&mut self.name));
        let removal = async move {
            if !ground.containers.remove_container(&name).await {
                ground.left.store(true, Ordering::Relaxed);
            }
        };
        self.ground.containers.removals.spawn_on(removal, &runtime);
    }
}
