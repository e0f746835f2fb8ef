//! Control groups around the processes of jobs: version 1, hybrid or 2, whichever can be written.
//!
//! Kernel documentation: `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1`.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tracing::{debug, warn};

/// What a job's process, with all that it starts, may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupLimits {
    /// Bytes of memory.
    pub(super) memory: u64,
    /// Processes and threads.
    pub(super) processes: u64,
    /// Processors, as a share of time.
    pub(super) processors: u64,
}

/// The microseconds over which processor time is counted.
const PERIOD: u64 = 100_000;

/// Where groups of this worker are made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cgroups {
    /// One folder for each group.
    V2(PathBuf),
    /// A folder for each controller: its name, and where groups are made.
    V1(Vec<(&'static str, PathBuf)>),
    /// None can be written, and why.
    None(String),
}

/// The controllers that limit a job's process.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

impl Cgroups {
    /// Finds where this process may make groups, and removes what an earlier life of the worker left there. `worker` tells
    /// workers of one machine apart.
    pub(super) fn find(worker: &str) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let (mounts, own) = (read("/proc/self/mounts"), read("/proc/self/cgroup"));
        let found = [Self::v2(&mounts, &own), Self::v1(&mounts, &own)];
        let mut reasons = Vec::new();
        for candidate in found.into_iter().flatten() {
            match candidate.prepare(worker) {
                Ok(cgroups) => return cgroups,
                Err(error) => reasons.push(error.to_string()),
            }
        }
        Self::None(if reasons.is_empty() { "none is mounted".to_owned() } else { reasons.join("; ") })
    }

    /// The own group, where version 2 has the controllers.
    fn v2(mounts: &str, own: &str) -> Option<Self> {
        let mount = mounted(mounts, |kind, _| kind == "cgroup2")?;
        let folder = own_folder(&mount, own.lines().find_map(|line| line.strip_prefix("0::"))?);
        let there = fs::read_to_string(folder.join("cgroup.controllers")).unwrap_or_default();
        there.split_whitespace().any(|name| name == "memory").then_some(Self::V2(folder))
    }

    fn v1(mounts: &str, own: &str) -> Option<Self> {
        let mut folders = Vec::new();
        for controller in CONTROLLERS {
            let is_it = |options: &str| options.split(',').any(|option| option == controller);
            let Some(mount) = mounted(mounts, |kind, options| kind == "cgroup" && is_it(options)) else { continue };
            let path = own.lines().find_map(|line| {
                let (_, rest) = line.split_once(':')?;
                let (names, path) = rest.split_once(':')?;
                is_it(names).then_some(path)
            });
            folders.push((controller, own_folder(&mount, path.unwrap_or("/"))));
        }
        folders.iter().any(|(name, _)| *name == "memory").then_some(Self::V1(folders))
    }

    /// Makes the folder of this worker's groups, and empties it.
    fn prepare(self, worker: &str) -> io::Result<Self> {
        let name = format!("longshore-{worker}");
        match self {
            Self::V2(own) => {
                delegate(&own)?;
                let folder = make(&own, &name)?;
                enable(&folder)?;
                empty(&folder);
                Ok(Self::V2(folder))
            }
            Self::V1(folders) => {
                let mut made = Vec::new();
                for (controller, own) in folders {
                    match make(&own, &name) {
                        Ok(folder) => {
                            empty(&folder);
                            made.push((controller, folder));
                        }
                        Err(error) if controller == "memory" => return Err(error),
                        Err(error) => debug!(controller, %error, "no group of this controller"),
                    }
                }
                Ok(Self::V1(made))
            }
            none @ Self::None(_) => Ok(none),
        }
    }

    /// Encloses a process that has not started anything yet.
    pub(super) fn enclose(&self, name: &str, process: u32, limits: GroupLimits) -> io::Result<Group> {
        let quota = limits.processors * PERIOD;
        let mut group = Group { folders: Vec::new() };
        match self {
            Self::None(_) => {}
            Self::V2(parent) => {
                let folder = make(parent, name)?;
                group.folders.push(folder.clone());
                write(&folder, "memory.max", limits.memory.to_string())?;
                // A part of it that is killed would leave a job that nobody understands.
                let _ = write(&folder, "memory.oom.group", "1");
                let _ = write(&folder, "memory.swap.max", "0");
                for (file, value) in
                    [("pids.max", limits.processes.to_string()), ("cpu.max", format!("{quota} {PERIOD}"))]
                {
                    // Not every machine has every controller.
                    let _ = write(&folder, file, value);
                }
                write(&folder, "cgroup.procs", process.to_string())?;
            }
            Self::V1(parents) => {
                for (controller, parent) in parents {
                    let folder = make(parent, name)?;
                    group.folders.push(folder.clone());
                    match *controller {
                        "memory" => {
                            write(&folder, "memory.limit_in_bytes", limits.memory.to_string())?;
                            // Where swap is counted.
                            let _ = write(&folder, "memory.memsw.limit_in_bytes", limits.memory.to_string());
                        }
                        "pids" => write(&folder, "pids.max", limits.processes.to_string())?,
                        _ => {
                            let _ = write(&folder, "cpu.cfs_period_us", PERIOD.to_string());
                            let _ = write(&folder, "cpu.cfs_quota_us", quota.to_string());
                        }
                    }
                    write(&folder, "cgroup.procs", process.to_string())?;
                }
            }
        }
        Ok(group)
    }

    /// Removes the folder of this worker's groups, which are gone.
    pub(super) fn remove(&self) {
        match self {
            Self::V2(folder) => remove(folder),
            Self::V1(folders) => folders.iter().for_each(|(_, folder)| remove(folder)),
            Self::None(_) => {}
        }
    }

    /// What is limited by it, in words; `None`: nothing.
    pub(super) fn describe(&self) -> Option<String> {
        match self {
            Self::V2(_) => Some("cgroup v2".to_owned()),
            Self::V1(folders) => {
                let names: Vec<_> = folders.iter().map(|(name, _)| *name).collect();
                Some(format!("cgroup v1 ({})", names.join(", ")))
            }
            Self::None(_) => None,
        }
    }
}

/// The groups of one job's process. Dropped, they are removed with all that still runs in them.
#[derive(Debug, Default)]
pub(super) struct Group {
    folders: Vec<PathBuf>,
}

impl Group {
    /// Ends everything in it.
    pub(super) fn kill(&self) {
        self.folders.iter().for_each(|folder| kill(folder));
    }

    /// Whether the kernel ended a process of it for its memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        let files = ["memory.events", "memory.oom_control"];
        let texts = self.folders.iter().flat_map(|folder| files.map(|file| fs::read_to_string(folder.join(file))));
        texts.flatten().any(|text| {
            let counts = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
            counts.into_iter().any(|count| count.trim() != "0")
        })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        for folder in &self.folders {
            remove(folder);
        }
    }
}

/// Where a kind of hierarchy is mounted. Each line: device, folder, type, options.
fn mounted(mounts: &str, is_it: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (folder, kind, options) = (words.next()?, words.next()?, words.next()?);
        is_it(kind, options).then(|| folder.into())
    })
}

/// The folder of a group. In a container its name may be that of the host, where the container sees its own as the root.
fn own_folder(mount: &Path, path: &str) -> PathBuf {
    let folder = mount.join(path.trim_start_matches('/'));
    if folder.is_dir() { folder } else { mount.to_owned() }
}

/// Lets groups be made below the own one: version 2 allows no processes beside them, so this one moves into a group of its
/// own where no other is in the way (a service with `Delegate=yes`).
fn delegate(own: &Path) -> io::Result<()> {
    if enable(own).is_ok() {
        return Ok(());
    }
    let processes = fs::read_to_string(own.join("cgroup.procs"))?;
    let this = std::process::id().to_string();
    if processes.split_whitespace().any(|process| process != this) {
        return Err(io::Error::other(format!("{} has other processes in it", own.display())));
    }
    let folder = make(own, "longshore-worker")?;
    write(&folder, "cgroup.procs", this)?;
    enable(own)
}

/// Lets the groups below one have limits.
fn enable(folder: &Path) -> io::Result<()> {
    let there = fs::read_to_string(folder.join("cgroup.controllers"))?;
    let wanted: Vec<_> = CONTROLLERS
        .iter()
        .filter(|wanted| there.split_whitespace().any(|name| name == **wanted))
        .map(|name| format!("+{name}"))
        .collect();
    write(folder, "cgroup.subtree_control", wanted.join(" "))
}

fn make(parent: &Path, name: &str) -> io::Result<PathBuf> {
    let folder = parent.join(name);
    match fs::create_dir(&folder) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(named(&folder, &error)),
        _ => Ok(folder),
    }
}

fn write(folder: &Path, file: &str, value: impl Into<String>) -> io::Result<()> {
    let path = folder.join(file);
    fs::write(&path, value.into()).map_err(|error| named(&path, &error))
}

fn named(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

/// Removes the groups of an earlier life.
fn empty(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            kill(&entry.path());
            remove(&entry.path());
        }
    }
}

fn kill(folder: &Path) {
    // Since Linux 5.14, version 2 alone; else one by one, as often as new ones come.
    if write(folder, "cgroup.kill", "1").is_ok() {
        return;
    }
    for _ in 0..ROUNDS {
        let processes = fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
        if processes.trim().is_empty() {
            return;
        }
        for process in processes.split_whitespace() {
            let process = process.parse().ok().and_then(rustix::process::Pid::from_raw);
            let _ = process.map(|process| rustix::process::kill_process(process, rustix::process::Signal::KILL));
        }
    }
}

/// How often processes of a group are looked for that were started while others were ended.
const ROUNDS: usize = 8;
/// How often, and how far apart, an empty group is tried to be removed: the kernel needs a moment for what ended in it.
const REMOVALS: (u32, std::time::Duration) = (50, std::time::Duration::from_millis(10));

/// Blocks for half a second at most.
fn remove(folder: &Path) {
    for _ in 0..REMOVALS.0 {
        match fs::remove_dir(folder) {
            Err(error) if error.raw_os_error() == Some(EBUSY) => std::thread::sleep(REMOVALS.1),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return warn!(group = %folder.display(), %error, "a group could not be removed; the next start tries again");
            }
            _ => return,
        }
    }
    debug!(group = %folder.display(), "a group is still in use; the next start removes it");
}

const EBUSY: i32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_groups_of_each_kind_of_machine_are_found() {
        let v1 = "cgroup /cg/memory cgroup rw,relatime,memory 0 0\ncgroup /cg/cpu cgroup rw,cpu,cpuacct 0 0\n\
                  cgroup2 /cg/unified cgroup2 rw 0 0\n";
        let own = "5:cpu,cpuacct:/a\n4:memory:/a/b\n0::/\n";
        let found = Cgroups::v1(v1, own);
        // Folders that are not there stand for a container that sees its own group as the root.
        let expected = vec![("memory", "/cg/memory".into()), ("cpu", "/cg/cpu".into())];
        assert_eq!(found, Some(Cgroups::V1(expected)));
        assert_eq!(Cgroups::v2(v1, own), None, "its controllers are those of version 1");
        assert_eq!(Cgroups::v1("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "0::/\n"), None);
    }
}
