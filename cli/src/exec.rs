//! `longshore exec`: a local checkout's workflow, with the engine of a pool and without a relay.

mod call_graph;
mod checkout;
mod ending;
mod interrupt;
mod local_engine;
mod local_runner;
mod own_repository;
mod report;
mod selection;
mod sources;
mod tree_watcher;
mod values;
mod view;
mod working_tree;

use std::{collections::BTreeMap, io::IsTerminal, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context as _, Result, bail, ensure};
use domain::run::Planned;
use indexmap::IndexMap;
use secrecy::SecretString;
use workflow::{
    diagnostic::{Colour, Diagnostic, render},
    dialect::{
        run_start::{RunNumbers, RunTrigger, Subject},
        trigger::{TriggerDecision, TriggerEvent},
    },
    plan::Dialect,
};

pub(crate) use self::values::pair;
use self::{
    checkout::{Checkout, CheckoutArgs},
    local_engine::LocalEngine,
    local_runner::Superseding,
    report::RunReport,
    selection::Selection,
    sources::ExecSources,
    tree_watcher::TreeWatcher,
    values::{pairs, read_json, secrets},
};
use crate::terminal::printable::{printable, printable_lines};

const EXAMPLES: &str = "\
Examples:
  longshore exec                                    the only workflow of this checkout, with what is not committed
  longshore exec --watch --job test                 again each time that a file is saved
  longshore exec --job \"test (linux, 20)\"           one leg of a matrix; or --matrix os=linux --matrix node=20
  longshore exec --committed                        the commit alone
  longshore exec -W .github/workflows/ci.yml --job test
  longshore exec --event pull_request --ref topic --payload event.json
  longshore exec --input level=debug --var REGION=eu --secret TOKEN
  longshore exec --artifacts out                    what jobs uploaded lies in out/NAME
  longshore exec --image ubuntu-latest=my/image:dev --json | jq .jobs[].conclusion";

/// Run a workflow of a local checkout, as a pool would, without a relay
///
/// What is run is what lies in the working tree, tracked files and new ones, but for those that git ignores; nothing is
/// committed or changed there. Jobs see it as a commit on top of the checked-out one.
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
    /// Run the commit, without what is not committed; the workflow file too is the commit's
    #[arg(long)]
    committed: bool,
    /// The event: push, pull_request, workflow_dispatch, … Filters of the workflow then count
    #[arg(long, value_name = "NAME", help_heading = "Event")]
    event: Option<String>,
    /// JSON merged over the event's payload
    #[arg(long, value_name = "FILE", help_heading = "Event")]
    payload: Option<PathBuf>,
    /// Only this job, and those it needs: its id or its name, such as "test (linux, 20)"
    #[arg(long, value_name = "NAME")]
    job: Option<String>,
    /// Only legs of matrices that have this value; may be repeated, several values of one key mean any of them
    #[arg(long = "matrix", value_name = "KEY=VALUE", value_parser = pair)]
    matrix: Vec<(String, String)>,
    /// Run again each time that files change: a run that goes on is cancelled
    #[arg(long, conflicts_with_all = ["committed", "json"])]
    watch: bool,
    /// Branch, tag or full ref to run as; the checked-out one where not given. One at another commit is run as committed
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
    /// What lies in the workspace when a job starts: tree (the files that are run) or empty (until actions/checkout)
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

/// What a run is given on the command line.
struct RunValues {
    vars: IndexMap<String, String>,
    inputs: Option<IndexMap<String, String>>,
    secrets: BTreeMap<String, SecretString>,
}

/// Files and the plan of their workflow.
struct PreparedRun {
    checkout: Checkout,
    planned: Planned,
    sources: Arc<ExecSources>,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    ensure!(args.jobs > 0, "--jobs must be at least 1");
    let events: Vec<&str> = Dialect::ALL.into_iter().flat_map(Dialect::events).copied().collect();
    if let Some(event) = args.event.as_deref().filter(|event| !events.contains(event)) {
        bail!("--event {event}: unknown event; there are {}", events.join(", "));
    }
    if args.watch {
        return Box::pin(watch(&args)).await;
    }
    let checkout = args.open()?;
    let values = args.values()?;
    let prepared = match prepare(&args, checkout, &values).await? {
        Ok(prepared) => prepared,
        Err(report) => return report.print(args.json),
    };
    let Some(mut engine) = LocalEngine::start(&args).await? else { return Ok(ExitCode::from(130)) };
    let ended = engine.run(&args, prepared, &values, None).await;
    engine.close().await;
    let (report, unpacked) = ended?;
    let code = report.print(args.json)?;
    unpacked.map(|()| code)
}

/// Runs the files again each time that they changed, until somebody ends it.
#[allow(clippy::print_stderr)]
async fn watch(args: &Args) -> Result<ExitCode> {
    if let Some(folder) = &args.artifacts {
        // What is put there is no change.
        std::fs::create_dir_all(folder).with_context(|| format!("--artifacts {}", folder.display()))?;
    }
    let excluded = args.artifacts.as_ref().map(|folder| folder.canonicalize()).transpose()?;
    let repository = checkout::discover(&args.directory)?;
    let root = repository.workdir().context("a bare repository has no work tree to run")?;
    // Watched before they are read: no change in between is missed.
    let mut watcher = TreeWatcher::new(root, excluded)?;
    let mut checkout = args.open()?;
    ensure!(
        !checkout.is_committed,
        "--watch runs the working tree, and --ref is at another commit: leave one of them out"
    );
    let values = args.values()?;
    let Some(mut engine) = LocalEngine::start(args).await? else { return Ok(ExitCode::from(130)) };
    let (mut code, mut has_run) = (ExitCode::SUCCESS, false);
    let ended = loop {
        let open = || args.open();
        let mut superseding = Superseding::new(&mut watcher, checkout.commit.clone(), &open);
        let report = match prepare(args, checkout, &values).await {
            Ok(Ok(prepared)) => {
                let ran = engine.run(args, prepared, &values, Some(&mut superseding)).await;
                ran.and_then(|(report, unpacked)| unpacked.map(|()| report))
            }
            Ok(Err(report)) => Ok(report),
            Err(error) => Err(error),
        };
        match (report, engine.interrupt.is_pending() || superseding.is_interrupted) {
            (Ok(report), is_interrupted) => {
                if superseding.next.is_none() {
                    code = report.print(args.json)?;
                }
                if is_interrupted {
                    break Ok(code);
                }
            }
            // What is wrong later may be what is being typed.
            (Err(error), false) if has_run => eprintln!("{}", printable_lines(&format!("{error:#}"))),
            (Err(error), _) => break Err(error),
        }
        has_run = true;
        let next = match superseding.next.take() {
            Some(next) => Ok(next),
            None => {
                eprintln!("waiting for files to change; Ctrl-C ends this\n");
                tokio::select! {
                    changed = superseding.changed() => changed,
                    _ = engine.interrupt.next() => break Ok(code),
                }
            }
        };
        match next {
            Ok(next) => checkout = next,
            Err(error) => break Err(error),
        }
    };
    engine.close().await;
    ended
}

impl Args {
    fn open(&self) -> Result<Checkout> {
        Checkout::open(&CheckoutArgs {
            directory: &self.directory,
            reference: self.reference.as_deref(),
            committed: self.committed,
            excluded: self.artifacts.as_deref(),
        })
    }

    fn values(&self) -> Result<RunValues> {
        Ok(RunValues {
            vars: pairs("--var", &self.vars)?,
            inputs: (!self.inputs.is_empty()).then(|| pairs("--input", &self.inputs)).transpose()?,
            secrets: secrets(self.secrets_file.as_ref(), &self.secrets)?,
        })
    }

    fn cache(&self) -> PathBuf {
        self.cache.clone().unwrap_or_else(cache)
    }
}

/// Reads and plans the workflow. The inner error: there is nothing to run, and why.
async fn prepare(args: &Args, checkout: Checkout, values: &RunValues) -> Result<Result<PreparedRun, RunReport>> {
    let path = checkout.workflow(args.workflow.as_deref())?;
    let text = checkout.read(&path)?;
    let sources = sources(args, &checkout)?;
    let call_graph::ReadCallGraph { graph, findings, origins } =
        call_graph::read(&path, &text, &checkout, &sources).await;
    let Some(graph) = graph else {
        return Ok(Err(RunReport::invalid(complaints(&findings, &path, &text))));
    };
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
            return Ok(Err(RunReport::untriggered(&reason)));
        }
    }
    let payload = args.payload.as_ref().map(read_json).transpose()?;
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
    let numbers = RunNumbers { serial: 1, number: 1, attempt: 1 };
    let trigger = RunTrigger { event, inputs: values.inputs.clone(), vars: values.vars.clone(), payload };
    let mut planned = match planning::assemble(graph, &subject, trigger, numbers) {
        Ok(planned) => Planned { origins, ..planned },
        Err(message) => return Ok(Err(RunReport::invalid(message))),
    };
    let selection = Selection { job: args.job.as_deref(), matrix: &args.matrix };
    selection.apply(
        local_runner::new_run("exec".into(), &planned, &values.vars, values.secrets.keys().cloned().collect()),
        &mut planned,
    )?;
    if !args.json {
        print_title(&planned, &checkout);
    }
    Ok(Ok(PreparedRun { checkout, planned, sources: Arc::new(sources) }))
}

/// What is run, and which files: `CI · main · 22fffc5 message`.
#[allow(clippy::print_stderr)]
fn print_title(planned: &Planned, checkout: &Checkout) {
    eprintln!("{}", printable(&format!("{} · {}", planned.plan.name, checkout.title)));
}

/// Where repositories come from: the checkout, and what the flags name.
fn sources(args: &Args, checkout: &Checkout) -> Result<ExecSources> {
    let actions =
        ::config::Actions { bases: args.action_bases.clone(), mirrors: args.action_mirrors.iter().cloned().collect() };
    Ok(ExecSources::new(&checkout.repository, &args.cache(), actions, args.relays.clone(), checkout.lock()?))
}

/// Findings with the lines they are about; those of called workflows in one line.
fn complaints(findings: &[Diagnostic], path: &str, text: &str) -> String {
    let (own, called): (Vec<_>, Vec<_>) = findings.iter().cloned().partition(|finding| finding.file == path);
    let called: String = called.iter().map(|finding| format!("{finding}\n")).collect();
    printable_lines(&format!("{}{called}", render(&own, text, colour())))
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
