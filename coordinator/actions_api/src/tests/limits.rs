//! What one job may send and one repository may keep, in sum.

use domain::run::testing::{TestRun, job};
use domain::run::{FinalizedLog, Repository, RunEnd, RunPhase, RunRequest, RunState, testing::request};
use store::{Cache, CacheChange, Change, RunChange};
use workflow::plan::Conclusion;

use super::*;

fn retention(cache_bytes: u64, artifact_bytes: u64) -> config::Retention {
    config::Retention { cache_bytes, artifact_bytes, ..config::Retention::default() }
}

#[tokio::test]
async fn what_other_attempts_send_does_not_give_a_job_its_quota_back() {
    let limits = config::CacheAndArtifactLimits {
        cache_bytes: 10,
        artifact_bytes: 10,
        ..config::CacheAndArtifactLimits::default()
    };
    let world = World::new(limits).await;
    let held: LeaseCheck = Arc::new(|| true);
    let sends = |identity: &JobIdentity, bytes| world.api.uploads.write(identity, &held, "upload", bytes).is_ok();
    let greedy = identity("greedy", "refs/heads/main", true);
    assert!(sends(&greedy, 20));
    assert!(!sends(&greedy, 1));
    for other in 0..5000 {
        assert!(sends(&identity(&format!("other-{other}"), "refs/heads/main", true), 1));
    }
    assert!(!sends(&greedy, 1));
}

/// Parts of an upload, and the list that names them.
async fn put_blocks(job: &Job<'_>, url: &str, blocks: &[&str], listed: &[&str]) -> u16 {
    for block in blocks {
        assert_eq!(job.put(&format!("{url}&comp=block&blockid={block}"), "0123456789").await, 201);
    }
    let list: String = listed.iter().map(|block| format!("<Latest>{block}</Latest>")).collect();
    job.put(&format!("{url}&comp=blocklist"), format!("<BlockList>{list}</BlockList>")).await
}

#[tokio::test]
async fn attack_45_a_list_of_blocks_names_each_once() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let url = job.upload_url("report").await;
    assert_eq!(put_blocks(&job, &url, &["QQ==", "Qg=="], &["QQ=="; 400]).await, 400);
    assert_eq!(put_blocks(&job, &url, &[], &["QQ==", "Qg=="]).await, 201);
}

#[tokio::test]
async fn attack_45_what_a_job_did_not_finish_is_removed_once_it_is_over() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let holds = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let shared = holds.clone();
    let held = Arc::new(move || shared.load(std::sync::atomic::Ordering::Relaxed));
    let job = world.job_held(identity("r1", "refs/heads/main", true), held).await;
    let (whole, staged) = (job.upload_url("whole").await, job.upload_url("staged").await);
    assert_eq!(job.put(&whole, "0123456789").await, 201);
    assert_eq!(job.put(&format!("{staged}&comp=block&blockid=QQ=="), "0123456789").await, 201);
    assert_eq!(world.files(), 2);
    world.api.remove_unfinished().await.unwrap();
    assert_eq!(world.files(), 2, "its job may finish it");
    holds.store(false, std::sync::atomic::Ordering::Relaxed);
    world.api.remove_unfinished().await.unwrap();
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn attack_45_a_repository_has_a_number_of_caches_however_small_they_are() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let entry = |id: u64| Cache {
        id,
        repository: "30617:aa:repo".into(),
        scope: "refs/heads/main".into(),
        key: id.to_string(),
        version: "v".into(),
        sha256: format!("{id:064x}").parse().unwrap(),
        size: 0,
        made_at: id,
        used_at: id,
    };
    let many = (1_000_000..1_010_100).map(|id| Change::Cache(CacheChange::Add(entry(id)))).collect();
    world.api.store.commit(many).await.unwrap();
    world.job(identity("r1", "refs/heads/main", true)).await.save("new", "x").await.unwrap();
    assert_eq!(world.api.store.caches_number("30617:aa:repo").await.unwrap(), 10_000);
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
    world.api.expire(now, &retention(30, u64::MAX)).await.unwrap();
    assert_eq!(world.api.store.caches_total(None).await.unwrap(), 30, "they have room");
    world.api.expire(now, &retention(25, u64::MAX)).await.unwrap();
    assert_eq!(world.api.store.caches_total(None).await.unwrap(), 20);
}

/// A run of the repository and the author of [`identity`], which goes on.
async fn stored_run(world: &World) {
    world.api.store.commit(vec![Change::Run(RunChange::whole(state_of_run()))]).await.unwrap();
}

fn state_of_run() -> RunState {
    let mut state = TestRun::with(vec![("build", job(&[]))]).state;
    let repository = Repository { address: "30617:aa:repo".into(), ..Repository::default() };
    state.request = Arc::new(RunRequest { repository, ..request() });
    state.version = 0;
    state
}

#[tokio::test]
async fn attack_36_a_repository_and_an_author_keep_no_more_artifacts_than_their_quotas() {
    let quotas = |artifact_bytes_per_repository, artifact_bytes_per_author| config::CacheAndArtifactLimits {
        artifact_bytes_per_repository,
        artifact_bytes_per_author,
        ..config::CacheAndArtifactLimits::default()
    };
    for (limits, named) in
        [(quotas(8, 100), "artifact_bytes_per_repository"), (quotas(100, 8), "artifact_bytes_per_author")]
    {
        let world = World::new(limits).await;
        stored_run(&world).await;
        let job = world.job(identity("run", "refs/heads/main", true)).await;
        assert_eq!(job.upload("first", "12345").await.0, 200);
        let (status, said) = job.upload("second", "6789").await;
        assert_eq!(status, 413, "{said}");
        assert!(said.to_string().contains(named), "{said}");
        assert_eq!(job.upload("third", "678").await.0, 200, "what has room is kept");
        assert_eq!(world.files(), 2, "nothing is left of what was refused");
    }
}

#[tokio::test]
async fn attack_36_artifacts_of_untrusted_runs_take_nothing_of_their_repositorys_room() {
    let limits = config::CacheAndArtifactLimits {
        artifact_bytes_per_repository: 8,
        artifact_bytes_per_author: 100,
        ..config::CacheAndArtifactLimits::default()
    };
    let world = World::new(limits).await;
    stored_run(&world).await;
    let outsider = world.job(identity("run", "refs/heads/main", false)).await;
    assert_eq!(outsider.upload("large", "1234567890").await.0, 200);
    let (status, said) = outsider.upload("more", "1").await;
    assert_eq!(status, 413, "an author's untrusted runs have a tenth of his quota: {said}");
    let maintainer = world.job(JobIdentity { job: "test".into(), ..identity("run", "refs/heads/main", true) }).await;
    assert_eq!(maintainer.upload("report", "12345678").await.0, 200, "the repository has its whole quota");
    assert_eq!(maintainer.upload("one more", "1").await.0, 413);
}

#[tokio::test]
async fn artifacts_of_untrusted_runs_make_room_first() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let end = RunEnd { conclusion: Conclusion::Success, reason: None, exit_code: 0, at: 9 };
    let ended = RunState { phase: RunPhase::Done { end, log: FinalizedLog::default() }, ..state_of_run() };
    world.api.store.commit(vec![Change::Run(RunChange::whole(ended))]).await.unwrap();
    world.job(identity("run", "refs/heads/main", true)).await.upload("trusted", "0123456789").await;
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    let other = JobIdentity { job: "test".into(), ..identity("run", "refs/heads/main", false) };
    world.job(other).await.upload("untrusted", "0123456789").await;
    world.api.expire(world.api.now(), &retention(0, 10)).await.unwrap();
    let kept = world.api.store.artifacts(&"run".into()).await.unwrap();
    assert_eq!(kept.iter().map(|kept| kept.name.as_str()).collect::<Vec<_>>(), ["trusted"]);
}

#[tokio::test]
async fn attack_36_a_disk_that_is_nearly_full_takes_no_upload() {
    let mut world = World::new(config::CacheAndArtifactLimits { min_free: u64::MAX, ..Default::default() }).await;
    world.api.store = world.api.store.with_min_free(world.folder.path(), 1);
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let (_, made) = job
        .ask(ARTIFACT, "CreateArtifact", json!({"workflow_run_backend_id": "r1", "name": "large", "version": 4}))
        .await;
    assert_ne!(job.put(made["signed_upload_url"].as_str().unwrap(), "bytes").await, 201);
    assert_eq!(world.files(), 0);
}

#[tokio::test]
async fn the_oldest_artifacts_of_ended_runs_go_where_all_take_too_much() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    stored_run(&world).await;
    for (run, name) in [("run", "going"), ("ended", "old"), ("ended", "new")] {
        world.job(identity(run, "refs/heads/main", true)).await.upload(name, "0123456789").await;
        tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    }
    world.api.expire(world.api.now(), &retention(0, 20)).await.unwrap();
    let names = async |run: &str| -> Vec<String> {
        let kept = world.api.store.artifacts(&run.into()).await.unwrap();
        kept.into_iter().map(|artifact| artifact.name).collect()
    };
    assert_eq!((names("run").await, names("ended").await), (vec!["going".to_owned()], vec!["new".to_owned()]));
}
