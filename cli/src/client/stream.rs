//! A run as it goes on: server-sent events of its state and its log, taken up again where they broke off.

use std::time::Duration;

use anyhow::Result;
use futures::{Stream, stream};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::api::Api;

/// How long a run that was just asked for may be unknown.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a broken stream is asked for again.
const AGAIN: Duration = Duration::from_millis(300);

/// A run's state, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(crate) struct Run {
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
    pub(crate) jobs: Vec<Job>,
}

/// A job's state.
#[derive(Debug, Deserialize)]
pub(crate) struct Job {
    pub(crate) key: String,
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) phase: String,
    /// Number of the latest attempt.
    #[serde(default)]
    pub(crate) attempt: u32,
    /// Why it waits, was left out, or ended as it did.
    pub(crate) why: Option<String>,
    pub(crate) conclusion: Option<String>,
}

/// Lines of one attempt of a job.
#[derive(Debug, Deserialize)]
pub(crate) struct Lines {
    pub(crate) job: String,
    #[serde(default)]
    pub(crate) attempt: u32,
    pub(crate) lines: Vec<Line>,
}

/// One line, or the start or end of a step.
#[derive(Debug, Deserialize)]
pub(crate) struct Line {
    #[serde(default)]
    pub(crate) step: i32,
    #[serde(default)]
    pub(crate) stream: String,
    #[serde(default)]
    pub(crate) text: String,
    pub(crate) mark: Option<Mark>,
}

/// The start or end of a step.
#[derive(Debug, Deserialize)]
pub(crate) struct Mark {
    pub(crate) name: String,
    pub(crate) ended: bool,
    pub(crate) conclusion: String,
    pub(crate) duration_ms: u64,
}

impl Mark {
    /// The step's name as the author has it: logs that clients read have "Main" before it.
    pub(crate) fn step(&self) -> &str {
        self.name.strip_prefix("Main ").unwrap_or(&self.name)
    }
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) kind: String,
    pub(crate) data: String,
    id: Option<String>,
}

/// The events of a run. They end with one of the kind `end`; a connection that breaks off before is made again.
pub(crate) fn events<'a>(api: &'a Api, run: &str) -> impl Stream<Item = Result<Event>> + use<'a> {
    let path = format!("/api/runs/{run}/logs");
    let follower = Follower { api, path, last: String::new(), until: Instant::now() + PATIENCE, open: None };
    stream::unfold(follower, async |mut follower| Some((follower.next().await, follower)))
}

struct Follower<'a> {
    api: &'a Api,
    path: String,
    /// Id of the last event.
    last: String,
    /// From then on an unknown run is an error.
    until: Instant,
    open: Option<Connection>,
}

impl Follower<'_> {
    async fn next(&mut self) -> Result<Event> {
        loop {
            let Some(connection) = &mut self.open else {
                let headers = [("last-event-id", self.last.as_str())];
                let response = self.api.try_send(Method::GET, &self.path, &headers).await?;
                if response.status() == StatusCode::NOT_FOUND && Instant::now() < self.until {
                    sleep(AGAIN).await;
                    continue;
                }
                self.open = Some(Connection::new(self.api.checked(response).await?));
                continue;
            };
            if let Ok(Some(event)) = connection.next().await {
                if let Some(id) = &event.id {
                    self.last.clone_from(id);
                }
                return Ok(event);
            }
            self.open = None;
            sleep(AGAIN).await;
        }
    }
}

/// One connection that events come over.
pub(crate) struct Connection {
    response: Response,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) fn new(response: Response) -> Self {
        Self { response, buffer: Vec::new() }
    }

    /// The next event; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Event>> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\n\n") {
                let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return Ok(Some(parse(&String::from_utf8_lossy(&block))));
            }
            match self.response.chunk().await? {
                Some(chunk) => self.buffer.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

fn parse(block: &str) -> Event {
    let mut event = Event::default();
    for line in block.lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => event.kind = value.to_owned(),
            "id" => event.id = Some(value.to_owned()),
            "data" if event.data.is_empty() => event.data = value.to_owned(),
            "data" => {
                event.data.push('\n');
                event.data.push_str(value);
            }
            _ => {}
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_with_id_and_many_lines_of_data() {
        let event = parse("event: log\nid: a.1\ndata: one\ndata: two\n: comment\n\n");
        assert_eq!(event, Event { kind: "log".into(), data: "one\ntwo".into(), id: Some("a.1".into()) });
    }
}
