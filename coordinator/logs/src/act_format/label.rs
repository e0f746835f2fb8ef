//! Names as the viewer expects them: it cuts job names at `-<digits>` and groups a matrix by `name (label)`.

use workflow::plan::MatrixCell;

use super::without_emoji;

/// Longest step name, in characters.
const STEP_NAME: usize = 200;
/// Longest name of anything, in characters: some stand before every line.
const NAME: usize = 300;

/// The workflow's part of a line's prefix: neither `]` nor `/` can stand in it.
pub fn workflow_label(name: &str) -> String {
    let label = plain(name).replace('/', "-");
    if label.is_empty() { "workflow".to_owned() } else { label }
}

/// The job's part of a line's prefix.
///
/// `raw` is `name:` as written, `evaluated` the name with its expressions evaluated. The viewer finds a job by the name
/// in the YAML, else by its id; a name with `${{` makes it a matrix there, whose cells must be called `base (label)`.
pub fn job_label(id: &str, raw: Option<&str>, evaluated: &str, cell: &MatrixCell) -> String {
    let label = match raw {
        Some(raw) if raw.contains("${{") => grouped(&base(raw), &plain(evaluated), cell),
        Some(raw) if !raw.trim().is_empty() => plain(raw),
        _ => plain(id),
    };
    if cell.total > 1 {
        format!("{label}-{}", cell.index + 1)
    } else if ends_in_number(&label) {
        // The viewer would cut the number that belongs to the name.
        format!("{label}-1")
    } else {
        label
    }
}

/// A step's name in its marker.
pub(super) fn step_label(name: &str) -> String {
    let line = plain(name.lines().find(|line| !line.trim().is_empty()).unwrap_or("step"));
    match line.char_indices().nth(STEP_NAME) {
        Some((end, _)) => format!("{}…", line.get(..end).unwrap_or_default()),
        None => line,
    }
}

fn grouped(base: &str, evaluated: &str, cell: &MatrixCell) -> String {
    let is_group = |text: &str| {
        text.strip_suffix(')')
            .and_then(|text| text.rsplit_once('('))
            .is_some_and(|(before, label)| before.trim_end() == base && !label.is_empty() && !label.contains(')'))
    };
    if is_group(evaluated) {
        return evaluated.to_owned();
    }
    let values: Vec<String> =
        cell.matrix.values().filter(|value| !value.is_object() && !value.is_array()).map(text).collect();
    let label = if values.is_empty() {
        evaluated.strip_prefix(base).unwrap_or(evaluated).trim().to_owned()
    } else {
        values.join(", ")
    };
    let label = plain(&label).replace('(', "<").replace(')', ">");
    if label.is_empty() { base.to_owned() } else { format!("{base} ({label})") }
}

fn text(value: &serde_json::Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// What the viewer takes for the name of a matrix's group: `format('X ({0})', …)` gives X, else a
/// group in parentheses around an expression goes, else the first expression.
fn base(raw: &str) -> String {
    let formatted = raw.split_once("format('").and_then(|(_, rest)| rest.split_once(" ({0})'"));
    if let Some((base, _)) = formatted {
        return plain(base);
    }
    let (Some(start), Some(end)) = (raw.find("${{"), raw.find("}}").map(|end| end + 2)) else { return plain(raw) };
    let before = raw.get(..start).unwrap_or_default();
    let parentheses = before.rfind('(').filter(|open| !before.get(*open..).is_some_and(|inside| inside.contains(')')));
    let close = raw.rfind("}}").and_then(|last| raw.get(last..)?.find(')').map(|close| last + close + 1));
    let (from, to) = match (parentheses, close) {
        (Some(open), Some(close)) => (open, close),
        _ => (start, end),
    };
    plain(&format!("{}{}", raw.get(..from).unwrap_or_default(), raw.get(to..).unwrap_or_default()))
}

fn ends_in_number(label: &str) -> bool {
    label.rsplit_once('-').is_some_and(|(_, digits)| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()))
}

/// One line that can stand in a prefix or marker.
fn plain(name: &str) -> String {
    let name = name.char_indices().nth(NAME).map_or(name, |(end, _)| name.get(..end).unwrap_or_default());
    let line = name.replace(']', "}").replace(|c: char| c.is_control() || c == '\u{2028}' || c == '\u{2029}', " ");
    without_emoji(line.trim())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn cell(matrix: &serde_json::Value, index: usize, total: usize) -> MatrixCell {
        MatrixCell { matrix: matrix.as_object().cloned().unwrap_or_default(), index, total }
    }

    #[test]
    fn job_names_follow_the_viewers_table() {
        let none = || cell(&json!({}), 0, 1);
        let os = |os: &str, index| cell(&json!({ "os": os }), index, 2);
        let cases = [
            ("build", None, "build", none(), "build"),
            ("build-2", None, "build-2", none(), "build-2-1"),
            ("b", Some("Phase-3"), "Phase-3", none(), "Phase-3-1"),
            ("b", Some("A [x]"), "A [x]", none(), "A [x}"),
            ("t", Some("Test (${{ matrix.os }})"), "Test (linux)", os("linux", 0), "Test (linux)-1"),
            ("t", Some("Test (${{ matrix.os }})"), "Test (mac)", os("mac", 1), "Test (mac)-2"),
            ("t", Some("Test ${{ matrix.os }}"), "Test linux", os("linux", 0), "Test (linux)-1"),
            ("t", Some("${{ format('Test ({0})', matrix.os) }}"), "Test (mac)", os("mac", 1), "Test (mac)-2"),
            (
                "t",
                Some("Test (${{ matrix.os }}/${{ matrix.v }})"),
                "Test (linux/2)",
                cell(&json!({"os": "linux", "v": 2}), 3, 4),
                "Test (linux/2)-4",
            ),
            ("test", None, "test (linux)", os("linux", 0), "test-1"),
            ("test", Some("Test"), "Test (mac)", os("mac", 1), "Test-2"),
            ("d", Some("Deploy ${{ github.ref_name }}"), "Deploy main", none(), "Deploy (main)"),
        ];
        for (id, raw, evaluated, cell, expected) in cases {
            assert_eq!(job_label(id, raw, evaluated, &cell), expected, "{raw:?}");
        }
    }

    #[test]
    fn a_workflow_name_cant_shift_the_job() {
        for (name, expected) in [("CI/CD", "CI-CD"), ("a]b", "a}b"), ("", "workflow"), ("⭐ x", "☆ x"), ("a\nb", "a b")]
        {
            assert_eq!(workflow_label(name), expected);
        }
    }

    #[test]
    fn a_step_name_is_one_line() {
        assert_eq!(step_label("Main \nnext"), "Main");
        assert_eq!(step_label("\n Main x\n y"), "Main x");
        assert_eq!(step_label(&"x".repeat(500)).chars().count(), STEP_NAME + 1);
    }
}
