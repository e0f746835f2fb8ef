//! A local repository on the relay of `dev`: its announcement (30617), and its state (30618) as its refs move.

use std::{
    collections::BTreeMap,
    fs::OpenOptions,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use git2::Repository;
use nostr::{EventBuilder, Keys, Kind, Tag, Timestamp};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tracing::warn;
use workflow::dialect::workflow_folders;

use crate::{
    client::relay::{self, Relays},
    workflow_files::workflows,
};

/// How long refs may go on moving before they are told: one `git` command moves several.
const QUIET: Duration = Duration::from_millis(100);

/// A repository and whose it is.
pub(super) struct LocalRepository {
    root: PathBuf,
    /// Where its refs are: of a work tree beside others, those of them all.
    git: PathBuf,
    /// Its `d` tag.
    identifier: String,
    owner: Keys,
    state: RefsState,
}

/// A repository that a relay knows.
pub(super) struct AnnouncedRepository {
    local: LocalRepository,
    relays: Relays,
    /// When the newest event says that it was made.
    at: Timestamp,
    moved: mpsc::Receiver<()>,
    _watcher: RecommendedWatcher,
}

/// What a 30618 says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RefsState {
    /// The branch that `HEAD` names.
    head: Option<String>,
    /// Commit of each branch and tag.
    refs: BTreeMap<String, String>,
}

impl LocalRepository {
    /// The repository that holds `directory`.
    pub(super) fn open(directory: &Path, owner: Keys) -> Result<Self> {
        let shown = directory.display();
        ensure!(directory.is_dir(), "--repository {shown}: there is no such folder");
        let repository = Repository::discover(directory)
            .map_err(|error| anyhow!("--repository {shown}: {}; name a git repository", error.message()))?;
        let state = RefsState::of(&repository)?;
        ensure!(!state.refs.is_empty(), "--repository {shown}: there is no commit yet: commit, then try again");
        let root = std::fs::canonicalize(repository.workdir().unwrap_or_else(|| repository.path()))?;
        Ok(Self { identifier: identifier(&root), git: repository.commondir().to_owned(), root, owner, state })
    }

    /// Announces it on a relay, and says where its refs are.
    pub(super) async fn announce(self, relay: &str) -> Result<AnnouncedRepository> {
        let clone = url::Url::from_file_path(&self.root)
            .map_err(|()| anyhow!("{}: the path can't be written as a URL", self.root.display()))?;
        let (moved, watcher) = watch(&self.git)?;
        let relays = relay::connect(&[relay.to_owned()]).await?;
        let tags = vec![
            vec!["d".to_owned(), self.identifier.clone()],
            vec!["name".to_owned(), self.identifier.clone()],
            vec!["clone".to_owned(), clone.to_string()],
            vec!["relays".to_owned(), relay.to_owned()],
        ];
        let mut shared = AnnouncedRepository { local: self, relays, at: Timestamp::from(0), moved, _watcher: watcher };
        shared.publish(30617, tags).await?;
        shared.publish_state().await?;
        Ok(shared)
    }
}

impl AnnouncedRepository {
    /// `30617:OWNER:IDENTIFIER`.
    pub(super) fn address(&self) -> String {
        format!("30617:{}:{}", self.local.owner.public_key(), self.local.identifier)
    }

    /// Its workflow files, as they lie in the work tree.
    pub(super) fn workflows(&self) -> Vec<String> {
        let root = &self.local.root;
        let found = workflow_folders().into_iter().flat_map(|folder| workflows(&root.join(folder)));
        found.filter_map(|path| Some(path.strip_prefix(root).ok()?.to_string_lossy().into_owned())).collect()
    }

    /// Tells where refs are each time that they moved.
    pub(super) async fn follow(mut self) {
        while self.moved.recv().await.is_some() {
            tokio::time::sleep(QUIET).await;
            while self.moved.try_recv().is_ok() {}
            let root = self.local.root.clone();
            let read = tokio::task::spawn_blocking(move || RefsState::of(&Repository::open(root)?)).await;
            let published = match read.map_err(anyhow::Error::from).and_then(|read| read) {
                Ok(state) if state == self.local.state => continue,
                Ok(state) => {
                    self.local.state = state;
                    self.publish_state().await
                }
                Err(error) => Err(error),
            };
            if let Err(error) = published {
                warn!("{}: the relay does not know where its branches are now: {error:#}", self.local.root.display());
            }
        }
    }

    async fn publish_state(&mut self) -> Result<()> {
        let LocalRepository { identifier, state, .. } = &self.local;
        let mut tags = vec![vec!["d".to_owned(), identifier.clone()]];
        tags.extend(state.refs.iter().map(|(name, commit)| vec![name.clone(), commit.clone()]));
        tags.extend(state.head.iter().map(|head| vec!["HEAD".to_owned(), format!("ref: {head}")]));
        self.publish(30618, tags).await
    }

    async fn publish(&mut self, kind: u16, tags: Vec<Vec<String>>) -> Result<()> {
        let tags = tags.into_iter().map(Tag::parse).collect::<Result<Vec<_>, _>>().context("a tag is empty")?;
        // Of two events of one second the one with the lower id counts (NIP-01), not the later one.
        self.at = Timestamp::now().max(self.at + 1_u64);
        let event = EventBuilder::new(Kind::from(kind), "").tags(tags).custom_created_at(self.at);
        relay::send(&self.relays, &event.sign_with_keys(&self.local.owner).context("cannot sign")?).await
    }
}

impl RefsState {
    fn of(repository: &Repository) -> Result<Self> {
        let mut refs = BTreeMap::new();
        for reference in repository.references()?.flatten() {
            let Ok(name) = reference.name() else { continue };
            if !name.starts_with("refs/heads/") && !name.starts_with("refs/tags/") {
                continue;
            }
            if let Ok(commit) = reference.peel_to_commit() {
                refs.insert(name.to_owned(), commit.id().to_string());
            }
        }
        let head = repository.find_reference("HEAD")?;
        let head = head.symbolic_target().ok().flatten().map(str::to_owned);
        Ok(Self { head, refs })
    }
}

/// Whether refs may have moved. Looking at them opens files, which is an event as well: by it we would look for ever.
fn may_move_refs(event: &notify::Result<notify::Event>) -> bool {
    !matches!(event, Ok(event) if event.kind.is_access() && !event.need_rescan())
}

/// Hears of every change to the refs: in `refs`, and in `HEAD` and `packed-refs` beside it.
fn watch(folder: &Path) -> Result<(mpsc::Receiver<()>, RecommendedWatcher)> {
    let (notify, moved) = mpsc::channel(1);
    let mut watcher = notify::recommended_watcher(move |event| {
        if may_move_refs(&event) {
            // Full: that something moved is known already.
            let _ = notify.try_send(());
        }
    })?;
    let places = [(folder.to_owned(), RecursiveMode::NonRecursive), (folder.join("refs"), RecursiveMode::Recursive)];
    for (place, mode) in places {
        watcher.watch(&place, mode).with_context(|| format!("{}: cannot be watched", place.display()))?;
    }
    Ok((moved, watcher))
}

/// The folder's name, as far as an identifier may hold it.
fn identifier(root: &Path) -> String {
    let root = if root.ends_with(".git") { root.parent().unwrap_or(root) } else { root };
    let name = root.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let letter = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let name: String = name.chars().map(|one| if letter(one) { one } else { '-' }).collect();
    let name = name.trim_matches(['-', '.']);
    if name.is_empty() { "repository".to_owned() } else { name.to_owned() }
}

/// The key of the repository's owner that is kept in a file, which is made where it is missing.
pub(super) fn owner(path: &Path) -> Result<Keys> {
    if !path.exists() {
        let unwritable = || format!("{}: cannot be written", path.display());
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let secret = Keys::generate().secret_key().to_secret_hex();
        writeln!(file.with_context(unwritable)?, "{secret}").with_context(unwritable)?;
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read the key {}", path.display()))?;
    Keys::parse(text.trim()).with_context(|| format!("{} is no key: remove it, a new one is made", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    #[test]
    fn a_repository_is_called_as_its_folder() {
        let named = |path: &str| identifier(Path::new(path));
        assert_eq!(named("/home/me/my project/"), "my-project");
        assert_eq!(named("/srv/git/tool.git/"), "tool.git");
        assert_eq!(named("/srv/tool/.git/"), "tool");
        assert_eq!(named("/"), "repository");
    }

    #[tokio::test]
    async fn refs_are_looked_at_when_they_move_and_not_because_they_were_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let author = git2::Signature::now("a", "a@example.org").unwrap();
        let tree = repository.find_tree(repository.treebuilder(None).unwrap().write().unwrap()).unwrap();
        let (mut moved, _watcher) = watch(folder.path()).unwrap();
        RefsState::of(&repository).unwrap();
        let looked = tokio::time::timeout(QUIET * 3, moved.recv()).await;
        assert!(looked.is_err(), "a look is no move");
        repository.commit(Some("refs/heads/main"), &author, &author, "m", &tree, &[]).unwrap();
        assert_eq!(moved.recv().await, Some(()));
    }
}
