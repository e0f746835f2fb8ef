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
