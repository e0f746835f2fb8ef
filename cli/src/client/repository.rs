//! `longshore repository`: repositories whose pushes start workflows.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{api::QueryArgs, show::text};
use crate::terminal::{
    printable::printable,
    table::{Column, table, width},
};

/// Let pushes to a repository start workflows, or stop that (operator)
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: RepositoryVerb,
}

#[derive(Debug, clap::Subcommand)]
enum RepositoryVerb {
    /// Pushes to it start workflows from now on
    Add {
        /// 30617:KEY:NAME, NPUB/NAME or naddr1…
        repository: String,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Every repository that is followed
    List(QueryArgs),
    /// Pushes to it start nothing any more; runs that began go on
    Remove {
        /// 30617:KEY:NAME, NPUB/NAME or naddr1…
        repository: String,
        #[command(flatten)]
        query: QueryArgs,
    },
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.verb {
        RepositoryVerb::Add { repository, query } => {
            let address = address(&repository)?;
            query.server.connect()?.post_json("/api/followed", &json!({"repository": address})).await?;
            let text = |_: &_| println!("pushes to {} start workflows from now on", printable(&address));
            Ok(query.print(&json!({"repository": address}), text))
        }
        RepositoryVerb::List(query) => {
            let followed = query.get("/api/followed").await?;
            Ok(query.print(&followed, print_list))
        }
        RepositoryVerb::Remove { repository, query } => {
            let address = address(&repository)?;
            let escaped: String = url::form_urlencoded::byte_serialize(address.as_bytes()).collect();
            // A path has no `+` for a blank.
            let path = format!("/api/followed/{}", escaped.replace('+', "%20"));
            query.server.connect()?.send(reqwest::Method::DELETE, &path, &[]).await?;
            let text = |_: &_| println!("pushes to {} start nothing any more", printable(&address));
            Ok(query.print(&json!({"repository": address}), text))
        }
    }
}

fn address(text: &str) -> Result<String> {
    config::repository_address(text)
        .with_context(|| format!("{text} is no repository: write 30617:KEY:NAME, NPUB/NAME or naddr1…"))
}

#[allow(clippy::print_stdout)]
fn print_list(followed: &Value) {
    let columns = [Column::text("REPOSITORY"), Column::text("ADDED BY"), Column::whole("STATE")];
    let row = |one: &Value| {
        let state = match (one["found"].as_bool(), one["state"].as_str()) {
            (Some(true), Some("")) => "no state (30618) yet",
            (Some(true), _) => "followed",
            _ => "no announcement (30617) yet",
        };
        vec![text(one, "repository"), text(one, "added_by"), state.to_owned()]
    };
    let rows: Vec<_> = followed.as_array().into_iter().flatten().map(row).collect();
    print!("{}", table(&columns, &rows, width()));
}
