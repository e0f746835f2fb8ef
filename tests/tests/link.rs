//! A coordinator and its workers over real sockets and real TLS. Only the run side is a stand-in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unit_arg)]

#[path = "link/hostile.rs"]
mod hostile;
#[path = "link/pool.rs"]
mod pool;
#[path = "link/proxy.rs"]
mod proxy;
#[path = "link/raw.rs"]
mod raw;
#[path = "link/script.rs"]
mod script;

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use config::LeaseTimeouts;
use pool::{Pool, Running, Terms, long_leases, terms, within};
use proto::worker::{Accept, Cancelled, Register, from_worker, to_worker::Message};
use proxy::Proxy;
use raw::Raw;
use script::Script;
use tokio_util::sync::CancellationToken;
use workflow::plan::Conclusion;

fn with(timeouts: LeaseTimeouts) -> Terms {
    Terms { timeouts, ..terms() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offered_job_runs_and_its_log_and_result_come_back() {
    let pool = Pool::start(terms()).await;
    let worker = pool.worker("one", Script::Print(3)).await;
    pool.queue("build", &["ubuntu-latest"]);
    let report = pool.finished("build").await;
    assert_eq!(report.conclusion, Conclusion::Success);
    assert_eq!(pool.log("build", 1), ["line 0\n", "line 1\n", "line 2\n"].concat());
    assert_eq!(pool.begun("build"), 1);
    let data = worker.data.clone();
    worker.drain(Duration::from_secs(5)).await;
    for folder in ["journal", "spool"] {
        assert_eq!(std::fs::read_dir(data.join(folder)).unwrap().count(), 0, "{folder} is empty");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offer_that_nobody_takes_goes_back_and_is_no_try() {
    let pool = Pool::start(with(LeaseTimeouts { offer_ms: 200, ..terms().timeouts })).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let first = worker.offer().await;
    let second = worker.offer().await;
    assert_ne!(first, second);
    assert_eq!(pool.course("build").attempts, 0);

    worker.say(from_worker::Message::Accept(Accept { offer: first.clone() })).await;
    let void = worker.hear_until(|message| match message {
        Message::Withdrawn(withdrawn) => Some(withdrawn.offer),
        Message::Job(_) => panic!("a void offer became a job"),
        _ => None,
    });
    assert_eq!(void.await, first);
    let job = worker.take().await;
    assert_eq!(job.attempt.unwrap().attempt, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_renews_keeps_its_lease_and_one_that_is_paused_past_it_is_refused() {
    let pool = Pool::start(with(LeaseTimeouts { lease_ms: 400, ..terms().timeouts })).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let attempt = worker.take().await.attempt.unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(900) {
        worker.renew(std::slice::from_ref(&attempt)).await;
        worker.hear_until(|message| matches!(message, Message::Renewed(_)).then_some(())).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(pool.course("build").lost.is_empty(), "renewed for longer than the lease");

    let course = pool.until("build", |course| !course.lost.is_empty()).await;
    assert_eq!(course.lost, ["worker raw: it was not heard of in time"]);
    assert_eq!(worker.stopped().await, attempt);
    worker.report(&attempt).await;
    assert_eq!(worker.stopped().await, attempt);
    assert_eq!(pool.course("build").finished, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_coordinator_adopts_the_jobs_its_workers_still_run() {
    let pool = Pool::start(terms()).await;
    let go = CancellationToken::new();
    let worker = pool.worker("one", Script::Until(go.clone())).await;
    pool.queue("build", &["ubuntu-latest"]);
    pool.until("build", |course| course.begun == 1).await;
    let pool = pool.restart().await;
    pool.connected(1).await;
    go.cancel();
    assert_eq!(pool.finished("build").await.conclusion, Conclusion::Success);
    let course = pool.course("build");
    assert_eq!((course.attempts, course.finished, course.lost.len()), (1, 1, 0));
    assert_eq!(pool.log("build", 1), "waiting\n");
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_result_that_was_made_while_the_coordinator_was_away_counts_after_both_restarted() {
    let pool = Pool::start(long_leases()).await;
    let go = CancellationToken::new();
    let worker = pool.worker("one", Script::Until(go.clone())).await;
    pool.queue("build", &["ubuntu-latest"]);
    pool.until("build", |course| course.begun == 1).await;
    let away = pool.go_away().await;
    go.cancel();
    worker.shutdown.stop.cancel();
    within("the worker's end", worker.task).await.unwrap().unwrap();

    let pool = away.come_back().await;
    let worker = Running::start(pool.config("one"), Script::Print(0));
    assert_eq!(pool.finished("build").await.conclusion, Conclusion::Success);
    assert_eq!(pool.log("build", 1), "waiting\n");
    assert!(pool.course("build").lost.is_empty());
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_comes_back_without_its_job_has_lost_it_at_once() {
    let pool = Pool::start(long_leases()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    worker.take().await;
    drop(worker);
    pool.connected(0).await;
    let _worker = Raw::join(&pool, 1).await;
    let course = pool.until("build", |course| !course.lost.is_empty()).await;
    assert_eq!(course.lost, ["worker raw came back without it"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_the_job_and_its_result_says_so() {
    let pool = Pool::start(terms()).await;
    let worker = pool.worker("one", Script::Wait).await;
    pool.queue("build", &["ubuntu-latest"]);
    pool.until("build", |course| course.begun == 1).await;
    pool.cancel("build");
    assert_eq!(pool.finished("build").await.conclusion, Conclusion::Cancelled);
    worker.drain(Duration::from_secs(5)).await;
    assert!(pool.memory.store.leases().await.unwrap().is_empty(), "nobody holds what is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_reaches_a_worker_that_was_apart_when_it_was_asked_for() {
    let pool = Pool::start(long_leases()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let attempt = worker.take().await.attempt.unwrap();
    drop(worker);
    pool.connected(0).await;
    pool.cancel("build");
    let running = Register { identity: raw::public(&raw::key(1)), running: vec![attempt.clone()], ..raw::register() };
    let mut worker = Raw::register(&pool, &raw::key(1), running).await.unwrap();
    let cancelled = worker.hear_until(|m| if let Message::Cancel(cancel) = m { cancel.attempt } else { None }).await;
    assert_eq!(cancelled, attempt);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accepted_job_that_never_reaches_its_worker_is_lost_and_not_running_for_ever() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.memory.jobs.send_modify(|jobs| jobs.entry("build".into()).or_default().broken = true);
    pool.queue("build", &["ubuntu-latest"]);
    let offer = worker.offer().await;
    worker.say(from_worker::Message::Accept(Accept { offer: offer.clone() })).await;
    let withdrawn = worker.hear_until(|m| if let Message::Withdrawn(w) = m { Some(w.offer) } else { None }).await;
    assert_eq!(withdrawn, offer, "a bug frees the offer");
    let course = pool.until("build", |course| !course.lost.is_empty()).await;
    assert_eq!(course.lost, ["worker raw: it was not heard of in time"]);
    // The session goes on.
    pool.queue("next", &["ubuntu-latest"]);
    worker.take().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_that_is_not_confirmed_costs_the_slot_until_it_is() {
    let pool = Pool::start(with(LeaseTimeouts { confirm_ms: 300, ..terms().timeouts })).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let attempt = worker.take().await.attempt.unwrap();
    pool.cancel("build");
    let course = pool.until("build", |course| !course.lost.is_empty()).await;
    assert_eq!(course.lost, ["worker raw: it did not confirm the cancel in time"]);
    let seat = pool.dispatch.workers().remove(0);
    assert_eq!((seat.quarantined, seat.busy), (1, 0));

    pool.queue("second", &["ubuntu-latest"]);
    worker.take().await;
    pool.queue("third", &["ubuntu-latest"]);
    pool.until("third", |course| course.reason == "all 2 slots of matching workers are busy").await;
    worker.say(from_worker::Message::Cancelled(Cancelled { attempt: Some(attempt) })).await;
    worker.take().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_coordinator_cancels_again_what_was_being_cancelled() {
    let pool = Pool::start(terms()).await;
    let worker = pool.worker("one", Script::Wait).await;
    pool.queue("build", &["ubuntu-latest"]);
    pool.until("build", |course| course.begun == 1).await;
    let away = pool.go_away().await;
    away.pool_memory().cancel("build", Duration::from_secs(60));
    let pool = away.come_back().await;
    assert_eq!(pool.finished("build").await.conclusion, Conclusion::Cancelled);
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_knows_why_and_what_nobody_can_do_is_given_up() {
    let pool = Pool::start(Terms { unmatched: Duration::from_millis(500), ..terms() }).await;
    pool.queue("build", &["macos-14"]);
    pool.until("build", |course| course.reason == "no worker is connected").await;
    let _worker = Raw::join(&pool, 1).await;
    let told = "no worker has the label macos-14; connected workers offer: ubuntu-latest";
    pool.until("build", |course| course.reason == told).await;
    pool.until("build", |course| course.unmatched).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_worker_gets_no_new_jobs() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    let id = worker.welcome.worker.clone();
    pool.dispatch.drain(&id, true).await.unwrap();
    worker.hear_until(|message| matches!(message, Message::Drain(_)).then_some(())).await;
    pool.queue("build", &["ubuntu-latest"]);
    pool.until("build", |course| course.reason == "the only matching worker is draining").await;
    pool.dispatch.drain(&id, false).await.unwrap();
    worker.take().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_is_whole_after_its_connection_was_cut_again_and_again() {
    let pool = Pool::start(long_leases()).await;
    let proxy = Proxy::start(pool.port, 3 << 20, 4).await;
    pool.enrol(&pool.keys.worker_identity);
    let mut config = pool.config("one");
    config.coordinator = format!("https://localhost:{}", proxy.port);
    let worker = Running::start(config, Script::Flood(400));
    pool.queue("build", &["ubuntu-latest"]);
    assert_eq!(pool.finished("build").await.conclusion, Conclusion::Success);
    assert_eq!(proxy.cuts.load(Ordering::SeqCst), 4);
    let log = pool.log("build", 1);
    assert_eq!(log.len(), 400 * 64 * 1024);
    assert!(log.starts_with("0000000000000000") && log.ends_with("00000399"));
    assert_eq!(pool.course("build").attempts, 1);
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkout_brings_what_is_new_into_the_workers_mirror() {
    let pool = Pool::start(long_leases()).await;
    let repository = tempfile::tempdir().unwrap();
    let commit = |name: &str| {
        std::fs::write(repository.path().join(name), name).unwrap();
        pool::git(repository.path(), &["add", "."]);
        pool::git(repository.path(), &["commit", "--quiet", "-m", name]);
        let id = pool::git(repository.path(), &["rev-parse", "HEAD"]);
        let id = String::from_utf8(id).unwrap().trim().to_owned();
        *pool.memory.source.lock() = Some((repository.path().to_owned(), id.clone()));
        id
    };
    pool::git(repository.path(), &["init", "--quiet"]);
    let worker = pool.worker("one", Script::Checkout).await;

    let first = commit("one.txt");
    pool.queue("build", &["ubuntu-latest"]);
    pool.finished("build").await;
    assert!(pool.log("build", 1).contains("one.txt"), "{}", pool.log("build", 1));
    pool.queue("same", &["ubuntu-latest"]);
    pool.finished("same").await;
    assert!(pool.log("same", 1).contains("one.txt"));
    assert_eq!(*pool.memory.bundles.lock(), [Vec::<String>::new()], "the second asked for nothing");

    commit("two.txt");
    pool.queue("next", &["ubuntu-latest"]);
    pool.finished("next").await;
    assert!(pool.log("next", 1).contains("one.txt") && pool.log("next", 1).contains("two.txt"));
    assert_eq!(pool.memory.bundles.lock()[1], [first]);
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn control_does_not_wait_behind_a_flood_of_log() {
    let pool = Pool::start(long_leases()).await;
    let worker = pool.worker("one", Script::Flood(1600)).await;
    pool.queue("build", &["ubuntu-latest"]);
    pool.until("build", |course| course.begun == 1).await;
    let mut beside = Raw::join(&pool, 1).await;
    let mut trips = Vec::new();
    while pool.course("build").report.is_none() {
        trips.push(round_trip(&mut beside).await);
    }
    assert_eq!(pool.log("build", 1).len(), 1600 * 64 * 1024);
    assert!(median(&mut trips) < Duration::from_millis(100), "{trips:?}");
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn there_are_no_stalls_of_40_ms() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let job = worker.take().await;
    let attempt = job.attempt.unwrap();
    let (mut stream, mut call) = (Vec::new(), Vec::new());
    for _ in 0..40 {
        stream.push(round_trip(&mut worker).await);
        worker.renew(std::slice::from_ref(&attempt)).await;
        let begun = Instant::now();
        worker.open_log(&attempt, &job.token).await;
        call.push(begun.elapsed());
    }
    assert!(median(&mut stream) < Duration::from_millis(5), "{stream:?}");
    assert!(median(&mut call) < Duration::from_millis(5), "{call:?}");
}

async fn round_trip(worker: &mut Raw) -> Duration {
    let begun = Instant::now();
    worker.renew(&[]).await;
    worker.hear_until(|message| matches!(message, Message::Renewed(_)).then_some(())).await;
    begun.elapsed()
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_is_resolved_by_the_coordinator_and_its_files_are_sent_once() {
    let pool = Pool::start(long_leases()).await;
    let worker = pool.worker("one", Script::Action).await;
    for job in ["build", "again"] {
        pool.queue(job, &["ubuntu-latest"]);
        pool.finished(job).await;
        assert_eq!(pool.log(job, 1), format!("{} the files", "c".repeat(40)));
    }
    assert_eq!(*pool.memory.resolved.lock(), ["30617:owner:repo acme/tool@v1"; 2]);
    assert_eq!(*pool.memory.archived.lock(), [format!("key {}", "c".repeat(40))]);
    worker.drain(Duration::from_secs(5)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_holds_the_attempt_may_have_names_resolved() {
    let pool = Pool::start(terms()).await;
    let mut worker = Raw::join(&pool, 1).await;
    pool.queue("build", &["ubuntu-latest"]);
    let job = worker.take().await;
    let attempt = job.attempt.unwrap();
    let other = proto::worker::Attempt { attempt: attempt.attempt + 1, ..attempt.clone() };
    for (attempt, token, may) in
        [(attempt.clone(), job.token.clone(), true), (attempt, "guess".into(), false), (other, job.token, false)]
    {
        let repository = "acme/tool".into();
        let asked = proto::worker::ResolveRequest { attempt: Some(attempt), token, repository, ..Default::default() };
        assert_eq!(worker.bulk.resolve(asked).await.is_ok(), may);
    }
}
