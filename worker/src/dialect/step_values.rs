//! What a process leaves behind, whatever its language's way to say it.

use indexmap::IndexMap;
use workflow::plan::Annotation;

/// What a process leaves for its job and the steps after it, by what it prints or by a file.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct StepValues {
    /// Outputs of its step.
    pub(crate) outputs: IndexMap<String, String>,
    /// For later programs of the same action.
    pub(crate) state: IndexMap<String, String>,
    /// Variables of the steps after it.
    pub(crate) env: IndexMap<String, String>,
    /// Folders for the search path of the steps after it.
    pub(crate) paths: Vec<String>,
    /// Messages for people.
    pub(crate) annotations: Vec<Annotation>,
    /// Markdown for people.
    pub(crate) summary: String,
    /// Something could not be carried out: the step fails.
    pub(crate) failed: bool,
}
