//! `longshore workers`: the pool's workers.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{api::QueryArgs, show::text};
use crate::terminal::{
    printable::printable,
    table::{Column, table, width},
};

/// List the pool's workers, drain one, or let a new one in
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: WorkersVerb,
}

#[derive(Debug, clap::Subcommand)]
enum WorkersVerb {
    /// Every worker with its labels and slots
    List(QueryArgs),
    /// Give a worker no new jobs: it ends when the running ones are done (operator)
    Drain {
        /// Id of the worker
        worker: String,
        #[command(flatten)]
        query: QueryArgs,
    },
    /// Make a token with which one new worker can join (operator)
    Token(QueryArgs),
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.verb {
        WorkersVerb::List(query) => {
            let workers = query.get("/api/workers").await?;
            Ok(query.print(&workers, print_list))
        }
        WorkersVerb::Drain { worker, query } => {
            query.server.connect()?.post(&format!("/api/workers/{worker}/drain")).await?;
            let text = |_: &_| println!("{worker} gets no new jobs");
            Ok(query.print(&json!({"worker": worker, "state": "draining"}), text))
        }
        WorkersVerb::Token(query) => {
            let answer = query.server.connect()?.post("/api/workers/token").await?;
            let token = answer.text().await.context("the answer broke off")?;
            let text = |_: &_| println!("{}", printable(token.trim()));
            Ok(query.print(&json!({"token": token.trim()}), text))
        }
    }
}

#[allow(clippy::print_stdout)]
fn print_list(workers: &Value) {
    let columns = [
        Column::whole("ID"),
        Column::text("NAME"),
        Column::number("SLOTS"),
        Column::whole("STATE"),
        Column::whole("SANDBOX"),
        Column::text("LABELS"),
    ];
    let row = |worker: &Value| {
        let labels = worker["labels"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let state = if worker["draining"].as_bool() == Some(true) { "draining" } else { "" };
        let labels = printable(&labels.collect::<Vec<_>>().join(", "));
        let slots = worker["slots"].to_string();
        vec![text(worker, "id"), text(worker, "name"), slots, state.to_owned(), text(worker, "sandbox"), labels]
    };
    let rows: Vec<_> = workers.as_array().into_iter().flatten().map(row).collect();
    print!("{}", table(&columns, &rows, width()));
}
