//! `longshore submit`: asks a pool to run a workflow, with the pair of events that web clients send.

use std::{pin::pin, process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use domain::run::Repository;
use nostr::{Event, Filter, FromBech32 as _, JsonUtil as _, Kind, PublicKey, ToBech32 as _};
use nostr_sdk::{Client, RelayPoolNotification};
use planning::workflow_path;
use source::address::Address;
use tokio::time::Instant;

use super::{
    api::ServerArgs,
    event_chain,
    hive_ci::RunRequest,
    key_file,
    local_commit::{KnownRefs, LocalCommit},
    relay,
    run_status::{RunStatus, RunTitle},
    with_reason,
};
use crate::terminal::printable::printable;

const EXAMPLES: &str = "\
Examples:
  longshore submit -W .github/workflows/ci.yml                what is checked out here
  longshore submit -W .github/workflows/ci.yml --branch dev   the newest commit of a branch
  longshore submit -W .github/workflows/deploy.yml --input target=staging --secret DEPLOY_TOKEN --detach

LONGSHORE_POOL, LONGSHORE_REPOSITORY, LONGSHORE_RELAY and LONGSHORE_NSEC stand for what is asked each time.";

/// Ask a pool to run a workflow
///
/// In a checkout of the repository, the commit that is checked out there is built, and what is not committed or not pushed
/// is named. Publishes a workflow run (kind 5401) and a job (kind 5100), signed with your key, as web clients do. Which run it
/// became, and the jobs that failed, are asked of the coordinator (--server) where it answers.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
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
    /// Commit to build; where not given, what is checked out here, else the branch's newest
    #[arg(long, default_value = "")]
    commit: String,
    /// Branch or tag; where not given, what is checked out here, else the default branch
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
/// How long one waits for a relay to say that what was just pushed is there.
const PUSHED: Duration = Duration::from_secs(2);
/// How long the first answer of the pool is waited for by who does not wait for the end.
const ANSWER: Duration = Duration::from_secs(10);
/// After this long without news the coordinator is asked why.
const QUIET: Duration = Duration::from_secs(10);
/// It is asked again after this long at the earliest.
const ASK_AGAIN: Duration = Duration::from_secs(30);

/// Exit code: 0 success, 1 failure, 130 cancelled; without waiting, 0 taken and 1 refused.
#[allow(clippy::print_stderr)]
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
    let repository = repository(&args.repository)?;
    let secrets = args.secrets()?;
    let client = relay::connect(&args.relays).await?;
    let local = local_commit(&client, &repository, &args.branch, &args.commit).await?;
    let mut title = RunTitle::new(&args.workflow, &args.branch, &args.commit, "");
    if let Some(local) = &local {
        local.warnings().iter().for_each(|warning| eprintln!("warning: {}", printable(warning)));
        title = RunTitle::new(&args.workflow, &local.branch, &local.commit, &local.message);
    }
    let request = RunRequest {
        pool,
        repository: &repository,
        workflow: &args.workflow,
        trigger: &args.trigger,
        branch: local.as_ref().map_or(&args.branch, |local| &local.branch),
        commit: local.as_ref().map_or(&args.commit, |local| &local.commit),
        inputs: args.inputs.iter().map(|item| name_and_value("--input", item)).collect::<Result<_>>()?,
        env: args.env.iter().map(|item| name_and_value("--env", item)).collect::<Result<_>>()?,
        secrets: &secrets,
        relays: &args.relays,
    };
    let (run, job) = request.sign(&keys)?;
    publish(client, run, job, pool, title, &args.server, &args.watch).await
}

/// What the checkout in which this is started means. `None`: it is none of the repository.
async fn local_commit(
    client: &Client,
    repository: &Repository,
    branch: &str,
    commit: &str,
) -> Result<Option<LocalCommit>> {
    let here = std::env::current_dir().context("the current folder is gone")?;
    let mut known = KnownRefs::fetch(client, repository).await?;
    let find = |known: &KnownRefs| -> Result<Option<LocalCommit>> {
        let found = LocalCommit::find(&here, known, branch, commit)?;
        if found.is_none() && !branch.is_empty() {
            known.check_branch(branch)?;
        }
        Ok(found)
    };
    let is_settled = |found: &Result<Option<LocalCommit>>| match found {
        Ok(Some(local)) => local.is_pushed,
        Ok(None) => true,
        Err(_) => false,
    };
    let mut found = find(&known);
    if known.state.is_none() || is_settled(&found) {
        return found;
    }
    // What was pushed a moment ago is known in a moment.
    let mut notifications = client.notifications();
    let moves = client.subscribe(known.moves(repository).limit(0), None).await.context("cannot follow the branches")?;
    let until = Instant::now() + PUSHED;
    loop {
        known = KnownRefs::fetch(client, repository).await?;
        found = find(&known);
        if is_settled(&found) || !has_moved(&mut notifications, until).await {
            break;
        }
    }
    client.unsubscribe(&moves.val).await;
    let found = found?;
    if let Some(local) = found.as_ref().filter(|local| !local.is_pushed && !branch.is_empty()) {
        known.check_branch(&local.branch)?;
    }
    Ok(found)
}

/// Waits for news of the branches; false: none came in time.
async fn has_moved(
    notifications: &mut tokio::sync::broadcast::Receiver<RelayPoolNotification>,
    until: Instant,
) -> bool {
    loop {
        match tokio::time::timeout_at(until, notifications.recv()).await {
            Ok(Ok(RelayPoolNotification::Event { event, .. })) if event.kind == Kind::RepoState => return true,
            Ok(Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_))) => {}
            Ok(Err(_)) | Err(_) => return false,
        }
    }
}

/// Publishes the pair of events, and prints the answers until the run ends.
pub(crate) async fn publish(
    client: Client,
    run: Event,
    job: Event,
    pool: PublicKey,
    title: RunTitle,
    server: &ServerArgs,
    watch: &WaitArgs,
) -> Result<ExitCode> {
    let begun = Instant::now();
    // Whoever reads JSON wants the events and nothing else.
    let mut run_status = if watch.json { None } else { Some(RunStatus::new(server, &job, title)?) };
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
    if let Some(run_status) = &mut run_status {
        if !went_well {
            run_status.print_failures().await;
        }
        if !watch.detach {
            run_status.print_end(&end, begun.elapsed());
        }
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

/// Prints an event: as JSON, or what it says of the run.
#[allow(clippy::print_stdout)]
fn print_event(event: &Event, json: bool) {
    if json {
        println!("{}", event.as_json());
        return;
    }
    let status = event_chain::tag_value(event, "status");
    // How it ended is said at the end.
    if event.kind == Kind::from(30100) && matches!(status.as_str(), "queued" | "running") {
        println!("  {}", printable(&status));
    }
    // Why it waits, or failed.
    for why in ["reason", "error"].map(|name| event_chain::tag_value(event, name)) {
        if !why.is_empty() {
            println!("      {}", printable(&why));
        }
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
        // Which run it is stands before what becomes of it.
        if let (Some(run_status), true) = (run_status.as_mut(), is_accepted(&event, job, pool)) {
            run_status.print_address().await;
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
            (true, "queued" | "running") if !detach => {}
            (true, _) => return Ok(status),
        }
    }
}

/// Whether it says that the run is stored; a refused one ends without.
fn is_accepted(event: &Event, job: &Event, pool: PublicKey) -> bool {
    let is_of_job = event.pubkey == pool && event_chain::tag_value(event, "e") == job.id.to_hex();
    let status = event_chain::tag_value(event, "status");
    is_of_job && event.kind == Kind::from(30100) && matches!(status.as_str(), "queued" | "running")
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
    /// Names and values.
    fn secrets(&self) -> Result<Vec<(String, String)>> {
        let mut secrets = Vec::new();
        for name in &self.secrets {
            ensure!(!name.contains('='), "--secret takes a name; its value comes from the environment");
            let value =
                std::env::var(name).with_context(|| format!("--secret {name}: the environment has no {name}"))?;
            secrets.push((name.clone(), value));
        }
        Ok(secrets)
    }
}

impl LocalCommit {
    /// What of the checkout is not part of the run, or keeps it waiting.
    fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        if self.uncommitted > 0 {
            let (files, are) = if self.uncommitted == 1 { ("file", "is") } else { ("files", "are") };
            warnings.push(format!(
                "{} uncommitted {files} {are} not part of the run: commit first, or run what lies here with `longshore exec`",
                self.uncommitted
            ));
        }
        if !self.is_pushed {
            warnings.push(format!(
                "{:.7} is not pushed: it is built as soon as the repository's server has it",
                self.commit
            ));
        }
        warnings
    }
}

/// Name and value of what a flag was given.
fn name_and_value<'a>(flag: &str, item: &'a str) -> Result<(&'a str, &'a str)> {
    let pair = item.split_once('=').filter(|(name, _)| !name.is_empty());
    pair.with_context(|| format!("{flag} {item:?}: expected NAME=VALUE"))
}
