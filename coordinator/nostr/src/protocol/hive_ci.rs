//! Hive CI: the pair 5401 + 5100 becomes a request, a run's updates become 30100, 5101 and 5402. Pure.
//!
//! The runner script that a job carries is recognised by its shape and never run: the workflow runs natively.
//!
//! Two tags of our own on a 5401 ask for an earlier run again: `previous` names its 5401, and `rerun` is `all`,
//! `failed`, or `job` with a job's id after it. The pair is otherwise a press like any other: the commit may be left
//! empty, secrets come anew. A status may say in `reason`, a tag of our own too, what the run waits for.

use nostr::{Event, EventId, Filter, Kind, PublicKey, Timestamp};

use crate::{
    protocol::{
        Draft, EventMeaning, Ignored, Protocol, ReadContext, Refusal, Rejection, Secrets, bounds::out_of_bounds,
    },
    tags,
};
use domain::id::RunId;
use domain::run::{FinalizedLog, NostrOrigin, RunRequest, RunUpdate};

use self::shape::Shape;

mod loom;
mod read;
mod report;
mod shape;

/// Workflow run, the anchor of a pair.
pub const RUN: u16 = 5401;
/// Job request.
pub const JOB: u16 = 5100;
/// Status of a job, addressable by the job's id.
pub const STATUS: u16 = 30100;
/// Result of a job.
pub const RESULT: u16 = 5101;
/// Result of a run, signed by the run's `publisher` key.
const RUN_RESULT: u16 = 5402;
/// Cancel of a job.
pub const CANCEL: u16 = 5102;

/// Jobs that one event can cancel.
const CANCELLED: usize = 32;

/// Name of the secret that holds the run's publisher key, which signs the run's 5402.
const PUBLISHER_SECRET: &str = "HIVE_CI_NSEC";

/// The protocol.
#[derive(Debug, Clone, Copy)]
pub struct HiveCi;

impl Protocol for HiveCi {
    fn name(&self) -> &'static str {
        "hive_ci"
    }

    fn kinds(&self) -> &'static [u16] {
        &[RUN, JOB, CANCEL]
    }

    fn filters(&self, us: &PublicKey, since: Timestamp) -> Vec<Filter> {
        vec![Filter::new().kinds([JOB, CANCEL].map(Kind::from)).pubkey(*us).since(since)]
    }

    fn read(&self, event: &Event, context: &ReadContext<'_>) -> EventMeaning {
        match event.kind.as_u16() {
            RUN => EventMeaning::Partner,
            CANCEL if event.tags.len() > context.limits.event_tags => {
                EventMeaning::Rejected(Rejection::Ignored(Ignored::TooLong))
            }
            CANCEL => EventMeaning::Cancel(cancels(event, &context.keys.public_key())),
            _ => match awaits(event, context) {
                Ok(partner) => EventMeaning::Request { partner },
                Err(rejection) => EventMeaning::Rejected(rejection),
            },
        }
    }

    fn request(
        &self,
        event: &Event,
        partner: Option<&Event>,
        context: &ReadContext<'_>,
    ) -> Result<(RunRequest, Secrets), Rejection> {
        match partner {
            Some(run) => read::request(event, run, context),
            None if is_whole(event) => read::whole(event, context),
            None => loom::request(event, context),
        }
    }

    fn repository(&self, event: &Event, partner: Option<&Event>) -> Option<String> {
        if partner.is_none() && event.kind.as_u16() == JOB && !is_whole(event) {
            // A plain command is for none, whatever it says.
            return Some(String::new());
        }
        let (owner, identifier) = read::repository(partner.unwrap_or(event))?;
        Some(format!("30617:{owner}:{identifier}"))
    }

    fn origin(&self, event: &Event) -> NostrOrigin {
        read::origin(event)
    }

    fn partner_missing(&self, partner: EventId, minutes: u64) -> String {
        format!(
            "the run of this job (kind {RUN}, {partner}) came to none of our relays within {minutes} minutes: publish it \
             to them and send the job again"
        )
    }

    fn publisher_secret(&self) -> Option<&'static str> {
        Some(PUBLISHER_SECRET)
    }

    fn report(&self, run: &RunId, origin: &NostrOrigin, update: &RunUpdate, us: &PublicKey) -> Vec<Draft> {
        report::report(run, origin, update, us)
    }

    fn refuse(&self, refusal: &Refusal, log: Option<&FinalizedLog>, stamp: u64, us: &PublicKey) -> Vec<Draft> {
        report::refusal(refusal, log, stamp, us)
    }

    fn answer_filters(&self, us: &PublicKey, requests: Option<&[EventId]>) -> Vec<Filter> {
        let answers = Filter::new().kinds([STATUS, RESULT].map(Kind::from)).author(*us);
        // Both carry the job in `e`. Not by the status's `d`: some relays look at one `d` of a filter alone.
        vec![match requests {
            Some(requests) => answers.events(requests.iter().copied()),
            None => answers,
        }]
    }

    fn answered(&self, event: &Event, us: &PublicKey) -> Option<EventId> {
        if event.pubkey != *us {
            return None;
        }
        let job = match event.kind.as_u16() {
            STATUS if report::is_final(tags::first(event, "status")?) => tags::first(event, "d")?,
            RESULT => tags::first(event, "e")?,
            _ => return None,
        };
        EventId::from_hex(job).ok()
    }
}

/// The first look at a job event, before its run is known: the id of the 5401 it waits for. `None`: it is its own run, as
/// the first clients sent it, or a plain Loom command.
///
/// # Errors
/// What is not addressed to us or not a job is ignored; a plain Loom command that the operator does not allow, or a clock
/// that is off, is refused.
fn awaits(job: &Event, context: &ReadContext<'_>) -> Result<Option<EventId>, Rejection> {
    if tags::only(job, "p") != Some(context.keys.public_key().to_hex().as_str()) {
        return Err(Rejection::Ignored(Ignored::NotOurs));
    }
    if tags::first(job, "cmd").is_none() || tags::all(job, "args").next().is_none() {
        return Err(Rejection::Ignored(Ignored::NotAJob));
    }
    let refuse = |reason: String| Err(Rejection::Refused(Box::new(Refusal::of_event(&HiveCi, job, reason))));
    if let Some(reason) = out_of_bounds(job, context.limits, context.now) {
        return refuse(reason);
    }
    let mut runs = tags::all(job, "e");
    match (runs.next(), runs.next()) {
        (None, _) if is_whole(job) || context.commands => Ok(None),
        (None, _) => refuse(loom::refusal(job)),
        (Some(_), Some(_)) => refuse("the job names more than one run: send it with exactly one `e` tag".into()),
        (Some(tag), None) => match tag.get(1).and_then(|id| EventId::from_hex(id).ok()) {
            Some(id) => Ok(Some(id)),
            None => refuse("the `e` tag of the job is no event id (64 hex)".into()),
        },
    }
}

/// Whether a job without a run is its own run, as the first clients sent it.
fn is_whole(job: &Event) -> bool {
    tags::first(job, "a").is_some() && Shape::of(job).is_some()
}

/// Jobs that a 5102 asks to end, if it is addressed to us.
fn cancels(event: &Event, us: &PublicKey) -> Vec<EventId> {
    match tags::only(event, "p") == Some(us.to_hex().as_str()) {
        true => tags::events(event).take(CANCELLED).collect(),
        false => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
