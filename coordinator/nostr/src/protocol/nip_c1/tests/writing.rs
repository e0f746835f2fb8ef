//! What is said of runs, jobs and services, tag by tag.

use super::*;
use workflow::plan::{Conclusion, Reason};

fn report(us: &Keys, context: RunContext, started_by: StartedBy) -> RunReport {
    RunReport {
        run: "run-1".into(),
        us: us.public_key(),
        subject: RunSubject {
            repositories: vec![RepositoryAddress::parse(&address(us), "wss://relay.example").unwrap()],
            objects: vec![COMMIT.into()],
            workflow: WorkflowFile { path: PATH.into(), sha256: SHA256.into() },
            context,
        },
        started_by,
        waits: None,
        queued_at: NOW,
        started_at: Some(NOW + 5),
        provenance: None,
        relay: "wss://ours.example".into(),
    }
}

fn job(name: &str) -> JobEnd {
    JobEnd {
        job: name.into(),
        name: name.to_uppercase(),
        end: EndWord::Success,
        ended_at: NOW + 60,
        started_at: Some(NOW + 5),
        exit_code: Some(0),
        labels: vec!["ubuntu-latest".into()],
        attempt: Some((2, "worker-1".into())),
        digest: Some("sha256:abc".into()),
        logs: format!("https://blobs.example/{SHA256}"),
        tail: ("fine\n".into(), 100),
        outputs: vec![("version".into(), "1.2".into())],
        artifacts: vec![["https://blobs.example/x".into(), "a.txt".into(), "files".into()]],
    }
}

fn lines(draft: &Draft) -> Vec<Vec<String>> {
    draft.event.tags.iter().map(|tag| tag.as_slice().to_vec()).collect()
}

fn on_main() -> RunContext {
    RunContext::Ref("refs/heads/main".into())
}

#[test]
fn progress_of_a_push_names_its_ref_its_end_and_when_it_expires() {
    let us = Keys::generate();
    let report = report(&us, on_main(), StartedBy::Push);
    let draft = report.progress(Stage::InProgress(&["build".into()]), &[], NOW + 7);
    let expected = [
        tag(&["a", &address(&us), "wss://relay.example"]),
        tag(&["c", COMMIT]),
        tag(&["w", PATH, SHA256]),
        tag(&["o", "push"]),
        tag(&["r", "refs/heads/main"]),
        tag(&["d", "run-1"]),
        tag(&["status", "in_progress"]),
        tag(&["in-progress", "build"]),
        tag(&["queued_at", &NOW.to_string()]),
        tag(&["started_at", &(NOW + 5).to_string()]),
        tag(&["expiration", &(NOW + 7 + 1800).to_string()]),
    ];
    assert_eq!(lines(&draft), expected);
    assert_eq!((draft.event.kind.as_u16(), draft.event.content.as_str()), (PROGRESS, ""));
    let ended = report.progress(Stage::Concluded(EndWord::TimedOut), &[], NOW + 8);
    assert!(lines(&ended).contains(&tag(&["conclusion", "timed_out"])));
}

#[test]
fn a_service_request_is_quoted_from_the_first_job_on_and_by_no_job() {
    let (us, by) = (Keys::generate(), Keys::generate());
    let request = EventId::from_byte_array([3; 32]);
    let of = |manual| RunReport {
        provenance: Some(Provenance { manual, request, relay: "wss://r.example".into(), requester: by.public_key() }),
        ..report(&us, on_main(), StartedBy::Push)
    };
    let quoted = |draft: &Draft, marker: &str| {
        let expected = tag(&["q", &request.to_hex(), "wss://r.example", &by.public_key().to_hex(), marker]);
        lines(draft).contains(&expected)
    };
    let service = of(false);
    assert!(!quoted(&service.progress(Stage::Queued, &[], NOW), "service-request"));
    assert!(quoted(&service.progress(Stage::InProgress(&[]), &[], NOW), "service-request"));
    assert!(quoted(&service.result(EndWord::Success, &[], NOW), "service-request"));
    assert!(!quoted(&service.job_result(&job("build")), "service-request"));
    let manual = of(true);
    assert!(quoted(&manual.progress(Stage::Queued, &[], NOW), "manual-trigger"));
    assert!(quoted(&manual.job_result(&job("build")), "manual-trigger"));
}

#[test]
fn a_jobs_result_names_its_run_digest_attempt_runner_and_log() {
    let us = Keys::generate();
    let report = report(&us, on_main(), StartedBy::Push);
    let draft = report.job_result(&job("build"));
    let tags = lines(&draft);
    let run = format!("39842:{}:run-1", us.public_key());
    for expected in [
        tag(&["q", &run, "wss://ours.example"]),
        tag(&["job", "build"]),
        tag(&["name", "BUILD"]),
        tag(&["conclusion", "success"]),
        tag(&["logs", &format!("https://blobs.example/{SHA256}")]),
        tag(&["exit_code", "0"]),
        tag(&["runs_on", "ubuntu-latest"]),
        tag(&["attempt", "2"]),
        tag(&["runner", "worker-1"]),
        tag(&["digest", "sha256:abc"]),
        tag(&["output", "version", "1.2"]),
        tag(&["artifact", "https://blobs.example/x", "a.txt", "files"]),
    ] {
        assert!(tags.contains(&expected), "{expected:?} in {tags:?}");
    }
    assert_eq!(draft.event.content, "[log-tail omitted=100]\nfine\n");
    assert_eq!(draft.event.created_at.as_secs(), NOW + 60);
    assert_eq!(draft.event.id, report.job_result(&job("build")).event.id, "made twice it is one event");
}

#[test]
fn a_run_that_ended_names_each_job_by_its_result() {
    let us = Keys::generate();
    let report = report(&us, RunContext::Commit, StartedBy::Manual);
    let event = EventId::from_byte_array([5; 32]);
    let jobs = [QuotedJob { event, job: "build".into(), failed: false }];
    let tags = lines(&report.result(EndWord::Failure, &jobs, NOW + 90));
    assert!(tags.contains(&tag(&["r", "run-1"])) && tags.contains(&tag(&["o", "manual"])));
    let us = us.public_key().to_hex();
    assert!(tags.contains(&tag(&["q", &event.to_hex(), "wss://ours.example", &us, "build"])));
}

#[test]
fn attack_nothing_that_a_job_says_makes_an_event_longer_than_relays_take() {
    let us = Keys::generate();
    let report = report(&us, on_main(), StartedBy::Push);
    let bytes = |draft: &Draft| draft.event.clone().sign_with_keys(&us).unwrap().as_json().len();
    let outputs = (0..300).map(|n| (format!("{n}{}", "n".repeat(300)), "\u{1}\"\\".repeat(3000))).collect();
    let artifacts = (0..2000).map(|n| [format!("https://b.example/{n}"), "f".repeat(500), "a".repeat(100)]).collect();
    let tail = ("\u{1b}[31mé".repeat(20_000), 0);
    let large = JobEnd { tail, outputs, artifacts, name: "é".repeat(5000), ..job("build") };
    let draft = report.job_result(&large);
    assert!(bytes(&draft) <= 60_000, "{}", bytes(&draft));
    assert!(draft.event.content.starts_with("[log-tail omitted="));
    let quoted = (0..3000_u32).map(|n| {
        let event = EventId::from_byte_array([u8::try_from(n % 251).unwrap(); 32]);
        QuotedJob { event, job: format!("job-{n}"), failed: n == 2999 }
    });
    let quoted: Vec<_> = quoted.collect();
    let result = report.result(EndWord::Failure, &quoted, NOW);
    assert!(bytes(&result) <= 60_000, "{}", bytes(&result));
    assert!(lines(&result).iter().any(|tag| tag.last().unwrap() == "job-2999"), "what failed is named first");
    let tails: Vec<_> = (0..100).map(|n| (format!("job-{n}"), "\u{1}".repeat(40_000), 5)).collect();
    let live = report.live_tail(&tails, NOW);
    assert!(bytes(&live) <= 60_000, "{}", bytes(&live));
}

#[test]
fn an_output_that_is_too_long_is_named_as_left_out() {
    let us = Keys::generate();
    let report = report(&us, on_main(), StartedBy::Push);
    let outputs = vec![("long".into(), "x".repeat(8193)), ("empty".into(), String::new())];
    let tags = lines(&report.job_result(&JobEnd { outputs, ..job("build") }));
    assert!(tags.contains(&tag(&["output-omitted", "long", "oversized"])));
    assert!(tags.contains(&tag(&["output", "empty", ""])));
}

#[test]
fn the_end_of_a_log_begins_with_a_whole_character() {
    let us = Keys::generate();
    let report = report(&us, on_main(), StartedBy::Push);
    let text = "é".repeat(RESULT_TAIL);
    let draft = report.job_result(&JobEnd { tail: (text.clone(), 10), ..job("build") });
    let (head, tail) = draft.event.content.split_once('\n').unwrap();
    assert_eq!(head, format!("[log-tail omitted={}]", 10 + text.len() - tail.len()));
    assert!(tail.len() <= RESULT_TAIL && text.ends_with(tail));
    let silent = report.job_result(&JobEnd { tail: (String::new(), 0), ..job("build") });
    assert_eq!(silent.event.content, "");
}

#[test]
fn t77_the_words_for_an_end_say_what_the_other_family_says() {
    use EndWord::*;
    for (conclusion, reason, tolerated, expected) in [
        (Conclusion::Success, None, false, Success),
        (Conclusion::Skipped, None, false, Skipped),
        (Conclusion::Cancelled, Some(Reason::Cancelled("x".into())), false, Cancelled),
        (Conclusion::Cancelled, Some(Reason::Timeout), false, TimedOut),
        (Conclusion::Failure, Some(Reason::Step), false, Failure),
        (Conclusion::Failure, Some(Reason::Step), true, Neutral),
        (Conclusion::Failure, Some(Reason::Timeout), false, TimedOut),
        (Conclusion::Failure, Some(Reason::NoWorker("x".into())), false, StartupFailure),
        (Conclusion::Failure, Some(Reason::Invalid("x".into())), false, StartupFailure),
        (Conclusion::Failure, Some(Reason::WorkerLost("x".into())), false, Failure),
    ] {
        assert_eq!(EndWord::of(conclusion, reason.as_ref(), tolerated), expected, "{conclusion:?} {reason:?}");
    }
}

#[test]
fn a_pull_requests_run_names_it_and_no_ref() {
    let us = Keys::generate();
    let author = Keys::generate().public_key();
    let [root, update] = [[1; 32], [2; 32]].map(EventId::from_byte_array);
    let of = PullRequestContext { root: (root, Some(author)), parent: Some((update, 1619, Some(author))) };
    let report = report(&us, RunContext::PullRequest(of), StartedBy::PullRequest);
    let tags = lines(&report.progress(Stage::Queued, &[], NOW));
    let author = author.to_hex();
    for expected in [
        ["E", &root.to_hex()],
        ["K", "1618"],
        ["P", &author],
        ["e", &update.to_hex()],
        ["k", "1619"],
        ["p", &author],
        ["o", "pull_request"],
    ] {
        assert!(tags.contains(&tag(&expected)), "{expected:?}");
    }
    assert!(tags.iter().all(|tag| tag[0] != "r"));
}

#[test]
fn what_is_offered_served_and_withdrawn_is_said_with_an_end() {
    let us = Keys::generate();
    let key = us.public_key();
    let offer = Offer {
        software: ("longshore".into(), "1.0".into()),
        labels: ["Ubuntu-Latest".to_owned(), "ubuntu-latest".into(), "arm".into()].into(),
        admission: AdmissionPolicy::OperatorSelected,
        automatic: false,
        secrets_key: Some((key, vec!["wss://inbox.example".into()])),
    };
    let expires = |seconds: u64| tag(&["expiration", &(NOW + seconds).to_string()]);
    let expected = [
        tag(&["software", "longshore", "1.0"]),
        tag(&["W", "act"]),
        tag(&["R", "act:arm"]),
        tag(&["R", "act:ubuntu-latest"]),
        tag(&["M", "operator-selected"]),
        tag(&["X", "request-required"]),
        tag(&["B", "not-required"]),
        tag(&["secrets-key", "nip44-v2", &key.to_hex(), "wss://inbox.example"]),
        expires(1800),
    ];
    assert_eq!(lines(&advertisement(&key, &offer, NOW)), expected);
    let none = Offer { secrets_key: Some((key, Vec::new())), ..offer };
    assert!(lines(&advertisement(&key, &none, NOW)).iter().all(|tag| tag[0] != "secrets-key"), "no inbox, no key");
    let repository = RepositoryAddress::parse(&address(&us), "").unwrap();
    let listed = readiness(&key, &[repository.clone(), repository.clone()], &[key], NOW);
    assert_eq!(lines(&listed), [tag(&["a", &address(&us)]), tag(&["p", &key.to_hex()]), expires(86_400)]);
    let other = Keys::generate().public_key();
    let service = RepositoryService {
        selected: repository.clone(),
        maintainers: [key, other].into(),
        labels: Default::default(),
        workflow_paths: vec![".github/workflows/*.yml".into()],
    };
    let status = service.status(&key, NOW);
    let expected = [
        tag(&["d", &address(&us)]),
        tag(&["a", &address(&us)]),
        tag(&["a", &format!("30617:{other}:my-repo")]),
        tag(&["s", "acting"]),
        tag(&["W", "act"]),
        tag(&["R", "act:ubuntu-latest"]),
        tag(&["workflow-path", ".github/workflows/*.yml"]),
        expires(86_400),
    ];
    assert_eq!(lines(&status), expected);
    let gone = withdrawal(&key, &repository, status.event.id, NOW);
    let expected = [
        tag(&["a", &format!("39844:{key}:{}", address(&us))]),
        tag(&["e", &status.event.id.unwrap().to_hex()]),
        tag(&["k", "39844"]),
    ];
    assert_eq!((gone.event.kind.as_u16(), lines(&gone)), (5, expected.to_vec()));
}
