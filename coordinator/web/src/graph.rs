//! Charts of a run: its jobs by their needs, and by the time they waited and ran. Pure; the page draws them as SVG.

use std::collections::HashMap;

use super::time::span;
use domain::id::JobKey;
use domain::run::{Job, JobPhase, Millis, RunPhase, RunState};

/// A box and the space around it, in pixels.
const BOX: (usize, usize) = (190, 34);
const STEP: (usize, usize) = (250, 46);
/// Characters that fit a box.
const LETTERS: usize = 23;
/// Most jobs of a drawing; a larger run is shown as a list only.
const DRAWN: usize = 200;
/// Most lines of a drawing.
const EDGES: usize = 2000;
/// Left edge of the bars, and width of the longest one, in pixels.
const NAMES: usize = 200;
const BARS: usize = 700;
const ROW: usize = 22;

/// Jobs in columns, each right of what it needs.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) boxes: Vec<Box>,
    pub(super) edges: Vec<Edge>,
}

/// A job.
#[derive(Debug)]
pub(super) struct Box {
    /// Its position in the run's list.
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) label: String,
    pub(super) word: &'static str,
    pub(super) x: usize,
    pub(super) y: usize,
}

/// From a needed job to the one that needs it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Edge {
    pub(super) from: (usize, usize),
    pub(super) to: (usize, usize),
}

impl Graph {
    pub(super) fn of(state: &RunState) -> Self {
        let drawn = state.jobs.len().min(DRAWN);
        let place = |key: &&JobKey| state.jobs.get_index_of(*key).filter(|at| *at < drawn);
        let needs: Vec<Vec<usize>> =
            state.jobs.keys().take(drawn).map(|key| state.needed_by(key).iter().filter_map(place).collect()).collect();
        // A plan has no cycles, so needs come first; a job of which that is not true is drawn on the left.
        let mut columns = vec![0; drawn];
        for _ in 0..drawn {
            let before = columns.clone();
            for (column, needs) in columns.iter_mut().zip(&needs) {
                let last = needs.iter().filter_map(|need| before.get(*need)).max();
                *column = last.map_or(0, |last| (last + 1).min(DRAWN));
            }
            if columns == before {
                break;
            }
        }
        let mut heights: HashMap<usize, usize> = HashMap::new();
        let mut graph = Self::default();
        for ((index, job), column) in state.jobs.values().enumerate().zip(columns) {
            let row = heights.entry(column).or_default();
            let (x, y) = (column * STEP.0 + 4, *row * STEP.1 + 4);
            *row += 1;
            graph.width = graph.width.max(x + BOX.0 + 4);
            graph.height = graph.height.max(y + BOX.1 + 4);
            graph.boxes.push(Box { index, name: job.name.clone(), label: short(&job.name), word: word(job), x, y });
        }
        for (to, needs) in graph.boxes.iter().zip(&needs) {
            let from = needs.iter().filter_map(|need| graph.boxes.get(*need));
            graph.edges.extend(
                from.map(|from| Edge { from: (from.x + BOX.0, from.y + BOX.1 / 2), to: (to.x, to.y + BOX.1 / 2) }),
            );
        }
        graph.edges.truncate(EDGES);
        graph
    }
}

/// A row for each job: how long it waited for a worker, how long it ran.
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
        let mut times = Self { width: NAMES + BARS + 60, ..Self::default() };
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
                label: short(&job.name),
                word: word(job),
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

fn short(name: &str) -> String {
    match name.chars().count() > LETTERS {
        true => name.chars().take(LETTERS - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

fn word(job: &Job) -> &'static str {
    match &job.phase {
        JobPhase::Blocked => "blocked",
        JobPhase::Held => "held",
        JobPhase::Waiting { .. } => "waiting",
        JobPhase::Queued { .. } => "queued",
        JobPhase::Running { .. } => "running",
        JobPhase::Cancelling { .. } => "cancelling",
        JobPhase::Done { conclusion, .. } => conclusion.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scale_has_round_steps_and_names_fit_their_boxes() {
        let rounded = [(0, 1), (280, 500), (1_001, 2_000), (130_000, 300_000), (400 * 3_600_000, 408 * 3_600_000)];
        assert!(rounded.iter().all(|(millis, step)| round(*millis) == *step));
        assert_eq!(short(&"ä".repeat(30)).chars().count(), LETTERS);
    }
}
