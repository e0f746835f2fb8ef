//! Removes what is past its retention, as work of the store: runs with their rows, logs and blobs, what belongs to no run,
//! and the oldest of what takes more room than it may.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::Context as _;
use futures::{FutureExt as _, future::BoxFuture};
use serde::Deserialize;

use super::disk_usage::DiskUsage;
use actions_api::ActionsApi;
use blobs::Blobs;
use domain::id::{BlobHash, RunId};
use domain::run::Millis;
use logs::Logs;
use nostr_client::policy::Policy;
use source::RepositoryMirrors;
use store::{ArtifactChange, ClaimedWork, ExpiredRun, NewWork, Store, WorkKind};
use work::{BackOff, Outcome, WorkHandler};
use workflow::time::DAY_MS;

/// Runs of one look at the store.
const RUNS: u32 = 100;
/// Blobs of one run that are looked at together.
const BLOBS: u32 = 1000;
/// Time between the end of a part and its next turn (ms): what comes meanwhile goes beyond every limit.
const PAUSE: Millis = 600_000;
/// How long nobody may run for a repository before its secrets and variables are erased (ms): a mistake in a configuration
/// is mended until then.
const UNSERVED: Millis = DAY_MS;
/// How long it is known that a name was removed (ms).
const REMOVED: Millis = 7 * DAY_MS;
/// Waits after a failure.
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(60), longest: Duration::from_secs(3600) };

/// What retention works with.
pub(super) struct Config {
    pub(super) store: Store,
    pub(super) logs: Logs,
    pub(super) blobs: Blobs,
    pub(super) actions_api: ActionsApi,
    pub(super) sources: Arc<RepositoryMirrors>,
    pub(super) policy: Policy,
    /// How much room may be taken.
    pub(super) limits: config::Retention,
    /// Milliseconds that a run is kept.
    pub(super) keep: Millis,
    pub(super) clock: fn() -> Millis,
}

/// The handler of [`WorkKind::Retain`].
pub(super) struct Retention(Config);

/// The log of a run in the data folder, or its complete text as it was published.
struct KeptLog {
    bytes: u64,
    at: SystemTime,
    run: RunId,
    published: Option<BlobHash>,
}

/// What one row of work is for. The rows are there from the start, and each is done again after a pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Part {
    Runs,
    Logs,
    Caches,
    Mirrors,
}

impl Config {
    /// The handler.
    pub(super) fn build(self) -> Retention {
        Retention(self)
    }
}

impl Retention {
    async fn perform(&self, row: ClaimedWork) -> anyhow::Result<Outcome> {
        let now = (self.0.clock)();
        match row.read_payload()? {
            Part::Runs => self.expire_runs(now).await?,
            Part::Logs => self.limit_logs().await?,
            Part::Caches => self.0.actions_api.expire(now, &self.0.limits).await?,
            Part::Mirrors => self.keep_mirrors_small().await?,
        }
        let due = (self.0.clock)().saturating_add(PAUSE);
        let again = NewWork { lane: row.lane, payload: row.payload, ..NewWork::new(row.id, row.kind, None, now) };
        Ok(Outcome::Store(vec![again.due_at(due).into()]))
    }

    /// Removes everything whose time is over. What fails is left for the next turn.
    async fn expire_runs(&self, now: Millis) -> anyhow::Result<()> {
        let Config { store, blobs, keep, .. } = &self.0;
        let mut removed = 0;
        loop {
            let expired = store.runs_expired(now, RUNS).await?;
            let before = removed;
            for run in &expired {
                // One that can't be removed now keeps no other.
                match self.remove(run).await {
                    Ok(()) => removed += 1,
                    Err(error) => tracing::warn!(run = run.id.as_str(), "an expired run is not removed yet: {error:#}"),
                }
            }
            if expired.len() < RUNS as usize || removed == before {
                break;
            }
        }
        let rows = store.remove_old(now.saturating_sub(*keep)).await?;
        if removed > 0 || rows > 0 {
            tracing::info!(runs = removed, rows, "removed what is past its retention");
        }
        self.forget_values(now).await?;
        Ok(blobs.expire(now).await?)
    }

    /// Forgets secrets and variables of repositories for which nobody may run here any more, and that names were removed
    /// so long ago that no order of that time is taken in.
    async fn forget_values(&self, now: Millis) -> anyhow::Result<()> {
        let Config { store, policy, .. } = &self.0;
        for (repository, authors) in store.repositories_with_values().await? {
            let served = policy.serves(&repository, &authors);
            let forgotten = store.note_served(&repository, served, now, UNSERVED).await?;
            if forgotten > 0 {
                tracing::warn!(repository, forgotten, "nobody may run for it any more: its stored values are erased");
            }
        }
        store.forget_removed_values(now.saturating_sub(REMOVED)).await?;
        Ok(())
    }

    /// The rows go last: until then a removal that was cut off is repeated.
    async fn remove(&self, run: &ExpiredRun) -> anyhow::Result<()> {
        let Config { store, logs, blobs, sources, .. } = &self.0;
        logs.remove(&run.id).await?;
        // The bytes of an artifact belong to it alone: without its row nobody would find them.
        loop {
            let artifacts = store.artifacts(&run.id).await?;
            if artifacts.is_empty() {
                break;
            }
            for artifact in artifacts {
                blobs.delete(&artifact.sha256, &actions_api::artifact_owner(artifact.id)).await?;
                store.commit(vec![ArtifactChange::Remove { id: artifact.id }.into()]).await?;
            }
        }
        loop {
            let owned = store.blobs_of(run.id.as_str(), BLOBS).await?;
            for blob in &owned {
                blobs.delete(&blob.sha256, &blob.owner).await?;
            }
            if owned.len() < BLOBS as usize {
                break;
            }
        }
        if !run.commit.is_empty() && !run.repository.is_empty() {
            let forgotten = sources
                .forget(&run.repository, &run.commit, store.commit_is_used(&run.repository, &run.commit, &run.id))
                .await;
            if let Err(error) = forgotten {
                // The limit of all mirrors bounds what stays.
                tracing::warn!(run = run.id.as_str(), "its commit stays in its mirror: {error:#}");
            }
        }
        store.remove_run(&run.id).await?;
        Ok(())
    }

    /// Removes the logs of runs that ended longest ago, and their complete published texts, until all fit.
    async fn limit_logs(&self) -> anyhow::Result<()> {
        let Config { store, logs, blobs, limits, .. } = &self.0;
        let listed = logs.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let folders = listed.folders().into_iter();
            folders.map(|(run, folder)| (DiskUsage::of(&folder), run)).collect::<Vec<_>>()
        });
        let live = measured.await?.into_iter();
        let live = live.map(|(usage, run)| KeptLog { bytes: usage.bytes, at: usage.written_at, run, published: None });
        let published = store.large_blobs_of_runs(logs::act_format::LIMIT as u64).await?.into_iter();
        let published = published.map(|blob| KeptLog {
            bytes: blob.size,
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(blob.stored_at),
            run: blob.owner.as_str().into(),
            published: Some(blob.sha256),
        });
        let mut oldest_first: Vec<KeptLog> = live.chain(published).collect();
        oldest_first.sort_by_key(|log| log.at);
        let mut total: u64 = oldest_first.iter().map(|log| log.bytes).sum();
        // Asked after the look: whatever was there belongs to one of these, or to a run that has ended.
        let unfinished: HashSet<RunId> = store.unfinished().await?.into_iter().map(|run| run.id).collect();
        // A run that has ended has ended after a power failure too.
        store.synced().await?;
        for KeptLog { bytes, run, published, .. } in oldest_first {
            if total <= limits.log_bytes {
                break;
            }
            if !unfinished.contains(&run) {
                match published {
                    None => logs.remove(&run).await?,
                    Some(sha256) => blobs.delete(&sha256, run.as_str()).await?,
                }
                total = total.saturating_sub(bytes);
                tracing::info!(run = run.as_str(), "its log is removed: logs take more than retention.log_bytes");
            }
        }
        Ok(())
    }

    /// Packs mirrors, then removes those that were unused longest, until all fit.
    async fn keep_mirrors_small(&self) -> anyhow::Result<()> {
        let Config { store, sources, limits, .. } = &self.0;
        let listed = sources.clone();
        for mirror in tokio::task::spawn_blocking(move || listed.mirrors()).await? {
            if let Err(error) = sources.pack(&mirror).await {
                tracing::warn!("a mirror is not packed, and tried again another time: {error}");
            }
        }
        let listed = sources.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let mirrors = listed.mirrors().into_iter();
            mirrors.map(|mirror| (DiskUsage::of(&mirror.path).bytes, mirror)).collect::<Vec<_>>()
        });
        let unused_longest_first = measured.await?;
        let mut total: u64 = unused_longest_first.iter().map(|(bytes, _)| bytes).sum();
        let unfinished = store.unfinished().await?.into_iter();
        let needed: HashSet<String> = unfinished.map(|run| RepositoryMirrors::mirror_name(&run.repository)).collect();
        for (bytes, mirror) in unused_longest_first {
            if total <= limits.mirror_bytes {
                break;
            }
            if !needed.contains(&mirror.name) && sources.remove_mirror(&mirror).await? {
                total = total.saturating_sub(bytes);
                tracing::info!(mirror = mirror.name, "removed: mirrors take more than retention.mirror_bytes");
            }
        }
        Ok(())
    }
}

impl WorkHandler for Retention {
    fn kind(&self) -> WorkKind {
        WorkKind::Retain
    }

    /// Every part at once: packing mirrors may take long.
    fn parallelism(&self) -> u32 {
        4
    }

    fn back_off(&self) -> BackOff {
        BACK_OFF
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        async move { self.perform(rows.into_iter().next().context("a claim has a row")?).await }.boxed()
    }
}

#[cfg(test)]
mod tests;
