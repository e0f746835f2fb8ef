//! Removes what jobs had on the engine, off the critical path.

use std::{collections::HashSet, sync::Arc};

use bollard::query_parameters::{
    ListVolumesOptionsBuilder, RemoveContainerOptionsBuilder, RemoveImageOptions, RemoveVolumeOptions,
};
use parking_lot::{Mutex, MutexGuard};
use tokio_util::task::TaskTracker;

use super::{
    engine::{Engine, status},
    network::Networks,
};

/// Knows what must not be removed, and removes the rest in the background.
pub(super) struct Cleanup {
    engine: Arc<Engine>,
    pub(super) networks: Networks,
    /// Nonces of jobs that live: a sweep leaves what carries them.
    live: Mutex<HashSet<String>>,
    /// Removals under way.
    pub(super) removals: TaskTracker,
}

impl Cleanup {
    pub(super) fn new(engine: Arc<Engine>, networks: Networks) -> Self {
        Self { engine, networks, live: Mutex::default(), removals: TaskTracker::new() }
    }

    /// A new nonce, for the labels of something that lives.
    pub(super) fn new_nonce(&self) -> String {
        let nonce = hex::encode(rand::random::<[u8; 16]>());
        self.live().insert(nonce.clone());
        nonce
    }

    pub(super) async fn remove_container(&self, name: &str) -> bool {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
        gone("container", name, self.engine.api.remove_container(name, Some(options)).await)
    }

    pub(super) async fn remove_volume(&self, name: &str) -> bool {
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

    /// Removes images, the last of them first: each may stand on those before it. What stays goes with a later sweep.
    pub(super) async fn remove_images(&self, names: Vec<String>) {
        for name in names.iter().rev() {
            let removed = self.engine.api.remove_image(name, None::<RemoveImageOptions>, None).await;
            gone("image", name, removed.map(drop));
        }
    }

    pub(super) fn is_live(&self, nonce: Option<&String>) -> bool {
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
