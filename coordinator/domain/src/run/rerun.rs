//! Running again: which jobs of an earlier run run anew, and what is carried over of the others.

use std::collections::BTreeSet;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use workflow::plan::{self, Conclusion, Plan, Reason};

use crate::id::{JobKey, RunId};

use super::{CalledWorkflow, Job, JobPhase, Planned, RunPhase, RunState, job_id::root_id, transition::Transition};

/// What a request says of an earlier run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RerunRequest {
    /// Id of the event by which the earlier run is named.
    pub previous: String,
    /// What is to run.
    pub jobs: RerunScope,
}

/// Jobs of an earlier run that are to run again, always with what depends on them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "set", content = "job")]
pub enum RerunScope {
    /// All.
    All,
    /// Those that failed or were cancelled.
    Failed,
    /// One, by its id in the workflow; or one leg of its matrix, by the leg's key in the earlier run.
    One(String),
}

/// A run that repeats another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Rerun {
    /// Id of the earlier run.
    pub previous: RunId,
    /// Number among the runs of its workflow: a rerun keeps it.
    pub number: u64,
    /// Number in the pool of the run that was repeated first; 0: stored before it was kept.
    #[serde(default)]
    pub serial: u64,
    /// Its attempt.
    pub attempt: u32,
    /// Ids of the jobs that run; empty: all.
    pub jobs: Vec<String>,
    /// What is carried over, by job key.
    #[serde(rename = "carried")]
    pub reused: IndexMap<JobKey, Job>,
    /// Called workflows that the carried jobs belong to, by key.
    pub calls: IndexMap<JobKey, CalledWorkflow>,
    /// Names of secrets that the earlier run had and that did not come again.
    pub missing: Vec<String>,
    /// Inputs or the trigger are taken over from a run that an outsider asked for: they are no word of who reruns it.
    #[serde(default)]
    pub takes_over: bool,
}

/// Where a job ran whose result was carried over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReusedJob {
    /// Run id.
    pub run: RunId,
    /// The run's number in the pool.
    pub serial: u64,
}

impl RunState {
    /// What a rerun of this run by a key runs and carries over; `secrets` are the names that came with the rerun, and
    /// `takes_over` says whether it has inputs or the trigger of this run.
    ///
    /// # Errors
    /// It can't be rerun so: the text says why, for who asked.
    pub fn rerun(&self, jobs: &RerunScope, by: &str, secrets: &[String], takes_over: bool) -> Result<Rerun, String> {
        let serial = self.serial;
        let outsider = self.planned.as_ref().is_some_and(|planned| planned.outsider);
        // Of one that was not planned it is not known.
        let may_be_outsiders = self.planned.as_ref().map_or(self.request.actor != by, |planned| planned.outsider);
        if outsider && self.request.actor != by && *jobs != RerunScope::All {
            return Err(format!(
                "run {serial} was asked for by an outsider, and what its jobs made counts for nobody else: rerun all jobs"
            ));
        }
        if !matches!(self.phase, RunPhase::Done { .. }) {
            return Err(format!("run {serial} has not ended: wait for its end, or cancel it first"));
        }
        let plan = self.planned.as_ref().map(|planned| &planned.plan);
        let first: BTreeSet<&str> = match (jobs, plan) {
            (RerunScope::All, _) | (RerunScope::Failed, None) => BTreeSet::new(),
            (RerunScope::Failed, Some(plan)) => {
                let failed: BTreeSet<&str> =
                    plan.jobs.keys().map(String::as_str).filter(|id| !self.passed(id)).collect();
                if failed.is_empty() {
                    return Err(format!("no job of run {serial} failed: rerun all, or one job by its name"));
                }
                failed
            }
            (RerunScope::One(asked), plan) => {
                let id = self.leg(jobs).map_or(asked.as_str(), |(_, leg)| leg.id.as_str());
                match plan.and_then(|plan| plan.jobs.get_key_value(id)) {
                    Some((id, _)) => BTreeSet::from([id.as_str()]),
                    None => {
                        let known: Vec<&str> =
                            plan.into_iter().flat_map(|plan| plan.jobs.keys()).map(String::as_str).collect();
                        return Err(format!("run {serial} has no job \"{id}\"; its jobs are: {}", known.join(", ")));
                    }
                }
            }
        };
        let again = plan.map(|plan| with_dependents(plan, first)).unwrap_or_default();
        let reused = match again.is_empty() {
            true => IndexMap::new(),
            false => self.reused(jobs, &again),
        };
        let calls = self.calls.iter().filter(|(_, call)| !again.contains(root_id(&call.id)));
        let calls = calls.map(|(key, call)| (key.clone(), CalledWorkflow::clone(call))).collect();
        let came = |name: &&String| secrets.iter().any(|came| came.eq_ignore_ascii_case(name));
        Ok(Rerun {
            previous: self.id.clone(),
            number: self.number,
            serial: self.first_serial(),
            attempt: self.attempt.saturating_add(1),
            jobs: again.into_iter().map(str::to_owned).collect(),
            reused,
            calls,
            missing: self.secret_names.iter().filter(|name| !came(name)).cloned().collect(),
            takes_over: takes_over && may_be_outsiders,
        })
    }

    /// What `github.run_id` is: the number in the pool of the run that this one repeats, or its own (GitHub docs, `github`
    /// context: it does not change where a run is run again).
    pub fn first_serial(&self) -> u64 {
        self.rerun.as_ref().map(|rerun| rerun.serial).filter(|serial| *serial > 0).unwrap_or(self.serial)
    }

    /// Whether all cells of a job, or all that it called, ended well, or were left out on purpose.
    fn passed(&self, id: &str) -> bool {
        let mut cells = self.jobs.values().filter(|job| root_id(&job.id) == id).peekable();
        cells.peek().is_some() && cells.all(|job| job.passed())
    }

    /// The leg of a matrix of the run's own file that is to run again, where one is named.
    fn leg(&self, jobs: &RerunScope) -> Option<(&JobKey, &Job)> {
        let RerunScope::One(asked) = jobs else { return None };
        let (key, job) = self.jobs.get_key_value(&JobKey::from(asked.as_str()))?;
        (job.cell.total > 1 && job.parent_call.is_empty()).then_some((key, job.as_ref()))
    }

    /// Jobs that keep their result: those outside of the set, of a matrix that failed the cells that did not, and all
    /// other legs than one that is named.
    fn reused(&self, jobs: &RerunScope, again: &BTreeSet<&str>) -> IndexMap<JobKey, Job> {
        let named = self.leg(jobs).map(|(key, _)| key);
        let needs_anew = |job: &Job| {
            let plan = self.planned.as_ref().map(|planned| &planned.plan);
            let needs = plan.and_then(|plan| plan.jobs.get(&job.id)).map(|job| job.needs.as_slice());
            needs.unwrap_or_default().iter().any(|need| again.contains(need.as_str()))
        };
        let is_kept_leg = |key: &JobKey, job: &Job| match jobs {
            RerunScope::All => false,
            RerunScope::Failed => job.passed(),
            RerunScope::One(_) => named.is_some_and(|named| named != key),
        };
        let kept = |key: &JobKey, job: &Job| {
            let is_leg = job.parent_call.is_empty() && job.cell.total > 1;
            !again.contains(root_id(&job.id)) || (is_leg && is_kept_leg(key, job) && !needs_anew(job))
        };
        let here = ReusedJob { run: self.id.clone(), serial: self.serial };
        let carry = |job: &Job| Job {
            claim: None,
            attempts: Vec::new(),
            reused: Some(job.reused.clone().unwrap_or_else(|| here.clone())),
            ..job.clone()
        };
        let ended = self.jobs.iter().filter(|(_, job)| matches!(job.phase, JobPhase::Done { .. }));
        ended.filter(|(key, job)| kept(key, job)).map(|(key, job)| (key.clone(), carry(job))).collect()
    }
}

impl Job {
    fn passed(&self) -> bool {
        matches!(self.phase, JobPhase::Done { conclusion: Conclusion::Success | Conclusion::Skipped, .. })
    }
}

/// These jobs and all that need them, at any distance.
fn with_dependents<'a>(plan: &'a Plan, mut found: BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    loop {
        let before = found.len();
        for (id, job) in &plan.jobs {
            if job.needs.iter().any(|need| found.contains(need.as_str())) {
                found.insert(id);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// What stands for a job that does not run again, by key.
#[derive(Default)]
pub(super) struct ReusedEntries {
    pub(super) jobs: Vec<(JobKey, Job)>,
    pub(super) calls: Vec<(JobKey, CalledWorkflow)>,
}

impl Transition {
    /// Entries of a job that does not run again; none where it does.
    pub(super) fn reused_entries(&self, id: &str) -> ReusedEntries {
        let Some(rerun) = self.state.rerun.as_ref().filter(|rerun| !rerun.jobs.iter().any(|job| job == id)) else {
            return ReusedEntries::default();
        };
        let jobs = rerun.reused.iter().filter(|(_, job)| root_id(&job.id) == id);
        let calls = rerun.calls.iter().filter(|(_, call)| root_id(&call.id) == id);
        ReusedEntries {
            jobs: jobs.map(|(key, job)| (key.clone(), job.clone())).collect(),
            calls: calls.map(|(key, call)| (key.clone(), call.clone())).collect(),
        }
    }

    /// A cell as the earlier run left it, where that counts.
    pub(super) fn reused_cell(&self, key: &JobKey, made: Job) -> Job {
        let earlier = self.state.rerun.as_ref().and_then(|rerun| rerun.reused.get(key));
        earlier
            .filter(|earlier| {
                earlier.id == made.id && earlier.parent_call == made.parent_call && earlier.cell == made.cell
            })
            .cloned()
            .unwrap_or(made)
    }

    /// Why a job can't run again: it uses a secret that the earlier run had and that did not come this time.
    pub(super) fn lacks_secret(
        &self,
        planned: &Planned,
        parent_call: &JobKey,
        id: &str,
        job: &plan::Job,
    ) -> Option<Reason> {
        let missing = self.state.rerun.as_ref().map(|rerun| rerun.missing.as_slice())?;
        // Untrusted code got no secrets the first time either.
        // What a called workflow is handed on was looked at with its caller.
        if missing.is_empty() || !planned.proven || !parent_call.is_empty() {
            return None;
        }
        let named = planned.plan.dialect.named_secrets(&planned.plan, job, &planned.called);
        let is_stored = |name: &str| planned.is_trusted() && planned.stored.has_secret(name);
        let lacks = |name: &&str| named.has(name) && !is_stored(name);
        let lacking: Vec<&str> = missing.iter().map(String::as_str).filter(lacks).collect();
        (!lacking.is_empty()).then(|| {
            let names = lacking.join(", ");
            Reason::Invalid(format!(
                "jobs.{id}: it uses the secret {names}, which the earlier run had and this one did not bring: rerun \
                 with its value, or have a maintainer store it"
            ))
        })
    }
}

#[cfg(test)]
mod tests;
