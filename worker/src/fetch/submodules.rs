//! Checks out submodules, each fetched like any other repository that a workflow names.
//!
//! git's own recursion is not used: `.gitmodules` is text from outside, and its URLs and paths are where repositories
//! were made to run code and to write outside of the tree (CVE-2024-32002, CVE-2025-48384). It is read at the commit,
//! never from the work tree; a path must be one of the tree's own entries and no link may be in its way; a URL goes
//! through the checks of every clone URL.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Context as _, bail, ensure};
use futures::{FutureExt as _, future::BoxFuture};
use workflow::plan::SourceRef;

use super::{
    CheckoutOptions, CommitQuery, LocatedCommit, RepositoryFetcher, SubmoduleMode,
    tree_size::{SubmoduleLink, TreeBudget},
    work_tree::WorkTree,
};

/// Submodules in submodules.
const DEPTH: usize = 10;
/// Submodules of one checkout.
const COUNT: usize = 200;

/// One entry of `.gitmodules`.
#[derive(Debug, Default)]
struct Entry {
    path: String,
    url: String,
}

/// A repository that is checked out, with the submodules that stand in its tree.
pub(super) struct CheckedOut<'a> {
    pub(super) tree: &'a WorkTree,
    pub(super) located: &'a LocatedCommit,
    pub(super) links: Vec<SubmoduleLink>,
}

/// Checks out the submodules of a repository. What they come to is taken off the budget first.
pub(super) async fn add(
    sources: &dyn RepositoryFetcher,
    source: &SourceRef,
    main: CheckedOut<'_>,
    wanted: &CheckoutOptions,
    budget: &mut TreeBudget,
    notes: &mut Vec<String>,
) -> anyhow::Result<()> {
    let mut adding = Adding { sources, source, wanted, budget, notes, count: 0 };
    adding.below(main, 0).await
}

struct Adding<'a> {
    sources: &'a dyn RepositoryFetcher,
    source: &'a SourceRef,
    wanted: &'a CheckoutOptions,
    budget: &'a mut TreeBudget,
    notes: &'a mut Vec<String>,
    count: usize,
}

impl Adding<'_> {
    fn below<'b>(&'b mut self, above: CheckedOut<'b>, depth: usize) -> BoxFuture<'b, anyhow::Result<()>> {
        async move {
            ensure!(depth < DEPTH, "submodules lie more than {DEPTH} deep in each other");
            let CheckedOut { tree, located, links } = above;
            if links.is_empty() {
                return Ok(());
            }
            let entries = entries(tree, &located.commit).await?;
            for SubmoduleLink { path, commit } in links {
                let Some((name, entry)) = entries.iter().find(|(_, entry)| entry.path == path) else {
                    self.notes.push(format!("submodule {path}: .gitmodules names no URL for it; it stays empty"));
                    continue;
                };
                self.count += 1;
                ensure!(self.count <= COUNT, "more than {COUNT} submodules");
                let url = address(&entry.url, &located.origin).with_context(|| format!("submodule {path}"))?;
                let (inner, found, links) = self.one(tree, &path, &url, &commit).await?;
                tree.git(&["config", &format!("submodule.{name}.url"), &url]).await?;
                tree.git(&["config", &format!("submodule.{name}.active"), "true"]).await?;
                if self.wanted.submodules == SubmoduleMode::Recursive {
                    self.below(CheckedOut { tree: &inner, located: &found, links }, depth + 1).await?;
                }
            }
            Ok(())
        }
        .boxed()
    }

    async fn one(
        &mut self,
        tree: &WorkTree,
        path: &str,
        url: &str,
        commit: &str,
    ) -> anyhow::Result<(WorkTree, LocatedCommit, Vec<SubmoduleLink>)> {
        let asked = CommitQuery { repository: url.to_owned(), reference: commit.to_owned(), everything: false };
        let located = self.sources.locate(self.source, &asked).await.with_context(|| format!("submodule {path}"))?;
        ensure!(located.commit == commit, "submodule {path}: {url} gave another commit");
        let counted = self.budget.take(&located.path, commit, None).await;
        let links = counted.with_context(|| format!("submodule {path}: commit {commit} cannot be checked out"))?;
        let folder = make_folder(tree.folder(), path)?;
        let inner = WorkTree::init(folder, commit).await?;
        let spec = format!("+{commit}:refs/remotes/origin/HEAD_COMMIT");
        inner.fetch(&located.path, &[spec], self.wanted.depth).await?;
        inner.git(&["remote", "add", "origin", "--", url]).await?;
        inner.git(&["checkout", "--quiet", "--force", "--detach", commit]).await?;
        self.notes.push(format!("submodule {path}: {commit} from {url}"));
        Ok((inner, located, links))
    }
}

/// `.gitmodules` at a commit, by name.
async fn entries(tree: &WorkTree, commit: &str) -> anyhow::Result<BTreeMap<String, Entry>> {
    let listed = tree.git(&["ls-tree", commit, "--", ".gitmodules"]).await?;
    if !listed.starts_with(b"100") {
        // Missing, or a link.
        return Ok(BTreeMap::new());
    }
    let blob = format!("--blob={commit}:.gitmodules");
    let text = tree.git(&["config", "-z", &blob, "--list"]).await.context(".gitmodules cannot be read")?;
    let mut entries: BTreeMap<String, Entry> = BTreeMap::new();
    for pair in text.split(|byte| *byte == 0) {
        let pair = String::from_utf8_lossy(pair);
        let Some((key, value)) = pair.split_once('\n') else { continue };
        let Some((name, key)) = key.strip_prefix("submodule.").and_then(|rest| rest.rsplit_once('.')) else { continue };
        if name.is_empty() || name.starts_with('-') || name.contains("..") || name.chars().any(char::is_control) {
            bail!(".gitmodules: the name {name:?} is not taken");
        }
        let entry = entries.entry(name.to_owned()).or_default();
        match key {
            "path" => value.clone_into(&mut entry.path),
            "url" => value.clone_into(&mut entry.url),
            _ => {}
        }
    }
    Ok(entries)
}

/// The URL of a submodule: relative ones belong to the repository's own, those over SSH are asked over HTTPS.
fn address(url: &str, origin: &str) -> anyhow::Result<String> {
    if url.starts_with("https://") || url.starts_with("http://") || url.starts_with("nostr://") {
        return Ok(url.to_owned());
    }
    if url.starts_with("./") || url.starts_with("../") {
        ensure!(!origin.is_empty(), "{url} is relative, and the repository has no URL that it could belong to");
        let mut base = origin.trim_end_matches('/').to_owned();
        let mut rest = url;
        loop {
            if let Some(after) = rest.strip_prefix("./") {
                rest = after;
            } else if let Some(after) = rest.strip_prefix("../") {
                let cut = base.rfind('/').filter(|at| base.find("://").is_some_and(|scheme| *at > scheme + 2));
                base.truncate(cut.with_context(|| format!("{url} leaves {origin}"))?);
                rest = after;
            } else {
                return Ok(format!("{base}/{rest}"));
            }
        }
    }
    if let Some(rest) = url.strip_prefix("ssh://") {
        let rest = rest.split_once('@').map_or(rest, |(_, rest)| rest);
        return Ok(format!("https://{rest}"));
    }
    if let Some((host, path)) = url.strip_prefix("git@").and_then(|rest| rest.split_once(':')) {
        return Ok(format!("https://{host}/{path}"));
    }
    bail!("{url:?}: only http, https and relative URLs are followed")
}

/// Makes the folder of a submodule. No part of its path may be a link, or lead out.
fn make_folder(root: &Path, path: &str) -> anyhow::Result<std::path::PathBuf> {
    let mut folder = root.to_owned();
    for part in path.split('/') {
        let plain = !part.is_empty() && part != "." && part != ".." && !part.eq_ignore_ascii_case(".git");
        ensure!(plain && !part.chars().any(char::is_control), "submodule {path:?}: the path is not taken");
        folder.push(part);
        match std::fs::symlink_metadata(&folder) {
            Ok(there) => ensure!(there.is_dir(), "submodule {path:?}: a link or file is in its way"),
            Err(_) => std::fs::create_dir(&folder).with_context(|| format!("submodule {path:?}"))?,
        }
    }
    Ok(folder)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn urls_of_submodules_become_urls_that_are_checked() {
        let origin = "https://git.example/group/main";
        for (url, expected) in [
            ("https://x.example/a.git", "https://x.example/a.git"),
            ("../lib.git", "https://git.example/group/lib.git"),
            ("../../lib", "https://git.example/lib"),
            ("./lib", "https://git.example/group/main/lib"),
            ("git@x.example:a/b.git", "https://x.example/a/b.git"),
            ("ssh://git@x.example/a/b", "https://x.example/a/b"),
        ] {
            assert_eq!(address(url, origin).unwrap(), expected, "{url}");
        }
        for url in ["file:///etc", "/etc", "ext::sh -c id", "../../../../x", "git://x/y", "-u/x", ""] {
            assert!(address(url, origin).is_err(), "{url}");
        }
        assert!(address("../x", "").is_err());
    }

    #[test]
    fn attack_47_a_submodule_stays_in_the_tree_and_goes_through_no_link() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(".git")).unwrap();
        std::os::unix::fs::symlink(".git", root.path().join("link")).unwrap();
        std::fs::write(root.path().join("file"), "").unwrap();
        for path in ["../x", "a/../../x", ".git/hooks", ".GIT/hooks", "link/hooks", "link", "file", "a\r", "", "/etc"] {
            assert!(make_folder(root.path(), path).is_err(), "{path:?}");
        }
        assert_eq!(make_folder(root.path(), "deps/one").unwrap(), root.path().join("deps/one"));
    }
}
