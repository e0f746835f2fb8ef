//! How much disk the containers of one job use, and when it is too much: their writable layers and volumes, counted where
//! the engine keeps them.
//!
//! A volume that is a file system of its own has its bound from that, and says itself what is used of it. All else is
//! counted, as are open files that have no name any more. An engine on another machine keeps them elsewhere; then
//! nothing is known.

use std::{collections::HashMap, path::PathBuf, time::Duration};

use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder, ListVolumesOptionsBuilder};
use tokio::time::{Instant, sleep};

use super::{
    SandboxError,
    disk_usage::{self, Occupancy},
    engine::{Engine, NONCE},
};
use crate::sandbox::DiskBreach;

/// Between two counts, at least.
const PAUSE: Duration = Duration::from_secs(3);
/// Counting takes at most one part in so many of the time.
const SHARE: u32 = 10;
/// Between two looks at what is free: a disk takes gigabytes in a second.
const FREE_PAUSE: Duration = Duration::from_millis(250);
/// A job that uses less gives nothing back that would help.
const WORTH_ENDING: u64 = 64 << 20;

/// What the volumes and layers of one job take.
#[derive(Debug, Clone, Default)]
struct JobFolders {
    layers: Vec<(PathBuf, Option<i64>)>,
    volumes: Vec<PathBuf>,
}

/// Waits until a job must end for the disk it uses. `limit`: bytes, 0 for none. `min_free`: bytes that stay free on the
/// engine's disk, 0 for none.
pub(super) async fn watch(engine: &Engine, nonce: &str, limit: u64, min_free: u64) -> DiskBreach {
    let mut next = Instant::now();
    loop {
        if let Some(free) = low_space(engine, min_free).await
            && let Ok(Some(used)) = used_by_the_largest(engine, nonce).await
        {
            return DiskBreach::LowSpace { free, min_free, used };
        }
        if limit > 0 && next <= Instant::now() {
            let began = Instant::now();
            // An engine that does not answer now may do so the next time.
            match used(engine, nonce).await {
                Ok(Some(Occupancy { full: true, .. })) => return DiskBreach::Limit { limit },
                Ok(Some(Occupancy { bytes, .. })) if bytes > limit => return DiskBreach::Limit { limit },
                Ok(_) | Err(_) => {}
            }
            next = Instant::now() + PAUSE.max(began.elapsed() * SHARE);
        }
        sleep(FREE_PAUSE).await;
    }
}

/// What is free, where it is less than it should be.
async fn low_space(engine: &Engine, min_free: u64) -> Option<u64> {
    let root = engine.root.clone().filter(|_| min_free > 0)?;
    let free = tokio::task::spawn_blocking(move || disk_usage::free_bytes(&root)).await.ok()??;
    (free < min_free).then_some(free)
}

/// Bytes used by all that carries the nonce.
async fn used(engine: &Engine, nonce: &str) -> Result<Option<Occupancy>, SandboxError> {
    let folders = folders(engine, engine.of(nonce)).await?.remove(nonce).unwrap_or_default();
    tokio::task::spawn_blocking(move || count(&folders)).await.map_err(|error| SandboxError::Lost(error.to_string()))
}

/// Bytes used by the job of a nonce, where no other on the engine uses more, of whichever worker it is.
async fn used_by_the_largest(engine: &Engine, nonce: &str) -> Result<Option<u64>, SandboxError> {
    let jobs = folders(engine, HashMap::from([("label".to_owned(), vec![NONCE.to_owned()])])).await?;
    let counting = tokio::task::spawn_blocking(move || {
        let counted = jobs.into_iter().map(|(nonce, folders)| (count(&folders).map_or(0, |found| found.bytes), nonce));
        counted.max()
    });
    let largest = counting.await.map_err(|error| SandboxError::Lost(error.to_string()))?;
    Ok(largest.filter(|(used, largest)| largest == nonce && *used >= WORTH_ENDING).map(|(used, _)| used))
}

/// Where the jobs that a filter finds keep what they write, by nonce.
async fn folders(
    engine: &Engine,
    filter: HashMap<String, Vec<String>>,
) -> Result<HashMap<String, JobFolders>, SandboxError> {
    let failed = |error| engine.error("look at a job's disk", error);
    let mut jobs: HashMap<String, JobFolders> = HashMap::new();
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filter).build();
    for container in engine.api.list_containers(Some(options)).await.map_err(failed)? {
        let (Some(id), Some(nonce)) = (container.id, container.labels.and_then(|mut labels| labels.remove(NONCE)))
        else {
            continue;
        };
        // It may have ended since.
        let Ok(data) = engine.api.inspect_container(&id, None::<InspectContainerOptions>).await else { continue };
        let first = data.state.and_then(|state| state.pid).filter(|pid| *pid > 0);
        let layer = data.graph_driver.and_then(|driver| driver.data.get("UpperDir").map(PathBuf::from));
        jobs.entry(nonce).or_default().layers.extend(layer.map(|layer| (layer, first)));
    }
    let options = ListVolumesOptionsBuilder::new().filters(&filter).build();
    let volumes = engine.api.list_volumes(Some(options)).await.map_err(failed)?.volumes.unwrap_or_default();
    for mut volume in volumes {
        let Some(nonce) = volume.labels.remove(NONCE) else { continue };
        jobs.entry(nonce).or_default().volumes.push(PathBuf::from(volume.mountpoint));
    }
    Ok(jobs)
}

/// `None`: nothing of it can be seen here.
fn count(job: &JobFolders) -> Option<Occupancy> {
    let mut sum = Occupancy { bytes: 0, full: false };
    let mut seen = false;
    for volume in job.volumes.iter().filter(|volume| volume.is_dir()) {
        seen = true;
        let found = disk_usage::of_mount(volume)
            .unwrap_or_else(|| Occupancy { bytes: disk_usage::of_tree(volume), full: false });
        sum.bytes = sum.bytes.saturating_add(found.bytes);
        sum.full |= found.full;
    }
    // Volumes that are no file systems of their own lie beside each other.
    let beside = job.volumes.iter().find(|volume| disk_usage::of_mount(volume).is_none()).map(PathBuf::as_path);
    for (layer, first) in job.layers.iter().filter(|(layer, _)| layer.is_dir()) {
        seen = true;
        sum.bytes = sum.bytes.saturating_add(disk_usage::of_tree(layer));
        sum.bytes = sum.bytes.saturating_add(first.map_or(0, |first| disk_usage::of_unlinked(first, beside)));
    }
    seen.then_some(sum)
}
