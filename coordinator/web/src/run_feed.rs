//! Changed runs, read from the store once for all followers.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::broadcast::{self, error::RecvError};

use store::{ChangeNotification, Filter, Reader, Store, StoreError, Summary};

/// Most changes read at once.
const BATCH: u32 = 100;
/// Batches that a follower may lag behind; one that lags further reads everything.
const LAG: usize = 64;

/// Sends changed runs to followers. Clones share one reader, which exists while there are followers.
#[derive(Debug, Clone)]
pub(super) struct RunFeed {
    store: Store,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    followers: broadcast::Sender<Arc<[Summary]>>,
    is_reading: Mutex<bool>,
}

impl RunFeed {
    pub(super) fn new(store: Store) -> Self {
        let shared = Shared { followers: broadcast::Sender::new(LAG), is_reading: Mutex::new(false) };
        Self { store, shared: Arc::new(shared) }
    }

    /// The runs that change from now on, whoever may read them: followers check that themselves.
    pub(super) async fn follow(&self) -> Result<broadcast::Receiver<Arc<[Summary]>>, StoreError> {
        // Subscribed before the number is read: a change in between is read twice rather than missed.
        let notices = self.store.subscribe();
        let after = match *self.shared.is_reading.lock() {
            true => return Ok(self.shared.followers.subscribe()),
            false => self.store.latest_change(),
        };
        let after = after.await?;
        let mut is_reading = self.shared.is_reading.lock();
        let follower = self.shared.followers.subscribe();
        if !*is_reading {
            *is_reading = true;
            tokio::spawn(self.clone().read(notices, after));
        }
        Ok(follower)
    }

    async fn read(self, mut notices: broadcast::Receiver<ChangeNotification>, mut after: u64) {
        let everything = Filter { reader: Reader::Operator, ..Filter::default() };
        loop {
            match notices.recv().await {
                Ok(ChangeNotification::Runs) | Err(RecvError::Lagged(_)) => {}
                Ok(_) => continue,
                // The followers see the end of the channel.
                Err(RecvError::Closed) => return,
            }
            {
                let mut is_reading = self.shared.is_reading.lock();
                if self.shared.followers.receiver_count() == 0 {
                    *is_reading = false;
                    return;
                }
            }
            loop {
                let changed = match self.store.changed(&everything, after, BATCH).await {
                    Ok(changed) => changed,
                    Err(error) => {
                        tracing::warn!("changed runs can't be read, the next change tries again: {error}");
                        break;
                    }
                };
                let more = changed.len() == BATCH as usize;
                after = changed.last().map_or(after, |run| run.changed);
                if !changed.is_empty() {
                    // Fails where no follower is left.
                    let _ = self.shared.followers.send(changed.into());
                }
                if !more {
                    break;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use domain::run::{
        RunRules,
        testing::{START, new_run},
    };
    use store::Change;

    use super::*;

    #[tokio::test]
    async fn one_reader_serves_all_followers_goes_with_the_last_and_comes_with_the_next() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.sqlite")).await.unwrap();
        let feed = RunFeed::new(store.clone());
        let (mut state, _) = domain::run::create(new_run(RunRules::default(), false), START);
        let mut change = async || {
            store.commit(vec![Change::Run(store::RunChange::whole(state.clone()))]).await.unwrap();
            state.version += 1;
        };
        let (mut first, mut second) = (feed.follow().await.unwrap(), feed.follow().await.unwrap());
        change().await;
        for follower in [&mut first, &mut second] {
            let changed = follower.recv().await.unwrap();
            assert_eq!((changed[0].id.as_str(), changed[0].changed), ("run", 1));
        }
        assert_eq!(Arc::strong_count(&feed.shared), 2, "the feed, and its one reader");
        drop((first, second));
        change().await;
        let mut third = feed.follow().await.unwrap();
        change().await;
        let mut last = 0;
        while last < 3 {
            last = third.recv().await.unwrap().last().unwrap().changed;
        }
    }
}
