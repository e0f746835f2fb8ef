//! Artifacts of jobs that a rerun carries over, and what their tests said: rows of the new run about the same bytes.

use domain::id::RunId;
use domain::run::{Millis, Rerun};
use store::{Artifact, ArtifactChange, Batch, Blob, Change, Store, TestReport};

/// What gives the run `run`, which `author` asks for, the artifacts of the jobs that it carries over, until it expires
/// itself. The run's row has to come before.
///
/// # Errors
/// The store can't be read.
pub(super) async fn artifacts(
    store: &Store,
    rerun: &Rerun,
    (run, author): (&RunId, &str),
    expires_at: Millis,
) -> anyhow::Result<Batch> {
    let mut batch = Batch::new();
    let reports = store.test_reports(&rerun.previous).await?;
    for earlier in store.artifacts(&rerun.previous).await? {
        if !rerun.reused.contains_key(&earlier.job) {
            continue;
        }
        // Without its bytes it has expired.
        let Some(blob) = store.blob(&earlier.sha256).await?.into_iter().next() else { continue };
        let id = store.next("artifacts").await?;
        batch.push(Change::Blob(Blob {
            owner: actions_api::artifact_owner(id),
            expires_at: i64::MAX.unsigned_abs(),
            ..blob
        }));
        // The repository has these bytes already, and whoever reruns may be an outsider.
        let report = reports.iter().find(|report| report.artifact == earlier.id).cloned();
        let carried = Artifact { id, run: run.clone(), expires_at, ..earlier };
        batch.push(Change::Artifact(ArtifactChange::AddForAuthor(carried)));
        let same = |report| TestReport { artifact: id, run: run.clone(), author: author.to_owned(), ..report };
        batch.extend(report.map(same).map(Change::TestReport));
    }
    Ok(batch)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use indexmap::IndexMap;

    use super::*;
    use domain::id::{BlobHash, JobKey};
    use domain::run::Job;
    use store::TestList;

    #[tokio::test]
    async fn a_rerun_has_the_artifacts_of_the_jobs_it_carries_over_and_no_others() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.db")).await.unwrap();
        for (id, job) in [(1, "build"), (2, "test")] {
            let sha256 = BlobHash::of(job.as_bytes());
            let owner = actions_api::artifact_owner(id);
            let blob = Blob {
                sha256: sha256.clone(),
                size: 3,
                kind: "zip".into(),
                owner,
                public: false,
                stored_at: 1,
                expires_at: 9,
            };
            let artifact = Artifact {
                id,
                run: "first".into(),
                job: job.into(),
                attempt: 1,
                name: format!("of-{job}"),
                sha256,
                size: 3,
                made_at: 1,
                expires_at: 9,
            };
            store.next("artifacts").await.unwrap();
            let report = TestReport {
                artifact: id,
                run: "first".into(),
                job: job.into(),
                author: "ann".into(),
                name: artifact.name.clone(),
                failed: 0,
                skipped: 0,
                passed: 1,
                millis: 1,
                trusted: true,
                list: TestList::default(),
            };
            let artifact = Change::Artifact(ArtifactChange::Add(artifact));
            store.commit(vec![Change::Blob(blob), artifact, report.into()]).await.unwrap();
        }
        let rerun = Rerun {
            previous: "first".into(),
            number: 1,
            serial: 1,
            attempt: 2,
            jobs: vec!["test".into()],
            reused: IndexMap::from([(
                "build".into(),
                Job::blocked("build".into(), &JobKey::default(), "build".into()),
            )]),
            calls: IndexMap::new(),
            missing: Vec::new(),
            takes_over: false,
        };
        store.commit(artifacts(&store, &rerun, (&"second".into(), "bob"), 50).await.unwrap()).await.unwrap();
        let reports = store.test_reports(&"second".into()).await.unwrap();
        let of = |report: &TestReport| (report.name.clone(), report.author.clone());
        assert_eq!(reports.iter().map(of).collect::<Vec<_>>(), [("of-build".to_owned(), "bob".to_owned())]);
        let kept = store.artifacts(&"second".into()).await.unwrap();
        assert_eq!(
            kept.iter().map(|kept| (kept.name.as_str(), kept.expires_at)).collect::<Vec<_>>(),
            [("of-build", 50)]
        );
        assert!(
            store
                .blob(&kept[0].sha256)
                .await
                .unwrap()
                .iter()
                .any(|blob| blob.owner == actions_api::artifact_owner(kept[0].id))
        );
        assert_eq!(store.artifacts(&"first".into()).await.unwrap().len(), 2);
    }
}
