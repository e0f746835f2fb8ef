//! A run's log and state as they change, over server-sent events.
//!
//! `run`: the run, whenever it changed. `log`: lines of one attempt, with an id to resume from. `end`: nothing more
//! follows. With `?format=changes` a `log` says only that there is more, for clients that read lines by number. Nothing is
//! buffered for a slow reader: lines are read from the files when it takes them.

use std::{collections::VecDeque, convert::Infallible, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, State},
    http::{HeaderMap, header},
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, stream};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::{
    self,
    error::{RecvError, TryRecvError},
};
use utoipa::IntoParams;

use super::{
    QueryParams, Refusal, Web,
    auth::Caller,
    dto::RunView,
    job_details::{self, JobDetails},
    log_lines,
    request_limits::{self, Client},
    run_lookup,
};
use domain::id::{JobKey, RunId};
use domain::run::RunPhase;
use logs::{Piece, Positions, Tail, record};
use store::Summary;

/// Longest silence of a stream: a page that hears nothing for 2.5 times as long says that it is stale
/// (`assets/stream.js`).
pub(super) const ALIVE: Duration = Duration::from_secs(1);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Events,
    Changes,
    Text,
}

/// The form of the answer.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// `events` (server-sent, with all lines), `changes` (server-sent, without them) or `text` (what is there now).
    #[serde(default)]
    #[param(value_type = Option<String>)]
    format: Format,
    /// Of a text: of this job alone.
    #[param(value_type = Option<String>)]
    job: Option<JobKey>,
    /// The attempt of that job; otherwise its last one.
    attempt: Option<u32>,
}

/// A log has grown.
#[derive(Debug, Serialize)]
struct More<'a> {
    job: &'a JobKey,
    attempt: u32,
}

#[derive(Debug, Serialize)]
struct Lines<'a> {
    job: &'a JobKey,
    attempt: u32,
    lines: Vec<record::Line<'a>>,
}

/// The log: followed to its end, or with `?format=text` everything that is there now.
#[utoipa::path(get, path = "/api/runs/{id}/logs", tag = "logs", params(("id" = String, Path), LogQuery), responses(
    (status = 200, description = "Events `run` (a RunView), `log` and `end`; resumes from `Last-Event-ID`", content(
        (String = "text/event-stream"), (String = "text/plain"),
    )),
    (status = 400, body = super::Problem), (status = 404, body = super::Problem), (status = 429, body = super::Problem),
    (status = 503, body = super::Problem),
))]
pub(super) async fn logs(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    Path(id): Path<String>,
    QueryParams(wanted): QueryParams<LogQuery>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // Subscribed before the run is read: no change in between is missed.
    let changes = web.feed.follow().await?;
    let run = run_lookup::find(&web, &caller, &id).await?;
    let permit = request_limits::permit(&web.limits.streams, client, "streams")?;
    if let Format::Text = wanted.format {
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        let of = match wanted.job {
            Some(job) => Some((log_lines::attempt(&run, &job, wanted.attempt)?.0, job)),
            None => None,
        };
        let of = of.map(|(attempt, job)| (job, attempt));
        let text = request_limits::while_permitted(web.logs.full_text(&run.id, of), permit);
        return Ok((plain, Body::from_stream(text)).into_response());
    }
    let lines = matches!(wanted.format, Format::Events);
    let from = match headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        Some(last) => Positions::parse(last),
        None if lines => Positions::default(),
        None => Positions::behind(web.logs.attempts(&run.id).await?),
    };
    let tail = web.logs.tail(&run.id, from);
    let follow = LogFollower {
        web,
        run: run.id,
        stale: true,
        phase: Following::Open,
        lines,
        tail,
        changes,
        ready: VecDeque::new(),
    };
    let events = request_limits::while_permitted(follow.events(), permit);
    let sse = Sse::new(events).keep_alive(KeepAlive::new().interval(ALIVE));
    // A buffering proxy would delay the lines.
    Ok(([("x-accel-buffering", "no")], sse).into_response())
}

struct LogFollower {
    web: Web,
    run: RunId,
    /// The run may have changed since it was read.
    stale: bool,
    phase: Following,
    /// Whether lines are sent, not only that there are more.
    lines: bool,
    tail: Tail,
    changes: broadcast::Receiver<Arc<[Summary]>>,
    ready: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Following {
    /// The run goes on.
    Open,
    /// The run ended: the files are complete.
    Draining,
    /// Everything was sent.
    Ended,
}

impl LogFollower {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut follow| {
            let event = follow.next().await.unwrap_or_else(|error| {
                tracing::error!("a live log broke off: {error:#}");
                follow.phase = Following::Ended;
                Some(Event::default().event("failed").data("the log can't be read; the server's log says why"))
            });
            event.map(|event| (Ok(event), follow))
        })
    }

    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Ok(Some(event));
            }
            if self.phase == Following::Ended {
                return Ok(None);
            }
            self.reload().await?;
            if let Some(piece) = self.tail.read().await? {
                let event = self.log(&piece)?;
                self.ready.push_back(event);
            } else if self.phase == Following::Draining {
                self.phase = Following::Ended;
                self.ready.push_back(Event::default().event("end").data("{}"));
            } else if self.ready.is_empty() {
                self.wait().await;
            }
        }
    }

    async fn wait(&mut self) {
        loop {
            tokio::select! {
                () = self.tail.wait() => return,
                changed = self.changes.recv() => match changed {
                    Ok(changed) if changed.iter().all(|run| run.id != self.run) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => {
                        self.stale = true;
                        return;
                    }
                    Err(RecvError::Closed) => {
                        self.phase = Following::Draining;
                        return;
                    }
                },
            }
        }
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        self.collect_changes();
        if self.phase != Following::Open || !std::mem::take(&mut self.stale) {
            return Ok(());
        }
        let Some(state) = self.web.store.run(&self.run).await? else {
            self.phase = Following::Draining;
            return Ok(());
        };
        if matches!(state.phase, RunPhase::Done { .. }) {
            self.phase = Following::Draining;
        }
        let details = JobDetails::read(&self.web.store, &state, job_details::FOLLOWED).await?;
        self.ready.push_back(Event::default().event("run").json_data(RunView::new(state, details))?);
        Ok(())
    }

    /// Takes changes that came while lines were sent: a log that never pauses must not hide that the run changed.
    fn collect_changes(&mut self) {
        loop {
            match self.changes.try_recv() {
                Ok(changed) => self.stale |= changed.iter().any(|run| run.id == self.run),
                Err(TryRecvError::Lagged(_)) => self.stale = true,
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn log(&self, piece: &Piece) -> anyhow::Result<Event> {
        let event = Event::default().event("log").id(self.tail.positions().to_string());
        if !self.lines {
            return Ok(event.json_data(More { job: &piece.job, attempt: piece.attempt })?);
        }
        let decoded = record::decode(&piece.bytes);
        let lines = decoded.records.iter().map(record::Line::from).collect();
        let data = Lines { job: &piece.job, attempt: piece.attempt, lines };
        Ok(event.json_data(data)?)
    }
}
