//! Variables that the coordinator of ngit gives to jobs: workflows written for it read them.

use indexmap::IndexMap;

use super::{Planned, RequestOrigin, RunState};

/// Adds them, where the run is reported as that coordinator reports its own.
pub(super) fn add(env: &mut IndexMap<String, String>, state: &RunState, planned: &Planned) {
    let Some(sha256) = &planned.workflow_sha256 else { return };
    let request = &state.request;
    let known = |trigger: &&str| ["push", "pull_request", "schedule"].contains(trigger);
    let trigger = request.trigger.as_deref().filter(known).unwrap_or("manual");
    let path = request.workflow.strip_prefix("./").unwrap_or(&request.workflow);
    let event = match &request.origin {
        RequestOrigin::Nostr(origin) => Some(&origin.request),
        RequestOrigin::Trigger(origin) => origin.event.as_ref(),
        RequestOrigin::Api => None,
    };
    let event = event.map(|event| event.id.as_str()).unwrap_or_default();
    let variables = [
        ("REPOSITORY", request.repository.address.as_str()),
        ("WORKFLOW_PATH", path),
        ("WORKFLOW_SHA256", sha256.as_str()),
        ("TRIGGER", trigger),
        ("TRIGGER_EVENT", event),
    ];
    env.extend(variables.map(|(name, value)| (format!("NGIT_CI_{name}"), value.to_owned())));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use crate::{
        id::BlobHash,
        run::{RunRules, order, testing},
    };

    #[test]
    fn jobs_of_reported_runs_find_what_workflows_of_ngit_read() {
        let mut planned = testing::planned(vec![("build", testing::job(&[]))]);
        let env_of = |planned| {
            let run = testing::TestRun::under(RunRules::default(), false, planned);
            order(&run.state, &"build".into()).unwrap().request_env
        };
        assert!(env_of(planned.clone()).is_empty());
        planned.workflow_sha256 = Some(BlobHash::of(b"text"));
        let env = env_of(planned);
        assert_eq!(env["NGIT_CI_WORKFLOW_PATH"], ".github/workflows/ci.yml");
        assert_eq!(env["NGIT_CI_WORKFLOW_SHA256"], BlobHash::of(b"text").to_string());
        assert_eq!((env["NGIT_CI_TRIGGER"].as_str(), env["NGIT_CI_TRIGGER_EVENT"].as_str()), ("manual", ""));
    }
}
