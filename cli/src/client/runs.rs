//! `longshore runs`: the list of runs.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::Value;

use super::{
    api::ServerArgs,
    name_with_attempt,
    show::{short, text},
    submit,
};
use crate::{
    clock::now_ms,
    terminal::{
        elapsed::ago,
        table::{Column, table, width},
        tree::duration,
    },
};

/// Runs on one page of the API.
const PAGE: usize = 50;

/// List runs, newest first
///
/// RUN is a run's number in the pool, which every command takes. The number behind a workflow's name counts its runs
/// alone, as the dashboard shows them.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Only of this repository: naddr1…, nostr://… or 30617:KEY:IDENTIFIER
    #[arg(long, value_name = "ADDRESS")]
    repository: Option<String>,
    /// Only of this workflow, by its path in the repository
    #[arg(short = 'W', long, value_name = "PATH")]
    workflow: Option<String>,
    /// Only of this branch or tag
    #[arg(long, value_name = "NAME")]
    branch: Option<String>,
    /// Only with this status: planning, waiting, queued, running, sealing, success, failure, cancelled or skipped
    #[arg(long, value_name = "WORD")]
    status: Option<String>,
    /// Only runs that have not ended
    #[arg(long)]
    unfinished: bool,
    /// How many
    #[arg(long, default_value_t = 20, value_name = "N")]
    limit: usize,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let runs = args.find().await?;
    if args.json {
        println!("{:#}", Value::from(runs));
        return Ok(ExitCode::SUCCESS);
    }
    if runs.is_empty() {
        eprintln!("no such runs are open to you here");
        return Ok(ExitCode::SUCCESS);
    }
    print!("{}", listing(&runs, now_ms(), width()));
    Ok(ExitCode::SUCCESS)
}

fn listing(runs: &[Value], now: u64, width: Option<usize>) -> String {
    let columns = [
        Column::number("RUN"),
        Column::text("STATE"),
        Column::text("WORKFLOW"),
        Column::text("TITLE"),
        Column::text("REF"),
        Column::whole("COMMIT"),
        Column::text("BY"),
        Column::whole("WHEN"),
        Column::whole("TOOK"),
    ];
    let row = |run: &Value| {
        let attempt = run["attempt"].as_u64().and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(1);
        let name = format!("{} #{}", text(run, "name"), run["number"]);
        let ended = if run["conclusion"].is_null() { Some(now) } else { run["ended_at"].as_u64() };
        let took = run["started_at"].as_u64().zip(ended).map(|(started, ended)| ended.saturating_sub(started));
        vec![
            run["serial"].to_string(),
            text(run, "status"),
            name_with_attempt(&name, attempt),
            text(run, "title"),
            text(run, "branch"),
            short(&text(run, "commit")),
            text(run, "actor_name"),
            run["created_at"].as_u64().map(|created| ago(now.saturating_sub(created))).unwrap_or_default(),
            took.map(duration).unwrap_or_default(),
        ]
    };
    table(&columns, &runs.iter().map(row).collect::<Vec<_>>(), width)
}

impl Args {
    /// As many as are wanted and there are, page by page.
    async fn find(&self) -> Result<Vec<Value>> {
        let api = self.server.connect()?;
        let repository = self.repository.as_deref().map(submit::repository).transpose()?;
        let repository = repository.map(|repository| repository.address);
        let mut runs: Vec<Value> = Vec::new();
        while runs.len() < self.limit {
            let limit = PAGE.min(self.limit - runs.len());
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", &limit.to_string()).append_pair("unfinished", &self.unfinished.to_string());
            let before = runs.last().map(|run| run["serial"].to_string());
            for (name, value) in [
                ("repository", &repository),
                ("workflow", &self.workflow),
                ("branch", &self.branch),
                ("status", &self.status),
                ("before", &before),
            ] {
                if let Some(value) = value {
                    query.append_pair(name, value);
                }
            }
            let page: Vec<Value> = api.get(&format!("/api/runs?{}", query.finish())).await?;
            let last = page.len() < limit;
            runs.extend(page);
            if last {
                break;
            }
        }
        Ok(runs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_listed_by_its_title_its_person_and_how_long_it_took() {
        let run = serde_json::json!({
            "serial": 7, "status": "failure", "conclusion": "failure", "name": "CI", "number": 3, "attempt": 2,
            "title": "Fix the parser", "branch": "main", "commit": "22fffc5f4e110000", "actor_name": "Alice",
            "created_at": 1_000_000, "started_at": 1_001_000, "ended_at": 1_013_500,
        });
        let lines = listing(&[run], 1_120_000, None);
        let expected = "RUN  STATE    WORKFLOW          TITLE           REF   COMMIT   BY     WHEN       TOOK\n  7  failure  CI #3, \
                        attempt 2  Fix the parser  main  22fffc5  Alice  2 min ago  12.5 s\n";
        assert_eq!(lines, expected);
    }
}
