//! The server-sent events of a run, its state and its log; resumed after the last event where a connection breaks off.

use std::time::Duration;

use anyhow::Result;
use eventsource_stream::{EventStreamError, Eventsource as _};
use futures::{
    Stream, StreamExt as _,
    stream::{self, BoxStream},
};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use logs::line_text::step_name;

use super::api::ApiClient;
use crate::terminal::{printable::printable, tree::StatusMark};

pub(crate) use eventsource_stream::Event;

/// How long a run that was just asked for may be unknown.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a broken stream is asked for again.
const AGAIN: Duration = Duration::from_millis(300);

/// A run's state, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(crate) struct RunState {
    #[serde(default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) serial: u64,
    /// Counts the runs of one workflow.
    #[serde(default)]
    pub(crate) number: u64,
    #[serde(default)]
    pub(crate) name: String,
    pub(crate) phase: String,
    /// What it waits for as a whole.
    pub(crate) waits: Option<String>,
    /// When its first job began, in milliseconds.
    pub(crate) started_at: Option<u64>,
    /// Why it waits, or ended as it did.
    pub(crate) why: Option<String>,
    pub(crate) conclusion: Option<String>,
    #[serde(default)]
    pub(crate) jobs: Vec<JobState>,
    /// Branch, tag or full ref.
    #[serde(default)]
    pub(crate) reference: String,
    #[serde(default)]
    pub(crate) commit: String,
    /// First line of the commit's message.
    pub(crate) commit_message: Option<String>,
}

impl RunState {
    /// The job that is printed with this name.
    pub(crate) fn job_named(&self, name: &str) -> Option<&JobState> {
        self.jobs.iter().find(|job| job.name == name)
    }
}

/// A job's state.
#[derive(Debug, Deserialize)]
pub(crate) struct JobState {
    pub(crate) key: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) phase: String,
    /// Number of the latest attempt.
    #[serde(default)]
    pub(crate) attempt: u32,
    /// When its first step began, in milliseconds.
    pub(crate) started_at: Option<u64>,
    pub(crate) ended_at: Option<u64>,
    #[serde(default)]
    pub(crate) steps: Vec<StepState>,
    /// Why it waits, was left out, or ended as it did.
    pub(crate) why: Option<String>,
    pub(crate) conclusion: Option<String>,
}

impl JobState {
    /// Why it failed, in one line: `✗ test (us, 1) › Run tests: exit code 1`.
    pub(crate) fn failure(&self) -> String {
        let step = self.steps.iter().find(|step| step.conclusion == "failure");
        let name = step.map(|step| format!(" › {}", step_name(&step.name))).unwrap_or_default();
        let code = step.and_then(|step| step.exit_code).filter(|code| *code != 0);
        let cause = match (code, self.why.as_deref().filter(|why| !why.is_empty())) {
            (Some(code), Some("a step failed") | None) => format!(": exit code {code}"),
            (_, Some(why)) => format!(": {why}"),
            (None, None) => String::new(),
        };
        format!("{} {}", StatusMark::Failure.shown(), printable(&format!("{}{name}{cause}", self.name)))
    }
}

/// A step that ended.
#[derive(Debug, Deserialize)]
pub(crate) struct StepState {
    pub(crate) name: String,
    pub(crate) conclusion: String,
    pub(crate) exit_code: Option<i32>,
}

/// Lines of one attempt of a job.
#[derive(Debug, Deserialize)]
pub(crate) struct LogChunk {
    pub(crate) job: String,
    #[serde(default)]
    pub(crate) attempt: u32,
    pub(crate) lines: Vec<LogLine>,
}

/// One line, or the start or end of a step.
#[derive(Debug, Deserialize)]
pub(crate) struct LogLine {
    /// In milliseconds.
    #[serde(default)]
    pub(crate) time_ms: u64,
    #[serde(default)]
    pub(crate) step: i32,
    #[serde(default)]
    pub(crate) stream: String,
    #[serde(default)]
    pub(crate) text: String,
    pub(crate) mark: Option<StepMark>,
}

/// The start or end of a step.
#[derive(Debug, Deserialize)]
pub(crate) struct StepMark {
    pub(crate) name: String,
    pub(crate) ended: bool,
    pub(crate) conclusion: String,
    pub(crate) duration_ms: u64,
}

/// The events of one connection.
pub(crate) type EventStream = BoxStream<'static, Result<Event, EventStreamError<reqwest::Error>>>;

/// Reads server-sent events from a response.
pub(crate) fn event_stream(response: Response) -> EventStream {
    response.bytes_stream().eventsource().boxed()
}

/// The events of a run. The last one has the name `end`; a connection that breaks off before is made again.
pub(crate) fn events<'a>(api: &'a ApiClient, run: &str) -> impl Stream<Item = Result<Event>> + use<'a> {
    let path = format!("/api/runs/{run}/logs");
    let follower = EventFollower { api, path, last: String::new(), until: Instant::now() + PATIENCE, open: None };
    stream::unfold(follower, async |mut follower| Some((follower.next().await, follower)))
}

struct EventFollower<'a> {
    api: &'a ApiClient,
    path: String,
    /// Id of the last event.
    last: String,
    /// From then on an unknown run is an error.
    until: Instant,
    open: Option<EventStream>,
}

impl EventFollower<'_> {
    async fn next(&mut self) -> Result<Event> {
        loop {
            let Some(stream) = &mut self.open else {
                let headers = [("last-event-id", self.last.as_str())];
                let response = self.api.try_send(Method::GET, &self.path, &headers).await?;
                if response.status() == StatusCode::NOT_FOUND && Instant::now() < self.until {
                    sleep(AGAIN).await;
                    continue;
                }
                self.open = Some(event_stream(self.api.checked(response).await?));
                continue;
            };
            if let Some(Ok(event)) = stream.next().await {
                self.last.clone_from(&event.id);
                return Ok(event);
            }
            self.open = None;
            sleep(AGAIN).await;
        }
    }
}
