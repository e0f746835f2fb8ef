//! A run that was asked for over relays, as its coordinator knows it: its number and page, and which jobs failed.

use std::time::Duration;

use anyhow::{Context as _, Result};
use nostr::Event;

use super::{
    api::{Api, Server},
    because,
    stream::Run,
};
use crate::terminal::printable::printable;

/// How long the coordinator gets for an answer: it is a help only, the relays bring the rest.
const PATIENCE: Duration = Duration::from_secs(5);

/// What was asked for, and whom to ask about it.
pub(crate) struct Asked {
    api: Api,
    /// Id of the job event, by which the coordinator knows the run.
    job: String,
    /// Which run it is was said, or why that is not known.
    told: bool,
    /// Why it waits, as it was said last.
    why: Option<String>,
}

impl Asked {
    pub(crate) fn of(server: &Server, job: &Event) -> Result<Self> {
        Ok(Self { api: server.connect()?, job: job.id.to_hex(), told: false, why: None })
    }

    /// Says once which run it became.
    #[allow(clippy::print_stdout, clippy::print_stderr)]
    pub(crate) async fn tell(&mut self) {
        if std::mem::replace(&mut self.told, true) {
            return;
        }
        match self.run().await {
            Ok(run) => {
                println!("      run {}: {}", run.serial, printable(&self.api.page(&run.id)));
                println!("      to follow it: longshore watch {}{}", run.serial, self.api.flag());
            }
            Err(error) => {
                let error = printable(&error.to_string());
                eprintln!("      its number and page are not known: {error} (--server names the pool's coordinator)");
            }
        }
    }

    /// Why it waits was said by somebody else.
    pub(crate) fn knows(&mut self, why: &str) {
        if !why.is_empty() {
            self.why = Some(why.to_owned());
        }
    }

    /// Says why it waits, where the coordinator knows and it was not said yet.
    #[allow(clippy::print_stdout)]
    pub(crate) async fn tell_why(&mut self) {
        let why = self.why().await;
        if let Some(why) = why.filter(|why| self.why.as_ref() != Some(why)) {
            println!("      {}", printable(&why));
            self.why = Some(why);
        }
    }

    /// Why it waits: the run as a whole, else each of its jobs that nothing but a worker or somebody's word holds back.
    pub(crate) async fn why(&self) -> Option<String> {
        let run = self.run().await.ok().filter(|run| run.conclusion.is_none())?;
        if run.why.is_some() {
            return run.why;
        }
        let waiting = run.jobs.iter().filter(|job| matches!(job.phase.as_str(), "waiting" | "queued"));
        let whys = waiting.filter_map(|job| Some(format!("{}: {}", job.name, job.why.as_deref()?)));
        Some(whys.collect::<Vec<_>>().join("; ")).filter(|whys| !whys.is_empty())
    }

    /// Says how to follow a run that has no number yet.
    #[allow(clippy::print_stdout)]
    pub(crate) fn tell_how_to_follow(&self) {
        println!("      to follow it: longshore watch {}{}", self.job, self.api.flag());
    }

    /// Says which jobs failed, where the coordinator knows.
    #[allow(clippy::print_stdout)]
    pub(crate) async fn tell_failures(&self) {
        let Ok(run) = self.run().await else { return };
        for job in run.jobs.iter().filter(|job| job.conclusion.as_deref() == Some("failure")) {
            println!("      {}: {}", printable(&job.name), printable(&because("failure", job.why.as_deref())));
            println!("      its log: longshore logs {} --job {}{}", run.serial, printable(&job.key), self.api.flag());
        }
    }

    async fn run(&self) -> Result<Run> {
        let path = format!("/api/runs/{}", self.job);
        let answer = tokio::time::timeout(PATIENCE, self.api.get(&path)).await;
        answer.with_context(|| format!("{} does not answer", self.api.base()))?
    }
}
