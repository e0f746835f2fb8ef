//! What is removed once its time is over, and what is not.

use super::*;
use crate::{CacheChange, CacheOutcome, CacheUse, NewWebhookDelivery, NewWork, RunChange, WorkKind};

crate::testing::on_each_engine! {
    a_run_goes_with_all_its_rows_once_its_time_is_over,
    a_run_stays_while_something_of_it_is_left_to_send_or_do,
    ids_of_requests_and_refusals_go_by_their_age_alone,
    a_commit_is_shared_while_another_run_has_it_or_may_find_it,
    earlier_versions_of_definitions_go_by_their_age_and_the_newest_stays,
    a_group_goes_once_it_was_idle_for_a_whole_pause_of_retention,
    every_table_has_a_size,
}

async fn ended(store: &Store, id: &str, serial: u64) {
    store.commit(vec![Change::Run(RunChange::whole(run(id, serial)))]).await.unwrap();
    let mut state = run(id, serial);
    (state.version, state.phase) = (1, done());
    store.commit(vec![Change::Run(RunChange::whole(state))]).await.unwrap();
}

async fn expired(store: &Store, now: Millis) -> Vec<String> {
    store.runs_expired(now, 10).await.unwrap().into_iter().map(|run| run.id.to_string()).collect()
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
    let unfinished = RunState { phase: RunPhase::Active, ..run("unfinished", 9) };
    store.commit(vec![Change::Run(RunChange::whole(unfinished))]).await.unwrap();
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
    let told = NewWebhookDelivery {
        id: "told".into(),
        url: "https://h.example".into(),
        event: "run.completed".into(),
        run: "r".into(),
        body: "{}".into(),
        made_at: 1,
    };
    let batch = vec![
        Change::Outbox(outgoing("e")),
        Change::Delivered { event: "e".into(), relay: "wss://a".into(), answer: String::new(), at: 1 },
        Change::OutboxDone { event: "e".into() },
        Change::Queue(queued("a", 1)),
        Change::Secrets { run: "r".into(), sealed: vec![("A".into(), vec![1])], wrapped_key: vec![2] },
        Change::Blob(blob("r", true, 2000)),
        CacheChange::Use(used).into(),
        crate::WebhookDeliveryChange::Add(told).into(),
        Change::Work(crate::WorkChange::Remove { id: "told".into() }),
    ];
    store.commit(batch).await.unwrap();
    assert_eq!(expired(store, 999).await, Vec::<String>::new());
    assert_eq!(expired(store, 1000).await, ["r"]);
    store.remove_run(&"r".into()).await.unwrap();
    assert_eq!(rows(store).await, kept);
    assert!(store.run(&"unfinished".into()).await.unwrap().is_some());
}

async fn a_run_stays_while_something_of_it_is_left_to_send_or_do(store: &Store) {
    ended(store, "r", 1).await;
    store.commit(vec![Change::Outbox(outgoing("e"))]).await.unwrap();
    assert_eq!(expired(store, 5000).await, Vec::<String>::new());
    let work = NewWork::new("w", WorkKind::FinalizeLog, Some(&"r".into()), 1);
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

async fn a_commit_is_shared_while_another_run_has_it_or_may_find_it(store: &Store) {
    let with_commit = |id: &str, serial: u64, commit: &str| {
        let mut state = run(id, serial);
        Arc::make_mut(&mut state.request).commit = commit.into();
        state
    };
    let end = async |id: &str, serial: u64, commit: &str| {
        let state = with_commit(id, serial, commit);
        store.commit(vec![Change::Run(RunChange::whole(state.clone()))]).await.unwrap();
        let ended = RunState { version: 1, phase: done(), ..state };
        store.commit(vec![Change::Run(RunChange::whole(ended))]).await.unwrap();
    };
    end("a", 1, "c1").await;
    end("b", 2, "c1").await;
    end("c", 3, "c2").await;
    let shared = async |id: &str, commit: &str| {
        let run = ExpiredRun { id: id.into(), repository: "30617:owner:repo".into(), commit: commit.into() };
        store.commit_is_used(&run.repository, &run.commit, &run.id).await.unwrap()
    };
    assert!(shared("a", "c1").await && !shared("c", "c2").await);
    store.commit(vec![Change::Run(RunChange::whole(run("planned", 4)))]).await.unwrap();
    assert!(shared("c", "c2").await, "the plan of another run may be about to name it");
    assert_eq!(expired(store, 5000).await, Vec::<String>::new());
}

async fn earlier_versions_of_definitions_go_by_their_age_and_the_newest_stays(store: &Store) {
    let version = |event: &str, made_at: u64| crate::DefinitionRow {
        event: event.into(),
        repository: "30617:o:r".into(),
        path: "a.yml".into(),
        author: "o".into(),
        made_at,
        sha256: String::new(),
        size: 1,
        withdrawn: false,
        signed: "{}".into(),
        seen_at: made_at,
    };
    let found = vec![version("first", 10), version("second", 20), version("third", 30)];
    let looked = DefinitionScan { repository: "30617:o:r".into(), maintainers: vec!["o".into()], found, at: 30 };
    store.commit(vec![Change::DefinitionScan(looked)]).await.unwrap();
    assert_eq!(store.remove_old(20).await.unwrap(), 1);
    assert_eq!(store.remove_old(5000).await.unwrap(), 1);
    let left: Vec<_> = store.definitions("30617:o:r", None).await.unwrap().into_iter().map(|row| row.event).collect();
    assert_eq!(left, ["third"]);
}

async fn a_group_goes_once_it_was_idle_for_a_whole_pause_of_retention(store: &Store) {
    let group = |key: &str, version, holder: Option<&str>| {
        let holder = holder.map(|run| Member { run: run.into(), serial: 1, job: None, since: 5 });
        Change::Group(Group { key: key.into(), version, holder, pending: Vec::new() })
    };
    store.commit(vec![group("held", 0, Some("r")), group("idle", 0, None), group("used", 0, None)]).await.unwrap();
    assert_eq!(store.remove_old(0).await.unwrap(), 0);
    store.commit(vec![group("used", 1, None)]).await.unwrap();
    assert_eq!(store.remove_old(0).await.unwrap(), 1);
    assert_eq!(store.group("idle").await.unwrap(), None);
    assert!(store.group("held").await.unwrap().is_some() && store.group("used").await.unwrap().is_some());
    let stale = store.commit(vec![group("idle", 1, Some("r"))]).await;
    assert!(matches!(stale, Err(StoreError::Stale(_))), "an event that read its earlier life is refused");
    store.commit(vec![group("idle", 0, Some("r"))]).await.unwrap();
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
