//! What a run does, case by case.
#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;
use workflow::plan::{Conclusion::*, Job, Reason, Strategy};

use crate::run::{testing::*, *};

#[test]
fn a_job_starts_when_its_own_needs_are_done() {
    let mut run = TestRun::with(vec![("a", job(&[])), ("b", job(&[])), ("c", job(&["a"])), ("d", job(&["b", "c"]))]);
    assert_eq!(run.jobs(), "a=queued b=queued c=blocked d=blocked");
    run.run("a", Success);
    assert_eq!(run.jobs(), "a=success b=queued c=queued d=blocked");
    run.run("b", Success);
    run.run("c", Success);
    assert_eq!(run.jobs(), "a=success b=success c=success d=queued");
    run.run("d", Success);
    assert_eq!(run.ended(), "success 0");
}

#[test]
fn conditions_see_every_ancestor() {
    // (how `a` ends, condition of `c`, what becomes of `c`); `b` needs `a` and has no condition, `c` needs `b`
    let cases = [
        (Failure, None, "skipped"),
        (Failure, Some("failure()"), "queued"),
        (Failure, Some("always()"), "queued"),
        (Failure, Some("success()"), "skipped"),
        (Failure, Some("!cancelled()"), "queued"),
        (Skipped, Some("failure()"), "skipped"),
        (Skipped, None, "skipped"),
    ];
    for (a, condition, expected) in cases {
        let first = if a == Skipped { job_if(&[], "failure()") } else { job(&[]) };
        let last = Job { condition: condition.map(Into::into), ..job(&["b"]) };
        let mut run = TestRun::with(vec![("a", first), ("b", job(&["a"])), ("c", last)]);
        if a == Failure {
            run.run("a", Failure);
        }
        assert_eq!(run.jobs(), format!("a={} b=skipped c={expected}", a.as_str()), "{a:?} {condition:?}");
    }
}

#[test]
fn a_skipped_need_skips_even_behind_a_job_that_ran_anyway() {
    let mut run = TestRun::with(vec![
        ("off", job_if(&[], "failure()")),
        ("on", job_if(&["off"], "always()")),
        ("after", job(&["on"])),
    ]);
    run.run("on", Success);
    assert_eq!(run.jobs(), "off=skipped on=success after=skipped");
    assert_eq!(run.ended(), "success 0");
}

#[test]
fn a_run_whose_jobs_are_all_skipped_is_skipped() {
    assert_eq!(TestRun::with(vec![("a", job_if(&[], "failure()"))]).ended(), "skipped 0");
}

#[test]
fn a_matrix_becomes_cells_in_its_own_place() {
    let run = TestRun::with(vec![("a", job(&[])), ("m", cells(&[], json!({"x": [1, 2]}))), ("z", job(&["m"]))]);
    assert_eq!(run.jobs(), "a=queued m/0=queued m/1=queued z=blocked");
    assert_eq!(run.state.jobs["m/1"].cell.matrix["x"], json!(2));
}

#[test]
fn no_more_cells_run_than_max_parallel() {
    let mut matrix = cells(&[], json!({"x": [1, 2, 3]}));
    matrix.strategy.max_parallel = Some(json!(1));
    let mut run = TestRun::with(vec![("m", matrix)]);
    assert_eq!(run.jobs(), "m/0=queued m/1=held m/2=held");
    run.run("m/0", Success);
    assert_eq!(run.jobs(), "m/0=success m/1=queued m/2=held");
}

#[test]
fn one_failed_cell_ends_the_others_unless_told_not_to() {
    for (fail_fast, others, stops) in [
        (None, "m/0=failure m/1=cancelling m/2=cancelled", vec!["m/1/1@w2"]),
        (Some(false), "m/0=failure m/1=running m/2=queued", vec![]),
    ] {
        let mut matrix = cells(&[], json!({"x": [1, 2, 3]}));
        matrix.strategy.fail_fast = fail_fast.map(|flag| json!(flag));
        let mut run = TestRun::with(vec![("m", matrix)]);
        run.accept("m/1", "w2");
        run.run("m/0", Failure);
        assert_eq!(run.jobs(), others);
        assert_eq!(run.stops(), stops);
    }
}

#[test]
fn a_run_with_a_failed_and_a_stopped_cell_has_failed() {
    let mut run = TestRun::with(vec![("m", cells(&[], json!({"x": [1, 2]})))]);
    let attempt = run.accept("m/1", "w2");
    run.run("m/0", Failure);
    run.finish("m/1", attempt, report(Cancelled, Some(Reason::Cancelled("stopped".into()))));
    assert_eq!(run.jobs(), "m/0=failure m/1=cancelled");
    assert_eq!(run.ended(), "failure 3");
}

#[test]
fn a_tolerated_failure_fails_nothing_else() {
    let tolerated = Job { continue_on_error: Some(json!(true)), ..cells(&[], json!({"x": [1, 2]})) };
    let mut run = TestRun::with(vec![("m", tolerated), ("after", job(&["m"]))]);
    run.run("m/0", Failure);
    assert_eq!(run.jobs(), "m/0=failure m/1=queued after=blocked");
    run.run("m/1", Success);
    let order = order(&run.state, &"after".into()).unwrap();
    assert_eq!(order.contexts["needs"]["m"]["result"], json!("success"));
    run.run("after", Success);
    assert_eq!(run.ended(), "success 0");
}

#[test]
fn outputs_of_cells_merge_and_the_last_one_set_wins() {
    let mut run = TestRun::with(vec![("m", cells(&[], json!({"x": [1, 2, 3]}))), ("after", job(&["m"]))]);
    for (key, finished, value) in [("m/2", 1, "first"), ("m/0", 2, "second"), ("m/1", 3, "")] {
        let attempt = run.accept(key, "w1");
        let mut done = report(Success, None);
        done.finished_at_ms = finished;
        done.outputs.insert("v".into(), value.into());
        run.finish(key, attempt, done);
    }
    assert_eq!(order(&run.state, &"after".into()).unwrap().contexts["needs"]["m"]["outputs"], json!({"v": "second"}));
}

#[test]
fn what_is_tried_again_and_what_is_not() {
    let lost = || Reason::WorkerLost(String::new());
    // (reason, whether a step had begun, whether the job had secrets, rule, attempts in all)
    let cases = [
        (Reason::StartFailed("no".into()), false, true, RetryStarted::Harmless, 3),
        (Reason::PullFailed("no".into()), false, false, RetryStarted::Harmless, 3),
        (Reason::Invalid("its registry does not give it".into()), false, false, RetryStarted::Always, 1),
        (lost(), false, true, RetryStarted::Never, 2),
        (lost(), true, false, RetryStarted::Harmless, 2),
        (Reason::SandboxLost("gone".into()), true, false, RetryStarted::Harmless, 3),
        (lost(), true, true, RetryStarted::Harmless, 1),
        (lost(), true, true, RetryStarted::Always, 2),
        (lost(), true, false, RetryStarted::Never, 1),
        (Reason::Step, true, false, RetryStarted::Always, 1),
        (Reason::Timeout, true, false, RetryStarted::Always, 1),
        (Reason::OutOfMemory, true, false, RetryStarted::Always, 1),
    ];
    for (reason, begun, secrets, retry_started, attempts) in cases {
        let rules = RunRules { retry_started, ..RunRules::default() };
        let mut run = TestRun::under(rules, secrets, planned(vec![("a", job(&[]))]));
        let mut worker = 0;
        while matches!(run.state.phase, RunPhase::Active) {
            worker += 1;
            let attempt = run.accept("a", &format!("w{worker}"));
            if begun {
                run.apply(RunEvent::Begun { job: "a".into(), attempt }).unwrap();
            }
            match &reason {
                Reason::WorkerLost(_) => run.lose("a", attempt),
                reason => run.finish("a", attempt, report(Failure, Some(reason.clone()))),
            }
        }
        assert_eq!(worker, attempts, "{reason:?} begun={begun} secrets={secrets} {retry_started:?}");
        assert_eq!(run.end().conclusion, Failure);
    }
}

#[test]
fn an_image_is_not_asked_for_again_where_there_is_one_worker_only() {
    let rules = RunRules { one_worker: true, ..RunRules::default() };
    let mut run = TestRun::under(rules, false, planned(vec![("a", job(&[]))]));
    let attempt = run.accept("a", "w1");
    run.finish("a", attempt, report(Failure, Some(Reason::PullFailed("no".into()))));
    assert_eq!(run.jobs(), "a=failure");
}

#[test]
fn another_attempt_avoids_the_workers_that_lost_it() {
    let mut run = TestRun::with(vec![("a", job(&[]))]);
    let attempt = run.accept("a", "w7");
    run.lose("a", attempt);
    let avoid = run.effects.iter().rev().find_map(|effect| match effect {
        RunEffect::Queue { attempt: 2, avoid, .. } => Some(avoid.clone()),
        _ => None,
    });
    assert_eq!(avoid.unwrap(), ["w7"]);
}

#[test]
fn an_old_attempt_changes_nothing() {
    let mut run = TestRun::with(vec![("a", job(&[]))]);
    let old = run.accept("a", "w1");
    run.lose("a", old);
    let late = RunEvent::Finished { job: "a".into(), attempt: old, report: report(Success, None) };
    assert_eq!(run.apply(late.clone()), Err(RunRefusal::Stale));
    run.accept("a", "w2");
    assert_eq!(run.apply(late), Err(RunRefusal::Stale));
    assert_eq!(run.jobs(), "a=running");
}

#[test]
fn a_result_told_twice_counts_once() {
    let mut run = TestRun::with(vec![("a", job(&[])), ("b", job(&[]))]);
    let attempt = run.accept("a", "w1");
    let result = RunEvent::Finished { job: "a".into(), attempt, report: report(Success, None) };
    run.apply(result.clone()).unwrap();
    assert_eq!(run.apply(result), Err(RunRefusal::Repeated));
}

#[test]
fn cancel_ends_what_waits_at_once_and_tells_what_runs() {
    let mut run = TestRun::with(vec![
        ("running", job(&[])),
        ("queued", job(&[])),
        ("stays", job_if(&[], "always()")),
        ("later", job(&["running"])),
        ("clean-up", job_if(&["running"], "cancelled()")),
    ]);
    let attempt = run.accept("running", "w1");
    run.apply(RunEvent::Cancel { by: "the author".into() }).unwrap();
    assert_eq!(run.jobs(), "running=cancelling queued=cancelled stays=queued later=blocked clean-up=blocked");
    assert_eq!(run.stops(), ["running/1@w1"]);
    run.finish("running", attempt, report(Cancelled, Some(Reason::Cancelled("stopped".into()))));
    assert_eq!(run.jobs(), "running=cancelled queued=cancelled stays=queued later=skipped clean-up=queued");
    run.run("stays", Success);
    run.run("clean-up", Success);
    assert_eq!(run.ended(), "cancelled 130");
    assert_eq!(run.apply(RunEvent::Cancel { by: "again".into() }), Err(RunRefusal::Terminal));
}

#[test]
fn a_run_can_be_cancelled_before_it_is_planned() {
    let (state, _) = create(new_run(RunRules::default(), false), START);
    let (state, effects) = advance(&state, RunEvent::Cancel { by: "the author".into() }, START + 1).unwrap();
    assert_eq!(effects, [RunEffect::FinalizeLog]);
    assert!(
        matches!(&state.phase, RunPhase::Finalizing { end } if end.exit_code == 130 && end.conclusion == Cancelled)
    );
    let planned = RunEvent::Planned(Box::new(planned(vec![("a", job(&[]))])));
    assert_eq!(advance(&state, planned, START + 2).unwrap_err(), RunRefusal::Terminal);
}

#[test]
fn what_cannot_be_planned_is_told_to_its_author() {
    let (state, _) = create(new_run(RunRules::default(), false), START);
    let message = "ci.yml:3:1: unknown key \"job\"\nDid you mean \"jobs\"?".to_owned();
    let (state, effects) = advance(&state, RunEvent::Unplannable { message: message.clone() }, START).unwrap();
    assert_eq!(effects, [RunEffect::FinalizeLog]);
    assert_eq!(state.message, Some(message));
    let RunPhase::Finalizing { end } = &state.phase else { panic!("{:?}", state.phase) };
    assert_eq!((end.conclusion, end.exit_code), (Failure, 125));
    assert_eq!(end.reason, Some(Reason::Invalid("ci.yml:3:1: unknown key \"job\"".into())));
}

#[test]
fn why_files_cannot_be_had_yet_is_kept_and_told_to_no_relay() {
    let (state, _) = create(new_run(RunRules::default(), false), START);
    let delayed = |why: &str| RunEvent::Delayed { reason: why.to_owned() };
    let (state, effects) = advance(&state, delayed("no relay has it"), START).unwrap();
    assert_eq!(state.delayed.as_deref(), Some("no relay has it"));
    assert!(effects.is_empty(), "{effects:?}");
    assert_eq!(advance(&state, delayed("no relay has it"), START), Err(RunRefusal::Repeated));
    let (state, _) = advance(&state, delayed("no server answers"), START).unwrap();
    assert_eq!(state.delayed.as_deref(), Some("no server answers"));
    let (state, _) = advance(&state, RunEvent::Unplannable { message: "no".into() }, START).unwrap();
    assert_eq!(advance(&state, delayed("late"), START), Err(RunRefusal::Terminal));
}

#[test]
fn a_run_past_its_time_is_stopped_and_starts_nothing_more() {
    let rules = RunRules { max_duration_ms: 60_000, ..RunRules::default() };
    let plan = planned(vec![("a", job(&[])), ("b", job_if(&["a"], "always()"))]);
    let mut run = TestRun::under(rules, false, plan);
    let attempt = run.accept("a", "w1");
    run.apply(RunEvent::Begun { job: "a".into(), attempt }).unwrap();
    assert!(run.effects.contains(&RunEffect::Timer { at: run.now + 60_000 }));
    assert_eq!(run.apply(RunEvent::Expired), Err(RunRefusal::Stale), "too early");
    run.now += 60_000;
    run.apply(RunEvent::Expired).unwrap();
    assert_eq!(run.stops(), ["a/1@w1"]);
    run.finish("a", attempt, report(Cancelled, Some(Reason::Cancelled("stopped".into()))));
    assert_eq!(run.jobs(), "a=failure b=skipped");
    assert_eq!(run.ended(), "failure 124");
    assert_eq!(run.end().reason, Some(Reason::Timeout));
}

#[test]
fn no_worker_with_the_labels_ends_the_job() {
    let mut run = TestRun::with(vec![("a", Job { runs_on: json!(["self-hosted", "gpu"]), ..job(&[]) })]);
    run.apply(RunEvent::Unmatched { job: "a".into() }).unwrap();
    assert_eq!(run.ended(), "failure 125");
    let text = "no worker of this pool has the labels self-hosted, gpu";
    assert_eq!(run.end().reason, Some(Reason::NoWorker(text.into())));
}

#[test]
fn updates_come_once_each_with_growing_stamps() {
    let mut run = TestRun::with(vec![("a", job(&[])), ("b", job(&[]))]);
    run.now = START; // a clock that stands still, as far as whole seconds go
    let (a, b) = (run.accept("a", "w1"), run.accept("b", "w1"));
    run.now = START;
    run.apply(RunEvent::Begun { job: "a".into(), attempt: a }).unwrap();
    run.apply(RunEvent::Begun { job: "b".into(), attempt: b }).unwrap();
    run.finish("a", a, report(Success, None));
    run.finish("b", b, report(Success, None));
    run.now = START;
    let log = FinalizedLog { sha256: "f".repeat(64).parse().ok(), ..FinalizedLog::default() };
    run.apply(RunEvent::LogFinalized { log }).unwrap();
    let stamps: Vec<(&str, u64)> = run
        .effects
        .iter()
        .filter_map(|effect| match effect {
            RunEffect::Publish(RunUpdate::Queued { stamp }) => Some(("queued", *stamp)),
            RunEffect::Publish(RunUpdate::Running { stamp }) => Some(("running", *stamp)),
            RunEffect::Publish(RunUpdate::Finished { stamp, .. }) => Some(("finished", *stamp)),
            _ => None,
        })
        .collect();
    let start = START / 1000;
    assert_eq!(stamps, [("queued", start), ("running", start + 1), ("finished", start + 2)]);
}

#[test]
fn exit_codes_say_how_a_job_failed() {
    let cases = [
        (Reason::Step, "failure 3"),
        (Reason::Timeout, "failure 124"),
        (Reason::Invalid("bad".into()), "failure 125"),
        (Reason::OutOfMemory, "failure 3"),
    ];
    for (reason, expected) in cases {
        let mut run = TestRun::with(vec![("a", job(&[]))]);
        let attempt = run.accept("a", "w1");
        run.finish("a", attempt, report(Failure, Some(reason)));
        assert_eq!(run.ended(), expected);
    }
}

#[test]
fn secrets_are_for_proven_commits_only() {
    for (proven, notices) in [(true, 0), (false, 1)] {
        let run = TestRun::under(RunRules::default(), true, Planned { proven, ..planned(vec![("a", job(&[]))]) });
        assert_eq!(run.state.gives_secrets(), proven);
        assert_eq!(order(&run.state, &"a".into()).unwrap().notices.len(), notices);
    }
}

#[test]
fn a_strategy_reads_like_github_in_the_order() {
    let matrix = cells(&[], json!({"x": [1, 2]}));
    let plain = Strategy { max_parallel: Some(json!(1)), fail_fast: Some(json!(false)), ..matrix.strategy.clone() };
    let run = TestRun::with(vec![("m", Job { strategy: plain, ..matrix })]);
    assert_eq!(
        order(&run.state, &"m/1".into()).unwrap().contexts["strategy"],
        json!({"fail-fast": false, "job-index": 1, "job-total": 2, "max-parallel": 1})
    );
}
