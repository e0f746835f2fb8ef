//! `longshore workers`: the pool's workers.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{api::Server, show::text};
use crate::terminal::{
    printable::printable,
    table::{Column, table, width},
};

/// List the pool's workers, drain one, or let a new one in
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Every worker with its labels and slots
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Give a worker no new jobs: it ends when the running ones are done (operator)
    Drain {
        /// Id of the worker
        worker: String,
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: Server,
    },
    /// Make a token with which one new worker can join (operator)
    Token {
        /// Print JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        server: Server,
    },
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.verb {
        Verb::List { json, server } => {
            let workers: Value = server.connect()?.get("/api/workers").await?;
            if json {
                println!("{workers:#}");
            } else {
                list(&workers);
            }
        }
        Verb::Drain { worker, json, server } => {
            server.connect()?.post(&format!("/api/workers/{worker}/drain")).await?;
            if json {
                println!("{}", json!({"worker": worker, "state": "draining"}));
            } else {
                println!("{worker} gets no new jobs");
            }
        }
        Verb::Token { json, server } => {
            let answer = server.connect()?.post("/api/workers/token").await?;
            let token = answer.text().await.context("the answer broke off")?;
            if json {
                println!("{}", json!({"token": token.trim()}));
            } else {
                println!("{}", token.trim());
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout)]
fn list(workers: &Value) {
    let columns = [
        Column::whole("ID"),
        Column::text("NAME"),
        Column::number("SLOTS"),
        Column::whole("STATE"),
        Column::text("LABELS"),
    ];
    let row = |worker: &Value| {
        let labels = worker["labels"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let state = if worker["draining"].as_bool() == Some(true) { "draining" } else { "" };
        let labels = printable(&labels.collect::<Vec<_>>().join(", "));
        vec![text(worker, "id"), text(worker, "name"), worker["slots"].to_string(), state.to_owned(), labels]
    };
    let rows: Vec<_> = workers.as_array().into_iter().flatten().map(row).collect();
    print!("{}", table(&columns, &rows, width()));
}
