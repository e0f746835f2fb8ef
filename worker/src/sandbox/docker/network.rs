//! Job networks: bridges of our own address block, one for a job at a time, used again once empty.
//!
//! Making and removing one costs more than starting a container (94 and 207 ms), so they are kept.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
};

use bollard::{
    models::{Ipam, IpamConfig, NetworkCreateRequest},
    query_parameters::{InspectNetworkOptions, ListNetworksOptionsBuilder},
};
use parking_lot::{Mutex, MutexGuard};

use super::{
    SandboxError,
    engine::{Engine, PROCESS, status},
    process_identity,
};

/// Prefix length of one network: a job and a dozen services.
const PREFIX: u8 = 28;
/// Neighbouring blocks tried when others have taken the first.
const TRIES: u32 = 256;

/// Networks of this worker.
pub(super) struct Networks {
    engine: Arc<Engine>,
    addresses: (Ipv4Addr, u8),
    state: Mutex<NetworkTable>,
}

#[derive(Default)]
struct NetworkTable {
    free: Vec<String>,
    held: HashSet<String>,
    /// Names of networks that are being made: a sweep must not take one for a leftover.
    making: HashSet<String>,
    next: u32,
}

impl Networks {
    /// Takes over the networks that an earlier process of this worker left.
    pub(super) async fn new(engine: Arc<Engine>, addresses: (Ipv4Addr, u8)) -> Result<Self, SandboxError> {
        // Workers on one engine begin at different places.
        let state = NetworkTable { next: rand::random(), ..NetworkTable::default() };
        let networks = Self { engine, addresses, state: Mutex::new(state) };
        networks.adopt().await?;
        Ok(networks)
    }

    /// An empty network of which nobody else knows.
    pub(super) async fn take(&self) -> Result<String, SandboxError> {
        let free = {
            let mut state = self.lock();
            let free = state.free.pop();
            state.held.extend(free.clone());
            free
        };
        match free {
            Some(id) => Ok(id),
            None => self.make().await,
        }
    }

    /// Gives an empty network back.
    pub(super) fn give_back(&self, id: String) {
        let mut state = self.lock();
        if state.held.remove(&id) {
            state.free.push(id);
        }
    }

    /// Leaves a network to [`Self::adopt`], which takes it once it is empty.
    pub(super) fn forget(&self, id: &str) {
        self.lock().held.remove(id);
    }

    /// Whether a network that was taken is no longer on the engine. It is given up then, as are free ones like it.
    pub(super) async fn is_lost(&self, id: &str) -> bool {
        let Ok(there) = self.list().await else { return false };
        let mut state = self.lock();
        state.free.retain(|free| there.contains_key(free));
        !there.contains_key(id) && state.held.remove(id)
    }

    /// Removes the networks of workers whose process is gone. What is in use stays, and goes with a later sweep.
    pub(super) async fn remove_orphans(&self) {
        let options = ListNetworksOptionsBuilder::new().filters(&Engine::anybodys()).build();
        for network in self.engine.api.list_networks(Some(options)).await.unwrap_or_default() {
            let (Some(id), Some(labels)) = (network.id, network.labels) else { continue };
            if is_orphan(&labels) && !self.engine.is_ours(&labels) {
                let _ = self.engine.api.remove_network(&id).await;
            }
        }
    }

    /// Ids and names.
    async fn list(&self) -> Result<HashMap<String, String>, SandboxError> {
        let options = ListNetworksOptionsBuilder::new().filters(&self.engine.ours()).build();
        let listed = self.engine.api.list_networks(Some(options)).await;
        let listed = listed.map_err(|error| self.engine.error("list networks", error))?;
        Ok(listed.into_iter().filter_map(|network| Some((network.id?, network.name.unwrap_or_default()))).collect())
    }

    /// Takes empty networks that carry our labels and that nobody holds. Those of an earlier process are removed: their
    /// labels tell every worker that they are nobody's.
    pub(super) async fn adopt(&self) -> Result<usize, SandboxError> {
        let mut adopted = 0;
        for (id, name) in self.list().await? {
            if self.is_known(&id, &name) {
                continue;
            }
            // Another sweep may have removed it since.
            let Ok(network) = self.engine.api.inspect_network(&id, None::<InspectNetworkOptions>).await else {
                continue;
            };
            if network.containers.is_some_and(|containers| !containers.is_empty()) || self.is_known(&id, &name) {
                continue;
            }
            if network.labels.is_some_and(|labels| is_orphan(&labels)) {
                let engine = Arc::clone(&self.engine);
                drop(tokio::spawn(async move { engine.api.remove_network(&id).await }));
            } else {
                self.lock().free.push(id);
                adopted += 1;
            }
        }
        Ok(adopted)
    }

    /// Removes the free ones.
    pub(super) async fn close(&self) {
        let free = std::mem::take(&mut self.lock().free);
        for id in free {
            match self.engine.api.remove_network(&id).await {
                Err(error) if status(&error) != Some(404) => {
                    tracing::warn!(network = id, %error, "network left behind");
                }
                _ => {}
            }
        }
    }

    /// Makes a network, which is held from then on.
    async fn make(&self) -> Result<String, SandboxError> {
        let name = format!("longshore-{}", hex::encode(rand::random::<[u8; 8]>()));
        self.lock().making.insert(name.clone());
        let made = self.make_named(&name).await;
        let mut state = self.lock();
        state.making.remove(&name);
        state.held.extend(made.as_ref().ok().cloned());
        made
    }

    async fn make_named(&self, name: &str) -> Result<String, SandboxError> {
        let mut last = None;
        for _ in 0..TRIES {
            let (subnet, gateway) = self.next_subnet();
            let block = IpamConfig { subnet: Some(subnet), gateway: Some(gateway), ..IpamConfig::default() };
            let request = NetworkCreateRequest {
                name: name.to_owned(),
                driver: Some("bridge".into()),
                enable_ipv6: Some(false),
                ipam: Some(Ipam { config: Some(vec![block]), ..Ipam::default() }),
                labels: Some(self.engine.labels(None)),
                ..NetworkCreateRequest::default()
            };
            match self.engine.api.create_network(request).await {
                Ok(made) => return Ok(made.id),
                // The block overlaps another network.
                Err(error) if matches!(status(&error), Some(400 | 403 | 409)) => last = Some(error),
                Err(error) => return Err(self.engine.error("make a job network", error)),
            }
        }
        let (address, prefix) = self.addresses;
        let cause = last.map(|error| error.to_string()).unwrap_or_default();
        Err(SandboxError::Start(format!("no free /{PREFIX} left in {address}/{prefix} for a job network: {cause}")))
    }

    fn next_subnet(&self) -> (String, String) {
        let (base, prefix) = self.addresses;
        let count = 1_u32.checked_shl(u32::from(PREFIX.saturating_sub(prefix))).unwrap_or(1);
        let index = {
            let mut state = self.lock();
            state.next = state.next.wrapping_add(1);
            state.next % count
        };
        let size = 1_u32 << (32 - PREFIX);
        let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
        let network = (u32::from(base) & mask).wrapping_add(index * size);
        (format!("{}/{PREFIX}", Ipv4Addr::from(network)), Ipv4Addr::from(network + 1).to_string())
    }

    fn is_known(&self, id: &String, name: &String) -> bool {
        let state = self.lock();
        state.held.contains(id) || state.free.contains(id) || state.making.contains(name)
    }

    fn lock(&self) -> MutexGuard<'_, NetworkTable> {
        self.state.lock()
    }
}

/// Whether the process that made something is gone.
fn is_orphan(labels: &HashMap<String, String>) -> bool {
    labels.get(PROCESS).is_some_and(|process| process_identity::is_gone(process))
}
