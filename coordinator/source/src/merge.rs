//! The merge of a pull request: a commit that the mirror alone has, the same whenever it is made.

use std::process::Stdio;

use domain::id::CommitId;

use super::git::{GitError, Mirror};

/// Paths that a conflict names.
const NAMED: usize = 5;
/// Who makes merges.
const NAME: &str = "Longshore";
const ADDRESS: &str = "noreply@longshore.invalid";

/// What merging a head into its base came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merge {
    /// This commit, whose parents are base and head.
    Made(CommitId),
    /// The base has the head already.
    Contained,
    /// Both changed the same: some of the paths.
    Conflict(Vec<String>),
    /// They have no commit in common.
    Unrelated,
}

impl Mirror {
    /// Merges two commits that are here. `at` (s) is when that is said to be done: of it, both commits and nothing else
    /// depends which commit it is.
    pub(super) async fn merge(&self, base: &CommitId, head: &CommitId, at: u64) -> Result<Merge, GitError> {
        let (base, head) = (base.as_str(), head.as_str());
        if self.holds(&[base], head).await? {
            return Ok(Merge::Contained);
        }
        if self.merge_base(base, head).await.is_none() {
            return Ok(Merge::Unrelated);
        }
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(self.path()).args(["-c", "merge.renameLimit=1000"]);
        command.args(["merge-tree", "--write-tree", "--name-only", "--no-messages", base, head]);
        let ended = self.finish(command).await?;
        let mut lines = ended.output.lines();
        let tree = lines.next().unwrap_or_default().to_owned();
        match ended.status.code() {
            Some(0) => {}
            // It has its own code for a conflict.
            Some(1) => return Ok(Merge::Conflict(lines.take(NAMED).map(str::to_owned).collect())),
            _ => return Err(GitError::of(&ended.complaint)),
        }
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(self.path()).stdin(Stdio::null());
        command
            .env("GIT_AUTHOR_NAME", NAME)
            .env("GIT_AUTHOR_EMAIL", ADDRESS)
            .env("GIT_AUTHOR_DATE", format!("@{at} +0000"));
        command.env("GIT_COMMITTER_NAME", NAME).env("GIT_COMMITTER_EMAIL", ADDRESS);
        command.env("GIT_COMMITTER_DATE", format!("@{at} +0000"));
        command.args(["commit-tree", &tree, "-p", base, "-p", head, "-m", &format!("Merge {head} into {base}")]);
        let made = self.run(command).await?;
        let made: CommitId = made.trim().parse().map_err(|_| GitError::of("git made no merge commit"))?;
        self.keep(made.as_str()).await?;
        Ok(Merge::Made(made))
    }
}
