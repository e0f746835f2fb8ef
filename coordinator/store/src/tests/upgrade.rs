//! A database of an earlier version opens, and everything that was unfinished in it is there to go on with.

use std::path::Path;

use super::*;

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures/data-folder-schema-6/longshore.db");

async fn check(path: &Path) {
    let store = Store::open(path).await.unwrap();
    let operator = Filter { reader: Reader::Operator, ..Filter::default() };
    let runs = store.list(&operator, page(9)).await.unwrap();
    let found: Vec<_> = runs.iter().map(|run| (run.serial, run.status)).collect();
    assert_eq!(found, [(3, Status::Queued), (2, Status::Running), (1, Status::Success)]);
    let unfinished: Vec<_> = store.unfinished().await.unwrap().into_iter().map(|run| run.id).collect();
    assert_eq!(unfinished, [runs[0].id.clone(), runs[1].id.clone()]);

    let queued = store.queued().await.unwrap();
    assert_eq!(queued.iter().map(|job| job.run.as_str()).collect::<Vec<_>>(), [runs[0].id.as_str()]);
    let leases = store.leases().await.unwrap();
    assert_eq!(leases.len(), 1, "the attempt that was out has a lease");
    assert_eq!(leases[0].attempt.run, runs[1].id);

    let unsent = store.outbox_pending().await.unwrap();
    assert_eq!(unsent.len(), 8);
    assert!(unsent.iter().all(|entry| entry.outgoing.signature.is_some() && entry.answers.len() == 1), "{unsent:?}");
    for run in &runs[..2] {
        assert!(store.secrets(&run.id).await.unwrap().is_some(), "the key of an unfinished run's publisher is there");
        let request = store.run(&run.id).await.unwrap().unwrap().request;
        assert!(store.seen(&request.id).await.unwrap());
        let origin = request.origin.nostr().unwrap();
        assert_eq!(origin.request.id, request.id, "what asked is known as it is today");
        assert_eq!(store.run_by_event(&origin.run_event().id).await.unwrap().unwrap().id, run.id);
    }
}

#[tokio::test]
async fn a_database_of_schema_6_opens_with_its_unfinished_runs_and_its_unsent_events() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("longshore.db");
    std::fs::copy(FIXTURE, &path).unwrap();
    check(&path).await;
    // Brought to today's schema, it opens as any other.
    check(&path).await;
}
