//! The texts of a whole run: for the Hive CI viewer, and complete.

use bytes::Bytes;
use futures::{Stream, stream};
use workflow::plan::{Conclusion, Reason};

use super::{Logs, Positions, act, record, text};
use domain::run::{JobPhase, RunEnd, RunPhase, RunState};

impl Logs {
    /// The text for the viewer of a run whose jobs ended. `full_url` is named where lines are left out.
    pub async fn act_text(&self, state: &RunState, full_url: &str) -> anyhow::Result<String> {
        let planned = state.planned.as_ref();
        let head = act::Head {
            workflow: planned.map_or(state.request.workflow.as_str(), |planned| &planned.plan.name),
            commit: planned.map_or(state.request.commit.as_str(), |planned| &planned.commit),
            reference: planned.map_or("", |planned| &planned.reference),
            full_url,
        };
        if state.jobs.is_empty() {
            let end = match &state.phase {
                RunPhase::Finalizing { end } | RunPhase::Done { end, .. } => Some(end),
                RunPhase::Planning | RunPhase::Waiting { .. } | RunPhase::Active => None,
            };
            let text = state.message.clone().unwrap_or_else(|| message(end));
            return Ok(act::render_message(&head, &text));
        }
        let mut jobs = Vec::with_capacity(state.jobs.len());
        for (key, job) in &state.jobs {
            let raw = planned.and_then(|planned| state.written(planned, job)?.name.as_deref());
            let mut printed = act::Printed::default();
            if let Some(attempt) = job.attempts.last() {
                self.each(&state.id, key, attempt.number, |records| printed.push(records)).await?;
            }
            let (conclusion, reason) = match &job.phase {
                JobPhase::Done { conclusion, reason, .. } => (*conclusion, reason.as_ref().and_then(error_line)),
                _ => (Conclusion::Cancelled, None),
            };
            jobs.push(act::JobLog {
                label: act::job_label(&job.id, raw, &job.name, &job.cell),
                conclusion,
                reason,
                printed,
            });
        }
        Ok(act::render(&head, jobs))
    }

    /// Every line of every attempt so far, as it is read.
    pub fn full_text(&self, run: &str) -> impl Stream<Item = anyhow::Result<Bytes>> + Send + use<> {
        let tail = self.tail(run, Positions::default());
        let start = Some((tail, text::Writer::default(), None::<(String, u32)>));
        stream::try_unfold(start, async |state| {
            let Some((mut tail, mut writer, last)) = state else { return Ok(None) };
            let Some(piece) = tail.read().await? else { return Ok(Some((writer.finish().into(), None))) };
            let of = (piece.job, piece.attempt);
            let mut part = String::new();
            if last.as_ref() != Some(&of) {
                part.push_str(&writer.finish());
                part.push_str(&text::Writer::heading(&of.0, of.1));
            }
            part.push_str(&writer.write(&record::decode(&piece.bytes).records));
            Ok(Some((Bytes::from(part), Some((tail, writer, Some(of))))))
        })
    }
}

fn message(end: Option<&RunEnd>) -> String {
    match end {
        Some(RunEnd { conclusion: Conclusion::Success | Conclusion::Skipped, .. }) => "Nothing was to be run.".into(),
        Some(RunEnd { reason: Some(reason), .. }) => format!("The run failed: {reason}."),
        _ => "The run ended before any job was planned.".into(),
    }
}

/// The line that ends a job's log; `None` for a failed step, whose own line says it.
fn error_line(reason: &Reason) -> Option<String> {
    match reason {
        Reason::Step => None,
        _ => Some(reason.to_string()),
    }
}
