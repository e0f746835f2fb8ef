//! What the coordinator's API says of a run: its own stamps, and the log as stored.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

use super::floor::LOG_BYTES;

/// Stamps of a run in milliseconds since the Unix epoch, from the coordinator's and the worker's own clocks.
#[derive(Debug, Clone, Copy)]
pub struct Stamps {
    /// The signed job event reached the coordinator.
    pub received: u64,
    /// The first byte of the first step's output reached the worker.
    pub first: u64,
    /// The coordinator had the last report, which a worker sends once its log is acknowledged as stored.
    pub ended: u64,
}

/// A run that ended.
#[derive(Debug)]
pub struct Answer {
    /// Its stamps.
    pub stamps: Stamps,
    lines: Vec<Line>,
}

/// A coordinator's API.
#[derive(Debug)]
pub struct Api {
    http: String,
    client: reqwest::Client,
}

/// Data of a `log` event.
#[derive(Deserialize)]
struct Piece {
    lines: Vec<Line>,
}

#[derive(Debug, Deserialize)]
struct Line {
    time_ms: u64,
    step: i32,
    stream: String,
    #[serde(default)]
    text: String,
}

impl Answer {
    /// Checks that the stored log holds every byte of [`super::floor::LOG`], in order.
    pub fn check_log(&self) -> Result<()> {
        let mut check = Numbered::default();
        for line in output(&self.lines) {
            check.take(line.text.as_bytes())?;
        }
        check.finish()
    }
}

impl Api {
    /// At `http://HOST:PORT`.
    pub fn new(http: &str) -> Self {
        Self { http: http.to_owned(), client: reqwest::Client::new() }
    }

    /// The run that a job event (hex id) made, once it ended.
    pub async fn read(&self, job: &str) -> Result<Answer> {
        let run: Value = serde_json::from_slice(&self.get(&format!("api/runs/{job}")).await?)?;
        let stamp = |name: &str| run[name].as_u64().with_context(|| format!("the run has no {name}: {run}"));
        // Server-sent events, which end with the run.
        let lines = records(&self.get(&format!("api/runs/{job}/logs")).await?)?;
        let first = output(&lines).next().context("the log has no output")?.time_ms;
        let stamps = Stamps { received: stamp("received_at")?, first, ended: stamp("ended_at")? };
        Ok(Answer { stamps, lines })
    }

    async fn get(&self, path: &str) -> Result<bytes::Bytes> {
        let url = format!("{}/{path}", self.http);
        let response = self.client.get(&url).send().await?;
        ensure!(response.status().is_success(), "{url}: {}", response.status());
        Ok(response.bytes().await?)
    }
}

/// What steps printed.
fn output(lines: &[Line]) -> impl Iterator<Item = &Line> {
    lines.iter().filter(|line| line.step >= 0 && line.stream == "stdout")
}

/// The records in a stream of server-sent events that came to its `end`.
fn records(events: &[u8]) -> Result<Vec<Line>> {
    let (mut name, mut records, mut ended) = (&b""[..], Vec::new(), false);
    for line in events.split(|byte| *byte == b'\n') {
        if let Some(event) = line.strip_prefix(b"event: ") {
            name = event;
            ended |= event == b"end";
        } else if let Some(data) = line.strip_prefix(b"data: ")
            && name == b"log"
        {
            records.extend(serde_json::from_slice::<Piece>(data)?.lines);
        }
    }
    ensure!(ended, "the log broke off after {} records", records.len());
    Ok(records)
}

/// Reads lines of 99 digits that count from 1, however they are cut.
#[derive(Debug, Default)]
struct Numbered {
    lines: u64,
    rest: Vec<u8>,
}

impl Numbered {
    const LINE: u64 = 100;

    fn take(&mut self, piece: &[u8]) -> Result<()> {
        self.rest.extend_from_slice(piece);
        let mut taken = 0;
        while let Some(line) = self.rest.get(taken..taken + Self::LINE as usize) {
            let expected = format!("{:099}\n", self.lines + 1);
            if line != expected.as_bytes() {
                bail!("line {} is wrong: {:?}", self.lines + 1, String::from_utf8_lossy(line));
            }
            self.lines += 1;
            taken += line.len();
        }
        self.rest.drain(..taken);
        Ok(())
    }

    fn finish(&self) -> Result<()> {
        let bytes = self.lines * Self::LINE + self.rest.len() as u64;
        ensure!(bytes == LOG_BYTES, "{bytes} bytes are stored of {LOG_BYTES}");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    fn lines(numbers: impl Iterator<Item = u64>) -> Vec<u8> {
        numbers.flat_map(|number| format!("{number:099}\n").into_bytes()).collect()
    }

    #[test]
    fn only_log_events_carry_records_and_a_stream_without_its_end_is_refused() {
        let log = br#"event: log
data: {"job":"a","attempt":1,"lines":[{"time_ms":7,"step":0,"stream":"stdout","text":"hi\n"}]}
id: 1

event: run
data: {"lines":1}
"#;
        assert!(records(log).is_err());
        let records = records(&[&log[..], b"event: end\ndata: {}\n"].concat()).unwrap();
        assert_eq!(output(&records).map(|line| (line.time_ms, line.text.as_str())).collect::<Vec<_>>(), [(7, "hi\n")]);
    }

    #[test]
    fn lines_count_however_they_are_cut() {
        let mut check = Numbered::default();
        for piece in lines(1..=50).chunks(37) {
            check.take(piece).unwrap();
        }
        assert_eq!(check.lines, 50);
    }

    #[test]
    fn a_lost_a_doubled_and_an_exchanged_line_are_noticed() {
        for numbers in [vec![1, 3], vec![1, 2, 2], vec![2, 1]] {
            assert!(Numbered::default().take(&lines(numbers.into_iter())).is_err());
        }
    }

    #[test]
    fn a_log_that_stops_early_is_noticed() {
        let mut check = Numbered::default();
        check.take(&lines(1..=999)).unwrap();
        assert!(check.finish().unwrap_err().to_string().contains("99900 bytes"));
    }
}
