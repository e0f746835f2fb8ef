//! `longshore show`: one run with its jobs.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::api::Server;
use crate::terminal::printable::printable;

/// Show one run: its jobs, why they wait or failed, its events and logs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: Server,
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let run: Value = args.server.connect()?.get(&format!("/api/runs/{}", args.run)).await?;
    if args.json {
        println!("{run:#}");
        return Ok(ExitCode::SUCCESS);
    }
    println!("{} #{}, {}", text(&run, "name"), run["serial"], state(&run));
    for (label, key) in [
        ("repository", "repository"),
        ("commit", "commit"),
        ("ref", "reference"),
        ("event", "event"),
        ("author", "actor"),
        ("log", "log_url"),
        ("full log", "full_log_url"),
    ] {
        if !text(&run, key).is_empty() {
            println!("  {label:<11} {}", text(&run, key));
        }
    }
    for file in run["supplied"].as_array().into_iter().flatten() {
        let instead = if file["replaces"] == true { ", in place of the commit's file" } else { "" };
        println!("  {:<11} {} for {}{instead}", "definition", text(file, "event"), text(file, "path"));
        println!("  {:<11} {} by {}", "", text(file, "sha256"), text(file, "author"));
    }
    for job in run["jobs"].as_array().into_iter().flatten() {
        let attempt = job["attempt"].as_u64().filter(|attempt| *attempt > 1);
        let attempt = attempt.map(|attempt| format!(", attempt {attempt}")).unwrap_or_default();
        let carried = job["carried_from"]["serial"].as_u64();
        let carried = carried.map(|serial| format!(", carried over from run {serial}")).unwrap_or_default();
        println!("{}: {}{attempt}{carried}", text(job, "name"), state(job));
        for step in job["steps"].as_array().into_iter().flatten() {
            let seconds = step["duration_ms"].as_f64().unwrap_or_default() / 1000.0;
            println!("  {:<10} {} ({seconds:.1} s)", text(step, "conclusion"), text(step, "name"));
        }
        for annotation in job["annotations"].as_array().into_iter().flatten() {
            let line = annotation["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
            let place = format!("{}{line}", text(annotation, "file"));
            println!("  {:<10} {place} {}", text(annotation, "level"), text(annotation, "message"));
        }
        for line in job["summary"].as_str().unwrap_or_default().lines() {
            println!("  | {}", printable(line));
        }
    }
    for event in run["events"].as_array().into_iter().flatten() {
        let relays = event["relays"].as_array().into_iter().flatten();
        let taken = relays.filter(|relay| text(relay, "answer").is_empty()).count();
        println!("  {:<6} {} on {taken} relays", event["kind"], text(event, "id"));
    }
    Ok(ExitCode::SUCCESS)
}

fn state(of: &Value) -> String {
    let conclusion = text(of, "conclusion");
    let mut state = if conclusion.is_empty() { text(of, "phase") } else { conclusion };
    let reason = match &of["reason"] {
        Value::Null => text(of, "waits"),
        reason => [text(reason, "kind"), text(reason, "detail")].join(" ").trim().to_owned(),
    };
    if !reason.is_empty() {
        state.push_str(&format!(" ({reason})"));
    }
    state
}

/// A text of a JSON object, safe for a terminal; empty where there is none.
pub(crate) fn text(of: &Value, key: &str) -> String {
    printable(of[key].as_str().unwrap_or_default())
}

/// The first digits of a commit.
pub(crate) fn short(commit: &str) -> String {
    commit.chars().take(10).collect()
}
