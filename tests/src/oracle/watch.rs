//! The watcher: what it takes as evidence about a job it sent.

use nostr::{Event, PublicKey};

use super::{value, values};

/// State of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Accepted.
    Queued,
    /// Running.
    Running,
    /// Ended well.
    Completed,
    /// Ended badly.
    Failed,
}

/// The state after these events: a 5101 beats any 30100, of which the newest counts. `None`: no evidence.
pub fn state(events: &[Event], job: &str, runner: &PublicKey) -> Option<State> {
    let evidence = || events.iter().filter_map(|event| Some((event, evidence(event, job, runner)?)));
    let result = evidence().find(|(event, _)| event.kind.as_u16() == 5101);
    result.or_else(|| evidence().max_by_key(|(event, _)| event.created_at)).map(|(_, state)| state)
}

/// What one event says; `None`: it is ignored.
pub fn evidence(event: &Event, job: &str, runner: &PublicKey) -> Option<State> {
    if event.verify().is_err() || event.pubkey != *runner || values(event, "e") != [job] {
        return None;
    }
    match (event.kind.as_u16(), value(event, "status"), value(event, "success")) {
        (30100, status, _) if value(event, "d") == Some(job) => match status {
            Some("queued") => Some(State::Queued),
            Some("running") => Some(State::Running),
            Some("completed") => Some(State::Completed),
            Some("failed") => Some(State::Failed),
            _ => None,
        },
        (5101, _, Some("true")) => Some(State::Completed),
        (5101, _, Some("false")) => Some(State::Failed),
        _ => None,
    }
}
