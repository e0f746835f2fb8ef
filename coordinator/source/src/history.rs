//! What lies between two commits of a mirror: commits, and the paths that they change.

use domain::id::CommitId;
use workflow::dialect::trigger::CommitDetails;

use super::git::{GitError, Mirror};

/// Commits that a push tells of, the newest. GitHub tells of 2048; each is part of what every job is sent.
const COMMITS: usize = 100;
/// Bytes of one message that are told.
const MESSAGE: usize = 4096;
/// Beyond so many commits the paths of a push are not looked at (GitHub docs, "Workflow syntax", `paths`).
const LOOKED_AT: usize = 1000;
/// Paths that filters are held against; a push of more is not held back by them.
const PATHS: usize = 20_000;
/// Fields of one commit in git's answer.
const FIELDS: usize = 8;
const FORMAT: &str = "--format=%H%x00%T%x00%aI%x00%an%x00%ae%x00%cn%x00%ce%x00%B";

impl Mirror {
    /// The newest commits that `after` has and none of `without`, the oldest first.
    pub(super) async fn commits(&self, after: &CommitId, without: &[&str]) -> Result<Vec<CommitDetails>, GitError> {
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(self.path()).args(["log", "-z", FORMAT, "--max-count"]);
        command.arg(COMMITS.to_string()).arg(after.as_str()).arg("--not").args(without);
        let text = self.run(command).await?;
        // Each commit ends with a NUL as well, in place of its line's end.
        let fields: Vec<&str> = text.split('\0').collect();
        let mut commits: Vec<CommitDetails> = fields.chunks_exact(FIELDS).map(commit).collect();
        commits.reverse();
        Ok(commits)
    }

    /// Paths that differ between two commits; `None`: more than filters are held against.
    pub(super) async fn changed_paths(&self, before: &str, after: &str) -> Result<Option<Vec<String>>, GitError> {
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(self.path()).args(["rev-list", "--count", "--max-count"]);
        command.arg((LOOKED_AT + 1).to_string()).args([after, "--not", before]);
        let count = self.run(command).await?;
        if count.trim().parse::<usize>().map_or(true, |count| count > LOOKED_AT) {
            return Ok(None);
        }
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(self.path());
        // Both names of what was renamed are changed paths.
        command.args(["diff-tree", "-r", "-z", "--name-only", "--no-renames", before, after]);
        let text = self.run(command).await?;
        // An answer that was cut does not end as each of its names does.
        let whole = text.is_empty() || text.ends_with('\0');
        let paths: Vec<String> = text.split_terminator('\0').take(PATHS + 1).map(str::to_owned).collect();
        Ok((whole && paths.len() <= PATHS).then_some(paths))
    }

    /// A commit from which both come; `None`: there is none.
    pub(super) async fn merge_base(&self, one: &str, other: &str) -> Option<String> {
        let mut command = self.bare_command();
        command.arg("--git-dir").arg(self.path()).args(["merge-base", one, other]);
        let found = self.run(command).await.ok()?;
        found.lines().next().map(str::to_owned)
    }
}

fn commit(fields: &[&str]) -> CommitDetails {
    let field = |number: usize| fields.get(number).copied().unwrap_or_default();
    let person = |name: usize| [field(name).to_owned(), field(name + 1).to_owned()];
    let message = field(7).trim_end();
    CommitDetails {
        id: field(0).to_owned(),
        tree: field(1).to_owned(),
        timestamp: field(2).to_owned(),
        author: person(3),
        committer: person(5),
        message: message.get(..message.floor_char_boundary(MESSAGE)).unwrap_or_default().to_owned(),
    }
}
