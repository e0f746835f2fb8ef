//! The list of runs as it changes, over server-sent events.
//!
//! `run`: a run that is new or changed, its id the change's number, to resume from.

use std::{collections::VecDeque, convert::Infallible};

use axum::{
    extract::State,
    http::HeaderMap,
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::{Stream, stream};
use tokio::sync::broadcast::{self, error::RecvError};

use super::{Asked, Refusal, Web, api::Wanted, auth::Caller, view::RunSummary};
use store::{ChangeNotification, Filter, Summary};

/// Changes that are read at once.
const AT_ONCE: u32 = 100;

/// Runs as they change. The filter's status is left aside: a run that leaves a list is told too.
#[utoipa::path(get, path = "/api/changes", tag = "runs", params(Wanted), responses(
    (status = 200, description = "Events `run` with a RunSummary each; resumes from `Last-Event-ID`",
        content_type = "text/event-stream", body = String),
))]
pub(super) async fn changes(
    State(web): State<Web>,
    caller: Caller,
    Asked(wanted): Asked<Wanted>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    // Listening first: what changes after the number was read is told.
    let notices = web.store.subscribe();
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let after = match last {
        Some(last) => last,
        None => web.store.latest_change().await?,
    };
    let filter = Filter { status: None, unfinished: false, ..wanted.filter(&caller)? };
    let follow = Follow { web, filter, after, notices, ready: VecDeque::new() };
    Ok(([("x-accel-buffering", "no")], Sse::new(follow.events()).keep_alive(KeepAlive::default())))
}

struct Follow {
    web: Web,
    filter: Filter,
    /// Everything up to this change was told.
    after: u64,
    notices: broadcast::Receiver<ChangeNotification>,
    ready: VecDeque<Summary>,
}

impl Follow {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut follow| match follow.next().await {
            Ok(event) => event.map(|event| (Ok(event), follow)),
            Err(error) => {
                tracing::error!("a live list broke off: {error:#}");
                None
            }
        })
    }

    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(run) = self.ready.pop_front() {
                let id = run.changed.to_string();
                return Ok(Some(Event::default().event("run").id(id).json_data(RunSummary::from(run))?));
            }
            let latest = self.web.store.latest_change().await?;
            if latest > self.after {
                let found = self.web.store.changed(&self.filter, self.after, AT_ONCE).await?;
                let more = found.len() == AT_ONCE as usize;
                let last = found.last().map_or(0, |run| run.changed);
                self.after = if more { last } else { latest.max(last) };
                self.ready.extend(found);
                continue;
            }
            loop {
                match self.notices.recv().await {
                    Ok(ChangeNotification::Runs) | Err(RecvError::Lagged(_)) => break,
                    Ok(_) => {}
                    Err(RecvError::Closed) => return Ok(None),
                }
            }
        }
    }
}
