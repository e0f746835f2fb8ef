//! The static summary of a workflow, see [`Outline`].

use crate::dialect::outline::{InputOutline, JobOutline, Outline};
use crate::expression::{EvaluationLimits, NoHostFunctions, Object, Scope};
use crate::plan::{Input, JobContent, Plan};

use super::matrix;

/// What a plan would run.
pub(crate) fn outline(plan: &Plan) -> Outline {
    crate::dialect::within_budget(|| outline_within(plan))
}

fn outline_within(plan: &Plan) -> Outline {
    let contexts = Object::new();
    let scope = Scope { contexts: &contexts, functions: &NoHostFunctions, limits: EvaluationLimits::default() };
    let jobs = plan.jobs.iter().map(|(id, job)| {
        let (steps, calls) = match &job.work {
            JobContent::Steps(steps) => (Some(steps.len()), None),
            JobContent::Call { uses, .. } => (None, Some(uses.clone())),
        };
        let cells = matrix::expand(&job.strategy, &scope).ok().map(|cells| cells.len());
        JobOutline { id: id.clone(), needs: job.needs.clone(), steps, calls, legs: cells }
    });
    Outline {
        name: plan.name.clone(),
        on: plan.on.keys().cloned().collect(),
        inputs: inputs(plan),
        jobs: jobs.collect(),
    }
}

/// What who starts it by hand may set.
pub(crate) fn inputs(plan: &Plan) -> Vec<InputOutline> {
    plan.on.get("workflow_dispatch").into_iter().flat_map(|trigger| &trigger.inputs).map(input).collect()
}

fn input((name, input): (&String, &Input)) -> InputOutline {
    let default = input.default.as_ref().map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    InputOutline {
        name: name.clone(),
        kind: input.kind.clone(),
        required: input.required,
        default,
        options: input.options.clone(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn jobs_are_outlined_with_what_is_known_before_they_run() {
        let text = "name: CI\non: [push, workflow_dispatch]\njobs:\n  a:\n    runs-on: x\n    strategy: {matrix: {n: [1, 2, 3]}}\n    steps: [{run: a}, {run: b}]\n  b:\n    needs: a\n    runs-on: x\n    strategy: {matrix: {n: '${{ fromJSON(needs.a.outputs.n) }}'}}\n    steps: [{run: a}]\n  c:\n    needs: [a, b]\n    uses: ./.github/workflows/c.yml\n";
        let (plan, findings) = crate::github::parse("ci.yml", text);
        let found = outline(&plan.unwrap_or_else(|| unreachable!("{findings:?}")));
        assert_eq!((found.name.as_str(), found.on.join(" ").as_str()), ("CI", "push workflow_dispatch"));
        let jobs: Vec<_> = found.jobs.iter().map(|job| (job.id.as_str(), job.steps, job.legs)).collect();
        assert_eq!(jobs, [("a", Some(2), Some(3)), ("b", Some(1), None), ("c", None, Some(1))]);
        assert_eq!(found.jobs[2].calls.as_deref(), Some("./.github/workflows/c.yml"));
        assert_eq!(found.jobs[2].needs, ["a", "b"]);
        assert_eq!(found.inputs, []);

        let text = "on: {workflow_dispatch: {inputs: {to: {type: choice, required: true, options: [a, b]}, dry: {type: boolean, default: true}}}}\njobs: {a: {runs-on: x, steps: [{run: a}]}}\n";
        let (plan, findings) = crate::github::parse("ci.yml", text);
        let found = outline(&plan.unwrap_or_else(|| unreachable!("{findings:?}")));
        let inputs = found.inputs.iter().map(|input| {
            (input.name.as_str(), input.kind.as_str(), input.required, input.default.as_deref(), input.options.len())
        });
        assert_eq!(
            inputs.collect::<Vec<_>>(),
            [("to", "choice", true, None, 2), ("dry", "boolean", false, Some("true"), 0)]
        );
    }
}
