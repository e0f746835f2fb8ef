//! Which commit a checkout means where a pool is asked from within it, and what of it the pool can't have.

use std::path::Path;

use anyhow::{Context, Result, anyhow, bail};
use domain::run::Repository;
use git2::{Commit, Oid};
use nostr::{Event, Filter, Kind, PublicKey};
use nostr_sdk::Client;
use source::announcement::{Announcement, State, maintainers, newest};

use super::relay;

/// Branches that an error lists.
const LISTED: usize = 20;

/// What relays say of a repository.
#[derive(Debug, Default)]
pub(crate) struct KnownRefs {
    /// Whose word counts, the owner among them.
    maintainers: Vec<PublicKey>,
    clone_urls: Vec<String>,
    /// `None`: no relay has one.
    pub(crate) state: Option<State>,
}

impl KnownRefs {
    /// Asks the relays.
    pub(crate) async fn fetch(client: &Client, repository: &Repository) -> Result<Self> {
        let owner = PublicKey::from_hex(&repository.owner).context("the repository's owner is no key")?;
        let both = [Kind::GitRepoAnnouncement, Kind::RepoState];
        let of = Filter::new().identifier(&repository.identifier);
        let mut found = relay::find(client, vec![of.clone().kinds(both).author(owner)]).await?;
        let keys = |found: &[Event]| -> Vec<PublicKey> {
            let keys = maintainers(&repository.owner, &repository.identifier, found, false);
            keys.iter().filter_map(|key| PublicKey::from_hex(key).ok()).collect()
        };
        let others: Vec<PublicKey> = keys(&found).into_iter().filter(|key| *key != owner).collect();
        if !others.is_empty() {
            found.extend(relay::find(client, vec![of.kinds(both).authors(others)]).await?);
        }
        // What they announce themselves may say that they left.
        let keys = keys(&found);
        found.retain(|event| keys.contains(&event.pubkey));
        Ok(Self::of(&found, owner, keys))
    }

    fn of(found: &[Event], owner: PublicKey, maintainers: Vec<PublicKey>) -> Self {
        let verified = |kind: Kind| found.iter().filter(move |event| event.kind == kind && event.verify().is_ok());
        let own = verified(Kind::GitRepoAnnouncement).filter(|event| event.pubkey == owner);
        Self {
            clone_urls: newest(own).map(Announcement::read).unwrap_or_default().clone,
            state: newest(verified(Kind::RepoState)).map(State::read),
            maintainers,
        }
    }

    /// Events by which its branches move.
    pub(crate) fn moves(&self, repository: &Repository) -> Filter {
        Filter::new().kind(Kind::RepoState).identifier(&repository.identifier).authors(self.maintainers.clone())
    }

    /// A branch that is asked for has to be there.
    ///
    /// # Errors
    /// It names those that are.
    pub(crate) fn check_branch(&self, branch: &str) -> Result<()> {
        let Some(state) = self.state.as_ref().filter(|state| state.full_name(branch).is_none()) else { return Ok(()) };
        let short = |name: &'_ str| {
            let short = name.strip_prefix("refs/heads/").or(name.strip_prefix("refs/tags/"));
            short.unwrap_or(name).to_owned()
        };
        let there: Vec<String> = state.targets().map(|(name, _)| short(name)).take(LISTED).collect();
        bail!(
            "--branch {branch}: the repository has no such branch or tag; it has {}: push it, or name another",
            there.join(", ")
        )
    }
}

/// A commit of a checkout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LocalCommit {
    /// Short name of the branch or tag; empty: none is checked out.
    pub(crate) branch: String,
    /// Full id.
    pub(crate) commit: String,
    /// First line of its message, where the checkout has it.
    pub(crate) message: String,
    /// Whether a branch or tag that relays know holds it. Where they know none, it counts as pushed.
    pub(crate) is_pushed: bool,
    /// Files that differ from what is checked out, where that is what runs.
    pub(crate) uncommitted: usize,
}

impl LocalCommit {
    /// What `branch` and `commit`, as far as they are given, mean in the checkout that holds a folder; else what is checked out
    /// there. `None`: it is no checkout of this repository.
    ///
    /// # Errors
    /// The checkout has no such branch or commit.
    pub(crate) fn find(folder: &Path, known: &KnownRefs, branch: &str, commit: &str) -> Result<Option<Self>> {
        let Ok(repository) = git2::Repository::discover(folder) else { return Ok(None) };
        if !is_of(&repository, known) {
            return Ok(None);
        }
        if !commit.is_empty() {
            let found = repository.revparse_single(commit).and_then(|object| object.peel_to_commit());
            let found = found.map_err(|_| {
                anyhow!(
                    "--commit {commit}: this checkout has no such commit: fetch it first, or name one that is there"
                )
            })?;
            return Ok(Some(Self::of(&repository, known, branch.to_owned(), &found)));
        }
        if branch.is_empty() {
            let head =
                repository.head().map_err(|_| anyhow!("this checkout has no commit yet: commit, then try again"))?;
            let name =
                head.name().ok().and_then(|name| name.strip_prefix("refs/heads/")).unwrap_or_default().to_owned();
            let made = Self::of(&repository, known, name, &head.peel_to_commit()?);
            return Ok(Some(Self { uncommitted: uncommitted(&repository), ..made }));
        }
        let own = ["heads", "tags"].iter().find_map(|kind| {
            let found = repository.find_reference(&format!("refs/{kind}/{branch}")).ok()?;
            found.peel_to_commit().ok()
        });
        let state = known.state.as_ref();
        let pushed = state.and_then(|state| state.target(state.full_name(branch)?)).map(str::to_owned);
        let is_ahead = |own: &Commit| match pushed.as_deref().map(Oid::from_str) {
            Some(Ok(pushed)) => repository.graph_descendant_of(own.id(), pushed).unwrap_or(false),
            _ => true,
        };
        match (own.filter(is_ahead), pushed) {
            (Some(own), _) => Ok(Some(Self::of(&repository, known, branch.to_owned(), &own))),
            (None, Some(pushed)) => {
                let message = Oid::from_str(&pushed).and_then(|id| repository.find_commit(id));
                let message = message.map(|commit| first_line(&commit)).unwrap_or_default();
                Ok(Some(Self { branch: branch.to_owned(), commit: pushed, message, is_pushed: true, uncommitted: 0 }))
            }
            (None, None) => known.check_branch(branch).map(|()| None),
        }
    }

    fn of(repository: &git2::Repository, known: &KnownRefs, branch: String, commit: &Commit) -> Self {
        let holds = |target: &str| {
            let target = Oid::from_str(target).ok();
            target.is_some_and(|target| {
                target == commit.id() || repository.graph_descendant_of(target, commit.id()).unwrap_or(false)
            })
        };
        Self {
            branch,
            commit: commit.id().to_string(),
            message: first_line(commit),
            is_pushed: known.state.as_ref().is_none_or(|state| state.targets().any(|(_, target)| holds(target))),
            uncommitted: 0,
        }
    }
}

/// Whether a checkout is of the repository: it has a commit that the repository's state names, or was cloned from it.
fn is_of(repository: &git2::Repository, known: &KnownRefs) -> bool {
    let has = |target: &str| Oid::from_str(target).is_ok_and(|id| repository.find_object(id, None).is_ok());
    if known.state.as_ref().is_some_and(|state| state.targets().any(|(_, target)| has(target))) {
        return true;
    }
    let remotes = repository.remotes().ok();
    let names = remotes.iter().flat_map(|names| names.iter().flatten().flatten());
    let urls = names.filter_map(|name| repository.find_remote(name).ok()?.url().ok().map(str::to_owned));
    urls.collect::<Vec<_>>().iter().any(|url| known.clone_urls.contains(url))
}

/// Files that were changed or made since the commit.
fn uncommitted(repository: &git2::Repository) -> usize {
    let mut options = git2::StatusOptions::new();
    options.include_untracked(true);
    repository.statuses(Some(&mut options)).map_or(0, |statuses| statuses.len())
}

fn first_line(commit: &Commit) -> String {
    String::from_utf8_lossy(commit.message_bytes()).lines().next().unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]
    use std::process::Command;

    use nostr::{EventBuilder, Keys, Tag};

    use super::*;

    fn sh(folder: &Path, script: &str) -> String {
        let mut command = Command::new("sh");
        command.args(["-ec", script]).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "n").env(format!("GIT_{role}_EMAIL"), "e@example.org");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// What relays know: these refs at these commits.
    fn known(refs: &[(&str, &str)]) -> KnownRefs {
        let tags = refs.iter().map(|(name, commit)| Tag::parse([*name, *commit]).unwrap());
        let event = EventBuilder::new(Kind::RepoState, "").tags(tags).sign_with_keys(&Keys::generate()).unwrap();
        KnownRefs { state: Some(State::read(&event)), ..KnownRefs::default() }
    }

    #[test]
    fn a_checkout_means_what_is_checked_out_and_tells_what_the_pool_cannot_have() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| sh(folder.path(), &format!("git rev-parse {name}"));
        sh(
            folder.path(),
            "git init -q -b main .; git commit -q --allow-empty -m first; git branch old; git branch side",
        );
        sh(folder.path(), "git commit -q --allow-empty -m 'second line\n\nmore'; git tag v1; echo x > new");
        sh(folder.path(), "git checkout -q side; git commit -q --allow-empty -m side; git checkout -q main");
        let (first, second, side) = (at("old"), at("main"), at("side"));
        let pushed = known(&[("refs/heads/main", &second), ("refs/heads/side", &first)]);
        let behind = known(&[("refs/heads/main", &first)]);
        let found = |known: &KnownRefs, branch: &str, commit: &str| {
            let found = LocalCommit::find(folder.path(), known, branch, commit);
            match found {
                Ok(Some(found)) => {
                    format!("{} {} {} {}", found.branch, found.message, found.is_pushed, found.uncommitted)
                }
                Ok(None) => "another repository".to_owned(),
                Err(error) => error.to_string(),
            }
        };
        for (known, branch, commit, expected) in [
            (&pushed, "", "", "main second line true 1"),
            (&behind, "", "", "main second line false 1"),
            (&pushed, "side", "", "side side false 0"),
            (&pushed, "main", "", "main second line true 0"),
            (&behind, "old", "", "old first true 0"),
            (&behind, "", &side[..8], " side false 0"),
            (
                &pushed,
                "",
                "deadbeef",
                "--commit deadbeef: this checkout has no such commit: fetch it first, or name one that is there",
            ),
            (
                &pushed,
                "nope",
                "",
                "--branch nope: the repository has no such branch or tag; it has main, side: push it, or name another",
            ),
            (&known(&[("refs/heads/main", &"1".repeat(40))]), "", "", "another repository"),
            (&KnownRefs::default(), "", "", "another repository"),
        ] {
            assert_eq!(found(known, branch, commit), expected, "{branch} {commit}");
        }
        let cloned = KnownRefs { clone_urls: vec!["https://x/r.git".into()], ..KnownRefs::default() };
        sh(folder.path(), "git remote add origin https://x/r.git");
        assert_eq!(found(&cloned, "", ""), "main second line true 1", "nothing is known of what was pushed");
        // Of a branch that was rewritten elsewhere, what the repository has is built.
        let other = known(&[("refs/heads/main", &second), ("refs/heads/side", &second)]);
        assert_eq!(found(&other, "side", ""), "side second line true 0");
    }
}
