//! The one loop of background work: claims due rows of the store, has the handler of their kind do them, and stores the
//! outcome or the next try.
//!
//! A handler that fails or panics costs its own rows a back-off and nothing else. Rows of a process that died come free
//! when its claim lapses, or at once when the same coordinator starts again.

mod back_off;
mod handler;

use std::{
    collections::{BTreeMap, HashMap},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use anyhow::Context as _;
use domain::run::Millis;
use futures::FutureExt as _;
use store::{
    Batch, Change, ChangeNotification, ClaimLimit, ClaimRequest, ClaimedWork, LaneOrder, Store, StoreError, WorkChange,
    WorkKind,
};
use tokio::{
    sync::broadcast::{self, error::RecvError},
    task::{Id, JoinSet},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

pub use self::{
    back_off::BackOff,
    handler::{Outcome, WorkHandler},
};

/// How long a claim lasts; it is renewed while its handler works.
const CLAIM: Duration = Duration::from_secs(60);
/// The store is looked at this often even if no change was announced: claims of other processes lapse silently.
const LOOK: Duration = Duration::from_secs(20);
/// Waits after the store failed: short enough that a disk with room again is used within 10 s.
const STORE_BACK_OFF: BackOff = BackOff { first: Duration::from_millis(250), longest: Duration::from_secs(4) };

/// What the loop is made of.
pub struct Config {
    /// Where work is.
    pub store: Store,
    /// Id of this coordinator: the same after a restart, unlike any other's.
    pub coordinator: String,
    /// Unix milliseconds.
    pub clock: fn() -> Millis,
    /// One for each kind that this coordinator does.
    pub handlers: Vec<Arc<dyn WorkHandler>>,
}

/// The loop. See the crate's documentation.
pub struct WorkLoop {
    config: Config,
    handlers: HashMap<WorkKind, Arc<dyn WorkHandler>>,
    working: JoinSet<()>,
    /// What runs: kind and rows of each task.
    claimed: HashMap<Id, (WorkKind, Vec<ClaimedWork>)>,
}

impl Config {
    /// The loop; it does nothing before it runs.
    pub fn build(self) -> WorkLoop {
        let handlers = self.handlers.iter().map(|handler| (handler.kind(), handler.clone())).collect();
        WorkLoop { config: self, handlers, working: JoinSet::new(), claimed: HashMap::new() }
    }
}

impl WorkLoop {
    /// Works until `stop`; what is under way then is released for whoever comes next.
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut notices = self.config.store.subscribe();
        let mut failures = 0;
        let mut fresh = true;
        loop {
            let next = match self.round(fresh).await {
                Ok(next) => {
                    (failures, fresh) = (0, false);
                    next
                }
                Err(StoreError::Stopped) => return Err(StoreError::Stopped.into()),
                Err(error) => {
                    failures += 1;
                    let wait = STORE_BACK_OFF.delay(failures);
                    tracing::warn!("work can't be claimed, trying again in {wait:?}: {error}");
                    wait
                }
            };
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                () = tokio::time::sleep_until(Instant::now() + next) => {}
                added = work_added(&mut notices), if failures == 0 => added?,
                Some(ended) = self.working.join_next_with_id() => self.ended(ended.map_or_else(|e| e.id(), |(id, ())| id)),
            }
            while let Some(ended) = self.working.try_join_next_with_id() {
                self.ended(ended.map_or_else(|e| e.id(), |(id, ())| id));
            }
        }
        self.release().await;
        Ok(())
    }

    fn ended(&mut self, task: Id) {
        self.claimed.remove(&task);
    }

    /// Claims what is due for free hands. Returns how long nothing else becomes due.
    async fn round(&mut self, fresh: bool) -> Result<Duration, StoreError> {
        let (store, coordinator) = (&self.config.store, &self.config.coordinator);
        if fresh {
            let coordinator = coordinator.clone();
            store.commit(vec![Change::Work(WorkChange::ReleaseClaimsOf { coordinator })]).await?;
        }
        let now = (self.config.clock)();
        let limits: Vec<ClaimLimit> = self.config.handlers.iter().map(|handler| self.limit(handler.as_ref())).collect();
        if limits.iter().any(|limit| limit.limit > 0) {
            let claim = format!("{coordinator}/{}", uuid::Uuid::now_v7().simple());
            let until = now.saturating_add(millis(CLAIM));
            let found = store.claim_work(ClaimRequest { limits, claim, now, until }).await?;
            for rows in self.tasks_of(found) {
                self.start(rows);
            }
        }
        let next = self.config.store.next_work_due(now).await?;
        Ok(next.map_or(LOOK, |due| LOOK.min(Duration::from_millis(due - now))))
    }

    fn limit(&self, handler: &dyn WorkHandler) -> ClaimLimit {
        let kind = handler.kind();
        let running = self.claimed.values().filter(|(of, _)| *of == kind).count();
        let running = u32::try_from(running).unwrap_or(u32::MAX);
        ClaimLimit { kind, limit: handler.parallelism().saturating_sub(running), lanes: handler.lanes() }
    }

    /// Rows that one call of a handler gets: a row alone, or those of a lane.
    fn tasks_of(&self, found: Vec<ClaimedWork>) -> Vec<Vec<ClaimedWork>> {
        let mut tasks = Vec::new();
        let mut lanes: BTreeMap<(&'static str, String), Vec<ClaimedWork>> = BTreeMap::new();
        for row in found {
            match self.handlers.get(&row.kind).map(|handler| handler.lanes()) {
                Some(LaneOrder::Independent) | None => tasks.push(vec![row]),
                Some(_) => lanes.entry((row.kind.as_str(), row.lane.clone())).or_default().push(row),
            }
        }
        tasks.extend(lanes.into_values());
        tasks
    }

    fn start(&mut self, rows: Vec<ClaimedWork>) {
        let Some(kind) = rows.first().map(|row| row.kind) else { return };
        let Some(handler) = self.handlers.get(&kind).cloned() else { return };
        let (store, clock) = (self.config.store.clone(), self.config.clock);
        let task = self.working.spawn(perform(store, clock, handler, rows.clone()));
        self.claimed.insert(task.id(), (kind, rows));
    }

    async fn release(mut self) {
        self.working.shutdown().await;
        let rows = self.claimed.into_values().flat_map(|(_, rows)| rows);
        let released: Batch = rows.map(|row| row.release()).collect();
        if let Err(error) = self.config.store.commit(released).await {
            tracing::warn!("claimed work is not released; it comes free when its claim lapses: {error}");
        }
    }
}

/// Returns when work was added, or may have been.
async fn work_added(notices: &mut broadcast::Receiver<ChangeNotification>) -> anyhow::Result<()> {
    loop {
        match notices.recv().await {
            Ok(ChangeNotification::Work) | Err(RecvError::Lagged(_)) => break,
            Ok(_) => {}
            Err(RecvError::Closed) => anyhow::bail!("the store has stopped; restart the coordinator"),
        }
    }
    // What came meanwhile is looked for by the same round.
    while !matches!(
        notices.try_recv(),
        Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed)
    ) {}
    Ok(())
}

/// Does claimed rows and stores what became of them, whatever the handler does.
async fn perform(store: Store, clock: fn() -> Millis, handler: Arc<dyn WorkHandler>, rows: Vec<ClaimedWork>) {
    let handling = async {
        if handler.acts_outside() {
            store.synced().await?;
        }
        handler.handle(rows.clone()).await
    };
    let handled = AssertUnwindSafe(handling).catch_unwind();
    let handled = tokio::select! {
        biased;
        handled = handled => handled,
        () = keep_claimed(&store, clock, &rows) => return,
    };
    let handled = handled.unwrap_or_else(|panic| Err(anyhow::anyhow!("its handler panicked: {}", text_of(&*panic))));
    let stored = match handled {
        Ok(Outcome::Stored) => return,
        Ok(Outcome::Store(batch)) => store.commit(batch).await.context("its outcome can't be stored"),
        Err(error) => Err(error),
    };
    let Err(error) = stored else { return };
    let Some(first) = rows.first() else { return };
    let wait = handler.back_off().delay(first.tries);
    let failure = format!("{error:#}");
    tracing::warn!(
        kind = first.kind.as_str(),
        id = first.id,
        tries = first.tries,
        "tried again in {wait:?}: {failure}"
    );
    let due = clock().saturating_add(millis(wait));
    let mut batch = vec![first.retry(due, failure)];
    batch.extend(rows.iter().skip(1).map(ClaimedWork::release));
    let mut failures = 0;
    while let Err(error) = store.commit(batch.clone()).await {
        failures += 1;
        tracing::warn!(id = first.id, "the next try can't be stored yet: {error}");
        tokio::time::sleep(STORE_BACK_OFF.delay(failures)).await;
    }
}

/// Renews the claim of rows for as long as it is polled.
async fn keep_claimed(store: &Store, clock: fn() -> Millis, rows: &[ClaimedWork]) {
    let Some(claim) = rows.first().map(|row| row.claim.clone()) else { return std::future::pending().await };
    loop {
        tokio::time::sleep(CLAIM / 3).await;
        let until = clock().saturating_add(millis(CLAIM));
        // Where it can't be renewed the claim may lapse: whoever takes over is fenced by what the work changes.
        if let Err(error) = store.commit(vec![Change::Work(WorkChange::Renew { claim: claim.clone(), until })]).await {
            tracing::warn!("a claim can't be renewed: {error}");
        }
    }
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no text")
}

fn millis(duration: Duration) -> Millis {
    Millis::try_from(duration.as_millis()).unwrap_or(Millis::MAX)
}

#[cfg(test)]
mod tests;
