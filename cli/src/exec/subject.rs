//! What `exec` finds out about a checkout, and the values it is given.

use std::{collections::BTreeMap, io::IsTerminal, path::Path};

use anyhow::{Context, bail};
use secrecy::SecretString;
use tokio::process::Command;

use ::coordinator::plan::Subject;

use super::Args;

/// The commit and its surroundings as git knows them, with the paths it changed. A folder that is no repository is
/// one whose commit nobody knows.
pub(super) async fn find(directory: &Path, args: &Args) -> (Subject, Option<Vec<String>>) {
    let commit = git(directory, &["rev-parse", "--verify", "--quiet", "HEAD"]).await.unwrap_or_default();
    let branch = git(directory, &["symbolic-ref", "--quiet", "HEAD"]).await;
    let described = git(directory, &["log", "-1", "--format=%an%n%B"]).await;
    // Against the first parent, or everything where there is none.
    let changed = git(directory, &["diff-tree", "--root", "-r", "-m", "--first-parent", "--no-commit-id", "--name-only", "-z", "HEAD"]).await;
    let name = directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let repository = args.repository.clone().unwrap_or_else(|| format!("local/{name}"));
    let owner = repository.split('/').next().unwrap_or_default().to_owned();
    let user = std::env::var("USER").ok().filter(|user| !user.is_empty());
    let subject = Subject {
        owner: owner.clone(),
        actor: args.actor.clone().or(user).unwrap_or(owner),
        repository,
        commit,
        reference: args.r#ref.clone().or(branch).unwrap_or_else(|| "refs/heads/main".into()),
        default_branch: None,
        description: described
            .and_then(|text| text.split_once('\n').map(|(author, message)| (message.to_owned(), author.to_owned()))),
    };
    let paths = changed.map(|text| text.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect());
    (subject, paths)
}

/// What git answers, without the last line end; `None` where it can't.
pub(super) async fn git(directory: &Path, args: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(directory).args(args).kill_on_drop(true).output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned())
}

/// Secrets by name. A value is never taken from an argument: other users of the machine can read those.
pub(super) fn secrets(names: &[String], file: Option<&Path>) -> anyhow::Result<BTreeMap<String, SecretString>> {
    let mut secrets = BTreeMap::new();
    if let Some(path) = file {
        let text = std::fs::read_to_string(path).with_context(|| format!("--secrets-file {}", path.display()))?;
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let Some((name, value)) = line.split_once('=') else {
                bail!("--secrets-file {}:{}: write it as NAME=VALUE", path.display(), index + 1);
            };
            let value = value.trim();
            let quoted = ['"', '\''].iter().find_map(|&quote| value.strip_prefix(quote)?.strip_suffix(quote));
            secrets.insert(name.trim().to_owned(), quoted.unwrap_or(value).into());
        }
    }
    for name in names {
        if name.contains('=') {
            bail!("--secret takes a name, its value comes from the environment: other users can read arguments");
        }
        let value = match std::env::var(name) {
            Ok(value) => value,
            Err(_) => ask(name)?,
        };
        secrets.insert(name.clone(), value.into());
    }
    Ok(secrets)
}

fn ask(name: &str) -> anyhow::Result<String> {
    if !std::io::stdin().is_terminal() {
        bail!("--secret {name}: set the environment variable {name}");
    }
    eprint!("{name}: ");
    let echo = |mode: &str| std::process::Command::new("stty").arg(mode).status();
    // Without stty the value shows while it is typed; better than not being able to give it.
    let hidden = echo("-echo").is_ok();
    let mut line = String::new();
    let read = std::io::stdin().read_line(&mut line);
    if hidden {
        let _ = echo("echo");
        eprintln!();
    }
    read.with_context(|| format!("--secret {name}"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
