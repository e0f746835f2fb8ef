//! The web client (Budabit pipelines): which status a run shows.

use nostr::{Event, PublicKey};

use super::{value, values};

/// A status as the client shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Nothing heard.
    Pending,
    /// Accepted.
    Queued,
    /// Running.
    Running,
    /// A word of other systems.
    InProgress,
    /// Ended well.
    Success,
    /// Ended badly.
    Failure,
    /// Ended by somebody.
    Cancelled,
    /// Not run.
    Skipped,
    /// A word that the client does not know.
    Unknown,
}

/// What the client shows of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Its status.
    pub status: Status,
    /// A failure without a 5402 is a guess: a warning triangle instead of a cross.
    pub inferred: bool,
    /// Seconds, from the 5402 alone.
    pub duration: Option<u64>,
    /// Where the log is fetched from.
    pub log_url: Option<String>,
}

/// The client's memory of one run, filled in the order of arrival.
#[derive(Debug)]
pub struct Ui {
    run: Event,
    job: Option<Event>,
    status: Option<Event>,
    result: Option<Event>,
    run_result: Option<Event>,
}

impl Ui {
    /// Looks at the run of this 5401.
    pub fn new(run: Event) -> Self {
        Self { run, job: None, status: None, result: None, run_result: None }
    }

    /// An event arrives. The layered subscriptions let through 5100 by `e` = run from anybody, 5402 from the run's
    /// `publisher`, 5101 and 30100 from the `p` of the job.
    pub fn receive(&mut self, event: &Event) {
        let run = self.run.id.to_hex();
        let publisher = value(&self.run, "publisher").and_then(|key| PublicKey::from_hex(key).ok());
        let job = self.job.as_ref().map(|job| job.id.to_hex());
        let worker = self.job.as_ref().and_then(|job| PublicKey::from_hex(value(job, "p")?).ok());
        let of_run = values(event, "e").contains(&run.as_str());
        let of_job = job.is_some_and(|job| values(event, "e").contains(&job.as_str())) && worker == Some(event.pubkey);
        let slot = match event.kind.as_u16() {
            5100 if of_run => &mut self.job,
            5402 if of_run && publisher == Some(event.pubkey) => &mut self.run_result,
            5101 if of_job => &mut self.result,
            30100 if of_job => &mut self.status,
            _ => return,
        };
        // The newer wins; of equally old ones the one that arrives later.
        if slot.as_ref().is_none_or(|old| old.created_at <= event.created_at) {
            *slot = Some(event.clone());
        }
    }

    /// Newest 5402, else newest 5101, else newest 30100, else pending.
    pub fn shown(&self) -> Shown {
        let word = |event: &Event| value(event, "status").map_or(Status::Pending, normalise);
        let status = match (&self.run_result, &self.result, &self.status) {
            (Some(event), _, _) => word(event),
            (None, Some(event), _) => {
                let good = value(event, "success") == Some("true") || value(event, "exit_code") == Some("0");
                if good { Status::Success } else { Status::Failure }
            }
            (None, None, Some(event)) => word(event),
            (None, None, None) => Status::Pending,
        };
        let run_result = self.run_result.as_ref();
        Shown {
            status,
            inferred: status == Status::Failure && run_result.is_none(),
            duration: run_result.and_then(|event| value(event, "duration")?.parse().ok()),
            log_url: run_result.and_then(|event| value(event, "log_url").map(str::to_owned)),
        }
    }
}

fn normalise(word: &str) -> Status {
    match word {
        "success" => Status::Success,
        "failed" | "failure" => Status::Failure,
        "running" => Status::Running,
        "queued" => Status::Queued,
        "in_progress" => Status::InProgress,
        "cancelled" => Status::Cancelled,
        "pending" | "" => Status::Pending,
        "skipped" => Status::Skipped,
        _ => Status::Unknown,
    }
}
