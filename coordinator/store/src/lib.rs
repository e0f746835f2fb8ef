//! The database: what must not be lost, in SQLite or PostgreSQL.
//!
//! Callers hand a [`Batch`] of changes to [`Store::commit`]; a single writer puts waiting batches into one transaction
//! (group commit), and subscribers are notified once. Statements have one text for both engines: columns are TEXT,
//! BIGINT and BYTEA, placeholders `$1`.

mod artifacts;
mod backlog;
mod caches;
mod checkpoint;
mod columns;
mod commit;
mod counters;
mod definitions;
#[cfg(any(test, feature = "testing"))]
mod disk;
mod durability;
mod error;
mod followed;
mod health;
mod leases;
mod notification;
mod postgres;
mod pull_requests;
mod read;
mod rekey;
mod reports;
mod repository_values;
mod retention;
mod row;
mod run_list;
mod run_parts;
mod runs;
mod schema;
pub mod seal;
mod services;
mod sql;
mod sqlite;
mod test_reports;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
mod uploads;
mod webhook_deliveries;
mod work;
mod workers;
mod write;
mod writer_setup;

use std::{path::Path, sync::Arc};

use futures::future::BoxFuture;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::{broadcast, oneshot};

pub use self::{
    artifacts::{Artifact, ArtifactChange, ArtifactsOf},
    backlog::Backlog,
    caches::{Cache, CacheChange, CacheOutcome, CacheUse},
    definitions::{DefinitionRow, DefinitionScan, Maintainers},
    error::StoreError,
    followed::{CONFIGURATION, FollowChange, FollowedRepository, RepositoryScan},
    health::StoreProblem,
    leases::{Lease, LeaseChange, Renewal},
    notification::{ChangeNotification, QueueChange},
    pull_requests::{PullRequestChange, StoredPullRequest},
    rekey::StoreKeyError,
    reports::{RunReports, StoredReport},
    repository_values::{
        ListedValue, MAX_VALUE, MAX_VALUES, MAX_VARIABLES, OrderOutcome, RepositoryValue, ValueContent, ValueKind,
    },
    retention::{ExpiredRun, TableSize, UnfinishedRun},
    run_list::{Filter, Page, PhaseName, Reader, SEARCHED, Status, Summary},
    run_parts::RunChange,
    services::{ServedRepository, ServiceChange, ServiceWish},
    test_reports::{FailedSince, ListedTest, TestList, TestOutcome, TestReport},
    uploads::Uploads,
    webhook_deliveries::{DeliveryState, NewWebhookDelivery, WebhookDelivery, WebhookDeliveryChange},
    work::{ClaimLimit, ClaimRequest, ClaimedWork, LaneOrder, NewWork, WorkChange, WorkKind},
    workers::WorkerChange,
};
use self::{
    commit::{AnswerWhen, BatchUnit, ClosureUnit, InlineWriter, Numbered, TransactionEnds, Unit, Writer},
    durability::{Durability, WalSync},
    sql::{Connection, Readers},
    writer_setup::WriterSetup,
};
use domain::group::Group;
use domain::id::{BlobHash, JobKey, RunId};
use domain::run::Millis;
use domain::schedule::{QueuedJob, WaitUpdate};

/// Notifications a subscriber may lag behind; one that lags further is told so and looks at everything.
const NOTIFICATIONS: usize = 256;

/// Changes of the queue a subscriber may lag behind before it reads the whole queue again.
const QUEUE_CHANGES: usize = 8192;

/// The database. Clones share it.
#[derive(Debug, Clone)]
pub struct Store {
    writer: Writer,
    readers: Readers,
    queue: broadcast::Sender<QueueChange>,
    notifications: broadcast::Sender<ChangeNotification>,
    health: health::Health,
    durability: Durability,
}

impl Store {
    /// Opens the SQLite file at `path`, created and brought to the newest schema if need be, and starts the writer.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        let path = path.to_owned();
        let opened = tokio::task::spawn_blocking(move || Self::open_blocking(&path)).await;
        opened.map_err(|error| StoreError::Database(format!("opening the database failed: {error}")))?
    }

    fn open_blocking(path: &Path) -> Result<Self, StoreError> {
        let mut connection = Connection::Sqlite(sqlite::connect(path)?);
        sqlite::complete(schema::migrate(&mut connection))??;
        let readers = Readers::Sqlite(sqlite::ReaderThreads::start(path)?);
        let notifications = broadcast::Sender::new(NOTIFICATIONS);
        let health = health::Health::default();
        let ends = TransactionEnds { notifications: notifications.clone(), health: health.clone() };
        let (sync, durability) = WalSync::start(path)?;
        let setup = WriterSetup::new(path)?;
        if let Connection::Sqlite(connection) = &mut connection {
            setup.apply(connection)?;
        }
        let writer = Writer::start_sqlite(connection, setup, sync, ends)?;
        let queue = broadcast::Sender::new(QUEUE_CHANGES);
        Ok(Self { writer, readers, queue, notifications, health, durability })
    }

    /// Opens the PostgreSQL database at `postgres://…`, brings it to the newest schema if need be, and starts the writer.
    pub async fn connect(url: &str) -> Result<Self, StoreError> {
        Self::connect_as(url, "longshore").await
    }

    /// The same under another name than that of coordinators, which the server shows with each connection.
    pub async fn connect_as(url: &str, application: &str) -> Result<Self, StoreError> {
        let pool = postgres::Pool::new(url, application)?;
        let mut connection = Connection::Postgres(pool.connection().await?);
        schema::migrate(&mut connection).await?;
        let notifications = broadcast::Sender::new(NOTIFICATIONS);
        let health = health::Health::default();
        let ends = TransactionEnds { notifications: notifications.clone(), health: health.clone() };
        let writer = Writer::start_postgres(pool.clone(), ends).await;
        let queue = broadcast::Sender::new(QUEUE_CHANGES);
        let (readers, durability) = (Readers::Postgres(pool), Durability::immediate());
        Ok(Self { writer, readers, queue, notifications, health, durability })
    }

    /// An empty SQLite database in memory. Its reads and writes run on the calling thread and are complete at the first
    /// poll: no thread, timer or runtime takes part, so a simulation repeats exactly.
    pub fn in_memory() -> Result<Self, StoreError> {
        let mut connection = Connection::Sqlite(sqlite::connect_in_memory()?);
        sqlite::complete(schema::migrate(&mut connection))??;
        let shared = Arc::new(Mutex::new(connection));
        let notifications = broadcast::Sender::new(NOTIFICATIONS);
        let health = health::Health::default();
        let ends = TransactionEnds { notifications: notifications.clone(), health: health.clone() };
        Ok(Self {
            writer: Writer::Inline(InlineWriter { connection: shared.clone(), ends }),
            readers: Readers::Inline(shared),
            queue: broadcast::Sender::new(QUEUE_CHANGES),
            notifications,
            health,
            durability: Durability::immediate(),
        })
    }

    /// Commits the changes together. Once this returns `Ok` they survive a crash; on an error none of them is written.
    ///
    /// Dropping the future does not take the batch back.
    pub async fn commit(&self, batch: Batch) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        self.write(Box::new(BatchUnit { numbered: None, batch, queue: self.queue.clone(), answer }), answered).await
    }

    /// Commits the changes that `make` returns for the next value of each counter, from 1, in one transaction with the
    /// counters. `make` runs on the writer's thread: it computes, and waits for nothing.
    ///
    /// # Errors
    /// As [`Self::commit`]; [`StoreError::Unmade`] where `make` fails.
    pub async fn commit_numbered(
        &self,
        counters: Vec<String>,
        make: impl FnOnce(&[u64]) -> Result<Batch, String> + Send + 'static,
    ) -> Result<(), StoreError> {
        let (answer, answered) = oneshot::channel();
        let numbered = Some(Numbered { counters, make: Box::new(make) });
        let unit = BatchUnit { numbered, batch: Batch::new(), queue: self.queue.clone(), answer };
        self.write(Box::new(unit), answered).await
    }

    /// Waits until all that can be read now survives a power failure. Whoever acts on the outside world by what was
    /// read, and not by an answer to a commit of its own, waits for this first.
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn synced(&self) -> Result<(), StoreError> {
        self.durability.reached().await
    }

    /// Runs statements in a transaction, and returns their result once it is committed. `changed` is what subscribers
    /// are notified of. On an error nothing is written.
    pub(crate) async fn transaction<F, T>(
        &self,
        changed: &'static [ChangeNotification],
        work: F,
    ) -> Result<T, StoreError>
    where
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
        T: Send + 'static,
    {
        self.answered(AnswerWhen::Durable, changed, work).await
    }

    /// The same, but the result waits for no disk: a power failure may undo what was written, and an end of the process
    /// does not.
    pub(crate) async fn transaction_visible<F, T>(
        &self,
        changed: &'static [ChangeNotification],
        work: F,
    ) -> Result<T, StoreError>
    where
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
        T: Send + 'static,
    {
        self.answered(AnswerWhen::Visible, changed, work).await
    }

    async fn answered<F, T>(
        &self,
        when: AnswerWhen,
        changed: &'static [ChangeNotification],
        work: F,
    ) -> Result<T, StoreError>
    where
        F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, StoreError>> + Send + 'static,
        T: Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let unit = ClosureUnit { work: Some(work), value: None, changed, when, answer: Some(answer) };
        self.write(Box::new(unit), answered).await
    }

    /// The next value of a counter, from 1; each is handed out once.
    pub async fn next(&self, counter: &str) -> Result<u64, StoreError> {
        let counter = counter.to_owned();
        self.transaction(&[], |connection| Box::pin(async move { counters::next(connection, &counter).await })).await
    }

    /// Changes that this process makes to the queue from now on; those of other processes are only announced, as
    /// [`ChangeNotification::Queue`]. A subscriber that lags reads the whole queue.
    pub fn subscribe_queue(&self) -> broadcast::Receiver<QueueChange> {
        self.queue.subscribe()
    }

    /// What changed from now on. A subscriber that lags looks at everything.
    pub fn subscribe(&self) -> broadcast::Receiver<ChangeNotification> {
        self.notifications.subscribe()
    }

    async fn write<T>(
        &self,
        unit: Box<dyn Unit>,
        answered: oneshot::Receiver<Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let written = async {
            self.writer.commit(unit).await?;
            answered.await.map_err(|_| StoreError::Stopped)?
        };
        let written = written.await;
        if let Err(StoreError::Stopped) = written {
            self.health.note(&Err(StoreError::Stopped));
        }
        written
    }
}

/// Changes that become true together or not at all.
pub type Batch = Vec<Change>;

/// One change.
#[derive(Debug, Clone)]
pub enum Change {
    /// An event of the outside was taken in. A second one with this id fails the batch with [`StoreError::Seen`].
    Seen {
        /// Event id, or the id of an API request.
        id: String,
        /// When.
        at: Millis,
    },
    /// A new run, or a new version of one. A version that is not the stored one plus one (0 for a new run) fails the
    /// batch with [`StoreError::Stale`].
    Run(RunChange),
    /// A job waits for a worker.
    Queue(QueuedJob),
    /// Why queued jobs still wait.
    WaitReasons(Vec<WaitUpdate>),
    /// The accepted report of a job's attempt.
    Report(StoredReport),
    /// It waits no longer.
    Unqueue {
        /// Run id.
        run: RunId,
        /// Job key.
        job: JobKey,
    },
    /// An event to publish; its id is final.
    Outbox(Outgoing),
    /// A relay said yes, or finally no, to an event.
    Delivered {
        /// Event id.
        event: String,
        /// Relay URL.
        relay: String,
        /// The relay's answer, for people; empty: taken.
        answer: String,
        /// When.
        at: Millis,
    },
    /// Nothing more is to be sent of an event.
    OutboxDone {
        /// Event id.
        event: String,
    },
    /// Values of a run, sealed under the run's data key.
    Secrets {
        /// Run id.
        run: RunId,
        /// Name and sealed value.
        sealed: Vec<(String, Vec<u8>)>,
        /// The data key, wrapped by the store key.
        wrapped_key: Vec<u8>,
    },
    /// Forget the run's values and key.
    EraseSecrets {
        /// Run id.
        run: RunId,
    },
    /// Half of a pair of events arrived first; it waits for the other half.
    AddPending(PendingEvent),
    /// The waiting half was used or given up.
    RemovePending {
        /// Event id.
        id: String,
    },
    /// How far a relay was read.
    Cursor {
        /// Relay URL.
        relay: String,
        /// Seconds stamp of the newest event seen.
        seen: u64,
    },
    /// Bytes that are stored. For an owner who has them already, the later expiry and the wider visibility hold.
    Blob(Blob),
    /// An owner gave stored bytes up.
    BlobGone {
        /// Which.
        sha256: BlobHash,
        /// Run id, or a pubkey.
        owner: String,
    },
    /// Who holds a concurrency group. A version that is not the stored one plus one (0 for a new group) fails the
    /// batch with [`StoreError::Stale`].
    Group(Group),
    /// A worker was enrolled or seen.
    Worker(WorkerRow),
    /// What jobs saved for later jobs.
    Cache(CacheChange),
    /// What jobs made.
    Artifact(ArtifactChange),
    /// What the tests of a job said.
    TestReport(TestReport),
    /// Definitions of a repository's workflows, and whose count.
    DefinitionScan(DefinitionScan),
    /// Repositories that are to be served, and that are.
    Service(ServiceChange),
    /// Deliveries of webhooks.
    WebhookDelivery(WebhookDeliveryChange),
    /// Work to carry out after this commit, and what became of it.
    Work(WorkChange),
    /// Attempts in the hands of workers.
    Lease(LeaseChange),
    /// Workers that were seen, or are to be drained.
    Workers(WorkerChange),
    /// Repositories whose events start workflows.
    Follow(FollowChange),
    /// Pull requests of such repositories.
    PullRequest(PullRequestChange),
}

/// Who signs an outgoing event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "signer")]
pub enum Signer {
    /// The coordinator's key.
    Coordinator,
    /// The publisher key that came with a run's request, among that run's secrets.
    Publisher {
        /// Run id.
        run: RunId,
    },
}

/// An event to publish.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outgoing {
    /// Event id, 64 hex.
    pub event: String,
    /// Order of making; relays get events in this order. Set by the store.
    pub sequence: i64,
    /// The unsigned event as JSON.
    pub unsigned: String,
    /// The signature, once made (hex).
    pub signature: Option<String>,
    /// Who signs.
    pub signer: Signer,
    /// Where to: relay URL and class.
    pub relays: Vec<(String, RelayClass)>,
    /// The run it reports on, if any.
    pub run: Option<RunId>,
    /// When it was made.
    pub made_at: Millis,
}

/// How hard delivery to a relay is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RelayClass {
    /// Our own write relays: at least one must take it; tried without end.
    Own,
    /// Of the repository, the job or its author: tried for ten minutes.
    Other,
}

/// A parked half.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PendingEvent {
    /// Its event id.
    pub id: String,
    /// Id of the event it waits for.
    pub waits_for: String,
    /// The event as JSON.
    pub event: String,
    /// Given up then.
    pub until: Millis,
}

/// Stored bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blob {
    /// Their hash.
    pub sha256: BlobHash,
    /// Bytes.
    pub size: u64,
    /// MIME type.
    pub kind: String,
    /// Who put it there: run id, or a pubkey.
    pub owner: String,
    /// Open to everybody.
    pub public: bool,
    /// Since when.
    pub stored_at: Millis,
    /// May be removed then.
    pub expires_at: Millis,
}

/// An enrolled worker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WorkerRow {
    /// Id in the pool: the first 16 hex of the identity's SHA-256.
    pub id: String,
    /// Ed25519 public key, hex.
    pub identity: String,
    /// For people.
    pub name: String,
    /// Labels of its last session.
    pub labels: Vec<String>,
    /// Slots of its last session.
    pub slots: u32,
    /// Last seen.
    pub seen_at: Millis,
    /// Takes no new jobs.
    pub draining: bool,
}

/// An outgoing event that is not done, with the relays that answered.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// What is to be sent.
    pub outgoing: Outgoing,
    /// Relay URL and its answer; empty: taken.
    pub answers: Vec<(String, String)>,
}

/// A run's sealed values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedSecrets {
    /// Name and sealed value, by name.
    pub sealed: Vec<(String, Vec<u8>)>,
    /// The data key, wrapped by the store key.
    pub wrapped_key: Vec<u8>,
}

#[cfg(test)]
mod tests;
