//! What `exec` says at the end.

use serde_json::{Value, json};

use ::coordinator::run::{self, End, Job, JobPhase, Phase, State};

use super::run::Logs;

/// How the run ended.
pub(super) fn end(state: &State) -> Option<&End> {
    match &state.phase {
        Phase::Done { end, .. } | Phase::Sealing { end } => Some(end),
        _ => None,
    }
}

/// The whole result for programs.
pub(super) fn json(state: &State, end: &End, event: &str, logs: &Logs, diagnostics: &[Value]) -> Value {
    json!({
        "conclusion": end.conclusion,
        "reason": end.reason.as_ref().map(run::sentence),
        "message": state.message,
        "exit_code": end.exit_code,
        "event": event,
        "jobs": state.jobs.iter().map(|(key, found)| job(key, found, logs)).collect::<Vec<_>>(),
        "diagnostics": diagnostics,
    })
}

fn job(key: &str, job: &Job, logs: &Logs) -> Value {
    let (conclusion, reason) = match &job.phase {
        JobPhase::Done { conclusion, reason, .. } => (conclusion.as_str(), reason.as_ref().map(run::sentence)),
        _ => ("", None),
    };
    let report = job.report();
    json!({
        "id": job.id,
        "key": key,
        "name": job.name,
        "matrix": job.leg.matrix,
        "conclusion": conclusion,
        "reason": reason,
        "tolerated": job.tolerated,
        "outputs": report.map(|report| &report.outputs),
        "log": logs.get(key),
        "annotations": report.map_or(&[][..], |report| &report.annotations),
        "summary": report.map_or("", |report| &report.summary),
        "attempts": job.attempts.len(),
        "image": report.and_then(|report| report.image.as_ref()),
        "steps": report.map_or(&[][..], |report| &report.steps),
    })
}

/// A line for each job, and one for all.
pub(super) fn summary(state: &State, end: &End) {
    println!();
    for job in state.jobs.values() {
        if let JobPhase::Done { conclusion, reason, .. } = &job.phase {
            let why = reason.as_ref().map(|reason| format!(": {}", run::sentence(reason))).unwrap_or_default();
            let tolerated = if job.tolerated && job.conclusion() != Some(*conclusion) { " (tolerated)" } else { "" };
            println!("{:10} {}{tolerated}{why}", conclusion.as_str(), job.name);
        }
    }
    if let Some(message) = &state.message {
        eprintln!("{message}");
    }
    println!("{}", end.conclusion.as_str());
}
