#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;
use workflow::plan::{
    Conclusion::{Cancelled, Success},
    Job, QueueMode, Reason,
};

use super::super::{testing::*, *};

const DAY: Millis = 24 * 3600 * 1000;

fn key(letter: &str) -> String {
    letter.repeat(64)
}

fn deploy(needs: &[&str], environment: serde_json::Value) -> Job {
    Job { environment: Some(environment), ..job(needs) }
}

fn asks(approvers: Approvers) -> EnvironmentProtection {
    EnvironmentProtection { name: "prod*".into(), approvers, wait_ms: 0, branches: Vec::new() }
}

/// A run of a repository that `m` and `n` maintain, under these protections.
fn under(protections: Vec<EnvironmentProtection>, rules: RunRules, jobs: Vec<(&str, Job)>) -> TestRun {
    let made = NewRun { environments: protections, ..new_run(rules, false) };
    let (state, effects) = create(made, START);
    let mut tested = TestRun { state, now: START, effects };
    let planned = Planned { maintainers: vec![key("m"), key("n")], ..planned(jobs) };
    tested.apply(RunEvent::Planned(Box::new(planned))).unwrap();
    tested
}

fn one(protection: EnvironmentProtection) -> TestRun {
    under(vec![protection], RunRules::default(), vec![("a", deploy(&[], json!("production")))])
}

fn said(job: &str, verdict: ApprovalVerdict, by: &str) -> RunEvent {
    RunEvent::Decided { job: job.into(), verdict, by: key(by), comment: "as agreed".into() }
}

fn queued(run: &TestRun) -> usize {
    run.effects.iter().filter(|effect| matches!(effect, RunEffect::Queue { .. })).count()
}

fn wakes(run: &TestRun) -> Vec<Millis> {
    let wake = |effect: &RunEffect| match effect {
        RunEffect::Wake { at, .. } => Some(*at),
        _ => None,
    };
    run.effects.iter().filter_map(wake).collect()
}

fn reasons(run: &TestRun) -> Vec<String> {
    let told = |effect: &RunEffect| match effect {
        RunEffect::Publish(RunUpdate::Waiting { reason, .. }) => Some(reason.clone()),
        _ => None,
    };
    run.effects.iter().filter_map(told).collect()
}

fn why(run: &TestRun, job: &str) -> String {
    match &run.state.jobs[job].phase {
        JobPhase::Done { reason: Some(Reason::Invalid(why) | Reason::Cancelled(why)), .. } => why.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_worker_hears_of_a_job_before_somebody_who_is_asked_has_approved_it() {
    let mut run = one(asks(Approvers::Maintainers));
    assert_eq!((run.jobs().as_str(), queued(&run)), ("a=waiting", 0));
    assert_eq!(reasons(&run), ["waits for an approval of the environment production by mmmmmmmm or nnnnnnnn"]);
    assert_eq!(
        run.apply(said("a", ApprovalVerdict::Approved, "x")),
        Err(RunRefusal::Stale),
        "a stranger's word changes nothing"
    );
    run.apply(said("a", ApprovalVerdict::Approved, "n")).unwrap();
    assert_eq!((run.jobs().as_str(), queued(&run)), ("a=queued", 1));
    let decision = run.state.jobs["a"].gate.clone().unwrap().decision.unwrap();
    assert_eq!((decision.by, decision.at, decision.comment.as_str()), (key("n"), run.now, "as agreed"));
    assert_eq!(run.apply(said("a", ApprovalVerdict::Rejected, "m")), Err(RunRefusal::Repeated), "it is decided");
    // An attempt that is lost needs no second word.
    run.accept("a", "w1");
    run.lose("a", 1);
    assert_eq!(run.jobs(), "a=queued");
    run.run("a", Success);
    assert_eq!(run.ended(), "success 0");
}

#[test]
fn which_jobs_wait_depends_on_the_first_protection_that_fits_their_environment() {
    let named = |name: &str, keys: &[&str]| EnvironmentProtection {
        name: name.into(),
        ..asks(Approvers::Keys(keys.iter().map(|letter| key(letter)).collect()))
    };
    let all = || vec![named("Production/EU", &["e"]), named("production/*", &["p"]), named("*", &["s"])];
    for (environment, asked) in
        [("production/eu", Some("e")), ("Production/US", Some("p")), ("staging", Some("s")), ("a/b", None), ("", None)]
    {
        let run = under(all(), RunRules::default(), vec![("a", deploy(&[], json!({"name": environment})))]);
        let gate = run.state.jobs["a"].gate.clone();
        assert_eq!(gate.map(|gate| gate.approvers), asked.map(|letter| vec![key(letter)]), "{environment}");
        assert_eq!(run.jobs(), if asked.is_some() { "a=waiting" } else { "a=queued" }, "{environment}");
    }
    assert_eq!(under(all(), RunRules::default(), vec![("a", job(&[]))]).jobs(), "a=queued", "no environment, no wait");
}

#[test]
fn a_rejection_fails_the_job_with_the_word_of_who_rejected_it() {
    let mut run = under(
        vec![asks(Approvers::Keys(vec![key("k")]))],
        RunRules::default(),
        vec![("a", deploy(&[], json!("production"))), ("b", job(&["a"])), ("c", job_if(&["a"], "failure()"))],
    );
    assert_eq!(
        run.apply(said("a", ApprovalVerdict::Rejected, "m")),
        Err(RunRefusal::Stale),
        "a maintainer is not asked here"
    );
    run.apply(said("a", ApprovalVerdict::Rejected, "k")).unwrap();
    assert_eq!(run.jobs(), "a=failure b=skipped c=queued");
    assert_eq!(why(&run, "a"), "the environment production was refused to it by kkkkkkkk: as agreed");
    run.run("c", Success);
    assert_eq!(run.ended(), "failure 125");
}

#[test]
fn a_wait_ends_with_a_cancel_and_after_thirty_days() {
    let mut run = one(asks(Approvers::Maintainers));
    run.apply(RunEvent::Cancel { by: "somebody".into() }).unwrap();
    assert_eq!((run.jobs().as_str(), run.ended().as_str()), ("a=cancelled", "cancelled 130"));
    assert_eq!(run.apply(said("a", ApprovalVerdict::Approved, "m")), Err(RunRefusal::Terminal));

    let mut run = one(asks(Approvers::Maintainers));
    let due = wakes(&run)[0];
    assert_eq!(due, run.now + 30 * DAY);
    assert_eq!(run.apply(RunEvent::Due { job: "a".into() }), Err(RunRefusal::Stale), "too early");
    run.now = due;
    run.apply(RunEvent::Due { job: "a".into() }).unwrap();
    assert!(why(&run, "a").ends_with("nobody decided within 30 days"), "{}", why(&run, "a"));
}

#[test]
fn a_timer_holds_a_job_alone_or_beside_an_approval() {
    let timer = |approvers| EnvironmentProtection { wait_ms: 600_000, ..asks(approvers) };
    let mut run = one(timer(Approvers::Nobody));
    assert_eq!((run.jobs().as_str(), wakes(&run)), ("a=waiting", vec![run.now + 600_000]));
    assert_eq!(reasons(&run), ["waits 10 min, as the environment production asks"]);
    assert_eq!(run.apply(said("a", ApprovalVerdict::Approved, "m")), Err(RunRefusal::Stale), "nobody is asked");
    run.now += 600_000;
    run.apply(RunEvent::Due { job: "a".into() }).unwrap();
    assert_eq!(run.jobs(), "a=queued");

    for (approved_after, becomes) in [(60_000, "a=waiting"), (700_000, "a=queued")] {
        let mut run = one(timer(Approvers::Maintainers));
        let until = run.now + 600_000;
        run.now += approved_after;
        run.apply(said("a", ApprovalVerdict::Approved, "m")).unwrap();
        assert_eq!(run.jobs(), becomes);
        if becomes == "a=waiting" {
            assert_eq!(wakes(&run).last(), Some(&until), "from when it could have started");
        }
    }
}

#[test]
fn only_named_branches_of_the_maintainers_state_are_deployed() {
    let protection =
        || EnvironmentProtection { branches: vec!["main".into(), "v*".into()], ..asks(Approvers::Maintainers) };
    for (reference, proven, expected) in [
        ("refs/heads/main", true, "a=waiting"),
        ("refs/tags/v1.2", true, "a=waiting"),
        ("refs/heads/feature", true, "a=failure"),
        ("refs/heads/main", false, "a=failure"),
        ("refs/pull/1/merge", true, "a=failure"),
    ] {
        let made = NewRun { environments: vec![protection()], ..new_run(RunRules::default(), false) };
        let (state, effects) = create(made, START);
        let mut run = TestRun { state, now: START, effects };
        let planned = Planned {
            reference: reference.into(),
            proven,
            maintainers: vec![key("m")],
            ..planned(vec![("a", deploy(&[], json!("production")))])
        };
        run.apply(RunEvent::Planned(Box::new(planned))).unwrap();
        assert_eq!(run.jobs(), expected, "{reference} {proven}");
    }
}

#[test]
fn the_name_is_worked_out_when_the_needs_are_done_and_each_cell_waits_for_itself() {
    let cells = Job {
        environment: Some(json!("prod-${{ needs.a.result }}-${{ matrix.x }}")),
        ..cells(&["a"], json!({"x": [1, 2]}))
    };
    let mut run = under(vec![asks(Approvers::Maintainers)], RunRules::default(), vec![("a", job(&[])), ("b", cells)]);
    run.run("a", Success);
    assert_eq!(run.jobs(), "a=success b/0=waiting b/1=waiting");
    assert_eq!(run.state.jobs["b/1"].environment.as_deref(), Some("prod-success-2"));
    let decidable = |run: &TestRun, by: &str, job, environment| run.state.decidable(&key(by), job, environment);
    assert_eq!(decidable(&run, "m", None, None).unwrap(), ["b/0", "b/1"]);
    assert_eq!(decidable(&run, "m", Some("b"), None).unwrap(), ["b/0", "b/1"]);
    assert_eq!(decidable(&run, "m", None, Some("PROD-success-2")).unwrap(), ["b/1"]);
    let refused = decidable(&run, "x", None, None).unwrap_err().to_string();
    assert_eq!(refused, "only mmmmmmmm or nnnnnnnn may approve or reject the environment prod-success-1");
    let nothing = decidable(&run, "m", None, Some("other")).unwrap_err().to_string();
    assert_eq!(nothing, "no job of this run waits for an approval of the environment other");
    run.apply(said("b/0", ApprovalVerdict::Approved, "m")).unwrap();
    assert_eq!(run.jobs(), "a=success b/0=queued b/1=waiting");

    let wrong = under(vec![], RunRules::default(), vec![("a", deploy(&[], json!("${{ fromJSON('x') }}")))]);
    assert!(why(&wrong, "a").starts_with("jobs.a.environment: "), "{}", why(&wrong, "a"));
}

#[test]
fn a_job_has_its_group_before_it_asks_and_makes_room_while_it_waits() {
    let grouped =
        Job { concurrency: Some(concurrency("deploy", false, QueueMode::Single)), ..deploy(&[], json!("production")) };
    let mut run = under(vec![asks(Approvers::Maintainers)], RunRules::default(), vec![("a", grouped)]);
    assert_eq!(
        run.apply(said("a", ApprovalVerdict::Approved, "m")),
        Err(RunRefusal::Stale),
        "it waits for its group first"
    );
    run.apply(RunEvent::Granted { job: Some("a".into()) }).unwrap();
    assert!(matches!(run.state.held_back(), Some(WaitCondition::Approval { .. })));
    run.apply(RunEvent::Preempted { job: "a".into(), to: "run 9".into() }).unwrap();
    assert_eq!(run.end().conclusion, Cancelled);
    assert_eq!(why(&run, "a"), "cancelled by run 9");
}

#[test]
fn waiting_for_people_takes_nothing_of_the_runs_time() {
    let rules = RunRules { max_duration_ms: 60_000, ..RunRules::default() };
    let jobs = vec![("a", job(&[])), ("b", deploy(&["a"], json!("production")))];
    let mut run = under(vec![asks(Approvers::Maintainers)], rules, jobs);
    run.run("a", Success);
    let began = run.state.started_at.unwrap();
    run.now = began + 5 * DAY;
    assert_eq!(run.apply(RunEvent::Expired), Err(RunRefusal::Stale), "it still waits");
    run.apply(said("b", ApprovalVerdict::Approved, "m")).unwrap();
    let waited = run.state.paused_ms;
    let due = began + 60_000 + waited;
    assert_eq!(run.effects.iter().filter(|effect| **effect == RunEffect::Timer { at: due }).count(), 1);
    assert_eq!(run.apply(RunEvent::Expired), Err(RunRefusal::Stale));
    run.now = due;
    run.apply(RunEvent::Expired).unwrap();
    assert!(matches!(run.state.expired_at, Some(at) if at > due));
}

#[test]
fn who_is_asked_about_a_private_run_may_see_it() {
    let made = NewRun {
        environments: vec![asks(Approvers::Keys(vec![key("k")]))],
        visibility: Visibility::Readers(vec![key("r")]),
        ..new_run(RunRules::default(), false)
    };
    let (state, effects) = create(made, START);
    let mut run = TestRun { state, now: START, effects };
    run.apply(RunEvent::Planned(Box::new(planned(vec![("a", deploy(&[], json!("production")))])))).unwrap();
    assert_eq!(run.state.visibility, Visibility::Readers(vec![key("r"), key("k")]));
}

/// A run of a pull request by somebody who is no maintainer, with a concurrency group of its own.
fn held(jobs: Vec<(&str, Job)>) -> TestRun {
    let mut plan = Planned { maintainers: vec![key("m"), key("n")], outsider: true, held: true, ..planned(jobs) };
    plan.plan.concurrency = Some(concurrency("pr", true, QueueMode::Single));
    TestRun::under(RunRules::default(), false, plan)
}

fn joins(run: &TestRun) -> usize {
    run.effects.iter().filter(|effect| matches!(effect, RunEffect::Join { .. })).count()
}

#[test]
fn attack_14_nothing_of_a_run_that_is_held_begins_before_a_maintainer_approves_it() {
    let mut run = held(vec![("a", job(&[])), ("b", job(&["a"]))]);
    assert_eq!((run.jobs().as_str(), queued(&run), joins(&run)), ("a=blocked b=blocked", 0, 0));
    let waits = "waits for an approval by mmmmmmmm or nnnnnnnn: its author is no maintainer of the repository";
    assert_eq!(reasons(&run), [waits]);
    let decidable = |run: &TestRun, by: &str, job| run.state.decidable(&key(by), job, None);
    assert_eq!(decidable(&run, "m", None).unwrap(), [""]);
    assert_eq!(decidable(&run, "m", Some("")).unwrap(), [""]);
    let others = decidable(&run, "a", None).unwrap_err().to_string();
    assert_eq!(others, "only mmmmmmmm or nnnnnnnn may approve or reject this run");
    assert!(matches!(decidable(&run, "m", Some("a")), Err(ApprovalError::NothingWaits(_))));
    // Its author's word is none, nor is one about a job of it.
    assert_eq!(run.apply(said("", ApprovalVerdict::Approved, "a")), Err(RunRefusal::Stale));
    assert_eq!(run.apply(said("a", ApprovalVerdict::Approved, "m")), Err(RunRefusal::Stale));
    run.apply(said("", ApprovalVerdict::Approved, "n")).unwrap();
    assert_eq!((joins(&run), queued(&run)), (1, 0), "its group comes after the approval");
    assert_eq!(run.apply(said("", ApprovalVerdict::Rejected, "m")), Err(RunRefusal::Repeated));
    run.apply(RunEvent::Granted { job: None }).unwrap();
    run.run("a", Success);
    run.run("b", Success);
    assert_eq!(run.ended(), "success 0", "one approval is for the whole run");
}

#[test]
fn a_run_that_is_refused_or_that_nobody_decides_about_ends_without_running() {
    let mut run = held(vec![("a", job(&[]))]);
    run.apply(said("", ApprovalVerdict::Rejected, "m")).unwrap();
    assert_eq!((run.ended().as_str(), queued(&run)), ("failure 125", 0));
    assert_eq!(run.state.message.as_deref(), Some("the run was refused by mmmmmmmm: as agreed"));

    let mut run = held(vec![("a", job(&[]))]);
    let due = wakes(&run)[0];
    assert_eq!(due, run.now + 30 * DAY);
    assert_eq!(run.apply(RunEvent::Due { job: JobKey::default() }), Err(RunRefusal::Stale), "too early");
    run.now = due;
    run.apply(RunEvent::Due { job: JobKey::default() }).unwrap();
    assert!(run.state.message.as_deref().unwrap().ends_with("nobody decided within 30 days"));

    let mut run = held(vec![("a", job(&[]))]);
    run.apply(RunEvent::Cancel { by: "somebody".into() }).unwrap();
    assert_eq!((run.ended().as_str(), queued(&run)), ("cancelled 130", 0));
    assert_eq!(run.apply(said("", ApprovalVerdict::Approved, "m")), Err(RunRefusal::Terminal));
}
