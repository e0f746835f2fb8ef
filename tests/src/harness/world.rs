//! A whole small world: a repository on a git server, announced on a relay, and somebody who presses the button.

use std::{path::Path, time::Duration};

use anyhow::Result;
use nostr::{Event, EventBuilder, Keys, Kind, PublicKey, Tag, Timestamp};
use source::definition;

use super::{
    client::{Listener, Press, Shape, sign, sign_at},
    git::{Repository, Server},
    process::{Process, free_port},
};

/// Repository, relay and owner.
#[derive(Debug)]
pub struct World {
    /// Everything on disk.
    pub folder: tempfile::TempDir,
    /// Serves the repository.
    pub git: Server,
    /// The work tree.
    pub repository: Repository,
    /// Signs announcement and state.
    pub owner: Keys,
    /// Relay URL.
    pub relay: String,
    /// Hears answers, sends events.
    pub listener: Listener,
}

impl World {
    /// A repository with these files, announced on the relay.
    pub async fn new(relay: &str, files: &[(&str, &str)]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let git = Server::start(&folder.path().join("git")).await?;
        let repository = Repository::create(&folder.path().join("work"))?;
        let listener = Listener::connect(&[relay.to_owned()]).await?;
        let world = Self { folder, git, repository, owner: Keys::generate(), relay: relay.to_owned(), listener };
        world.announce(&["repo.git"]).await?;
        world.push("first", files).await?;
        Ok(world)
    }

    /// Publishes the announcement with these repositories of the server as clone URLs.
    pub async fn announce(&self, clones: &[&str]) -> Result<Event> {
        let mut clone = vec!["clone".to_owned()];
        clone.extend(clones.iter().map(|name| self.git.clone_url(name)));
        let tags = vec![vec!["d".into(), "my-repo".into()], clone, vec!["relays".into(), self.relay.clone()]];
        let event = sign(&self.owner, 30617, tags)?;
        self.listener.publish(&event).await?;
        Ok(event)
    }

    /// Commits, pushes and publishes the state; gives the commit.
    pub async fn push(&self, message: &str, files: &[(&str, &str)]) -> Result<String> {
        let commit = self.repository.commit(message, files)?;
        self.repository.publish(&self.git.folder, "repo.git")?;
        self.state(&[("refs/heads/main", &commit)]).await?;
        Ok(commit)
    }

    /// Publishes the state.
    pub async fn state(&self, refs: &[(&str, &str)]) -> Result<Event> {
        let mut tags = vec![vec!["d".to_owned(), "my-repo".into()]];
        tags.extend(refs.iter().map(|(name, commit)| vec![(*name).to_owned(), (*commit).to_owned()]));
        tags.push(vec!["HEAD".into(), "ref: refs/heads/main".into()]);
        let event = sign(&self.owner, 30618, tags)?;
        self.listener.publish(&event).await?;
        Ok(event)
    }

    /// Publishes a workflow definition by somebody at a time; without a text it withdraws what stands there.
    pub async fn define(&self, by: &Keys, path: &str, text: Option<&str>, at: Timestamp) -> Result<Event> {
        let event = self.definition(by, path, text, at)?;
        self.listener.publish(&event).await?;
        Ok(event)
    }

    /// The same without publishing it.
    pub fn definition(&self, by: &Keys, path: &str, text: Option<&str>, at: Timestamp) -> Result<Event> {
        let tags = definition::tags(&self.address(), path, text).into_iter().map(Tag::parse);
        let builder = EventBuilder::new(Kind::from(definition::KIND), text.unwrap_or_default());
        let builder = builder.tags(tags.collect::<Result<Vec<_>, _>>()?).custom_created_at(at);
        Ok(builder.sign_with_keys(by)?)
    }

    /// Publishes the announcement anew, at a time, with these maintainers.
    pub async fn maintained_by(&self, maintainers: &[&Keys], at: Timestamp) -> Result<Event> {
        let mut listed = vec!["maintainers".to_owned()];
        listed.extend(maintainers.iter().map(|keys| keys.public_key().to_hex()));
        let clone = vec!["clone".to_owned(), self.git.clone_url("repo.git")];
        let tags = vec![vec!["d".into(), "my-repo".into()], clone, vec!["relays".into(), self.relay.clone()], listed];
        let event = sign_at(&self.owner, 30617, tags, at)?;
        self.listener.publish(&event).await?;
        Ok(event)
    }

    /// `30617:<owner>:my-repo`.
    pub fn address(&self) -> String {
        format!("30617:{}:my-repo", self.owner.public_key().to_hex())
    }

    /// A press by the owner, as the web client makes it.
    pub fn press(&self, worker: PublicKey, workflow: &str) -> Press {
        Press {
            author: self.owner.clone(),
            publisher: Keys::generate(),
            repository: self.address(),
            relay: self.relay.clone(),
            worker,
            workflow: workflow.to_owned(),
            commit: String::new(),
            branch: "main".into(),
            reference: None,
            trigger: "manual".into(),
            shape: Shape::A1,
            env: Vec::new(),
            secrets: Vec::new(),
            more: Vec::new(),
            payment: None,
            nsec: None,
        }
    }

    /// Publishes a press: the run, then the job.
    pub async fn send(&self, press: &Press) -> Result<(Event, Event)> {
        let (run, job) = press.events()?;
        self.listener.publish(&run).await?;
        self.listener.publish(&job).await?;
        Ok((run, job))
    }
}

/// A relay as a process of its own.
#[derive(Debug)]
pub struct Relay {
    /// The process.
    pub process: Process,
    /// Its URL.
    pub url: String,
    port: u16,
}

impl Relay {
    /// Starts one on a free port.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::start_on(folder, free_port()?)
    }

    /// Starts one that grants a connection this many subscriptions.
    pub fn start_limited(folder: &Path, subscriptions: usize) -> Result<Self> {
        Self::start_with(folder, free_port()?, &["--subscriptions", &subscriptions.to_string()])
    }

    /// Starts one on a port, for instance that of one that was killed.
    pub fn start_on(folder: &Path, port: u16) -> Result<Self> {
        Self::start_with(folder, port, &[])
    }

    /// Starts one on a port that writes its events into a file, and serves those that are there.
    pub fn start_journaled(folder: &Path, port: u16, journal: &Path) -> Result<Self> {
        Self::start_with(folder, port, &["--journal", &journal.to_string_lossy()])
    }

    fn start_with(folder: &Path, port: u16, arguments: &[&str]) -> Result<Self> {
        let log = folder.join(format!("relay-{port}.log"));
        let _ = std::fs::remove_file(&log);
        let port_text = port.to_string();
        let all: Vec<&str> = std::iter::once(port_text.as_str()).chain(arguments.iter().copied()).collect();
        let mut process = Process::start("relay", &all, &log)?;
        let url = process.line(Duration::from_secs(20), |line| line.starts_with("ws://"))?;
        Ok(Self { process, url: url.trim_end_matches('/').to_owned(), port })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}
