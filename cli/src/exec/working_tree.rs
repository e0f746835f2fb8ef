//! The working tree as a commit of a repository beside the user's own, in which nothing is written.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};
use git2::{Commit, Oid, Repository, RepositoryInitOptions, Signature};

/// What lies in a working tree and differs from the commit that is checked out.
pub(super) struct WorkingTree {
    /// Bare: it borrows the objects of the user's repository, and has its refs.
    pub(super) repository: PathBuf,
    /// A child of what is checked out. The same files on the same commit have the same id.
    pub(super) commit: Oid,
    /// Files that differ.
    pub(super) changed: usize,
    /// Removed with this.
    _folder: tempfile::TempDir,
}

impl WorkingTree {
    /// Takes tracked and untracked files as they lie there, without ignored ones and without what lies in `excluded`; the ref
    /// of this name is then at the new commit. `None`: nothing differs from `head`.
    ///
    /// # Errors
    /// A file can't be read, or there is no room in the temporary folder.
    pub(super) fn of(
        own: &Repository,
        head: Option<&Commit>,
        reference: &str,
        excluded: Option<&Path>,
    ) -> Result<Option<Self>> {
        let root = own.workdir().context("a bare repository has no work tree to run")?;
        let folder = tempfile::tempdir().context("no room for the working tree in the temporary folder")?;
        let path = folder.path().join("repository.git");
        let mut settings = RepositoryInitOptions::new();
        settings.bare(true).external_template(false);
        let beside = Repository::init_opts(&path, &settings).context("the temporary folder takes no repository")?;
        borrow_objects(own, &path)?;
        let index = folder.path().join("index");
        copy_index(own, &index)?;
        let git = |arguments: &[&str]| git(root, &index, &path.join("objects"), arguments);
        // One that is not there yet has nothing in it.
        let excluded = excluded.and_then(|folder| fs::canonicalize(folder).ok());
        let below = excluded.as_ref().and_then(|folder| folder.strip_prefix(fs::canonicalize(root).ok()?).ok());
        let below = below.filter(|folder| !folder.as_os_str().is_empty()).map(Path::to_string_lossy);
        let excluded = below.map(|folder| format!(":(exclude,literal){folder}"));
        let mut add = vec!["add", "--all", "--", "."];
        add.extend(excluded.as_deref());
        git(&add)?;
        let tree = Oid::from_str(git(&["write-tree"])?.trim())?;
        if head.is_some_and(|head| head.tree_id() == tree) {
            return Ok(None);
        }
        let tree = beside.find_tree(tree)?;
        let before = head.map(Commit::tree).transpose()?;
        let before = before.map(|before| beside.find_tree(before.id())).transpose()?;
        let changed = beside.diff_tree_to_tree(before.as_ref(), Some(&tree), None)?.deltas().len();
        let (author, message) = (author(own, head)?, message(head));
        let parent = head.map(|head| beside.find_commit(head.id())).transpose()?;
        let parents: Vec<&Commit> = parent.iter().collect();
        let commit = beside.commit(None, &author, &author, &message, &tree, &parents)?;
        write_refs(own, &path, reference, commit)?;
        if let Some(url) = own.find_remote("origin").ok().and_then(|origin| origin.url().ok().map(str::to_owned)) {
            beside.remote("origin", &url)?;
        }
        Ok(Some(Self { repository: path, commit, changed, _folder: folder }))
    }
}

/// Every object of the user's repository is one of this repository, whose history ends where that one's does.
fn borrow_objects(own: &Repository, path: &Path) -> Result<()> {
    let objects = fs::canonicalize(own.commondir().join("objects"))?;
    fs::create_dir_all(path.join("objects/info"))?;
    fs::write(path.join("objects/info/alternates"), format!("{}\n", objects.display()))?;
    let shallow = own.commondir().join("shallow");
    if shallow.exists() {
        fs::copy(shallow, path.join("shallow"))?;
    }
    Ok(())
}

/// By the index git knows which files are as they were, without reading them. It trusts what was changed before the index
/// was written, so the copy is as old as the original.
fn copy_index(own: &Repository, target: &Path) -> Result<()> {
    let Some(index) = own.index()?.path().map(Path::to_owned).filter(|path| path.exists()) else { return Ok(()) };
    let written = fs::metadata(&index)?.modified()?;
    fs::copy(&index, target)?;
    fs::File::options().write(true).open(target)?.set_modified(written)?;
    Ok(())
}

/// Git itself reads the files: line ends, filters such as Git LFS and what is ignored are its user's own configuration.
fn git(root: &Path, index: &Path, objects: &Path, arguments: &[&str]) -> Result<String> {
    let mut command = Command::new("git");
    // Set where a hook of git starts this program.
    for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_ALTERNATE_OBJECT_DIRECTORIES"] {
        command.env_remove(name);
    }
    command.env("GIT_INDEX_FILE", index).env("GIT_OBJECT_DIRECTORY", objects).env("GIT_TERMINAL_PROMPT", "0");
    command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.safecrlf=false", "-c", "advice.addEmbeddedRepo=false"]);
    let output = command.args(arguments).current_dir(root).stdin(Stdio::null()).output();
    let output = output.context("the program `git` is needed to read the working tree: install it")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "the working tree of {} can't be read: {}; have git ignore what can't be read, or run the commit with --committed",
        root.display(),
        said.trim().replace('\n', "; ")
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Who would commit it; the time is that of the commit before.
fn author(own: &Repository, head: Option<&Commit>) -> Result<Signature<'static>> {
    let time = head.map_or_else(|| git2::Time::new(0, 0), Commit::time);
    let known = own.signature().ok();
    let name = known.as_ref().and_then(|known| known.name().ok()).unwrap_or("local");
    let email = known.as_ref().and_then(|known| known.email().ok()).unwrap_or("local@localhost");
    Signature::new(name, email, &time).context("user.name and user.email of git make no author")
}

fn message(head: Option<&Commit>) -> String {
    let on = head.map(|head| format!(" on {:.7} {}", head.id(), first_line(head)));
    format!("Uncommitted changes{}\n", on.unwrap_or_default())
}

/// The first line of a commit's message.
pub(super) fn first_line(commit: &Commit) -> String {
    String::from_utf8_lossy(commit.message_bytes()).lines().next().unwrap_or_default().trim().to_owned()
}

/// Refs of the user's repository that jobs see, one of them at the new commit.
fn write_refs(own: &Repository, path: &Path, reference: &str, commit: Oid) -> Result<()> {
    let mut packed = String::new();
    for found in own.references()?.flatten() {
        let (Ok(name), Some(id)) = (found.name(), found.target()) else { continue };
        let seen = ["refs/heads/", "refs/tags/", "refs/remotes/origin/"].iter().any(|kind| name.starts_with(kind));
        if seen && name != reference {
            packed.push_str(&format!("{id} {name}\n"));
        }
    }
    packed.push_str(&format!("{commit} {reference}\n"));
    fs::write(path.join("packed-refs"), packed)?;
    fs::write(path.join("HEAD"), format!("ref: {reference}\n"))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test may stop at once")]

    use super::*;

    struct Checkout(tempfile::TempDir);

    impl Checkout {
        fn new() -> Self {
            let checkout = Self(tempfile::tempdir().unwrap());
            checkout.sh(
                "git init -q -b main . && printf 'ignored\\ntarget/\\n' > .gitignore && echo one > tracked && echo gone > gone \
                 && mkdir sub && echo a > sub/a && git add -A && git commit -q -m 'first line\n\nmore' && git tag v1",
            );
            checkout
        }

        fn sh(&self, script: &str) -> String {
            let mut command = Command::new("sh");
            command.args(["-ec", script]).current_dir(self.0.path()).env("GIT_CONFIG_GLOBAL", "/dev/null");
            for role in ["AUTHOR", "COMMITTER"] {
                command.env(format!("GIT_{role}_NAME"), "n").env(format!("GIT_{role}_EMAIL"), "e@example.org");
            }
            let output = command.output().unwrap();
            assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        }

        fn taken(&self, excluded: Option<&Path>) -> Option<WorkingTree> {
            let own = Repository::open(self.0.path()).unwrap();
            let head = own.head().ok().map(|head| head.peel_to_commit().unwrap());
            WorkingTree::of(&own, head.as_ref(), "refs/heads/main", excluded).unwrap()
        }
    }

    fn files(taken: &WorkingTree) -> Vec<String> {
        let repository = Repository::open(&taken.repository).unwrap();
        let mut files = Vec::new();
        let tree = repository.find_commit(taken.commit).unwrap().tree().unwrap();
        tree.walk(git2::TreeWalkMode::PreOrder, |folder, entry| {
            if let (Some(git2::ObjectType::Blob), Ok(name)) = (entry.kind(), entry.name()) {
                let blob = repository.find_blob(entry.id()).unwrap();
                files.push(format!("{folder}{name}={}", String::from_utf8_lossy(blob.content()).trim()));
            }
            git2::TreeWalkResult::Ok
        })
        .unwrap();
        files
    }

    #[test]
    fn the_working_tree_is_what_one_would_commit_and_the_repository_stays_as_it_was() {
        let checkout = Checkout::new();
        assert!(checkout.taken(None).is_none(), "nothing differs from the commit");
        checkout
            .sh("echo two > tracked; rm gone; echo new > 'sub/b c'; echo x > ignored; mkdir target; echo x > target/x");
        checkout.sh("echo staged > staged; git add staged; mkdir out; echo x > out/x");
        let before = checkout.sh("git status --porcelain; find .git -type f | sort; git rev-parse HEAD");
        let taken = checkout.taken(Some(&checkout.0.path().join("out"))).unwrap();
        let expected = [".gitignore=ignored\ntarget/", "staged=staged", "sub/a=a", "sub/b c=new", "tracked=two"];
        assert_eq!(files(&taken), expected);
        assert_eq!(taken.changed, 4);
        assert_eq!(checkout.sh("git status --porcelain; find .git -type f | sort; git rev-parse HEAD"), before);

        let repository = Repository::open(&taken.repository).unwrap();
        let commit = repository.find_commit(taken.commit).unwrap();
        assert_eq!(commit.parent_id(0).unwrap().to_string(), checkout.sh("git rev-parse HEAD"));
        assert!(
            first_line(&commit).starts_with("Uncommitted changes on ") && first_line(&commit).ends_with(" first line")
        );
        let at = |name: &str| repository.find_reference(name).unwrap().target().unwrap();
        assert_eq!(at("refs/heads/main"), taken.commit);
        assert_eq!(at("refs/tags/v1").to_string(), checkout.sh("git rev-parse v1"));
        assert_eq!(
            checkout.taken(Some(&checkout.0.path().join("out"))).unwrap().commit,
            taken.commit,
            "same files, same id"
        );
    }

    #[test]
    fn a_change_in_the_second_of_the_last_commit_that_keeps_the_length_is_seen() {
        let checkout = Checkout::new();
        checkout.sh("echo one > tracked; git add -A; echo two > tracked");
        assert!(files(&checkout.taken(None).unwrap()).contains(&"tracked=two".to_owned()));
    }

    #[test]
    fn a_repository_without_a_commit_and_one_with_a_shortened_history_have_a_working_tree() {
        let checkout = Checkout(tempfile::tempdir().unwrap());
        checkout.sh("git init -q -b main .; echo one > a");
        let taken = checkout.taken(None).unwrap();
        assert_eq!((files(&taken), taken.changed), (vec!["a=one".to_owned()], 1));

        let origin = Checkout::new();
        origin.sh("echo x > tracked; git commit -q -a -m second");
        let clone = Checkout(tempfile::tempdir().unwrap());
        clone.sh(&format!("git clone -q --depth 1 'file://{}' .; echo y > tracked", origin.0.path().display()));
        let taken = clone.taken(None).unwrap();
        let log = clone.sh(&format!("git --git-dir '{}' log --format=%s", taken.repository.display()));
        assert_eq!(log.lines().count(), 2, "{log}");
    }

    #[test]
    fn a_file_that_cannot_be_taken_is_named_with_what_to_do() {
        let checkout = Checkout::new();
        checkout.sh("git init -q -b main inner; echo x > inner/x");
        let own = Repository::open(checkout.0.path()).unwrap();
        let error = WorkingTree::of(&own, None, "refs/heads/main", None).map(drop).unwrap_err().to_string();
        assert!(error.contains("inner") && error.contains("--committed"), "{error}");
    }
}
