//! Carries out what runs asked for, until done: planning, stops, sealed logs, time limits.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{log_publisher::LogPublisher, planner::Planner, run_service::RunService, workflow_source::PlanError};
use config::Config;
use domain::run::{FinalizedLog, Millis, RunEvent, RunPhase, RunState};
use store::{Change, Task, TaskKind};

/// Workflows fetched and planned at the same time.
const PLANS: usize = 8;
/// A task that failed for our own reasons is tried again after this.
const AGAIN: Duration = Duration::from_secs(5);
/// A run's result is published without a log where none could be stored for so long (ms).
const WITHOUT_LOG: Millis = 10 * 60_000;
/// Longest wait between two looks for a commit (ms).
const LONGEST_WAIT: Millis = 30_000;

/// Does tasks.
#[derive(Clone)]
pub(super) struct TaskRunner {
    pub(super) run_service: RunService,
    pub(super) planner: Planner,
    pub(super) archive: LogPublisher,
    pub(super) config: Arc<Config>,
    pub(super) plans: Arc<Semaphore>,
}

impl TaskRunner {
    pub(super) fn limit() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(PLANS))
    }

    /// Works until told to stop; what is under way then is done again after the next start.
    pub(super) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        let mut notices = self.run_service.store().subscribe();
        let (mut busy, mut working) = (HashSet::new(), JoinSet::new());
        loop {
            let now = self.run_service.now();
            for task in self.run_service.store().tasks_due(now).await? {
                if busy.insert(task.id.clone()) {
                    let this = self.clone();
                    working.spawn(async move {
                        if let Err(error) = Box::pin(this.carry_out(&task)).await {
                            tracing::error!(task = task.id, "tried again in {} s: {error:#}", AGAIN.as_secs());
                            tokio::time::sleep(AGAIN).await;
                        }
                        task.id
                    });
                }
            }
            let next = self.run_service.store().next_task_due().await?.filter(|due| *due > now);
            let wait = Duration::from_millis(next.map_or(3_600_000, |due| due - now));
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                // Missed notices cost nothing: every due task is looked for.
                _ = notices.recv() => {}
                () = tokio::time::sleep_until(Instant::now() + wait) => {}
                Some(ended) = working.join_next() => match ended {
                    Ok(id) => {
                        busy.remove(&id);
                    }
                    Err(error) => {
                        tracing::error!(%error, "a task ended in a bug; all that are due are looked at again");
                        busy.clear();
                    }
                },
            }
        }
    }

    async fn carry_out(&self, task: &Task) -> anyhow::Result<()> {
        let done = vec![Change::TaskDone { id: task.id.clone() }];
        let store = self.run_service.store();
        let Some(state) = store.run(&task.run).await? else { return Ok(store.commit(done).await?) };
        let event = match &task.kind {
            TaskKind::Plan { tries } => {
                let Ok(_turn) = self.plans.acquire().await else { return Ok(()) };
                match self.planner.plan(&state).await {
                    Ok(planned) => RunEvent::Planned(Box::new(planned)),
                    Err(PlanError::Author(message)) => RunEvent::Unplannable { message },
                    Err(PlanError::NotYet(why)) => {
                        let now = self.run_service.now();
                        if now.saturating_sub(state.created_at) < self.config.source.wait.saturating_mul(1000) {
                            let wait = (1000_u64 << (*tries).min(10)).min(LONGEST_WAIT);
                            tracing::info!(run = state.id, why, "waits for its commit");
                            let kind = TaskKind::Plan { tries: tries.saturating_add(1) };
                            let later = Task { kind, due: now.saturating_add(wait), ..task.clone() };
                            let delayed = RunEvent::Delayed { reason: why };
                            self.run_service.apply(&task.run, delayed, vec![Change::Task(later)]).await?;
                            return Ok(());
                        }
                        RunEvent::Unplannable { message: why }
                    }
                }
            }
            // Written by an older version: what is cancelled stands in the leases.
            TaskKind::Stop { .. } => return Ok(store.commit(done).await?),
            TaskKind::FinalizeLog => RunEvent::LogFinalized { log: self.seal(&state).await? },
            TaskKind::Wake { job } => RunEvent::Due { job: job.clone() },
            TaskKind::Expire => RunEvent::Expired,
        };
        self.run_service.apply(&task.run, event, done).await?;
        Ok(())
    }

    async fn seal(&self, state: &RunState) -> anyhow::Result<FinalizedLog> {
        let RunPhase::Finalizing { end } = &state.phase else { return Ok(FinalizedLog::default()) };
        match self.archive.seal(state).await {
            Err(error) if self.run_service.now().saturating_sub(end.at) > WITHOUT_LOG => {
                tracing::error!(run = state.id, "its result goes out without a log: {error:#}");
                Ok(FinalizedLog::default())
            }
            sealed => sealed,
        }
    }
}
