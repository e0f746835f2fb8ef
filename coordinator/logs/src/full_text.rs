//! The log of a run as text: complete, or in the form of act, shortened for its viewer.

use std::path::PathBuf;

use bytes::Bytes;
use futures::{Stream, StreamExt, TryFutureExt, TryStreamExt, stream};
use workflow::plan::{Conclusion, Reason};

use super::{
    Logs, act_format, name,
    plain_text::PlainTextWriter,
    record,
    steps::{LIMIT, MOST},
    tail,
};
use domain::id::{JobKey, RunId};
use domain::run::{JobPhase, RunEnd, RunPhase, RunState};

impl Logs {
    /// The text for the viewer of a run whose jobs ended. `full_url` is named where lines are left out.
    pub async fn act_text(&self, state: &RunState, full_url: &str) -> anyhow::Result<String> {
        let planned = state.planned.as_ref();
        let head = act_format::Head {
            workflow: planned.map_or(state.request.workflow.as_str(), |planned| &planned.plan.name),
            commit: planned.map_or(state.request.commit.as_str(), |planned| planned.commit.as_str()),
            reference: planned.map_or("", |planned| &planned.reference),
            full_url,
        };
        if state.jobs.is_empty() {
            let end = match &state.phase {
                RunPhase::Finalizing { end } | RunPhase::Done { end, .. } => Some(end),
                RunPhase::Planning | RunPhase::Waiting { .. } | RunPhase::Active => None,
            };
            let text = state.message.clone().unwrap_or_else(|| message(end));
            return Ok(act_format::render_message(&head, &text));
        }
        let mut jobs: Vec<act_format::JobLog> = Vec::with_capacity(state.jobs.len());
        let mut room = LIMIT;
        for (key, job) in &state.jobs {
            let raw = planned.and_then(|planned| state.written(planned, job)?.name.as_deref());
            let mut printed = act_format::Printed::within(room);
            if let Some(attempt) = job.attempts.last() {
                self.each(&state.id, key, attempt.number, |records| printed.push(records)).await?;
            }
            let (conclusion, reason) = match &job.phase {
                JobPhase::Done { conclusion, reason, .. } => (*conclusion, reason.as_ref().and_then(error_line)),
                _ => (Conclusion::Cancelled, None),
            };
            jobs.push(act_format::JobLog {
                label: act_format::job_label(&job.id, raw, &job.name, &job.cell),
                conclusion,
                reason,
                printed,
            });
            // All jobs share what the viewer takes.
            while jobs.iter().map(|job| job.printed.bytes()).sum::<usize>() > MOST && room > 1 {
                room /= 2;
                jobs.iter_mut().for_each(|job| job.printed.shrink(room));
            }
        }
        Ok(act_format::render(&head, jobs))
    }

    /// Every line of one attempt so far, as in [`Self::full_text`] but without a heading.
    pub fn attempt_text(
        &self,
        run: &RunId,
        job: &JobKey,
        attempt: u32,
    ) -> impl Stream<Item = anyhow::Result<Bytes>> + Send + use<> {
        let folder = self.folder.join(name::escape(run.as_str())).join(name::escape(job.as_str()));
        attempt_lines(folder.join(attempt.to_string()), u64::MAX)
    }

    /// Every line of every attempt so far, one attempt after the other, as it is read. What stands before each line may make
    /// it much longer than the log: of one that it makes more than four times as long, the end is left out, and that is said.
    /// `of`: of this job and attempt alone.
    pub fn full_text(
        &self,
        run: &RunId,
        of: Option<(JobKey, u32)>,
    ) -> impl Stream<Item = anyhow::Result<Bytes>> + Send + use<> {
        let folder = self.folder.join(name::escape(run.as_str()));
        let listed = tail::attempts(folder.clone()).map_ok(move |mut attempts| {
            if let Some((job, attempt)) = &of {
                attempts.retain(|(one, number, _)| one == job && number == attempt);
            }
            attempts
        });
        let attempts = listed.map_ok(|attempts| stream::iter(attempts.into_iter().map(Ok))).try_flatten_stream();
        let text = move |(job, attempt, length): (JobKey, u32, u64)| {
            let path = folder.join(name::escape(job.as_str())).join(attempt.to_string());
            let heading = (length > 0).then(|| Ok(PlainTextWriter::heading(&job, attempt).into()));
            stream::iter(heading).chain(attempt_lines(path, length))
        };
        attempts.map_ok(text).try_flatten()
    }
}

/// How many times as long as a log its text may be, and bytes besides.
const LONGER: u64 = 4;
const BESIDES: u64 = 4 << 20;
/// Said where more is left out.
const LEFT_OUT: &str = "[the rest is left out here: its lines are so short that their times take most of the text]\n";

/// The lines in the first `length` bytes of an attempt's log.
fn attempt_lines(path: PathBuf, length: u64) -> impl Stream<Item = anyhow::Result<Bytes>> + Send {
    let room = length.saturating_mul(LONGER).saturating_add(BESIDES);
    stream::try_unfold(Some((path, 0, room, PlainTextWriter::default())), move |state| async move {
        let Some((path, offset, room, mut writer)) = state else { return Ok(None) };
        let piece = tail::whole_records(&path, offset, length).await?;
        if piece.is_empty() {
            return Ok(Some((writer.finish().into(), None)));
        }
        let part = writer.write(&record::decode(&piece).records);
        match room.checked_sub(part.len() as u64) {
            Some(room) => Ok(Some((Bytes::from(part), Some((path, offset + piece.len() as u64, room, writer))))),
            None => Ok(Some((Bytes::from_static(LEFT_OUT.as_bytes()), None))),
        }
    })
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
