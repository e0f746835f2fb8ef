//! `longshore verify`: checks the signed chain of one run in either family of events, the hashes of its logs included.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use nostr::{Event, EventId, Filter, FromBech32, JsonUtil, Kind, PublicKey, SingleLetterTag, nips::nip19::Nip19Event};
use nostr_client::protocol::nip_c1::{JOB_RESULT, SERVICE_REQUEST, SERVICE_STOP, WORKFLOW_RESULT};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{
    api::ServerArgs,
    chain_check::{BlobClaim, ChainCheck},
    event_chain::EventChain,
    relay,
    report_chain::{self, ReportChain},
};
use crate::terminal::{printable::printable, progress::Progress};

/// Bytes of a log, or of another file, that are read.
const BLOB_LIMIT: usize = 64 << 20;
/// Rounds in which the announcements of maintainers are looked for, who name others.
const ROUNDS: usize = 8;

/// Check the chain of one run: every id and signature, who signed what and who asked for it, and the hashes of logs
///
/// Of a run that was reported in NIP-C1 that is: the result and those of its jobs agree, and stand on a trigger or a standing
/// request of somebody whom the repository's announcements call its maintainer (as they are now), for this coordinator, made
/// before the run began and not stopped by then.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Id of the run (5401) or job (5100) event, or in NIP-C1 of the result (9842), the result of a job (9841) or the trigger
    /// (9840): hex, note1… or nevent1…; or the run's number, asked of the coordinator
    id: String,
    /// Relays that have the events; may be repeated
    #[arg(long = "relay", value_name = "URL", env = "LONGSHORE_RELAY", value_delimiter = ',')]
    relays: Vec<String>,
    /// Events as JSON, one a line, besides or instead of those of the relays
    #[arg(long, value_name = "FILE")]
    events: Option<PathBuf>,
    /// Do not download logs, nor other files
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
        let client = relay::connect(&args.relays).await?;
        events.extend(fetch(&client, id, &events).await?);
        client.disconnect().await;
    }
    let first = events.iter().find(|event| event.id == id && ReportChain::begins_with(event)).cloned();
    let (mut checks, blobs, count) = match first {
        Some(first) => {
            let chain = ReportChain::assemble(events, &first).map_err(anyhow::Error::msg)?;
            (chain.check(), chain.blobs(), chain.events.len())
        }
        None => {
            let chain = EventChain::assemble(events, &id.to_hex()).map_err(anyhow::Error::msg)?;
            (chain.check(), chain.log().into_iter().collect(), chain.events.len())
        }
    };
    for claim in blobs.iter().filter(|_| !args.no_log) {
        let problem = check_blob(claim).await.err().map(|error| format!("{error:#}"));
        checks.push(ChainCheck { what: format!("the SHA-256 of {} is {}", claim.what, claim.sha256), problem });
    }
    let failed = checks.iter().filter(|check| check.problem.is_some()).count();
    if args.json {
        println!("{:#}", json!({ "verified": failed == 0, "events": count, "checks": checks }));
    } else {
        for check in &checks {
            match &check.problem {
                None => println!("ok    {}", printable(&check.what)),
                Some(problem) => println!("WRONG {}: {}", printable(&check.what), printable(problem)),
            }
        }
        match failed {
            0 => println!("verified: {count} events"),
            failed => println!("{failed} checks failed"),
        }
    }
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The event that a run was asked for by, by its number; of one that nobody asked for, its result.
async fn job_of(server: &ServerArgs, number: u64) -> Result<EventId> {
    let run: Value = server.connect()?.get(&format!("/api/runs/{number}")).await?;
    let reports = run["events"].as_array().into_iter().flatten();
    let result = reports.filter(|event| event["kind"] == WORKFLOW_RESULT).find_map(|event| event["id"].as_str());
    let id = run["job_event"].as_str().or(result);
    let id = id.with_context(|| format!("run {number} was neither asked for by an event nor reported by one"))?;
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

/// All that relays have of the chain that an event is of. It may be known already.
async fn fetch(client: &relay::Relays, id: EventId, known: &[Event]) -> Result<Vec<Event>> {
    let mut events = match known.iter().find(|event| event.id == id) {
        Some(event) => vec![event.clone()],
        None => relay::find(client, vec![Filter::new().id(id)]).await?,
    };
    let Some(first) = events.first().cloned() else {
        bail!("no relay has the event {id}: name another with --relay");
    };
    if ReportChain::begins_with(&first) {
        events.extend(fetch_reports(client, &first).await?);
        return Ok(events);
    }
    let mut known = vec![id];
    // From a job to its run, or from a run to its jobs.
    known.extend(first.tags.event_ids().copied());
    let around = Filter::new().events(known.clone()).kind(Kind::from(5100));
    let more = relay::find(client, vec![Filter::new().ids(known.clone()), around]).await?;
    known.extend(more.iter().map(|event| event.id));
    events.extend(more);
    let kinds = [5101, 5402, 30100].map(Kind::from);
    events.extend(relay::find(client, vec![Filter::new().kinds(kinds).events(known)]).await?);
    Ok(events)
}

/// The same of a run that was reported in NIP-C1.
async fn fetch_reports(client: &relay::Relays, first: &Event) -> Result<Vec<Event>> {
    let results = Filter::new().kind(Kind::from(WORKFLOW_RESULT));
    let tagged = |name: char, value: String| -> Result<Filter> {
        Ok(results.clone().custom_tag(SingleLetterTag::from_char(name)?, value))
    };
    let of = match (first.kind.as_u16(), report_chain::run_of_job(first)) {
        (WORKFLOW_RESULT, _) => tagged('r', report_chain::run_of(first).to_owned())?.author(first.pubkey),
        (JOB_RESULT, Some((coordinator, run))) => tagged('r', run)?.author(coordinator),
        _ => tagged('q', first.id.to_hex())?,
    };
    let mut events = relay::find(client, vec![of]).await?;
    let Some(result) = events.first().cloned() else { return Ok(events) };
    let addresses = report_chain::addresses(&result);
    let Some((_, identifier)) = addresses.first() else { return Ok(events) };
    let named = addresses.iter().map(|(owner, identifier)| format!("30617:{owner}:{identifier}"));
    let controls = Filter::new().kinds([SERVICE_REQUEST, SERVICE_STOP].map(Kind::from)).pubkey(result.pubkey);
    let controls = controls.custom_tags(SingleLetterTag::from_char('a')?, named);
    let quoted = Filter::new().ids(report_chain::named_events(&result));
    events.extend(relay::find(client, vec![quoted, controls]).await?);
    // Maintainers name others in announcements of their own.
    let mut asked: Vec<PublicKey> = Vec::new();
    for _ in 0..ROUNDS {
        let listed = events.iter().filter(|event| event.kind == Kind::GitRepoAnnouncement);
        let listed = listed.flat_map(|event| source::announcement::Announcement::read(event).maintainers);
        let owners = addresses.iter().map(|(owner, _)| owner.clone()).chain(listed);
        let mut open: Vec<PublicKey> = owners.filter_map(|key| PublicKey::from_hex(&key).ok()).collect();
        open.retain(|key| !asked.contains(key));
        if open.is_empty() {
            break;
        }
        asked.extend(open.iter().copied());
        let announced = Filter::new().kind(Kind::GitRepoAnnouncement).identifier(identifier).authors(open);
        events.extend(relay::find(client, vec![announced]).await?);
    }
    Ok(events)
}

async fn check_blob(claim: &BlobClaim) -> Result<()> {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(60)).build().context("no HTTP client")?;
    let response = client.get(&claim.url).send().await.with_context(|| format!("cannot fetch {}", claim.url))?;
    let mut response = response.error_for_status().context("it is not there")?;
    let mut progress = Progress::of("a log or file", response.content_length());
    let mut hash = Sha256::new();
    let mut end = ExpectedEnd::of(claim);
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.context("the download broke off")? {
        length += chunk.len();
        if length > BLOB_LIMIT {
            bail!("longer than {BLOB_LIMIT} bytes");
        }
        hash.update(&chunk);
        end.push(&chunk);
        progress.at(length as u64);
    }
    let found = hex::encode(hash.finalize());
    if found != claim.sha256 {
        bail!("what {} gives has the SHA-256 {found}", claim.url);
    }
    if !end.is_there() {
        bail!("what the result shows as its end is not the end of it");
    }
    Ok(())
}

/// The end of a log, held against the log as it comes.
struct ExpectedEnd<'a> {
    claimed: Option<&'a (u64, String)>,
    skipped: u64,
    kept: Vec<u8>,
}

impl<'a> ExpectedEnd<'a> {
    fn of(claim: &'a BlobClaim) -> Self {
        Self { claimed: claim.end.as_ref(), skipped: 0, kept: Vec::new() }
    }

    fn push(&mut self, chunk: &[u8]) {
        let Some((before, _)) = self.claimed else { return };
        let skip = usize::try_from(before.saturating_sub(self.skipped)).unwrap_or(usize::MAX).min(chunk.len());
        self.skipped += skip as u64;
        self.kept.extend_from_slice(chunk.get(skip..).unwrap_or_default());
    }

    fn is_there(&self) -> bool {
        self.claimed.is_none_or(|(before, end)| self.skipped == *before && self.kept == end.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_that_a_result_shows_has_to_be_the_end_of_the_log() {
        let holds = |before: u64, end: &str| {
            let end = Some((before, end.to_owned()));
            let claim = BlobClaim { what: "log".into(), url: String::new(), sha256: String::new(), end };
            let mut expected = ExpectedEnd::of(&claim);
            for chunk in ["one\ntw", "o\nthr", "ee\n"] {
                expected.push(chunk.as_bytes());
            }
            expected.is_there()
        };
        assert!(holds(4, "two\nthree\n") && holds(0, "one\ntwo\nthree\n") && holds(14, ""));
        for (before, end) in [(4, "two\nfour!\n"), (4, "two\n"), (3, "two\nthree\n"), (8, "two\nthree\n"), (99, "")] {
            assert!(!holds(before, end), "{before} {end:?}");
        }
    }
}
