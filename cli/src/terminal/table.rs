//! Tables for people: columns as wide as what they hold, cut where the terminal ends. Pure.

use console::{Alignment, measure_text_width, pad_str, truncate_str};

use super::printable::printable;

/// Between two columns.
const GAP: usize = 2;
/// A column that is cut keeps at least this width.
const LEAST: usize = 6;

/// A column's title and how it gives way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Column {
    title: &'static str,
    alignment: Alignment,
    /// It may be cut where the terminal is narrow.
    gives: bool,
}

impl Column {
    /// Whole, whatever the width: what is copied into another command.
    pub(crate) fn whole(title: &'static str) -> Self {
        Self { title, alignment: Alignment::Left, gives: false }
    }

    /// Cut where the terminal is narrow.
    pub(crate) fn text(title: &'static str) -> Self {
        Self { title, alignment: Alignment::Left, gives: true }
    }

    /// A number.
    pub(crate) fn number(title: &'static str) -> Self {
        Self { title, alignment: Alignment::Right, gives: false }
    }
}

/// The table, a line for each row below the titles; cells may come from outside. `width` of the terminal; `None`: nothing is cut.
pub(crate) fn table(columns: &[Column], rows: &[Vec<String>], width: Option<usize>) -> String {
    let titles: Vec<String> = columns.iter().map(|column| column.title.to_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(|cells| cells.iter().map(|cell| printable(cell)).collect()).collect();
    let lines = || std::iter::once(&titles).chain(&rows);
    let longest = |index: usize| {
        let cells = lines().filter_map(|cells| cells.get(index));
        cells.map(|cell| measure_text_width(cell)).max().unwrap_or_default()
    };
    let mut widths: Vec<usize> = (0..columns.len()).map(longest).collect();
    if let Some(width) = width {
        narrow(columns, &mut widths, width);
    }
    let last = columns.len().saturating_sub(1);
    let mut out = String::new();
    for cells in lines() {
        let mut line = String::new();
        for (index, (column, width)) in columns.iter().zip(&widths).enumerate() {
            let cell = cells.get(index).map(String::as_str).unwrap_or_default();
            let cell = truncate_str(cell, *width, "…");
            // What ends a line needs no room behind it.
            if index == last && column.alignment == Alignment::Left {
                line.push_str(&cell);
            } else {
                line.push_str(&pad_str(&cell, *width, column.alignment, None));
                line.push_str(&" ".repeat(if index == last { 0 } else { GAP }));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// Takes from the widest column that gives until all fit.
fn narrow(columns: &[Column], widths: &mut [usize], width: usize) {
    let gaps = GAP * columns.len().saturating_sub(1);
    while widths.iter().sum::<usize>() + gaps > width {
        let giving = columns.iter().zip(widths.iter_mut()).filter(|(column, width)| column.gives && **width > LEAST);
        let Some((_, widest)) = giving.max_by_key(|(_, width)| **width) else { return };
        *widest -= 1;
    }
}

/// The width of the terminal on standard output; `None`: it is none.
pub(crate) fn width() -> Option<usize> {
    let terminal = console::Term::stdout();
    terminal.is_term().then(|| usize::from(terminal.size().1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<Vec<String>> {
        [["7", "a workflow with a long name", "0199f"], ["12", "日本語の名前です", "0199a"]]
            .map(|row| row.map(str::to_owned).to_vec())
            .to_vec()
    }

    fn columns() -> [Column; 3] {
        [Column::number("NUMBER"), Column::text("WORKFLOW"), Column::whole("ID")]
    }

    #[test]
    fn columns_are_as_wide_as_what_they_hold() {
        let expected = "NUMBER  WORKFLOW                     ID\n     7  a workflow with a long name  0199f\n    12  \
                        日本語の名前です             0199a\n";
        assert_eq!(table(&columns(), &rows(), None), expected);
    }

    #[test]
    fn a_narrow_terminal_cuts_what_may_be_cut_and_no_id() {
        let narrow = table(&columns(), &rows(), Some(28));
        assert!(narrow.lines().all(|line| measure_text_width(line) <= 28), "{narrow}");
        assert!(narrow.contains("a workflow w…") && narrow.contains("0199f") && narrow.contains("0199a"), "{narrow}");
        // Narrower than what cannot be cut: the terminal wraps, nothing is lost.
        assert!(table(&columns(), &rows(), Some(5)).contains("0199f"));
    }
}
