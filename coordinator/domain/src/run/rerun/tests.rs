#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;
use workflow::plan::{
    self,
    Conclusion::{Failure, Success},
    Env, EnvSource,
};

use super::super::{testing::*, *};

type Jobs = Vec<(&'static str, plan::Job)>;

/// `build` → `test` (two cells) → `deploy`, and `lint` beside them.
fn pipeline() -> Jobs {
    let mut test = cells(&["build"], json!({"x": [1, 2]}));
    test.strategy.fail_fast = Some(json!(false));
    vec![("build", job(&[])), ("test", test), ("deploy", job(&["test"])), ("lint", job(&[]))]
}

/// The pipeline's first run: cell 1 of `test` failed, so `deploy` was skipped.
fn earlier() -> State {
    let mut run = Tested::with(pipeline());
    let attempt = run.accept("build", "w1");
    let mut built = report(Success, None);
    built.outputs.insert("tag".into(), "v1".into());
    run.finish("build", attempt, built);
    run.run("lint", Success);
    run.run("test/0", Success);
    run.run("test/1", Failure);
    assert_eq!(run.jobs(), "build=success test/0=success test/1=failure deploy=skipped lint=success");
    run.tell(Event::Sealed { log: SealedLog::default() }).unwrap();
    run.state
}

fn again(earlier: &State, jobs: Jobs, set: &JobSet) -> Tested {
    let rerun = earlier.rerun(set, &[]).unwrap();
    let new = New { id: "again".into(), serial: 2, rerun: Some(rerun), ..new_run(Rules::default(), false) };
    let (state, effects) = create(new, START);
    let mut tested = Tested { state, now: START, effects };
    tested.tell(Event::Planned(Box::new(planned(jobs)))).unwrap();
    tested
}

#[test]
fn all_runs_everything_and_counts_attempts() {
    let run = again(&earlier(), pipeline(), &JobSet::All);
    assert_eq!(run.jobs(), "build=queued test=blocked deploy=blocked lint=queued");
    assert_eq!((run.state.number, run.state.attempt), (1, 2));
}

#[test]
fn failed_runs_the_cells_that_failed_and_what_waited_for_them() {
    let mut run = again(&earlier(), pipeline(), &JobSet::Failed);
    assert_eq!(run.jobs(), "build=success test/0=success test/1=queued deploy=blocked lint=success");
    let carried: Vec<&str> =
        run.state.jobs.iter().filter(|(_, job)| job.carried.is_some()).map(|(key, _)| key.as_str()).collect();
    assert_eq!(carried, ["build", "test/0", "lint"]);
    assert!(run.state.jobs["build"].attempts.is_empty(), "it did not run here");
    run.run("test/1", Success);
    run.run("deploy", Success);
    assert_eq!(run.ended(), "success 0");
}

#[test]
fn one_job_runs_with_what_depends_on_it_and_sees_the_outputs_of_the_others() {
    let mut run = again(&earlier(), pipeline(), &JobSet::One("test".into()));
    assert_eq!(run.jobs(), "build=success test/0=queued test/1=queued deploy=blocked lint=success");
    let order = order(&run.state, "test/0").unwrap();
    assert_eq!(order.contexts["needs"]["build"], json!({"result": "success", "outputs": {"tag": "v1"}}));
    run.run("test/0", Success);
    run.run("test/1", Success);
    run.run("deploy", Success);
    assert_eq!(run.ended(), "success 0");
}

#[test]
fn a_failure_that_is_carried_over_is_still_a_failure() {
    let mut run = again(&earlier(), pipeline(), &JobSet::One("lint".into()));
    run.run("lint", Success);
    assert_eq!(run.ended(), "failure 3");
}

#[test]
fn what_is_carried_twice_still_names_the_run_where_it_ran() {
    let mut second = again(&earlier(), pipeline(), &JobSet::Failed);
    second.run("test/1", Failure);
    second.tell(Event::Sealed { log: SealedLog::default() }).unwrap();
    let third = again(&second.state, pipeline(), &JobSet::Failed);
    assert_eq!(third.jobs(), "build=success test/0=success test/1=queued deploy=blocked lint=success");
    assert_eq!(third.state.jobs["build"].carried, Some(Carried { run: "run".into(), serial: 1 }));
    assert_eq!(third.state.attempt, 3);
}

#[test]
fn a_cell_whose_values_changed_and_a_job_that_is_new_run_anew() {
    let mut jobs = pipeline();
    jobs[1].1.strategy.matrix = Some(json!({"x": [7, 2]}));
    jobs.push(("new", job(&[])));
    let run = again(&earlier(), jobs, &JobSet::Failed);
    assert_eq!(run.jobs(), "build=success test/0=queued test/1=queued deploy=blocked lint=success new=queued");
}

#[test]
fn what_can_not_be_rerun_is_said_with_the_remedy() {
    let earlier = earlier();
    let unknown = earlier.rerun(&JobSet::One("tset".into()), &[]).unwrap_err();
    assert_eq!(unknown, "run 1 has no job \"tset\"; its jobs are: build, test, deploy, lint");
    let going = Tested::with(vec![("a", job(&[]))]).state.rerun(&JobSet::All, &[]).unwrap_err();
    assert!(going.contains("has not ended"), "{going}");
    let mut fine = Tested::with(vec![("a", job(&[]))]);
    fine.run("a", Success);
    fine.tell(Event::Sealed { log: SealedLog::default() }).unwrap();
    let fine = fine.state.rerun(&JobSet::Failed, &[]).unwrap_err();
    assert!(fine.starts_with("no job of run 1 failed"), "{fine}");
}

#[test]
fn a_run_that_was_never_planned_runs_whole() {
    let (state, _) = create(new_run(Rules::default(), false), START);
    let mut run = Tested { state, now: START, effects: Vec::new() };
    run.tell(Event::Unplannable { message: "no such commit".into() }).unwrap();
    run.tell(Event::Sealed { log: SealedLog::default() }).unwrap();
    let run = again(&run.state, pipeline(), &JobSet::Failed);
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
    let mut first = Tested::under(Rules::default(), true, planned(jobs()));
    for key in ["needs", "other", "whole"] {
        first.run(key, Failure);
    }
    first.tell(Event::Sealed { log: SealedLog::default() }).unwrap();
    let run = again(&first.state, jobs(), &JobSet::All);
    assert_eq!(run.jobs(), "needs=failure other=queued whole=failure");
    let JobPhase::Done { reason: Some(Reason::Invalid(why)), .. } = &run.state.jobs["needs"].phase else { panic!() };
    assert!(why.starts_with("jobs.needs: it uses the secret TOKEN"), "{why}");
    let given = first.state.rerun(&JobSet::All, &["token".into()]).unwrap();
    assert_eq!(given.missing, [""; 0]);
}
