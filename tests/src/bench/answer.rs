//! What the coordinator's API says of a run: its own stamps, and the log as stored.

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::{Value, de::IoRead};

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

/// A coordinator's API.
#[derive(Debug)]
pub struct Api {
    http: String,
    client: reqwest::Client,
}

#[derive(Deserialize)]
struct Line {
    time_ms: u64,
    step: i32,
    stream: String,
    #[serde(default)]
    text: String,
}

impl Line {
    fn is_output(&self) -> bool {
        self.step >= 0 && self.stream == "stdout"
    }
}

impl Api {
    /// At `http://HOST:PORT`.
    pub fn new(http: &str) -> Self {
        Self { http: http.to_owned(), client: reqwest::Client::new() }
    }

    /// Stamps of the run that a job event (hex id) made.
    pub async fn stamps(&self, job: &str) -> Result<Stamps> {
        let run: Value = serde_json::from_slice(&self.get(&format!("api/runs/{job}")).await?)?;
        let stamp = |name: &str| run[name].as_u64().with_context(|| format!("the run has no {name}: {run}"));
        let first = self.log(job).await?.iter().find(|line| line.is_output()).map(|line| line.time_ms);
        Ok(Stamps {
            received: stamp("received_at")?,
            first: first.context("the log has no output")?,
            ended: stamp("ended_at")?,
        })
    }

    /// Checks that the stored log holds every byte of [`super::floor::LOG`], in order.
    pub async fn check_log(&self, job: &str) -> Result<()> {
        let lines = self.log(job).await?;
        let pieces = lines.iter().filter(|line| line.is_output()).map(|line| line.text.as_bytes());
        let mut check = Numbered::default();
        for piece in pieces {
            check.take(piece)?;
        }
        check.finish()
    }

    /// Every record of a run, as a JSON array or as values one after the other.
    async fn log(&self, job: &str) -> Result<Vec<Line>> {
        let body = self.get(&format!("api/runs/{job}/logs?format=json")).await?;
        if body.first() == Some(&b'[') {
            return Ok(serde_json::from_slice(&body)?);
        }
        let values = serde_json::Deserializer::new(IoRead::new(body.as_ref())).into_iter();
        values.collect::<Result<_, _>>().context("the log is no JSON")
    }

    async fn get(&self, path: &str) -> Result<bytes::Bytes> {
        let url = format!("{}/{path}", self.http);
        let response = self.client.get(&url).send().await?;
        ensure!(response.status().is_success(), "{url}: {}", response.status());
        Ok(response.bytes().await?)
    }
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
