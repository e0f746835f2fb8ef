//! The local checkout: what of it is run, its ref, its workflow files.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail, ensure};

use domain::id::CommitId;
use git2::Repository;
use source::lock::{self, Lock};
use workflow::dialect::workflow_folders;

use super::working_tree::{WorkingTree, first_line};
use crate::workflow_files::workflows;

/// A checkout and the commit that is run.
pub(super) struct Checkout {
    /// The work tree.
    pub(super) root: PathBuf,
    /// A repository that has the commit: the checkout's own, or one with what is not committed.
    pub(super) repository: PathBuf,
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
    /// Files come from the commit, and not from the work tree.
    pub(super) is_committed: bool,
    /// What is run, for people: `main · 22fffc5 message`.
    pub(super) title: String,
    /// Kept as long as it is run.
    _working_tree: Option<WorkingTree>,
}

/// Which files of a checkout are run.
pub(super) struct CheckoutArgs<'a> {
    pub(super) directory: &'a Path,
    /// Branch, tag or full ref; the checked-out one where not given.
    pub(super) reference: Option<&'a str>,
    /// The commit alone, without what is not committed.
    pub(super) committed: bool,
    /// A folder that is not part of the working tree.
    pub(super) excluded: Option<&'a Path>,
}

impl Checkout {
    /// Opens the repository that holds a folder. Its working tree is what is run, unless a ref at another commit is named.
    pub(super) fn open(args: &CheckoutArgs<'_>) -> Result<Self> {
        let repository = discover(args.directory)?;
        let root = repository.workdir().context("a bare repository has no work tree to run")?.to_owned();
        let head = match repository.head() {
            Ok(head) => Some(head.peel_to_commit().context("HEAD names no commit")?),
            Err(error) if error.code() == git2::ErrorCode::UnbornBranch => None,
            Err(error) => bail!("HEAD of {}: {}", root.display(), error.message()),
        };
        let reference = full_name(&repository, args.reference);
        // A branch of that name is another one where none is checked out.
        let named = args.reference.is_some().then(|| repository.find_reference(&reference));
        if let (Some(name), Some(Err(_))) = (args.reference, &named) {
            tracing::warn!("--ref {name}: the checkout has no {reference}; what is checked out is run under that name");
        }
        let named = named.and_then(Result::ok).and_then(|found| found.peel_to_commit().ok());
        let is_head = named.as_ref().is_none_or(|named| head.as_ref().is_some_and(|head| head.id() == named.id()));
        let is_committed = args.committed || !is_head;
        let working_tree = match is_committed {
            true => None,
            false => WorkingTree::of(&repository, head.as_ref(), &reference, args.excluded)?,
        };
        if is_committed && is_dirty(&repository) {
            let why = if args.committed { "--committed" } else { "--ref is at another commit" };
            tracing::warn!("uncommitted changes are not part of the run ({why})");
        }
        let title = |commit: Option<&git2::Commit>| {
            let name = reference.strip_prefix("refs/heads/").or(reference.strip_prefix("refs/tags/"));
            let commit = commit.map(|commit| format!(" · {:.7} {}", commit.id(), first_line(commit)));
            format!("{}{}", name.unwrap_or(&reference), commit.unwrap_or_default())
        };
        match working_tree {
            Some(taken) => {
                let beside = Repository::open(&taken.repository)?;
                let files = if taken.changed == 1 { "file" } else { "files" };
                let title = format!("{} + {} uncommitted {files}", title(head.as_ref()), taken.changed);
                let commit = beside.find_commit(taken.commit)?;
                Self::of(root, &beside, &commit, reference, title, Some(taken))
            }
            None => {
                let commit =
                    named.or(head).context("the repository has no commit yet: commit, or leave --committed out")?;
                let title = title(Some(&commit));
                let made = Self::of(root, &repository, &commit, reference, title, None)?;
                Ok(Self { is_committed, ..made })
            }
        }
    }

    fn of(
        root: PathBuf,
        repository: &Repository,
        commit: &git2::Commit,
        reference: String,
        title: String,
        working_tree: Option<WorkingTree>,
    ) -> Result<Self> {
        let author = String::from_utf8_lossy(commit.author().name_bytes()).into_owned();
        let tip = repository.find_reference("refs/heads/main").and_then(|branch| branch.peel_to_commit());
        Ok(Self {
            repository: working_tree.as_ref().map_or_else(|| root.clone(), |taken| taken.repository.clone()),
            root,
            commit: commit.id().to_string().parse()?,
            reference,
            description: Some((String::from_utf8_lossy(commit.message_bytes()).into_owned(), author)),
            parent: commit.parent_id(0).ok().map(|parent| parent.to_string()),
            default_tip: tip.ok().map(|tip| tip.id().to_string()),
            is_committed: false,
            title,
            _working_tree: working_tree,
        })
    }

    /// The path of the workflow to run: the named one, or the only one.
    pub(super) fn workflow(&self, named: Option<&str>) -> Result<String> {
        if let Some(path) = named {
            let path = path.strip_prefix("./").unwrap_or(path);
            if !self.has(path) {
                let place = match self.is_committed {
                    true => format!("commit {:.7}", self.commit.as_str()),
                    false => self.root.display().to_string(),
                };
                bail!("-W {path}: no such file in {place}; there are {}", self.found()?.join(", "));
            }
            ensure!(
                path.ends_with(".yml") || path.ends_with(".yaml"),
                "-W {path}: a workflow file ends in .yml or .yaml; there are {}",
                self.found()?.join(", ")
            );
            return Ok(path.to_owned());
        }
        match &self.found()?[..] {
            [only] => Ok(only.clone()),
            [] => bail!("{} has no workflow files in {}", self.root.display(), workflow_folders().join(", ")),
            several => bail!("name one of the workflows with -W: {}", several.join(", ")),
        }
    }

    fn found(&self) -> Result<Vec<String>> {
        if !self.is_committed {
            let found = workflow_folders().into_iter().flat_map(|folder| workflows(&self.root.join(folder)));
            let below = |path: PathBuf| Some(path.strip_prefix(&self.root).ok()?.to_string_lossy().into_owned());
            return Ok(found.filter_map(below).collect());
        }
        let (repository, mut found) = (Repository::open(&self.repository)?, Vec::new());
        let tree = self.tree(&repository)?;
        for folder in workflow_folders() {
            let Ok(entry) = tree.get_path(Path::new(folder)) else { continue };
            let Ok(files) = entry.to_object(&repository)?.peel_to_tree() else { continue };
            let names = files.iter().filter_map(|entry| entry.name().ok().map(str::to_owned));
            let yaml = names.filter(|name| name.ends_with(".yml") || name.ends_with(".yaml"));
            found.extend(yaml.map(|name| format!("{folder}/{name}")));
        }
        Ok(found)
    }

    fn has(&self, path: &str) -> bool {
        match self.is_committed {
            true => self.committed(path).is_ok_and(|text| text.is_some()),
            false => self.root.join(path).is_file(),
        }
    }

    /// The text of a file, as it is run.
    pub(super) fn read(&self, path: &str) -> Result<String> {
        if self.is_committed {
            let commit = self.commit.as_str();
            return self.committed(path)?.with_context(|| format!("commit {commit:.7} has no {path}"));
        }
        std::fs::read_to_string(self.root.join(path)).with_context(|| format!("cannot read {path}"))
    }

    fn committed(&self, path: &str) -> Result<Option<String>> {
        let repository = Repository::open(&self.repository)?;
        let Ok(entry) = self.tree(&repository)?.get_path(Path::new(path)) else { return Ok(None) };
        let blob = entry.to_object(&repository)?.peel_to_blob().with_context(|| format!("{path} is no file"))?;
        Ok(Some(String::from_utf8_lossy(blob.content()).into_owned()))
    }

    fn tree<'r>(&self, repository: &'r Repository) -> Result<git2::Tree<'r>> {
        Ok(repository.find_commit(git2::Oid::from_str(self.commit.as_str())?)?.tree()?)
    }

    /// The lock file of actions at the commit.
    pub(super) fn lock(&self) -> Result<Option<Lock>> {
        Ok(self.committed(lock::PATH)?.map(|text| Lock::read(&text)).transpose()?)
    }

    /// What the commit changed against its first parent; `None` where it has none.
    pub(super) fn changed_paths(&self) -> Option<Vec<String>> {
        let repository = Repository::open(&self.repository).ok()?;
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

/// The repository that holds a folder.
pub(super) fn discover(directory: &Path) -> Result<Repository> {
    let shown = directory.display();
    ensure!(directory.is_dir(), "{shown}: there is no such folder; name a checkout");
    Repository::discover(directory).map_err(|error| match error.code() {
        git2::ErrorCode::NotFound => anyhow!("{shown} is in no git repository: run git init, then try again"),
        _ => anyhow!("{shown}: {}", error.message()),
    })
}

/// The ref that a name means; without one, that of what is checked out.
fn full_name(repository: &Repository, named: Option<&str>) -> String {
    match named {
        Some(name) if name.starts_with("refs/") => name.to_owned(),
        Some(name) if repository.find_reference(&format!("refs/tags/{name}")).is_ok() => format!("refs/tags/{name}"),
        Some(name) => format!("refs/heads/{name}"),
        None => {
            let head = repository.find_reference("HEAD").ok();
            let branch = head.and_then(|head| head.symbolic_target().ok().flatten().map(str::to_owned));
            branch.unwrap_or_else(|| "refs/heads/main".to_owned())
        }
    }
}

fn is_dirty(repository: &Repository) -> bool {
    let mut options = git2::StatusOptions::new();
    options.include_untracked(true);
    repository.statuses(Some(&mut options)).is_ok_and(|statuses| !statuses.is_empty())
}
