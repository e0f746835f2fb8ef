#![allow(clippy::unwrap_used, clippy::unreachable)]

use indexmap::IndexMap;

use serde_json::{Value, json};

use super::*;
use domain::run::RequestOrigin;

const OWNER: &str = "3bf0c63fcb93463407af97a5e5ee64fa883d107ef9e558472c4eb9aaaefa459d";
const AUTHOR: &str = "32e1827635450ebb3c5a7d12c1f8e7b2b514439ac10a67eef3d9fd9c5c68e245";
const JOBS: &str = "jobs: {a: {runs-on: ubuntu-latest, steps: [{run: echo}]}}\n";

fn request(trigger: Option<&str>) -> RunRequest {
    RunRequest {
        id: "e".repeat(64),
        origin: RequestOrigin::Api,
        repository: Repository {
            address: format!("30617:{OWNER}:demo"),
            owner: OWNER.into(),
            identifier: "demo".into(),
            relays: Vec::new(),
        },
        workflow: ".github/workflows/ci.yml".into(),
        commit: String::new(),
        branch: "main".into(),
        reference: None,
        trigger: trigger.map(Into::into),
        payload: None,
        actor: AUTHOR.into(),
        env: IndexMap::new(),
        notices: Vec::new(),
        inputs: None,
        again: None,
        command: None,
        pinned: None,
        pull_request: None,
        received_at: 0,
    }
}

fn metadata(reference: &str) -> RepositoryMetadata {
    RepositoryMetadata {
        commit: "c".repeat(40).parse().unwrap(),
        reference: reference.into(),
        default_branch: Some("refs/heads/trunk".into()),
        parent: None,
        default_tip: None,
        description: Some(("Fix it\n\nWell.".into(), "Ann".into())),
        proven: true,
        takes_over: false,
        outsider: false,
        held: false,
        maintainers: Vec::new(),
        relays: Vec::new(),
        definition: None,
        stored: StoredValues::default(),
    }
}

const NUMBERS: RunNumbers = RunNumbers { serial: 70, number: 7, attempt: 2 };

/// The plan of a workflow that calls no other.
fn planned(
    request: &RunRequest,
    metadata: &RepositoryMetadata,
    file: Option<&str>,
    numbers: RunNumbers,
) -> Result<Planned, String> {
    match plan(request, metadata, file, &CalledFiles::new(), numbers)? {
        PlanOutcome::Planned(planned) => Ok(*planned),
        PlanOutcome::NeedsFiles(places) => Err(format!("needs {places:?}")),
    }
}

fn press(on: &str, trigger: Option<&str>) -> Planned {
    let text = format!("on: {on}\n{JOBS}");
    planned(&request(trigger), &metadata("refs/heads/main"), Some(&text), NUMBERS).unwrap()
}

#[test]
fn a_press_means_the_event_the_request_or_the_file_names() {
    let cases = [
        // `on:` as written, trigger, event
        ("push", Some("push"), "push"),
        ("[push, workflow_dispatch]", Some("push"), "push"),
        ("push", Some("pull_request"), "pull_request"),
        ("{schedule: [{cron: '1 2 * * *'}]}", Some("schedule"), "schedule"),
        ("[push, workflow_dispatch]", Some("manual"), "workflow_dispatch"),
        ("[push, workflow_dispatch]", None, "workflow_dispatch"),
        ("[push, workflow_dispatch]", Some("odd"), "workflow_dispatch"),
        ("pull_request", Some("manual"), "pull_request"),
        ("release", None, "release"),
        ("[pull_request, release]", Some("manual"), "push"),
        ("{push: {branches: [other]}}", Some("push"), "push"),
    ];
    for (on, trigger, event) in cases {
        let planned = press(on, trigger);
        assert_eq!(planned.event, event, "on: {on}, trigger {trigger:?}");
        assert_eq!(planned.context["event_name"], event);
    }
}

#[test]
fn the_github_context_says_whose_repository_and_press_it_is() {
    let github = press("push", Some("push")).context;
    let (owner, author) = (npub(OWNER), npub(AUTHOR));
    let expected = [
        ("repository", format!("{owner}/demo")),
        ("repository_owner", owner.clone()),
        ("actor", author.clone()),
        ("triggering_actor", author),
        ("run_id", "70".into()),
        ("run_number", "7".into()),
        ("run_attempt", "2".into()),
        ("sha", "c".repeat(40)),
        ("ref", "refs/heads/main".into()),
        ("ref_name", "main".into()),
        ("ref_type", "branch".into()),
        ("workflow", ".github/workflows/ci.yml".into()),
        ("workflow_ref", format!("{owner}/demo/.github/workflows/ci.yml@refs/heads/main")),
        ("server_url", "http://ci.localhost:4480".into()),
        ("head_ref", String::new()),
        ("base_ref", String::new()),
    ];
    for (name, value) in expected {
        assert_eq!(github[name], value.as_str(), "github.{name}");
    }
    assert!(owner.starts_with("npub1"));
}

#[test]
fn a_tag_is_a_tag() {
    let text = format!("on: push\n{JOBS}");
    let github = planned(&request(Some("push")), &metadata("refs/tags/v1"), Some(&text), NUMBERS).unwrap().context;
    assert_eq!([&github["ref"], &github["ref_name"], &github["ref_type"]], ["refs/tags/v1", "v1", "tag"]);
}

#[test]
fn payloads_have_the_shape_of_their_event() {
    let push = press("push", Some("push")).context;
    assert_eq!(push["event"]["after"], "c".repeat(40));
    assert_eq!(push["event"]["head_commit"]["message"], "Fix it\n\nWell.");
    assert_eq!(push["event"]["repository"]["default_branch"], "trunk");
    let pull = press("pull_request", None).context;
    assert_eq!(pull["event"]["pull_request"]["base"]["ref"], "trunk");
    assert_eq!([&pull["head_ref"], &pull["base_ref"]], ["main", "trunk"]);
    let schedule = press("{schedule: [{cron: '1 2 * * *'}]}", Some("schedule")).context;
    assert_eq!(schedule["event"]["schedule"], "1 2 * * *");
}

#[test]
fn inputs_have_their_defaults_and_types() {
    let on = "{workflow_dispatch: {inputs: {flag: {type: boolean, default: true}, count: {type: number, default: 3}, \
              kind: {type: choice, options: [a, b]}, text: {default: hi}, none: {}}}}";
    let planned = press(on, Some("manual"));
    let expected = json!({"flag": true, "count": 3, "kind": "a", "text": "hi", "none": ""});
    assert_eq!(Value::Object(planned.inputs), expected);
    let texts = json!({"flag": "true", "count": "3", "kind": "a", "text": "hi", "none": ""});
    assert_eq!(planned.context["event"]["inputs"], texts);
}

#[test]
fn wrong_inputs_are_refused_by_name() {
    let on = "on: {workflow_dispatch: {inputs: {kind: {type: choice, options: [a, b]}}}}\n".to_owned() + JOBS;
    for (name, value, message) in [
        ("kind", "c", "input \"kind\" must be one of a, b, it is \"c\""),
        ("kin", "a", "the workflow declares no input \"kin\"; it declares: kind"),
    ] {
        let inputs = Some(IndexMap::from([(name.to_owned(), value.to_owned())]));
        let asked = RunRequest { inputs, ..request(None) };
        assert_eq!(planned(&asked, &metadata("refs/heads/main"), Some(&on), NUMBERS).unwrap_err(), message);
    }
}

#[test]
fn only_workflow_files_of_the_repository_can_be_named() {
    for good in [".github/workflows/ci.yml", "./.ngit/act/workflows/a.yaml", ".hive/workflows/b.yml"] {
        assert!(workflow_path(good).is_ok(), "{good}");
    }
    for (bad, why) in [
        ("", "names no workflow"),
        ("../../etc/x.yml", "without \"..\""),
        (".github/workflows/../../x.yml", "without \"..\""),
        ("/etc/x.yml", "must be relative"),
        (".github/workflows\\x.yml", "must be relative"),
        ("ci.yml", "must lie in one of"),
        (".github/workflows/deep/ci.yml", "must lie in one of"),
        (".github/workflows/ci.sh", "must end in .yml"),
    ] {
        let message = workflow_path(bad).unwrap_err();
        assert!(message.contains(why), "{bad}: {message}");
    }
}

#[test]
fn a_missing_file_is_named_with_its_commit() {
    let message = planned(&request(None), &metadata("refs/heads/main"), None, NUMBERS).unwrap_err();
    let first = message.lines().next().unwrap();
    assert_eq!(first, format!("the workflow .github/workflows/ci.yml does not exist at commit {}", "c".repeat(40)));
}

#[test]
fn a_broken_file_is_refused_with_line_and_column() {
    let text = format!("on: push\njobz: {{}}\n{JOBS}");
    let message = planned(&request(None), &metadata("refs/heads/main"), Some(&text), NUMBERS).unwrap_err();
    assert!(message.starts_with(".github/workflows/ci.yml:2:1: error: "), "{message}");
}

#[test]
fn a_plan_keeps_what_it_calls_and_asks_for_what_it_does_not_have() {
    let text = "on: push\nrun-name: 'Deploy ${{ github.ref_name }}\n\n to ${{ vars.WHERE }}'\njobs: {a: {uses: ./.github/workflows/b.yml}}";
    let asked = RunRequest { env: IndexMap::from([("WHERE".into(), "here".into())]), ..request(Some("push")) };
    let metadata = metadata("refs/heads/main");
    let Ok(PlanOutcome::NeedsFiles(places)) = plan(&asked, &metadata, Some(text), &CalledFiles::new(), NUMBERS) else {
        unreachable!("a file is missing")
    };
    assert_eq!(places, [WorkflowRef::local(".github/workflows/b.yml")]);
    let known = CalledFiles::from([(places[0].clone(), Ok(format!("on: workflow_call\n{JOBS}")))]);
    let Ok(PlanOutcome::Planned(planned)) = plan(&asked, &metadata, Some(text), &known, NUMBERS) else {
        unreachable!("nothing is missing")
    };
    assert_eq!(planned.called.keys().collect::<Vec<_>>(), [".github/workflows/b.yml"]);
    assert_eq!(planned.title.as_deref(), Some("Deploy main to here"));
    assert_eq!((planned.commit_message.as_deref(), planned.heading()), (Some("Fix it"), Some("Deploy main to here")));
}

#[test]
fn a_plain_command_is_a_job_that_acts_for_its_author_alone() {
    let command = PlainCommand { program: "make".into(), arguments: vec!["test".into()], input: String::new() };
    let asked = RunRequest { env: [("LANG".to_owned(), "C".to_owned())].into(), ..request(None) };
    let numbers = RunNumbers { serial: 1, number: 1, attempt: 1 };
    let planned = plan_command(&asked, &command, "ubuntu-latest", &["KEY".to_owned()], numbers).unwrap();
    assert!(
        planned.outsider && planned.proven && !planned.is_trusted(),
        "its secrets are its own, and nothing else is"
    );
    assert_eq!(planned.title.as_deref(), Some("'make' 'test'"));
    assert_eq!(planned.plan.jobs.len(), 1);
    assert!(planned.maintainers.is_empty() && planned.notices.is_empty());
}
