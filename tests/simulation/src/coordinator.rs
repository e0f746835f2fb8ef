//! One life of a coordinator's process: the real run service, dispatch and store, on a simulated disk, between simulated
//! workers and a simulated relay. What needs a git server or a relay is answered from the scenario.

use std::{path::PathBuf, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use config::Config;
use coordinator::{RunService, RunServiceConfig};
use dispatch::{ActionsAccess, ActionsApi, Dispatch, DispatchConfig, SourceObjects};
use domain::run::{AttemptId, FinalizedLog, RunEvent, RunRequest};
use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use logs::Logs;
use nostr::Keys;
use nostr_client::{
    delivery::DeliveryPlan,
    outbox::Outbox,
    protocol::{Protocols, Secrets},
    relays::Relays,
};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use proto::worker::{ResolveRequest, Resolved};
use store::{Change, ClaimedWork, LaneOrder, Store, WorkKind, seal::StoreKey};
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;
use work::{Outcome, WorkHandler};
use workflow::plan::JobOrder;

use crate::{
    clock,
    disk::Machine,
    observer::Observer,
    relay::{Answer, Relay},
};

/// Id of the coordinator, the same in each life.
const COORDINATOR: &str = "simulated";
/// URL of the one relay.
const RELAY: &str = "wss://relay.example/";
/// Waits after an error.
const AGAIN: Duration = Duration::from_secs(1);

/// Where workers find the coordinator: nothing listens while there is none.
#[derive(Clone, Default)]
pub(crate) struct Address(Arc<Mutex<Option<Listening>>>);

/// What listens, the signal to stop, and the end of its process.
type Listening = (Dispatch, CancellationToken, CancellationToken);

impl Address {
    pub(crate) fn get(&self) -> Option<Listening> {
        self.0.lock().clone()
    }
}

/// What outlives a process.
pub(crate) struct Machinery {
    /// The database, as it is on the disk.
    pub(crate) store: Store,
    pub(crate) disk: Machine,
    pub(crate) relay: Relay,
    pub(crate) address: Address,
    pub(crate) observer: Observer,
    pub(crate) keys: Keys,
    /// Identities of workers that may join.
    pub(crate) workers: Vec<String>,
}

/// A process that runs.
pub(crate) struct Life {
    pub(crate) run_service: RunService,
    stop: CancellationToken,
    killed: CancellationToken,
    address: Address,
}

impl Life {
    /// `kill -9`: nothing that it was about to do happens any more.
    pub(crate) fn kill(self) {
        *self.address.0.lock() = None;
        self.killed.cancel();
        self.stop.cancel();
    }

    /// `SIGTERM`: it may end what it has begun.
    pub(crate) async fn end(self) {
        self.stop.cancel();
        tokio::time::sleep(Duration::from_secs(5)).await;
        self.kill();
    }
}

impl Machinery {
    /// Starts a process.
    pub(crate) async fn start(&self) -> Result<Life> {
        let (stop, killed) = (CancellationToken::new(), CancellationToken::new());
        let store = self.store.reopen_on(Arc::new(self.disk.mount(killed.clone())))?;
        let config = Arc::new(Config {
            relays: config::Relays { write: vec![RELAY.into()], ..config::Relays::default() },
            policy: config::Policy { max_duration: 1500, ..config::Policy::default() },
            ..Config::default()
        });
        let relays = Relays::new(&self.keys, &config.relays);
        let delivery = DeliveryPlan::new(relays, &config.relays, clock::now);
        let protocols = Protocols::new(&[&nostr_client::protocol::hive_ci::HiveCi]);
        let outbox = Outbox::new(self.keys.clone(), protocols, delivery);
        let key = StoreKey::from_hex(&"5".repeat(64))?;
        let run_service = RunServiceConfig {
            store: store.clone(),
            store_key: key,
            outbox,
            served: Default::default(),
            config: config.clone(),
            clock: clock::now,
        };
        let run_service = run_service.build(&mut Registry::default());
        let dispatch = DispatchConfig {
            store: store.clone(),
            runs: Arc::new(run_service.clone()),
            logs: Logs::new(PathBuf::from("/nonexistent")),
            objects: Arc::new(Nothing),
            actions_api: Arc::new(Nothing),
            configured_workers: self.workers.clone(),
            coordinator: COORDINATOR.into(),
            token_key: [9; 32],
            bulk_url: String::new(),
            log_bytes: config.limits.log_bytes,
            worker_slots: config.limits.worker_slots,
            timeouts: config.lease_timeouts,
            unmatched: Duration::from_secs(config.queue.unmatched),
            clock: clock::now,
        }
        .build();
        dispatch.read_leases().await?;
        let taking = run_service.clone();
        let running = Running { store, run_service, relay: self.relay.clone(), observer: self.observer.clone() };
        let assigning = (dispatch.clone(), stop.clone());
        spawn(&killed, async move { assigning.0.run(assigning.1).await });
        let kinds = [WorkKind::Plan, WorkKind::FinalizeLog, WorkKind::Wake, WorkKind::Expire];
        let of_runs = kinds.map(|kind| Arc::new(RunWork { kind, running: running.clone() }) as Arc<dyn WorkHandler>);
        let mut handlers = Vec::from(of_runs);
        handlers.push(Arc::new(Deliveries { relay: self.relay.clone() }));
        let work =
            work::Config { store: running.store.clone(), coordinator: COORDINATOR.into(), clock: clock::now, handlers };
        let (work, stopped) = (work.build(), stop.clone());
        spawn(&killed, async move { _ = work.run(stopped).await });
        spawn(&killed, running.take_in());
        *self.address.0.lock() = Some((dispatch, stop.clone(), killed.clone()));
        Ok(Life { run_service: taking, stop, killed, address: self.address.clone() })
    }
}

/// A task that ends with its process.
fn spawn(killed: &CancellationToken, task: impl Future<Output = ()> + Send + 'static) {
    let killed = killed.clone();
    tokio::spawn(async move { killed.run_until_cancelled(task).await });
}

/// What a process works with.
#[derive(Clone)]
struct Running {
    store: Store,
    run_service: RunService,
    relay: Relay,
    observer: Observer,
}

impl Running {
    /// Makes runs of requests, each once, however often the relay gives it.
    async fn take_in(self) {
        let mut requests = self.relay.requests();
        loop {
            while !self.relay.is_up() {
                tokio::time::sleep(AGAIN).await;
            }
            let known = requests.borrow_and_update().clone();
            for asked in known {
                while let Err(error) = self.accept(&asked.request).await {
                    self.observer.note(&format!("a request is not taken in: {error:#}"));
                    tokio::time::sleep(AGAIN).await;
                }
            }
            if requests.changed().await.is_err() {
                return;
            }
        }
    }

    async fn accept(&self, request: &RunRequest) -> Result<()> {
        if self.store.seen(&request.id).await? {
            return Ok(());
        }
        let settle = vec![Change::Seen { id: request.id.clone(), at: clock::now() }];
        let made = self.run_service.accept(request.clone(), None, &Secrets::default(), settle).await?;
        self.observer.note(&format!("{} is accepted", self.observer.run(made.id.as_str())));
        Ok(())
    }

    async fn perform(&self, row: &ClaimedWork) -> Result<Outcome> {
        let done = vec![row.complete()];
        let Some(run) = &row.run else { return Ok(Outcome::Store(done)) };
        let Some(state) = self.store.run(run).await? else { return Ok(Outcome::Store(done)) };
        let event = match row.kind {
            WorkKind::Plan => {
                let requests = self.relay.requests();
                let asked = requests.borrow().iter().find(|asked| asked.request.id == state.request.id).cloned();
                match asked.context("the request is there")?.planned {
                    Some(planned) => RunEvent::Planned(Box::new(planned)),
                    None => RunEvent::Unplannable { message: "the workflow is wrong".into() },
                }
            }
            WorkKind::FinalizeLog => RunEvent::LogFinalized { log: FinalizedLog::default() },
            WorkKind::Wake => {
                let payload: serde_json::Value = row.read_payload()?;
                RunEvent::Due { job: payload["job"].as_str().context("a wake-up names a job")?.into() }
            }
            WorkKind::Expire => RunEvent::Expired,
            WorkKind::ReportRun
            | WorkKind::Serve
            | WorkKind::Publish
            | WorkKind::PublishToOthers
            | WorkKind::Webhook
            | WorkKind::Retain
            | WorkKind::Trigger => {
                anyhow::bail!("it is no work of a run")
            }
        };
        self.run_service.apply(run, event, done).await?;
        Ok(Outcome::Stored)
    }
}

/// Does what runs ask for, as the product's own handlers do with real sources and logs.
struct RunWork {
    kind: WorkKind,
    running: Running,
}

impl WorkHandler for RunWork {
    fn kind(&self) -> WorkKind {
        self.kind
    }

    fn parallelism(&self) -> u32 {
        8
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        async move { self.running.perform(rows.first().context("a claim has a row")?).await }.boxed()
    }
}

/// Sends events to the simulated relay, as the product's own handler of this kind does to real ones.
struct Deliveries {
    relay: Relay,
}

impl WorkHandler for Deliveries {
    fn kind(&self) -> WorkKind {
        WorkKind::Publish
    }

    fn parallelism(&self) -> u32 {
        8
    }

    fn lanes(&self) -> LaneOrder {
        LaneOrder::InOrder { batch: 16 }
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        async move {
            let mut batch = Vec::new();
            let mut waits = false;
            for row in rows {
                let delivery: serde_json::Value = row.read_payload()?;
                let event = delivery["event"]["id"].as_str().context("a delivery has an event")?.to_owned();
                if waits || self.relay.publish(&event, delivery["event"].to_string()).await == Answer::Unknown {
                    let again = clock::now().saturating_add(if waits { 0 } else { 2000 });
                    batch.push(if waits { row.release() } else { row.retry(again, "the relay does not answer") });
                    waits = true;
                    continue;
                }
                let (relay, answer, at) = (RELAY.to_owned(), String::new(), clock::now());
                batch.push(Change::Delivered { event, relay, answer, at });
                batch.push(row.complete());
            }
            Ok(Outcome::Store(batch))
        }
        .boxed()
    }
}

/// What no job here asks for.
struct Nothing;

fn nothing<'a, T: Send + 'a>() -> BoxFuture<'a, anyhow::Result<T>> {
    std::future::ready(Err(anyhow::anyhow!("it is not there"))).boxed()
}

impl SourceObjects for Nothing {
    fn bundle<'a>(
        &'a self,
        _: &'a str,
        _: &'a [String],
        _: &'a [String],
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>> {
        nothing()
    }

    fn resolve<'a>(&'a self, _: &'a str, _: &'a ResolveRequest) -> BoxFuture<'a, anyhow::Result<Resolved>> {
        nothing()
    }

    fn archive<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<BoxStream<'static, std::io::Result<Bytes>>>> {
        nothing()
    }
}

impl ActionsApi for Nothing {
    fn access<'a>(&'a self, _: &'a AttemptId, _: &'a JobOrder) -> Option<ActionsAccess> {
        None
    }

    fn serve(&self, _: AttemptId, _: Arc<dyn Fn() -> bool + Send + Sync>, _: DuplexStream) -> BoxFuture<'static, ()> {
        std::future::ready(()).boxed()
    }
}
