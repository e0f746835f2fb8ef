//! Brings actions of other repositories into the machine, at the start of the job and where a step needs one more.

use std::collections::HashMap;

use futures::{FutureExt as _, future::BoxFuture};
use indexmap::IndexMap;
use workflow::plan::{Step, StepAction, StepEntry};

use super::{DEPTH, LoadedAction};
use crate::{
    fetch::ActionRef,
    github::{action::ActionRuns, uses::Uses},
    job::Job,
    sandbox::Machine,
};

/// Actions of other repositories that lie in the machine.
#[derive(Clone, Default)]
pub(in crate::job) struct LoadedActions {
    /// By `uses:` as written.
    loaded: HashMap<String, LoadedAction>,
    /// Where they lie, by `owner/repo@ref`.
    folders: HashMap<String, String>,
    /// Folder for those that are brought late: steps that run at once must not bring into the same folder.
    late: String,
    /// `owner/repo@ref` and the commit it stood for.
    pub(in crate::job) commits: IndexMap<String, String>,
}

/// An action's `pre:` program, which runs before the job's steps.
pub(in crate::job) struct PreStep {
    /// As `StepScope::key` of its step.
    pub(super) key: String,
    /// Number of the job's step that it belongs to.
    pub(super) step: usize,
    /// The step that uses it, behind the composite actions around it.
    pub(super) chain: Vec<(Step, LoadedAction)>,
}

impl LoadedActions {
    /// Brings what the steps use, and what those use. Gives the programs to run before the first step.
    pub(in crate::job) async fn prepare(
        &mut self,
        job: &Job,
        machine: &dyn Machine,
        entries: &[StepEntry],
    ) -> Result<Vec<PreStep>, String> {
        let mut pres = Vec::new();
        let steps = entries.iter().enumerate().filter_map(|(index, entry)| Some((index, entry.step()?)));
        for (index, step) in steps {
            let at = At { step: index, key: index.to_string(), chain: &[] };
            self.walk(job, machine, step, &at, &mut pres).await?;
        }
        Ok(pres)
    }

    /// A copy for a step in the background, told from others by a word.
    pub(in crate::job) fn fork(&self, word: &str) -> Self {
        Self { late: format!("/{word}"), ..self.clone() }
    }

    /// Learns what a copy brought.
    pub(in crate::job) fn merge(&mut self, other: Self) {
        for (uses, loaded) in other.loaded {
            self.loaded.entry(uses).or_insert(loaded);
        }
        for (name, folder) in other.folders {
            self.folders.entry(name).or_insert(folder);
        }
        for (name, commit) in other.commits {
            self.commits.entry(name).or_insert(commit);
        }
    }

    fn walk<'b>(
        &'b mut self,
        job: &'b Job,
        machine: &'b dyn Machine,
        step: &'b Step,
        at: &'b At<'b>,
        pres: &'b mut Vec<PreStep>,
    ) -> BoxFuture<'b, Result<(), String>> {
        async move {
            let StepAction::Uses { uses, .. } = &step.action else { return Ok(()) };
            // What is wrong or too deep is said by the step.
            let Ok(Uses::Remote(remote)) = Uses::parse(uses) else { return Ok(()) };
            if at.chain.len() >= DEPTH {
                return Ok(());
            }
            let loaded = self.load(job, machine, uses, &remote, proto::STEP_SETUP).await?;
            let mut chain = at.chain.to_vec();
            chain.push((step.clone(), loaded.clone()));
            match &loaded.action.runs {
                runs @ (ActionRuns::Node(_) | ActionRuns::Docker(_)) => {
                    if runs.pre().is_some() {
                        pres.push(PreStep { key: at.key.clone(), step: at.step, chain });
                    }
                }
                ActionRuns::Composite(steps) => {
                    for (index, inner) in steps.iter().enumerate() {
                        let at = At { step: at.step, key: format!("{}/{index}", at.key), chain: &chain };
                        self.walk(job, machine, inner, &at, pres).await?;
                    }
                }
            }
            Ok(())
        }
        .boxed()
    }

    /// An action of another repository, brought if it is not there yet.
    pub(super) async fn load(
        &mut self,
        job: &Job,
        machine: &dyn Machine,
        uses: &str,
        remote: &ActionRef,
        step: i32,
    ) -> Result<LoadedAction, String> {
        if let Some(loaded) = self.loaded.get(uses) {
            return Ok(loaded.clone());
        }
        let name = remote.name();
        let root = if let Some(root) = self.folders.get(&name) {
            root.clone()
        } else {
            let root = format!("{}{}/{}", folder(machine), self.late, remote.folder());
            let brought = job.sources.action(&job.attempt.order.source, remote).await;
            let brought = brought.map_err(|error| format!("{uses}: {error:#}"))?;
            let how = if brought.notes.is_empty() { String::new() } else { format!(" ({})", brought.notes.join("; ")) };
            job.log.notice(step, &format!("Action {name}: commit {}{how}", brought.commit)).await;
            machine.unpack(&root, true, brought.archive).await.map_err(|error| format!("{uses}: {error}"))?;
            self.commits.insert(name.clone(), brought.commit);
            self.folders.insert(name, root.clone());
            root
        };
        let path = if remote.path.is_empty() { root } else { format!("{root}/{}", remote.path) };
        let loaded = LoadedAction::read(machine, uses, path, Some(remote.clone())).await?;
        self.loaded.insert(uses.to_owned(), loaded.clone());
        Ok(loaded)
    }
}

struct At<'a> {
    step: usize,
    key: String,
    chain: &'a [(Step, LoadedAction)],
}

/// Where actions lie in a machine: beside the folder for temporary files, outside of the workspace.
pub(super) fn folder(machine: &dyn Machine) -> String {
    let temp = machine.temp();
    format!("{}/_actions", temp.rsplit_once('/').map_or("", |(parent, _)| parent))
}
