//! What was said of one run in NIP-C1, and what must hold in it: the results of run and jobs (9842, 9841), the request that they
//! stand on (9843, or 9840), and the announcements that say whose request counts.
//!
//! Pure: events go in, a list of checks comes out.

use std::collections::{BTreeMap, BTreeSet};

use nostr::{Event, EventId, Kind, PublicKey, Tag};
use nostr_client::protocol::nip_c1::{
    JOB_RESULT, MANUAL_TRIGGER, ManualTrigger, PROGRESS, RepositoryAddress, SERVICE_REQUEST, SERVICE_STOP,
    ServiceControl, WORKFLOW_RESULT, standing_request,
};
use source::announcement::maintainers;

use super::{
    chain_check::{BlobClaim, ChainCheck},
    event_chain::{describe, tag_value},
};

/// Words of a job's end that a run which succeeded can't have.
const BAD: [&str; 4] = ["failure", "cancelled", "timed_out", "startup_failure"];
/// What begins the end of a log in a job's result.
const TAIL: &str = "[log-tail omitted=";

/// All that was said of a run, and what it stands on.
#[derive(Debug)]
pub(crate) struct ReportChain {
    /// Every event that counts here.
    pub(crate) events: Vec<Event>,
    result: Event,
    run: String,
}

/// A quoted event: `["q", id, relay, key, marker]`.
struct Quote<'a> {
    id: &'a str,
    key: &'a str,
    marker: &'a str,
}

impl ReportChain {
    /// Whether an event is one that such a chain is found by.
    pub(crate) fn begins_with(event: &Event) -> bool {
        [MANUAL_TRIGGER, JOB_RESULT, WORKFLOW_RESULT].contains(&event.kind.as_u16())
    }

    /// What was said of the run that an event is of: its result, that of a job, or the trigger that it was started by.
    ///
    /// # Errors
    /// There is no result of the run.
    pub(crate) fn assemble(events: Vec<Event>, of: &Event) -> Result<Self, String> {
        let events: BTreeMap<EventId, Event> = events.into_iter().map(|event| (event.id, event)).collect();
        let is_it = |result: &&Event| match of.kind.as_u16() {
            WORKFLOW_RESULT => result.id == of.id,
            JOB_RESULT => run_of_job(of).is_some_and(|(by, run)| result.pubkey == by && run_of(result) == run),
            _ => quotes(result).any(|quote| quote.id == of.id.to_hex() && quote.marker == "manual-trigger"),
        };
        let found = events.values().filter(|event| event.kind == Kind::from(WORKFLOW_RESULT)).find(is_it);
        let result = found.ok_or_else(|| {
            format!("no result (9842) was found of the run that {} is of: name a relay that has it with --relay", of.id)
        })?;
        let (result, run) = (result.clone(), run_of(result).to_owned());
        Ok(Self { events: events.into_values().collect(), result, run })
    }

    /// Checks ids, signatures and every link.
    pub(crate) fn check(&self) -> Vec<ChainCheck> {
        let mut checks = Checks(Vec::new());
        for event in self.events.iter().filter(|event| self.counts(event)) {
            checks.hold(describe(event), event.verify().is_ok(), "id or signature is wrong");
        }
        let others = self.of(WORKFLOW_RESULT).filter(|event| event.pubkey == self.result.pubkey);
        let results = others.filter(|event| run_of(event) == self.run).count();
        checks.hold(
            format!("the coordinator gives one result of the run {}", self.run),
            !self.run.is_empty() && results == 1,
            "there is none, or several",
        );
        let keys = self.check_repository(&mut checks);
        self.check_jobs(&mut checks);
        self.check_request(&mut checks, &keys);
        self.check_pull_request(&mut checks);
        checks.0
    }

    /// Logs and files that the results of jobs name.
    pub(crate) fn blobs(&self) -> Vec<BlobClaim> {
        let mut claims = Vec::new();
        for job in self.quoted_jobs().filter_map(|quote| self.event(quote.id)) {
            let name = tag_value(job, "job");
            let url = tag_value(job, "logs");
            if !url.is_empty() {
                claims.push(BlobClaim::new(format!("the log of the job {name}"), url, log_end(&job.content)));
            }
            for [_, url, file, ..] in all(job, "artifact").filter_map(|tag| tag.first_chunk::<3>()) {
                claims.push(BlobClaim::new(format!("{file} of the job {name}"), url.clone(), None));
            }
        }
        claims
    }

    /// Addresses of one repository; all of them are of its maintainers, whom the announcements name. Gives their keys.
    fn check_repository(&self, checks: &mut Checks) -> BTreeSet<String> {
        let addresses = addresses(&self.result);
        let Some((owner, identifier)) = addresses.first().cloned() else {
            checks.hold("the result is of a repository".into(), false, "it names none");
            return BTreeSet::new();
        };
        // What can't be proven to be theirs says nothing of who they are.
        let announced: Vec<Event> = self.of(30617).filter(|event| event.verify().is_ok()).cloned().collect();
        let is_owners = |event: &Event| event.pubkey.to_hex() == owner && event.tags.identifier() == Some(&identifier);
        checks.hold(
            format!("the repository {identifier} is announced by {owner}"),
            announced.iter().any(is_owners),
            "no such announcement (30617) was found",
        );
        let keys = maintainers(&owner, &identifier, &announced, true);
        let all = addresses.iter().all(|(key, of)| keys.contains(key) && *of == identifier);
        checks.hold("every address is that of a maintainer".into(), all, "one is somebody else's");
        keys
    }

    fn check_jobs(&self, checks: &mut Checks) {
        let subject = subject(&self.result);
        let mut ends = Vec::new();
        for quote in self.quoted_jobs() {
            let name = quote.marker;
            let Some(job) = self.event(quote.id).filter(|event| event.kind == Kind::from(JOB_RESULT)) else {
                checks.hold(format!("the job {name} has its result"), false, "it was not found");
                continue;
            };
            let of_this = run_of_job(job).is_some_and(|(by, run)| by == self.result.pubkey && run == self.run);
            checks.hold(
                format!("the job {name} is the one that the run's result names"),
                of_this && tag_value(job, "job") == name && job.pubkey.to_hex() == quote.key,
                "it is of another run or job, or another key signed it",
            );
            checks.hold(
                format!("the job {name} is of the run's commit and workflow"),
                self::subject(job) == subject,
                "repository, commit, workflow file or what started it is another",
            );
            let digest = tag_value(job, "digest");
            let is_digest = digest.rsplit_once("sha256:").is_some_and(|(_, hash)| is_sha256(hash));
            checks.hold(
                format!("the image of the job {name} is named by its digest"),
                digest.is_empty() || is_digest,
                "what stands there is none",
            );
            if !tag_value(job, "exit_code").is_empty() {
                checks.hold(format!("the job {name} names its log"), !tag_value(job, "logs").is_empty(), "it does not");
            }
            ends.push(tag_value(job, "conclusion"));
        }
        let bad = |end: &String| BAD.contains(&end.as_str());
        let agrees = match tag_value(&self.result, "conclusion").as_str() {
            "success" | "neutral" => !ends.iter().any(bad),
            "failure" => ends.is_empty() || ends.iter().any(bad),
            _ => true,
        };
        checks.hold("the result agrees with those of the jobs".into(), agrees, "they contradict each other");
    }

    /// The request is a maintainer's, for this coordinator and this run, and held when the run began.
    fn check_request(&self, checks: &mut Checks, keys: &BTreeSet<String>) {
        let Some(began) = ["started_at", "queued_at"].iter().find_map(|at| tag_value(&self.result, at).parse().ok())
        else {
            return checks.hold("the result says when the run began".into(), false, "it does not");
        };
        let is_maintainer = |key: &PublicKey| keys.contains(&key.to_hex());
        let provenance: Vec<Quote<'_>> = quotes(&self.result).filter(|quote| is_request(quote.marker)).collect();
        let quote = match &provenance[..] {
            [] => {
                let covered = standing_request(&self.controls(began), is_maintainer).is_some();
                let problem = "nobody's request is quoted, and none of a maintainer's covers it: it stands on the word of the \
                               coordinator's operator alone";
                return checks.hold("a maintainer's request covers the run".into(), covered, problem);
            }
            [one] => one,
            _ => return checks.hold("one request is quoted".into(), false, "there are several"),
        };
        let request = self.event(quote.id);
        let Some(request) = request.filter(|request| request.verify().is_ok()) else {
            return checks.hold(format!("the request {} is there", quote.id), false, "it was not found, or is forged");
        };
        let by = request.pubkey.to_hex();
        checks.hold(format!("the request is by {by}"), by == quote.key, "the result names another key");
        checks.hold(
            "who asked maintains the repository".into(),
            is_maintainer(&request.pubkey),
            "no announcement says so",
        );
        let (what, holds) = match quote.marker {
            "manual-trigger" => {
                ("the trigger asks this coordinator for this workflow at this commit", self.is_trigger(request))
            }
            _ => ("the request asks this coordinator to serve this repository", self.is_service(request)),
        };
        checks.hold(what.into(), holds, "it asks for something else, or somebody else, or breaks a rule of its kind");
        let at = request.created_at.as_secs();
        checks.hold("it was asked before the run began".into(), at <= began, "it was asked later");
        if quote.marker == "service-request" {
            let stops = self.controls(began);
            let mut stops = stops.iter().filter(|control| !control.starts);
            let order = ServiceControl::read(request).map(|request| request.order());
            let ends = |stop: &&ServiceControl| {
                (stop.author == request.pubkey || is_maintainer(&stop.author))
                    && order.as_ref().is_ok_and(|order| stop.order() > *order)
            };
            checks.hold(
                "nobody had stopped it by then".into(),
                !stops.any(|stop| ends(&stop)),
                "a stop (9844) came before",
            );
        }
    }

    fn is_trigger(&self, request: &Event) -> bool {
        let Ok(trigger) = ManualTrigger::read(request) else { return false };
        let wanted = &trigger.subject;
        let of_this = |named: &RepositoryAddress| {
            addresses(&self.result).contains(&(named.owner.to_hex(), named.identifier.clone()))
        };
        let [path, hash] = [1, 2].map(|place| all(&self.result, "w").next().and_then(|tag| tag.get(place)));
        trigger.coordinator == self.result.pubkey
            && wanted.repositories.iter().any(of_this)
            && path == Some(&wanted.workflow.path)
            && hash == Some(&wanted.workflow.sha256)
            && all(&self.result, "c").next().and_then(|tag| tag.get(1)) == wanted.objects.first()
            && tag_value(request, "E") == tag_value(&self.result, "E")
    }

    fn is_service(&self, request: &Event) -> bool {
        ServiceControl::read(request).is_ok_and(|control| control.starts && self.is_about_us(&control))
    }

    fn is_about_us(&self, control: &ServiceControl) -> bool {
        let named = (control.repository.owner.to_hex(), control.repository.identifier.clone());
        control.coordinator == self.result.pubkey && addresses(&self.result).contains(&named)
    }

    /// Requests and stops for this coordinator and repository until a time (s).
    fn controls(&self, until: u64) -> Vec<ServiceControl> {
        let all = self.of(SERVICE_REQUEST).chain(self.of(SERVICE_STOP)).filter(|event| event.verify().is_ok());
        let read = all.filter_map(|event| ServiceControl::read(event).ok());
        read.filter(|control| control.created_at <= until && self.is_about_us(control)).collect()
    }

    /// The commit is the one that the pull request, or its update, names.
    fn check_pull_request(&self, checks: &mut Checks) {
        let root = tag_value(&self.result, "E");
        if root.is_empty() {
            return;
        }
        let parent = Some(tag_value(&self.result, "e")).filter(|id| !id.is_empty()).unwrap_or_else(|| root.clone());
        let commit = tag_value(&self.result, "c");
        let supplied = self.event(&parent).filter(|event| event.verify().is_ok());
        let of_root = supplied.is_some_and(|event| event.id.to_hex() == root || tag_value(event, "E") == root);
        let names = supplied.is_some_and(|event| all(event, "c").any(|tag| tag.get(1) == Some(&commit)));
        checks.hold("the pull request names the commit".into(), of_root && names, "it was not found, or names another");
    }

    /// Whether an event is one that the checks rest on.
    fn counts(&self, event: &Event) -> bool {
        let id = event.id.to_hex();
        let named = [tag_value(&self.result, "E"), tag_value(&self.result, "e")];
        event.id == self.result.id || quotes(&self.result).any(|quote| quote.id == id) || named.contains(&id)
    }

    fn quoted_jobs(&self) -> impl Iterator<Item = Quote<'_>> {
        quotes(&self.result).filter(|quote| !quote.marker.is_empty() && !is_request(quote.marker))
    }

    fn event(&self, id: &str) -> Option<&Event> {
        self.events.iter().find(|event| event.id.to_hex() == id)
    }

    fn of(&self, kind: u16) -> impl Iterator<Item = &Event> {
        self.events.iter().filter(move |event| event.kind == Kind::from(kind))
    }
}

struct Checks(Vec<ChainCheck>);

impl Checks {
    fn hold(&mut self, what: String, holds: bool, problem: &str) {
        self.0.push(ChainCheck { what, problem: (!holds).then(|| problem.to_owned()) });
    }
}

/// The coordinator and the run that the result of a job names.
pub(crate) fn run_of_job(job: &Event) -> Option<(PublicKey, String)> {
    all(job, "q").find_map(|tag| {
        let mut parts = tag.get(1)?.splitn(3, ':');
        let kind = parts.next()?.parse::<u16>().ok().filter(|kind| *kind == PROGRESS);
        let key = PublicKey::from_hex(parts.next()?).ok()?;
        Some((key, parts.next()?.to_owned())).filter(|_| kind.is_some())
    })
}

/// The run that a result is of; empty: it names none.
pub(crate) fn run_of(result: &Event) -> &str {
    let named = all(result, "r").filter_map(|tag| tag.get(1));
    named.map(String::as_str).find(|name| !name.starts_with("refs/")).unwrap_or_default()
}

/// Owners and identifiers of the announcements that an event names.
pub(crate) fn addresses(event: &Event) -> Vec<(String, String)> {
    let named = all(event, "a").filter_map(|tag| RepositoryAddress::parse(tag.get(1)?, "").ok());
    named.map(|address| (address.owner.to_hex(), address.identifier)).collect()
}

/// Ids that a result quotes, and those of its pull request.
pub(crate) fn named_events(result: &Event) -> Vec<EventId> {
    let quoted = quotes(result).map(|quote| quote.id.to_owned());
    let named = ["E", "e"].map(|name| tag_value(result, name));
    quoted.chain(named).filter_map(|id| EventId::from_hex(&id).ok()).collect()
}

/// What a run is of, and what started it: the same in all that is said of it. Hints of relays may differ.
fn subject(event: &Event) -> Vec<Vec<&str>> {
    let is_part = |tag: &&[String]| {
        let [name, value] = [0, 1].map(|place| tag.get(place).map(String::as_str).unwrap_or_default());
        ["a", "c", "w", "o", "E", "K", "P", "e", "k", "p"].contains(&name)
            || (name == "r" && value.starts_with("refs/"))
    };
    let kept = |tag: &'_ [String]| if tag.first().is_some_and(|name| name == "w") { 3 } else { 2 };
    let parts = event.tags.iter().map(Tag::as_slice).filter(is_part);
    parts.map(|tag| tag.iter().take(kept(tag)).map(String::as_str).collect()).collect()
}

/// How many bytes of a log a result leaves out before its end, and that end.
fn log_end(content: &str) -> Option<(u64, String)> {
    let (omitted, end) = content.strip_prefix(TAIL)?.split_once("]\n")?;
    Some((omitted.parse().ok()?, end.to_owned()))
}

fn quotes(event: &Event) -> impl Iterator<Item = Quote<'_>> {
    let quoted = all(event, "q").filter(|tag| tag.get(1).is_some_and(|id| is_sha256(id)));
    quoted.map(|tag| {
        let [id, key, marker] = [1, 3, 4].map(|place| tag.get(place).map(String::as_str).unwrap_or_default());
        Quote { id, key, marker }
    })
}

fn is_request(marker: &str) -> bool {
    ["service-request", "manual-trigger"].contains(&marker)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn all<'a>(event: &'a Event, name: &str) -> impl Iterator<Item = &'a [String]> {
    event.tags.iter().map(Tag::as_slice).filter(move |tag| tag.first().is_some_and(|first| first == name))
}

#[cfg(test)]
mod tests;
