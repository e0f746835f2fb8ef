//! Why a job waits or was skipped, and what of a run failed, as text for people. Pure.

use workflow::plan::Conclusion;

use super::{Job, JobPhase, RunState};
use crate::id::JobKey;

/// Functions by which a condition can hold although a needed job did not succeed.
const STATUS: [&str; 3] = ["always()", "failure()", "cancelled()"];
/// Most names in one sentence.
const NAMED: usize = 5;
/// Characters of a job's name in a list.
const LONGEST: usize = 100;

/// Why a job without a reason of its own has not begun, or was skipped, as a sentence for people.
pub fn explain_job(state: &RunState, key: &JobKey) -> Option<String> {
    let job = state.jobs.get(key)?;
    match &job.phase {
        JobPhase::Blocked => Some(blocked(state, key)),
        JobPhase::Held => Some(match job.max_parallel {
            Some(most) => format!("waits for other jobs of its matrix: at most {most} run at a time (max-parallel)"),
            None => "waits for other jobs of its matrix".into(),
        }),
        JobPhase::Done { conclusion: Conclusion::Skipped, reason: None, .. } => Some(left_out(state, key, job)),
        _ => None,
    }
}

/// The job, and the step of it, that failed a run: `test (linux) · Run tests and 2 more jobs`. None where no job did.
pub fn explain_failure(state: &RunState) -> Option<String> {
    let is_failure = |job: &Job| matches!(job.phase, JobPhase::Done { conclusion: Conclusion::Failure, .. });
    let mut failed = state.jobs.values().filter(|job| is_failure(job) && !job.tolerated);
    let first = failed.next()?;
    let name: String = first.name.chars().take(LONGEST).collect();
    let step = first.outcome().and_then(|outcome| outcome.failed_step.as_deref());
    let step = step.map(|step| format!(" · {}", step.strip_prefix("Main ").unwrap_or(step))).unwrap_or_default();
    Some(match failed.count() {
        0 => format!("{name}{step}"),
        1 => format!("{name}{step} and 1 more job"),
        more => format!("{name}{step} and {more} more jobs"),
    })
}

fn blocked(state: &RunState, key: &JobKey) -> String {
    let open = needed(state, key, |need| need.conclusion().is_none());
    match open.is_empty() {
        true => "waits for the jobs it needs".into(),
        false => format!("waits for {}", listed(&open)),
    }
}

fn left_out(state: &RunState, key: &JobKey, job: &Job) -> String {
    let written = state.planned.as_ref().and_then(|planned| state.written(planned, job));
    let condition = written.and_then(|written| written.condition.as_deref());
    let decides = condition.is_some_and(|condition| STATUS.iter().any(|status| condition.contains(status)));
    let missed = needed(state, key, |need| need.conclusion().is_some_and(|how| how != Conclusion::Success));
    match condition {
        _ if !missed.is_empty() && !decides => format!("skipped: {}", listed(&missed)),
        _ if state.cancelled.is_some() && !decides => "skipped: the run was cancelled".into(),
        Some(condition) => format!("skipped: its condition does not hold: {condition}"),
        None => "skipped: a job before it did not succeed".into(),
    }
}

/// Names of the needed jobs for which `so` holds, with their conclusions.
fn needed(state: &RunState, key: &JobKey, so: impl Fn(&Job) -> bool) -> Vec<String> {
    let needs = state.needed_by(key).into_iter().filter_map(|need| state.jobs.get(need)).filter(|need| so(need));
    let named = needs.map(|need| match need.conclusion() {
        Some(Conclusion::Failure) => format!("{} failed", need.name),
        Some(how) => format!("{} was {}", need.name, how.as_str()),
        None => need.name.clone(),
    });
    named.collect()
}

fn listed(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMED);
    let shown = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join("; ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use workflow::plan::{Conclusion, JobReport, Reason, StepReport};

    use super::super::{
        RunEvent,
        testing::{TestRun, job, job_if, report},
    };

    #[test]
    fn each_wait_and_each_job_left_out_says_why() {
        let mut run = TestRun::with(vec![
            ("build", job(&[])),
            ("test", job(&["build"])),
            ("deploy", job_if(&["build"], "github.ref == 'refs/heads/x'")),
            ("tell", job_if(&["test"], "always()")),
            ("last", job(&["tell", "test"])),
        ]);
        let why = |run: &TestRun, key: &str| job_why(run, key);
        assert_eq!(why(&run, "last").unwrap(), "waits for tell; test");
        assert_eq!(why(&run, "build"), None, "its phase has the reason");
        run.run("build", Conclusion::Success);
        assert_eq!(why(&run, "deploy").unwrap(), "skipped: its condition does not hold: github.ref == 'refs/heads/x'");
        run.run("test", Conclusion::Failure);
        run.run("tell", Conclusion::Success);
        assert_eq!(why(&run, "last").unwrap(), "skipped: test failed");
        assert_eq!(why(&run, "tell"), None);
        assert_eq!(super::explain_failure(&run.state).unwrap(), "test");

        let mut run = TestRun::with(vec![("build", job(&[])), ("test", job(&["build"]))]);
        run.apply(RunEvent::Cancel { by: "somebody".into() }).unwrap();
        assert_eq!(why(&run, "test").unwrap(), "skipped: build was cancelled");
        assert_eq!(super::explain_failure(&run.state), None);
    }

    #[test]
    fn a_list_names_the_job_and_the_step_that_failed_and_how_many_more() {
        let mut run = TestRun::with(vec![("build", job(&[])), ("test", job(&[])), ("lint", job(&[]))]);
        let attempt = run.accept("test", "w");
        let step = |name: &str, conclusion| StepReport {
            id: None,
            name: name.into(),
            outcome: conclusion,
            conclusion,
            exit_code: None,
            duration_ms: 1,
        };
        let steps = vec![step("Main Build", Conclusion::Success), step("Main Run tests", Conclusion::Failure)];
        run.finish("test", attempt, Box::new(JobReport { steps, ..*report(Conclusion::Failure, Some(Reason::Step)) }));
        run.run("build", Conclusion::Success);
        let text = |run: &TestRun| super::explain_failure(&run.state).unwrap();
        assert_eq!(text(&run), "test · Run tests");
        run.run("lint", Conclusion::Failure);
        assert_eq!(text(&run), "test · Run tests and 1 more job");
    }

    fn job_why(run: &TestRun, key: &str) -> Option<String> {
        super::explain_job(&run.state, &key.into())
    }
}
