//! What an operator may set for a worker.

use std::{collections::BTreeMap, os::unix::fs::PermissionsExt as _, path::PathBuf};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use crate::sandbox::{ResourceLimits, SandboxKind};

/// A worker's configuration (TOML). Unknown keys are errors.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// URL of the coordinator's gRPC port, e.g. `https://ci.example.org:7443`.
    pub coordinator: String,
    /// Shown to operators.
    pub name: String,
    /// Jobs at a time.
    pub slots: u32,
    /// Folder of mirrors, spools and the journal.
    pub data: PathBuf,
    /// Runner labels and the image each stands for.
    pub labels: BTreeMap<String, String>,
    /// Runtimes of the engine for jobs of these labels, e.g. `gvisor = "runsc"`: each container of such a job is started by it.
    /// A job with several of them has that of the first that it names. The engine must know the runtime.
    pub runtimes: BTreeMap<String, String>,
    /// Images of the engine that every job may name, besides those of `labels`: what the operator built or loaded there. One
    /// that ends with `*` stands for all that begin so. Any other image goes to a job whose registry gives it to that
    /// job, on the engine or not.
    pub local_images: Vec<String>,
    /// Registries whose addresses are not public and that every job may name images of: `HOST` for all its ports, or
    /// `HOST:PORT`. The images of `labels` and `local_images` need none.
    pub private_registries: Vec<String>,
    /// `docker`, or `host` for trusted use without isolation.
    pub sandbox: SandboxKind,
    /// Warm containers.
    pub pool: WarmPoolConfig,
    /// Limits of one job.
    pub limits: JobLimits,
    /// The disk that jobs share.
    pub disk: DiskConfig,
    /// Node.js (one program that runs by itself) for images that have none: JavaScript actions run on it.
    pub node: Option<PathBuf>,
    /// File of the enrolment key (Ed25519 seed, hex).
    pub identity_file: PathBuf,
    /// One-time enrolment token; needed until the coordinator knows the identity.
    pub token: Option<String>,
    /// File of the coordinator's certificate authority (PEM). Empty: plain text, which only `dev` uses.
    pub ca_file: Option<PathBuf>,
}

/// The warm pool.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WarmPoolConfig {
    /// Containers kept ready for each image. 0: none.
    pub size: usize,
}

/// The disk that jobs share.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DiskConfig {
    /// Bytes that stay free on the engine's disk, and on that of `data`: below them the job ends that uses most, if it is the
    /// cause. No image is pulled below twice as many. 0: no such floor.
    pub min_free: u64,
    /// Bytes of images that were pulled for jobs, and as many of images that were built for them: beyond them those go that
    /// were unused longest. 0: any number.
    pub image_bytes: u64,
    /// Bytes of mirrors of repositories: beyond them those go that were unused longest and that no job reads. No repository
    /// may have more: its mirror is begun anew.
    pub mirror_bytes: u64,
    /// Give each volume of a job a file system of `limits.disk` bytes, where root, loop devices and e2fsprogs allow it. It
    /// takes no more of the disk than the job writes. What a container writes elsewhere has the same bound where the engine
    /// stores it on an XFS with project quotas. Otherwise what jobs write is counted every few seconds.
    pub fixed_volumes: bool,
}

/// Bytes that the process of a job needs to begin with.
const LEAST_PROCESS_MEMORY: u64 = 64 << 20;

/// Limits of one job.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct JobLimits {
    /// Bytes.
    pub memory: u64,
    /// CPUs a job may use, e.g. 1.5. 0: the machine's cores divided by `slots`, at least one.
    pub cpus: f64,
    /// Processes and threads.
    pub processes: u64,
    /// Bytes of log for a job; the job ends with the reason `log limit` beyond them.
    pub log: u64,
    /// Minutes a job may take where its workflow names none.
    pub timeout_minutes: u64,
    /// Bytes of disk a job may use in its containers, with the images that it builds, and as many in the process that serves
    /// it outside of them. 0: any number.
    pub disk: u64,
    /// Bytes of memory for the process that serves one job outside of its container: it fetches and checks out, brings
    /// actions, packs archives, and masks and writes the log. A job whose process needs more is lost, with that reason.
    pub process_memory: u64,
}

impl Config {
    /// A configuration with a value for every optional key; tells the loader which keys there are.
    pub fn complete() -> Self {
        let path = || Some(PathBuf::new());
        Self { token: Some(String::new()), ca_file: path(), node: path(), ..Self::default() }
    }

    /// Checks what can be checked without a network or an engine. Returns warnings.
    pub fn check(&self) -> anyhow::Result<Vec<String>> {
        ensure!(self.slots > 0, "slots = 0: a worker needs at least one");
        let JobLimits { memory, processes, cpus, .. } = self.limits;
        ensure!(memory > 0, "limits.memory = 0: a job needs some; 4294967296 is 4 GiB");
        ensure!(processes > 0, "limits.processes = 0: a job needs at least one");
        ensure!((0.0..=4096.0).contains(&cpus), "limits.cpus = {cpus}: write a number of CPUs, or 0 for a fair share");
        let least = LEAST_PROCESS_MEMORY >> 20;
        let enough = self.limits.process_memory >= LEAST_PROCESS_MEMORY;
        ensure!(enough, "limits.process_memory: the process of a job needs {least} MiB at least");
        ensure!(!self.labels.is_empty(), "labels is empty: name at least one, e.g. ubuntu-latest = \"IMAGE\"");
        for (label, runtime) in &self.runtimes {
            ensure!(
                self.labels.contains_key(label),
                "runtimes.{label}: this worker has no such label; name it in labels"
            );
            ensure!(self.sandbox.needs_docker_engine(), "runtimes.{label} = \"{runtime}\" needs sandbox = \"docker\"");
        }
        if let Some(node) = &self.node {
            let there = node.is_file();
            ensure!(there, "node = \"{}\": there is no such file; name the program of Node.js itself", node.display());
        }
        let mode = std::fs::metadata(&self.identity_file)
            .with_context(|| format!("identity_file {}: `longshore keygen` makes it", self.identity_file.display()))?
            .permissions()
            .mode();
        let mut warnings = Vec::new();
        if mode & 0o077 != 0 {
            let path = self.identity_file.display();
            warnings.push(format!("{path} can be read by others (mode {:03o}): run `chmod 600 {path}`", mode & 0o777));
        }
        if !self.sandbox.is_isolated() {
            warnings.push("sandbox = \"host\": jobs run on this machine without any isolation".to_owned());
        }
        Ok(warnings)
    }
}

impl Config {
    /// The runtime for a job of these labels; empty: the engine's own.
    pub(crate) fn runtime(&self, labels: &[String]) -> String {
        labels.iter().find_map(|label| self.runtimes.get(label)).cloned().unwrap_or_default()
    }

    /// Images of the engine that every job may use.
    pub(crate) fn shared_images(&self) -> Vec<String> {
        self.labels.values().chain(&self.local_images).cloned().collect()
    }

    /// Limits of each job, with a number for what the configuration leaves to the machine.
    pub fn job_limits(&self) -> JobLimits {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        JobLimits { cpus: share_of_cores(self.limits.cpus, cores, self.slots), ..self.limits.clone() }
    }
}

/// CPUs of one job: what is asked for, where the machine has as many, else a fair share.
fn share_of_cores(asked: f64, cores: usize, slots: u32) -> f64 {
    let cores = u32::try_from(cores).map_or(1.0, f64::from);
    let share = if asked > 0.0 { asked } else { (cores / f64::from(slots.max(1))).max(1.0) };
    // An engine refuses more than there are.
    share.min(cores)
}

impl JobLimits {
    /// What a job's machine may use.
    pub fn resources(&self) -> ResourceLimits {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast of floats saturates")]
        let cpu_millis = (self.cpus * 1000.0) as u64;
        ResourceLimits { memory: self.memory, processes: self.processes, cpu_millis, ..ResourceLimits::default() }
    }
}

impl Default for Config {
    fn default() -> Self {
        let image = "catthehacker/ubuntu:act-latest".to_owned();
        Self {
            coordinator: "https://127.0.0.1:7443".into(),
            name: String::new(),
            slots: 2,
            data: "/var/lib/longshore/worker".into(),
            local_images: Vec::new(),
            private_registries: Vec::new(),
            runtimes: BTreeMap::new(),
            labels: ["ubuntu-latest", "ubuntu-24.04", "ubuntu-22.04"].map(|l| (l.to_owned(), image.clone())).into(),
            sandbox: SandboxKind::default(),
            pool: WarmPoolConfig::default(),
            limits: JobLimits::default(),
            disk: DiskConfig::default(),
            node: None,
            identity_file: "worker.key".into(),
            token: None,
            ca_file: None,
        }
    }
}

impl Default for WarmPoolConfig {
    fn default() -> Self {
        Self { size: 1 }
    }
}

impl Default for DiskConfig {
    fn default() -> Self {
        Self { min_free: 1 << 30, image_bytes: 50 << 30, mirror_bytes: 20 << 30, fixed_volumes: true }
    }
}

impl Default for JobLimits {
    fn default() -> Self {
        Self {
            memory: 4 << 30,
            cpus: 0.0,
            processes: 4096,
            log: 256 << 20,
            timeout_minutes: 360,
            disk: 16 << 30,
            process_memory: 512 << 20,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_the_runtime_of_the_first_label_that_names_one() {
        let runtimes = [("gvisor", "runsc"), ("kata", "kata-runtime")].map(|(l, r)| (l.to_owned(), r.to_owned()));
        let config = Config { runtimes: runtimes.into(), ..Config::default() };
        for (labels, runtime) in
            [(&["ubuntu", "kata", "gvisor"][..], "kata-runtime"), (&["gvisor"], "runsc"), (&["x"], "")]
        {
            let labels: Vec<_> = labels.iter().map(ToString::to_string).collect();
            assert_eq!(config.runtime(&labels), runtime);
        }
        // Where nobody could run it, nobody waits for it.
        assert!(config.check().is_err_and(|error| error.to_string().contains("no such label")));
    }

    #[test]
    fn a_job_has_its_share_of_the_cores_unless_the_operator_says_otherwise() {
        for (asked, cores, slots, share) in [
            (0.0, 16, 2, 8.0),
            (0.0, 2, 8, 1.0),
            (0.0, 6, 4, 1.5),
            (0.0, 4, 0, 4.0),
            (3.0, 16, 8, 3.0),
            (64.0, 4, 2, 4.0),
        ] {
            let found = share_of_cores(asked, cores, slots);
            assert!((found - share).abs() < 1e-9, "{asked} of {cores} by {slots}: {found}");
            let limits = JobLimits { cpus: found, ..JobLimits::default() };
            assert!(limits.resources().cpu_millis >= 1000);
        }
    }
}
