//! Removes what is past its retention: runs with their rows, logs and blobs, and what belongs to no run.

use blobs::Blobs;
use domain::run::Millis;
use logs::Logs;
use store::{Change, ExpiredRun, Kept, Store};

/// Runs of one look at the store.
const RUNS: u32 = 100;
/// Blobs of one run that are looked at together.
const BLOBS: u32 = 1000;

/// What is kept, and for how long.
pub(super) struct Retention {
    pub(super) store: Store,
    pub(super) logs: Logs,
    pub(super) blobs: Blobs,
    /// Milliseconds that a run is kept.
    pub(super) keep: Millis,
}

impl Retention {
    /// Removes everything whose time is over. What fails is left for the next sweep.
    pub(super) async fn sweep(&self, now: Millis) -> anyhow::Result<()> {
        let mut removed = 0;
        loop {
            let expired = self.store.runs_expired(now, RUNS).await?;
            for run in &expired {
                self.remove(run).await?;
            }
            removed += expired.len();
            if expired.len() < RUNS as usize {
                break;
            }
        }
        let rows = self.store.remove_old(now.saturating_sub(self.keep)).await?;
        if removed > 0 || rows > 0 {
            tracing::info!(runs = removed, rows, "removed what is past its retention");
        }
        self.blobs.expire(now).await?;
        Ok(())
    }

    /// The rows go last: until then a sweep that was cut off is repeated.
    async fn remove(&self, run: &ExpiredRun) -> anyhow::Result<()> {
        self.logs.remove(&run.id).await?;
        // The bytes of an artifact belong to it alone: without its row nobody would find them.
        loop {
            let artifacts = self.store.artifacts(&run.id).await?;
            if artifacts.is_empty() {
                break;
            }
            for artifact in artifacts {
                self.blobs.delete(&artifact.sha256, &actions_api::artifact_owner(artifact.id)).await?;
                self.store.commit(vec![Change::Kept(Kept::ArtifactGone { id: artifact.id })]).await?;
            }
        }
        loop {
            let owned = self.store.blobs_of(&run.id, BLOBS).await?;
            for blob in &owned {
                self.blobs.delete(&blob.sha256, &blob.owner).await?;
            }
            if owned.len() < BLOBS as usize {
                break;
            }
        }
        self.store.remove_run(&run.id).await?;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_left_of_a_run_whose_time_is_over() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).await.unwrap();
        let logs = Logs::new(folder.path().join("logs"));
        let blobs = Blobs::open_alone(&folder.path().join("blobs"), store.clone()).unwrap();
        let retention = Retention { store: store.clone(), logs, blobs: blobs.clone(), keep: 1000 };
        let log = folder.path().join("logs/r/a");
        std::fs::create_dir_all(&log).unwrap();
        let id = |id: &str, at| store::Change::Seen { id: id.into(), at };
        store.commit(vec![id("old", 10), id("new", 5000)]).await.unwrap();
        retention
            .remove(&ExpiredRun { id: "r".into(), repository: String::new(), commit: String::new() })
            .await
            .unwrap();
        assert!(!log.exists());
        retention.sweep(5000).await.unwrap();
        assert!(!store.seen("old").await.unwrap() && store.seen("new").await.unwrap());
    }
}
