//! `longshore cancel`: ends a run.

use std::process::ExitCode;

use anyhow::Result;
use serde_json::json;

use super::{api::QueryArgs, run_events::RunState};
use crate::terminal::printable::printable;

/// Cancel a run
///
/// Its author, the repository's maintainers and the pool's operator may: the request is signed with your key.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    #[command(flatten)]
    query: QueryArgs,
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.query.server.connect()?;
    let run: RunState = api.get(&format!("/api/runs/{}", args.run)).await?;
    if let Some(conclusion) = &run.conclusion {
        let text = |_: &_| println!("run {} has ended already: {}", run.serial, printable(conclusion));
        return Ok(args.query.print(&json!({"run": args.run, "state": conclusion}), text));
    }
    api.post(&format!("/api/runs/{}/cancel", args.run)).await?;
    let text = |_: &_| println!("cancelling {}: its running jobs are being ended", args.run);
    Ok(args.query.print(&json!({"run": args.run, "state": "cancelling"}), text))
}
