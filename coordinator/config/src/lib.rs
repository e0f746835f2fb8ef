//! What an operator may set for a coordinator.

mod check;
pub mod keys;
mod lease_timeouts;
pub mod load;
mod nip_c1;
mod policy;
mod triggers;

use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

use anyhow::Context as _;
use domain::run::RetryStarted;
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

pub use self::{
    lease_timeouts::LeaseTimeouts,
    nip_c1::NipC1,
    policy::{Policy, repository_address},
    triggers::Triggers,
};

/// A coordinator's configuration (TOML). Unknown keys are errors that name the nearest right one.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Folder of the database, mirrors, logs and blobs.
    pub data: PathBuf,
    /// File of the Nostr secret key (nsec or hex). Readable by its owner alone.
    pub key_file: PathBuf,
    /// File of the store key (32 bytes, hex), the same on every coordinator.
    pub store_key_file: PathBuf,
    /// Name in the pool's advertisement.
    pub name: String,
    /// Description in the advertisement.
    pub description: String,
    /// Where the dashboard, API, logs and Blossom listen, e.g. `127.0.0.1:7080`.
    pub http: String,
    /// Base of every URL in an event, e.g. `https://ci.example.org`.
    pub public_url: String,
    /// Where workers connect, e.g. `0.0.0.0:7443`.
    pub grpc: String,
    /// TLS of the worker port. `None`: plain text, which only `dev` uses.
    pub tls: Option<Tls>,
    /// Keys (npub or hex) that may read every run, cancel it and drain workers, besides the coordinator's own.
    pub operators: Vec<String>,
    /// Relays.
    pub relays: Relays,
    /// Who may run.
    pub policy: Policy,
    /// The HTTP port.
    pub web: Web,
    /// Queue limits.
    pub queue: Queue,
    /// How long leases, offers and cancels last. Not documented: the defaults are right for a pool, tests want less.
    #[serde(skip_serializing_if = "LeaseTimeouts::is_default")]
    pub lease_timeouts: LeaseTimeouts,
    /// Retries.
    pub retry: Retry,
    /// Limits of what comes in.
    pub limits: Limits,
    /// Blossom servers and writers.
    pub blossom: Blossom,
    /// Per repository: visibility. Key: `30617:<owner hex>:<d>`, `<npub>/<d>`, or `*`.
    pub repositories: BTreeMap<String, RepositoryConfig>,
    /// Environments that hold a job back before it starts. The first that fits a job's repository and environment
    /// counts.
    pub environments: Vec<Environment>,
    /// How commits are proved and fetched.
    pub source: Source,
    /// Where actions of other repositories come from.
    pub actions: Actions,
    /// Workflow files that are events.
    pub definitions: DefinitionsConfig,
    /// What starts workflows without anybody asking.
    pub triggers: Triggers,
    /// The events of NIP-C1.
    pub nip_c1: NipC1,
    /// Caches and artifacts of jobs.
    pub kept: CacheAndArtifactLimits,
    /// Enrolled workers: Ed25519 public keys (hex), beside those enrolled by token.
    pub workers: Vec<String>,
    /// Days a run's log and blobs are kept.
    pub keep_days: u64,
    /// Room that logs, mirrors and caches may take.
    pub retention: Retention,
    /// Places that are told of runs over HTTP.
    pub webhooks: Vec<Webhook>,
    /// The database, and the room it needs.
    pub store: StoreConfig,
}

/// The database, and the room it needs.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct StoreConfig {
    /// `postgres://USER:PASSWORD@HOST/DATABASE`; empty: a SQLite file in the data folder.
    pub url: String,
    /// Bytes that must be free in the file system of the data folder; with less, new runs are refused.
    pub min_free: u64,
}

impl std::fmt::Debug for StoreConfig {
    /// Without the address, which may have a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StoreConfig").field("min_free", &self.min_free).finish_non_exhaustive()
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self { url: String::new(), min_free: 64 << 20 }
    }
}

/// A place that is told of runs over HTTP.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where to, `https://…`.
    pub url: String,
    /// What deliveries are signed with (HMAC-SHA256), at least 16 bytes.
    pub secret: String,
    /// What it is told of; empty: everything.
    #[serde(default)]
    pub events: Vec<WebhookEvent>,
    /// It may be on a loopback or private address.
    #[serde(default)]
    pub allow_private: bool,
}

impl std::fmt::Debug for Webhook {
    /// Without its secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Webhook").field("url", &self.url).field("events", &self.events).finish_non_exhaustive()
    }
}

/// What a webhook can be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum WebhookEvent {
    /// A request became a run.
    #[serde(rename = "run.queued")]
    RunQueued,
    /// Its first step began.
    #[serde(rename = "run.running")]
    RunRunning,
    /// It ended, and its log is closed.
    #[serde(rename = "run.completed")]
    RunCompleted,
    /// A job ended, or was left out.
    #[serde(rename = "job.completed")]
    JobCompleted,
}

impl WebhookEvent {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RunQueued => "run.queued",
            Self::RunRunning => "run.running",
            Self::RunCompleted => "run.completed",
            Self::JobCompleted => "job.completed",
        }
    }
}

/// Keys of the worker port (PEM files).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Certificate chain.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Relays by use.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Relays {
    /// Heard: job events come from here.
    pub read: Vec<String>,
    /// Written: at least one must take each event.
    pub write: Vec<String>,
    /// Get our 10100 and 10002 besides.
    pub index: Vec<String>,
    /// Asked for repositories besides hints and the owner's relays.
    pub lookup: Vec<String>,
    /// Relays named by events may be on loopback and private addresses (`dev`).
    pub allow_private: bool,
}

/// The HTTP port.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Web {
    /// Addresses or networks (`10.0.0.0/8`) of reverse proxies. Of a request from one of them the client is the last
    /// address in `Forwarded` or `X-Forwarded-For` that is none of them; of any other request, whoever sent it. Without
    /// this all who come through a proxy count as one client.
    pub trusted_proxies: Vec<String>,
}

impl Web {
    /// The proxies, as networks.
    ///
    /// # Errors
    /// One is no address and no network.
    pub fn proxies(&self) -> anyhow::Result<Vec<IpNet>> {
        let parse = |text: &String| {
            let network = text.parse::<IpNet>().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from));
            network.with_context(|| {
                format!("web.trusted_proxies: `{text}` is no address: write it as 10.0.0.1 or 10.0.0.0/8")
            })
        };
        self.trusted_proxies.iter().map(parse).collect()
    }
}

/// Queue limits.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Queue {
    /// Seconds after which a job whose labels no worker has is given up.
    pub unmatched: u64,
    /// Seconds the first half of a request waits for the other; a fifth of it where its author is not named in `policy`.
    pub pair: u64,
}

/// Retries.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// What happens to a job whose worker was lost after its first step began.
    pub started: RetryStarted,
}

/// Limits of what comes in.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Bytes of one event.
    pub event_bytes: usize,
    /// Tags of one event.
    pub event_tags: usize,
    /// `env` pairs of one request.
    pub env_pairs: usize,
    /// Bytes of one env value or secret.
    pub env_value: usize,
    /// Requests per author and minute.
    pub author_per_minute: u32,
    /// Requests per minute, of all authors together who are not named in `policy`, that are told why they are refused.
    /// The others are counted and not answered.
    pub refusals_per_minute: u32,
    /// Bytes of a workflow file.
    pub workflow_bytes: usize,
    /// Connections at a time, of both ports. When all are taken, a new client gets one of the client that has most.
    /// Fewer are taken where the process may not open as many files.
    pub connections: usize,
    /// Connections of one address at a time: an IPv4 address, or the /64 of an IPv6 address. Proxies that
    /// `web.trusted_proxies` names and workers that have registered do not count. At the worker port four times as many may
    /// be about to register.
    pub connections_per_address: usize,
    /// Event streams (live logs, lists of runs) and whole logs sent at a time.
    pub streams: usize,
    /// The same, to one address; behind a trusted proxy that of the client.
    pub streams_per_address: usize,
    /// Bytes of the log of one attempt, however much its worker allows: what comes beyond them is not taken. More than
    /// `limits.log` of every worker, or logs of jobs that may print that much are cut.
    pub log_bytes: u64,
    /// Jobs that one worker may have at a time. A worker that says more is refused.
    pub worker_slots: u32,
    /// Seconds an event may be ahead of our clock.
    pub ahead: u64,
    /// Seconds an event may be old.
    pub age: u64,
}

/// Blossom.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Blossom {
    /// Servers that get public logs besides the built-in endpoint.
    pub servers: Vec<String>,
    /// Keys (npub or hex) that may upload to the built-in endpoint. The publisher keys of runs may as well, until a day
    /// after their run's end.
    pub writers: Vec<String>,
    /// Bytes of one upload, and of all 100 that a run's publisher key may have together.
    pub max_blob: u64,
    /// Bytes of all uploads, each of which counts for 4 KiB at least. Publisher keys of runs have half of it together.
    pub max_total: u64,
}

/// What is set for one repository.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RepositoryConfig {
    /// `public`, or `readers`.
    pub visibility: VisibilityConfig,
    /// With `readers`: keys (npub or hex).
    pub readers: Vec<String>,
    /// With `readers`: the repository's maintainers too.
    pub maintainers: bool,
    /// Address of an NIP-51 list; refused at the start, as lists of readers are not read.
    pub list: Option<String>,
    /// What definitions may do here; without it what `[definitions]` says.
    pub definitions: Option<Definitions>,
    /// Keys (npub or hex) whose requests count like those of a maintainer: watchers, and people who press "run". Runs
    /// that anybody else asks for get no OIDC tokens, no environments and no variables, and read caches without
    /// writing them.
    pub trusted: Vec<String>,
}

/// Workflow files that are events (kind 35417).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DefinitionsConfig {
    /// What they may do, where nothing is set for the repository.
    pub policy: Definitions,
}

/// What workflow definitions may do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Definitions {
    /// Nothing.
    Off,
    /// Stand for a file where the commit has none.
    #[default]
    MissingOnly,
    /// Stand for a file, whether the commit has one or not.
    Override,
}

impl Definitions {
    /// What holds where the repository's own configuration, at a commit that the maintainers stand for, says `own`. The
    /// operator's `off` is final.
    #[must_use]
    pub fn with(self, own: Option<Self>) -> Self {
        if self == Self::Off { self } else { own.unwrap_or(self) }
    }

    /// Whether a definition stands for a file.
    pub fn supply(self, commit_has_it: bool) -> bool {
        match self {
            Self::Off => false,
            Self::MissingOnly => !commit_has_it,
            Self::Override => true,
        }
    }

    /// As it is written.
    pub fn parse(word: &str) -> Option<Self> {
        [("off", Self::Off), ("missing-only", Self::MissingOnly), ("override", Self::Override)]
            .into_iter()
            .find_map(|(known, policy)| (known == word).then_some(policy))
    }
}

/// Visibility as written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VisibilityConfig {
    /// Everybody.
    #[default]
    Public,
    /// Named readers.
    Readers,
}

/// What holds jobs of an environment back.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// The repository: `30617:<owner hex>:<d>`, `<npub>/<d>`, or `*`.
    pub repository: String,
    /// The environment's name, `*` for all but `/`.
    pub name: String,
    /// Keys (npub or hex), one of which must approve. Not set: the repository's maintainers. Empty: nobody is asked.
    #[serde(default)]
    pub approvers: Option<Vec<String>>,
    /// Minutes that a job waits at least.
    #[serde(default)]
    pub wait_minutes: u64,
    /// Branches and tags that may be deployed, as patterns; empty: all.
    #[serde(default)]
    pub branches: Vec<String>,
}

/// How commits are proved and fetched.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// Maintainers of maintainers count too, as in ngit.
    pub recursive_maintainers: bool,
    /// Clone URLs may be on loopback and private addresses (`dev`).
    pub allow_private: bool,
    /// `file://` clone URLs are allowed (`dev`).
    pub allow_file: bool,
    /// Seconds to wait for objects that a state event announced.
    pub wait: u64,
    /// Seconds for one git command.
    pub command: u64,
    /// Bytes of one fetch.
    pub fetch_bytes: u64,
    /// Bytes that no fetch takes of the disk's free space.
    pub min_free: u64,
    /// Files and folders of a repository whose files a workflow uses, an action's for example.
    pub tree_entries: u64,
    /// Bytes of those files.
    pub tree_bytes: u64,
}

/// Where `owner/repo` in `uses:` and in `actions/checkout` is looked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Actions {
    /// Git servers, asked in this order. The next one is asked only where the one before said that it has no such
    /// repository: a server that does not answer must not change what a name means.
    pub bases: Vec<String>,
    /// `owner/repo` and what is asked in place of the bases: a URL or a Nostr repository address.
    pub mirrors: BTreeMap<String, String>,
}

/// Caches and artifacts of jobs.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CacheAndArtifactLimits {
    /// Bytes of all caches of one repository; beyond them the least recently used go.
    pub cache_bytes: u64,
    /// Days a cache is kept without being used.
    pub cache_days: u64,
    /// Bytes of all artifacts of one run.
    pub artifact_bytes: u64,
    /// Days an artifact is kept, at most and where its job does not say.
    pub artifact_days: u64,
    /// Bytes of all artifacts of one repository; beyond them a job's upload is refused. Runs that outsiders ask for, and
    /// those of unproven commits, count for their author alone.
    pub artifact_bytes_per_repository: u64,
    /// Bytes of all artifacts of the runs that one author asked for; beyond them a job's upload is refused. Runs that no
    /// repository trusts (an outsider's, or of an unproven commit) have a tenth of it.
    pub artifact_bytes_per_author: u64,
    /// Bytes that stay free in the file system of the data folder: what a job uploads beyond that is refused.
    pub min_free: u64,
}

/// Room that everything of a kind may take, in bytes; beyond it the oldest goes, whatever its age.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Logs in the data folder and complete published ones: those of the runs that ended longest ago go first.
    pub log_bytes: u64,
    /// Mirrors of repositories: those that were unused longest go first.
    pub mirror_bytes: u64,
    /// Caches of all repositories: those that were unused longest go first.
    pub cache_bytes: u64,
    /// Artifacts of all runs: the oldest go first.
    pub artifact_bytes: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { log_bytes: 20 << 30, mirror_bytes: 20 << 30, cache_bytes: 50 << 30, artifact_bytes: 100 << 30 }
    }
}

impl Default for CacheAndArtifactLimits {
    fn default() -> Self {
        Self {
            cache_bytes: 10 << 30,
            cache_days: 7,
            artifact_bytes: 10 << 30,
            artifact_days: 90,
            artifact_bytes_per_repository: 50 << 30,
            artifact_bytes_per_author: 50 << 30,
            min_free: 1 << 30,
        }
    }
}

impl Default for Actions {
    fn default() -> Self {
        Self { bases: vec!["https://github.com".into()], mirrors: BTreeMap::new() }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data: "/var/lib/longshore".into(),
            key_file: "nostr.key".into(),
            store_key_file: "store.key".into(),
            name: "longshore".into(),
            description: String::new(),
            http: "127.0.0.1:7080".into(),
            public_url: String::new(),
            grpc: "0.0.0.0:7443".into(),
            tls: None,
            operators: Vec::new(),
            relays: Relays::default(),
            policy: Policy { max_duration: 3600, ..Policy::default() },
            web: Web::default(),
            queue: Queue::default(),
            lease_timeouts: LeaseTimeouts::default(),
            retry: Retry::default(),
            limits: Limits::default(),
            blossom: Blossom { max_blob: 64 << 20, max_total: 10 << 30, ..Blossom::default() },
            repositories: BTreeMap::new(),
            environments: Vec::new(),
            source: Source::default(),
            actions: Actions::default(),
            definitions: DefinitionsConfig::default(),
            triggers: Triggers::default(),
            nip_c1: NipC1::default(),
            kept: CacheAndArtifactLimits::default(),
            workers: Vec::new(),
            keep_days: 90,
            retention: Retention::default(),
            webhooks: Vec::new(),
            store: StoreConfig::default(),
        }
    }
}

impl Default for Queue {
    fn default() -> Self {
        Self { unmatched: 3600, pair: 600 }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            event_bytes: 512 * 1024,
            event_tags: 2000,
            env_pairs: 500,
            env_value: 64 * 1024,
            author_per_minute: 30,
            refusals_per_minute: 30,
            workflow_bytes: 1024 * 1024,
            connections: 4096,
            connections_per_address: 256,
            streams: 1024,
            streams_per_address: 64,
            log_bytes: 1 << 30,
            worker_slots: 256,
            ahead: 60,
            age: 3 * 24 * 3600,
        }
    }
}

impl Default for Source {
    fn default() -> Self {
        Self {
            recursive_maintainers: true,
            allow_private: false,
            allow_file: false,
            wait: 600,
            command: 120,
            fetch_bytes: 2 << 30,
            min_free: 1 << 30,
            tree_entries: 500_000,
            tree_bytes: 4 << 30,
        }
    }
}
