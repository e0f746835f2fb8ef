//! One connection to a coordinator, from Register to its end.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use proto::worker::{
    Accept, Draining, FromWorker, Proof, Refuse, Register, Renew, ToWorker, Welcome, from_worker, to_worker,
    workers_client::WorkersClient,
};
use tokio::{
    sync::mpsc::{self, error::TrySendError},
    time::MissedTickBehavior,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Endpoint};
use tracing::{debug, info};

use super::{
    Shutdown, Worker, attempt,
    bulk::{self, BulkServiceClient},
    connect,
};

/// Messages the coordinator has not taken yet. Progress waits for room; that anything else finds none ends the session.
const OUTGOING_LIMIT: usize = 256;
/// How long the coordinator may take for each message of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// How a session ended.
pub(super) enum SessionEnd {
    /// The worker is to end, and nothing is left to send.
    Done,
    /// It was welcome and lost the connection.
    Cut(String),
    /// The coordinator does not want it.
    Refused(String),
    /// It did not come about.
    Unreachable(String),
}

struct Session {
    worker: Arc<Worker>,
    out: mpsc::Sender<FromWorker>,
    /// Offers that were accepted and have not become a job yet.
    accepted: HashSet<String>,
    draining: bool,
}

pub(super) async fn run(worker: &Arc<Worker>, endpoint: &Endpoint, shutdown: &Shutdown) -> SessionEnd {
    let channel = match endpoint.connect().await {
        Ok(channel) => channel,
        Err(error) => return SessionEnd::Unreachable(unreachable(chain(&error), worker.config.ca_file.as_deref())),
    };
    let (out, stream) = mpsc::channel(OUTGOING_LIMIT);
    let mut session =
        Session { worker: worker.clone(), out, accepted: HashSet::new(), draining: shutdown.drain.is_cancelled() };
    let mut client = WorkersClient::new(channel).max_decoding_message_size(proto::MESSAGE_LIMIT);
    if let Err(status) = session.send(from_worker::Message::Register(session.register())) {
        return refusal(&status);
    }
    let mut inbound = match client.session(ReceiverStream::new(stream)).await {
        Ok(response) => response.into_inner(),
        Err(status) => return refusal(&status),
    };
    let welcome = match session.handshake(&mut inbound).await {
        Ok(welcome) => welcome,
        Err(status) => return refusal(&status),
    };
    info!(worker = welcome.worker, "welcomed by the coordinator");
    match session.bulk(&welcome, endpoint) {
        Ok(client) => worker.bulk.send_replace(Some(client)),
        Err(error) => return SessionEnd::Unreachable(format!("bulk service: {error:#}")),
    };
    worker.attempts.mark_unreported();
    (worker.welcomed)();
    match session.work(&mut inbound, &welcome, shutdown).await {
        Ok(()) => SessionEnd::Done,
        // A twin with our identity took our place: without a pause the two would throw each other out for ever.
        Err(status) if status.code() == Code::Aborted => SessionEnd::Refused(status.message().to_owned()),
        Err(status) => SessionEnd::Cut(status.message().to_owned()),
    }
}

impl Session {
    fn register(&self) -> Register {
        let config = &self.worker.config;
        let (running, finished) = self.worker.attempts.held();
        Register {
            identity: self.worker.identity.public(),
            name: config.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            labels: config.labels.keys().cloned().collect(),
            slots: config.slots,
            running,
            finished,
            architecture: std::env::consts::ARCH.to_owned(),
            sandbox: config.sandbox.to_string(),
            token: config.token.clone().unwrap_or_default(),
        }
    }

    async fn handshake(&self, inbound: &mut Streaming<ToWorker>) -> Result<Welcome, Status> {
        loop {
            let message = tokio::time::timeout(HANDSHAKE, inbound.message()).await;
            let message = message.map_err(|_| Status::deadline_exceeded("the coordinator does not answer"))??;
            match message.ok_or_else(|| Status::unavailable("the coordinator hung up"))?.message {
                Some(to_worker::Message::Challenge(challenge)) => {
                    let signature = self.worker.identity.prove(&challenge.nonce);
                    self.send(from_worker::Message::Proof(Proof { signature }))?;
                }
                Some(to_worker::Message::Welcome(welcome)) => return Ok(welcome),
                _ => {}
            }
        }
    }

    /// A second connection: streams of one share its window, and control must not wait for logs.
    fn bulk(&self, welcome: &Welcome, session: &Endpoint) -> anyhow::Result<BulkServiceClient> {
        let config = &self.worker.config;
        let (url, endpoint) = match welcome.bulk.as_str() {
            "" => (&config.coordinator, session.clone()),
            url => (&welcome.bulk, connect::endpoint(url, config.ca_file.as_deref())?),
        };
        self.worker.address.send_replace(Some(url.clone()));
        Ok(bulk::client_of(&endpoint))
    }

    async fn work(
        &mut self,
        inbound: &mut Streaming<ToWorker>,
        welcome: &Welcome,
        shutdown: &Shutdown,
    ) -> Result<(), Status> {
        let every = Duration::from_millis(welcome.renew_ms.max(1).into());
        let silence = Duration::from_millis(welcome.lease_ms.into()).max(2 * every);
        let mut renewal = tokio::time::interval(every);
        renewal.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last_message = tokio::time::Instant::now();
        let worker = self.worker.clone();
        if self.draining {
            self.send(draining())?;
        }
        loop {
            if self.draining && worker.attempts.is_empty() && self.accepted.is_empty() {
                return Ok(());
            }
            tokio::select! {
                biased;
                _ = renewal.tick() => {
                    if last_message.elapsed() > silence {
                        return Err(Status::deadline_exceeded("the coordinator went silent"));
                    }
                    let (running, finished) = worker.attempts.held();
                    self.send(from_worker::Message::Renew(Renew { attempts: [running, finished].concat() }))?;
                    // Results that nobody answered are due again some time.
                    worker.attempts.changed.notify_one();
                }
                message = inbound.message() => {
                    last_message = tokio::time::Instant::now();
                    let message = message?.ok_or_else(|| Status::unavailable("the coordinator hung up"))?;
                    if let Some(message) = message.message {
                        self.on_message(message)?;
                    }
                }
                () = shutdown.drain.cancelled(), if !self.draining => {
                    info!("draining: no new jobs, the worker ends when the running ones are done");
                    self.draining = true;
                    self.send(draining())?;
                }
                () = shutdown.stop.cancelled(), if !worker.attempts.held().0.is_empty() => {
                    worker.attempts.kill_all();
                    worker.attempts.all_ended().await;
                }
                () = worker.attempts.changed.notified() => {
                    worker.attempts.flush(Instant::now(), |message| self.out.try_send(message).is_ok());
                }
            }
        }
    }

    fn on_message(&mut self, message: to_worker::Message) -> Result<(), Status> {
        let attempts = &self.worker.attempts;
        match message {
            to_worker::Message::Offer(offer) => {
                let answer = match self.room() {
                    Ok(()) => {
                        self.accepted.insert(offer.offer.clone());
                        from_worker::Message::Accept(Accept { offer: offer.offer })
                    }
                    Err(reason) => {
                        from_worker::Message::Refuse(Refuse { offer: offer.offer, reason: reason.to_owned() })
                    }
                };
                self.send(answer)?;
            }
            to_worker::Message::Withdrawn(withdrawn) => _ = self.accepted.remove(&withdrawn.offer),
            to_worker::Message::Job(job) => {
                self.accepted.remove(&job.offer);
                attempt::start(&self.worker, job);
            }
            to_worker::Message::Cancel(cancel) => {
                let Some(attempt) = cancel.attempt else { return Ok(()) };
                info!(run = attempt.run, job = attempt.job, reason = cancel.reason, "cancelled");
                if let Some(handles) = attempts.cancel(&attempt) {
                    tokio::spawn(async move {
                        tokio::time::sleep(Duration::from_millis(cancel.grace_ms.into())).await;
                        handles.kill.cancel();
                    });
                }
            }
            to_worker::Message::Stop(stop) => {
                let Some(attempt) = stop.attempt else { return Ok(()) };
                info!(run = attempt.run, job = attempt.job, reason = stop.reason, "stopped");
                attempts.forget(&attempt);
            }
            to_worker::Message::Accepted(accepted) => {
                if let Some(attempt) = accepted.attempt {
                    attempts.forget(&attempt);
                }
            }
            to_worker::Message::Drain(drain) => info!(reason = drain.reason, "the coordinator offers no new jobs"),
            to_worker::Message::Renewed(_) | to_worker::Message::Challenge(_) | to_worker::Message::Welcome(_) => {}
        }
        Ok(())
    }

    fn room(&self) -> Result<(), &'static str> {
        let busy = self.worker.attempts.held().0.len() + self.accepted.len();
        if self.draining {
            Err("the worker is draining")
        } else if busy >= self.worker.config.slots as usize {
            Err("all slots are busy")
        } else {
            Ok(())
        }
    }

    /// Control messages never wait: a coordinator that does not read them is as good as gone.
    fn send(&self, message: from_worker::Message) -> Result<(), Status> {
        self.out.try_send(FromWorker { message: Some(message) }).map_err(|error| match error {
            TrySendError::Full(_) => Status::unavailable("the coordinator does not read"),
            TrySendError::Closed(_) => Status::unavailable("the connection broke"),
        })
    }
}

fn draining() -> from_worker::Message {
    from_worker::Message::Draining(Draining { draining: true })
}

fn refusal(status: &Status) -> SessionEnd {
    debug!(?status, "no session");
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument => {
            SessionEnd::Refused(status.message().to_owned())
        }
        _ => SessionEnd::Unreachable(status.message().to_owned()),
    }
}

/// Why there is no connection, with what to do where the coordinator is of another authority than ours.
fn unreachable(reason: String, ca_file: Option<&std::path::Path>) -> String {
    let foreign = ["UnknownIssuer", "BadSignature"].iter().any(|error| reason.contains(error));
    match ca_file.filter(|_| foreign) {
        Some(file) => format!(
            "its certificate is not signed by ca_file {}: copy the coordinator's ca.pem there ({reason})",
            file.display()
        ),
        None => reason,
    }
}

/// An error with its causes: tonic's own says only "transport error".
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
