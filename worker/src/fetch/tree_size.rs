//! What the files of a commit come to, counted before any of them is written: a few objects can name any number of them.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

use super::{SparseCheckout, work_tree::WorkTree};

/// Files and folders of one checkout, its submodules included: git keeps all of them in memory.
const ENTRIES: u64 = 500_000;
/// Bytes of one line of the list: a path that git can check out, and what stands before it.
const LINE: u64 = 8192;
/// Submodules of one repository.
const LINKS: usize = 1000;

/// A submodule that stands in a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SubmoduleLink {
    pub(super) path: String,
    pub(super) commit: String,
}

/// What a checkout may still write.
#[derive(Debug, Clone)]
pub(super) struct TreeBudget {
    /// For messages.
    limit: u64,
    bytes: u64,
    entries: u64,
}

impl TreeBudget {
    /// `limit`: bytes of all files; 0: any number.
    pub(super) fn new(limit: u64) -> Self {
        let limit = if limit == 0 { u64::MAX } else { limit };
        Self { limit, bytes: limit, entries: ENTRIES }
    }

    /// Takes off what a commit's files come to, as far as they are checked out. Gives its submodules.
    ///
    /// Files in another encoding than the repository's (`working-tree-encoding`) may become four times as large.
    pub(super) async fn take(
        &mut self,
        repository: &Path,
        commit: &str,
        sparse: Option<&SparseCheckout>,
    ) -> anyhow::Result<Vec<SubmoduleLink>> {
        let arguments = ["ls-tree", "-r", "-t", "-l", "-z", commit];
        let mut child = WorkTree::at(repository).command(&arguments).spawn().context("git")?;
        // It asks for nothing.
        drop(child.stdin.take());
        let output = child.stdout.take().context("git has no output")?;
        let cone = sparse.filter(|sparse| sparse.cone).map(Cone::new);
        let mut links = Vec::new();
        let mut lines = BufReader::with_capacity(64 << 10, output);
        let mut line = Vec::new();
        loop {
            line.clear();
            // Dropped on an error, the child is killed.
            if (&mut lines).take(LINE).read_until(0, &mut line).await.context("git")? == 0 {
                break;
            }
            ensure!(line.pop() == Some(0), "a path in the repository is too long");
            self.take_entry(&line, cone.as_ref(), &mut links)?;
        }
        let ended = child.wait_with_output().await.context("git")?;
        if !ended.status.success() {
            bail!("git ls-tree failed: {}", String::from_utf8_lossy(&ended.stderr).trim());
        }
        Ok(links)
    }

    /// `line`: `MODE TYPE OBJECT SIZE<tab>PATH`.
    fn take_entry(&mut self, line: &[u8], cone: Option<&Cone>, links: &mut Vec<SubmoduleLink>) -> anyhow::Result<()> {
        let tab = line.iter().position(|byte| *byte == b'\t').context("git ls-tree: a line without a path")?;
        let (facts, path) = line.split_at(tab);
        let (facts, path) = (String::from_utf8_lossy(facts), path.get(1..).unwrap_or_default());
        let mut words = facts.split_ascii_whitespace();
        let (Some(_), Some(kind), Some(object), Some(size)) = (words.next(), words.next(), words.next(), words.next())
        else {
            bail!("git ls-tree: a line of another form");
        };
        let left = self.entries.checked_sub(1);
        self.entries = left.with_context(|| format!("it has more than {ENTRIES} files and folders"))?;
        match kind {
            "commit" => {
                ensure!(links.len() < LINKS, "it has more than {LINKS} submodules");
                let path = String::from_utf8(path.to_vec()).ok().context("a submodule's path is not UTF-8")?;
                links.push(SubmoduleLink { path, commit: object.to_owned() });
            }
            "blob" if cone.is_none_or(|cone| cone.has(path)) => {
                let size: u64 = size.parse().context("git ls-tree: a file without a size")?;
                let left = self.bytes.checked_sub(size);
                self.bytes = left.with_context(|| {
                    let mib = self.limit >> 20;
                    format!("its files have more than the {mib} MiB that a job may use; check out a part (`sparse-checkout`)")
                })?;
            }
            _ => {}
        }
        Ok(())
    }
}

/// The folders of a sparse checkout: all below them, and the files beside them up to the root.
struct Cone(Vec<Vec<u8>>);

impl Cone {
    fn new(sparse: &SparseCheckout) -> Self {
        let folders = sparse.patterns.lines().map(|line| line.trim().trim_matches('/').as_bytes().to_vec());
        Self(folders.collect())
    }

    fn has(&self, path: &[u8]) -> bool {
        let folder =
            path.iter().rposition(|byte| *byte == b'/').map_or(&[][..], |at| path.get(..at).unwrap_or_default());
        let is_below = |path: &[u8], folder: &[u8]| {
            folder.is_empty() || path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
        };
        folder.is_empty() || self.0.iter().any(|named| is_below(folder, named) || is_below(named, folder))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use std::process::Command;

    use super::*;

    fn sh(folder: &Path, script: &str) -> String {
        let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    const COMMIT: &str = "git -c user.name=n -c user.email=e@example.org commit-tree -m x";

    #[tokio::test]
    async fn attack_36_few_objects_that_name_many_bytes_are_refused_before_any_is_written() {
        let repository = tempfile::tempdir().unwrap();
        // One blob of 16 MiB under 64 names: 1 GiB.
        let script = format!(
            "git init -q .; blob=$(head -c 16777216 /dev/zero | git hash-object -w --stdin)
             tree=$(for i in $(seq 64); do printf '100644 blob %s\\tf%s\\n' $blob $i; done | git mktree); {COMMIT} $tree"
        );
        let commit = sh(repository.path(), &script);
        let error = TreeBudget::new(512 << 20).take(repository.path(), &commit, None).await.unwrap_err().to_string();
        assert!(error.contains("more than the 512 MiB"), "{error}");
        let mut enough = TreeBudget::new(1 << 30);
        enough.take(repository.path(), &commit, None).await.unwrap();
        assert_eq!(enough.bytes, 0);
        assert!(
            enough.take(repository.path(), &commit, None).await.is_err(),
            "a budget is for all that is checked out"
        );
        TreeBudget::new(0).take(repository.path(), &commit, None).await.unwrap();
    }

    #[tokio::test]
    async fn attack_36_a_tree_of_any_number_of_files_out_of_a_few_objects_is_refused() {
        let repository = tempfile::tempdir().unwrap();
        // A hundred names of the level below, five times: 10^10 files out of seven objects.
        let script = format!(
            "git init -q .; object=$(echo x | git hash-object -w --stdin); kind='100644 blob'
             for level in 1 2 3 4 5; do
               object=$(for i in $(seq 100); do printf '%s %s\\tn%s\\n' \"$kind\" $object $i; done | git mktree); kind='040000 tree'
             done; {COMMIT} $object"
        );
        let commit = sh(repository.path(), &script);
        let began = std::time::Instant::now();
        let error = TreeBudget::new(0).take(repository.path(), &commit, None).await.unwrap_err().to_string();
        assert!(error.contains("more than 500000 files"), "{error}");
        assert!(began.elapsed().as_secs() < 30, "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_sparse_checkout_counts_what_it_brings() {
        let repository = tempfile::tempdir().unwrap();
        let script = format!(
            "git init -q .; mkdir -p a/b c; for f in top a/beside a/b/in c/out; do head -c 1000 /dev/zero > $f; done
             git add -A; {COMMIT} $(git write-tree)"
        );
        let commit = sh(repository.path(), &script);
        let left = async |sparse: Option<SparseCheckout>| {
            let mut budget = TreeBudget::new(100_000);
            budget.take(repository.path(), &commit, sparse.as_ref()).await.unwrap();
            (100_000 - budget.bytes, ENTRIES - budget.entries)
        };
        let sparse = |patterns: &str, cone| Some(SparseCheckout { patterns: patterns.into(), cone });
        assert_eq!(left(None).await, (4000, 7));
        assert_eq!(left(sparse("a/b", true)).await, (3000, 7));
        assert_eq!(left(sparse("/c/", true)).await, (2000, 7));
        // Patterns of another kind are git's: what they may bring is counted.
        assert_eq!(left(sparse("/c/*", false)).await, (4000, 7));
    }
}
