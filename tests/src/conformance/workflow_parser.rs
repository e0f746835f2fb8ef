//! The folder `workflow-parser`: workflows that GitHub's own reader takes, with what it reads, or refuses.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use indexmap::IndexMap;
use serde::Deserialize;
use serde_json::Value;
use workflow::dialect::{
    call_graph::{CallGraph, CalledFiles, GraphBuild},
    workflow_ref::WorkflowRef,
};
use workflow::github::{
    self,
    call_graph::{CALL_GRAPH_LIMITS, CallGraphLimits, build},
    permissions::DefaultPermissions,
    workflow_ref::resolve,
};
use workflow::plan::{ControlAction, Job, JobContent, Plan, StepAction, StepEntry};
use workflow::yaml::{self, MergeKeys, YamlLimits};

use super::{CaseResult, Selection, manifest};

#[derive(Debug, Deserialize)]
struct Case {
    id: String,
    file: String,
    expect: Expect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Errors,
    Template,
}

/// Runs the selected cases.
#[must_use]
pub fn run(root: &Path, selection: &Selection) -> Vec<CaseResult> {
    manifest::judge(&root.join("workflow-parser"), selection, |_: &Case| true, judge)
}

fn judge(folder: &Path, case: &Case) -> Result<()> {
    let text = fs::read_to_string(folder.join(&case.file)).with_context(|| format!("{} can't be read", case.file))?;
    let documents = documents(&text);
    let [options, workflow, .., expected] = documents.as_slice() else {
        bail!("the case has fewer than three documents")
    };
    let path = format!(".github/workflows/{}.yml", case.id);
    let called = documents.get(2..documents.len() - 1).unwrap_or_default();
    let known = known(&path, called);
    let (graph, diagnostics) = match build(&path, workflow, &known, bounds(options)) {
        GraphBuild::Done(graph, diagnostics) => (graph.map(|graph| *graph), diagnostics),
        // Not every case brings what it calls: then the file is judged alone.
        GraphBuild::NeedsFiles(_) => {
            let (plan, diagnostics) = github::parse_within(&path, workflow, bounds(options).file);
            (plan.map(|plan| CallGraph { plan, called: IndexMap::new() }), diagnostics)
        }
    };
    match (graph, case.expect) {
        (Some(_), Expect::Errors) => bail!("taken, must be refused"),
        (None, Expect::Template) => bail!("{}", diagnostics.first().map(ToString::to_string).unwrap_or_default()),
        (None, Expect::Errors) => Ok(()),
        (Some(graph), Expect::Template) => {
            let expected: Value = serde_json::from_str(expected).context("the expected JSON can't be read")?;
            compare(&graph.plan, &expected, &graph.called)
        }
    }
}

/// Called workflows, each a document with its name and one with its text.
fn known(path: &str, documents: &[String]) -> CalledFiles {
    let named = |pair: &[String]| match pair {
        [name, text] => Some((resolve(&WorkflowRef::local(path), name.trim()).ok()?, Ok(text.clone()))),
        _ => None,
    };
    documents.chunks(2).filter_map(named).collect()
}

/// Parts of the file between lines of dashes. The line break before the dashes belongs to no part.
fn documents(text: &str) -> Vec<String> {
    text.replace("\r\n", "\n").split("\n---\n").map(str::to_owned).collect()
}

fn bounds(options: &str) -> CallGraphLimits {
    let stream = yaml::read(options, YamlLimits::default(), MergeKeys::Keep);
    let option = |name| stream.documents.first()?.get(name)?.text();
    let number = |name| option(name)?.parse::<usize>().ok();
    CallGraphLimits {
        levels: number("max-nested-reusable-workflows-depth").map_or(CALL_GRAPH_LIMITS.levels, |calls| calls + 1),
        jobs: number("max-job-limit").unwrap_or(CALL_GRAPH_LIMITS.jobs),
        file: YamlLimits {
            depth: number("max-depth").unwrap_or(github::LIMITS.depth),
            bytes: number("max-file-size").unwrap_or(github::LIMITS.bytes),
            ..github::LIMITS
        },
        permissions: match option("permissions-policy") {
            Some("LimitedRead") => DefaultPermissions::Restricted,
            _ => CALL_GRAPH_LIMITS.permissions,
        },
        ..CALL_GRAPH_LIMITS
    }
}

fn compare(plan: &Plan, expected: &Value, called: &IndexMap<String, Plan>) -> Result<()> {
    let jobs = expected.get("jobs").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    ensure!(plan.jobs.len() == jobs.len(), "{} jobs, expected {}", plan.jobs.len(), jobs.len());
    for ((id, job), expected) in plan.jobs.iter().zip(jobs) {
        ensure!(text(expected.get("id")) == *id, "job {id}, expected {:?}", expected.get("id"));
        compare_job(job, expected, called).with_context(|| format!("job {id}"))?;
    }
    Ok(())
}

fn compare_job(job: &Job, expected: &Value, called: &IndexMap<String, Plan>) -> Result<()> {
    let needs: Vec<String> =
        expected.get("needs").and_then(Value::as_array).into_iter().flatten().map(|need| text(Some(need))).collect();
    ensure!(job.needs == needs, "needs {:?}, expected {needs:?}", job.needs);
    let steps = match &job.work {
        JobContent::Call { uses, .. } => {
            let wanted = text(expected.get("ref"));
            ensure!(*uses == wanted, "uses {uses}, expected {wanted}");
            // GitHub can leave the called workflows out.
            let laid_out = expected["jobs"].as_array().is_some_and(|jobs| !jobs.is_empty());
            return match called.get(uses).filter(|_| laid_out) {
                Some(plan) => compare(plan, expected, called),
                None => Ok(()),
            };
        }
        JobContent::Steps(steps) => steps,
    };
    let wanted = expected.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    ensure!(steps.len() == wanted.len(), "{} steps, expected {}", steps.len(), wanted.len());
    for (step, wanted) in steps.iter().zip(wanted) {
        let step = match step {
            StepEntry::Step(step) => step,
            StepEntry::Control(control) => {
                compare_control(&control.control, steps, wanted)?;
                continue;
            }
        };
        ensure!(step.background == (wanted.get("background") == Some(&Value::Bool(true))), "`background` differs");
        let (key, written) = match &step.action {
            StepAction::Run { script, .. } => ("run", script),
            StepAction::Uses { uses, .. } => ("uses", uses),
        };
        let wanted = wanted.get(key).with_context(|| format!("a step with `{key}` was not expected"))?;
        // Where an expression stands in the text, GitHub writes down the expression it makes of the whole.
        let is_expression = wanted.get("type") == Some(&Value::from(3));
        ensure!(is_expression || text(Some(wanted)) == folded(written), "`{key}` is {written:?}, expected {wanted}");
    }
    Ok(())
}

/// A value that is nothing but one text in an expression is that text.
fn folded(written: &str) -> String {
    let inner = written.strip_prefix("${{").and_then(|rest| rest.strip_suffix("}}")).map(str::trim);
    let text = inner.and_then(|inner| inner.strip_prefix('\'')?.strip_suffix('\''));
    let text = text.filter(|text| !text.replace("''", "").contains('\''));
    text.map_or_else(|| written.to_owned(), |text| text.replace("''", "'"))
}

fn compare_control(control: &ControlAction, steps: &[StepEntry], wanted: &Value) -> Result<()> {
    let id = |place: &usize| steps.get(*place).and_then(StepEntry::step).and_then(|step| step.id.clone());
    match control {
        ControlAction::Wait(places) => {
            let ids: Vec<_> = places.iter().filter_map(id).collect();
            let expected: Vec<_> = wanted["wait"].as_array().into_iter().flatten().map(|id| text(Some(id))).collect();
            ensure!(ids == expected, "it waits for {ids:?}, expected {wanted}");
        }
        ControlAction::WaitAll => ensure!(wanted["wait-all"] == true, "it waits for all, expected {wanted}"),
        ControlAction::Cancel(place) => {
            ensure!(
                id(place).is_some_and(|id| id == text(wanted.get("cancel"))),
                "it cancels {place}, expected {wanted}"
            );
        }
    }
    Ok(())
}

/// A scalar's text, also where it is written with its place in the file.
fn text(value: Option<&Value>) -> String {
    match value {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Object(entries)) => text(entries.get("lit")),
        Some(other) => other.to_string(),
        None => String::new(),
    }
}
