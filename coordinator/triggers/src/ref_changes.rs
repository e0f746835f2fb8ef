//! Which refs a repository's state (30618) moved since the one that was known.

use std::{cmp::Reverse, collections::BTreeMap};

use serde::{Deserialize, Serialize};

/// Tags that one state may add or move; more of them start nothing (GitHub docs, "Events that trigger workflows", `push`).
const TAGS: usize = 3;

/// Where the refs of a repository are, by the state event that says so.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefsState {
    /// Id of the event, 64 hex.
    pub event: String,
    /// Its author, 64 hex.
    pub author: String,
    /// When it says that it was made (s).
    pub made_at: u64,
    /// Object of each branch and tag, by full name.
    pub refs: BTreeMap<String, String>,
    /// Full name of the default branch, where one is known.
    pub default_branch: Option<String>,
}

/// A ref that was created, moved or deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefChange {
    /// Full name.
    pub reference: String,
    /// Its object before; `None`: it was not there.
    pub before: Option<String>,
    /// Its object now; `None`: it is gone.
    pub after: Option<String>,
}

/// What the newest valid state means beside the one that was known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Comparison {
    /// It says nothing new, or is older: nothing is to be stored.
    Unchanged,
    /// It is the known one from now on, and these refs moved.
    Changed(Vec<RefChange>),
}

impl RefsState {
    /// Compares the newest valid state with the known one. `maintainers` are those whose word counts now, 64 hex.
    ///
    /// The first state moves nothing: what was pushed before anybody asked starts no runs. An older state counts only
    /// where the author of the known one no longer does, and then moves nothing either.
    pub fn compare(&self, known: Option<&Self>, maintainers: &[String]) -> Comparison {
        let Some(known) = known else { return Comparison::Changed(Vec::new()) };
        if known.event == self.event {
            return Comparison::Unchanged;
        }
        // At equal times the lower id counts (NIP-01).
        let precedence = |state: &Self| (Reverse(state.made_at), state.event.clone());
        if precedence(self) < precedence(known) {
            Comparison::Changed(self.changes_since(known))
        } else if maintainers.contains(&known.author) {
            Comparison::Unchanged
        } else {
            Comparison::Changed(Vec::new())
        }
    }

    fn changes_since(&self, known: &Self) -> Vec<RefChange> {
        let change = |reference: &String| {
            let (before, after) = (known.refs.get(reference).cloned(), self.refs.get(reference).cloned());
            (before != after).then(|| RefChange { reference: reference.clone(), before, after })
        };
        let gone = known.refs.keys().filter(|reference| !self.refs.contains_key(*reference));
        self.refs.keys().chain(gone).filter_map(change).collect()
    }
}

impl RefChange {
    /// Whether it is about a tag.
    pub fn is_tag(&self) -> bool {
        self.reference.starts_with("refs/tags/")
    }
}

/// The changes that may start workflows, and how many were left out: tags, where there are too many of them at a time.
pub fn that_count(changes: Vec<RefChange>) -> (Vec<RefChange>, usize) {
    let pushed: Vec<RefChange> = changes.into_iter().filter(|change| change.after.is_some()).collect();
    let tags = pushed.iter().filter(|change| change.is_tag()).count();
    if tags <= TAGS {
        return (pushed, 0);
    }
    (pushed.into_iter().filter(|change| !change.is_tag()).collect(), tags)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn state(event: &str, author: &str, made_at: u64, refs: &[(&str, &str)]) -> RefsState {
        let refs = refs.iter().map(|(name, object)| ((*name).to_owned(), (*object).to_owned())).collect();
        RefsState { event: event.into(), author: author.into(), made_at, refs, default_branch: None }
    }

    fn change(reference: &str, before: Option<&str>, after: Option<&str>) -> RefChange {
        let owned = |object: Option<&str>| object.map(str::to_owned);
        RefChange { reference: reference.into(), before: owned(before), after: owned(after) }
    }

    fn changed(compared: Comparison) -> Vec<RefChange> {
        match compared {
            Comparison::Changed(changes) => changes,
            Comparison::Unchanged => Vec::new(),
        }
    }

    #[test]
    fn t65_the_first_state_moves_nothing_and_a_later_one_moves_each_ref_once() {
        let both = ["o".to_owned(), "m".to_owned()];
        let first = state("1", "o", 10, &[("refs/heads/main", "a"), ("refs/heads/old", "a"), ("refs/tags/v1", "a")]);
        assert_eq!(first.compare(None, &both), Comparison::Changed(Vec::new()));
        // While nobody looked, several states passed by: each ref moved once.
        let later = state("9", "m", 99, &[("refs/heads/main", "c"), ("refs/heads/new", "b"), ("refs/tags/v1", "a")]);
        let expected = vec![
            change("refs/heads/main", Some("a"), Some("c")),
            change("refs/heads/new", None, Some("b")),
            change("refs/heads/old", Some("a"), None),
        ];
        assert_eq!(later.compare(Some(&first), &both), Comparison::Changed(expected));
        assert_eq!(later.compare(Some(&later), &both), Comparison::Unchanged);
    }

    #[test]
    fn a_branch_and_a_tag_on_one_commit_are_two_changes_and_what_is_deleted_starts_nothing() {
        let owner = ["o".to_owned()];
        let before = state("1", "o", 1, &[("refs/heads/gone", "a")]);
        let after = state("2", "o", 2, &[("refs/heads/main", "b"), ("refs/tags/v1", "b")]);
        let changes = changed(after.compare(Some(&before), &owner));
        assert_eq!(changes.len(), 3);
        let expected = [change("refs/heads/main", None, Some("b")), change("refs/tags/v1", None, Some("b"))];
        assert_eq!(that_count(changes), (expected.to_vec(), 0));
        // What comes back later is a new branch.
        let back = state("3", "o", 3, &[("refs/heads/gone", "a")]);
        let changes = changed(back.compare(Some(&after), &owner));
        assert!(changes.contains(&change("refs/heads/gone", None, Some("a"))));
    }

    #[test]
    fn t60_of_two_states_of_one_second_the_lower_id_counts_in_any_order() {
        let both = ["o".to_owned(), "m".to_owned()];
        let low = state("1", "o", 5, &[("refs/heads/main", "a")]);
        let high = state("2", "m", 5, &[("refs/heads/main", "b")]);
        assert_eq!(high.compare(Some(&low), &both), Comparison::Unchanged);
        let moved = vec![change("refs/heads/main", Some("b"), Some("a"))];
        assert_eq!(low.compare(Some(&high), &both), Comparison::Changed(moved));
    }

    #[test]
    fn t59_what_a_former_maintainer_said_goes_without_starting_anything() {
        let former = state("1", "m", 50, &[("refs/heads/main", "evil")]);
        let owners = state("2", "o", 10, &[("refs/heads/main", "good")]);
        assert_eq!(owners.compare(Some(&former), &["o".to_owned(), "m".to_owned()]), Comparison::Unchanged);
        assert_eq!(owners.compare(Some(&former), &["o".to_owned()]), Comparison::Changed(Vec::new()));
    }

    #[test]
    fn more_than_three_tags_at_a_time_start_nothing() {
        let tags = (0..4).map(|number| change(&format!("refs/tags/v{number}"), None, Some("a")));
        let branch = change("refs/heads/main", None, Some("a"));
        let (counting, left_out) = that_count(tags.clone().chain([branch.clone()]).collect());
        assert_eq!((counting, left_out), (vec![branch], 4));
        assert_eq!(that_count(tags.take(3).collect()).0.len(), 3);
    }
}
