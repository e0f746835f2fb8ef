//! `longshore exec`: a checkout's workflow on this machine, with the engine of a pool and no relay.

pub(crate) mod machine;
mod report;
mod run;
mod subject;

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, bail};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use workflow::{
    diagnostic,
    github::{
        self,
        filter::{self, Decision},
        press,
    },
    plan::{Conclusion, Plan},
};

use ::coordinator::plan::{Cause, FOLDERS, Numbers, assemble};

/// Run a checkout's workflow on this machine
///
/// The same engine as a pool's, without relay or coordinator. What jobs print is shown as it comes, `job | text`.
/// The exit code is the conclusion: 0 success (also skipped, or nothing to do), 1 failure, 2 a workflow or an option
/// that can't be used, 130 cancelled. Ctrl-C cancels; a second one ends everything at once.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of the checkout
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Workflow file, from DIR; needed where DIR has more than one
    #[arg(short = 'W', long = "workflow", value_name = "FILE")]
    workflow: Option<PathBuf>,
    /// The event it runs for; `on:` filters are held against it. Without it the workflow runs as if its button was pressed
    #[arg(long, value_name = "NAME")]
    event: Option<String>,
    /// JSON file laid over github.event
    #[arg(long, value_name = "FILE")]
    payload: Option<PathBuf>,
    /// Run this job and those it needs, no others
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Full ref, e.g. refs/heads/main; what is checked out where not given
    #[arg(long, value_name = "REF")]
    r#ref: Option<String>,
    /// github.repository
    #[arg(long, value_name = "OWNER/NAME")]
    repository: Option<String>,
    /// github.actor
    #[arg(long, value_name = "NAME")]
    actor: Option<String>,
    /// An input of workflow_dispatch; may be repeated
    #[arg(long = "input", value_name = "NAME=VALUE", value_parser = pair)]
    inputs: Vec<(String, String)>,
    /// A value of the `vars` context and of every step's environment; may be repeated
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = pair)]
    vars: Vec<(String, String)>,
    /// A secret by name; its value comes from the environment variable of that name, or is asked for
    #[arg(long = "secret", value_name = "NAME")]
    secrets: Vec<String>,
    /// File of secrets, a NAME=VALUE on each line
    #[arg(long, value_name = "FILE")]
    secrets_file: Option<PathBuf>,
    /// The image that stands for a runner label; may be repeated
    #[arg(long = "image", value_name = "LABEL=IMAGE", value_parser = pair)]
    images: Vec<(String, String)>,
    /// Where jobs run: `docker`, or `host`: on this machine, as you, with no isolation
    #[arg(long, value_enum, default_value = "docker")]
    sandbox: machine::Kind,
    /// What lies in the workspace when a job starts: the tree of DIR, or nothing until actions/checkout
    #[arg(long, value_enum, default_value = "tree")]
    workspace: machine::Workspace,
    /// Jobs at a time
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    parallel: u16,
    /// One JSON object on stdout at the end, with conclusions, outputs and logs; nothing else is printed there
    #[arg(long)]
    json: bool,
}

/// `NAME=VALUE`.
pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write it as NAME=VALUE".into()),
    }
}

/// What a run is called that did not become one.
fn no_run(args: &Args, conclusion: &str, event: &str, more: serde_json::Value) {
    if args.json {
        let mut result = json!({ "conclusion": conclusion, "event": event, "jobs": [] });
        if let (Some(result), serde_json::Value::Object(more)) = (result.as_object_mut(), more) {
            result.extend(more);
        }
        println!("{result}");
    }
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let usage = |error: anyhow::Error| {
        eprintln!("error: {error:#}");
        Ok(ExitCode::from(2))
    };
    let directory = match std::fs::canonicalize(&args.directory) {
        Ok(directory) => directory,
        Err(error) => return usage(anyhow::anyhow!("{}: {error}", args.directory.display())),
    };
    let (path, text) = match workflow_file(&directory, args.workflow.as_ref()) {
        Ok(found) => found,
        Err(error) => return usage(error),
    };
    let (plan, diagnostics) = github::parse(&path, &text);
    if !args.json {
        eprint!("{}", diagnostic::render(&diagnostics, &text, crate::lint::colour()));
    }
    let messages: Vec<_> = diagnostics.iter().map(crate::lint::as_json).collect();
    let Some(plan) = plan else {
        no_run(&args, "invalid", "", json!({ "diagnostics": messages }));
        return Ok(ExitCode::from(2));
    };
    let (subject, changed) = subject::find(&directory, &args).await;
    let payload = match args.payload.as_ref().map(|path| payload(path)).transpose() {
        Ok(payload) => payload,
        Err(error) => return usage(error),
    };
    let event = args.event.clone().unwrap_or_else(|| press::event_for(&plan, None).event);
    if args.event.is_some() {
        let about = |pointer: &str| payload.as_ref().and_then(|payload| payload.pointer(pointer)).and_then(|v| v.as_str());
        let happened = filter::Event {
            name: &event,
            reference: &subject.reference,
            base_ref: about("/pull_request/base/ref"),
            changed_paths: changed.as_deref(),
            action: about("/action"),
        };
        if let Decision::Not(why) = filter::triggers(&plan, &happened) {
            eprintln!("nothing to do: {why}");
            no_run(&args, "none", &event, json!({ "reason": why }));
            return Ok(ExitCode::SUCCESS);
        }
    }
    let plan = match &args.job {
        None => plan,
        Some(id) => match only(plan, id) {
            Ok(plan) => plan,
            Err(error) => return usage(error),
        },
    };
    let cause = Cause {
        event: event.clone(),
        inputs: (!args.inputs.is_empty()).then(|| args.inputs.iter().cloned().collect()),
        payload,
    };
    let planned = match assemble(plan, &subject, cause, Numbers { serial: 1, number: 1, attempt: 1 }) {
        Ok(planned) => planned,
        Err(message) => {
            no_run(&args, "invalid", &event, json!({ "reason": message }));
            return usage(anyhow::anyhow!(message));
        }
    };
    let secrets = match subject::secrets(&args.secrets, args.secrets_file.as_deref()) {
        Ok(secrets) => secrets,
        Err(error) => return usage(error),
    };
    let sandbox = machine::open(args.sandbox, args.workspace, &directory).await?;
    let images = machine::images(args.sandbox, &args.images);
    let (cancel, kill) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(interrupts(cancel.clone(), kill.clone()));
    let settings = run::Settings {
        planned,
        vars: args.vars.iter().cloned().collect(),
        secrets,
        images,
        parallel: args.parallel.into(),
        repository: directory,
        live: !args.json,
        cancel,
        kill,
    };
    let ended = Box::pin(run::to_the_end(settings, sandbox.clone())).await;
    sandbox.close().await;
    let (state, logs) = ended?;
    let end = report::end(&state).context("the run has not ended")?;
    if args.json {
        println!("{}", report::json(&state, end, &event, &logs, &messages));
    } else {
        report::summary(&state, end);
    }
    Ok(match end.conclusion {
        Conclusion::Success | Conclusion::Skipped => ExitCode::SUCCESS,
        Conclusion::Cancelled => ExitCode::from(130),
        Conclusion::Failure => ExitCode::FAILURE,
    })
}

/// The first Ctrl-C (or TERM) cancels, the next one ends what is left.
async fn interrupts(cancel: CancellationToken, kill: CancellationToken) {
    for token in [cancel, kill] {
        crate::worker::asked_to_end().await;
        token.cancel();
    }
}

/// The workflow's path in the checkout, and its text.
fn workflow_file(directory: &std::path::Path, named: Option<&PathBuf>) -> anyhow::Result<(String, String)> {
    let path = match named {
        Some(path) => path.clone(),
        None => {
            let mut found = Vec::new();
            for folder in FOLDERS {
                let Ok(entries) = std::fs::read_dir(directory.join(folder)) else { continue };
                let names = entries.filter_map(Result::ok).map(|entry| PathBuf::from(folder).join(entry.file_name()));
                found.extend(names.filter(|path| path.extension().is_some_and(|end| end == "yml" || end == "yaml")));
            }
            found.sort();
            match found.as_slice() {
                [one] => one.clone(),
                [] => bail!("{} has no workflow in {}: name one with -W", directory.display(), FOLDERS.join(", ")),
                more => {
                    let names: Vec<_> = more.iter().map(|path| path.display().to_string()).collect();
                    bail!("there are {} workflows, name one with -W: {}", more.len(), names.join(", "));
                }
            }
        }
    };
    let full = directory.join(&path);
    let text = std::fs::read_to_string(&full).with_context(|| format!("workflow {}", full.display()))?;
    let shown = full.strip_prefix(directory).unwrap_or(&full).display().to_string();
    Ok((shown, text))
}

fn payload(path: &std::path::Path) -> anyhow::Result<serde_json::Value> {
    let text = std::fs::read_to_string(path).with_context(|| format!("--payload {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("--payload {}: not JSON", path.display()))
}

/// The plan with one job and all it needs.
fn only(mut plan: Plan, id: &str) -> anyhow::Result<Plan> {
    if !plan.jobs.contains_key(id) {
        let known: Vec<&str> = plan.jobs.keys().map(String::as_str).collect();
        bail!("--job {id}: the workflow has the jobs {}", known.join(", "));
    }
    let mut wanted = vec![id.to_owned()];
    let mut next = 0;
    while let Some(job) = wanted.get(next).and_then(|id| plan.jobs.get(id)) {
        let more: Vec<String> = job.needs.iter().filter(|need| !wanted.contains(need)).cloned().collect();
        wanted.extend(more);
        next += 1;
    }
    plan.jobs.retain(|id, _| wanted.contains(id));
    Ok(plan)
}
