//! `longshore show`: one run with its jobs.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::{
    api::{ApiClient, QueryArgs},
    status_word,
};
use crate::terminal::printable::printable;

/// Show one run: its jobs, why they wait or failed, its events and logs
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    #[command(flatten)]
    query: QueryArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.query.server.connect()?;
    let run: Value = api.get(&format!("/api/runs/{}", args.run)).await?;
    Ok(args.query.print(&run, |run| print_run(&api, run)))
}

#[allow(clippy::print_stdout)]
fn print_run(api: &ApiClient, run: &Value) {
    println!("{} #{} (run {}), {}", text(run, "name"), run["number"], run["serial"], state(run));
    println!("  {:<11} {}", "page", api.page(&text(run, "id")));
    for (label, key) in [
        ("repository", "repository"),
        ("commit", "commit"),
        ("ref", "reference"),
        ("event", "event"),
        ("author", "actor"),
        ("log", "log_url"),
        ("full log", "full_log_url"),
    ] {
        if !text(run, key).is_empty() {
            println!("  {label:<11} {}", text(run, key));
        }
    }
    for file in list(run, "supplied") {
        let instead = if file["replaces"] == true { ", in place of the commit's file" } else { "" };
        println!("  {:<11} {} for {}{instead}", "definition", text(file, "event"), text(file, "path"));
        println!("  {:<11} {} by {}", "", text(file, "sha256"), text(file, "author"));
    }
    let chain = [("repeats", std::slice::from_ref(&run["previous_run"])), ("run again", list(run, "reruns"))];
    for (label, runs) in chain {
        for one in runs.iter().filter(|one| one.is_object()) {
            println!("  {label:<11} run {}, attempt {}: {}", one["serial"], one["attempt"], text(one, "status"));
        }
    }
    pinned(&run["workflows"]);
    for job in list(run, "jobs") {
        let attempt = job["attempt"].as_u64().filter(|attempt| *attempt > 1);
        let attempt = attempt.map(|attempt| format!(", attempt {attempt}")).unwrap_or_default();
        let carried = job["carried_from"]["serial"].as_u64();
        let carried = carried.map(|serial| format!(", carried over from run {serial}")).unwrap_or_default();
        println!("{}: {}{attempt}{carried}", text(job, "name"), state(job));
        for attempt in list(job, "attempts") {
            if !text(attempt, "lost").is_empty() {
                println!("  attempt {} was lost: {}", attempt["number"], text(attempt, "lost"));
            }
        }
        decided(&job["approval"]);
        for step in list(job, "steps") {
            let seconds = step["duration_ms"].as_f64().unwrap_or_default() / 1000.0;
            println!("  {:<10} {} ({seconds:.1} s)", text(step, "conclusion"), text(step, "name"));
        }
        for annotation in list(job, "annotations") {
            let line = annotation["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
            let place = format!("{}{line}", text(annotation, "file"));
            println!("  {:<10} {place} {}", text(annotation, "level"), text(annotation, "message"));
        }
        for line in job["summary"].as_str().unwrap_or_default().lines() {
            println!("  | {}", printable(line));
        }
        if !text(job, "image").is_empty() {
            println!("  {:<10} {}", "image", text(job, "image"));
        }
        pinned(&job["actions"]);
    }
    for artifact in list(run, "artifacts") {
        let carried = artifact["carried_from"]["serial"].as_u64();
        let carried = carried.map(|serial| format!(", carried over from run {serial}")).unwrap_or_default();
        let (name, url) = (text(artifact, "name"), text(artifact, "url"));
        println!("artifact {name}: {} bytes of {}{carried}, {url}", artifact["size"], text(artifact, "job"));
    }
    for cache in list(run, "caches") {
        let found = text(cache, "found");
        let found = if found.is_empty() || found == text(cache, "key") { found } else { format!(" → {found}") };
        let (outcome, key) = (text(cache, "outcome"), text(cache, "key"));
        println!("cache {outcome:<5} {key}{found}, {} bytes, {}", cache["size"], text(cache, "job"));
    }
    for event in list(run, "events") {
        let relays = list(event, "relays").iter();
        let taken = relays.filter(|relay| text(relay, "answer").is_empty()).count();
        println!("  {:<6} {} on {taken} relays", event["kind"], text(event, "id"));
    }
}

fn state(of: &Value) -> String {
    let conclusion = text(of, "conclusion");
    let mut state = if conclusion.is_empty() {
        status_word(&text(of, "phase"), !of["waits"].is_null(), !of["started_at"].is_null()).to_owned()
    } else {
        conclusion
    };
    if !text(of, "why").is_empty() {
        state.push_str(&format!(" ({})", text(of, "why")));
    }
    state
}

/// Who let a job start, or did not, when, and what they said.
#[allow(clippy::print_stdout)]
fn decided(approval: &Value) {
    let verdict = text(approval, "verdict");
    if verdict.is_empty() {
        return;
    }
    let at = approval["at"].as_i64().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    let at = at.map(|moment| moment.strftime(", %Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default();
    let comment = text(approval, "comment");
    let comment = if comment.is_empty() { comment } else { format!(": {comment}") };
    println!("  {verdict:<10} for {} by {}{at}{comment}", text(approval, "environment"), text(approval, "by"));
}

/// The items of a list; none where there is no list.
fn list<'v>(of: &'v Value, key: &str) -> &'v [Value] {
    of[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What of other repositories was used, and at which commit.
#[allow(clippy::print_stdout)]
fn pinned(used: &Value) {
    for (name, commit) in used.as_object().into_iter().flatten() {
        println!("  {:<10} {} {}", "uses", printable(name), printable(commit.as_str().unwrap_or_default()));
    }
}

/// A text of a JSON object, safe for a terminal; empty where there is none.
pub(crate) fn text(of: &Value, key: &str) -> String {
    printable(of[key].as_str().unwrap_or_default())
}

/// The first digits of a commit.
pub(crate) fn short(commit: &str) -> String {
    commit.chars().take(10).collect()
}
