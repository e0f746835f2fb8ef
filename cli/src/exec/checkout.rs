//! The local checkout: its commit, its ref, its workflow files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use ::source::lock::{self, Lock};
use workflow::dialect::workflow_folders;

use domain::id::CommitId;

use crate::workflow_files::workflows;

/// A checkout and the commit that is run.
pub(super) struct Checkout {
    /// The work tree.
    pub(super) root: PathBuf,
    /// The commit.
    pub(super) commit: CommitId,
    /// Full ref.
    pub(super) reference: String,
    /// Message and author of the commit.
    pub(super) description: Option<(String, String)>,
    /// The commit's first parent.
    pub(super) parent: Option<String>,
    /// The commit of the branch that pull requests are merged into.
    pub(super) default_tip: Option<String>,
}

impl Checkout {
    /// Opens the repository that holds `directory`.
    pub(super) fn open(directory: &Path, reference: Option<&str>) -> Result<Self> {
        let shown = directory.display();
        ensure!(directory.is_dir(), "{shown}: there is no such folder; name a checkout");
        let repository = git2::Repository::discover(directory).map_err(|error| match error.code() {
            git2::ErrorCode::NotFound => {
                anyhow!("{shown} is in no git repository: run git init and commit, then try again")
            }
            _ => anyhow!("{shown}: {}", error.message()),
        })?;
        let root = repository.workdir().context("a bare repository has no work tree to run")?.to_owned();
        let head = repository.head().context("the repository has no commit yet: commit, then try again")?;
        let named = reference;
        let reference = match reference {
            Some(name) if name.starts_with("refs/") => name.to_owned(),
            Some(name) if repository.find_reference(&format!("refs/tags/{name}")).is_ok() => {
                format!("refs/tags/{name}")
            }
            Some(name) => format!("refs/heads/{name}"),
            None => match head.name() {
                Ok(name) if name.starts_with("refs/") => name.to_owned(),
                _ => "refs/heads/main".to_owned(),
            },
        };
        let found = repository.find_reference(&reference).and_then(|found| found.peel_to_commit());
        if let (Some(name), Err(_)) = (named, &found) {
            tracing::warn!("--ref {name}: the checkout has no {reference}; HEAD is run under that name");
        }
        let commit = found.or_else(|_| head.peel_to_commit()).context("HEAD names no commit")?;
        if is_dirty(&repository) {
            tracing::warn!("uncommitted changes are not part of the run, but for the workflow file itself");
        }
        let author = String::from_utf8_lossy(commit.author().name_bytes()).into_owned();
        let description = Some((String::from_utf8_lossy(commit.message_bytes()).into_owned(), author));
        let id = commit.id().to_string().parse()?;
        let parent = commit.parent_id(0).ok().map(|parent| parent.to_string());
        let tip = repository.find_reference("refs/heads/main").and_then(|branch| branch.peel_to_commit());
        let default_tip = tip.ok().map(|tip| tip.id().to_string());
        Ok(Self { root, commit: id, reference, description, parent, default_tip })
    }

    /// The path of the workflow to run: the named one, or the only one.
    pub(super) fn workflow(&self, named: Option<&str>) -> Result<String> {
        if let Some(path) = named {
            let path = path.strip_prefix("./").unwrap_or(path);
            if !self.root.join(path).is_file() {
                bail!("-W {path}: no such file in {}; there are {}", self.root.display(), self.found().join(", "));
            }
            ensure!(
                path.ends_with(".yml") || path.ends_with(".yaml"),
                "-W {path}: a workflow file ends in .yml or .yaml; there are {}",
                self.found().join(", ")
            );
            return Ok(path.to_owned());
        }
        match &self.found()[..] {
            [only] => Ok(only.clone()),
            [] => bail!("{} has no workflow files in {}", self.root.display(), workflow_folders().join(", ")),
            several => bail!("name one of the workflows with -W: {}", several.join(", ")),
        }
    }

    fn found(&self) -> Vec<String> {
        let found = workflow_folders().into_iter().flat_map(|folder| workflows(&self.root.join(folder)));
        found.filter_map(|path| Some(path.strip_prefix(&self.root).ok()?.to_string_lossy().into_owned())).collect()
    }

    /// The text of a file of the work tree.
    pub(super) fn read(&self, path: &str) -> Result<String> {
        std::fs::read_to_string(self.root.join(path)).with_context(|| format!("cannot read {path}"))
    }

    /// The lock file of actions at the commit.
    pub(super) fn lock(&self) -> Result<Option<Lock>> {
        let repository = git2::Repository::open(&self.root)?;
        let tree = repository.find_commit(git2::Oid::from_str(self.commit.as_str())?)?.tree()?;
        let Ok(entry) = tree.get_path(Path::new(lock::PATH)) else { return Ok(None) };
        let blob =
            entry.to_object(&repository)?.peel_to_blob().with_context(|| format!("{} is no file", lock::PATH))?;
        Ok(Some(Lock::read(&String::from_utf8_lossy(blob.content()))?))
    }

    /// What the commit changed against its first parent; `None` where it has none.
    pub(super) fn changed_paths(&self) -> Option<Vec<String>> {
        let repository = git2::Repository::open(&self.root).ok()?;
        let commit = repository.find_commit(git2::Oid::from_str(self.commit.as_str()).ok()?).ok()?;
        let before = commit.parent(0).ok()?.tree().ok()?;
        let diff = repository.diff_tree_to_tree(Some(&before), Some(&commit.tree().ok()?), None).ok()?;
        let files = diff.deltas().flat_map(|delta| [delta.old_file().path(), delta.new_file().path()]);
        let mut paths: Vec<String> = files.flatten().map(|path| path.to_string_lossy().into_owned()).collect();
        paths.sort();
        paths.dedup();
        Some(paths)
    }
}

fn is_dirty(repository: &git2::Repository) -> bool {
    let mut options = git2::StatusOptions::new();
    options.include_untracked(true);
    repository.statuses(Some(&mut options)).is_ok_and(|statuses| !statuses.is_empty())
}
