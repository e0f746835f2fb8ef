//! Runs and jobs: how many ended and how, and how long it took from the event to each phase.

use std::time::Duration;

use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};

use crate::run_trace;
use domain::id::JobKey;
use domain::run::{Job, JobPhase, Millis, RunPhase, RunState};
use telemetry::Span;
use workflow::plan::Conclusion;

/// Upper bounds in seconds: a millisecond to two hours.
const BUCKETS: [f64; 20] = [
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0,
    3600.0, 7200.0,
];

/// One label and its value.
type Label = [(&'static str, &'static str); 1];

/// Whether a run reached a phase.
type IsReached = fn(&RunState) -> bool;

/// Clones count together.
#[derive(Debug, Clone)]
pub(crate) struct RunMetrics {
    ended: Family<Label, Counter>,
    jobs_ended: Family<Label, Counter>,
    phases: Family<Label, Histogram, fn() -> Histogram>,
}

/// What a run reaches, each timed from the arrival of its request.
const PHASES: [(&str, IsReached); 5] = [
    ("accepted", |_| true),
    ("planned", |state| state.planned.is_some()),
    ("assigned", |state| state.started_at.is_some()),
    ("started", |state| state.jobs.values().flat_map(|job| &job.attempts).any(|attempt| attempt.begun_at.is_some())),
    ("finished", |state| matches!(state.phase, RunPhase::Finalizing { .. } | RunPhase::Done { .. })),
];

impl RunMetrics {
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let histogram: fn() -> Histogram = || Histogram::new(BUCKETS);
        let this = Self {
            ended: Family::default(),
            jobs_ended: Family::default(),
            phases: Family::new_with_constructor(histogram),
        };
        registry.register("runs_ended", "Runs that ended, by conclusion", this.ended.clone());
        registry.register("jobs_ended", "Jobs that ended or were left out, by conclusion", this.jobs_ended.clone());
        registry.register_with_unit(
            "run_phase",
            "Time from the arrival of a request until its run reached a phase",
            Unit::Seconds,
            this.phases.clone(),
        );
        // Every series exists from the start: a rate misses the event with which a series appears.
        for conclusion in [Conclusion::Success, Conclusion::Failure, Conclusion::Cancelled, Conclusion::Skipped] {
            let _ = this.ended.get_or_create(&by_conclusion(conclusion));
            let _ = this.jobs_ended.get_or_create(&by_conclusion(conclusion));
        }
        for phase in PHASES.iter().map(|(phase, _)| *phase) {
            let _ = this.phases.get_or_create(&[("phase", phase)]);
        }
        this
    }

    /// Counts what was committed, and exports its spans.
    pub(crate) fn record(&self, observed: Vec<Observed>, now: Millis) {
        for one in observed {
            for phase in &one.phases {
                self.reached(phase, one.received_at, now);
            }
            if let Some(conclusion) = one.ended {
                self.ended.get_or_create(&by_conclusion(conclusion)).inc();
            }
            for conclusion in &one.jobs_ended {
                self.jobs_ended.get_or_create(&by_conclusion(*conclusion)).inc();
            }
            one.spans.into_iter().for_each(telemetry::emit);
        }
    }

    fn reached(&self, phase: &'static str, received_at: Millis, now: Millis) {
        let elapsed = Duration::from_millis(now.saturating_sub(received_at));
        self.phases.get_or_create(&[("phase", phase)]).observe(elapsed.as_secs_f64());
    }
}

/// What a change of a run is to metrics and traces, once it is committed.
#[derive(Debug)]
pub(crate) struct Observed {
    received_at: Millis,
    phases: Vec<&'static str>,
    ended: Option<Conclusion>,
    jobs_ended: Vec<Conclusion>,
    spans: Vec<Span>,
}

impl Observed {
    /// Compares a run with its version before the change, none for a new run.
    pub(crate) fn of(before: Option<&RunState>, after: &RunState, now: Millis) -> Self {
        let traced = before.filter(|_| telemetry::is_exporting());
        let is_new = |(_, is_reached): &(&str, IsReached)| is_reached(after) && !before.is_some_and(is_reached);
        let had_ended = |key: &JobKey| before.and_then(|before| job_end(before.jobs.get(key)?)).is_some();
        let jobs = after.jobs.iter().filter(|(key, _)| !had_ended(key));
        Self {
            received_at: after.request.received_at,
            phases: PHASES.iter().filter(|phase| is_new(phase)).map(|(phase, _)| *phase).collect(),
            ended: run_end(after).filter(|_| before.and_then(run_end).is_none()),
            jobs_ended: jobs.filter_map(|(_, job)| job_end(job)).collect(),
            spans: traced.map(|before| run_trace::spans(before, after, now)).unwrap_or_default(),
        }
    }
}

fn by_conclusion(conclusion: Conclusion) -> Label {
    [("conclusion", conclusion.as_str())]
}

fn run_end(run: &RunState) -> Option<Conclusion> {
    match &run.phase {
        RunPhase::Done { end, .. } => Some(end.conclusion),
        _ => None,
    }
}

fn job_end(job: &Job) -> Option<Conclusion> {
    match &job.phase {
        JobPhase::Done { conclusion, .. } => Some(*conclusion),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use domain::run::testing::{START, TestRun, job};
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn a_run_is_timed_from_its_request_to_each_phase_once_and_counted_when_it_is_done() {
        let mut registry = Registry::default();
        let metrics = RunMetrics::new(&mut registry);
        let mut run = TestRun::with(vec![("build", job(&[])), ("test", job(&["build"]))]);
        metrics.record(vec![Observed::of(None, &run.state, START)], START + 2000);
        let mut before = run.state.clone();
        for job in ["build", "test"] {
            run.run(job, Conclusion::Success);
            metrics.record(vec![Observed::of(Some(&before), &run.state, START)], START + 4000);
            before = run.state.clone();
        }
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            "run_phase_seconds_sum{phase=\"accepted\"} 2.0",
            "run_phase_seconds_count{phase=\"assigned\"} 1",
            "run_phase_seconds_sum{phase=\"started\"} 4.0",
            "run_phase_seconds_count{phase=\"finished\"} 1",
            "jobs_ended_total{conclusion=\"success\"} 2",
            "runs_ended_total{conclusion=\"failure\"} 0",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
