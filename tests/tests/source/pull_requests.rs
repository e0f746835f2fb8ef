//! What somebody wants merged: found by its id, fetched from where its author says, merged with the base.

use std::process::Command;

use source::{
    merge::Merge,
    pull_request::{FetchAllowance, PullRequestRevision},
};
use triggers::pull_request::{Head, PullRequest, PullRequestState};

use super::*;

fn allowance() -> FetchAllowance {
    FetchAllowance { most: u64::MAX, time: None, came: 0 }
}

/// A pull request of this commit, by a stranger whose server has it.
fn request(w: &World, commit: &str, clones: &[&str]) -> PullRequest {
    PullRequest {
        root: "ab".repeat(32),
        author: "cd".repeat(32),
        made_at: 5,
        head: Head {
            commit: commit.into(),
            event: "ab".repeat(32),
            kind: 1618,
            made_at: 5,
            clones: clones.iter().map(|name| w.server.clone_url(name)).collect(),
        },
        ..PullRequest::default()
    }
}

/// A commit that begins at another one, on a server that the repository does not name.
fn proposed(w: &World, from: &str, files: &[(&str, &str)]) -> String {
    w.repository.git(&["checkout", "--quiet", "--detach", from]).unwrap();
    let commit = w.repository.commit("proposed", files).unwrap();
    w.repository.git(&["branch", "--force", "proposed"]).unwrap();
    w.repository.git(&["checkout", "--quiet", "main"]).unwrap();
    w.repository.publish(&w.server.folder, "fork.git").unwrap();
    commit
}

/// Refs of the only mirror below a folder.
fn refs(mirrors: &Path) -> Vec<String> {
    let mirror = std::fs::read_dir(mirrors).unwrap().next().unwrap().unwrap().path();
    let output =
        Command::new("git").arg("--git-dir").arg(mirror).args(["for-each-ref", "--format=%(refname)"]).output();
    String::from_utf8(output.unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
}

async fn revision(
    w: &World,
    sources: &RepositoryMirrors,
    request: &PullRequest,
) -> Result<PullRequestRevision, SourceError> {
    sources.pull_request_revision(&address(&w.owner), request, &mut allowance()).await
}

#[tokio::test]
async fn a_merge_is_the_same_commit_whenever_it_is_made_and_all_that_the_mirror_keeps() {
    let w = world().await;
    let head = proposed(&w, &w.c0, &[("added", "text")]);
    let sources = sources(&w.mirrors(), vec![w.announced(&["new.git"]), w.state(&w.owner, 2, &w.c1)], true);
    let asked = request(&w, &head, &["fork.git"]);
    let found = revision(&w, &sources, &asked).await.unwrap();
    let Merge::Made(merge) = found.merge.clone() else { panic!("{found:?}") };
    assert_eq!((found.base.as_str(), found.head.as_str()), (w.c1.as_str(), head.as_str()));
    assert_eq!((found.message.trim(), found.base_branch.as_str()), ("proposed", "main"));
    assert_eq!(found.changed_paths, Some(vec!["added".to_owned()]), "not what the base changed meanwhile");
    let files = found.files(&merge);
    assert_eq!(files.default_branch_file("ci.yml", 99).as_deref(), Some("two"));
    let kept = refs(&w.mirrors());
    assert!(kept.contains(&format!("refs/longshore/{merge}")), "{kept:?}");
    assert!(!kept.iter().any(|name| name.contains("pull") || name.ends_with(&head)), "{kept:?}");
    let again = revision(&w, &sources, &asked).await.unwrap();
    assert_eq!(again.merge, Merge::Made(merge), "of base, head and time");
}

#[tokio::test]
async fn t57_t62_the_head_is_what_its_event_names_and_the_base_what_the_state_has() {
    let w = world().await;
    let head = proposed(&w, &w.c1, &[("added", "text")]);
    // On a branch a third value was a parent commit.
    let tags: [&[&str]; 2] = [&["d", "my-repo"], &["refs/heads/main", &w.c1, &w.c0]];
    let events = vec![w.announced(&["old.git", "new.git"]), event(&w.owner, 30618, 2, &tags)];
    let sources = sources(&w.mirrors(), events, true);
    // The first URL has an older tip, the second does not exist.
    let found = revision(&w, &sources, &request(&w, &head, &["old.git", "gone.git", "fork.git"])).await.unwrap();
    assert_eq!((found.base.as_str(), found.head.as_str()), (w.c1.as_str(), head.as_str()));
    let missing = revision(&w, &sources, &request(&w, &"1".repeat(40), &["fork.git"])).await.unwrap_err();
    assert!(matches!(missing, SourceError::NotYet(_)), "{missing}");
    let other = PullRequest { base: Some("gone".into()), ..request(&w, &head, &["fork.git"]) };
    let refused = revision(&w, &sources, &other).await.unwrap_err();
    assert!(matches!(&refused, SourceError::Refused(why) if why.contains("no branch gone")), "{refused}");
}

#[tokio::test]
async fn what_can_not_be_merged_says_why() {
    let w = world().await;
    let conflicting = proposed(&w, &w.c0, &[("ci.yml", "three")]);
    let sources = sources(&w.mirrors(), vec![w.announced(&["new.git"]), w.state(&w.owner, 2, &w.c1)], true);
    let merge = async |commit: &str| revision(&w, &sources, &request(&w, commit, &["fork.git"])).await.unwrap().merge;
    assert_eq!(merge(&conflicting).await, Merge::Conflict(vec!["ci.yml".into()]));
    assert_eq!(merge(&w.c0).await, Merge::Contained);
    w.repository.git(&["checkout", "--quiet", "--orphan", "other"]).unwrap();
    let unrelated = w.repository.commit("from nowhere", &[("x", "y")]).unwrap();
    w.repository.publish(&w.server.folder, "fork.git").unwrap();
    assert_eq!(merge(&unrelated).await, Merge::Unrelated);
    let kept = refs(&w.mirrors());
    assert!(!kept.iter().any(|name| name.contains("pull")), "{kept:?}");
}

#[tokio::test]
async fn attack_60_a_strangers_clone_url_leads_neither_to_this_machine_nor_to_its_files_nor_beyond_the_allowance() {
    let w = world().await;
    let large: String =
        (0..400_000_u32).map(|number| format!("{}", number.wrapping_mul(2_654_435_761) % 997)).collect();
    let head = proposed(&w, &w.c1, &[("large", &large)]);
    let events = vec![w.announced(&["new.git"]), w.state(&w.owner, 2, &w.c1)];
    // The repository's own objects are here; what is named besides is not asked for.
    let here = sources(&w.mirrors(), events.clone(), true);
    here.resolve(&address(&w.owner), &Revision::default()).await.unwrap();
    let strict = sources(&w.mirrors(), events.clone(), false);
    let error = revision(&w, &strict, &request(&w, &head, &["fork.git"])).await.unwrap_err();
    assert!(error.to_string().contains("not a public address"), "{error}");
    let mut local = request(&w, &head, &[]);
    for url in [format!("file://{}", w.server.folder.join("fork.git").display()), "ext::sh -c id".into()] {
        local.head.clones = vec![url];
        let settings = config::Source { allow_private: true, allow_file: true, ..config::Source::default() };
        let error = revision(&w, &sources_with(&w.mirrors(), events.clone(), settings), &local).await.unwrap_err();
        assert!(matches!(error, SourceError::NotYet(_)), "{error}");
    }
    let mut small = FetchAllowance { most: 10_000, ..allowance() };
    let asked = request(&w, &head, &["fork.git"]);
    let error = here.pull_request_revision(&address(&w.owner), &asked, &mut small).await.unwrap_err();
    assert!(matches!(error, SourceError::NotYet(_)), "{error}");
    let mut enough = allowance();
    here.pull_request_revision(&address(&w.owner), &asked, &mut enough).await.unwrap();
    assert!(enough.came > 10_000, "{enough:?}");
}

#[tokio::test]
async fn what_strangers_say_of_a_pull_request_is_not_even_asked_for() {
    let w = world().await;
    let (author, maintainer, stranger) = (Keys::generate(), Keys::generate(), Keys::generate());
    let hex = maintainer.public_key().to_hex();
    let announced = event(&w.owner, 30617, 1, &[&["d", "my-repo"], &["maintainers", &hex]]);
    let ours = address(&w.owner);
    let root = event(&author, 1618, 5, &[&["a", &ours.address], &["c", &w.c0]]);
    let id = root.id.to_hex();
    let update = |by: &Keys, at: u64, commit: &str| event(by, 1619, at, &[&["E", &id], &["c", commit]]);
    let status = |by: &Keys, at: u64, kind: u16| event(by, kind, at, &[&["e", &id, "", "root"]]);
    let mut events = vec![announced, w.state(&w.owner, 2, &w.c1), root.clone()];
    events.extend([update(&author, 7, &w.c1), update(&stranger, 9, &"1".repeat(40)), update(&author, 6, &w.c0)]);
    events.extend([status(&stranger, 9, 1632), status(&author, 8, 1633)]);
    let find = async |events: &[Event], heard: Option<Event>| {
        let sources = sources(&w.mirrors(), events.to_vec(), true);
        sources.published_pull_request(&ours, &id, None, heard).await.unwrap().request
    };
    let found = find(&events, None).await.unwrap();
    assert_eq!((found.head.commit.as_str(), found.state()), (w.c1.as_str(), PullRequestState::Draft));
    events.push(status(&maintainer, 10, 1632));
    assert_eq!(find(&events, None).await.unwrap().state(), PullRequestState::Closed);
    // What was heard counts, whether a relay gives it or not.
    let reopened = status(&author, 11, 1630);
    assert_eq!(find(&events, Some(reopened)).await.unwrap().state(), PullRequestState::Open);
    let without: Vec<Event> = events.iter().filter(|event| event.id != root.id).cloned().collect();
    assert!(find(&without, Some(root)).await.is_some());
    assert!(find(&without, None).await.is_none());
}
