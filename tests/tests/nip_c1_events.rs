//! What we say in NIP-C1, read by its strict readers.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use longshore_tests::oracle::ngit;
use nostr::{Event, EventBuilder, EventId, Keys, Kind, Tag, Timestamp};
use nostr_client::protocol::{
    Draft,
    nip_c1::{
        AdmissionPolicy, EndWord, JobEnd, Offer, Provenance, PullRequestContext, QuotedJob, RepositoryAddress,
        RepositoryService, RunContext, RunReport, RunSubject, Stage, StartedBy, WorkflowFile, advertisement, readiness,
    },
};

const NOW: u64 = 1_780_000_000;
const SHA256: &str = "2222222222222222222222222222222222222222222222222222222222222222";

fn signed(draft: &Draft, keys: &Keys) -> Event {
    draft.event.clone().sign_with_keys(keys).unwrap()
}

fn report(us: &Keys, context: RunContext, started_by: StartedBy, provenance: Option<Provenance>) -> RunReport {
    let address = format!("30617:{}:my-repo", us.public_key());
    RunReport {
        run: "run-1".into(),
        us: us.public_key(),
        subject: RunSubject {
            repositories: vec![RepositoryAddress::parse(&address, "wss://relay.example").unwrap()],
            objects: vec!["1".repeat(40)],
            workflow: WorkflowFile { path: ".ngit/act/workflows/ci.yml".into(), sha256: SHA256.into() },
            context,
        },
        started_by,
        waits: None,
        queued_at: NOW,
        started_at: Some(NOW + 5),
        provenance,
        relay: "wss://ours.example".into(),
    }
}

fn job(name: &str, end: EndWord) -> JobEnd {
    JobEnd {
        job: name.into(),
        name: name.into(),
        end,
        ended_at: NOW + 60,
        started_at: Some(NOW + 5),
        exit_code: Some(0),
        labels: vec!["ubuntu-latest".into()],
        attempt: Some((1, "worker".into())),
        digest: None,
        logs: format!("https://blobs.example/{SHA256}"),
        tail: ("fine".into(), 3),
        outputs: vec![("a".into(), "x".repeat(9000)), ("b".into(), String::new())],
        artifacts: Vec::new(),
    }
}

#[test]
fn t71_every_event_of_a_run_is_taken_by_strict_readers_and_the_run_is_shown_as_ended() {
    let (us, by) = (Keys::generate(), Keys::generate());
    let id = EventId::from_byte_array([9; 32]);
    let pull_request =
        PullRequestContext { root: (id, Some(by.public_key())), parent: Some((id, 1618, Some(by.public_key()))) };
    let on_main = RunContext::Ref("refs/heads/main".into());
    for (context, started_by, manual) in [
        (on_main.clone(), StartedBy::Push, Some(false)),
        (on_main, StartedBy::Manual, Some(true)),
        (RunContext::Commit, StartedBy::Schedule, None),
        (RunContext::PullRequest(pull_request), StartedBy::PullRequest, Some(false)),
    ] {
        let provenance = |manual| Provenance { manual, request: id, relay: String::new(), requester: by.public_key() };
        let report = report(&us, context, started_by, manual.map(provenance));
        let ended = [job("build", EndWord::Success), job("test", EndWord::Failure)];
        let results: Vec<Event> = ended.iter().map(|job| signed(&report.job_result(job), &us)).collect();
        let quoted: Vec<QuotedJob> = results
            .iter()
            .zip(["build", "test"])
            .map(|(event, job)| QuotedJob { event: event.id, job: job.into(), failed: job == "test" })
            .collect();
        let mut events = vec![
            signed(&report.progress(Stage::Queued, &[], NOW), &us),
            signed(&report.progress(Stage::InProgress(&["build".into(), "test".into()]), &quoted[..1], NOW + 5), &us),
            signed(&report.live_tail(&[("build".into(), "text".into(), 0)], NOW + 6), &us),
        ];
        ngit::judge_all(&events).unwrap();
        let shown = |events: &[Event]| ngit::shown(events, &us.public_key(), "run-1", NOW + 100);
        assert!(shown(&events).spins);
        events.extend(results);
        events.push(signed(&report.result(EndWord::Failure, &quoted, NOW + 60), &us));
        events.push(signed(&report.progress(Stage::Concluded(EndWord::Failure), &quoted, NOW + 61), &us));
        ngit::judge_all(&events).unwrap();
        let jobs = vec![("test".to_owned(), "failure".to_owned()), ("build".into(), "success".into())];
        assert_eq!(shown(&events), ngit::Shown { conclusion: Some("failure".into()), jobs, spins: false });
    }
}

#[test]
fn t76_the_progress_of_a_process_that_died_is_gone_within_half_an_hour() {
    let us = Keys::generate();
    let report = report(&us, RunContext::Commit, StartedBy::Manual, None);
    let last = [signed(&report.progress(Stage::InProgress(&["build".into()]), &[], NOW), &us)];
    let spins = |now| ngit::shown(&last, &us.public_key(), "run-1", now).spins;
    assert!(spins(NOW + 1799) && !spins(NOW + 1800));
}

#[test]
fn what_is_offered_and_served_is_taken_by_strict_readers() {
    let us = Keys::generate();
    let key = us.public_key();
    let offer = Offer {
        software: ("longshore".into(), "1".into()),
        labels: ["ubuntu-latest".to_owned()].into(),
        admission: AdmissionPolicy::MaintainerRequest,
        automatic: true,
        secrets_key: None,
    };
    let repository = RepositoryAddress::parse(&format!("30617:{key}:my-repo"), "wss://relay.example").unwrap();
    let service = RepositoryService {
        selected: repository.clone(),
        maintainers: (0..9).map(|_| Keys::generate().public_key()).collect(),
        labels: offer.labels.clone(),
        workflow_paths: vec![".github/workflows/*.yml".into()],
    };
    let secrets_key = Some((key, vec!["wss://inbox.example".into()]));
    for draft in [
        advertisement(&key, &offer, NOW),
        advertisement(&key, &Offer { secrets_key, ..offer.clone() }, NOW),
        readiness(&key, &[], &[], NOW),
        readiness(&key, &[repository.clone(), repository], &[key, key], NOW),
        service.status(&key, NOW),
    ] {
        ngit::judge(&signed(&draft, &us)).unwrap();
    }
}

#[test]
fn the_readers_drop_what_breaks_a_rule() {
    let us = Keys::generate();
    let id = EventId::from_byte_array([9; 32]);
    let by = Provenance { manual: false, request: id, relay: String::new(), requester: us.public_key() };
    let report = report(&us, RunContext::Ref("refs/heads/main".into()), StartedBy::Push, Some(by));
    let progress = signed(&report.progress(Stage::InProgress(&[]), &[], NOW), &us);
    let result = signed(&report.result(EndWord::Success, &[], NOW), &us);
    let of_job = signed(&report.job_result(&job("build", EndWord::Success)), &us);
    let changed = |event: &Event, without: &str, more: &[&[&str]]| {
        let kept = event.tags.iter().filter(|tag| tag.as_slice().first().is_none_or(|name| name != without)).cloned();
        let tags = kept.chain(more.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()));
        let builder = EventBuilder::new(event.kind, &event.content).tags(tags).custom_created_at(event.created_at);
        builder.sign_with_keys(&us).unwrap()
    };
    let service = ["q", &id.to_hex(), "", &us.public_key().to_hex(), "service-request"].map(str::to_owned);
    let service: Vec<&str> = service.iter().map(String::as_str).collect();
    let late = (NOW + 1801).to_string();
    for (event, without, more) in [
        (&progress, "a", &[][..]),
        (&progress, "c", &[&["c", "abc"][..]][..]),
        (&progress, "w", &[&["w", "ci.yml"]]),
        (&progress, "o", &[&["o", "workflow_dispatch"]]),
        (&progress, "r", &[]),
        (&progress, "", &[&["E", &id.to_hex()]]),
        (&progress, "expiration", &[&["expiration", &late]]),
        (&progress, "", &[&["conclusion", "success"]]),
        (&progress, "status", &[&["status", "queued"]]),
        (&progress, "", &[&service]),
        (&result, "r", &[&["r", "refs/heads/main"]]),
        (&result, "", &[&["r", "another run"]]),
        (&result, "conclusion", &[&["conclusion", "completed"]]),
        (&result, "", &[&["queued_at", "soon"]]),
        (&of_job, "", &[&["d", "run-1"]]),
        (&of_job, "", &[&["job", "again"]]),
        (&of_job, "q", &[]),
        (&of_job, "", &[&service]),
        (&of_job, "", &[&["output", "b", "again"]]),
        (&of_job, "", &[&["logs", "https://elsewhere.example"]]),
    ] {
        let event = changed(event, without, more);
        assert!(ngit::judge(&event).is_err(), "without {without}, with {more:?}: {event:?}");
    }
    let with_content = EventBuilder::new(Kind::from(9842), "x").tags(result.tags.iter().cloned());
    let with_content = with_content.custom_created_at(Timestamp::from(NOW)).sign_with_keys(&us).unwrap();
    assert!(ngit::judge(&with_content).is_err());
    // Times are of no order that a reader asks for, but what one says is what it shows.
    ngit::judge_all([&progress, &result, &of_job]).unwrap();
}
