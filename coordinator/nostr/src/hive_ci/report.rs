//! A run's updates become events: the emission profile that every Hive CI client reads.
//!
//! Content is empty and 30100 and 5101 have exactly one `e` (the job), else some client drops the event. The order is
//! 5101, 5402, terminal 30100: a client that sees a failed 5402 first would take back a token that was already spent,
//! and one that sees `completed` first has no word for it.

use nostr::{Keys, Kind, PublicKey, Tag, TagKind, Timestamp, UnsignedEvent, secp256k1::schnorr::Signature};
use workflow::plan::{Conclusion, Reason};

use crate::tags::tag;
use domain::run::{DefinitionOverride, FinalizedLog, RequestOrigin, RunEnd, RunRequest, RunUpdate};
use store::Signer;

use super::{RESULT, RUN_RESULT, Refusal, STATUS};

/// Exit code of a job that was refused.
const REFUSED: i32 = 125;

/// An event to publish, its id final.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The event.
    pub event: UnsignedEvent,
    /// Who signs.
    pub signer: Signer,
    /// The signature, where the key is at hand only now.
    pub signature: Option<Signature>,
}

impl Draft {
    fn new(author: &PublicKey, stamp: u64, kind: u16, tags: Vec<Tag>, signer: Signer) -> Self {
        let mut event = UnsignedEvent::new(*author, Timestamp::from(stamp), Kind::from(kind), tags, "");
        event.ensure_id();
        Self { event, signer, signature: None }
    }

    /// Signs now: for a key that is about to be forgotten.
    ///
    /// # Errors
    /// The key is not the event's.
    pub fn sign(&mut self, keys: &Keys) -> Result<(), nostr::event::Error> {
        self.signature = Some(self.event.clone().sign_with_keys(keys)?.sig);
        Ok(())
    }
}

/// Status words that all clients know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Queued,
    Running,
    Completed,
    Failed,
    Cancelled,
    Timeout,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Timeout => "timeout",
        }
    }
}

/// Whether the word of a status says that nothing follows.
pub(super) fn is_final(word: &str) -> bool {
    [Status::Completed, Status::Failed, Status::Cancelled, Status::Timeout].iter().any(|end| end.as_str() == word)
}

/// What the clients are told of an end.
struct Outcome {
    status: Status,
    exit_code: i32,
    /// The word of the 5402.
    run: &'static str,
    error: Option<String>,
    /// Tags that say which definitions it was made of.
    supplied: Vec<Tag>,
}

impl Outcome {
    fn of(end: &RunEnd, supplied: &[DefinitionOverride]) -> Self {
        let supplied = supplied.iter().map(definition).collect();
        let error = end.reason.as_ref().map(|reason| describe(reason, end.exit_code));
        match (end.conclusion, &end.reason) {
            (Conclusion::Success | Conclusion::Skipped, _) => {
                Self { status: Status::Completed, exit_code: 0, run: "success", error: None, supplied }
            }
            (Conclusion::Cancelled, _) => {
                Self { status: Status::Cancelled, exit_code: 130, run: "cancelled", error, supplied }
            }
            (Conclusion::Failure, Some(Reason::Timeout)) => {
                Self { status: Status::Timeout, exit_code: 124, run: "failure", error, supplied }
            }
            // A client takes exit code 0 for success, whatever else the result says.
            (Conclusion::Failure, _) => Self {
                status: Status::Failed,
                exit_code: if end.exit_code == 0 { 1 } else { end.exit_code },
                run: "failure",
                error,
                supplied,
            },
        }
    }
}

/// A tag of our own: the path, the definition that stood for it, and its text's hash (`docs/definitions.md`).
fn definition(of: &DefinitionOverride) -> Tag {
    Tag::custom(TagKind::custom("definition"), [&of.path, &of.event, &of.sha256])
}

/// The `error` tag: one line.
fn describe(reason: &Reason, exit_code: i32) -> String {
    match reason {
        Reason::Step => format!("{reason} with exit code {exit_code}"),
        _ => reason.to_string(),
    }
}

/// The answer's addressee and its run.
struct Answer<'a> {
    us: &'a PublicKey,
    job: &'a str,
    author: &'a str,
    stamp: u64,
}

impl Answer<'_> {
    /// `reason`, beyond what clients ask for, says why it waits.
    fn status(&self, status: Status, reason: Option<&str>) -> Draft {
        let mut tags =
            vec![tag("d", self.job), tag("e", self.job), tag("p", self.author), tag("status", status.as_str())];
        tags.extend(reason.map(|reason| tag("reason", reason)));
        Draft::new(self.us, self.stamp, STATUS, tags, Signer::Coordinator)
    }

    fn result(&self, outcome: &Outcome, duration_s: u64, log: &str) -> Draft {
        let success = matches!(outcome.status, Status::Completed);
        let mut tags = vec![
            tag("e", self.job),
            tag("p", self.author),
            tag("success", success.to_string()),
            tag("exit_code", outcome.exit_code.to_string()),
            tag("duration", duration_s.to_string()),
        ];
        if !log.is_empty() {
            tags.push(tag("stdout", log));
        }
        tags.extend(outcome.error.as_ref().map(|error| tag("error", error)));
        tags.extend(outcome.supplied.iter().cloned());
        Draft::new(self.us, self.stamp, RESULT, tags, Signer::Coordinator)
    }

    fn run_result(&self, run: &Run<'_>, outcome: &Outcome, duration_s: u64, log: &str) -> Draft {
        let mut tags = vec![
            tag("e", run.event),
            tag("status", outcome.run),
            tag("exit_code", outcome.exit_code.to_string()),
            tag("duration", duration_s.to_string()),
        ];
        if !log.is_empty() {
            tags.push(tag("log_url", log));
        }
        if !run.workflow.is_empty() {
            tags.push(tag("workflow", run.workflow));
        }
        tags.extend(outcome.supplied.iter().cloned());
        Draft::new(&run.publisher, self.stamp, RUN_RESULT, tags, Signer::Publisher { run: run.id.to_owned() })
    }
}

struct Run<'a> {
    /// Our id of it.
    id: &'a str,
    event: &'a str,
    workflow: &'a str,
    publisher: PublicKey,
}

/// The events of one update, in the order in which relays must get them; none for a request that came another way.
///
/// `run` is our id of the run, under which its publisher key is kept.
pub fn report(run: &str, request: &RunRequest, update: &RunUpdate, us: &PublicKey) -> Vec<Draft> {
    let RequestOrigin::HiveCi { run_event, job_event, author, publisher, workflow, .. } = &request.origin else {
        return Vec::new();
    };
    let (RunUpdate::Queued { stamp }
    | RunUpdate::Waiting { stamp, .. }
    | RunUpdate::Running { stamp }
    | RunUpdate::Finished { stamp, .. }) = update;
    let answer = Answer { us, job: job_event, author, stamp: *stamp };
    match update {
        RunUpdate::Queued { .. } => vec![answer.status(Status::Queued, None)],
        RunUpdate::Waiting { reason, .. } => vec![answer.status(Status::Queued, Some(reason))],
        RunUpdate::Running { .. } => vec![answer.status(Status::Running, None)],
        RunUpdate::Finished { end, log, duration_s, definitions, .. } => {
            let outcome = Outcome::of(end, definitions);
            let mut drafts = vec![answer.result(&outcome, *duration_s, &log.url)];
            if let Some(publisher) = publisher.as_deref().and_then(|key| PublicKey::from_hex(key).ok()) {
                let run = Run { id: run, event: run_event, workflow, publisher };
                drafts.push(answer.run_result(&run, &outcome, *duration_s, &log.url));
            }
            drafts.push(answer.status(outcome.status, None));
            drafts
        }
    }
}

/// The events of a refusal at `stamp` (seconds); the 5402 is signed already and left out without a log, which strict
/// clients ask for.
pub fn refusal_events(refusal: &Refusal, log: Option<&FinalizedLog>, stamp: u64, us: &PublicKey) -> Vec<Draft> {
    let outcome = Outcome {
        status: Status::Failed,
        exit_code: REFUSED,
        run: "failure",
        error: Some(refusal.reason.clone()),
        supplied: Vec::new(),
    };
    let url = log.map(|log| log.url.as_str()).unwrap_or_default();
    let answer = Answer { us, job: &refusal.job, author: &refusal.author, stamp };
    let mut drafts = vec![answer.result(&outcome, 0, url)];
    if let (Some(run), false) = (&refusal.run, url.is_empty()) {
        let about =
            Run { id: &refusal.job, event: &run.event, workflow: &run.workflow, publisher: run.publisher.public_key() };
        let mut draft = answer.run_result(&about, &outcome, 0, url);
        // The event names this very key as its author, so signing can't fail; unsigned it would never leave.
        if draft.sign(&run.publisher).is_ok() {
            drafts.push(draft);
        }
    }
    drafts.push(answer.status(Status::Failed, None));
    drafts
}
