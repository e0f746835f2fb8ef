//! `longshore workers`: the pool's workers.

use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use super::{api::Server, show::text};

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
        #[command(flatten)]
        server: Server,
    },
    /// Make a token with which one new worker can join (operator)
    Token {
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
        Verb::Drain { worker, server } => {
            server.connect()?.post(&format!("/api/workers/{worker}/drain")).await?;
            println!("{worker} gets no new jobs");
        }
        Verb::Token { server } => {
            let answer = server.connect()?.post("/api/workers/token").await?;
            println!("{}", answer.text().await.context("the answer broke off")?.trim());
        }
    }
    Ok(ExitCode::SUCCESS)
}

#[allow(clippy::print_stdout)]
fn list(workers: &Value) {
    println!("{:<16}  {:<16}  {:>5}  {:<8}  LABELS", "ID", "NAME", "SLOTS", "STATE");
    for worker in workers.as_array().into_iter().flatten() {
        let labels: Vec<&str> = worker["labels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let state = if worker["draining"].as_bool() == Some(true) { "draining" } else { "" };
        let (id, name) = (text(worker, "id"), text(worker, "name"));
        println!("{id:<16}  {name:<16}  {:>5}  {state:<8}  {}", worker["slots"], labels.join(", "));
    }
}
