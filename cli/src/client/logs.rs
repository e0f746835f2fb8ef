//! `longshore logs`: a run's log, live or as far as it goes.

use std::{collections::BTreeMap, process::ExitCode, time::Duration};

use anyhow::{Result, bail};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use tokio::time::{Instant, sleep};

use super::api::{Api, Server};

/// How long a run that was just asked for may be unknown.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause before a broken stream is asked for again.
const AGAIN: Duration = Duration::from_millis(300);

/// Show a run's log
///
/// With --follow the lines appear while the run goes on, and the exit code is the run's conclusion: 0 success, 1 failure,
/// 130 cancelled.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    /// Follow the log until the run ends
    #[arg(short, long)]
    follow: bool,
    /// Only this job
    #[arg(long, value_name = "KEY")]
    job: Option<String>,
    #[command(flatten)]
    server: Server,
}

#[derive(Debug, Deserialize)]
struct Run {
    phase: String,
    conclusion: Option<String>,
    #[serde(default)]
    jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
struct Job {
    key: String,
    name: String,
}

#[derive(Debug, Deserialize)]
struct Lines {
    job: String,
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    #[serde(default)]
    stream: String,
    #[serde(default)]
    text: String,
    mark: Option<Mark>,
}

#[derive(Debug, Deserialize)]
struct Mark {
    name: String,
    ended: bool,
    conclusion: String,
    duration_ms: u64,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.server.connect()?;
    let path = format!("/api/runs/{}/logs", args.run);
    let mut shown = Shown { only: args.job.clone(), ..Shown::default() };
    let until = Instant::now() + if args.follow { PATIENCE } else { Duration::ZERO };
    if !args.follow {
        let state: Run = api.get(&format!("/api/runs/{}", args.run)).await?;
        // Of a run that goes on, what is there now is what comes before the stream pauses.
        let done = state.phase == "done";
        let limit = if done { Duration::MAX } else { Duration::from_millis(500) };
        let mut stream = Stream::open(&api, &path, "").await?;
        while let Ok(Some(event)) = tokio::time::timeout(limit, stream.next()).await.unwrap_or(Ok(None)) {
            if shown.take(&event)? {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    let mut last = String::new();
    loop {
        let mut stream = match Stream::try_open(&api, &path, &last).await? {
            Some(stream) => stream,
            None if Instant::now() < until => {
                sleep(AGAIN).await;
                continue;
            }
            None => Stream::open(&api, &path, &last).await?,
        };
        // A stream that breaks off is taken up again where it ended.
        while let Ok(Some(event)) = stream.next().await {
            if let Some(id) = &event.id {
                last.clone_from(id);
            }
            if shown.take(&event)? {
                return Ok(shown.code());
            }
        }
        sleep(AGAIN).await;
    }
}

/// What was shown so far.
#[derive(Default)]
struct Shown {
    only: Option<String>,
    names: BTreeMap<String, String>,
    conclusion: Option<String>,
}

impl Shown {
    /// Shows an event; true at the end.
    fn take(&mut self, event: &Event) -> Result<bool> {
        match event.kind.as_str() {
            "run" => {
                let run: Run = serde_json::from_str(&event.data)?;
                self.names.extend(run.jobs.into_iter().map(|job| (job.key, job.name)));
                self.conclusion = run.conclusion;
            }
            "log" => self.lines(&serde_json::from_str(&event.data)?),
            "failed" => bail!("the coordinator cannot read the log: {}", event.data),
            "end" => return Ok(true),
            _ => {}
        }
        Ok(false)
    }

    #[allow(clippy::print_stdout)]
    fn lines(&self, lines: &Lines) {
        if self.only.as_ref().is_some_and(|only| *only != lines.job) {
            return;
        }
        let name = printable(self.names.get(&lines.job).unwrap_or(&lines.job));
        for line in &lines.lines {
            match &line.mark {
                Some(mark) if !mark.ended => println!("{name} | ⭐ {}", printable(&mark.name)),
                Some(mark) => {
                    let seconds = std::time::Duration::from_millis(mark.duration_ms).as_secs_f64();
                    println!("{name} | {} {} ({seconds:.1} s)", sign(&mark.conclusion), printable(&mark.name));
                }
                None if line.stream == "notice" => {
                    line.text.lines().for_each(|text| println!("{name} | · {}", printable(text)))
                }
                None => line.text.lines().for_each(|text| println!("{name} | {}", printable(text))),
            }
        }
    }

    fn code(&self) -> ExitCode {
        match self.conclusion.as_deref() {
            Some("success" | "skipped") => ExitCode::SUCCESS,
            Some("cancelled") => ExitCode::from(130),
            _ => ExitCode::FAILURE,
        }
    }
}

fn sign(conclusion: &str) -> &'static str {
    match conclusion {
        "success" => "✅",
        "skipped" => "⏭",
        _ => "❌",
    }
}

/// Text that can do nothing to a terminal but colour itself: other escape sequences are dropped, control characters
/// are shown as their pictures.
pub(crate) fn printable(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text.chars().peekable();
    while let Some(letter) = rest.next() {
        match letter {
            '\u{1b}' => match rest.next() {
                Some('[') => {
                    let mut sequence = String::new();
                    let end = rest.find(|next| {
                        sequence.push(*next);
                        ('@'..='~').contains(next)
                    });
                    if end == Some('m') {
                        clean.push_str("\u{1b}[");
                        clean.push_str(&sequence);
                    }
                }
                // OSC and the like: to their terminator.
                Some(']' | 'P' | '^' | '_') => while rest.next().is_some_and(|next| next != '\u{7}' && next != '\\') {},
                _ => {}
            },
            '\t' => clean.push('\t'),
            '\r' => {}
            control if control.is_control() => clean.push(picture(control)),
            '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => clean.push('\u{fffd}'),
            other => clean.push(other),
        }
    }
    clean
}

fn picture(control: char) -> char {
    char::from_u32(0x2400 + u32::from(control)).filter(|_| u32::from(control) < 0x20).unwrap_or('\u{fffd}')
}

/// One server-sent event.
#[derive(Debug, Default, PartialEq, Eq)]
struct Event {
    kind: String,
    data: String,
    id: Option<String>,
}

/// A stream of server-sent events.
struct Stream {
    response: Response,
    buffer: Vec<u8>,
}

impl Stream {
    async fn open(api: &Api, path: &str, last: &str) -> Result<Self> {
        let response = api.send(Method::GET, path, &[("last-event-id", last)]).await?;
        Ok(Self { response, buffer: Vec::new() })
    }

    /// `None`: the coordinator does not know the run.
    async fn try_open(api: &Api, path: &str, last: &str) -> Result<Option<Self>> {
        let response = api.try_send(Method::GET, path, &[("last-event-id", last)]).await?;
        let known = response.status() != StatusCode::NOT_FOUND;
        if known { Self::open(api, path, last).await.map(Some) } else { Ok(None) }
    }

    /// The next event; `None` at the end of the stream.
    async fn next(&mut self) -> Result<Option<Event>> {
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
    fn attack_49_output_can_colour_a_terminal_and_nothing_else() {
        for (printed, shown) in [
            ("plain ünïcode", "plain ünïcode"),
            ("\u{1b}[31mred\u{1b}[0m", "\u{1b}[31mred\u{1b}[0m"),
            ("\u{1b}[2J\u{1b}[1;1Hgone", "gone"),
            ("\u{1b}]0;title\u{7}text", "text"),
            ("\u{1b}]52;c;aGk=\u{7}text", "text"),
            ("bell\u{7} nul\0", "bell␇ nul␀"),
            ("10%\r100%", "10%100%"),
            ("a\u{202e}b", "a\u{fffd}b"),
            ("end\u{1b}", "end"),
            ("end\u{1b}[31", "end"),
        ] {
            assert_eq!(printable(printed), shown, "{printed:?}");
        }
    }

    #[test]
    fn events_are_read_with_id_and_many_lines_of_data() {
        let event = parse("event: log\nid: a.1\ndata: one\ndata: two\n: comment\n\n");
        assert_eq!(event, Event { kind: "log".into(), data: "one\ntwo".into(), id: Some("a.1".into()) });
    }
}
