//! What goes from mirrors, and what stays, with real git repositories.
#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use std::sync::Arc;

use futures::future::BoxFuture;
use network::{CheckedUrl, Reach};

use super::*;

const REPOSITORY: &str = "30617:owner:repo";

struct Nobody;

impl crate::EventQuery for Nobody {
    fn find<'a>(&'a self, _: &'a [String], _: nostr::Filter) -> BoxFuture<'a, Vec<nostr::Event>> {
        Box::pin(std::future::ready(Vec::new()))
    }

    fn write_relays<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(std::future::ready(Vec::new()))
    }
}

struct World {
    folder: tempfile::TempDir,
    upstream: git2::Repository,
    sources: RepositoryMirrors,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let upstream = git2::Repository::init_bare(folder.path().join("upstream")).unwrap();
        let settings = config::Source { allow_file: true, ..config::Source::default() };
        let sources = RepositoryMirrors::new(folder.path().join("mirrors"), settings, Arc::new(Nobody));
        Self { folder, upstream, sources }
    }

    /// A commit on a branch of its own.
    fn commit(&self, branch: &str) -> String {
        let author = git2::Signature::new("a", "a@example.org", &git2::Time::new(1, 0)).unwrap();
        let mut tree = self.upstream.treebuilder(None).unwrap();
        tree.insert("file", self.upstream.blob(branch.as_bytes()).unwrap(), 0o100_644).unwrap();
        let tree = self.upstream.find_tree(tree.write().unwrap()).unwrap();
        let name = format!("refs/heads/{branch}");
        self.upstream.commit(Some(&name), &author, &author, branch, &tree, &[]).unwrap().to_string()
    }

    async fn fetch(&self, commits: &[String]) -> Mirror {
        let url = format!("file://{}", self.folder.path().join("upstream").display());
        let from: CheckedUrl = network::check_clone(&url, Reach { private: false, file: true }).await.unwrap();
        let mirror = self.sources.mirror(REPOSITORY).await.unwrap();
        mirror.fetch_commits(&from, commits).await.unwrap();
        mirror
    }

    fn stored(&self) -> StoredMirror {
        let mut found = self.sources.mirrors();
        assert_eq!(found.len(), 1);
        found.remove(0)
    }
}

fn refs(mirror: &StoredMirror) -> Vec<String> {
    let repository = git2::Repository::open_bare(&mirror.path).unwrap();
    let names = repository.references_glob("refs/longshore/*").unwrap();
    names.map(|reference| reference.unwrap().name().unwrap().trim_start_matches("refs/longshore/").to_owned()).collect()
}

fn set_age(path: &Path, age: Duration) {
    std::fs::File::open(path).unwrap().set_modified(SystemTime::now() - age).unwrap();
}

#[tokio::test]
async fn a_commit_goes_with_its_last_run_and_its_objects_with_the_next_packing() {
    let world = World::new();
    let (gone, kept) = (world.commit("gone"), world.commit("kept"));
    let mirror = world.fetch(&[gone.clone(), kept.clone()]).await;
    let stored = world.stored();
    assert_eq!(stored.name, RepositoryMirrors::mirror_name(REPOSITORY));
    world.sources.forget(REPOSITORY, &gone, async { Ok(true) }).await.unwrap();
    assert_eq!(refs(&stored).len(), 2, "another run has it");
    world.sources.forget(REPOSITORY, &gone, async { Ok(false) }).await.unwrap();
    assert_eq!(refs(&stored), [kept.as_str()]);
    world.sources.forget("30617:owner:other", &gone, async { Ok(false) }).await.unwrap();

    // Objects are collected an hour after they came.
    for entry in walk(&stored.path.join("objects")) {
        set_age(&entry, Duration::from_secs(7200));
    }
    assert!(world.sources.pack(&stored).await.unwrap());
    assert_eq!((mirror.peel(&gone).await, mirror.peel(&kept).await), (None, kept.parse().ok()));
    assert!(!world.sources.pack(&world.stored()).await.unwrap(), "it is packed");
}

#[tokio::test]
async fn locks_that_a_killed_git_left_hold_up_neither_forgetting_nor_packing() {
    let world = World::new();
    let commit = world.commit("a");
    let mirror = world.fetch(std::slice::from_ref(&commit)).await;
    mirror.keep(&commit).await.unwrap();
    let stored = world.stored();
    let leave = || {
        for lock in ["packed-refs.lock".to_owned(), format!("refs/longshore/{commit}.lock")] {
            std::fs::write(stored.path.join(lock), "").unwrap();
        }
    };
    leave();
    world.sources.forget(REPOSITORY, &commit, std::future::ready(Ok(false))).await.unwrap();
    assert_eq!(refs(&stored), Vec::<String>::new());
    leave();
    assert!(world.sources.pack(&world.stored()).await.unwrap());
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn a_mirror_that_is_fetched_into_is_neither_packed_nor_removed_nor_is_one_that_was_just_used() {
    let world = World::new();
    world.fetch(&[world.commit("a")]).await;
    let stored = world.stored();
    assert!(!world.sources.remove_mirror(&stored).await.unwrap(), "it was used just now");
    set_age(&stored.path.join(HEAD), 2 * IN_USE);
    {
        let lock = world.sources.repository_lock(&stored.name);
        let _fetching = lock.lock().await;
        assert!(!world.sources.pack(&stored).await.unwrap());
        assert!(!world.sources.remove_mirror(&stored).await.unwrap());
    }
    assert!(world.sources.remove_mirror(&stored).await.unwrap());
    assert!(world.sources.mirrors().is_empty() && !stored.path.exists());
    world.fetch(&[world.commit("b")]).await;
}

#[tokio::test]
async fn mirrors_are_listed_by_their_last_use() {
    let world = World::new();
    for (repository, hours) in [("a", 1), ("b", 3), ("c", 2)] {
        let mirror = world.sources.mirror(repository).await.unwrap();
        set_age(&mirror.path().join(HEAD), Duration::from_secs(3600 * hours));
    }
    let listed = |world: &World| world.sources.mirrors().into_iter().map(|mirror| mirror.name).collect::<Vec<_>>();
    assert_eq!(listed(&world), ["b", "c", "a"].map(RepositoryMirrors::mirror_name));
    world.sources.mirror("b").await.unwrap();
    assert_eq!(listed(&world), ["c", "a", "b"].map(RepositoryMirrors::mirror_name), "it was used again");
}

#[tokio::test]
async fn attack_36_no_fetch_takes_the_room_that_is_kept_free() {
    let world = World::new();
    let commit = world.commit("main");
    let from = CheckedUrl {
        url: format!("file://{}", world.folder.path().join("upstream").display()).parse().unwrap(),
        addresses: Vec::new(),
    };
    for (min_free, fits) in [(u64::MAX, false), (0, true)] {
        let settings = config::Source { allow_file: true, min_free, ..config::Source::default() };
        let reach = Reach { private: true, file: true };
        let folder = world.folder.path().join("other");
        let mirror = Mirror::open(&folder, REPOSITORY, reach, (&settings).into()).await.unwrap();
        let fetched = mirror.fetch_commits(&from, std::slice::from_ref(&commit)).await;
        assert_eq!(fetched.is_ok(), fits, "{fetched:?}");
        assert!(fits || fetched.unwrap_err().to_string().contains("source.min_free"));
    }
}

#[tokio::test]
async fn what_a_fetch_that_was_killed_leaves_locked_stops_nobody() {
    let world = World::new();
    let url = format!("file://{}", world.folder.path().join("upstream").display());
    world.commit("first");
    let mirrors = [("o/r".to_owned(), url)].into();
    let settings = config::Source { allow_file: true, ..config::Source::default() };
    let sources = RepositoryMirrors::new(world.folder.path().join("mirrors"), settings, Arc::new(Nobody))
        .with_actions(config::Actions { mirrors, ..config::Actions::default() });
    let find = async |reference: &str| {
        let need = crate::other_repositories::FetchDepth::History;
        let asked = crate::other_repositories::RepositoryRequest { own: "", repository: "o/r", reference, need };
        sources.find(&asked).await
    };
    find("first").await.unwrap();
    let second = world.commit("second");
    let mirror = world.sources.mirrors().pop().unwrap().path;
    for left in
        [format!("refs/longshore/{second}.lock"), "packed-refs.lock".to_owned(), "refs/fetched/a/b.lock".to_owned()]
    {
        std::fs::create_dir_all(mirror.join(&left).parent().unwrap()).unwrap();
        std::fs::write(mirror.join(left), "").unwrap();
    }
    assert_eq!(find("second").await.unwrap().commit.as_str(), second);
}
