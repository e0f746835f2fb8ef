//! What dispatch asks of the run side, answered by the engine.

use anyhow::Context;
use futures::future::{BoxFuture, FutureExt};
use secrecy::SecretString;
use workflow::plan::JobReport;

use crate::run_service::{Applied, RunService};
use dispatch::{Handout, Leased, Runs, Verdict};
use domain::run::AttemptId;
use domain::run::{self, JobPhase, Millis, RunEvent, RunRefusal, RunState};
use domain::schedule::QueuedJob;
use nostr::Keys;
use nostr_client::hive_ci::PUBLISHER_SECRET;
use nostr_client::publish::PublisherKeys;

impl Runs for RunService {
    fn queued(&self) -> BoxFuture<'_, anyhow::Result<Vec<QueuedJob>>> {
        async { Ok(self.store().queued().await?) }.boxed()
    }

    fn begin<'a>(
        &'a self,
        run: &'a str,
        job: &'a str,
        worker: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Option<Handout>>> {
        async move {
            let event = RunEvent::Accepted { job: job.to_owned(), worker: worker.to_owned() };
            match self.apply(run, event, Vec::new()).await? {
                Applied::Changed(state) => self.handout(&state, job).await.map(Some),
                Applied::Unchanged(_) => Ok(None),
            }
        }
        .boxed()
    }

    fn holds<'a>(&'a self, attempt: &'a AttemptId, worker: &'a str) -> BoxFuture<'a, anyhow::Result<bool>> {
        async move {
            let state = self.store().run(&attempt.run).await?;
            Ok(state.is_some_and(|state| held(&state).any(|held| held.attempt == *attempt && held.worker == worker)))
        }
        .boxed()
    }

    fn leased(&self) -> BoxFuture<'_, anyhow::Result<Vec<Leased>>> {
        async {
            Ok(self.store().unfinished().await?.iter().flat_map(|state| held(state).collect::<Vec<_>>()).collect())
        }
        .boxed()
    }

    fn begun<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<Verdict>> {
        let event = RunEvent::Begun { job: attempt.job.clone(), attempt: attempt.number };
        self.told(&attempt.run, event).boxed()
    }

    fn finished<'a>(&'a self, attempt: &'a AttemptId, report: JobReport) -> BoxFuture<'a, anyhow::Result<Verdict>> {
        let report = Box::new(report);
        let event = RunEvent::Finished { job: attempt.job.clone(), attempt: attempt.number, report };
        self.told(&attempt.run, event).boxed()
    }

    fn lost<'a>(&'a self, attempt: &'a AttemptId, reason: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        let event = RunEvent::Lost { job: attempt.job.clone(), attempt: attempt.number, reason: reason.to_owned() };
        async move { self.told(&attempt.run, event).await.map(|_| ()) }.boxed()
    }

    fn waits<'a>(&'a self, run: &'a str, job: &'a str, reason: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        let event = RunEvent::Waits { job: job.to_owned(), reason: reason.to_owned() };
        async move { self.told(run, event).await.map(|_| ()) }.boxed()
    }

    fn unmatched<'a>(&'a self, run: &'a str, job: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        let event = RunEvent::Unmatched { job: job.to_owned() };
        async move { self.told(run, event).await.map(|_| ()) }.boxed()
    }
}

impl RunService {
    async fn told(&self, run: &str, event: RunEvent) -> anyhow::Result<Verdict> {
        Ok(match self.apply(run, event, Vec::new()).await? {
            Applied::Changed(_) | Applied::Unchanged(RunRefusal::Repeated) => Verdict::Accepted,
            Applied::Unchanged(RunRefusal::Stale | RunRefusal::Terminal) => Verdict::Stale,
        })
    }

    /// What a worker gets: the run's secrets only where the commit is trusted, and never its publisher key.
    async fn handout(&self, state: &RunState, key: &str) -> anyhow::Result<Handout> {
        let order = run::order(state, key).with_context(|| format!("run {} has no job {key}", state.id))?;
        let secrets: Vec<(String, SecretString)> = if state.gives_secrets() {
            let mut values = self.secrets(&state.id).await?;
            values.retain(|(name, _)| name != PUBLISHER_SECRET);
            state.secrets_of(key, values)
        } else {
            Vec::new()
        };
        Ok(Handout {
            attempt: AttemptId { run: state.id.clone(), job: key.to_owned(), number: order.attempt },
            order,
            secrets,
            masks: Vec::new(),
            time_limit_ms: time_left(state, self.now()),
        })
    }
}

/// Milliseconds the run may still take; 0: no limit.
fn time_left(state: &RunState, now: Millis) -> u64 {
    let limit = state.rules.max_duration_ms;
    match (limit, state.deadline(now)) {
        (0, _) => 0,
        (limit, None) => limit,
        (_, Some(due)) => due.saturating_sub(now).max(1),
    }
}

/// Attempts that are out.
fn held(state: &RunState) -> impl Iterator<Item = Leased> {
    state.jobs.iter().filter_map(|(key, job)| {
        let cancelling = match &job.phase {
            JobPhase::Running { .. } => None,
            JobPhase::Cancelling { reason, .. } => Some(reason.to_string()),
            _ => return None,
        };
        let last = job.attempts.last()?;
        Some(Leased {
            attempt: AttemptId { run: state.id.clone(), job: key.clone(), number: last.number },
            worker: last.worker.clone(),
            repository: state.request.repository.address.clone(),
            cancelling,
        })
    })
}

impl PublisherKeys for RunService {
    fn publisher<'a>(&'a self, run: &'a str) -> BoxFuture<'a, anyhow::Result<Option<Keys>>> {
        self.publisher_key(run).boxed()
    }
}
