//! Caches and artifacts: what a key finds, what all of them take, and what is removed.

use super::*;
use crate::{Artifact, ArtifactChange, Cache, CacheChange, CacheOutcome, CacheUse};

crate::testing::on_each_engine! {
    a_key_finds_the_same_one_else_the_newest_that_begins_with_it_however_many_there_are,
    bytes_are_summed_over_every_entry_and_the_one_that_was_unused_longest_goes_first,
    what_a_job_asked_of_caches_is_kept_once,
    an_artifact_is_unique_in_its_run_and_goes_by_its_time,
}

fn entry(id: u64, key: &str) -> Cache {
    Cache {
        id,
        repository: "30617:o:r".into(),
        scope: "refs/heads/main".into(),
        key: key.into(),
        version: "v".into(),
        sha256: format!("{id:064x}").parse().unwrap(),
        size: 10,
        made_at: id,
        used_at: id,
    }
}

async fn a_key_finds_the_same_one_else_the_newest_that_begins_with_it_however_many_there_are(store: &Store) {
    let newer = (0..2500).map(|number| CacheChange::Add(entry(1000 + number, &format!("other-{number}"))).into());
    let sought = ["npm-", "npm-1", "npm-ü%_2"].into_iter().zip(1..);
    let sought = sought.map(|(key, id)| CacheChange::Add(entry(id, key)).into());
    store.commit(sought.chain(newer).collect()).await.unwrap();
    let found = async |scope: &str, version: &str, key: &str, since| {
        store.cache_for("30617:o:r", scope, version, key, since).await.unwrap().map(|entry| entry.id)
    };
    let main = "refs/heads/main";
    assert_eq!(found(main, "v", "npm-", 0).await, Some(1));
    assert_eq!(found(main, "v", "npm", 0).await, Some(3), "the newest of three");
    assert_eq!(found(main, "v", "npm-ü", 0).await, Some(3));
    assert_eq!(found(main, "v", "npm-_", 0).await, None, "a key is no pattern");
    assert_eq!(found(main, "v", "npm-1", 3).await, None, "it was not used for too long");
    assert_eq!(found(main, "other", "npm-", 0).await, None);
    assert_eq!(found("refs/heads/other", "v", "npm-", 0).await, None);
    let again = store.commit(vec![CacheChange::Add(entry(9000, "npm-1")).into()]).await;
    assert!(matches!(again, Err(StoreError::Stale(_))), "an entry never changes");
}

async fn bytes_are_summed_over_every_entry_and_the_one_that_was_unused_longest_goes_first(store: &Store) {
    let many = (1..=2500).map(|id| CacheChange::Add(entry(id, &id.to_string())).into());
    let foreign = Cache { repository: "30617:o:other".into(), ..entry(5000, "x") };
    store.commit(many.chain([CacheChange::Add(foreign).into()]).collect()).await.unwrap();
    assert_eq!(store.caches_total(Some("30617:o:r")).await.unwrap(), 25_000);
    assert_eq!(store.caches_total(None).await.unwrap(), 25_010);
    store.commit(vec![CacheChange::Touch { id: 1, at: 9000 }.into()]).await.unwrap();
    let ids = |found: Vec<Cache>| found.into_iter().map(|entry| entry.id).collect::<Vec<_>>();
    assert_eq!(ids(store.caches_least_used(Some("30617:o:r"), 2).await.unwrap()), [2, 3]);
    assert_eq!(ids(store.caches_least_used(None, 1).await.unwrap()), [2]);
    assert_eq!(ids(store.caches_unused(4).await.unwrap()), [2, 3]);
    store.commit(vec![CacheChange::Remove { id: 2 }.into()]).await.unwrap();
    assert_eq!(ids(store.caches_unused(4).await.unwrap()), [3]);
}

async fn what_a_job_asked_of_caches_is_kept_once(store: &Store) {
    let asked = |key: &str, outcome| CacheUse {
        run: "r".into(),
        job: "a".into(),
        attempt: 1,
        outcome,
        key: key.into(),
        found: Some("npm-1".into()),
        size: 10,
        at: 1,
    };
    let uses = [("npm-", CacheOutcome::Hit), ("npm-", CacheOutcome::Hit), ("npm-2", CacheOutcome::Saved)];
    store.commit(uses.map(|(key, outcome)| CacheChange::Use(asked(key, outcome)).into()).into()).await.unwrap();
    let stored = store.cache_uses(&"r".into()).await.unwrap();
    assert_eq!(stored, [asked("npm-", CacheOutcome::Hit), asked("npm-2", CacheOutcome::Saved)]);
}

async fn an_artifact_is_unique_in_its_run_and_goes_by_its_time(store: &Store) {
    let artifact = |id: u64, name: &str| Artifact {
        id,
        run: "r".into(),
        job: "a".into(),
        attempt: 1,
        name: name.into(),
        sha256: hash(),
        size: 10,
        made_at: id,
        expires_at: 100 + id,
    };
    let batch = vec![ArtifactChange::Add(artifact(1, "a")).into(), ArtifactChange::Add(artifact(2, "b")).into()];
    store.commit(batch).await.unwrap();
    let again = store.commit(vec![ArtifactChange::Add(artifact(3, "a")).into()]).await;
    assert!(matches!(again, Err(StoreError::Stale(_))), "{again:?}");
    assert_eq!(store.artifacts(&"r".into()).await.unwrap(), [artifact(1, "a"), artifact(2, "b")]);
    assert_eq!(store.artifacts_total(&"r".into()).await.unwrap(), (2, 20));
    assert_eq!(store.artifacts_total(&"none".into()).await.unwrap(), (0, 0));
    assert_eq!(store.artifacts_expired(101).await.unwrap(), [artifact(1, "a")]);
    store.commit(vec![ArtifactChange::Remove { id: 1 }.into()]).await.unwrap();
    assert_eq!(store.artifacts(&"r".into()).await.unwrap(), [artifact(2, "b")]);
}
