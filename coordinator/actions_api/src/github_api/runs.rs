//! This run and its jobs.

use domain::run::{JobPhase, RunPhase, RunState};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use workflow::plan::Conclusion;

use super::{Answer, Found, NoAnswer, Question};

impl Question<'_> {
    /// The run as it stands, where it is the caller's.
    async fn own_run(&self, id: &str, attempt: Option<&str>) -> Found<RunState> {
        if id != self.text("run_id") {
            return Err(NoAnswer::Missing);
        }
        let found = self.api.run(&self.caller.identity.run).await;
        let state = found.map_err(|error| NoAnswer::Failed(error.to_string()))?.ok_or(NoAnswer::Unknown)?;
        match attempt {
            Some(attempt) if attempt != state.attempt.to_string() => Err(NoAnswer::Missing),
            _ => Ok(state),
        }
    }

    pub(super) async fn run(&self, id: &str, attempt: Option<&str>) -> Found<Value> {
        let state = self.own_run(id, attempt).await?;
        let end = match &state.phase {
            RunPhase::Done { end, .. } | RunPhase::Finalizing { end } => Some(end.conclusion),
            _ => None,
        };
        let path = self.text("workflow_ref").split('@').next().and_then(|path| path.splitn(3, '/').nth(2));
        let url = self.url(&format!("/actions/runs/{id}"));
        Ok(json!({
            "id": id.parse::<u64>().ok(), "name": self.text("workflow"), "path": path,
            "display_title": state.planned.as_ref().and_then(|planned| planned.heading().map(str::to_owned)),
            "event": self.text("event_name"), "head_sha": self.text("sha"), "head_branch": self.text("ref_name"),
            "run_number": state.number, "run_attempt": state.attempt,
            "status": if end.is_some() { "completed" } else { "in_progress" },
            "conclusion": end.map(Conclusion::as_str), "url": url, "html_url": self.page_url(&format!("/actions/runs/{id}")),
            "jobs_url": format!("{url}/jobs"), "created_at": time(state.created_at),
            "run_started_at": time(state.created_at), "updated_at": state.started_at.and_then(time),
            "actor": { "login": self.text("actor") }, "triggering_actor": { "login": self.text("triggering_actor") },
            "repository": self.repository(), "head_repository": self.repository(), "pull_requests": [],
        }))
    }

    pub(super) async fn jobs(&self, id: &str, attempt: Option<&str>) -> Found<Answer> {
        let state = self.own_run(id, attempt).await?;
        let jobs: Vec<Value> = state
            .jobs
            .iter()
            .map(|(key, job)| {
                let conclusion = job.conclusion().map(Conclusion::as_str);
                let status = match &job.phase {
                    _ if conclusion.is_some() => "completed",
                    JobPhase::Running { .. } => "in_progress",
                    JobPhase::Queued { .. } => "queued",
                    _ => "waiting",
                };
                let attempt = job.attempts.last();
                let ended = match &job.phase {
                    JobPhase::Done { outcome: Some(outcome), .. } => time(outcome.finished_at),
                    _ => None,
                };
                let number = numeric_id(&format!("{}/{key}", self.caller.identity.run));
                json!({
                    "id": number, "run_id": id.parse::<u64>().ok(), "name": job.name, "status": status,
                    "conclusion": conclusion, "labels": job.labels, "head_sha": self.text("sha"),
                    "head_branch": self.text("ref_name"), "workflow_name": self.text("workflow"), "steps": [],
                    "run_attempt": state.attempt, "run_url": self.url(&format!("/actions/runs/{id}")),
                    "url": self.url(&format!("/actions/jobs/{number}")),
                    "html_url": self.page_url(&format!("/actions/runs/{id}/job/{number}")),
                    "created_at": time(state.created_at),
                    "started_at": attempt.and_then(|attempt| time(attempt.accepted_at)), "completed_at": ended,
                })
            })
            .collect();
        let total = jobs.len();
        let (page, more, pages) = self.page_of(jobs);
        Ok(Answer::Page { entries: json!({ "total_count": total, "jobs": page }), more, pages })
    }
}

/// A number that stands for a job, always the same, within the 53 bits that JavaScript counts exactly: GitHub's ids are
/// numbers, and programs read them as such.
fn numeric_id(name: &str) -> u64 {
    let bits = Sha256::digest(name).iter().take(8).fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    bits >> 11
}

fn time(at: u64) -> Option<String> {
    let at = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok())?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
