//! Reports of tests: which one a run is compared with, what they take, and with what they go.

use super::*;
use crate::{Artifact, ArtifactChange, FailedSince, ListedTest, TestList, TestOutcome, TestReport};

crate::testing::on_each_engine! {
    a_report_goes_with_its_artifact_and_with_its_run,
    a_run_is_compared_with_the_newest_earlier_one_of_its_workflow_and_branch_that_is_trusted,
}

fn report(artifact: u64, run: &str, trusted: bool) -> TestReport {
    let since = Some(FailedSince { run: run.into(), number: artifact });
    let test = ListedTest {
        suite: "s".into(),
        name: "t".into(),
        outcome: TestOutcome::Failed,
        millis: Some(1),
        message: "m".into(),
        output: "o".into(),
        since,
    };
    TestReport {
        artifact,
        run: run.into(),
        job: "a".into(),
        author: "ann".into(),
        name: "test-results".into(),
        failed: 1,
        skipped: 2,
        passed: 3,
        millis: 4,
        trusted,
        list: TestList { tests: vec![test], omitted: 5, unread: vec!["u".into()] },
    }
}

fn artifact(id: u64, run: &str) -> Artifact {
    Artifact {
        id,
        run: run.into(),
        job: "a".into(),
        attempt: 1,
        name: format!("test-results {id}"),
        sha256: hash(),
        size: 10,
        made_at: id,
        expires_at: 100,
    }
}

async fn a_report_goes_with_its_artifact_and_with_its_run(store: &Store) {
    store.commit(vec![Change::Run(RunChange::whole(run("r", 1)))]).await.unwrap();
    for id in [1, 2] {
        store.commit(vec![ArtifactChange::Add(artifact(id, "r")).into(), report(id, "r", true).into()]).await.unwrap();
    }
    store.commit(vec![report(1, "r", true).into(), report(9, "r", true).into()]).await.unwrap();
    assert_eq!(store.test_reports(&"r".into()).await.unwrap(), [report(1, "r", true), report(2, "r", true)]);
    let (of_run, of_author) = store.test_report_bytes(&"r".into(), "ann").await.unwrap();
    assert!(of_run > 100 && of_run == of_author);
    store.commit(vec![ArtifactChange::Remove { id: 1 }.into()]).await.unwrap();
    assert_eq!(store.test_reports(&"r".into()).await.unwrap(), [report(2, "r", true)]);
    store.remove_run(&"r".into()).await.unwrap();
    assert_eq!(store.test_reports(&"r".into()).await.unwrap(), []);
}

async fn a_run_is_compared_with_the_newest_earlier_one_of_its_workflow_and_branch_that_is_trusted(store: &Store) {
    for (number, (id, workflow)) in
        (1..).zip([("1", "ci.yml"), ("2", "ci.yml"), ("3", "ci.yml"), ("4", "other.yml"), ("5", "ci.yml")])
    {
        let mut state = run(id, number);
        Arc::make_mut(&mut state.request).workflow = workflow.into();
        let trusted = id != "3";
        let kept = ArtifactChange::Add(artifact(number, id));
        let report = report(number, id, trusted);
        store.commit(vec![Change::Run(RunChange::whole(state)), kept.into(), report.into()]).await.unwrap();
    }
    let before = async |id: &str, name: &str| {
        store.test_report_before(&id.into(), name).await.unwrap().map(|report| report.run.to_string())
    };
    assert_eq!(before("5", "test-results").await.as_deref(), Some("2"), "3 is not trusted, 4 of another workflow");
    assert_eq!(before("2", "test-results").await.as_deref(), Some("1"));
    assert_eq!(before("1", "test-results").await, None);
    assert_eq!(before("5", "test-results-of-others").await, None);
}
