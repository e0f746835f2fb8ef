#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;
use workflow::plan::{
    self,
    Conclusion::{Failure, Success},
    Env, EnvSource,
};

use super::super::{testing::*, *};

/// Who asks for the tests' runs.
const ME: &str = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

type Jobs = Vec<(&'static str, plan::Job)>;

/// `build` → `test` (two cells) → `deploy`, and `lint` beside them.
fn pipeline() -> Jobs {
    let mut test = cells(&["build"], json!({"x": [1, 2]}));
    test.strategy.fail_fast = Some(json!(false));
    vec![("build", job(&[])), ("test", test), ("deploy", job(&["test"])), ("lint", job(&[]))]
}

/// The pipeline's first run: cell 1 of `test` failed, so `deploy` was skipped.
fn earlier() -> RunState {
    let mut run = TestRun::with(pipeline());
    let attempt = run.accept("build", "w1");
    let mut built = report(Success, None);
    built.outputs.insert("tag".into(), "v1".into());
    run.finish("build", attempt, built);
    run.run("lint", Success);
    run.run("test/0", Success);
    run.run("test/1", Failure);
    assert_eq!(run.jobs(), "build=success test/0=success test/1=failure deploy=skipped lint=success");
    run.apply(RunEvent::LogFinalized { log: FinalizedLog::default() }).unwrap();
    run.state
}

fn again(earlier: &RunState, jobs: Jobs, set: &RerunScope) -> TestRun {
    let rerun = earlier.rerun(set, ME, &[], false).unwrap();
    let new = NewRun { id: "again".into(), serial: 2, rerun: Some(rerun), ..new_run(RunRules::default(), false) };
    let (state, effects) = create(new, START);
    let mut tested = TestRun { state, now: START, effects };
    tested.apply(RunEvent::Planned(Box::new(planned(jobs)))).unwrap();
    tested
}

#[test]
fn all_runs_everything_and_counts_attempts() {
    let run = again(&earlier(), pipeline(), &RerunScope::All);
    assert_eq!(run.jobs(), "build=queued test=blocked deploy=blocked lint=queued");
    assert_eq!((run.state.number, run.state.attempt), (1, 2));
}

/// GitHub docs, `github.run_id`: "This number does not change if you re-run the workflow run".
#[test]
fn a_rerun_and_its_reruns_keep_the_first_runs_number_in_the_pool() {
    let mut run = again(&earlier(), pipeline(), &RerunScope::All);
    assert_eq!((run.state.serial, run.state.first_serial()), (2, 1));
    for job in ["lint", "build", "test/0", "test/1", "deploy"] {
        run.run(job, Success);
    }
    run.apply(RunEvent::LogFinalized { log: FinalizedLog::default() }).unwrap();
    assert_eq!(again(&run.state, pipeline(), &RerunScope::All).state.first_serial(), 1);
}

#[test]
fn failed_runs_the_cells_that_failed_and_what_waited_for_them() {
    let mut run = again(&earlier(), pipeline(), &RerunScope::Failed);
    assert_eq!(run.jobs(), "build=success test/0=success test/1=queued deploy=blocked lint=success");
    let reused: Vec<&str> =
        run.state.jobs.iter().filter(|(_, job)| job.reused.is_some()).map(|(key, _)| key.as_str()).collect();
    assert_eq!(reused, ["build", "test/0", "lint"]);
    assert!(run.state.jobs["build"].attempts.is_empty(), "it did not run here");
    run.run("test/1", Success);
    run.run("deploy", Success);
    assert_eq!(run.ended(), "success 0");
}

#[test]
fn one_job_runs_with_what_depends_on_it_and_sees_the_outputs_of_the_others() {
    let mut run = again(&earlier(), pipeline(), &RerunScope::One("test".into()));
    assert_eq!(run.jobs(), "build=success test/0=queued test/1=queued deploy=blocked lint=success");
    let order = order(&run.state, &"test/0".into()).unwrap();
    assert_eq!(order.contexts["needs"]["build"], json!({"result": "success", "outputs": {"tag": "v1"}}));
    run.run("test/0", Success);
    run.run("test/1", Success);
    run.run("deploy", Success);
    assert_eq!(run.ended(), "success 0");
}

#[test]
fn one_leg_of_a_matrix_runs_with_what_depends_on_it_and_the_other_legs_keep_their_results() {
    let mut run = again(&earlier(), pipeline(), &RerunScope::One("test/0".into()));
    assert_eq!(run.jobs(), "build=success test/0=queued test/1=failure deploy=blocked lint=success");
    run.run("test/0", Success);
    assert_eq!(run.jobs(), "build=success test/0=success test/1=failure deploy=skipped lint=success");
    assert_eq!(run.ended(), "failure 3");
    let mut run = again(&earlier(), pipeline(), &RerunScope::One("test/1".into()));
    run.run("test/1", Success);
    run.run("deploy", Success);
    assert_eq!(run.ended(), "success 0");
    // A matrix that fails fast: its other leg was cancelled, and is not run for that.
    let fast = || vec![("test", cells(&[], json!({"x": [1, 2]})))];
    let mut first = TestRun::with(fast());
    first.run("test/0", Failure);
    first.apply(RunEvent::LogFinalized { log: FinalizedLog::default() }).unwrap();
    let run = again(&first.state, fast(), &RerunScope::One("test/0".into()));
    assert_eq!(run.jobs(), "test/0=queued test/1=cancelled");
}

#[test]
fn a_failure_that_is_carried_over_is_still_a_failure() {
    let mut run = again(&earlier(), pipeline(), &RerunScope::One("lint".into()));
    run.run("lint", Success);
    assert_eq!(run.ended(), "failure 3");
}

#[test]
fn what_is_carried_twice_still_names_the_run_where_it_ran() {
    let mut second = again(&earlier(), pipeline(), &RerunScope::Failed);
    second.run("test/1", Failure);
    second.apply(RunEvent::LogFinalized { log: FinalizedLog::default() }).unwrap();
    let third = again(&second.state, pipeline(), &RerunScope::Failed);
    assert_eq!(third.jobs(), "build=success test/0=success test/1=queued deploy=blocked lint=success");
    assert_eq!(third.state.jobs["build"].reused, Some(ReusedJob { run: "run".into(), serial: 1 }));
    assert_eq!(third.state.attempt, 3);
}

#[test]
fn a_cell_whose_values_changed_and_a_job_that_is_new_run_anew() {
    let mut jobs = pipeline();
    jobs[1].1.strategy.matrix = Some(json!({"x": [7, 2]}));
    jobs.push(("new", job(&[])));
    let run = again(&earlier(), jobs, &RerunScope::Failed);
    assert_eq!(run.jobs(), "build=success test/0=queued test/1=queued deploy=blocked lint=success new=queued");
}

#[test]
fn what_can_not_be_rerun_is_said_with_the_remedy() {
    let earlier = earlier();
    let unknown = earlier.rerun(&RerunScope::One("tset".into()), ME, &[], false).unwrap_err();
    assert_eq!(unknown, "run 1 has no job \"tset\"; its jobs are: build, test, deploy, lint");
    let going = TestRun::with(vec![("a", job(&[]))]).state.rerun(&RerunScope::All, ME, &[], false).unwrap_err();
    assert!(going.contains("has not ended"), "{going}");
    let mut fine = TestRun::with(vec![("a", job(&[]))]);
    fine.run("a", Success);
    fine.apply(RunEvent::LogFinalized { log: FinalizedLog::default() }).unwrap();
    let fine = fine.state.rerun(&RerunScope::Failed, ME, &[], false).unwrap_err();
    assert!(fine.starts_with("no job of run 1 failed"), "{fine}");
}

#[test]
fn a_run_that_was_never_planned_runs_whole() {
    let (state, _) = create(new_run(RunRules::default(), false), START);
    let mut run = TestRun { state, now: START, effects: Vec::new() };
    run.apply(RunEvent::Unplannable { message: "no such commit".into() }).unwrap();
    run.apply(RunEvent::LogFinalized { log: FinalizedLog::default() }).unwrap();
    let run = again(&run.state, pipeline(), &RerunScope::Failed);
    assert_eq!(run.jobs(), "build=queued test=blocked deploy=blocked lint=queued");
}

#[test]
fn a_job_that_uses_a_secret_which_did_not_come_again_is_refused_by_name() {
    let with = |text: &str| {
        let env = Env::from([("T".to_owned(), text.to_owned())]);
        plan::Job { env: EnvSource::Map(env), ..job(&[]) }
    };
    let jobs = || {
        vec![
            ("needs", with("${{ secrets.token }}")),
            ("other", with("${{ secrets.OTHER }}")),
            ("whole", with("${{ toJSON(secrets) }}")),
        ]
    };
    let mut first = TestRun::under(RunRules::default(), true, planned(jobs()));
    for key in ["needs", "other", "whole"] {
        first.run(key, Failure);
    }
    first.apply(RunEvent::LogFinalized { log: FinalizedLog::default() }).unwrap();
    let run = again(&first.state, jobs(), &RerunScope::All);
    assert_eq!(run.jobs(), "needs=failure other=queued whole=failure");
    let JobPhase::Done { reason: Some(Reason::Invalid(why)), .. } = &run.state.jobs["needs"].phase else { panic!() };
    assert!(why.starts_with("jobs.needs: it uses the secret TOKEN"), "{why}");
    let given = first.state.rerun(&RerunScope::All, ME, &["token".into()], false).unwrap();
    assert_eq!(given.missing, [""; 0]);
}

#[test]
fn attack_20_what_an_outsiders_jobs_made_is_reused_for_nobody_else() {
    let mut earlier = earlier();
    let planned = Planned { outsider: true, ..earlier.planned.as_deref().unwrap().clone() };
    earlier.planned = Some(planned.into());
    let maintainer = "b".repeat(64);
    let refused = earlier.rerun(&RerunScope::Failed, &maintainer, &[], false).unwrap_err();
    assert!(refused.ends_with("rerun all jobs"), "{refused}");
    assert!(earlier.rerun(&RerunScope::All, &maintainer, &[], false).unwrap().reused.is_empty());
    assert!(!earlier.rerun(&RerunScope::Failed, ME, &[], false).unwrap().reused.is_empty());
}

#[test]
fn attack_14_inputs_of_an_outsider_stay_his_word_whoever_reruns_them() {
    let mut earlier = earlier();
    let maintainer = "b".repeat(64);
    let takes_over = |earlier: &RunState, by: &str, takes_over| {
        earlier.rerun(&RerunScope::All, by, &[], takes_over).unwrap().takes_over
    };
    assert!(!takes_over(&earlier, &maintainer, true), "who asked was trusted");
    let planned = Planned { outsider: true, ..planned(pipeline()) };
    earlier.planned = Some(std::sync::Arc::new(planned));
    assert!(takes_over(&earlier, &maintainer, true));
    assert!(!takes_over(&earlier, &maintainer, false), "inputs that came with the rerun are the maintainer's");
    // A rerun of that rerun.
    std::sync::Arc::make_mut(&mut earlier.request).actor.clone_from(&maintainer);
    assert!(takes_over(&earlier, &maintainer, true));
}
