//! A run's files are fetched and read until its plan needs no more of them.

use std::sync::Arc;

use config::Config;
use indexmap::IndexMap;
use tokio::sync::Semaphore;
use workflow::dialect::{
    call_graph::{CalledFiles, UnavailableFile},
    run_start::RunNumbers,
    workflow_ref::WorkflowRef,
};

use super::{
    definitions::Definitions,
    repository_policy::RepositoryPolicy,
    run_service::RunService,
    workflow_source::{PlanError, WorkflowSource, utf8},
};
use domain::id::BlobHash;
use domain::run::{PinnedWorkflow, Planned, RunRequest, RunState, StoredValues};
use planning::{
    self, PlanOutcome, RepositoryMetadata,
    repository_config::{self, RepositoryConfig},
};
use source::{
    RepositoryMirrors, ResolvedRevision, Revision, SourceError,
    lock::Lock,
    other_repositories::{FetchDepth, RepositoryRequest, RepositorySnapshot},
};
use store::{StoreError, ValueContent, ValueKind};

/// Repositories of called workflows, each resolved once for a plan: all its files are of one commit.
type Origins = IndexMap<String, Result<RepositorySnapshot, String>>;

/// Plans whose files are read at the same time.
static READING: Semaphore = Semaphore::const_new(2);

/// What a pull request's run is called by: nobody wrote the message of its merge. And whose work it is.
fn pull_request_title(request: &RunRequest) -> Option<(String, String)> {
    let of = request.pull_request.as_ref()?;
    let told = &request.payload.as_ref()?["pull_request"];
    let author = told["user"]["login"].as_str().unwrap_or_default();
    Some((format!("{} (#{})", told["title"].as_str()?, of.number), author.to_owned()))
}

/// What a run may have by its commit and by who asked.
struct Authority {
    /// Whether the commit is proven.
    proven: bool,
    /// Whether it acts for its author alone.
    outsider: bool,
    /// Whether a maintainer has to approve it first.
    held: bool,
}

/// Makes plans of requests.
#[derive(Clone)]
pub(super) struct Planner {
    pub(super) run_service: RunService,
    pub(super) sources: Arc<RepositoryMirrors>,
    pub(super) definitions: Definitions,
    pub(super) config: Arc<Config>,
}

impl Planner {
    pub(super) async fn plan(&self, state: &RunState) -> Result<Planned, PlanError> {
        let request = &state.request;
        let numbers = RunNumbers { serial: state.first_serial(), number: state.number, attempt: state.attempt };
        if let Some(command) = &request.command {
            let label = self.config.policy.command_label.as_str();
            if label.is_empty() {
                return Err(PlanError::Author(
                    "this pool runs no plain commands: policy.command_label is empty".into(),
                ));
            }
            let planned = planning::plan_command(request, command, label, &state.secret_names, numbers);
            return planned.map_err(PlanError::Author);
        }
        let path = planning::workflow_path(&request.workflow).map_err(PlanError::Author)?.to_owned();
        let wanted = match &request.pull_request {
            // No state names the ref of a pull request.
            Some(_) => Revision { commit: request.commit.clone(), ..Revision::default() },
            None => Revision {
                commit: request.commit.clone(),
                branch: request.branch.clone(),
                reference: request.reference.clone(),
                request: request.id.clone(),
            },
        };
        let found = self.sources.resolve(&request.repository, &wanted).await?;
        let mut files = WorkflowSource::new(
            self.definitions.clone(),
            self.run_service.definitions_policy(&found.repository),
            self.config.limits.workflow_bytes,
            &found,
        );
        let text = match files.text(&path).await? {
            Some(text) => Some(text.map_err(|why| PlanError::Author(format!("{path}: {why}")))?),
            None => None,
        };
        if let Some(pinned) = &request.pinned {
            if files.of(&path).is_some() {
                return Err(PlanError::Author(format!("{path} is a definition here, and no file of the commit")));
            }
            self.check_pinned(pinned, &found, request, text.as_deref()).await?;
        }
        let takes_over = state.rerun.as_ref().is_some_and(|rerun| rerun.takes_over);
        let Authority { proven, outsider, held } = self.authority(&found, request, takes_over).await;
        let stored = match proven && !outsider {
            true => self
                .stored_values(&found.repository.address)
                .await
                .map_err(|error| PlanError::NotYet(error.to_string()))?,
            false => StoredValues::default(),
        };
        // A branch may hold the commit of a pull request too, once it is merged: its ref is its own all the same.
        let own_ref = request.pull_request.as_ref().and(request.reference.clone());
        let other_ref = found.other_ref.clone().filter(|_| own_ref.is_none());
        let reference = own_ref.unwrap_or_else(|| found.reference.clone());
        let metadata = RepositoryMetadata {
            commit: found.commit.clone(),
            reference,
            default_branch: found.default_branch.clone(),
            description: pull_request_title(request).or_else(|| found.description.clone()),
            parent: found.parent.clone(),
            default_tip: found.default_tip.clone(),
            proven,
            outsider,
            takes_over,
            held,
            maintainers: found.maintainers.clone(),
            relays: found.relays.clone(),
            definition: files.of(&path).map(|supplied| supplied.event.clone()),
            stored,
        };
        let (mut known, mut origins) = (CalledFiles::new(), Origins::new());
        let asked = Arc::new((request.clone(), metadata, text));
        loop {
            let made = {
                // Reading files costs processor time and memory of their author's choosing: off the threads that serve, and
                // few at a time.
                let _turn = READING.acquire().await.map_err(|error| PlanError::NotYet(error.to_string()))?;
                let asked = asked.clone();
                let reading = tokio::task::spawn_blocking(move || {
                    let (request, metadata, text) = &*asked;
                    let made = planning::plan(request, metadata, text.as_deref(), &known, numbers);
                    (known, made)
                });
                let made;
                (known, made) = reading.await.map_err(|error| PlanError::NotYet(error.to_string()))?;
                made
            };
            match made.map_err(PlanError::Author)? {
                PlanOutcome::Planned(mut planned) => {
                    let commit = |(name, found): (String, Result<RepositorySnapshot, String>)| {
                        Some((name, found.ok()?.commit.to_string()))
                    };
                    planned.notices.extend(other_ref);
                    planned.origins = origins.into_iter().filter_map(commit).collect();
                    planned.definitions = files.used();
                    if state.rules.reports_jobs {
                        planned.workflow_sha256 = asked.2.as_deref().map(|text| BlobHash::of(text.as_bytes()));
                    }
                    return Ok(*planned);
                }
                PlanOutcome::NeedsFiles(places) => {
                    for place in places {
                        let text = self.called(&found, &mut files, &place, &mut origins).await?;
                        known.insert(place, text.map_err(UnavailableFile::Missing));
                    }
                }
            }
        }
    }

    /// What maintainers stored for a repository: variables, and which secrets there are.
    async fn stored_values(&self, repository: &str) -> Result<StoredValues, StoreError> {
        let store = self.run_service.store();
        let mut stored = StoredValues::default();
        let mut has_variables = false;
        for (kind, environment, name) in store.repository_value_names(repository).await? {
            match kind {
                ValueKind::Secret => stored.secrets.entry(environment).or_default().push(name),
                ValueKind::Variable if environment.is_empty() => has_variables = true,
                ValueKind::Variable => {
                    stored.environments.insert(environment);
                }
            }
        }
        if has_variables {
            for one in store.repository_values(repository, None, &[ValueKind::Variable]).await? {
                if let Some(ValueContent::Plain(text)) = one.content {
                    stored.variables.insert(one.name, text);
                }
            }
        }
        Ok(stored)
    }

    /// A request that names the bytes of its file runs these alone, at a commit of the maintainers' state that all its
    /// objects stand for, and for a maintainer.
    async fn check_pinned(
        &self,
        pinned: &PinnedWorkflow,
        found: &ResolvedRevision,
        request: &RunRequest,
        text: Option<&str>,
    ) -> Result<(), PlanError> {
        let refused = |why: String| Err(PlanError::Author(why));
        let (actor, commit) = (&request.actor, &found.commit);
        if found.repository.owner != *actor && !found.maintainers.contains(actor) {
            return refused(format!("{actor} is no maintainer of this repository: have one of them send the trigger"));
        }
        if !found.proven {
            return refused(format!(
                "the maintainers' state does not have the commit {commit}: push it, then trigger it"
            ));
        }
        if let Some(text) = text
            && BlobHash::of(text.as_bytes()).as_str() != pinned.sha256
        {
            let path = &request.workflow;
            return refused(format!("{path} at commit {commit} is another file than the trigger's hash names"));
        }
        for object in &pinned.objects {
            let wanted = Revision { commit: object.clone(), ..Revision::default() };
            let other = self.sources.resolve(&request.repository, &wanted).await?.commit;
            if other != *commit {
                return refused(format!("the trigger names {object} too, which is of another commit ({other})"));
            }
        }
        Ok(())
    }

    /// What a run may have. A pull request acts with the word of its author: whoever reopens one vouches for nothing. Its merge
    /// is proven by the author's own event, where the author's word counts. `pull_request_target` runs what the maintainers
    /// have at the base, whoever wants something merged there.
    async fn authority(&self, found: &ResolvedRevision, request: &RunRequest, takes_over: bool) -> Authority {
        let by_insider = self.is_insider(found, &request.actor).await;
        match &request.pull_request {
            None => Authority { proven: found.proven, outsider: takes_over || !by_insider, held: false },
            Some(of) if of.runs_base => Authority { proven: found.proven, outsider: false, held: false },
            Some(of) => {
                let vouched = by_insider && self.is_insider(found, &of.author).await;
                let outsider = takes_over || !vouched;
                Authority { proven: vouched, outsider, held: outsider }
            }
        }
    }

    /// Whether a key's requests count like a maintainer's: it is one, or was named by the operator, or by the
    /// maintainers in the repository's own configuration. That is read at the default branch: what an older commit said
    /// holds no longer.
    async fn is_insider(&self, found: &ResolvedRevision, key: &str) -> bool {
        let maintains = found.repository.owner == key || found.maintainers.iter().any(|maintainer| maintainer == key);
        if maintains || RepositoryPolicy::new(&self.config, &found.repository).trusts(key) {
            return true;
        }
        let text = found.default_branch_file(repository_config::PATH, self.config.limits.workflow_bytes).await;
        let own = text.and_then(|bytes| RepositoryConfig::read(&String::from_utf8(bytes).ok()?).ok());
        own.is_some_and(|own| own.trusted.iter().any(|trusted| trusted == key))
    }

    /// The text of a called workflow, or why there is none.
    async fn called(
        &self,
        own: &ResolvedRevision,
        files: &mut WorkflowSource<'_>,
        place: &WorkflowRef,
        origins: &mut Origins,
    ) -> Result<Result<String, String>, PlanError> {
        let Some(remote) = &place.remote else {
            let text = files.text(&place.path).await?;
            return Ok(text.unwrap_or_else(|| Err(format!("there is no such file at commit {}", own.commit))));
        };
        let name = remote.to_string();
        if !origins.contains_key(&name) {
            let lock: Option<Lock> = self.sources.lock_of(&own.repository.address, own.commit.as_str()).await?;
            let need = FetchDepth::Tree(lock.as_ref());
            let asked = RepositoryRequest {
                own: &own.repository.address,
                repository: &remote.repository,
                reference: &remote.reference,
                need,
            };
            let found = match self.sources.find(&asked).await {
                Ok(found) => Ok(found),
                Err(SourceError::Refused(why)) => Err(why),
                Err(error) => return Err(error.into()),
            };
            origins.insert(name.clone(), found);
        }
        let found = match origins.get(&name) {
            Some(Ok(found)) => found,
            Some(Err(why)) => return Ok(Err(why.clone())),
            None => return Ok(Err(format!("{name} was not looked for"))),
        };
        let bytes = self.sources.file(found, &place.path, self.config.limits.workflow_bytes).await?;
        Ok(bytes.ok_or_else(|| format!("{name} has no such file at commit {}", found.commit)).and_then(utf8))
    }
}
