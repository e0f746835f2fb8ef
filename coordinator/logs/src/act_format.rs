//! The log in the text form of nektos/act, which web clients parse. Pure.
//!
//! Their viewer reads lines `[workflow/job] content`; a line without that prefix joins the job before it, and emoji in
//! the content are markers. So every line gets the prefix, and output that looks like a marker is defused.

mod cut;
mod label;

use workflow::plan::Conclusion;

pub use super::steps::{LIMIT, Printed};
use super::steps::{SETUP, Step};
pub use label::{job_label, workflow_label};

/// What is printed once for a run.
#[derive(Debug, Clone, Copy)]
pub struct Head<'a> {
    /// Name of the workflow.
    pub workflow: &'a str,
    /// Full commit id; empty: none was resolved.
    pub commit: &'a str,
    /// Full ref.
    pub reference: &'a str,
    /// Where the whole log is, named where lines are left out.
    pub full_url: &'a str,
}

/// The log of one job's last attempt.
#[derive(Debug)]
pub struct JobLog {
    /// Name by [`job_label`].
    pub label: String,
    /// How it ended.
    pub conclusion: Conclusion,
    /// Why, for people; said in the log where no step says it.
    pub reason: Option<String>,
    /// What it printed.
    pub printed: Printed,
}

/// The whole text, less than [`LIMIT`] bytes, without a line end after the last line.
///
/// A skipped job or step is left out, as act does: the viewer has no word for it.
pub fn render(head: &Head<'_>, jobs: Vec<JobLog>) -> String {
    let workflow = workflow_label(head.workflow);
    let mut parts = Vec::new();
    let jobs = jobs.into_iter().filter(|job| job.conclusion != Conclusion::Skipped || !job.printed.is_empty());
    for (index, job) in jobs.enumerate() {
        let prefix = format!("[{workflow}/{}] ", job.label);
        let commit = (index == 0).then(|| commit_line(head)).flatten();
        if let Some(commit) = &commit {
            // Before any step: the viewer skips it, people read it first.
            parts.push(Part::Marker(format!("{prefix}🚀  {commit}")));
        }
        job_parts(&prefix, job, commit, &mut parts);
    }
    cut::join(parts, head.full_url, LIMIT - 1)
}

/// The log of a run that never had a job: it was refused, or could not be planned.
pub fn render_message(head: &Head<'_>, message: &str) -> String {
    let job = JobLog {
        label: "plan".into(),
        conclusion: Conclusion::Failure,
        reason: Some(message.to_owned()),
        printed: Printed::default(),
    };
    render(head, vec![job])
}

/// A piece of the text: a line that is always kept, or the output of one step. All lines have their prefix.
enum Part {
    Marker(String),
    /// `left_out` lines are missing somewhere in the middle already.
    Output {
        prefix: String,
        lines: Vec<String>,
        left_out: usize,
    },
}

fn commit_line(head: &Head<'_>) -> Option<String> {
    let reference = if head.reference.is_empty() { String::new() } else { format!(" ({})", head.reference) };
    (!head.commit.is_empty()).then(|| defused(&format!("Commit {}{reference}", head.commit)))
}

fn job_parts(prefix: &str, job: JobLog, commit: Option<String>, parts: &mut Vec<Part>) {
    let mut steps = job.printed.into_steps();
    steps.retain(|step| !matches!(step.end, Some((Conclusion::Skipped, _))));
    let setup_first = steps.first().is_some_and(|step| step.name == SETUP);
    if !setup_first && (steps.is_empty() || commit.is_some()) {
        let mut setup = Step::new(proto::STEP_SETUP, SETUP.to_owned(), 0);
        setup.end = (!steps.is_empty()).then_some((Conclusion::Success, 0));
        steps.insert(0, setup);
    }
    if let (Some(step), Some(commit)) = (steps.first_mut(), commit) {
        step.lines.insert_first(commit);
    }
    if let Some(reason) = job.reason.filter(|_| job.conclusion != Conclusion::Success) {
        explain(&mut steps, &reason);
    }
    for step in steps {
        step_parts(prefix, &step, job.conclusion, parts);
    }
    let end = if job.conclusion == Conclusion::Success { "succeeded" } else { "failed" };
    parts.push(Part::Marker(format!("{prefix}🏁  Job {end}")));
}

/// Puts the reason into the step that it ended: the open one, else the failed one, else the last.
fn explain(steps: &mut [Step], reason: &str) {
    let position = steps
        .iter()
        .rposition(|step| step.end.is_none())
        .or_else(|| steps.iter().rposition(|step| !matches!(step.end, Some((Conclusion::Success, _)))))
        .or(steps.len().checked_sub(1));
    if let Some(step) = position.and_then(|position| steps.get_mut(position)) {
        reason.lines().for_each(|line| step.lines.push(line.to_owned(), LIMIT));
    }
}

fn step_parts(prefix: &str, step: &Step, job: Conclusion, parts: &mut Vec<Part>) {
    let name = label::step_label(&step.name);
    let took = duration(step.duration_ms());
    let ended = step.end.map_or(job, |(conclusion, _)| conclusion);
    let (emoji, word) = if ended == Conclusion::Success { ("✅", "Success") } else { ("❌", "Failure") };
    parts.push(Part::Marker(format!("{prefix}⭐ Run {name}")));
    let output = format!("{prefix}| ");
    let lines = step.lines.iter().map(|line| format!("{output}{}", defused(line))).collect();
    parts.push(Part::Output { prefix: output, lines, left_out: step.lines.left_out() });
    // The viewer takes the first thing that looks like a duration.
    let name = if has_duration(&name) { name.replace('[', "(").replace(']', ")") } else { name };
    parts.push(Part::Marker(format!("{prefix}{emoji}  {word} - {name} [{took}]")));
}

/// The viewer knows minutes, seconds and milliseconds: no hours, no microseconds.
fn duration(milliseconds: u64) -> String {
    let (minutes, rest) = (milliseconds / 60_000, milliseconds % 60_000);
    match (minutes, rest) {
        (0, 0..1000) => format!("{rest}ms"),
        (0, _) => format!("{}s", seconds(rest)),
        (minutes, rest) => format!("{minutes}m{}s", seconds(rest)),
    }
}

fn seconds(milliseconds: u64) -> String {
    let text = format!("{}.{:03}", milliseconds / 1000, milliseconds % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Whether the viewer finds a duration: `[2m3.5s]`, `[1.23s]`, `[850ms]`.
fn has_duration(text: &str) -> bool {
    text.split('[').skip(1).filter_map(|after| after.split_once(']')).any(|(inside, _)| {
        let Some(number) = inside.strip_suffix("ms").or_else(|| inside.strip_suffix('s')) else { return false };
        let number = number.split_once('m').map_or(number, |(_, seconds)| seconds);
        !number.is_empty() && number.chars().all(|c| c.is_ascii_digit() || c == '.')
    })
}

/// Emoji that the viewer takes for markers, and what stands for them in output.
const LOOK_ALIKES: [(char, &str); 4] = [('⭐', "☆"), ('✅', "✔"), ('❌', "✘"), ('🏁', "⚑")];

/// A line that the viewer shows as it is: no marker, nothing that it takes for a line end.
fn defused(line: &str) -> String {
    let line = line.replace(['\r', '\n', '\u{2028}', '\u{2029}'], " ");
    if !is_marker(&line) {
        return line;
    }
    without_emoji(&line)
}

fn without_emoji(text: &str) -> String {
    LOOK_ALIKES.iter().fold(text.to_owned(), |text, (emoji, look_alike)| text.replace(*emoji, look_alike))
}

/// Whether the viewer would take a line for a marker. It looks after colours are stripped, and how it strips them is
/// not ours to know: with an escape in it any marker emoji is enough.
fn is_marker(line: &str) -> bool {
    let escaped = line.contains(['\u{1b}', '\u{9b}']);
    line.contains("⭐ Run ")
        || (line.contains('✅') && line.contains("Success"))
        || (line.contains('❌') && line.contains("Failure"))
        || line.contains('🏁')
        || (escaped && LOOK_ALIKES.iter().any(|(emoji, _)| line.contains(*emoji)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_minutes_seconds_or_milliseconds() {
        let cases = [
            (0, "0ms"),
            (850, "850ms"),
            (1000, "1s"),
            (1230, "1.23s"),
            (59_999, "59.999s"),
            (60_000, "1m0s"),
            (123_500, "2m3.5s"),
            (75 * 60_000 + 2_000, "75m2s"),
        ];
        for (milliseconds, expected) in cases {
            assert_eq!(duration(milliseconds), expected);
        }
    }

    #[test]
    fn only_what_would_be_a_marker_is_changed() {
        let cases = [
            ("✅ all good", "✅ all good"),
            ("✅ x Success", "✔ x Success"),
            ("❌ no", "❌ no"),
            ("Failure ❌", "Failure ✘"),
            ("⭐ Running", "⭐ Running"),
            ("⭐ Run x", "☆ Run x"),
            ("🏁", "⚑"),
            ("⭐\u{1b}[0m Run x", "☆\u{1b}[0m Run x"),
            ("a\u{2028}b", "a b"),
        ];
        for (line, expected) in cases {
            assert_eq!(defused(line), expected);
        }
    }

    #[test]
    fn a_duration_in_a_name_is_seen() {
        for (text, expected) in
            [("[5s]", true), ("[1m2.5s]", true), ("x [30ms] y", true), ("[s]", false), ("[main]", false), ("5s", false)]
        {
            assert_eq!(has_duration(text), expected, "{text}");
        }
    }
}
