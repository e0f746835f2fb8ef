//! The Gitea bridge: which commit status it sets.

use nostr::{Event, PublicKey};

use super::{is_hash_url, value};

/// A commit status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Not ended.
    Pending,
    /// Ended well.
    Success,
    /// Ended badly.
    Failure,
    /// Ended in a way the bridge does not accept as a result.
    Error,
}

/// What the bridge knows of a job it follows.
#[derive(Debug, Clone)]
pub struct Followed {
    /// Id of the 5401, hex.
    pub run: String,
    /// Id of the 5100, hex.
    pub job: String,
    /// Author of the job.
    pub requester: PublicKey,
    /// The worker.
    pub worker: PublicKey,
    /// The ephemeral key it made.
    pub publisher: PublicKey,
    /// `workflow` of the run.
    pub workflow: String,
    /// `commit` of the run.
    pub commit: String,
}

impl Followed {
    /// Maps one event.
    ///
    /// # Errors
    /// Why the bridge drops the whole event.
    pub fn map(&self, event: &Event) -> Result<Outcome, String> {
        event.verify().map_err(|error| error.to_string())?;
        let content: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(&event.content);
        if !event.content.is_empty() && content.is_err() {
            return Err("content is neither empty nor a JSON object".into());
        }
        match event.kind.as_u16() {
            30100 => {
                self.of_job(event)?;
                if value(event, "d") != Some(self.job.as_str()) {
                    return Err("`d` is not the job".into());
                }
                match value(event, "status") {
                    Some("queued" | "running" | "completed") => Ok(Outcome::Pending),
                    Some("failed") => Ok(Outcome::Failure),
                    Some("cancelled" | "canceled" | "timeout" | "timed_out") => Ok(Outcome::Error),
                    other => Err(format!("status {other:?} is not known")),
                }
            }
            5101 => self.result(event),
            5402 => self.run_result(event),
            kind => Err(format!("kind {kind} is not read")),
        }
    }

    fn of_job(&self, event: &Event) -> Result<(), String> {
        match () {
            () if event.pubkey != self.worker => Err("not by the worker".into()),
            () if value(event, "e") != Some(self.job.as_str()) => Err("first `e` is not the job".into()),
            () if value(event, "p") != Some(self.requester.to_hex().as_str()) => Err("`p` is not the requester".into()),
            () if value(event, "d").is_some_and(|d| d != self.job) => Err("`d` is not the job".into()),
            () => Ok(()),
        }
    }

    fn result(&self, event: &Event) -> Result<Outcome, String> {
        self.of_job(event)?;
        let outcome = match value(event, "success") {
            Some("true" | "1") => Outcome::Success,
            Some("false" | "0") => Outcome::Failure,
            other => return Err(format!("success {other:?}")),
        };
        // It downloads the output; where that fails, even a success becomes an error.
        match value(event, "stdout").or_else(|| value(event, "stderr")) {
            Some(url) if !is_hash_url(url) => Ok(Outcome::Error),
            _ => Ok(outcome),
        }
    }

    fn run_result(&self, event: &Event) -> Result<Outcome, String> {
        let differs = |name: &str, expected: &str| value(event, name).is_some_and(|found| found != expected);
        if event.pubkey != self.publisher || value(event, "e") != Some(self.run.as_str()) {
            return Err("not by the publisher, or not of the run".into());
        }
        if differs("workflow", &self.workflow) || differs("commit", &self.commit) || differs("loom_job_id", &self.job) {
            return Err("an echoed value differs".into());
        }
        if value(event, "log_url").is_some_and(|url| !is_hash_url(url)) {
            return Ok(Outcome::Error);
        }
        Ok(match value(event, "status") {
            Some("success" | "succeeded" | "passed") => Outcome::Success,
            Some("failure" | "failed") => Outcome::Failure,
            _ => Outcome::Error,
        })
    }
}
