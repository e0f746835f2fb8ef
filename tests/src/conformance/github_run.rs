//! Workflows run end to end through `longshore exec`, judged by their outcome: `github-run/`, `authored/github/` and
//! `reports/`.

use std::{
    collections::BTreeMap,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use super::{CaseResult, Selection, manifest, pool_run};
use crate::harness::{engine::IMAGE, git::Repository, process::binary};

/// The corpus' name for the one image.
const CORPUS_IMAGE: &str = "local/ubuntu:act";
/// The corpus' name for an image that answers every request with its `GREETING`, on port 8080.
const SERVICE_IMAGE: &str = "local/http:act";
/// What that image runs.
const SERVICE: &str =
    r#"CMD ["node", "-e", "require('http').createServer((q, a) => a.end(process.env.GREETING + '\\n')).listen(8080)"]"#;
/// Longer than any case may take.
const LIMIT: Duration = Duration::from_secs(300);

#[derive(Debug, Deserialize)]
pub(super) struct Case {
    dir: String,
    pub(super) workflow: String,
    pub(super) event: String,
    event_payload: Option<String>,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    #[serde(default)]
    github: BTreeMap<String, String>,
    #[serde(rename = "ref")]
    reference: Option<String>,
    #[serde(default)]
    pub(super) secrets: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) vars: BTreeMap<String, String>,
    #[serde(default)]
    labels: Vec<String>,
    #[serde(default)]
    image_alias: Vec<String>,
    #[serde(default)]
    changed: Vec<String>,
    #[serde(default)]
    needs: Vec<String>,
    workspace: Option<String>,
    /// A shell line that is run in the repository after its commits.
    setup: Option<String>,
    pub(super) expect: Expect,
    rerun: Option<Rerun>,
}

/// What is run again in a pool, and what comes of it.
#[derive(Debug, Deserialize)]
struct Rerun {
    which: String,
    expect: Expect,
}

#[derive(Debug, Deserialize)]
pub(super) struct Expect {
    conclusion: String,
    #[serde(default)]
    jobs: BTreeMap<String, Value>,
    jobs_exact: Option<bool>,
    #[serde(default)]
    job_names: Vec<String>,
    #[serde(default)]
    outputs: BTreeMap<String, BTreeMap<String, String>>,
    #[serde(default)]
    log: Vec<BTreeMap<String, Value>>,
    #[serde(default)]
    summary: BTreeMap<String, BTreeMap<String, Value>>,
    #[serde(default)]
    annotations: Vec<BTreeMap<String, Value>>,
    min_seconds: Option<f64>,
    max_seconds: Option<f64>,
}

/// Runs `github-run/`.
pub fn act(root: &Path, selection: &Selection) -> Vec<CaseResult> {
    manifest::judge(&root.join("github-run"), selection, |_: &Case| true, judge)
}

/// Runs `reports/`.
pub fn reports(root: &Path, selection: &Selection) -> Vec<CaseResult> {
    manifest::judge(&root.join("reports"), selection, |_: &Case| true, judge)
}

/// Runs `authored/github/`.
pub fn authored(root: &Path, selection: &Selection) -> Vec<CaseResult> {
    manifest::judge(&root.join("authored/github"), selection, |_: &Case| true, judge)
}

fn judge(folder: &Path, case: &Case) -> Result<()> {
    let place = tempfile::tempdir()?;
    let repository = repository(&folder.join(&case.dir), &place.path().join("repository"), case)?;
    for name in std::iter::once(CORPUS_IMAGE).chain(case.image_alias.iter().map(String::as_str)) {
        docker(&["tag", IMAGE, name])?;
    }
    if case.needs.iter().any(|need| need.strip_prefix("service-image:") == Some(SERVICE_IMAGE)) {
        let container = docker(&["create", IMAGE])?;
        let made = docker(&["commit", "--change", SERVICE, &container, SERVICE_IMAGE]);
        docker(&["rm", &container])?;
        made?;
    }
    if let Some(line) = &case.setup {
        repository.shell(line)?;
    }
    if let Some(Rerun { which, expect }) = &case.rerun {
        let wrong = pool_run::judge(&folder.join(&case.dir), case, which, expect)?;
        ensure!(wrong.is_empty(), "{}", wrong.join("; "));
        return Ok(());
    }
    let began = Instant::now();
    let result = exec(&repository, case)?;
    let seconds = began.elapsed().as_secs_f64();
    let mut wrong = check(&case.expect, &result);
    if case.expect.min_seconds.is_some_and(|least| seconds < least) {
        wrong.push(format!("took {seconds:.1} s"));
    }
    if case.expect.max_seconds.is_some_and(|most| seconds > most) {
        wrong.push(format!("took {seconds:.1} s"));
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// Runs a command of the engine and gives what it says.
fn docker(arguments: &[&str]) -> Result<String> {
    let output = Command::new("docker").args(arguments).output().context("docker is needed")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "docker {}: {said}", arguments.join(" "));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// One commit of the tree, or two where some files are the change.
fn repository(tree: &Path, target: &Path, case: &Case) -> Result<Repository> {
    let repository = Repository::create(target)?;
    let copied = Command::new("cp").arg("-a").arg(tree.join(".")).arg(target).status()?;
    ensure!(copied.success(), "cannot copy {}", tree.display());
    if !case.changed.is_empty() {
        let aside = target.with_extension("aside");
        for path in &case.changed {
            let kept = aside.join(path);
            std::fs::create_dir_all(kept.parent().context("a file has a folder")?)?;
            std::fs::rename(target.join(path), kept)?;
        }
        repository.commit("before", &[])?;
        let back = Command::new("cp").arg("-a").arg(aside.join(".")).arg(target).status()?;
        ensure!(back.success(), "cannot copy the change");
    }
    repository.commit("head", &[])?;
    Ok(repository)
}

fn exec(repository: &Repository, case: &Case) -> Result<Value> {
    let mut command = Command::new("timeout");
    command.arg(LIMIT.as_secs().to_string()).arg(binary("longshore")?).arg("exec").arg(&repository.path);
    command.args(["-W", &case.workflow, "--event", &case.event, "--committed", "--json"]);
    let reference = case.github.get("ref").or(case.reference.as_ref());
    command.args(["--ref", reference.map_or("refs/heads/main", String::as_str)]);
    for key in ["repository", "actor"] {
        if let Some(value) = case.github.get(key) {
            command.arg(format!("--{key}")).arg(value);
        }
    }
    if let Some(payload) = &case.event_payload {
        command.arg("--payload").arg(repository.path.join(payload));
    }
    for label in case.labels.iter().map(String::as_str).chain(["ubuntu-latest"]) {
        command.args(["--image", &format!("{label}={IMAGE}")]);
    }
    for (flag, pairs) in [("--input", &case.inputs), ("--var", &case.vars)] {
        for (name, value) in pairs {
            command.args([flag, &format!("{name}={value}")]);
        }
    }
    for (name, value) in &case.secrets {
        command.args(["--secret", name]).env(name, value);
    }
    command.args(["--workspace", if case.workspace.as_deref() == Some("tree") { "tree" } else { "empty" }]);
    let output = command.output().context("cannot start longshore")?;
    serde_json::from_slice(&output.stdout).with_context(|| {
        let complaint = String::from_utf8_lossy(&output.stderr);
        format!("no result: {}", complaint.lines().last().unwrap_or("nothing said"))
    })
}

/// What is not as expected.
pub(super) fn check(expect: &Expect, result: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    if !expect.conclusion.split('|').any(|one| text(result, "conclusion") == one) {
        let why = [text(result, "reason"), text(result, "message")].concat();
        wrong.push(format!("conclusion {} instead of {} {why}", text(result, "conclusion"), expect.conclusion));
    }
    let jobs: Vec<&Value> = result["jobs"].as_array().into_iter().flatten().collect();
    for (id, outcome) in &expect.jobs {
        let mut found: Vec<&str> = of(&jobs, id).filter_map(|job| job["conclusion"].as_str()).collect();
        found.sort_unstable();
        let wanted: Vec<&str> = match outcome {
            Value::Array(legs) => legs.iter().filter_map(Value::as_str).collect(),
            one => one.as_str().into_iter().collect(),
        };
        if !alike(&found, wanted) {
            wrong.push(format!("job {id}: {found:?} instead of {outcome}"));
        }
    }
    if expect.jobs_exact != Some(false) {
        let unexpected = jobs.iter().map(|job| text(job, "id")).find(|id| !expect.jobs.contains_key(id));
        wrong.extend(unexpected.map(|id| format!("unexpected job {id}")));
    }
    for name in &expect.job_names {
        if !jobs.iter().any(|job| text(job, "name").trim_end() == name.trim_end()) {
            wrong.push(format!("no job is named {name:?}"));
        }
    }
    for (id, outputs) in &expect.outputs {
        for (name, value) in outputs {
            let found = of(&jobs, id).map(|job| text(&job["outputs"], name)).next_back().unwrap_or_default();
            if found != *value {
                wrong.push(format!("output {id}.{name} is {found:?} instead of {value:?}"));
            }
        }
    }
    for check in &expect.log {
        wrong.extend(log(check, &jobs, result).err().map(|error| format!("{error:#}")));
    }
    for (id, checks) in &expect.summary {
        let summary: String = of(&jobs, id).map(|job| text(job, "summary")).collect();
        for (kind, values) in checks {
            for value in strings(values) {
                if summary.contains(&value) != (kind == "contains") {
                    wrong.push(format!("summary of {id}: {kind} {value:?} does not hold"));
                }
            }
        }
    }
    for wanted in &expect.annotations {
        let absent = wanted.get("absent").and_then(Value::as_bool) == Some(true);
        let of_job = |job: &&&Value| wanted.get("job").is_none_or(|id| id == "*" || job["id"] == *id);
        let all = jobs.iter().filter(of_job).flat_map(|job| job["annotations"].as_array().into_iter().flatten());
        let fields = |(key, _): &(&String, &Value)| !matches!(key.as_str(), "absent" | "job");
        let fits = |annotation: &Value| {
            wanted.iter().filter(fields).all(|(key, value)| same_field(key, value, &annotation[key.as_str()]))
        };
        if all.into_iter().any(fits) == absent {
            wrong.push(format!("annotation {wanted:?}"));
        }
    }
    wrong
}

/// Whether a field of an annotation is as wanted: of a message a part is enough.
fn same_field(key: &str, wanted: &Value, found: &Value) -> bool {
    match (key, wanted, found) {
        ("message", Value::String(wanted), Value::String(found)) => found.contains(wanted.as_str()),
        _ => wanted == found,
    }
}

/// Whether outcomes are as wanted, in any order; `a|b`: either.
fn alike(found: &[&str], mut wanted: Vec<&str>) -> bool {
    if found.len() != wanted.len() {
        return false;
    }
    // Exact ones first, so that they are not taken by an alternative.
    wanted.sort_by_key(|outcome| outcome.contains('|'));
    let mut left: Vec<&str> = found.to_vec();
    wanted.iter().all(|outcome| {
        let place = left.iter().position(|found| outcome.split('|').any(|one| one == *found));
        place.map(|place| left.remove(place)).is_some()
    })
}

fn log(check: &BTreeMap<String, Value>, jobs: &[&Value], result: &Value) -> Result<()> {
    let id = check.get("job").and_then(Value::as_str).unwrap_or("*");
    let logs: Vec<String> = if id == "*" {
        jobs.iter().map(|job| text(job, "log")).collect()
    } else {
        of(jobs, id).map(|job| text(job, "log")).collect()
    };
    let ansi = Regex::new("\u{1b}\\[[0-9;]*[A-Za-z]")?;
    let whole = ansi.replace_all(&logs.join("\n"), "").replace('\r', "");
    let lines: Vec<&str> = whole.lines().map(str::trim).collect();
    for (kind, value) in check.iter().filter(|(kind, _)| *kind != "job") {
        let wanted = strings(value);
        let holds = match kind.as_str() {
            "line" => wanted.iter().all(|text| lines.contains(&text.trim())),
            "no_line" => wanted.iter().all(|text| !lines.contains(&text.trim())),
            "contains" => wanted.iter().all(|text| whole.contains(text)),
            "lacks" if id == "*" => wanted.iter().all(|text| !result.to_string().contains(text)),
            "lacks" => wanted.iter().all(|text| !whole.contains(text)),
            "regex" => matching(&wanted, |regex| lines.iter().any(|line| regex.is_match(line)))?,
            "no_regex" => matching(&wanted, |regex| !lines.iter().any(|line| regex.is_match(line)))?,
            "order" => {
                let mut rest = lines.iter();
                wanted.iter().all(|text| rest.any(|line| *line == text.trim()))
            }
            other => bail!("the check {other} is not known"),
        };
        ensure!(holds, "log of {id}: {kind} {wanted:?} does not hold");
    }
    Ok(())
}

fn matching(patterns: &[String], holds: impl Fn(&Regex) -> bool) -> Result<bool> {
    let patterns = patterns.iter().map(|pattern| Regex::new(pattern)).collect::<Result<Vec<_>, _>>()?;
    Ok(patterns.iter().all(holds))
}

fn of<'a>(jobs: &'a [&'a Value], id: &'a str) -> impl DoubleEndedIterator<Item = &'a Value> {
    jobs.iter().copied().filter(move |job| job["id"] == id)
}

fn strings(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
        one => one.as_str().map(str::to_owned).into_iter().collect(),
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}
