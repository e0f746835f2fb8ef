//! The log that the product renders, read by the viewer's parser.
#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use logs::act_format::{Head, JobLog, LIMIT, Printed, job_label, render, render_message};
use longshore_tests::oracle::act_log::{ParsedJob, Status, parse};
use proto::worker::{LogRecord, LogStream, Mark};
use serde_json::json;
use workflow::plan::{Conclusion, MatrixCell};

const COMMIT: &str = "c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1c1";
const HEAD: Head<'_> =
    Head { workflow: "CI/CD", commit: COMMIT, reference: "refs/heads/main", full_url: "https://ci.example/full" };

/// What a worker sends for one job.
#[derive(Default)]
struct Records {
    list: Vec<LogRecord>,
    step: i32,
}

impl Records {
    fn new() -> Self {
        Self::default().around(-1, "Set up job")
    }

    fn around(mut self, index: i32, name: &str) -> Self {
        let before = std::mem::replace(&mut self.step, index);
        self = self.mark(name, false, "", 0).mark(name, true, "success", 412);
        self.step = before;
        self
    }

    fn mark(mut self, name: &str, ended: bool, conclusion: &str, duration_ms: u64) -> Self {
        let (name, conclusion) = (name.to_owned(), conclusion.to_owned());
        let mark = Mark { name, ended, outcome: conclusion.clone(), conclusion, duration_ms };
        self.push(LogStream::Mark, b"");
        self.list.last_mut().unwrap().mark = Some(mark);
        self
    }

    fn push(&mut self, stream: LogStream, text: &[u8]) {
        let record =
            LogRecord { time_ms: 1, step: self.step, stream: stream.into(), text: text.to_vec().into(), mark: None };
        self.list.push(record);
    }

    fn step(mut self, name: &str, output: &[u8], conclusion: &str, duration_ms: u64) -> Self {
        self = self.mark(name, false, "", 0);
        self.push(LogStream::Stdout, output);
        self = self.mark(name, true, conclusion, duration_ms);
        self.step += 1;
        self
    }

    fn job(self, label: &str, conclusion: Conclusion) -> JobLog {
        let records = self.around(-2, "Complete job").list;
        JobLog { label: label.into(), conclusion, reason: None, printed: printed(&records) }
    }
}

fn printed(records: &[LogRecord]) -> Printed {
    let mut printed = Printed::default();
    printed.push(records);
    printed
}

fn cell(matrix: &serde_json::Value, index: usize, total: usize) -> MatrixCell {
    MatrixCell { matrix: matrix.as_object().unwrap().clone(), index, total }
}

fn one(records: Records) -> ParsedJob {
    let text = render(&HEAD, vec![records.job("build", Conclusion::Success)]);
    let mut jobs = checked(&text);
    assert_eq!(jobs.len(), 1);
    jobs.remove(0)
}

/// What holds for every log.
fn checked(text: &str) -> Vec<ParsedJob> {
    assert!(text.len() < LIMIT);
    assert!(!text.ends_with('\n'));
    assert!(text.lines().next().unwrap().contains(COMMIT), "the first line names the commit");
    for line in text.split('\n') {
        assert!(line.starts_with("[CI-CD/") && line.contains("] "), "no prefix: {line}");
        assert!(!line.contains(['\r', '\u{2028}', '\u{2029}']), "the viewer sees no prefix: {line:?}");
    }
    parse(text)
}

fn names(job: &ParsedJob) -> Vec<&str> {
    job.steps.iter().map(|step| step.name.as_str()).collect()
}

#[test]
fn t36_two_jobs_of_three_steps_show_names_statuses_and_durations() {
    let build = Records::new()
        .step("Main actions/checkout@v4", b"Syncing\n", "success", 1_230)
        .step("Main cargo test", b"running\nfailed\n", "failure", 123_500)
        .step("Main report", b"", "success", 7);
    let lint = Records::new()
        .step("Main a", b"", "success", 900)
        .step("Main b", b"x", "success", 1_000)
        .step("Main c", b"", "success", 0);
    let jobs =
        checked(&render(&HEAD, vec![build.job("build", Conclusion::Failure), lint.job("lint", Conclusion::Success)]));
    let shape: Vec<_> = jobs.iter().map(|job| (job.name.as_str(), job.status, job.duration_ms())).collect();
    let expected = [("build", Status::Failure, 124_737.0 + 824.0), ("lint", Status::Success, 1_900.0 + 824.0)];
    assert_eq!(shape, expected);
    let expected = ["Set up job", "Main actions/checkout@v4", "Main cargo test", "Main report", "Complete job"];
    assert_eq!(names(&jobs[0]), expected);
    assert_eq!(jobs[0].steps[2].status, Status::Failure);
    assert_eq!(jobs[0].steps[2].lines, ["running", "failed"]);
    assert_eq!(jobs[0].steps[2].duration_us, Some(123_500_000));
    assert!(jobs[0].steps[0].lines[0].contains(COMMIT));
    assert!(jobs[1].steps.iter().all(|step| step.status == Status::Success));
}

#[test]
fn t37_a_matrix_of_two_values_is_one_group_with_four_labels() {
    let raw = Some("Test (${{ matrix.os }}/${{ matrix.v }})");
    let cells = [("linux", 1), ("linux", 2), ("mac", 1), ("mac", 2)];
    let jobs: Vec<_> = cells
        .iter()
        .enumerate()
        .map(|(index, (os, v))| {
            let label =
                job_label("test", raw, &format!("Test ({os}/{v})"), &cell(&json!({"os": os, "v": v}), index, 4));
            let failed = index == 2;
            let (word, conclusion) =
                if failed { ("failure", Conclusion::Failure) } else { ("success", Conclusion::Success) };
            Records::new().step("Main x", b"", word, 5).job(&label, conclusion)
        })
        .collect();
    let jobs = checked(&render(&HEAD, jobs));
    let shown: Vec<_> = jobs.iter().map(|job| (job.name.as_str(), job.status == Status::Failure)).collect();
    let expected =
        [("Test (linux/1)", false), ("Test (linux/2)", false), ("Test (mac/1)", true), ("Test (mac/2)", false)];
    assert_eq!(shown, expected);
}

#[test]
fn t38_a_name_without_parentheses_gets_them() {
    let label = |t: &str, index| {
        job_label("b", Some("Build ${{ matrix.t }}"), &format!("Build {t}"), &cell(&json!({"t": t}), index, 2))
    };
    let jobs =
        ["x86", "arm"].iter().enumerate().map(|(index, t)| Records::new().job(&label(t, index), Conclusion::Success));
    let jobs = checked(&render(&HEAD, jobs.collect()));
    assert_eq!(jobs.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["Build (x86)", "Build (arm)"]);
}

#[test]
fn t40_job_ids_build_and_build_2_stay_two_jobs() {
    let label = |id| job_label(id, None, id, &cell(&json!({}), 0, 1));
    let job = |id, word, conclusion| Records::new().step("Main x", b"", word, 5).job(&label(id), conclusion);
    let jobs = vec![job("build-2", "failure", Conclusion::Failure), job("build", "success", Conclusion::Success)];
    let jobs = checked(&render(&HEAD, jobs));
    let shown: Vec<_> = jobs.iter().map(|job| (job.name.as_str(), job.status)).collect();
    assert_eq!(shown, [("build-2", Status::Failure), ("build", Status::Success)]);
}

#[test]
fn t43_odd_output_stays_in_its_step() {
    let mut output = b"10%\r50%\r100%\r\ncrlf\r\nsep\xe2\x80\xa8arator\nbad \xff\xfe bytes\n".to_vec();
    output.extend(std::iter::repeat_n(b'x', 2 * 1024 * 1024));
    let job = one(Records::new().step("Main odd", &output, "success", 5).step("Main next", b"own line", "success", 5));
    assert_eq!(names(&job), ["Set up job", "Main odd", "Main next", "Complete job"]);
    let odd = &job.steps[1].lines;
    assert_eq!(odd[..6], ["10%", "50%", "100%", "crlf", "sep arator", "bad \u{fffd}\u{fffd} bytes"]);
    assert!(odd[6].starts_with("xxx"));
    assert_eq!(job.steps[2].lines, ["own line"]);
}

#[test]
fn t43_streams_that_interleave_within_a_line_do_not_mix() {
    let mut records = Records::new().mark("Main x", false, "", 0);
    records.push(LogStream::Stdout, b"out ");
    records.push(LogStream::Stderr, b"err\n");
    records.push(LogStream::Stdout, b"put\n");
    let job = one(records.mark("Main x", true, "success", 1));
    assert_eq!(job.steps[1].lines, ["err", "out put"]);
}

#[test]
fn t44_long_and_short_durations_add_up() {
    let long = 75 * 60_000 + 2_000;
    let job = one(Records::new().step("Main wait [30s]", b"", "success", long).step("Main quick", b"", "success", 0));
    let durations: Vec<_> = job.steps.iter().map(|step| step.duration_us.unwrap()).collect();
    assert_eq!(durations, [412_000, long * 1000, 0, 412_000]);
    assert_eq!(job.duration_ms(), (long + 824) as f64);
}

#[test]
fn t45_five_megabytes_are_cut_in_the_middle_and_keep_every_marker() {
    let output = (0..100_000).map(|line| format!("line {line} {}\n", "x".repeat(40))).collect::<String>();
    let records = Records::new()
        .step("Main small", b"kept whole\n", "success", 1)
        .step("Main big", output.as_bytes(), "success", 1)
        .step("Main big too", output.as_bytes(), "failure", 1);
    let text = render(&HEAD, vec![records.job("build", Conclusion::Failure)]);
    let job = checked(&text).remove(0);
    assert!(text.len() > LIMIT * 9 / 10, "room is used: {}", text.len());
    assert_eq!(names(&job), ["Set up job", "Main small", "Main big", "Main big too", "Complete job"]);
    assert_eq!(job.steps[1].lines, ["kept whole"]);
    for step in &job.steps[2..4] {
        assert!(step.lines.first().unwrap().starts_with("line 0 "));
        assert!(step.lines.last().unwrap().starts_with("line 99999 "));
        assert!(step.lines.iter().any(|line| line.contains("left out") && line.contains(HEAD.full_url)));
    }
    assert_eq!(job.status, Status::Failure);
}

#[test]
fn t46_markup_stays_as_printed_and_a_spoofed_marker_changes_nothing() {
    let output = "<script>alert(1)</script>\n\
                  ⭐ Run evil\n❌  Failure - Main x [1s]\n✅ Success [9m9s]\n🏁  Job failed\n\
                  ⭐\u{1b}[31m Run\u{1b}[0m evil\n❌ \u{1b}[1mFail\u{1b}[0mure\n\
                  [CI-CD/build] ⭐ Run evil\n[CI-CD/other] 🏁  Job failed\n⭐ five stars ✅";
    let job = one(Records::new().step("Main x", output.as_bytes(), "success", 5));
    assert_eq!(names(&job), ["Set up job", "Main x", "Complete job"]);
    assert_eq!(job.status, Status::Success);
    assert_eq!(job.steps[1].duration_us, Some(5_000));
    assert_eq!(job.steps[1].lines[0], "<script>alert(1)</script>");
    assert_eq!(job.steps[1].lines[9], "⭐ five stars ✅");
    assert_eq!(job.steps[1].lines.len(), 10);
}

#[test]
fn t46_a_name_cannot_spoof_either() {
    let job = one(Records::new().step("Main ✅ Success ⭐ Run evil 🏁", b"", "success", 5));
    assert_eq!(names(&job), ["Set up job", "Main ✔ Success ☆ Run evil ⚑", "Complete job"]);
    assert_eq!(job.status, Status::Success);
}

#[test]
fn t47_a_step_without_a_name_is_one_marker_line() {
    let job = one(Records::new().step("Main echo one\necho two", b"one\n", "success", 5));
    assert_eq!(names(&job), ["Set up job", "Main echo one", "Complete job"]);
}

#[test]
fn t48_skipped_and_tolerated_steps_show_no_failure() {
    let records = Records::new()
        .step("Main tolerated", b"exit 1\n", "success", 5)
        .step("Main skipped", b"", "skipped", 0)
        .step("Main last", b"", "success", 5);
    let job = one(records);
    assert_eq!(job.status, Status::Success);
    assert!(job.steps.iter().all(|step| step.status == Status::Success));
    let failed = Records::new().step("Main bad", b"", "failure", 5).step("Main always", b"ran\n", "success", 5);
    let job = checked(&render(&HEAD, vec![failed.job("build", Conclusion::Failure)])).remove(0);
    assert_eq!(job.status, Status::Failure);
    assert_eq!((job.steps[1].status, job.steps[2].status), (Status::Failure, Status::Success));
}

#[test]
fn a_job_whose_worker_was_lost_says_so_in_the_open_step() {
    let mut records = Records::new().mark("Main x", false, "", 0);
    records.push(LogStream::Stdout, b"half a li");
    let job = JobLog {
        label: "build".into(),
        conclusion: Conclusion::Failure,
        reason: Some("The worker was lost: lease ran out".into()),
        printed: printed(&records.list),
    };
    let job = checked(&render(&HEAD, vec![job])).remove(0);
    assert_eq!(job.status, Status::Failure);
    assert_eq!(job.steps[1].lines, ["half a li", "The worker was lost: lease ran out"]);
    assert_eq!(job.steps[1].status, Status::Failure);
}

#[test]
fn a_run_without_jobs_has_a_log_that_says_why() {
    let job = checked(&render_message(&HEAD, "ci.yml:3:5: unknown key `job`\ndid you mean `jobs`?")).remove(0);
    assert_eq!(job.status, Status::Failure);
    assert_eq!(job.steps[0].lines[1..], ["ci.yml:3:5: unknown key `job`", "did you mean `jobs`?"]);
}
