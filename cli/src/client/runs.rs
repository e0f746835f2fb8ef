//! `longshore runs`: the list of runs.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::{
    api::Server,
    show::{short, text},
};
use crate::terminal::table::{Column, table, width};

/// List runs, newest first
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only of this repository: 30617:KEY:IDENTIFIER
    #[arg(long, value_name = "ADDRESS")]
    repository: Option<String>,
    /// Only runs that have not ended
    #[arg(long)]
    unfinished: bool,
    /// How many
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("limit", &args.limit.to_string()).append_pair("unfinished", &args.unfinished.to_string());
    if let Some(repository) = &args.repository {
        query.append_pair("repository", repository);
    }
    let runs: Value = args.server.connect()?.get(&format!("/api/runs?{}", query.finish())).await?;
    if args.json {
        println!("{runs:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let columns = [
        Column::number("NUMBER"),
        Column::text("STATE"),
        Column::text("WORKFLOW"),
        Column::text("REF"),
        Column::whole("COMMIT"),
        Column::text("EVENT"),
        Column::whole("ID"),
    ];
    let row = |run: &Value| {
        let state = match text(run, "conclusion").as_str() {
            "" => text(run, "phase"),
            ended => ended.to_owned(),
        };
        vec![
            run["serial"].to_string(),
            state,
            text(run, "name"),
            text(run, "branch"),
            short(&text(run, "commit")),
            text(run, "event"),
            text(run, "id"),
        ]
    };
    let rows: Vec<_> = runs.as_array().into_iter().flatten().map(row).collect();
    print!("{}", table(&columns, &rows, width()));
    Ok(ExitCode::SUCCESS)
}
