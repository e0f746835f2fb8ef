//! Getting the right code: real repositories over smart HTTP, real signed events.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "source/pull_requests.rs"]
mod pull_requests;

use std::{path::Path, sync::Arc};

use domain::run::Repository as Address;
use futures::{StreamExt, future::BoxFuture};
use longshore_tests::harness::git::{Repository, Server};
use nostr::{Event, EventBuilder, Filter, JsonUtil, Keys, Kind, Tag, Timestamp, ToBech32, filter::MatchEventOptions};
use source::{
    EventQuery, RepositoryMirrors, Revision, SourceError,
    other_repositories::{FetchDepth, RepositoryRequest},
};

/// Events as a relay would give them.
struct Events(Vec<Event>);

impl EventQuery for Events {
    fn find<'a>(&'a self, _: &'a [String], filter: Filter) -> BoxFuture<'a, Vec<Event>> {
        let found = self.0.iter().filter(|event| filter.match_event(event, MatchEventOptions::new())).cloned();
        let found = found.collect();
        Box::pin(async move { found })
    }
    fn write_relays<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<String>> {
        Box::pin(async { Vec::new() })
    }
}

fn event(keys: &Keys, kind: u16, at: u64, tags: &[&[&str]]) -> Event {
    let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
    let builder = EventBuilder::new(Kind::from(kind), "").tags(tags).custom_created_at(Timestamp::from(at));
    builder.sign_with_keys(keys).unwrap()
}

fn sources(folder: &Path, events: Vec<Event>, allow_private: bool) -> RepositoryMirrors {
    sources_with(folder, events, config::Source { allow_private, ..config::Source::default() })
}

fn sources_with(folder: &Path, events: Vec<Event>, settings: config::Source) -> RepositoryMirrors {
    RepositoryMirrors::new(folder.to_owned(), settings, Arc::new(Events(events)))
}

fn address(owner: &Keys) -> Address {
    let owner = owner.public_key().to_hex();
    Address { address: format!("30617:{owner}:my-repo"), owner, identifier: "my-repo".into(), relays: Vec::new() }
}

struct World {
    folder: tempfile::TempDir,
    server: Server,
    repository: Repository,
    owner: Keys,
    c0: String,
    c1: String,
}

async fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(&folder.path().join("srv")).await.unwrap();
    let repository = Repository::create(&folder.path().join("work")).unwrap();
    let c0 = repository.commit("first", &[("ci.yml", "one")]).unwrap();
    repository.publish(&server.folder, "old.git").unwrap();
    let c1 = repository.commit("second", &[("ci.yml", "two")]).unwrap();
    repository.publish(&server.folder, "new.git").unwrap();
    World { folder, server, repository, owner: Keys::generate(), c0, c1 }
}

impl World {
    fn announced(&self, clone: &[&str]) -> Event {
        let urls: Vec<String> = clone.iter().map(|name| self.server.clone_url(name)).collect();
        let mut tag = vec!["clone"];
        tag.extend(urls.iter().map(String::as_str));
        event(&self.owner, 30617, 1, &[&["d", "my-repo"], &tag])
    }
    fn state(&self, keys: &Keys, at: u64, commit: &str) -> Event {
        event(keys, 30618, at, &[&["d", "my-repo"], &["refs/heads/main", commit], &["HEAD", "ref: refs/heads/main"]])
    }
    fn mirrors(&self) -> std::path::PathBuf {
        self.folder.path().join("mirrors")
    }
}

#[tokio::test]
async fn t57_the_announced_commit_is_built_from_the_second_clone_url() {
    let w = world().await;
    let events = vec![w.announced(&["old.git", "new.git"]), w.state(&w.owner, 2, &w.c1)];
    let sources = sources(&w.mirrors(), events, true);
    let resolved = sources.resolve(&address(&w.owner), &Revision::default()).await.unwrap();
    assert_eq!(resolved.commit, w.c1.as_str());
    assert_eq!(resolved.reference, "refs/heads/main");
    assert!(resolved.proven);
    assert_eq!(resolved.file("ci.yml", 100).unwrap().unwrap(), b"two");
    assert!(resolved.file("missing.yml", 100).unwrap().is_none());
}

#[tokio::test]
async fn t58_a_state_that_precedes_its_objects_is_asked_for_again() {
    let w = world().await;
    let c2 = w.repository.commit("third", &[("ci.yml", "three")]).unwrap();
    let events = vec![w.announced(&["new.git"]), w.state(&w.owner, 2, &c2)];
    let sources = sources(&w.mirrors(), events, true);
    let error = sources.resolve(&address(&w.owner), &Revision::default()).await.unwrap_err();
    assert!(matches!(error, SourceError::NotYet(_)), "{error}");
    assert!(error.to_string().contains(&c2), "{error}");
    w.repository.publish(&w.server.folder, "new.git").unwrap();
    assert_eq!(sources.resolve(&address(&w.owner), &Revision::default()).await.unwrap().commit, c2.as_str());
}

#[tokio::test]
async fn t59_a_strangers_or_former_maintainers_state_is_ignored() {
    let w = world().await;
    let stranger = Keys::generate();
    let former = event(&w.owner, 30617, 0, &[&["d", "my-repo"], &["maintainers", &stranger.public_key().to_hex()]]);
    let events = vec![former, w.announced(&["new.git"]), w.state(&w.owner, 2, &w.c0), w.state(&stranger, 99, &w.c1)];
    let sources = sources(&w.mirrors(), events, true);
    assert_eq!(sources.resolve(&address(&w.owner), &Revision::default()).await.unwrap().commit, w.c0.as_str());
}

#[tokio::test]
async fn t67_a_commit_is_proven_as_tip_or_ancestor_of_the_state_only() {
    let w = world().await;
    w.repository.git(&["checkout", "--quiet", "-b", "side", &w.c0]).unwrap();
    let side = w.repository.commit("side", &[("x", "y")]).unwrap();
    w.repository.publish(&w.server.folder, "new.git").unwrap();
    let events = vec![w.announced(&["new.git"]), w.state(&w.owner, 2, &w.c1)];
    let sources = sources(&w.mirrors(), events, true);
    for (commit, proven) in [(&w.c1, true), (&w.c0, true), (&side, false)] {
        let wanted = Revision { commit: commit.clone(), ..Revision::default() };
        let resolved = sources.resolve(&address(&w.owner), &wanted).await.unwrap();
        assert_eq!((resolved.commit.as_str(), resolved.proven), (commit.as_str(), proven));
    }
}

#[tokio::test]
async fn attack_17_a_claimed_ref_counts_only_where_the_state_has_the_commit_there() {
    let w = world().await;
    w.repository.git(&["checkout", "--quiet", "-b", "feature", &w.c0]).unwrap();
    let feature = w.repository.commit("feature", &[("x", "y")]).unwrap();
    w.repository.git(&["checkout", "--quiet", "-b", "side", &w.c0]).unwrap();
    let side = w.repository.commit("side", &[("x", "z")]).unwrap();
    w.repository.publish(&w.server.folder, "new.git").unwrap();
    let tags: [&[&str]; 5] = [
        &["d", "my-repo"],
        &["refs/heads/main", &w.c1],
        &["refs/heads/feature", &feature],
        &["refs/tags/v1", &w.c0],
        &["HEAD", "ref: refs/heads/main"],
    ];
    let sources = sources(&w.mirrors(), vec![w.announced(&["new.git"]), event(&w.owner, 30618, 2, &tags)], true);
    let (main, branch) = ("refs/heads/main", "refs/heads/feature");
    // The commit, the ref that is claimed, the ref that the run has, whether it is proven, whether the change is told.
    for (commit, claimed, reference, proven, told) in [
        (&w.c1, main, main, true, false),
        (&w.c0, main, main, true, false),
        (&w.c0, "refs/tags/v1", "refs/tags/v1", true, false),
        (&feature, branch, branch, true, false),
        (&feature, main, branch, true, true),
        (&w.c1, "refs/tags/v1", main, true, true),
        (&w.c1, "refs/heads/gone", main, true, true),
        (&feature, "", branch, true, false),
        (&side, main, main, false, false),
    ] {
        let claim = Some(claimed.to_owned()).filter(|claimed| !claimed.is_empty());
        let wanted = Revision { commit: commit.clone(), reference: claim, ..Revision::default() };
        let found = sources.resolve(&address(&w.owner), &wanted).await.unwrap();
        let seen = (found.reference.as_str(), found.proven, found.other_ref.is_some());
        assert_eq!(seen, (reference, proven, told), "{commit} claimed as {claimed}");
    }
}

#[tokio::test]
async fn a_branch_that_the_state_does_not_name_is_not_built_as_another() {
    let w = world().await;
    let trunk: &[&[&str]] = &[&["d", "my-repo"], &["refs/heads/trunk", &w.c1], &["HEAD", "ref: refs/heads/trunk"]];
    let events = vec![w.announced(&["new.git"]), event(&w.owner, 30618, 2, trunk)];
    let sources = sources(&w.mirrors(), events, true);
    let resolve = async |branch: &str| {
        let wanted = Revision { branch: branch.into(), ..Revision::default() };
        sources.resolve(&address(&w.owner), &wanted).await
    };
    let error = resolve("topic").await.unwrap_err();
    assert!(matches!(error, SourceError::NotYet(_)), "{error}");
    let said = error.to_string();
    assert!(said.contains("does not name refs/heads/topic; it has refs/heads/trunk"), "{said}");
    // What clients say that do not know the branches.
    for branch in ["", "main", "trunk"] {
        assert_eq!(resolve(branch).await.unwrap().reference, "refs/heads/trunk", "{branch:?}");
    }
}

#[tokio::test]
async fn attack_60_a_clone_url_on_loopback_is_never_asked() {
    let w = world().await;
    let events = vec![w.announced(&["new.git"]), w.state(&w.owner, 2, &w.c1)];
    let sources = sources(&w.mirrors(), events, false);
    let error = sources.resolve(&address(&w.owner), &Revision::default()).await.unwrap_err();
    assert!(error.to_string().contains("not a public address"), "{error}");
}

#[tokio::test]
async fn a_bundle_carries_a_commit_with_its_history() {
    let w = world().await;
    let events = vec![w.announced(&["new.git"]), w.state(&w.owner, 2, &w.c1)];
    let sources = sources(&w.mirrors(), events, true);
    let address = address(&w.owner);
    sources.resolve(&address, &Revision::default()).await.unwrap();
    let mut stream = sources.bundle(&address.address, std::slice::from_ref(&w.c1), &[]).await.unwrap();
    let file = w.folder.path().join("bundle");
    let mut bytes = Vec::new();
    while let Some(part) = stream.next().await {
        bytes.extend_from_slice(&part.unwrap());
    }
    std::fs::write(&file, bytes).unwrap();
    let clone = Repository::create(&w.folder.path().join("clone")).unwrap();
    clone.git(&["fetch", "--quiet", &file.to_string_lossy(), &format!("refs/longshore/{}", w.c1)]).unwrap();
    assert_eq!(clone.git(&["rev-parse", "FETCH_HEAD"]).unwrap(), w.c1);
    assert_eq!(clone.git(&["rev-parse", "FETCH_HEAD~1"]).unwrap(), w.c0);
    assert!(w.announced(&["x"]).as_json().contains("30617"));
}

#[tokio::test]
async fn an_action_on_nostr_is_what_its_maintainers_name() {
    let w = world().await;
    w.repository.git(&["checkout", "--quiet", "-b", "side", &w.c0]).unwrap();
    let side = w.repository.commit("side", &[("x", "y")]).unwrap();
    w.repository.publish(&w.server.folder, "new.git").unwrap();
    let tags: [&[&str]; 4] =
        [&["d", "my-repo"], &["refs/heads/main", &w.c1], &["refs/tags/v1", &w.c0], &["HEAD", "ref: refs/heads/main"]];
    let events = vec![w.announced(&["new.git"]), event(&w.owner, 30618, 2, &tags)];
    let npub = w.owner.public_key().to_bech32().unwrap();
    let mirrors = [("acme/tool".to_owned(), format!("nostr://{npub}/my-repo"))].into();
    let actions = config::Actions { bases: Vec::new(), mirrors };
    let sources = sources(&w.mirrors(), events, true).with_actions(actions);
    let find = async |repository: &str, reference: &str| {
        sources
            .find(&RepositoryRequest { own: "", repository, reference, need: FetchDepth::Tree(None) })
            .await
            .map(|found| found.commit)
    };
    for repository in [&format!("{npub}/my-repo"), &format!("nostr://{npub}/my-repo"), "Acme/Tool"] {
        for (reference, commit) in [("v1", &w.c0), ("main", &w.c1), ("refs/heads/main", &w.c1), (&w.c0, &w.c0)] {
            assert_eq!(find(repository, reference).await.unwrap(), commit.as_str(), "{repository}@{reference}");
        }
        // The server gives this commit to whoever asks for it; no maintainer ever named it.
        for (reference, part) in
            [("v2", "no branch or tag"), ("side", "no branch or tag"), (&side, "no branch or tag that")]
        {
            let error = find(repository, reference).await.unwrap_err().to_string();
            assert!(error.contains(part), "{repository}@{reference}: {error}");
        }
    }
    let asked = RepositoryRequest {
        own: "",
        repository: &format!("{npub}/my-repo"),
        reference: "main",
        need: FetchDepth::Everything,
    };
    let found = sources.find(&asked).await.unwrap();
    let expected = [("refs/heads/main", &w.c1), ("refs/tags/v1", &w.c0)];
    assert_eq!(found.refs, expected.map(|(name, commit)| (name.to_owned(), commit.clone())));
}

#[tokio::test]
async fn attack_60_what_a_workflow_names_is_fetched_from_public_servers_alone() {
    let w = world().await;
    let actions = config::Actions { bases: vec![w.server.url.clone()], ..config::Actions::default() };
    let (new, file) = (w.server.clone_url("new.git"), format!("file://{}", w.server.folder.join("new.git").display()));
    for (private, name, part) in [
        (false, "acme/tool", "not a public address"),
        (false, new.as_str(), "not a public address"),
        (true, file.as_str(), "only http and https"),
        (true, "ext::sh -c id", "only http and https"),
        (true, "git@127.0.0.1:x/y", "only http and https"),
        (true, "-u/x", "names no repository"),
        (true, "../srv", "names no repository"),
    ] {
        let sources = sources(&w.mirrors(), Vec::new(), private).with_actions(actions.clone());
        let error = sources
            .find(&RepositoryRequest { own: "", repository: name, reference: "main", need: FetchDepth::History })
            .await
            .unwrap_err();
        assert!(error.to_string().contains(part), "{name}: {error}");
    }
    let sources = sources(&w.mirrors(), Vec::new(), true).with_actions(actions);
    let found = sources
        .find(&RepositoryRequest { own: "", repository: &new, reference: "", need: FetchDepth::History })
        .await
        .unwrap();
    assert_eq!((found.commit.as_str(), found.reference.as_str()), (w.c1.as_str(), "refs/heads/main"));
}

#[tokio::test]
async fn attack_47_a_fetch_of_more_than_is_allowed_is_ended_and_its_size_named() {
    let w = world().await;
    // Text that does not compress.
    let digits = (0..120_000).map(|number: u64| format!("{:x}", number.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let commit = w.repository.commit("large", &[("large", &digits.collect::<String>())]).unwrap();
    w.repository.publish(&w.server.folder, "new.git").unwrap();
    let events = || vec![w.announced(&["new.git"]), w.state(&w.owner, 2, &commit)];
    let limited = |fetch_bytes, folder: &str| {
        let settings = config::Source { allow_private: true, fetch_bytes, ..config::Source::default() };
        sources_with(&w.folder.path().join(folder), events(), settings)
    };
    let error = limited(100_000, "small").resolve(&address(&w.owner), &Revision::default()).await.unwrap_err();
    assert!(error.to_string().contains("a fetch may have 0 MiB here: source.fetch_bytes"), "{error}");
    limited(10 << 20, "large").resolve(&address(&w.owner), &Revision::default()).await.unwrap();
}
