//! A run's log and state as they change, over server-sent events.
//!
//! `run`: the run, whenever it changed. `log`: lines of one attempt, with an id to resume from. `end`: nothing more
//! comes. With `?format=changes` a `log` tells only that there is more, for those who read lines by their number. A slow reader is not waited for: what it has not taken is read from the files when it asks.

use std::{collections::VecDeque, convert::Infallible};

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
use tokio::sync::broadcast::{self, error::RecvError};
use utoipa::IntoParams;

use super::{Asked, Refusal, Web, api, auth::Caller, view::RunView};
use domain::run::RunPhase;
use logs::{Piece, Positions, Tail, record};
use store::ChangeNotification;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Format {
    #[default]
    Events,
    Changes,
    Text,
}

/// In which form.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Wanted {
    /// `events` (server-sent, with all lines), `changes` (server-sent, without them) or `text` (what is there now).
    #[serde(default)]
    #[param(value_type = Option<String>)]
    format: Format,
}

/// There is more of a log.
#[derive(Debug, Serialize)]
struct More<'a> {
    job: &'a str,
    attempt: u32,
}

#[derive(Debug, Serialize)]
struct Lines<'a> {
    job: &'a str,
    attempt: u32,
    lines: Vec<record::Line<'a>>,
}

/// The log: followed to its end, or with `?format=text` everything that is there now.
#[utoipa::path(get, path = "/api/runs/{id}/logs", tag = "logs", params(("id" = String, Path), Wanted), responses(
    (status = 200, description = "Events `run` (a RunView), `log` and `end`; resumes from `Last-Event-ID`", content(
        (String = "text/event-stream"), (String = "text/plain"),
    )),
    (status = 400, body = super::Problem), (status = 404, body = super::Problem),
))]
pub(super) async fn logs(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    Asked(wanted): Asked<Wanted>,
    headers: HeaderMap,
) -> Result<Response, Refusal> {
    // Listening first: what changes after the run was read is told.
    let notices = web.store.subscribe();
    let run = api::find(&web, &caller, &id).await?;
    if let Format::Text = wanted.format {
        let plain = [(header::CONTENT_TYPE, "text/plain; charset=utf-8")];
        return Ok((plain, Body::from_stream(web.logs.full_text(&run.id))).into_response());
    }
    let lines = matches!(wanted.format, Format::Events);
    let from = match headers.get("last-event-id").and_then(|value| value.to_str().ok()) {
        Some(last) => Positions::parse(last),
        None if lines => Positions::default(),
        None => Positions::behind(web.logs.attempts(&run.id).await?),
    };
    let tail = web.logs.tail(&run.id, from);
    let follow = Follow {
        web,
        run: run.id,
        version: None,
        phase: Following::Open,
        lines,
        tail,
        notices,
        ready: VecDeque::new(),
    };
    let sse = Sse::new(follow.events()).keep_alive(KeepAlive::default());
    // A proxy that buffers would hold the lines back.
    Ok(([("x-accel-buffering", "no")], sse).into_response())
}

struct Follow {
    web: Web,
    run: String,
    version: Option<u64>,
    phase: Following,
    /// Lines are told, not only that there are more.
    lines: bool,
    tail: Tail,
    notices: broadcast::Receiver<ChangeNotification>,
    ready: VecDeque<Event>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Following {
    /// The run goes on.
    Open,
    /// The run ended: what is in the files is all.
    Draining,
    /// All was given.
    Ended,
}

impl Follow {
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
                notice = self.notices.recv() => match notice {
                    Ok(ChangeNotification::Runs) | Err(RecvError::Lagged(_)) => return,
                    Ok(_) => {}
                    Err(RecvError::Closed) => {
                        self.phase = Following::Draining;
                        return;
                    }
                },
            }
        }
    }

    async fn reload(&mut self) -> anyhow::Result<()> {
        if self.phase != Following::Open || self.web.store.run_version(&self.run).await? == self.version {
            return Ok(());
        }
        let Some(state) = self.web.store.run(&self.run).await? else {
            self.phase = Following::Draining;
            return Ok(());
        };
        self.version = Some(state.version);
        if matches!(state.phase, RunPhase::Done { .. }) {
            self.phase = Following::Draining;
        }
        self.ready.push_back(Event::default().event("run").json_data(RunView::from(state))?);
        Ok(())
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
