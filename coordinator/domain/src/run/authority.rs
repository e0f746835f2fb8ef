//! What a run may have by who asked for it and for which commit.
//!
//! A commit that the maintainers' state holds is *proven*: its jobs get the secrets that came with the request. Who asked
//! is an *outsider* unless the repository trusts the key: such a run acts for nobody but its author. Both together are
//! trusted.

use std::{borrow::Cow, sync::LazyLock};

use indexmap::IndexMap;
use workflow::plan::Reason;

use super::{Planned, RunState};

/// The variables of a run that may not bring any.
static NO_VARIABLES: LazyLock<IndexMap<String, String>> = LazyLock::new(IndexMap::new);

impl Planned {
    /// Whether the run acts with the word of the maintainers: for its commit, and for who asked. Only then it gets OIDC
    /// tokens and environments, and writes caches.
    pub fn is_trusted(&self) -> bool {
        self.proven && !self.outsider
    }

    /// What stands in the log of a pull request's run that lacks rights because of its author.
    pub fn foreign_code_notice(author: &str) -> String {
        format!(
            "This pull request is by {author}, who is no maintainer of this repository: the run gets no secrets, no OIDC \
             tokens, no environments and no variables, and only reads caches. To change that for all that the key \
             publishes, have a maintainer name it under `trusted` in .github/longshore.yml."
        )
    }

    /// What its author is told of the rights that it lacks because of who asked.
    pub fn outsider_notice(actor: &str) -> String {
        format!(
            "{actor} is no maintainer of this repository: the run gets no OIDC tokens, no environments and no variables \
             of the request, only reads caches, and has concurrency groups of its own. To change that, have a maintainer \
             name the key under `trusted` in .github/longshore.yml."
        )
    }

    /// The same of a rerun that has the inputs or the trigger of an outsider's run.
    pub fn takes_over_notice() -> String {
        "This reruns what an outsider asked for, with that run's inputs or trigger: it has the rights of that run, no \
         OIDC tokens, no environments and no variables, and only reads caches. To give it those of who reruns it, run \
         the workflow anew with inputs of your own."
            .to_owned()
    }

    /// Why a job may not be in an environment, whatever protects it.
    pub(super) fn refuses_environment(&self, environment: &str) -> Option<Reason> {
        self.outsider.then(|| {
            Reason::Invalid(format!(
                "the environment {environment} is not for runs that outsiders ask for: have a maintainer of the \
                 repository run it"
            ))
        })
    }
}

impl RunState {
    /// The `vars` context: what the request says, and beneath it what is stored for the repository.
    pub(super) fn variables<'r>(&'r self, planned: &'r Planned) -> &'r IndexMap<String, String> {
        match planned.is_trusted() && !planned.stored.variables.is_empty() {
            true => &planned.stored.variables,
            false => self.request_variables(planned),
        }
    }

    /// What the request says of the `vars` and `env` of its jobs: nothing, where an outsider wrote it. Variables steer the
    /// tools that steps call.
    pub(super) fn request_variables<'r>(&'r self, planned: &Planned) -> &'r IndexMap<String, String> {
        if planned.outsider { &NO_VARIABLES } else { &self.request.env }
    }

    /// Whose turn its jobs take in the queue: that of the repository's owner, for all that he has, or of who asked where
    /// that is an outsider, who must not stand before others.
    pub fn turn_of(&self) -> &str {
        match &self.planned {
            Some(planned) if planned.outsider => &self.request.actor,
            _ => turn_of_repository(&self.request.repository.address),
        }
    }

    /// Whose concurrency groups this run shares: the repository's, or its author's own where that is an outsider, who
    /// must not cancel or hold up what others run.
    pub fn group_scope(&self) -> Cow<'_, str> {
        let address = self.request.repository.address.as_str();
        match &self.planned {
            Some(planned) if planned.outsider => format!("{address} {}", self.request.actor).into(),
            _ => address.into(),
        }
    }
}

/// Whose turn the jobs of a repository take, by its address: its owner's.
pub fn turn_of_repository(address: &str) -> &str {
    address.strip_prefix("30617:").and_then(|rest| rest.split_once(':')).map_or(address, |(owner, _)| owner)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;
    use workflow::plan::{Job, QueueMode};

    use crate::run::{testing::*, *};

    fn run(outsider: bool, jobs: Vec<(&str, Job)>) -> TestRun {
        let mut plan = planned(jobs);
        plan.plan.concurrency = Some(concurrency("production", true, QueueMode::Single));
        let mut new = new_run(RunRules::default(), true);
        new.request.env = [("GIT_SSH_COMMAND".to_owned(), "evil".to_owned())].into();
        let (state, effects) = create(new, START);
        let mut run = TestRun { state, now: START, effects };
        run.apply(RunEvent::Planned(Box::new(Planned { outsider, ..plan }))).unwrap();
        run.apply(RunEvent::Granted { job: None }).unwrap();
        run
    }

    #[test]
    fn attack_14_what_an_outsider_asks_for_acts_for_its_author_alone() {
        for outsider in [false, true] {
            let run = run(outsider, vec![("a", job(&[]))]);
            let order = order(&run.state, &"a".into()).unwrap();
            assert_eq!(order.source.trusted, !outsider);
            assert_eq!(order.request_env.is_empty(), outsider);
            assert_eq!(order.contexts["vars"], if outsider { json!({}) } else { json!({"GIT_SSH_COMMAND": "evil"}) });
            let owner = turn_of_repository(&run.state.request.repository.address);
            assert_eq!(run.state.turn_of(), if outsider { run.state.request.actor.as_str() } else { owner });
            assert_eq!(run.state.group_scope() == run.state.request.repository.address, !outsider);
            assert!(run.state.gives_secrets(), "what came with the request belongs to its author");
        }
    }

    #[test]
    fn attack_14_an_outsider_gets_no_environment_whether_it_is_protected_or_not() {
        let deploy = || Job { environment: Some(json!("production")), ..job(&[]) };
        assert_eq!(run(false, vec![("a", deploy())]).jobs(), "a=queued");
        assert_eq!(run(true, vec![("a", deploy()), ("b", job(&[]))]).jobs(), "a=failure b=queued");
    }
}
