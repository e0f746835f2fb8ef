//! The chart of a run's times: a row for each job, how long it was prepared for and how long it ran. Pure; the page draws
//! it as SVG.

use super::{
    graph::{short, word},
    time::span,
};
use domain::run::{JobPhase, Millis, RunPhase, RunState};

/// Left edge of the bars, and width of the longest one, in pixels.
const NAMES: usize = 200;
const BARS: usize = 700;
const ROW: usize = 24;
/// Characters that fit beside the bars.
const LETTERS: usize = 25;
/// Most jobs of a chart.
const DRAWN: usize = 200;

/// A row for each job that began.
#[derive(Debug, Default)]
pub(super) struct Times {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) rows: Vec<Row>,
    pub(super) ticks: Vec<Tick>,
}

/// One job.
#[derive(Debug)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) label: String,
    pub(super) word: &'static str,
    /// As text.
    pub(super) text: String,
    /// How long it ran.
    pub(super) ran: String,
    pub(super) y: usize,
    /// Begin and width.
    pub(super) wait: (usize, usize),
    pub(super) run: (usize, usize),
}

/// A moment on the scale.
#[derive(Debug)]
pub(super) struct Tick {
    pub(super) x: usize,
    pub(super) text: String,
}

impl Times {
    pub(super) fn of(state: &RunState, now: Millis) -> Self {
        let begin = state.created_at;
        let end = match &state.phase {
            RunPhase::Finalizing { end } | RunPhase::Done { end, .. } => end.at,
            _ => now,
        };
        let whole = end.saturating_sub(begin).max(1);
        let place = |at: Millis| {
            let part = u128::from(at.clamp(begin, begin + whole) - begin) * BARS as u128 / u128::from(whole);
            NAMES + usize::try_from(part).unwrap_or(0)
        };
        let mut times = Self { width: NAMES + BARS + 90, ..Self::default() };
        for (_, job) in state.jobs.iter().take(DRAWN) {
            let Some(last) = job.attempts.last() else { continue };
            let started = last.begun_at.unwrap_or(last.accepted_at);
            let ended = match &job.phase {
                JobPhase::Done { outcome: Some(outcome), .. } => outcome.finished_at,
                JobPhase::Done { .. } => end,
                _ => now,
            };
            let bar = |from: usize, to: usize| (from, to.saturating_sub(from).max(2));
            let (waited, ran) = (started.saturating_sub(last.accepted_at), ended.saturating_sub(started));
            times.rows.push(Row {
                name: job.name.clone(),
                label: short(&job.name, LETTERS),
                word: word(job),
                ran: span(ran),
                text: format!("prepared for {}, ran for {}", span(waited), span(ran)),
                y: 20 + times.rows.len() * ROW,
                wait: bar(place(last.accepted_at), place(started)),
                run: bar(place(started), place(ended)),
            });
        }
        times.height = 24 + times.rows.len() * ROW;
        let every = round(whole / 5);
        let tick = |after: u64| Tick { x: place(begin + after), text: span(after) };
        times.ticks = (0..=whole / every).map(|count| tick(count * every)).collect();
        times
    }
}

/// The next round unit of time.
fn round(millis: Millis) -> Millis {
    const SECOND: Millis = 1_000;
    const MINUTE: Millis = 60 * SECOND;
    const HOUR: Millis = 60 * MINUTE;
    let steps = [
        [1, 2, 5, 10, 20, 50, 100, 200, 500],
        [1, 2, 5, 10, 15, 20, 30, 60, 120].map(|seconds| seconds * SECOND),
        [5, 10, 15, 20, 30, 60, 120, 180, 360].map(|minutes| minutes * MINUTE),
    ];
    let fits = steps.into_iter().flatten().find(|step| *step >= millis);
    fits.unwrap_or_else(|| millis.div_ceil(12 * HOUR) * 12 * HOUR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_has_round_steps() {
        let rounded = [(0, 1), (280, 500), (1_001, 2_000), (130_000, 300_000), (400 * 3_600_000, 408 * 3_600_000)];
        assert!(rounded.iter().all(|(millis, step)| round(*millis) == *step));
    }
}
