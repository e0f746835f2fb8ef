//! `longshore cancel`: ends a run.

use std::process::ExitCode;

use anyhow::Result;

use super::{api::Server, stream::Run};
use crate::terminal::printable::printable;

/// Cancel a run
///
/// Its author, the repository's maintainers and the pool's operator may: the request is signed with your key.
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
    let api = args.server.connect()?;
    let run: Run = api.get(&format!("/api/runs/{}", args.run)).await?;
    if let Some(conclusion) = &run.conclusion {
        if args.json {
            println!("{}", serde_json::json!({"run": args.run, "state": conclusion}));
        } else {
            println!("run {} has ended already: {}", run.serial, printable(conclusion));
        }
        return Ok(ExitCode::SUCCESS);
    }
    api.post(&format!("/api/runs/{}/cancel", args.run)).await?;
    if args.json {
        println!("{}", serde_json::json!({"run": args.run, "state": "cancelling"}));
    } else {
        println!("cancelling {}: its running jobs are being ended", args.run);
    }
    Ok(ExitCode::SUCCESS)
}
