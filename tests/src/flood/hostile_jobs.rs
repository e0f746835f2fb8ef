//! Jobs that mean harm, one of each kind: their workflows, and how they have to end.

use std::{fs::File, process::Command};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::harness::{engine::IMAGE, world::World};

/// A hostile job.
pub(super) struct HostileJob {
    /// What it does.
    pub(super) name: &'static str,
    /// Its workflow in the repository.
    pub(super) path: &'static str,
    text: &'static str,
    /// The reason of its end, or a part of it, as the result's event says it. Empty: it succeeds.
    pub(super) reason: &'static str,
    /// What its page has to say besides.
    pub(super) said: &'static str,
}

macro_rules! hostile {
    ($name:literal, $file:literal, $reason:literal, $said:literal) => {
        HostileJob {
            name: $name,
            path: concat!(".github/workflows/", $file, ".yml"),
            text: include_str!(concat!("../../fixtures/hostile/", $file, ".yml")),
            reason: $reason,
            said: $said,
        }
    };
}

/// All kinds.
pub(super) const HOSTILE_JOBS: [HostileJob; 14] = [
    hostile!(
        "reports that are too large",
        "reports",
        "the log limit was reached",
        "further annotations of this job are left out"
    ),
    hostile!("masks, many and large", "masks", "a step failed", "a job may mask 4096 values"),
    hostile!("problem matchers, dear ones", "matchers", "the log limit was reached", "not supported"),
    hostile!("disk: below a path too long", "deep", "the disk limit was reached", ""),
    hostile!("disk: files without a name", "unlinked", "the disk limit was reached", ""),
    hostile!("disk: a volume of its image", "volume", "the disk limit was reached", ""),
    hostile!("checkout: few objects, 4 GiB", "checkout", "a step failed", "that a job may use"),
    hostile!("artifact: a file that is a hole", "artifact", "a step failed", "of disk"),
    hostile!("Dockerfile: COPY, sixty times", "copy", "a step failed", "one instruction may copy 128 MiB"),
    hostile!("zips: a directory, zeros", "zip", "the disk limit was reached", "directory has more than"),
    hostile!("fork bomb", "fork", "a step failed", ""),
    hostile!("fork bomb, --pids-limit 0", "processes", "--pids-limit needs a number above 0", ""),
    hostile!("log without end", "log", "the log limit was reached", ""),
    hostile!("loops in steps and in actions", "busy", "the time limit was reached", ""),
];

/// What stands for the image in a workflow whose image declares a volume.
const VOLUME_IMAGE: &str = "VOLUME_IMAGE";
/// Files of the commit that is checked out, which have one content, of so many bytes.
const FILES: usize = 64;
const FILE: u64 = 64 << 20;

/// Their workflows, with the image that declares a volume.
pub(super) fn workflows(image: &VolumeImage) -> Vec<(&'static str, String)> {
    HOSTILE_JOBS.iter().map(|job| (job.path, job.text.replace(VOLUME_IMAGE, &image.0))).collect()
}

/// Adds a branch `many` to a world, with the files of a few objects, and publishes it.
pub(super) async fn push_many_files(world: &World) -> Result<()> {
    let (repository, folder) = (&world.repository, TempDir::new()?);
    let file = folder.path().join("zeros");
    File::create(&file)?.set_len(FILE)?;
    let blob = repository.git(&["hash-object", "-w", "--", &file.to_string_lossy()])?;
    let entries: Vec<String> = (0..FILES).map(|number| format!("100644,{blob},f{number}")).collect();
    let add = entries.iter().flat_map(|entry| ["--cacheinfo", entry]);
    repository.git(&["update-index", "--add"].into_iter().chain(add).collect::<Vec<_>>())?;
    let tree = repository.git(&["write-tree"])?;
    let main = repository.git(&["rev-parse", "HEAD"])?;
    let many = repository.git(&["commit-tree", "-p", &main, "-m", "many", &tree])?;
    repository.git(&["branch", "many", &many])?;
    repository.git(&["read-tree", "HEAD"])?;
    repository.publish(&world.git.folder, "repo.git")?;
    world.state(&[("refs/heads/main", &main), ("refs/heads/many", &many)]).await?;
    Ok(())
}

/// An image of the engine that declares a volume; it is removed when dropped.
pub(super) struct VolumeImage(pub(super) String);

impl VolumeImage {
    pub(super) fn build() -> Result<Self> {
        let image = Self(format!("localhost/longshore-flood-volume:{:016x}", rand::random::<u64>()));
        let script = format!(
            "id=$(docker create --network none {IMAGE} true) && docker commit --change 'VOLUME /data' $id {} && docker rm $id",
            image.0
        );
        let output = Command::new("sh").args(["-ec", &script]).output().context("docker must be installed")?;
        ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(image)
    }
}

impl Drop for VolumeImage {
    fn drop(&mut self) {
        let _ = Command::new("docker").args(["rmi", "-f", &self.0]).output();
    }
}
