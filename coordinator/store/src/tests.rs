#![allow(clippy::panic, clippy::unwrap_used, reason = "a test may stop at once")]

mod caches;
mod file;
mod parts;
mod repository_values;
mod retention;
mod server;
mod services;
mod test_reports;
mod upgrade;
mod webhooks;

use super::*;
use domain::group::Member;
use domain::id::BlobHash;
use domain::run::{
    FinalizedLog, Job, NostrOrigin, OriginEvent, Repository, RequestOrigin, RunEnd, RunPhase, RunState, Visibility,
    WaitCondition,
};
use workflow::plan::Conclusion;

fn run(id: &str, serial: u64) -> RunState {
    RunState {
        answered: false,
        id: id.into(),
        version: 0,
        serial,
        number: serial,
        attempt: 1,
        rerun: None,
        request: Arc::new(domain::run::RunRequest {
            id: format!("job-of-{id}"),
            origin: RequestOrigin::from(NostrOrigin {
                protocol: "pairs".into(),
                request: OriginEvent { kind: 5100, id: format!("job-of-{id}") },
                run: Some(OriginEvent { kind: 5401, id: format!("run-of-{id}") }),
                author: "author".into(),
                publisher: Some(format!("publisher-of-{id}")),
                relays: vec![],
                details: serde_json::Value::Null,
            }),
            repository: Repository { address: "30617:owner:repo".into(), ..Repository::default() },
            workflow: "ci.yml".into(),
            commit: String::new(),
            branch: "main".into(),
            reference: None,
            trigger: None,
            payload: None,
            actor: "author".into(),
            env: indexmap::IndexMap::new(),
            notices: vec![],
            inputs: None,
            again: None,
            command: None,
            pinned: None,
            pull_request: None,
            received_at: 1,
        }),
        planned: None,
        phase: RunPhase::Planning,
        claim: None,
        gate: None,
        calls: Default::default(),
        jobs: indexmap::IndexMap::new(),
        cancelled: None,
        expired_at: None,
        message: None,
        delayed: None,
        secret_names: Vec::new(),
        secrets: false,
        rules: domain::run::RunRules::default(),
        environments: Vec::new(),
        visibility: Visibility::Public,
        expires_at: 1000,
        created_at: 1,
        started_at: None,
        paused_at: None,
        paused_ms: 0,
        report_bytes: 0,
        stamped_at: 0,
    }
}

fn done() -> RunPhase {
    let end = RunEnd { conclusion: Conclusion::Success, reason: None, exit_code: 0, at: 9 };
    RunPhase::Done { end, log: FinalizedLog::default() }
}

fn queued(job: &str, since: u64) -> QueuedJob {
    QueuedJob {
        reason: String::new(),
        run: "r".into(),
        job: job.into(),
        labels: vec!["linux".into()],
        avoid: vec![],
        owner: "o".into(),
        since,
    }
}

fn outgoing(event: &str) -> Outgoing {
    Outgoing {
        event: event.into(),
        sequence: 0,
        unsigned: "{}".into(),
        signature: None,
        signer: Signer::Publisher { run: "r".into() },
        relays: vec![("wss://a".into(), RelayClass::Own)],
        run: Some("r".into()),
        made_at: 5,
    }
}

/// The hash that all bytes of these tests have.
fn hash() -> BlobHash {
    "aa".repeat(32).parse().unwrap()
}

fn blob(owner: &str, public: bool, expires_at: u64) -> Blob {
    Blob { sha256: hash(), size: 10, kind: "text/plain".into(), owner: owner.into(), public, stored_at: 1, expires_at }
}

crate::testing::on_each_engine! {
    an_event_is_taken_in_once_and_its_batch_is_all_or_nothing,
    a_stale_version_of_a_run_is_refused,
    of_many_writers_of_one_version_exactly_one_wins_and_the_others_commits_stand,
    runs_are_found_by_serial_event_and_filter_newest_first,
    what_changed_after_a_change_is_told_once_and_in_order,
    every_phase_of_a_run_can_be_stored,
    a_list_says_why_a_run_is_not_planned_yet,
    the_queue_is_read_oldest_first_and_a_job_stands_in_it_once,
    the_outbox_keeps_the_order_and_takes_a_signature_once,
    secrets_are_kept_until_erased,
    a_parked_half_is_found_by_what_it_waits_for_and_when_it_expires,
    a_cursor_only_goes_forward,
    stored_bytes_have_owners_each_with_an_expiry,
    a_group_is_fenced_by_its_version,
    a_worker_is_known_by_its_newest_row,
    a_counter_gives_each_value_once,
    numbers_of_changes_that_can_not_be_made_are_given_to_the_next,
    what_can_be_read_is_on_the_disk_once_the_store_is_synced,
    subscribers_learn_what_changed_after_it_is_readable,
    a_transaction_that_breaks_writes_nothing_and_the_store_goes_on,
    a_full_disk_is_a_problem_that_is_told,
    what_is_asked_of_relays_depends_on_what_has_not_ended,
}

fn page(limit: u32) -> Page {
    Page { before: None, limit }
}

async fn an_event_is_taken_in_once_and_its_batch_is_all_or_nothing(store: &Store) {
    let batch = |id: &str| vec![Change::Run(RunChange::whole(run(id, 1))), Change::Seen { id: "event".into(), at: 1 }];
    store.commit(batch("first")).await.unwrap();
    let again = store.commit(batch("second")).await;
    assert!(matches!(again, Err(StoreError::Database(_) | StoreError::Seen(_))), "{again:?}");
    assert_eq!(store.run(&"second".into()).await.unwrap(), None);
    assert!(store.seen("event").await.unwrap());
    assert!(!store.seen("other").await.unwrap());
    let seen = store.commit(vec![Change::Queue(queued("a", 1)), Change::Seen { id: "event".into(), at: 2 }]).await;
    assert!(matches!(seen, Err(StoreError::Seen(id)) if id == "event"));
    assert_eq!(store.queued().await.unwrap(), []);
}

async fn a_stale_version_of_a_run_is_refused(store: &Store) {
    let mut state = run("r", 1);
    store.commit(vec![Change::Run(RunChange::whole(state.clone()))]).await.unwrap();
    for wrong in [0, 2, 7] {
        state.version = wrong;
        let result = store.commit(vec![Change::Run(RunChange::whole(state.clone()))]).await;
        assert!(matches!(result, Err(StoreError::Stale(_))), "version {wrong}: {result:?}");
    }
    state.version = 1;
    state.phase = RunPhase::Active;
    store.commit(vec![Change::Run(RunChange::whole(state.clone()))]).await.unwrap();
    assert_eq!(store.run(&"r".into()).await.unwrap(), Some(state));
    assert_eq!(store.run_version(&"r".into()).await.unwrap(), Some(1));
    assert_eq!(store.run_version(&"none".into()).await.unwrap(), None);
}

async fn of_many_writers_of_one_version_exactly_one_wins_and_the_others_commits_stand(store: &Store) {
    store.commit(vec![Change::Run(RunChange::whole(run("r", 1)))]).await.unwrap();
    let writers = (0..50).map(|index| {
        let next = RunState { version: 1, ..run("r", 1) };
        async move {
            let raced = store.commit(vec![Change::Run(RunChange::whole(next))]);
            let own = store.commit(vec![Change::Queue(queued(&format!("{index:02}"), 1))]);
            let (raced, own) = tokio::join!(raced, own);
            own.unwrap();
            raced.is_ok()
        }
    });
    let won = futures::future::join_all(writers).await.into_iter().filter(|won| *won).count();
    assert_eq!(won, 1);
    assert_eq!(store.queued().await.unwrap().len(), 50);
}

async fn runs_are_found_by_serial_event_and_filter_newest_first(store: &Store) {
    let mut private = run("b", 2);
    private.visibility = Visibility::Readers(vec!["alice".into(), "bob".into()]);
    let mut ended = run("c", 3);
    ended.phase = done();
    Arc::make_mut(&mut ended.request).repository.address = "30617:owner:other".into();
    Arc::make_mut(&mut ended.request).actor = "somebody".into();
    for state in [&run("a", 1), &private, &ended] {
        store.commit(vec![Change::Run(RunChange::whole(state.clone()))]).await.unwrap();
    }
    let id = |found: Option<RunState>| found.map(|state| state.id);
    assert_eq!(id(store.run_by_serial(2).await.unwrap()), Some("b".into()));
    assert_eq!(id(store.run_by_event("run-of-a").await.unwrap()), Some("a".into()));
    assert_eq!(id(store.run_by_event("job-of-c").await.unwrap()), Some("c".into()));
    assert_eq!(id(store.run_by_event("nothing").await.unwrap()), None);
    assert!(store.is_publisher("publisher-of-a", u64::MAX >> 1).await.unwrap(), "it goes on");
    assert!(!store.is_publisher("alice", 0).await.unwrap());
    assert!(store.is_publisher("publisher-of-c", 9).await.unwrap());
    assert!(!store.is_publisher("publisher-of-c", 10).await.unwrap(), "it ended before");

    let key = |key: &str| Filter { reader: Reader::Key(key.into()), ..Filter::default() };
    let operator = Filter { reader: Reader::Operator, ..Filter::default() };
    let words = |words: &[&str]| Filter {
        words: words.iter().map(|word| (*word).to_owned()).collect(),
        reader: Reader::Operator,
        ..Filter::default()
    };
    let cases: [(&str, Filter, Page, &[&str]); 16] = [
        ("anyone sees public runs", Filter::default(), page(9), &["c", "a"]),
        ("a reader sees private ones too", key("bob"), page(9), &["c", "b", "a"]),
        ("another key does not", key("eve"), page(9), &["c", "a"]),
        ("the operator sees all", operator.clone(), page(9), &["c", "b", "a"]),
        ("a page ends", operator.clone(), page(2), &["c", "b"]),
        ("the next page goes on", operator.clone(), Page { before: Some(2), limit: 2 }, &["a"]),
        ("by repository", Filter { repository: Some("30617:owner:other".into()), ..operator.clone() }, page(9), &["c"]),
        (
            "by a repository's name",
            Filter { repository_name: Some("other".into()), ..operator.clone() },
            page(9),
            &["c"],
        ),
        ("by words", words(&["CI.Y", "epo"]), page(9), &["b", "a"]),
        ("by a word that nothing has", words(&["nowhere"]), page(9), &[]),
        ("by a word that is no pattern", words(&["c_.yml"]), page(9), &[]),
        ("by author", Filter { actor: Some("author".into()), ..operator.clone() }, page(9), &["b", "a"]),
        ("by status", Filter { status: vec![Status::Success], ..operator.clone() }, page(9), &["c"]),
        (
            "by one of several",
            Filter { status: vec![Status::Planning, Status::Success], ..operator.clone() },
            page(2),
            &["c", "b"],
        ),
        ("by branch", Filter { branch: Some("main".into()), ..operator.clone() }, page(1), &["c"]),
        (
            "by two",
            Filter { branch: Some("main".into()), status: vec![Status::Planning], ..operator },
            page(9),
            &["b", "a"],
        ),
    ];
    for (what, filter, page, expected) in cases {
        let found: Vec<_> = store.list(&filter, page).await.unwrap().into_iter().map(|run| run.id).collect();
        assert_eq!(found, expected, "{what}");
    }
    let unfinished: Vec<_> = store.unfinished().await.unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(unfinished, ["b", "a"]);
}

async fn what_changed_after_a_change_is_told_once_and_in_order(store: &Store) {
    for (id, serial) in [("a", 1), ("b", 2)] {
        store.commit(vec![Change::Run(RunChange::whole(run(id, serial)))]).await.unwrap();
    }
    let seen = store.latest_change().await.unwrap();
    let mut next = run("a", 1);
    (next.version, next.phase) = (1, RunPhase::Active);
    store.commit(vec![Change::Run(RunChange::whole(next))]).await.unwrap();
    store.commit(vec![Change::Run(RunChange::whole(run("c", 3)))]).await.unwrap();
    let changed = store.changed(&Filter::default(), seen, 10).await.unwrap();
    let told: Vec<_> = changed.iter().map(|run| (run.id.as_str(), run.status)).collect();
    assert_eq!(told, [("a", Status::Queued), ("c", Status::Planning)]);
    let last = changed.last().unwrap().changed;
    assert_eq!(store.changed(&Filter::default(), last, 10).await.unwrap(), []);
    assert_eq!(store.repositories("", 5).await.unwrap(), ["30617:owner:repo"]);
}

async fn every_phase_of_a_run_can_be_stored(store: &Store) {
    let waits = [
        WaitCondition::Concurrency { group: "g".into(), holder: None },
        WaitCondition::Approval { environment: "production".into(), approvers: Vec::new() },
        WaitCondition::Timer { until: 5 },
    ];
    let end = RunEnd { conclusion: Conclusion::Failure, reason: None, exit_code: 1, at: 9 };
    let phases = waits.map(|on| RunPhase::Waiting { on }).into_iter().chain([RunPhase::Finalizing { end }, done()]);
    let mut state = run("r", 1);
    Arc::make_mut(&mut state.request).origin = RequestOrigin::Api;
    store.commit(vec![Change::Run(RunChange::whole(state.clone()))]).await.unwrap();
    for phase in phases {
        state.version += 1;
        state.phase = phase;
        store.commit(vec![Change::Run(RunChange::whole(state.clone()))]).await.unwrap();
        assert_eq!(store.run(&"r".into()).await.unwrap().as_ref(), Some(&state));
    }
}

async fn a_list_says_why_a_run_is_not_planned_yet(store: &Store) {
    let why = "no relay has the announcement".to_owned();
    let state = RunState { delayed: Some(why.clone()), ..run("r", 1) };
    store.commit(vec![Change::Run(RunChange::whole(state))]).await.unwrap();
    let listed = store.list(&Filter::default(), Page { before: None, limit: 1 }).await.unwrap();
    assert_eq!(listed.first().unwrap().wait, Some(WaitCondition::Files { why }));
}

async fn the_queue_is_read_oldest_first_and_a_job_stands_in_it_once(store: &Store) {
    let batch = [queued("b", 2), queued("a", 3), queued("c", 1), queued("a", 0)].map(Change::Queue);
    store.commit(batch.into()).await.unwrap();
    store.commit(vec![Change::Unqueue { run: "r".into(), job: "c".into() }]).await.unwrap();
    assert_eq!(store.queued().await.unwrap(), [queued("a", 0), queued("b", 2)]);
}

async fn the_outbox_keeps_the_order_and_takes_a_signature_once(store: &Store) {
    store.commit(vec![Change::Outbox(outgoing("z")), Change::Outbox(outgoing("a"))]).await.unwrap();
    let signed = |signature: &str| Outgoing { signature: Some(signature.into()), ..outgoing("z") };
    store.commit(vec![Change::Outbox(signed("one")), Change::Outbox(signed("two"))]).await.unwrap();
    let delivered =
        |answer: &str| Change::Delivered { event: "z".into(), relay: "wss://a".into(), answer: answer.into(), at: 1 };
    store.commit(vec![delivered("blocked"), delivered("")]).await.unwrap();
    let pending = store.outbox_pending().await.unwrap();
    let events: Vec<_> = pending.iter().map(|entry| entry.outgoing.event.as_str()).collect();
    assert_eq!(events, ["z", "a"]);
    assert_eq!(pending[0].outgoing.signature.as_deref(), Some("one"));
    assert_eq!(pending[0].answers, [("wss://a".to_owned(), String::new())]);
    assert_eq!(Outgoing { sequence: 0, ..pending[1].outgoing.clone() }, outgoing("a"));
    store.commit(vec![Change::OutboxDone { event: "z".into() }]).await.unwrap();
    assert_eq!(store.outbox_pending().await.unwrap().len(), 1);
    assert_eq!(store.outbox_of(&"r".into()).await.unwrap().len(), 2);
    assert_eq!(store.outbox_of(&"other".into()).await.unwrap(), []);
}

async fn secrets_are_kept_until_erased(store: &Store) {
    let secrets = |value: u8| SealedSecrets {
        sealed: vec![("A".into(), vec![value, 0]), ("B".into(), vec![])],
        wrapped_key: vec![value; 44],
    };
    let change = |SealedSecrets { sealed, wrapped_key }| Change::Secrets { run: "r".into(), sealed, wrapped_key };
    assert_eq!(store.secrets(&"r".into()).await.unwrap(), None);
    for value in [1, 2] {
        store.commit(vec![change(secrets(value))]).await.unwrap();
        assert_eq!(store.secrets(&"r".into()).await.unwrap(), Some(secrets(value)));
    }
    store.commit(vec![Change::EraseSecrets { run: "r".into() }]).await.unwrap();
    assert_eq!(store.secrets(&"r".into()).await.unwrap(), None);
}

async fn a_parked_half_is_found_by_what_it_waits_for_and_when_it_expires(store: &Store) {
    let half = |id: &str, until| PendingEvent { id: id.into(), waits_for: "other".into(), event: "{}".into(), until };
    store
        .commit(vec![
            Change::AddPending(half("a", 10)),
            Change::AddPending(half("b", 20)),
            Change::AddPending(half("a", 99)),
        ])
        .await
        .unwrap();
    assert_eq!(store.parked_for("other").await.unwrap(), [half("a", 10), half("b", 20)]);
    assert_eq!(store.parked_for("nothing").await.unwrap(), []);
    assert_eq!(store.parked_expired(10).await.unwrap(), [half("a", 10)]);
    store.commit(vec![Change::RemovePending { id: "a".into() }]).await.unwrap();
    assert_eq!(store.parked_for("other").await.unwrap(), [half("b", 20)]);
}

async fn a_cursor_only_goes_forward(store: &Store) {
    assert_eq!(store.cursor("wss://a").await.unwrap(), None);
    for seen in [5, 9, 7] {
        store.commit(vec![Change::Cursor { relay: "wss://a".into(), seen }]).await.unwrap();
    }
    assert_eq!(store.cursor("wss://a").await.unwrap(), Some(9));
}

async fn stored_bytes_have_owners_each_with_an_expiry(store: &Store) {
    let batch =
        [blob("x", true, 10), blob("x", false, 30), blob("x", false, 20), blob("y", false, 5)].map(Change::Blob);
    store.commit(batch.into()).await.unwrap();
    assert_eq!(store.blob(&hash()).await.unwrap(), [blob("x", true, 30), blob("y", false, 5)]);
    assert_eq!(store.blobs_of("y", 9).await.unwrap(), [blob("y", false, 5)]);
    assert_eq!(store.blobs_expired(29).await.unwrap(), [blob("y", false, 5)]);
    assert_eq!(store.uploads(None).await.unwrap(), Uploads::default(), "neither owner is a public key");
    let large = Blob { sha256: "bc".repeat(32).parse().unwrap(), size: 5000, ..blob(&"cd".repeat(32), true, 30) };
    store.commit(vec![Change::Blob(blob(&"ab".repeat(32), true, 30)), Change::Blob(large)]).await.unwrap();
    assert_eq!(store.uploads(None).await.unwrap(), Uploads { number: 2, bytes: 9096 }, "a small one takes a page");
    assert_eq!(store.uploads(Some(&"ab".repeat(32))).await.unwrap(), Uploads { number: 1, bytes: 4096 });
    store.commit(vec![Change::BlobGone { sha256: hash(), owner: "ab".repeat(32) }]).await.unwrap();
    assert_eq!(store.blob_hashes("aa").await.unwrap(), [hash()].into());
    assert_eq!(store.blob_hashes("ab").await.unwrap(), [].into());
    store.commit(vec![Change::BlobGone { sha256: hash(), owner: "x".into() }]).await.unwrap();
    assert_eq!(store.blob(&hash()).await.unwrap(), [blob("y", false, 5)]);
}

async fn a_group_is_fenced_by_its_version(store: &Store) {
    let member = |run: &str| Member { run: run.into(), serial: 1, job: Some("a/0".into()), since: 5 };
    let group = |version, holder: &str| Group {
        key: "deploy".into(),
        version,
        holder: Some(member(holder)),
        pending: vec![member("next")],
    };
    assert_eq!(store.group("deploy").await.unwrap(), None);
    store.commit(vec![Change::Group(group(0, "a"))]).await.unwrap();
    assert!(matches!(store.commit(vec![Change::Group(group(0, "b"))]).await, Err(StoreError::Stale(_))));
    assert!(matches!(store.commit(vec![Change::Group(group(2, "b"))]).await, Err(StoreError::Stale(_))));
    store.commit(vec![Change::Group(group(1, "b"))]).await.unwrap();
    assert_eq!(store.group("deploy").await.unwrap(), Some(group(1, "b")));
}

async fn a_worker_is_known_by_its_newest_row(store: &Store) {
    let row = |slots, draining| WorkerRow {
        id: "w".into(),
        identity: "key".into(),
        name: "one".into(),
        labels: vec!["linux".into()],
        slots,
        seen_at: 3,
        draining,
    };
    store.commit(vec![Change::Worker(row(1, true)), Change::Worker(row(2, false))]).await.unwrap();
    assert_eq!(store.workers().await.unwrap(), [row(2, true)], "a worker that comes back undoes no drain");
}

async fn a_counter_gives_each_value_once(store: &Store) {
    let values = futures::future::join_all((0..20).map(|_| store.next("serial"))).await;
    let mut values: Vec<_> = values.into_iter().map(Result::unwrap).collect();
    values.sort_unstable();
    assert_eq!(values, (1..=20).collect::<Vec<_>>());
    assert_eq!(store.next("other").await.unwrap(), 1);
}

async fn numbers_of_changes_that_can_not_be_made_are_given_to_the_next(store: &Store) {
    let counters = || vec!["runs".to_owned(), "runs of ci.yml".to_owned()];
    let failed = store.commit_numbered(counters(), |_| Err("no key".into())).await;
    assert!(matches!(failed, Err(StoreError::Unmade(text)) if text == "no key"));
    let failed = store.commit_numbered(counters(), |_| panic!("a bug")).await;
    assert!(matches!(failed, Err(StoreError::Unmade(_))));
    let made = store.commit_numbered(counters(), |numbers| {
        assert_eq!(numbers, [1, 1]);
        Ok(vec![Change::Cursor { relay: "r".into(), seen: numbers[0] }])
    });
    made.await.unwrap();
    assert_eq!(store.cursor("r").await.unwrap(), Some(1));
    assert_eq!(store.next("runs").await.unwrap(), 2);
}

async fn what_can_be_read_is_on_the_disk_once_the_store_is_synced(store: &Store) {
    store.synced().await.unwrap();
    store.commit(vec![Change::Cursor { relay: "r".into(), seen: 1 }]).await.unwrap();
    let visible = store
        .transaction_visible(&[], |connection| Box::pin(async move { counters::next(connection, "visible").await }));
    assert_eq!(visible.await.unwrap(), 1);
    store.synced().await.unwrap();
    // A transaction that fails as a whole is none that is waited for.
    let broken = store.transaction::<_, ()>(&[], |connection| {
        Box::pin(async move {
            connection.run_script("ROLLBACK").await?;
            Err(StoreError::Stale("r".into()))
        })
    });
    assert!(broken.await.is_err());
    store.synced().await.unwrap();
}

async fn subscribers_learn_what_changed_after_it_is_readable(store: &Store) {
    let mut notices = store.subscribe();
    store.commit(vec![Change::Cursor { relay: "r".into(), seen: 1 }, Change::Queue(queued("a", 1))]).await.unwrap();
    assert_eq!(notices.recv().await.unwrap(), ChangeNotification::Queue);
    let work = NewWork::new("w", WorkKind::FinalizeLog, Some(&"r".into()), 0);
    store
        .commit(vec![work.into(), Change::Outbox(outgoing("e")), Change::Run(RunChange::whole(run("r", 1)))])
        .await
        .unwrap();
    for expected in [ChangeNotification::Work, ChangeNotification::Outbox, ChangeNotification::Runs] {
        assert_eq!(notices.recv().await.unwrap(), expected);
    }
    assert!(store.run(&"r".into()).await.unwrap().is_some());
}

async fn a_transaction_that_breaks_writes_nothing_and_the_store_goes_on(store: &Store) {
    let broken = store.transaction(&[], |connection| {
        Box::pin(async move {
            let statement = crate::sql::query("INSERT INTO cursors (relay, seen) VALUES ('lost', 1)");
            statement.execute(&mut *connection).await?;
            connection.run_script("ROLLBACK").await
        })
    });
    let error = broken.await.unwrap_err().to_string();
    assert!(error.contains("nothing of the transaction was written"), "{error}");
    assert_eq!(store.problem().await.unwrap(), None, "it tried again, and could write");
    store.commit(vec![Change::Cursor { relay: "kept".into(), seen: 1 }]).await.unwrap();
    assert_eq!((store.cursor("lost").await.unwrap(), store.cursor("kept").await.unwrap()), (None, Some(1)));
}

async fn a_full_disk_is_a_problem_that_is_told(store: &Store) {
    let folder = tempfile::tempdir().unwrap();
    let full = store.clone().with_min_free(folder.path(), u64::MAX);
    assert!(matches!(full.problem().await.unwrap(), Some(StoreProblem::LowSpace { min_free: u64::MAX, .. })));
    assert!(full.low_space().is_some_and(|problem| problem.to_string().contains("make room there")));
    assert_eq!(store.clone().with_min_free(folder.path(), 0).problem().await.unwrap(), None);
}

async fn what_is_asked_of_relays_depends_on_what_has_not_ended(store: &Store) {
    for (id, serial, phase) in [("a", 1, RunPhase::Planning), ("b", 2, RunPhase::Planning), ("c", 3, done())] {
        store.commit(vec![Change::Run(RunChange::whole(RunState { phase, ..run(id, serial) }))]).await.unwrap();
    }
    assert_eq!(store.live_job_events(9).await.unwrap(), ["job-of-b", "job-of-a"]);
    assert_eq!(store.live_job_events(1).await.unwrap(), ["job-of-b"]);
    let mut other = run("d", 4);
    Arc::make_mut(&mut other.request).actor = "who has very many".into();
    let [mut fifth, mut sixth] = [run("e", 5), run("f", 6)];
    for state in [&mut fifth, &mut sixth] {
        state.request = other.request.clone();
    }
    for (state, event) in [(other, "job-of-d"), (fifth, "job-of-e"), (sixth, "job-of-f")] {
        let mut state = RunState { phase: RunPhase::Planning, ..state };
        let mut request = (*state.request).clone();
        request.origin = run(event.trim_start_matches("job-of-"), 1).request.origin.clone();
        state.request = Arc::new(request);
        store.commit(vec![Change::Run(RunChange::whole(state))]).await.unwrap();
    }
    let live = store.live_job_events(4).await.unwrap();
    assert_eq!(live, ["job-of-f", "job-of-b", "job-of-e", "job-of-a"], "each author has as many");
    let relays = vec![("wss://a".into(), RelayClass::Own), ("wss://b".into(), RelayClass::Other)];
    store.commit(vec![Change::Outbox(Outgoing { relays, ..outgoing("e") })]).await.unwrap();
    for (relay, answer, taken) in [("wss://b", "", false), ("wss://a", "blocked", false), ("wss://a", "", true)] {
        let (relay, answer) = (relay.to_owned(), answer.to_owned());
        store.commit(vec![Change::Delivered { event: "e".into(), relay, answer, at: 1 }]).await.unwrap();
        assert_eq!(store.taken_by_own_relay("e").await.unwrap(), taken);
    }
    assert!(!store.taken_by_own_relay("unknown").await.unwrap());
}
