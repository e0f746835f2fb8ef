//! Group commit: units of work that wait for the one writer become one transaction, each in a savepoint of its own.

use std::sync::Arc;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{broadcast, mpsc, oneshot};

use super::{
    Batch, ChangeNotification, QueueChange, StoreError, counters,
    durability::{Answer, WalSync},
    health::Health,
    postgres,
    sql::Connection,
    sqlite, write,
    writer_setup::WriterSetup,
};

/// Units of one transaction: beyond that the first ones would wait too long.
const GROUP: usize = 256;
/// Units that may wait for the writer; a caller beyond that waits before its own is taken.
const WAITING: usize = 1024;
/// How often the feed of PostgreSQL is connected again, and all is looked at even if nothing was announced.
const LOOK_BEHIND: std::time::Duration = std::time::Duration::from_secs(30);
/// Key of the advisory lock that a writing transaction holds.
///
/// With it the transactions of all coordinators on one database follow each other as they do in SQLite: counters are
/// locked in no order that could deadlock, and `changed` grows in the order in which changes become visible.
const WRITER_LOCK: i64 = 0x6c6f_6e67_7368;

/// Statements that are committed together or not at all.
pub(crate) trait Unit: Send {
    /// Runs the statements; on an error those that ran already are rolled back.
    fn run<'c>(&'c mut self, connection: &'c mut Connection) -> BoxFuture<'c, Result<(), StoreError>>;
    /// Kinds of what it changes.
    fn changed(&self) -> Vec<ChangeNotification>;
    /// Called once what it wrote can be read; a power failure may still undo it.
    fn visible(&mut self) {}
    /// Called once the transaction has ended and, where it was committed, survives whatever happens.
    fn finish(self: Box<Self>, result: Result<(), StoreError>);
}

/// The one place where the database is written.
#[derive(Clone)]
pub(crate) enum Writer {
    /// A thread or task of its own that takes what waits as one group.
    Queue(mpsc::Sender<Box<dyn Unit>>),
    /// The calling thread, with the one connection of a database in memory.
    Inline(InlineWriter),
}

/// Writes to a database in memory on the calling thread.
#[derive(Clone)]
pub(crate) struct InlineWriter {
    pub(crate) connection: Arc<Mutex<Connection>>,
    pub(crate) ends: TransactionEnds,
}

impl InlineWriter {
    fn commit(&self, group: &mut [Box<dyn Unit>]) -> Outcome {
        let mut connection = self.connection.lock();
        sqlite::complete(commit_group(&mut connection, group, None)).unwrap_or_else(Outcome::failed)
    }
}

/// Who learns how transactions end.
#[derive(Debug, Clone)]
pub(crate) struct TransactionEnds {
    pub(crate) notifications: broadcast::Sender<ChangeNotification>,
    pub(crate) health: Health,
}

impl Writer {
    /// Writes on a thread of its own, to the SQLite file that `connection` has open; `sync` answers the callers.
    pub(crate) fn start_sqlite(
        mut connection: Connection,
        setup: WriterSetup,
        sync: WalSync,
        ends: TransactionEnds,
    ) -> Result<Self, StoreError> {
        let (queue, mut units) = mpsc::channel::<Box<dyn Unit>>(WAITING);
        sqlite::spawn("store-write".into(), move || {
            let mut waiting = Vec::new();
            let ensure_idle = |connection: &mut Connection| match connection {
                Connection::Sqlite(connection) => setup.ensure_idle(connection),
                Connection::Postgres(_) => Ok(()),
            };
            while units.blocking_recv_many(&mut waiting, GROUP) > 0 {
                let number = sync.next_number();
                let outcome = ensure_idle(&mut connection).map(|()| {
                    sqlite::complete(commit_group(&mut connection, &mut waiting, None)).unwrap_or_else(Outcome::failed)
                });
                let outcome = outcome.unwrap_or_else(Outcome::failed);
                // Before anybody learns of a failure: what was told to have failed must not be committed later.
                let idle = ensure_idle(&mut connection);
                if let Err(error) = idle {
                    tracing::error!("the database can't be opened again after a failed write: {error}");
                }
                let units = std::mem::take(&mut waiting);
                let committed = outcome.transaction.is_ok();
                let ended = outcome.announce(units, &ends);
                let answer: Answer = if committed {
                    let ends = ends.clone();
                    Box::new(move |synced| ended.finish_synced(synced, &ends))
                } else {
                    ended.finish(&ends);
                    Box::new(|_| ())
                };
                if !sync.answer_synced(number, answer) {
                    return;
                }
            }
        })?;
        Ok(Self::Queue(queue))
    }

    /// Writes to PostgreSQL from a task of its own, and follows what other coordinators write.
    pub(crate) async fn start_postgres(pool: postgres::Pool, ends: TransactionEnds) -> Self {
        let (queue, mut units) = mpsc::channel::<Box<dyn Unit>>(WAITING);
        let own = rand::random();
        let (ready, listening) = oneshot::channel();
        let feed = tokio::spawn(follow(pool.clone(), own, ready, ends.notifications.clone()));
        // Where it can't listen it goes on: the feed is tried again, and everything is looked at now and then.
        let _ = tokio::time::timeout(LOOK_BEHIND, listening).await;
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while units.recv_many(&mut waiting, GROUP).await > 0 {
                let outcome = match pool.connection().await {
                    Ok(client) => {
                        let mut connection = Connection::Postgres(client);
                        let outcome = commit_group(&mut connection, &mut waiting, Some(own)).await;
                        if let (Err(_), Connection::Postgres(client)) = (&outcome.transaction, connection) {
                            // In an unknown state: it is closed, and the server rolls back.
                            drop(deadpool_postgres::Object::take(client));
                        }
                        outcome
                    }
                    Err(error) => Outcome::failed(error),
                };
                outcome.announce(std::mem::take(&mut waiting), &ends).finish(&ends);
            }
            feed.abort();
        });
        Self::Queue(queue)
    }

    /// Writes to a database in memory on a simulated disk, as the writer of a file does: in the order of asking, what
    /// waits as one group, and answered in that order while the next group is written already.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn start_simulated(inline: InlineWriter, disk: Arc<dyn crate::disk::Disk>) -> Self {
        let (queue, mut units) = mpsc::channel::<Box<dyn Unit>>(WAITING);
        let (written, mut groups) = mpsc::unbounded_channel::<Ended>();
        let (ends, sync) = (inline.ends.clone(), disk.clone());
        tokio::spawn(async move {
            while let Some(first) = groups.recv().await {
                let mut synced = vec![first];
                synced.extend(std::iter::from_fn(|| groups.try_recv().ok()));
                sync.written().await;
                synced.into_iter().for_each(|group| group.finish(&ends));
            }
        });
        tokio::spawn(async move {
            let mut waiting = Vec::new();
            while units.recv_many(&mut waiting, GROUP).await > 0 {
                let outcome = match disk.write().await {
                    Ok(()) => inline.commit(&mut waiting),
                    Err(error) => Outcome::failed(error),
                };
                if written.send(outcome.announce(std::mem::take(&mut waiting), &inline.ends)).is_err() {
                    return;
                }
            }
        });
        Self::Queue(queue)
    }

    /// Commits a unit; it is told how that ends.
    pub(crate) async fn commit(&self, unit: Box<dyn Unit>) -> Result<(), StoreError> {
        match self {
            Self::Queue(queue) => queue.send(unit).await.map_err(|_| StoreError::Stopped),
            Self::Inline(inline) => {
                let mut group = vec![unit];
                inline.commit(&mut group).announce(group, &inline.ends).finish(&inline.ends);
                Ok(())
            }
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Queue(_) => "Writer::Queue",
            Self::Inline(_) => "Writer::Inline",
        })
    }
}

/// How a group ended: each unit for itself, and the transaction, without which none counts.
struct Outcome {
    units: Vec<Result<(), StoreError>>,
    transaction: Result<(), StoreError>,
}

impl Outcome {
    fn failed(error: StoreError) -> Self {
        Self { units: Vec::new(), transaction: Err(error) }
    }

    /// Tells subscribers what can be read now.
    fn announce(self, mut units: Vec<Box<dyn Unit>>, ends: &TransactionEnds) -> Ended {
        let mut changed = Vec::new();
        if self.transaction.is_ok() {
            for (unit, _) in units.iter_mut().zip(&self.units).filter(|(_, result)| result.is_ok()) {
                add(&mut changed, unit.changed());
                unit.visible();
            }
        }
        for change in changed {
            // Nobody may be listening.
            let _ = ends.notifications.send(change);
        }
        Ended { units, outcome: self }
    }
}

/// A group whose transaction has ended, and whose callers wait for an answer.
struct Ended {
    units: Vec<Box<dyn Unit>>,
    outcome: Outcome,
}

impl Ended {
    /// Answers everybody.
    fn finish(self, ends: &TransactionEnds) {
        ends.health.note(&self.outcome.transaction);
        let failure = self.outcome.transaction.err().map(|error| error.to_string());
        let mut results = self.outcome.units.into_iter();
        for unit in self.units {
            unit.finish(match &failure {
                Some(text) => Err(StoreError::Database(text.clone())),
                None => results.next().unwrap_or(Err(StoreError::Stopped)),
            });
        }
    }

    /// The same, where the transaction was committed and `synced` says whether the disk has it.
    fn finish_synced(mut self, synced: Result<(), StoreError>, ends: &TransactionEnds) {
        self.outcome.transaction = synced;
        self.finish(ends);
    }
}

fn add(changed: &mut Vec<ChangeNotification>, more: Vec<ChangeNotification>) {
    for change in more {
        if !changed.contains(&change) {
            changed.push(change);
        }
    }
}

/// Runs a group in one transaction. `own` identifies this process to other coordinators on the same server.
async fn commit_group(connection: &mut Connection, units: &mut [Box<dyn Unit>], own: Option<u64>) -> Outcome {
    let mut results = Vec::with_capacity(units.len());
    let transaction = run_group(connection, units, own, &mut results).await;
    if transaction.is_err() {
        // A transaction that ended by itself, as on a full disk, can't be rolled back again.
        let _ = connection.run_script("ROLLBACK").await;
    }
    Outcome { units: results, transaction: transaction.map_err(explain) }
}

fn explain(error: StoreError) -> StoreError {
    match error {
        StoreError::Database(text) => StoreError::Database(format!("nothing of the transaction was written: {text}")),
        other => other,
    }
}

async fn run_group(
    connection: &mut Connection,
    units: &mut [Box<dyn Unit>],
    own: Option<u64>,
    results: &mut Vec<Result<(), StoreError>>,
) -> Result<(), StoreError> {
    begin(connection).await?;
    let mut changed = Vec::new();
    for unit in units {
        connection.run("SAVEPOINT unit").await?;
        let result = unit.run(connection).await;
        if result.is_ok() {
            add(&mut changed, unit.changed());
        } else {
            ensure_in_transaction(connection, &result)?;
            connection.run("ROLLBACK TO SAVEPOINT unit").await?;
        }
        connection.run("RELEASE SAVEPOINT unit").await?;
        results.push(result);
    }
    if let (Connection::Postgres(client), Some(own), false) = (&mut *connection, own, changed.is_empty()) {
        postgres::notify(client, own, &changed).await?;
    }
    connection.run("COMMIT").await
}

/// SQLite rolls the whole transaction back by itself on some errors. A savepoint after that would open a new one, and
/// commit what the group's callers are told has failed.
fn ensure_in_transaction(connection: &Connection, result: &Result<(), StoreError>) -> Result<(), StoreError> {
    match (connection, result) {
        (Connection::Sqlite(connection), Err(error)) if connection.is_autocommit() => {
            Err(StoreError::Database(error.to_string()))
        }
        _ => Ok(()),
    }
}

async fn begin(connection: &mut Connection) -> Result<(), StoreError> {
    match connection {
        Connection::Sqlite(_) => connection.run("BEGIN IMMEDIATE").await,
        Connection::Postgres(_) => {
            connection.run_script(&format!("BEGIN; SELECT pg_advisory_xact_lock({WRITER_LOCK})")).await
        }
    }
}

/// Passes on what other coordinators commit; now and then everything is announced, in case a notification was lost.
/// `ready` is told when none can be missed any more.
async fn follow(
    pool: postgres::Pool,
    own: u64,
    ready: oneshot::Sender<()>,
    notifications: broadcast::Sender<ChangeNotification>,
) {
    let mut ready = Some(ready);
    let announce = |change| drop(notifications.send(change));
    loop {
        let listening = || match ready.take() {
            Some(ready) => drop(ready.send(())),
            // Anything may have changed since the connection before.
            None => ChangeNotification::ALL.iter().for_each(|(change, _)| announce(*change)),
        };
        match tokio::time::timeout(LOOK_BEHIND, pool.listen(own, listening, announce)).await {
            Ok(Err(error)) => tracing::warn!("changes of other coordinators are not announced: {error}"),
            Ok(Ok(())) | Err(_) => continue,
        }
        tokio::time::sleep(std::time::Duration::from_millis(rand::random_range(500..1500))).await;
    }
}

/// A batch of changes.
pub(crate) struct BatchUnit {
    /// Makes more changes, which carry numbers.
    pub(crate) numbered: Option<Numbered>,
    pub(crate) batch: Batch,
    pub(crate) queue: broadcast::Sender<QueueChange>,
    pub(crate) answer: oneshot::Sender<Result<(), StoreError>>,
}

type MakeBatch = Box<dyn FnOnce(&[u64]) -> Result<Batch, String> + Send>;

/// Changes that are made of the next values of counters.
pub(crate) struct Numbered {
    pub(crate) counters: Vec<String>,
    pub(crate) make: MakeBatch,
}

impl Unit for BatchUnit {
    fn run<'c>(&'c mut self, connection: &'c mut Connection) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            if let Some(Numbered { counters, make }) = self.numbered.take() {
                let mut numbers = Vec::with_capacity(counters.len());
                for counter in &counters {
                    numbers.push(counters::next(connection, counter).await?);
                }
                // A bug in the caller's part is no end of the writer.
                let made = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| make(&numbers)));
                let made = made.unwrap_or_else(|_| Err("making the changes ended in a bug".into()));
                self.batch.extend(made.map_err(StoreError::Unmade)?);
            }
            for change in &self.batch {
                write::apply(connection, change).await?;
            }
            Ok(())
        })
    }

    fn changed(&self) -> Vec<ChangeNotification> {
        let mut changed = Vec::new();
        add(&mut changed, self.batch.iter().filter_map(write::notification_of).collect());
        changed
    }

    fn visible(&mut self) {
        for change in std::mem::take(&mut self.batch).into_iter().filter_map(write::queue_change) {
            // Nobody may be listening.
            let _ = self.queue.send(change);
        }
    }

    fn finish(self: Box<Self>, result: Result<(), StoreError>) {
        // The caller may have gone.
        let _ = self.answer.send(result);
    }
}

/// When a caller gets its result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AnswerWhen {
    /// Once others see what it wrote. A power failure may undo it; an end of the process does not.
    Visible,
    /// Once it survives whatever happens.
    Durable,
}

/// Statements of a closure, with a result.
pub(crate) struct ClosureUnit<F, T> {
    pub(crate) work: Option<F>,
    pub(crate) value: Option<T>,
    pub(crate) changed: &'static [ChangeNotification],
    pub(crate) when: AnswerWhen,
    pub(crate) answer: Option<oneshot::Sender<Result<T, StoreError>>>,
}

impl<F, T> Unit for ClosureUnit<F, T>
where
    F: for<'c> FnOnce(&'c mut Connection) -> BoxFuture<'c, Result<T, StoreError>> + Send,
    T: Send,
{
    fn run<'c>(&'c mut self, connection: &'c mut Connection) -> BoxFuture<'c, Result<(), StoreError>> {
        Box::pin(async move {
            if let Some(work) = self.work.take() {
                self.value = Some(work(connection).await?);
            }
            Ok(())
        })
    }

    fn changed(&self) -> Vec<ChangeNotification> {
        self.changed.to_vec()
    }

    fn visible(&mut self) {
        if self.when == AnswerWhen::Visible
            && let Some(answer) = self.answer.take()
        {
            // The caller may have gone.
            let _ = answer.send(self.value.take().ok_or(StoreError::Stopped));
        }
    }

    fn finish(self: Box<Self>, result: Result<(), StoreError>) {
        let Self { value, answer, .. } = *self;
        if let Some(answer) = answer {
            let _ = answer.send(result.and_then(|()| value.ok_or(StoreError::Stopped)));
        }
    }
}
