//! `longshore workers`: the pool's workers.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{api::Question, show::text};
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
    List(Question),
    /// Give a worker no new jobs: it ends when the running ones are done (operator)
    Drain {
        /// Id of the worker
        worker: String,
        #[command(flatten)]
        ask: Question,
    },
    /// Make a token with which one new worker can join (operator)
    Token(Question),
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    match args.verb {
        Verb::List(ask) => {
            let workers: Value = ask.server.connect()?.get("/api/workers").await?;
            if ask.json {
                println!("{workers:#}");
            } else {
                list(&workers);
            }
        }
        Verb::Drain { worker, ask } => {
            ask.server.connect()?.post(&format!("/api/workers/{worker}/drain")).await?;
            if ask.json {
                println!("{}", json!({"worker": worker, "state": "draining"}));
            } else {
                println!("{worker} gets no new jobs");
            }
        }
        Verb::Token(ask) => {
            let answer = ask.server.connect()?.post("/api/workers/token").await?;
            let token = answer.text().await.context("the answer broke off")?;
            if ask.json {
                println!("{}", json!({"token": token.trim()}));
            } else {
                println!("{}", printable(token.trim()));
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
