//! The workers that are connected to this coordinator, the offers made to them, and what is known of their leases.
//!
//! Sessions and offers exist here alone. Leases are rows of the store; the copy here saves a query for each log chunk, and
//! every renewal and a regular read of the store correct it. No I/O except sends that never wait; time is an argument.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use config::LeaseTimeouts;
use domain::{
    id::{JobKey, RunId},
    run::{AttemptId, turn_of_repository},
    schedule::{QueuedJob, WorkerView},
};
use proto::worker::{Offer, Register, ToWorker, Withdrawn, to_worker::Message};
use store::{Lease, WorkerRow};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{connection::WorkerOutbound, messages, queue::JobId};

/// Characters that are kept of what a worker says about its program.
const PROGRAM_TEXT: usize = 64;

/// A connected worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectedWorker {
    /// Id in the pool.
    pub id: String,
    /// Display name.
    pub name: String,
    /// What it runs.
    pub program: WorkerProgram,
    /// Labels of jobs that it takes.
    pub labels: Vec<String>,
    /// Jobs it takes at a time.
    pub slots: u32,
    /// Jobs it has or is offered.
    pub busy: usize,
    /// Slots lost to cancels that were not confirmed.
    pub quarantined: usize,
    /// It takes no new jobs.
    pub draining: bool,
}

/// What a worker says about its program; shown to people, never decided on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WorkerProgram {
    /// Version of the program.
    pub version: String,
    /// CPU architecture of its machine, e.g. `x86_64`.
    pub architecture: String,
    /// What its jobs run in: `docker` or `host`.
    pub sandbox: String,
}

impl WorkerProgram {
    pub(super) fn of(register: &Register) -> Self {
        let limited = |text: &str| text.chars().take(PROGRAM_TEXT).collect();
        Self {
            version: limited(&register.version),
            architecture: limited(&register.architecture),
            sandbox: limited(&register.sandbox),
        }
    }
}

/// A session that begins.
pub(super) struct NewSession {
    pub(super) row: WorkerRow,
    pub(super) program: WorkerProgram,
    pub(super) out: WorkerOutbound,
    /// Ends the session.
    pub(super) end: CancellationToken,
}

struct WorkerSession {
    generation: u64,
    id: Arc<str>,
    row: WorkerRow,
    program: WorkerProgram,
    labels: Arc<BTreeSet<String>>,
    out: WorkerOutbound,
    end: CancellationToken,
    /// Offers are made once its leases are settled.
    ready: bool,
    /// The worker drains itself; the operator's order stands in the row.
    leaving: bool,
    /// Cancels sent in this session.
    cancels: HashSet<AttemptId>,
    /// Attempts whose cancel was never confirmed: each blocks a slot until the worker says it is gone.
    quarantine: HashSet<AttemptId>,
}

impl WorkerSession {
    fn is_draining(&self) -> bool {
        self.row.draining || self.leaving
    }

    /// Never waits: the session of a worker that does not read its messages is ended.
    fn send(&self, message: Message) {
        if self.out.try_send(Ok(ToWorker { message: Some(message) })).is_err() {
            self.end.cancel();
        }
    }
}

/// A worker gets no offer after it let a second one in a row run out, for twice as long as an offer lasts, then for longer, at
/// most for this.
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

struct OpenOffer {
    worker: String,
    run: RunId,
    job: JobKey,
    owner: Arc<str>,
    /// `None`: accepted, the attempt is about to begin.
    until: Option<Instant>,
}

/// The worker that holds the lease of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) worker: String,
    pub(super) repository: Arc<str>,
    /// Whose turn it took in the queue, as far as it is known here.
    owner: Arc<str>,
    known_since: Instant,
}

/// Sessions, offers and known leases.
pub(super) struct WorkerRegistry {
    timeouts: LeaseTimeouts,
    sessions: BTreeMap<String, WorkerSession>,
    offers: HashMap<String, OpenOffer>,
    /// The job of each offer.
    offered: HashSet<JobId>,
    held: HashMap<AttemptId, Holder>,
    /// Workers that let offers run out: how many since they took or refused one, and until when they get none. It
    /// outlives their sessions.
    unanswered: HashMap<String, (u32, Option<Instant>)>,
    generations: u64,
}

impl WorkerRegistry {
    pub(super) fn new(timeouts: LeaseTimeouts) -> Self {
        Self {
            timeouts,
            sessions: BTreeMap::new(),
            offers: HashMap::new(),
            offered: HashSet::new(),
            held: HashMap::new(),
            unanswered: HashMap::new(),
            generations: 0,
        }
    }

    /// Replaces the known leases by those of the store, read after `read_at`.
    pub(super) fn sync_leases(&mut self, leases: Vec<Lease>, read_at: Instant) {
        let stored: HashSet<AttemptId> = leases.iter().map(|lease| lease.attempt.clone()).collect();
        // Attempts that began since then are not among them.
        self.held.retain(|attempt, holder| holder.known_since >= read_at || stored.contains(attempt));
        for lease in leases {
            self.held.entry(lease.attempt).or_insert(Holder {
                worker: lease.worker,
                owner: turn_of_repository(&lease.repository).into(),
                repository: lease.repository.into(),
                known_since: read_at,
            });
        }
    }

    /// A worker connected. Its older session, if any, ends and is fenced by the generation that is returned. No offers
    /// are made before [`Self::ready`].
    pub(super) fn join(&mut self, new: NewSession) -> u64 {
        self.generations += 1;
        let id = new.row.id.clone();
        let session = WorkerSession {
            generation: self.generations,
            id: id.as_str().into(),
            labels: Arc::new(new.row.labels.iter().cloned().collect()),
            row: new.row,
            program: new.program,
            out: new.out,
            end: new.end,
            ready: false,
            leaving: false,
            cancels: HashSet::new(),
            quarantine: HashSet::new(),
        };
        if let Some(old) = self.sessions.insert(id.clone(), session) {
            // Best effort: the reason helps its operator, the end of the session is what counts.
            _ = old.out.try_send(Err(Status::aborted("another session of this worker began; one at a time")));
            old.end.cancel();
        }
        self.withdraw_all(&id);
        self.generations
    }

    /// What the worker holds is settled: these leases are its own, and it may get offers.
    pub(super) fn ready(&mut self, worker: &str, generation: u64, leases: &[Lease], now: Instant) {
        if !self.is_current(worker, generation) {
            return;
        }
        let known: HashMap<AttemptId, Holder> = self.held.extract_if(|_, holder| holder.worker == worker).collect();
        for lease in leases {
            let repository = lease.repository.as_str().into();
            let owner = known.get(&lease.attempt).map(|holder| holder.owner.clone());
            let owner = owner.unwrap_or_else(|| turn_of_repository(&lease.repository).into());
            let holder = Holder { worker: worker.to_owned(), repository, owner, known_since: now };
            self.held.insert(lease.attempt.clone(), holder);
        }
        if let Some(session) = self.sessions.get_mut(worker) {
            session.ready = true;
            if session.row.draining {
                session.send(messages::drain());
            }
        }
        self.send_cancels(leases);
    }

    /// A session ended. Its leases stay until they run out.
    pub(super) fn leave(&mut self, worker: &str, generation: u64) {
        if self.is_current(worker, generation) {
            self.sessions.remove(worker);
            self.withdraw_all(worker);
        }
    }

    fn withdraw_all(&mut self, worker: &str) {
        let offered = &mut self.offered;
        self.offers.retain(|_, offer| {
            let stays = offer.worker != worker || offer.until.is_none();
            if !stays {
                offered.remove(&(offer.run.clone(), offer.job.clone()));
            }
            stays
        });
    }

    fn current(&self, worker: &str, generation: u64) -> Option<&WorkerSession> {
        self.sessions.get(worker).filter(|session| session.generation == generation)
    }

    pub(super) fn is_current(&self, worker: &str, generation: u64) -> bool {
        self.current(worker, generation).is_some()
    }

    pub(super) fn send(&self, worker: &str, generation: u64, message: Message) {
        if let Some(session) = self.current(worker, generation) {
            session.send(message);
        }
    }

    /// Whether the job is offered, or accepted and about to begin.
    pub(super) fn is_offered(&self, job: &QueuedJob) -> bool {
        self.offered.contains(&(job.run.clone(), job.job.clone()))
    }

    /// Slots of workers that take jobs now: whether it is worth while to make the [`Self::views`] of all.
    pub(super) fn free_slots(&self) -> usize {
        let mut busy: HashMap<&str, usize> = HashMap::new();
        let offered = self.offers.values().map(|offer| &offer.worker);
        for worker in offered.chain(self.held.values().map(|holder| &holder.worker)) {
            *busy.entry(worker).or_default() += 1;
        }
        let open = self.sessions.iter().filter(|(_, session)| session.ready && !session.is_draining());
        let free = |(id, session): (&String, &WorkerSession)| {
            let busy = busy.get(id.as_str()).copied().unwrap_or_default() + session.quarantine.len();
            (session.row.slots as usize).saturating_sub(busy)
        };
        open.map(free).sum()
    }

    /// The connected workers as scheduling sees them, by id.
    pub(super) fn views(&self) -> Vec<WorkerView> {
        let mut busy: HashMap<&str, Vec<Option<Arc<str>>>> = HashMap::new();
        for offer in self.offers.values() {
            busy.entry(&offer.worker).or_default().push(Some(offer.owner.clone()));
        }
        for holder in self.held.values() {
            busy.entry(&holder.worker).or_default().push(Some(holder.owner.clone()));
        }
        for (id, session) in &self.sessions {
            busy.entry(id).or_default().extend(session.quarantine.iter().map(|_| None));
        }
        let ready = self.sessions.values().filter(|session| session.ready);
        let view = |session: &WorkerSession| {
            let busy = busy.remove(&*session.id).unwrap_or_default();
            let unanswered = self.unanswered.get(&*session.id);
            // One that let an offer run out has to take one before it gets more.
            let most = unanswered.map_or(usize::MAX, |_| busy.len() + 1);
            WorkerView {
                id: session.id.clone(),
                labels: session.labels.clone(),
                slots: (session.row.slots as usize).min(most),
                busy,
                draining: session.is_draining() || unanswered.is_some_and(|(_, until)| until.is_some()),
            }
        };
        ready.map(view).collect()
    }

    pub(super) fn connected(&self) -> Vec<ConnectedWorker> {
        let describe = |view: WorkerView| {
            let session = self.sessions.get(&*view.id)?;
            Some(ConnectedWorker {
                quarantined: session.quarantine.len(),
                program: session.program.clone(),
                labels: view.labels.iter().cloned().collect(),
                slots: session.row.slots,
                busy: view.busy.len().saturating_sub(session.quarantine.len()),
                draining: view.draining,
                name: session.row.name.clone(),
                id: session.row.id.clone(),
            })
        };
        self.views().into_iter().filter_map(describe).collect()
    }

    /// Offers a job; the offer's id must be new.
    pub(super) fn offer(&mut self, id: String, job: &QueuedJob, worker: &str, now: Instant) {
        let Some(session) = self.sessions.get(worker) else { return };
        session.send(Message::Offer(Offer { offer: id.clone() }));
        let offer = OpenOffer {
            worker: worker.to_owned(),
            run: job.run.clone(),
            job: job.job.clone(),
            owner: job.owner.as_str().into(),
            until: Some(now + self.timeouts.offer()),
        };
        self.offered.insert((job.run.clone(), job.job.clone()));
        self.offers.insert(id, offer);
    }

    /// The worker accepts: from now the offer has no end of its own. Returns run and job, or `None` where it is void.
    pub(super) fn accept(&mut self, offer: &str, worker: &str) -> Option<JobId> {
        let offered = self.offers.get_mut(offer).filter(|open| open.worker == worker && open.until.is_some())?;
        offered.until = None;
        self.unanswered.remove(worker);
        Some((offered.run.clone(), offered.job.clone()))
    }

    /// The worker does not take an offer.
    pub(super) fn refuse(&mut self, offer: &str, worker: &str) {
        self.close_offer(offer, worker);
        self.unanswered.remove(worker);
    }

    /// An offer is over: it was refused, or its job began or no longer waits.
    pub(super) fn close_offer(&mut self, offer: &str, worker: &str) {
        if self.offers.get(offer).is_some_and(|open| open.worker == worker)
            && let Some(open) = self.offers.remove(offer)
        {
            self.offered.remove(&(open.run, open.job));
        }
    }

    /// Withdraws offers that were not accepted in time; their workers get none for a while. Returns whether there were any,
    /// or such a while is over.
    pub(super) fn expire_offers(&mut self, now: Instant) -> bool {
        let mut paused_no_more = false;
        for (_, until) in self.unanswered.values_mut() {
            paused_no_more |= until.take_if(|until| *until <= now).is_some();
        }
        let over = |offer: &OpenOffer| offer.until.is_some_and(|until| until <= now);
        let expired: Vec<String> =
            self.offers.iter().filter(|(_, offer)| over(offer)).map(|(id, _)| id.clone()).collect();
        let mut silent = BTreeSet::new();
        for id in &expired {
            let Some(offer) = self.offers.remove(id) else { continue };
            silent.insert(offer.worker.clone());
            if let Some(session) = self.sessions.get(&offer.worker) {
                session.send(Message::Withdrawn(Withdrawn { offer: id.clone() }));
            }
            self.offered.remove(&(offer.run, offer.job));
        }
        for worker in silent {
            tracing::warn!(worker, "a worker neither took nor refused an offer: it gets one at a time, and fewer");
            let (before, _) = self.unanswered.get(&worker).copied().unwrap_or_default();
            let pause = (self.timeouts.offer() * 2_u32.pow(before.min(6))).min(LONGEST_PAUSE);
            let until = (before > 0).then_some(now + pause);
            self.unanswered.insert(worker, (before.saturating_add(1), until));
        }
        paused_no_more || !expired.is_empty()
    }

    /// Whether an offer waits for its answer.
    pub(super) fn has_offers(&self) -> bool {
        self.offers.values().any(|offer| offer.until.is_some())
    }

    /// When the first open offer runs out, or the first worker may have offers again.
    pub(super) fn next_offer_end(&self) -> Option<Instant> {
        let pauses = self.unanswered.values().filter_map(|(_, until)| *until);
        self.offers.values().filter_map(|offer| offer.until).chain(pauses).min()
    }

    /// The attempt began, and its lease is stored. False: the session that accepted it is gone, so the assignment
    /// cannot be sent.
    pub(super) fn begin(
        &mut self,
        attempt: &AttemptId,
        worker: &str,
        generation: u64,
        repository: &str,
        now: Instant,
    ) -> bool {
        let alive = self.is_current(worker, generation);
        if alive {
            let mut offers = self.offers.values();
            let offer = offers.find(|offer| offer.run == attempt.run && offer.job == attempt.job);
            let owner = offer.map_or_else(|| turn_of_repository(repository).into(), |offer| offer.owner.clone());
            let (worker, repository) = (worker.to_owned(), repository.into());
            self.held.insert(attempt.clone(), Holder { worker, repository, owner, known_since: now });
        }
        alive
    }

    /// Who holds an attempt, as far as it is known here.
    pub(super) fn holder(&self, attempt: &AttemptId) -> Option<&Holder> {
        self.held.get(attempt)
    }

    /// Whether this worker holds the attempt, as far as it is known here.
    pub(super) fn holds(&self, attempt: &AttemptId, worker: &str) -> bool {
        self.held.get(attempt).is_some_and(|holder| holder.worker == worker)
    }

    /// The attempt is over, or no longer the worker's: its slot is free.
    pub(super) fn release(&mut self, attempt: &AttemptId, worker: &str) {
        if self.holds(attempt, worker) {
            self.held.remove(attempt);
        }
        if let Some(session) = self.sessions.get_mut(worker) {
            session.quarantine.remove(attempt);
            session.cancels.remove(attempt);
        }
    }

    /// A lease was not renewed, or (`unconfirmed`) its cancel not confirmed, in time: the worker gets Stop, and a slot
    /// that may still be in use is not assigned again.
    pub(super) fn lose(&mut self, attempt: &AttemptId, worker: &str, unconfirmed: bool, reason: &str) {
        self.release(attempt, worker);
        if let Some(session) = self.sessions.get_mut(worker) {
            session.send(messages::stop(attempt, reason));
            if unconfirmed {
                session.quarantine.insert(attempt.clone());
            }
        }
    }

    /// Sends the cancels of these leases to workers connected here, once in each session.
    pub(super) fn send_cancels(&mut self, leases: &[Lease]) {
        for lease in leases {
            let (Some(reason), Some(_)) = (&lease.cancel_reason, lease.confirm_by) else { continue };
            let Some(session) = self.sessions.get_mut(&lease.worker).filter(|session| session.ready) else { continue };
            if session.cancels.insert(lease.attempt.clone()) {
                session.send(messages::cancel(&lease.attempt, reason));
            }
        }
    }

    /// The processes of a cancelled attempt are gone: its slot is not lost. The result may still be on its way.
    pub(super) fn confirm(&mut self, attempt: &AttemptId, worker: &str) {
        if let Some(session) = self.sessions.get_mut(worker) {
            session.quarantine.remove(attempt);
        }
    }

    /// Applies the operator's drains as the store has them; returns whether one changed.
    pub(super) fn set_draining(&mut self, draining: &HashSet<String>) -> bool {
        let mut changed = false;
        for (id, session) in &mut self.sessions {
            let now = draining.contains(id);
            if session.row.draining != now {
                (session.row.draining, changed) = (now, true);
                if now && session.ready {
                    session.send(messages::drain());
                }
            }
        }
        changed
    }

    /// The worker takes no new jobs by its own decision, or takes them again.
    pub(super) fn set_leaving(&mut self, worker: &str, generation: u64, leaving: bool) {
        if let Some(session) = self.sessions.get_mut(worker).filter(|session| session.generation == generation) {
            session.leaving = leaving;
        }
    }

    /// Display name of a worker.
    pub(super) fn name_of(&self, worker: &str) -> String {
        self.sessions.get(worker).map_or_else(|| worker.to_owned(), |session| session.row.name.clone())
    }
}

#[cfg(test)]
mod tests;
