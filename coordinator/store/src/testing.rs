//! For tests: a simulated disk, and a private PostgreSQL server of the distribution's package, shared by all tests of one
//! process.
//!
//! It listens on a Unix socket in a temporary folder of its own. A shell that waits for its standard input to end
//! stops it and removes the folder, so that it goes with the process that started it, however that ends.

mod disk;

pub use crate::disk::Disk;

use std::{
    io,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        OnceLock,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// How long the server may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);

const SUPERVISE: &str = r#"
"$1/initdb" -D "$2/data" -U longshore -A trust -E UTF8 --locale=C --no-sync >"$2/log" 2>&1 || exit 1
"$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off -c max_connections=400 >>"$2/log" 2>&1 &
server=$!
cat >/dev/null
kill -INT $server
wait $server
rm -rf "$2"
"#;

/// The server of this process.
#[derive(Debug)]
pub struct PrivateServer {
    folder: PathBuf,
    supervisor: Child,
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The programs of PostgreSQL are not installed.
    #[error("no PostgreSQL server: deploy/setup.sh --tests installs it (Debian: postgresql)")]
    NotInstalled,
    /// It can't be started.
    #[error("the PostgreSQL server of the tests does not start: {0}")]
    Start(String),
}

impl From<io::Error> for ServerError {
    fn from(error: io::Error) -> Self {
        Self::Start(error.to_string())
    }
}

/// Creates an empty database on the shared server; returns its address for [`crate::Store::connect`].
pub async fn postgres_database() -> Result<String, ServerError> {
    static SERVER: OnceLock<Result<PrivateServer, ServerError>> = OnceLock::new();
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let server = tokio::task::spawn_blocking(|| SERVER.get_or_init(PrivateServer::start)).await;
    let failed = |error: &dyn std::fmt::Display| ServerError::Start(error.to_string());
    match server.map_err(|error| failed(&error))? {
        Ok(server) => {
            let name = format!("test_{}", NUMBER.fetch_add(1, Ordering::Relaxed));
            let address = server.address("postgres");
            let (client, connection) =
                tokio_postgres::connect(&address, tokio_postgres::NoTls).await.map_err(|error| failed(&error))?;
            let connection = tokio::spawn(connection);
            client.batch_execute(&format!("CREATE DATABASE {name}")).await.map_err(|error| failed(&error))?;
            connection.abort();
            Ok(server.address(&name))
        }
        Err(ServerError::NotInstalled) => Err(ServerError::NotInstalled),
        Err(error) => Err(failed(error)),
    }
}

impl PrivateServer {
    /// Starts a server and waits until it answers. It ends when this process does.
    pub fn start() -> Result<Self, ServerError> {
        let programs = programs().ok_or(ServerError::NotInstalled)?;
        let folder = std::env::temp_dir().join(format!("longshore-pg-{:016x}", rand::random::<u64>()));
        std::fs::create_dir(&folder)?;
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700))?;
        let mut command = Command::new("sh");
        command.args(["-c", SUPERVISE, "sh"]).arg(&programs).arg(&folder);
        if let Some((user, group)) = unprivileged()? {
            chown(&folder, Some(user), Some(group))?;
            command.uid(user).gid(group);
        }
        let supervisor = command.current_dir(&folder).stdin(Stdio::piped()).process_group(0).spawn()?;
        let mut server = Self { folder, supervisor };
        let started = Instant::now();
        while !server.folder.join("data/postmaster.pid").exists() || !server.answers(&programs) {
            if server.supervisor.try_wait()?.is_some() || started.elapsed() > PATIENCE {
                let log = std::fs::read_to_string(server.folder.join("log")).unwrap_or_default();
                return Err(ServerError::Start(log));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// The address of a database of this server.
    pub fn address(&self, database: &str) -> String {
        let folder = self.folder.display().to_string().replace('/', "%2F");
        format!("postgres://longshore@{folder}/{database}?sslmode=disable")
    }

    fn answers(&self, programs: &Path) -> bool {
        let asked = Command::new(programs.join("pg_isready")).arg("-q").arg("-h").arg(&self.folder).status();
        asked.is_ok_and(|status| status.success())
    }
}

/// The folder of the newest server's programs.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = versions.map(|version| version.path().join("bin")).collect();
    folders.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    folders.reverse();
    folders.extend(std::env::split_paths(&path));
    folders.into_iter().find(|folder| folder.join("postgres").exists() && folder.join("initdb").exists())
}

/// The server refuses to run as root: the user that its package made, or `nobody`. `None`: this process is not root.
fn unprivileged() -> Result<Option<(u32, u32)>, ServerError> {
    if !nix::unistd::geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        let found = nix::unistd::User::from_name(name).map_err(io::Error::from)?;
        if let Some(user) = found {
            return Ok(Some((user.uid.as_raw(), user.gid.as_raw())));
        }
    }
    Err(ServerError::Start("PostgreSQL does not run as root, and there is no user `postgres` or `nobody`".into()))
}

/// Runs each test on a SQLite file, on SQLite in memory, and on PostgreSQL.
#[cfg(test)]
macro_rules! on_each_engine {
    ($($name:ident,)*) => {
        mod sqlite {
            $(#[tokio::test]
            async fn $name() {
                let folder = tempfile::tempdir().unwrap();
                let store = crate::Store::open(&folder.path().join("store.sqlite")).await.unwrap();
                super::$name(&store).await;
            })*
        }
        mod in_memory {
            $(#[tokio::test]
            async fn $name() {
                super::$name(&crate::Store::in_memory().unwrap()).await;
            })*
        }
        mod postgres {
            $(#[tokio::test]
            async fn $name() {
                let database = crate::testing::postgres_database().await.unwrap();
                super::$name(&crate::Store::connect(&database).await.unwrap()).await;
            })*
        }
    };
}

#[cfg(test)]
pub(crate) use on_each_engine;
