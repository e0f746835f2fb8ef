//! The status of a run that was requested over relays, queried from its coordinator: number, page, failed jobs.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nostr::Event;

use super::{
    api::{ApiClient, ServerArgs},
    run_events::RunState,
    with_reason,
};
use crate::terminal::printable::printable;

/// How long to wait for the coordinator. Its answer is a convenience: the results come over relays.
const PATIENCE: Duration = Duration::from_secs(5);

/// A requested run, and the coordinator that knows it.
pub(crate) struct RunStatus {
    api: ApiClient,
    /// Id of the job event (5100), by which the API finds the run.
    job: String,
    /// The run's number and page were printed, or why they are not known.
    address_printed: bool,
    /// The last reason for waiting that was printed.
    printed_reason: Option<String>,
}

impl RunStatus {
    pub(crate) fn new(server: &ServerArgs, job: &Event) -> Result<Self> {
        Ok(Self { api: server.connect()?, job: job.id.to_hex(), address_printed: false, printed_reason: None })
    }

    /// Prints the run's number and page, once.
    #[allow(clippy::print_stdout, clippy::print_stderr)]
    pub(crate) async fn print_address(&mut self) {
        if std::mem::replace(&mut self.address_printed, true) {
            return;
        }
        match self.fetch().await {
            Ok(run) => {
                println!("      run {}: {}", run.serial, printable(&self.api.page(&run.id)));
                println!("      to follow it: longshore watch {}{}", run.serial, self.api.server_flag());
            }
            Err(error) => {
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
        if run.why.is_some() {
            return run.why;
        }
        let waiting = run.jobs.iter().filter(|job| matches!(job.phase.as_str(), "waiting" | "queued"));
        let whys = waiting.filter_map(|job| Some(format!("{}: {}", job.name, job.why.as_deref()?)));
        Some(whys.collect::<Vec<_>>().join("; ")).filter(|whys| !whys.is_empty())
    }

    /// Prints how to follow a run that has no number yet.
    #[allow(clippy::print_stdout)]
    pub(crate) fn print_follow_hint(&self) {
        println!("      to follow it: longshore watch {}{}", self.job, self.api.server_flag());
    }

    /// Prints the jobs that failed, if the coordinator knows.
    #[allow(clippy::print_stdout)]
    pub(crate) async fn print_failures(&self) {
        let Ok(run) = self.fetch().await else { return };
        for job in run.jobs.iter().filter(|job| job.conclusion.as_deref() == Some("failure")) {
            println!("      {}: {}", printable(&job.name), printable(&with_reason("failure", job.why.as_deref())));
            println!(
                "      its log: longshore logs {} --job {}{}",
                run.serial,
                printable(&job.key),
                self.api.server_flag()
            );
        }
    }

    async fn fetch(&self) -> Result<RunState> {
        let path = format!("/api/runs/{}", self.job);
        let answer = tokio::time::timeout(PATIENCE, self.api.get(&path)).await;
        answer.with_context(|| format!("{} does not answer", self.api.base()))?
    }
}
