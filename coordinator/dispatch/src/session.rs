//! One worker's session: reads its messages, answers renewals and confirmed cancels, and queues what changes runs for
//! the session's [`worker_messages`].

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use domain::run::AttemptId;
use futures::TryStreamExt as _;
use proto::worker::{
    Attempt, Draining, FromWorker, Register, Renew, Renewed, ToWorker, Welcome, from_worker, to_worker::Message,
};
use store::{Lease, LeaseChange, Renewal};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};
use tracing::{info, warn};

use super::{
    Inner, auth,
    connection::{Session, WorkerInbound, WorkerOutbound},
    expiry::after,
    messages::{self, attempt_id, attempt_message},
    peer_proof::Handshake,
    registry::{NewSession, WorkerProgram},
    tracked, worker_messages,
};

/// How long a refused worker waits for the answer.
const REFUSED: Duration = Duration::from_secs(1);
/// Messages of one worker that wait for the store; with more, nothing is read from the worker.
const STORE_QUEUE: usize = 256;
/// Attempts of one message that are looked at.
const ATTEMPTS: usize = 4096;

pub(super) async fn run(
    inner: Arc<Inner>,
    mut inbound: WorkerInbound,
    out: WorkerOutbound,
    handshake: Handshake,
    stop: CancellationToken,
) {
    // What happens once, or seldom, is boxed: a session that only waits has no room for it.
    let (register, row) = match Box::pin(auth::authenticate(&inner, &mut inbound, &out)).await {
        Ok(authenticated) => authenticated,
        Err(status) => {
            let told = inner.refusals.lock().count(handshake.address(), Instant::now());
            if let Some(others) = told {
                let address = handshake.address().map(|address| address.to_string());
                warn!(
                    address,
                    reason = status.message(),
                    others,
                    "a worker was refused, and others that were not logged"
                );
            }
            // Its place among the handshakes is taken meanwhile: whoever is refused again and again does it slowly.
            tokio::select! {
                biased;
                () = stop.cancelled() => {}
                () = sleep(REFUSED) => {}
            }
            _ = out.send(Err(status)).await;
            return;
        }
    };
    handshake.succeed();
    let (worker, name) = (row.id.clone(), row.name.clone());
    let end = stop.child_token();
    // Before it joins: offers may follow at once, and Welcome comes first.
    let welcome = Message::Welcome(welcome(&inner, &worker));
    _ = out.send(Ok(ToWorker { message: Some(welcome) })).await;
    let new = NewSession { row, program: WorkerProgram::of(&register), out: out.clone(), end: end.clone() };
    let generation = inner.registry.lock().join(new);
    let session = Arc::new(Session { inner, worker, generation });
    if let Err(error) = Box::pin(session.settle(&named(&register), &name)).await {
        session.inner.registry.lock().leave(&session.worker, generation);
        _ = out.send(Err(Status::unavailable(format!("leases can't be read: {error:#}")))).await;
        return;
    }
    info!(worker = session.worker, name, "worker connected");
    let (store_queue, work) = mpsc::channel(STORE_QUEUE);
    // A task of its own: messages that were read are handled even if the session ends.
    tracked::spawn(&session.inner.tasks, "messages of a worker", worker_messages::run(session.clone(), work));
    tokio::select! {
        biased;
        () = end.cancelled() => {}
        ended = session.read(&mut inbound, store_queue) => if let Err(status) = ended {
            warn!(worker = session.worker, name, reason = status.message(), code = ?status.code(),
                "a message of the worker can't be read, or its connection broke");
            let current = session.inner.registry.lock().is_current(&session.worker, generation);
            if status.code() == Code::OutOfRange && current {
                Box::pin(session.lose_all()).await;
            }
        },
    }
    info!(worker = session.worker, name, "worker disconnected");
    session.inner.registry.lock().leave(&session.worker, generation);
    session.inner.assign.notify_one();
}

/// Attempts that a worker still has from earlier sessions.
fn named(register: &Register) -> Vec<AttemptId> {
    register.running.iter().chain(&register.finished).take(ATTEMPTS).cloned().map(attempt_id).collect()
}

fn welcome(inner: &Inner, worker: &str) -> Welcome {
    let ms = |duration: std::time::Duration| u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
    Welcome {
        worker: worker.to_owned(),
        bulk: inner.config.bulk_url.clone(),
        lease_ms: ms(inner.config.timeouts.lease()),
        renew_ms: ms(inner.config.timeouts.renew()),
    }
}

impl Session {
    /// Settles what the worker holds: leases of attempts that it names are renewed, other leases are lost, and attempts
    /// without a lease are answered with Stop.
    async fn settle(&self, named: &[AttemptId], name: &str) -> anyhow::Result<()> {
        let store = &self.inner.config.store;
        let renewed: HashSet<AttemptId> = self.renewed(named.to_vec()).await?.into_iter().collect();
        let leases = store.leases_of(&self.worker).await?;
        let (kept, missing): (Vec<Lease>, Vec<Lease>) =
            leases.into_iter().partition(|lease| renewed.contains(&lease.attempt));
        for attempt in named.iter().filter(|attempt| !renewed.contains(*attempt)) {
            self.send(messages::stop(attempt, "the attempt is not current: it was lost or ended"));
        }
        for lease in missing {
            self.lose_lease(&lease.attempt, &format!("worker {name} came back without it")).await;
        }
        self.inner.registry.lock().ready(&self.worker, self.generation, &kept, Instant::now());
        self.inner.assign.notify_one();
        Ok(())
    }

    async fn lose_lease(&self, attempt: &AttemptId, reason: &str) {
        if let Err(error) = self.lose(attempt, reason).await {
            warn!(
                run = attempt.run.as_str(),
                job = attempt.job.as_str(),
                "its loss can't be stored; its lease runs out: {error:#}"
            );
        }
    }

    /// The worker sent a message that is too long to be read, and would send it again in each new session: what it is
    /// about is not known, so its attempts are all over. When it comes back it is told so.
    async fn lose_all(&self) {
        match self.inner.config.store.leases_of(&self.worker).await {
            Ok(leases) => {
                for lease in leases {
                    self.lose_lease(&lease.attempt, "its worker sent a message that is too long to be read").await;
                }
            }
            Err(error) => warn!(worker = self.worker, "leases can't be read: {error:#}"),
        }
    }

    /// Reads until the worker disconnects, or a newer session of it replaces this one.
    async fn read(
        &self,
        inbound: &mut WorkerInbound,
        store_queue: mpsc::Sender<Box<from_worker::Message>>,
    ) -> Result<(), Status> {
        while let Some(FromWorker { message }) = inbound.try_next().await? {
            if !self.inner.registry.lock().is_current(&self.worker, self.generation) {
                return Ok(());
            }
            match message {
                Some(from_worker::Message::Renew(renew)) => {
                    let attempts = renew.attempts.into_iter().take(ATTEMPTS).map(attempt_id).collect();
                    let missing = Box::pin(self.renew(attempts)).await;
                    if !missing.is_empty() {
                        // Behind a result that is being stored: its lease is gone, and its answer is no Stop.
                        let ended = from_worker::Message::Renew(Renew { attempts: missing });
                        store_queue.send(Box::new(ended)).await.map_err(|_| Status::cancelled("the session ended"))?;
                    }
                }
                Some(from_worker::Message::Cancelled(cancelled)) => {
                    if let Some(attempt) = cancelled.attempt.map(attempt_id) {
                        Box::pin(self.confirm(attempt)).await;
                    }
                }
                Some(from_worker::Message::Draining(Draining { draining })) => {
                    self.inner.registry.lock().set_leaving(&self.worker, self.generation, draining);
                    self.inner.assign.notify_one();
                }
                Some(other) => {
                    let other = Box::new(other);
                    store_queue.send(other).await.map_err(|_| Status::cancelled("the session ended"))?;
                }
                None => {}
            }
        }
        Ok(())
    }

    async fn renewed(&self, attempts: Vec<AttemptId>) -> anyhow::Result<Vec<AttemptId>> {
        let config = &self.inner.config;
        let renewal = Renewal {
            worker: self.worker.clone(),
            coordinator: config.coordinator.clone(),
            attempts,
            expires_at: after((config.clock)(), config.timeouts.lease()),
        };
        Ok(config.store.renew_leases(renewal).await?)
    }

    /// Renews leases; returns the attempts that have none.
    async fn renew(&self, attempts: Vec<AttemptId>) -> Vec<Attempt> {
        let renewed: HashSet<AttemptId> = match self.renewed(attempts.clone()).await {
            Ok(renewed) => renewed.into_iter().collect(),
            Err(error) => {
                // The worker did renew: a lease must not run out because the store failed.
                self.inner.renewals_failed.store(true, Ordering::Relaxed);
                warn!(worker = self.worker, "leases can't be renewed: {error:#}");
                return Vec::new();
            }
        };
        self.send(Message::Renewed(Renewed {}));
        attempts.iter().filter(|attempt| !renewed.contains(*attempt)).map(attempt_message).collect()
    }

    /// The processes of a cancelled attempt are gone.
    async fn confirm(&self, attempt: AttemptId) {
        let config = &self.inner.config;
        self.inner.registry.lock().confirm(&attempt, &self.worker);
        let expires_at = after((config.clock)(), config.timeouts.lease());
        let confirmed = LeaseChange::Confirm { attempt, worker: self.worker.clone(), expires_at };
        if let Err(error) = config.store.commit(vec![confirmed.into()]).await {
            self.inner.renewals_failed.store(true, Ordering::Relaxed);
            warn!(worker = self.worker, "a confirmed cancel can't be stored: {error}");
        }
        self.inner.assign.notify_one();
    }
}
