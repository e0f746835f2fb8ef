//! Who is connected and who holds what: sessions, offers and leases. No I/O but full-or-not sends; time is passed in.

use std::collections::{BTreeSet, HashMap, HashSet};

use proto::worker::{Cancel, Drain, Offer, Stop, ToWorker, Withdrawn, to_worker::Message};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{Leased, Terms, attempt_message, session::Outbound};
use domain::run::AttemptId;
use domain::schedule::QueuedJob;
use domain::schedule::WorkerView;
use store::WorkerRow;

/// Time a cancelled job gets for its `always()` steps before everything is ended.
const GRACE_MS: u32 = 20_000;

/// A connected worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Id in the pool.
    pub id: String,
    /// For people.
    pub name: String,
    /// Version of its program.
    pub version: String,
    /// What it offers.
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

/// A session that joined.
pub(super) struct Joining {
    pub(super) row: WorkerRow,
    pub(super) version: String,
    pub(super) out: Outbound,
    /// Ends the session.
    pub(super) end: CancellationToken,
}

struct Seat {
    generation: u64,
    row: WorkerRow,
    version: String,
    labels: BTreeSet<String>,
    out: Outbound,
    end: CancellationToken,
    /// Its own word; the operator's stands in the row.
    leaving: bool,
    /// Attempts whose cancel was never confirmed: each blocks a slot until the worker says it is gone.
    quarantine: HashSet<AttemptId>,
}

impl Seat {
    /// Never waits: who does not read its few control messages is cut off and may come again.
    fn send(&self, message: Message) {
        if self.out.try_send(Ok(ToWorker { message: Some(message) })).is_err() {
            self.end.cancel();
        }
    }
}

struct Offered {
    worker: String,
    run: String,
    job: String,
    owner: String,
    /// `None`: accepted, the attempt is about to begin.
    until: Option<Instant>,
}

struct Lease {
    worker: String,
    repository: String,
    until: Instant,
    cancel: Option<Cancelling>,
}

struct Cancelling {
    reason: String,
    until: Instant,
}

/// An attempt that ended by time.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Lost {
    pub(super) attempt: AttemptId,
    pub(super) worker: String,
    pub(super) reason: String,
}

/// What the passing of time brought.
#[derive(Debug, Default)]
pub(super) struct Expired {
    pub(super) lost: Vec<Lost>,
    /// Offers went back to the queue.
    pub(super) offers: bool,
}

/// What becomes of the attempts of a worker that came (back).
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Said by the worker, not held by it here: the store decides.
    pub(super) unknown: Vec<AttemptId>,
    /// Held by it here, not said by it.
    pub(super) missing: Vec<AttemptId>,
}

pub(super) struct Pool {
    terms: Terms,
    seats: HashMap<String, Seat>,
    offers: HashMap<String, Offered>,
    leases: HashMap<AttemptId, Lease>,
    generations: u64,
    /// The deadline that is waited for, and whether an earlier one came up since.
    armed: Option<Instant>,
    earlier: bool,
}

impl Pool {
    pub(super) fn new(terms: Terms) -> Self {
        Self {
            terms,
            seats: HashMap::new(),
            offers: HashMap::new(),
            leases: HashMap::new(),
            generations: 0,
            armed: None,
            earlier: false,
        }
    }

    /// Takes in an attempt that is out by the store.
    pub(super) fn restore(&mut self, leased: Leased, now: Instant) {
        let until = now + self.terms.lease;
        let cancel = leased.cancelling.map(|reason| Cancelling { reason, until: now + self.terms.confirm });
        self.lease(leased.attempt, Lease { worker: leased.worker, repository: leased.repository, until, cancel });
    }

    fn lease(&mut self, attempt: AttemptId, lease: Lease) {
        self.arm(lease.until);
        if let Some(cancel) = &lease.cancel {
            self.arm(cancel.until);
        }
        self.leases.insert(attempt, lease);
    }

    /// A worker came. Its older session, if any, is ended and fenced by the generation that is returned.
    pub(super) fn join(&mut self, joining: Joining, said: &[AttemptId], now: Instant) -> (u64, Claims) {
        self.generations += 1;
        let id = joining.row.id.clone();
        let seat = Seat {
            generation: self.generations,
            labels: joining.row.labels.iter().cloned().collect(),
            row: joining.row,
            version: joining.version,
            out: joining.out,
            end: joining.end,
            leaving: false,
            quarantine: HashSet::new(),
        };
        if let Some(old) = self.seats.insert(id.clone(), seat) {
            // Best effort: the text is for its operator, the end is what counts.
            _ = old.out.try_send(Err(Status::aborted("another session of this worker began; one at a time")));
            old.end.cancel();
        }
        self.drop_offers(&id);
        let said: HashSet<&AttemptId> = said.iter().collect();
        let mut claims = Claims::default();
        for attempt in &said {
            match self.leases.get_mut(*attempt).filter(|lease| lease.worker == id) {
                Some(lease) => lease.until = now + self.terms.lease,
                None => claims.unknown.push((*attempt).clone()),
            }
        }
        let held = self.leases.iter().filter(|(_, lease)| lease.worker == id);
        claims.missing = held.filter(|(attempt, _)| !said.contains(attempt)).map(|(a, _)| a.clone()).collect();
        (self.generations, claims)
    }

    /// The session may be used: cancels that were not confirmed are said again.
    pub(super) fn welcomed(&mut self, worker: &str, generation: u64) {
        let Some(seat) = self.current(worker, generation) else { return };
        for (attempt, lease) in self.leases.iter().filter(|(_, lease)| lease.worker == worker) {
            if let Some(cancel) = &lease.cancel {
                seat.send(cancel_message(attempt, &cancel.reason));
            }
        }
        if seat.row.draining {
            seat.send(Message::Drain(Drain { reason: "drained by the operator".into() }));
        }
    }

    /// A session ended. Its leases run on until their time is over.
    pub(super) fn leave(&mut self, worker: &str, generation: u64) {
        if self.current(worker, generation).is_some() {
            self.seats.remove(worker);
            self.drop_offers(worker);
        }
    }

    fn drop_offers(&mut self, worker: &str) {
        self.offers.retain(|_, offer| offer.worker != worker || offer.until.is_none());
    }

    fn current(&self, worker: &str, generation: u64) -> Option<&Seat> {
        self.seats.get(worker).filter(|seat| seat.generation == generation)
    }

    pub(super) fn is_current(&self, worker: &str, generation: u64) -> bool {
        self.current(worker, generation).is_some()
    }

    pub(super) fn send(&self, worker: &str, generation: u64, message: Message) {
        if let Some(seat) = self.current(worker, generation) {
            seat.send(message);
        }
    }

    /// What scheduling may use, with the jobs that are neither offered nor beginning.
    pub(super) fn views(&self, queue: Vec<QueuedJob>) -> (Vec<QueuedJob>, Vec<WorkerView>) {
        let offered: HashSet<(&str, &str)> = self.offers.values().map(|o| (o.run.as_str(), o.job.as_str())).collect();
        let queue = queue.into_iter().filter(|job| !offered.contains(&(&job.run, &job.job))).collect();
        let mut busy: HashMap<&str, Vec<Option<String>>> = HashMap::new();
        for offer in self.offers.values() {
            busy.entry(&offer.worker).or_default().push(Some(offer.owner.clone()));
        }
        for lease in self.leases.values() {
            busy.entry(&lease.worker).or_default().push(Some(lease.repository.clone()));
        }
        for (id, seat) in &self.seats {
            busy.entry(id).or_default().extend(seat.quarantine.iter().map(|_| None));
        }
        let mut views: Vec<WorkerView> = self
            .seats
            .iter()
            .map(|(id, seat)| WorkerView {
                id: id.clone(),
                name: seat.row.name.clone(),
                labels: seat.labels.clone(),
                slots: seat.row.slots as usize,
                busy: busy.remove(id.as_str()).unwrap_or_default(),
                draining: seat.row.draining || seat.leaving,
            })
            .collect();
        views.sort_by(|a, b| a.id.cmp(&b.id));
        (queue, views)
    }

    pub(super) fn connected(&self) -> Vec<Connected> {
        let (_, views) = self.views(Vec::new());
        let describe = |view: WorkerView| {
            let seat = self.seats.get(&view.id)?;
            Some(Connected {
                quarantined: seat.quarantine.len(),
                version: seat.version.clone(),
                labels: view.labels.into_iter().collect(),
                slots: seat.row.slots,
                busy: view.busy.len() - seat.quarantine.len(),
                draining: view.draining,
                name: view.name,
                id: view.id,
            })
        };
        views.into_iter().filter_map(describe).collect()
    }

    /// Offers a job; the offer's id must be new.
    pub(super) fn offer(&mut self, id: String, job: &QueuedJob, worker: &str, now: Instant) {
        let until = now + self.terms.offer;
        let Some(seat) = self.seats.get(worker) else { return };
        seat.send(Message::Offer(Offer {
            offer: id.clone(),
            run: job.run.clone(),
            job: job.job.clone(),
            labels: job.labels.clone(),
        }));
        let offered = Offered {
            worker: worker.to_owned(),
            run: job.run.clone(),
            job: job.job.clone(),
            owner: job.owner.clone(),
            until: Some(until),
        };
        self.offers.insert(id, offered);
        self.arm(until);
    }

    /// The worker accepts: from now the offer has no end of its own. Returns run and job, or `None` where it is void.
    pub(super) fn accept(&mut self, offer: &str, worker: &str) -> Option<(String, String)> {
        let offered = self.offers.get_mut(offer).filter(|o| o.worker == worker && o.until.is_some())?;
        offered.until = None;
        Some((offered.run.clone(), offered.job.clone()))
    }

    /// An offer is over: refused, or what it was for began or is gone.
    pub(super) fn close_offer(&mut self, offer: &str, worker: &str) -> bool {
        let is_its = self.offers.get(offer).is_some_and(|offered| offered.worker == worker);
        is_its && self.offers.remove(offer).is_some()
    }

    /// The attempt began. False: the session that accepted it is gone, so nobody will hear of it.
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
            let until = now + self.terms.lease;
            let lease = Lease { worker: worker.to_owned(), repository: repository.to_owned(), until, cancel: None };
            self.lease(attempt.clone(), lease);
        }
        alive
    }

    /// Whether this worker holds the attempt now.
    pub(super) fn holds(&self, attempt: &AttemptId, worker: &str) -> bool {
        self.leases.get(attempt).is_some_and(|lease| lease.worker == worker)
    }

    /// Worker and repository of an attempt that is out.
    pub(super) fn holder(&self, attempt: &AttemptId) -> Option<(String, String)> {
        self.leases.get(attempt).map(|lease| (lease.worker.clone(), lease.repository.clone()))
    }

    /// Gives full terms to what the worker holds of these; returns those it holds and those it does not.
    pub(super) fn renew(
        &mut self,
        attempts: Vec<AttemptId>,
        worker: &str,
        now: Instant,
    ) -> (Vec<AttemptId>, Vec<AttemptId>) {
        let until = now + self.terms.lease;
        attempts.into_iter().partition(|attempt| {
            let lease = self.leases.get_mut(attempt).filter(|lease| lease.worker == worker);
            lease.map(|lease| lease.until = until).is_some()
        })
    }

    /// The attempt is over, with or without a lease: its slot is free.
    pub(super) fn release(&mut self, attempt: &AttemptId, worker: &str) {
        if self.holds(attempt, worker) {
            self.leases.remove(attempt);
        }
        if let Some(seat) = self.seats.get_mut(worker) {
            seat.quarantine.remove(attempt);
        }
    }

    pub(super) fn cancel(&mut self, attempt: &AttemptId, reason: &str, now: Instant) -> bool {
        let until = now + self.terms.confirm;
        let Some(lease) = self.leases.get_mut(attempt) else { return false };
        if lease.cancel.is_none() {
            lease.cancel = Some(Cancelling { reason: reason.to_owned(), until });
        }
        if let Some(seat) = self.seats.get(&lease.worker) {
            seat.send(cancel_message(attempt, reason));
        }
        self.arm(until);
        true
    }

    /// The processes are gone: no quarantine. The result may still be on its way, so the lease goes on.
    pub(super) fn confirmed(&mut self, attempt: &AttemptId, worker: &str, now: Instant) {
        if let Some(lease) = self.leases.get_mut(attempt).filter(|lease| lease.worker == worker) {
            lease.cancel = None;
            lease.until = now + self.terms.lease;
        }
        if let Some(seat) = self.seats.get_mut(worker) {
            seat.quarantine.remove(attempt);
        }
    }

    pub(super) fn drain(&mut self, worker: &str, draining: bool) -> bool {
        let Some(seat) = self.seats.get_mut(worker) else { return false };
        seat.row.draining = draining;
        if draining {
            seat.send(Message::Drain(Drain { reason: "drained by the operator".into() }));
        }
        true
    }

    /// The worker's own word on what it can take.
    pub(super) fn capacity(&mut self, worker: &str, generation: u64, said: proto::worker::Capacity) {
        let Some(seat) = self.seats.get_mut(worker).filter(|seat| seat.generation == generation) else { return };
        seat.leaving = said.draining;
        seat.row.slots = said.slots;
        if !said.labels.is_empty() {
            seat.labels = said.labels.into_iter().collect();
        }
    }

    /// Ends what is over at `now`.
    pub(super) fn expire(&mut self, now: Instant) -> Expired {
        let mut expired = Expired::default();
        let seats = &mut self.seats;
        self.offers.retain(|id, offer| {
            let over = offer.until.is_some_and(|until| until <= now);
            if over && let Some(seat) = seats.get(&offer.worker) {
                seat.send(Message::Withdrawn(Withdrawn { offer: id.clone() }));
            }
            expired.offers |= over;
            !over
        });
        self.leases.retain(|attempt, lease| {
            let unconfirmed = lease.cancel.as_ref().is_some_and(|cancel| cancel.until <= now);
            let over = unconfirmed || lease.until <= now;
            if over {
                let reason =
                    if unconfirmed { "it did not confirm the cancel in time" } else { "it was not heard of in time" };
                if let Some(seat) = seats.get_mut(&lease.worker) {
                    seat.send(stop_message(attempt, reason));
                    if unconfirmed {
                        seat.quarantine.insert(attempt.clone());
                    }
                }
                expired.lost.push(Lost {
                    attempt: attempt.clone(),
                    worker: lease.worker.clone(),
                    reason: format!(
                        "worker {}: {reason}",
                        seats.get(&lease.worker).map_or(&lease.worker, |s| &s.row.name)
                    ),
                });
            }
            !over
        });
        expired
    }

    /// The next moment at which `expire` has something to do.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        let offers = self.offers.values().filter_map(|offer| offer.until);
        let leases = self.leases.values().flat_map(|l| [Some(l.until), l.cancel.as_ref().map(|c| c.until)]).flatten();
        self.armed = offers.chain(leases).min();
        self.earlier = false;
        self.armed
    }

    fn arm(&mut self, deadline: Instant) {
        if self.armed.is_none_or(|armed| deadline < armed) {
            self.armed = Some(deadline);
            self.earlier = true;
        }
    }

    pub(super) fn take_earlier(&mut self) -> bool {
        std::mem::take(&mut self.earlier)
    }
}

pub(super) fn stop_message(attempt: &AttemptId, reason: &str) -> Message {
    Message::Stop(Stop { attempt: Some(attempt_message(attempt)), reason: reason.to_owned() })
}

fn cancel_message(attempt: &AttemptId, reason: &str) -> Message {
    Message::Cancel(Cancel { attempt: Some(attempt_message(attempt)), reason: reason.to_owned(), grace_ms: GRACE_MS })
}
