//! Replaces secrets by `***` in everything that leaves a worker.
//!
//! Every form in which a secret usually leaks is searched for: as it is, line by line, in base64 at each of the three
//! alignments, wrapped or not, URL-encoded, JSON- and XML-escaped, quoted for a shell, in hex. Every occurrence is covered,
//! overlapping ones too, and what touches is one `***`.
//!
//! Limits: values of one or two bytes are not masked (they would blank out ordinary text). What other forms are not
//! recognised, terminal colours between the characters for instance, `docs/secrets.md` lists.
//!
//! Costs: the forms of all values of a job have a bound in sum, and so has the work of searching for them. They are put
//! together anew before the next text is masked, not with each value.

use std::{collections::HashSet, sync::Arc};

use parking_lot::RwLock;
use zeroize::Zeroizing;

mod automaton;
mod forms;

use automaton::Automaton;
use forms::{Form, Secret};

/// What stands in the place of a secret.
pub const MASK: &str = "***";
/// Shorter values are not masked. Bytes.
pub const SHORTEST: usize = 3;
/// Different values of one job.
pub const MOST_VALUES: usize = 4096;
/// Longest value, in bytes: that of a secret on GitHub is 48 KB.
pub const LONGEST: usize = 64 << 10;
/// Bytes of all values of one job.
const VALUES: usize = 1 << 20;
/// Bytes of all their forms; each takes some 25 bytes of memory.
pub const FORMS: usize = 4 << 20;
/// Bytes of forms that are put together in all, again and again as values are added. It bounds time: some 20 seconds.
const REBUILT: usize = 1 << 30;

/// The secrets of one job. Cheap to share; secrets may be added while streams run.
#[derive(Default)]
pub struct Masker {
    known: RwLock<KnownSecrets>,
}

#[derive(Default)]
struct KnownSecrets {
    values: HashSet<Secret>,
    /// Bytes of `values`.
    size: usize,
    forms: HashSet<Form>,
    /// Bytes of `forms`.
    forms_size: usize,
    /// Bytes of forms in all automata so far.
    rebuilt: usize,
    automaton: Arc<Automaton>,
    /// The automaton does not know all forms.
    is_stale: bool,
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
    /// It is longer than [`LONGEST`], or the job has masked too much already: it is not masked.
    OverLimit,
}

impl KnownSecrets {
    fn add(&mut self, secret: &str) -> MaskOutcome {
        let secret = secret.trim_matches(['\r', '\n']);
        match secret.len() {
            0 => return MaskOutcome::Empty,
            n if n < SHORTEST => return MaskOutcome::TooShort,
            n if n > LONGEST => return MaskOutcome::OverLimit,
            _ => {}
        }
        let value = Secret::from(secret);
        if self.values.contains(&value) {
            return MaskOutcome::Masked;
        }
        let size = self.size + secret.len();
        if self.values.len() >= MOST_VALUES || size > VALUES || self.rebuilt + self.forms_size > REBUILT {
            return MaskOutcome::OverLimit;
        }
        let Some(forms) = forms::of(secret, FORMS - self.forms_size) else { return MaskOutcome::OverLimit };
        self.size = size;
        self.values.insert(value);
        for form in forms {
            let length = form.text().len();
            if self.forms.insert(form) {
                self.forms_size += length;
                self.is_stale = true;
            }
        }
        MaskOutcome::Masked
    }

    fn rebuild(&mut self) {
        if std::mem::take(&mut self.is_stale) {
            self.rebuilt += self.forms_size;
            self.automaton = Arc::new(Automaton::new(&self.forms));
            self.generation += 1;
        }
    }
}

impl Masker {
    /// Masks a value from now on.
    pub fn add(&self, secret: &str) -> MaskOutcome {
        self.add_all([secret]).into_iter().next().unwrap_or(MaskOutcome::Empty)
    }

    /// Masks several values from now on.
    pub fn add_all<'a>(&self, secrets: impl IntoIterator<Item = &'a str>) -> Vec<MaskOutcome> {
        let mut known = self.known.write();
        secrets.into_iter().map(|secret| known.add(secret)).collect()
    }

    /// Whether a text holds a secret in any form.
    pub fn finds(&self, text: &str) -> bool {
        let (automaton, _) = self.current();
        let mut state = automaton::START;
        text.bytes().any(|byte| {
            (state, _) = automaton.step(state, byte);
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
        stream.finish(self, &mut out);
        out
    }

    fn current(&self) -> (Arc<Automaton>, u64) {
        let known = self.known.read();
        if !known.is_stale {
            return (Arc::clone(&known.automaton), known.generation);
        }
        drop(known);
        let mut known = self.known.write();
        known.rebuild();
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
    /// Which held bytes are line ends within encoded text: they count for no pattern.
    breaks: Vec<usize>,
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
            let keep = self.kept();
            let decided = self.held.len().saturating_sub(keep);
            // Moving the bytes that stay costs as much as they are: do it only for runs.
            if decided > 0 && (keep == 0 || decided >= 64.max(keep)) {
                self.release(decided, out);
            }
        }
        self.release(self.held.len().saturating_sub(self.kept()), out);
    }

    /// The stream ended: nothing can become a secret any more.
    pub fn finish(&mut self, masker: &Masker, out: &mut Vec<u8>) {
        self.refresh(masker);
        self.release(self.held.len(), out);
        self.state = automaton::START;
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
        self.state = automaton::START;
        self.breaks.clear();
        let held = std::mem::take(&mut self.held);
        for (index, &byte) in held.iter().enumerate() {
            self.step(byte, index + 1);
        }
        self.held = held;
    }

    /// Goes on by one byte, which is the last of the first `length` held ones.
    fn step(&mut self, byte: u8, length: usize) {
        let (state, is_break) = self.automaton.step(self.state, byte);
        self.state = state;
        if is_break {
            match self.breaks.as_slice() {
                // A line end has two bytes at most: an empty line ends the text.
                [.., one, two] if *one + 3 == length && *two + 2 == length => self.state = automaton::START,
                _ => self.breaks.push(length.saturating_sub(1)),
            }
            return;
        }
        let matched = self.automaton.matched(state);
        if matched == 0 {
            return;
        }
        let mut start = self.start_of(length, matched);
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

    /// Where the last `count` characters before a place begin, without the line ends among them.
    fn start_of(&self, end: usize, count: usize) -> usize {
        // Characters between a break and the end: what stands behind it, less the breaks there.
        let behind = |at: usize, later: usize| end.saturating_sub(at + 1 + later);
        let (mut low, mut high) = (0, self.breaks.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let later = self.breaks.len() - middle - 1;
            match self.breaks.get(middle) {
                Some(at) if behind(*at, later) < count => high = middle,
                _ => low = middle + 1,
            }
        }
        end.saturating_sub(count + self.breaks.len() - low)
    }

    /// How many bytes at the end may still become part of a secret.
    fn kept(&self) -> usize {
        let length = self.held.len();
        length - self.start_of(length, self.automaton.depth(self.state))
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
        self.breaks.retain(|at| *at >= count);
        self.breaks.iter_mut().for_each(|at| *at -= count);
        self.held.drain(..count);
    }
}

#[cfg(test)]
#[path = "mask/tests.rs"]
mod tests;
