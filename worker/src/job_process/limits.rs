//! What the process of a job may have of its worker's machine.

use std::{io, sync::Arc};

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::cgroup::{Cgroups, Group, GroupLimits, GroupPool};
use crate::config::JobLimits;

/// Processes and threads, `git` and its own among them.
const PROCESSES: u64 = 512;
/// Open files of each process.
const OPEN_FILES: u64 = 4096;
/// Bytes of a file where a job's disk has no limit.
const FILE: u64 = 16 << 30;
/// Bytes of memory that a process has besides what it works with: stacks of its threads.
const STACKS: u64 = 64 << 20;

/// Limits of the processes of jobs.
#[derive(Debug)]
pub(super) struct ProcessLimits {
    groups: Arc<GroupPool>,
    group: GroupLimits,
    file: u64,
}

impl ProcessLimits {
    /// `worker`: as [`Cgroups::find`] needs it.
    pub(super) fn new(limits: &JobLimits, worker: &str) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from) as u64;
        let group = GroupLimits {
            memory: limits.process_memory,
            processes: PROCESSES,
            // A job that keeps its process busy leaves the other half to its neighbours and to the sessions.
            processors: (cores / 2).max(1),
        };
        Self {
            groups: Arc::new(GroupPool::new(Cgroups::find(worker), group)),
            group,
            // Its log is a file, and so are archives on their way.
            file: if limits.disk == 0 { FILE } else { limits.disk.max(limits.log.saturating_mul(2)) },
        }
    }

    /// Limits a process that has not started anything yet.
    pub(super) fn apply(&self, name: &str, process: Pid) -> io::Result<Group> {
        let group = self.groups.enclose(name, process)?;
        let mut limits = vec![(Resource::Nofile, OPEN_FILES), (Resource::Fsize, self.file), (Resource::Core, 0)];
        if self.groups.describe().is_none() {
            limits.push((Resource::Data, self.group.memory + STACKS));
        }
        for (resource, limit) in limits {
            prlimit(Some(process), resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
        }
        Ok(group)
    }

    /// Nothing is limited any more.
    pub(super) fn remove(&self) {
        self.groups.remove();
    }

    /// What stands between a job's process and the machine, and whether a cgroup is a part of it.
    pub(super) fn describe(&self) -> (String, bool) {
        let memory = self.group.memory >> 20;
        match (self.groups.describe(), self.groups.missing()) {
            (Some(kind), _) => {
                let text = format!(
                    "{kind}: {memory} MiB, {} processes, {} of the processors",
                    self.group.processes, self.group.processors
                );
                (text, true)
            }
            (None, Some(why)) => {
                let text = format!(
                    "rlimits alone: {memory} MiB for each of its processes; their number and their processor time have \
                     no limit, for no cgroup can be written ({why})"
                );
                (text, false)
            }
            (None, _) => (String::new(), false),
        }
    }
}
