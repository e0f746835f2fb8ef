//! Kills of the three roles at random moments of a busy pool: relay, coordinator and worker are real processes and get
//! `kill -9`. Whatever the moment, each accepted request has exactly one result, and no event comes twice.
//!
//! A seed decides which role is killed, when, and for how long it is gone; the machine decides how far the pool is then.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nostr::{Event, JsonUtil, Kind};
use rand::{RngExt, SeedableRng, rngs::StdRng};
use serde_json::Value;

use crate::harness::{
    client::{kind, refers_to, tag},
    pool::Pool,
    process::{Process, free_port},
    raw_relay::Publisher,
    world::{Relay, World},
};

const PATH: &str = ".github/workflows/ci.yml";
/// Two jobs, one after the other, and a matrix beside them: enough that a kill meets each stage of a run.
const WORKFLOW: &str = "\
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    outputs: {made: '${{ steps.make.outputs.made }}'}
    steps:
      - id: make
        run: echo made=it >> \"$GITHUB_OUTPUT\"; sleep 0.2
  legs:
    runs-on: ubuntu-latest
    strategy: {matrix: {leg: [a, b]}}
    steps:
      - run: sleep 0.1; echo ${{ matrix.leg }}
  test:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - run: test '${{ needs.build.outputs.made }}' = it
";
/// Requests that are under way at each kill.
const REQUESTS: usize = 4;
/// Jobs at a time.
const SLOTS: &str = "4";
/// The latest moment of a kill, and the longest absence, in milliseconds.
const LATEST_MS: u64 = 2000;
const ABSENCE_MS: u64 = 500;
/// For all answers after a kill: longer than every back-off and lease there is.
const LIMIT: Duration = Duration::from_secs(180);
/// Between two looks at the relay's journal.
const LOOK: Duration = Duration::from_millis(50);

/// What is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The relay; it keeps its events.
    Relay,
    /// The coordinator.
    Coordinator,
    /// The worker, with jobs of the `host` back end.
    Worker,
}

/// One kill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kill {
    /// Of what.
    pub role: Role,
    /// After the requests were accepted by the relay.
    pub after: Duration,
    /// Until the role is started again.
    pub absence: Duration,
}

impl Kill {
    /// What a seed decides.
    pub fn of(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let role = match random.random_range(0..3) {
            0 => Role::Relay,
            1 => Role::Coordinator,
            _ => Role::Worker,
        };
        let mut millis = |limit| Duration::from_millis(random.random_range(0..limit));
        Self { role, after: millis(LATEST_MS), absence: millis(ABSENCE_MS) }
    }
}

impl fmt::Display for Kill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Relay => "relay",
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
        };
        write!(f, "{role} killed after {} ms for {} ms", self.after.as_millis(), self.absence.as_millis())
    }
}

/// A pool of processes that can be killed.
pub struct Victims {
    worker: Option<Process>,
    coordinator: Option<Process>,
    world: World,
    pool: Pool,
    relay: Option<Relay>,
    port: u16,
    folder: tempfile::TempDir,
    /// Every request so far.
    requests: Vec<[Event; 2]>,
}

impl Victims {
    /// Starts relay, coordinator and worker.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let port = free_port()?;
        let relay = Relay::start_journaled(folder.path(), port, &folder.path().join("events"))?;
        let world = World::new(&relay.url, &[(PATH, WORKFLOW)]).await?;
        let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url))?
            .with("LONGSHORE_LIMITS_AUTHOR_PER_MINUTE", "100000");
        let mut victims = Self {
            worker: None,
            coordinator: None,
            world,
            pool,
            relay: Some(relay),
            port,
            folder,
            requests: Vec::new(),
        };
        victims.coordinator = Some(victims.pool.coordinator()?);
        victims.worker = Some(victims.start_worker()?);
        Ok(victims)
    }

    /// Sends requests, kills, starts again, and checks what was published.
    pub async fn survive(&mut self, kill: Kill) -> Result<()> {
        let mut publisher = Publisher::connect(&self.url()?).await?;
        let first = self.requests.len();
        for _ in 0..REQUESTS {
            let (run, job) = self.world.press(self.pool.pubkey, PATH).events()?;
            let pair = [run, job];
            publisher.publish_all(&pair).await?;
            self.requests.push(pair);
        }
        tokio::time::sleep(kill.after).await;
        self.kill(kill).await?;
        let requests = self.requests.get(first..).unwrap_or_default().to_vec();
        self.until_answered(&requests).await?;
        for request in &requests {
            self.check_jobs(request).await?;
        }
        check(&self.published()?, &self.requests)
    }

    async fn kill(&mut self, kill: Kill) -> Result<()> {
        match kill.role {
            Role::Relay => {
                self.relay.take().context("there is a relay")?.process.kill()?;
                tokio::time::sleep(kill.absence).await;
                self.relay = Some(Relay::start_journaled(self.folder.path(), self.port, &self.journal())?);
            }
            Role::Coordinator => {
                self.coordinator.take().context("there is a coordinator")?.kill()?;
                tokio::time::sleep(kill.absence).await;
                self.coordinator = Some(self.pool.coordinator()?);
            }
            Role::Worker => {
                self.worker.take().context("there is a worker")?.kill()?;
                tokio::time::sleep(kill.absence).await;
                self.worker = Some(self.start_worker()?);
            }
        }
        Ok(())
    }

    fn start_worker(&self) -> Result<Process> {
        self.pool.worker(&[("LONGSHORE_SANDBOX", "host"), ("LONGSHORE_SLOTS", SLOTS)])
    }

    fn journal(&self) -> PathBuf {
        self.folder.path().join("events")
    }

    fn url(&self) -> Result<String> {
        Ok(self.relay.as_ref().context("there is a relay")?.url.clone())
    }

    /// Everything that the relay ever took, replaced events included, each once.
    fn published(&self) -> Result<Vec<Event>> {
        let text = std::fs::read_to_string(self.journal())?;
        let mut known = BTreeSet::new();
        let events = text.lines().filter_map(|line| Event::from_json(line).ok());
        Ok(events.filter(|event| known.insert(event.id)).collect())
    }

    async fn until_answered(&self, requests: &[[Event; 2]]) -> Result<()> {
        let until = Instant::now() + LIMIT;
        loop {
            let published = self.published()?;
            let missing = requests.iter().filter(|request| !is_answered(&published, request)).count();
            if missing == 0 {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("{missing} of {} requests have no result after {LIMIT:?}\n{}", requests.len(), self.logs());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Each job ended once: of its attempts all but the last were lost.
    async fn check_jobs(&self, [run, _]: &[Event; 2]) -> Result<()> {
        let url = format!("{}/api/runs/{}", self.pool.http, run.id.to_hex());
        let shown: Value = reqwest::get(&url).await?.error_for_status()?.json().await?;
        for job in shown["jobs"].as_array().context("a run has jobs")? {
            ensure!(!job["conclusion"].is_null(), "a job of an ended run has not ended: {job}");
            let attempts = job["attempts"].as_array().map(Vec::as_slice).unwrap_or_default();
            let counted = attempts.iter().filter(|attempt| attempt["lost"].is_null()).count();
            ensure!(counted <= 1, "a job has {counted} attempts that count: {job}");
        }
        Ok(())
    }

    /// What the processes said last.
    fn logs(&self) -> String {
        let processes = [("coordinator", &self.coordinator), ("worker", &self.worker)];
        let tail = |(name, process): (&str, &Option<Process>)| {
            let text = process.as_ref().map(Process::text).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(40).collect();
            format!("---- {name}\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n"))
        };
        processes.into_iter().map(tail).collect()
    }
}

fn is_final(event: &Event) -> bool {
    event.kind == Kind::from(kind::STATUS) && !matches!(tag(event, "status").as_str(), "queued" | "running")
}

fn is_answered(published: &[Event], [run, job]: &[Event; 2]) -> bool {
    let about = |event: &&Event| [run, job].iter().any(|asked| refers_to(event, &asked.id.to_hex()));
    let of = |kind: u16| published.iter().filter(about).any(|event| event.kind == Kind::from(kind));
    of(kind::RESULT) && of(kind::WORKFLOW_RESULT) && published.iter().filter(about).any(is_final)
}

/// No request was lost, and nothing about one was published under two ids.
fn check(published: &[Event], requests: &[[Event; 2]]) -> Result<()> {
    let mut ids: BTreeMap<(String, u16, String), BTreeSet<nostr::EventId>> = BTreeMap::new();
    for event in published {
        let kind = event.kind.as_u16();
        if ![kind::STATUS, kind::RESULT, kind::WORKFLOW_RESULT].contains(&kind) {
            continue;
        }
        // A job has one event for each status, however it ends, and one result of each kind.
        let what = match kind {
            kind::STATUS if !is_final(event) => tag(event, "status"),
            _ => String::new(),
        };
        for asked in requests.iter().flatten().filter(|asked| refers_to(event, &asked.id.to_hex())) {
            ids.entry((asked.id.to_hex(), kind, what.clone())).or_default().insert(event.id);
        }
    }
    let twice: Vec<_> = ids.iter().filter(|(_, ids)| ids.len() > 1).collect();
    ensure!(twice.is_empty(), "published under two ids: {twice:?}");
    let lost = requests.iter().filter(|request| !is_answered(published, request)).count();
    ensure!(lost == 0, "{lost} requests have no result");
    Ok(())
}

/// Kills as often as told, one seed after the other, and says what became of each. Gives how many passed and failed.
pub async fn run(kills: u64, first: u64, mut say: impl FnMut(&str)) -> Result<(u64, u64)> {
    let (mut passed, mut failed) = (0, 0);
    let mut victims = Victims::start().await?;
    for seed in first..first.saturating_add(kills) {
        let kill = Kill::of(seed);
        match victims.survive(kill).await {
            Ok(()) => {
                passed += 1;
                say(&format!("seed {seed}: {kill}: passed"));
            }
            Err(error) => {
                failed += 1;
                say(&format!("seed {seed}: {kill}: FAILED: {error:#}"));
                // What is wrong now would fail every later kill too.
                victims = Victims::start().await?;
            }
        }
    }
    Ok((passed, failed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use nostr::Keys;

    use super::*;
    use crate::harness::client::sign;

    #[test]
    fn a_seed_decides_and_all_roles_are_killed() {
        assert_eq!(Kill::of(7), Kill::of(7));
        for role in [Role::Relay, Role::Coordinator, Role::Worker] {
            assert!((0..20).any(|seed| Kill::of(seed).role == role), "{role:?}");
        }
    }

    #[test]
    fn a_result_under_two_ids_and_a_request_without_one_are_noticed() {
        let keys = Keys::generate();
        let event = |kind, tags: &[[&str; 2]]| {
            sign(&keys, kind, tags.iter().map(|tag| tag.map(str::to_owned).to_vec()).collect()).unwrap()
        };
        let request = [event(kind::RUN, &[]), event(kind::JOB, &[])];
        let (run, job) = (request[0].id.to_hex(), request[1].id.to_hex());
        let answer = |kind, status| event(kind, &[["e", &job], ["e", &run], ["status", status]]);
        let mut published = vec![
            answer(kind::STATUS, "queued"),
            answer(kind::STATUS, "completed"),
            answer(kind::RESULT, "completed"),
            answer(kind::WORKFLOW_RESULT, "completed"),
        ];
        let requests = [request];
        check(&published, &requests).unwrap();
        published.push(answer(kind::RESULT, "again"));
        assert!(check(&published, &requests).unwrap_err().to_string().contains("two ids"));
        published.truncate(3);
        assert!(check(&published, &requests).unwrap_err().to_string().contains("1 requests have no result"));
        published.push(answer(kind::STATUS, "failed"));
        assert!(check(&published, &requests).unwrap_err().to_string().contains("two ids"));
    }
}
