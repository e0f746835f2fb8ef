//! Notifies the followers of a run that its logs grew. Runs without followers take no memory.

use domain::id::{JobKey, RunId};

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

/// Job key and attempt.
pub(super) type Attempt = (JobKey, u32);
/// Bytes there are of each attempt.
pub(super) type Lengths = BTreeMap<Attempt, u64>;

/// The runs that are followed. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Followed(Arc<Mutex<HashMap<RunId, watch::Sender<Lengths>>>>);

impl Followed {
    /// An attempt's log has this many bytes now.
    pub(super) fn grew(&self, run: &RunId, job: &JobKey, attempt: u32, length: u64) {
        if let Some(lengths) = self.0.lock().get(run) {
            lengths.send_modify(|lengths| {
                lengths.insert((job.clone(), attempt), length);
            });
        }
    }

    /// What grows from now on.
    pub(super) fn follow(&self, run: &RunId) -> Follower {
        let mut runs = self.0.lock();
        let lengths = runs.entry(run.clone()).or_insert_with(|| watch::Sender::new(Lengths::new())).subscribe();
        Follower { run: run.clone(), lengths, followed: self.clone() }
    }

    /// Runs that somebody follows.
    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// One who follows a run until it is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    run: RunId,
    lengths: watch::Receiver<Lengths>,
    followed: Followed,
}

impl Follower {
    /// Updates the known lengths with those that grew since the last call.
    pub(super) fn update(&mut self, known: &mut Lengths) {
        if self.lengths.has_changed().unwrap_or(false) {
            known.extend(self.lengths.borrow_and_update().iter().map(|(attempt, length)| (attempt.clone(), *length)));
        }
    }

    /// Waits until something grew since the last update.
    pub(super) async fn changed(&mut self) {
        // The sender stays as long as this follower does.
        if self.lengths.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
        self.lengths.mark_changed();
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let mut runs = self.followed.0.lock();
        // The last one, as this one is counted still.
        if runs.get(&self.run).is_some_and(|lengths| lengths.receiver_count() <= 1) {
            runs.remove(&self.run);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_left_of_a_run_whose_last_follower_went() {
        let followed = Followed::default();
        let (first, second) = (followed.follow(&"run".into()), followed.follow(&"run".into()));
        drop(first);
        assert_eq!(followed.len(), 1);
        drop(second);
        assert_eq!(followed.len(), 0);
    }
}
