//! `longshore verify`: checks the signed chain of one run, the hash of its log included.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use nostr::{Event, EventId, Filter, FromBech32, JsonUtil, Kind, nips::nip19::Nip19Event};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    api::ServerArgs,
    event_chain::{ChainCheck, EventChain, LogClaim},
    relay,
};
use crate::terminal::{printable::printable, progress::Progress};

/// Bytes of a log that are read.
const LOG_LIMIT: usize = 64 << 20;

/// Check the chain of one run: every id and signature, who signed what, and the hash of the log
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the run (5401) or job (5100) event: hex, note1… or nevent1…; or the run's number, asked of the coordinator
    id: String,
    /// Relays that have the events; may be repeated
    #[arg(long = "relay", value_name = "URL", env = "LONGSHORE_RELAY", value_delimiter = ',')]
    relays: Vec<String>,
    /// Events as JSON, one a line, besides or instead of those of the relays
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Do not download the log
    #[arg(long)]
    no_log: bool,
    /// Print JSON: every check, and its problem where it has one
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Exit code 0 where everything holds, 1 where something does not.
#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let id = match (event_id(&args.id), args.id.parse::<u64>()) {
        (Ok(id), _) => id,
        // Only the coordinator knows which events a number stands for.
        (Err(_), Ok(number)) => job_of(&args.server, number).await?,
        (Err(error), Err(_)) => return Err(error),
    };
    let mut events = match &args.events {
        Some(path) => read_events(path)?,
        None => Vec::new(),
    };
    if !args.relays.is_empty() || args.events.is_none() {
        events.extend(fetch_chain(&args.relays, id).await?);
    }
    let chain = EventChain::assemble(events, &id.to_hex()).map_err(anyhow::Error::msg)?;
    let mut checks = chain.check();
    if let (Some(claim), false) = (chain.log(), args.no_log) {
        let problem = check_log(&claim).await.err().map(|error| format!("{error:#}"));
        checks.push(ChainCheck { what: format!("the log's SHA-256 is {}", claim.sha256), problem });
    }
    let failed = checks.iter().filter(|check| check.problem.is_some()).count();
    if args.json {
        println!("{:#}", json!({ "verified": failed == 0, "events": chain.events.len(), "checks": checks }));
    } else {
        for check in &checks {
            match &check.problem {
                None => println!("ok    {}", printable(&check.what)),
                Some(problem) => println!("WRONG {}: {}", printable(&check.what), printable(problem)),
            }
        }
        match failed {
            0 => println!("verified: {} events", chain.events.len()),
            failed => println!("{failed} checks failed"),
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The job event of a run by its number.
async fn job_of(server: &ServerArgs, number: u64) -> Result<EventId> {
    let run: Value = server.connect()?.get(&format!("/api/runs/{number}")).await?;
    let id = run["job_event"].as_str().with_context(|| format!("run {number} was not asked for by an event"))?;
    EventId::parse(id).with_context(|| format!("run {number}: {id:?} is no event id"))
}

fn event_id(text: &str) -> Result<EventId> {
    let text = text.trim().trim_start_matches("nostr:");
    if let Ok(id) = EventId::parse(text) {
        return Ok(id);
    }
    let event = Nip19Event::from_bech32(text);
    event
        .map(|event| event.event_id)
        .with_context(|| format!("{text:?} is neither a run's number nor an event id (hex, note1…, nevent1…)"))
}

fn read_events(path: &PathBuf) -> Result<Vec<Event>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(number, line)| {
            Event::from_json(line).with_context(|| format!("{}:{}: not an event", path.display(), number + 1))
        })
        .collect()
}

async fn fetch_chain(relays: &[String], id: EventId) -> Result<Vec<Event>> {
    let client = relay::connect(relays).await?;
    let mut events = relay::find(&client, vec![Filter::new().id(id)]).await?;
    let Some(first) = events.first() else {
        bail!("no relay has the event {id}: name another with --relay");
    };
    let mut known = vec![id];
    // From a job to its run, or from a run to its jobs.
    known.extend(first.tags.event_ids().copied());
    let around = Filter::new().events(known.clone()).kind(Kind::from(5100));
    let more = relay::find(&client, vec![Filter::new().ids(known.clone()), around]).await?;
    known.extend(more.iter().map(|event| event.id));
    events.extend(more);
    let kinds = [5101, 5402, 30100].map(Kind::from);
    events.extend(relay::find(&client, vec![Filter::new().kinds(kinds).events(known)]).await?);
    client.disconnect().await;
    Ok(events)
}

async fn check_log(claim: &LogClaim) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().context("no HTTP client")?;
    let response = client.get(&claim.url).send().await.with_context(|| format!("cannot fetch {}", claim.url))?;
    let mut response = response.error_for_status().context("the log is not there")?;
    let mut progress = Progress::of("the log", response.content_length());
    let mut hash = Sha256::new();
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.context("the download broke off")? {
        length += chunk.len();
        if length > LOG_LIMIT {
            bail!("longer than {LOG_LIMIT} bytes");
        }
        hash.update(&chunk);
        progress.at(length as u64);
    }
    let found = hex::encode(hash.finalize());
    if found != claim.sha256 {
        bail!("what {} gives has the SHA-256 {found}", claim.url);
    }
    Ok(())
}
