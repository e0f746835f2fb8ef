//! What is seen from outside while a simulation runs, and the first thing that was wrong.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use workflow::plan::JobReport;

use crate::clock;

/// Longer than any fault lasts, but for that of a relay, with what follows from it.
const CALM: Duration = Duration::from_secs(300);

/// What a seed did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Summary {
    /// Runs that were asked for.
    pub runs: usize,
    /// Attempts that were assigned.
    pub attempts: usize,
    /// Lives of the coordinator after its first.
    pub restarts: usize,
    /// Faults of any kind, restarts included.
    pub faults: usize,
    /// Simulated time.
    pub simulated: Duration,
    /// Hash of everything that happened, with its times: two runs of one seed have the same.
    pub trace: u64,
}

/// An attempt as the worker protocol names it.
pub(crate) type AttemptKey = (String, String, u32);

/// Shared by all parts of a simulation.
#[derive(Debug, Clone, Default)]
pub(crate) struct Observer(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    trace: DefaultHasher,
    lines: Option<Vec<String>>,
    summary: Summary,
    /// Attempts that a worker got.
    assigned: BTreeSet<AttemptKey>,
    /// Reports that a coordinator acknowledged.
    acknowledged: BTreeMap<AttemptKey, JobReport>,
    /// Run ids by the order in which they were first met: the ids themselves differ from process to process.
    numbers: BTreeMap<String, usize>,
    violation: Option<String>,
    last_fault: Duration,
}

impl Observer {
    /// With everything that happens as text, for one seed that is looked at.
    pub(crate) fn with_lines() -> Self {
        Self(Arc::new(Mutex::new(Seen { lines: Some(Vec::new()), ..Seen::default() })))
    }

    /// Something happened.
    pub(crate) fn note(&self, text: &str) {
        let mut seen = self.0.lock();
        let at = clock::elapsed();
        (at, text).hash(&mut seen.trace);
        if let Some(lines) = &mut seen.lines {
            lines.push(format!("{:>10.3} {text}", at.as_secs_f64()));
        }
    }

    /// A short name of a run, the same in each repetition.
    pub(crate) fn run(&self, id: &str) -> String {
        let mut seen = self.0.lock();
        let next = seen.numbers.len() + 1;
        format!("run {}", seen.numbers.entry(id.to_owned()).or_insert(next))
    }

    pub(crate) fn requested(&self) {
        self.0.lock().summary.runs += 1;
    }

    /// A worker got a job.
    pub(crate) fn assigned(&self, attempt: AttemptKey) {
        let mut seen = self.0.lock();
        seen.summary.attempts += 1;
        seen.assigned.insert(attempt);
    }

    pub(crate) fn was_assigned(&self, attempt: &AttemptKey) -> bool {
        self.0.lock().assigned.contains(attempt)
    }

    pub(crate) fn fault(&self, what: &str) {
        self.note(what);
        let mut seen = self.0.lock();
        seen.summary.faults += 1;
        seen.last_fault = clock::elapsed();
    }

    /// Whether no fault began for so long that each is over and its traces are gone.
    pub(crate) fn is_calm(&self) -> bool {
        clock::elapsed().saturating_sub(self.0.lock().last_fault) > CALM
    }

    pub(crate) fn restarted(&self) {
        self.0.lock().summary.restarts += 1;
    }

    /// A worker was told that its report counts.
    pub(crate) fn acknowledged(&self, attempt: AttemptKey, report: JobReport) {
        self.0.lock().acknowledged.insert(attempt, report);
    }

    pub(crate) fn acknowledgements(&self) -> BTreeMap<AttemptKey, JobReport> {
        self.0.lock().acknowledged.clone()
    }

    /// Something must not be. The first counts.
    pub(crate) fn violated(&self, what: impl Into<String>) {
        let mut seen = self.0.lock();
        let at = clock::elapsed().as_secs_f64();
        seen.violation.get_or_insert_with(|| format!("after {at:.3} s: {}", what.into()));
    }

    pub(crate) fn is_violated(&self) -> bool {
        self.0.lock().violation.is_some()
    }

    /// Everything that happened, a line each.
    pub(crate) fn text(&self) -> String {
        self.0.lock().lines.iter().flatten().map(|line| format!("{line}\n")).collect()
    }

    /// What it was, or that nothing was.
    pub(crate) fn finish(&self) -> Result<Summary, String> {
        let seen = self.0.lock();
        let summary = Summary { simulated: clock::elapsed(), trace: seen.trace.finish(), ..seen.summary.clone() };
        match &seen.violation {
            None => Ok(summary),
            Some(violation) => Err(violation.clone()),
        }
    }
}
