//! Programs of actions before and after the job's steps.

use indexmap::IndexMap;
use tokio::time::Instant;
use workflow::plan::{Conclusion, Step};

use super::{
    LoadedAction, PreStep, context,
    post_step::{After, CacheSave, PostStep},
};
use crate::{
    dialect::step_contexts::StepFrame,
    github::action::{ActionHook, ActionRuns},
    job::{
        step::{FinishedStep, StepResult, StepScope},
        steps::{StepRunner, plain_name},
    },
};

impl StepRunner<'_> {
    /// Runs the programs that come before the job's steps, in the order of the steps. `names` are those of the steps.
    pub(in crate::job) async fn pres(&mut self, pres: Vec<PreStep>, names: &[String]) {
        for pre in pres {
            let index = self.next_index();
            let action = names.get(pre.step).cloned().unwrap_or_default();
            let began = Instant::now();
            let Some((ran, mark)) = self.pre(&pre, index, action).await else { continue };
            self.ended(index, &mark, None, ran, began.elapsed()).await;
        }
    }

    async fn pre(&mut self, pre: &PreStep, index: i32, action: String) -> Option<(FinishedStep, String)> {
        let ((step, loaded), around) = pre.chain.split_last()?;
        let hook = loaded.action.runs.pre()?;
        let mut place = StepFrame::default();
        for (step, loaded) in around {
            let scope = self.scope(index, &pre.key, &place, action.clone(), around.len());
            let env = self.env.evaluator(&scope).env(&step.env).await.unwrap_or_default();
            // What cannot be evaluated yet is said where its step runs.
            let inputs = self.inputs_of(step, loaded, &scope).await.unwrap_or_default();
            let env = place.env.iter().map(|(name, value)| (name.clone(), value.clone())).chain(env).collect();
            place = loaded.place(env, Some(context(&inputs)));
        }
        let name = format!("Pre {}", self.name_of(step, &place).await);
        let scope = self.scope(index, &pre.key, &place, action.clone(), around.len());
        let ran = self.hook(&name, step, loaded, hook, scope).await;
        if ran.conclusion != Conclusion::Skipped {
            let place = (!around.is_empty()).then_some(place);
            self.register(step, loaded, &pre.key, action, place, around.len()).await;
        }
        Some((ran, name))
    }

    /// Notes what the action wants to run after the job's steps, once.
    pub(super) async fn register(
        &mut self,
        step: &Step,
        loaded: &LoadedAction,
        key: &str,
        action: String,
        place: Option<StepFrame>,
        depth: usize,
    ) {
        let Some(hook) = loaded.action.runs.post().cloned() else { return };
        if self.posts.iter().any(|post| post.key == key) {
            return;
        }
        let name = match &place {
            Some(place) => self.name_of(step, place).await,
            None => self.name_of(step, &StepFrame::default()).await,
        };
        self.posts.push(PostStep {
            name: format!("Post {name}"),
            key: key.to_owned(),
            step: step.clone(),
            after: After::Program { loaded: loaded.clone(), hook },
            action,
            place,
            depth,
        });
    }

    /// Runs the programs that come after the job's steps, the last one first. `place` is where the job's steps stand.
    pub(in crate::job) async fn posts(&mut self, place: &StepFrame) {
        while let Some(post) = self.posts.pop() {
            let index = self.next_index();
            let began = Instant::now();
            let scope =
                self.scope(index, &post.key, post.place.as_ref().unwrap_or(place), post.action.clone(), post.depth);
            let ran = match &post.after {
                After::Program { loaded, hook } => self.hook(&post.name, &post.step, loaded, hook, scope).await,
                After::Save(saving) => self.save_now(&post.name, &post.step, saving.as_ref(), scope).await,
            };
            self.ended(index, &post.name, None, ran, began.elapsed()).await;
        }
    }

    /// Notes a cache that is saved after the job's steps, where they went well (as GitHub's action does).
    pub(super) async fn save_later(&mut self, step: &Step, saving: Option<CacheSave>, scope: &StepScope<'_>) {
        let name = format!("Post {}", self.name_of(step, scope.place).await);
        let place = (scope.depth > 0).then(|| scope.place.clone());
        let (key, action, depth) = (scope.key.clone(), scope.action.clone(), scope.depth);
        self.posts.push(PostStep { name, key, step: step.clone(), after: After::Save(saving), action, place, depth });
    }

    async fn save_now(
        &mut self,
        name: &str,
        step: &Step,
        saving: Option<&CacheSave>,
        mut scope: StepScope<'_>,
    ) -> FinishedStep {
        scope.status = self.job_status();
        let runs = !self.is_over() && self.prepare(step, Some("success()"), &mut scope).await == Ok(true);
        if !runs {
            let end = StepResult::new(Conclusion::Skipped);
            return FinishedStep { name: name.to_owned(), end, conclusion: Conclusion::Skipped };
        }
        self.env.job.log.begin(scope.index, name).await;
        self.env.observe(scope.index, name, "running", "");
        let ended = match saving {
            Some(saving) => self.save_cache(saving, &scope).await,
            None => {
                let said = "Cache hit occurred on the primary key, not saving cache.";
                self.env.job.log.notice(scope.index, said).await;
                Ok(StepResult::new(Conclusion::Success))
            }
        };
        let end = match ended {
            Ok(end) => end,
            Err(problem) => self.env.refuse(scope.index, &problem).await,
        };
        let conclusion = self.conclusion(step.continue_on_error.as_ref(), &end, &scope).await;
        FinishedStep { name: name.to_owned(), end, conclusion }
    }

    /// Runs a program around an action, by its own condition.
    async fn hook(
        &mut self,
        name: &str,
        step: &Step,
        loaded: &LoadedAction,
        hook: &ActionHook,
        mut scope: StepScope<'_>,
    ) -> FinishedStep {
        let skipped = || FinishedStep {
            name: name.to_owned(),
            end: StepResult::new(Conclusion::Skipped),
            conclusion: Conclusion::Skipped,
        };
        if self.is_over() {
            return skipped();
        }
        scope.status = self.job_status();
        let prepared = self.prepare(step, Some(&hook.condition), &mut scope).await;
        if prepared == Ok(false) {
            return skipped();
        }
        self.env.job.log.begin(scope.index, name).await;
        self.env.observe(scope.index, name, "running", "");
        let ended = match prepared {
            Ok(_) => match self.inputs_of(step, loaded, &scope).await {
                Ok(inputs) => match &loaded.action.runs {
                    ActionRuns::Node(node) => self.program(loaded, &node.using, &hook.file, &inputs, &scope).await,
                    ActionRuns::Docker(docker) => self.contain(loaded, docker, Some(&hook.file), &inputs, &scope).await,
                    ActionRuns::Composite(_) => Ok(StepResult::new(Conclusion::Skipped)),
                },
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        let end = match ended {
            Ok(end) => end,
            Err(problem) => self.env.refuse(scope.index, &problem).await,
        };
        let conclusion = self.conclusion(step.continue_on_error.as_ref(), &end, &scope).await;
        FinishedStep { name: name.to_owned(), end, conclusion }
    }

    async fn name_of(&self, step: &Step, place: &StepFrame) -> String {
        let plain = plain_name(step);
        let evaluator = self.env.contexts.evaluator(place, &IndexMap::new(), "", self.job_status(), self.env.machine);
        evaluator.text(&plain).await.unwrap_or(plain)
    }

    fn scope<'s>(&self, index: i32, key: &str, place: &'s StepFrame, action: String, depth: usize) -> StepScope<'s> {
        StepScope {
            index,
            key: key.to_owned(),
            place,
            env: IndexMap::new(),
            action,
            status: self.job_status(),
            deadline: None,
            depth,
        }
    }
}
