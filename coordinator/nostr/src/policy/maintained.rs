//! Who maintains the repositories that a policy names, as it was looked up last.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use nostr::PublicKey;
use parking_lot::RwLock;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// What was looked up is not looked up again before.
const FRESH: Duration = Duration::from_secs(30);
/// How long somebody who is missing waits for a look.
const PATIENCE: Duration = Duration::from_secs(20);

#[derive(Debug, Default)]
pub(super) struct Maintained {
    known: RwLock<MaintainerSets>,
    wanted: Notify,
    /// When it was looked up last.
    looked: watch::Sender<Option<Instant>>,
}

#[derive(Debug, Default)]
struct MaintainerSets {
    by_address: HashMap<String, HashSet<PublicKey>>,
    all: HashSet<PublicKey>,
}

impl Maintained {
    pub(super) fn set(&self, by_address: HashMap<String, HashSet<PublicKey>>) {
        let all = by_address.values().flatten().copied().collect();
        *self.known.write() = MaintainerSets { by_address, all };
        self.looked.send_replace(Some(Instant::now()));
    }

    /// Whether a key maintains any of the repositories.
    pub(super) fn contains(&self, key: &PublicKey) -> bool {
        self.known.read().all.contains(key)
    }

    /// Who maintains any of them.
    pub(super) fn all(&self) -> HashSet<PublicKey> {
        self.known.read().all.clone()
    }

    pub(super) fn maintains(&self, address: &str, key: &PublicKey) -> bool {
        self.known.read().by_address.get(address).is_some_and(|keys| keys.contains(key))
    }

    pub(super) fn of(&self, address: &str) -> Option<HashSet<PublicKey>> {
        self.known.read().by_address.get(address).cloned()
    }

    /// Waits for a look that begins now or is under way; `false`: the last one is fresh, or none ended in time.
    pub(super) async fn look_again(&self) -> bool {
        let mut looked = self.looked.subscribe();
        if looked.borrow_and_update().is_some_and(|at| at.elapsed() < FRESH) {
            return false;
        }
        self.wanted.notify_one();
        tokio::time::timeout(PATIENCE, looked.changed()).await.is_ok_and(|changed| changed.is_ok())
    }

    pub(super) async fn wanted(&self) {
        self.wanted.notified().await;
    }
}
