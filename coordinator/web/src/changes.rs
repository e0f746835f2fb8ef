//! Changes of the list of runs, over server-sent events.
//!
//! Event `run`: a run that is new or changed; the event's id is the number of the change, to resume from.

use std::{collections::VecDeque, convert::Infallible, sync::Arc};

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

use super::{
    QueryParams, Refusal, Web,
    api::RunQuery,
    auth::Caller,
    authors,
    dto::RunSummary,
    live,
    request_limits::{self, Client},
};
use store::{Filter, Summary};

/// Most changes read at once.
const AT_ONCE: u32 = 100;

/// Runs as they change. The filter's status is ignored, so that a run which leaves a list is sent as well.
#[utoipa::path(get, path = "/api/changes", tag = "runs", params(RunQuery), responses(
    (status = 200, description = "Events `run` with a RunSummary each; resumes from `Last-Event-ID`",
        content_type = "text/event-stream", body = String),
    (status = 429, body = super::Problem), (status = 503, body = super::Problem),
))]
pub(super) async fn changes(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    QueryParams(wanted): QueryParams<RunQuery>,
    headers: HeaderMap,
) -> Result<impl IntoResponse, Refusal> {
    let permit = request_limits::permit(&web.limits.streams, client, "streams")?;
    // Subscribed before the number is read: no change in between is missed.
    let changes = web.feed.follow().await?;
    let last = headers.get("last-event-id").and_then(|value| value.to_str().ok()).and_then(|text| text.parse().ok());
    let after = match last {
        Some(last) => last,
        None => web.store.latest_change().await?,
    };
    let filter = Filter { status: Vec::new(), unfinished: false, ..wanted.resolved().filter(&caller)? };
    let follow = ListFollower { web, filter, after, changes, ready: VecDeque::new() };
    let events = request_limits::while_permitted(follow.events(), permit);
    Ok(([("x-accel-buffering", "no")], Sse::new(events).keep_alive(KeepAlive::new().interval(live::ALIVE))))
}

struct ListFollower {
    web: Web,
    filter: Filter,
    /// Number of the last change that was sent.
    after: u64,
    changes: broadcast::Receiver<Arc<[Summary]>>,
    ready: VecDeque<RunSummary>,
}

impl ListFollower {
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
                return Ok(Some(Event::default().event("run").id(run.change.to_string()).json_data(run)?));
            }
            let latest = self.web.store.latest_change().await?;
            if latest > self.after {
                let found = self.web.store.changed(&self.filter, self.after, AT_ONCE).await?;
                let more = found.len() == AT_ONCE as usize;
                let last = found.last().map_or(0, |run| run.changed);
                self.after = if more { last } else { latest.max(last) };
                self.ready.extend(authors::summaries(&self.web, found));
                continue;
            }
            loop {
                match self.changes.recv().await {
                    Ok(changed) if changed.iter().all(|run| !may_match(&self.filter, run)) => {}
                    Ok(_) | Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return Ok(None),
                }
            }
        }
    }
}

/// Whether a run could be in a list, by the fields of its summary. The store checks the others: its readers and its
/// request.
fn may_match(filter: &Filter, run: &Summary) -> bool {
    let fields = [
        (&filter.repository, &run.repository),
        (&filter.workflow, &run.workflow),
        (&filter.branch, &run.branch),
        (&filter.event, &run.event),
        (&filter.actor, &run.actor),
    ];
    fields.into_iter().all(|(wanted, field)| wanted.as_ref().is_none_or(|wanted| wanted == field))
}
