//! Runs as the API and the pages show them, without secrets and internals. Pure.

use std::{collections::HashMap, sync::Arc};

use indexmap::IndexMap;
use serde::Serialize;
use utoipa::ToSchema;
use workflow::dialect::outline::InputOutline;
use workflow::plan::{Annotation, Conclusion, Environment, JobReport, Reason};

use super::{job_details::JobDetails, log_text::straight, people, test_reports::TestReportView, time};
use domain::id::{BlobHash, JobKey, RunId};
use domain::run::{
    self, ApprovalGate, ApprovalVerdict, AttemptRecord, DefinitionOverride, Job, JobPhase, Millis, RequestOrigin,
    ReusedJob, RunEnd, RunPhase, RunState, WaitCondition,
};
use store::{Pending, Status, Summary};

/// A run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunView {
    #[schema(value_type = String)]
    pub(super) id: RunId,
    /// Grows by one with each change.
    pub(super) version: u64,
    pub(super) serial: u64,
    pub(super) number: u64,
    pub(super) attempt: u32,
    /// Id of the run that this one repeats.
    #[schema(value_type = Option<String>)]
    pub(super) previous: Option<RunId>,
    /// That run, where the caller may see it; only where one run was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) previous_run: Option<RunLink>,
    /// Runs that repeat this one, the oldest first; only where one run was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reruns: Option<Vec<RunLink>>,
    /// Its inputs; only where one run was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub(super) inputs: Option<serde_json::Map<String, serde_json::Value>>,
    /// The inputs that its workflow declares; only where one run was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Vec<Object>>)]
    pub(super) declared: Option<Vec<InputOutline>>,
    /// Names of the secrets of the request; a rerun must bring them again.
    pub(super) secret_names: Vec<String>,
    pub(super) repository: String,
    pub(super) workflow: String,
    pub(super) name: String,
    /// `run-name:` of the workflow, evaluated.
    pub(super) title: Option<String>,
    /// First line of the commit's message.
    pub(super) commit_message: Option<String>,
    pub(super) commit: String,
    /// Workflow files that came from definitions (kind 35417), not from the commit.
    #[schema(value_type = Vec<Object>)]
    pub(super) supplied: Vec<DefinitionOverride>,
    pub(super) reference: String,
    pub(super) event: String,
    /// As written in the request.
    pub(super) trigger: Option<String>,
    pub(super) actor: String,
    /// The author for people; a name from a profile only where one run was asked for.
    pub(super) actor_name: String,
    /// Names of the workers of its jobs, by their ids; only where one run was asked for.
    #[serde(skip_serializing_if = "HashMap::is_empty")]
    pub(super) worker_names: HashMap<String, String>,
    pub(super) run_event: Option<String>,
    pub(super) job_event: Option<String>,
    pub(super) publisher: Option<String>,
    /// `planning`, `waiting`, `active`, `sealing`, `done`.
    pub(super) phase: &'static str,
    /// What it waits for, for people.
    pub(super) waits: Option<String>,
    /// The approval that the run itself required, before anything of it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) approval: Option<ApprovalView>,
    #[schema(value_type = Option<String>)]
    pub(super) conclusion: Option<Conclusion>,
    #[schema(value_type = Option<Object>)]
    pub(super) reason: Option<Reason>,
    /// Why it waits, or ended without success, for people.
    pub(super) why: Option<String>,
    pub(super) exit_code: Option<i32>,
    /// When the coordinator received the request.
    pub(super) received_at: Millis,
    pub(super) created_at: Millis,
    pub(super) started_at: Option<Millis>,
    pub(super) ended_at: Option<Millis>,
    pub(super) log_url: Option<String>,
    #[schema(value_type = Option<String>)]
    pub(super) log_sha256: Option<BlobHash>,
    pub(super) full_log_url: Option<String>,
    /// Repositories that called workflows come from: `owner/repo@ref` and the commit it stood for.
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub(super) workflows: IndexMap<String, String>,
    pub(super) jobs: Vec<JobView>,
    /// Artifacts, those of carried-over jobs among them; only where one run was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) artifacts: Option<Vec<ArtifactView>>,
    /// What its tests said, by artifact; only where one run was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tests: Option<Vec<TestReportView>>,
    /// Caches that its jobs restored and saved; only where one run was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) caches: Option<Vec<CacheView>>,
    /// Events that report on it; only where one run was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) events: Option<Vec<EventView>>,
}

/// A run as lists show it.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct RunSummary {
    #[schema(value_type = String)]
    pub(super) id: RunId,
    /// Unique in the pool.
    pub(super) serial: u64,
    /// Counts the runs of one workflow.
    pub(super) number: u64,
    pub(super) attempt: u32,
    #[schema(value_type = Option<String>)]
    pub(super) previous: Option<RunId>,
    pub(super) repository: String,
    pub(super) workflow: String,
    pub(super) name: String,
    /// `run-name:` of the workflow, evaluated, or the first line of the commit's message; empty: neither is known.
    pub(super) title: String,
    /// The job, and its step, that failed it, for people; empty: none did.
    pub(super) failed: String,
    pub(super) commit: String,
    /// Short name of the branch or tag.
    pub(super) branch: String,
    pub(super) event: String,
    pub(super) actor: String,
    /// The author for people.
    pub(super) actor_name: String,
    /// `planning`, `waiting`, `active`, `sealing`, `done`.
    pub(super) phase: &'static str,
    /// `planning`, `waiting`, `queued`, `running`, `sealing`, or its conclusion.
    pub(super) status: &'static str,
    /// What it waits for, for people.
    pub(super) waits: Option<String>,
    pub(super) conclusion: Option<String>,
    pub(super) created_at: Millis,
    pub(super) started_at: Option<Millis>,
    pub(super) ended_at: Option<Millis>,
    /// Number of its latest change in the pool: the id of its server-sent event.
    pub(super) change: u64,
}

/// Another run of the same chain of reruns.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RunLink {
    #[schema(value_type = String)]
    pub(super) id: RunId,
    pub(super) serial: u64,
    pub(super) attempt: u32,
    /// As in a list.
    pub(super) status: &'static str,
}

/// A job's access to a cache.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CacheView {
    /// Key of the job.
    #[schema(value_type = String)]
    pub(super) job: JobKey,
    pub(super) attempt: u32,
    /// `hit`, `miss` or `saved`.
    pub(super) outcome: &'static str,
    /// The first key of the look-up, or the saved key.
    pub(super) key: String,
    /// The key of the entry that was found.
    pub(super) found: Option<String>,
    /// Bytes.
    pub(super) size: u64,
    pub(super) at: Millis,
}

/// An artifact of a run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ArtifactView {
    pub(super) id: u64,
    pub(super) name: String,
    /// Key of the job that made it.
    #[schema(value_type = String)]
    pub(super) job: JobKey,
    pub(super) attempt: u32,
    /// The run whose job made it, if that was an earlier one.
    #[schema(value_type = Option<Object>)]
    pub(super) carried_from: Option<ReusedJob>,
    /// Bytes of its archive.
    pub(super) size: u64,
    #[schema(value_type = String)]
    pub(super) sha256: BlobHash,
    pub(super) made_at: Millis,
    pub(super) expires_at: Millis,
    /// Where its archive is; of a private run for an hour, for this caller.
    pub(super) url: String,
    /// The same as a path.
    #[serde(skip)]
    pub(super) link: String,
}

/// A job of a run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct JobView {
    #[schema(value_type = String)]
    pub(super) key: JobKey,
    pub(super) name: String,
    /// What a rerun calls it: its key where it is a leg of a matrix, otherwise the id of the job of the run's own file
    /// that it belongs to.
    pub(super) rerun: String,
    /// What the legs of one matrix have in common; none where it is the only one.
    pub(super) matrix: Option<String>,
    /// `blocked`, `held`, `waiting`, `queued`, `running`, `cancelling`, `done`.
    pub(super) phase: &'static str,
    pub(super) waits: Option<String>,
    #[schema(value_type = Option<String>)]
    pub(super) conclusion: Option<Conclusion>,
    #[schema(value_type = Option<Object>)]
    pub(super) reason: Option<Reason>,
    /// Why it waits, was skipped, or ended without success, for people.
    pub(super) why: Option<String>,
    pub(super) exit_code: Option<i32>,
    /// Its failure is allowed: for the run it counts as success.
    pub(super) tolerated: bool,
    /// Where it ran, if that was an earlier run.
    #[schema(value_type = Option<Object>)]
    pub(super) carried_from: Option<ReusedJob>,
    pub(super) labels: Vec<String>,
    /// Number of the latest attempt.
    pub(super) attempt: u32,
    pub(super) attempts: Vec<AttemptView>,
    /// When its first step began, in the latest attempt.
    pub(super) started_at: Option<Millis>,
    pub(super) ended_at: Option<Millis>,
    pub(super) worker: Option<String>,
    /// Digest of its image.
    pub(super) image: Option<String>,
    /// Actions of other repositories: `owner/repo@ref` and the commit it stood for.
    #[schema(value_type = std::collections::HashMap<String, String>)]
    pub(super) actions: IndexMap<String, String>,
    /// What it deploys to.
    #[schema(value_type = Option<Object>)]
    pub(super) environment: Option<Environment>,
    /// The approval that its environment requires.
    pub(super) approval: Option<ApprovalView>,
    pub(super) steps: Vec<StepView>,
    #[schema(value_type = Vec<Object>)]
    pub(super) annotations: Vec<Annotation>,
    pub(super) summary: String,
}

/// The approval of a job, or of a run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ApprovalView {
    /// Name of the environment; empty: it is about the run itself.
    pub(super) environment: String,
    /// Keys (64 hex), one of which is enough.
    pub(super) approvers: Vec<String>,
    /// It is waited for now.
    pub(super) waits: bool,
    /// `approved` or `rejected`.
    pub(super) verdict: Option<&'static str>,
    /// Who decided, 64 hex.
    pub(super) by: Option<String>,
    /// The same for people; a name from a profile only where one run was asked for.
    pub(super) by_name: Option<String>,
    pub(super) comment: Option<String>,
    pub(super) at: Option<Millis>,
}

impl ApprovalView {
    fn of(job: &Job) -> Option<Self> {
        let waits = matches!(job.phase, JobPhase::Waiting { on: WaitCondition::Approval { .. }, .. });
        Self::new(job.environment.clone().unwrap_or_default(), job.gate.as_ref()?, waits)
    }

    fn new(environment: String, gate: &ApprovalGate, waits: bool) -> Option<Self> {
        if gate.approvers.is_empty() {
            return None;
        }
        let said = gate.decision.as_ref();
        Some(Self {
            environment,
            approvers: gate.approvers.clone(),
            waits,
            verdict: said.map(|said| match said.verdict {
                ApprovalVerdict::Approved => "approved",
                ApprovalVerdict::Rejected => "rejected",
            }),
            by: said.map(|said| said.by.clone()),
            by_name: said.map(|said| people::short_npub(&said.by)),
            comment: said.map(|said| said.comment.clone()),
            at: said.map(|said| said.at),
        })
    }
}

/// One attempt of a job on a worker.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AttemptView {
    /// From 1.
    pub(super) number: u32,
    /// Id of the worker.
    pub(super) worker: String,
    pub(super) accepted_at: Millis,
    /// When its first step began.
    pub(super) begun_at: Option<Millis>,
    /// Why it ended without a result, for people.
    pub(super) lost: Option<String>,
}

/// A step of a job that ended.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StepView {
    pub(super) name: String,
    #[schema(value_type = String)]
    pub(super) conclusion: Conclusion,
    #[schema(value_type = String)]
    pub(super) outcome: Conclusion,
    pub(super) exit_code: Option<i32>,
    pub(super) duration_ms: u64,
}

/// An event that reports on a run.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventView {
    id: String,
    kind: Option<u64>,
    signed: bool,
    relays: Vec<Answer>,
}

#[derive(Debug, Serialize, ToSchema)]
struct Answer {
    relay: String,
    /// Empty: taken.
    answer: String,
}

/// Stands for the report of a job where all of a run's are too much for one answer.
const LEFT_OUT: &str = "[The steps, annotations and summary of this job are not shown: those of the run are too large \
                        together.]";

impl RunView {
    /// The run with the details of its jobs.
    pub(super) fn new(state: RunState, mut details: JobDetails) -> Self {
        let held_back = state.held_back().map(wait);
        let waits = matches!(state.phase, RunPhase::Waiting { on: WaitCondition::Approval { .. } });
        let approval = state.gate.as_ref().and_then(|gate| ApprovalView::new(String::new(), gate, waits));
        let whys: Vec<_> = state.jobs.keys().map(|key| run::explain_job(&state, key)).collect();
        let request = Arc::unwrap_or_clone(state.request);
        let (run_event, job_event, publisher) = match request.origin {
            RequestOrigin::Nostr(origin) => {
                (origin.run.map(|event| event.id), Some(origin.request.id), origin.publisher)
            }
            RequestOrigin::Trigger(_) | RequestOrigin::Api => (None, None, None),
        };
        let (phase, waits, end, log) = match state.phase {
            RunPhase::Planning => ("planning", state.delayed, None, None),
            RunPhase::Waiting { on } => ("waiting", Some(wait(&on)), None, None),
            RunPhase::Active => ("active", held_back, None, None),
            RunPhase::Finalizing { end } => ("sealing", None, Some(end), None),
            RunPhase::Done { end, log } => ("done", None, Some(end), Some(log)),
        };
        let present = |text: &String| !text.is_empty();
        let RunEnd { conclusion, reason, exit_code, at } = match end {
            Some(end) => end,
            None => RunEnd { conclusion: Conclusion::Skipped, reason: None, exit_code: 0, at: 0 },
        };
        let ended = matches!(phase, "sealing" | "done");
        let planned = state.planned.as_ref();
        let jobs = state.jobs.into_iter().zip(whys).map(|((key, job), why)| {
            let (report, waits) = (details.reports.remove(&key), details.wait_reasons.remove(&key));
            let left_out = details.left_out.contains(&key);
            let view = JobView::new(key, Arc::unwrap_or_clone(job), report, waits).because(why);
            let summary = if left_out { LEFT_OUT.to_owned() } else { view.summary };
            JobView { summary, ..view }
        });
        Self {
            id: state.id,
            version: state.version,
            serial: state.serial,
            number: state.number,
            attempt: state.attempt,
            previous: state.rerun.as_ref().map(|rerun| rerun.previous.clone()),
            previous_run: None,
            reruns: None,
            inputs: None,
            declared: None,
            secret_names: state.secret_names,
            repository: request.repository.address,
            name: planned.map_or_else(|| request.workflow.clone(), |planned| planned.plan.name.clone()),
            supplied: planned.map(|planned| planned.definitions.clone()).unwrap_or_default(),
            title: planned.and_then(|planned| planned.title.clone()),
            commit_message: planned.and_then(|planned| planned.commit_message.clone()),
            commit: planned.map_or(request.commit, |planned| planned.commit.to_string()),
            reference: planned.map_or(request.branch, |planned| planned.reference.clone()),
            event: planned.map(|planned| planned.event.clone()).unwrap_or_default(),
            workflows: planned.map(|planned| planned.origins.clone()).unwrap_or_default(),
            why: waits.clone().or_else(|| reason.as_ref().map(ToString::to_string)),
            workflow: request.workflow,
            trigger: request.trigger,
            actor_name: people::short_npub(&request.actor),
            actor: request.actor,
            worker_names: HashMap::new(),
            run_event,
            job_event,
            publisher,
            phase,
            waits,
            approval,
            conclusion: ended.then_some(conclusion),
            reason,
            exit_code: ended.then_some(exit_code),
            received_at: request.received_at,
            created_at: state.created_at,
            started_at: state.started_at,
            ended_at: ended.then_some(at),
            log_url: log.as_ref().map(|log| log.url.clone()).filter(present),
            log_sha256: log.as_ref().and_then(|log| log.sha256.clone()),
            full_log_url: log.map(|log| log.full_url).filter(present),
            jobs: jobs.collect(),
            artifacts: None,
            tests: None,
            caches: None,
            events: None,
        }
    }
}

impl From<Summary> for RunSummary {
    fn from(run: Summary) -> Self {
        Self {
            id: run.id,
            serial: run.serial,
            number: run.number,
            attempt: run.attempt,
            previous: run.previous,
            repository: run.repository,
            workflow: run.workflow,
            name: run.name,
            title: straight(&run.title),
            failed: straight(&run.failed),
            commit: run.commit,
            branch: run.branch,
            event: run.event,
            actor_name: String::new(),
            actor: run.actor,
            waits: run.wait.as_ref().map(wait).or_else(|| waits(run.status, run.queued)),
            phase: run.phase.into(),
            status: run.status.as_str(),
            conclusion: run.conclusion,
            created_at: run.created_at,
            started_at: run.started_at,
            ended_at: run.ended_at,
            change: run.changed,
        }
    }
}

/// What a run waits for by its status, and by why a job of it is still queued.
fn waits(status: Status, queued: Option<String>) -> Option<String> {
    match status {
        Status::Planning => Some("its files are being fetched and read".into()),
        Status::Queued => Some(queued.unwrap_or_else(|| "waits for a worker".into())),
        Status::Finalizing => Some("its log is being stored".into()),
        _ => None,
    }
}

impl JobView {
    fn new(key: JobKey, job: Job, report: Option<JobReport>, wait_reason: Option<String>) -> Self {
        let approval = ApprovalView::of(&job);
        let outcome = match &job.phase {
            JobPhase::Done { outcome, .. } => outcome.as_ref(),
            _ => None,
        };
        let (ended_at, exit_code) =
            (outcome.map(|outcome| outcome.finished_at), outcome.map(|outcome| outcome.exit_code));
        let (phase, waits, conclusion, reason) = match job.phase {
            JobPhase::Blocked => ("blocked", Some("waits for the jobs it needs".into()), None, None),
            JobPhase::Held => ("held", Some("waits for other jobs of its matrix (max-parallel)".into()), None, None),
            JobPhase::Waiting { on, .. } => ("waiting", Some(wait(&on)), None, None),
            JobPhase::Queued { .. } => ("queued", Some(wait_reason.unwrap_or_default()), None, None),
            JobPhase::Running { .. } => ("running", None, None, None),
            JobPhase::Cancelling { reason, .. } => ("cancelling", None, None, Some(reason)),
            JobPhase::Done { conclusion, reason, .. } => ("done", None, Some(conclusion), reason),
        };
        let last = job.attempts.last();
        let started_at = last.and_then(|attempt| attempt.begun_at);
        let (whole, leg) = (key.as_str(), key.as_str().rsplit_once('/'));
        let matrix = leg.filter(|_| job.cell.total > 1).map(|(matrix, _)| matrix.to_owned());
        let is_own_leg = matrix.is_some() && job.parent_call.is_empty();
        let rerun = if is_own_leg { whole } else { whole.split('/').next().unwrap_or(whole) }.to_owned();
        let mut view = Self {
            key,
            name: job.name,
            rerun,
            matrix,
            phase,
            waits,
            conclusion,
            reason,
            why: None,
            exit_code,
            tolerated: job.tolerated,
            carried_from: job.reused.clone(),
            labels: job.labels,
            attempt: last.map_or(0, |attempt| attempt.number),
            worker: last.map(|attempt| attempt.worker.clone()),
            started_at,
            ended_at,
            attempts: job.attempts.into_iter().map(AttemptView::from).collect(),
            image: None,
            actions: IndexMap::new(),
            environment: job.environment.map(|name| Environment { name, url: None }),
            approval,
            steps: Vec::new(),
            annotations: Vec::new(),
            summary: String::new(),
        };
        if let Some(report) = report {
            let steps = report.steps.into_iter().map(|step| StepView {
                name: step.name,
                conclusion: step.conclusion,
                outcome: step.outcome,
                exit_code: step.exit_code,
                duration_ms: step.duration_ms,
            });
            view.steps = steps.collect();
            view.exit_code = Some(report.exit_code);
            view.image = report.image;
            view.actions = report.actions;
            view.environment = report.environment.or(view.environment);
            view.annotations = report.annotations;
            view.summary = report.summary;
        }
        view
    }
}

impl JobView {
    /// With what follows from the whole run.
    fn because(mut self, why: Option<String>) -> Self {
        if let (Some(waits), Some(why)) = (&mut self.waits, &why) {
            waits.clone_from(why);
        }
        self.why = why.or_else(|| self.waits.clone()).or_else(|| self.reason.as_ref().map(ToString::to_string));
        self
    }
}

impl From<AttemptRecord> for AttemptView {
    fn from(attempt: AttemptRecord) -> Self {
        Self {
            number: attempt.number,
            worker: attempt.worker,
            accepted_at: attempt.accepted_at,
            begun_at: attempt.begun_at,
            lost: attempt.lost.as_ref().map(ToString::to_string),
        }
    }
}

impl From<Pending> for EventView {
    fn from(Pending { outgoing, answers }: Pending) -> Self {
        let unsigned: serde_json::Value = serde_json::from_str(&outgoing.unsigned).unwrap_or_default();
        Self {
            id: outgoing.event,
            kind: unsigned.get("kind").and_then(serde_json::Value::as_u64),
            signed: outgoing.signature.is_some(),
            relays: answers.into_iter().map(|(relay, answer)| Answer { relay, answer }).collect(),
        }
    }
}

/// What a run waits for, as a sentence.
pub(super) fn wait(on: &WaitCondition) -> String {
    match on {
        WaitCondition::Concurrency { group, holder } => run::describe_group_wait(group, *holder),
        WaitCondition::Approval { environment, approvers } => run::describe_approval_wait(environment, approvers),
        WaitCondition::Files { why } => why.clone(),
        WaitCondition::Timer { until } => format!("waits until {}", time::moment(until)),
    }
}
