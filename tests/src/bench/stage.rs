//! The product on loopback: one relay, one repository, and pools of processes that differ in their warm containers.

use std::{
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use nostr::Event;

use super::{
    answer::{Api, Stamps},
    engine::{Engine, Shape},
    floor::{LOG, TICKS},
    usage,
};
use crate::harness::{
    client::{kind, tag},
    pool::Pool,
    process::{Process, binary},
    world::{Relay, World},
};

/// Longer than any job here takes.
const LIMIT: Duration = Duration::from_secs(120);
/// How long a process may take to remove what it has.
const CLOSING: Duration = Duration::from_secs(30);
/// From a job's end until its container is removed and another is warm.
const SETTLE: Duration = Duration::from_secs(2);

/// What a job does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// One step, `echo`.
    Echo,
    /// One step, `true`.
    OneStep,
    /// Twenty steps, `true`.
    TwentySteps,
    /// One step that prints 100 MB.
    Log,
    /// One step that prints a hundred lines.
    FewLines,
    /// One step that prints what time it is, again and again.
    Ticks,
    /// Long enough to be looked at.
    Sleep,
    /// Ten jobs of one `echo`.
    TenJobs,
    /// A matrix of eight, one `echo` each.
    Matrix,
}

/// One job, from outside and by its own stamps.
#[derive(Debug, Clone, Copy)]
pub struct Timed {
    /// From the event received until the first byte of output.
    pub first: Duration,
    /// From the event received until the last report.
    pub whole: Duration,
    /// From the event sent until the first byte of output.
    pub sent_to_first: Duration,
    /// From the event sent until the final status was heard.
    pub sent_to_heard: Duration,
}

/// Relay and repository.
#[derive(Debug)]
pub struct Stage {
    world: World,
    // After the world: its processes are ended last.
    relay: Relay,
    folder: tempfile::TempDir,
}

/// A job that was asked for.
#[derive(Debug)]
pub struct Asked {
    /// Hex id of its event, by which the coordinator finds the run.
    pub id: String,
    run: Event,
    job: Event,
    sent: u64,
}

/// A coordinator and its worker.
#[derive(Debug)]
pub struct Running {
    pool: Pool,
    api: Api,
    slots: usize,
    warm: usize,
    worker: Ending,
    coordinator: Ending,
}

/// Asked to end when dropped: a worker that is killed leaves its containers behind.
#[derive(Debug)]
struct Ending(Process);

impl Drop for Ending {
    fn drop(&mut self) {
        if self.0.signal(Signal::SIGTERM).is_ok() {
            let _ = self.0.wait(CLOSING);
        }
    }
}

impl Stage {
    /// Starts relay and git server.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let relay = Relay::start(folder.path())?;
        let files: Vec<(&str, String)> = Work::ALL.iter().map(|work| (work.path(), work.text())).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let world = World::new(&relay.url, &files).await?;
        Ok(Self { world, relay, folder })
    }

    /// A checkout of the repository, for programs that run a workflow from there.
    pub fn checkout(&self) -> &Path {
        &self.world.repository.path
    }

    /// Starts a pool whose worker has these slots and keeps this many containers warm.
    pub fn pool(&self, name: &str, slots: usize, warm: usize) -> Result<Running> {
        self.pool_of(&binary("longshore")?, name, slots, warm)
    }

    /// The same of another build of the product.
    pub fn pool_of(&self, program: &Path, name: &str, slots: usize, warm: usize) -> Result<Running> {
        let relays = std::slice::from_ref(&self.relay.url);
        // The jobs of one author are many; the default rate is for people.
        let pool = Pool::create_with(program, &self.folder.path().join(name), relays)?
            .with("LONGSHORE_LIMITS_AUTHOR_PER_MINUTE", "100000");
        Running::start(pool, slots, warm)
    }

    /// Runs a job to its end, waits until the pool is at rest, and reads its stamps.
    pub async fn run(&self, on: &Running, work: Work) -> Result<Timed, String> {
        let timed = self.job(on, work).await;
        tokio::time::sleep(SETTLE).await;
        timed.map_err(|error| format!("{work:?}: {error:#}"))
    }

    /// From the signed event sent until the signed result was heard; the pool is at rest again afterwards.
    pub async fn whole(&self, on: &Running, work: Work) -> Result<Duration, String> {
        let heard = self.heard(on, work).await;
        tokio::time::sleep(SETTLE).await;
        heard
            .map(|(_, sent, heard)| Duration::from_millis(heard - sent))
            .map_err(|error| format!("{work:?}: {error:#}"))
    }

    /// A run that succeeded: the id of its job event.
    pub async fn ended(&self, on: &Running, work: Work) -> Result<String> {
        Ok(self.heard(on, work).await?.0)
    }

    /// Presses, and waits until the job runs.
    pub async fn started(&self, on: &Running, work: Work) -> Result<Asked> {
        let asked = self.ask(on, work).await?;
        self.world.listener.status(&asked.job, "running", LIMIT).await?;
        Ok(asked)
    }

    /// Waits for the end of a job, until the pool is at rest again.
    pub async fn wait(&self, asked: &Asked) -> Result<()> {
        self.world.listener.end(&asked.run, &asked.job, LIMIT).await?;
        tokio::time::sleep(SETTLE).await;
        Ok(())
    }

    async fn ask(&self, on: &Running, work: Work) -> Result<Asked> {
        let (run, job) = self.world.press(on.pool.pubkey, work.path()).events()?;
        self.world.listener.publish(&run).await?;
        let sent = now();
        self.world.listener.publish(&job).await?;
        Ok(Asked { id: job.id.to_hex(), run, job, sent })
    }

    /// Presses, and waits for the result: the job event's id, when it was sent and when its end was heard.
    async fn heard(&self, on: &Running, work: Work) -> Result<(String, u64, u64)> {
        let Asked { id, run, job, sent } = self.ask(on, work).await?;
        let answers = self.world.listener.end(&run, &job, LIMIT).await?;
        let heard = now().max(sent);
        let result = answers.only(kind::RESULT)?;
        ensure!(tag(result, "success") == "true", "the job failed: {}", tag(result, "error"));
        Ok((id, sent, heard))
    }

    async fn job(&self, on: &Running, work: Work) -> Result<Timed> {
        let (job, sent, heard) = self.heard(on, work).await?;
        let answer = on.api.read(&job).await?;
        if work == Work::Log {
            answer.check_log()?;
        }
        let Stamps { received, first, ended } = answer.stamps;
        let span = |from: u64, to: u64| {
            let millis = to.checked_sub(from).with_context(|| format!("the stamps run backwards: {from}, {to}"));
            millis.map(Duration::from_millis)
        };
        Ok(Timed {
            first: span(received, first)?,
            whole: span(received, ended)?,
            sent_to_first: span(sent, first)?,
            sent_to_heard: span(sent, heard)?,
        })
    }

    /// The shape of a job's own container, copied while the job runs.
    pub async fn shape(&self, on: &Running, engine: &Engine) -> Result<Shape> {
        let asked = self.started(on, Work::Sleep).await?;
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        let mut shape = engine.copy(&asleep()).await?;
        while shape.is_none() && tokio::time::Instant::now() < until {
            shape = engine.copy(&asleep()).await?;
        }
        self.wait(&asked).await?;
        shape.with_context(|| format!("no container ran our job, in which `{}` shows", asleep()))
    }
}

impl Running {
    fn start(pool: Pool, slots: usize, warm: usize) -> Result<Self> {
        let coordinator = Ending(pool.coordinator()?);
        let (slot_count, pool_size) = (slots.to_string(), warm.to_string());
        let worker = pool.worker(&[("LONGSHORE_SLOTS", &slot_count), ("LONGSHORE_POOL_SIZE", &pool_size)])?;
        Ok(Self { api: Api::new(&pool.http), pool, slots, warm, worker: Ending(worker), coordinator })
    }

    /// Ends both processes, has something done to what they left, and starts them again.
    pub async fn between_lives(self, change: impl AsyncFnOnce(&Path) -> Result<()>) -> Result<Self> {
        let Self { pool, slots, warm, worker, coordinator, .. } = self;
        drop(worker);
        drop(coordinator);
        change(&pool.folder).await?;
        Self::start(pool, slots, warm)
    }

    /// Where its coordinator shows pages.
    pub fn http(&self) -> &str {
        &self.pool.http
    }

    /// The page of a run, by the id of its job event.
    pub fn page(&self, run: &str) -> String {
        format!("{}/runs/{run}", self.http())
    }

    /// MiB of the coordinator and of the worker.
    pub fn memory(&self) -> (Result<f64, String>, Result<f64, String>) {
        let of = |process: &Ending| usage::mib(process.0.id()).map_err(|error| format!("{error:#}"));
        (of(&self.coordinator), of(&self.worker))
    }

    /// Where its logs are.
    pub fn folder(&self) -> &Path {
        &self.pool.folder
    }
}

impl Work {
    const ALL: [Self; 9] = [
        Self::Echo,
        Self::OneStep,
        Self::TwentySteps,
        Self::Log,
        Self::FewLines,
        Self::Ticks,
        Self::Sleep,
        Self::TenJobs,
        Self::Matrix,
    ];

    /// Of its workflow, in the repository.
    pub fn path(self) -> &'static str {
        match self {
            Self::Echo => ".github/workflows/echo.yml",
            Self::OneStep => ".github/workflows/one.yml",
            Self::TwentySteps => ".github/workflows/twenty.yml",
            Self::Log => ".github/workflows/log.yml",
            Self::FewLines => ".github/workflows/few.yml",
            Self::Ticks => ".github/workflows/ticks.yml",
            Self::Sleep => ".github/workflows/sleep.yml",
            Self::TenJobs => ".github/workflows/ten.yml",
            Self::Matrix => ".github/workflows/matrix.yml",
        }
    }

    fn text(self) -> String {
        // Each begins with output, so that every job has its first byte.
        let steps = match self {
            Self::Echo | Self::TenJobs => vec!["echo hi".to_owned()],
            Self::Matrix => vec!["echo ${{ matrix.v }}".to_owned()],
            Self::OneStep => vec!["echo; true".to_owned()],
            Self::TwentySteps => [vec!["echo; true".to_owned()], vec!["true".to_owned(); 19]].concat(),
            Self::Log => vec![LOG.join(" ")],
            Self::FewLines => vec!["seq -f %099.0f 1 100".to_owned()],
            Self::Ticks => vec![TICKS.to_owned()],
            Self::Sleep => vec![format!("echo; {}", asleep())],
        };
        let steps: String = steps.iter().map(|step| format!("      - run: \"{step}\"\n")).collect();
        let strategy = match self {
            Self::Matrix => "    strategy:\n      max-parallel: 8\n      matrix: {v: [1, 2, 3, 4, 5, 6, 7, 8]}\n",
            _ => "",
        };
        let jobs = if self == Self::TenJobs { 10 } else { 1 };
        let job = |number| format!("  work{number}:\n    runs-on: ubuntu-latest\n{strategy}    steps:\n{steps}");
        format!("name: bench\non: push\njobs:\n{}", (0..jobs).map(job).collect::<String>())
    }
}

/// A command that nothing else on this machine runs.
fn asleep() -> String {
    format!("sleep 4.0{}", std::process::id())
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
