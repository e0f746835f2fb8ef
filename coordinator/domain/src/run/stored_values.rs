//! Secrets and variables that maintainers stored for a repository: what of them a run may have, and which value counts.
//!
//! A trusted run alone has any. Which names there are is noted when it is planned; values of secrets, and those of an
//! environment, are read when a job is given to a worker, and stand in no run. What the request brought counts before
//! what is stored, and what is stored for the job's environment before what is stored for the repository.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use workflow::plan::JobOrder;

use crate::id::JobKey;

use super::{Planned, RunState};

/// What is stored for the repository of a run, as it stood when the run was planned.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredValues {
    /// Variables of the repository. In a plan with those that the request brought, which count before them.
    #[serde(default)]
    pub variables: IndexMap<String, String>,
    /// Names of secrets by their environment, which is in lower case; empty: the repository's own.
    #[serde(default)]
    pub secrets: BTreeMap<String, Vec<String>>,
    /// Environments with variables of their own, in lower case.
    #[serde(default)]
    pub environments: BTreeSet<String>,
}

/// What is to be read for a job.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedValues {
    /// Secrets of the repository, or of the environment.
    pub secrets: bool,
    /// The job's environment, in lower case, where it has values of its own.
    pub environment: Option<String>,
}

impl StoredValues {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Whether a secret of this name is stored, for whatever jobs.
    pub(super) fn has_secret(&self, name: &str) -> bool {
        self.secrets.values().flatten().any(|stored| stored.eq_ignore_ascii_case(name))
    }

    fn has_secrets(&self, environment: Option<&str>) -> bool {
        self.secrets.contains_key("") || environment.is_some_and(|name| self.secrets.contains_key(name))
    }

    /// Lays the variables of a request over those of the repository.
    pub fn beneath(mut self, request: &IndexMap<String, String>) -> Self {
        if !self.variables.is_empty() {
            self.variables = overlaid(self.variables, request.clone());
        }
        self
    }
}

/// Values with those of `over` laid over them: names differ by more than their case.
pub fn overlaid<V>(
    under: impl IntoIterator<Item = (String, V)>,
    over: impl IntoIterator<Item = (String, V)>,
) -> IndexMap<String, V> {
    let mut all: IndexMap<String, V> = over.into_iter().collect();
    for (name, value) in under {
        if !all.keys().any(|known| known.eq_ignore_ascii_case(&name)) {
            all.insert(name, value);
        }
    }
    all
}

impl RunState {
    /// What of the stored values is to be read for a job: nothing, unless the run is trusted.
    pub fn wanted_values(&self, key: &JobKey) -> WantedValues {
        let Some((planned, stored)) = self.stored() else { return WantedValues::default() };
        let environment = self.stored_environment(key);
        debug_assert!(planned.is_trusted());
        let of_environment = |name: &String| stored.secrets.contains_key(name) || stored.environments.contains(name);
        WantedValues {
            secrets: stored.has_secrets(environment.as_deref()),
            environment: environment.filter(of_environment),
        }
    }

    /// Whether a job was, or will be, given secrets: those of the request, or stored ones.
    pub(super) fn gives_job_secrets(&self, key: &JobKey) -> bool {
        self.gives_secrets() || self.wanted_values(key).secrets
    }

    /// The secrets of a job. A called workflow has those that its caller hands on.
    pub fn job_secrets(
        &self,
        key: &JobKey,
        stored: Vec<(String, SecretString)>,
        request: Vec<(String, SecretString)>,
    ) -> Vec<(String, SecretString)> {
        let all = if stored.is_empty() { request } else { overlaid(stored, request).into_iter().collect() };
        self.secrets_of(key, all)
    }

    /// Gives a job the variables of its environment, except those whose names the request brought.
    pub fn give_environment_variables(&self, order: &mut JobOrder, variables: Vec<(String, String)>) {
        let Some(Value::Object(vars)) = order.contexts.get_mut("vars") else { return };
        for (name, value) in variables {
            if self.request.env.keys().any(|brought| brought.eq_ignore_ascii_case(&name)) {
                continue;
            }
            vars.retain(|known, _| !known.eq_ignore_ascii_case(&name));
            vars.insert(name, value.into());
        }
    }

    fn stored(&self) -> Option<(&Planned, &StoredValues)> {
        let planned = self.planned.as_deref()?;
        (planned.is_trusted() && !planned.stored.is_empty()).then_some((planned, &planned.stored))
    }

    /// A job has its environment once nothing holds it back: no worker hears of it before.
    fn stored_environment(&self, key: &JobKey) -> Option<String> {
        self.jobs.get(key)?.environment.as_ref().map(|name| name.to_lowercase())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use secrecy::ExposeSecret;
    use serde_json::json;
    use workflow::plan::Job;

    use super::*;
    use crate::run::{testing::*, *};

    fn stored() -> StoredValues {
        let names = |name: &str| vec![name.to_owned()];
        StoredValues {
            variables: [("REGION".to_owned(), "eu".to_owned()), ("LEVEL".to_owned(), "1".to_owned())].into(),
            secrets: [(String::new(), names("TOKEN")), ("production".to_owned(), names("KEY"))].into(),
            environments: ["staging".to_owned()].into(),
        }
    }

    fn run(proven: bool, outsider: bool, environment: Option<&str>) -> TestRun {
        let job = Job { environment: environment.map(|name| json!(name)), ..job(&[]) };
        let mut plan = planned(vec![("a", job)]);
        let mut new = new_run(RunRules::default(), true);
        new.secrets.clear();
        new.request.env = [("level".to_owned(), "2".to_owned())].into();
        plan.stored = stored().beneath(&new.request.env);
        let (state, effects) = create(new, START);
        let mut run = TestRun { state, now: START, effects };
        run.apply(RunEvent::Planned(Box::new(Planned { proven, outsider, ..plan }))).unwrap();
        run
    }

    fn wants(run: &TestRun) -> (bool, Option<String>) {
        let wanted = run.state.wanted_values(&"a".into());
        (wanted.secrets, wanted.environment)
    }

    #[test]
    fn attack_14_stored_values_reach_trusted_runs_alone() {
        for (proven, outsider) in [(true, true), (false, false), (false, true)] {
            let run = run(proven, outsider, None);
            assert_eq!(wants(&run), (false, None), "proven {proven}, outsider {outsider}");
            let vars = order(&run.state, &"a".into()).unwrap().contexts["vars"].clone();
            assert!(vars.get("REGION").is_none(), "{vars}");
            assert!(!run.state.gives_job_secrets(&"a".into()));
        }
        let run = run(true, false, None);
        assert_eq!(wants(&run), (true, None));
        let order = order(&run.state, &"a".into()).unwrap();
        assert_eq!(order.contexts["vars"], json!({"level": "2", "REGION": "eu"}), "the request's count before them");
        assert_eq!(
            order.request_env,
            [("level".to_owned(), "2".to_owned())].into(),
            "they are no environment variables"
        );
        assert!(run.state.gives_job_secrets(&"a".into()));
    }

    #[test]
    fn what_is_stored_for_an_environment_is_read_for_its_own_jobs() {
        assert_eq!(wants(&run(true, false, Some("Production"))), (true, Some("production".into())));
        assert_eq!(wants(&run(true, false, Some("staging"))), (true, Some("staging".into())));
        assert_eq!(wants(&run(true, false, Some("other"))), (true, None), "nothing is stored for it");
    }

    #[test]
    fn a_secret_of_the_request_counts_before_a_stored_one() {
        let run = run(true, false, None);
        let secret = |name: &str, value: &str| (name.to_owned(), SecretString::from(value));
        let given = run.state.job_secrets(
            &"a".into(),
            vec![secret("TOKEN", "stored"), secret("KEY", "stored")],
            vec![secret("token", "brought")],
        );
        let given: Vec<_> = given.iter().map(|(name, value)| format!("{name}={}", value.expose_secret())).collect();
        assert_eq!(given, ["token=brought", "KEY=stored"]);
    }

    #[test]
    fn variables_of_an_environment_count_before_the_repositorys_and_after_the_requests() {
        let run = run(true, false, Some("staging"));
        let mut order = order(&run.state, &"a".into()).unwrap();
        let variables = [("REGION", "us"), ("LEVEL", "3"), ("OWN", "x")];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
        run.state.give_environment_variables(&mut order, variables.into());
        assert_eq!(order.contexts["vars"], json!({"level": "2", "REGION": "us", "OWN": "x"}));
    }
}
