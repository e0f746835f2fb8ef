//! What a coordinator is made of: each subsystem built once, from its configuration and the others that it needs.

use std::sync::Arc;

use anyhow::Context;
use nostr::{Keys, PublicKey};
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use url::Url;

use super::{
    PROTOCOLS, WITHOUT_NIP_C1,
    adapters::{
        actions_api::Services, job_repository::JobRepositories, object_source::ObjectSource, operator_api::Operator,
        profiles::Profiles, relay_lookup::RelayLookup,
    },
    admission::Admission,
    background::{RunWork, SLOW_PLANS},
    definitions::Definitions,
    following::Following,
    keyed_locks::KeyedLocks,
    known_maintainers::KnownMaintainers,
    log_publisher::LogPublisher,
    metrics::{self, Metrics},
    now,
    places_by_key::PlacesByKey,
    planner::Planner,
    repository_policy::RepositoryPolicy,
    repository_services::RepositoryServices,
    repository_settings::RepositorySettings,
    restored, retention,
    run_reporter::RunReporter,
    run_service::{RunService, RunServiceConfig},
    secret_updates::SecretUpdates,
    served_repositories::ServedRepositories,
    trigger_work::{FOREIGN_MIB_RATES, FOREIGN_PLACES, TriggerWork},
};
use actions_api::{ActionsApi, Issuer};
use blobs::{Blobs, client::Client};
use config::{Config, keys};
use dispatch::{Dispatch, DispatchConfig};
use domain::run::Repository;
use logs::Logs;
use nostr_client::{
    delivery::DeliveryPlan,
    intake::{Counted, Intake, IntakeConfig},
    outbox::Outbox,
    policy::Policy,
    protocol::nip_c1::SecretsKeys,
    publish::Publisher,
    relays::{Relays, normal},
    remote_signer::RemoteSigners,
};
use source::RepositoryMirrors;
use store::{RelayClass, Store, seal::StoreKey};
use triggers::outsider_rates::OutsiderRates;
use work::{WorkHandler, WorkLoop};

/// How long the header of an HTTP request may take, and how long a connection may be idle.
const IDLE: std::time::Duration = std::time::Duration::from_secs(20);

/// The subsystems; none of them does anything before its stage is started.
pub(super) struct Subsystems {
    config: Arc<Config>,
    pub(super) keys: Keys,
    pub(super) store: Store,
    pub(super) relays: Relays,
    pub(super) dispatch: Dispatch,
    run_service: RunService,
    sources: Arc<RepositoryMirrors>,
    definitions: Definitions,
    policy: Policy,
    logs: Logs,
    blobs: Blobs,
    log_publisher: LogPublisher,
    actions_api: ActionsApi,
    /// Id of this coordinator in leases and claims.
    coordinator: String,
    settings: web::Settings,
    /// What maintainers encrypt secrets for; not kept.
    pub(super) secrets_keys: Arc<Mutex<SecretsKeys>>,
}

impl Subsystems {
    /// Builds them, and the registry of the metrics that they count by themselves. Runs of a restored database that were
    /// answered before have ended when this returns.
    ///
    /// # Errors
    /// Something that a coordinator can't begin without: a key, a folder, the database. The text says which and what to do.
    pub(super) async fn build(config: Arc<Config>) -> anyhow::Result<(Self, Registry)> {
        let keys = keys::read_nostr_key(&config.key_file)?;
        let secret = keys::read_store_key(&config.store_key_file)?;
        let store_key = StoreKey::from_hex(&zeroize::Zeroizing::new(hex::encode(*secret)))?;
        let store = open_store(&config).await?;
        store.check_store_key(&store_key).await?;
        let relays = Relays::new(&keys, &config.relays);
        let delivery = DeliveryPlan::new(relays.clone(), &config.relays, now);
        let outbox = Outbox::new(keys.clone(), PROTOCOLS, delivery);
        let mut registry = metrics::registry();
        let served = ServedRepositories::new(&config)?;
        let run_service =
            RunServiceConfig { store: store.clone(), store_key, outbox, served, config: config.clone(), clock: now };
        let run_service = run_service.build(&mut registry);
        restored::end_answered(&run_service, &relays, &config.relays, &keys.public_key()).await?;

        let lookup = RelayLookup { relays: relays.clone(), config: config.relays.clone() };
        let sources = RepositoryMirrors::new(config.data.join("mirrors"), config.source.clone(), Arc::new(lookup));
        let rules = config.clone();
        let is_private = move |repository: &Repository| RepositoryPolicy::new(&rules, repository).is_private();
        let sources = Arc::new(sources.with_actions(config.actions.clone()).with_privacy(Arc::new(is_private)));
        let logs = Logs::new(config.data.join("logs"));
        let blobs = Blobs::open_alone(&config.data.join("blobs"), store.clone())?;
        let log_publisher = LogPublisher {
            blobs: blobs.clone(),
            logs: logs.clone(),
            outside: Client::new()?,
            servers: servers(&config)?,
            keys: keys.clone(),
            config: config.clone(),
            public_url: config.public_url.clone(),
            clock: now,
        };
        let issuer = Issuer::open(&config.data.join("oidc.key"), &config.public_url)?;
        let settings = settings(&config, &keys, derive(&secret, b"links into private runs"), issuer.documents())?;
        let key = derive(&secret, b"tokens and URLs of jobs' services");
        let actions_api = ActionsApi::new(store.clone(), blobs.clone(), &key, config.kept.clone(), now);
        let repositories = Arc::new(JobRepositories::new(sources.clone()));
        let actions_api = actions_api.with_issuer(issuer).with_repositories(repositories);
        let coordinator = coordinator_id(&config.data)?;
        let dispatch = DispatchConfig {
            store: store.clone(),
            runs: Arc::new(run_service.clone()),
            logs: logs.clone(),
            objects: Arc::new(ObjectSource { sources: sources.clone() }),
            actions_api: Arc::new(Services { origin: actions_api.clone(), store: store.clone() }),
            configured_workers: config.workers.clone(),
            coordinator: coordinator.clone(),
            token_key: derive(&secret, b"attempt and enrolment tokens"),
            bulk_url: String::new(),
            log_bytes: config.limits.log_bytes,
            worker_slots: config.limits.worker_slots,
            timeouts: config.lease_timeouts,
            unmatched: std::time::Duration::from_secs(config.queue.unmatched),
            clock: now,
        }
        .build();
        let policy = Policy::new(&config)?;
        policy.load(&relays, &config.relays.read).await;
        let definitions = Definitions::new(run_service.clone(), sources.clone(), policy.clone(), config.clone());
        let built = Self {
            config,
            keys,
            store,
            relays,
            dispatch,
            run_service,
            sources,
            definitions,
            policy,
            logs,
            blobs,
            log_publisher,
            actions_api,
            coordinator,
            settings,
            secrets_keys: Arc::default(),
        };
        Ok((built, registry))
    }

    /// The loop that does stored work, with a handler for each kind.
    ///
    /// # Errors
    /// The store can't be read or written.
    pub(super) async fn background_work(&self) -> anyhow::Result<WorkLoop> {
        let run_work = RunWork {
            run_service: self.run_service.clone(),
            planner: Planner {
                run_service: self.run_service.clone(),
                sources: self.sources.clone(),
                definitions: self.definitions.clone(),
                config: self.config.clone(),
            },
            log_publisher: self.log_publisher.clone(),
            config: self.config.clone(),
            slow_plans: PlacesByKey::new(SLOW_PLANS),
        };
        let publisher = |class| Publisher::new(self.store.clone(), self.relays.clone(), class, now);
        let (publisher, to_others) = (publisher(RelayClass::Own), publisher(RelayClass::Other));
        publisher.adopt_unsent(&self.keys, &self.run_service).await?;
        let webhooks = webhooks::Config { webhooks: self.config.webhooks.clone(), clock: now }.build();
        let retention = retention::Config {
            store: self.store.clone(),
            logs: self.logs.clone(),
            blobs: self.blobs.clone(),
            actions_api: self.actions_api.clone(),
            sources: self.sources.clone(),
            policy: self.policy.clone(),
            limits: self.config.retention,
            keep: self.config.keep_days.saturating_mul(24 * 3600 * 1000),
            clock: now,
        }
        .build();
        let trigger_work = TriggerWork {
            run_service: self.run_service.clone(),
            sources: self.sources.clone(),
            config: self.config.clone(),
            foreign: Arc::new(Mutex::new(OutsiderRates::new(FOREIGN_MIB_RATES))),
            foreign_places: Arc::new(PlacesByKey::new(FOREIGN_PLACES)),
        };
        let mut handlers = run_work.handlers();
        handlers.extend([Arc::new(trigger_work) as Arc<dyn WorkHandler>, Arc::new(self.run_reporter())]);
        handlers.push(Arc::new(self.services()));
        handlers.extend([Arc::new(publisher) as Arc<dyn WorkHandler>, Arc::new(to_others)]);
        handlers.extend([Arc::new(webhooks) as Arc<dyn WorkHandler>, Arc::new(retention)]);
        let (store, coordinator) = (self.store.clone(), self.coordinator.clone());
        Ok(work::Config { store, coordinator, clock: now, handlers }.build())
    }

    /// Which repositories are served.
    pub(super) fn services(&self) -> RepositoryServices {
        RepositoryServices {
            run_service: self.run_service.clone(),
            sources: self.sources.clone(),
            served: self.run_service.served().clone(),
            policy: self.policy.clone(),
            dispatch: self.dispatch.clone(),
            config: self.config.clone(),
            us: self.keys.public_key(),
            locks: Arc::new(KeyedLocks::default()),
        }
    }

    fn run_reporter(&self) -> RunReporter {
        let first = |urls: &[String]| urls.iter().find_map(|url| normal(url)).unwrap_or_default();
        RunReporter {
            run_service: self.run_service.clone(),
            log_publisher: self.log_publisher.clone(),
            us: self.keys.public_key(),
            relays: [first(&self.config.relays.write), first(&self.config.relays.read)],
            locks: KeyedLocks::default(),
        }
    }

    /// What hears requests.
    pub(super) fn intake(&self) -> Intake<Admission> {
        let handler = Admission {
            run_service: self.run_service.clone(),
            sources: self.sources.clone(),
            policy: self.policy.clone(),
            log_publisher: self.log_publisher.clone(),
            limits: self.config.nip_c1.clone(),
            secret_updates: SecretUpdates {
                run_service: self.run_service.clone(),
                sources: self.sources.clone(),
                policy: self.policy.clone(),
                keys: self.secrets_keys.clone(),
                us: self.keys.public_key(),
            },
        };
        IntakeConfig {
            keys: self.keys.clone(),
            config: self.config.clone(),
            store: self.store.clone(),
            relays: self.relays.clone(),
            policy: self.policy.clone(),
            protocols: if self.config.nip_c1.requests { PROTOCOLS } else { WITHOUT_NIP_C1 },
            handler,
            clock: now,
        }
        .build()
    }

    /// Listens for repositories whose events start workflows.
    pub(super) fn following(&self) -> Following {
        let (store, relays) = (self.store.clone(), self.relays.clone());
        Following { store, relays, config: self.config.relays.clone(), clock: now }
    }

    /// Keeps known whose requests come first.
    pub(super) fn known_maintainers(&self) -> KnownMaintainers {
        KnownMaintainers {
            policy: self.policy.clone(),
            sources: self.sources.clone(),
            lookup: RelayLookup { relays: self.relays.clone(), config: self.config.relays.clone() },
        }
    }

    /// Pages, API and metrics; `ignored` is what intake counts.
    pub(super) fn web(&self, registry: Registry, ignored: Counted) -> web::Web {
        let operator = Operator {
            run_service: self.run_service.clone(),
            dispatch: self.dispatch.clone(),
            sources: self.sources.clone(),
            policy: self.policy.clone(),
            relays: self.relays.clone(),
            signers: RemoteSigners::new(&self.config.relays),
            config: self.config.clone(),
            definitions: self.definitions.clone(),
            profiles: Profiles::new(self.relays.clone(), &self.config.relays),
            settings: RepositorySettings::new(
                self.run_service.clone(),
                self.sources.clone(),
                self.policy.clone(),
                self.keys.clone(),
                self.actions_api.clone(),
            ),
            actions_api: self.actions_api.clone(),
        };
        let samples = metrics::SampleInputs {
            store: self.store.clone(),
            dispatch: self.dispatch.clone(),
            relays: self.relays.clone(),
            ignored,
            logs: self.logs.clone(),
            data: self.config.data.clone(),
            clock: now,
        };
        web::Config {
            store: self.store.clone(),
            logs: self.logs.clone(),
            blobs: self.blobs.clone(),
            control: Arc::new(operator),
            metrics: Arc::new(Metrics::new(registry, samples)),
            settings: self.settings.clone(),
        }
        .build()
    }
}

async fn open_store(config: &Config) -> anyhow::Result<Store> {
    let store = match config.store.url.as_str() {
        "" => Store::open(&config.data.join("longshore.db")).await?,
        url => Box::pin(Store::connect(url)).await?,
    };
    Ok(store.with_min_free(&config.data, config.store.min_free))
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
    documents: [(String, serde_json::Value); 2],
) -> anyhow::Result<web::Settings> {
    let public_url = &config.public_url;
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
        openness: config.policy.openness(),
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
        idle: IDLE,
        streams: config.limits.streams,
        streams_per_address: config.limits.streams_per_address,
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
