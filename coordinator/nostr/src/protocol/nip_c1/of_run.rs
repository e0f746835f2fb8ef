//! A run of ours becomes what is said of it: what it is of, when there is something new, and what was said before.

use std::{collections::HashMap, sync::Arc};

use nostr::{EventId, JsonUtil, PublicKey, Tag, UnsignedEvent};
use workflow::plan::JobReport;

use domain::{
    id::JobKey,
    run::{Job, JobPhase, RequestOrigin, RunPhase, RunState, TriggeringPullRequest, Visibility},
};

use super::{
    JOB_RESULT, NAME, PROGRESS, WORKFLOW_RESULT,
    report::{EndWord, JobEnd, Provenance, RunReport},
    run_subject::{PullRequestContext, RepositoryAddress, RunContext, RunSubject, StartedBy, WorkflowFile},
};

/// Whether anything is said of a run, now that its plan is known or not: readers trust what the coordinator signs, so it
/// speaks only of runs that act with the word of the maintainers, and of files as they are at the commit. And of pull requests,
/// whoever wants something merged: that is what they are told of as, and a maintainer approved what runs of them.
pub fn is_reported(state: &RunState) -> bool {
    let is_open = state.rules.reports_jobs && !state.answered && state.visibility == Visibility::Public;
    let by_request = state.request.pull_request.as_ref().is_some_and(|of| !of.runs_base);
    let of = |planned: &domain::run::Planned| {
        (planned.is_trusted() || by_request) && planned.definitions.is_empty() && planned.workflow_sha256.is_some()
    };
    is_open && state.planned.as_deref().is_some_and(of)
}

/// Whether a version of a run has something to say that the one before had not.
pub fn reports_change(before: Option<&RunState>, after: &RunState) -> bool {
    if !is_reported(after) {
        return false;
    }
    let Some(before) = before.filter(|before| before.planned.is_some()) else { return true };
    let ends = |state: &RunState| matches!(state.phase, RunPhase::Done { .. });
    ends(before) != ends(after)
        || before.is_held() != after.is_held()
        || before.jobs.len() != after.jobs.len()
        || after.jobs.iter().any(|(key, job)| match before.jobs.get(key) {
            // What did not change is the same in memory.
            Some(known) => !Arc::ptr_eq(known, job) && standing(known) != standing(job),
            None => true,
        })
}

/// As far as readers see it: it waits, runs, or has ended.
fn standing(job: &Job) -> u8 {
    match job.phase {
        JobPhase::Blocked | JobPhase::Held | JobPhase::Waiting { .. } | JobPhase::Queued { .. } => 0,
        JobPhase::Running { .. } | JobPhase::Cancelling { .. } => 1,
        JobPhase::Done { .. } => 2,
    }
}

impl RunReport {
    /// What is said of a run; `None`: nothing. `relay` is one that we publish to; `heard_on` one that has its request.
    pub fn of(state: &RunState, us: PublicKey, relay: &str, heard_on: &str) -> Option<Self> {
        if !is_reported(state) {
            return None;
        }
        let (request, planned) = (&state.request, state.planned.as_ref()?);
        let hint = planned.relays.first().map(String::as_str).unwrap_or_default();
        let selected = RepositoryAddress::parse(&request.repository.address, hint).ok()?;
        let mut others: Vec<PublicKey> =
            planned.maintainers.iter().filter_map(|key| PublicKey::from_hex(key).ok()).collect();
        others.retain(|key| *key != selected.owner);
        others.sort_unstable();
        others.dedup();
        let identifier = selected.identifier.clone();
        let others = others.into_iter().map(|owner| RepositoryAddress {
            owner,
            identifier: identifier.clone(),
            relay: String::new(),
        });
        let tags = request.pinned.iter().flat_map(|pinned| pinned.objects.iter().cloned());
        let by_request = request.pull_request.as_deref();
        // The merge of a pull request is a commit that nobody but this pool has: what its readers know is the head.
        let commit = match by_request.filter(|of| !of.runs_base) {
            Some(of) => of.head.clone(),
            None => planned.commit.to_string(),
        };
        let objects = std::iter::once(commit.clone()).chain(tags.filter(|object| *object != commit)).collect();
        let is_ref = planned.reference.starts_with("refs/");
        // A request may call itself whatever it wants: what a push or a pull request needs must be there.
        let context = match by_request {
            Some(of) => RunContext::PullRequest(pull_request(of)?),
            None if is_ref => RunContext::Ref(planned.reference.clone()),
            None => RunContext::Commit,
        };
        let started_by = match request.trigger.as_deref() {
            _ if by_request.is_some() => StartedBy::PullRequest,
            Some("push") if is_ref => StartedBy::Push,
            Some("schedule") => StartedBy::Schedule,
            _ => StartedBy::Manual,
        };
        let nostr = request.origin.nostr().filter(|origin| origin.protocol == NAME);
        let provenance = nostr.and_then(|origin| {
            Some(Provenance {
                manual: true,
                request: EventId::from_hex(&origin.request.id).ok()?,
                relay: heard_on.to_owned(),
                requester: PublicKey::from_hex(&origin.author).ok()?,
            })
        });
        let path = request.workflow.strip_prefix("./").unwrap_or(&request.workflow);
        Some(Self {
            run: state.id.to_string(),
            us,
            subject: RunSubject {
                repositories: std::iter::once(selected).chain(others).collect(),
                objects,
                workflow: WorkflowFile { path: path.to_owned(), sha256: planned.workflow_sha256.as_ref()?.to_string() },
                context,
            },
            started_by,
            waits: state.waits_for_approval(),
            queued_at: state.created_at / 1000,
            started_at: state.started_at.map(|at| at / 1000),
            provenance,
            relay: relay.to_owned(),
        })
    }
}

/// A pull request in the tags of these events: its root, and the event that named the head.
fn pull_request(of: &TriggeringPullRequest) -> Option<PullRequestContext> {
    let author = PublicKey::from_hex(&of.author).ok();
    let head = EventId::from_hex(&of.head_event.id).ok()?;
    Some(PullRequestContext {
        root: (EventId::from_hex(&of.root).ok()?, author),
        parent: Some((head, of.head_event.kind, author)),
    })
}

impl JobEnd {
    /// The end of a job of a run; `None`: it has none, or was not to be run. What its log and its report have to say is
    /// left to be filled in.
    pub fn of(state: &RunState, key: &JobKey, job: &Job) -> Option<Self> {
        let JobPhase::Done { conclusion, reason, outcome } = &job.phase else { return None };
        let end = EndWord::of(*conclusion, reason.as_ref(), job.tolerated);
        if end == EndWord::Skipped {
            return None;
        }
        let last = job.attempts.last();
        let attempt = outcome.as_ref().map(|outcome| outcome.attempt).or(last.map(|last| last.number));
        let worker = job.attempts.iter().find(|record| Some(record.number) == attempt).map(|record| &record.worker);
        // Nothing is dated by when it is told: what is made twice has to be one event.
        let ended_at = outcome.as_ref().map(|outcome| outcome.finished_at);
        let ended_at = ended_at.or(last.map(|last| last.begun_at.unwrap_or(last.accepted_at))).unwrap_or_default();
        let started_at = outcome.as_ref().map(|outcome| outcome.started_at).or(last.and_then(|last| last.begun_at));
        Some(Self {
            job: key.to_string(),
            name: job.name.clone(),
            end,
            ended_at: ended_at.max(state.created_at) / 1000,
            started_at: started_at.map(|at| at / 1000),
            exit_code: outcome.as_ref().map(|outcome| outcome.exit_code),
            labels: job.labels.clone(),
            attempt: attempt.map(|number| (number, worker.cloned().unwrap_or_default())),
            digest: None,
            logs: String::new(),
            tail: Default::default(),
            outputs: Vec::new(),
            artifacts: Vec::new(),
        })
    }

    /// The same with what a job's report has to say.
    #[must_use]
    pub fn with_report(self, report: JobReport) -> Self {
        Self { digest: report.image, outputs: report.outputs.into_iter().collect(), ..self }
    }
}

/// What was said of a run before.
#[derive(Debug, Default)]
pub struct PublishedReports {
    /// Results of jobs, by job.
    pub jobs: HashMap<String, EventId>,
    /// When its progress was said last (s).
    pub progress_at: Option<u64>,
    /// Whether its result was.
    pub ended: bool,
    /// The service request that it was said to run by: it stays that one, whatever is asked for later.
    pub service_request: Option<Provenance>,
}

impl PublishedReports {
    /// Reads it from the events that were made of the run, as they are stored, in the order of making.
    pub fn read<'a>(events: impl IntoIterator<Item = &'a str>) -> Self {
        let mut published = Self::default();
        for event in events.into_iter().filter_map(|text| UnsignedEvent::from_json(text).ok()) {
            match event.kind.as_u16() {
                JOB_RESULT => {
                    let job = event.tags.iter().map(Tag::as_slice).find(|tag| tag.first().is_some_and(|n| n == "job"));
                    if let (Some(id), Some(job)) = (event.id, job.and_then(|tag| tag.get(1))) {
                        published.jobs.insert(job.clone(), id);
                    }
                }
                PROGRESS => {
                    published.progress_at = published.progress_at.max(Some(event.created_at.as_secs()));
                    let quoted = event.tags.iter().map(Tag::as_slice).find_map(service_request);
                    published.service_request = published.service_request.or(quoted);
                }
                WORKFLOW_RESULT => published.ended = true,
                _ => {}
            }
        }
        published
    }
}

/// The service request that a tag quotes.
fn service_request(tag: &[String]) -> Option<Provenance> {
    match tag {
        [q, request, relay, requester, marker] if q == "q" && marker == "service-request" => Some(Provenance {
            manual: false,
            request: EventId::from_hex(request).ok()?,
            relay: relay.clone(),
            requester: PublicKey::from_hex(requester).ok()?,
        }),
        _ => None,
    }
}

/// Whether a run is one that standing service has started: something happened to the repository, and nobody pressed.
pub fn is_by_service(state: &RunState) -> bool {
    matches!(state.request.origin, RequestOrigin::Trigger(_))
}
