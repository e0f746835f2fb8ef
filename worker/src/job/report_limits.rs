//! Bounds of what steps leave for their job's report, applied where it arises: a report always fits one message.
//!
//! Source: GitHub docs, "Defining outputs for jobs", "Adding a job summary" and "REST API endpoints for check runs".
//! People's texts are cut, with a mark. A value that programs read is never cut: it is there whole, or not at all.

use workflow::plan::{Annotation, JobReport, Reason};

use crate::log::mask::Masker;

/// Outputs of one job together, names and values, in bytes.
pub(super) const OUTPUTS: usize = 1 << 20;
/// Longest step summary, in bytes.
pub(super) const SUMMARY: usize = 1 << 20;
/// What steps leave for those after them, of one job together, in bytes: outputs, variables, states.
pub(super) const STEP_VALUES: usize = 64 << 20;
/// Longest message of an annotation, in bytes.
const MESSAGE: usize = 64 << 10;
/// Longest title of an annotation, in bytes.
const TITLE: usize = 255;
/// Longest path of an annotation, in bytes: that of the system.
const PATH: usize = 4096;
/// Longest name of a step, in bytes.
pub(super) const STEP_NAME: usize = 1024;
/// Longest name of an environment, and longest URL of one, in bytes.
pub(super) const ENVIRONMENT: usize = 255;
pub(super) const URL: usize = 8 << 10;
/// Annotations of one job.
const ANNOTATIONS: usize = 1000;

/// Bytes that a part of a report takes in its message, where some characters take six.
mod encoded {
    pub(super) const ANNOTATIONS: usize = 2 << 20;
    pub(super) const SUMMARIES: usize = 4 << 20;
    pub(super) const STEPS: usize = 1 << 20;
    pub(super) const ACTIONS: usize = 512 << 10;
}

/// What is said where annotations are left out.
const MORE_ANNOTATIONS: &str = "further annotations of this job are left out; they stand in its log";

/// Annotations and summaries of the steps so far.
#[derive(Debug, Default)]
pub(super) struct StepMessages {
    annotations: Vec<Annotation>,
    annotations_size: usize,
    summary: String,
    summary_size: usize,
    /// Some were left out, and somebody was told.
    is_full: bool,
}

impl StepMessages {
    /// Keeps annotations, as many as fit.
    pub(super) fn annotate(&mut self, annotations: impl IntoIterator<Item = Annotation>, masker: &Masker) {
        for mut annotation in annotations {
            if self.is_full {
                return;
            }
            cut_masked(&mut annotation.message, MESSAGE, masker);
            if let Some(title) = &mut annotation.title {
                cut_masked(title, TITLE, masker);
            }
            annotation.file = annotation.file.filter(|file| file.len() <= PATH);
            let size = size_of(&annotation);
            let last =
                Annotation { level: "warning".into(), message: MORE_ANNOTATIONS.into(), ..Annotation::default() };
            let room = encoded::ANNOTATIONS - size_of(&last);
            if self.annotations.len() + 1 >= ANNOTATIONS || self.annotations_size + size > room {
                self.is_full = true;
                self.annotations.push(last);
                return;
            }
            self.annotations_size += size;
            self.annotations.push(annotation);
        }
    }

    /// Keeps the summary of a step behind those before it.
    pub(super) fn summarise(&mut self, text: &str, masker: &Masker) {
        let mut text = text.to_owned();
        cut_masked(&mut text, SUMMARY, masker);
        self.add_summary(&text, masker);
    }

    /// Keeps summaries of steps behind those before them.
    pub(super) fn add_summary(&mut self, text: &str, masker: &Masker) {
        let mut text = text.to_owned();
        let begins = !self.summary.is_empty() && !self.summary.ends_with('\n');
        let separator = if begins { "\n" } else { "" };
        let room = encoded::SUMMARIES - self.summary_size;
        if encoded_length(separator) + encoded_length(&text) <= room {
            self.summary_size += encoded_length(separator) + encoded_length(&text);
        } else {
            // No character takes more than six bytes.
            cut_masked(&mut text, room.saturating_sub(encoded_length(separator)) / 6, masker);
            self.summary_size = encoded::SUMMARIES;
        }
        if !text.is_empty() {
            self.summary.push_str(separator);
            self.summary.push_str(&text);
        }
    }

    /// The annotations and the summary.
    pub(super) fn into_parts(self) -> (Vec<Annotation>, String) {
        (self.annotations, self.summary)
    }
}

/// Bounds what else a report holds, once its secrets are masked: of steps and actions those stay that fit.
pub(super) fn bound(report: &mut JobReport) {
    if let Some(text) = report.reason.as_mut().and_then(Reason::detail_mut) {
        cut(text, MESSAGE);
    }
    report.steps.iter_mut().for_each(|step| cut(&mut step.name, STEP_NAME));
    let mut room = encoded::STEPS;
    report.steps.retain(|step| take(&mut room, size_of(step)));
    let mut room = encoded::ACTIONS;
    report.actions.retain(|name, commit| take(&mut room, encoded_length(name) + encoded_length(commit) + 8));
}

/// Takes room where there is enough.
pub(super) fn take(room: &mut usize, size: usize) -> bool {
    let left = room.checked_sub(size);
    *room = left.unwrap_or(*room);
    left.is_some()
}

/// Cuts a text that is too long, once its secrets are masked: half of one would be found no more.
fn cut_masked(text: &mut String, limit: usize, masker: &Masker) {
    if text.len() > limit {
        *text = masker.text(text);
        cut(text, limit);
    }
}

/// Cuts a text behind a character, and says so at its end where that fits.
fn cut(text: &mut String, limit: usize) {
    if text.len() <= limit {
        return;
    }
    let mark = format!(" … [cut: it had {} bytes]", text.len());
    let mark = if mark.len() < limit { mark.as_str() } else { "" };
    text.truncate(text.floor_char_boundary(limit - mark.len()));
    text.push_str(mark);
}

/// Bytes of a text in JSON, without its quotes.
fn encoded_length(text: &str) -> usize {
    let length = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(length).sum()
}

/// Bytes of a part of a report, and the comma behind it.
fn size_of(part: &impl serde::Serialize) -> usize {
    serde_json::to_vec(part).map_or(usize::MAX, |json| json.len().saturating_add(1))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use workflow::plan::{Conclusion, Environment, StepReport};

    use super::*;

    fn annotation(message: &str) -> Annotation {
        Annotation { level: "error".into(), message: message.into(), ..Annotation::default() }
    }

    /// The characters that take the most room.
    fn worst(length: usize) -> String {
        "\u{1}".repeat(length)
    }

    #[test]
    fn the_largest_report_that_steps_can_make_fits_one_message() {
        let (mut messages, masker) = (StepMessages::default(), Masker::default());
        for _ in 0..20 {
            messages.summarise(&worst(SUMMARY + 1), &masker);
            messages.annotate(vec![annotation(&worst(MESSAGE + 1)); 50], &masker);
        }
        let (annotations, summary) = messages.into_parts();
        let mut room = OUTPUTS;
        let outputs = (0..5000).map(|number| (number.to_string(), worst(300)));
        let outputs = outputs.filter(|(name, value)| take(&mut room, name.len() + value.len())).collect();
        let step = StepReport {
            id: Some("i".repeat(100)),
            name: worst(5000),
            outcome: Conclusion::Success,
            conclusion: Conclusion::Success,
            exit_code: Some(1),
            duration_ms: 1,
        };
        let mut report = JobReport {
            conclusion: Conclusion::Failure,
            reason: Some(Reason::Invalid(worst(1 << 20))),
            exit_code: 1,
            steps: vec![step; 10_000],
            outputs,
            environment: Some(Environment { name: worst(ENVIRONMENT), url: Some(worst(URL)) }),
            annotations,
            summary,
            started: true,
            image: Some("sha256:0".repeat(10)),
            actions: (0..100_000).map(|number| (format!("{number}{}", worst(100)), "c".repeat(40))).collect(),
            started_at_ms: 1,
            finished_at_ms: 2,
        };
        bound(&mut report);
        let size = serde_json::to_vec(&report).unwrap().len();
        assert!(size <= proto::REPORT_LIMIT, "{size}");
        assert!(report.summary.len() > SUMMARY / 2 && report.annotations.len() > 3 && report.steps.len() > 100);
    }

    #[test]
    fn messages_are_cut_with_a_mark_and_between_characters() {
        let (mut messages, masker) = (StepMessages::default(), Masker::default());
        masker.add("s3cret-s3cret");
        messages.annotate([annotation(&"é".repeat(MESSAGE))], &masker);
        messages.annotate([Annotation { file: Some("x".repeat(PATH + 1)), ..annotation("short") }], &masker);
        messages.summarise("small", &masker);
        messages.summarise(&"s".repeat(SUMMARY + 1), &masker);
        messages.annotate([annotation(&"s3cret-s3cret".repeat(MESSAGE))], &masker);
        let (annotations, summary) = messages.into_parts();
        assert!(
            annotations[0].message.len() <= MESSAGE && annotations[0].message.ends_with("[cut: it had 131072 bytes]")
        );
        assert_eq!((annotations[1].message.as_str(), annotations[1].file.as_ref()), ("short", None));
        assert_eq!(annotations[2].message, "***", "no part of a secret stands at a cut");
        assert!(summary.starts_with("small\nsss") && summary.ends_with("[cut: it had 1048577 bytes]"));
    }

    #[test]
    fn of_too_many_annotations_the_last_one_says_so() {
        let mut messages = StepMessages::default();
        messages.annotate(vec![annotation("m"); ANNOTATIONS * 2], &Masker::default());
        let (annotations, _) = messages.into_parts();
        assert_eq!(annotations.len(), ANNOTATIONS);
        assert!(annotations.last().unwrap().message.contains("left out"));
    }

    #[test]
    fn lengths_are_those_of_the_encoder() {
        for text in ["plain", "\"\\/\n\r\t\u{8}\u{c}", "\u{0}\u{1f}\u{7f}", "é😀\u{2028}"] {
            assert_eq!(encoded_length(text) + 2, serde_json::to_string(text).unwrap().len(), "{text:?}");
        }
    }
}
