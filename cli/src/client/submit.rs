//! `longshore submit`: asks a pool to run a workflow, with the pair of events that web clients send.

use std::{pin::pin, process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use domain::run::Repository;
use nostr::{Event, Filter, FromBech32 as _, JsonUtil as _, Keys, Kind, PublicKey, ToBech32 as _};
use nostr_sdk::{Client, RelayPoolNotification};
use planning::workflow_path;
use source::address::Address;
use tokio::time::Instant;

use super::{api::ServerArgs, event_chain, hive_ci::RunRequest, key_file, relay, run_status::RunStatus, with_reason};
use crate::terminal::printable::printable;

/// Ask a pool to run a workflow
///
/// Publishes a workflow run (kind 5401) and a job (kind 5100), signed with your key, as web clients do. Which run it
/// became, and the jobs that failed, are asked of the coordinator (--server) where it answers.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The pool: npub or hex of its coordinator
    #[arg(long, value_name = "KEY", env = "LONGSHORE_POOL")]
    to: String,
    /// The repository: naddr1…, nostr://… or 30617:KEY:IDENTIFIER
    #[arg(long, value_name = "ADDRESS", env = "LONGSHORE_REPOSITORY")]
    repository: String,
    /// Path of the workflow in the repository, e.g. .github/workflows/ci.yml
    #[arg(short = 'W', long, value_name = "PATH")]
    workflow: String,
    /// Commit to build; the branch's newest where not given
    #[arg(long, default_value = "")]
    commit: String,
    /// Branch or tag; the default branch where not given
    #[arg(long, default_value = "")]
    branch: String,
    /// What the workflow is told: manual, push, pull_request or schedule
    #[arg(
        long,
        value_name = "WORD",
        default_value = "manual",
        value_parser = ["manual", "push", "pull_request", "schedule"],
        hide_possible_values = true
    )]
    trigger: String,
    /// An input of workflow_dispatch; may be repeated. Public: relays see it
    #[arg(long = "input", value_name = "NAME=VALUE")]
    inputs: Vec<String>,
    /// A variable for the steps and for `vars`; may be repeated. Public: relays see it
    #[arg(long = "env", value_name = "NAME=VALUE")]
    env: Vec<String>,
    /// A secret by name; its value comes from the environment variable of that name. May be repeated
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<String>,
    /// Relays to publish to; may be repeated
    #[arg(long = "relay", value_name = "URL", env = "LONGSHORE_RELAY", value_delimiter = ',')]
    relays: Vec<String>,
    #[command(flatten)]
    server: ServerArgs,
    #[command(flatten)]
    watch: WaitArgs,
}

/// Whether to wait
#[derive(Debug, clap::Args)]
pub(crate) struct WaitArgs {
    /// Do not wait for the end: only, for some seconds, for the pool's first answer
    #[arg(long)]
    detach: bool,
    /// Seconds to wait for the end
    #[arg(long, default_value_t = 3600, value_name = "SECONDS")]
    timeout: u64,
    /// Print every event as JSON, one a line
    #[arg(long)]
    json: bool,
}

/// After this long without an answer of the pool it is said that there is none.
const SILENCE: Duration = Duration::from_secs(20);
/// How long the first answer of the pool is waited for by who does not wait for the end.
const ANSWER: Duration = Duration::from_secs(10);
/// After this long without news the coordinator is asked why.
const QUIET: Duration = Duration::from_secs(10);
/// It is asked again after this long at the earliest.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Exit code: 0 success, 1 failure, 130 cancelled; without waiting, 0 taken and 1 refused.
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let pool = PublicKey::from_bech32(&args.to).or_else(|_| PublicKey::from_hex(&args.to));
    let Ok(pool) = pool else { bail!("--to {:?}: not a public key (npub1… or 64 hex digits)", args.to) };
    // What no pool could run is not asked of one.
    workflow_path(&args.workflow).map_err(|why| anyhow!("--workflow: {why}"))?;
    let hex = args.commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    // A pool completes what begins a commit that it has.
    ensure!(
        args.commit.is_empty() || (hex && (7..=64).contains(&args.commit.len())),
        "--commit {:?}: expected the commit's hex digits, at least the first 7",
        args.commit
    );
    let keys = args.server.keys()?.context(key_file::NO_KEY)?;
    let (run, job) = args.events(&keys, pool)?;
    let client = relay::connect(&args.relays).await?;
    publish(client, run, job, pool, &args.server, &args.watch).await
}

/// Publishes the pair of events, and prints the answers until the run ends.
pub(crate) async fn publish(
    client: Client,
    run: Event,
    job: Event,
    pool: PublicKey,
    server: &ServerArgs,
    watch: &WaitArgs,
) -> Result<ExitCode> {
    // Whoever reads JSON wants the events and nothing else.
    let mut run_status = if watch.json { None } else { Some(RunStatus::new(server, &job)?) };
    let mut notifications = client.notifications();
    let answers = Filter::new().kinds([5101, 5402, 30100].map(Kind::from)).events([run.id, job.id]);
    client.subscribe(answers, None).await.context("cannot subscribe to the answers")?;
    relay::send(&client, &run).await?;
    relay::send(&client, &job).await?;
    print_event(&run, watch.json);
    print_event(&job, watch.json);
    let limit = if watch.detach { ANSWER } else { Duration::from_secs(watch.timeout) };
    let end =
        tokio::time::timeout(limit, wait_for_end(&mut notifications, &job, pool, &mut run_status, watch.detach)).await;
    let end = match end {
        Ok(end) => end?,
        Err(_) if watch.detach => {
            run_status.iter().for_each(RunStatus::print_follow_hint);
            close(&client).await;
            return Ok(ExitCode::SUCCESS);
        }
        Err(_) => {
            let why = match &run_status {
                Some(run_status) => run_status.reason().await,
                None => None,
            };
            bail!("{}", with_reason(&format!("no end within {} s; the run goes on", watch.timeout), why.as_deref()));
        }
    };
    // The first two end the waiting with `detach` only.
    let went_well = matches!(end.as_str(), "queued" | "running" | "completed");
    if let (Some(run_status), false) = (&run_status, went_well) {
        run_status.print_failures().await;
    }
    close(&client).await;
    Ok(match end.as_str() {
        _ if went_well => ExitCode::SUCCESS,
        "cancelled" => ExitCode::from(130),
        _ => ExitCode::FAILURE,
    })
}

async fn close(client: &Client) {
    client.disconnect().await;
}

/// Prints an event: in short, or as JSON.
#[allow(clippy::print_stdout)]
fn print_event(event: &Event, json: bool) {
    if json {
        println!("{}", event.as_json());
        return;
    }
    println!("{}", printable(&event_chain::describe(event)));
    // Why it waits, or failed.
    for why in ["reason", "error"].map(|name| event_chain::tag_value(event, name)) {
        if !why.is_empty() {
            println!("      {}", printable(&why));
        }
    }
    let log = event_chain::tag_value(event, "log_url");
    if !log.is_empty() {
        println!("      log: {}", printable(&log));
    }
}

/// Waits for the final status of the run; with `detach` only for the pool's first answer.
#[allow(clippy::print_stderr)]
async fn wait_for_end(
    notifications: &mut tokio::sync::broadcast::Receiver<RelayPoolNotification>,
    job: &Event,
    pool: PublicKey,
    run_status: &mut Option<RunStatus>,
    detach: bool,
) -> Result<String> {
    let mut silence = pin!(tokio::time::sleep(SILENCE));
    let mut quiet = pin!(tokio::time::sleep(QUIET));
    let mut ask_again = Instant::now();
    let mut silent = true;
    loop {
        let notification = tokio::select! {
            notification = notifications.recv() => notification,
            () = &mut silence, if silent => {
                silent = false;
                let (pool, seconds) = (npub(&pool), SILENCE.as_secs());
                eprintln!("no answer of {pool} for {seconds} s: the pool is down, or listens on other relays");
                continue;
            }
            () = &mut quiet => {
                if let Some(run_status) = run_status {
                    run_status.print_reason().await;
                }
                ask_again = Instant::now() + ASK_AGAIN;
                quiet.as_mut().reset(ask_again);
                continue;
            }
        };
        let notification = match notification {
            Ok(notification) => notification,
            Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => continue,
            Err(error) => bail!("the relay connection ended: {error}"),
        };
        let RelayPoolNotification::Event { event, .. } = notification else { continue };
        if event.verify().is_err() {
            continue;
        }
        print_event(&event, run_status.is_none());
        quiet.as_mut().reset(ask_again.max(Instant::now() + QUIET));
        if let Some(run_status) = run_status {
            run_status.remember_reason(&event_chain::tag_value(&event, "reason"));
        }
        silent &= event.pubkey != pool;
        let status = event_chain::tag_value(&event, "status");
        let is_of_job = event.pubkey == pool && event_chain::tag_value(&event, "e") == job.id.to_hex();
        let is_refusal = event.kind == Kind::from(5101) && event_chain::tag_value(&event, "success") == "false";
        if detach && is_of_job && is_refusal {
            return Ok("failed".to_owned());
        }
        match (is_of_job && event.kind == Kind::from(30100), status.as_str()) {
            (false, _) => {}
            // With its first status the run is stored; a refused one ends without.
            (true, "queued" | "running") => {
                if let Some(run_status) = run_status {
                    run_status.print_address().await;
                }
                if detach {
                    return Ok(status);
                }
            }
            (true, _) => return Ok(status),
        }
    }
}

fn npub(key: &PublicKey) -> String {
    key.to_bech32().unwrap_or_else(|_| key.to_hex())
}

/// The repository that an address names.
pub(crate) fn repository(address: &str) -> Result<Repository> {
    match Address::parse(address)? {
        Address::Known(repository) => Ok(repository),
        Address::Named { .. } => {
            bail!("--repository: name the owner by npub; internet identifiers are not looked up here")
        }
    }
}

impl Args {
    /// The run (5401) and job (5100) events of this request.
    fn events(&self, keys: &Keys, pool: PublicKey) -> Result<(Event, Event)> {
        let mut secrets = Vec::new();
        for name in &self.secrets {
            ensure!(!name.contains('='), "--secret takes a name; its value comes from the environment");
            let value =
                std::env::var(name).with_context(|| format!("--secret {name}: the environment has no {name}"))?;
            secrets.push((name.clone(), value));
        }
        let request = RunRequest {
            pool,
            repository: &repository(&self.repository)?,
            workflow: &self.workflow,
            trigger: &self.trigger,
            branch: &self.branch,
            commit: &self.commit,
            inputs: self.inputs.iter().map(|item| name_and_value("--input", item)).collect::<Result<_>>()?,
            env: self.env.iter().map(|item| name_and_value("--env", item)).collect::<Result<_>>()?,
            secrets: &secrets,
            relays: &self.relays,
        };
        request.sign(keys)
    }
}

/// Name and value of what a flag was given.
fn name_and_value<'a>(flag: &str, item: &'a str) -> Result<(&'a str, &'a str)> {
    let pair = item.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.with_context(|| format!("{flag} {item:?}: expected NAME=VALUE"))
}
