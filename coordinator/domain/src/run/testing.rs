//! Runs, plans and reports for the tests of this module.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use indexmap::IndexMap;
use serde_json::{Value, json};
use workflow::plan::{
    Conclusion, Concurrency, Defaults, Dialect, EnvSource, Job, JobContent, JobReport, Plan, QueueMode, Reason,
    Strategy,
};

use super::*;

thread_local! {
    static FENCED: std::cell::Cell<bool> = const { std::cell::Cell::new(true) };
}

/// Whether reports of attempts that are not current are refused. A simulation switches it off, on its own thread, to see
/// that it would notice.
pub fn set_fenced(fenced: bool) {
    FENCED.set(fenced);
}

pub fn is_fenced() -> bool {
    FENCED.get()
}

/// When the tests' runs are made, in Unix milliseconds.
pub const START: Millis = 1_700_000_000_000;

/// A job that runs on `ubuntu-latest` after its needs.
pub fn job(needs: &[&str]) -> Job {
    Job {
        name: None,
        needs: needs.iter().map(ToString::to_string).collect(),
        condition: None,
        runs_on: json!("ubuntu-latest"),
        strategy: Strategy::default(),
        env: EnvSource::default(),
        defaults: Defaults::default(),
        outputs: IndexMap::new(),
        timeout_minutes: None,
        continue_on_error: None,
        container: None,
        services: None,
        concurrency: None,
        permissions: None,
        environment: None,
        work: JobContent::Steps(Vec::new()),
    }
}

/// The same with an `if:`.
pub fn job_if(needs: &[&str], condition: &str) -> Job {
    Job { condition: Some(condition.into()), ..job(needs) }
}

/// `concurrency:`.
pub fn concurrency(group: &str, cancel_in_progress: bool, queue: QueueMode) -> Concurrency {
    Concurrency { group: group.into(), cancel_in_progress: json!(cancel_in_progress), queue }
}

/// A job with a matrix.
pub fn cells(needs: &[&str], matrix: Value) -> Job {
    Job { strategy: Strategy { matrix: Some(matrix), ..Strategy::default() }, ..job(needs) }
}

pub fn planned(jobs: Vec<(&str, Job)>) -> Planned {
    Planned {
        stored: StoredValues::default(),
        commit: "c".repeat(40).parse().unwrap(),
        reference: "refs/heads/main".into(),
        proven: true,
        outsider: false,
        held: false,
        event: "push".into(),
        inputs: serde_json::Map::new(),
        context: serde_json::Map::new(),
        plan: Plan {
            dialect: Dialect::Github,
            path: ".github/workflows/ci.yml".into(),
            name: "CI".into(),
            run_name: None,
            on: IndexMap::new(),
            env: EnvSource::default(),
            defaults: Defaults::default(),
            concurrency: None,
            permissions: None,
            jobs: jobs.into_iter().map(|(id, job)| (id.to_owned(), job)).collect(),
        },
        title: None,
        commit_message: None,
        called: IndexMap::new(),
        origins: IndexMap::new(),
        definitions: Vec::new(),
        workflow_sha256: None,
        notices: Vec::new(),
        relays: Vec::new(),
        maintainers: Vec::new(),
    }
}

pub fn request() -> RunRequest {
    RunRequest {
        id: "e".repeat(64),
        origin: RequestOrigin::Api,
        repository: Repository::default(),
        workflow: ".github/workflows/ci.yml".into(),
        commit: String::new(),
        branch: "main".into(),
        reference: None,
        trigger: None,
        payload: None,
        actor: "a".repeat(64),
        env: IndexMap::new(),
        notices: Vec::new(),
        inputs: None,
        again: None,
        command: None,
        pinned: None,
        pull_request: None,
        received_at: START,
    }
}

pub fn new_run(rules: RunRules, secrets: bool) -> NewRun {
    NewRun {
        id: "run".into(),
        serial: 1,
        number: 1,
        rerun: None,
        request: request(),
        secrets: secrets.then(|| "TOKEN".to_owned()).into_iter().collect(),
        rules,
        environments: Vec::new(),
        visibility: Visibility::Public,
        expires_at: START + 1,
    }
}

pub fn report(conclusion: Conclusion, reason: Option<Reason>) -> Box<JobReport> {
    let started = !matches!(reason, Some(Reason::StartFailed(_) | Reason::PullFailed(_)));
    Box::new(JobReport {
        conclusion,
        exit_code: if conclusion == Conclusion::Success { 0 } else { 3 },
        reason,
        steps: Vec::new(),
        outputs: IndexMap::new(),
        environment: None,
        annotations: Vec::new(),
        summary: String::new(),
        started,
        image: None,
        actions: Default::default(),
        started_at_ms: 0,
        finished_at_ms: 0,
    })
}

/// A run under test: every event is a second later than the one before, every effect is kept.
pub struct TestRun {
    pub state: RunState,
    pub now: Millis,
    pub effects: Vec<RunEffect>,
}

impl TestRun {
    /// A run with this plan, jobs queued.
    pub fn with(jobs: Vec<(&str, Job)>) -> Self {
        Self::under(RunRules::default(), false, planned(jobs))
    }

    pub fn under(rules: RunRules, secrets: bool, planned: Planned) -> Self {
        let (state, effects) = create(new_run(rules, secrets), START);
        let mut tested = Self { state, now: START, effects };
        tested.apply(RunEvent::Planned(Box::new(planned))).unwrap();
        tested
    }

    pub fn apply(&mut self, event: RunEvent) -> Result<(), RunRefusal> {
        self.now += 1000;
        let (state, effects) = advance(&self.state, event, self.now)?;
        self.state = state;
        self.effects.extend(effects);
        Ok(())
    }

    pub fn accept(&mut self, job: &str, worker: &str) -> u32 {
        self.apply(RunEvent::Accepted { job: job.into(), worker: worker.into() }).unwrap();
        self.state.jobs[job].attempts.len() as u32
    }

    /// A worker takes the job, begins and ends it.
    pub fn run(&mut self, job: &str, conclusion: Conclusion) {
        let reason = (conclusion == Conclusion::Failure).then_some(Reason::Step);
        let attempt = self.accept(job, "w1");
        self.apply(RunEvent::Begun { job: job.into(), attempt }).unwrap();
        self.finish(job, attempt, report(conclusion, reason));
    }

    pub fn finish(&mut self, job: &str, attempt: u32, report: Box<JobReport>) {
        self.apply(RunEvent::Finished { job: job.into(), attempt, report }).unwrap();
    }

    pub fn lose(&mut self, job: &str, attempt: u32) {
        self.apply(RunEvent::Lost { job: job.into(), attempt, reason: "lease ran out".into() }).unwrap();
    }

    /// `key=phase` of every job, in order: `blocked`, `held`, `waiting`, `queued`, `running`, `cancelling` or the conclusion.
    pub fn jobs(&self) -> String {
        let phase = |job: &super::Job| match &job.phase {
            JobPhase::Blocked => "blocked",
            JobPhase::Held => "held",
            JobPhase::Waiting { .. } => "waiting",
            JobPhase::Queued { .. } => "queued",
            JobPhase::Running { .. } => "running",
            JobPhase::Cancelling { .. } => "cancelling",
            JobPhase::Done { conclusion, .. } => conclusion.as_str(),
        };
        self.state.jobs.iter().map(|(key, job)| format!("{key}={}", phase(job))).collect::<Vec<_>>().join(" ")
    }

    /// How it ended or will end.
    pub fn end(&self) -> &RunEnd {
        match &self.state.phase {
            RunPhase::Finalizing { end } | RunPhase::Done { end, .. } => end,
            other => panic!("the run has not ended: {other:?}"),
        }
    }

    /// `conclusion exit_code`.
    pub fn ended(&self) -> String {
        format!("{} {}", self.end().conclusion.as_str(), self.end().exit_code)
    }

    /// Workers that were told to stop: `job/attempt@worker`.
    pub fn stops(&self) -> Vec<String> {
        self.effects
            .iter()
            .filter_map(|effect| match effect {
                RunEffect::Stop { job, attempt, worker, .. } => Some(format!("{job}/{attempt}@{worker}")),
                _ => None,
            })
            .collect()
    }
}
