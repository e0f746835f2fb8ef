//! Workers without machines: they speak the worker protocol over real gRPC as the product's worker does, and report
//! success after a given time instead of running anything.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use parking_lot::{Mutex, MutexGuard};
use proto::worker::{
    Accept, Attempt, Begun, Cancelled, Draining, FromWorker, Proof, Refuse, Register, Renew, Result as Report,
    ToWorker, from_worker::Message as Up, to_worker::Message as Down, workers_client::WorkersClient,
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Streaming,
    transport::{Certificate, ClientTlsConfig, Endpoint},
};
use workflow::plan::{Conclusion, JobReport};

/// Label that every workflow here asks for.
const LABEL: &str = "ubuntu-latest";
/// Between two tries to connect, in milliseconds, drawn anew each time: what the product's worker begins with.
const RECONNECT_MS: std::ops::Range<u64> = 100..200;

/// What the workers do with jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// They take none, and report what they have.
    Idle,
    /// They take them, and report success after this long.
    Work(Duration),
    /// They take them and never report.
    Hold,
}

/// A job, by the id of its run and its key there, and the attempt that ended.
pub(crate) type Ended = (String, String, u32);

/// Connected simulated workers. They end when it is dropped.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    duty: watch::Sender<Duty>,
    tasks: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    welcomed: AtomicUsize,
    assigned: AtomicUsize,
    accepted: AtomicUsize,
    stopped: AtomicUsize,
    records: Mutex<Records>,
    /// Told of each assignment.
    assignment: tokio::sync::Notify,
}

/// What became of jobs, from the workers' side.
#[derive(Debug, Default)]
pub(crate) struct Records {
    /// Attempts whose success the coordinator accepted, and how often it said so for the first report of each.
    pub(crate) accepted: HashMap<Ended, usize>,
    /// When each acceptance came.
    pub(crate) times: Vec<Instant>,
    /// From a result sent, which frees the slot, until the next assignment there.
    pub(crate) hand_outs: Vec<Duration>,
    /// When each assignment came.
    pub(crate) assignments: Vec<(String, Instant)>,
}

struct Worker {
    number: usize,
    slots: u32,
    key: Ed25519KeyPair,
    endpoint: Endpoint,
    duty: watch::Receiver<Duty>,
    shared: Arc<Shared>,
    report: Bytes,
    /// Attempts under way, and when each is done by its own clock.
    running: Vec<(Attempt, Instant)>,
    /// Reported, and not answered yet.
    finished: Vec<Attempt>,
    /// When a slot became free, for each that is.
    free: Vec<Instant>,
}

/// Enrolment keys of this many workers, as the configuration names them.
pub(crate) fn identities(count: usize) -> Result<Vec<String>> {
    (0..count).map(|number| Ok(hex::encode(key(number)?.public_key()))).collect()
}

fn key(number: usize) -> Result<Ed25519KeyPair> {
    let mut seed = [7; 32];
    seed.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
    Ed25519KeyPair::from_seed_unchecked(&seed).ok().context("a seed has 32 bytes")
}

/// A URL of the worker port, checked against a certificate authority.
fn endpoint(url: &str, ca: &Path) -> Result<Endpoint> {
    let pem = std::fs::read(ca).with_context(|| format!("{}", ca.display()))?;
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem));
    Ok(Endpoint::from_shared(url.to_owned())?.tcp_nodelay(true).tls_config(tls)?)
}

impl Fleet {
    /// Workers with these numbers, idle until told otherwise. Returns once all are welcomed.
    pub(crate) async fn connect(url: &str, ca: &Path, numbers: std::ops::Range<usize>, slots: u32) -> Result<Self> {
        let count = numbers.len();
        let fleet = Self::start(url, ca, numbers, slots, Duty::Idle)?;
        fleet.until_welcomed(count, Duration::from_secs(120)).await?;
        Ok(fleet)
    }

    /// The same without waiting for their sessions.
    pub(crate) fn start(url: &str, ca: &Path, numbers: std::ops::Range<usize>, slots: u32, duty: Duty) -> Result<Self> {
        let (duty, watched) = watch::channel(duty);
        let (shared, endpoint) = (Arc::<Shared>::default(), endpoint(url, ca)?);
        let report = Bytes::from(serde_json::to_vec(&success())?);
        let mut tasks = JoinSet::new();
        for number in numbers {
            let worker = Worker {
                number,
                slots,
                key: key(number)?,
                endpoint: endpoint.clone(),
                duty: watched.clone(),
                shared: shared.clone(),
                report: report.clone(),
                running: Vec::new(),
                finished: Vec::new(),
                free: Vec::new(),
            };
            tasks.spawn(worker.run());
        }
        Ok(Self { shared, duty, tasks })
    }

    /// Waits until this many sessions were welcomed altogether.
    pub(crate) async fn until_welcomed(&self, count: usize, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while self.welcomed() < count {
            ensure!(Instant::now() < until, "{} of {count} sessions were welcomed within {limit:?}", self.welcomed());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// Sets what the workers do from now on.
    pub(crate) fn set(&self, duty: Duty) {
        self.duty.send_replace(duty);
    }

    /// Sessions that were welcomed so far, reconnections included.
    pub(crate) fn welcomed(&self) -> usize {
        self.shared.welcomed.load(Ordering::Relaxed)
    }

    /// Jobs assigned so far.
    pub(crate) fn assigned(&self) -> usize {
        self.shared.assigned.load(Ordering::Relaxed)
    }

    /// Results accepted so far.
    pub(crate) fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::Relaxed)
    }

    /// Waits until `count` jobs were assigned altogether.
    pub(crate) async fn until_assigned(&self, count: usize, limit: Duration) -> Result<()> {
        let assigned = async {
            loop {
                let mut next = std::pin::pin!(self.shared.assignment.notified());
                next.as_mut().enable();
                if self.assigned() >= count {
                    return;
                }
                next.await;
            }
        };
        let waited = tokio::time::timeout(limit, assigned).await;
        waited.with_context(|| format!("{} of {count} jobs were assigned within {limit:?}", self.assigned()))
    }

    /// Waits until `count` results were accepted altogether.
    pub(crate) async fn until_accepted(&self, count: usize, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        while self.accepted() < count {
            ensure!(Instant::now() < until, "{} of {count} results were accepted within {limit:?}", self.accepted());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }

    /// Waits until every job that was assigned has its result accepted, or was stopped.
    pub(crate) async fn settle(&self, limit: Duration) -> Result<()> {
        let until = Instant::now() + limit;
        let open = || self.assigned().saturating_sub(self.accepted() + self.shared.stopped.load(Ordering::Relaxed));
        // An acceptance that is under way may still become an assignment: none may come for a while.
        let (mut still, mut assigned) = (0, self.assigned());
        while still < 10 {
            tokio::time::sleep(Duration::from_millis(50)).await;
            still = if open() == 0 && self.assigned() == assigned { still + 1 } else { 0 };
            assigned = self.assigned();
            ensure!(Instant::now() < until, "{} jobs have no accepted result after {limit:?}", open());
        }
        Ok(())
    }

    /// Takes what was recorded so far.
    pub(crate) fn take_records(&self) -> Records {
        std::mem::take(&mut *self.shared.records())
    }

    /// Cuts every session.
    pub(crate) async fn disconnect(mut self) {
        self.tasks.shutdown().await;
    }
}

impl Shared {
    fn records(&self) -> MutexGuard<'_, Records> {
        self.records.lock()
    }
}

/// One session, as it is written to.
struct Session<'a> {
    out: &'a mpsc::Sender<FromWorker>,
}

impl Session<'_> {
    async fn send(&self, message: Up) -> Result<()> {
        Ok(self.out.send(FromWorker { message: Some(message) }).await?)
    }
}

impl Worker {
    async fn run(mut self) {
        loop {
            // A session that was cut is opened again, as long as the fleet is there.
            let _ = self.session().await;
            self.free.clear();
            tokio::time::sleep(Duration::from_millis(rand::random_range(RECONNECT_MS))).await;
        }
    }

    async fn session(&mut self) -> Result<()> {
        let channel = self.endpoint.connect().await?;
        let (out, stream) = mpsc::channel(16);
        let session = Session { out: &out };
        session.send(Up::Register(self.register())).await?;
        let mut inbound = WorkersClient::new(channel).session(ReceiverStream::new(stream)).await?.into_inner();
        let renew = self.welcomed(&session, &mut inbound).await?;
        self.shared.welcomed.fetch_add(1, Ordering::Relaxed);
        self.duty.mark_changed();
        let mut renewal = tokio::time::interval(renew);
        loop {
            let next = self.running.iter().map(|(_, done)| *done).min().filter(|_| self.reports());
            tokio::select! {
                message = inbound.message() => {
                    if let Some(message) = message?.context("the coordinator hung up")?.message {
                        self.handle(&session, message).await?;
                    }
                }
                _ = renewal.tick() => {
                    let attempts = self.running.iter().map(|(attempt, _)| attempt.clone());
                    let attempts = attempts.chain(self.finished.iter().cloned()).collect();
                    session.send(Up::Renew(Renew { attempts })).await?;
                }
                () = sleep_until(next) => self.finish(&session).await?,
                changed = self.duty.changed() => {
                    changed?;
                    self.announce(&session).await?;
                }
            }
        }
    }

    fn reports(&self) -> bool {
        *self.duty.borrow() != Duty::Hold
    }

    fn register(&self) -> Register {
        Register {
            identity: hex::encode(self.key.public_key()),
            name: format!("simulated-{}", self.number),
            version: env!("CARGO_PKG_VERSION").into(),
            labels: vec![LABEL.into()],
            slots: self.slots,
            running: self.running.iter().map(|(attempt, _)| attempt.clone()).collect(),
            finished: self.finished.clone(),
            ..Register::default()
        }
    }

    /// Proves the identity. Gives how often leases are to be renewed.
    async fn welcomed(&self, session: &Session<'_>, inbound: &mut Streaming<ToWorker>) -> Result<Duration> {
        loop {
            match inbound.message().await?.context("no welcome")?.message {
                Some(Down::Challenge(challenge)) => {
                    let text = [proto::SESSION_CONTEXT, &challenge.nonce].concat();
                    let signature = self.key.sign(&text).as_ref().to_vec().into();
                    session.send(Up::Proof(Proof { signature })).await?;
                }
                Some(Down::Welcome(welcome)) => return Ok(Duration::from_millis(welcome.renew_ms.max(1).into())),
                _ => {}
            }
        }
    }

    /// Says whether it takes jobs, and repeats results that were not answered.
    async fn announce(&mut self, session: &Session<'_>) -> Result<()> {
        let duty = *self.duty.borrow_and_update();
        let now = Instant::now();
        let time = match duty {
            Duty::Work(time) => time,
            Duty::Idle | Duty::Hold => Duration::ZERO,
        };
        self.running.iter_mut().for_each(|(_, done)| *done = (*done).min(now + time));
        for attempt in &self.finished {
            session.send(self.result(attempt)).await?;
        }
        // While a worker takes no jobs its slots wait for none.
        self.free.clear();
        // All workers at once would be a burst of jobs, and their ends, equally far off, another and another.
        tokio::time::sleep(time.mul_f64(rand::random())).await;
        session.send(Up::Draining(Draining { draining: duty == Duty::Idle })).await
    }

    async fn handle(&mut self, session: &Session<'_>, message: Down) -> Result<()> {
        match message {
            Down::Offer(offer) => {
                let answer = match *self.duty.borrow() {
                    Duty::Idle => Up::Refuse(Refuse { offer: offer.offer, reason: "it takes no jobs now".into() }),
                    Duty::Work(_) | Duty::Hold => Up::Accept(Accept { offer: offer.offer }),
                };
                session.send(answer).await
            }
            Down::Job(job) => match job.attempt {
                Some(attempt) => self.begin(session, attempt).await,
                None => Ok(()),
            },
            Down::Accepted(accepted) => {
                let Some(attempt) = accepted.attempt else { return Ok(()) };
                let before = self.finished.len();
                self.finished.retain(|finished| *finished != attempt);
                // A repeated report is answered again; that is no second acceptance.
                if self.finished.len() < before {
                    let mut records = self.shared.records();
                    *records.accepted.entry((attempt.run, attempt.job, attempt.attempt)).or_default() += 1;
                    records.times.push(Instant::now());
                    drop(records);
                    self.shared.accepted.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
            Down::Cancel(cancel) => {
                let Some(attempt) = cancel.attempt else { return Ok(()) };
                self.running.retain(|(running, _)| *running != attempt);
                session.send(Up::Cancelled(Cancelled { attempt: Some(attempt.clone()) })).await?;
                let report = serde_json::to_vec(&JobReport { conclusion: Conclusion::Cancelled, ..success() })?.into();
                session.send(Up::Result(Report { attempt: Some(attempt), report })).await
            }
            Down::Stop(stop) => {
                let held = self.running.len() + self.finished.len();
                self.running.retain(|(running, _)| Some(running) != stop.attempt.as_ref());
                self.finished.retain(|finished| Some(finished) != stop.attempt.as_ref());
                let stopped = held - self.running.len() - self.finished.len();
                self.shared.stopped.fetch_add(stopped, Ordering::Relaxed);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn begin(&mut self, session: &Session<'_>, attempt: Attempt) -> Result<()> {
        let now = Instant::now();
        let free = self.free.pop();
        {
            let mut records = self.shared.records();
            records.hand_outs.extend(free.map(|free| now - free));
            records.assignments.push((attempt.run.clone(), now));
        }
        self.shared.assigned.fetch_add(1, Ordering::Relaxed);
        self.shared.assignment.notify_waiters();
        let time = match *self.duty.borrow() {
            Duty::Work(time) => time.mul_f64(if time.is_zero() { 1.0 } else { rand::random_range(0.9..1.1) }),
            Duty::Idle | Duty::Hold => Duration::ZERO,
        };
        session.send(Up::Begun(Begun { attempt: Some(attempt.clone()) })).await?;
        self.running.push((attempt, now + time));
        Ok(())
    }

    /// Reports what is done by now.
    async fn finish(&mut self, session: &Session<'_>) -> Result<()> {
        let now = Instant::now();
        let (done, running): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.running).into_iter().partition(|(_, done)| *done <= now);
        self.running = running;
        for (attempt, _) in done {
            self.free.push(now);
            session.send(self.result(&attempt)).await?;
            self.finished.push(attempt);
        }
        Ok(())
    }

    fn result(&self, attempt: &Attempt) -> Up {
        Up::Result(Report { attempt: Some(attempt.clone()), report: self.report.clone() })
    }
}

async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn success() -> JobReport {
    JobReport {
        conclusion: Conclusion::Success,
        reason: None,
        exit_code: 0,
        steps: Vec::new(),
        outputs: Default::default(),
        environment: None,
        annotations: Vec::new(),
        summary: String::new(),
        started: true,
        image: None,
        actions: Default::default(),
        started_at_ms: 0,
        finished_at_ms: 0,
    }
}
