//! What a coordinator takes while it is flooded, and what it answers.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Result;
use parking_lot::Mutex;
use tokio::task::JoinHandle;

use super::{resident_mib, threads};
use crate::harness::{client::kind, raw_relay::Subscriber};

/// How often a process is looked at.
const LOOK: Duration = Duration::from_millis(250);

/// The most that a process took since it is watched.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Peak {
    pub(super) mib: u64,
    pub(super) threads: u64,
}

/// Watches a process until it is dropped.
pub(super) struct ProcessWatch {
    peak: Arc<Mutex<Peak>>,
    task: JoinHandle<()>,
}

impl ProcessWatch {
    pub(super) fn start(process: u32) -> Self {
        let peak = Arc::<Mutex<Peak>>::default();
        let noted = peak.clone();
        let task = tokio::spawn(async move {
            while let Ok(now) = usage_of(process) {
                {
                    let mut peak = noted.lock();
                    peak.mib = peak.mib.max(now.mib);
                    peak.threads = peak.threads.max(now.threads);
                }
                tokio::time::sleep(LOOK).await;
            }
        });
        Self { peak, task }
    }

    pub(super) fn peak(&self) -> Peak {
        *self.peak.lock()
    }
}

impl Drop for ProcessWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What a process takes now: resident memory and threads.
pub(super) fn usage_of(process: u32) -> Result<Peak> {
    Ok(Peak { mib: resident_mib(process)?, threads: threads(process)? })
}

/// When answers to jobs came to a relay, by the id of the job's event.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The first status `running`.
    pub(super) running: HashMap<String, Instant>,
    /// The result.
    pub(super) ended: HashMap<String, Instant>,
    /// Results that say why a job failed.
    pub(super) refused: usize,
}

/// Hears answers until it is dropped.
pub(super) struct AnswerWatch {
    answers: Arc<Mutex<Answers>>,
    task: JoinHandle<()>,
}

impl AnswerWatch {
    pub(super) async fn start(relay: &str) -> Result<Self> {
        let mut subscriber = Subscriber::connect(relay, &[kind::STATUS, kind::RESULT]).await?;
        let answers = Arc::<Mutex<Answers>>::default();
        let noted = answers.clone();
        let task = tokio::spawn(async move {
            while let Ok(event) = subscriber.next().await {
                let tag = |name: &str| {
                    let tags = event["tags"].as_array()?.iter();
                    tags.filter(|tag| tag[0] == name).find_map(|tag| tag[1].as_str().map(str::to_owned))
                };
                let Some(job) = tag("e") else { continue };
                let mut answers = noted.lock();
                if event["kind"] == kind::RESULT {
                    answers.refused += usize::from(tag("success").is_some_and(|word| word == "false"));
                    answers.ended.entry(job).or_insert_with(Instant::now);
                } else if tag("status").is_some_and(|word| word == "running") {
                    answers.running.entry(job).or_insert_with(Instant::now);
                }
            }
        });
        Ok(Self { answers, task })
    }

    /// Looks at the answers so far.
    pub(super) fn look<T>(&self, at: impl FnOnce(&Answers) -> T) -> T {
        at(&self.answers.lock())
    }

    /// Waits until all these jobs have their results. Returns how many have none after `limit`.
    pub(super) async fn until_ended(&self, jobs: &[String], limit: Duration) -> usize {
        let until = Instant::now() + limit;
        loop {
            let missing = self.look(|answers| jobs.iter().filter(|job| !answers.ended.contains_key(*job)).count());
            if missing == 0 || Instant::now() > until {
                return missing;
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Drop for AnswerWatch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
