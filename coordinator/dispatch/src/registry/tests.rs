#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::time::Duration;

use tokio::sync::mpsc;

use super::*;

struct Worker {
    generation: u64,
    inbox: mpsc::Receiver<Result<ToWorker, Status>>,
    end: CancellationToken,
}

impl Worker {
    /// What was sent since the last call, as short texts.
    fn received(&mut self) -> Vec<String> {
        let mut received = Vec::new();
        while let Ok(message) = self.inbox.try_recv() {
            received.push(match message.map(|message| message.message.unwrap()) {
                Ok(Message::Offer(offer)) => format!("offer {}", offer.offer),
                Ok(Message::Withdrawn(withdrawn)) => format!("withdrawn {}", withdrawn.offer),
                Ok(Message::Cancel(cancel)) => format!("cancel {}", cancel.attempt.unwrap().job),
                Ok(Message::Stop(stop)) => format!("stop {}", stop.attempt.unwrap().job),
                Ok(Message::Drain(_)) => "drain".into(),
                Ok(other) => panic!("{other:?}"),
                Err(status) => format!("ended {:?}", status.code()),
            });
        }
        received
    }
}

fn registry() -> WorkerRegistry {
    WorkerRegistry::new(LeaseTimeouts::default())
}

fn join(registry: &mut WorkerRegistry, id: &str) -> Worker {
    let (out, inbox) = mpsc::channel(4);
    let end = CancellationToken::new();
    let row = WorkerRow {
        id: id.into(),
        identity: String::new(),
        name: format!("name of {id}"),
        labels: vec!["x".into()],
        slots: 2,
        seen_at: 0,
        draining: false,
    };
    let generation = registry.join(NewSession { row, program: WorkerProgram::default(), out, end: end.clone() });
    Worker { generation, inbox, end }
}

fn ready(registry: &mut WorkerRegistry, id: &str, leases: &[Lease]) -> Worker {
    let worker = join(registry, id);
    registry.ready(id, worker.generation, leases, Instant::now());
    worker
}

fn job(name: &str) -> QueuedJob {
    QueuedJob {
        run: "r".into(),
        job: name.into(),
        labels: vec!["x".into()],
        avoid: Vec::new(),
        owner: "repo".into(),
        since: 0,
        reason: String::new(),
    }
}

fn attempt(name: &str) -> AttemptId {
    AttemptId { run: "r".into(), job: name.into(), number: 1 }
}

fn lease(name: &str, worker: &str) -> Lease {
    Lease {
        attempt: attempt(name),
        worker: worker.into(),
        repository: "repo".into(),
        expires_at: 0,
        cancel_reason: None,
        confirm_by: None,
    }
}

fn cancelling(name: &str, worker: &str) -> Lease {
    Lease { cancel_reason: Some("asked for".into()), confirm_by: Some(9), ..lease(name, worker) }
}

fn busy(registry: &WorkerRegistry) -> Vec<usize> {
    registry.views().iter().map(|view| view.busy.len()).collect()
}

#[test]
fn a_worker_gets_no_offer_before_its_leases_are_settled() {
    let mut registry = registry();
    let worker = join(&mut registry, "w");
    assert!(registry.views().is_empty());
    registry.ready("w", worker.generation, &[lease("old", "w")], Instant::now());
    assert_eq!(busy(&registry), [1], "a lease from an earlier session takes a slot");
}

#[test]
fn an_accepted_offer_does_not_run_out_and_a_closed_one_frees_its_job() {
    let (mut registry, now) = (registry(), Instant::now());
    let mut worker = ready(&mut registry, "w", &[]);
    registry.offer("1".into(), &job("a"), "w", now);
    registry.offer("2".into(), &job("b"), "w", now);
    assert_eq!((worker.received(), busy(&registry)), (vec!["offer 1".into(), "offer 2".into()], vec![2]));
    assert!(registry.accept("1", "other").is_none(), "another worker can't accept it");
    assert_eq!(registry.accept("1", "w").unwrap(), ("r".into(), "a".into()));
    assert!(registry.accept("1", "w").is_none(), "once");

    let over = now + Duration::from_secs(5);
    assert_eq!(registry.next_offer_end(), Some(over));
    assert!(!registry.expire_offers(over - Duration::from_millis(1)));
    assert!(registry.expire_offers(over));
    assert_eq!(worker.received(), ["withdrawn 2"]);
    assert!(registry.accept("2", "w").is_none(), "too late");
    assert!(registry.is_offered(&job("a")) && !registry.is_offered(&job("b")));
    // The attempt could not begin: the job may be offered again.
    registry.close_offer("1", "w");
    assert!(!registry.is_offered(&job("a")));
    assert_eq!(busy(&registry), [0]);
}

#[test]
fn attack_53_a_worker_that_answers_no_offer_gets_one_at_a_time_and_none_for_a_while() {
    let (mut registry, now) = (registry(), Instant::now());
    let _worker = ready(&mut registry, "w", &[]);
    registry.offer("1".into(), &job("a"), "w", now);
    registry.offer("2".into(), &job("b"), "w", now);
    let after = |seconds| now + Duration::from_secs(seconds);
    assert!(registry.expire_offers(after(5)));
    let view = |registry: &WorkerRegistry| registry.views().pop().unwrap();
    assert_eq!((view(&registry).draining, view(&registry).slots), (false, 1));
    registry.offer("3".into(), &job("a"), "w", after(5));
    assert!(registry.expire_offers(after(10)));
    assert!(view(&registry).draining);
    let _again = ready(&mut registry, "w", &[]);
    assert!(view(&registry).draining, "a new session changes nothing");
    assert_eq!(registry.next_offer_end(), Some(after(20)));
    assert!(registry.expire_offers(after(20)) && !view(&registry).draining);
    registry.offer("4".into(), &job("a"), "w", after(20));
    assert!(registry.expire_offers(after(25)));
    assert_eq!(registry.next_offer_end(), Some(after(45)), "the pause grows");
    registry.expire_offers(after(45));
    registry.offer("5".into(), &job("a"), "w", after(45));
    registry.accept("5", "w").unwrap();
    assert!(view(&registry).slots > 1, "one that takes an offer is as others");
}

#[test]
fn the_turn_of_an_attempt_is_that_of_its_offer() {
    let (mut registry, now) = (registry(), Instant::now());
    let worker = ready(&mut registry, "w", &[]);
    let outsiders = QueuedJob { owner: "outsider".into(), ..job("a") };
    registry.offer("1".into(), &outsiders, "w", now);
    registry.accept("1", "w").unwrap();
    registry.begin(&attempt("a"), "w", worker.generation, "30617:owner:repo", now);
    registry.close_offer("1", "w");
    let turns = |registry: &WorkerRegistry| registry.views().pop().unwrap().busy;
    assert_eq!(turns(&registry), [Some("outsider".into())]);
    let known = Lease { repository: "30617:owner:repo".into(), ..lease("a", "w") };
    let other = Lease { repository: "30617:owner:repo".into(), ..lease("b", "w") };
    ready(&mut registry, "w", &[known, other]);
    let mut all = turns(&registry);
    all.sort();
    assert_eq!(all, [Some("outsider".into()), Some("owner".into())], "what is not known is its repository's");
}

#[test]
fn a_newer_session_fences_the_older_one_and_jobs_it_accepted_do_not_begin() {
    let (mut registry, now) = (registry(), Instant::now());
    let mut old = ready(&mut registry, "w", &[]);
    registry.offer("1".into(), &job("a"), "w", now);
    registry.offer("2".into(), &job("b"), "w", now);
    registry.accept("1", "w").unwrap();
    old.received();
    let new = ready(&mut registry, "w", &[]);
    assert!(old.end.is_cancelled() && !new.end.is_cancelled());
    assert_eq!(old.received(), ["ended Aborted"]);
    assert!(!registry.is_offered(&job("b")), "open offers go back to the queue");
    assert!(registry.is_offered(&job("a")), "one that is about to begin is not offered twice");
    assert!(!registry.begin(&attempt("a"), "w", old.generation, "repo", now), "nobody would get the assignment");
    assert!(!registry.holds(&attempt("a"), "w"));
    registry.leave("w", old.generation);
    assert!(registry.is_current("w", new.generation), "the old session's end is not the new one's");
}

#[test]
fn a_cancel_is_sent_once_in_a_session_and_again_in_the_next() {
    let mut registry = registry();
    let mut worker = ready(&mut registry, "w", &[lease("a", "w")]);
    registry.send_cancels(&[cancelling("a", "w"), cancelling("b", "elsewhere")]);
    registry.send_cancels(&[cancelling("a", "w")]);
    assert_eq!(worker.received(), ["cancel a"]);
    let mut again = ready(&mut registry, "w", &[cancelling("a", "w")]);
    assert_eq!(again.received(), ["cancel a"]);
    let confirmed = Lease { confirm_by: None, ..cancelling("a", "w") };
    let mut after = ready(&mut registry, "w", &[confirmed]);
    assert!(after.received().is_empty(), "its processes are gone");
}

#[test]
fn a_slot_stays_blocked_until_the_cancel_of_its_job_is_confirmed() {
    let mut registry = registry();
    let mut worker = ready(&mut registry, "w", &[lease("a", "w"), lease("b", "w")]);
    registry.lose(&attempt("a"), "w", true, "it did not confirm the cancel in time");
    registry.lose(&attempt("b"), "w", false, "it was not heard of in time");
    assert_eq!(worker.received(), ["stop a", "stop b"]);
    assert_eq!((registry.connected()[0].quarantined, registry.connected()[0].busy), (1, 0));
    registry.confirm(&attempt("a"), "w");
    assert_eq!(busy(&registry), [0]);
}

#[test]
fn a_lease_that_the_store_no_longer_has_is_dropped_and_one_that_began_since_is_kept() {
    let (mut registry, before) = (registry(), Instant::now());
    let read_at = before + Duration::from_secs(1);
    let worker = ready(&mut registry, "w", &[lease("old", "w")]);
    assert!(registry.begin(&attempt("new"), "w", worker.generation, "repo", read_at + Duration::from_secs(1)));
    registry.sync_leases(vec![lease("other", "v")], read_at);
    assert!(registry.holder(&attempt("old")).is_none(), "another process ended it");
    assert!(registry.holds(&attempt("new"), "w") && registry.holds(&attempt("other"), "v"));
}

#[test]
fn a_worker_that_does_not_read_its_messages_is_disconnected() {
    let (mut registry, now) = (registry(), Instant::now());
    let worker = ready(&mut registry, "w", &[]);
    for number in 0..5 {
        assert!(!worker.end.is_cancelled());
        registry.offer(number.to_string(), &job(&number.to_string()), "w", now);
    }
    assert!(worker.end.is_cancelled());
}

#[test]
fn a_drained_worker_is_informed_once_and_takes_no_jobs() {
    let mut registry = registry();
    let mut worker = ready(&mut registry, "w", &[]);
    let draining = HashSet::from(["w".to_owned()]);
    assert!(registry.set_draining(&draining) && !registry.set_draining(&draining));
    assert_eq!(worker.received(), ["drain"]);
    assert!(registry.views()[0].draining);
    assert!(registry.set_draining(&HashSet::new()) && !registry.views()[0].draining);
}

#[test]
fn a_refused_offer_frees_its_job_and_its_slot() {
    let (mut registry, now) = (registry(), Instant::now());
    ready(&mut registry, "w", &[]);
    registry.offer("1".into(), &job("a"), "w", now);
    registry.close_offer("1", "other");
    assert!(registry.is_offered(&job("a")), "another worker can't refuse it");
    registry.close_offer("1", "w");
    assert!(!registry.is_offered(&job("a")));
    assert_eq!(busy(&registry), [0]);
}

#[test]
fn an_accepted_job_holds_a_slot_until_its_attempt_is_over() {
    let (mut registry, now) = (registry(), Instant::now());
    let worker = ready(&mut registry, "w", &[]);
    registry.offer("1".into(), &job("a"), "w", now);
    registry.accept("1", "w").unwrap();
    registry.close_offer("1", "w");
    assert!(registry.begin(&attempt("a"), "w", worker.generation, "repo", now));
    assert!(registry.holds(&attempt("a"), "w") && !registry.holds(&attempt("a"), "v"));
    registry.release(&attempt("a"), "v");
    assert_eq!(busy(&registry), [1], "another worker can't release it");
    registry.release(&attempt("a"), "w");
    assert_eq!((busy(&registry), registry.holder(&attempt("a"))), (vec![0], None));
}

#[test]
fn a_worker_that_disconnects_keeps_its_leases_and_loses_its_open_offers() {
    let (mut registry, now) = (registry(), Instant::now());
    let worker = ready(&mut registry, "w", &[lease("a", "w")]);
    registry.offer("1".into(), &job("b"), "w", now);
    registry.leave("w", worker.generation);
    assert!(registry.connected().is_empty());
    assert!(!registry.is_offered(&job("b")), "it goes back to the queue at once");
    assert!(registry.holds(&attempt("a"), "w"), "the lease runs on, the worker may come back");
    let again = ready(&mut registry, "w", &[lease("a", "w")]);
    assert_eq!((busy(&registry), registry.is_current("w", again.generation)), (vec![1], true));
}

#[test]
fn a_worker_that_drains_itself_takes_no_jobs_in_this_session() {
    let mut registry = registry();
    let worker = ready(&mut registry, "w", &[]);
    registry.set_leaving("w", worker.generation - 1, true);
    assert!(!registry.views()[0].draining, "an older session says nothing about this one");
    registry.set_leaving("w", worker.generation, true);
    assert!(registry.views()[0].draining);
    assert!(!registry.set_draining(&HashSet::new()) && registry.views()[0].draining, "the operator did not drain it");
    ready(&mut registry, "w", &[]);
    assert!(!registry.views()[0].draining);
}
