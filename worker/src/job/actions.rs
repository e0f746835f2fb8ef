//! `uses:` steps: the built-in checkout, and composite and JavaScript actions of the repository.

use indexmap::IndexMap;
use tokio::time::Instant;
use workflow::{
    expression::Object,
    plan::{Conclusion, Env, Step},
    yaml::{self, MergeKeys},
};

use super::{
    clock::{Cause, Interrupt},
    contexts::Place,
    process::Process,
    steps::{Ran, Runner, StepEnd, StepScope, absolute, remember},
};
use crate::{
    fetch::Checkout,
    github::action::{self, Action, Node, Runs},
    github::evaluate::Status,
};

/// Composite actions inside composite actions (GitHub's runner has the same limit).
const DEPTH: usize = 10;
/// Longest action.yml, in bytes.
const ACTION_FILE: u64 = 1 << 20;

/// A JavaScript action's `post:`, which runs after the job's steps.
pub(super) struct Post {
    name: String,
    folder: String,
    file: String,
    condition: String,
    environment: IndexMap<String, String>,
    action: String,
    place: Place,
}

impl Runner<'_> {
    pub(super) async fn uses(&mut self, uses: &str, with: &Env, scope: &StepScope<'_>) -> Result<StepEnd, String> {
        let evaluator = self.evaluator(scope);
        let mut inputs = IndexMap::new();
        for (name, text) in with {
            inputs.insert(name.clone(), evaluator.text(text).await?);
        }
        let mut shown = format!("Run {uses}");
        for (name, value) in &inputs {
            shown.push_str(&format!("\n| {name}: {}", value.replace('\n', "\n|   ")));
        }
        self.job.console.notice(scope.index, &shown).await;
        let (name, version) = uses.split_once('@').unwrap_or((uses, ""));
        if name.eq_ignore_ascii_case("actions/checkout") && !version.is_empty() {
            return self.checkout(&inputs, scope).await;
        }
        if uses.starts_with("./") || uses == "." {
            return self.local(uses, &inputs, scope).await;
        }
        if uses.starts_with("docker://") {
            return Err(format!("{uses}: Docker actions are not supported in this release; use a `run:` step"));
        }
        Err(format!(
            "{uses}: actions of other repositories are not supported in this release; copy it into this repository and \
             use it as ./path, or use a `run:` step"
        ))
    }

    async fn checkout(&mut self, inputs: &IndexMap<String, String>, scope: &StepScope<'_>) -> Result<StepEnd, String> {
        let attempt = std::sync::Arc::clone(&self.job.attempt);
        let source = &attempt.order.source;
        let input = |name: &str| {
            inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
        };
        if source.repository.is_empty() {
            return Err("actions/checkout: this job has no repository".into());
        }
        let own = self.contexts.repository();
        if !input("repository").is_empty() && input("repository") != own {
            return Err(format!(
                "actions/checkout: only this job's repository ({own}) can be checked out in this release"
            ));
        }
        for name in ["submodules", "lfs"] {
            if !matches!(input(name), "" | "false") {
                return Err(format!("actions/checkout: `{name}` is not supported in this release"));
            }
        }
        for name in ["token", "ssh-key", "ssh-known-hosts", "sparse-checkout", "filter"] {
            if !input(name).is_empty() {
                self.job
                    .console
                    .notice(scope.index, &format!("actions/checkout: `{name}` is not needed and ignored"))
                    .await;
            }
        }
        let depth = match input("fetch-depth") {
            "" => 1,
            text => text.parse().map_err(|_| format!("actions/checkout: fetch-depth must be a number, not {text}"))?,
        };
        let path = action::folder(input("path")).filter(|_| !input("path").starts_with('/'));
        let path = path.ok_or("actions/checkout: `path` must stay in the workspace")?;
        let directory = absolute(&self.machine.workspace(), &path).trim_end_matches('/').to_owned();
        let checkout = Checkout { depth, reference: input("ref").to_owned() };
        let sources = std::sync::Arc::clone(&self.job.sources);
        let machine = self.machine;
        let clean = input("clean") != "false";
        let work = async {
            let archive = sources.checkout(source, &checkout).await.map_err(|e| format!("actions/checkout: {e:#}"))?;
            machine.unpack(&directory, clean, archive).await.map_err(|e| format!("actions/checkout: {e}"))
        };
        let interrupt = tokio::select! {
            result = work => {
                result?;
                let reference = if checkout.reference.is_empty() { &source.reference } else { &checkout.reference };
                let said = if checkout.reference.is_empty() {
                    format!("Checked out {} ({reference}) to {directory}", source.commit)
                } else {
                    format!("Checked out {reference} to {directory}")
                };
                self.job.console.notice(scope.index, &said).await;
                let mut end = StepEnd::new(Conclusion::Success);
                end.outputs.insert("ref".into(), reference.clone());
                if checkout.reference.is_empty() {
                    end.outputs.insert("commit".into(), source.commit.clone());
                }
                return Ok(end);
            }
            interrupt = self.job.clock.interrupt(scope.deadline) => interrupt,
        };
        match interrupt {
            Interrupt::Step => Err("actions/checkout: the step's time is over".into()),
            Interrupt::Job(cause) => {
                self.job.clock.end(cause);
                let gone = matches!(cause, Cause::Cancelled | Cause::Killed | Cause::Timeout);
                Ok(StepEnd::new(if gone { Conclusion::Cancelled } else { Conclusion::Failure }))
            }
        }
    }

    async fn local(
        &mut self,
        uses: &str,
        given: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepEnd, String> {
        if scope.depth >= DEPTH {
            return Err(format!("{uses}: actions use each other more than {DEPTH} deep"));
        }
        let folder = action::folder(uses).ok_or_else(|| format!("{uses}: a local action must lie in the workspace"))?;
        let folder = absolute(&self.machine.workspace(), &folder).trim_end_matches('/').to_owned();
        let action = self.read_action(uses, &folder).await?;
        let inputs = self.inputs(uses, &action, given, scope).await?;
        match action.runs {
            Runs::Composite(ref steps) => self.composite(steps, &action, inputs, folder, scope).await,
            Runs::Node(node) => self.node(uses, node, &inputs, folder, scope).await,
        }
    }

    async fn read_action(&self, uses: &str, folder: &str) -> Result<Action, String> {
        let paths = ["action.yml", "action.yaml"].map(|name| format!("{folder}/{name}"));
        let files = self.machine.read(&paths, ACTION_FILE).await.map_err(|error| format!("{uses}: {error}"))?;
        let Some((path, content)) = files.into_iter().next() else {
            return Err(format!(
                "{uses}: there is no action.yml or action.yaml in {folder}; did the job run actions/checkout before?"
            ));
        };
        let text = String::from_utf8_lossy(&content);
        let stream = yaml::read(&text, yaml::Limits::default(), MergeKeys::Keep);
        if let Some(problem) = stream.problems.first() {
            return Err(format!("{path}:{}:{}: {}", problem.span.line, problem.span.column, problem.message));
        }
        let root = stream.documents.first().map(yaml::Node::to_json).unwrap_or_default();
        let root = root.as_object().ok_or_else(|| format!("{path}: it is no mapping"))?;
        action::read(root).map_err(|problem| format!("{path}: {problem}"))
    }

    async fn inputs(
        &mut self,
        uses: &str,
        action: &Action,
        given: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<IndexMap<String, String>, String> {
        let evaluator = self.evaluator(scope);
        let mut inputs = IndexMap::new();
        for (name, input) in &action.inputs {
            let value = match &input.default {
                Some(default) => {
                    evaluator.text(default).await.map_err(|error| format!("{uses}: input {name}: {error}"))?
                }
                None => String::new(),
            };
            inputs.insert(name.clone(), value);
        }
        for (name, value) in given {
            let declared = action.inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            let said = match declared {
                None => Some(format!("##[warning]{uses} declares no input {name}")),
                Some((_, input)) => input.deprecation.as_ref().map(|why| format!("##[warning]input {name}: {why}")),
            };
            if let Some(said) = said {
                self.job.console.notice(scope.index, &said).await;
            }
            inputs.insert(declared.map_or(name, |(key, _)| key).clone(), value.clone());
        }
        Ok(inputs)
    }

    async fn composite(
        &mut self,
        steps: &[Step],
        action: &Action,
        inputs: IndexMap<String, String>,
        folder: String,
        scope: &StepScope<'_>,
    ) -> Result<StepEnd, String> {
        let mut env = scope.place.env.clone();
        env.extend(scope.env.clone());
        let mut place = Place {
            steps: Object::new(),
            inputs: Some(inputs.iter().map(|(name, value)| (name, value.as_str())).collect()),
            env,
            action_path: Some(folder),
        };
        let mut status = Status::Success;
        let mut end = StepEnd::new(Conclusion::Success);
        for (index, step) in steps.iter().enumerate() {
            let name = step.id.clone().unwrap_or_else(|| format!("__step_{}", index + 1));
            let inner = StepScope {
                index: scope.index,
                place: &place,
                env: IndexMap::new(),
                action: format!("{}_{name}", scope.action),
                status,
                deadline: scope.deadline,
                depth: scope.depth + 1,
            };
            let ran = Box::pin(self.step(step, inner)).await;
            match ran.conclusion {
                Conclusion::Failure => {
                    status = Status::Failure;
                    if end.outcome == Conclusion::Success {
                        end.outcome = Conclusion::Failure;
                        end.exit_code = ran.end.exit_code;
                    }
                }
                Conclusion::Cancelled => end.outcome = Conclusion::Cancelled,
                Conclusion::Success | Conclusion::Skipped => {}
            }
            remember(&mut place, step, &ran);
        }
        let evaluator =
            self.contexts.evaluator(&place, &IndexMap::new(), &scope.action, self.status_of(status), self.machine);
        for (name, text) in &action.outputs {
            end.outputs
                .insert(name.clone(), evaluator.text(text).await.map_err(|error| format!("output {name}: {error}"))?);
        }
        Ok(end)
    }

    async fn node(
        &mut self,
        uses: &str,
        node: Node,
        inputs: &IndexMap<String, String>,
        folder: String,
        scope: &StepScope<'_>,
    ) -> Result<StepEnd, String> {
        let mut own = scope.env.clone();
        for (name, value) in inputs {
            own.insert(format!("INPUT_{}", name.replace(' ', "_").to_uppercase()), value.clone());
        }
        let place = Place {
            steps: Object::new(),
            inputs: None,
            env: scope.place.env.clone(),
            action_path: Some(folder.clone()),
        };
        let process = Process {
            step: scope.index,
            argv: program(&folder, &node.main)?,
            environment: self.contexts.environment(&place, &own, &scope.action),
            directory: self.machine.workspace(),
            files: Vec::new(),
            deadline: scope.deadline,
        };
        let done = self.process(process).await;
        if let Some((file, condition)) = node.post {
            let state = done.state.iter().map(|(name, value)| (format!("STATE_{name}"), value.clone()));
            own.extend(state);
            self.posts.push(Post {
                name: format!("Post {uses}"),
                folder,
                file,
                condition,
                environment: own,
                action: scope.action.clone(),
                place,
            });
        }
        Ok(self.judge(done, scope.index).await)
    }

    /// Runs the post steps, the last one first.
    pub(super) async fn posts(&mut self, steps: usize) {
        let mut index = i32::try_from(steps).unwrap_or(i32::MAX);
        while let Some(post) = self.posts.pop() {
            let began = Instant::now();
            let ran = self.post(post, index).await;
            if ran.end.outcome == Conclusion::Failure {
                self.fail(ran.end.exit_code);
            }
            let mark = ran.name.clone();
            self.report(index, &mark, None, ran, began.elapsed()).await;
            index = index.saturating_add(1);
        }
    }

    async fn post(&mut self, post: Post, index: i32) -> Ran {
        let skipped =
            |name: String| Ran { name, end: StepEnd::new(Conclusion::Skipped), conclusion: Conclusion::Skipped };
        if self.is_over() {
            return skipped(post.name);
        }
        let status = self.job_status();
        let evaluator = self.contexts.evaluator(&post.place, &post.environment, &post.action, status, self.machine);
        let runs = evaluator.condition(Some(&post.condition)).await;
        if runs == Ok(false) {
            return skipped(post.name);
        }
        self.job.console.begin(index, &post.name).await;
        self.observe(index, &post.name, "running", "");
        let problem = match runs.and_then(|_| program(&post.folder, &post.file)) {
            Ok(argv) => {
                let process = Process {
                    step: index,
                    argv,
                    environment: self.contexts.environment(&post.place, &post.environment, &post.action),
                    directory: self.machine.workspace(),
                    files: Vec::new(),
                    deadline: None,
                };
                let done = self.process(process).await;
                let end = self.judge(done, index).await;
                return Ran { name: post.name, conclusion: end.outcome, end };
            }
            Err(problem) => problem,
        };
        let end = self.refuse(index, &problem).await;
        Ran { name: post.name, conclusion: end.outcome, end }
    }
}

/// The command that runs a file of an action.
fn program(folder: &str, file: &str) -> Result<Vec<String>, String> {
    let inside = action::folder(file).filter(|_| !file.starts_with('/'));
    let inside = inside.ok_or_else(|| format!("{file} lies outside of its action"))?;
    Ok(vec!["node".to_owned(), format!("{folder}/{inside}")])
}
