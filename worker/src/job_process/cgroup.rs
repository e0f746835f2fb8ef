//! Control groups around the processes of jobs: version 1, hybrid or 2, whichever can be written.
//!
//! Kernel documentation: `admin-guide/cgroup-v2.rst`, `admin-guide/cgroup-v1`.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use rustix::process::Pid;
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

/// Weight of the processor time of all these groups together, as version 1 counts it: a group without one has 1024, and so
/// has the worker itself, and all containers together. Where processors are short, what jobs do outside of their containers
/// waits for what their neighbours do inside of theirs.
const WEIGHT: u64 = 256;

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
                // Not every machine has the controller. 100 is to this file what 1024 is to shares.
                let _ = write(&folder, "cpu.weight", (WEIGHT * 100 / 1024).to_string());
                empty(&folder);
                Ok(Self::V2(folder))
            }
            Self::V1(folders) => {
                let mut made = Vec::new();
                for (controller, own) in folders {
                    match make(&own, &name) {
                        Ok(folder) => {
                            if controller == "cpu" {
                                let _ = write(&folder, "cpu.shares", WEIGHT.to_string());
                            }
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

    /// Makes a group.
    fn group(&self, name: &str, limits: GroupLimits) -> io::Result<Folders> {
        let quota = limits.processors * PERIOD;
        let mut made = Folders::default();
        match self {
            Self::None(_) => {}
            Self::V2(parent) => {
                let folder = make(parent, name)?;
                made.0.push(folder.clone());
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
            }
            Self::V1(parents) => {
                for (controller, parent) in parents {
                    let folder = make(parent, name)?;
                    made.0.push(folder.clone());
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
                }
            }
        }
        Ok(made)
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

/// The groups of jobs' processes. One that is empty again is used again: to make and to remove one costs the kernel more than
/// a small job costs altogether.
#[derive(Debug)]
pub(super) struct GroupPool {
    cgroups: Cgroups,
    limits: GroupLimits,
    idle: Mutex<Vec<Folders>>,
}

/// A group's folders: one, or one for each controller, the one of `memory` first. They are removed when this is dropped.
#[derive(Debug, Default)]
struct Folders(Vec<PathBuf>);

/// A group with a process in it. Dropped, all that still runs in it is ended.
#[derive(Debug)]
pub(super) struct Group {
    pool: Arc<GroupPool>,
    folders: Folders,
    /// Processes that the kernel had ended for their memory before.
    ended_before: u64,
}

impl GroupPool {
    pub(super) fn new(cgroups: Cgroups, limits: GroupLimits) -> Self {
        Self { cgroups, limits, idle: Mutex::default() }
    }

    /// Encloses a process that has not started anything yet.
    pub(super) fn enclose(self: &Arc<Self>, name: &str, process: Pid) -> io::Result<Group> {
        let idle = self.idle.lock().pop();
        let folders = idle.map_or_else(|| self.cgroups.group(name, self.limits), Ok)?;
        folders.0.iter().try_for_each(|folder| write(folder, "cgroup.procs", process.to_string()))?;
        let ended_before = folders.ended_for_memory();
        Ok(Group { pool: Arc::clone(self), folders, ended_before })
    }

    /// As [`Cgroups::describe`].
    pub(super) fn describe(&self) -> Option<String> {
        self.cgroups.describe()
    }

    /// Why there are none.
    pub(super) fn missing(&self) -> Option<&str> {
        match &self.cgroups {
            Cgroups::None(why) => Some(why),
            _ => None,
        }
    }

    /// Removes the groups that are not used, and the folder of this worker's groups.
    pub(super) fn remove(&self) {
        self.idle.lock().clear();
        self.cgroups.remove();
    }
}

impl Group {
    /// Ends everything in it.
    pub(super) fn kill(&self) {
        if let Some(folder) = self.folders.0.first() {
            kill(folder);
        }
    }

    /// Whether the kernel ended a process of it for its memory.
    pub(super) fn ran_out_of_memory(&self) -> bool {
        self.folders.ended_for_memory() > self.ended_before
    }
}

impl Drop for Group {
    /// Blocks for half a second at most.
    fn drop(&mut self) {
        let folders = std::mem::take(&mut self.folders);
        let Some(first) = folders.0.first() else { return };
        for _ in 0..REMOVALS.0 {
            match processes(first).as_deref() {
                Some([]) => return self.pool.idle.lock().push(folders),
                Some(_) => kill(first),
                None => return,
            }
            std::thread::sleep(REMOVALS.1);
        }
    }
}

impl Folders {
    /// Processes that the kernel ended for their memory, ever.
    fn ended_for_memory(&self) -> u64 {
        let Some(folder) = self.0.first() else { return 0 };
        let texts = ["memory.oom_control", "memory.events"].map(|file| fs::read_to_string(folder.join(file)));
        let count = |text: String| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok());
        texts.into_iter().flatten().find_map(count).unwrap_or_default()
    }
}

impl Drop for Folders {
    fn drop(&mut self) {
        for folder in &self.0 {
            remove(folder);
        }
    }
}

/// Processes of a group; `None`: there is no such group.
fn processes(folder: &Path) -> Option<Vec<i32>> {
    let text = fs::read_to_string(folder.join("cgroup.procs")).ok()?;
    Some(text.split_whitespace().filter_map(|process| process.parse().ok()).collect())
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
    let all_at_once = folder.join("cgroup.kill");
    if fs::OpenOptions::new().write(true).open(&all_at_once).and_then(|mut file| file.write_all(b"1")).is_ok() {
        return;
    }
    for _ in 0..ROUNDS {
        let processes = processes(folder).unwrap_or_default();
        if processes.is_empty() {
            return;
        }
        for process in processes.into_iter().filter_map(rustix::process::Pid::from_raw) {
            let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
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
