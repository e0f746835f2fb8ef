//! A worker's process: it speaks the worker protocol, writes a journal, and may be killed, stopped or cut off.

use std::{sync::Arc, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use domain::run::testing;
use futures::StreamExt;
use parking_lot::Mutex;
use proto::worker::{
    Accept, Attempt, Begun, Cancelled, FromWorker, Proof, Register, Renew, Result as Report, ToWorker,
    from_worker::Message as Up, to_worker::Message as Down,
};
use ring::signature::{Ed25519KeyPair, KeyPair};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::Instant,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use workflow::plan::{Conclusion, JobReport, Reason};

use crate::{coordinator::Address, network::Line, observer::Observer, random::Random};

/// Jobs at a time.
const SLOTS: u32 = 2;
/// Time of a job, in milliseconds.
const JOB_MS: std::ops::Range<u64> = 500..180_000;
/// Time until its first step, in milliseconds.
const START_MS: std::ops::Range<u64> = 100..3_000;
/// Between two tries to reach the coordinator, in milliseconds.
const RECONNECT_MS: std::ops::Range<u64> = 100..2_000;

/// A worker's machine. Its process comes and goes, its journal stays.
pub(crate) struct Worker {
    number: usize,
    key: Ed25519KeyPair,
    pub(crate) line: Line,
    stopped: watch::Sender<bool>,
    journal: Mutex<Vec<Entry>>,
    random: Mutex<Random>,
    coordinator: Address,
    observer: Observer,
    process: Mutex<Option<AbortHandle>>,
    /// Whether anything happened to it that may cost it an attempt.
    disturbed: Mutex<bool>,
}

/// An attempt in the journal.
#[derive(Debug, Clone)]
struct Entry {
    attempt: Attempt,
    begins: Instant,
    begun: bool,
    ends: Instant,
    report: JobReport,
    /// Reported, and not answered yet.
    finished: bool,
}

impl Worker {
    pub(crate) fn new(
        number: usize,
        random: &mut Random,
        coordinator: Address,
        observer: Observer,
    ) -> Result<Arc<Self>> {
        let mut seed = [3; 32];
        seed[0] = u8::try_from(number)?;
        Ok(Arc::new(Self {
            number,
            key: Ed25519KeyPair::from_seed_unchecked(&seed).ok().context("a seed has 32 bytes")?,
            line: Line::new(random.part()),
            stopped: watch::Sender::new(false),
            journal: Mutex::default(),
            random: Mutex::new(random.part()),
            coordinator,
            observer,
            process: Mutex::default(),
            disturbed: Mutex::default(),
        }))
    }

    /// Enrolment key, hex.
    pub(crate) fn identity(&self) -> String {
        hex::encode(self.key.public_key())
    }

    /// Id in the pool.
    pub(crate) fn id(&self) -> String {
        dispatch::worker_id(self.key.public_key().as_ref())
    }

    /// Starts its process.
    pub(crate) fn start(self: &Arc<Self>) {
        let this = self.clone();
        let process = tokio::spawn(async move {
            loop {
                // A session that ended is opened again for as long as the process lives.
                let _ = this.session().await;
                let wait = this.random.lock().millis(RECONNECT_MS);
                tokio::time::sleep(wait).await;
            }
        });
        *self.process.lock() = Some(process.abort_handle());
    }

    /// `kill -9`. Of each running container its next life finds it, finds it gone, or finds not even a note of it.
    pub(crate) fn kill(&self) {
        self.disturb();
        if let Some(process) = self.process.lock().take() {
            process.abort();
        }
        let mut random = self.random.lock();
        self.journal.lock().retain_mut(|entry| {
            let fate = random.number(0..100);
            if !entry.finished && (50..80).contains(&fate) {
                entry.report = failure(Reason::SandboxLost("the container is gone".into()), true);
                entry.ends = Instant::now();
            }
            entry.finished || fate < 80
        });
    }

    /// `SIGSTOP` or `SIGCONT`.
    pub(crate) fn set_stopped(&self, stopped: bool) {
        self.disturb();
        self.stopped.send_replace(stopped);
    }

    /// From now on it may lose attempts.
    pub(crate) fn disturb(&self) {
        *self.disturbed.lock() = true;
    }

    pub(crate) fn is_disturbed(&self) -> bool {
        *self.disturbed.lock()
    }

    /// Whether it has nothing to do or to report.
    pub(crate) fn is_empty(&self) -> bool {
        self.journal.lock().is_empty()
    }

    async fn session(&self) -> Result<()> {
        self.runs().await;
        let (dispatch, stop, killed) = self.coordinator.get().context("nobody listens")?;
        let closed = killed.child_token();
        let _closed = closed.clone().drop_guard();
        let (out, inbound) = self.line.pipe::<FromWorker>(closed.clone());
        let (outbound, mut messages) = self.line.pipe::<Result<ToWorker, Status>>(closed);
        let inbound = ReceiverStream::new(inbound).map(Ok).boxed();
        tokio::spawn(async move { dispatch.session(inbound, outbound, stop).await });
        self.send(&out, Up::Register(self.register())).await?;
        let (renew, silence) = self.welcomed(&out, &mut messages).await?;
        let mut renewal = tokio::time::interval(renew);
        let mut heard = Instant::now();
        loop {
            let next = self.next();
            tokio::select! {
                biased;
                message = messages.recv() => {
                    self.runs().await;
                    heard = Instant::now();
                    if let Some(message) = message.context("the session ended")??.message {
                        self.handle(&out, message).await?;
                    }
                }
                () = until(next) => {
                    self.runs().await;
                    self.advance(&out).await?;
                }
                _ = renewal.tick() => {
                    self.runs().await;
                    anyhow::ensure!(heard.elapsed() <= silence, "the coordinator is silent");
                    let attempts = self.journal.lock().iter().map(|entry| entry.attempt.clone()).collect();
                    self.send(&out, Up::Renew(Renew { attempts })).await?;
                    self.report(&out).await?;
                }
            }
        }
    }

    /// Waits while the process is stopped.
    async fn runs(&self) {
        let mut stopped = self.stopped.subscribe();
        // The sender is ours: it is there as long as we are.
        let _ = stopped.wait_for(|stopped| !stopped).await;
    }

    async fn send(&self, out: &mpsc::Sender<FromWorker>, message: Up) -> Result<()> {
        Ok(out.send(FromWorker { message: Some(message) }).await?)
    }

    fn register(&self) -> Register {
        let journal = self.journal.lock();
        let of = |finished: bool| {
            journal.iter().filter(|entry| entry.finished == finished).map(|entry| entry.attempt.clone()).collect()
        };
        Register {
            identity: self.identity(),
            name: format!("worker-{}", self.number),
            version: "0".into(),
            labels: vec!["ubuntu-latest".into()],
            slots: SLOTS,
            running: of(false),
            finished: of(true),
            ..Register::default()
        }
    }

    /// Proves the identity; gives how often to renew, and how long the coordinator may be silent.
    async fn welcomed(
        &self,
        out: &mpsc::Sender<FromWorker>,
        messages: &mut mpsc::Receiver<Result<ToWorker, Status>>,
    ) -> Result<(Duration, Duration)> {
        loop {
            let message = messages.recv().await.context("no welcome")??.message;
            self.runs().await;
            match message {
                Some(Down::Challenge(challenge)) => {
                    let text = [proto::SESSION_CONTEXT, &challenge.nonce].concat();
                    let signature = Bytes::copy_from_slice(self.key.sign(&text).as_ref());
                    self.send(out, Up::Proof(Proof { signature })).await?;
                }
                Some(Down::Welcome(welcome)) => {
                    let renew = Duration::from_millis(welcome.renew_ms.max(1).into());
                    return Ok((renew, Duration::from_millis(welcome.lease_ms.into()).max(2 * renew)));
                }
                _ => {}
            }
        }
    }

    async fn handle(&self, out: &mpsc::Sender<FromWorker>, message: Down) -> Result<()> {
        match message {
            Down::Offer(offer) => {
                if self.random.lock().percent(5) {
                    // An answer that never comes: the offer goes back to the queue by itself.
                    return Ok(());
                }
                self.send(out, Up::Accept(Accept { offer: offer.offer })).await
            }
            Down::Job(job) => {
                let attempt = job.attempt.context("a job has an attempt")?;
                self.observer.assigned((attempt.run.clone(), attempt.job.clone(), attempt.attempt));
                self.observer.note(&format!("worker {} has {}", self.number, self.name(&attempt)));
                let entry = self.entry(attempt);
                self.journal.lock().push(entry);
                Ok(())
            }
            Down::Accepted(accepted) => {
                let attempt = accepted.attempt.context("an acknowledgement has an attempt")?;
                let mut journal = self.journal.lock();
                if let Some(position) = journal.iter().position(|entry| entry.attempt == attempt && entry.finished) {
                    let Entry { attempt, report, .. } = journal.remove(position);
                    drop(journal);
                    self.observer.note(&format!("{} is acknowledged", self.name(&attempt)));
                    self.observer.acknowledged((attempt.run, attempt.job, attempt.attempt), report);
                }
                Ok(())
            }
            Down::Stop(stop) => {
                let attempt = stop.attempt.context("a stop has an attempt")?;
                self.observer.note(&format!("worker {} stops {}", self.number, self.name(&attempt)));
                self.journal.lock().retain(|entry| entry.attempt != attempt);
                Ok(())
            }
            Down::Cancel(cancel) => {
                let attempt = cancel.attempt.context("a cancel has an attempt")?;
                if let Some(entry) = self.journal.lock().iter_mut().find(|e| e.attempt == attempt && !e.finished) {
                    entry.ends = Instant::now();
                    entry.report = *testing::report(
                        Conclusion::Cancelled,
                        Some(Reason::Cancelled("the coordinator asked for it".into())),
                    );
                }
                self.send(out, Up::Cancelled(Cancelled { attempt: Some(attempt) })).await
            }
            _ => Ok(()),
        }
    }

    fn entry(&self, attempt: Attempt) -> Entry {
        let mut random = self.random.lock();
        let begins = Instant::now() + random.millis(START_MS);
        let ends = begins + random.millis(JOB_MS);
        let (report, ends) = match random.number(0..100) {
            0..80 => (*testing::report(Conclusion::Success, None), ends),
            80..92 => (*testing::report(Conclusion::Failure, Some(Reason::Step)), ends),
            92..96 => (failure(Reason::StartFailed("no container".into()), false), begins),
            _ => (failure(Reason::PullFailed("no image".into()), false), begins),
        };
        Entry { attempt, begins, begun: !report.started, ends, report, finished: false }
    }

    /// When something of its jobs happens next.
    fn next(&self) -> Option<Instant> {
        let journal = self.journal.lock();
        let open = journal.iter().filter(|entry| !entry.finished);
        open.map(|entry| if entry.begun { entry.ends } else { entry.begins.min(entry.ends) }).min()
    }

    /// Says what began and what ended by now.
    async fn advance(&self, out: &mpsc::Sender<FromWorker>) -> Result<()> {
        let now = Instant::now();
        let mut messages = Vec::new();
        for entry in self.journal.lock().iter_mut().filter(|entry| !entry.finished) {
            if !entry.begun && entry.begins <= now {
                entry.begun = true;
                messages.push(Up::Begun(Begun { attempt: Some(entry.attempt.clone()) }));
            }
            if entry.ends <= now {
                entry.finished = true;
                messages.push(result(entry)?);
            }
        }
        for message in messages {
            self.send(out, message).await?;
        }
        Ok(())
    }

    /// Repeats the reports that nobody answered.
    async fn report(&self, out: &mpsc::Sender<FromWorker>) -> Result<()> {
        let messages: Result<Vec<Up>> = self.journal.lock().iter().filter(|entry| entry.finished).map(result).collect();
        for message in messages? {
            self.send(out, message).await?;
        }
        Ok(())
    }

    fn name(&self, attempt: &Attempt) -> String {
        format!("{} {} attempt {}", self.observer.run(&attempt.run), attempt.job, attempt.attempt)
    }
}

fn result(entry: &Entry) -> Result<Up> {
    let report = Bytes::from(serde_json::to_vec(&entry.report)?);
    Ok(Up::Result(Report { attempt: Some(entry.attempt.clone()), report }))
}

fn failure(reason: Reason, started: bool) -> JobReport {
    JobReport { started, ..*testing::report(Conclusion::Failure, Some(reason)) }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
