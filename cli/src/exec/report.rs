//! What `exec` prints: the log as it comes, and the result for people or as JSON.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result};
use console::strip_ansi_codes;
use domain::id::JobKey;
use domain::run::{JobPhase, RunPhase, RunState, explain_job};
use logs::concurrent::ConcurrentSteps;
use parking_lot::Mutex;
use serde_json::{Value, json};
use worker::log::{LogStream, Record};
use workflow::plan::{Conclusion, JobReport};

use super::{
    ending::{self, FailedStep},
    view::{View, ViewMode},
};
use crate::terminal::{
    log_lines,
    printable::{output_lines, printable},
    tree::duration,
};

/// Bytes of one job's log that the JSON object carries.
const KEPT: usize = 64 << 20;

/// The logs of all jobs.
pub(super) struct RunLogs {
    pub(super) view: Arc<View>,
    jobs: Mutex<BTreeMap<String, Arc<JobLog>>>,
}

/// One job's log.
pub(super) struct JobLog {
    name: String,
    view: Arc<View>,
    state: Mutex<LogText>,
}

#[derive(Default)]
struct LogText {
    /// The whole log, one line each.
    all: String,
    /// The unended line of each step and stream.
    open: BTreeMap<(i32, i32), Vec<u8>>,
    beside: ConcurrentSteps,
    failed: FailedStep,
}

impl RunLogs {
    pub(super) fn new(mode: ViewMode) -> Self {
        Self { view: View::new(mode), jobs: Mutex::default() }
    }

    pub(super) fn job(&self, key: &str, name: &str) -> Arc<JobLog> {
        let log = Arc::new(JobLog { name: name.to_owned(), view: self.view.clone(), state: Mutex::default() });
        self.jobs.lock().insert(key.to_owned(), log.clone());
        log
    }

    fn text(&self, key: &str) -> String {
        let jobs = self.jobs.lock();
        jobs.get(key).map(|log| log.state.lock().all.clone()).unwrap_or_default()
    }

    /// What the first step of a job that failed printed last.
    fn last_lines(&self, key: &str) -> Vec<String> {
        let jobs = self.jobs.lock();
        jobs.get(key).map(|log| log.state.lock().failed.lines()).unwrap_or_default()
    }
}

impl JobLog {
    /// Takes one record: whole lines are printed and kept.
    pub(super) fn take(&self, record: &Record) {
        let mut text = self.state.lock();
        if let Some(mark) = &record.mark {
            let others = text.open.split_off(&(record.step.saturating_add(1), i32::MIN));
            let own = text.open.split_off(&(record.step, i32::MIN));
            text.open.extend(others);
            for ((step, stream), rest) in own {
                self.line(&mut text, (step, stream), &String::from_utf8_lossy(&rest));
            }
            text.beside.mark(record.step, &mark.name, mark.ended);
            let line = match mark.ended {
                false => log_lines::step_begins(&mark.name),
                true => log_lines::step_ends(&mark.name, &mark.conclusion, mark.duration_ms),
            };
            if mark.ended {
                text.failed.ended(record.step, &mark.conclusion);
            }
            self.view.line(&self.name, &line);
            text.keep(&strip_ansi_codes(&line));
        }
        let place = (record.step, record.stream);
        let mut open = text.open.remove(&place).unwrap_or_default();
        open.extend_from_slice(&record.text);
        while let Some(end) = open.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = open.drain(..=end).collect();
            let line = String::from_utf8_lossy(&line);
            output_lines(&line).for_each(|line| self.line(&mut text, place, line));
        }
        if !open.is_empty() {
            text.open.insert(place, open);
        }
    }

    /// A line of a step, which is named where steps print beside each other.
    fn line(&self, text: &mut LogText, (step, stream): (i32, i32), line: &str) {
        text.keep(line);
        let is_notice = stream == i32::from(LogStream::Notice);
        let shown = if is_notice { log_lines::notice(line) } else { log_lines::output(line) };
        let Some(shown) = shown else { return };
        match text.beside.name(step).map(|step| format!("{} / {step}", self.name)) {
            Some(name) => self.view.line(&name, &shown),
            None => self.view.line(&self.name, &shown),
        }
        // What is run stands in the workflow.
        if !is_notice {
            text.failed.printed(step, shown);
        }
    }
}

impl LogText {
    fn keep(&mut self, line: &str) {
        if self.all.len() + line.len() < KEPT {
            self.all.push_str(line);
            self.all.push('\n');
        }
    }
}

/// The result of a run.
pub(super) struct RunReport {
    json: Value,
    text: String,
    code: u8,
}

impl RunReport {
    /// The workflow was refused before any job ran.
    pub(super) fn invalid(message: String) -> Self {
        let json = json!({"conclusion": "invalid", "message": message, "jobs": []});
        Self { json, text: message, code: 2 }
    }

    /// The event does not start the workflow.
    pub(super) fn untriggered(reason: &str) -> Self {
        let json = json!({"conclusion": "none", "message": reason, "jobs": []});
        Self { json, text: format!("nothing to do: {reason}"), code: 0 }
    }

    /// A run that ended.
    pub(super) fn of(
        state: &RunState,
        reports: &HashMap<JobKey, Box<JobReport>>,
        logs: &RunLogs,
        duration_ms: u64,
    ) -> Self {
        let (conclusion, reason) = match &state.phase {
            RunPhase::Done { end, .. } | RunPhase::Finalizing { end } => (end.conclusion, end.reason.clone()),
            _ => (Conclusion::Failure, None),
        };
        let jobs: Vec<Value> =
            state.jobs.iter().map(|(key, job)| job_json(key, job, reports.get(key).map(AsRef::as_ref), logs)).collect();
        let reason = reason.as_ref().map(ToString::to_string);
        let message = state.message.clone();
        let planned = state.planned.as_ref();
        let json = json!({
            "title": planned.and_then(|planned| planned.title.clone()),
            "conclusion": conclusion.as_str(),
            "reason": reason,
            "message": message,
            "duration_ms": duration_ms,
            "workflows": planned.map(|planned| planned.origins.clone()).unwrap_or_default(),
            "jobs": jobs,
        });
        let code = match conclusion {
            Conclusion::Success | Conclusion::Skipped => 0,
            Conclusion::Failure => 1,
            Conclusion::Cancelled => 130,
        };
        let mut text = String::new();
        for (key, job) in &state.jobs {
            let why = explain_job(state, key);
            text.push_str(&ending::job(job, why.as_deref(), reports.get(key).map(AsRef::as_ref), logs.view.is_tree()));
        }
        let failed: Vec<_> = state.jobs.iter().filter(|(_, job)| ending::is_failed(job)).collect();
        for (key, job) in failed.iter().take(ending::SHOWN) {
            let report = reports.get(*key).map(AsRef::as_ref);
            text.push_str(&ending::failure(job, report, &logs.last_lines(key.as_str())));
        }
        let cause = match (failed.len(), &message, &reason) {
            (0, Some(message), _) => format!(": {message}"),
            (0, None, Some(reason)) => format!(": {reason}"),
            (0, None, None) => String::new(),
            (failed, ..) => format!(": {failed} of {} jobs failed", state.jobs.len()),
        };
        text.push_str(&format!("{} after {}{}", conclusion.as_str(), duration(duration_ms), printable(&cause)));
        Self { json, text, code }
    }

    /// Prints it, and gives the exit code.
    pub(super) fn print(&self, json: bool) -> Result<ExitCode> {
        let printed = if json {
            writeln!(io::stdout(), "{}", serde_json::to_string_pretty(&self.json)?)
        } else {
            match io::stderr().is_terminal() {
                true => writeln!(io::stderr(), "{}", self.text),
                false => writeln!(io::stderr(), "{}", strip_ansi_codes(&self.text)),
            }
        };
        match printed {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error).context("the result can't be printed"),
            _ => Ok(ExitCode::from(self.code)),
        }
    }
}

fn job_json(key: &JobKey, job: &::domain::run::Job, report: Option<&JobReport>, logs: &RunLogs) -> Value {
    let (conclusion, reason) = match &job.phase {
        JobPhase::Done { conclusion, reason, .. } => (Some(conclusion.as_str()), reason.clone()),
        _ => (None, None),
    };
    let duration_ms = report.map(|report| report.finished_at_ms.saturating_sub(report.started_at_ms));
    let report = report.map(|report| serde_json::to_value(report).unwrap_or_default()).unwrap_or_default();
    json!({
        "id": job.id,
        "key": key,
        "name": job.name,
        "matrix": job.cell.matrix,
        "conclusion": conclusion,
        "tolerated": job.tolerated,
        "reason": reason.as_ref().map(ToString::to_string),
        "outputs": report["outputs"],
        "steps": report["steps"],
        "duration_ms": duration_ms,
        "environment": report["environment"],
        "annotations": report["annotations"],
        "summary": report["summary"],
        "actions": report["actions"],
        "attempts": job.attempts.len(),
        "log": logs.text(key.as_str()),
    })
}
