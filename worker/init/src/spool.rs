//! Numbered messages for the worker, kept until acknowledged.

use std::{
    collections::VecDeque,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use prost::Message;

use crate::wire::{FromInit, from_init};

/// Bytes of unacknowledged output beyond which a step has to wait.
const LIMIT: usize = 4 << 20;

/// What waits to be written or acknowledged.
#[derive(Default)]
pub(crate) struct Spool {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Encoded messages; the first has number `first`.
    frames: VecDeque<Arc<Vec<u8>>>,
    first: u64,
    /// Number of the next message to write.
    cursor: u64,
    bytes: usize,
    /// Written before anything else.
    marker: Option<Arc<Vec<u8>>>,
    /// A reader made itself known.
    attached: bool,
}

impl State {
    fn forget(&mut self, through: u64) {
        while self.first <= through {
            let Some(frame) = self.frames.pop_front() else { break };
            self.bytes -= frame.len();
            self.first += 1;
        }
    }
}

impl Spool {
    pub(crate) fn new() -> Self {
        Self { state: Mutex::new(State { first: 1, cursor: 1, ..State::default() }), changed: Condvar::new() }
    }

    /// Adds an answer. Never waits, so that nothing the worker asked for is held back by output.
    pub(crate) fn answer(&self, message: from_init::Message) {
        self.add(self.lock(), message);
    }

    /// Adds output; waits while too much of it is unacknowledged.
    pub(crate) fn output(&self, message: from_init::Message) {
        let state =
            self.changed.wait_while(self.lock(), |state| state.bytes > LIMIT).unwrap_or_else(PoisonError::into_inner);
        self.add(state, message);
    }

    /// The worker has everything up to and including `sequence`.
    pub(crate) fn acknowledge(&self, sequence: u64) {
        let mut state = self.lock();
        let written = state.cursor.saturating_sub(1);
        state.forget(sequence.min(written));
        self.changed.notify_all();
    }

    /// A reader attached: go on after `after`, behind `marker`.
    pub(crate) fn resume(&self, after: u64, marker: Vec<u8>) {
        let mut state = self.lock();
        let last = state.first + state.frames.len() as u64 - 1;
        state.forget(after.min(last));
        state.cursor = state.first;
        state.marker = Some(Arc::new(marker));
        state.attached = true;
        self.changed.notify_all();
    }

    /// Waits for the next bytes to write.
    pub(crate) fn next(&self) -> Arc<Vec<u8>> {
        let mut state = self.lock();
        loop {
            if let Some(marker) = state.marker.take() {
                return marker;
            }
            if state.attached {
                let index = usize::try_from(state.cursor - state.first).unwrap_or(usize::MAX);
                if let Some(frame) = state.frames.get(index).cloned() {
                    state.cursor += 1;
                    return frame;
                }
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn add(&self, mut state: MutexGuard<'_, State>, message: from_init::Message) {
        let sequence = state.first + state.frames.len() as u64;
        let frame = Arc::new(FromInit { sequence, message: Some(message) }.encode_length_delimited_to_vec());
        state.bytes += frame.len();
        state.frames.push_back(frame);
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
