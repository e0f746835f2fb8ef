//! Check runs that a job's programs make through GitHub's API: their annotations and summaries are the job's own.
//!
//! They are taken in the worker, where secrets are masked, and reach nobody else. Source of the shapes: GitHub docs, "REST
//! API endpoints for check runs".

use hyper::{Method, StatusCode};
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use workflow::plan::Annotation;

/// Check runs of one job.
const CHECKS: usize = 100;
/// Annotations of one request (GitHub's own limit).
const ANNOTATIONS: usize = 50;
/// Annotations that wait for the job's report.
const KEPT: usize = 1000;
/// Characters of a title that stand in a message.
const TITLE: usize = 200;
/// Bytes of requests that a job may make in all: more would not fit its report.
const BYTES: usize = 8 << 20;

/// The check runs of one job.
#[derive(Default)]
pub(in crate::job) struct CheckRuns {
    /// `owner/name` of the job's repository.
    repository: String,
    made: Mutex<Made>,
}

#[derive(Default)]
struct Made {
    runs: Vec<Map<String, Value>>,
    annotations: Vec<Annotation>,
    summary: String,
    bytes: usize,
}

impl CheckRuns {
    /// Of a job, by its repository.
    pub(in crate::job) fn new(repository: &str) -> Self {
        Self { repository: repository.to_owned(), made: Mutex::default() }
    }

    /// What was said so far, and not asked for yet.
    pub(in crate::job) fn take(&self) -> (Vec<Annotation>, String) {
        let mut made = self.made.lock();
        (std::mem::take(&mut made.annotations), std::mem::take(&mut made.summary))
    }

    /// Answers a request that is about a check run of the job's repository; `None`: it is about something else.
    pub(super) fn answer(&self, method: &Method, path: &str, body: &[u8]) -> Option<(StatusCode, Value)> {
        let below = path.strip_prefix("/api/v3/repos/")?;
        let mut parts = below.split('/').filter(|part| !part.is_empty());
        let (owner, name) = (parts.next()?, parts.next()?);
        let is_own = format!("{owner}/{name}").eq_ignore_ascii_case(&self.repository);
        let rest: Vec<&str> = parts.collect();
        let (id, is_write) = match (rest.as_slice(), method) {
            (["check-runs"], &Method::POST) => (None, true),
            (["check-runs", id], &Method::PATCH) => (Some(*id), true),
            (["check-runs", id], &Method::GET) => (Some(*id), false),
            _ => return None,
        };
        if !is_own {
            return None;
        }
        let said: Map<String, Value> = match serde_json::from_slice(body) {
            _ if !is_write => Map::new(),
            Ok(said) => said,
            Err(error) => return Some(refused(&format!("a check run is a JSON object: {error}"))),
        };
        Some(self.made.lock().answer(id, &said, body.len()).unwrap_or_else(|refusal| refusal))
    }
}

type Answer = (StatusCode, Value);

fn refused(why: &str) -> Answer {
    (StatusCode::UNPROCESSABLE_ENTITY, json!({ "message": why }))
}

impl Made {
    fn answer(&mut self, id: Option<&str>, said: &Map<String, Value>, bytes: usize) -> Result<Answer, Answer> {
        let missing = || (StatusCode::NOT_FOUND, json!({ "message": "Not Found" }));
        let at = match id {
            Some(id) => id.parse::<usize>().ok().and_then(|id| id.checked_sub(1)).ok_or_else(missing)?,
            None if text(said, "name").is_none() => return Err(refused("a check run needs a name")),
            None if self.runs.len() >= CHECKS => return Err(refused("a job may make 100 check runs")),
            None => self.runs.len(),
        };
        let known = self.runs.get(at).cloned();
        if id.is_some() && known.is_none() {
            return Err(missing());
        }
        let output = said.get("output").and_then(Value::as_object);
        let listed = output.and_then(|output| output.get("annotations")).and_then(Value::as_array);
        let listed = listed.map(Vec::as_slice).unwrap_or_default();
        if listed.len() > ANNOTATIONS {
            return Err(refused("a request may have 50 annotations: send the others with an update of the check run"));
        }
        let annotations = listed.iter().map(annotation).collect::<Option<Vec<_>>>();
        let annotations = annotations.ok_or_else(|| {
            refused("an annotation needs a path, a start_line, an end_line, a message, and notice, warning or failure as its annotation_level")
        })?;
        if self.bytes + bytes > BYTES {
            return Err(refused("the check runs of a job may have 8 MiB together"));
        }
        self.bytes += bytes;
        let mut run = known.unwrap_or_default();
        let created = id.is_none();
        let before = run.get("conclusion").cloned().unwrap_or_default();
        for key in
            ["name", "head_sha", "status", "conclusion", "external_id", "details_url", "started_at", "completed_at"]
        {
            let value = said.get(key).cloned();
            run.entry(key).or_insert(Value::Null);
            if let Some(value) = value {
                run.insert(key.to_owned(), value);
            }
        }
        let default = if run.get("conclusion").is_some_and(Value::is_string) { "completed" } else { "queued" };
        if run.get("status").is_none_or(Value::is_null) || default == "completed" {
            run.insert("status".into(), default.into());
        }
        let counted = run.get("output").and_then(|output| output["annotations_count"].as_u64()).unwrap_or_default();
        let kept = |key: &str| {
            let known = run.get("output").map(|output| output[key].clone()).unwrap_or_default();
            output.and_then(|output| output.get(key).cloned()).unwrap_or(known)
        };
        let shown = json!({
            "title": kept("title"), "summary": kept("summary"), "text": kept("text"),
            "annotations_count": counted + annotations.len() as u64,
        });
        let name = text(&run, "name").unwrap_or_default().to_owned();
        if let Some(output) = output {
            self.summarise(&name, output);
        }
        let failed = failed(&run, &name, shown["title"].as_str()).filter(|_| run.get("conclusion") != Some(&before));
        // One more than a report takes: it says itself that some are left out.
        let room = (KEPT + 1).saturating_sub(self.annotations.len());
        self.annotations.extend(annotations.into_iter().chain(failed).take(room));
        run.insert("id".into(), (at + 1).into());
        run.insert("output".into(), shown);
        match self.runs.get_mut(at) {
            Some(place) => place.clone_from(&run),
            None => self.runs.push(run.clone()),
        }
        Ok((if created { StatusCode::CREATED } else { StatusCode::OK }, run.into()))
    }

    /// What a check run says in Markdown is part of the job's summary.
    fn summarise(&mut self, name: &str, output: &Map<String, Value>) {
        let texts: Vec<&str> = ["summary", "text"].iter().filter_map(|key| text(output, key)).collect();
        if !texts.is_empty() {
            let title = text(output, "title").unwrap_or(name);
            self.summary.push_str(&format!("### {}\n\n{}\n\n", title.replace('\n', " "), texts.join("\n\n")));
        }
    }
}

fn text<'m>(map: &'m Map<String, Value>, key: &str) -> Option<&'m str> {
    map.get(key).and_then(Value::as_str).filter(|text| !text.is_empty())
}

/// A check run that did not go well is said as such: the job's own conclusion does not follow from it.
fn failed(run: &Map<String, Value>, name: &str, title: Option<&str>) -> Option<Annotation> {
    let conclusion = text(run, "conclusion")?;
    let level = match conclusion {
        "failure" | "timed_out" | "startup_failure" => "error",
        "action_required" | "cancelled" | "stale" => "warning",
        _ => return None,
    };
    let cut = |text: &str| text.chars().take(TITLE).collect::<String>();
    let title = title.map(|title| format!(": {}", cut(title))).unwrap_or_default();
    let message = format!("The check {} ended as {conclusion}{title}", cut(name));
    Some(Annotation { level: level.into(), message, ..Annotation::default() })
}

fn annotation(listed: &Value) -> Option<Annotation> {
    let listed = listed.as_object()?;
    let number = |key: &str| listed.get(key).and_then(Value::as_u64).and_then(|number| u32::try_from(number).ok());
    let level = match text(listed, "annotation_level")? {
        "failure" => "error",
        level @ ("notice" | "warning") => level,
        _ => return None,
    };
    let (line, end_line) = (number("start_line")?, number("end_line")?);
    Some(Annotation {
        level: level.into(),
        message: text(listed, "message")?.to_owned(),
        title: text(listed, "title").map(str::to_owned),
        file: Some(text(listed, "path")?.to_owned()),
        line: Some(line),
        end_line: Some(end_line),
        column: number("start_column"),
        end_column: number("end_column"),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const PATH: &str = "/api/v3/repos/O/r/check-runs";

    fn ask(checks: &CheckRuns, method: &Method, path: &str, body: &Value) -> Option<(u16, Value)> {
        let answer = checks.answer(method, path, body.to_string().as_bytes());
        answer.map(|(status, value)| (status.as_u16(), value))
    }

    #[test]
    fn a_check_run_is_made_and_changed_and_what_it_says_is_the_jobs() {
        let checks = CheckRuns::new("o/r");
        let annotation = json!({
            "path": "src/a.c", "start_line": 3, "end_line": 4, "annotation_level": "failure", "message": "no", "title": "T",
        });
        let made = json!({ "name": "lint", "head_sha": "abc", "output": { "title": "2 found", "summary": "**two**", "annotations": [annotation] } });
        let (status, run) = ask(&checks, &Method::POST, PATH, &made).unwrap();
        assert_eq!(
            (status, &run["id"], &run["status"], &run["output"]["annotations_count"]),
            (201, &json!(1), &json!("queued"), &json!(1))
        );
        let update = json!({ "conclusion": "failure", "output": { "title": "3 found", "summary": "", "annotations": [annotation] } });
        let (status, run) = ask(&checks, &Method::PATCH, &format!("{PATH}/1"), &update).unwrap();
        assert_eq!(
            (status, &run["name"], &run["status"], &run["output"]["annotations_count"]),
            (200, &json!("lint"), &json!("completed"), &json!(2))
        );
        let (status, same) = ask(&checks, &Method::GET, &format!("{PATH}/1"), &Value::Null).unwrap();
        assert_eq!((status, same), (200, run));
        let (annotations, summary) = checks.take();
        assert_eq!(summary, "### 2 found\n\n**two**\n\n");
        let said: Vec<_> = annotations.iter().map(|one| (one.level.as_str(), one.message.as_str(), one.line)).collect();
        assert_eq!(
            said,
            [
                ("error", "no", Some(3)),
                ("error", "no", Some(3)),
                ("error", "The check lint ended as failure: 3 found", None)
            ]
        );
        assert_eq!(checks.take(), (Vec::new(), String::new()));
    }

    #[test]
    fn what_is_no_check_run_of_the_own_repository_is_answered_elsewhere_or_refused() {
        let checks = CheckRuns::new("o/r");
        let made = json!({ "name": "lint" });
        for (method, path) in [
            (Method::POST, "/api/v3/repos/o/other/check-runs"),
            (Method::GET, PATH),
            (Method::POST, "/api/v3/repos/o/r/issues"),
            (Method::POST, "/twirp/CreateCacheEntry"),
        ] {
            assert_eq!(ask(&checks, &method, path, &made), None, "{path}");
        }
        let many = vec![json!({}); ANNOTATIONS + 1];
        for (method, path, body, status) in [
            (Method::POST, PATH, json!([]), 422),
            (Method::POST, PATH, json!({}), 422),
            (Method::POST, PATH, json!({ "name": "n", "output": { "annotations": many } }), 422),
            (Method::POST, PATH, json!({ "name": "n", "output": { "annotations": [{ "path": "x" }] } }), 422),
            (Method::PATCH, &format!("{PATH}/1"), made.clone(), 404),
        ] {
            assert_eq!(ask(&checks, &method, path, &body).unwrap().0, status, "{body}");
        }
    }

    #[test]
    fn attack_45_the_check_runs_of_a_job_are_bounded() {
        let checks = CheckRuns::new("o/r");
        let long = json!({ "name": "n", "output": { "summary": "x".repeat(1 << 20) } });
        let statuses: Vec<u16> = (0..10).map(|_| ask(&checks, &Method::POST, PATH, &long).unwrap().0).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), 7);
        let checks = CheckRuns::new("o/r");
        let statuses: Vec<u16> =
            (0..=CHECKS).map(|_| ask(&checks, &Method::POST, PATH, &json!({ "name": "n" })).unwrap().0).collect();
        assert_eq!(statuses.iter().filter(|status| **status == 201).count(), CHECKS);
    }
}
