#![allow(clippy::unwrap_used)]

use nostr::{EventBuilder, Keys, Timestamp};

use super::*;

const COMMIT: &str = "1111111111111111111111111111111111111111";
const OTHER: &str = "2222222222222222222222222222222222222222";
const FILE: &str = "209b481c85d54c2c7946ea7016fd72eea289b0d2c8e659a15d90fcfc12a82c4b";

type Tags = Vec<Vec<String>>;

fn event(keys: &Keys, kind: u16, at: u64, tags: Tags) -> Event {
    let tags = tags.into_iter().map(|tag| Tag::parse(tag).unwrap());
    EventBuilder::new(Kind::from(kind), "")
        .tags(tags)
        .custom_created_at(Timestamp::from(at))
        .sign_with_keys(keys)
        .unwrap()
}

fn tag(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// Who takes part, and when the run began.
struct People {
    owner: Keys,
    maintainer: Keys,
    coordinator: Keys,
    stranger: Keys,
}

/// A run as it was reported, before it is signed: a test changes what it wants.
struct Made {
    request: (Keys, u16, u64, Tags),
    /// Besides.
    controls: Vec<Event>,
    job: (Keys, Tags),
    result: (Keys, Tags),
    marker: &'static str,
    /// Left out of what is found.
    missing: Option<u16>,
    more: Vec<Event>,
}

impl People {
    fn new() -> Self {
        let [owner, maintainer, coordinator, stranger] = [(); 4].map(|()| Keys::generate());
        Self { owner, maintainer, coordinator, stranger }
    }

    fn address(&self) -> Vec<String> {
        tag(&["a", &format!("30617:{}:repo", self.owner.public_key())])
    }

    fn subject(&self, started_by: &[&[&str]]) -> Tags {
        let mut tags = vec![self.address(), tag(&["c", COMMIT]), tag(&["w", "ci.yml", FILE])];
        tags.extend(started_by.iter().map(|part| tag(part)));
        tags
    }

    /// A push that a standing request covers.
    fn push(&self) -> Made {
        let request = vec![self.address(), tag(&["p", &self.coordinator.public_key().to_hex()])];
        let started: &[&[&str]] = &[&["o", "push"], &["r", "refs/heads/main"]];
        self.run((self.maintainer.clone(), 9843, 90, request), "service-request", started)
    }

    /// What a trigger asked for.
    fn triggered(&self) -> Made {
        let mut request = self.subject(&[]);
        request.push(tag(&["p", &self.coordinator.public_key().to_hex()]));
        self.run((self.maintainer.clone(), 9840, 100, request), "manual-trigger", &[&["o", "manual"]])
    }

    fn run(&self, request: (Keys, u16, u64, Tags), marker: &'static str, started_by: &[&[&str]]) -> Made {
        let mut job = self.subject(started_by);
        job.push(tag(&["q", &format!("39842:{}:run-1", self.coordinator.public_key()), ""]));
        job.extend([tag(&["job", "build"]), tag(&["conclusion", "success"]), tag(&["exit_code", "0"])]);
        job.extend([tag(&["digest", &format!("sha256:{FILE}")]), tag(&["logs", &format!("https://x/{FILE}")])]);
        let mut result = self.subject(started_by);
        result.extend([tag(&["r", "run-1"]), tag(&["conclusion", "success"]), tag(&["started_at", "100"])]);
        let (job, result) = ((self.coordinator.clone(), job), (self.coordinator.clone(), result));
        Made { request, controls: Vec::new(), job, result, marker, missing: None, more: Vec::new() }
    }
}

impl Made {
    /// The events, and the problems that are found in them.
    fn problems(self, people: &People) -> Vec<String> {
        let listed = tag(&["maintainers", &people.maintainer.public_key().to_hex()]);
        let announcement = event(&people.owner, 30617, 1, vec![tag(&["d", "repo"]), listed]);
        let (by, kind, at, tags) = self.request;
        let request = event(&by, kind, at, tags);
        let job = event(&self.job.0, 9841, 110, self.job.1);
        let mut tags = self.result.1;
        if !self.marker.is_empty() {
            tags.push(tag(&["q", &request.id.to_hex(), "", &by.public_key().to_hex(), self.marker]));
        }
        tags.push(tag(&["q", &job.id.to_hex(), "", &people.coordinator.public_key().to_hex(), "build"]));
        let result = event(&self.result.0, 9842, 110, tags);
        let mut events = vec![announcement, request, job, result.clone()];
        events.retain(|event| self.missing.is_none_or(|kind| event.kind != Kind::from(kind)));
        events.extend(self.controls);
        events.extend(self.more);
        let chain = ReportChain::assemble(events, &result).unwrap();
        chain.check().into_iter().filter(|check| check.problem.is_some()).map(|check| check.what).collect()
    }
}

fn replace(tags: &mut Tags, name: &str, with: &[&str]) {
    let place = tags.iter().position(|tag| tag[0] == name).unwrap();
    tags[place] = tag(with);
}

#[test]
fn a_push_by_service_a_trigger_and_a_run_that_quotes_nothing_hold_where_a_maintainer_asked() {
    let people = People::new();
    assert_eq!(people.push().problems(&people), <[String; 0]>::default());
    assert_eq!(people.triggered().problems(&people), <[String; 0]>::default());
    let unquoted = Made { marker: "", ..people.push() };
    assert_eq!(unquoted.problems(&people), <[String; 0]>::default(), "a standing request covers it all the same");
    let unasked = Made { marker: "", missing: Some(9843), ..people.push() };
    assert_eq!(unasked.problems(&people), ["a maintainer's request covers the run"]);
}

#[test]
fn each_of_these_forged_changes_is_found() {
    let people = People::new();
    let us = people.coordinator.public_key().to_hex();
    let stranger = people.stranger.public_key().to_hex();
    let stop = |by: &Keys, at: u64| event(by, 9844, at, vec![people.address(), tag(&["p", &us])]);
    type Change<'a> = Box<dyn Fn(&mut Made) + 'a>;
    let push: Vec<(&str, Change<'_>, &str)> = vec![
        ("another commit", Box::new(|m| replace(&mut m.job.1, "c", &["c", OTHER])), "the run's commit and workflow"),
        (
            "another workflow file",
            Box::new(|m| replace(&mut m.job.1, "w", &["w", "ci.yml", &"0".repeat(64)])),
            "the run's commit and workflow",
        ),
        (
            "a job of another run",
            Box::new(|m| replace(&mut m.job.1, "q", &["q", &format!("39842:{us}:run-2")])),
            "the one that the run's result names",
        ),
        (
            "a job by another key",
            Box::new(|m| m.job.0 = people.stranger.clone()),
            "the one that the run's result names",
        ),
        ("a job that is not there", Box::new(|m| m.missing = Some(9841)), "has its result"),
        (
            "a failed job in a success",
            Box::new(|m| replace(&mut m.job.1, "conclusion", &["conclusion", "failure"])),
            "agrees with those of the jobs",
        ),
        (
            "a failure without a failed job",
            Box::new(|m| replace(&mut m.result.1, "conclusion", &["conclusion", "failure"])),
            "agrees with those of the jobs",
        ),
        ("no digest", Box::new(|m| replace(&mut m.job.1, "digest", &["digest", "latest"])), "named by its digest"),
        ("a log without a name", Box::new(|m| m.job.1.retain(|tag| tag[0] != "logs")), "names its log"),
        ("a request by a stranger", Box::new(|m| m.request.0 = people.stranger.clone()), "maintains the repository"),
        ("a request that is not there", Box::new(|m| m.missing = Some(9843)), "is there"),
        (
            "a request to another coordinator",
            Box::new(|m| replace(&mut m.request.3, "p", &["p", &stranger])),
            "asks this coordinator to serve",
        ),
        (
            "a request for another repository",
            Box::new(|m| replace(&mut m.request.3, "a", &["a", &format!("30617:{stranger}:repo")])),
            "asks this coordinator to serve",
        ),
        ("a request that came later", Box::new(|m| m.request.2 = 101), "asked before the run began"),
        (
            "a request that was stopped",
            Box::new(|m| m.controls.push(stop(&people.owner, 95))),
            "nobody had stopped it by then",
        ),
        (
            "an address of a stranger",
            Box::new(|m| m.result.1.insert(1, tag(&["a", &format!("30617:{stranger}:repo")]))),
            "every address is that of a maintainer",
        ),
        ("an announcement that is not there", Box::new(|m| m.missing = Some(30617)), "is announced by"),
        (
            "a result by another key",
            Box::new(|m| m.result.0 = people.stranger.clone()),
            "the one that the run's result names",
        ),
        (
            "a second result",
            Box::new(|m| m.more.push(event(&people.coordinator, 9842, 111, vec![tag(&["r", "run-1"])]))),
            "gives one result",
        ),
    ];
    let triggered: Vec<(&str, Change<'_>, &str)> = vec![
        ("a trigger for another commit", Box::new(|m| replace(&mut m.request.3, "c", &["c", OTHER])), "at this commit"),
        (
            "a trigger for another file",
            Box::new(|m| replace(&mut m.request.3, "w", &["w", "ci.yml", &"0".repeat(64)])),
            "at this commit",
        ),
        ("a service request that is called a trigger", Box::new(|m| m.request.1 = 9843), "at this commit"),
    ];
    let all = push.iter().map(|of| (people.push(), of)).chain(triggered.iter().map(|of| (people.triggered(), of)));
    for (mut made, (what, change, found)) in all {
        change(&mut made);
        let problems = made.problems(&people);
        assert!(problems.iter().any(|problem| problem.contains(found)), "{what}: {problems:?}");
    }
    // Stops that end nothing: of a stranger, and of later.
    for stop in [stop(&people.stranger, 95), stop(&people.owner, 101)] {
        let mut made = people.push();
        made.controls.push(stop);
        assert_eq!(made.problems(&people), <[String; 0]>::default());
    }
}

#[test]
fn what_was_changed_after_it_was_signed_is_found() {
    let people = People::new();
    let (by, kind, at, tags) = people.push().request;
    let mut forged = event(&by, kind, at, tags);
    forged.created_at = Timestamp::from(80);
    let mut result = people.push().result.1;
    result.push(tag(&["q", &forged.id.to_hex(), "", &by.public_key().to_hex(), "service-request"]));
    let mut result = event(&people.coordinator, 9842, 110, result);
    result.content = "x".into();
    let chain = ReportChain::assemble(vec![forged, result.clone()], &result).unwrap();
    let problems: Vec<String> = chain.check().into_iter().filter_map(|check| check.problem).collect();
    assert_eq!(problems.iter().filter(|problem| *problem == "id or signature is wrong").count(), 2, "{problems:?}");
}

#[test]
fn the_commit_of_a_pull_request_is_the_one_that_it_names() {
    let people = People::new();
    let of = |event: &Event| -> Made {
        let (id, mut made) = (event.id.to_hex(), people.push());
        for tags in [&mut made.job.1, &mut made.result.1] {
            tags.retain(|tag| tag[1] != "refs/heads/main");
            replace(tags, "o", &["o", "pull_request"]);
            tags.extend([tag(&["E", &id]), tag(&["K", "1618"]), tag(&["e", &id]), tag(&["k", "1618"])]);
        }
        made
    };
    for (commit, holds) in [(COMMIT, true), (OTHER, false)] {
        let request = event(&people.stranger, 1618, 95, vec![people.address(), tag(&["c", commit])]);
        let made = Made { more: vec![request.clone()], ..of(&request) };
        let problems = made.problems(&people);
        assert_eq!(problems.is_empty(), holds, "{problems:?}");
        assert_eq!(of(&request).problems(&people), ["the pull request names the commit"], "where it is not found");
    }
}

#[test]
fn logs_and_files_are_claimed_by_their_hashes() {
    let people = People::new();
    let mut made = people.push();
    made.job.1.push(tag(&["artifact", &format!("https://x/{FILE}.zip"), "a.zip", "a"]));
    let job = event(&made.job.0, 9841, 110, made.job.1);
    let mut tags = made.result.1;
    tags.push(tag(&["q", &job.id.to_hex(), "", &people.coordinator.public_key().to_hex(), "build"]));
    let result = event(&people.coordinator, 9842, 110, tags);
    let chain = ReportChain::assemble(vec![job.clone(), result], &job).unwrap();
    let claims: Vec<(String, String)> = chain.blobs().into_iter().map(|claim| (claim.what, claim.sha256)).collect();
    let wanted = [("the log of the job build", FILE), ("a.zip of the job build", FILE)];
    assert_eq!(claims, wanted.map(|(what, hash)| (what.to_owned(), hash.to_owned())));
    assert_eq!(log_end("[log-tail omitted=7]\nend\n"), Some((7, "end\n".into())));
    assert_eq!(log_end("end"), None);
}
