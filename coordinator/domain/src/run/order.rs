//! What a worker is told about a job, secrets aside.

use sha2::{Digest as _, Sha256};
use workflow::{
    dialect::job_context::JobOrigin,
    plan::{self, JobOrder, SourceRef},
};

use crate::id::{JobKey, RunId};

use super::{RunState, job_id::job_id, ngit_variables};

/// The order for the current attempt of a job; `None` where the run has no such job or no plan.
pub fn order(state: &RunState, key: &JobKey) -> Option<JobOrder> {
    let planned = state.planned.as_ref()?;
    let job = state.jobs.get(key)?;
    let id = job_id(&job.id);
    let context = state.job_context(planned, &job.parent_call, id)?;
    let (file, written) = (context.run.file, context.job);
    let definition = planned.definitions.iter().find(|definition| definition.path == file.path);
    let origin = JobOrigin {
        commit: planned.commit.as_str(),
        reference: &planned.reference,
        definition: definition.map(|definition| definition.event.as_str()),
        remotes: &planned.origins,
        number: job_number(&state.id, key),
    };
    let contexts = file.dialect.step_contexts(&context, &job.instance(), &origin);
    let attempt = job.attempts.last().map_or(1, |attempt| attempt.number);
    let mut notices: Vec<String> = state.request.notices.iter().chain(&planned.notices).cloned().collect();
    if state.secrets && !planned.proven {
        notices.push("This commit is not in the maintainers' state: the job gets no secrets.".into());
    }
    if attempt > 1 {
        let why = job.attempts.iter().rev().find_map(|attempt| attempt.lost.as_ref());
        let why = why.map(|reason| format!(": {}", reason)).unwrap_or_default();
        notices.push(format!("This is attempt {attempt}; the one before was lost{why}."));
    }
    let mut request_env = state.request_variables(planned).clone();
    ngit_variables::add(&mut request_env, state, planned);
    Some(JobOrder {
        run: state.id.to_string(),
        key: key.to_string(),
        id: id.to_owned(),
        name: job.name.clone(),
        attempt,
        dialect: planned.plan.dialect,
        workflow: planned.plan.name.clone(),
        // What holds for the whole workflow counts where the job says nothing.
        job: plan::Job {
            permissions: written.permissions.clone().or_else(|| planned.plan.permissions.clone()),
            ..written.clone()
        },
        runs_on: job.labels.clone(),
        contexts,
        request_env,
        workflow_env: file.env.clone(),
        workflow_defaults: file.defaults.clone(),
        timeout_ms: job.timeout_ms,
        source: SourceRef {
            repository: state.request.repository.address.clone(),
            commit: planned.commit.to_string(),
            reference: planned.reference.clone(),
            trusted: planned.is_trusted(),
        },
        notices,
        token_secrets: state.token_secrets(key),
    })
}

/// A number that no other job has, short enough that every JSON reader keeps it exactly.
fn job_number(run: &RunId, key: &JobKey) -> u64 {
    let digest = Sha256::digest(format!("{run}/{key}"));
    digest.iter().take(6).fold(0, |number, byte| number << 8 | u64::from(*byte))
}
