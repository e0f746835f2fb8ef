//! Joins the subsystems of a coordinator: requests become runs, and the effects of runs are carried out. Start reading here.
//!
//! `admission` takes requests, `run_service` is the only writer of runs and `unit_of_work` collects what one event changes
//! together. `background` carries out stored work, `planner` turns requests into plans, `log_publisher` finalizes and
//! publishes logs. `following` listens for repositories whose pushes start workflows, and `trigger_work` starts them.
//! `subsystems` builds all that is joined here, and `adapters` has one file for each thing that one
//! subsystem needs of another.

mod adapters;
mod admission;
mod background;
mod definitions;
mod disk_usage;
mod effect_rows;
mod following;
mod keyed_locks;
mod known_maintainers;
mod listener;
mod log_publisher;
mod metrics;
mod places_by_key;
mod planner;
mod repository_policy;
mod repository_services;
mod repository_settings;
mod rerun_artifacts;
mod restored;
mod retention;
mod run_reporter;
mod run_secrets;
mod run_service;
mod run_trace;
mod secret_updates;
mod served_repositories;
mod state_cache;
mod subsystems;
mod trigger_work;
mod unit_of_work;
mod workflow_source;

use std::{future::Future, sync::Arc, time::Duration};

use anyhow::Context;
use nostr::PublicKey;
use tokio::sync::watch;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use disk_usage::DiskUsage;
pub use run_service::{Applied, RunService, RunServiceConfig};
pub use served_repositories::ServedRepositories;

use self::{listener::Ports, subsystems::Subsystems};
use config::Config;
use dispatch::{Dispatch, ServerTls};
use domain::run::Millis;
use nostr_client::{
    advertise::{Advertiser, PoolLoad},
    protocol::{Protocols, nip_c1::NipC1},
    relays::Answer,
};
use store::{ChangeNotification, Store};

/// Stages get this long to end after the shutdown was asked for.
const GRACE: Duration = Duration::from_secs(10);
/// The families of events that are listened for and answered.
const PROTOCOLS: Protocols = Protocols::new(&[&nostr_client::protocol::hive_ci::HiveCi, &NipC1]);
/// Those that are listened for where the operator wants no requests of the others.
const WITHOUT_NIP_C1: Protocols = Protocols::new(&[&nostr_client::protocol::hive_ci::HiveCi]);

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
    std::fs::create_dir_all(&config.data)
        .with_context(|| format!("data folder {}: make it writable or set `data`", config.data.display()))?;
    let Ports { http, grpc } = Ports::open(&config).await?;
    let (http_at, grpc_at) = (http.local_addr()?, grpc.local_addr()?);
    let public_url = match config.public_url.trim_end_matches('/') {
        "" => format!("http://{http_at}"),
        url => url.to_owned(),
    };
    let config = Arc::new(Config { public_url, ..config });
    let tls = tls(&config)?;
    let (parts, registry) = Subsystems::build(config.clone()).await?;

    let (failures, failed) = tokio::sync::mpsc::channel(16);
    let stages = Stages { tracker: TaskTracker::new(), failures, stop: stop.clone() };
    {
        let (dispatch, stop) = (parts.dispatch.clone(), stop.clone());
        stages.start("worker port", async move { dispatch.serve(grpc, tls, stop).await });
    }
    stages.start("background work", parts.background_work().await?.run(stop.clone()));
    let intake = parts.intake();
    stages.start("web", web::serve(http, parts.web(registry, intake.counted()), stop.clone()));
    stages.until_stopped("intake", intake.run());
    stages.until_stopped("maintainers", parts.known_maintainers().keep());
    following::follow_configured(&parts.store, &config, now()).await?;
    stages.until_stopped("followed repositories", parts.following().keep());

    let services = parts.services();
    services.begin().await?;
    let (offer, offered) = watch::channel(None);
    stages.until_stopped("offers", services.keep_offer(offer));

    let (load, watched) = watch::channel(PoolLoad::default());
    let advertiser = Advertiser::new(parts.keys.clone(), parts.relays.clone(), config, now, parts.secrets_keys.clone());
    let pubkey = parts.keys.public_key();
    stages.until_stopped("load", watch_load(parts.store, parts.dispatch, load));
    let advertised = advertiser.announce(*watched.borrow()).await?;
    stages.until_stopped("advertiser", async move {
        tokio::join!(advertiser.run(watched), advertiser.run_offers(offered));
        Ok(())
    });
    stages.tracker.close();
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
