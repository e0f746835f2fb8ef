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
use crate::terminal::table::{Column, table, width};

/// The narrowest terminal, in columns, on which each run has its id: its number says the same.
const ROOM_FOR_IDS: usize = 120;
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
    let mut columns = vec![
        Column::number("RUN"),
        Column::text("STATE"),
        Column::text("WORKFLOW"),
        Column::text("REF"),
        Column::whole("COMMIT"),
        Column::text("EVENT"),
        Column::whole("WHEN"),
    ];
    let width = width();
    if width.is_none_or(|width| width >= ROOM_FOR_IDS) {
        columns.push(Column::whole("ID"));
    }
    let now = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let row = |run: &Value| {
        let attempt = run["attempt"].as_u64().and_then(|attempt| u32::try_from(attempt).ok()).unwrap_or(1);
        let name = format!("{} #{}", text(run, "name"), run["number"]);
        vec![
            run["serial"].to_string(),
            text(run, "status"),
            name_with_attempt(&name, attempt),
            text(run, "branch"),
            short(&text(run, "commit")),
            text(run, "event"),
            run["created_at"].as_u64().map(|created| ago(now.saturating_sub(created))).unwrap_or_default(),
            text(run, "id"),
        ]
    };
    let rows: Vec<_> = runs.iter().map(row).collect();
    print!("{}", table(&columns, &rows, width));
    Ok(ExitCode::SUCCESS)
}

/// How long ago something was, in the largest unit that fits.
fn ago(millis: u64) -> String {
    let seconds = millis / 1000;
    match (seconds / 86_400, seconds / 3600, seconds / 60) {
        (0, 0, 0) => format!("{seconds} s ago"),
        (0, 0, minutes) => format!("{minutes} min ago"),
        (0, hours, _) => format!("{hours} h ago"),
        (1, ..) => "1 day ago".to_owned(),
        (days, ..) => format!("{days} days ago"),
    }
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
    fn what_was_is_told_in_the_largest_unit_that_fits() {
        for (seconds, text) in [
            (0, "0 s ago"),
            (59, "59 s ago"),
            (60, "1 min ago"),
            (7199, "1 h ago"),
            (86_400, "1 day ago"),
            (864_000, "10 days ago"),
        ] {
            assert_eq!(ago(seconds * 1000 + 999), text);
        }
    }
}
