//! `longshore cache`: what jobs of a repository saved for later jobs.

use std::process::ExitCode;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{api::QueryArgs, key_file, repository_values::path, show::text};
use crate::terminal::{
    printable::printable,
    table::{Column, table, width},
};

/// What jobs of a repository saved for later jobs: list it, delete some
///
/// Owner and maintainers of the repository may: each request is signed with your key.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: CacheVerb,
}

#[derive(Debug, clap::Subcommand)]
enum CacheVerb {
    /// List the caches, the last used first
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        target: RepositoryTarget,
    },
    /// Delete the caches of a key, or one by its id
    #[command(visible_alias = "rm")]
    Delete {
        /// The whole key, or an id of the list
        key: String,
        /// Only those that runs of this branch or tag saved, by its full ref
        #[arg(long = "ref", value_name = "REF")]
        reference: Option<String>,
        #[command(flatten)]
        target: RepositoryTarget,
    },
}

/// Which repository
#[derive(Debug, clap::Args)]
struct RepositoryTarget {
    /// The repository: naddr1…, nostr://… or 30617:KEY:IDENTIFIER
    #[arg(long, value_name = "ADDRESS", env = "LONGSHORE_REPOSITORY")]
    repository: String,
    #[command(flatten)]
    query: QueryArgs,
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let (CacheVerb::List { target } | CacheVerb::Delete { target, .. }) = &args.verb;
    ensure!(target.query.server.keys()?.is_some(), key_file::NO_KEY);
    match &args.verb {
        CacheVerb::List { target } => {
            let listed = target.query.get(&path(&target.repository, "/caches")?).await?;
            Ok(target.query.print(&listed, print_list))
        }
        CacheVerb::Delete { key, reference, target } => {
            let api = target.query.server.connect()?;
            let known: Vec<Value> = api.get(&path(&target.repository, "/caches")?).await?;
            let is_key = known.iter().any(|one| one["key"] == **key);
            let order = match key.parse::<u64>() {
                Ok(id) if !is_key => json!({"id": id, "scope": reference}),
                _ => json!({"key": key, "scope": reference}),
            };
            let answer = api.post_json(&path(&target.repository, "/caches/delete")?, &order).await?;
            let answer: Value = answer.json().await?;
            Ok(target.query.print(&answer, |answer| {
                for one in answer["caches"].as_array().into_iter().flatten() {
                    println!("deleted: {} of {}", printable(&text(one, "key")), printable(&text(one, "scope")));
                }
            }))
        }
    }
}

#[allow(clippy::print_stdout)]
fn print_list(listed: &Value) {
    let columns = [
        Column::number("ID"),
        Column::text("KEY"),
        Column::text("REF"),
        Column::number("BYTES"),
        Column::whole("LAST USED (UTC)"),
    ];
    let row = |one: &Value| {
        let used = one["used_at"].as_i64().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        vec![
            one["id"].to_string(),
            printable(&text(one, "key")),
            printable(&text(one, "scope")),
            one["size"].to_string(),
            used.map(|moment| moment.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default(),
        ]
    };
    let rows: Vec<_> = listed.as_array().into_iter().flatten().map(row).collect();
    print!("{}", table(&columns, &rows, width()));
}
