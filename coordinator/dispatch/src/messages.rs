//! Protocol messages made from, and read into, the domain's types.

use domain::run::AttemptId;
use proto::worker::{Attempt, Cancel, Drain, Stop, to_worker::Message};

/// Time a cancelled job gets for its `always()` steps before everything is ended, in milliseconds.
const GRACE_MS: u32 = 20_000;

pub(super) fn attempt_message(id: &AttemptId) -> Attempt {
    Attempt { run: id.run.to_string(), job: id.job.to_string(), attempt: id.number }
}

pub(super) fn attempt_id(message: Attempt) -> AttemptId {
    AttemptId { run: message.run.into(), job: message.job.into(), number: message.attempt }
}

pub(super) fn stop(attempt: &AttemptId, reason: &str) -> Message {
    Message::Stop(Stop { attempt: Some(attempt_message(attempt)), reason: reason.to_owned() })
}

pub(super) fn cancel(attempt: &AttemptId, reason: &str) -> Message {
    Message::Cancel(Cancel { attempt: Some(attempt_message(attempt)), reason: reason.to_owned(), grace_ms: GRACE_MS })
}

pub(super) fn drain() -> Message {
    Message::Drain(Drain { reason: "drained by the operator".into() })
}
