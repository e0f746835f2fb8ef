//! What dispatch has runs do: events of workers, and the assignment of an attempt.

use anyhow::Context;
use futures::future::{BoxFuture, FutureExt};
use secrecy::SecretString;
use workflow::plan::JobReport;

use crate::run_service::{Applied, RunService};
use dispatch::{Acknowledgement, Assignment, RunCommands};
use domain::id::{JobKey, RunId};
use domain::run::{self, AttemptId, Millis, RunEvent, RunRefusal, RunState};
use domain::schedule::WaitUpdate;
use nostr::Keys;
use nostr_client::publish::PublisherKeys;
use store::{Batch, LeaseChange};

impl RunCommands for RunService {
    fn begin<'a>(
        &'a self,
        run: &'a RunId,
        job: &'a JobKey,
        worker: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Option<Assignment>>> {
        async move {
            let event = RunEvent::Accepted { job: job.clone(), worker: worker.to_owned() };
            let Applied::Changed(state) = self.apply(run, event, Vec::new()).await? else { return Ok(None) };
            match self.assignment(&state, job).await {
                Ok(assignment) => Ok(Some(assignment)),
                Err(error) => {
                    // The attempt began in the store, and nobody will ever run it: it ends now, and counts as a try.
                    // If that can't be stored, its lease runs out.
                    if let Some(attempt) = current_attempt(&state, job) {
                        self.lost(&attempt, &format!("its assignment can't be made: {error:#}")).await?;
                    }
                    Err(error)
                }
            }
        }
        .boxed()
    }

    fn begun<'a>(&'a self, attempt: &'a AttemptId) -> BoxFuture<'a, anyhow::Result<Acknowledgement>> {
        let event = RunEvent::Begun { job: attempt.job.clone(), attempt: attempt.number };
        self.acknowledge(&attempt.run, event, Vec::new()).boxed()
    }

    fn finished<'a>(
        &'a self,
        attempt: &'a AttemptId,
        report: JobReport,
    ) -> BoxFuture<'a, anyhow::Result<Acknowledgement>> {
        let report = Box::new(report);
        let event = RunEvent::Finished { job: attempt.job.clone(), attempt: attempt.number, report };
        self.acknowledge(&attempt.run, event, Vec::new()).boxed()
    }

    fn lost<'a>(&'a self, attempt: &'a AttemptId, reason: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        let event = RunEvent::Lost { job: attempt.job.clone(), attempt: attempt.number, reason: reason.to_owned() };
        async move {
            // Whatever the run says of the attempt, nobody holds it.
            let ended = vec![LeaseChange::End(attempt.clone()).into()];
            match self.store().run_version(&attempt.run).await? {
                Some(_) => self.acknowledge(&attempt.run, event, ended).await.map(|_| ()),
                None => Ok(self.store().commit(ended).await?),
            }
        }
        .boxed()
    }

    fn wait_reasons<'a>(&'a self, run: &'a RunId, reasons: Vec<(JobKey, String)>) -> BoxFuture<'a, anyhow::Result<()>> {
        let update = |(job, reason)| WaitUpdate { run: run.clone(), job, reason };
        self.set_wait_reasons(reasons.into_iter().map(update).collect()).boxed()
    }

    fn unmatched<'a>(&'a self, run: &'a RunId, job: &'a JobKey) -> BoxFuture<'a, anyhow::Result<()>> {
        let event = RunEvent::Unmatched { job: job.clone() };
        async move { self.acknowledge(run, event, Vec::new()).await.map(|_| ()) }.boxed()
    }
}

impl RunService {
    async fn acknowledge(&self, run: &RunId, event: RunEvent, also: Batch) -> anyhow::Result<Acknowledgement> {
        Ok(match self.apply(run, event, also).await? {
            Applied::Changed(_) | Applied::Unchanged(RunRefusal::Repeated) => Acknowledgement::Accepted,
            Applied::Unchanged(RunRefusal::Stale | RunRefusal::Terminal) => Acknowledgement::Stale,
        })
    }

    /// What a worker gets: the request's secrets only where the commit is proven, stored ones only where the run is trusted,
    /// and never the publisher key.
    async fn assignment(&self, state: &RunState, key: &JobKey) -> anyhow::Result<Assignment> {
        let mut order = run::order(state, key).with_context(|| format!("run {} has no job {key}", state.id))?;
        let request = if state.gives_secrets() { self.secrets(&state.id).await?.values } else { Vec::new() };
        let stored = self.stored_for(state, key).await?;
        state.give_environment_variables(&mut order, stored.variables);
        let secrets: Vec<(String, SecretString)> = state.job_secrets(key, stored.secrets, request);
        let attempt = AttemptId { run: state.id.clone(), job: key.clone(), number: order.attempt };
        Ok(Assignment { attempt, order, secrets, time_limit_ms: time_left(state, self.now()) })
    }
}

fn current_attempt(state: &RunState, job: &JobKey) -> Option<AttemptId> {
    let number = state.jobs.get(job)?.attempts.last()?.number;
    Some(AttemptId { run: state.id.clone(), job: job.clone(), number })
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

impl PublisherKeys for RunService {
    fn publisher<'a>(&'a self, run: &'a RunId) -> BoxFuture<'a, anyhow::Result<Option<Keys>>> {
        async move { Ok(self.secrets(run).await?.publisher) }.boxed()
    }
}
