//! The folder `realworld`: files of public projects, to parse and plan.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use indexmap::IndexMap;
use serde::Deserialize;
use workflow::expression::{EvaluationLimits, NoHostFunctions, Object, Scope};
use workflow::github;
use workflow::plan::{Job, JobContent};

use super::{CaseResult, Selection, manifest};

#[derive(Debug, Deserialize)]
struct Case {
    dialect: String,
    file: String,
    #[serde(default)]
    expect: serde_json::Value,
}

#[derive(Debug, Deserialize)]
struct Expected {
    events: Vec<String>,
    jobs: IndexMap<String, ExpectedJob>,
}

#[derive(Debug, Deserialize)]
struct ExpectedJob {
    needs: Vec<String>,
    steps: Option<usize>,
    uses: Option<String>,
    legs: Option<usize>,
}

/// Runs the GitHub files.
#[must_use]
pub fn github(root: &Path, selection: &Selection) -> Vec<CaseResult> {
    manifest::judge(&root.join("realworld"), selection, |case: &Case| case.dialect == "github", judge)
}

fn judge(folder: &Path, case: &Case) -> Result<()> {
    let expected: Expected = serde_json::from_value(case.expect.clone()).context("`expect` has another form")?;
    let text = fs::read_to_string(folder.join(&case.file)).with_context(|| format!("{} can't be read", case.file))?;
    let (plan, diagnostics) = github::parse(&case.file, &text);
    let refusal = || diagnostics.first().map_or_else(|| "refused".to_owned(), ToString::to_string);
    let plan = plan.with_context(refusal)?;
    let mut events: Vec<_> = plan.on.keys().cloned().collect();
    events.sort();
    ensure!(events == expected.events, "events are {events:?}, expected {:?}", expected.events);
    ensure!(plan.jobs.keys().eq(expected.jobs.keys()), "jobs are {:?}", plan.jobs.keys());
    for ((id, job), expected) in plan.jobs.iter().zip(expected.jobs.values()) {
        judge_job(job, expected).with_context(|| format!("job {id}"))?;
    }
    Ok(())
}

fn judge_job(job: &Job, expected: &ExpectedJob) -> Result<()> {
    ensure!(job.needs == expected.needs, "needs {:?}, expected {:?}", job.needs, expected.needs);
    match &job.work {
        JobContent::Steps(steps) => {
            ensure!(Some(steps.len()) == expected.steps, "{} steps, expected {:?}", steps.len(), expected.steps)
        }
        JobContent::Call { uses, .. } => {
            ensure!(Some(uses) == expected.uses.as_ref(), "uses {uses}, expected {:?}", expected.uses)
        }
    }
    if let Some(count) = expected.legs {
        let contexts = Object::new();
        let scope = Scope { contexts: &contexts, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
        // A matrix value may be an expression without deciding how many legs there are.
        let mut strategy = job.strategy.clone();
        strategy.matrix.iter_mut().for_each(without_expressions);
        let cells = github::matrix::expand(&strategy, &scope).map_err(anyhow::Error::msg)?;
        ensure!(cells.len() == count, "{} matrix cells, expected {count}", cells.len());
    }
    Ok(())
}

fn without_expressions(tree: &mut serde_json::Value) {
    match tree {
        serde_json::Value::String(text) => *text = text.replace("${{", "$ {{"),
        serde_json::Value::Array(items) => items.iter_mut().for_each(without_expressions),
        serde_json::Value::Object(entries) => entries.values_mut().for_each(without_expressions),
        _ => {}
    }
}
