//! Speaks with one worker.
//!
//! The reader answers renewals and confirmed cancels itself; what has to be stored goes to a clerk, so a slow store
//! delays no renewal.

use domain::run::AttemptId;
use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use futures::{TryStreamExt as _, stream::BoxStream};
use proto::worker::{
    Accepted, FromWorker, Job, Register, Renewed, Result as Report, ToWorker, Welcome, Withdrawn, from_worker,
    progress::What, to_worker::Message,
};
use secrecy::ExposeSecret as _;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tracing::{info, warn};
use workflow::plan::JobReport;

use super::{
    Handout, Inner, Verdict, attempt_id, attempt_message, deadline, enrol,
    pool::{Joining, Lost, stop_message},
};

/// Messages of one worker that wait for the store. Past it the worker waits too.
const CLERK_QUEUE: usize = 256;

/// Messages of one worker, in order; the end of the stream or an error ends its session.
pub type Inbound = BoxStream<'static, Result<FromWorker, Status>>;

/// Where messages to one worker go.
pub type Outbound = mpsc::Sender<Result<ToWorker, Status>>;

pub(super) async fn run(inner: Arc<Inner>, mut inbound: Inbound, out: Outbound, stop: CancellationToken) {
    let (register, row) = match enrol::admit(&inner, &mut inbound, &out).await {
        Ok(admitted) => admitted,
        Err(status) => {
            warn!(reason = status.message(), "a worker was refused");
            _ = out.send(Err(status)).await;
            return;
        }
    };
    let (worker, name) = (row.id.clone(), row.name.clone());
    let end = stop.child_token();
    let joining = Joining { row, version: register.version.clone(), out: out.clone(), end: end.clone() };
    let (said, welcome) = (said(&register), welcome(&inner, &register, &worker));
    let session = match join(&inner, joining, &said, welcome, &stop).await {
        Ok(generation) => Arc::new(Session { inner, worker, generation, stop }),
        Err(error) => {
            _ = out.send(Err(Status::unavailable(format!("{error:#}")))).await;
            return;
        }
    };
    info!(worker = session.worker, name, "worker connected");
    let (clerk, work) = mpsc::channel(CLERK_QUEUE);
    // A task of its own: what it has begun with the store it ends, whatever becomes of the session.
    tokio::spawn(session.clone().clerk(work));
    tokio::select! {
        biased;
        () = end.cancelled() => {}
        () = session.read(&mut inbound, clerk) => {}
    }
    info!(worker = session.worker, name, "worker disconnected");
    session.inner.change(|pool| pool.leave(&session.worker, session.generation));
    session.inner.wake.notify_one();
}

fn said(register: &Register) -> Vec<AttemptId> {
    register.running.iter().chain(&register.finished).cloned().map(attempt_id).collect()
}

fn welcome(inner: &Inner, register: &Register, worker: &str) -> Welcome {
    let common = proto::FEATURES.iter().filter(|ours| register.features.iter().any(|theirs| theirs == *ours));
    let ms = |duration: std::time::Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    Welcome {
        worker: worker.to_owned(),
        bulk: inner.parts.bulk_url.clone(),
        lease_ms: ms(inner.parts.terms.lease),
        renew_ms: ms(inner.parts.terms.renew),
        features: common.map(ToString::to_string).collect(),
    }
}

/// Seats the worker and settles what it holds: adopted, stopped, or lost.
async fn join(
    inner: &Arc<Inner>,
    joining: Joining,
    said: &[AttemptId],
    welcome: Welcome,
    stop: &CancellationToken,
) -> anyhow::Result<u64> {
    let (worker, name, out) = (joining.row.id.clone(), joining.row.name.clone(), joining.out.clone());
    // Before the seat: offers may follow at once, and Welcome comes first.
    _ = out.send(Ok(ToWorker { message: Some(Message::Welcome(welcome)) })).await;
    let (generation, claims) = inner.change(|pool| pool.join(joining, said, Instant::now()));
    for attempt in claims.unknown {
        let message = stop_message(&attempt, "the attempt is not current: it was lost or ended");
        inner.pool().send(&worker, generation, message);
    }
    for attempt in claims.missing {
        inner.change(|pool| pool.release(&attempt, &worker));
        let reason = format!("worker {name} came back without it");
        tokio::spawn(deadline::tell(inner.clone(), Lost { attempt, worker: worker.clone(), reason }, stop.clone()));
    }
    inner.pool().welcomed(&worker, generation);
    inner.wake.notify_one();
    Ok(generation)
}

struct Session {
    inner: Arc<Inner>,
    worker: String,
    generation: u64,
    stop: CancellationToken,
}

impl Session {
    async fn read(&self, inbound: &mut Inbound, clerk: mpsc::Sender<from_worker::Message>) {
        while let Ok(Some(FromWorker { message })) = inbound.try_next().await {
            if !self.inner.pool().is_current(&self.worker, self.generation) {
                return;
            }
            let Some(message) = message else { continue };
            match message {
                from_worker::Message::Renew(renew) => {
                    self.renew(renew.attempts.into_iter().map(attempt_id).collect());
                }
                from_worker::Message::Cancelled(cancelled) => {
                    if let Some(attempt) = cancelled.attempt.map(attempt_id) {
                        self.inner.change(|pool| pool.confirmed(&attempt, &self.worker, Instant::now()));
                        self.inner.wake.notify_one();
                    }
                }
                from_worker::Message::Capacity(capacity) => {
                    self.inner.change(|pool| pool.capacity(&self.worker, self.generation, capacity));
                    self.inner.wake.notify_one();
                }
                other => {
                    if clerk.send(other).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn renew(&self, attempts: Vec<AttemptId>) {
        let (held, stale) = self.inner.change(|pool| pool.renew(attempts, &self.worker, Instant::now()));
        self.send(Message::Renewed(Renewed { attempts: held.iter().map(attempt_message).collect() }));
        for attempt in stale {
            self.refuse(&attempt);
        }
    }

    async fn clerk(self: Arc<Self>, mut work: mpsc::Receiver<from_worker::Message>) {
        while let Some(message) = work.recv().await {
            let done = match message {
                from_worker::Message::Accept(accept) => self.accept(&accept.offer).await,
                from_worker::Message::Refuse(refuse) => {
                    info!(worker = self.worker, reason = refuse.reason, "offer refused");
                    self.inner.change(|pool| pool.close_offer(&refuse.offer, &self.worker));
                    self.inner.wake.notify_one();
                    Ok(())
                }
                from_worker::Message::Progress(progress) => self.progress(progress).await,
                from_worker::Message::Result(report) => self.result(report).await,
                _ => Ok(()),
            };
            if let Err(error) = done {
                // The worker says it again: results until they are answered, offers by the next round.
                warn!(worker = self.worker, error = format!("{error:#}"), "a worker's message could not be handled");
            }
        }
    }

    async fn accept(&self, offer: &str) -> anyhow::Result<()> {
        let Some((run, job)) = self.inner.change(|pool| pool.accept(offer, &self.worker)) else {
            self.send(Message::Withdrawn(Withdrawn { offer: offer.to_owned() }));
            return Ok(());
        };
        let begun = self.inner.parts.runs.begin(&run, &job, &self.worker).await;
        let given = match begun {
            Ok(Some(handout)) => self.hand_over(offer, handout),
            Ok(None) | Err(_) => {
                self.inner.change(|pool| pool.close_offer(offer, &self.worker));
                self.send(Message::Withdrawn(Withdrawn { offer: offer.to_owned() }));
                begun.map(|_| ()).context("an accepted job could not begin")
            }
        };
        self.inner.wake.notify_one();
        given
    }

    fn hand_over(&self, offer: &str, handout: Handout) -> anyhow::Result<()> {
        let Handout { attempt, order, secrets, masks, time_limit_ms } = handout;
        let repository = order.source.repository.clone();
        let alive = self.inner.change(|pool| {
            pool.close_offer(offer, &self.worker);
            pool.begin(&attempt, &self.worker, self.generation, &repository, Instant::now())
        });
        if !alive {
            let (worker, reason) = (self.worker.clone(), "its worker went away before it got the job".to_owned());
            tokio::spawn(deadline::tell(self.inner.clone(), Lost { attempt, worker, reason }, self.stop.clone()));
            return Ok(());
        }
        let secrets: BTreeMap<_, _> =
            secrets.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect();
        let access = self.inner.parts.origin.access(&attempt, &order);
        let id_token = access.as_ref().is_some_and(|access| access.id_token);
        self.send(Message::Job(Job {
            offer: offer.to_owned(),
            attempt: Some(attempt_message(&attempt)),
            order: serde_json::to_vec(&order).context("a job order as JSON")?.into(),
            secrets: secrets.into_iter().collect(),
            masks: masks.iter().map(|mask| mask.expose_secret().to_owned()).collect(),
            time_limit_ms,
            token: self.inner.tokens.attempt(&attempt, &self.worker),
            runtime_token: access.map(|access| access.token.expose_secret().to_owned()).unwrap_or_default(),
            id_token,
        }));
        Ok(())
    }

    async fn progress(&self, progress: proto::worker::Progress) -> anyhow::Result<()> {
        let Some(attempt) = progress.attempt.map(attempt_id) else { return Ok(()) };
        if !self.inner.pool().holds(&attempt, &self.worker) {
            self.refuse(&attempt);
            return Ok(());
        }
        // Steps show in the log, by their marks; the run knows only whether one was about to start.
        if let Some(What::Begun(_)) = progress.what
            && self.inner.parts.runs.begun(&attempt).await? == Verdict::Stale
        {
            self.inner.change(|pool| pool.release(&attempt, &self.worker));
            self.refuse(&attempt);
        }
        Ok(())
    }

    async fn result(&self, report: Report) -> anyhow::Result<()> {
        let Some(attempt) = report.attempt.map(attempt_id) else { return Ok(()) };
        let verdict = if self.inner.pool().holds(&attempt, &self.worker) {
            match serde_json::from_slice::<JobReport>(&report.report) {
                Ok(report) => self.inner.parts.runs.finished(&attempt, report).await?,
                Err(error) => {
                    let reason = format!("worker {} sent a report that can't be read: {error}", self.worker);
                    self.inner.parts.runs.lost(&attempt, &reason).await?;
                    Verdict::Stale
                }
            }
        } else {
            Verdict::Stale
        };
        self.inner.change(|pool| pool.release(&attempt, &self.worker));
        self.inner.wake.notify_one();
        match verdict {
            Verdict::Accepted => self.send(Message::Accepted(Accepted { attempt: Some(attempt_message(&attempt)) })),
            Verdict::Stale => self.refuse(&attempt),
        }
        Ok(())
    }

    fn refuse(&self, attempt: &AttemptId) {
        self.send(stop_message(attempt, "the attempt is not this worker's, or is over"));
    }

    fn send(&self, message: Message) {
        self.inner.pool().send(&self.worker, self.generation, message);
    }
}
