//! Whether an event starts a workflow: the question and the answer.

/// Something that happened.
#[derive(Debug, Clone, Copy, Default)]
pub struct TriggerEvent<'a> {
    /// `push`, `pull_request`, …
    pub name: &'a str,
    /// Full name of the ref it is about: `refs/heads/main`.
    pub reference: &'a str,
    /// Short name of the branch a pull request wants to go into.
    pub base_ref: Option<&'a str>,
    /// Paths it changes; `None` where they are not known: then they hold nothing back.
    pub changed_paths: Option<&'a [String]>,
    /// Activity type, such as `opened`; `None` where it is not known.
    pub action: Option<&'a str>,
}

/// Whether a workflow runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TriggerDecision {
    /// It does.
    Starts,
    /// It does not, for this reason.
    Ignored(String),
}

/// What is known of an event beyond the commit that a run of it builds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventDetails {
    /// A branch or tag was pushed.
    Push(PushDetails),
    /// A time of a schedule came: this line of the workflow's.
    Schedule(String),
}

/// A push.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PushDetails {
    /// What the ref stood for before; `None`: it was not there.
    pub before: Option<String>,
    /// What it stands for now.
    pub after: String,
    /// Whether something that the ref held before is not held by it now.
    pub forced: bool,
    /// The commits that came, the oldest first; as many of the newest as are told.
    pub commits: Vec<CommitDetails>,
}

/// A commit of a push.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CommitDetails {
    /// Its id.
    pub id: String,
    /// Id of its tree.
    pub tree: String,
    /// Its message.
    pub message: String,
    /// When it was made, as ISO 8601.
    pub timestamp: String,
    /// Name and address of its author.
    pub author: [String; 2],
    /// Name and address of its committer.
    pub committer: [String; 2],
}
