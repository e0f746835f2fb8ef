//! What a transition costs and keeps: parts that do not change are shared, reports stand beside the run.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::json;
use workflow::plan::{self, Conclusion, Reason};

use crate::run::{
    testing::{TestRun, cells, job, planned, report},
    *,
};

fn outputs(size: usize) -> IndexMap<String, String> {
    IndexMap::from([("v".to_owned(), "x".repeat(size))])
}

/// A worker runs the job and reports outputs of this size.
fn finish_with(run: &mut TestRun, key: &str, size: usize) {
    let attempt = run.accept(key, "w");
    let mut done = report(Conclusion::Success, None);
    (done.outputs, done.summary) = (outputs(size), "# long".into());
    run.finish(key, attempt, done);
}

#[test]
fn an_event_of_one_job_copies_that_job_alone() {
    let mut run = TestRun::with(vec![("m", cells(&[], json!({"n": (0..250).collect::<Vec<_>>()})))]);
    let before = run.state.clone();
    run.accept("m/7", "w");
    let changed = |key: &&JobKey| !Arc::ptr_eq(&before.jobs[*key], &run.state.jobs[*key]);
    assert_eq!(run.state.jobs.keys().filter(changed).collect::<Vec<_>>(), ["m/7"]);
    assert!(Arc::ptr_eq(before.planned.as_ref().unwrap(), run.state.planned.as_ref().unwrap()));
    assert!(Arc::ptr_eq(&before.request, &run.state.request));
    assert!(matches!(before.jobs["m/7"].phase, JobPhase::Queued { .. }), "the version before stays as it was");
}

#[test]
fn a_cancel_copies_no_job_that_has_ended() {
    let mut run = TestRun::with(vec![("a", job(&[])), ("b", job(&[]))]);
    run.run("a", Conclusion::Success);
    let before = run.state.clone();
    run.apply(RunEvent::Cancel { by: "somebody".into() }).unwrap();
    assert!(Arc::ptr_eq(&before.jobs["a"], &run.state.jobs["a"]));
}

#[test]
fn a_report_is_stored_beside_the_run_once_and_outputs_stay_where_a_job_reads_them() {
    let mut run = TestRun::with(vec![("read", job(&[])), ("unread", job(&["read"]))]);
    finish_with(&mut run, "read", 3);
    finish_with(&mut run, "unread", 3);
    let kept = |key: &str| run.state.jobs[key].outcome().unwrap().outputs.clone();
    assert_eq!((kept("read"), kept("unread")), (outputs(3), IndexMap::new()));
    let stored = |effect: &RunEffect| match effect {
        RunEffect::StoreReport { job, attempt, report } => Some((job.clone(), *attempt, report.summary.clone())),
        _ => None,
    };
    let stored: Vec<_> = run.effects.iter().filter_map(stored).collect();
    assert_eq!(stored, [("read".into(), 1, "# long".to_owned()), ("unread".into(), 1, "# long".to_owned())]);
    let head = serde_json::to_string(&run.state).unwrap();
    assert!(!head.contains("unread") && head.len() < 1500, "the head holds no jobs: {head}");
}

#[test]
fn attack_07_the_reports_of_a_run_are_bounded_together_and_what_is_left_out_is_said() {
    let mut run = TestRun::with(vec![("m", cells(&[], json!({"x": (0..20).collect::<Vec<_>>()})))]);
    let mut stored = Vec::new();
    for number in 0..20 {
        let key = format!("m/{number}");
        let attempt = run.accept(&key, "w");
        let mut done = report(Conclusion::Success, None);
        (done.summary, done.outputs) = ("\u{1}".repeat(700_000), outputs(3));
        run.finish(&key, attempt, done);
        stored.extend(run.effects.drain(..).filter_map(|effect| match effect {
            RunEffect::StoreReport { report, .. } => Some(report),
            _ => None,
        }));
    }
    let sizes: Vec<usize> = stored.iter().map(|report| serde_json::to_string(report).unwrap().len()).collect();
    assert_eq!(sizes.len(), 20);
    assert!(sizes.iter().sum::<usize>() < 65 << 20, "{sizes:?}");
    let last = stored.last().unwrap();
    assert_eq!((last.summary.as_str(), &last.outputs), ("", &outputs(3)), "what is small stays");
    let said = &last.annotations.last().unwrap().message;
    assert!(said.contains("64 MiB") && said.contains("the summary of this one"), "{said}");
    assert!(run.ended().starts_with("success"), "{}", run.ended());
}

#[test]
fn outputs_that_are_too_large_together_fail_the_job_that_exceeds_and_say_what_to_do() {
    let tolerated = plan::Job { continue_on_error: Some(json!(true)), ..job(&[]) };
    let mut jobs = vec![("b", tolerated), ("c", job(&["b"]))];
    // Each reads as much as it may.
    let groups = ["m0", "m1", "m2", "m3", "m4", "m5", "m6"];
    for group in groups {
        let count = if group == "m6" { 2 } else { 8 };
        jobs.push((group, cells(&[], json!({"x": (0..count).collect::<Vec<_>>()}))));
    }
    let readers = ["n0", "n1", "n2", "n3", "n4", "n5", "n6"];
    jobs.extend(readers.into_iter().zip(groups).map(|(reader, group)| (reader, job(&[group]))));
    let mut run = TestRun::with(jobs);
    for group in groups {
        for number in 0..if group == "m6" { 2 } else { 8 } {
            let last = group == "m6" && number == 1;
            finish_with(&mut run, &format!("{group}/{number}"), MAX_JOB_OUTPUTS - "v".len() - usize::from(last));
        }
    }
    for reader in readers {
        run.run(reader, Conclusion::Success);
    }
    finish_with(&mut run, "b", 1);
    assert!(run.jobs().starts_with("b=failure c=skipped"), "{}", run.jobs());
    assert!(run.ended().starts_with("failure"), "it is the run that has too much: {}", run.ended());
    let JobPhase::Done { reason: Some(Reason::Invalid(why)), outcome: Some(outcome), .. } = &run.state.jobs["b"].phase
    else {
        panic!("{:?}", run.state.jobs["b"]);
    };
    assert!(why.contains("50 MiB") && why.contains("artifacts"), "{why}");
    assert!(outcome.outputs.is_empty());
}

#[test]
fn a_job_that_would_read_more_than_an_order_holds_fails_and_says_so() {
    let mut run = TestRun::with(vec![("m", cells(&[], json!({"x": (0..9).collect::<Vec<_>>()}))), ("n", job(&["m"]))]);
    for number in 0..9 {
        finish_with(&mut run, &format!("m/{number}"), MAX_JOB_OUTPUTS - 1);
    }
    let JobPhase::Done { reason: Some(Reason::Invalid(why)), .. } = &run.state.jobs["n"].phase else {
        panic!("{:?}", run.state.jobs["n"]);
    };
    assert!(why.contains("8 MiB") && why.contains("artifacts"), "{why}");
}

#[test]
fn outputs_of_a_job_that_a_worker_did_not_bound_are_not_kept() {
    let mut run = TestRun::with(vec![("a", job(&[])), ("b", job(&["a"]))]);
    finish_with(&mut run, "a", MAX_JOB_OUTPUTS);
    assert_eq!(run.jobs(), "a=failure b=skipped");
    assert!(run.state.jobs["a"].outcome().unwrap().outputs.is_empty());
}

#[test]
fn a_run_of_form_1_is_read_with_its_reports_and_jobs() {
    let mut run = TestRun::under(RunRules::default(), false, planned(vec![("a", job(&[])), ("b", job(&["a"]))]));
    finish_with(&mut run, "a", 3);
    let state = &run.state;
    let mut document = serde_json::to_value(state).unwrap();
    let mut jobs = serde_json::Map::new();
    for (key, job) in &state.jobs {
        let mut job = serde_json::to_value(&**job).unwrap();
        if job["phase"].as_object_mut().unwrap().remove("outcome").is_some() {
            let mut accepted = report(Conclusion::Success, None);
            accepted.outputs = outputs(3);
            job["phase"]["report"] = serde_json::to_value(accepted).unwrap();
        }
        jobs.insert(key.to_string(), job);
    }
    jobs["b"]["phase"]["reason"] = json!("no worker is connected");
    document["jobs"] = jobs.into();
    document["calls"] = json!({});
    document["rerun"] = json!(null);
    document["request"] = serde_json::to_value(&*state.request).unwrap();
    document["planned"] = serde_json::to_value(state.planned.as_deref()).unwrap();
    let read = RunDocument::read(document).unwrap();
    assert_eq!(&read.state, state);
    let [(key, attempt, report)] = &read.reports[..] else { panic!("{:?}", read.reports) };
    assert_eq!((key.as_str(), *attempt, &report.outputs), ("a", 1, &outputs(3)));
}
