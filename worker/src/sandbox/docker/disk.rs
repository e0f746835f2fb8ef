//! How much disk the containers of one job use, and when it is too much: their writable layers, volumes and files that the
//! engine gives them, counted where it keeps them.
//!
//! A volume that is a file system of its own has its bound from that, and says itself what is used of it. All else is
//! counted, as are open files that have no name any more. An engine on another machine keeps them elsewhere; then
//! nothing is known.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder, ListVolumesOptionsBuilder};
use tokio::time::{Instant, sleep};

use super::{
    SandboxError,
    engine::{Engine, NONCE},
};
use crate::{
    disk_usage::{self, Occupancy},
    sandbox::DiskBreach,
};

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
    /// `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of its containers, which stand beside their layers.
    files: Vec<PathBuf>,
}

/// What a job uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Usage {
    bytes: u64,
    /// Nothing more goes into one of its volumes.
    full: bool,
    /// As of [`disk_usage::Unlinked`].
    hides: bool,
}

/// How the disk was when a job began.
#[derive(Debug, Clone, Copy)]
struct Beginning {
    free: u64,
    /// As of [`Engine::image_bytes`].
    images: u64,
}

/// Waits until a job must end for the disk it uses. `limit`: bytes, 0 for none. `min_free`: bytes that stay free on the
/// engine's disk, 0 for none. `made`: bytes of images that the job made.
pub(super) async fn watch(engine: &Engine, nonce: &str, limit: u64, min_free: u64, made: &AtomicU64) -> DiskBreach {
    let mut next = Instant::now();
    let beginning = Beginning { free: free(engine).await.unwrap_or(0), images: engine.image_bytes.load(Relaxed) };
    loop {
        if min_free > 0
            && let Some(free) = free(engine).await
            && free < min_free
        {
            let began = Instant::now();
            if let Ok(Some(used)) = used_by_the_cause(engine, nonce, beginning, free).await {
                return DiskBreach::LowSpace { free, min_free, used };
            }
            // It may be low for long, and nobody's fault.
            sleep(began.elapsed()).await;
        }
        if limit > 0 && next <= Instant::now() {
            let began = Instant::now();
            // An engine that does not answer now may do so the next time.
            match used(engine, nonce).await {
                Ok(Some(Usage { full: true, .. })) => return DiskBreach::Limit { limit },
                Ok(Some(Usage { bytes, .. })) if bytes.saturating_add(made.load(Relaxed)) > limit => {
                    return DiskBreach::Limit { limit };
                }
                Ok(_) | Err(_) => {}
            }
            next = Instant::now() + PAUSE.max(began.elapsed() * SHARE);
        }
        sleep(FREE_PAUSE).await;
    }
}

/// Bytes that are free on the engine's disk, where that can be seen.
async fn free(engine: &Engine) -> Option<u64> {
    let root = engine.root.clone()?;
    tokio::task::spawn_blocking(move || disk_usage::free_bytes(&root)).await.ok()?
}

/// Bytes used by all that carries the nonce.
async fn used(engine: &Engine, nonce: &str) -> Result<Option<Usage>, SandboxError> {
    let folders = folders(engine, engine.of(nonce)).await?.remove(nonce).unwrap_or_default();
    tokio::task::spawn_blocking(move || count(&folders)).await.map_err(|error| SandboxError::Lost(error.to_string()))
}

/// Bytes used by the job of a nonce, where it is the cause that the disk is full.
async fn used_by_the_cause(
    engine: &Engine,
    nonce: &str,
    beginning: Beginning,
    free: u64,
) -> Result<Option<u64>, SandboxError> {
    let jobs = folders(engine, HashMap::from([("label".to_owned(), vec![NONCE.to_owned()])])).await?;
    let counting = tokio::task::spawn_blocking(move || {
        jobs.into_iter().map(|(nonce, folders)| (count(&folders).unwrap_or_default(), nonce)).collect::<Vec<_>>()
    });
    let jobs = counting.await.map_err(|error| SandboxError::Lost(error.to_string()))?;
    let images = engine.image_bytes.load(Relaxed).saturating_sub(beginning.images);
    Ok(cause(&jobs, nonce, beginning.free.saturating_sub(free).saturating_sub(images)))
}

/// Bytes used by a job that is to end. `gone`: what became less on the disk since it began. `jobs`: all on the engine, of
/// whichever worker they are.
///
/// That is the largest, unless more is gone than all of them have together: then somebody has it where nobody can look, and
/// who uses the most of what is seen has nothing to do with it.
fn cause(jobs: &[(Usage, String)], nonce: &str, gone: u64) -> Option<u64> {
    let sum = jobs.iter().fold(0_u64, |sum, (usage, _)| sum.saturating_add(usage.bytes));
    let unseen = gone.saturating_sub(sum);
    let (mine, _) = jobs.iter().find(|(_, of)| of == nonce)?;
    if unseen > mine.bytes {
        return Some(unseen).filter(|unseen| mine.hides && *unseen >= WORTH_ENDING);
    }
    let largest = jobs.iter().max_by_key(|(usage, of)| (usage.bytes, of))?;
    Some(mine.bytes).filter(|bytes| largest.1 == nonce && *bytes >= WORTH_ENDING)
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
        let files = [data.hosts_path, data.hostname_path, data.resolv_conf_path];
        let job = jobs.entry(nonce).or_default();
        job.layers.extend(layer.map(|layer| (layer, first)));
        job.files.extend(files.into_iter().flatten().filter(|path| !path.is_empty()).map(PathBuf::from));
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
fn count(job: &JobFolders) -> Option<Usage> {
    let mut sum = Usage::default();
    let mut seen = false;
    let mut add = |bytes: u64| sum.bytes = sum.bytes.saturating_add(bytes);
    for volume in job.volumes.iter().filter(|volume| volume.is_dir()) {
        seen = true;
        let found = disk_usage::of_mount(volume)
            .unwrap_or_else(|| Occupancy { bytes: disk_usage::of_tree(volume), full: false });
        add(found.bytes);
        sum.full |= found.full;
    }
    // Volumes that are no file systems of their own lie beside each other.
    let beside = job.volumes.iter().find(|volume| disk_usage::of_mount(volume).is_none()).map(PathBuf::as_path);
    for (layer, first) in job.layers.iter().filter(|(layer, _)| layer.is_dir()) {
        seen = true;
        let unlinked = first.map(|first| disk_usage::of_unlinked(first, beside)).unwrap_or_default();
        add(disk_usage::of_tree(layer).saturating_add(unlinked.bytes));
        sum.hides |= unlinked.hides;
    }
    job.files.iter().for_each(|file| add(disk_usage::of_file(file)));
    seen.then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn jobs(usages: &[(&str, u64, bool)]) -> Vec<(Usage, String)> {
        let usage =
            |&(name, mib, hides): &(&str, u64, bool)| (Usage { bytes: mib * MIB, full: false, hides }, name.to_owned());
        usages.iter().map(usage).collect()
    }

    #[test]
    fn attack_36_no_job_ends_for_bytes_of_the_disk_that_are_not_its_own() {
        let all = jobs(&[("small", 100, false), ("large", 300, false)]);
        let ended = |jobs: &[(Usage, String)], nonce, gone| cause(jobs, nonce, gone * MIB).map(|bytes| bytes / MIB);
        // As far as what is gone is seen, the largest goes.
        assert_eq!((ended(&all, "small", 400), ended(&all, "large", 400)), (None, Some(300)));
        assert_eq!((ended(&all, "small", 0), ended(&all, "large", 690)), (None, Some(300)));
        // Somebody who is not seen has more than it.
        assert_eq!((ended(&all, "small", 1000), ended(&all, "large", 1000)), (None, None));
        let all = jobs(&[("hiding", 1, true), ("large", 300, false)]);
        assert_eq!((ended(&all, "hiding", 900), ended(&all, "large", 900)), (Some(599), None));
        // What may hide something does not have to.
        assert_eq!((ended(&all, "hiding", 301), ended(&all, "large", 301)), (None, Some(300)));
        assert_eq!(ended(&all, "hiding", 320), None);
        assert_eq!(ended(&jobs(&[("only", 60, false)]), "only", 60), None, "it would not help");
        assert_eq!(ended(&all, "gone", 900), None);
    }
}
