//! The table: one row for each goal, and notes below.

use super::pairs::{Pairs, Ratios};

/// What was found out.
#[derive(Debug, Default)]
pub struct Report {
    rows: Vec<Row>,
    notes: Vec<String>,
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

    /// A floor alone, in milliseconds. There is nothing to hold but that it could be measured.
    pub fn floor(&mut self, what: &str, pairs: &Pairs) {
        let floor = pairs.floor().map_or("-".into(), |value| format!("{value:.2} ms"));
        let count = format!("{}, {}", pairs.len(), pairs.failures().len());
        self.push([what.into(), "-".into(), floor, "-".into(), "-".into(), count], pairs.failures().is_empty());
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
    fn what_could_not_be_measured_is_missed_and_says_why() {
        let mut report = Report::default();
        report.memory("worker", 20.0, Err("it ended".into()));
        assert!(!report.holds());
        assert!(report.markdown().contains("- worker: it ended"));
    }
}
