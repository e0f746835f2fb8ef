//! Replaces secrets by `***` in everything that leaves a worker.
//!
//! Every form in which a secret usually leaks is searched for: as it is, line by line, in base64 at each of the three
//! alignments, URL-encoded, JSON- and XML-escaped, quoted for a shell, in hex. Every occurrence is covered, overlapping
//! ones too, and what touches is one `***`.
//!
//! Limits: values of one or two bytes are not masked (they would blank out ordinary text); a secret with terminal
//! colours between its characters is not recognised, since GitHub's own rules want the parts around such codes kept.

use std::sync::Arc;

use parking_lot::RwLock;
use zeroize::Zeroizing;

mod automaton;
mod forms;

use automaton::Automaton;

/// What stands in the place of a secret.
pub const MASK: &str = "***";
/// Shorter values are not masked. Bytes.
pub const SHORTEST: usize = 3;

/// The secrets of one job. Cheap to share; secrets may be added while streams run.
#[derive(Default)]
pub struct Masker {
    known: RwLock<KnownSecrets>,
}

#[derive(Default)]
struct KnownSecrets {
    patterns: Vec<Zeroizing<Vec<u8>>>,
    automaton: Arc<Automaton>,
    /// Counts the changes, so that streams notice a new automaton.
    generation: u64,
}

/// What became of a value given to [`Masker::add`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskOutcome {
    /// It is masked from now on, or was already.
    Masked,
    /// It is empty and masks nothing.
    Empty,
    /// It is shorter than [`SHORTEST`]: its user should hear that it is not masked.
    TooShort,
}

impl Masker {
    /// Masks a value from now on.
    pub fn add(&self, secret: &str) -> MaskOutcome {
        self.add_all([secret]).into_iter().next().unwrap_or(MaskOutcome::Empty)
    }

    /// Masks several values from now on; cheaper than one by one.
    pub fn add_all<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) -> Vec<MaskOutcome> {
        let mut known = self.known.write();
        let before = known.patterns.len();
        let mut results = Vec::new();
        for secret in secrets {
            let trimmed = secret.trim_matches(['\r', '\n']);
            results.push(match trimmed.len() {
                0 => MaskOutcome::Empty,
                n if n < SHORTEST => MaskOutcome::TooShort,
                _ => {
                    for form in forms::of(trimmed) {
                        if !known.patterns.iter().any(|p| p.as_slice() == form.as_slice()) {
                            known.patterns.push(form);
                        }
                    }
                    MaskOutcome::Masked
                }
            });
        }
        if known.patterns.len() > before {
            known.automaton = Arc::new(Automaton::new(&known.patterns));
            known.generation += 1;
        }
        results
    }

    /// Whether a text holds a secret in any form.
    pub fn finds(&self, text: &str) -> bool {
        let (automaton, _) = self.current();
        let mut state = automaton.start();
        text.bytes().any(|byte| {
            state = automaton.next(state, byte);
            automaton.matched(state) > 0
        })
    }

    /// Masks a whole text.
    pub fn text(&self, text: &str) -> String {
        if self.finds(text) {
            String::from_utf8_lossy(&self.bytes(text.as_bytes())).into_owned()
        } else {
            text.to_owned()
        }
    }

    /// Masks a whole piece of output.
    pub fn bytes(&self, data: &[u8]) -> Vec<u8> {
        let mut stream = MaskStream::default();
        let mut out = Vec::with_capacity(data.len());
        stream.push(self, data, &mut out);
        stream.finish(&mut out);
        out
    }

    fn current(&self) -> (Arc<Automaton>, u64) {
        let known = self.known.read();
        (Arc::clone(&known.automaton), known.generation)
    }
}

/// Masking state of one stream of output.
///
/// Holds back exactly the bytes that could still become part of a secret: the longest end of the stream that begins a
/// pattern. How the stream was cut into chunks does not change what comes out.
#[derive(Default)]
pub struct MaskStream {
    automaton: Arc<Automaton>,
    generation: u64,
    state: automaton::AutomatonState,
    /// Bytes that are not decided.
    held: Zeroizing<Vec<u8>>,
    /// How many bytes at the start of `held` belong to a match that began earlier or there; see `covered`.
    covered: Vec<(usize, usize)>,
    /// The last thing that came out was a mask: what touches it needs no second one.
    after_mask: bool,
}

impl MaskStream {
    /// Takes output and appends what is decided to `out`.
    pub fn push(&mut self, masker: &Masker, data: &[u8], out: &mut Vec<u8>) {
        self.refresh(masker);
        if self.automaton.is_empty() {
            out.extend_from_slice(data);
            return;
        }
        let mut rest = data;
        while !rest.is_empty() {
            if self.held.is_empty() {
                let plain = self.automaton.skip(rest);
                if plain > 0 {
                    let (text, after) = rest.split_at(plain);
                    out.extend_from_slice(text);
                    self.after_mask = false;
                    rest = after;
                    continue;
                }
            }
            let Some((&byte, after)) = rest.split_first() else {
                break;
            };
            rest = after;
            self.held.push(byte);
            self.step(byte, self.held.len());
            let keep = self.automaton.depth(self.state);
            let decided = self.held.len().saturating_sub(keep);
            // Moving the bytes that stay costs as much as they are: do it only for runs.
            if decided > 0 && (keep == 0 || decided >= 64.max(keep)) {
                self.release(decided, out);
            }
        }
        let keep = self.automaton.depth(self.state);
        self.release(self.held.len().saturating_sub(keep), out);
    }

    /// The stream ended: nothing can become a secret any more.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.release(self.held.len(), out);
        self.state = self.automaton.start();
        self.after_mask = false;
    }

    /// Whether bytes wait for what follows.
    pub fn holds(&self) -> bool {
        !self.held.is_empty()
    }

    fn refresh(&mut self, masker: &Masker) {
        let (automaton, generation) = masker.current();
        if generation == self.generation {
            return;
        }
        self.automaton = automaton;
        self.generation = generation;
        self.state = self.automaton.start();
        let held = std::mem::take(&mut self.held);
        for (index, &byte) in held.iter().enumerate() {
            self.step(byte, index + 1);
        }
        self.held = held;
    }

    /// Goes on by one byte, which is the last of the first `length` held ones.
    fn step(&mut self, byte: u8, length: usize) {
        self.state = self.automaton.next(self.state, byte);
        let matched = self.automaton.matched(self.state);
        if matched == 0 {
            return;
        }
        let mut start = length.saturating_sub(matched);
        let mut end = length;
        while let Some(&(from, to)) = self.covered.last() {
            if to < start {
                break;
            }
            start = start.min(from);
            end = end.max(to);
            self.covered.pop();
        }
        self.covered.push((start, end));
    }

    /// Lets the first `count` held bytes go, masked where they are covered.
    fn release(&mut self, count: usize, out: &mut Vec<u8>) {
        if count == 0 {
            return;
        }
        let mut at = 0;
        let mut left = Vec::new();
        for &(start, end) in &self.covered {
            if start >= count {
                left.push((start - count, end - count));
                continue;
            }
            if at < start {
                out.extend_from_slice(self.held.get(at..start).unwrap_or_default());
                self.after_mask = false;
            }
            if !self.after_mask {
                out.extend_from_slice(MASK.as_bytes());
                self.after_mask = true;
            }
            at = end.min(count);
            if end > count {
                left.push((0, end - count));
            }
        }
        if at < count {
            out.extend_from_slice(self.held.get(at..count).unwrap_or_default());
            self.after_mask = false;
        }
        self.covered = left;
        self.held.drain(..count);
    }
}

#[cfg(test)]
#[path = "mask/tests.rs"]
mod tests;
