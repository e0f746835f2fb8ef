//! Encodes a job's report for its message to the coordinator.

use workflow::plan::{JobReport, Reason};

/// JSON of a report. What steps leave has bounds with which every report fits; one that is too long all the same would
/// end each session that it is sent in, so the job fails with that reason instead.
pub fn encode(report: &JobReport) -> Vec<u8> {
    let encoded = json(report);
    if encoded.len() <= proto::REPORT_LIMIT {
        return encoded;
    }
    let text = format!("its report has {} bytes, more than {} are not sent", encoded.len(), proto::REPORT_LIMIT);
    json(&JobReport {
        exit_code: report.exit_code.max(1),
        started: report.started,
        started_at_ms: report.started_at_ms,
        finished_at_ms: report.finished_at_ms,
        ..JobReport::failed(Reason::Invalid(text))
    })
}

fn json(report: &JobReport) -> Vec<u8> {
    serde_json::to_vec(report).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use workflow::plan::Conclusion;

    use super::*;

    #[test]
    fn a_report_that_is_too_long_all_the_same_fails_its_job_with_the_reason() {
        let whole = JobReport { conclusion: Conclusion::Success, ..JobReport::failed(Reason::Step) };
        assert_eq!(serde_json::from_slice::<JobReport>(&encode(&whole)).unwrap(), whole);
        let sent = encode(&JobReport { summary: "s".repeat(proto::MESSAGE_LIMIT), ..whole });
        let sent: JobReport = serde_json::from_slice(&sent).unwrap();
        assert_eq!(sent.conclusion, Conclusion::Failure);
        assert!(matches!(sent.reason, Some(Reason::Invalid(text)) if text.contains("are not sent")));
    }
}
