//! `longshore exec`: a local checkout's workflow, with the engine of a pool and without a relay.

mod call_graph;
mod checkout;
mod interrupt;
mod local_runner;
mod own_repository;
mod report;
mod sources;
mod view;

use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use actions_api::ActionsApi;
use anyhow::{Context, Result, bail, ensure};
use blobs::Blobs;
use config::CacheAndArtifactLimits;
use domain::id::RunId;
use domain::run::Planned;
use indexmap::IndexMap;
use secrecy::SecretString;
use store::Store;
use workflow::{
    diagnostic::{Colour, Diagnostic, render},
    dialect::{
        run_start::{RunNumbers, RunTrigger, Subject},
        trigger::{TriggerDecision, TriggerEvent},
    },
    plan::Dialect,
};

use self::{
    checkout::Checkout, interrupt::InterruptSignals, own_repository::OwnRepository, report::RunReport,
    sources::ExecSources, view::ViewMode,
};
use crate::{label_images, terminal::printable::printable_lines};

const EXAMPLES: &str = "\
Examples:
  longshore exec                                    the only workflow of this checkout
  longshore exec -W .github/workflows/ci.yml --job test
  longshore exec --event pull_request --ref topic --payload event.json
  longshore exec --input level=debug --var REGION=eu --secret TOKEN
  longshore exec --artifacts out                    what jobs uploaded lies in out/NAME
  longshore exec --image ubuntu-latest=my/image:dev --json | jq .jobs[].conclusion";

/// Run a workflow of a local checkout, as a pool would, without a relay
///
/// The exit code is the conclusion: 0 success (or nothing to do), 1 failure, 2 the workflow or a flag is wrong,
/// 130 cancelled. Ctrl-C, TERM and HUP cancel; a second one ends everything at once.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// The checkout
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// The workflow, relative to the checkout; needed where there are several
    #[arg(short = 'W', long, value_name = "FILE")]
    workflow: Option<String>,
    /// The event: push, pull_request, workflow_dispatch, … Filters of the workflow then count
    #[arg(long, value_name = "NAME", help_heading = "Event")]
    event: Option<String>,
    /// JSON merged over the event's payload
    #[arg(long, value_name = "FILE", help_heading = "Event")]
    payload: Option<PathBuf>,
    /// Only this job, and those it needs
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Branch, tag or full ref to run as; the checked-out one where not given
    #[arg(long = "ref", value_name = "REF", help_heading = "Event")]
    reference: Option<String>,
    /// An input of workflow_dispatch; may be repeated
    #[arg(long = "input", value_name = "NAME=VALUE", help_heading = "Event")]
    inputs: Vec<String>,
    /// A variable of the `vars` context; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", help_heading = "Values")]
    vars: Vec<String>,
    /// A secret by name; the value comes from the environment, or is asked for
    #[arg(long = "secret", value_name = "NAME", help_heading = "Values")]
    secrets: Vec<String>,
    /// File with a NAME=VALUE secret on each line
    #[arg(long, value_name = "FILE", help_heading = "Values")]
    secrets_file: Option<PathBuf>,
    /// The image that a runner label stands for; may be repeated
    #[arg(long = "image", value_name = "LABEL=IMAGE", value_parser = pair, help_heading = "Place")]
    images: Vec<(String, String)>,
    /// `github.repository`
    #[arg(long, value_name = "OWNER/NAME", default_value = "local/repository", help_heading = "Event")]
    repository: String,
    /// `github.actor`
    #[arg(long, value_name = "NAME", default_value = "local", help_heading = "Event")]
    actor: String,
    /// Where steps run: docker, or host for processes of this machine without any isolation
    #[arg(long, default_value = "docker", help_heading = "Place")]
    sandbox: worker::sandbox::SandboxKind,
    /// What lies in the workspace when a job starts: tree (the commit's files) or empty (until actions/checkout)
    #[arg(long, default_value = "tree", value_parser = ["tree", "empty"], help_heading = "Place")]
    workspace: String,
    /// A git server that `uses: owner/repo@ref` is looked for on; may be repeated, the first that has it counts
    #[arg(
        long = "action-base",
        value_name = "URL",
        default_value = "https://github.com",
        help_heading = "Actions of other repositories"
    )]
    action_bases: Vec<String>,
    /// Where one repository comes from instead: a URL, or a Nostr address; may be repeated
    #[arg(long = "action-mirror", value_name = "OWNER/REPO=URL", value_parser = pair, help_heading = "Actions of other repositories")]
    action_mirrors: Vec<(String, String)>,
    /// A relay that is asked for repositories on Nostr; may be repeated
    #[arg(long = "relay", value_name = "URL", help_heading = "Actions of other repositories")]
    relays: Vec<String>,
    /// Node.js for JavaScript actions where the image has none
    #[arg(long, value_name = "FILE", help_heading = "Place")]
    node: Option<PathBuf>,
    /// Folder of what was fetched, kept between runs; default: longshore in the user's cache folder
    #[arg(long, value_name = "DIR", help_heading = "Actions of other repositories")]
    cache: Option<PathBuf>,
    /// Jobs at a time
    #[arg(long, default_value_t = 2, value_name = "N", help_heading = "Place")]
    jobs: usize,
    /// Print line by line in a terminal too, without the tree of jobs and steps
    #[arg(long, help_heading = "Output")]
    plain: bool,
    /// Print one JSON object instead of the log: conclusion, jobs, steps, outputs, annotations, summaries, logs
    #[arg(long, help_heading = "Output")]
    json: bool,
    /// Unpack what jobs upload as artifacts, once the run is over, into folders of their names below this one
    #[arg(long, value_name = "DIR", help_heading = "Output")]
    artifacts: Option<PathBuf>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    ensure!(args.jobs > 0, "--jobs must be at least 1");
    let events: Vec<&str> = Dialect::ALL.into_iter().flat_map(Dialect::events).copied().collect();
    if let Some(event) = args.event.as_deref().filter(|event| !events.contains(event)) {
        bail!("--event {event}: unknown event; there are {}", events.join(", "));
    }
    let checkout = Checkout::open(&args.directory, args.reference.as_deref())?;
    let path = checkout.workflow(args.workflow.as_deref())?;
    let text = checkout.read(&path)?;
    let sources = sources(&args, &checkout)?;
    let call_graph::ReadCallGraph { graph, findings, origins } =
        call_graph::read(&path, &text, &checkout, &sources).await;
    let Some(mut graph) = graph else {
        return RunReport::invalid(complaints(&findings, &path, &text)).print(args.json);
    };
    if let Some(id) = &args.job {
        only(&mut graph.plan, id)?;
    }
    let dialect = graph.plan.dialect;
    let event = args.event.clone().unwrap_or_else(|| dialect.start_event(&graph.plan, None));
    if args.event.is_some() {
        let changed = checkout.changed_paths();
        let event = TriggerEvent {
            name: &event,
            reference: &checkout.reference,
            base_ref: event.starts_with("pull_request").then_some("main"),
            changed_paths: changed.as_deref(),
            action: None,
        };
        if let TriggerDecision::Ignored(reason) = dialect.decide_trigger(&graph.plan, &event) {
            return RunReport::untriggered(&reason).print(args.json);
        }
    }
    let payload = match &args.payload {
        Some(file) => Some(read_json(file)?),
        None => None,
    };
    let subject = Subject {
        repository: args.repository.clone(),
        owner: args.repository.split('/').next().unwrap_or_default().to_owned(),
        actor: args.actor.clone(),
        commit: checkout.commit.to_string(),
        reference: checkout.reference.clone(),
        default_branch: None,
        description: checkout.description.clone(),
        parent: checkout.parent.clone(),
        default_tip: checkout.default_tip.clone(),
        definition: None,
    };
    let inputs = (!args.inputs.is_empty()).then(|| pairs("--input", &args.inputs)).transpose()?;
    let numbers = RunNumbers { serial: 1, number: 1, attempt: 1 };
    let trigger = RunTrigger { event, inputs, vars: pairs("--var", &args.vars)?, payload };
    let planned = match planning::assemble(graph, &subject, trigger, numbers) {
        Ok(planned) => Planned { origins, ..planned },
        Err(message) => return RunReport::invalid(message).print(args.json),
    };
    execute(&args, &checkout, planned, Arc::new(sources)).await
}

/// Where repositories come from: the checkout, and what the flags name.
fn sources(args: &Args, checkout: &Checkout) -> Result<ExecSources> {
    let actions =
        ::config::Actions { bases: args.action_bases.clone(), mirrors: args.action_mirrors.iter().cloned().collect() };
    let cache = args.cache.clone().unwrap_or_else(cache);
    Ok(ExecSources::new(&checkout.root, &cache, actions, args.relays.clone(), checkout.lock()?))
}

/// Findings with the lines they are about; those of called workflows in one line.
fn complaints(findings: &[Diagnostic], path: &str, text: &str) -> String {
    let (own, called): (Vec<_>, Vec<_>) = findings.iter().cloned().partition(|finding| finding.file == path);
    let called: String = called.iter().map(|finding| format!("{finding}\n")).collect();
    printable_lines(&format!("{}{called}", render(&own, text, colour())))
}

async fn execute(args: &Args, checkout: &Checkout, planned: Planned, sources: Arc<ExecSources>) -> Result<ExitCode> {
    let mut config = worker::config::Config { sandbox: args.sandbox, ..worker::config::Config::default() };
    config.name = format!("exec-{}", std::process::id());
    config.pool.size = 0;
    // Its jobs are its user's own.
    config.local_images = vec!["*".to_owned()];
    config.disk.fixed_volumes = false;
    config.disk.min_free = 0;
    label_images::use_present_images(&mut config, &args.images).await;
    config.labels.extend(args.images.iter().cloned());
    config.node.clone_from(&args.node);
    if !args.sandbox.is_isolated() {
        tracing::warn!("--sandbox host: steps run as processes of this machine, with your rights and your files");
    }
    if let Some(folder) = &args.artifacts {
        // Before the run: after it, it would be too late.
        let unusable = || format!("--artifacts {}: make it writable or name another folder", folder.display());
        std::fs::create_dir_all(folder).with_context(unusable)?;
    }
    let origin = services(&args.cache.clone().unwrap_or_else(cache)).await?;
    let origin = origin.with_repositories(Arc::new(OwnRepository::new(checkout.root.clone())));
    let work = local_runner::LocalRun {
        run: uuid::Uuid::now_v7().to_string().into(),
        planned,
        vars: pairs("--var", &args.vars)?,
        secrets: secrets(args)?,
        checked_out: args.workspace == "tree",
        jobs: args.jobs,
        view: match (args.json, args.plain) {
            (true, _) => ViewMode::Nothing,
            (_, true) => ViewMode::Lines,
            _ => ViewMode::Tree,
        },
        repository: checkout.root.to_string_lossy().into_owned(),
        origin: origin.clone(),
        config,
    };
    let run = work.run.clone();
    // Last: what the sandbox makes on the engine is removed only by its end, whoever asks for that.
    let mut interrupt = InterruptSignals::listen()?;
    let made = interrupt.finish(Box::pin(worker::sandbox(&work.config))).await;
    let Some(sandbox) = made.transpose()? else { return Ok(ExitCode::from(130)) };
    let report = local_runner::run_to_end(work, sandbox.clone(), sources, &mut interrupt).await;
    // Asked twice to end, it is left as it is.
    let _ = interrupt.finish(sandbox.close()).await;
    let report = report?;
    let unpacked = match &args.artifacts {
        Some(folder) => unpack(&origin, &run, folder).await,
        None => Ok(()),
    };
    let code = report.print(args.json)?;
    unpacked.map(|()| code)
}

/// Brings a run's artifacts out.
async fn unpack(origin: &ActionsApi, run: &RunId, folder: &Path) -> Result<()> {
    let shown = folder.display();
    match origin.unpack(run, folder).await.with_context(|| format!("--artifacts {shown}"))?.join(", ").as_str() {
        "" => tracing::info!("no job uploaded an artifact"),
        names => tracing::info!("artifacts in {shown}: {names}"),
    }
    Ok(())
}

/// The services that actions call; caches and artifacts are kept beside what was fetched.
async fn services(cache: &Path) -> Result<ActionsApi> {
    let folder = cache.join("kept");
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let store = Store::open(&folder.join("longshore.db")).await?;
    let blobs = Blobs::open(&folder.join("blobs"), store.clone())?;
    let now = || u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default();
    let origin = ActionsApi::new(
        store,
        blobs.clone(),
        &rand::random(),
        CacheAndArtifactLimits { artifact_days: 7, ..CacheAndArtifactLimits::default() },
        now,
    );
    origin.expire(now(), &config::Retention::default()).await?;
    blobs.expire(now()).await?;
    Ok(origin)
}

/// Where fetched repositories are kept (XDG base directories).
pub(crate) fn cache() -> PathBuf {
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || folder("HOME").map(|home| home.join(".cache"));
    folder("XDG_CACHE_HOME").or_else(home).unwrap_or_else(std::env::temp_dir).join("longshore")
}

fn colour() -> Colour {
    if std::io::stderr().is_terminal() { Colour::Ansi } else { Colour::Plain }
}

/// Keeps one job and those it needs.
fn only(plan: &mut workflow::plan::Plan, id: &str) -> Result<()> {
    if !plan.jobs.contains_key(id) {
        let known: Vec<&str> = plan.jobs.keys().map(String::as_str).collect();
        bail!("--job {id}: the workflow has no such job; it has {}", known.join(", "));
    }
    let mut wanted = vec![id.to_owned()];
    let mut seen = 0;
    while let Some(next) = wanted.get(seen).cloned() {
        seen += 1;
        for need in plan.jobs.get(&next).map(|job| job.needs.clone()).unwrap_or_default() {
            if !wanted.contains(&need) {
                wanted.push(need);
            }
        }
    }
    plan.jobs.retain(|id, _| wanted.contains(id));
    Ok(())
}

/// One NAME=VALUE of the command line.
pub(crate) fn pair(item: &str) -> Result<(String, String), String> {
    let (name, value) = item.split_once('=').ok_or("there is no = in it")?;
    Ok((name.to_owned(), value.to_owned()))
}

fn pairs(flag: &str, items: &[String]) -> Result<IndexMap<String, String>> {
    let split = |item: &String| {
        let (name, value) = item.split_once('=').with_context(|| format!("{flag} {item:?}: expected NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    items.iter().map(split).collect()
}

fn read_json(path: &PathBuf) -> Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("{}: not JSON", path.display()))
}

fn secrets(args: &Args) -> Result<BTreeMap<String, SecretString>> {
    let mut secrets = BTreeMap::new();
    if let Some(path) = &args.secrets_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        for (number, line) in text.lines().enumerate() {
            if line.trim().is_empty() || line.starts_with('#') {
                continue;
            }
            let place = || format!("{}:{}: expected NAME=VALUE", path.display(), number + 1);
            let (name, value) = line.split_once('=').with_context(place)?;
            secrets.insert(name.trim().to_owned(), SecretString::from(value.to_owned()));
        }
    }
    for name in &args.secrets {
        ensure!(!name.contains('='), "--secret takes a name alone: a value on the command line is seen by everybody");
        let value = match std::env::var(name) {
            Ok(value) => value,
            Err(_) => prompt(name)?,
        };
        secrets.insert(name.clone(), SecretString::from(value));
    }
    Ok(secrets)
}

#[allow(clippy::print_stderr)]
fn prompt(name: &str) -> Result<String> {
    ensure!(std::io::stdin().is_terminal(), "--secret {name}: the environment has no {name}, and nobody can be asked");
    eprint!("{name}: ");
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).with_context(|| format!("cannot read {name}"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}
