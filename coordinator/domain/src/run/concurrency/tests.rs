#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;
use workflow::plan::{Conclusion::Success, Job, QueueMode};

use super::super::{testing::*, *};

fn grouped(group: &str) -> Planned {
    let mut made = planned(vec![("a", job(&[]))]);
    made.plan.concurrency = Some(concurrency(group, false, QueueMode::Single));
    made
}

fn job_in(group: &str) -> Job {
    Job { concurrency: Some(concurrency(group, false, QueueMode::Single)), ..job(&[]) }
}

fn joins(run: &TestRun) -> Vec<(Option<JobKey>, String)> {
    let joined = |effect: &RunEffect| match effect {
        RunEffect::Join { job, ask } => Some((job.clone(), ask.group.clone())),
        _ => None,
    };
    run.effects.iter().filter_map(joined).collect()
}

fn leaves(run: &TestRun) -> Vec<(Option<JobKey>, String)> {
    let left = |effect: &RunEffect| match effect {
        RunEffect::Leave { job, group } => Some((job.clone(), group.clone())),
        _ => None,
    };
    run.effects.iter().filter_map(left).collect()
}

fn reasons(run: &TestRun) -> Vec<String> {
    let told = |effect: &RunEffect| match effect {
        RunEffect::Publish(RunUpdate::Waiting { reason, .. }) => Some(reason.clone()),
        _ => None,
    };
    run.effects.iter().filter_map(told).collect()
}

fn granted(job: Option<&str>) -> RunEvent {
    RunEvent::Granted { job: job.map(Into::into) }
}

#[test]
fn a_run_asks_for_its_group_first_and_gives_it_back_with_its_last_job() {
    let mut made = grouped("ci-${{ github.ref }}-${{ vars.STAGE }}");
    made.context.insert("ref".into(), "refs/heads/main".into());
    let mut run = TestRun::under(RunRules::default(), false, made);
    assert_eq!(run.jobs(), "a=blocked");
    assert_eq!(joins(&run), [(None, "ci-refs/heads/main-".to_owned())]);
    run.apply(granted(None)).unwrap();
    assert_eq!(run.jobs(), "a=queued");
    assert_eq!(leaves(&run), []);
    run.run("a", Success);
    assert_eq!(leaves(&run), joins(&run));
    assert_eq!(run.apply(granted(None)), Err(RunRefusal::Stale));
}

#[test]
fn the_wait_has_a_sentence_that_is_told_once_and_kept_up_to_date() {
    let mut run = TestRun::under(RunRules::default(), false, grouped("deploy"));
    let holder = |serial| RunEvent::HeldBy { job: None, serial };
    run.apply(holder(7)).unwrap();
    assert_eq!(run.apply(holder(7)), Err(RunRefusal::Repeated));
    run.apply(holder(8)).unwrap();
    assert_eq!(reasons(&run), ["held by run 7 of the concurrency group deploy"]);
    let wait = WaitCondition::Concurrency { group: "deploy".into(), holder: Some(8) };
    assert_eq!(run.state.phase, RunPhase::Waiting { on: wait });
}

#[test]
fn a_cancel_while_it_waits_ends_the_run_and_its_wait() {
    let mut run = TestRun::under(RunRules::default(), false, grouped("deploy"));
    run.apply(RunEvent::Cancel { by: "run 9 of the concurrency group deploy".into() }).unwrap();
    assert_eq!(run.ended(), "cancelled 130");
    let why = Reason::Cancelled("cancelled by run 9 of the concurrency group deploy".into());
    assert_eq!(run.end().reason, Some(why));
    assert_eq!(leaves(&run), [(None, "deploy".to_owned())]);
}

#[test]
fn a_job_asks_when_its_needs_are_done_and_each_cell_for_itself() {
    let mut cells = cells(&["a"], json!({"x": ["one", "two"]}));
    cells.concurrency = Some(concurrency("${{ needs.a.result }}-${{ matrix.x }}", false, QueueMode::Max));
    let mut run = TestRun::with(vec![("a", job(&[])), ("b", cells)]);
    assert_eq!(joins(&run), []);
    run.run("a", Success);
    let asked = [(Some(JobKey::from("b/0")), "success-one".to_owned()), (Some("b/1".into()), "success-two".into())];
    assert_eq!(joins(&run), asked);
    assert_eq!(run.jobs(), "a=success b/0=waiting b/1=waiting");
    run.apply(granted(Some("b/1"))).unwrap();
    run.run("b/1", Success);
    assert_eq!(leaves(&run), asked[1..]);
    run.apply(RunEvent::Preempted { job: "b/0".into(), to: "run 3 of the concurrency group g".into() }).unwrap();
    assert_eq!(run.ended(), "cancelled 130");
    assert_eq!(leaves(&run).len(), 2);
}

#[test]
fn a_job_that_gives_way_while_it_runs_keeps_its_group_until_its_worker_confirms() {
    let mut run = TestRun::with(vec![("a", job_in("g"))]);
    run.apply(granted(Some("a"))).unwrap();
    run.accept("a", "w1");
    run.apply(RunEvent::Preempted { job: "a".into(), to: "run 3 of the concurrency group g".into() }).unwrap();
    assert_eq!((run.jobs(), run.stops()), ("a=cancelling".into(), vec!["a/1@w1".to_owned()]));
    assert_eq!(leaves(&run), []);
    let stopped = report(Conclusion::Cancelled, Some(Reason::Cancelled("stopped".into())));
    run.finish("a", 1, stopped);
    assert_eq!(leaves(&run), [(Some("a".into()), "g".to_owned())]);
    assert_eq!(run.end().reason, Some(Reason::Cancelled("cancelled by run 3 of the concurrency group g".into())));
}

#[test]
fn an_attempt_that_is_lost_keeps_the_group_for_the_next() {
    let mut run = TestRun::with(vec![("a", job_in("g"))]);
    run.apply(granted(Some("a"))).unwrap();
    run.accept("a", "w1");
    run.lose("a", 1);
    assert_eq!(run.jobs(), "a=queued");
    assert_eq!((joins(&run).len(), leaves(&run).len()), (1, 0));
}

#[test]
fn a_job_that_waits_for_its_own_runs_group_is_cancelled_instead_of_waiting_for_ever() {
    let mut made = grouped("Deploy");
    made.plan.jobs.insert("b".into(), job_in("deploy"));
    made.plan.jobs.insert("c".into(), Job { condition: Some("always()".into()), ..job(&["b"]) });
    let mut run = TestRun::under(RunRules::default(), false, made);
    run.apply(granted(None)).unwrap();
    assert_eq!(run.jobs(), "a=queued b=cancelled c=queued");
}

#[test]
fn legs_behind_max_parallel_are_not_forgotten_where_one_ends_without_a_worker() {
    let mut cells = cells(&[], json!({"x": [1, 2, 3]}));
    cells.strategy.max_parallel = Some(json!(1));
    cells.strategy.fail_fast = Some(json!(false));
    cells.concurrency = Some(concurrency("g${{ matrix.x }}", false, QueueMode::Single));
    let mut made = planned(vec![("a", cells), ("after", Job { condition: Some("always()".into()), ..job(&["a"]) })]);
    made.plan.concurrency = Some(concurrency("g2", false, QueueMode::Single));
    let mut run = TestRun::under(RunRules::default(), false, made);
    run.apply(granted(None)).unwrap();
    run.apply(granted(Some("a/0"))).unwrap();
    run.run("a/0", Success);
    assert_eq!(run.jobs(), "a/0=success a/1=cancelled a/2=waiting after=blocked");
    run.apply(granted(Some("a/2"))).unwrap();
    run.run("a/2", Success);
    assert_eq!(run.jobs(), "a/0=success a/1=cancelled a/2=success after=queued");
}

#[test]
fn a_group_that_cannot_be_worked_out_is_named_with_its_place() {
    let run = TestRun::under(RunRules::default(), false, grouped("${{ vars.NONE }}"));
    assert_eq!(run.ended(), "failure 125");
    assert!(run.state.message.unwrap().contains("`concurrency.group` is empty"));
    let run = TestRun::with(vec![("a", job_in("${{ vars.NONE }}"))]);
    assert_eq!(run.ended(), "failure 125");
    let Some(Reason::Invalid(why)) = &run.end().reason else { panic!() };
    assert!(why.starts_with("jobs.a.concurrency: "), "{why}");
}
