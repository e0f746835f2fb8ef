//! What is removed once its time is over, and what is not.

use super::*;
use crate::{CacheOutcome, CacheUse, Kept, NewWork, RunChange, WorkKind};

crate::testing::on_each_engine! {
    a_run_goes_with_all_its_rows_once_its_time_is_over,
    a_run_stays_while_something_of_it_is_left_to_send_or_do,
    ids_of_requests_and_refusals_go_by_their_age_alone,
    every_table_has_a_size,
}

async fn ended(store: &Store, id: &str, serial: u64) {
    store.commit(vec![Change::Run(RunChange::whole(run(id, serial)))]).await.unwrap();
    let mut state = run(id, serial);
    (state.version, state.phase) = (1, done());
    store.commit(vec![Change::Run(RunChange::whole(state))]).await.unwrap();
}

async fn expired(store: &Store, now: Millis) -> Vec<String> {
    store.runs_expired(now, 10).await.unwrap().into_iter().map(|run| run.id).collect()
}

async fn rows(store: &Store) -> u64 {
    let sizes = store.table_sizes().await.unwrap();
    sizes
        .iter()
        .filter(|table| !["schema_version", "counters"].contains(&table.name.as_str()))
        .map(|table| table.rows)
        .sum()
}

async fn a_run_goes_with_all_its_rows_once_its_time_is_over(store: &Store) {
    store.commit(vec![Change::Run(RunChange::whole(run("unfinished", 9)))]).await.unwrap();
    let kept = rows(store).await;
    ended(store, "r", 1).await;
    let used = CacheUse {
        run: "r".into(),
        job: "a".into(),
        attempt: 1,
        outcome: CacheOutcome::Hit,
        key: "k".into(),
        found: None,
        size: 1,
        at: 1,
    };
    let batch = vec![
        Change::Outbox(outgoing("e")),
        Change::Delivered { event: "e".into(), relay: "wss://a".into(), answer: String::new(), at: 1 },
        Change::OutboxDone { event: "e".into() },
        Change::Queue(queued("a", 1)),
        Change::Secrets { run: "r".into(), sealed: vec![("A".into(), vec![1])], wrapped_key: vec![2] },
        Change::Blob(blob("r", true, 2000)),
        Change::Kept(Kept::CacheUse(used)),
    ];
    store.commit(batch).await.unwrap();
    assert_eq!(expired(store, 999).await, Vec::<String>::new());
    assert_eq!(expired(store, 1000).await, ["r"]);
    store.remove_run("r").await.unwrap();
    assert_eq!(rows(store).await, kept);
    assert!(store.run("unfinished").await.unwrap().is_some());
}

async fn a_run_stays_while_something_of_it_is_left_to_send_or_do(store: &Store) {
    ended(store, "r", 1).await;
    store.commit(vec![Change::Outbox(outgoing("e"))]).await.unwrap();
    assert_eq!(expired(store, 5000).await, Vec::<String>::new());
    let work = NewWork::new("w", WorkKind::FinalizeLog, Some("r"), 1);
    store.commit(vec![Change::OutboxDone { event: "e".into() }, work.into()]).await.unwrap();
    assert_eq!(expired(store, 5000).await, Vec::<String>::new());
    store.commit(vec![Change::Work(crate::WorkChange::Remove { id: "w".into() })]).await.unwrap();
    assert_eq!(expired(store, 5000).await, ["r"]);
}

async fn ids_of_requests_and_refusals_go_by_their_age_alone(store: &Store) {
    let refusal = |event: &str, made_at| Outgoing { run: None, made_at, ..outgoing(event) };
    let seen = |id: String, at| Change::Seen { id, at };
    let batch = (0..1500).map(|number| seen(format!("{number}"), 10)).chain([
        seen("new".into(), 20),
        Change::Outbox(refusal("sent", 10)),
        Change::OutboxDone { event: "sent".into() },
        Change::Delivered { event: "sent".into(), relay: "wss://a".into(), answer: String::new(), at: 10 },
        Change::Outbox(refusal("unsent", 10)),
    ]);
    store.commit(batch.collect()).await.unwrap();
    assert_eq!(store.remove_old(20).await.unwrap(), 1502);
    assert!(store.seen("new").await.unwrap() && !store.seen("3").await.unwrap());
    let pending: Vec<_> = store.outbox_pending().await.unwrap().into_iter().map(|entry| entry.outgoing.event).collect();
    assert_eq!(pending, ["unsent"]);
    assert_eq!(store.remove_old(20).await.unwrap(), 0);
}

async fn every_table_has_a_size(store: &Store) {
    ended(store, "r", 1).await;
    let sizes = store.table_sizes().await.unwrap();
    let runs = sizes.iter().find(|table| table.name == "runs").unwrap();
    assert!(runs.rows == 1 && runs.bytes > 0, "{sizes:?}");
    assert!(
        sizes.iter().any(|table| table.name == "work") && sizes.is_sorted_by(|one, other| one.bytes >= other.bytes)
    );
}
