#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use futures::FutureExt;

use super::*;

const KEY: &str = "deploy";

fn version(version: u64) -> Group {
    Group { version, ..Group::new(KEY.into()) }
}

/// The next version of what was read.
fn next_of(before: Snapshot<Group>) -> WriteSet {
    let after = Arc::new(version(before.state.version + 1));
    let groups = HashMap::from([(KEY.into(), Written { before: Some(before), after })]);
    WriteSet { groups, ..WriteSet::default() }
}

async fn newest(cache: &StateCache) -> Snapshot<Group> {
    cache.group(KEY).await.unwrap()
}

#[tokio::test]
async fn an_event_need_not_wait_for_the_commit_of_the_one_before() {
    let cache = StateCache::default();
    let first = next_of(Snapshot::stored(version(1)));
    assert!(cache.publish(&first));
    let second = next_of(newest(&cache).await);
    assert!(cache.publish(&second));
    assert_eq!(newest(&cache).await.state.version, 3);
    cache.finish(&first, true);
    assert_eq!(newest(&cache).await.state.version, 3);
    cache.finish(&second, true);
    assert!(cache.group(KEY).await.is_none(), "the store has it");
}

#[tokio::test]
async fn of_two_versions_after_the_same_one_counts() {
    let cache = StateCache::default();
    let (first, second) = (next_of(Snapshot::stored(version(1))), next_of(Snapshot::stored(version(1))));
    assert!(cache.publish(&first));
    assert!(!cache.publish(&second));
}

/// The store compares version numbers alone: a version of a failed line could follow one of another with its number.
#[tokio::test]
async fn after_a_failed_commit_nothing_is_read_before_all_that_followed_it_has_ended() {
    let cache = StateCache::default();
    let first = next_of(Snapshot::stored(version(1)));
    assert!(cache.publish(&first));
    let second = next_of(newest(&cache).await);
    assert!(cache.publish(&second));
    let third = next_of(newest(&cache).await);
    cache.finish(&first, false);
    assert!(!cache.publish(&third), "it follows what failed");
    assert!(!cache.publish(&next_of(Snapshot::stored(version(1)))), "the second is still on its way");
    assert!(cache.group(KEY).now_or_never().is_none(), "nobody may read the store yet");
    let reading = tokio::spawn({
        let cache = cache.clone();
        async move { cache.group(KEY).await.is_none() }
    });
    tokio::task::yield_now().await;
    cache.finish(&second, false);
    assert!(reading.await.unwrap(), "now the store is read");
    assert!(!cache.publish(&third), "what was computed from a line that is gone is computed again");
    assert!(cache.publish(&next_of(Snapshot::stored(version(1)))));
}
