//! Somebody who uses the real `ngit` and git: with a home and keys of their own, which are thrown away.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nostr::{Keys, PublicKey};
use serde_json::Value;
use tokio::process::Command;

use super::programs::Programs;

/// How long one command may take.
const LIMIT: Duration = Duration::from_secs(120);

/// A person.
#[derive(Debug)]
pub(super) struct Person {
    name: String,
    home: PathBuf,
    /// The whole environment of their commands.
    environment: Vec<(String, String)>,
}

/// What a command printed, and whether it was content.
#[derive(Debug)]
pub(super) struct Printed {
    /// The command line, for people.
    pub(super) line: String,
    /// Whether its exit code was 0.
    pub(super) succeeded: bool,
    /// Standard output.
    pub(super) output: String,
    /// Standard error.
    pub(super) errors: String,
}

impl Person {
    /// Somebody whose relay, and whose server for repositories, are these where nothing else is known.
    pub(super) fn new(name: &str, folder: &Path, programs: &Programs, relay: &str, server: &str) -> Result<Self> {
        let home = folder.join(name);
        std::fs::create_dir_all(&home)?;
        let text = |path: &Path| path.to_string_lossy().into_owned();
        let path = format!("{}:{}", programs.folder().display(), std::env::var("PATH").unwrap_or_default());
        let mut environment = vec![
            ("PATH".to_owned(), path),
            ("HOME".into(), text(&home)),
            ("LANG".into(), "C.UTF-8".into()),
            ("GIT_CONFIG_NOSYSTEM".into(), "1".into()),
            ("GIT_TERMINAL_PROMPT".into(), "0".into()),
            ("NGIT_CACHE_DIR".into(), text(&home.join("ngit-cache"))),
            ("NGIT_SECRET_STORAGE".into(), "git-config".into()),
            ("NGIT_GRASP_DEFAULT_SET".into(), server.to_owned()),
        ];
        let relays =
            ["RELAY_DEFAULT_SET", "RELAY_ANNOUNCEMENT_INDEXER_SET", "RELAY_BLASTER_SET", "RELAY_SIGNER_FALLBACK_SET"];
        environment.extend(relays.map(|set| (format!("NGIT_{set}"), relay.to_owned())));
        let person = Self { name: name.to_owned(), home, environment };
        let identity = format!(
            "[user]\n\tname = {name}\n\temail = {name}@example.org\n[init]\n\tdefaultBranch = main\n[nostr]\n\tskill-reminders = false\n"
        );
        std::fs::write(person.home.join(".gitconfig"), identity)?;
        Ok(person)
    }

    /// A folder of theirs.
    pub(super) fn folder(&self, name: &str) -> PathBuf {
        self.home.join(name)
    }

    /// Runs a command of theirs to its end, whatever that is.
    pub(super) async fn run(&self, folder: &Path, program: &str, arguments: &[&str]) -> Result<Printed> {
        let line = format!("{}$ {program} {}", self.name, arguments.join(" "));
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).env_clear();
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        let child = command.stdin(Stdio::null()).kill_on_drop(true).output();
        let ended = tokio::time::timeout(LIMIT, child).await;
        let ended = ended.with_context(|| format!("{line}: not at its end within {LIMIT:?}"))?;
        let ended = ended.with_context(|| format!("{line}: cannot be started"))?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (output, errors) = (text(&ended.stdout), text(&ended.stderr));
        Ok(Printed { line, succeeded: ended.status.success(), output, errors })
    }

    /// Makes an account for a work tree, and gives its key.
    pub(super) async fn account(&self, folder: &Path, name: &str) -> Result<PublicKey> {
        self.ngit(folder, &["account", "create", "--local", "--name", name]).await?;
        let key = self.git(folder, &["config", "nostr.nsec"]).await?;
        let keys = Keys::parse(&key).context("ngit keeps the key of a new account in git's configuration")?;
        Ok(keys.public_key())
    }

    /// `ngit`, which has to succeed; gives its standard output.
    pub(super) async fn ngit(&self, folder: &Path, arguments: &[&str]) -> Result<String> {
        self.run(folder, "ngit", arguments).await?.success()
    }

    /// `ngit --json`, whose document is given whether it was content or not.
    pub(super) async fn ngit_json(&self, folder: &Path, arguments: &[&str]) -> Result<(bool, Value)> {
        let all: Vec<&str> = std::iter::once("--json").chain(arguments.iter().copied()).collect();
        let printed = self.run(folder, "ngit", &all).await?;
        let document =
            serde_json::from_str(&printed.output).with_context(|| format!("no JSON was printed: {printed}"))?;
        Ok((printed.succeeded, document))
    }

    /// `git`, which has to succeed; gives its standard output.
    pub(super) async fn git(&self, folder: &Path, arguments: &[&str]) -> Result<String> {
        self.run(folder, "git", arguments).await?.success()
    }

    /// Writes files, commits them, and gives the commit.
    pub(super) async fn commit(&self, folder: &Path, message: &str, files: &[(&str, &str)]) -> Result<String> {
        for (name, content) in files {
            let file = folder.join(name);
            std::fs::create_dir_all(file.parent().context("a file has a folder")?)?;
            std::fs::write(&file, content)?;
        }
        self.git(folder, &["add", "--all"]).await?;
        self.git(folder, &["commit", "--quiet", "--allow-empty", "--message", message]).await?;
        self.git(folder, &["rev-parse", "HEAD"]).await
    }
}

impl Printed {
    /// What it printed on standard output, where it succeeded.
    pub(super) fn success(self) -> Result<String> {
        if self.succeeded { Ok(self.output) } else { bail!("it failed: {self}") }
    }

    /// That it refused, and with this text.
    pub(super) fn refusal(self, text: &str) -> Result<()> {
        ensure!(!self.succeeded, "it should have refused: {self}");
        ensure!(self.output.contains(text) || self.errors.contains(text), "it refused for something else: {self}");
        Ok(())
    }
}

impl std::fmt::Display for Printed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\n{}\n{}", self.line, self.output, self.errors)
    }
}
