//! A relay: it keeps events, loses answers, gives requests twice and in any order, and may be gone for a while.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::{random::Random, workload::Asked};

/// Longest way of a message, in milliseconds.
const WAY_MS: u64 = 80;
/// How long a client waits for an answer.
const ANSWER: Duration = Duration::from_secs(10);

/// What a relay says to an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It has it.
    Taken,
    /// It did not answer, or not now: whether it has it is not known.
    Unknown,
}

/// The relay.
#[derive(Debug, Clone)]
pub(crate) struct Relay(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// Requests that were published so far.
    requests: watch::Sender<Vec<Asked>>,
}

#[derive(Debug)]
struct State {
    random: Random,
    up: bool,
    /// Every event ever taken, as JSON, by id.
    taken: BTreeMap<String, String>,
}

impl Relay {
    pub(crate) fn new(random: Random) -> Self {
        let state = Mutex::new(State { random, up: true, taken: BTreeMap::new() });
        Self(Arc::new(Inner { state, requests: watch::Sender::new(Vec::new()) }))
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.0.state.lock().up = up;
    }

    pub(crate) fn is_up(&self) -> bool {
        self.0.state.lock().up
    }

    /// Somebody asks for a run.
    pub(crate) fn request(&self, asked: Asked) {
        self.0.requests.send_modify(|all| all.push(asked));
    }

    /// Every request so far.
    pub(crate) fn published_requests(&self) -> Vec<Asked> {
        self.0.requests.borrow().clone()
    }

    /// Every request, those to come included.
    pub(crate) fn requests(&self) -> watch::Receiver<Vec<Asked>> {
        self.0.requests.subscribe()
    }

    /// Publishes an event, and waits for the answer.
    pub(crate) async fn publish(&self, id: &str, event: String) -> Answer {
        let (there, back, lost) = {
            let random = &mut self.0.state.lock().random;
            (random.millis(1..WAY_MS), random.millis(1..WAY_MS), random.percent(5))
        };
        tokio::time::sleep(there).await;
        let taken = {
            let mut state = self.0.state.lock();
            if state.up {
                state.taken.insert(id.to_owned(), event);
            }
            state.up
        };
        if !taken || lost {
            tokio::time::sleep(ANSWER).await;
            return Answer::Unknown;
        }
        tokio::time::sleep(back).await;
        Answer::Taken
    }

    /// Every event that it ever took, by id.
    pub(crate) fn taken(&self) -> BTreeMap<String, String> {
        self.0.state.lock().taken.clone()
    }
}
