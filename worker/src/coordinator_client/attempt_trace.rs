//! The worker's spans of an attempt: preparing its machine, and each of its steps.

use std::collections::HashMap;

use parking_lot::Mutex;
use proto::worker::Attempt;
use telemetry::{Span, SpanKey};

/// Steps that are timed at once; of more there is no span.
const MOST_STEPS: usize = 1000;

/// Times what happens in an attempt.
#[derive(Debug)]
pub(super) struct AttemptTrace {
    attempt: Attempt,
    started_ms: u64,
    /// When each step began that goes on.
    steps: Mutex<HashMap<u32, u64>>,
}

impl AttemptTrace {
    pub(super) fn new(attempt: Attempt, now_ms: u64) -> Self {
        Self { attempt, started_ms: now_ms, steps: Mutex::default() }
    }

    /// The machine runs: the first step is about to start.
    pub(super) fn begun(&self, now_ms: u64) {
        self.emit("prepare", "prepare", self.started_ms, now_ms, "");
    }

    /// A step began (`running`), or ended with a conclusion.
    pub(super) fn step(&self, index: u32, name: &str, state: &str, now_ms: u64) {
        if !telemetry::is_exporting() {
            return;
        }
        let mut steps = self.steps.lock();
        if state == "running" {
            if steps.len() < MOST_STEPS {
                steps.insert(index, now_ms);
            }
        } else if let Some(began_ms) = steps.remove(&index) {
            drop(steps);
            self.emit(&format!("step {index} {name}"), name, began_ms, now_ms, state);
        }
    }

    fn emit(&self, part: &str, name: &str, began_ms: u64, now_ms: u64, state: &str) {
        let Attempt { run, job, attempt } = &self.attempt;
        let span = Span::new(run, SpanKey::AttemptPart(job, *attempt, part), name, (began_ms, now_ms));
        let span = span.with("longshore.job", job);
        telemetry::emit(if matches!(state, "failure" | "cancelled") { span.failed(state) } else { span });
    }
}
