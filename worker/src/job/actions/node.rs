//! JavaScript actions: their programs, and the Node.js that runs them.

use std::time::Duration;

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use indexmap::IndexMap;
use parking_lot::Mutex;

use super::{LoadedAction, NodeProgram, action_loader::folder};
use crate::{
    fetch,
    github::action::ActionRuns,
    job::{
        process::{ProcessEnd, ProcessSpec},
        step::{StepResult, StepScope},
        steps::StepRunner,
    },
    sandbox::{Command, OutputSink, OutputStream},
};

/// How long a program may take to say its version.
const SAYING: Duration = Duration::from_secs(5);
/// Bytes of a version that are read.
const VERSION: usize = 64;

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
        let is_main = matches!(&loaded.action.runs, ActionRuns::Node(action) if action.main == file);
        let file = loaded.file(file).map_err(|error| format!("{}: {error}", loaded.uses))?;
        let mut own = scope.env.clone();
        for (name, value) in inputs {
            own.insert(format!("INPUT_{}", name.replace(' ', "_").to_uppercase()), value.clone());
        }
        let state = self.states.get(&scope.key).into_iter().flatten();
        own.extend(state.map(|(name, value)| (format!("STATE_{name}"), value.clone())));
        let place = loaded.place(scope.place.env.clone(), None);
        loop {
            let node = self.node.brought.clone().unwrap_or_else(|| "node".to_owned());
            if is_main {
                self.warn_of_version(loaded, using, &node, scope.index).await;
            }
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
            if matches!(done.ended, ProcessEnd::NotFound(_)) && self.node.brought.is_none() {
                self.node = NodeProgram { brought: Some(self.bring_node(loaded, using).await?), version: None };
                continue;
            }
            self.states.entry(scope.key.clone()).or_default().extend(std::mem::take(&mut done.state));
            return Ok(self.judge(done, scope.index).await);
        }
    }

    /// Says which Node.js runs an action that asks for a newer one.
    async fn warn_of_version(&mut self, loaded: &LoadedAction, using: &str, node: &str, step: i32) {
        if self.node.version.is_none() {
            self.node.version = self.version_of(node).await;
        }
        if let (true, Some(version)) = (self.node.is_older_than(using), &self.node.version) {
            let said = format!("{} asks for {using}; the Node.js that is here runs it: {version}", loaded.uses);
            self.env.job.log.notice(step, &said).await;
        }
    }

    /// What a Node.js in the machine calls itself; `None`: there is none.
    async fn version_of(&self, node: &str) -> Option<String> {
        let machine = self.env.machine;
        let command = Command {
            argv: vec![node.to_owned(), "--version".to_owned()],
            directory: machine.workspace(),
            make_directory: true,
            search_path: self.env.contexts.own_path(),
            ..Command::default()
        };
        let (handle, said) = (command.handle.clone(), SaidVersion::default());
        let Ok(ended) = tokio::time::timeout(SAYING, machine.run(command, &said)).await else {
            machine.signal(&handle, 9).await;
            return None;
        };
        let text = String::from_utf8_lossy(&said.0.into_inner()).trim().to_owned();
        let plain = text.starts_with('v') && text.bytes().all(|byte| byte.is_ascii_graphic());
        ended.is_ok_and(|exit| exit.code == 0).then_some(text).filter(|_| plain)
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

/// The first bytes that a program says.
#[derive(Default)]
struct SaidVersion(Mutex<Vec<u8>>);

impl OutputSink for SaidVersion {
    fn write(&self, stream: OutputStream, data: Bytes, _time_ms: u64) -> BoxFuture<'_, ()> {
        if matches!(stream, OutputStream::Stdout) {
            let mut said = self.0.lock();
            let room = VERSION.saturating_sub(said.len());
            said.extend(data.iter().take(room));
        }
        std::future::ready(()).boxed()
    }
}
