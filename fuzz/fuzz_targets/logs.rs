//! A worker's log: its records, and the text that is made of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use logs::{
    act_format::{Head, JobLog, LIMIT, Printed, render, render_message},
    record,
};
use workflow::plan::Conclusion;

fuzz_target!(|data: &[u8]| {
    let decoded = record::decode(data);
    assert!(decoded.taken <= data.len());
    for line in &decoded.records {
        let _ = serde_json::to_string(&record::Line::from(line));
    }
    let text = String::from_utf8_lossy(data);
    let head = Head { workflow: &text, commit: &text, reference: &text, full_url: "https://example.org/log" };
    let mut printed = Printed::default();
    printed.push(&decoded.records);
    let job = JobLog { label: text.to_string(), conclusion: Conclusion::Failure, reason: None, printed };
    assert!(render(&head, vec![job]).len() < LIMIT);
    assert!(render_message(&head, &text).len() < LIMIT);
});
