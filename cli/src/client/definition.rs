//! `longshore definition`: workflow files of a repository as events (kind 35417).

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail, ensure};
use nostr::{Event, EventBuilder, Filter, JsonUtil as _, Keys, Kind, PublicKey, Tag, Timestamp};
use nostr_sdk::Client;
use serde_json::Value;
use source::{
    announcement::maintainers,
    definition::{self, Definition},
};
use workflow::{
    diagnostic::{Colour, has_errors, render},
    dialect::workflow_folders,
    plan::Dialect,
};

use super::{
    api::QueryArgs,
    key_file, relay,
    show::{short, text},
    submit,
};
use crate::terminal::{
    printable::printable,
    table::{Column, table, width},
};

/// Workflow files as events of a repository's maintainers: publish one, take it away, list and show the versions
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: DefinitionVerb,
}

#[derive(Debug, clap::Subcommand)]
enum DefinitionVerb {
    /// Sign a workflow file as a definition and publish it
    Publish {
        /// Workflow file
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Path in the repository; without it FILE's own from its workflow folder on, else .github/workflows/NAME
        #[arg(long, value_name = "PATH")]
        path: Option<String>,
        #[command(flatten)]
        target: PublishTarget,
    },
    /// Take away what stands for a path
    Withdraw {
        /// Path in the repository
        path: String,
        /// Even where no relay asked here has a definition of it: pools remember what relays have lost
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        target: PublishTarget,
    },
    /// Every version of a repository's definitions whose author counts
    List {
        /// The repository: naddr1…, nostr://… or 30617:KEY:IDENTIFIER
        #[arg(long, value_name = "ADDRESS", env = "LONGSHORE_REPOSITORY")]
        repository: String,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// One version: its text, or what changed in it
    Show {
        /// Id of its event
        event: String,
        /// What changed since the version before
        #[arg(long)]
        diff: bool,
        /// What changed since this version
        #[arg(long, value_name = "EVENT")]
        from: Option<String>,
        #[command(flatten)]
        query: QueryArgs,
    },
}

/// Whose, and where to
#[derive(Debug, clap::Args)]
struct PublishTarget {
    /// The repository: naddr1…, nostr://… or 30617:KEY:IDENTIFIER
    #[arg(long, value_name = "ADDRESS", env = "LONGSHORE_REPOSITORY")]
    repository: String,
    /// Relays to publish to: those of the repository; may be repeated
    #[arg(long = "relay", value_name = "URL", env = "LONGSHORE_RELAY", value_delimiter = ',')]
    relays: Vec<String>,
    /// File with your secret key (nsec1… or hex); else LONGSHORE_NSEC is used
    #[arg(long = "key-file", visible_alias = "key", value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Print the event as JSON
    #[arg(long)]
    json: bool,
}

/// Exit code 1 where the file is no workflow.
#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.verb {
        DefinitionVerb::Publish { file, path, target } => {
            let text = std::fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
            let path = path.unwrap_or_else(|| path_of(&file));
            let dialect = Dialect::of_path(&path).map_err(anyhow::Error::msg)?;
            let (_, findings) = dialect.parse(&path, &text);
            if !findings.is_empty() {
                println!("{}", render(&findings, &text, Colour::Plain));
            }
            if has_errors(&findings) {
                return Ok(ExitCode::FAILURE);
            }
            target.publish(&path, Some(&text), true).await
        }
        DefinitionVerb::Withdraw { path, force, target } => {
            Dialect::of_path(&path).map_err(anyhow::Error::msg)?;
            target.publish(&path, None, force).await
        }
        DefinitionVerb::List { repository, query } => {
            let address = submit::repository(&repository)?.address;
            let address: String = url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
            let path = format!("/api/repositories/{}/definitions", address.replace('+', "%20"));
            Ok(query.print(&query.get(&path).await?, print_list))
        }
        DefinitionVerb::Show { event, diff, from, query } => {
            let path = match (&from, diff) {
                (Some(from), _) => format!("/api/definitions/{event}/diff?from={from}"),
                (None, true) => format!("/api/definitions/{event}/diff"),
                (None, false) => format!("/api/definitions/{event}"),
            };
            Ok(query.print(&query.get(&path).await?, |found| match found["lines"].as_array() {
                Some(lines) => lines.iter().for_each(print_change),
                // A file is meant to be read again by programs; what a terminal would obey is not in it.
                None => {
                    for line in found["text"].as_str().unwrap_or_default().lines() {
                        println!("{}", printable(line));
                    }
                }
            }))
        }
    }
}

impl PublishTarget {
    /// `first`: even where relays know of none of this path.
    #[allow(clippy::print_stdout)]
    async fn publish(&self, path: &str, text: Option<&str>, first: bool) -> Result<ExitCode> {
        let keys = key_file::read(self.key_file.as_deref())?;
        let repository = submit::repository(&self.repository)?.address;
        let client = relay::connect(&self.relays).await?;
        let authors = defining(&client, &repository, &keys).await?;
        let known = known(&client, &repository, Some(path), &authors).await?;
        if known.is_empty() && !first {
            let all = self::known(&client, &repository, None, &authors).await?;
            let newest = definition::in_force(all, &authors.into_iter().collect::<Vec<_>>()).into_values();
            let others: Vec<String> = newest.filter(|one| one.text.is_some()).map(|one| one.path).collect();
            let others = if others.is_empty() { "none".to_owned() } else { others.join(", ") };
            bail!(
                "there is no definition of {path} to withdraw; those of this repository: {others}; --force withdraws \
                 what these relays have lost"
            );
        }
        let newest = known.iter().map(|one| one.made_at).max();
        let at = Timestamp::from(definition::dated(Timestamp::now().as_secs(), newest));
        let event = signed(&keys, &repository, path, text, at)?;
        // It would count for nobody.
        Definition::read(&event)?;
        relay::send(&client, &event).await?;
        client.disconnect().await;
        if self.json {
            println!("{}", event.as_json());
        } else {
            println!("{} {path}: {}", if text.is_some() { "defined" } else { "withdrawn" }, event.id);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whose definitions count, the signer's among them: what somebody who is neither owner nor maintainer defines counts
/// for nobody.
#[allow(clippy::print_stderr)]
async fn defining(client: &Client, repository: &str, keys: &Keys) -> Result<BTreeSet<String>> {
    let mut parts = repository.splitn(3, ':').skip(1);
    let (owner, identifier) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let key = keys.public_key().to_hex();
    let announced = Filter::new().kind(Kind::GitRepoAnnouncement).identifier(identifier);
    let announced = relay::find(client, vec![announced]).await?;
    // A pool may take the word of maintainers' maintainers: whom it may leave out is not for us to say.
    let mut authors = maintainers(owner, identifier, &announced, true);
    let found = announced.iter().any(|event| event.pubkey.to_hex() == owner);
    ensure!(
        !found || authors.contains(&key),
        "{key} is neither the owner of {repository} nor one of its maintainers: what it signs counts for nobody; sign \
         with one of theirs, or have the owner list it in the announcement (30617)"
    );
    if authors.insert(key.clone()) {
        eprintln!(
            "warning: no relay asked here has the announcement (30617) of {repository}: it counts only if {key} is one \
             of its maintainers"
        );
    }
    Ok(authors)
}

/// Definitions that relays know, of one path or of all.
async fn known(
    client: &Client,
    repository: &str,
    path: Option<&str>,
    authors: &BTreeSet<String>,
) -> Result<Vec<Definition>> {
    let keys = authors.iter().filter_map(|author| PublicKey::from_hex(author).ok());
    let mut filter = Filter::new().kind(Kind::from(definition::KIND)).authors(keys);
    if let Some(path) = path {
        filter = filter.identifier(definition::identifier(repository, path));
    }
    let found = relay::find(client, vec![filter]).await?;
    let found = found.iter().filter_map(|event| Definition::read(event).ok());
    // A relay may give what was not asked for.
    let of_path = |one: &Definition| path.is_none_or(|path| one.path == path);
    Ok(found.filter(|one| one.repository == repository && of_path(one) && authors.contains(&one.author)).collect())
}

fn signed(keys: &Keys, repository: &str, path: &str, text: Option<&str>, at: Timestamp) -> Result<Event> {
    let tags = definition::tags(repository, path, text).into_iter().map(Tag::parse);
    let tags = tags.collect::<Result<Vec<_>, _>>().context("a tag is empty")?;
    let builder = EventBuilder::new(Kind::from(definition::KIND), text.unwrap_or_default());
    builder.tags(tags).custom_created_at(at).sign_with_keys(keys).context("cannot sign")
}

/// Where a file of a checkout lies in its repository.
fn path_of(file: &Path) -> String {
    let text = file.to_string_lossy().replace('\\', "/");
    let folders = workflow_folders().into_iter();
    let inside = folders.filter_map(|folder| text.rfind(&format!("{folder}/")).map(|at| &text[at..]));
    let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    inside.min_by_key(|path| path.len()).map_or_else(|| format!(".github/workflows/{name}"), str::to_owned)
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn print_list(versions: &Value) {
    let columns = [
        Column::text("PATH"),
        Column::text("STATE"),
        Column::text("MADE"),
        Column::text("AUTHOR"),
        Column::whole("EVENT"),
    ];
    let row = |version: &Value| {
        let state = match (version["withdrawn"] == true, version["in_force"] == true) {
            (true, _) => "withdrawn",
            (false, true) => "counts",
            (false, false) => "earlier",
        };
        let made = version["created_at"].as_u64().unwrap_or_default();
        let made = Timestamp::from(made).to_human_datetime();
        vec![text(version, "path"), state.to_owned(), made, short(&text(version, "author")), text(version, "event")]
    };
    let rows: Vec<_> = versions.as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        eprintln!("no definitions of this repository are known: `longshore definition publish FILE` makes one");
        return;
    }
    print!("{}", table(&columns, &rows, width()));
}

#[allow(clippy::print_stdout)]
fn print_change(line: &Value) {
    let sign = match line["change"].as_str() {
        Some("added") => "+",
        Some("removed") => "-",
        Some("skipped") => "…",
        _ => " ",
    };
    println!("{sign}{}", text(line, "text"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_a_checkout_keeps_its_place() {
        for (file, path) in [
            ("ci.yml", ".github/workflows/ci.yml"),
            ("/tmp/x/deploy.yaml", ".github/workflows/deploy.yaml"),
            (".github/workflows/ci.yml", ".github/workflows/ci.yml"),
            ("/home/me/repo/.github/workflows/ci.yml", ".github/workflows/ci.yml"),
            ("repo/.ngit/workflows/a.yml", ".ngit/workflows/a.yml"),
        ] {
            assert_eq!(path_of(Path::new(file)), path, "{file}");
        }
    }
}
