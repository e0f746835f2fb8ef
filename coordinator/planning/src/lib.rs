//! A request and the files at its commit become a plan, with the contexts that its jobs will see.
//!
//! Pure. What a press means to a workflow (the request names it, so trigger filters never stop it) is decided by the
//! workflow's [`Dialect`].

pub mod repository_config;

use indexmap::IndexMap;
use nostr::{PublicKey, nips::nip19::ToBech32};
use workflow::{
    diagnostic::{Diagnostic, Severity},
    dialect::{
        call_graph::{CallGraph, CalledFiles, GraphBuild},
        command::Command,
        run_start::{RunNumbers, RunStart, RunTrigger, Subject},
        workflow_ref::WorkflowRef,
    },
    plan::Dialect,
};

use domain::id::{CommitId, MalformedId};
use domain::run::{MAX_COMMIT_MESSAGE, PlainCommand, Planned, Repository, RunRequest, StoredValues};

/// What the source stage knows of a repository and the commit, beside its files.
#[derive(Debug, Clone)]
pub struct RepositoryMetadata {
    /// The commit.
    pub commit: CommitId,
    /// Full ref.
    pub reference: String,
    /// The default branch's full ref, where known.
    pub default_branch: Option<String>,
    /// Message and author name of the commit.
    pub description: Option<(String, String)>,
    /// The commit's first parent, where it has one.
    pub parent: Option<String>,
    /// The commit of the default branch, where known.
    pub default_tip: Option<String>,
    /// Whether the maintainers' state holds the commit at the ref.
    pub proven: bool,
    /// Whether the repository trusts the author of the request no more than anybody.
    pub outsider: bool,
    /// Whether that is so because it reruns what an outsider asked for, with the outsider's inputs or trigger.
    pub takes_over: bool,
    /// Whether a maintainer has to approve the run before anything of it begins.
    pub held: bool,
    /// Maintainers, 64 hex, owner included.
    pub maintainers: Vec<String>,
    /// Relays of the repository.
    pub relays: Vec<String>,
    /// Id of the definition that stands for the workflow file, where the commit's own does not count.
    pub definition: Option<String>,
    /// What maintainers stored for the repository; it counts in a trusted run alone.
    pub stored: StoredValues,
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
    Dialect::of_path(path).map(|_| path)
}

/// How far planning came.
#[derive(Debug)]
pub enum PlanOutcome {
    /// These called workflows are needed too: planning begins again with them.
    NeedsFiles(Vec<WorkflowRef>),
    /// The plan.
    Planned(Box<Planned>),
}

/// The plan of a request's workflow at the commit that was found, and of all it calls, as far as that is known.
///
/// # Errors
/// A text for the author; its first line is the summary.
pub fn plan(
    request: &RunRequest,
    metadata: &RepositoryMetadata,
    file: Option<&str>,
    known: &CalledFiles,
    numbers: RunNumbers,
) -> Result<PlanOutcome, String> {
    let path = workflow_path(&request.workflow)?;
    let text = file.ok_or_else(|| {
        format!(
            "the workflow {path} does not exist at commit {}\nCommit the file and push it, or name another one.",
            metadata.commit
        )
    })?;
    let (graph, mut notices) = match read(path, text, known)? {
        Ok(read) => read,
        Err(missing) => return Ok(PlanOutcome::NeedsFiles(missing)),
    };
    let subject = Subject {
        repository: repository_name(&request.repository),
        owner: npub(&request.repository.owner),
        actor: npub(&request.actor),
        commit: metadata.commit.to_string(),
        reference: metadata.reference.clone(),
        default_branch: metadata.default_branch.clone(),
        description: metadata.description.clone(),
        parent: metadata.parent.clone(),
        default_tip: metadata.default_tip.clone(),
        definition: metadata.definition.clone(),
    };
    let event = graph.plan.dialect.start_event(&graph.plan, request.trigger.as_deref());
    let stored = match metadata.proven && !metadata.outsider {
        true => metadata.stored.clone().beneath(&request.env),
        false => StoredValues::default(),
    };
    let vars = match (metadata.outsider, stored.variables.is_empty()) {
        (true, _) => IndexMap::new(),
        (false, true) => request.env.clone(),
        (false, false) => stored.variables.clone(),
    };
    let trigger = RunTrigger { event, inputs: request.inputs.clone(), vars, payload: request.payload.clone() };
    let mut planned = assemble(graph, &subject, trigger, numbers)?;
    if let Some(definition) = &metadata.definition {
        notices.push(format!("{path} is not of the commit: it is the definition {definition}"));
    }
    planned.proven = metadata.proven;
    planned.stored = stored;
    planned.outsider = metadata.outsider;
    planned.held = metadata.held;
    planned.maintainers = metadata.maintainers.clone();
    planned.relays = metadata.relays.clone();
    if metadata.outsider {
        notices.push(match (&request.pull_request, metadata.takes_over) {
            (_, true) => Planned::takes_over_notice(),
            (Some(of), false) => Planned::foreign_code_notice(&npub(&of.author)),
            (None, false) => Planned::outsider_notice(&subject.actor),
        });
    }
    notices.append(&mut planned.notices);
    planned.notices = notices;
    Ok(PlanOutcome::Planned(Box::new(planned)))
}

/// Commit of a run that has no repository.
const NO_COMMIT: &str = "0000000000000000000000000000000000000000";

/// The plan of a request for one program, on workers of a label. It acts for its author alone: the secrets that came with
/// the request are its own.
///
/// # Errors
/// A text for the author.
pub fn plan_command(
    request: &RunRequest,
    PlainCommand { program, arguments, input }: &PlainCommand,
    label: &str,
    secrets: &[String],
    numbers: RunNumbers,
) -> Result<Planned, String> {
    let command = Command { program, arguments, input, env: &request.env, secrets, label };
    let dialect = Dialect::default();
    let graph = match dialect.command(&command) {
        GraphBuild::Done(Some(graph), _) => *graph,
        GraphBuild::Done(None, diagnostics) => {
            return Err(diagnostics.iter().map(line).collect::<Vec<_>>().join("\n"));
        }
        GraphBuild::NeedsFiles(_) => return Err("a command calls no workflow".into()),
    };
    let subject = Subject { actor: npub(&request.actor), commit: NO_COMMIT.to_owned(), ..Subject::default() };
    let event = dialect.start_event(&graph.plan, None);
    let trigger = RunTrigger { event, inputs: None, vars: IndexMap::new(), payload: None };
    Ok(Planned { outsider: true, ..assemble(graph, &subject, trigger, numbers)? })
}

/// A workflow with what it calls and its warnings, or what is missing.
type Reading = Result<(CallGraph, Vec<String>), Vec<WorkflowRef>>;

/// Reads a workflow and what it calls. The error is every mistake with its place, one a line.
fn read(path: &str, text: &str, known: &CalledFiles) -> Result<Reading, String> {
    let (graph, diagnostics) = match Dialect::of_path(path)?.load(path, text, known) {
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

/// A parsed workflow with the contexts of what starts it; trusted, and known to nobody else.
///
/// # Errors
/// Inputs that the workflow does not allow, or a subject whose commit is no commit id.
pub fn assemble(
    graph: CallGraph,
    subject: &Subject,
    trigger: RunTrigger,
    numbers: RunNumbers,
) -> Result<Planned, String> {
    let CallGraph { plan, called } = graph;
    let RunStart { inputs, context, title } = plan.dialect.start(&plan, subject, &trigger, numbers)?;
    let message = subject.description.as_ref().and_then(|(message, _)| message.lines().next());
    let message = message.map(|line| line.trim().chars().take(MAX_COMMIT_MESSAGE).collect::<String>());
    Ok(Planned {
        commit: subject.commit.parse().map_err(|error: MalformedId| error.to_string())?,
        reference: subject.reference.clone(),
        proven: true,
        outsider: false,
        held: false,
        event: trigger.event,
        inputs,
        context,
        plan,
        called,
        title,
        commit_message: message.filter(|line| !line.is_empty()),
        origins: IndexMap::new(),
        definitions: Vec::new(),
        stored: StoredValues::default(),
        workflow_sha256: None,
        notices: Vec::new(),
        relays: Vec::new(),
        maintainers: Vec::new(),
    })
}

/// `<owner npub>/<d>`: a repository's name in workflows and in the configuration.
pub fn repository_name(repository: &Repository) -> String {
    format!("{}/{}", npub(&repository.owner), repository.identifier)
}

/// A key as people write it; what is no key stays as it is.
pub fn npub(hex: &str) -> String {
    PublicKey::from_hex(hex).ok().and_then(|key| key.to_bech32().ok()).unwrap_or_else(|| hex.to_owned())
}

#[cfg(test)]
mod tests;
