//! Workflow files of a commit that something happened to, beside those of the branch that decides.

use triggers::decision::CommittedWorkflow;

use super::git::Mirror;
use domain::id::CommitId;

/// The files of a commit that is here.
#[derive(Debug, Clone)]
pub struct CommitFiles {
    pub(super) mirror: Mirror,
    pub(super) commit: CommitId,
    /// The commit of the branch whose files decide, where it is known and here.
    pub(super) deciding: Option<CommitId>,
    /// The default branch's, likewise.
    pub(super) default_tip: Option<CommitId>,
}

impl CommitFiles {
    /// Workflow files of the first of these folders that has any, each with what the deciding branch has at its path. Reads
    /// the disk. A file of more than `limit` bytes is left out.
    pub fn workflows(&self, folders: &[String], limit: usize) -> Vec<CommittedWorkflow> {
        let commit = self.commit.as_str();
        let found = folders.iter().map(|folder| self.mirror.names(commit, &[folder.as_str()]));
        let paths = found.into_iter().find(|paths| !paths.is_empty()).unwrap_or_default();
        let text = |commit: &CommitId, path: &str| {
            let bytes = self.mirror.file(commit.as_str(), path, limit).ok().flatten()?;
            Some(String::from_utf8_lossy(&bytes).into_owned())
        };
        let file = |path: String| {
            let deciding = self.deciding.as_ref().and_then(|tip| text(tip, &path));
            Some(CommittedWorkflow { text: text(&self.commit, &path)?, deciding, path })
        };
        paths.into_iter().filter_map(file).collect()
    }

    /// A file as the default branch has it; as the commit has it where no default branch is known. Reads the disk.
    pub fn default_branch_file(&self, path: &str, limit: usize) -> Option<String> {
        let commit = self.default_tip.as_ref().unwrap_or(&self.commit);
        let bytes = self.mirror.file(commit.as_str(), path, limit).ok().flatten()?;
        String::from_utf8(bytes).ok()
    }
}
