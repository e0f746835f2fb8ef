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
    /// Something happened to a pull request.
    PullRequest(Box<PullRequestDetails>),
}

/// A pull request. Names of people and repositories are those that workflows see.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullRequestDetails {
    /// Its number in its repository.
    pub number: u64,
    /// Activity type, such as `opened`.
    pub action: &'static str,
    /// One line.
    pub title: String,
    /// What its author says of it.
    pub body: String,
    /// Its author.
    pub author: String,
    /// Who did what happened.
    pub sender: String,
    /// Names of its labels.
    pub labels: Vec<String>,
    /// Whether its author still works on it.
    pub is_draft: bool,
    /// Whether it may still be merged.
    pub is_open: bool,
    /// Whether it is merged.
    pub is_merged: bool,
    /// What it wants merged.
    pub head: PullRequestSide,
    /// What it is to go into.
    pub base: PullRequestSide,
    /// The head's commit before, where it moved.
    pub before: Option<String>,
    /// The merge of both; `None`: there is none.
    pub merge_commit: Option<String>,
    /// Files that it changes; `None`: not known.
    pub changed_files: Option<usize>,
}

/// The head or the base of a pull request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PullRequestSide {
    /// Short name of the branch.
    pub branch: String,
    /// The commit.
    pub commit: String,
    /// Name of the repository, `<owner>/<name>`.
    pub repository: String,
    /// Whose that is.
    pub owner: String,
    /// Whether that is another one than the one that it is to go into.
    pub is_fork: bool,
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
