//! JavaScript actions: their programs before, in and after their step.

use indexmap::IndexMap;
use tokio::time::Instant;
use workflow::plan::{Conclusion, Step};

use super::{Loaded, Pre, bring::folder, cache::Saving, context};
use crate::{
    fetch,
    github::{
        action::{Hook, Node, Runs},
        uses,
    },
    job::{
        contexts::Place,
        process::{Ended, Process},
        steps::{Ran, Runner, StepEnd, StepScope, plain_name},
    },
};

/// A JavaScript action's `post:` program, which runs after the job's steps.
pub(in crate::job) struct Post {
    name: String,
    /// As `StepScope::key` of its step.
    key: String,
    step: Step,
    after: After,
    /// `github.action`.
    action: String,
    /// Where its step stands; `None`: among the job's.
    place: Option<Place>,
    depth: usize,
}

/// What runs after the job's steps.
enum After {
    /// A program of an action.
    Program { loaded: Loaded, hook: Hook },
    /// The worker saves a cache, or says why not.
    Save(Option<Saving>),
}

impl Runner<'_> {
    /// Runs the programs that come before the job's steps, in the order of the steps. `names` are those of the steps.
    pub(in crate::job) async fn pres(&mut self, pres: Vec<Pre>, names: &[String]) {
        for pre in pres {
            let index = self.next_index();
            let action = names.get(pre.step).cloned().unwrap_or_default();
            let began = Instant::now();
            let Some((ran, mark)) = self.pre(&pre, index, action).await else { continue };
            self.ended(index, &mark, None, ran, began.elapsed()).await;
        }
    }

    async fn pre(&mut self, pre: &Pre, index: i32, action: String) -> Option<(Ran, String)> {
        let ((step, loaded), around) = pre.chain.split_last()?;
        let Runs::Node(node) = &loaded.action.runs else { return None };
        let hook = node.pre.as_ref()?;
        let mut place = Place::default();
        for (step, loaded) in around {
            let scope = self.scope(index, &pre.key, &place, action.clone(), around.len());
            let env = self.evaluator(&scope).env(&step.env).await.unwrap_or_default();
            // What cannot be evaluated yet is said where its step runs.
            let inputs = self.inputs_of(step, loaded, &scope).await.unwrap_or_default();
            let env = place.env.iter().map(|(name, value)| (name.clone(), value.clone())).chain(env).collect();
            place = loaded.place(env, Some(context(&inputs)));
        }
        let name = format!("Pre {}", self.name_of(step, &place).await);
        let scope = self.scope(index, &pre.key, &place, action.clone(), around.len());
        let ran = self.hook(&name, step, loaded, &node.using, hook, scope).await;
        if ran.conclusion != Conclusion::Skipped {
            let place = (!around.is_empty()).then_some(place);
            self.register(step, node, loaded, &pre.key, action, place, around.len()).await;
        }
        Some((ran, name))
    }

    /// The action's own program, in its step.
    pub(super) async fn node_main(
        &mut self,
        step: &Step,
        node: &Node,
        loaded: &Loaded,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepEnd, String> {
        if let (Some(_), None) = (&node.pre, &loaded.remote) {
            let said = format!("##[warning]{}: `pre:` of an action of the workspace does not run", loaded.uses);
            self.job.console.notice(scope.index, &said).await;
        }
        let place = (scope.depth > 0).then(|| scope.place.clone());
        self.register(step, node, loaded, &scope.key, scope.action.clone(), place, scope.depth).await;
        self.program(loaded, &node.using, &node.main, inputs, scope).await
    }

    /// Notes what the action wants to run after the job's steps, once.
    #[expect(clippy::too_many_arguments, reason = "each is a part of where the step stands")]
    async fn register(
        &mut self,
        step: &Step,
        node: &Node,
        loaded: &Loaded,
        key: &str,
        action: String,
        place: Option<Place>,
        depth: usize,
    ) {
        let Some(hook) = node.post.clone() else { return };
        if self.posts.iter().any(|post| post.key == key) {
            return;
        }
        let name = match &place {
            Some(place) => self.name_of(step, place).await,
            None => self.name_of(step, &Place::default()).await,
        };
        self.posts.push(Post {
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
    pub(in crate::job) async fn posts(&mut self, place: &Place) {
        while let Some(post) = self.posts.pop() {
            let index = self.next_index();
            let began = Instant::now();
            let scope =
                self.scope(index, &post.key, post.place.as_ref().unwrap_or(place), post.action.clone(), post.depth);
            let ran = match &post.after {
                After::Program { loaded, hook } => {
                    let using = match &loaded.action.runs {
                        Runs::Node(node) => node.using.clone(),
                        Runs::Composite(_) => String::new(),
                    };
                    self.hook(&post.name, &post.step, loaded, &using, hook, scope).await
                }
                After::Save(saving) => self.save_now(&post.name, &post.step, saving.as_ref(), scope).await,
            };
            self.ended(index, &post.name, None, ran, began.elapsed()).await;
        }
    }

    /// Notes a cache that is saved after the job's steps, where they went well (as GitHub's action does).
    pub(super) async fn save_later(&mut self, step: &Step, saving: Option<Saving>, scope: &StepScope<'_>) {
        let name = format!("Post {}", self.name_of(step, scope.place).await);
        let place = (scope.depth > 0).then(|| scope.place.clone());
        let (key, action, depth) = (scope.key.clone(), scope.action.clone(), scope.depth);
        self.posts.push(Post { name, key, step: step.clone(), after: After::Save(saving), action, place, depth });
    }

    async fn save_now(&mut self, name: &str, step: &Step, saving: Option<&Saving>, mut scope: StepScope<'_>) -> Ran {
        scope.status = self.job_status();
        let runs = !self.is_over() && self.prepare(step, Some("success()"), &mut scope).await == Ok(true);
        if !runs {
            let end = StepEnd::new(Conclusion::Skipped);
            return Ran { name: name.to_owned(), end, conclusion: Conclusion::Skipped };
        }
        self.job.console.begin(scope.index, name).await;
        self.observe(scope.index, name, "running", "");
        let ended = match saving {
            Some(saving) => self.save_cache(saving, &scope).await,
            None => {
                let said = "Cache hit occurred on the primary key, not saving cache.";
                self.job.console.notice(scope.index, said).await;
                Ok(StepEnd::new(Conclusion::Success))
            }
        };
        let end = match ended {
            Ok(end) => end,
            Err(problem) => self.refuse(scope.index, &problem).await,
        };
        let conclusion = self.conclusion(step, &end, &scope).await;
        Ran { name: name.to_owned(), end, conclusion }
    }

    /// Runs a program around an action, by its own condition.
    async fn hook(
        &mut self,
        name: &str,
        step: &Step,
        loaded: &Loaded,
        using: &str,
        hook: &Hook,
        mut scope: StepScope<'_>,
    ) -> Ran {
        let skipped =
            || Ran { name: name.to_owned(), end: StepEnd::new(Conclusion::Skipped), conclusion: Conclusion::Skipped };
        if self.is_over() {
            return skipped();
        }
        scope.status = self.job_status();
        let prepared = self.prepare(step, Some(&hook.condition), &mut scope).await;
        if prepared == Ok(false) {
            return skipped();
        }
        self.job.console.begin(scope.index, name).await;
        self.observe(scope.index, name, "running", "");
        let ended = match prepared {
            Ok(_) => match self.inputs_of(step, loaded, &scope).await {
                Ok(inputs) => self.program(loaded, using, &hook.file, &inputs, &scope).await,
                Err(problem) => Err(problem),
            },
            Err(problem) => Err(problem),
        };
        let end = match ended {
            Ok(end) => end,
            Err(problem) => self.refuse(scope.index, &problem).await,
        };
        let conclusion = self.conclusion(step, &end, &scope).await;
        Ran { name: name.to_owned(), end, conclusion }
    }

    /// Runs one program of an action.
    async fn program(
        &mut self,
        loaded: &Loaded,
        using: &str,
        file: &str,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepEnd, String> {
        let inside = uses::inside(file).filter(|_| !file.starts_with('/'));
        let inside = inside.ok_or_else(|| format!("{}: {file} lies outside of the action", loaded.uses))?;
        let mut own = scope.env.clone();
        for (name, value) in inputs {
            own.insert(format!("INPUT_{}", name.replace(' ', "_").to_uppercase()), value.clone());
        }
        let state = self.states.get(&scope.key).into_iter().flatten();
        own.extend(state.map(|(name, value)| (format!("STATE_{name}"), value.clone())));
        let place = loaded.place(scope.place.env.clone(), None);
        loop {
            let node = self.node.clone().unwrap_or_else(|| "node".to_owned());
            let mut environment = self.contexts.environment(&place, &own, &scope.action);
            environment.extend(self.contexts.for_actions());
            let process = Process {
                step: scope.index,
                argv: vec![node, format!("{}/{inside}", loaded.folder)],
                environment,
                directory: self.machine.workspace(),
                files: Vec::new(),
                // Steps may put other versions of Node.js on the path, for themselves.
                search_path: self.contexts.own_path(),
                deadline: scope.deadline,
            };
            let mut done = self.process(process).await;
            if matches!(done.ended, Ended::NotFound(_)) && self.node.is_none() {
                self.node = Some(self.bring_node(loaded, using).await?);
                continue;
            }
            self.states.entry(scope.key.clone()).or_default().extend(std::mem::take(&mut done.state));
            return Ok(self.judge(done, scope.index).await);
        }
    }

    /// Brings the worker's own Node.js into a machine that has none.
    async fn bring_node(&self, loaded: &Loaded, using: &str) -> Result<String, String> {
        let attempt = &self.job.attempt;
        let Some(path) = &attempt.node else {
            return Err(format!(
                "{}: `using: {using}` needs the program `node`, which the image {} does not have; use an image with \
                 Node.js, or name one in the worker's configuration (`node`)",
                loaded.uses,
                self.job.image()
            ));
        };
        let said = |error: &dyn std::fmt::Display| format!("node of the worker ({}): {error}", path.display());
        let archive = fetch::program_archive(path, "node").map_err(|error| said(&error))?;
        let folder = format!("{}/_node", folder(self.machine));
        self.machine.unpack(&folder, true, archive).await.map_err(|error| said(&error))?;
        Ok(format!("{folder}/node"))
    }

    async fn name_of(&self, step: &Step, place: &Place) -> String {
        let plain = plain_name(step);
        let evaluator = self.contexts.evaluator(place, &IndexMap::new(), "", self.job_status(), self.machine);
        evaluator.text(&plain).await.unwrap_or(plain)
    }

    fn scope<'s>(&self, index: i32, key: &str, place: &'s Place, action: String, depth: usize) -> StepScope<'s> {
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
