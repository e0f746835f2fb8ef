//! NIP-C1: coordinators, services of repositories, and the results of runs and their jobs. Pure.
//!
//! What an event must say to be taken is the reader's part here: each kind has a type whose `read` checks every rule and says
//! which one is broken. What we say is made as drafts, whose readers are as strict.
//!
//! The numbers of the kinds are those of a draft, and stand in this module alone.

use nostr::{Alphabet, Event, EventId, Filter, Kind, PublicKey, SingleLetterTag, Timestamp};

use crate::{
    protocol::{
        Draft, EventMeaning, Ignored, Protocol, ReadContext, Refusal, Rejection, Secrets, bounds::out_of_bounds,
    },
    tags,
};
use config::Limits;
use domain::id::RunId;
use domain::run::{FinalizedLog, Millis, NostrOrigin, OriginEvent, PinnedWorkflow, Repository, RunRequest, RunUpdate};

pub use self::{
    availability::{AdmissionPolicy, Offer, RepositoryService, ServiceOffer, advertisement, readiness, withdrawal},
    event_tags::Malformed,
    manual_trigger::ManualTrigger,
    of_run::{PublishedReports, is_by_service, is_reported, reports_change},
    report::{EndWord, JobEnd, LIVE_JOB_TAIL, Provenance, QuotedJob, RESULT_TAIL, RunReport, Stage},
    run_subject::{PullRequestContext, RepositoryAddress, RunContext, RunSubject, StartedBy, WorkflowFile},
    secret_update::{SecretUpdate, SecretsKeys, UpdateOrder},
    service_control::{ServiceControl, standing_request},
};

mod availability;
mod event_tags;
mod manual_trigger;
mod of_run;
mod report;
mod run_subject;
mod secret_update;
mod service_control;

/// Request to run one workflow once.
pub const MANUAL_TRIGGER: u16 = 9840;
/// Result of a job.
pub const JOB_RESULT: u16 = 9841;
/// Result of a run.
pub const WORKFLOW_RESULT: u16 = 9842;
/// Request for standing service.
pub const SERVICE_REQUEST: u16 = 9843;
/// Its end.
pub const SERVICE_STOP: u16 = 9844;
/// Advertisement of a coordinator, replaceable.
pub const ADVERTISEMENT: u16 = 19843;
/// Repositories that may ask for service, replaceable.
pub const READINESS: u16 = 19844;
/// Secrets of a maintainer, ephemeral.
pub const SECRET_UPDATE: u16 = 29846;
/// Ends of the logs of a run, addressable by its id.
pub const LIVE_TAIL: u16 = 39841;
/// Progress of a run, addressable by its id.
pub const PROGRESS: u16 = 39842;
/// Status of a repository, addressable by its address.
pub const REPOSITORY_STATUS: u16 = 39844;

/// How long (s) an advertisement, a run's progress and the ends of logs may live; and lists and statuses.
pub const LONGEST_ADVERTISED: u64 = 30 * 60;
/// How long (s) the list of readiness and a repository's status may live.
pub const LONGEST_STATUS: u64 = 86_400;

/// Name of the protocol in stored runs.
pub const NAME: &str = "nip_c1";

/// Relays that a request names at most.
const RELAYS: usize = 16;

/// The protocol. It has no word for a refusal: what is not run is answered with nothing.
#[derive(Debug, Clone, Copy)]
pub struct NipC1;

impl Protocol for NipC1 {
    fn name(&self) -> &'static str {
        NAME
    }

    fn kinds(&self) -> &'static [u16] {
        &[MANUAL_TRIGGER, SERVICE_REQUEST, SERVICE_STOP, SECRET_UPDATE]
    }

    fn filters(&self, us: &PublicKey, since: Timestamp) -> Vec<Filter> {
        let of = |kinds: &[u16]| Filter::new().kinds(kinds.iter().copied().map(Kind::from)).pubkey(*us);
        // What was asked for once holds until it is stopped, however long ago that was.
        vec![of(&[MANUAL_TRIGGER, SECRET_UPDATE]).since(since), of(&[SERVICE_REQUEST, SERVICE_STOP])]
    }

    fn read(&self, event: &Event, context: &ReadContext<'_>) -> EventMeaning {
        let read = match event.kind.as_u16() {
            MANUAL_TRIGGER => within_bounds(event, context.limits, context.now)
                .and_then(|()| trigger(event, context))
                .map(|_| EventMeaning::Request { partner: None }),
            SECRET_UPDATE => within_bounds(event, context.limits, context.now)
                .and_then(|()| ours(SecretUpdate::coordinator(event), |us| *us, event, context))
                .map(|_| EventMeaning::SecretUpdate),
            _ => within_bounds(event, &Limits { age: u64::MAX, ..context.limits.clone() }, context.now)
                .and_then(|()| ours(ServiceControl::read(event), |control| control.coordinator, event, context))
                .map(|_| EventMeaning::Service),
        };
        read.unwrap_or_else(|why| EventMeaning::Rejected(Rejection::Ignored(why)))
    }

    fn request(
        &self,
        event: &Event,
        _partner: Option<&Event>,
        context: &ReadContext<'_>,
    ) -> Result<(RunRequest, Secrets), Rejection> {
        let ManualTrigger { subject, .. } = trigger(event, context).map_err(Rejection::Ignored)?;
        // Both are there in what was read.
        let (Some(repository), Some((commit, objects))) = (subject.repositories.first(), subject.objects.split_first())
        else {
            return Err(Rejection::Ignored(Ignored::Malformed));
        };
        let reference = match subject.context {
            RunContext::Ref(reference) => Some(reference),
            RunContext::Commit | RunContext::PullRequest(_) => None,
        };
        let request = RunRequest {
            id: event.id.to_hex(),
            origin: self.origin(event).into(),
            repository: Repository {
                address: repository.address(),
                owner: repository.owner.to_hex(),
                identifier: repository.identifier.clone(),
                relays: relays_named(event),
            },
            workflow: subject.workflow.path,
            commit: commit.to_ascii_lowercase(),
            reference,
            trigger: Some("manual".into()),
            actor: event.pubkey.to_hex(),
            pinned: Some(PinnedWorkflow { sha256: subject.workflow.sha256, objects: objects.to_vec() }),
            received_at: context.now,
            ..RunRequest::default()
        };
        Ok((request, Secrets::default()))
    }

    fn repository(&self, event: &Event, _partner: Option<&Event>) -> Option<String> {
        ManualTrigger::read(event).ok()?.subject.repositories.first().map(RepositoryAddress::address)
    }

    fn origin(&self, event: &Event) -> NostrOrigin {
        NostrOrigin {
            protocol: NAME.to_owned(),
            request: OriginEvent { kind: event.kind.as_u16(), id: event.id.to_hex() },
            run: None,
            author: event.pubkey.to_hex(),
            publisher: None,
            relays: relays_named(event),
            details: serde_json::Value::Null,
        }
    }

    fn partner_missing(&self, partner: EventId, minutes: u64) -> String {
        format!("the event {partner} came to none of our relays within {minutes} minutes")
    }

    fn report(&self, _run: &RunId, _origin: &NostrOrigin, _update: &RunUpdate, _us: &PublicKey) -> Vec<Draft> {
        // What is said of runs does not depend on who asked: it is made of the run as it stands.
        Vec::new()
    }

    fn refuse(&self, _refusal: &Refusal, _log: Option<&FinalizedLog>, _stamp: u64, _us: &PublicKey) -> Vec<Draft> {
        Vec::new()
    }

    fn answer_filters(&self, us: &PublicKey, requests: Option<&[EventId]>) -> Vec<Filter> {
        let quoted = SingleLetterTag::lowercase(Alphabet::Q);
        let answers = Filter::new().kind(Kind::from(WORKFLOW_RESULT)).author(*us);
        vec![match requests {
            Some(requests) => answers.custom_tags(quoted, requests.iter().map(EventId::to_hex)),
            None => answers,
        }]
    }

    fn answered(&self, event: &Event, us: &PublicKey) -> Option<EventId> {
        if event.pubkey != *us || event.kind.as_u16() != WORKFLOW_RESULT {
            return None;
        }
        let manual = |tag: &&[String]| tag.get(4).is_some_and(|marker| marker == "manual-trigger");
        tags::all(event, "q").find(manual).and_then(|tag| EventId::from_hex(tag.get(1)?).ok())
    }
}

fn within_bounds(event: &Event, limits: &Limits, now: Millis) -> Result<(), Ignored> {
    match out_of_bounds(event, limits, now) {
        Some(reason) => {
            tracing::debug!(event = %event.id, kind = %event.kind, reason, "not read");
            Err(Ignored::TooLong)
        }
        None => Ok(()),
    }
}

/// A manual trigger for us, of a kind that can be run.
fn trigger(event: &Event, context: &ReadContext<'_>) -> Result<ManualTrigger, Ignored> {
    let read = ManualTrigger::read(event).and_then(|trigger| match trigger.subject.context {
        RunContext::PullRequest(_) => {
            Err(Malformed::Unsupported("it is for a pull request, and those are not run by hand here"))
        }
        RunContext::Commit | RunContext::Ref(_) => Ok(trigger),
    });
    ours(read, |trigger| trigger.coordinator, event, context)
}

/// What was read, where it is addressed to us. The rule that it breaks otherwise is noted for the operator.
fn ours<T>(
    read: Result<T, Malformed>,
    coordinator: impl Fn(&T) -> PublicKey,
    event: &Event,
    context: &ReadContext<'_>,
) -> Result<T, Ignored> {
    match read {
        Ok(read) if coordinator(&read) == context.keys.public_key() => Ok(read),
        Ok(_) => Err(Ignored::NotOurs),
        Err(why) => {
            tracing::debug!(event = %event.id, kind = %event.kind, "not taken: {why}");
            Err(Ignored::Malformed)
        }
    }
}

/// Relays that the `a` tags name.
fn relays_named(event: &Event) -> Vec<String> {
    let hints = tags::all(event, "a").filter_map(|tag| tag.get(2)).map(|url| url.trim_end_matches('/').to_owned());
    let usable = hints.filter(|url| url.len() <= 256 && (url.starts_with("wss://") || url.starts_with("ws://")));
    usable.take(RELAYS).collect::<indexmap::IndexSet<_>>().into_iter().collect()
}

#[cfg(test)]
mod tests;
