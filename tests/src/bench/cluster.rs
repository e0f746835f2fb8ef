//! A coordinator that serves simulated workers: relay, repository and coordinator are real processes, as in a pool of an
//! operator, with TLS on the worker port.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nostr::Event;
use serde_json::Value;

use super::fleet::{self, Duty, Fleet};
use crate::harness::{
    pool::Pool,
    process::Process,
    raw_relay,
    world::{Relay, World},
};

/// For requests to become jobs.
const PLANNED: Duration = Duration::from_secs(120);
/// Requests that are sent before their jobs are waited for.
const AT_ONCE: usize = 500;

/// Relay, repository and coordinator.
pub(super) struct Cluster {
    world: World,
    coordinator: Option<Process>,
    pool: Pool,
    relay: Relay,
    folder: tempfile::TempDir,
    client: reqwest::Client,
}

/// How a cluster is set up.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    /// Workers that are enrolled.
    pub(super) workers: usize,
    /// Subscriptions that the relay grants a connection; `None`: more than are ever asked for.
    pub(super) subscriptions: Option<usize>,
    /// Legs of the matrix in each workflow.
    pub(super) legs: &'static [usize],
    /// Where the coordinator keeps its state.
    pub(super) database: Database,
}

impl Setup {
    /// With SQLite, and a relay that grants any number of subscriptions.
    pub(super) fn new(workers: usize, legs: &'static [usize]) -> Self {
        Self { workers, subscriptions: None, legs, database: Database::Sqlite }
    }
}

/// What a coordinator keeps its state in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Database {
    /// SQLite, as it is unless configured otherwise.
    Sqlite,
    /// A PostgreSQL server of this process.
    Postgres,
}

/// Path of the workflow whose matrix has this many legs.
pub(super) fn workflow(legs: usize) -> String {
    format!(".github/workflows/matrix-{legs}.yml")
}

/// One job with a matrix of this many legs, each a step that prints a word.
pub(super) fn workflow_text(legs: usize) -> String {
    let values: Vec<String> = (0..legs).map(|leg| leg.to_string()).collect();
    format!(
        "name: bench\non: push\njobs:\n  work:\n    runs-on: ubuntu-latest\n    strategy:\n      fail-fast: false\n      \
         matrix: {{leg: [{}]}}\n    steps:\n      - run: echo hi\n",
        values.join(", ")
    )
}

impl Cluster {
    /// Starts everything but workers.
    pub(super) async fn start(setup: Setup) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let relay = match setup.subscriptions {
            None => Relay::start(folder.path())?,
            Some(limit) => Relay::start_limited(folder.path(), limit)?,
        };
        let files: Vec<(String, String)> =
            setup.legs.iter().map(|legs| (workflow(*legs), workflow_text(*legs))).collect();
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
        let world = World::new(&relay.url, &files).await?;
        let identities = fleet::identities(setup.workers)?.join(",");
        // The requests of one author are many; the default rate is for people.
        let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url))?
            .with("LONGSHORE_LIMITS_AUTHOR_PER_MINUTE", "1000000")
            .with("LONGSHORE_WORKERS", &identities);
        let pool = match setup.database {
            Database::Sqlite => pool,
            Database::Postgres => pool.with("LONGSHORE_STORE_URL", &store::testing::postgres_database().await?),
        };
        let coordinator = Some(pool.coordinator()?);
        Ok(Self { world, coordinator, pool, relay, folder, client: reqwest::Client::new() })
    }

    /// Connects workers with these numbers, idle at first.
    pub(super) async fn fleet(&self, numbers: std::ops::Range<usize>) -> Result<Fleet> {
        Fleet::connect(&self.pool.grpc_url(), &self.pool.folder.join("ca.pem"), numbers, 1).await
    }

    /// The same without waiting for their sessions: they connect once there is a coordinator.
    pub(super) fn fleet_from(&self, numbers: std::ops::Range<usize>, duty: Duty) -> Result<Fleet> {
        Fleet::start(&self.pool.grpc_url(), &self.pool.folder.join("ca.pem"), numbers, 1, duty)
    }

    /// Signed requests, each a run event and its job event.
    pub(super) fn requests(&self, legs: usize, count: usize) -> Result<Vec<Vec<Event>>> {
        let pair = |_| {
            let (run, job) = self.world.press(self.pool.pubkey, &workflow(legs)).events()?;
            Ok(vec![run, job])
        };
        (0..count).map(pair).collect()
    }

    /// Publishes requests, and waits until all their jobs are in the queue: no worker may take jobs meanwhile.
    pub(super) async fn queue(&self, legs: usize, count: usize) -> Result<Vec<Vec<Event>>> {
        let requests = self.requests(legs, count)?;
        let mut expected = self.queued().await?;
        // A relay drops events for a subscriber that is far behind.
        for some in requests.chunks(AT_ONCE) {
            raw_relay::publish_groups(&self.relay.url, some).await?;
            expected += legs * some.len();
            let until = Instant::now() + PLANNED;
            loop {
                let queued = self.queued().await?;
                if queued == expected {
                    break;
                }
                ensure!(Instant::now() < until, "{queued} of {expected} jobs are queued");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        Ok(requests)
    }

    /// Jobs that wait for a worker.
    pub(super) async fn queued(&self) -> Result<usize> {
        let queue = self.api("api/queue").await?;
        let shown = queue["entries"].as_array().context("the queue has no entries")?.len();
        Ok(shown + queue["others"].as_u64().and_then(|others| usize::try_from(others).ok()).unwrap_or_default())
    }

    /// Waits until no request is being planned and no job waits or runs.
    pub(super) async fn until_idle(&self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while self.api("api/runs?status=running&limit=1").await? != Value::Array(Vec::new()) || self.queued().await? > 0
        {
            ensure!(Instant::now() < until, "runs are still under way after {limit:?}");
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    /// What the coordinator's API answers.
    pub(super) async fn api(&self, path: &str) -> Result<Value> {
        let url = format!("{}/{path}", self.pool.http);
        let response = self.client.get(&url).send().await?.error_for_status()?;
        Ok(response.json().await?)
    }

    /// Ends the relay: what the coordinator publishes from now on stays in its outbox.
    pub(super) fn end_relay(&mut self) -> Result<()> {
        self.relay.process.signal(nix::sys::signal::Signal::SIGKILL)
    }

    /// The coordinator's process.
    pub(super) fn coordinator(&self) -> Result<u32> {
        Ok(self.coordinator.as_ref().context("the coordinator does not run")?.id())
    }

    /// `kill -9`.
    pub(super) fn kill_coordinator(&mut self) -> Result<()> {
        self.coordinator.take().context("the coordinator does not run")?.kill()
    }

    /// Asks the coordinator to end, and waits for it.
    pub(super) fn end_coordinator(&mut self) {
        drop(self.coordinator.take());
    }

    /// Starts the coordinator again. Gives how long it took to be ready.
    pub(super) async fn start_coordinator(&mut self) -> Result<Duration> {
        let from = Instant::now();
        let mut process = self.pool.start_coordinator()?;
        loop {
            if self.client.get(format!("{}/readyz", self.pool.http)).send().await.is_ok_and(|r| r.status().is_success())
            {
                break;
            }
            ensure!(process.runs()?, "the coordinator ended: {}", process.text());
            ensure!(from.elapsed() < PLANNED, "the coordinator is not ready: {}", process.text());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        self.coordinator = Some(process);
        Ok(from.elapsed())
    }

    /// The relay's URL.
    pub(super) fn relay(&self) -> &str {
        &self.relay.url
    }

    /// The relay's process.
    pub(super) fn relay_process(&self) -> u32 {
        self.relay.process.id()
    }

    /// The coordinator's database.
    pub(super) fn database(&self) -> PathBuf {
        self.pool.folder.join("data/longshore.db")
    }

    /// A folder that goes away with the cluster.
    pub(super) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }
}
