//! Processes that tests start, kill and stop.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// A child process whose output goes to a file; ended when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Standard output and standard error.
    pub log: PathBuf,
}

impl Process {
    /// Starts a program of this workspace, built beside the running test.
    pub fn start(program: &str, arguments: &[&str], log: &Path) -> Result<Self> {
        Self::start_with(program, arguments, &[], log)
    }

    /// The same with further environment.
    pub fn start_with(program: &str, arguments: &[&str], environment: &[(&str, &str)], log: &Path) -> Result<Self> {
        Self::start_program(&binary(program)?, arguments, environment, log)
    }

    /// Any program.
    pub fn start_program(program: &Path, arguments: &[&str], environment: &[(&str, &str)], log: &Path) -> Result<Self> {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let child = Command::new(program)
            .args(arguments)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { child, log: log.to_owned() })
    }

    /// Process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub fn runs(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_none())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Waits for the end; gives the exit code.
    pub fn wait(&mut self, limit: Duration) -> Result<i32> {
        let until = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status.code().unwrap_or(-1));
            }
            if Instant::now() > until {
                bail!("still running after {limit:?}: {}", self.text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Everything it printed so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Waits until a printed line satisfies `found`, and gives it.
    pub fn line(&mut self, limit: Duration, found: impl Fn(&str) -> bool) -> Result<String> {
        let until = Instant::now() + limit;
        loop {
            if let Some(line) = self.text().lines().find(|line| found(line)) {
                return Ok(line.to_owned());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("ended with {status} before it said so: {}", self.text());
            }
            if Instant::now() > until {
                bail!("did not say so within {limit:?}: {}", self.text());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Process {
    /// Asks twice, as an impatient operator would, so that containers are removed; then insists.
    fn drop(&mut self) {
        for signal in [Signal::SIGCONT, Signal::SIGTERM, Signal::SIGTERM] {
            let _ = self.signal(signal);
            std::thread::sleep(Duration::from_millis(50));
        }
        if self.wait(Duration::from_secs(20)).is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Id of the first event of a kind among those that a command printed with `--json`.
pub fn printed_event(text: &str, kind: u64) -> Option<String> {
    let events = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    events.filter(|event| event["kind"] == kind).find_map(|event| event["id"].as_str().map(str::to_owned))
}

/// A program of this workspace: beside this one, or one folder up (test programs live in `deps/`).
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let candidates = own.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    candidates
        .clone()
        .find(|path| path.is_file())
        .with_context(|| format!("the program {name} is not built: cargo build -p longshore -p longshore-tests --bins"))
}

/// A free port on loopback, which nobody else takes before the program that it is meant for listens: each call gives
/// another one, and outgoing connections of the system use ports from 32768 on alone.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const PORTS: std::ops::Range<u32> = 15_000..32_000;
    // Programs that run at the same time begin at different places.
    let first = std::process::id().wrapping_mul(97);
    for _ in PORTS {
        let place = first.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % (PORTS.end - PORTS.start);
        let port = u16::try_from(PORTS.start + place)?;
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no port between {} and {} is free", PORTS.start, PORTS.end)
}
