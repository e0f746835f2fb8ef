//! What one job may send and one repository may keep, in sum.

use store::{Cache, CacheChange, Change};

use super::*;

#[tokio::test]
async fn what_other_attempts_send_does_not_give_a_job_its_quota_back() {
    let limits = config::CacheAndArtifactLimits {
        cache_bytes: 10,
        artifact_bytes: 10,
        ..config::CacheAndArtifactLimits::default()
    };
    let world = World::new(limits).await;
    let greedy = identity("greedy", "refs/heads/main", true);
    assert!(world.api.receives(&greedy, 20));
    assert!(!world.api.receives(&greedy, 1));
    for other in 0..5000 {
        assert!(world.api.receives(&identity(&format!("other-{other}"), "refs/heads/main", true), 1));
    }
    assert!(!world.api.receives(&greedy, 1));
}

#[tokio::test]
async fn a_refused_artifact_leaves_the_one_of_the_earlier_attempt() {
    let world =
        World::new(config::CacheAndArtifactLimits { artifact_bytes: 8, ..config::CacheAndArtifactLimits::default() })
            .await;
    let first = world.job(identity("r1", "refs/heads/main", true)).await;
    assert_eq!(first.upload("report", "first").await.0, 200);
    assert_eq!(first.upload("other", "123").await.0, 200);
    let second = world.job(JobIdentity { attempt: 2, ..identity("r1", "refs/heads/main", true) }).await;
    assert_eq!(second.upload("report", "1234567").await.0, 413, "with the other it is too much");
    let kept = world.api.store.artifacts(&"r1".into()).await.unwrap();
    assert_eq!(
        kept.iter().map(|artifact| (artifact.name.as_str(), artifact.size)).collect::<Vec<_>>(),
        [("report", 5), ("other", 3)]
    );
    assert_eq!(second.upload("report", "again").await.0, 200, "the earlier one's place is free for it");
    let kept = world.api.store.artifacts(&"r1".into()).await.unwrap();
    assert_eq!(kept.iter().map(|artifact| artifact.attempt).collect::<Vec<_>>(), [1, 2]);
}

#[tokio::test]
async fn a_repository_keeps_no_more_than_its_limit_in_however_many_entries() {
    let world =
        World::new(config::CacheAndArtifactLimits { cache_bytes: 2050, ..config::CacheAndArtifactLimits::default() })
            .await;
    let entry = |id: u64| Cache {
        id,
        repository: "30617:aa:repo".into(),
        scope: "refs/heads/main".into(),
        key: id.to_string(),
        version: "v".into(),
        sha256: format!("{id:064x}").parse().unwrap(),
        size: 1,
        made_at: id,
        used_at: id,
    };
    let many = (1_000_000..1_002_100).map(|id| Change::Cache(CacheChange::Add(entry(id)))).collect();
    world.api.store.commit(many).await.unwrap();
    world.job(identity("r1", "refs/heads/main", true)).await.save("new", "x").await.unwrap();
    assert_eq!(world.api.store.caches_total(Some("30617:aa:repo")).await.unwrap(), 2050);
    let oldest = world.api.store.caches_least_used(Some("30617:aa:repo"), 1).await.unwrap();
    assert_eq!(oldest[0].key, "1000051", "those that were unused longest went");
}

#[tokio::test]
async fn all_repositories_keep_no_more_than_their_limit_and_what_was_unused_longest_goes() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    for key in ["first", "second", "third"] {
        job.save(key, "0123456789").await.unwrap();
    }
    let now = world.api.now();
    world.api.expire(now, 30).await.unwrap();
    assert_eq!(world.api.store.caches_total(None).await.unwrap(), 30, "they have room");
    world.api.expire(now, 25).await.unwrap();
    assert_eq!(world.api.store.caches_total(None).await.unwrap(), 20);
}
