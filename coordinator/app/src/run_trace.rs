//! The coordinator's spans of a run: the run, its planning, its jobs and their attempts. Pure.
//!
//! Workers add what happened in an attempt; the ids fit by construction.

use domain::id::{JobKey, RunId};
use domain::run::{Job, JobPhase, Millis, RunPhase, RunState};
use telemetry::{Span, SpanKey};
use workflow::plan::Conclusion;

/// What ended with a change of a run: `before` is its version before that.
pub(crate) fn spans(before: &RunState, after: &RunState, now: Millis) -> Vec<Span> {
    let mut spans = Vec::new();
    if before.planned.is_none() && after.planned.is_some() {
        let times = (after.request.received_at, now);
        spans.push(Span::new(after.id.as_str(), SpanKey::RunPart("plan"), "plan", times));
    }
    for (key, job) in &after.jobs {
        if let Some(before) = before.jobs.get(key) {
            job_spans(&after.id, key, (before, job), now, &mut spans);
        }
    }
    if let (RunPhase::Done { end, .. }, false) = (&after.phase, matches!(before.phase, RunPhase::Done { .. })) {
        let request = &after.request;
        let name = after.planned.as_ref().map_or(request.workflow.as_str(), |planned| &planned.plan.name);
        let mut run = Span::new(after.id.as_str(), SpanKey::Run, name, (request.received_at, now))
            .with("longshore.repository", &request.repository.address)
            .with("longshore.conclusion", end.conclusion.as_str());
        if let Some(origin) = request.origin.nostr() {
            run = run.with("longshore.event", &origin.request.id);
        }
        spans.push(concluded(run, end.conclusion));
    }
    spans
}

fn job_spans(run: &RunId, key: &JobKey, (before, after): (&Job, &Job), now: Millis, spans: &mut Vec<Span>) {
    for (index, attempt) in after.attempts.iter().enumerate() {
        let times = (attempt.accepted_at, now);
        let span = || {
            let name = format!("attempt {}", attempt.number);
            let span = Span::new(run.as_str(), SpanKey::Attempt(key.as_str(), attempt.number), name, times);
            span.with("longshore.job", key.as_str()).with("longshore.worker", &attempt.worker)
        };
        let was_lost = before.attempts.get(index).is_some_and(|attempt| attempt.lost.is_some());
        if attempt.lost.is_some() && !was_lost {
            spans.push(span().failed("lost"));
        } else if let (Some(conclusion), None, true) = (end(after), end(before), index + 1 == after.attempts.len()) {
            spans.push(concluded(span(), conclusion));
        }
    }
    if let (JobPhase::Queued { since, .. }, true) = (&before.phase, after.attempts.len() > before.attempts.len()) {
        let part = format!("queued {key} {}", after.attempts.len());
        spans.push(Span::new(run.as_str(), SpanKey::RunPart(&part), format!("queued {}", after.name), (*since, now)));
    }
    if let (Some(conclusion), None, Some(first)) = (end(after), end(before), after.attempts.first()) {
        let job = Span::new(run.as_str(), SpanKey::Job(key.as_str()), &after.name, (first.accepted_at, now));
        spans.push(concluded(job.with("longshore.job", key.as_str()), conclusion));
    }
}

fn end(job: &Job) -> Option<Conclusion> {
    match &job.phase {
        JobPhase::Done { conclusion, .. } => Some(*conclusion),
        _ => None,
    }
}

fn concluded(span: Span, conclusion: Conclusion) -> Span {
    match conclusion {
        Conclusion::Failure | Conclusion::Cancelled => span.failed(conclusion.as_str()),
        Conclusion::Success | Conclusion::Skipped => span,
    }
}

#[cfg(test)]
mod tests {
    use domain::run::{
        RunEvent,
        testing::{TestRun, job},
    };

    use super::*;

    #[test]
    fn a_job_that_was_lost_once_has_two_attempts_in_the_trace_of_its_run() {
        let mut run = TestRun::with(vec![("build", job(&[]))]);
        let mut names = Vec::new();
        let mut before = run.state.clone();
        let mut step = |run: &TestRun| {
            names.extend(
                spans(&before, &run.state, run.now).iter().map(|span| (span.name().to_owned(), span.duration_ms())),
            );
            before = run.state.clone();
        };
        let attempt = run.accept("build", "w1");
        step(&run);
        run.lose("build", attempt);
        step(&run);
        let attempt = run.accept("build", "w2");
        step(&run);
        assert!(run.apply(RunEvent::Begun { job: "build".into(), attempt }).is_ok());
        step(&run);
        run.finish("build", attempt, domain::run::testing::report(Conclusion::Success, None));
        step(&run);
        let expected =
            [("queued build", 1000), ("attempt 1", 1000), ("queued build", 1000), ("attempt 2", 2000), ("build", 4000)];
        assert_eq!(names.iter().map(|(name, ms)| (name.as_str(), *ms)).collect::<Vec<_>>(), expected);
    }
}
