//! Joins the subsystems of a coordinator: requests become runs, and the effects of runs are carried out. Start reading here.
//!
//! `admission` takes requests, `run_service` is the only writer of runs and `unit_of_work` collects what one event changes
//! together. `background` carries out stored work, `planner` turns requests into plans, `log_publisher` finalizes and
//! publishes logs. `adapters` has one file for each thing that one subsystem needs of another.

mod adapters;
mod admission;
mod background;
mod definitions;
mod disk_usage;
mod effect_rows;
mod listener;
mod log_publisher;
mod metrics;
mod planner;
mod repository_policy;
mod rerun_artifacts;
mod restored;
mod retention;
mod run_secrets;
mod run_service;
mod run_trace;
mod state_cache;
mod unit_of_work;
mod workflow_source;

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use nostr::{Keys, PublicKey};
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use url::Url;

pub use disk_usage::DiskUsage;
pub use run_service::{Applied, RunService};

use self::{
    adapters::{actions_api::Services, object_source::ObjectSource, operator_api::Operator, relay_lookup::RelayLookup},
    admission::Admission,
    background::RunWork,
    definitions::Definitions,
    listener::listen,
    log_publisher::LogPublisher,
    metrics::Metrics,
    planner::Planner,
};
use actions_api::{ActionsApi, Issuer};
use blobs::{Blobs, client::Client};
use config::{Config, keys};
use dispatch::{Dispatch, DispatchConfig, ServerTls};
use domain::run::Millis;
use logs::Logs;
use nostr_client::{
    advertise::{Advertiser, PoolLoad},
    delivery::DeliveryPlan,
    intake::IntakeConfig,
    outbox::Outbox,
    policy::Policy,
    protocol::Protocols,
    publish::Publisher,
    relays::{Answer, Relays},
    remote_signer::RemoteSigners,
};
use source::RepositoryMirrors;
use store::{ChangeNotification, Store, seal::StoreKey};
use work::WorkHandler;

/// Stages get this long to end after the shutdown was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// The families of events that are listened for and answered.
const PROTOCOLS: Protocols = Protocols::new(&[&nostr_client::protocol::hive_ci::HiveCi]);

/// A coordinator that listens.
pub struct Running {
    /// Where the pages are.
    pub http: std::net::SocketAddr,
    /// Where workers connect.
    pub grpc: std::net::SocketAddr,
    /// Its Nostr key.
    pub pubkey: PublicKey,
    /// Each relay with its answer to the advertisement.
    pub advertised: Vec<(String, Answer)>,
    stages: TaskTracker,
    failed: tokio::sync::mpsc::Receiver<anyhow::Error>,
    stop: CancellationToken,
}

fn now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX))
}

/// Starts every stage. Returns when it listens and the pool is advertised.
///
/// # Errors
/// Something that it can't begin without: a key, a folder, a port. The text says which and what to do.
pub async fn start(config: Config, stop: CancellationToken) -> anyhow::Result<Running> {
    let keys = keys::read_nostr_key(&config.key_file)?;
    let secret = keys::read_store_key(&config.store_key_file)?;
    let store_key = StoreKey::from_hex(&zeroize::Zeroizing::new(hex::encode(*secret)))?;
    std::fs::create_dir_all(&config.data)
        .with_context(|| format!("data folder {}: make it writable or set `data`", config.data.display()))?;
    let http = listen("http", &config.http).await?;
    let grpc = listen("grpc", &config.grpc).await?;
    let (http_at, grpc_at) = (http.local_addr()?, grpc.local_addr()?);
    let public_url = match config.public_url.trim_end_matches('/') {
        "" => format!("http://{http_at}"),
        url => url.to_owned(),
    };
    let config = Arc::new(Config { public_url: public_url.clone(), ..config });

    let store = match config.store.url.as_str() {
        "" => Store::open(&config.data.join("longshore.db")).await?,
        url => Box::pin(Store::connect(url)).await?,
    };
    let store = store.with_min_free(&config.data, config.store.min_free);
    let relays = Relays::new(&keys, &config.relays);
    let delivery = DeliveryPlan::new(relays.clone(), &config.relays, now);
    let outbox = Outbox::new(keys.clone(), PROTOCOLS, delivery);
    let lookup = RelayLookup { relays: relays.clone(), config: config.relays.clone() };
    let sources = RepositoryMirrors::new(config.data.join("mirrors"), config.source.clone(), Arc::new(lookup));
    let sources = Arc::new(sources.with_actions(config.actions.clone()));
    let mut registry = metrics::registry();
    let run_service = RunService::new(store.clone(), store_key, outbox, config.clone(), &mut registry, now);
    restored::end_answered(&run_service, &relays, &config.relays, &keys.public_key()).await?;
    let logs = Logs::new(config.data.join("logs"));
    let blobs = Blobs::open_alone(&config.data.join("blobs"), store.clone())?;
    let archive = LogPublisher {
        blobs: blobs.clone(),
        logs: logs.clone(),
        outside: Client::new()?,
        servers: servers(&config)?,
        keys: keys.clone(),
        config: config.clone(),
        public_url: public_url.clone(),
        clock: now,
    };
    let key = derive(&secret, b"tokens and URLs of jobs' services");
    let issuer = Issuer::open(&config.data.join("oidc.key"), &public_url)?;
    let documents = issuer.documents();
    let origin = ActionsApi::new(store.clone(), blobs.clone(), &key, config.kept.clone(), now).with_issuer(issuer);
    let coordinator = coordinator_id(&config.data)?;
    let dispatch = DispatchConfig {
        store: store.clone(),
        runs: Arc::new(run_service.clone()),
        logs: logs.clone(),
        objects: Arc::new(ObjectSource(sources.clone())),
        actions_api: Arc::new(Services { origin: origin.clone(), store: store.clone() }),
        configured_workers: config.workers.clone(),
        coordinator: coordinator.clone(),
        token_key: derive(&secret, b"attempt and enrolment tokens"),
        bulk_url: String::new(),
        timeouts: config.lease_timeouts,
        unmatched: Duration::from_secs(config.queue.unmatched),
        clock: now,
    }
    .build();
    let policy = Policy::new(&config.policy)?;
    policy.load(&relays, &config.relays.read).await;
    let advertiser = Advertiser::new(keys.clone(), relays.clone(), config.clone(), now);

    let (failures, failed) = tokio::sync::mpsc::channel(16);
    let stages = Stages { tracker: TaskTracker::new(), failures, stop: stop.clone() };
    let tls = tls(&config)?;
    {
        let (dispatch, stop) = (dispatch.clone(), stop.clone());
        stages.start("worker port", async move { dispatch.serve(grpc, tls, stop).await });
    }
    let definitions = Definitions::new(run_service.clone(), sources.clone(), policy.clone(), config.clone());
    let run_work = RunWork {
        run_service: run_service.clone(),
        planner: Planner {
            run_service: run_service.clone(),
            sources: sources.clone(),
            definitions: definitions.clone(),
            config: config.clone(),
        },
        log_publisher: archive.clone(),
        config: config.clone(),
    };
    let publisher = Publisher::new(store.clone(), relays.clone(), now);
    publisher.adopt_unsent(&keys, &run_service).await?;
    let webhooks = webhooks::Config { webhooks: config.webhooks.clone(), clock: now }.build();
    let retention = retention::Config {
        store: store.clone(),
        logs: logs.clone(),
        blobs: blobs.clone(),
        actions_api: origin,
        sources: sources.clone(),
        limits: config.retention,
        keep: config.keep_days.saturating_mul(24 * 3600 * 1000),
        clock: now,
    }
    .build();
    let mut handlers = run_work.handlers();
    handlers.extend([Arc::new(publisher) as Arc<dyn WorkHandler>, Arc::new(webhooks), Arc::new(retention)]);
    let work = work::Config { store: store.clone(), coordinator, clock: now, handlers };
    stages.start("background work", work.build().run(stop.clone()));
    let admission =
        Admission { run_service: run_service.clone(), sources: sources.clone(), policy: policy.clone(), archive };
    let intake = IntakeConfig {
        keys: keys.clone(),
        config: config.clone(),
        store: store.clone(),
        relays: relays.clone(),
        policy: policy.clone(),
        protocols: PROTOCOLS,
        handler: admission,
        clock: now,
    }
    .build();
    let web = web::Config {
        store: store.clone(),
        logs: logs.clone(),
        blobs: blobs.clone(),
        control: Arc::new(Operator {
            run_service: run_service.clone(),
            dispatch: dispatch.clone(),
            sources: sources.clone(),
            policy: policy.clone(),
            relays: relays.clone(),
            signers: RemoteSigners::new(&config.relays),
            config: config.clone(),
            definitions: definitions.clone(),
        }),
        metrics: Arc::new(Metrics::new(
            registry,
            metrics::SampleInputs {
                store: store.clone(),
                dispatch: dispatch.clone(),
                relays: relays.clone(),
                ignored: intake.counted(),
                logs: logs.clone(),
                data: config.data.clone(),
                clock: now,
            },
        )),
        settings: settings(&config, &keys, derive(&secret, b"links into private runs"), &public_url, documents)?,
    }
    .build();
    stages.start("web", web::serve(http, web, stop.clone()));
    stages.until_stopped("intake", intake.run());

    let (load, watched) = watch::channel(PoolLoad::default());
    stages.until_stopped("load", watch_load(store, dispatch, load));
    let advertised = advertiser.announce(*watched.borrow()).await?;
    stages.until_stopped("advertiser", async move {
        advertiser.run(watched).await;
        Ok(())
    });
    stages.tracker.close();
    let pubkey = keys.public_key();
    Ok(Running { http: http_at, grpc: grpc_at, pubkey, advertised, stages: stages.tracker, failed, stop })
}

impl Running {
    /// Returns once it has ended: it was asked to, or a stage failed.
    ///
    /// # Errors
    /// The failure of the stage that ended it.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let failure = tokio::select! {
            () = self.stop.cancelled() => None,
            failure = self.failed.recv() => failure,
        };
        self.stop.cancel();
        if tokio::time::timeout(GRACE, self.stages.wait()).await.is_err() {
            tracing::warn!("some work was cut off; it is done again after the next start");
        }
        failure.map_or(Ok(()), Err)
    }
}

/// Stages that end together.
struct Stages {
    tracker: TaskTracker,
    failures: tokio::sync::mpsc::Sender<anyhow::Error>,
    stop: CancellationToken,
}

impl Stages {
    /// A stage that hears of the shutdown itself.
    fn start(&self, name: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let (failures, stop) = (self.failures.clone(), self.stop.clone());
        self.tracker.spawn(async move {
            let ended = tokio::spawn(work).await.unwrap_or_else(|error| Err(error.into()));
            let failure = match ended {
                Err(error) => error.context(name),
                Ok(()) if stop.is_cancelled() => return,
                Ok(()) => anyhow::anyhow!("{name} ended"),
            };
            // Full or closed: an earlier failure is ending everything already.
            let _ = failures.try_send(failure);
        });
    }

    /// A stage that can be dropped at any moment.
    fn until_stopped(&self, name: &'static str, work: impl Future<Output = anyhow::Result<()>> + Send + 'static) {
        let stop = self.stop.clone();
        self.start(name, async move { stop.run_until_cancelled(work).await.unwrap_or(Ok(())) });
    }
}

fn tls(config: &Config) -> anyhow::Result<Option<ServerTls>> {
    let Some(tls) = &config.tls else { return Ok(None) };
    let read = |key: &str, path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("{key} {}: `longshore keygen` makes it", path.display()))
    };
    let certificate = read("tls.certificate", &tls.certificate)?;
    Ok(Some(ServerTls { certificate, key: read("tls.key", &tls.key)?.into() }))
}

fn servers(config: &Config) -> anyhow::Result<Arc<[Url]>> {
    let parse = |text: &String| {
        Url::parse(text).with_context(|| format!("blossom.servers: `{text}` is no URL: write it as https://HOST"))
    };
    config.blossom.servers.iter().map(parse).collect()
}

fn settings(
    config: &Config,
    keys: &Keys,
    link_key: [u8; 32],
    public_url: &str,
    documents: [(String, serde_json::Value); 2],
) -> anyhow::Result<web::Settings> {
    let hex = |key: &str, text: &String| {
        let parsed = PublicKey::parse(text);
        Ok(parsed.with_context(|| format!("{key}: `{text}` is no public key, give npub1… or 64 hex"))?.to_hex())
    };
    Ok(web::Settings {
        name: config.name.clone(),
        public_url: Url::parse(public_url)
            .with_context(|| format!("public_url = \"{public_url}\": write it as https://HOST"))?,
        pubkey: keys.public_key().to_hex(),
        relays: config.relays.read.clone(),
        operators: std::iter::once(Ok(keys.public_key().to_hex()))
            .chain(config.operators.iter().map(|text| hex("operators", text)))
            .collect::<anyhow::Result<_>>()?,
        writers: config
            .blossom
            .writers
            .iter()
            .map(|text| hex("blossom.writers", text))
            .collect::<anyhow::Result<_>>()?,
        link_key,
        well_known: documents.into_iter().collect(),
        max_blob: config.blossom.max_blob,
        max_total: config.blossom.max_total,
        keep: config.keep_days.saturating_mul(24 * 3600 * 1000),
        now,
    })
}

/// A key for one purpose, from the store key.
fn derive(secret: &[u8; 32], purpose: &[u8]) -> [u8; 32] {
    let tag = ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret), purpose);
    let mut key = [0; 32];
    key.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    key
}

/// Id of this coordinator in leases and claims: made once for its data folder.
fn coordinator_id(data: &std::path::Path) -> anyhow::Result<String> {
    let path = data.join("coordinator-id");
    match std::fs::read_to_string(&path) {
        Ok(id) if !id.trim().is_empty() => return Ok(id.trim().to_owned()),
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("{}: make it readable", path.display()));
        }
        _ => {}
    }
    let id = uuid::Uuid::now_v7().simple().to_string();
    std::fs::write(&path, &id).with_context(|| format!("{}: make its folder writable", path.display()))?;
    Ok(id)
}

/// Keeps what is advertised true.
async fn watch_load(store: Store, dispatch: Dispatch, load: watch::Sender<PoolLoad>) -> anyhow::Result<()> {
    let mut notices = store.subscribe();
    loop {
        let slots = dispatch.workers().iter().map(|worker| worker.slots).sum();
        let now = PoolLoad { slots, queued: u32::try_from(dispatch.queued()).unwrap_or(u32::MAX) };
        load.send_if_modified(|known| std::mem::replace(known, now) != now);
        loop {
            match notices.recv().await {
                Ok(ChangeNotification::Queue) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => break,
                Ok(_) => {}
                Err(tokio::sync::broadcast::error::RecvError::Closed) => anyhow::bail!("the store has stopped"),
            }
        }
        // An advertisement is for people: what changes within a second is one change.
        tokio::time::sleep(Duration::from_secs(1)).await;
        notices = store.subscribe();
    }
}
