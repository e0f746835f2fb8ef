#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use super::*;

crate::testing::on_each_engine! {
    a_lease_that_is_not_renewed_expires,
    a_cancel_is_state_of_the_lease_until_it_is_confirmed_or_the_attempt_is_over,
    every_lease_gets_a_full_term_after_time_in_which_nobody_could_be_heard,
}

fn attempt(job: &str) -> AttemptId {
    AttemptId { run: "r".into(), job: job.into(), number: 1 }
}

fn begin(job: &str, worker: &str, expires_at: Millis) -> Change {
    let (cancel_reason, confirm_by) = Default::default();
    let (worker, repository) = (worker.to_owned(), "repo".to_owned());
    LeaseChange::Begin(Lease { attempt: attempt(job), worker, repository, expires_at, cancel_reason, confirm_by })
        .into()
}

fn jobs(leases: &[Lease]) -> Vec<&str> {
    leases.iter().map(|lease| lease.attempt.job.as_str()).collect()
}

async fn renew(store: &Store, worker: &str, jobs: &[&str], expires_at: Millis) -> Vec<AttemptId> {
    let attempts = jobs.iter().map(|job| attempt(job)).collect();
    let renewal = Renewal { worker: worker.into(), coordinator: "c".into(), attempts, expires_at };
    let mut renewed = store.renew_leases(renewal).await.unwrap();
    renewed.sort_by(|a, b| a.job.cmp(&b.job));
    renewed
}

async fn a_lease_that_is_not_renewed_expires(store: &Store) {
    store.commit(vec![begin("a", "w", 30), begin("b", "w", 30), begin("c", "v", 30)]).await.unwrap();
    assert_eq!(renew(store, "w", &["a", "c", "gone"], 60).await, [attempt("a")], "a worker renews what it holds");
    assert!(renew(store, "w", &[], 60).await.is_empty());
    assert!(store.leases_over(29).await.unwrap().is_empty());
    assert_eq!(store.next_lease_end().await.unwrap(), Some(30));
    assert_eq!(jobs(&store.leases_over(30).await.unwrap()), ["b", "c"]);
    store.commit(vec![LeaseChange::End(attempt("b")).into(), LeaseChange::End(attempt("c")).into()]).await.unwrap();
    assert_eq!(store.next_lease_end().await.unwrap(), Some(60));
    assert_eq!(jobs(&store.leases_of("w").await.unwrap()), ["a"]);
    assert_eq!(store.lease(&attempt("b")).await.unwrap(), None);
}

async fn a_cancel_is_state_of_the_lease_until_it_is_confirmed_or_the_attempt_is_over(store: &Store) {
    let cancel = |reason: &str, confirm_by| -> Change {
        LeaseChange::Cancel { attempt: attempt("a"), reason: reason.into(), confirm_by }.into()
    };
    store.commit(vec![begin("a", "w", 100), cancel("first", 60), cancel("second", 99)]).await.unwrap();
    let found = store.leases_to_cancel().await.unwrap();
    assert_eq!((found[0].cancel_reason.as_deref(), found[0].confirm_by), (Some("first"), Some(60)));
    assert_eq!(jobs(&store.leases_over(60).await.unwrap()), ["a"], "not confirmed in time");
    let confirm = |worker: &str| -> Change {
        LeaseChange::Confirm { attempt: attempt("a"), worker: worker.into(), expires_at: 200 }.into()
    };
    store.commit(vec![confirm("v")]).await.unwrap();
    assert_eq!(store.leases_to_cancel().await.unwrap().len(), 1, "only its worker confirms");
    store.commit(vec![confirm("w")]).await.unwrap();
    assert!(store.leases_to_cancel().await.unwrap().is_empty());
    assert_eq!(store.next_lease_end().await.unwrap(), Some(200), "the result may still be on its way");
}

async fn every_lease_gets_a_full_term_after_time_in_which_nobody_could_be_heard(store: &Store) {
    let cancel = LeaseChange::Cancel { attempt: attempt("b"), reason: "asked for".into(), confirm_by: 20 };
    store.commit(vec![begin("a", "w", 10), begin("b", "w", 9_999), cancel.into()]).await.unwrap();
    store.commit(vec![LeaseChange::Extend { expires_at: 130, confirm_by: 160 }.into()]).await.unwrap();
    let ends: Vec<_> = store.leases().await.unwrap().iter().map(|l| (l.expires_at, l.confirm_by)).collect();
    assert_eq!(ends, [(130, None), (130, Some(160))]);
}
