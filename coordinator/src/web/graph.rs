//! Pictures of a run: which job needs which, and when each waited and ran. Pure; the page draws them as SVG.

use std::collections::HashMap;

use crate::run::{Job, JobPhase, Millis, Phase, State};

/// A box and the space around it, in pixels.
const BOX: (usize, usize) = (190, 34);
const STEP: (usize, usize) = (250, 46);
/// Letters that fit a box.
const LETTERS: usize = 23;
/// Jobs that are drawn; a larger run has its list.
const DRAWN: usize = 200;
/// Where bars begin, and how long the longest is.
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
    /// Its place in the run's list.
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
    pub(super) fn of(state: &State) -> Self {
        let Some(planned) = &state.planned else { return Self::default() };
        let needs = |id: &str| planned.plan.jobs.get(id).map_or(&[][..], |job| &job.needs);
        // Needs come before what needs them, or the plan would have been refused; what is not so stands left.
        let mut columns: HashMap<&str, usize> = HashMap::new();
        for _ in 0..planned.plan.jobs.len() {
            let before = columns.clone();
            for id in planned.plan.jobs.keys() {
                let column = needs(id).iter().filter_map(|need| before.get(need.as_str())).max();
                columns.insert(id, column.map_or(0, |column| (column + 1).min(DRAWN)));
            }
            if columns == before {
                break;
            }
        }
        let mut heights: HashMap<usize, usize> = HashMap::new();
        let mut graph = Self::default();
        let mut places: HashMap<&str, Vec<(usize, usize)>> = HashMap::new();
        for (index, (_, job)) in state.jobs.iter().enumerate().take(DRAWN) {
            let column = columns.get(job.id.as_str()).copied().unwrap_or(0);
            let row = heights.entry(column).or_default();
            let (x, y) = (column * STEP.0 + 4, *row * STEP.1 + 4);
            *row += 1;
            places.entry(&job.id).or_default().push((x, y));
            graph.width = graph.width.max(x + BOX.0 + 4);
            graph.height = graph.height.max(y + BOX.1 + 4);
            graph.boxes.push(Box { index, name: job.name.clone(), label: short(&job.name), word: word(job), x, y });
        }
        for (id, to) in &places {
            for from in needs(id).iter().filter_map(|need| places.get(need.as_str())) {
                let all = from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
                graph.edges.extend(all.take(DRAWN).map(|(from, to)| Edge {
                    from: (from.0 + BOX.0, from.1 + BOX.1 / 2),
                    to: (to.0, to.1 + BOX.1 / 2),
                }));
            }
        }
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
    /// In words.
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
    pub(super) fn of(state: &State, now: Millis) -> Self {
        let begin = state.created_at;
        let end = match &state.phase {
            Phase::Sealing { end } | Phase::Done { end, .. } => end.at,
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
                JobPhase::Done { report: Some(report), .. } => report.finished_at_ms,
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
        let tick = |quarter: u64| {
            let after = whole * quarter / 4;
            Tick { x: place(begin + after), text: span(after) }
        };
        times.ticks = (0..=4).map(tick).collect();
        times
    }
}

/// A length of time for people.
pub(super) fn span(millis: Millis) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", millis / 1000, millis % 1000 / 100),
        60_000..3_600_000 => format!("{} min {} s", millis / 60_000, millis % 60_000 / 1000),
        _ => format!("{} h {} min", millis / 3_600_000, millis % 3_600_000 / 60_000),
    }
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
    fn lengths_of_time_are_said_in_two_units_at_most() {
        let cases = [(0, "0 ms"), (1_250, "1.2 s"), (61_000, "1 min 1 s"), (7_260_000, "2 h 1 min")];
        assert!(cases.iter().all(|(millis, text)| span(*millis) == *text));
        assert_eq!(short(&"ä".repeat(30)).chars().count(), LETTERS);
    }
}
