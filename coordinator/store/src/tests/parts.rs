//! Runs in parts: a version writes what it changes, and older forms are read.

use domain::run::{
    JobPhase, RunEvent, RunRules,
    testing::{TestRun, job, planned, report},
};
use serde_json::{Value, json};

use super::*;
use crate::sql::{query, query_scalar};

crate::testing::on_each_engine! {
    a_version_writes_the_rows_of_the_jobs_that_it_changes_alone,
    entries_that_go_and_move_are_read_as_they_were_written,
    a_run_of_form_1_is_read_and_taken_apart_by_its_next_write,
    a_run_that_cannot_be_read_says_why_and_the_others_go_on,
    why_jobs_wait_is_written_for_all_at_once_and_counts_as_a_change,
}

async fn execute(store: &Store, statement: &'static str) {
    let work = store.transaction(&[], move |connection| {
        Box::pin(async move { query(statement).execute(connection).await.map(drop) })
    });
    work.await.unwrap();
}

async fn commit(store: &Store, before: Option<&RunState>, after: &RunState) {
    let change = RunChange { before: before.cloned().map(Arc::new), after: Arc::new(after.clone()) };
    store.commit(vec![Change::Run(change)]).await.unwrap();
}

/// A run with two jobs that a worker may take, stored.
async fn stored(store: &Store) -> TestRun {
    let mut run = TestRun::under(RunRules::default(), false, planned(vec![("a", job(&[])), ("b", job(&[]))]));
    run.state.version = 0;
    commit(store, None, &run.state).await;
    run
}

async fn a_version_writes_the_rows_of_the_jobs_that_it_changes_alone(store: &Store) {
    let mut run = stored(store).await;
    assert_eq!(store.run(&"run".into()).await.unwrap().as_ref(), Some(&run.state));
    execute(store, "UPDATE run_jobs SET state = 'untouched' WHERE job = 'b'").await;
    execute(store, "UPDATE run_parts SET body = 'untouched'").await;
    let before = run.state.clone();
    run.accept("a", "w");
    commit(store, Some(&before), &run.state).await;
    let job = |job: &'static str| query_scalar("SELECT state FROM run_jobs WHERE job = $1").bind(job);
    let (a, b): (String, String) =
        (job("a").fetch_one(&store.readers).await.unwrap(), job("b").fetch_one(&store.readers).await.unwrap());
    assert!(a.contains("running") && b == "untouched", "{a} {b}");
    let parts: Vec<String> = query_scalar("SELECT body FROM run_parts").fetch_all(&store.readers).await.unwrap();
    assert_eq!(parts, ["untouched", "untouched"], "the request and the plan are written once");
}

async fn entries_that_go_and_move_are_read_as_they_were_written(store: &Store) {
    let run = stored(store).await;
    let mut next = run.state.clone();
    next.version += 1;
    let moved = next.jobs.shift_remove("a").unwrap();
    let twin = Arc::new(Job::clone(&moved));
    next.jobs.insert("c".into(), twin);
    commit(store, Some(&run.state), &next).await;
    let read = store.run(&"run".into()).await.unwrap().unwrap();
    assert_eq!(read.jobs.keys().collect::<Vec<_>>(), ["b", "c"]);
    assert_eq!(read, next);
}

/// The document that earlier versions stored.
fn document(run: &TestRun, accepted: &Value) -> String {
    let mut document = serde_json::to_value(&run.state).unwrap();
    let mut jobs: Value = json!({});
    for (key, job) in &run.state.jobs {
        jobs[key.as_str()] = serde_json::to_value(&**job).unwrap();
        if jobs[key.as_str()]["phase"].as_object_mut().unwrap().remove("outcome").is_some() {
            jobs[key.as_str()]["phase"]["report"] = accepted.clone();
        }
    }
    document["jobs"] = jobs;
    document["request"] = serde_json::to_value(&*run.state.request).unwrap();
    document["planned"] = serde_json::to_value(run.state.planned.as_deref()).unwrap();
    document.to_string()
}

async fn a_run_of_form_1_is_read_and_taken_apart_by_its_next_write(store: &Store) {
    let mut run = stored(store).await;
    let accepted = report(Conclusion::Success, None);
    run.run("a", Conclusion::Success);
    run.state.version = 0;
    let text = document(&run, &serde_json::to_value(&accepted).unwrap());
    let work = store.transaction(&[], move |connection| {
        Box::pin(async move {
            for table in ["run_parts", "run_jobs", "run_calls"] {
                query(format!("DELETE FROM {table}")).execute(&mut *connection).await?;
            }
            query("UPDATE runs SET state = $1, state_version = 1, version = 0").bind(text).execute(connection).await
        })
    });
    work.await.unwrap();
    let read = store.run(&"run".into()).await.unwrap().unwrap();
    assert_eq!(read, run.state);
    let reports = store.reports_of(&read, u64::MAX).await.unwrap().found;
    assert_eq!(reports.get("a"), Some(&*accepted));

    let (next, _) = domain::run::advance(&read, RunEvent::Accepted { job: "b".into(), worker: "w".into() }, 9).unwrap();
    commit(store, Some(&read), &next).await;
    let forms: Vec<i64> = query_scalar("SELECT state_version FROM runs").fetch_all(&store.readers).await.unwrap();
    assert_eq!(forms, [2]);
    let read = store.run(&"run".into()).await.unwrap().unwrap();
    assert_eq!(read, next);
    assert!(matches!(read.jobs["b"].phase, JobPhase::Running { .. }));
    assert_eq!(store.reports_of(&read, u64::MAX).await.unwrap().found.get("a"), Some(&*accepted), "reports move along");
    let few = store.reports_of(&read, 10).await.unwrap();
    assert!(few.found.is_empty() && few.left_out.contains("a"), "as many as are not too much together");
}

async fn a_run_that_cannot_be_read_says_why_and_the_others_go_on(store: &Store) {
    for (id, serial) in [("sound", 1), ("broken", 2), ("newer", 3)] {
        commit(store, None, &run(id, serial)).await;
    }
    execute(store, "UPDATE runs SET state = '{' WHERE id = 'broken'").await;
    execute(store, "UPDATE runs SET state_version = 99 WHERE id = 'newer'").await;
    assert_eq!(store.unfinished().await.unwrap().len(), 3, "heads alone are read");
    assert!(store.run(&"sound".into()).await.unwrap().is_some());
    for (id, why) in [("broken", "run broken can't be read"), ("newer", "it has form 99, this version reads 2")] {
        let error = store.run(&id.into()).await.unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

async fn why_jobs_wait_is_written_for_all_at_once_and_counts_as_a_change(store: &Store) {
    commit(store, None, &run("r", 1)).await;
    store.commit(vec![Change::Queue(queued("a", 1)), Change::Queue(queued("b", 2))]).await.unwrap();
    let before = store.run_change(&"r".into()).await.unwrap();
    let update = |job: &str| WaitUpdate { run: "r".into(), job: job.into(), reason: format!("{job} waits") };
    store.commit(vec![Change::WaitReasons(vec![update("a"), update("b"), update("gone")])]).await.unwrap();
    let reasons = store.wait_reasons(&"r".into()).await.unwrap();
    assert_eq!((reasons.len(), reasons["a"].as_str(), reasons["b"].as_str()), (2, "a waits", "b waits"));
    assert!(store.run_change(&"r".into()).await.unwrap() > before);
    assert_eq!(store.run_version(&"r".into()).await.unwrap(), Some(0), "no version of the run is new");
}
