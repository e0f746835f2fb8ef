//! The chart of a workflow's recent runs: a bar for each, as high as it took long, in the colour of its result. Pure; the
//! page draws it as SVG.

use super::{dto::RunSummary, time::span};

/// Most bars.
const BARS: usize = 20;
/// Height of the longest, and of the shortest, in pixels.
const HIGHEST: u64 = 30;
const LOWEST: u64 = 4;
/// From one bar to the next, in pixels.
const STEP: usize = 9;

/// Bars, the newest on the right.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) width: usize,
    /// The same for people who do not see it.
    pub(super) text: String,
    /// How many of them succeeded, in short.
    pub(super) summary: String,
    pub(super) bars: Vec<Bar>,
}

/// One run.
#[derive(Debug)]
pub(super) struct Bar {
    pub(super) word: &'static str,
    pub(super) text: String,
    pub(super) x: usize,
    pub(super) height: u64,
}

impl History {
    /// Of runs that ended, the newest first.
    pub(super) fn of<'a>(runs: impl Iterator<Item = &'a RunSummary>) -> Self {
        let took = |run: &RunSummary| Some(run.ended_at?.saturating_sub(run.started_at?));
        let ended: Vec<_> = runs.filter_map(|run| Some((run, took(run)?))).take(BARS).collect();
        let longest = ended.iter().map(|(_, took)| *took).max().unwrap_or_default().max(1);
        let bar = |(place, (run, took)): (usize, &(&RunSummary, u64))| Bar {
            word: run.status,
            text: format!("{}: {}, {}", run.heading(), run.status, span(*took)),
            x: place * STEP,
            height: LOWEST + (HIGHEST - LOWEST) * took / longest,
        };
        let bars: Vec<Bar> = ended.iter().rev().enumerate().map(bar).collect();
        let well = ended.iter().filter(|(run, _)| run.status == "success").count();
        let text = format!("{well} of the last {} runs succeeded; the longest took {}", bars.len(), span(longest));
        let summary = format!("{well} of {} passed", bars.len());
        Self { width: bars.len() * STEP, text, summary, bars }
    }
}
