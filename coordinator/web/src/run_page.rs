//! The page of one run: why it failed, its annotations, its graph, its jobs, what they left, and its chain of events.

use std::collections::HashMap;

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Html,
};
use indexmap::IndexMap;
use nostr::{Event, JsonUtil};
use workflow::plan::{Annotation, Conclusion};

use super::{
    Refusal, Web,
    auth::Caller,
    byte_size::byte_size,
    dto::{ApprovalView, ArtifactView, AttemptView, CacheView, JobView, RunView, StepView},
    failure::{self, Failure},
    graph::Graph,
    html::{HtmlError, rendered, repository_name},
    links, markdown, people, run_detail, run_lookup,
    time::{self, span},
    timing::Times,
};
use domain::id::{BlobHash, JobKey, RunId};
use domain::run::{self, DefinitionOverride, Millis, OriginEvent};
use store::{Pending, Status};

/// Bytes of Markdown that one page renders.
const SUMMARIES: usize = 4 * markdown::RENDERED;
/// Annotations that are shown at once; the others are folded.
const ANNOTATIONS: usize = 10;
/// Waits that are told (ms).
const NOTICED: Millis = 2_000;

#[derive(Template)]
#[template(path = "run.html")]
struct Run<'a> {
    pool: &'a str,
    now: Millis,
    run: RunView,
    version: u64,
    /// As in a list.
    status: &'static str,
    /// URL of its whole log.
    text: String,
    message: Option<String>,
    /// Names of approvers and of authors of definitions, as far as they are known.
    names: HashMap<String, String>,
    failures: Vec<Failure>,
    /// How many further jobs failed.
    more_failures: usize,
    annotations: Annotations,
    graph: Graph,
    times: Times,
    /// Names of jobs, with their summaries as HTML.
    summaries: Vec<(String, String)>,
    chain: Vec<ChainLink>,
}

/// An event of a run's chain.
struct ChainLink {
    kind: u16,
    what: &'static str,
    id: String,
    /// As text, and as a CSS class.
    signature: &'static str,
    class: &'static str,
    relays: String,
}

/// What the jobs of a run remarked, the worst first, with the names of the jobs.
struct Annotations {
    shown: Vec<Remark>,
    folded: Vec<Remark>,
    /// Errors, warnings and notices.
    counts: [usize; 3],
}

/// An annotation, once for all jobs that have it.
struct Remark {
    annotation: Annotation,
    /// Names of the jobs, with where one looks at them.
    jobs: Vec<(String, String)>,
}

impl Annotations {
    fn of(run: &RunView) -> Self {
        let level = |annotation: &Annotation| match annotation.level.as_str() {
            "error" => 0,
            "warning" => 1,
            _ => 2,
        };
        let mut counts = [0; 3];
        let mut all: IndexMap<&Annotation, Vec<(String, String)>> = IndexMap::new();
        for (index, job) in run.jobs.iter().enumerate() {
            for annotation in &job.annotations {
                if let Some(count) = counts.get_mut(level(annotation)) {
                    *count += 1;
                }
                let jobs = all.entry(annotation).or_default();
                let place = (job.name.clone(), run.job_link(job, &index));
                if !jobs.contains(&place) {
                    jobs.push(place);
                }
            }
        }
        let remark = |(annotation, jobs): (&Annotation, _)| Remark { annotation: annotation.clone(), jobs };
        let mut all: Vec<Remark> = all.into_iter().map(remark).collect();
        all.sort_by_key(|remark| level(&remark.annotation));
        let folded = all.split_off(all.len().min(ANNOTATIONS));
        Self { shown: all, folded, counts }
    }

    /// How many there are of each level.
    fn counted(&self) -> Vec<(&'static str, String)> {
        let of = |(count, (level, one, many)): (usize, (&'static str, &str, &str))| {
            (count > 0).then(|| (level, format!("{count} {}", if count == 1 { one } else { many })))
        };
        let names = [("error", "error", "errors"), ("warning", "warning", "warnings"), ("notice", "notice", "notices")];
        self.counts.into_iter().zip(names).filter_map(of).collect()
    }
}

pub(super) async fn run(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Html<String>, HtmlError> {
    let _turn = web.limits.runs.acquire().await.map_err(Refusal::from)?;
    let state = run_lookup::find(&web, &caller, &id).await?;
    let outbox = web.store.outbox_of(&state.id).await.map_err(Refusal::from)?;
    let chain = asked(&state).into_iter().chain(outbox.into_iter().map(ChainLink::from)).collect();
    let now = (web.settings.now)();
    let (graph, times) = (Graph::of(&state, now), Times::of(&state, now));
    let status = Status::of(&state).as_str();
    let (version, message) = (state.version, state.message.clone());
    let text = links::full_log(&web, caller.key.as_deref(), &state);
    let run = run_detail::run(&web, &caller, state).await?;
    let summaries = summaries(&web, &run).await?;
    let (failures, more_failures) = failure::failures(&web, &run).await?;
    let annotations = Annotations::of(&run);
    let approvals = run.jobs.iter().filter_map(|job| job.approval.as_ref()).chain(&run.approval);
    let approvers = approvals.flat_map(|approval| approval.approvers.iter().chain(&approval.by));
    let people: Vec<&str> = approvers.chain(run.supplied.iter().map(|file| &file.author)).map(String::as_str).collect();
    let names = web.control.names(&people);
    rendered(&Run {
        pool: &web.settings.name,
        now,
        run,
        version,
        status,
        text,
        message,
        names,
        failures,
        more_failures,
        annotations,
        graph,
        times,
        summaries,
        chain,
    })
}

/// The summaries of a run's jobs as HTML, as much of them as a page shows.
async fn summaries(web: &Web, run: &RunView) -> Result<Vec<(String, String)>, Refusal> {
    let mut room = SUMMARIES;
    let given = run.jobs.iter().filter(|job| !job.summary.is_empty()).map(|job| {
        let most = job.summary.len().min(room);
        room -= most;
        (job.name.clone(), job.summary.clone(), most)
    });
    let given: Vec<(String, String, usize)> = given.collect();
    if given.is_empty() {
        return Ok(Vec::new());
    }
    let permit = web.limits.summaries.clone().acquire_owned().await?;
    let rendering = tokio::task::spawn_blocking(move || {
        let rendered = given.into_iter().map(|(job, text, most)| (job, markdown::render(&text, most)));
        (rendered.collect(), permit)
    });
    Ok(rendering.await?.0)
}

/// The events that asked for a run: they were checked when they came, or there would be no run.
fn asked(state: &run::RunState) -> Vec<ChainLink> {
    let origin = state.request.origin.nostr();
    let events = origin.into_iter().flat_map(|origin| origin.run.iter().chain([&origin.request]));
    let link = |event: &OriginEvent| ChainLink {
        kind: event.kind,
        what: describe(event.kind),
        id: event.id.clone(),
        signature: "verified on receipt",
        class: "success",
        relays: String::new(),
    };
    events.map(link).collect()
}

/// What an event of this kind is, for people.
fn describe(kind: u16) -> &'static str {
    match kind {
        5100 => "job",
        5101 => "job result",
        5401 => "workflow run",
        5402 => "workflow result",
        30100 => "job status",
        _ => "",
    }
}

impl From<Pending> for ChainLink {
    /// The signature is checked here and now, over the bytes that went out.
    fn from(Pending { outgoing, answers }: Pending) -> Self {
        let mut event: serde_json::Value = serde_json::from_str(&outgoing.unsigned).unwrap_or_default();
        let kind = event.get("kind").and_then(serde_json::Value::as_u64);
        let kind = kind.and_then(|kind| u16::try_from(kind).ok()).unwrap_or_default();
        let (signature, class) = match &outgoing.signature {
            None => ("not signed yet", "queued"),
            Some(signature) => {
                if let Some(fields) = event.as_object_mut() {
                    fields.insert("sig".to_owned(), signature.as_str().into());
                }
                let valid = Event::from_json(event.to_string()).is_ok_and(|event| event.verify().is_ok());
                if valid { ("valid", "success") } else { ("does not fit", "failure") }
            }
        };
        let taken: Vec<_> =
            answers.into_iter().filter(|(_, answer)| answer.is_empty()).map(|(relay, _)| relay).collect();
        Self { kind, what: describe(kind), id: outgoing.event, signature, class, relays: taken.join(", ") }
    }
}

impl Run<'_> {
    /// Where one looks at the job that a box of the graph stands for.
    fn box_link(&self, one: &super::graph::Box) -> String {
        match self.run.jobs.get(one.index) {
            Some(job) => self.run.job_link(job, &one.index),
            None => String::new(),
        }
    }

    /// A key for people.
    fn name_of(&self, key: &str) -> String {
        self.names.get(key).cloned().unwrap_or_else(|| people::short_npub(key))
    }
}

impl RunView {
    /// What people call it by, beside its workflow.
    pub(super) fn subject(&self) -> &str {
        self.title.as_deref().or(self.commit_message.as_deref()).unwrap_or_default()
    }

    pub(super) fn repository_name(&self) -> String {
        repository_name(&self.repository)
    }

    /// The list of the runs of its workflow.
    fn workflow_link(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("repository", &self.repository).append_pair("workflow", &self.workflow);
        format!("/?{}", query.finish())
    }

    fn short_commit(&self) -> String {
        self.commit.chars().take(8).collect()
    }

    /// The beginning of an event's id.
    fn short<'a>(&self, event: &'a str) -> &'a str {
        event.get(..8).unwrap_or(event)
    }

    /// A job's name by its key.
    fn job_name<'a>(&'a self, key: &'a JobKey) -> &'a str {
        self.jobs.iter().find(|job| job.key == *key).map_or(key.as_str(), |job| &job.name)
    }

    fn short_reference(&self) -> &str {
        workflow::git_ref::short_name(&self.reference)
    }

    /// Jobs that wait for somebody's approval.
    fn asked(&self) -> impl Iterator<Item = (&JobView, &ApprovalView)> {
        let waits = |job: &'_ JobView| job.approval.as_ref().is_some_and(|approval| approval.waits);
        self.jobs.iter().filter(move |job| waits(job)).filter_map(|job| Some((job, job.approval.as_ref()?)))
    }

    /// The approval that the run itself waits for.
    fn held(&self) -> Option<&ApprovalView> {
        self.approval.as_ref().filter(|approval| approval.waits)
    }

    fn moment(&self, at: &Millis) -> String {
        time::moment(at)
    }

    /// The runs of a branch, a person or an event.
    fn runs_by(&self, field: &str, value: &str) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("repository", &self.repository).append_pair(field, value);
        format!("/?{}", query.finish())
    }

    /// The values of its inputs, as text.
    fn input_values(&self) -> Vec<(&str, String)> {
        let given = self.inputs.iter().flatten();
        let text = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        given.map(|(name, value)| (name.as_str(), text(value))).collect()
    }

    /// The name of a worker for people; its id where it is not known any more.
    pub(super) fn worker_name<'a>(&'a self, id: &'a str) -> &'a str {
        self.worker_names.get(id).map_or(id, String::as_str)
    }

    /// From the beginning of its first job to the end, as in the lists.
    fn took(&self) -> Option<String> {
        Some(span(self.ended_at?.saturating_sub(self.started_at?)))
    }

    /// How long it waited before its first job began; none where that is hardly to be noticed.
    fn queued(&self) -> Option<String> {
        let waited = self.started_at?.saturating_sub(self.created_at);
        (waited >= NOTICED).then(|| span(waited))
    }

    fn sha256(&self) -> &str {
        self.log_sha256.as_ref().map(BlobHash::as_str).unwrap_or_default()
    }

    pub(super) fn repository_link(&self) -> String {
        super::repositories::page(&self.repository)
    }

    /// The page of the definition that a file came from.
    fn definition_link(&self, file: &DefinitionOverride) -> String {
        super::repositories::edit_page(&self.repository, &file.path, Some(&file.event))
    }

    /// Where one looks at a job: its log, or where it has none, its place on the run's page.
    pub(super) fn job_link(&self, job: &JobView, index: &usize) -> String {
        match job.attempt > 0 && job.carried_from.is_none() {
            true => self.log_link(job, &job.attempt, None),
            false => format!("/runs/{}#job-{index}", self.id),
        }
    }

    /// The page of a job's log, at a step.
    fn step_link(&self, job: &JobView, step: &str) -> String {
        self.log_page(job, job.attempt, Some(("step", step)))
    }

    /// The page of a job's log, at a line where one is named.
    pub(super) fn log_link(&self, job: &JobView, attempt: &u32, line: Option<u64>) -> String {
        let line = line.map(|line| line.to_string());
        self.log_page(job, *attempt, line.as_deref().map(|line| ("line", line)))
    }

    fn log_page(&self, job: &JobView, attempt: u32, place: Option<(&str, &str)>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("job", job.key.as_str()).append_pair("attempt", &attempt.to_string());
        if let Some((name, value)) = place {
            query.append_pair(name, value);
        }
        format!("/runs/{}/log?{}", self.id, query.finish())
    }
}

impl JobView {
    /// Its status.
    pub(super) fn word(&self) -> &'static str {
        match self.conclusion {
            Some(Conclusion::Failure) if self.tolerated => "warning",
            conclusion => conclusion.map_or(self.phase, Conclusion::as_str),
        }
    }

    /// Whether the run fails because of it.
    pub(super) fn fails_the_run(&self) -> bool {
        self.conclusion == Some(Conclusion::Failure) && !self.tolerated
    }

    /// The address that it deployed to, where a browser may follow it.
    fn deployed(&self) -> Option<(&str, &str)> {
        let environment = self.environment.as_ref()?;
        let url = environment.url.as_deref().filter(|url| url.starts_with("https://") || url.starts_with("http://"))?;
        Some((&environment.name, url))
    }

    /// How long it ran, or runs.
    pub(super) fn took(&self, now: &Millis) -> Option<String> {
        self.length(*now).map(span)
    }

    /// Whether its details are open from the start.
    fn is_open(&self) -> bool {
        self.fails_the_run() || self.approval.as_ref().is_some_and(|approval| approval.waits)
    }

    /// Attempts that ended without a result.
    fn lost(&self) -> impl Iterator<Item = (&AttemptView, &str)> {
        self.attempts.iter().filter_map(|attempt| Some((attempt, attempt.lost.as_deref()?)))
    }
}

impl StepView {
    /// How it is drawn: one whose failure did not count is a warning.
    fn word(&self) -> &'static str {
        match self.outcome {
            Conclusion::Failure if self.conclusion != Conclusion::Failure => "warning",
            _ => self.conclusion.as_str(),
        }
    }
}

impl ArtifactView {
    /// Its page.
    fn page(&self, run: &RunId) -> String {
        format!("/runs/{run}/artifacts/{}", self.id)
    }

    pub(super) fn size(&self) -> String {
        byte_size(self.size)
    }

    pub(super) fn short_hash(&self) -> String {
        self.sha256.as_str().chars().take(8).collect()
    }

    pub(super) fn until(&self) -> String {
        time::moment(&self.expires_at)
    }
}

impl CacheView {
    fn size(&self) -> String {
        if self.size == 0 { String::new() } else { byte_size(self.size) }
    }

    /// CSS class of the outcome.
    fn class(&self) -> &'static str {
        if self.outcome == "miss" { "skipped" } else { "success" }
    }
}

impl ApprovalView {
    /// What was decided, by whom and when.
    fn describe(&self, names: &HashMap<String, String>) -> Option<String> {
        let (verdict, by, at) = (self.verdict?, self.by.as_ref()?, self.at?);
        let comment = self.comment.as_ref().filter(|text| !text.is_empty());
        let comment = comment.map(|text| format!(": {text}")).unwrap_or_default();
        let by = names.get(by).cloned().unwrap_or_else(|| people::short_npub(by));
        Some(format!("{verdict} by {by} at {} UTC{comment}", time::moment(&at)))
    }
}
