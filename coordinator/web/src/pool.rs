//! The pool: its workers, and the queue with the reason why each entry waits.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::{
    Json,
    extract::{Path, State},
    http::StatusCode,
};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Refusal, Web, WorkerConnection,
    auth::{Action, Caller},
    dto,
};
use domain::id::{JobKey, RunId};
use domain::run::{JobPhase, Millis, RunPhase, Visibility};
use store::{Filter, Page, Reader, Status, Store, StoreError};

/// Most entries of the queue in an answer.
const SHOWN: usize = 200;
/// Most unfinished runs whose jobs are looked at for it, the newest first.
const RUNS: u32 = 300;
/// How long one reading of the queue serves all callers.
const FRESH: Duration = Duration::from_secs(1);

/// An enrolled worker.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkerView {
    pub(super) id: String,
    pub(super) name: String,
    pub(super) labels: Vec<String>,
    /// Jobs it takes at a time.
    pub(super) slots: u32,
    /// Jobs it has now.
    pub(super) busy: usize,
    /// Version of its program, while it is connected.
    pub(super) version: Option<String>,
    /// CPU architecture of its machine, while it is connected.
    pub(super) architecture: Option<String>,
    /// What its jobs run in, `docker` or `host`, while it is connected.
    pub(super) sandbox: Option<String>,
    pub(super) connected: bool,
    pub(super) draining: bool,
    pub(super) seen_at: Millis,
    /// The jobs that it has now, as far as the caller may see them; those of the newest runs.
    pub(super) jobs: Vec<RunningJob>,
}

/// A job that a worker has.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct RunningJob {
    /// Id of the run.
    #[schema(value_type = String)]
    pub(super) run: RunId,
    /// Counts the runs of its workflow.
    pub(super) number: u64,
    pub(super) workflow: String,
    /// Key of the job.
    #[schema(value_type = String)]
    key: JobKey,
    /// Its name.
    pub(super) job: String,
    attempt: u32,
    /// When the worker took it.
    pub(super) since: Millis,
}

/// The queue.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct QueueView {
    /// The longest wait first.
    pub(super) entries: Vec<Waiting>,
    /// How many further entries there are: those of private runs, and those beyond the limit.
    pub(super) others: usize,
}

/// A job or a run that waits.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(super) struct Waiting {
    /// Id of the run.
    #[schema(value_type = String)]
    pub(super) run: RunId,
    pub(super) serial: u64,
    /// Counts the runs of its workflow.
    pub(super) number: u64,
    pub(super) repository: String,
    pub(super) workflow: String,
    /// Name of the job; none where the whole run waits.
    pub(super) job: Option<String>,
    pub(super) labels: Vec<String>,
    pub(super) since: Millis,
    /// Why, for people.
    pub(super) reason: String,
}

/// Every enrolled worker, connected or not.
pub(super) async fn all(web: &Web) -> Result<Vec<WorkerView>, Refusal> {
    let mut connections: HashMap<String, WorkerConnection> =
        web.control.workers().into_iter().map(|connection| (connection.worker.clone(), connection)).collect();
    let workers = web.store.workers().await?.into_iter().map(|row| {
        let connection = connections.remove(&row.id);
        WorkerView {
            busy: connection.as_ref().map_or(0, |connection| connection.busy),
            connected: connection.is_some(),
            draining: row.draining || connection.as_ref().is_some_and(|connection| connection.draining),
            architecture: connection.as_ref().map(|connection| connection.architecture.clone()),
            sandbox: connection.as_ref().map(|connection| connection.sandbox.clone()),
            version: connection.map(|connection| connection.version),
            id: row.id,
            name: row.name,
            labels: row.labels,
            slots: row.slots,
            seen_at: row.seen_at,
            jobs: Vec::new(),
        }
    });
    Ok(workers.collect())
}

/// The same, each with its jobs as far as this caller may see them.
pub(super) async fn with_jobs(web: &Web, caller: &Caller) -> Result<Vec<WorkerView>, Refusal> {
    let mut workers = all(web).await?;
    let snapshot = web.queue.read(&web.store).await?;
    for (visibility, worker, job) in &snapshot.running {
        let known = workers.iter_mut().find(|known| known.id == *worker && known.jobs.len() < SHOWN);
        if let Some(known) = known.filter(|_| caller.reader.may_read(visibility)) {
            known.jobs.push(job.clone());
        }
    }
    Ok(workers)
}

/// The queue at one moment. Reading it reads the states of many runs, so one reading serves all callers for a while.
pub(super) struct QueueSnapshot {
    /// The longest wait first.
    entries: Vec<(Visibility, Waiting)>,
    /// Further jobs that wait.
    others: usize,
    /// What workers have, with their ids.
    running: Vec<(Visibility, String, RunningJob)>,
}

/// Readings of the queue. Clones share them, and requests at the same time share one.
#[derive(Clone)]
pub(super) struct QueueCache(moka::future::Cache<(), Arc<QueueSnapshot>>);

impl QueueCache {
    pub(super) fn new() -> Self {
        Self(moka::future::Cache::builder().max_capacity(1).time_to_live(FRESH).build())
    }

    async fn read(&self, store: &Store) -> Result<Arc<QueueSnapshot>, Refusal> {
        let read = async { Ok::<_, StoreError>(Arc::new(QueueSnapshot::read(store).await?)) };
        Ok(self.0.try_get_with((), read).await?)
    }
}

impl QueueSnapshot {
    async fn read(store: &Store) -> Result<Self, StoreError> {
        let mut others = store.queued().await?.len();
        let filter = Filter { unfinished: true, reader: Reader::Operator, ..Filter::default() };
        let (mut entries, mut running) = (Vec::new(), Vec::new());
        for run in store.list(&filter, Page { before: None, limit: RUNS }).await? {
            if !matches!(run.status, Status::Planning | Status::Waiting | Status::Queued | Status::Running) {
                continue;
            }
            // It may have ended meanwhile.
            let Some(state) = store.run(&run.id).await? else { continue };
            let waiting = |job, labels, since, reason| Waiting {
                run: run.id.clone(),
                serial: run.serial,
                number: run.number,
                repository: run.repository.clone(),
                workflow: run.name.clone(),
                job,
                labels,
                since,
                reason,
            };
            if let (RunPhase::Planning | RunPhase::Waiting { .. }, Some(wait)) = (&state.phase, &run.wait) {
                let entry = waiting(None, Vec::new(), run.created_at, dto::wait(wait));
                entries.push((state.visibility.clone(), entry));
            }
            let reasons = store.wait_reasons(&run.id).await?;
            for (key, job) in &state.jobs {
                let (since, reason) = match &job.phase {
                    JobPhase::Queued { since } => {
                        others = others.saturating_sub(1);
                        let reason = reasons.get(key).filter(|reason| !reason.is_empty()).cloned();
                        (*since, reason.unwrap_or_else(|| "it was queued just now".to_owned()))
                    }
                    JobPhase::Waiting { since, on } => (*since, dto::wait(on)),
                    JobPhase::Running { .. } | JobPhase::Cancelling { .. } => {
                        if let Some(attempt) = job.attempts.last() {
                            let entry = RunningJob {
                                run: run.id.clone(),
                                number: run.number,
                                workflow: run.name.clone(),
                                key: key.clone(),
                                job: job.name.clone(),
                                attempt: attempt.number,
                                since: attempt.accepted_at,
                            };
                            running.push((state.visibility.clone(), attempt.worker.clone(), entry));
                        }
                        continue;
                    }
                    _ => continue,
                };
                let entry = waiting(Some(job.name.clone()), job.labels.clone(), since, reason);
                entries.push((state.visibility.clone(), entry));
            }
        }
        entries.sort_by_key(|(_, entry)| (entry.since, entry.serial));
        Ok(Self { entries, others, running })
    }
}

impl RunningJob {
    /// The page of its log.
    pub(super) fn link(&self) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("job", self.key.as_str()).append_pair("attempt", &self.attempt.to_string());
        format!("/runs/{}/log?{}", self.run, query.finish())
    }
}

/// The queue, as far as this caller may see it.
pub(super) async fn waiting(web: &Web, caller: &Caller) -> Result<QueueView, Refusal> {
    let snapshot = web.queue.read(&web.store).await?;
    let open = snapshot.entries.iter().filter(|(visibility, _)| caller.reader.may_read(visibility));
    let entries: Vec<Waiting> = open.take(SHOWN).map(|(_, entry)| entry.clone()).collect();
    let others = snapshot.others + (snapshot.entries.len() - entries.len());
    Ok(QueueView { entries, others })
}

/// Workers: labels, slots, load and version.
#[utoipa::path(get, path = "/api/workers", tag = "pool", responses((status = 200, body = [WorkerView])))]
pub(super) async fn workers(State(web): State<Web>, caller: Caller) -> Result<Json<Vec<WorkerView>>, Refusal> {
    Ok(Json(with_jobs(&web, &caller).await?))
}

/// The queue: what waits, and why.
#[utoipa::path(get, path = "/api/queue", tag = "pool", responses((status = 200, body = QueueView)))]
pub(super) async fn queue(State(web): State<Web>, caller: Caller) -> Result<Json<QueueView>, Refusal> {
    Ok(Json(waiting(&web, &caller).await?))
}

/// Drains a worker: it takes no new jobs. For the operator.
#[utoipa::path(post, path = "/api/workers/{id}/drain", tag = "pool", params(("id" = String, Path)), responses(
    (status = 202, description = "It drains"), (status = 401, body = super::Problem),
    (status = 403, body = super::Problem), (status = 404, body = super::Problem),
))]
pub(super) async fn drain(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    caller.signed()?;
    if caller.reader != Reader::Operator {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "only the operator may drain a worker"));
    }
    if web.store.worker(&id).await?.is_none() {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "no such worker: `longshore workers` lists them"));
    }
    caller.spend(&web, Action::Decides)?;
    web.control.drain(&id).await?;
    Ok(StatusCode::ACCEPTED)
}

/// A token with which one new worker can join within the hour. For the operator.
#[utoipa::path(post, path = "/api/workers/token", tag = "pool", responses(
    (status = 200, body = String, content_type = "text/plain"),
    (status = 401, body = super::Problem), (status = 403, body = super::Problem),
))]
pub(super) async fn enrolment_token(State(web): State<Web>, caller: Caller) -> Result<String, Refusal> {
    caller.signed()?;
    if caller.reader != Reader::Operator {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "only the operator may let workers in"));
    }
    caller.spend(&web, Action::Decides)?;
    Ok(web.control.enrolment_token())
}
