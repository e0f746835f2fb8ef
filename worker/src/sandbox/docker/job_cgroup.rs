//! One control group around all containers of a job: they share its memory, its CPUs and its processes, however many
//! there are.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use bollard::models::{SystemInfo, SystemInfoCgroupDriverEnum};
use tokio::time::sleep;

use super::{ResourceLimits, hardening::CPU_WEIGHT};

const ROOT: &str = "/sys/fs/cgroup";
/// Folder of all jobs' groups.
const FOLDER: &str = "longshore";
/// Tries to remove a group whose last processes are ending, and the pause between two.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(50);
/// After so long a group that is empty is nobody's: a job's container is made right after it.
const LEFT_AGE: Duration = Duration::from_secs(600);
/// Microseconds in which a quota of CPU time is counted, the kernel's default.
const PERIOD: u64 = 100_000;

/// Makes groups where the engine keeps its own.
pub(super) struct JobCgroups {
    root: PathBuf,
    unified: bool,
    limits: ResourceLimits,
}

/// A group of a job.
pub(super) struct JobCgroup {
    groups: Arc<JobCgroups>,
    name: String,
}

impl JobCgroups {
    /// `None`: the engine's groups are not this process's to write, or systemd's.
    pub(super) fn open(info: &SystemInfo, is_here: bool, limits: ResourceLimits) -> Option<Arc<Self>> {
        if !is_here || info.cgroup_driver != Some(SystemInfoCgroupDriverEnum::CGROUPFS) {
            return None;
        }
        let unified = Path::new(ROOT).join("cgroup.controllers").is_file();
        let groups = Arc::new(Self { root: ROOT.into(), unified, limits });
        // Tried once, as every job will.
        let tried = groups.make(&format!("probe-{}", hex::encode(rand::random::<[u8; 8]>())));
        tried.ok().map(|group| {
            group.try_remove();
            groups
        })
    }

    /// A group for a job.
    pub(super) fn make(self: &Arc<Self>, nonce: &str) -> io::Result<JobCgroup> {
        let group = JobCgroup { groups: Arc::clone(self), name: nonce.to_owned() };
        if self.unified {
            self.make_unified(nonce)?;
        } else {
            self.make_split(nonce)?;
        }
        Ok(group)
    }

    /// Removes groups that a busy machine, or the end of a process, kept from being removed with their jobs. The group of a
    /// job that lives has those of its containers in it, and stays.
    pub(super) fn sweep(self: &Arc<Self>) {
        let hierarchy = if self.unified { self.root.clone() } else { self.root.join("memory") };
        for entry in fs::read_dir(hierarchy.join(FOLDER)).into_iter().flatten().filter_map(Result::ok) {
            let Ok(data) = entry.metadata() else { continue };
            let is_old = data.modified().is_ok_and(|made| made.elapsed().is_ok_and(|age| age > LEFT_AGE));
            if let (true, true, Ok(name)) = (data.is_dir(), is_old, entry.file_name().into_string()) {
                JobCgroup { groups: Arc::clone(self), name }.try_remove();
            }
        }
    }

    fn make_unified(&self, nonce: &str) -> io::Result<()> {
        let folder = self.root.join(FOLDER);
        fs::create_dir_all(&folder)?;
        for above in [&self.root, &folder] {
            fs::write(above.join("cgroup.subtree_control"), "+memory +cpu +pids")?;
        }
        let group = folder.join(nonce);
        fs::create_dir(&group)?;
        fs::write(group.join("memory.max"), self.limits.memory.to_string())?;
        // A kernel without swap accounting has no such file.
        let _ = fs::write(group.join("memory.swap.max"), "0");
        fs::write(group.join("pids.max"), self.limits.processes.to_string())?;
        if let Some(quota) = self.quota() {
            fs::write(group.join("cpu.max"), format!("{quota} {PERIOD}"))?;
        }
        // 100 is to this file what 1024 is to shares.
        fs::write(group.join("cpu.weight"), (CPU_WEIGHT * 100 / 1024).to_string())
    }

    fn make_split(&self, nonce: &str) -> io::Result<()> {
        let group = |controller: &str| {
            let group = self.root.join(controller).join(FOLDER).join(nonce);
            fs::create_dir_all(&group).map(|()| group)
        };
        let memory = group("memory")?;
        fs::write(memory.join("memory.limit_in_bytes"), self.limits.memory.to_string())?;
        let _ = fs::write(memory.join("memory.memsw.limit_in_bytes"), self.limits.memory.to_string());
        fs::write(group("pids")?.join("pids.max"), self.limits.processes.to_string())?;
        let cpu = group("cpu")?;
        if let Some(quota) = self.quota() {
            fs::write(cpu.join("cpu.cfs_quota_us"), quota.to_string())?;
        }
        fs::write(cpu.join("cpu.shares"), CPU_WEIGHT.to_string())
    }

    fn quota(&self) -> Option<u64> {
        (self.limits.cpu_millis > 0).then(|| self.limits.cpu_millis.saturating_mul(PERIOD) / 1000)
    }

    /// Folders of a group: the engine makes it in every hierarchy that there is.
    fn folders(&self, name: &str) -> Vec<PathBuf> {
        let below = |root: PathBuf| root.join(FOLDER).join(name);
        if self.unified {
            return vec![below(self.root.clone())];
        }
        let hierarchies = fs::read_dir(&self.root).into_iter().flatten().filter_map(Result::ok);
        hierarchies.map(|hierarchy| below(hierarchy.path())).filter(|folder| folder.is_dir()).collect()
    }
}

impl JobCgroup {
    /// As the engine takes it for a container's parent.
    pub(super) fn parent(&self) -> String {
        format!("/{FOLDER}/{}", self.name)
    }

    /// Removes it, once the engine's groups in it are gone.
    pub(super) async fn remove(self) {
        for _ in 0..TRIES {
            if self.try_remove() {
                return;
            }
            sleep(PAUSE).await;
        }
        tracing::debug!(group = self.parent(), "an empty control group is left");
    }

    fn try_remove(&self) -> bool {
        let removed = |folder: &PathBuf| match fs::remove_dir(folder) {
            Ok(()) => true,
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        self.groups.folders(&self.name).iter().map(removed).fold(true, |all, one| all & one)
    }
}
