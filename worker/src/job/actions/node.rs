//! JavaScript actions: their programs, and the Node.js that runs them.

use indexmap::IndexMap;

use super::{LoadedAction, action_loader::folder};
use crate::{
    fetch,
    job::{
        process::{ProcessEnd, ProcessSpec},
        step::{StepResult, StepScope},
        steps::StepRunner,
    },
};

impl StepRunner<'_> {
    /// Runs one program of an action.
    pub(super) async fn program(
        &mut self,
        loaded: &LoadedAction,
        using: &str,
        file: &str,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let file = loaded.file(file).map_err(|error| format!("{}: {error}", loaded.uses))?;
        let mut own = scope.env.clone();
        for (name, value) in inputs {
            own.insert(format!("INPUT_{}", name.replace(' ', "_").to_uppercase()), value.clone());
        }
        let state = self.states.get(&scope.key).into_iter().flatten();
        own.extend(state.map(|(name, value)| (format!("STATE_{name}"), value.clone())));
        let place = loaded.place(scope.place.env.clone(), None);
        loop {
            let node = self.node.clone().unwrap_or_else(|| "node".to_owned());
            let mut environment = self.env.contexts.environment(&place, &own, &scope.action);
            environment.extend(self.env.contexts.for_actions());
            let process = ProcessSpec {
                step: scope.index,
                machine: None,
                argv: vec![node, format!("{}/{file}", loaded.root)],
                environment,
                directory: self.env.machine.workspace(),
                files: Vec::new(),
                // Steps may put other versions of Node.js on the path, for themselves.
                search_path: self.env.contexts.own_path(),
                deadline: scope.deadline,
            };
            let mut done = self.env.process(process).await;
            if matches!(done.ended, ProcessEnd::NotFound(_)) && self.node.is_none() {
                self.node = Some(self.bring_node(loaded, using).await?);
                continue;
            }
            self.states.entry(scope.key.clone()).or_default().extend(std::mem::take(&mut done.state));
            return Ok(self.judge(done, scope.index).await);
        }
    }

    /// Brings the worker's own Node.js into a machine that has none.
    async fn bring_node(&self, loaded: &LoadedAction, using: &str) -> Result<String, String> {
        let attempt = &self.env.job.attempt;
        let Some(path) = &attempt.node else {
            return Err(format!(
                "{}: `using: {using}` needs the program `node`, which the image {} does not have; use an image with \
                 Node.js, or name one in the worker's configuration (`node`)",
                loaded.uses,
                self.env.job.image()
            ));
        };
        let said = |error: &dyn std::fmt::Display| format!("node of the worker ({}): {error}", path.display());
        let archive = fetch::program_archive(path, "node").map_err(|error| said(&error))?;
        // Steps that run at once bring it each for themselves, until one was waited for.
        let folder = format!("{}/_node_{}", folder(self.env.machine), self.env.contexts.number());
        self.env.machine.unpack(&folder, true, archive).await.map_err(|error| said(&error))?;
        Ok(format!("{folder}/node"))
    }
}
