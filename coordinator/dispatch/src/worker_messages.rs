//! Handles the messages of a worker that change runs, in order: accepted offers, started jobs, results.
//!
//! It outlives its session until every message that was read is handled.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use domain::run::AttemptId;
use proto::worker::{Accepted, Begun, Job, Result as Report, Withdrawn, from_worker, to_worker::Message};
use secrecy::ExposeSecret as _;
use tokio::{sync::mpsc, time::Instant};
use tracing::{info, warn};
use workflow::plan::{JobReport, Reason};

use super::{
    Acknowledgement, Assignment,
    connection::Session,
    messages::{attempt_id, attempt_message},
    tracked,
};

pub(super) async fn run(session: Arc<Session>, mut messages: mpsc::Receiver<Box<from_worker::Message>>) {
    while let Some(message) = messages.recv().await {
        // Boxed, as are the messages in the queue: most workers are idle, and have room for neither then.
        if let Err(error) = Box::pin(session.handle(*message)).await {
            // The worker repeats results until they are answered; jobs are offered again.
            warn!(worker = session.worker, error = format!("{error:#}"), "a worker's message could not be handled");
        }
    }
}

impl Session {
    async fn handle(&self, message: from_worker::Message) -> anyhow::Result<()> {
        match message {
            from_worker::Message::Accept(accept) => self.accept(&accept.offer).await,
            from_worker::Message::Refuse(refuse) => {
                info!(worker = self.worker, reason = format!("{:.300}", refuse.reason), "offer refused");
                self.inner.registry.lock().refuse(&refuse.offer, &self.worker);
                self.inner.assign.notify_one();
                Ok(())
            }
            from_worker::Message::Begun(begun) => {
                tracked::caught("begin of a job", self.begun(begun)).await.unwrap_or(Ok(()))
            }
            from_worker::Message::Result(report) => {
                tracked::caught("result of a job", self.result(report)).await.unwrap_or(Ok(()))
            }
            // The session found that these have no lease.
            from_worker::Message::Renew(ended) => {
                for attempt in ended.attempts.into_iter().map(attempt_id) {
                    self.inner.registry.lock().release(&attempt, &self.worker);
                    self.stop(&attempt);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn accept(&self, offer: &str) -> anyhow::Result<()> {
        let Some((run, job)) = self.inner.registry.lock().accept(offer, &self.worker) else {
            self.withdraw(offer);
            return Ok(());
        };
        // A panic must not leave the offer accepted for ever.
        let beginning = async { self.inner.config.runs.begin(&run, &job, &self.worker).await };
        let begun = tracked::caught("begin of an attempt", beginning).await;
        let delivered = match begun.unwrap_or_else(|| Err(anyhow::anyhow!("beginning it ended in a bug"))) {
            Ok(Some(assignment)) => self.deliver(offer, assignment).await,
            Ok(None) => {
                self.withdraw(offer);
                Ok(())
            }
            Err(error) => {
                self.withdraw(offer);
                Err(error.context("an accepted job could not begin"))
            }
        };
        self.inner.assign.notify_one();
        delivered
    }

    fn withdraw(&self, offer: &str) {
        self.inner.registry.lock().close_offer(offer, &self.worker);
        self.send(Message::Withdrawn(Withdrawn { offer: offer.to_owned() }));
    }

    /// Sends the assignment of an attempt whose lease is stored. If it can't be sent the attempt is lost at once, since no
    /// worker would ever report on it.
    async fn deliver(&self, offer: &str, assignment: Assignment) -> anyhow::Result<()> {
        let attempt = assignment.attempt.clone();
        let repository = assignment.order.source.repository.clone();
        if !assignment.secrets.is_empty() {
            // A lost worker can't be made to forget them: this says who has them.
            let names = assignment.secrets.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(" ");
            info!(
                run = attempt.run.as_str(),
                job = attempt.job.as_str(),
                attempt = attempt.number,
                worker = self.worker,
                names,
                "secrets are given to a worker"
            );
        }
        let alive = {
            let mut registry = self.inner.registry.lock();
            let alive = registry.begin(&attempt, &self.worker, self.generation, &repository, Instant::now());
            registry.close_offer(offer, &self.worker);
            alive
        };
        match self.message(offer, assignment).and_then(check_size) {
            Ok(job) if alive => {
                self.send(Message::Job(job));
                Ok(())
            }
            Ok(_) => self.lose(&attempt, "its worker went away before it got the job").await,
            // No other worker can be sent it either.
            Err(error) => self.fail(&attempt, format!("the job can't be sent to a worker: {error:#}")).await,
        }
    }

    /// The attempt is over, and its worker sends no report. If this can't be stored, the lease runs out.
    pub(super) async fn lose(&self, attempt: &AttemptId, reason: &str) -> anyhow::Result<()> {
        warn!(run = attempt.run.as_str(), job = attempt.job.as_str(), attempt = attempt.number, reason, "attempt lost");
        self.inner.registry.lock().release(attempt, &self.worker);
        self.inner.config.runs.lost(attempt, reason).await
    }

    /// The job ends here, with a report that is ours. If this can't be stored, the lease runs out.
    async fn fail(&self, attempt: &AttemptId, reason: String) -> anyhow::Result<()> {
        let now = (self.inner.config.clock)();
        let report =
            JobReport { started_at_ms: now, finished_at_ms: now, ..JobReport::failed(Reason::Invalid(reason)) };
        self.inner.registry.lock().release(attempt, &self.worker);
        self.inner.config.runs.finished(attempt, report).await.map(drop)
    }

    fn message(&self, offer: &str, assignment: Assignment) -> anyhow::Result<Job> {
        let Assignment { attempt, order, secrets, time_limit_ms } = assignment;
        let secrets: BTreeMap<_, _> =
            secrets.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect();
        let access = self.inner.config.actions_api.access(&attempt, &order);
        let id_token = access.as_ref().is_some_and(|access| access.id_token);
        Ok(Job {
            offer: offer.to_owned(),
            attempt: Some(attempt_message(&attempt)),
            order: serde_json::to_vec(&order).context("a job order as JSON")?.into(),
            secrets: secrets.into_iter().collect(),
            time_limit_ms,
            token: self.inner.tokens.attempt(&attempt, &self.worker),
            runtime_token: access.map(|access| access.token.expose_secret().to_owned()).unwrap_or_default(),
            id_token,
        })
    }

    async fn begun(&self, begun: Begun) -> anyhow::Result<()> {
        let Some(attempt) = begun.attempt.map(attempt_id) else { return Ok(()) };
        if !self.inner.holds(&attempt, &self.worker).await? {
            self.stop(&attempt);
            return Ok(());
        }
        if self.inner.config.runs.begun(&attempt).await? == Acknowledgement::Stale {
            self.inner.registry.lock().release(&attempt, &self.worker);
            self.stop(&attempt);
        }
        Ok(())
    }

    async fn result(&self, report: Report) -> anyhow::Result<()> {
        let Some(attempt) = report.attempt.map(attempt_id) else { return Ok(()) };
        let acknowledgement = if !self.inner.holds(&attempt, &self.worker).await? {
            Acknowledgement::Stale
        } else if report.report.len() > proto::REPORT_LIMIT {
            // It would be sent again for ever, so it is answered, and the worker is told to forget it.
            let (size, limit) = (report.report.len(), proto::REPORT_LIMIT);
            self.fail(&attempt, format!("its worker sent a report of {size} bytes, more than {limit} are not read"))
                .await?;
            Acknowledgement::Stale
        } else {
            match serde_json::from_slice::<JobReport>(&report.report) {
                Ok(report) => self.inner.config.runs.finished(&attempt, report).await?,
                Err(error) => {
                    let reason = format!("worker {} sent a report that can't be read: {error}", self.worker);
                    self.inner.config.runs.lost(&attempt, &reason).await?;
                    Acknowledgement::Stale
                }
            }
        };
        self.inner.registry.lock().release(&attempt, &self.worker);
        self.inner.assign.notify_one();
        match acknowledgement {
            Acknowledgement::Accepted => {
                self.send(Message::Accepted(Accepted { attempt: Some(attempt_message(&attempt)) }));
            }
            Acknowledgement::Stale => self.stop(&attempt),
        }
        Ok(())
    }
}

/// A message beyond the limit would end the session, and the job would be assigned again for ever.
fn check_size(job: Job) -> anyhow::Result<Job> {
    let size = prost::Message::encoded_len(&job);
    anyhow::ensure!(
        size + 1024 <= proto::MESSAGE_LIMIT,
        "its order has {size} bytes, more than {} are not sent: make its workflow, matrix or secrets smaller",
        proto::MESSAGE_LIMIT
    );
    Ok(job)
}
