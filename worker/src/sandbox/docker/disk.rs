//! How much disk the containers of one job use: their writable layers and volumes, counted where the engine keeps them.
//!
//! An engine on another machine keeps them elsewhere; then nothing is known.

use std::{
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder, ListVolumesOptionsBuilder};

use super::{SandboxError, engine::Engine};

/// Bytes that an entry counts for beside its blocks: a disk can be filled with nothing but names.
const ENTRY: u64 = 1024;

/// Bytes used by all that carries the nonce.
pub(super) async fn used(engine: &Engine, nonce: &str) -> Result<Option<u64>, SandboxError> {
    let failed = |error| engine.error("look at a job's disk", error);
    let mut folders = Vec::new();
    let options = ListContainersOptionsBuilder::new().all(true).filters(&engine.of(nonce)).build();
    for container in engine.api.list_containers(Some(options)).await.map_err(failed)? {
        let Some(id) = container.id else { continue };
        // It may have ended since.
        let Ok(data) = engine.api.inspect_container(&id, None::<InspectContainerOptions>).await else { continue };
        folders.extend(data.graph_driver.and_then(|driver| driver.data.get("UpperDir").map(PathBuf::from)));
    }
    let options = ListVolumesOptionsBuilder::new().filters(&engine.of(nonce)).build();
    let volumes = engine.api.list_volumes(Some(options)).await.map_err(failed)?.volumes.unwrap_or_default();
    folders.extend(volumes.into_iter().map(|volume| PathBuf::from(volume.mountpoint)));
    let counting = tokio::task::spawn_blocking(move || {
        let counted: Vec<_> = folders.iter().filter(|folder| folder.is_dir()).map(|folder| count(folder)).collect();
        (!counted.is_empty()).then(|| counted.into_iter().fold(0, u64::saturating_add))
    });
    counting.await.map_err(|error| SandboxError::Lost(error.to_string()))
}

/// Never follows a link: the tree is the job's, and changes while it is read.
fn count(folder: &Path) -> u64 {
    let mut sum = 0_u64;
    let mut open = vec![folder.to_owned()];
    while let Some(folder) = open.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok) {
            let Ok(data) = entry.metadata() else { continue };
            sum = sum.saturating_add(data.blocks().saturating_mul(512)).saturating_add(ENTRY);
            if data.is_dir() {
                open.push(entry.path());
            }
        }
    }
    sum
}
