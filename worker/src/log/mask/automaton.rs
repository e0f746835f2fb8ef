//! The search machine behind masking: Aho–Corasick, with the two numbers that streaming needs for each state.

use aho_corasick::{Anchored, MatchKind, automaton::Automaton as _, nfa::contiguous::NFA};
use zeroize::Zeroizing;

pub(super) type AutomatonState = aho_corasick::automaton::StateID;

/// All patterns of a masker.
#[derive(Default)]
pub(super) struct Automaton {
    inner: Option<CompiledPatterns>,
}

struct CompiledPatterns {
    nfa: NFA,
    start: AutomatonState,
    /// By state.
    facts: Vec<Facts>,
    /// Bytes that begin a pattern.
    first: [bool; 256],
}

#[derive(Default, Clone, Copy)]
struct Facts {
    /// Length of the longest end of the input that begins a pattern.
    depth: usize,
    /// Length of the longest pattern that ends here; 0: none.
    matched: usize,
}

impl Automaton {
    pub(super) fn new(patterns: &[Zeroizing<Vec<u8>>]) -> Self {
        let built = NFA::builder().match_kind(MatchKind::Standard).build(patterns.iter().map(|p| p.as_slice()));
        // Fails only beyond 2^31 bytes of patterns, which command and message limits exclude.
        let Ok(nfa) = built else {
            return Self::default();
        };
        let Ok(start) = nfa.start_state(Anchored::No) else {
            return Self::default();
        };
        let mut facts = vec![Facts::default(); start.as_usize() + 1];
        let mut first = [false; 256];
        for pattern in patterns {
            if let Some(slot) = pattern.first().and_then(|byte| first.get_mut(usize::from(*byte))) {
                *slot = true;
            }
            let mut state = start;
            for (index, &byte) in pattern.iter().enumerate() {
                state = nfa.next_state(Anchored::No, state, byte);
                let matched = match nfa.is_match(state) {
                    true => (0..nfa.match_len(state)).map(|i| nfa.pattern_len(nfa.match_pattern(state, i))).max(),
                    false => None,
                };
                if facts.len() <= state.as_usize() {
                    facts.resize(state.as_usize() + 1, Facts::default());
                }
                if let Some(slot) = facts.get_mut(state.as_usize()) {
                    *slot = Facts { depth: index + 1, matched: matched.unwrap_or_default() };
                }
            }
        }
        Self { inner: Some(CompiledPatterns { nfa, start, facts, first }) }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.inner.is_none()
    }

    pub(super) fn start(&self) -> AutomatonState {
        self.inner.as_ref().map(|inner| inner.start).unwrap_or_default()
    }

    pub(super) fn next(&self, state: AutomatonState, byte: u8) -> AutomatonState {
        self.inner.as_ref().map(|inner| inner.nfa.next_state(Anchored::No, state, byte)).unwrap_or_default()
    }

    pub(super) fn depth(&self, state: AutomatonState) -> usize {
        self.facts(state).depth
    }

    pub(super) fn matched(&self, state: AutomatonState) -> usize {
        self.facts(state).matched
    }

    /// Bytes from the start of `data` that begin no pattern.
    pub(super) fn skip(&self, data: &[u8]) -> usize {
        let Some(inner) = &self.inner else {
            return data.len();
        };
        data.iter().position(|byte| inner.first.get(usize::from(*byte)).copied().unwrap_or(true)).unwrap_or(data.len())
    }

    fn facts(&self, state: AutomatonState) -> Facts {
        self.inner.as_ref().and_then(|inner| inner.facts.get(state.as_usize())).copied().unwrap_or_default()
    }
}
