//! Hive CI: the pair 5401 + 5100 becomes a request, a run's updates become 30100, 5101 and 5402. Pure.
//!
//! The runner script that a job carries is recognised by its shape and never run: the workflow runs natively.
//!
//! Two tags of our own on a 5401 ask for an earlier run again: `previous` names its 5401, and `rerun` is `all`,
//! `failed`, or `job` with a job's id after it. The pair is otherwise a press like any other: the commit may be left
//! empty, secrets come anew. A status may say in `reason`, a tag of our own too, what the run waits for.

use nostr::{Event, EventId, Filter, Keys, Kind, PublicKey};
use secrecy::SecretString;

use config::Limits;
use domain::run::{Millis, RequestOrigin, RunRequest};

use super::{loom, tags};

mod read;
mod report;
mod shape;

pub use read::{relays_named, request};
pub use report::{Draft, refusal_events, report};

/// Workflow run, the anchor of a pair.
pub const RUN: u16 = 5401;
/// Job request.
pub const JOB: u16 = 5100;
/// Status of a job, addressable by the job's id.
pub const STATUS: u16 = 30100;
/// Result of a job.
pub const RESULT: u16 = 5101;
/// Result of a run, signed by the run's `publisher` key.
pub const RUN_RESULT: u16 = 5402;
/// Cancel of a job.
pub const CANCEL: u16 = 5102;

/// Jobs that one event can cancel.
const CANCELLED: usize = 32;

/// Name of the secret that holds the run's publisher key. It signs the run's 5402 and is shown to no job.
pub const PUBLISHER_SECRET: &str = "HIVE_CI_NSEC";

/// Why an event becomes no request.
#[derive(Debug)]
pub enum Rejection {
    /// Counted, not answered.
    Ignored(Ignored),
    /// Answered with a published reason.
    Refused(Box<Refusal>),
}

/// Why an event is not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, strum::IntoStaticStr, strum::VariantArray)]
#[strum(serialize_all = "snake_case")]
pub enum Ignored {
    /// Its `p` is not exactly our key.
    NotOurs,
    /// It is not shaped as a job: other uses of kind 5100 exist (NIP-90).
    NotAJob,
    /// Its run was signed by another key: an answer would speak for somebody else's run.
    ForeignRun,
    /// Its id or signature is wrong.
    Forged,
    /// It was answered before this database knew of it.
    Answered,
    /// Too many jobs wait for their runs, of its author or in sum.
    TooMany,
    /// Too many refusals or cancels at a time.
    OverRate,
}

/// A job that is answered and not run.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Id of the job event.
    pub job: String,
    /// Its author, 64 hex.
    pub author: String,
    /// For the author: cause and remedy.
    pub reason: String,
    /// Its run, where the publisher key came and fits: only then a 5402 can be signed.
    pub run: Option<RefusedRun>,
    /// Relays that the job names.
    pub relays: Vec<String>,
}

/// What the 5402 of a refused job needs.
#[derive(Debug, Clone)]
pub struct RefusedRun {
    /// Id of the 5401.
    pub event: String,
    /// `workflow` exactly as in the 5401.
    pub workflow: String,
    /// The publisher key.
    pub publisher: Keys,
}

/// What came encrypted with a request.
#[derive(Debug, Default)]
pub struct Secrets {
    /// The publisher key, where it came and fits.
    pub publisher: Option<Keys>,
    /// The author's own values by name.
    pub values: Vec<(String, SecretString)>,
}

impl Secrets {
    /// Names of the author's own values.
    pub fn names(&self) -> Vec<String> {
        self.values.iter().map(|(name, _)| name.clone()).collect()
    }

    /// All values as they are sealed for a run: the author's own, and the publisher key as [`PUBLISHER_SECRET`].
    pub fn into_values(self) -> Vec<(String, SecretString)> {
        let publisher = self.publisher.map(|keys| keys.secret_key().to_secret_hex());
        let publisher = publisher.map(|key| (PUBLISHER_SECRET.to_owned(), SecretString::from(key)));
        self.values.into_iter().chain(publisher).collect()
    }
}

impl Refusal {
    /// Refuses a job of which nothing but the event is known.
    pub fn of_job(job: &Event, reason: impl Into<String>) -> Self {
        Self {
            job: job.id.to_hex(),
            author: job.pubkey.to_hex(),
            reason: reason.into(),
            run: None,
            relays: relays_named(job),
        }
    }

    /// Refuses a request that was read well: policy, rate, or the same key a second time.
    /// `None` for a request that did not come as a Hive CI pair.
    pub fn of_request(request: &RunRequest, secrets: &Secrets, reason: impl Into<String>) -> Option<Self> {
        let RequestOrigin::HiveCi { run_event, job_event, author, workflow, relays, .. } = &request.origin else {
            return None;
        };
        Some(Self {
            job: job_event.clone(),
            author: author.clone(),
            reason: reason.into(),
            run: secrets.publisher.clone().map(|publisher| RefusedRun {
                event: run_event.clone(),
                workflow: workflow.clone(),
                publisher,
            }),
            relays: relays.iter().chain(&request.repository.relays).cloned().collect(),
        })
    }
}

/// The first look at a job event, before its run is known: the id of the 5401 it waits for.
///
/// # Errors
/// What is not addressed to us or not a job is ignored; a plain Loom command, or a clock that is off, is refused.
pub fn awaits(job: &Event, us: &PublicKey, limits: &Limits, now: Millis) -> Result<EventId, Rejection> {
    if tags::only(job, "p") != Some(us.to_hex().as_str()) {
        return Err(Rejection::Ignored(Ignored::NotOurs));
    }
    if tags::first(job, "cmd").is_none() || tags::all(job, "args").next().is_none() {
        return Err(Rejection::Ignored(Ignored::NotAJob));
    }
    let refuse = |reason: String| Err(Rejection::Refused(Box::new(Refusal::of_job(job, reason))));
    if let Some(reason) = out_of_bounds(job, limits, now) {
        return refuse(reason);
    }
    let mut runs = tags::all(job, "e");
    match (runs.next(), runs.next()) {
        (None, _) => refuse(loom::refusal(job)),
        (Some(_), Some(_)) => refuse("the job names more than one run: send it with exactly one `e` tag".into()),
        (Some(tag), None) => match tag.get(1).and_then(|id| EventId::from_hex(id).ok()) {
            Some(id) => Ok(id),
            None => refuse("the `e` tag of the job is no event id (64 hex)".into()),
        },
    }
}

/// What asks a relay for our final answers to job events.
pub fn answer_filters(us: &PublicKey, jobs: &[EventId]) -> [Filter; 2] {
    let by_us = |kind: u16| Filter::new().kind(Kind::from(kind)).author(*us);
    let ids = jobs.iter().map(EventId::to_hex);
    [by_us(STATUS).identifiers(ids), by_us(RESULT).events(jobs.iter().copied())]
}

/// The job event that an event of ours is the final answer to, if it is one.
pub fn answered_job(event: &Event, us: &PublicKey) -> Option<EventId> {
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

/// Limits that hold for each event, looked at before anything else is read.
fn out_of_bounds(event: &Event, limits: &Limits, now: Millis) -> Option<String> {
    let seconds = now / 1000;
    let at = event.created_at.as_secs();
    if event.tags.len() > limits.event_tags {
        return Some(format!("the event has {} tags, this pool reads at most {}", event.tags.len(), limits.event_tags));
    }
    let bytes = event.content.len()
        + event.tags.iter().flat_map(|tag| tag.as_slice()).map(|value| value.len() + 3).sum::<usize>();
    if bytes > limits.event_bytes {
        return Some(format!("the event has {bytes} bytes, this pool reads at most {}", limits.event_bytes));
    }
    if at > seconds.saturating_add(limits.ahead) {
        return Some(format!("the event is dated {} seconds ahead: set the clock it was made with", at - seconds));
    }
    if at < seconds.saturating_sub(limits.age) {
        return Some(format!("the event is {} hours old: send the job again", (seconds - at) / 3600));
    }
    event
        .tags
        .iter()
        .flat_map(|tag| tag.as_slice())
        .any(|value| value.contains('\0'))
        .then(|| "the event holds the character U+0000, which no environment can hold".into())
}

/// Jobs that an event asks to end: a 5102 addressed to us, or a deletion (kind 5, NIP-09). Whoever knows the job
/// checks that its author is the author of this event.
pub fn cancels(event: &Event, us: &PublicKey) -> Vec<String> {
    let jobs = || {
        let named = tags::all(event, "e").filter_map(|tag| tag.get(1)).filter(|id| EventId::from_hex(id).is_ok());
        named.take(CANCELLED).cloned().collect()
    };
    match event.kind.as_u16() {
        CANCEL if tags::only(event, "p") == Some(us.to_hex().as_str()) => jobs(),
        5 => jobs(),
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
