//! Repositories that a workflow names besides its own: actions, other checkouts, submodules.
//!
//! Where a name is looked for is fixed: a Nostr address or a URL means itself; `owner/repo` means its entry among the
//! configured mirrors where there is one, else the first configured base that has it. A base is passed over only where
//! it says that it has no such repository. The order that was gone stands in the log.

use url::Url;

use super::{
    RepositoryMetadata, RepositoryMirrors, SourceError, address, address::Address, git::Mirror, lock::Lock,
    maintenance::remove_stale_locks,
};
use domain::id::CommitId;
use domain::run::Repository;
use network::{self, CheckedUrl, Reach};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct RepositoryRequest<'a> {
    /// Address of the repository whose workflow asks; empty: none.
    pub own: &'a str,
    /// As written: `owner/repo`, `npub1…/repo`, `naddr1…`, `nostr://…`, `30617:…` or a URL.
    pub repository: &'a str,
    /// As written: branch, tag, full ref or full commit id; empty: the default branch.
    pub reference: &'a str,
    /// What of it.
    pub need: FetchDepth<'a>,
}

/// How much of a repository is needed.
#[derive(Debug, Clone, Copy)]
pub enum FetchDepth<'a> {
    /// The files at the commit, for an action, which the lock file must allow where there is one.
    Tree(Option<&'a Lock>),
    /// The commit with its history.
    History,
    /// Every branch and tag besides.
    Everything,
}

/// A commit that was found and whose objects are here.
#[derive(Debug, Clone)]
pub struct RepositorySnapshot {
    /// Names its mirror, for [`RepositoryMirrors::bundle`] and [`RepositoryMirrors::archive`].
    pub key: String,
    /// The commit.
    pub commit: CommitId,
    /// Full name of the ref; empty: a commit was asked for.
    pub reference: String,
    /// With [`FetchDepth::Everything`]: branches and tags, and the object of each.
    pub refs: Vec<(String, String)>,
    /// URL or address it came from.
    pub origin: String,
    /// What was asked, in order.
    pub notes: Vec<String>,
}

/// What a name may mean.
enum RepositoryOrigin {
    Nostr(Repository),
    /// URLs in the order in which they are asked.
    Git(Vec<String>, Reach),
}

/// What a ref of a git server stands for.
struct Target {
    /// Full name; empty: none.
    name: String,
    /// The object to fetch.
    object: String,
}

impl RepositoryMirrors {
    /// Finds what a workflow names and brings its objects. A repository that is private here is for those of its owner alone;
    /// what is fetched by URL is open to everybody.
    ///
    /// # Errors
    /// It is not there, may not be had, or can't be had now.
    pub async fn find(&self, asked: &RepositoryRequest<'_>) -> Result<RepositorySnapshot, SourceError> {
        let mut notes = Vec::new();
        let found = match self.origin_of(asked.repository, &mut notes)? {
            RepositoryOrigin::Nostr(repository) => {
                if !self.may_have(asked.own, &repository) {
                    let Repository { address, .. } = &repository;
                    return Err(SourceError::Refused(format!(
                        "{} is private here: a workflow of another owner gets none of it unless the operator sets \
                         repositories.\"{address}\".visibility = \"public\"",
                        asked.repository
                    )));
                }
                self.find_announced(&repository, asked, notes).await?
            }
            RepositoryOrigin::Git(urls, reach) => self.find_served(&urls, reach, asked, notes).await?,
        };
        if let FetchDepth::Tree(Some(lock)) = asked.need {
            lock.check(asked.repository, asked.reference, found.commit.as_str())
                .map_err(|error| SourceError::Refused(error.to_string()))?;
        }
        Ok(found)
    }

    /// Whether workflows of the repository `own` may have the files of another.
    fn may_have(&self, own: &str, other: &Repository) -> bool {
        let owner = own.strip_prefix("30617:").and_then(|rest| rest.split_once(':')).map(|(owner, _)| owner);
        own == other.address || owner == Some(other.owner.as_str()) || !(self.is_private)(other)
    }

    /// The files of a commit that was found before, as tar.
    pub async fn archive(
        &self,
        key: &str,
        commit: &str,
    ) -> Result<futures::stream::BoxStream<'static, std::io::Result<bytes::Bytes>>, SourceError> {
        self.mirror(key).await?.archive(commit).await.map_err(refused)
    }

    /// A file of a commit that was found; `None` where there is none.
    pub async fn file(
        &self,
        found: &RepositorySnapshot,
        path: &str,
        limit: usize,
    ) -> Result<Option<Vec<u8>>, SourceError> {
        self.mirror(&found.key).await?.file(found.commit.as_str(), path, limit).map_err(refused)
    }

    /// Where the objects of something found lie on this machine.
    pub async fn folder(&self, key: &str) -> Result<std::path::PathBuf, SourceError> {
        Ok(self.mirror(key).await?.path().to_owned())
    }

    /// The lock file of a commit that is here; without one nothing is locked.
    pub async fn lock_of(&self, repository: &str, commit: &str) -> Result<Option<Lock>, SourceError> {
        let (mirror, commit) = (self.mirror(repository).await?, commit.to_owned());
        let read = move || mirror.file(&commit, super::lock::PATH, super::lock::LIMIT);
        let read = tokio::task::spawn_blocking(read).await;
        let text = read.map_err(|error| SourceError::NotYet(error.to_string()))?.map_err(refused)?;
        let read = |text: Vec<u8>| Lock::read(&String::from_utf8_lossy(&text));
        text.map(read).transpose().map_err(|error| SourceError::Refused(error.to_string()))
    }

    fn origin_of(&self, name: &str, notes: &mut Vec<String>) -> Result<RepositoryOrigin, SourceError> {
        let configured = Reach { private: self.settings.allow_private, file: self.settings.allow_file };
        if let Some((_, target)) = self.actions.mirrors.iter().find(|(key, _)| self.is_named(key, name)) {
            notes.push(format!("{name}: the configured mirror {target}"));
            return Ok(match Address::parse(target) {
                Ok(Address::Known(repository)) => RepositoryOrigin::Nostr(repository),
                _ => RepositoryOrigin::Git(vec![target.clone()], configured),
            });
        }
        if let Some(place) = self.itself(name)? {
            return Ok(place);
        }
        let is_plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['-', '.'])
                && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let plain = name.split_once('/').is_some_and(|(owner, repository)| is_plain(owner) && is_plain(repository));
        if !plain {
            return Err(SourceError::Refused(format!("{name:?} names no repository: write owner/repo")));
        }
        if self.actions.bases.is_empty() {
            let message = format!("{name}: no git server is configured for it; add one to actions.bases");
            return Err(SourceError::Refused(message));
        }
        let urls = self.actions.bases.iter().map(|base| format!("{}/{name}", base.trim_end_matches('/')));
        Ok(RepositoryOrigin::Git(urls.collect(), configured))
    }

    /// Whether a name, or a URL at one of the bases, is that of a configured mirror.
    fn is_named(&self, mirror: &str, name: &str) -> bool {
        let at_base = |base: &String| name.strip_prefix(base.trim_end_matches('/'))?.strip_prefix('/');
        let plain = self.actions.bases.iter().find_map(at_base).unwrap_or(name);
        plain.strip_suffix(".git").unwrap_or(plain).eq_ignore_ascii_case(mirror)
    }

    /// A name that says itself where it leads.
    fn itself(&self, name: &str) -> Result<Option<RepositoryOrigin>, SourceError> {
        let nostr = |text: &str| match Address::parse(text) {
            Ok(Address::Known(repository)) => Ok(Some(RepositoryOrigin::Nostr(repository))),
            Ok(Address::Named { .. }) => {
                Err(SourceError::Refused(format!("{name}: write the owner as npub1…, not as an internet identifier")))
            }
            Err(error) => Err(SourceError::Refused(error.to_string())),
        };
        if name.starts_with("npub1") {
            return nostr(&format!("nostr://{name}"));
        }
        if ["nostr:", "naddr1", "30617:"].iter().any(|prefix| name.starts_with(prefix)) {
            return nostr(name);
        }
        if name.starts_with("https://") || name.starts_with("http://") {
            // What a repository names itself never leads into our own files.
            let reach = Reach { private: self.settings.allow_private, file: false };
            return Ok(Some(RepositoryOrigin::Git(vec![name.to_owned()], reach)));
        }
        if name.contains(':') {
            return Err(SourceError::Refused(format!("{name}: only http and https URLs and Nostr addresses are used")));
        }
        Ok(None)
    }

    async fn find_served(
        &self,
        urls: &[String],
        reach: Reach,
        asked: &RepositoryRequest<'_>,
        mut notes: Vec<String>,
    ) -> Result<RepositorySnapshot, SourceError> {
        for url in urls {
            let from =
                network::check_clone(url, reach).await.map_err(|error| SourceError::Refused(error.to_string()))?;
            match self.find_at(&from, reach, asked).await {
                Ok(Some(mut found)) => {
                    notes.push(format!("{url} has {}", asked.repository));
                    found.notes = notes;
                    return Ok(found);
                }
                Ok(None) => notes.push(format!("{url} does not exist")),
                Err(error) => {
                    notes.push(format!("{url}: {error}"));
                    return Err(SourceError::Refused(notes.join("; ")));
                }
            }
        }
        Err(SourceError::Refused(format!("there is no repository {}: {}", asked.repository, notes.join("; "))))
    }

    /// `None`: the server has no such repository.
    async fn find_at(
        &self,
        from: &CheckedUrl,
        reach: Reach,
        asked: &RepositoryRequest<'_>,
    ) -> Result<Option<RepositorySnapshot>, SourceError> {
        let origin = origin(&from.url);
        // Shallow and whole objects do not mix: a commit whose parents were left out would look complete.
        let key = match asked.need {
            FetchDepth::Tree(_) => format!("tree {origin}"),
            FetchDepth::History | FetchDepth::Everything => origin.clone(),
        };
        let lock = self.repository_lock(&Mirror::name(&key));
        let _held = lock.lock().await;
        let mirror = Mirror::open(&self.folder, &key, reach, (&self.settings).into()).await.map_err(refused)?;
        remove_stale_locks(mirror.path());
        let everything = matches!(asked.need, FetchDepth::Everything);
        let names = if everything { Vec::new() } else { names(asked.reference)? };
        let pinned = address::check_commit(asked.reference).ok();
        let listed = match (&pinned, everything) {
            (Some(commit), false) if mirror.peel(commit).await.is_some() => Vec::new(),
            _ => match mirror.list(from, &names).await {
                Ok(listed) => listed,
                Err(error) if is_absent(&error.to_string()) => return Ok(None),
                Err(error) => return Err(refused(error)),
            },
        };
        let target = match pinned {
            Some(object) => Target { name: String::new(), object },
            None => target(&listed, asked.reference).ok_or_else(|| {
                SourceError::Refused(format!("{origin} has no branch, tag or commit {:?}", asked.reference))
            })?,
        };
        if everything {
            mirror.fetch_everything(from).await.map_err(refused)?;
        }
        if mirror.peel(&target.object).await.is_none() {
            match asked.need {
                FetchDepth::Tree(_) => mirror.fetch_tree(from, &target.object, &target.name).await,
                FetchDepth::History | FetchDepth::Everything => {
                    mirror.fetch_commits(from, std::slice::from_ref(&target.object)).await
                }
            }
            .map_err(refused)?;
        }
        let Some(commit) = mirror.peel(&target.object).await else {
            return Err(SourceError::Refused(format!("{origin} does not give commit {}", target.object)));
        };
        // Packing removes what no ref holds, and a branch may move before the files are asked for.
        mirror.keep(commit.as_str()).await.map_err(refused)?;
        let mut refs = Vec::new();
        if everything {
            let is_named = |name: &str| name.starts_with("refs/heads/") || name.starts_with("refs/tags/");
            refs = listed;
            refs.retain(|(name, _)| is_named(name) && address::check_ref(name).is_ok());
            let present = mirror.present(refs.iter().map(|(_, object)| object.clone()).collect()).await;
            refs.retain(|(_, object)| present.contains(object));
        }
        Ok(Some(RepositorySnapshot { key, commit, reference: target.name, refs, origin, notes: Vec::new() }))
    }

    async fn find_announced(
        &self,
        repository: &Repository,
        asked: &RepositoryRequest<'_>,
        mut notes: Vec<String>,
    ) -> Result<RepositorySnapshot, SourceError> {
        let facts = self.announcements(repository).await?;
        let lock = self.repository_lock(&Mirror::name(&repository.address));
        let _held = lock.lock().await;
        let mirror = self.mirror(&repository.address).await?;
        let state = facts.state.clone().unwrap_or_default();
        let pinned = address::check_commit(asked.reference).ok();
        let named = match asked.reference {
            _ if pinned.is_some() => None,
            "" => state.default_branch().map(str::to_owned),
            full if full.starts_with("refs/") => Some(full.to_owned()),
            short => ["tags", "heads"]
                .map(|kind| format!("refs/{kind}/{short}"))
                .into_iter()
                .find(|name| state.target(name).is_some()),
        };
        let object = pinned.or_else(|| named.as_ref().and_then(|name| state.target(name)).map(str::to_owned));
        let Some(object) = object else {
            let message =
                format!("the maintainers' state of {} has no branch or tag {:?}", asked.repository, asked.reference);
            return Err(SourceError::Refused(message));
        };
        let reference = named.unwrap_or_default();
        let known = mirror.peel(&object).await;
        let commit = match &known {
            Some(commit) => commit.clone(),
            None => self.fetch_commit(&facts, &mirror, &object, &reference).await?,
        };
        let tips: Vec<String> = state.targets().map(|(_, target)| target.to_owned()).take(super::TIPS).collect();
        let everything = matches!(asked.need, FetchDepth::Everything);
        let strict = matches!(asked.need, FetchDepth::Tree(_)) || known.is_none();
        if everything || (strict && mirror.first_holder(&tips, &commit).await.is_none()) {
            self.fetch_tips(&facts, &mirror, &tips).await;
        }
        if strict && mirror.first_holder(&tips, &commit).await.is_none() {
            // Servers give objects of forks too: only the maintainers' word makes a commit the repository's own.
            let message =
                format!("commit {commit} is in no branch or tag that the maintainers of {} name", asked.repository);
            return Err(SourceError::Refused(message));
        }
        let mut refs: Vec<(String, String)> = Vec::new();
        if everything {
            refs.extend(state.targets().map(|(name, object)| (name.to_owned(), object.to_owned())));
            let present = mirror.present(refs.iter().map(|(_, object)| object.clone()).collect()).await;
            refs.retain(|(_, object)| present.contains(object));
        }
        notes.push(format!("{}: the maintainers' state", asked.repository));
        let origin = RepositoryMetadata::clone_urls(&facts).first().cloned().unwrap_or_default();
        Ok(RepositorySnapshot { key: repository.address.clone(), commit, reference, refs, origin, notes })
    }
}

/// Full names that a ref as written may mean, as `git ls-remote` is asked for them.
fn names(reference: &str) -> Result<Vec<String>, SourceError> {
    let checked = |name: String| match address::check_ref(&name) {
        Ok(_) => Ok(name),
        Err(error) => Err(SourceError::Refused(error.to_string())),
    };
    match reference {
        "" => Ok(vec!["HEAD".into()]),
        full if full.starts_with("refs/pull/") && full.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'/') => {
            Ok(vec![full.to_owned()])
        }
        full if full.starts_with("refs/") => Ok(vec![checked(full.to_owned())?, format!("{full}^{{}}")]),
        short => {
            let tag = checked(format!("refs/tags/{short}"))?;
            Ok(vec![format!("{tag}^{{}}"), tag, checked(format!("refs/heads/{short}"))?])
        }
    }
}

/// What a ref as written stands for: a tag before a branch of the same name.
fn target(listed: &[(String, String)], reference: &str) -> Option<Target> {
    let object = |name: &str| {
        let of = |name: &str| listed.iter().find(|(listed, _)| listed == name).map(|(_, object)| object.clone());
        of(&format!("{name}^{{}}")).or_else(|| of(name))
    };
    let candidates = match reference {
        "" => {
            let head = object("HEAD")?;
            let branch = listed.iter().find(|(name, object)| name.starts_with("refs/heads/") && *object == head);
            vec![branch.map_or_else(|| "HEAD".to_owned(), |(name, _)| name.clone())]
        }
        full if full.starts_with("refs/") => vec![full.to_owned()],
        short => vec![format!("refs/tags/{short}"), format!("refs/heads/{short}")],
    };
    candidates.into_iter().find_map(|name| object(&name).map(|object| Target { name, object }))
}

/// Whether git says that a server has no such repository, or none for everybody. Any other failure must not make the
/// next server be asked: the name would mean something else for as long as the first one is overloaded.
fn is_absent(complaint: &str) -> bool {
    complaint.split("; ").any(|line| {
        let Some(line) = line.trim().strip_prefix("fatal: ") else { return false };
        line.starts_with("repository '") && line.trim_end_matches('/').ends_with("' not found")
            || line.starts_with("could not read Username for '")
            || line.ends_with("' does not appear to be a git repository")
    })
}

/// One name for one place.
fn origin(url: &Url) -> String {
    let text = url.as_str().trim_end_matches('/');
    text.strip_suffix(".git").unwrap_or(text).to_owned()
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn refused(error: super::git::GitError) -> SourceError {
    SourceError::Refused(error.to_string())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use futures::future::BoxFuture;

    use super::*;

    #[test]
    fn a_tag_comes_before_a_branch_and_an_annotated_one_gives_its_commit() {
        let listed = |pairs: &[(&str, &str)]| -> Vec<(String, String)> {
            pairs.iter().map(|(name, id)| ((*name).to_owned(), (*id).to_owned())).collect()
        };
        let all = listed(&[
            ("refs/heads/v1", "b"),
            ("refs/tags/v1", "t"),
            ("refs/tags/v1^{}", "c"),
            ("HEAD", "h"),
            ("refs/heads/main", "h"),
        ]);
        for (reference, name, object) in
            [("v1", "refs/tags/v1", "c"), ("refs/heads/v1", "refs/heads/v1", "b"), ("", "refs/heads/main", "h")]
        {
            let target = target(&all, reference).unwrap();
            assert_eq!((target.name.as_str(), target.object.as_str()), (name, object), "{reference}");
        }
        assert!(target(&all, "v2").is_none());
    }

    #[test]
    fn another_server_is_asked_only_where_this_one_has_no_such_repository() {
        for (complaint, absent) in [
            ("fatal: repository 'https://example.org/a/b/' not found", true),
            ("remote: Repository not found.; fatal: repository 'https://example.org/a/b/' not found", true),
            ("fatal: could not read Username for 'https://example.org': terminal prompts disabled", true),
            ("fatal: '/srv/none.git' does not appear to be a git repository; fatal: Could not read from remote", true),
            ("fatal: unable to access 'https://example.org/a/b/': The requested URL returned error: 403", false),
            ("fatal: unable to access 'https://example.org/a/b/': The requested URL returned error: 429", false),
            ("fatal: unable to access 'https://example.org/not found/': Could not resolve host", false),
            ("remote: rate limit exceeded, token not found; fatal: the remote end hung up", false),
        ] {
            assert_eq!(is_absent(complaint), absent, "{complaint}");
        }
    }

    #[tokio::test]
    async fn a_private_repository_is_for_workflows_of_its_owner_alone_and_nobody_else_has_it_looked_for() {
        struct Counting(std::sync::atomic::AtomicUsize);
        impl crate::EventQuery for Counting {
            fn find<'a>(&'a self, _: &'a [String], _: nostr::Filter) -> BoxFuture<'a, Vec<nostr::Event>> {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Box::pin(std::future::ready(Vec::new()))
            }

            fn write_relays<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Vec<String>> {
                Box::pin(std::future::ready(Vec::new()))
            }
        }
        let folder = tempfile::tempdir().unwrap();
        let lookup = Arc::new(Counting(0.into()));
        let sources = RepositoryMirrors::new(folder.path().to_owned(), config::Source::default(), lookup.clone())
            .with_privacy(Arc::new(|repository| repository.identifier == "secret"));
        let [alice, bob] = [nostr::Keys::generate(), nostr::Keys::generate()].map(|keys| keys.public_key().to_hex());
        let address = |owner: &str, name: &str| format!("30617:{owner}:{name}");
        for (own, wanted, looked_for) in [
            (address(&alice, "secret"), address(&alice, "secret"), true),
            (address(&alice, "open"), address(&alice, "secret"), true),
            (address(&bob, "secret"), address(&alice, "secret"), false),
            (String::new(), address(&alice, "secret"), false),
            (address(&bob, "secret"), address(&alice, "open"), true),
        ] {
            lookup.0.store(0, std::sync::atomic::Ordering::Relaxed);
            let asked = RepositoryRequest { own: &own, repository: &wanted, reference: "", need: FetchDepth::History };
            let error = sources.find(&asked).await.unwrap_err().to_string();
            assert_eq!(error.contains("is private here"), !looked_for, "{own} {wanted}: {error}");
            let asked = lookup.0.load(std::sync::atomic::Ordering::Relaxed) > 0;
            assert_eq!(asked, looked_for, "{own} {wanted}");
        }
    }

    #[test]
    fn attack_02_a_ref_that_could_be_an_option_or_a_pattern_is_never_asked_for() {
        for reference in ["--upload-pack=x", "v*", "a..b", "refs/heads/-x", "refs/pull/*/head", "refs/notes/x"] {
            assert!(names(reference).is_err(), "{reference}");
        }
        assert!(names("feature/x").is_ok() && names("refs/pull/7/head").is_ok());
    }
}
