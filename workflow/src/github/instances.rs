//! Whether a job runs, and as which instances: its condition, its matrix and its keys, evaluated in GitHub's order.

use crate::dialect::job_context::{InstanceContext, JobContext, ResultsBefore, RunContext};
use crate::dialect::job_instance::{JobExpansion, JobInstance, JobKeyError};
use crate::leg_filter::LegFilter;
use crate::plan::{ConcurrencyRequest, JobContent, MatrixCell};

use super::contexts::EvalContext;
use super::{display_name, job, labels, matrix};

/// The concurrency group of a whole run.
pub(crate) fn run_concurrency(run: &RunContext<'_>) -> Result<Option<ConcurrencyRequest>, String> {
    let Some(concurrency) = &run.file.concurrency else { return Ok(None) };
    let before = ResultsBefore { success: true, ..ResultsBefore::default() };
    let context = EvalContext::of_run(run).after(before);
    context.evaluate(|scope| job::concurrency(concurrency, scope)).map(Some)
}

/// Whether the job's `if:` lets it run.
pub(crate) fn decide(context: &JobContext<'_>) -> Result<bool, JobKeyError> {
    EvalContext::of_job(context).evaluate(|scope| job::decide(context.job, scope)).map_err(at("if"))
}

/// The job's cells; a job without a matrix has one.
pub(crate) fn expand(context: &JobContext<'_>) -> Result<JobExpansion, JobKeyError> {
    let (written, known) = (context.job, EvalContext::of_job(context));
    let fail_fast = known.evaluate(|scope| job::fail_fast(written, scope)).map_err(at("strategy.fail-fast"))?;
    let max_parallel =
        known.evaluate(|scope| job::max_parallel(written, scope)).map_err(at("strategy.max-parallel"))?;
    let cells = known.evaluate(|scope| matrix::expand(&written.strategy, scope)).map_err(at("strategy"))?;
    let instance = |cell: MatrixCell| {
        let known = known.clone().with_instance(&InstanceContext { cell: &cell, fail_fast, max_parallel });
        let mut made = JobInstance { cell, ..JobInstance::default() };
        made.invalid = fill(&mut made, context, &known).err();
        made
    };
    let instances = cells.into_iter().map(instance).collect();
    let instances = wanted(instances, &written.strategy.legs)?;
    Ok(JobExpansion { numbered: written.strategy.matrix.is_some(), fail_fast, max_parallel, instances })
}

/// The legs that are to run.
fn wanted(mut instances: Vec<JobInstance>, legs: &LegFilter) -> Result<Vec<JobInstance>, JobKeyError> {
    if legs.is_empty() {
        return Ok(instances);
    }
    let names: Vec<String> = instances.iter().map(|leg| leg.name.clone()).collect();
    instances.retain(|leg| legs.wants(&leg.name, &leg.cell.matrix));
    if instances.is_empty() {
        let message = format!("none of its legs is one that was asked for; it has {}", names.join(", "));
        return Err(JobKeyError { key: "strategy", message });
    }
    Ok(instances)
}

/// The keys of one cell. What a called workflow's jobs say for themselves, its caller does not.
fn fill(made: &mut JobInstance, context: &JobContext<'_>, known: &EvalContext) -> Result<(), JobKeyError> {
    let written = context.job;
    let name = known.evaluate(|scope| Ok::<_, String>(display_name::job(context.id, written, &made.cell, scope)));
    made.name = name.map_err(at("name"))?;
    if let Some(concurrency) = &written.concurrency {
        let asked = known.evaluate(|scope| job::concurrency(concurrency, scope));
        made.concurrency = Some(asked.map_err(at("concurrency"))?);
    }
    if matches!(written.work, JobContent::Call { .. }) {
        return Ok(());
    }
    made.tolerated = known.evaluate(|scope| job::continue_on_error(written, scope)).map_err(at("continue-on-error"))?;
    let minutes = known.evaluate(|scope| job::timeout_minutes(written, scope)).map_err(at("timeout-minutes"))?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "above zero, and saturates")]
    let timeout_ms = (minutes * 60_000.0) as u64;
    made.timeout_ms = timeout_ms;
    made.labels = known.evaluate(|scope| labels::of(written, scope)).map_err(at("runs-on"))?;
    made.environment = known.evaluate(|scope| job::environment(written, scope)).map_err(at("environment"))?;
    Ok(())
}

fn at(key: &'static str) -> impl FnOnce(String) -> JobKeyError {
    move |message| JobKeyError { key, message }
}
