//! The table: one row for each goal, and notes below.

use super::pairs::{Pairs, Ratios};

/// What was found out.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
}

/// What a number has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// At most this.
    AtMost(f64),
    /// At least this.
    AtLeast(f64),
    /// Anything: it stands there for information.
    Information,
}

#[derive(Debug)]
struct Row {
    cells: [String; 7],
    holds: bool,
}

const HEAD: &str = "| what | ours | floor | ratio: median (min..max) | goal | pairs, failed | holds |\n\
                    |---|---|---|---|---|---|---|\n";

impl Report {
    /// A goal as a ratio.
    pub fn ratio(&mut self, what: &str, limit: f64, pairs: &Pairs) {
        let ms = |value: Option<f64>| value.map_or("-".into(), |value| format!("{value:.2} ms"));
        let ratio = pairs
            .ratios()
            .map_or("-".into(), |Ratios { median, min, max, .. }| format!("{median:.3} ({min:.3}..{max:.3})"));
        let count = format!("{}, {}", pairs.len(), pairs.failures().len());
        let cells = [what.into(), ms(pairs.ours()), ms(pairs.floor()), ratio, format!("≤ {limit:.2}"), count];
        self.push(cells, pairs.hold(limit));
    }

    /// A ratio for information: a peer, or another floor.
    pub fn beside(&mut self, what: &str, pairs: &Pairs) {
        self.ratio(what, f64::INFINITY, pairs);
        if let Some(row) = self.rows.last_mut() {
            row.cells[4] = "-".into();
            row.cells[6] = "-".into();
            row.holds = true;
        }
    }

    /// A goal as a number of MiB.
    pub fn memory(&mut self, what: &str, limit: f64, measured: Result<f64, String>) {
        let failed = usize::from(measured.is_err());
        let ours = measured.as_ref().map_or("-".into(), |mib| format!("{mib:.1} MiB"));
        let holds = measured.as_ref().is_ok_and(|mib| *mib <= limit);
        if let Err(cause) = measured {
            self.note(format!("{what}: {cause}"));
        }
        let cells = [what.into(), ours, "-".into(), "-".into(), format!("≤ {limit:.0} MiB"), format!("1, {failed}")];
        self.push(cells, holds);
    }

    /// A number with its bound, beside the same of a floor where there is one.
    pub fn number(&mut self, what: &str, unit: &str, bound: Bound, ours: Result<f64, String>, floor: Option<f64>) {
        let show = |value: f64| format!("{value:.1} {unit}");
        let failed = usize::from(ours.is_err());
        let (goal, holds) = match (bound, ours.as_ref().ok()) {
            (Bound::AtMost(limit), ours) => (format!("≤ {}", show(limit)), ours.is_some_and(|ours| *ours <= limit)),
            (Bound::AtLeast(limit), ours) => (format!("≥ {}", show(limit)), ours.is_some_and(|ours| *ours >= limit)),
            (Bound::Information, ours) => ("-".to_owned(), ours.is_some()),
        };
        let shown = ours.as_ref().map_or("-".into(), |ours| show(*ours));
        if let Err(cause) = ours {
            self.note(format!("{what}: {cause}"));
        }
        self.push(
            [what.into(), shown, floor.map_or("-".into(), show), "-".into(), goal, format!("1, {failed}")],
            holds,
        );
    }

    /// How fast something is beside a floor that does the same amount of work: the goal is a least ratio of speeds.
    pub fn speed(&mut self, what: &str, (amount, unit): (usize, &str), limit: f64, pairs: &Pairs) {
        #[allow(clippy::cast_precision_loss, reason = "amounts are small")]
        let rate = |ms: Option<f64>| ms.map_or("-".into(), |ms| format!("{:.0} {unit}/s", amount as f64 * 1000.0 / ms));
        let ratio = pairs.ratios().map_or("-".into(), |Ratios { median, min, max, .. }| {
            format!("{:.4} ({:.4}..{:.4})", 1.0 / median, 1.0 / max, 1.0 / min)
        });
        let count = format!("{}, {}", pairs.len(), pairs.failures().len());
        let cells = [what.into(), rate(pairs.ours()), rate(pairs.floor()), ratio, format!("≥ {limit:.2}"), count];
        self.push(cells, pairs.hold(1.0 / limit));
    }

    /// A floor alone, in milliseconds. There is nothing to hold but that it could be measured.
    pub fn floor(&mut self, what: &str, pairs: &Pairs) {
        let floor = pairs.floor().map_or("-".into(), |value| format!("{value:.2} ms"));
        let count = format!("{}, {}", pairs.len(), pairs.failures().len());
        self.push([what.into(), "-".into(), floor, "-".into(), "-".into(), count], pairs.failures().is_empty());
    }

    /// A goal that could not be measured at all.
    pub fn failed(&mut self, what: &str, cause: &str) {
        self.note(format!("{what}: {cause}"));
        self.push([what.into(), "-".into(), "-".into(), "-".into(), "-".into(), "0, 1".into()], false);
    }

    /// A line below the table.
    pub fn note(&mut self, note: String) {
        self.notes.push(note);
    }

    /// Whether every goal holds.
    pub fn holds(&self) -> bool {
        self.rows.iter().all(|row| row.holds)
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let rows = self.rows.iter().map(|row| format!("| {} |\n", row.cells.join(" | ")));
        let notes = self.notes.iter().map(|note| format!("- {note}\n"));
        [HEAD.to_owned()].into_iter().chain(rows).chain(["\n".to_owned()]).chain(notes).collect()
    }

    fn push(&mut self, [what, ours, floor, ratio, goal, count]: [String; 6], holds: bool) {
        let word = if holds { "yes" } else { "**no**" };
        self.rows.push(Row { cells: [what, ours, floor, ratio, goal, count, word.into()], holds });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn one_goal_missed_fails_the_report() {
        let mut report = Report::default();
        report.memory("worker", 20.0, Ok(19.9));
        assert!(report.holds());
        report.memory("coordinator", 40.0, Ok(40.1));
        assert!(!report.holds());
        assert!(report.markdown().contains("| coordinator | 40.1 MiB | - | - | ≤ 40 MiB | 1, 0 | **no** |"));
    }

    #[test]
    fn a_rate_below_its_bound_fails_the_report_and_one_for_information_never_does() {
        let mut report = Report::default();
        report.number("jobs", "jobs/s", Bound::AtLeast(100.0), Ok(100.0), Some(5000.0));
        report.number("peer", "jobs/s", Bound::Information, Ok(1.0), None);
        assert!(report.holds(), "{}", report.markdown());
        report.number("jobs", "jobs/s", Bound::AtLeast(100.0), Ok(99.9), None);
        assert!(!report.holds());
    }

    #[test]
    fn a_speed_is_the_floors_time_over_ours() {
        let mut pairs = Pairs::default();
        pairs.push(Ok(Duration::from_millis(1000)), Ok(Duration::from_millis(100)));
        for (limit, holds) in [(0.09, true), (0.11, false)] {
            let mut report = Report::default();
            report.speed("runs", (400, "runs"), limit, &pairs);
            assert_eq!(report.holds(), holds);
            assert!(report.markdown().contains("| 400 runs/s | 4000 runs/s | 0.1000"), "{}", report.markdown());
        }
    }

    #[test]
    fn what_could_not_be_measured_is_missed_and_says_why() {
        let mut report = Report::default();
        report.memory("worker", 20.0, Err("it ended".into()));
        assert!(!report.holds());
        assert!(report.markdown().contains("- worker: it ended"));
    }
}
