//! The search machine behind masking: Aho–Corasick, with the two numbers that streaming needs for each state.
//!
//! A state knows the longest pattern that ends in it and no other. A list of all of them, as libraries keep for each
//! state, may take the square of what the patterns take, and a job chooses those.

use std::collections::VecDeque;

use super::forms::Form;

/// Index of a state.
pub(super) type AutomatonState = u32;

/// Nothing that begins a pattern.
pub(super) const START: AutomatonState = 0;
/// Encoded text goes on behind a line end from this many characters on: a whole group of base64.
const GROUP: usize = 4;

/// All patterns of a masker.
#[derive(Default)]
pub(super) struct Automaton {
    /// Empty: there is no pattern.
    states: Vec<State>,
    /// Where each byte leads from the start.
    first: Vec<AutomatonState>,
    /// Which two bytes begin a pattern, a bit for each: most text begins none, and is passed over quickly.
    pairs: Vec<u64>,
}

/// What the input ends with: the beginning of a pattern.
#[derive(Clone, Copy, Default)]
struct State {
    /// The longest shorter end of the input that begins a pattern.
    shorter: AutomatonState,
    /// First of the states that are one byte longer; 0: none.
    longer: AutomatonState,
    /// Next of those that `longer` of its parent begins; 0: none.
    sibling: AutomatonState,
    /// Its length.
    depth: u32,
    /// Length of the longest pattern that ends here; 0: none.
    matched: u32,
    /// Its last byte.
    byte: u8,
    /// A line may end here without ending the pattern.
    is_open: bool,
}

impl Automaton {
    pub(super) fn new<'f>(forms: impl IntoIterator<Item = &'f Form>) -> Self {
        let mut automaton =
            Self { states: vec![State::default()], first: vec![START; 256], pairs: vec![0; (1 << 16) / 64] };
        // Those that begin alike follow each other, and so do their states in memory.
        let mut forms: Vec<&Form> = forms.into_iter().collect();
        forms.sort_unstable_by_key(|form| form.text());
        for form in forms {
            automaton.insert(form);
        }
        automaton.link();
        automaton
    }

    fn insert(&mut self, form: &Form) {
        if let [one, two, ..] = form.text() {
            let (word, bit) = pair(*one, *two);
            if let Some(word) = self.pairs.get_mut(word) {
                *word |= bit;
            }
        }
        let mut state = START;
        for (index, &byte) in form.text().iter().enumerate() {
            let depth = index + 1;
            let next = match self.child(state, byte) {
                START => self.grow(state, byte, depth),
                known => known,
            };
            state = next;
            let begun = form.group_start().and_then(|start| depth.checked_sub(start));
            let is_open = begun.is_some_and(|begun| depth >= GROUP && begun % GROUP == 0);
            if let Some(state) = self.states.get_mut(state as usize) {
                state.is_open |= is_open;
            }
        }
        if let Some(end) = self.states.get_mut(state as usize) {
            end.matched = end.depth;
        }
    }

    /// Adds a state behind another; gives the start where there is no room for more.
    fn grow(&mut self, parent: AutomatonState, byte: u8, depth: usize) -> AutomatonState {
        let (Ok(state), Ok(depth)) = (AutomatonState::try_from(self.states.len()), u32::try_from(depth)) else {
            return START;
        };
        let Some(above) = self.states.get_mut(parent as usize) else { return START };
        let sibling = std::mem::replace(&mut above.longer, state);
        self.states.push(State { sibling, depth, byte, ..State::default() });
        if let Some(slot) = self.first.get_mut(usize::from(byte)).filter(|_| parent == START) {
            *slot = state;
        }
        state
    }

    /// Fills in what is shorter, and what ends with it.
    fn link(&mut self) {
        let mut open = VecDeque::from([START]);
        while let Some(parent) = open.pop_front() {
            let State { shorter, mut longer, .. } = self.state(parent);
            while longer != START {
                let State { byte, sibling, .. } = self.state(longer);
                let below = if parent == START { START } else { self.next(shorter, byte) };
                let matched = self.state(below).matched;
                if let Some(state) = self.states.get_mut(longer as usize) {
                    state.shorter = below;
                    state.matched = state.matched.max(matched);
                }
                open.push_back(longer);
                longer = sibling;
            }
        }
    }

    fn state(&self, state: AutomatonState) -> State {
        self.states.get(state as usize).copied().unwrap_or_default()
    }

    fn children(&self, state: AutomatonState) -> impl Iterator<Item = AutomatonState> {
        std::iter::successors(Some(self.state(state).longer), |child| Some(self.state(*child).sibling))
            .take_while(|child| *child != START)
    }

    /// The state that is longer by this byte; the start: there is none.
    fn child(&self, state: AutomatonState, byte: u8) -> AutomatonState {
        if state == START {
            return self.first.get(usize::from(byte)).copied().unwrap_or(START);
        }
        self.children(state).find(|child| self.state(*child).byte == byte).unwrap_or(START)
    }

    fn next(&self, mut state: AutomatonState, byte: u8) -> AutomatonState {
        loop {
            let child = self.child(state, byte);
            if child != START || state == START {
                return child;
            }
            state = self.state(state).shorter;
        }
    }

    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.states.capacity() * size_of::<State>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.states.len() < 2
    }

    /// The state after a byte, and whether the byte is a line end within encoded text, which is no part of it: tools
    /// wrap base64.
    pub(super) fn step(&self, state: AutomatonState, byte: u8) -> (AutomatonState, bool) {
        let next = self.next(state, byte);
        if next == START && matches!(byte, b'\n' | b'\r') {
            let mut open = state;
            while open != START {
                let known = self.state(open);
                if known.is_open {
                    return (open, true);
                }
                open = known.shorter;
            }
        }
        (next, false)
    }

    /// Length of the longest end of the input that begins a pattern.
    pub(super) fn depth(&self, state: AutomatonState) -> usize {
        self.state(state).depth as usize
    }

    /// Length of the longest pattern that ends here; 0: none.
    pub(super) fn matched(&self, state: AutomatonState) -> usize {
        self.state(state).matched as usize
    }

    /// Bytes from the start of `data` that begin no pattern.
    pub(super) fn skip(&self, data: &[u8]) -> usize {
        let begins = |two: &[u8]| {
            let [one, two] = two else { return true };
            let (word, bit) = pair(*one, *two);
            self.pairs.get(word).is_some_and(|known| known & bit != 0)
        };
        data.windows(2).position(begins).unwrap_or_else(|| match data.last() {
            Some(last) if self.child(START, *last) != START => data.len() - 1,
            _ => data.len(),
        })
    }
}

/// Where two bytes stand among all pairs.
fn pair(one: u8, two: u8) -> (usize, u64) {
    let number = usize::from(one) << 8 | usize::from(two);
    (number / 64, 1 << (number % 64))
}
