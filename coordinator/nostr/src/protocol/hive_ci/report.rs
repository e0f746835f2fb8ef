//! A run's updates become events: the emission profile that every Hive CI client reads.
//!
//! Content is empty and 30100 and 5101 have exactly one `e` (the job), else some client drops the event. The order is
//! 5101, 5402, terminal 30100: a client that sees a failed 5402 first would take back a token that was already spent,
//! and one that sees `completed` first has no word for it.

use nostr::{PublicKey, Tag, TagKind};
use workflow::plan::{Conclusion, Reason};

use crate::{
    protocol::{Draft, Refusal},
    tags::tag,
};
use domain::id::RunId;
use domain::run::{DefinitionOverride, FinalizedLog, NostrOrigin, RunEnd, RunUpdate};
use store::Signer;

use super::{RESULT, RUN_RESULT, STATUS};

/// Exit code of a job that was refused.
const REFUSED: i32 = 125;

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

/// Who answers what.
struct Answer<'a> {
    us: &'a PublicKey,
    origin: &'a NostrOrigin,
    stamp: u64,
}

impl Answer<'_> {
    /// `reason`, beyond what clients ask for, says why it waits.
    fn status(&self, status: Status, reason: Option<&str>) -> Draft {
        let job = &self.origin.request.id;
        let mut tags =
            vec![tag("d", job), tag("e", job), tag("p", &self.origin.author), tag("status", status.as_str())];
        tags.extend(reason.map(|reason| tag("reason", reason)));
        Draft::new(self.us, self.stamp, STATUS, tags, Signer::Coordinator)
    }

    fn result(&self, outcome: &Outcome, duration_s: u64, log: &str) -> Draft {
        let success = matches!(outcome.status, Status::Completed);
        let mut tags = vec![
            tag("e", &self.origin.request.id),
            tag("p", &self.origin.author),
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

    /// `None`: no publisher key can sign it. `run` is our id of the run.
    fn run_result(&self, run: &RunId, outcome: &Outcome, duration_s: u64, log: &str) -> Option<Draft> {
        let publisher = PublicKey::from_hex(self.origin.publisher.as_deref()?).ok()?;
        let mut tags = vec![
            tag("e", &self.origin.run_event().id),
            tag("status", outcome.run),
            tag("exit_code", outcome.exit_code.to_string()),
            tag("duration", duration_s.to_string()),
        ];
        if !log.is_empty() {
            tags.push(tag("log_url", log));
        }
        let workflow = self.origin.details.get("workflow").and_then(serde_json::Value::as_str);
        tags.extend(workflow.filter(|name| !name.is_empty()).map(|name| tag("workflow", name)));
        tags.extend(outcome.supplied.iter().cloned());
        Some(Draft::new(&publisher, self.stamp, RUN_RESULT, tags, Signer::Publisher { run: run.clone() }))
    }
}

/// The events of one update, in the order in which relays must get them.
pub(super) fn report(run: &RunId, origin: &NostrOrigin, update: &RunUpdate, us: &PublicKey) -> Vec<Draft> {
    let (RunUpdate::Queued { stamp }
    | RunUpdate::Waiting { stamp, .. }
    | RunUpdate::Running { stamp }
    | RunUpdate::Finished { stamp, .. }) = update;
    let answer = Answer { us, origin, stamp: *stamp };
    match update {
        RunUpdate::Queued { .. } => vec![answer.status(Status::Queued, None)],
        RunUpdate::Waiting { reason, .. } => vec![answer.status(Status::Queued, Some(reason))],
        RunUpdate::Running { .. } => vec![answer.status(Status::Running, None)],
        RunUpdate::Finished { end, log, duration_s, definitions, .. } => {
            let outcome = Outcome::of(end, definitions);
            let mut drafts = vec![answer.result(&outcome, *duration_s, &log.url)];
            drafts.extend(answer.run_result(run, &outcome, *duration_s, &log.url));
            drafts.push(answer.status(outcome.status, None));
            drafts
        }
    }
}

/// The events of a refusal; the 5402 is signed already and left out without a log, which strict clients ask for.
pub(super) fn refusal(refusal: &Refusal, log: Option<&FinalizedLog>, stamp: u64, us: &PublicKey) -> Vec<Draft> {
    let outcome = Outcome {
        status: Status::Failed,
        exit_code: REFUSED,
        run: "failure",
        error: Some(refusal.reason.clone()),
        supplied: Vec::new(),
    };
    let url = log.map(|log| log.url.as_str()).unwrap_or_default();
    let answer = Answer { us, origin: &refusal.origin, stamp };
    let mut drafts = vec![answer.result(&outcome, 0, url)];
    if let (Some(keys), false) = (&refusal.publisher, url.is_empty()) {
        // It is signed here, so nobody looks for the key of this run, which was never made.
        let run = refusal.origin.request.id.as_str().into();
        let draft = answer.run_result(&run, &outcome, 0, url);
        // The event names this very key as its author, so signing can't fail; unsigned it would never leave.
        drafts.extend(draft.and_then(|mut draft| draft.sign(keys).is_ok().then_some(draft)));
    }
    drafts.push(answer.status(Status::Failed, None));
    drafts
}
