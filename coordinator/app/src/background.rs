//! Does what runs ask for, as work of the store: planning, final logs, timers.

use std::{sync::Arc, time::Duration};

use anyhow::Context as _;
use futures::future::{BoxFuture, FutureExt as _};
use work::{BackOff, Outcome, WorkHandler};

use super::{
    log_publisher::LogPublisher, places_by_key::PlacesByKey, planner::Planner, run_service::RunService,
    workflow_source::PlanError,
};
use config::Config;
use domain::run::{FinalizedLog, Millis, Planned, RunEvent, RunPhase, RunState};
use store::{ClaimedWork, WorkKind};

/// Workflows fetched and planned at the same time, and logs finalized.
const HEAVY: u32 = 8;
/// Timers delivered at the same time: each is one transaction.
const LIGHT: u32 = 32;
/// Waits after a failure of our own.
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(2), longest: Duration::from_secs(30) };
/// A run's result is published without a log if none could be stored for so long (ms).
const WITHOUT_LOG: Millis = 10 * 60_000;
/// Longest wait between two looks for a commit (ms).
const LONGEST_WAIT: Millis = 30_000;

/// A plan that takes no longer needs no place among the slow ones.
const QUICK: Duration = Duration::from_secs(3);
/// Slow plans at the same time: in all, and of one owner or author.
pub(super) const SLOW_PLANS: [usize; 2] = [6, 2];

/// What the work of runs is done with.
pub(super) struct RunWork {
    pub(super) run_service: RunService,
    pub(super) planner: Planner,
    pub(super) log_publisher: LogPublisher,
    pub(super) slow_plans: PlacesByKey,
    pub(super) config: Arc<Config>,
}

/// Does one kind of work of runs.
struct RunWorkHandler {
    kind: WorkKind,
    parallelism: u32,
    work: Arc<RunWork>,
}

impl RunWork {
    /// A handler for each kind of work that runs ask for.
    pub(super) fn handlers(self) -> Vec<Arc<dyn WorkHandler>> {
        let work = Arc::new(self);
        let kinds = [
            (WorkKind::Plan, HEAVY),
            (WorkKind::FinalizeLog, HEAVY),
            (WorkKind::Wake, LIGHT),
            (WorkKind::Expire, LIGHT),
        ];
        let handler = |(kind, parallelism)| {
            Arc::new(RunWorkHandler { kind, parallelism, work: work.clone() }) as Arc<dyn WorkHandler>
        };
        kinds.into_iter().map(handler).collect()
    }

    async fn perform(&self, row: &ClaimedWork) -> anyhow::Result<Outcome> {
        let done = vec![row.complete()];
        let Some(run) = &row.run else { return Ok(Outcome::Store(done)) };
        let Some(state) = self.run_service.store().run(run).await? else { return Ok(Outcome::Store(done)) };
        let event = match row.kind {
            WorkKind::Plan => match self.plan(&state).await {
                None => return Ok(self.put_off(row)),
                Some(planned) => match planned {
                    Ok(planned) => RunEvent::Planned(Box::new(planned)),
                    Err(PlanError::Author(message)) => RunEvent::Unplannable { message },
                    Err(PlanError::NotYet(why)) if self.may_wait(&state) => return self.delay(row, &state, why).await,
                    Err(PlanError::NotYet(message)) => RunEvent::Unplannable { message },
                },
            },
            WorkKind::FinalizeLog => RunEvent::LogFinalized { log: self.finalize(&state).await? },
            WorkKind::Wake => {
                let payload: serde_json::Value = row.read_payload()?;
                let job = payload["job"].as_str().context("a wake-up names no job")?.into();
                RunEvent::Due { job }
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

    /// The plan of a run. One that takes long has to have a place among those: servers that never answer must not keep
    /// all planners for one owner or author. `None`: there is none now.
    async fn plan(&self, state: &RunState) -> Option<Result<Planned, PlanError>> {
        let mut planning = std::pin::pin!(self.planner.plan(state));
        if let Ok(planned) = tokio::time::timeout(QUICK, &mut planning).await {
            return Some(planned);
        }
        let request = &state.request;
        let _place = self.slow_plans.enter([&request.repository.owner, &request.actor])?;
        Some(planning.await)
    }

    fn put_off(&self, row: &ClaimedWork) -> Outcome {
        let wait = (2000_u64 << row.tries.saturating_sub(1).min(10)).min(LONGEST_WAIT);
        let why = "other runs of its owner or author wait for servers that take long";
        Outcome::Store(vec![row.retry(self.run_service.now().saturating_add(wait), why)])
    }

    /// Whether a commit that is not there may still come.
    fn may_wait(&self, state: &RunState) -> bool {
        let waited = self.run_service.now().saturating_sub(state.created_at);
        waited < self.config.source.wait.saturating_mul(1000)
    }

    async fn delay(&self, row: &ClaimedWork, state: &RunState, why: String) -> anyhow::Result<Outcome> {
        tracing::info!(run = state.id.as_str(), why, "waits for its commit");
        let wait = (1000_u64 << row.tries.saturating_sub(1).min(10)).min(LONGEST_WAIT);
        let again = row.retry(self.run_service.now().saturating_add(wait), why.as_str());
        self.run_service.apply(&state.id, RunEvent::Delayed { reason: why }, vec![again]).await?;
        Ok(Outcome::Stored)
    }

    async fn finalize(&self, state: &RunState) -> anyhow::Result<FinalizedLog> {
        let RunPhase::Finalizing { end } = &state.phase else { return Ok(FinalizedLog::default()) };
        match self.log_publisher.seal(state).await {
            Err(error) if self.run_service.now().saturating_sub(end.at) > WITHOUT_LOG => {
                tracing::error!(run = state.id.as_str(), "its result goes out without a log: {error:#}");
                Ok(FinalizedLog::default())
            }
            finalized => finalized,
        }
    }
}

impl WorkHandler for RunWorkHandler {
    fn kind(&self) -> WorkKind {
        self.kind
    }

    fn parallelism(&self) -> u32 {
        self.parallelism
    }

    fn acts_outside(&self) -> bool {
        match self.kind {
            // Plans and timers end in the store alone.
            WorkKind::Plan | WorkKind::Wake | WorkKind::Expire => false,
            WorkKind::FinalizeLog
            | WorkKind::ReportRun
            | WorkKind::Serve
            | WorkKind::Publish
            | WorkKind::PublishToOthers
            | WorkKind::Webhook
            | WorkKind::Retain
            | WorkKind::Trigger => true,
        }
    }

    fn back_off(&self) -> BackOff {
        BACK_OFF
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        async move {
            let row = rows.first().context("a claim has a row")?;
            self.work.perform(row).await
        }
        .boxed()
    }
}
