//! The status of a run that was requested over relays, queried from its coordinator: number, page, failed jobs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nostr::Event;

use super::{
    api::{ApiClient, ServerArgs},
    run_events::{JobState, RunState},
};
use crate::terminal::{
    printable::printable,
    tree::{StatusMark, duration},
};

/// How long to wait for the coordinator. Its answer is a convenience: the results come over relays.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a run is called before its coordinator says so.
pub(crate) struct RunTitle {
    workflow: String,
    branch: String,
    commit: String,
    message: String,
}

impl RunTitle {
    /// Of a workflow's path, a branch, a commit and the first line of its message; what is empty is not known.
    pub(crate) fn new(workflow: &str, branch: &str, commit: &str, message: &str) -> Self {
        let [workflow, branch, commit, message] = [workflow, branch, commit, message].map(str::to_owned);
        Self { workflow, branch, commit, message }
    }

    /// `CI #3 · main · 22fffc5 message`.
    pub(crate) fn line(&self, run: Option<&RunState>) -> String {
        let known =
            |text: Option<&str>, otherwise: &str| text.filter(|text| !text.is_empty()).unwrap_or(otherwise).to_owned();
        let mut line = known(run.map(|run| run.name.as_str()), &self.workflow);
        if let Some(run) = run {
            line.push_str(&format!(" #{}", run.number));
        }
        let reference = known(run.map(|run| run.reference.as_str()), &self.branch);
        let branch =
            reference.strip_prefix("refs/heads/").or(reference.strip_prefix("refs/tags/")).unwrap_or(&reference);
        let commit = known(run.map(|run| run.commit.as_str()), &self.commit);
        let message = known(run.and_then(|run| run.commit_message.as_deref()), &self.message);
        let commit = format!("{commit:.7} {message}");
        for part in [branch, commit.trim()] {
            if !part.is_empty() {
                line.push_str(&format!(" · {part}"));
            }
        }
        printable(&line)
    }
}

/// A requested run, and the coordinator that knows it.
pub(crate) struct RunStatus {
    title: RunTitle,
    api: ApiClient,
    /// Id of the job event (5100), by which the API finds the run.
    job: String,
    /// The run's number and page were printed, or why they are not known.
    address_printed: bool,
    /// The last reason for waiting that was printed.
    printed_reason: Option<String>,
}

impl RunStatus {
    pub(crate) fn new(server: &ServerArgs, job: &Event, title: RunTitle) -> Result<Self> {
        Ok(Self { title, api: server.connect()?, job: job.id.to_hex(), address_printed: false, printed_reason: None })
    }

    /// Prints the run's number and page, once.
    #[allow(clippy::print_stdout, clippy::print_stderr)]
    pub(crate) async fn print_address(&mut self) {
        if std::mem::replace(&mut self.address_printed, true) {
            return;
        }
        match self.fetch().await {
            Ok(run) => {
                println!("{}", self.title.line(Some(&run)));
                println!("  run {}: {}", run.serial, printable(&self.api.page(&run.id)));
                println!("  to follow it: longshore watch {}{}", run.serial, self.api.server_flag());
            }
            Err(error) => {
                println!("{}", self.title.line(None));
                let error = printable(&error.to_string());
                eprintln!("      its number and page are not known: {error} (--server names the pool's coordinator)");
            }
        }
    }

    /// Notes a reason for waiting that was printed elsewhere.
    pub(crate) fn remember_reason(&mut self, why: &str) {
        if !why.is_empty() {
            self.printed_reason = Some(why.to_owned());
        }
    }

    /// Prints why the run waits, if the coordinator knows and the reason is a new one.
    #[allow(clippy::print_stdout)]
    pub(crate) async fn print_reason(&mut self) {
        let why = self.reason().await;
        if let Some(why) = why.filter(|why| self.printed_reason.as_ref() != Some(why)) {
            println!("      {}", printable(&why));
            self.printed_reason = Some(why);
        }
    }

    /// Why the run waits: the reason of the run as a whole, else of each job that waits for a worker or an approval.
    pub(crate) async fn reason(&self) -> Option<String> {
        let run = self.fetch().await.ok().filter(|run| run.conclusion.is_none())?;
        if run.why.as_ref().is_some_and(|why| !why.is_empty()) {
            return run.why;
        }
        let waiting = run.jobs.iter().filter(|job| matches!(job.phase.as_str(), "waiting" | "queued"));
        let whys = waiting
            .filter_map(|job| Some(format!("{}: {}", job.name, job.why.as_deref().filter(|why| !why.is_empty())?)));
        Some(whys.collect::<Vec<_>>().join("; ")).filter(|whys| !whys.is_empty())
    }

    /// Prints how to follow a run that has no number yet.
    #[allow(clippy::print_stdout)]
    pub(crate) fn print_follow_hint(&self) {
        println!("      to follow it: longshore watch {}{}", self.job, self.api.server_flag());
    }

    /// Prints how it ended, after how long.
    #[allow(clippy::print_stdout)]
    pub(crate) fn print_end(&self, end: &str, waited: Duration) {
        let word = match end {
            "completed" => "success",
            "failed" => "failure",
            other => other,
        };
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        println!("{} {} after {}", StatusMark::of(word).shown(), printable(word), duration(millis));
    }

    /// Prints the jobs that failed, if the coordinator knows.
    #[allow(clippy::print_stdout)]
    pub(crate) async fn print_failures(&self) {
        let Ok(run) = self.fetch().await else { return };
        let failed: Vec<&JobState> =
            run.jobs.iter().filter(|job| job.conclusion.as_deref() == Some("failure")).collect();
        failed.iter().for_each(|job| println!("  {}", job.failure()));
        if !failed.is_empty() {
            println!("  what it printed: longshore logs {} --failed{}", run.serial, self.api.server_flag());
        }
    }

    async fn fetch(&self) -> Result<RunState> {
        let path = format!("/api/runs/{}", self.job);
        let answer = tokio::time::timeout(PATIENCE, self.api.get(&path)).await;
        answer.with_context(|| format!("{} does not answer", self.api.base()))?
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_called_by_its_workflow_number_branch_and_commit() {
        let title = RunTitle::new(".github/workflows/ci.yml", "main", "22fffc5f4e11", "Fix the parser");
        assert_eq!(title.line(None), ".github/workflows/ci.yml · main · 22fffc5 Fix the parser");
        let run = r#"{"name":"CI","number":3,"phase":"active","reference":"refs/heads/main","commit":"22fffc5f4e11","commit_message":"Fix it"}"#;
        assert_eq!(title.line(Some(&serde_json::from_str(run).unwrap())), "CI #3 · main · 22fffc5 Fix it");
        let unplanned = r#"{"name":"ci.yml","number":3,"phase":"planning"}"#;
        let line = title.line(Some(&serde_json::from_str(unplanned).unwrap()));
        assert_eq!(line, "ci.yml #3 · main · 22fffc5 Fix the parser");
        assert_eq!(RunTitle::new("ci.yml", "", "", "").line(None), "ci.yml");
    }
}
