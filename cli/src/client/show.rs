//! `longshore show`: one run with its jobs.

use std::process::ExitCode;

use anyhow::Result;
use console::Style;
use logs::line_text::step_name;
use serde_json::Value;

use super::{api::QueryArgs, run_status::RunTitle, status_word};
use crate::{
    clock::now_ms,
    terminal::{
        elapsed::ago,
        printable::printable,
        size::bytes,
        tree::{StatusMark, duration},
    },
};

const EXAMPLES: &str = "\
Examples:
  longshore show 7                  run 7 of the pool: its jobs, how long they took, and why it failed
  longshore show 7 --verbose        the steps of every job, images, pinned actions, events and relays as well
  longshore show 7 --json | jq .jobs[].conclusion";

/// Failed tests that are named without `--verbose`, and lines of what each said.
const FAILED_TESTS: usize = 10;
const MESSAGE_LINES: usize = 5;

/// Show one run: its jobs, how long they took, and why they wait or failed
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    /// Every step, and ids, images, pinned actions, events and relays
    #[arg(short, long)]
    verbose: bool,
    #[command(flatten)]
    query: QueryArgs,
}

pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.query.server.connect()?;
    let run: Value = api.get(&format!("/api/runs/{}", args.run)).await?;
    let shown = RunPrinter { run: &run, verbose: args.verbose, now: now_ms() };
    let page = api.page(&text(&run, "id"));
    Ok(args.query.print(&run, |_| print(&shown.lines(&page))))
}

#[allow(clippy::print_stdout)]
fn print(lines: &[String]) {
    lines.iter().for_each(|line| println!("{line}"));
}

/// What of a run is shown, and when that is.
struct RunPrinter<'a> {
    run: &'a Value,
    verbose: bool,
    now: u64,
}

impl RunPrinter<'_> {
    fn lines(&self, page: &str) -> Vec<String> {
        let run = self.run;
        let mut lines = vec![
            RunTitle::new(&text(run, "name"), "", "", "").line(serde_json::from_value(run.clone()).ok().as_ref()),
            self.summary(),
            format!("  {page}"),
        ];
        let chain = [("repeats", std::slice::from_ref(&run["previous_run"])), ("run again as", list(run, "reruns"))];
        for (label, runs) in chain {
            for one in runs.iter().filter(|one| one.is_object()) {
                let (serial, attempt) = (&one["serial"], &one["attempt"]);
                lines.push(format!("  {label} run {serial}, attempt {attempt}: {}", text(one, "status")));
            }
        }
        if run["approval"]["waits"] == true {
            lines.push(format!("  {}", text(run, "waits")));
        }
        lines.extend(decided(&run["approval"]));
        lines.extend(self.ids());
        list(run, "jobs").iter().for_each(|job| lines.extend(self.job(job)));
        list(run, "tests").iter().for_each(|report| lines.extend(self.tests(report)));
        lines.extend(self.kept());
        if self.verbose {
            for event in list(run, "events") {
                let relays = list(event, "relays").iter();
                let taken = relays.filter(|relay| text(relay, "answer").is_empty()).count();
                let relays = if taken == 1 { "relay" } else { "relays" };
                lines.push(format!("  {} {} on {taken} {relays}", event["kind"], text(event, "id")));
            }
        }
        lines
    }

    /// `✗ failure after 12.0 s · by Alice · 4 min ago · push · run 7`.
    fn summary(&self) -> String {
        let run = self.run;
        let mut parts =
            vec![format!("{}{}", state(run), self.took(run).map(|took| format!(" after {took}")).unwrap_or_default())];
        let by = text(run, "actor_name");
        if !by.is_empty() {
            parts.push(format!("by {by}"));
        }
        if let Some(created) = run["created_at"].as_u64() {
            parts.push(ago(self.now.saturating_sub(created)));
        }
        parts.push(text(run, "event"));
        parts.push(format!("run {}", run["serial"]));
        parts.retain(|part| !part.is_empty());
        format!("{} {}", mark(run).shown(), parts.join(" · "))
    }

    /// How long something took, or has taken so far.
    fn took(&self, of: &Value) -> Option<String> {
        let started = of["started_at"].as_u64()?;
        let ended = match of["conclusion"].is_null() {
            true => self.now,
            false => of["ended_at"].as_u64()?,
        };
        Some(duration(ended.saturating_sub(started)))
    }

    /// What programs and auditors need.
    fn ids(&self) -> Vec<String> {
        let run = self.run;
        let mut lines = Vec::new();
        let mut labelled = |label: &str, text: String| lines.push(format!("  {label:<11} {text}"));
        if self.verbose {
            for (label, key) in [
                ("repository", "repository"),
                ("commit", "commit"),
                ("ref", "reference"),
                ("author", "actor"),
                ("log", "log_url"),
                ("full log", "full_log_url"),
            ] {
                if !text(run, key).is_empty() {
                    labelled(label, text(run, key));
                }
            }
        }
        for file in list(run, "supplied") {
            let instead = if file["replaces"] == true { ", in place of the commit's file" } else { "" };
            labelled("definition", format!("{} for {}{instead}", text(file, "event"), text(file, "path")));
            if self.verbose {
                labelled("", format!("{} by {}", text(file, "sha256"), text(file, "author")));
            }
        }
        lines.extend(self.pinned(&run["workflows"]));
        lines
    }

    fn job(&self, job: &Value) -> Vec<String> {
        let attempt = job["attempt"].as_u64().filter(|attempt| *attempt > 1);
        let attempt = attempt.map(|attempt| format!(", attempt {attempt}")).unwrap_or_default();
        let took = self.took(job).map(|took| format!(" {}", Style::new().dim().apply_to(took))).unwrap_or_default();
        let conclusion = text(job, "conclusion");
        // Of what went well the sign says all.
        let state = if conclusion == "success" { String::new() } else { format!(": {}", state(job)) };
        let mut lines =
            vec![format!("{} {}{attempt}{took}{state}{}", mark(job).shown(), text(job, "name"), carried(job))];
        for attempt in list(job, "attempts") {
            if !text(attempt, "lost").is_empty() {
                lines.push(format!("  attempt {} was lost: {}", attempt["number"], text(attempt, "lost")));
            }
        }
        lines.extend(decided(&job["approval"]));
        if self.verbose || conclusion == "failure" {
            lines.extend(list(job, "steps").iter().map(step));
        }
        for annotation in list(job, "annotations") {
            let line = annotation["line"].as_u64().map(|line| format!(":{line}")).unwrap_or_default();
            let place = format!("{}{line}", text(annotation, "file"));
            let parts = [place, text(annotation, "title")].into_iter().filter(|part| !part.is_empty());
            let parts: String = parts.map(|part| format!("{part}: ")).collect();
            lines.push(format!("  {}: {parts}{}", text(annotation, "level"), text(annotation, "message")));
        }
        for line in job["summary"].as_str().unwrap_or_default().lines() {
            lines.push(format!("  | {}", printable(line)));
        }
        if self.verbose && !text(job, "image").is_empty() {
            lines.push(format!("  {:<10} {}", "image", text(job, "image")));
        }
        lines.extend(self.pinned(&job["actions"]));
        lines
    }

    /// What the tests of an artifact said: those that failed, and why.
    fn tests(&self, report: &Value) -> Vec<String> {
        let counts =
            ["failed", "skipped", "passed"].map(|outcome| (report[outcome].as_u64().unwrap_or_default(), outcome));
        let [(failed, _), ..] = counts;
        let counts: Vec<String> = counts
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, outcome)| format!("{count} {outcome}"))
            .collect();
        let counts = if counts.is_empty() { "none".to_owned() } else { counts.join(", ") };
        let mark = StatusMark::of(if failed > 0 { "failure" } else { "success" });
        let took = Style::new().dim().apply_to(duration(report["millis"].as_u64().unwrap_or_default()));
        let mut lines = vec![format!("{} tests of {}: {counts} {took}", mark.shown(), text(report, "name"))];
        let most = if self.verbose { usize::MAX } else { FAILED_TESTS };
        let of_list = list(report, "tests").iter().filter(|test| test["outcome"] == "failed");
        let mut more = failed;
        for test in of_list.take(most) {
            more = more.saturating_sub(1);
            let name = [text(test, "suite"), text(test, "name")];
            let name: Vec<String> = name.into_iter().filter(|part| !part.is_empty()).collect();
            let since = &test["since"]["number"];
            let since = if since.is_null() || *since == self.run["number"] {
                String::new()
            } else {
                format!(" (failed since run #{since})")
            };
            lines.push(format!("  {} {}{since}", StatusMark::of("failure").shown(), name.join(" › ")));
            let said = test["message"].as_str().unwrap_or_default().lines().take(MESSAGE_LINES);
            lines.extend(said.map(|line| format!("    {}", printable(line))));
            if self.verbose {
                let output = test["output"].as_str().unwrap_or_default().lines();
                lines.extend(output.map(|line| format!("    | {}", printable(line))));
            }
        }
        if more > 0 {
            lines.push(format!("  {more} more failed: --verbose, or the artifact, has them"));
        }
        for problem in list(report, "unread") {
            lines.push(format!("  not all was read: {}", printable(problem.as_str().unwrap_or_default())));
        }
        lines
    }

    /// Artifacts and caches.
    fn kept(&self) -> Vec<String> {
        let run = self.run;
        let name = |of: &Value| {
            let key = text(of, "job");
            let job = list(run, "jobs").iter().find(|job| text(job, "key") == key);
            job.map_or(key, |job| text(job, "name"))
        };
        let size = |of: &Value| bytes(of["size"].as_u64().unwrap_or_default());
        let mut lines = Vec::new();
        for artifact in list(run, "artifacts") {
            let url = if self.verbose { format!(", {}", text(artifact, "url")) } else { String::new() };
            let (of, carried) = (name(artifact), carried(artifact));
            lines.push(format!("artifact {}: {} of {of}{carried}{url}", text(artifact, "name"), size(artifact)));
        }
        for cache in list(run, "caches") {
            let found = text(cache, "found");
            let found =
                if found.is_empty() || found == text(cache, "key") { String::new() } else { format!(" → {found}") };
            let outcome = text(cache, "outcome");
            // What is not there has no size.
            let size = if outcome == "miss" { String::new() } else { format!(", {}", size(cache)) };
            lines.push(format!("cache {outcome} {}{found}{size}, {}", text(cache, "key"), name(cache)));
        }
        lines
    }

    /// What of other repositories was used, and at which commit.
    fn pinned(&self, used: &Value) -> Vec<String> {
        let used = used.as_object().into_iter().flatten().filter(|_| self.verbose);
        used.map(|(name, commit)| {
            format!("  {:<10} {} {}", "uses", printable(name), printable(commit.as_str().unwrap_or_default()))
        })
        .collect()
    }
}

fn step(step: &Value) -> String {
    let took = Style::new().dim().apply_to(duration(step["duration_ms"].as_u64().unwrap_or_default()));
    let conclusion = text(step, "conclusion");
    let code = step["exit_code"].as_i64().filter(|code| *code != 0 && conclusion == "failure");
    let code = code.map(|code| format!(": exit code {code}")).unwrap_or_default();
    let name = text(step, "name");
    format!("  {} {} {took}{code}", StatusMark::of(&conclusion).shown(), step_name(&name))
}

fn carried(of: &Value) -> String {
    let serial = of["carried_from"]["serial"].as_u64();
    serial.map(|serial| format!(", carried over from run {serial}")).unwrap_or_default()
}

fn mark(of: &Value) -> StatusMark {
    match (of["conclusion"].as_str(), of["started_at"].is_null()) {
        (Some(conclusion), _) => StatusMark::of(conclusion),
        (None, true) => StatusMark::Waiting,
        (None, false) => StatusMark::Running,
    }
}

/// How it ended or where it stands, with the reason.
fn state(of: &Value) -> String {
    let conclusion = text(of, "conclusion");
    let why = text(of, "why");
    // The reason is a sentence of its own.
    if let Some(why) = why.strip_prefix("skipped: ").filter(|_| conclusion == "skipped") {
        return format!("skipped: {why}");
    }
    let mut state = if conclusion.is_empty() {
        status_word(&text(of, "phase"), !of["waits"].is_null(), !of["started_at"].is_null()).to_owned()
    } else {
        conclusion
    };
    if !why.is_empty() {
        state.push_str(&format!(" ({why})"));
    }
    state
}

/// Who let a job start, or did not, when, and what they said.
fn decided(approval: &Value) -> Option<String> {
    let verdict = text(approval, "verdict");
    if verdict.is_empty() {
        return None;
    }
    let at = approval["at"].as_i64().and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
    let at = at.map(|moment| moment.strftime(", %Y-%m-%d %H:%M:%S UTC").to_string()).unwrap_or_default();
    let comment = text(approval, "comment");
    let comment = if comment.is_empty() { comment } else { format!(": {comment}") };
    // An older coordinator knows the key alone.
    let by =
        [text(approval, "by_name"), text(approval, "by")].into_iter().find(|by| !by.is_empty()).unwrap_or_default();
    // Without an environment it is about the run.
    let of = Some(text(approval, "environment")).filter(|name| !name.is_empty());
    let of = of.map(|name| format!(" for {name}")).unwrap_or_default();
    Some(format!("  {verdict}{of} by {by}{at}{comment}"))
}

/// The items of a list; none where there is no list.
fn list<'v>(of: &'v Value, key: &str) -> &'v [Value] {
    of[key].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// A text of a JSON object, safe for a terminal; empty where there is none.
pub(crate) fn text(of: &Value, key: &str) -> String {
    printable(of[key].as_str().unwrap_or_default())
}

/// The first digits of a commit.
pub(crate) fn short(commit: &str) -> String {
    commit.chars().take(7).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn run() -> Value {
        let step = |name: &str, conclusion: &str, code: i32| json!({"name": name, "conclusion": conclusion, "exit_code": code, "duration_ms": 1500});
        json!({
            "id": "0199f", "serial": 7, "number": 3, "name": "CI", "attempt": 1, "phase": "done", "event": "push",
            "reference": "refs/heads/main", "commit": "22fffc5f4e110000", "commit_message": "Fix the parser",
            "actor": "d4fd", "actor_name": "Alice", "conclusion": "failure", "why": "a job failed",
            "created_at": 1_000_000, "started_at": 1_001_000, "ended_at": 1_013_500,
            "jobs": [
                {"key": "lint", "name": "Lint", "phase": "done", "conclusion": "success", "started_at": 1_001_000,
                 "ended_at": 1_002_200, "attempt": 1, "steps": [step("Main Lint", "success", 0)],
                 "summary": "# All is well"},
                {"key": "test/1", "name": "test (us, 1)", "phase": "done", "conclusion": "failure", "attempt": 2,
                 "started_at": 1_003_000, "ended_at": 1_013_000, "why": "a step failed",
                 "attempts": [{"number": 1, "lost": "the worker was lost"}, {"number": 2, "lost": null}],
                 "steps": [step("Set up job", "success", 0), step("Main Run tests", "failure", 3)],
                 "annotations": [{"level": "error", "file": "a.rs", "line": 3, "title": "E1", "message": "broken"}],
                 "approval": {"verdict": "approved", "environment": "prod", "by": "ab", "by_name": "Bob", "comment": "go"}},
                {"key": "docs", "name": "docs", "phase": "done", "conclusion": "skipped", "why": "skipped: test (us, 1) failed"},
            ],
            "tests": [
                {"name": "test-results", "job": "test/1", "failed": 2, "skipped": 0, "passed": 7, "millis": 1500, "tests": [
                    {"suite": "pkg.Adds", "name": "two", "outcome": "failed", "message": "expected 2\nfound 3",
                     "output": "at line 7", "since": {"run": "0199a", "number": 2}},
                    {"suite": "", "name": "three", "outcome": "failed", "message": "", "output": "",
                     "since": {"run": "0199f", "number": 3}},
                    {"suite": "", "name": "four", "outcome": "passed", "message": "", "output": "", "since": null},
                ], "unread": ["b.xml: it is broken"]},
            ],
            "artifacts": [{"name": "report", "job": "test/1", "size": 1536, "url": "http://x"}],
            "caches": [
                {"outcome": "hit", "key": "deps-1", "found": "deps-1", "size": 3_002_368, "job": "lint"},
                {"outcome": "hit", "key": "deps-2", "found": "deps-1", "size": 3_002_368, "job": "lint"},
                {"outcome": "miss", "key": "deps-3", "found": null, "size": 0, "job": "test/1"},
            ],
            "events": [{"id": "ffff", "kind": 5101, "relays": [{"relay": "a", "answer": ""}]}],
        })
    }

    fn lines(run: &Value, verbose: bool) -> Vec<String> {
        let lines = RunPrinter { run, verbose, now: 1_240_000 }.lines("http://x/runs/0199f");
        lines.iter().map(|line| console::strip_ansi_codes(line).into_owned()).collect()
    }

    #[test]
    fn a_run_is_shown_by_names_and_times_and_the_steps_of_what_failed() {
        assert_eq!(
            lines(&run(), false),
            [
                "CI #3 · main · 22fffc5 Fix the parser",
                "✗ failure (a job failed) after 12.5 s · by Alice · 4 min ago · push · run 7",
                "  http://x/runs/0199f",
                "✓ Lint 1.2 s",
                "  | # All is well",
                "✗ test (us, 1), attempt 2 10.0 s: failure (a step failed)",
                "  attempt 1 was lost: the worker was lost",
                "  approved for prod by Bob: go",
                "  ✓ Set up job 1.5 s",
                "  ✗ Run tests 1.5 s: exit code 3",
                "  error: a.rs:3: E1: broken",
                "– docs: skipped: test (us, 1) failed",
                "✗ tests of test-results: 2 failed, 7 passed 1.5 s",
                "  ✗ pkg.Adds › two (failed since run #2)",
                "    expected 2",
                "    found 3",
                "  ✗ three",
                "  not all was read: b.xml: it is broken",
                "artifact report: 1.5 KiB of test (us, 1)",
                "cache hit deps-1, 2.8 MiB, Lint",
                "cache hit deps-2 → deps-1, 2.8 MiB, Lint",
                "cache miss deps-3, test (us, 1)",
            ]
        );
    }

    #[test]
    fn what_programs_need_is_shown_when_it_is_asked_for() {
        let lines = lines(&run(), true);
        for line in [
            "  commit      22fffc5f4e110000",
            "  author      d4fd",
            "  ✓ Lint 1.5 s",
            "  5101 ffff on 1 relay",
            "    | at line 7",
        ] {
            assert!(lines.iter().any(|shown| shown == line), "{line:?}: {lines:#?}");
        }
    }

    #[test]
    fn what_goes_on_has_taken_its_time_so_far() {
        let mut run = run();
        run["conclusion"] = Value::Null;
        run["ended_at"] = Value::Null;
        run["phase"] = "active".into();
        run["why"] = Value::Null;
        let lines = lines(&run, false);
        assert_eq!(
            lines.get(1).map(String::as_str),
            Some("◐ running after 3 min 59 s · by Alice · 4 min ago · push · run 7")
        );
    }
}
