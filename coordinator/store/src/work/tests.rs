#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use super::*;

crate::testing::on_each_engine! {
    a_row_is_claimed_by_one_until_the_claim_lapses,
    an_outcome_counts_for_the_claim_that_still_holds_alone,
    a_renewed_claim_lasts_longer_and_that_of_a_dead_process_is_freed_at_its_next_start,
    a_lane_in_order_is_held_back_by_its_first_row_and_others_are_not,
    a_lane_with_one_at_a_time_goes_on_with_what_is_due,
}

fn row(id: &str, lane: &str, due: Millis) -> Change {
    NewWork::new(id, WorkKind::Publish, Some(&"r".into()), 0).in_lane(lane).due_at(due).into()
}

async fn claim(store: &Store, lanes: LaneOrder, number: u32, now: Millis) -> Vec<ClaimedWork> {
    let limits = vec![ClaimLimit { kind: WorkKind::Publish, limit: 10, lanes }];
    let request = ClaimRequest { limits, claim: format!("c/{number}"), now, until: now + 100 };
    store.claim_work(request).await.unwrap()
}

fn ids(rows: &[ClaimedWork]) -> Vec<&str> {
    rows.iter().map(|row| row.id.as_str()).collect()
}

const IN_ORDER: LaneOrder = LaneOrder::InOrder { batch: 2 };

async fn a_row_is_claimed_by_one_until_the_claim_lapses(store: &Store) {
    store.commit(vec![row("a", "", 10), row("b", "", 20), row("c", "", 99)]).await.unwrap();
    assert!(claim(store, LaneOrder::Independent, 1, 9).await.is_empty(), "not before it is due");
    assert_eq!(ids(&claim(store, LaneOrder::Independent, 2, 20).await), ["a", "b"]);
    assert!(claim(store, LaneOrder::Independent, 3, 90).await.is_empty());
    let again = claim(store, LaneOrder::Independent, 4, 120).await;
    assert_eq!(ids(&again), ["a", "b", "c"]);
    assert_eq!(again[0].tries, 2, "claims are counted, so that work which kills its process is noticed");
    assert_eq!(store.next_work_due(20).await.unwrap(), Some(99));
    assert_eq!(store.next_work_due(99).await.unwrap(), None);
}

async fn an_outcome_counts_for_the_claim_that_still_holds_alone(store: &Store) {
    store.commit(vec![row("a", "", 0)]).await.unwrap();
    let old = claim(store, LaneOrder::Independent, 1, 0).await.remove(0);
    let new = claim(store, LaneOrder::Independent, 2, 200).await.remove(0);
    store.commit(vec![old.complete(), old.retry(9999, "too late"), old.release()]).await.unwrap();
    let stored = store.work_of(&"r".into()).await.unwrap();
    assert_eq!((stored[0].claim.as_str(), stored[0].due, stored[0].tries), ("c/2", 0, 2));
    // Added again while it is under way: the timer that was armed anew stays.
    store.commit(vec![row("a", "", 500), new.complete()]).await.unwrap();
    let stored = store.work_of(&"r".into()).await.unwrap();
    assert_eq!((stored[0].claim.as_str(), stored[0].due, stored[0].tries), ("", 500, 0));
    let last = claim(store, LaneOrder::Independent, 3, 500).await.remove(0);
    store.commit(vec![last.complete()]).await.unwrap();
    assert!(store.work_of(&"r".into()).await.unwrap().is_empty());
}

async fn a_renewed_claim_lasts_longer_and_that_of_a_dead_process_is_freed_at_its_next_start(store: &Store) {
    store.commit(vec![row("a", "", 0)]).await.unwrap();
    claim(store, LaneOrder::Independent, 1, 0).await;
    store.commit(vec![Change::Work(WorkChange::Renew { claim: "c/1".into(), until: 1000 })]).await.unwrap();
    assert!(claim(store, LaneOrder::Independent, 2, 999).await.is_empty());
    for (coordinator, freed) in [("c0", 0), ("", 0), ("c", 1)] {
        let coordinator = coordinator.to_owned();
        store.commit(vec![Change::Work(WorkChange::ReleaseClaimsOf { coordinator })]).await.unwrap();
        assert_eq!(claim(store, LaneOrder::Independent, 3, 999).await.len(), freed);
    }
}

async fn a_lane_in_order_is_held_back_by_its_first_row_and_others_are_not(store: &Store) {
    let rows = vec![row("1", "x", 0), row("2", "x", 0), row("3", "y", 0), row("4", "x", 0), row("5", "z", 50)];
    store.commit(rows).await.unwrap();
    let first = claim(store, IN_ORDER, 1, 10).await;
    assert_eq!(ids(&first), ["1", "2", "3"], "two of x, one of y, and z is not due");
    assert!(claim(store, IN_ORDER, 2, 20).await.is_empty(), "a lane has one claim at a time");
    let [one, two, three] = first.as_slice() else { unreachable!("three rows") };
    store.commit(vec![one.retry(80, "refused"), two.release(), three.complete()]).await.unwrap();
    assert_eq!(ids(&claim(store, IN_ORDER, 3, 60).await), ["5"]);
    assert_eq!(ids(&claim(store, IN_ORDER, 4, 80).await), ["1", "2"]);
}

async fn a_lane_with_one_at_a_time_goes_on_with_what_is_due(store: &Store) {
    store.commit(vec![row("1", "x", 0), row("2", "x", 5), row("3", "y", 0)]).await.unwrap();
    let first = claim(store, LaneOrder::OneAtATime, 1, 10).await;
    assert_eq!(ids(&first), ["1", "3"]);
    assert!(claim(store, LaneOrder::OneAtATime, 2, 10).await.is_empty());
    store.commit(vec![first[0].retry(1000, "it hangs")]).await.unwrap();
    assert_eq!(ids(&claim(store, LaneOrder::OneAtATime, 3, 20).await), ["2"], "a row that waits holds nothing back");
}
