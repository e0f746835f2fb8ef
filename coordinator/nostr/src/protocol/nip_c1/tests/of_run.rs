//! What is said of runs: of which, and when.

use std::sync::Arc;

use domain::{
    id::{BlobHash, JobKey},
    run::{
        ApprovalVerdict, FinalizedLog, NostrOrigin, OriginEvent, Planned, RunEvent, RunRules, RunState, TriggerOrigin,
        TriggeringPullRequest, Visibility,
        testing::{TestRun, job, planned},
    },
};
use workflow::plan::Conclusion;

use super::*;

/// A run of two jobs that is reported, of a push as somebody's press says.
fn run(change: impl FnOnce(&mut Planned)) -> TestRun {
    let mut plan = planned(vec![("build", job(&[])), ("after", job(&["build"]))]);
    plan.workflow_sha256 = Some(BlobHash::of(b"text"));
    change(&mut plan);
    let mut run = TestRun::under(RunRules { reports_jobs: true, ..RunRules::default() }, false, plan);
    let mut request = (*run.state.request).clone();
    let owner = Keys::generate().public_key();
    request.repository.address = format!("30617:{owner}:my-repo");
    request.repository.owner = owner.to_hex();
    request.trigger = Some("push".into());
    run.state.request = Arc::new(request);
    run
}

fn report(state: &RunState) -> Option<RunReport> {
    RunReport::of(state, Keys::generate().public_key(), "wss://write.example", "wss://read.example")
}

#[test]
fn a_run_is_told_of_only_where_it_acts_with_the_word_of_the_maintainers() {
    let told = report(&run(|_| {}).state).unwrap();
    assert_eq!(told.started_by, StartedBy::Push);
    assert_eq!(told.subject.context, RunContext::Ref("refs/heads/main".into()));
    assert_eq!(told.subject.workflow.sha256, BlobHash::of(b"text").to_string());
    assert_eq!(told.provenance, None);
    assert!(report(&run(|plan| plan.outsider = true).state).is_none(), "a stranger's press");
    assert!(report(&run(|plan| plan.proven = false).state).is_none(), "a commit that nobody stands for");
    assert!(report(&run(|plan| plan.workflow_sha256 = None).state).is_none());
    let mut private = run(|_| {}).state;
    private.visibility = Visibility::Readers(Vec::new());
    assert!(report(&private).is_none(), "a private run");
    let mut answered = run(|_| {}).state;
    answered.answered = true;
    assert!(report(&answered).is_none());
    let mut quiet = run(|_| {}).state;
    quiet.rules.reports_jobs = false;
    assert!(report(&quiet).is_none());
}

#[test]
fn a_pull_request_is_told_of_by_its_head_whoever_wants_it_merged_and_why_it_waits() {
    let [author, maintainer] = [(); 2].map(|()| Keys::generate().public_key().to_hex());
    let of = TriggeringPullRequest {
        number: 7,
        root: "ab".repeat(32),
        author,
        head: "d".repeat(40),
        head_event: OriginEvent { kind: 1619, id: "cd".repeat(32) },
        runs_base: false,
    };
    let mut plan = planned(vec![("build", job(&[]))]);
    plan.workflow_sha256 = Some(BlobHash::of(b"text"));
    (plan.outsider, plan.proven, plan.held) = (true, false, true);
    plan.maintainers = vec![maintainer.clone()];
    let mut run = TestRun::under(RunRules { reports_jobs: true, ..RunRules::default() }, false, plan);
    let mut request = (*run.state.request).clone();
    request.repository.address = format!("30617:{maintainer}:my-repo");
    request.pull_request = Some(Box::new(of.clone()));
    run.state.request = Arc::new(request.clone());
    let told = report(&run.state).unwrap();
    assert_eq!((told.started_by, &told.subject.objects), (StartedBy::PullRequest, &vec![of.head.clone()]));
    let RunContext::PullRequest(context) = &told.subject.context else { panic!("{told:?}") };
    assert_eq!((context.root.0.to_hex(), context.parent.unwrap().1), (of.root.clone(), 1619));
    assert!(told.waits.as_ref().unwrap().contains("its author is no maintainer"));
    let alt = |report: &RunReport| {
        let tags = report.progress(Stage::Queued, &[], 5).event.tags;
        tags.iter().map(|tag| tag.as_slice().to_vec()).find(|tag| tag[0] == "alt").map(|tag| tag[1].clone())
    };
    assert_eq!(alt(&told), told.waits);

    let held = run.state.clone();
    let said = RunEvent::Decided {
        job: JobKey::default(),
        verdict: ApprovalVerdict::Approved,
        by: maintainer,
        comment: String::new(),
    };
    run.apply(said).unwrap();
    assert!(reports_change(Some(&held), &run.state), "that it waits no more is new");
    assert_eq!(alt(&report(&run.state).unwrap()), None);

    // What runs the base has to have the maintainers' word, as any other.
    request.pull_request = Some(Box::new(TriggeringPullRequest { runs_base: true, ..of }));
    run.state.request = Arc::new(request);
    assert!(report(&run.state).is_none());
}

#[test]
fn a_press_can_not_call_itself_what_it_has_no_tags_for() {
    let mut state = run(|plan| plan.reference = "main".into()).state;
    assert_eq!(report(&state).unwrap().started_by, StartedBy::Manual, "a push has a ref");
    state = run(|_| {}).state;
    Arc::make_mut(&mut state.request).trigger = Some("pull_request".into());
    assert_eq!(report(&state).unwrap().started_by, StartedBy::Manual, "a pull request has one");
}

#[test]
fn a_trigger_is_quoted_by_what_it_started_and_a_service_by_neither_family() {
    let by = Keys::generate().public_key();
    let mut state = run(|_| {}).state;
    assert!(!is_by_service(&state), "the API started it");
    let origin = |protocol: &str| NostrOrigin {
        protocol: protocol.into(),
        request: OriginEvent { kind: MANUAL_TRIGGER, id: SHA256.into() },
        run: None,
        author: by.to_hex(),
        publisher: None,
        relays: Vec::new(),
        details: serde_json::Value::Null,
    };
    for (origin, manual, service) in [
        (origin("nip_c1").into(), true, false),
        (origin("other").into(), false, false),
        (TriggerOrigin { event: None, relays: Vec::new() }.into(), false, true),
    ] {
        Arc::make_mut(&mut state.request).origin = origin;
        assert_eq!(report(&state).unwrap().provenance.is_some_and(|by| by.manual), manual);
        assert_eq!(is_by_service(&state), service);
    }
}

#[test]
fn there_is_something_new_where_a_job_begins_or_ends_and_nowhere_else() {
    let mut run = run(|_| {});
    let mut changes = Vec::new();
    let mut apply = |run: &mut TestRun, event: RunEvent| {
        let before = run.state.clone();
        run.apply(event).unwrap();
        changes.push(reports_change(Some(&before), &run.state));
    };
    assert!(reports_change(None, &run.state), "its plan");
    apply(&mut run, RunEvent::Accepted { job: "build".into(), worker: "w".into() });
    apply(&mut run, RunEvent::Begun { job: "build".into(), attempt: 1 });
    let ended = domain::run::testing::report(Conclusion::Failure, Some(workflow::plan::Reason::Step));
    apply(&mut run, RunEvent::Finished { job: "build".into(), attempt: 1, report: ended });
    apply(&mut run, RunEvent::LogFinalized { log: FinalizedLog::default() });
    assert_eq!(changes, [true, false, true, true]);
    let ends: Vec<_> = run.state.jobs.iter().map(|(key, job)| JobEnd::of(&run.state, key, job)).collect();
    let build = ends[0].as_ref().unwrap();
    assert_eq!((build.end, build.exit_code), (EndWord::Failure, Some(3)));
    assert_eq!(build.attempt, Some((1, "w".into())));
    assert!(ends[1].is_none(), "what was not run has no result");
}

#[test]
fn what_was_said_before_is_known_from_the_events_themselves() {
    let mut state = run(|_| {}).state;
    state.started_at = Some(state.created_at);
    let by = Keys::generate().public_key();
    let request = EventId::from_byte_array([4; 32]);
    let quoted = Provenance { manual: false, request, relay: "wss://r.example".into(), requester: by };
    let told = RunReport { provenance: Some(quoted.clone()), ..report(&state).unwrap() };
    let end = JobEnd { digest: None, ..JobEnd::of(&state, &"build".into(), &ended(&state)).unwrap() };
    let result = told.job_result(&end);
    let texts: Vec<String> =
        [told.progress(Stage::Queued, &[], 10), told.progress(Stage::InProgress(&[]), &[], 20), result.clone()]
            .iter()
            .map(|draft| draft.event.as_json())
            .collect();
    let known = PublishedReports::read(texts.iter().map(String::as_str).chain(["no event"]));
    assert_eq!(known.jobs.get("build"), result.event.id.as_ref());
    assert_eq!((known.progress_at, known.ended), (Some(20), false));
    assert_eq!(known.service_request, Some(quoted), "it stays that one");
    let last = told.result(EndWord::Success, &[], 30).event.as_json();
    assert!(PublishedReports::read([last.as_str()]).ended);
}

/// The job `build` of a run, as it is once it has ended.
fn ended(state: &RunState) -> domain::run::Job {
    let mut job = (*state.jobs["build"]).clone();
    job.phase = domain::run::JobPhase::Done { conclusion: Conclusion::Success, reason: None, outcome: None };
    job
}
