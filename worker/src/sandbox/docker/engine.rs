//! The connection to the engine, and what is common to all that we make there.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::atomic::AtomicU64,
};

use bollard::{API_DEFAULT_VERSION, errors::Error, models::SystemInfo};

use super::{DockerConfig, SandboxError, process_identity};

/// Label of everything we make: the pool.
pub(super) const POOL: &str = "longshore.pool";
/// Label of everything we make: the worker.
pub(super) const WORKER: &str = "longshore.worker";
/// Label of everything we make: the process.
pub(super) const PROCESS: &str = "longshore.process";
/// Label of containers and volumes: the machine.
pub(super) const NONCE: &str = "longshore.nonce";

const DEFAULT_SOCKET: &str = "/var/run/docker.sock";
/// Seconds an engine may take for one call. Starting a container under load takes several.
const TIMEOUT: u64 = 120;

/// A connected engine.
pub(super) struct Engine {
    pub(super) api: bollard::Docker,
    pool: String,
    worker: String,
    process: Option<String>,
    socket: String,
    /// Where it keeps what it stores, where that is this machine's.
    pub(super) root: Option<PathBuf>,
    /// Bytes of all images that this worker pulled or made.
    pub(super) image_bytes: AtomicU64,
    /// What it says of itself.
    pub(super) info: SystemInfo,
    /// Of its parts that let a hostile job out.
    pub(super) escapes: Vec<String>,
}

impl Engine {
    pub(super) async fn connect(config: &DockerConfig) -> Result<Self, SandboxError> {
        let from_environment = || std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let socket = config.socket.clone().or_else(from_environment).unwrap_or_else(|| DEFAULT_SOCKET.into());
        let connected = match socket.split_once("://") {
            Some(("tcp" | "http", _)) => bollard::Docker::connect_with_http(&socket, TIMEOUT, API_DEFAULT_VERSION),
            _ => bollard::Docker::connect_with_unix(&socket, TIMEOUT, API_DEFAULT_VERSION),
        };
        let no_engine = |error: Error| SandboxError::Engine(absent(&socket, &error));
        let api = connected.map_err(no_engine)?.negotiate_version().await.map_err(no_engine)?;
        let version = api.version().await.map_err(no_engine)?;
        let parts = version.components.unwrap_or_default();
        let escapes = known_escapes(parts.iter().map(|part| (part.name.as_str(), part.version.as_str())));
        let info = api.info().await.map_err(no_engine)?;
        let root = info.docker_root_dir.as_ref().map(PathBuf::from);
        let root = root.filter(|root| !socket.starts_with("tcp") && !socket.starts_with("http") && root.is_dir());
        let (pool, worker) = (config.pool.clone(), config.worker.clone());
        Ok(Self {
            api,
            pool,
            worker,
            process: process_identity::current(),
            socket,
            root,
            image_bytes: 0.into(),
            info,
            escapes,
        })
    }

    /// Labels of something that serves one machine, or (`None`) all of this worker's.
    pub(super) fn labels(&self, nonce: Option<&str>) -> HashMap<String, String> {
        let nonce = nonce.map(|nonce| (NONCE.to_owned(), nonce.to_owned()));
        let process = self.process.clone().map(|process| (PROCESS.to_owned(), process));
        [(POOL.to_owned(), self.pool.clone()), (WORKER.to_owned(), self.worker.clone())]
            .into_iter()
            .chain(process)
            .chain(nonce)
            .collect()
    }

    /// Whether labels are those of this worker.
    pub(super) fn is_ours(&self, labels: &HashMap<String, String>) -> bool {
        labels.get(POOL) == Some(&self.pool) && labels.get(WORKER) == Some(&self.worker)
    }

    /// A filter for all that carries our labels.
    pub(super) fn ours(&self) -> HashMap<String, Vec<String>> {
        let labels = vec![format!("{POOL}={}", self.pool), format!("{WORKER}={}", self.worker)];
        HashMap::from([("label".to_owned(), labels)])
    }

    /// Whether root of a container is an ordinary user of the engine's machine.
    pub(super) fn maps_users(&self) -> bool {
        let options = self.info.security_options.iter().flatten();
        options.flat_map(|option| option.split(',')).any(|word| matches!(word, "name=userns" | "name=rootless"))
    }

    /// Whom root of a container is: an engine that maps users keeps what it stores in a folder that says so.
    pub(super) fn root_of_containers(&self) -> (u32, u32) {
        let name = self.root.as_ref().filter(|_| self.maps_users()).and_then(|root| root.file_name()?.to_str());
        let mapped = name.and_then(|name| name.split_once('.'));
        mapped.and_then(|(user, group)| Some((user.parse().ok()?, group.parse().ok()?))).unwrap_or((0, 0))
    }

    /// Whether the engine can bound what a container writes: its storage is an XFS with project quotas.
    pub(super) fn layers_have_quotas(&self) -> bool {
        let Some(root) = self.root.as_deref().filter(|_| self.info.driver.as_deref() == Some("overlay2")) else {
            return false;
        };
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        has_project_quotas(&mounts, root)
    }

    /// A filter for all that any worker made.
    pub(super) fn anybodys() -> HashMap<String, Vec<String>> {
        HashMap::from([("label".to_owned(), vec![POOL.to_owned()])])
    }

    /// A filter for what serves one machine.
    pub(super) fn of(&self, nonce: &str) -> HashMap<String, Vec<String>> {
        let mut filters = self.ours();
        filters.entry("label".to_owned()).or_default().push(format!("{NONCE}={nonce}"));
        filters
    }

    /// What a failed call means.
    pub(super) fn error(&self, what: &str, error: Error) -> SandboxError {
        match error {
            Error::DockerResponseServerError { message, .. } => SandboxError::Start(format!("{what}: {message}")),
            Error::RequestTimeoutError => {
                SandboxError::Engine(format!("{what}: the engine at {} did not answer in {TIMEOUT} s", self.socket))
            }
            error => SandboxError::Engine(format!("{what}: {}", absent(&self.socket, &error))),
        }
    }
}

/// Escapes from containers that parts of an engine of this age allow, unless its distribution has mended them: the part
/// and the first release without them. runc: CVE-2019-5736, 2021-30465, 2024-21626, 2025-31133, 2025-52565, 2025-52881.
const MENDED: [(&str, &[[u64; 3]]); 1] = [("runc", &[[1, 2, 8], [1, 3, 3], [1, 4, 0]])];

/// What to say of an engine's parts, each a name and a version.
fn known_escapes<'p>(parts: impl Iterator<Item = (&'p str, &'p str)>) -> Vec<String> {
    let mut said = Vec::new();
    for (name, version) in parts {
        let Some((_, mended)) = MENDED.iter().find(|(known, _)| *known == name) else { continue };
        let numbers = numbers(version);
        // A later release of the same line, or a later line.
        let good = mended.iter().any(|from| from[..2] == numbers[..2] && numbers >= *from)
            || mended.last().is_some_and(|last| numbers >= *last);
        if !good {
            said.push(format!(
                "{name} {version} is known to let a hostile job out of its container; update the engine, unless its \
                 distribution has mended that"
            ));
        }
    }
    said
}

fn numbers(version: &str) -> [u64; 3] {
    let mut parts = version.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    std::array::from_fn(|_| parts.next().and_then(|part| part.parse().ok()).unwrap_or(0))
}

/// `mounts`: as /proc/self/mounts has them.
fn has_project_quotas(mounts: &str, folder: &Path) -> bool {
    let mounts = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        Some((words.next()?, words.next()?, words.next()?))
    });
    let around = mounts.filter(|(place, ..)| folder.starts_with(place)).max_by_key(|(place, ..)| place.len());
    around.is_some_and(|(_, kind, options)| {
        kind == "xfs" && options.split(',').any(|option| matches!(option, "prjquota" | "pquota"))
    })
}

fn absent(socket: &str, error: &Error) -> String {
    let path = socket.strip_prefix("unix://").unwrap_or(socket);
    let remedy = if path.contains("://") || Path::new(path).exists() {
        "start it (systemctl start docker), and let this user reach it (group docker)"
    } else {
        "install docker.io or start it, or name its socket in DOCKER_HOST"
    };
    let address = if path.contains("://") { path.to_owned() } else { format!("unix://{path}") };
    format!("no Docker engine answers at {address}: {remedy} ({error})")
}

/// Status of an engine's refusal.
pub(super) fn status(error: &Error) -> Option<u16> {
    match error {
        Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_of_the_file_system_around_a_folder_count() {
        let mounts =
            "/dev/a / ext4 rw 0 0\n/dev/b /var/lib xfs rw,noatime,prjquota 0 0\n/dev/c /var/lib/x xfs rw,noquota 0 0\n";
        for (folder, has) in
            [("/var/lib/docker", true), ("/var/library", false), ("/var/lib/x/docker", false), ("/", false)]
        {
            assert_eq!(has_project_quotas(mounts, Path::new(folder)), has, "{folder}");
        }
    }

    #[test]
    fn attack_34_an_engine_with_known_escapes_is_named() {
        for (version, warned) in [
            ("1.1.12", true),
            ("1.2.7", true),
            ("1.2.8", false),
            ("v1.3.0+ds1", true),
            ("1.3.3-0ubuntu1", false),
            ("1.4.0-rc.1", false),
            ("2.0.0", false),
            ("", true),
        ] {
            let said = known_escapes([("Engine", "1"), ("runc", version)].into_iter());
            assert_eq!(said.len(), usize::from(warned), "{version}: {said:?}");
            assert!(said.iter().all(|said| said.contains("update the engine")));
        }
    }
}
