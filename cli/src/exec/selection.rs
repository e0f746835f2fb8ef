//! Which jobs of a workflow are run, and which legs of their matrices: `--job` and `--matrix`. Pure.

use std::collections::{HashSet, VecDeque};

use anyhow::{Result, bail, ensure};
use domain::id::JobKey;
use domain::run::{self, CalledWorkflow, Job, NewRun, Planned, RunEffect, RunEvent, RunState};
use indexmap::{IndexMap, IndexSet};
use serde_json::{Map, Value};
use workflow::{
    leg_filter::{LegFilter, value_text},
    plan::{self, Conclusion, JobContent, JobReport, Plan, Reason},
};

/// What is asked for.
pub(super) struct Selection<'a> {
    /// A job by its id, or by the name that it is printed with; a leg of a matrix has a name of its own.
    pub(super) job: Option<&'a str>,
    /// Values of matrices. Several of one key: any of them.
    pub(super) matrix: &'a [(String, String)],
}

impl Selection<'_> {
    /// Leaves in a plan what is asked for and what that needs.
    ///
    /// # Errors
    /// There is no such job, key or value: the message lists those there are.
    pub(super) fn apply(&self, run: NewRun, planned: &mut Planned) -> Result<()> {
        if self.job.is_none() && self.matrix.is_empty() {
            return Ok(());
        }
        let foreseen = foresee(run, planned.clone());
        if let Some(job) = self.job {
            select_job(planned, &foreseen, job)?;
        }
        if !self.matrix.is_empty() {
            select_values(planned, &foreseen, self.matrix)?;
        }
        Ok(())
    }
}

/// The run as it would end if each job succeeded at once, without outputs: it has the names of all jobs that are known before
/// any ran.
fn foresee(new: NewRun, planned: Planned) -> RunState {
    let (mut state, _) = run::create(new, 0);
    let mut events = VecDeque::from([RunEvent::Planned(Box::new(planned))]);
    while let Some(event) = events.pop_front() {
        let Ok((next, effects)) = run::advance(&state, event, 0) else { continue };
        state = next;
        for effect in effects {
            match effect {
                RunEffect::Queue { job, attempt, .. } => {
                    let failed = JobReport::failed(Reason::Step);
                    let report = JobReport { conclusion: Conclusion::Success, reason: None, exit_code: 0, ..failed };
                    let report = Box::new(report);
                    events.push_back(RunEvent::Accepted { job: job.clone(), worker: String::new() });
                    events.push_back(RunEvent::Begun { job: job.clone(), attempt });
                    events.push_back(RunEvent::Finished { job, attempt, report });
                }
                RunEffect::Join { job, .. } => events.push_back(RunEvent::Granted { job }),
                _ => {}
            }
        }
    }
    state
}

/// A job, or a call of a workflow, that will be there.
#[derive(Clone, Copy)]
struct ForeseenLeg<'a> {
    /// The path of ids from the run's own file down.
    id: &'a str,
    /// The call that it stands in.
    parent_call: &'a JobKey,
    /// As it is printed.
    name: &'a str,
    matrix: &'a Map<String, Value>,
}

impl ForeseenLeg<'_> {
    /// Its id in its own file.
    fn own_id(&self) -> &str {
        self.id.rsplit('/').next().unwrap_or(self.id)
    }
}

fn call_leg(call: &CalledWorkflow) -> ForeseenLeg<'_> {
    ForeseenLeg { id: &call.id, parent_call: &call.parent_call, name: &call.name, matrix: &call.cell.matrix }
}

fn job_leg(job: &Job) -> ForeseenLeg<'_> {
    ForeseenLeg { id: &job.id, parent_call: &job.parent_call, name: &job.name, matrix: &job.cell.matrix }
}

/// Calls first: they have their jobs' names as a beginning.
fn legs(foreseen: &RunState) -> impl Iterator<Item = ForeseenLeg<'_>> {
    foreseen.calls.values().map(|call| call_leg(call)).chain(foreseen.jobs.values().map(|job| job_leg(job)))
}

fn select_job(planned: &mut Planned, foreseen: &RunState, wanted: &str) -> Result<()> {
    if planned.plan.jobs.contains_key(wanted) {
        keep(&mut planned.plan, wanted);
        return Ok(());
    }
    let Some(leg) = legs(foreseen).find(|leg| leg.name == wanted) else {
        // The names of legs that depend on what other jobs give are not known before.
        let unknown = planned.plan.jobs.iter().find(|(id, job)| {
            let start = format!("{} (", job.name.as_deref().unwrap_or(id));
            is_unforeseen(planned, foreseen, id) && wanted.starts_with(&start)
        });
        let Some(id) = unknown.map(|(id, _)| id.clone()) else {
            bail!("--job {wanted}: the workflow has no such job; it has {}", names(planned, foreseen));
        };
        keep(&mut planned.plan, &id);
        choose_leg(&mut planned.plan, &id, wanted);
        return Ok(());
    };
    let mut path = vec![leg];
    let mut at = leg.parent_call;
    while let Some(call) = foreseen.calls.get(at) {
        path.push(call_leg(call));
        at = &call.parent_call;
    }
    path.reverse();
    keep_path(planned, &path, wanted)
}

/// Leaves in each file on the way to a leg what leads to it, and what that needs.
fn keep_path(planned: &mut Planned, path: &[ForeseenLeg<'_>], wanted: &str) -> Result<()> {
    let mut file: Option<String> = None;
    let mut outer = String::new();
    for leg in path {
        let Some(plan) = plan_of(planned, file.as_deref()) else { return Ok(()) };
        let id = leg.own_id();
        keep(plan, id);
        choose_leg(plan, id, leg.name.strip_prefix(&outer).unwrap_or(leg.name));
        let next = plan.jobs.get(id).and_then(called).map(str::to_owned);
        if let Some(next) = next.as_deref().filter(|_| leg.name != wanted) {
            // What is left out of a file is left out wherever it is called.
            let times = plan.jobs.values().filter(|job| called(job) == Some(next)).count();
            ensure!(times == 1, "--job {wanted}: {id} needs a job that calls {next} too; take all of it: --job {id}");
        }
        file = next;
        outer = format!("{} / ", leg.name);
    }
    Ok(())
}

/// The workflow that a job calls.
fn called(job: &plan::Job) -> Option<&str> {
    match &job.work {
        JobContent::Call { uses, .. } => Some(uses),
        JobContent::Steps(_) => None,
    }
}

/// Leaves one leg of a job that has several.
fn choose_leg(plan: &mut Plan, id: &str, name: &str) {
    if let Some(job) = plan.jobs.get_mut(id).filter(|job| job.strategy.matrix.is_some()) {
        job.strategy.legs.name = Some(name.to_owned());
    }
}

fn plan_of<'p>(planned: &'p mut Planned, file: Option<&str>) -> Option<&'p mut Plan> {
    match file {
        None => Some(&mut planned.plan),
        Some(file) => planned.called.get_mut(file),
    }
}

/// Leaves one job in a file, and those it needs.
fn keep(plan: &mut Plan, id: &str) {
    keep_needed(plan, IndexSet::from([id.to_owned()]));
}

/// Leaves these jobs in a file, and those they need.
fn keep_needed(plan: &mut Plan, mut wanted: IndexSet<String>) {
    let mut seen = 0;
    while let Some(next) = wanted.get_index(seen).cloned() {
        seen += 1;
        wanted.extend(plan.jobs.get(&next).map(|job| job.needs.clone()).unwrap_or_default());
    }
    plan.jobs.retain(|id, _| wanted.contains(id));
}

/// Whether a job of the run's own file has a matrix whose legs are not known before the run.
fn is_unforeseen(planned: &Planned, foreseen: &RunState, id: &str) -> bool {
    let has_matrix = planned.plan.jobs.get(id).is_some_and(|job| job.strategy.matrix.is_some());
    has_matrix && foreseen.jobs.contains_key(&JobKey::from(id))
}

/// Every job by its name, and one that has another id by that as well.
fn names(planned: &Planned, foreseen: &RunState) -> String {
    let ids = planned.plan.jobs.keys().cloned();
    let names = legs(foreseen).map(|leg| leg.name.to_owned());
    ids.chain(names).collect::<IndexSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

/// Leaves the legs that have the values; a job whose matrix has a key and none of the values only where others need it.
fn select_values(planned: &mut Planned, foreseen: &RunState, wanted: &[(String, String)]) -> Result<()> {
    let mut filter = LegFilter::default();
    for (key, value) in wanted {
        filter.values.entry(key.clone()).or_default().push(value.clone());
    }
    check_values(planned, foreseen, &filter)?;
    let mut left_out = HashSet::new();
    for (id, job) in planned.plan.jobs.iter_mut().filter(|(_, job)| job.strategy.matrix.is_some()) {
        let mut own = legs(foreseen).filter(|leg| leg.parent_call.is_empty() && leg.id == *id).peekable();
        let unforeseen = own.peek().is_none_or(|leg| leg.matrix.is_empty());
        if unforeseen || own.any(|leg| filter.wants(leg.name, leg.matrix)) {
            job.strategy.legs.values.clone_from(&filter.values);
        } else {
            left_out.insert(id.clone());
        }
    }
    let chosen = planned.plan.jobs.keys().filter(|id| !left_out.contains(*id)).cloned().collect();
    keep_needed(&mut planned.plan, chosen);
    Ok(())
}

/// Each key and value has to be one of a matrix, as far as they are known before the run.
fn check_values(planned: &Planned, foreseen: &RunState, filter: &LegFilter) -> Result<()> {
    if planned.plan.jobs.keys().any(|id| is_unforeseen(planned, foreseen, id)) {
        return Ok(());
    }
    let mut known: IndexMap<&str, IndexSet<String>> = IndexMap::new();
    let ours = legs(foreseen).filter(|leg| planned.plan.jobs.contains_key(leg.id));
    for (key, value) in ours.flat_map(|leg| leg.matrix) {
        known.entry(key).or_default().insert(value_text(value));
    }
    for (key, values) in &filter.values {
        let own = known.iter().find(|(own, _)| own.eq_ignore_ascii_case(key));
        let Some((_, own)) = own else {
            let keys: Vec<&str> = known.keys().copied().collect();
            let there = if keys.is_empty() { "no matrix".to_owned() } else { keys.join(", ") };
            bail!("--matrix {key}={}: no matrix has the key; there is {there}", values.join(","));
        };
        if let Some(value) = values.iter().find(|value| !own.contains(*value)) {
            let there: Vec<&str> = own.iter().map(String::as_str).collect();
            bail!("--matrix {key}={value}: no leg has this value; {key} is {}", there.join(", "));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]
    use workflow::dialect::{
        call_graph::{CalledFiles, GraphBuild},
        run_start::{RunNumbers, RunTrigger, Subject},
        workflow_ref::WorkflowRef,
    };

    use super::*;
    use crate::exec::local_runner::new_run;

    const WORKFLOW: &str = "
on: push
jobs:
  lint:
    runs-on: x
    steps: [{run: a}]
  setup:
    name: Set up
    runs-on: x
    strategy: {matrix: {os: [linux]}}
    outputs: {list: '[1]'}
    steps: [{run: a}]
  test:
    needs: setup
    runs-on: x
    strategy: {matrix: {os: [linux, mac], node: [18, 20]}}
    steps: [{run: a}]
  later:
    name: Later
    needs: setup
    runs-on: x
    strategy: {matrix: {n: '${{ fromJSON(needs.setup.outputs.nothing) }}'}}
    steps: [{run: a}]
  deploy:
    name: Deploy
    needs: lint
    strategy: {matrix: {region: [eu, us]}}
    uses: ./.github/workflows/called.yml
";
    const CALLED: &str = "
on: workflow_call
jobs:
  build:
    runs-on: x
    steps: [{run: a}]
  push:
    name: Push it
    needs: build
    runs-on: x
    steps: [{run: a}]
";

    fn planned(workflow: &str) -> Planned {
        let place = WorkflowRef { remote: None, path: ".github/workflows/called.yml".into() };
        let files = CalledFiles::from([(place, Ok(CALLED.to_owned()))]);
        let loaded = workflow::plan::Dialect::Github.load(".github/workflows/ci.yml", workflow, &files);
        let GraphBuild::Done(Some(graph), _) = loaded else { panic!("it is not read") };
        let subject = Subject { commit: "1".repeat(40), reference: "refs/heads/main".into(), ..Subject::default() };
        let trigger = RunTrigger { event: "push".into(), ..RunTrigger::default() };
        planning::assemble(*graph, &subject, trigger, RunNumbers { serial: 1, number: 1, attempt: 1 }).unwrap()
    }

    /// Names of the jobs that run, in order; or the error.
    fn selected(workflow: &str, job: Option<&str>, matrix: &[(&str, &str)]) -> String {
        let mut planned = planned(workflow);
        let new = |planned: &Planned| new_run("run".into(), planned, &IndexMap::new(), Vec::new());
        let matrix: Vec<_> = matrix.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let run = new(&planned);
        if let Err(error) = (Selection { job, matrix: &matrix }).apply(run, &mut planned) {
            return error.to_string();
        }
        let jobs = foresee(new(&planned), planned).jobs;
        jobs.values().map(|job| job.name.clone()).collect::<Vec<_>>().join("; ")
    }

    #[test]
    fn a_job_is_chosen_by_its_id_or_by_the_name_that_it_is_printed_with() {
        for (job, jobs) in [
            ("lint", "lint"),
            ("setup", "Set up (linux)"),
            ("Set up (linux)", "Set up (linux)"),
            ("test (mac, 20)", "Set up (linux); test (mac, 20)"),
            ("test", "Set up (linux); test (linux, 18); test (linux, 20); test (mac, 18); test (mac, 20)"),
            ("Deploy (us)", "lint; Deploy (us) / build; Deploy (us) / Push it"),
            ("Deploy (eu) / build", "lint; Deploy (eu) / build"),
            ("Deploy (eu) / Push it", "lint; Deploy (eu) / build; Deploy (eu) / Push it"),
            // Its legs are known only once setup has run.
            ("Later (1)", "Set up (linux); Later"),
        ] {
            assert_eq!(selected(WORKFLOW, Some(job), &[]), jobs, "{job}");
        }
        let error = selected(WORKFLOW, Some("test (bsd, 20)"), &[]);
        assert!(
            error.starts_with("--job test (bsd, 20): the workflow has no such job; it has lint, setup, test"),
            "{error}"
        );
        assert!(error.contains("test (mac, 18)") && error.contains("Deploy (eu) / Push it"), "{error}");
    }

    #[test]
    fn legs_are_chosen_by_the_values_of_their_matrices() {
        let known = WORKFLOW.replace("'${{ fromJSON(needs.setup.outputs.nothing) }}'", "[1]");
        let all = "lint; Set up (linux)";
        let deploy = "Deploy (eu) / build; Deploy (eu) / Push it; Deploy (us) / build; Deploy (us) / Push it";
        for (matrix, jobs) in [
            (vec![("node", "20")], format!("{all}; test (linux, 20); test (mac, 20); Later (1); {deploy}")),
            (vec![("os", "mac"), ("node", "20")], format!("{all}; test (mac, 20); Later (1); {deploy}")),
            (
                vec![("node", "18"), ("node", "20"), ("os", "mac")],
                format!("{all}; test (mac, 18); test (mac, 20); Later (1); {deploy}"),
            ),
            (
                vec![("region", "us"), ("os", "linux"), ("node", "18")],
                format!("{all}; test (linux, 18); Later (1); Deploy (us) / build; Deploy (us) / Push it"),
            ),
            (vec![("os", "bsd")], "--matrix os=bsd: no leg has this value; os is linux, mac".to_owned()),
            (vec![("oss", "mac")], "--matrix oss=mac: no matrix has the key; there is region, os, node, n".to_owned()),
        ] {
            assert_eq!(selected(&known, None, &matrix), jobs, "{matrix:?}");
        }
        let one = selected(&known, Some("test"), &[("os", "mac")]);
        assert_eq!(one, "Set up (linux); test (mac, 18); test (mac, 20)", "what it needs runs, whatever its legs");
    }
}
