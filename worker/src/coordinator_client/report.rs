//! Encodes a job's report, within what one message to the coordinator may hold.
//!
//! A report that is too long would end every session that it is sent in, so it loses its least needed parts first.

use workflow::plan::{Conclusion, JobReport, Reason};

/// Longest encoded report, in bytes. Half of a message: the rest of it is small, and a report is sent between renewals.
const REPORT_LIMIT: usize = proto::MESSAGE_LIMIT / 2;

/// What takes the place of the end of a summary.
const CUT: &str = "\n\n*The rest of this summary is left out: the job's report was too long.*\n";

/// JSON of a report, of at most 8 MiB. What is left out, in this order: outputs of single steps, which nothing reads
/// after the job; the end of the summary; annotations, the last ones first. Job outputs are never shortened: a job whose
/// own outputs do not fit fails, and says so.
pub(super) fn encode(report: &JobReport) -> Vec<u8> {
    let whole = json(report);
    if whole.len() <= REPORT_LIMIT {
        return whole;
    }
    let mut report = report.clone();
    report.steps.iter_mut().for_each(|step| step.outputs.clear());
    let excess = json(&report).len().saturating_sub(REPORT_LIMIT);
    if excess > 0 && !report.summary.is_empty() {
        // A character takes at least a byte of JSON, so that this removes enough wherever there is enough.
        shorten(&mut report.summary, excess + CUT.len());
    }
    let excess = json(&report).len().saturating_sub(REPORT_LIMIT);
    if excess > 0 {
        drop_annotations(&mut report, excess);
    }
    let encoded = json(&report);
    if encoded.len() <= REPORT_LIMIT {
        return encoded;
    }
    let text = format!(
        "the job's outputs and step names are too long: a report may have {} MiB; write large values to an artifact",
        REPORT_LIMIT >> 20
    );
    json(&JobReport {
        conclusion: Conclusion::Failure,
        reason: Some(Reason::Invalid(text)),
        exit_code: report.exit_code.max(1),
        started: report.started,
        started_at_ms: report.started_at_ms,
        finished_at_ms: report.finished_at_ms,
        steps: Vec::new(),
        outputs: Default::default(),
        environment: None,
        annotations: Vec::new(),
        summary: String::new(),
        image: None,
        actions: Default::default(),
    })
}

fn json(report: &JobReport) -> Vec<u8> {
    serde_json::to_vec(report).unwrap_or_default()
}

/// Removes at least so many bytes from the end of a text, and says so there.
fn shorten(text: &mut String, bytes: usize) {
    let kept = text.floor_char_boundary(text.len().saturating_sub(bytes));
    text.truncate(kept);
    text.push_str(CUT);
}

/// Removes annotations, the last ones first, that take so many bytes of JSON together.
fn drop_annotations(report: &mut JobReport, mut excess: usize) {
    while excess > 0
        && let Some(annotation) = report.annotations.pop()
    {
        excess = excess.saturating_sub(serde_json::to_vec(&annotation).map_or(0, |json| json.len()));
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use workflow::plan::{Annotation, StepReport};

    use super::*;

    fn report() -> JobReport {
        JobReport {
            conclusion: Conclusion::Success,
            reason: None,
            exit_code: 0,
            steps: Vec::new(),
            outputs: Default::default(),
            environment: None,
            annotations: Vec::new(),
            summary: String::new(),
            started: true,
            image: None,
            actions: Default::default(),
            started_at_ms: 1,
            finished_at_ms: 2,
        }
    }

    fn encoded(report: &JobReport) -> JobReport {
        let bytes = encode(report);
        assert!(bytes.len() <= REPORT_LIMIT, "{} bytes", bytes.len());
        serde_json::from_slice(&bytes).unwrap()
    }

    fn annotations(count: usize, bytes: usize) -> Vec<Annotation> {
        let message = "m".repeat(bytes);
        vec![Annotation { level: "error".into(), message, ..Annotation::default() }; count]
    }

    #[test]
    fn a_report_that_fits_is_sent_as_it_is() {
        let whole = JobReport { summary: "s".into(), annotations: annotations(3, 10), ..report() };
        assert_eq!(encoded(&whole), whole);
    }

    #[test]
    fn outputs_of_nine_full_steps_do_not_make_a_report_that_ends_its_session() {
        let step = StepReport {
            id: None,
            name: "step".into(),
            outcome: Conclusion::Success,
            conclusion: Conclusion::Success,
            exit_code: Some(0),
            duration_ms: 1,
            outputs: [("value".to_owned(), "x".repeat(2 << 20))].into(),
        };
        let sent = encoded(&JobReport { steps: vec![step; 9], summary: "s".into(), ..report() });
        assert_eq!((sent.conclusion, sent.steps.len(), sent.summary.as_str()), (Conclusion::Success, 9, "s"));
    }

    #[test]
    fn a_summary_gives_way_before_annotations_and_those_before_outputs() {
        let large = JobReport { summary: "\u{1}é".repeat(2 << 20), annotations: annotations(10, 1000), ..report() };
        let sent = encoded(&large);
        assert!(sent.summary.ends_with(CUT));
        assert_eq!(sent.annotations, large.annotations);

        let sent = encoded(&JobReport {
            summary: "s".repeat(1 << 20),
            annotations: annotations(1000, 10_000),
            outputs: [("kept".to_owned(), "o".repeat(1 << 20))].into(),
            ..report()
        });
        assert!(sent.annotations.len() > 100 && sent.annotations.len() < 1000);
        assert_eq!((sent.conclusion, sent.outputs.len()), (Conclusion::Success, 1));
    }

    #[test]
    fn a_job_whose_own_outputs_do_not_fit_fails_with_the_reason() {
        let outputs = (0..9).map(|number| (number.to_string(), "x".repeat(1 << 20))).collect();
        let sent = encoded(&JobReport { outputs, summary: "s".into(), ..report() });
        assert_eq!(sent.conclusion, Conclusion::Failure);
        assert!(matches!(sent.reason, Some(Reason::Invalid(text)) if text.contains("outputs")));
    }
}
