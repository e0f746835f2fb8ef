//! Brings actions of other repositories into the machine, at the start of the job and where a step needs one more.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::{FutureExt as _, future::BoxFuture};
use indexmap::IndexMap;
use workflow::plan::{JobOrder, Step, StepAction, StepEntry};

use super::{DEPTH, LoadedAction};
use crate::{
    fetch::ActionRef,
    github::{action::ActionRuns, uses::Uses},
    job::Job,
    sandbox::Machine,
};

/// How often actions may be looked at before the first step, each use of an action within another counted. Actions that
/// use each other multiply: ten deep with forty uses each, they are more than any machine could run.
const VISITS: usize = 1000;

/// Actions of other repositories that lie in the machine.
#[derive(Clone, Default)]
pub(in crate::job) struct LoadedActions {
    loaded: HashMap<ActionRef, LoadedAction>,
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
        let mut walk = ActionWalk { job, machine, visits: 0, without_pre: HashSet::new(), pres: Vec::new() };
        let steps = entries.iter().enumerate().filter_map(|(index, entry)| Some((index, entry.step()?)));
        for (index, step) in steps {
            let at = At { step: index, key: index.to_string(), chain: &[] };
            walk.visit(self, step, &at).await?;
        }
        Ok(walk.pres)
    }

    /// A copy for a step in the background, told from others by a word.
    pub(in crate::job) fn fork(&self, word: &str) -> Self {
        Self { late: format!("/{word}"), ..self.clone() }
    }

    /// Learns what a copy brought.
    pub(in crate::job) fn merge(&mut self, other: Self) {
        for (action, loaded) in other.loaded {
            self.loaded.entry(action).or_insert(loaded);
        }
        for (name, folder) in other.folders {
            self.folders.entry(name).or_insert(folder);
        }
        for (name, commit) in other.commits {
            self.commits.entry(name).or_insert(commit);
        }
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
        if let Some(loaded) = self.loaded.get(remote) {
            return Ok(LoadedAction { uses: uses.to_owned(), ..loaded.clone() });
        }
        let name = remote.name();
        let root = if let Some(root) = self.folders.get(&name) {
            root.clone()
        } else {
            let root = format!("{}{}/{}", folder(machine), self.late, remote.folder());
            let brought = job.sources.action(&job.attempt.order.source, remote).await;
            let brought = brought.map_err(|error| format!("{uses}: {error:#}"))?;
            let how = if brought.notes.is_empty() { String::new() } else { format!(" ({})", brought.notes.join("; ")) };
            let shown = if remote.repository.is_empty() { "of this repository" } else { &name };
            job.log.notice(step, &format!("Action {shown}: commit {}{how}", brought.commit)).await;
            machine.unpack(&root, true, brought.archive).await.map_err(|error| format!("{uses}: {error}"))?;
            if !remote.repository.is_empty() {
                self.commits.insert(name.clone(), brought.commit);
            }
            self.folders.insert(name, root.clone());
            root
        };
        let loaded = LoadedAction::read(machine, uses, (root, remote.path.clone()), Some(remote.clone())).await?;
        self.loaded.insert(remote.clone(), loaded.clone());
        Ok(loaded)
    }
}

/// The way through what a job's steps use, and what that uses.
struct ActionWalk<'a> {
    job: &'a Job,
    machine: &'a dyn Machine,
    visits: usize,
    /// Actions that run nothing before the job, nor does what they use: no need to look at them again. With how many
    /// composite actions stood around them: deeper ones were not looked at.
    without_pre: HashSet<(ActionRef, usize)>,
    pres: Vec<PreStep>,
}

struct At<'a> {
    step: usize,
    key: String,
    chain: &'a [(Step, LoadedAction)],
}

impl ActionWalk<'_> {
    fn visit<'b>(
        &'b mut self,
        actions: &'b mut LoadedActions,
        step: &'b Step,
        at: &'b At<'b>,
    ) -> BoxFuture<'b, Result<(), String>> {
        async move {
            let StepAction::Uses { uses, .. } = &step.action else { return Ok(()) };
            // What is wrong or too deep is said by the step.
            let around = at.chain.last().and_then(|(_, loaded)| loaded.remote.as_ref());
            let remote = match Uses::parse(uses) {
                Ok(Uses::Remote(remote)) => remote,
                Ok(Uses::OwnRepository(path)) => own_repository(&self.job.attempt.order, around, path),
                _ => return Ok(()),
            };
            let known = (remote.clone(), at.chain.len());
            if at.chain.len() >= DEPTH || self.without_pre.contains(&known) {
                return Ok(());
            }
            self.visits += 1;
            if self.visits > VISITS {
                return Err(format!("{uses}: the job's actions use each other more than {VISITS} times: use fewer"));
            }
            // What is loaded already is visited without a wait: others have their turn, and the job can be ended.
            tokio::task::consume_budget().await;
            let loaded = actions.load(self.job, self.machine, uses, &remote, proto::STEP_SETUP).await?;
            let before = self.pres.len();
            let action = Arc::clone(&loaded.action);
            let mut chain = at.chain.to_vec();
            chain.push((step.clone(), loaded));
            match &action.runs {
                runs @ (ActionRuns::Node(_) | ActionRuns::Docker(_)) => {
                    if runs.pre().is_some() {
                        self.pres.push(PreStep { key: at.key.clone(), step: at.step, chain });
                    }
                }
                ActionRuns::Composite(steps) => {
                    for (index, inner) in steps.iter().enumerate() {
                        let at = At { step: at.step, key: format!("{}/{index}", at.key), chain: &chain };
                        self.visit(actions, inner, &at).await?;
                    }
                }
            }
            if self.pres.len() == before {
                self.without_pre.insert(known);
            }
            Ok(())
        }
        .boxed()
    }
}

/// What `$/path` means: in an action of another repository that one, else the repository of the workflow file, at the
/// commit that runs (GitHub docs, `jobs.<job_id>.steps[*].uses`; actions/runner, `ResolveSelfRepositoryReferences`).
pub(super) fn own_repository(order: &JobOrder, around: Option<&ActionRef>, path: String) -> ActionRef {
    if let Some(around) = around.filter(|around| !around.repository.is_empty()) {
        return ActionRef { path, ..around.clone() };
    }
    let context = |name: &str, key: &str| order.contexts.get(name)?.get(key)?.as_str();
    let (repository, commit) = (context("job", "workflow_repository"), context("job", "workflow_sha"));
    // A definition that stands for the file has an id of its own: its repository is the run's.
    let is_own = repository == context("github", "repository")
        && (commit == Some(order.source.commit.as_str()) || commit == context("github", "workflow_sha"));
    match (repository, commit) {
        (Some(repository), Some(commit)) if !is_own => {
            ActionRef { repository: repository.to_owned(), path, reference: commit.to_owned() }
        }
        _ => ActionRef { repository: String::new(), path, reference: order.source.commit.clone() },
    }
}

/// Where actions lie in a machine: beside the folder for temporary files, outside of the workspace.
pub(super) fn folder(machine: &dyn Machine) -> String {
    let temp = machine.temp();
    format!("{}/_actions", temp.rsplit_once('/').map_or("", |(parent, _)| parent))
}
