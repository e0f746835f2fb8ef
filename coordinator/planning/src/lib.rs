//! A request and the files at its commit become a plan, with the contexts that its jobs will see.
//!
//! Pure. What a press means to a workflow (the request names it, so `on:` filters never stop it) is decided here.

mod event;
pub mod own;

use indexmap::IndexMap;
use nostr::{PublicKey, nips::nip19::ToBech32};
use serde_json::{Map, Value, json};
use workflow::{
    diagnostic::{Diagnostic, Severity},
    expression::{self, EvaluationLimits, NoHostFunctions, Object, Scope},
    github::{
        self,
        call_graph::{self, CallGraph, CalledFiles, GraphBuild},
        workflow_ref::WorkflowRef,
    },
    plan::Plan,
};

use domain::run::{Planned, Repository, RunRequest};

/// Where `github.server_url` and the like point: the services inside a job.
pub const ORIGIN: &str = "http://ci.localhost:4480";

/// What is built, and for whom.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// `github.repository`.
    pub repository: String,
    /// `github.repository_owner`.
    pub owner: String,
    /// `github.actor`.
    pub actor: String,
    /// Full commit id.
    pub commit: String,
    /// Full ref.
    pub reference: String,
    /// The default branch's full ref, where known.
    pub default_branch: Option<String>,
    /// Message and author name of the commit.
    pub description: Option<(String, String)>,
}

/// What the source stage knows of a commit beside its files.
#[derive(Debug, Clone, Default)]
pub struct Facts {
    /// Full commit id.
    pub commit: String,
    /// Full ref.
    pub reference: String,
    /// The default branch's full ref, where known.
    pub default_branch: Option<String>,
    /// Message and author name of the commit.
    pub description: Option<(String, String)>,
    /// Whether the commit stands in the maintainers' state.
    pub trusted: bool,
    /// Maintainers, 64 hex, owner included.
    pub maintainers: Vec<String>,
    /// Relays of the repository.
    pub relays: Vec<String>,
    /// Id of the definition that stands for the workflow file, where the commit's own does not count.
    pub definition: Option<String>,
}

/// Counters from the store.
#[derive(Debug, Clone, Copy)]
pub struct Numbers {
    /// `github.run_id`.
    pub serial: u64,
    /// `github.run_number`.
    pub number: u64,
    /// `github.run_attempt`.
    pub attempt: u32,
}

/// What starts the workflow.
#[derive(Debug, Clone, Default)]
pub struct Cause {
    /// Name of the GitHub event.
    pub event: String,
    /// Inputs as given; `None`: defaults.
    pub inputs: Option<IndexMap<String, String>>,
    /// The `vars` context.
    pub vars: IndexMap<String, String>,
    /// Merged over `github.event`.
    pub payload: Option<Value>,
}

/// The path of a request's workflow, checked: where it can't be meant, the message says so.
///
/// # Errors
/// It is empty, absolute, leaves the repository, or lies outside the folders for workflows.
pub fn workflow_path(path: &str) -> Result<&str, String> {
    let path = path.strip_prefix("./").unwrap_or(path);
    if path.is_empty() {
        return Err("the request names no workflow file: name one, such as .github/workflows/ci.yml".into());
    }
    github::workflow_ref::check_path(path)
}

/// How far planning came.
#[derive(Debug)]
pub enum Step {
    /// These called workflows are needed too: planning begins again with them.
    Needs(Vec<WorkflowRef>),
    /// The plan.
    Planned(Box<Planned>),
}

/// The plan of a request's workflow at the commit that was found, and of all it calls, as far as that is known.
///
/// # Errors
/// A text for the author; its first line is the summary.
pub fn plan(
    request: &RunRequest,
    facts: &Facts,
    file: Option<&str>,
    known: &CalledFiles,
    numbers: Numbers,
) -> Result<Step, String> {
    let path = workflow_path(&request.workflow)?;
    let text = file.ok_or_else(|| {
        format!(
            "the workflow {path} does not exist at commit {}\nCommit the file and push it, or name another one.",
            facts.commit
        )
    })?;
    let (graph, mut notices) = match read(path, text, known)? {
        Ok(read) => read,
        Err(missing) => return Ok(Step::Needs(missing)),
    };
    let subject = Subject {
        repository: repository_name(&request.repository),
        owner: npub(&request.repository.owner),
        actor: npub(&request.actor),
        commit: facts.commit.clone(),
        reference: facts.reference.clone(),
        default_branch: facts.default_branch.clone(),
        description: facts.description.clone(),
    };
    let event = github::workflow_dispatch::start_event(&graph.plan, request.trigger.as_deref()).event;
    let cause = Cause { event, inputs: request.inputs.clone(), vars: request.env.clone(), payload: None };
    let mut planned = assemble(graph, &subject, cause, numbers)?;
    if let Some(definition) = &facts.definition {
        // Whoever trusts what stands at a ref must not take it for that.
        let place = format!("{}/{path}@nostr:{definition}", subject.repository);
        planned.github.insert("workflow_ref".into(), place.into());
        planned.github.insert("workflow_sha".into(), definition.clone().into());
        notices.push(format!("{path} is not of the commit: it is the definition {definition}"));
    }
    planned.trusted = facts.trusted;
    planned.maintainers = facts.maintainers.clone();
    planned.relays = facts.relays.clone();
    notices.append(&mut planned.notices);
    planned.notices = notices;
    Ok(Step::Planned(Box::new(planned)))
}

/// A workflow with what it calls and its warnings, or what is missing.
type Reading = Result<(CallGraph, Vec<String>), Vec<WorkflowRef>>;

/// Reads a workflow and what it calls. The error is every mistake with its place, one a line.
fn read(path: &str, text: &str, known: &CalledFiles) -> Result<Reading, String> {
    let (graph, diagnostics) = match call_graph::build(path, text, known, call_graph::CALL_GRAPH_LIMITS) {
        GraphBuild::NeedsFiles(places) => return Ok(Err(places)),
        GraphBuild::Done(graph, diagnostics) => (graph, diagnostics),
    };
    let lines = |severity: Severity| {
        diagnostics.iter().filter(move |diagnostic| diagnostic.severity == severity).map(line).collect::<Vec<_>>()
    };
    match graph {
        Some(graph) => Ok(Ok((*graph, lines(Severity::Warning)))),
        None => Err(lines(Severity::Error).join("\n")),
    }
}

fn line(diagnostic: &Diagnostic) -> String {
    match &diagnostic.help {
        Some(help) => format!("{diagnostic} ({help})"),
        None => diagnostic.to_string(),
    }
}

/// A parsed workflow with the contexts of its cause; trusted, and known to nobody else.
///
/// # Errors
/// Inputs that the workflow does not allow.
pub fn assemble(graph: CallGraph, subject: &Subject, cause: Cause, numbers: Numbers) -> Result<Planned, String> {
    let CallGraph { plan, called } = graph;
    let trigger = plan.on.get(&cause.event);
    let inputs = match trigger {
        Some(trigger) if cause.event == "workflow_dispatch" => event::inputs(trigger, cause.inputs.as_ref())?,
        _ => Map::new(),
    };
    let mut payload = event::payload(&cause.event, subject, trigger, &inputs);
    if let Some(over) = cause.payload {
        merge(&mut payload, over);
    }
    let github = github_context(&plan, subject, &cause.event, payload, numbers);
    let title = title(&plan, &github, &inputs, &cause.vars)?;
    Ok(Planned {
        commit: subject.commit.clone(),
        reference: subject.reference.clone(),
        trusted: true,
        event: cause.event,
        inputs,
        github,
        plan,
        called,
        title,
        origins: IndexMap::new(),
        definitions: Vec::new(),
        notices: Vec::new(),
        relays: Vec::new(),
        maintainers: Vec::new(),
    })
}

/// `run-name:` evaluated; `None` where there is none.
fn title(
    plan: &Plan,
    github: &Map<String, Value>,
    inputs: &Map<String, Value>,
    vars: &IndexMap<String, String>,
) -> Result<Option<String>, String> {
    let Some(written) = &plan.run_name else { return Ok(None) };
    let mut contexts = Object::new();
    contexts.insert("github", expression::Value::from_json(&github.clone().into()));
    contexts.insert("inputs", expression::Value::from_json(&inputs.clone().into()));
    contexts.insert("vars", vars.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect::<Object>());
    let scope = Scope { contexts: &contexts, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
    let name = expression::interpolate_text(written, &scope).map_err(|error| format!("run-name: {error}"))?;
    Ok(Some(github::display_name::one_line(&name)).filter(|name| !name.is_empty()))
}

/// The `github` context as far as it holds for the whole run (GitHub docs: contexts, github).
fn github_context(plan: &Plan, subject: &Subject, event: &str, payload: Value, numbers: Numbers) -> Map<String, Value> {
    // Where the payload names the branches of a pull request, it counts.
    let side = |side: &str, other: &str| match payload["pull_request"][side]["ref"].as_str() {
        Some(name) => name.to_owned(),
        None if event.starts_with("pull_request") => other.to_owned(),
        None => String::new(),
    };
    let head_ref = side("head", subject.short_reference());
    let base_ref = side("base", subject.default_branch());
    let context = json!({
        "actor": subject.actor,
        "triggering_actor": subject.actor,
        "repository": subject.repository,
        "repository_owner": subject.owner,
        "repositoryUrl": format!("{ORIGIN}/{}.git", subject.repository),
        "event_name": event,
        "sha": subject.commit,
        "ref": subject.reference,
        "ref_name": subject.short_reference(),
        "ref_type": if subject.reference.starts_with("refs/tags/") { "tag" } else { "branch" },
        "ref_protected": false,
        "head_ref": head_ref,
        "base_ref": base_ref,
        "run_id": numbers.serial.to_string(),
        "run_number": numbers.number.to_string(),
        "run_attempt": numbers.attempt.to_string(),
        "retention_days": "90",
        "workflow": plan.name,
        "workflow_ref": format!("{}/{}@{}", subject.repository, plan.path, subject.reference),
        "workflow_sha": subject.commit,
        "server_url": ORIGIN,
        "api_url": format!("{ORIGIN}/api/v3"),
        "graphql_url": format!("{ORIGIN}/api/graphql"),
        "secret_source": "Actions",
    });
    let mut context = match context {
        Value::Object(context) => context,
        _ => Map::new(),
    };
    context.insert("event".into(), payload);
    context
}

impl Subject {
    /// `github.ref_name`.
    fn short_reference(&self) -> &str {
        let name = &self.reference;
        ["refs/heads/", "refs/tags/", "refs/pull/"].iter().find_map(|prefix| name.strip_prefix(prefix)).unwrap_or(name)
    }

    fn default_branch(&self) -> &str {
        let name = self.default_branch.as_deref().unwrap_or("main");
        name.strip_prefix("refs/heads/").unwrap_or(name)
    }
}

/// `<owner npub>/<d>`: a repository's name in `github.repository` and in the configuration.
pub fn repository_name(repository: &Repository) -> String {
    format!("{}/{}", npub(&repository.owner), repository.identifier)
}

/// A key as people write it; what is no key stays as it is.
fn npub(hex: &str) -> String {
    PublicKey::from_hex(hex).ok().and_then(|key| key.to_bech32().ok()).unwrap_or_else(|| hex.to_owned())
}

/// Lays one JSON value over another, mappings entry by entry.
fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (name, value) in over {
                match under.get_mut(&name) {
                    Some(known) => merge(known, value),
                    None => {
                        under.insert(name, value);
                    }
                }
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests;
