//! The Docker engine: whether tests that need one can run, and engines of their own for tests that break one.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

/// The image that stands for `ubuntu-latest`; the set-up script provides it.
pub const IMAGE: &str = "longshore/ubuntu:dev";

/// True where the test named `test` may go on. Without an engine a test fails, unless `LONGSHORE_NO_ENGINE=1`: then
/// it is counted as skipped in the file that `LONGSHORE_SKIPPED` names.
pub fn available(test: &str) -> bool {
    if std::env::var("LONGSHORE_NO_ENGINE").as_deref() != Ok("1") {
        return true;
    }
    if let Some(path) = std::env::var_os("LONGSHORE_SKIPPED")
        && let Ok(mut file) = std::fs::OpenOptions::new().append(true).create(true).open(path)
    {
        let _ = writeln!(file, "{test}");
    }
    false
}

/// Removes what a worker has left on the machine's engine when it is dropped: a worker that was killed, or did not end
/// in time, can't.
#[derive(Debug)]
pub struct EngineCleanup {
    /// Public key of the worker, hex.
    identity: String,
}

impl EngineCleanup {
    /// For the worker with this identity file.
    pub fn of(identity_file: &Path) -> Result<Self> {
        let seed = hex::decode(std::fs::read_to_string(identity_file)?.trim())?;
        let key = Ed25519KeyPair::from_seed_unchecked(&seed).ok().context("an identity is 32 bytes in hex")?;
        Ok(Self { identity: hex::encode(key.public_key()) })
    }
}

impl Drop for EngineCleanup {
    fn drop(&mut self) {
        let filter = format!("--filter label=longshore.pool={}", self.identity);
        let remove = format!(
            "docker ps -aq {filter} | xargs -r docker rm -fv && docker volume ls -q {filter} | xargs -r docker volume rm \
             && docker network ls -q {filter} | xargs -r docker network rm"
        );
        // Without an engine nothing was left on it.
        let _ = Command::new("bash").args(["-c", &remove]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// A Docker engine of the test's own: data root, socket and network namespace apart from the machine's.
#[derive(Debug)]
pub struct OwnEngine {
    folder: PathBuf,
    namespace: String,
    daemon: Option<Child>,
}

impl OwnEngine {
    /// Starts one with a small image, tagged [`IMAGE`]: bash, a few programs, and the libraries they need.
    pub fn start(folder: &Path) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let namespace = format!("longshore-{}", std::process::id());
        run(Command::new("ip").args(["netns", "add", &namespace]))?;
        run(Command::new("ip").args(["-n", &namespace, "link", "set", "lo", "up"]))?;
        let mut engine = Self { folder: folder.to_owned(), namespace, daemon: None };
        engine.resume()?;
        let files = "bin/bash bin/sh bin/sleep bin/cat bin/mkdir usr/lib/x86_64-linux-gnu/libc.so.6 \
                     usr/lib/x86_64-linux-gnu/libtinfo.so.6 usr/lib/x86_64-linux-gnu/libselinux.so.1 \
                     usr/lib/x86_64-linux-gnu/libpcre2-8.so.0 lib64/ld-linux-x86-64.so.2 etc/passwd etc/group";
        let copy = format!(
            "docker run --rm --network none {IMAGE} tar --create --dereference --directory / {files} | \
             docker --host {} import --change 'ENV PATH=/bin' - {IMAGE}",
            engine.host()
        );
        run(Command::new("bash").args(["-o", "pipefail", "-c", &copy]))?;
        Ok(engine)
    }

    /// `DOCKER_HOST` for it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.folder.join("docker.sock").display())
    }

    /// Ends the daemon as a crash would.
    pub fn kill(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill()?;
            daemon.wait()?;
        }
        Ok(())
    }

    /// Ends the daemon as an administrator would: its containers end too.
    pub fn stop(&mut self) -> Result<()> {
        if let Some(mut daemon) = self.daemon.take() {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(i32::try_from(daemon.id())?), Signal::SIGTERM)?;
            daemon.wait()?;
        }
        Ok(())
    }

    /// Starts the daemon, again on the same data.
    pub fn resume(&mut self) -> Result<()> {
        let path = |name: &str| self.folder.join(name).to_string_lossy().into_owned();
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.folder.join("dockerd.log"))?;
        let _ = std::fs::remove_file(self.folder.join("docker.pid"));
        std::fs::write(self.folder.join("daemon.json"), "{}")?;
        let daemon = Command::new("nsenter")
            .arg(format!("--net=/run/netns/{}", self.namespace))
            .args(["dockerd", "--host", &self.host(), "--data-root", &path("data"), "--exec-root", &path("exec")])
            .args(["--pidfile", &path("docker.pid"), "--config-file", &path("daemon.json")])
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start a second dockerd: it needs root, nsenter and dockerd")?;
        self.daemon = Some(daemon);
        for _ in 0..300 {
            let mut ping = Command::new("docker");
            ping.args(["--host", &self.host(), "version"]).stdout(Stdio::null()).stderr(Stdio::null());
            if ping.status()?.success() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!("the second dockerd does not answer: {}", std::fs::read_to_string(self.folder.join("dockerd.log"))?)
    }
}

impl Drop for OwnEngine {
    fn drop(&mut self) {
        if self.daemon.is_some() {
            let remove = format!("docker --host {0} ps -aq | xargs -r docker --host {0} rm -f", self.host());
            let _ = Command::new("bash").args(["-c", &remove]).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
        let _ = self.stop();
        let _ = Command::new("ip").args(["netns", "delete", &self.namespace]).status();
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
