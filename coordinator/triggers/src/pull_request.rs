//! What a pull request is, and what newer events did to it. Pure.

use std::cmp::Reverse;

use serde::{Deserialize, Serialize};

/// A pull request, as its events say.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// Id of its event (kind 1618), 64 hex.
    pub root: String,
    /// Its author, 64 hex.
    pub author: String,
    /// When it was made (s).
    pub made_at: u64,
    /// One line.
    pub title: String,
    /// What its author says of it.
    pub body: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// Short name of the branch that it is to go into; `None`: the default branch.
    pub base: Option<String>,
    /// Name of the branch as its author calls it; may be empty.
    pub branch: String,
    /// The commit that it wants merged.
    pub head: Head,
    /// Whether it is open, and since which event; `None`: nobody said anything of that.
    pub status: Option<Status>,
}

/// The newest commit of a pull request.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// Its id, 40 or 64 hex.
    pub commit: String,
    /// The event that names it: the pull request itself, or an update of it.
    pub event: String,
    /// Kind of that event: 1618 or 1619.
    pub kind: u16,
    /// When that was made (s).
    pub made_at: u64,
    /// Where its author says that it can be fetched.
    pub clones: Vec<String>,
}

/// What the newest status event says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// What it says.
    pub state: PullRequestState,
    /// Its id, 64 hex.
    pub event: String,
    /// Who said it, 64 hex.
    pub author: String,
    /// When (s).
    pub made_at: u64,
}

/// How far a pull request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PullRequestState {
    /// It waits to be merged (kind 1630, or no status).
    Open,
    /// It is merged (1631).
    Merged,
    /// It was closed without that (1632).
    Closed,
    /// Its author still works on it (1633).
    Draft,
}

/// What happened to a pull request (GitHub docs, "Events that trigger workflows", `pull_request`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activity {
    /// It is new.
    Opened,
    /// Its head moved.
    Synchronize,
    /// It is open again.
    Reopened,
    /// It was merged, or closed without that.
    Closed,
    /// It is no draft any more.
    ReadyForReview,
    /// It is a draft again.
    ConvertedToDraft,
}

impl PullRequestState {
    /// What a status event of this kind says; `None`: it is none.
    pub fn of_kind(kind: u16) -> Option<Self> {
        Some(match kind {
            1630 => Self::Open,
            1631 => Self::Merged,
            1632 => Self::Closed,
            1633 => Self::Draft,
            _ => return None,
        })
    }

    /// Whether it may still be merged.
    pub fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Draft)
    }

    /// Kind of the event that says so.
    pub fn kind(self) -> u16 {
        match self {
            Self::Open => 1630,
            Self::Merged => 1631,
            Self::Closed => 1632,
            Self::Draft => 1633,
        }
    }
}

impl Activity {
    /// The word in workflow files and payloads.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Synchronize => "synchronize",
            Self::Reopened => "reopened",
            Self::Closed => "closed",
            Self::ReadyForReview => "ready_for_review",
            Self::ConvertedToDraft => "converted_to_draft",
        }
    }
}

impl PullRequest {
    /// How far it is.
    pub fn state(&self) -> PullRequestState {
        self.status.as_ref().map_or(PullRequestState::Open, |status| status.state)
    }

    /// Ids of the events that all this is read from.
    pub fn events(&self) -> Vec<String> {
        let status = self.status.iter().map(|status| &status.event);
        let mut events: Vec<String> = [&self.root, &self.head.event].into_iter().chain(status).cloned().collect();
        events.dedup();
        events
    }

    /// With an update of it, where that counts: it is by its author, and newer.
    #[must_use]
    pub fn updated(mut self, author: &str, head: Head) -> Self {
        if author == self.author && precedence(head.made_at, &head.event) < self.head.precedence() {
            self.head = head;
        }
        self
    }

    /// With a status, where that counts: it is by its author or a maintainer, and newer.
    #[must_use]
    pub fn with_status(mut self, status: Status, maintainers: &[String]) -> Self {
        let may = |author: &String| *author == self.author || maintainers.contains(author);
        let known = self.status.take().filter(|known| may(&known.author));
        let newest = [known, Some(status).filter(|new| may(&new.author))].into_iter().flatten();
        self.status = newest.min_by_key(|status| precedence(status.made_at, &status.event));
        self
    }

    /// What happened since it was known to be so; `None`: nothing that starts anything.
    pub fn activity_since(&self, known: Option<&Self>) -> Option<Activity> {
        let now = self.state();
        let Some(known) = known else { return now.is_open().then_some(Activity::Opened) };
        let before = known.state();
        match (before.is_open(), now.is_open()) {
            (true, false) => Some(Activity::Closed),
            (false, true) => Some(Activity::Reopened),
            (false, false) => None,
            (true, true) if known.head.commit != self.head.commit => Some(Activity::Synchronize),
            (true, true) => match (before, now) {
                (PullRequestState::Draft, PullRequestState::Open) => Some(Activity::ReadyForReview),
                (PullRequestState::Open, PullRequestState::Draft) => Some(Activity::ConvertedToDraft),
                _ => None,
            },
        }
    }

    /// The event that an activity is of: its kind, its id and its author.
    pub fn cause(&self, activity: Activity) -> (u16, &str, &str) {
        match (&self.status, activity) {
            (Some(status), activity) if !matches!(activity, Activity::Opened | Activity::Synchronize) => {
                (status.state.kind(), &status.event, &status.author)
            }
            _ => (self.head.kind, &self.head.event, &self.author),
        }
    }
}

impl Head {
    fn precedence(&self) -> (Reverse<u64>, String) {
        precedence(self.made_at, &self.event)
    }
}

/// The newer before the older; at equal times the lower id first (NIP-01).
fn precedence(made_at: u64, event: &str) -> (Reverse<u64>, String) {
    (Reverse(made_at), event.to_owned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn head(commit: &str, event: &str, made_at: u64) -> Head {
        Head { commit: commit.into(), event: event.into(), kind: 1619, made_at, clones: Vec::new() }
    }

    fn opened() -> PullRequest {
        PullRequest {
            root: "r".into(),
            author: "a".into(),
            made_at: 10,
            head: Head { kind: 1618, ..head("c1", "r", 10) },
            ..PullRequest::default()
        }
    }

    fn status(state: PullRequestState, event: &str, author: &str, made_at: u64) -> Status {
        Status { state, event: event.into(), author: author.into(), made_at }
    }

    #[test]
    fn what_happened_follows_from_what_was_known() {
        use PullRequestState::{Closed, Draft, Merged, Open};
        let at = |state, commit: &str| PullRequest {
            head: head(commit, "h", 11),
            status: Some(status(state, "s", "a", 12)),
            ..opened()
        };
        for (before, now, expected) in [
            (None, (Open, "c1"), Some(Activity::Opened)),
            (None, (Draft, "c1"), Some(Activity::Opened)),
            (None, (Closed, "c1"), None),
            (None, (Merged, "c1"), None),
            (Some((Open, "c1")), (Open, "c1"), None),
            (Some((Open, "c1")), (Open, "c2"), Some(Activity::Synchronize)),
            (Some((Draft, "c1")), (Draft, "c2"), Some(Activity::Synchronize)),
            (Some((Draft, "c1")), (Open, "c2"), Some(Activity::Synchronize)),
            (Some((Draft, "c1")), (Open, "c1"), Some(Activity::ReadyForReview)),
            (Some((Open, "c1")), (Draft, "c1"), Some(Activity::ConvertedToDraft)),
            (Some((Open, "c1")), (Closed, "c1"), Some(Activity::Closed)),
            (Some((Draft, "c1")), (Merged, "c2"), Some(Activity::Closed)),
            (Some((Closed, "c1")), (Open, "c1"), Some(Activity::Reopened)),
            (Some((Merged, "c1")), (Draft, "c2"), Some(Activity::Reopened)),
            (Some((Closed, "c1")), (Closed, "c2"), None),
            (Some((Closed, "c1")), (Merged, "c1"), None),
        ] {
            let known = before.map(|(state, commit)| at(state, commit));
            let (state, commit) = now;
            assert_eq!(at(state, commit).activity_since(known.as_ref()), expected, "{before:?} {now:?}");
        }
    }

    #[test]
    fn only_its_author_moves_its_head_and_only_forward() {
        let commit = |request: PullRequest| request.head.commit;
        assert_eq!(commit(opened().updated("a", head("c2", "u", 11))), "c2");
        assert_eq!(commit(opened().updated("s", head("evil", "u", 11))), "c1", "a stranger");
        assert_eq!(commit(opened().updated("m", head("evil", "u", 11))), "c1", "a maintainer moves no head of others");
        assert_eq!(commit(opened().updated("a", head("c0", "u", 9))), "c1", "an older one");
        assert_eq!(commit(opened().updated("a", head("c2", "a", 10))), "c2", "at equal times the lower id");
        assert_eq!(commit(opened().updated("a", head("c2", "z", 10))), "c1");
        let later = opened().updated("a", head("c3", "v", 12));
        assert_eq!(commit(later.updated("a", head("c2", "u", 11))), "c3", "in any order");
    }

    #[test]
    fn its_author_and_maintainers_close_and_open_it_and_nobody_else() {
        let both = ["m".to_owned(), "n".to_owned()];
        let state = |request: &PullRequest| request.state();
        let closed = opened().with_status(status(PullRequestState::Closed, "s1", "m", 20), &both);
        assert_eq!(state(&closed), PullRequestState::Closed);
        assert_eq!(
            state(&opened().with_status(status(PullRequestState::Closed, "s1", "x", 20), &both)),
            PullRequestState::Open
        );
        let reopened = closed.clone().with_status(status(PullRequestState::Open, "s2", "a", 21), &both);
        assert_eq!(state(&reopened), PullRequestState::Open);
        assert_eq!(
            state(&reopened.with_status(status(PullRequestState::Draft, "s0", "n", 19), &both)),
            PullRequestState::Open
        );
        // Whose word no longer counts, of him nothing stays once somebody else spoke.
        let again = closed.with_status(status(PullRequestState::Draft, "s0", "a", 5), &["n".to_owned()]);
        assert_eq!(state(&again), PullRequestState::Draft);
    }

    #[test]
    fn an_activity_is_of_the_event_that_did_it() {
        let request = opened().updated("a", head("c2", "u", 11));
        let request = request.with_status(status(PullRequestState::Closed, "s", "m", 20), &["m".to_owned()]);
        assert_eq!(request.cause(Activity::Synchronize), (1619, "u", "a"));
        assert_eq!(request.cause(Activity::Closed), (1632, "s", "m"));
        assert_eq!(request.events(), ["r", "u", "s"]);
        assert_eq!(opened().cause(Activity::Opened), (1618, "r", "a"));
        assert_eq!(opened().events(), ["r"]);
    }
}
