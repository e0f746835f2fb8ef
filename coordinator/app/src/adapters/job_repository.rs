//! A job's repository, as git in the job asks for it at the job's own address.

use std::{sync::Arc, time::Duration};

use actions_api::{GitRequest, JobIdentity, JobRepository};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};
use planning::repository_config::{self, RepositoryConfig};
use source::{
    RepositoryMirrors,
    other_repositories::{FetchDepth, RepositoryRequest},
    upload_pack::{self, Requester, ServedRepository, UploadPackRequest},
};

/// How long what a job may see is remembered: one `git fetch` asks several times.
const REMEMBERED: Duration = Duration::from_secs(30);
/// Bytes of a repository's own configuration.
const CONFIG: usize = 64 << 10;
/// Jobs whose repositories are remembered, and commits whose configuration is.
const JOBS: u64 = 1024;

/// Repositories of jobs: branches and tags of the maintainers' state, and the run's own commit.
pub(crate) struct JobRepositories {
    sources: Arc<RepositoryMirrors>,
    known: moka::future::Cache<String, Arc<ServedRepository>>,
    /// Patterns of names of artifacts with results of tests, by repository and commit.
    test_results: moka::future::Cache<(String, String), Arc<Vec<String>>>,
}

impl JobRepositories {
    pub(crate) fn new(sources: Arc<RepositoryMirrors>) -> Self {
        let known = moka::future::Cache::builder().max_capacity(JOBS).time_to_live(REMEMBERED).build();
        let test_results = moka::future::Cache::builder().max_capacity(JOBS).build();
        Self { sources, known, test_results }
    }
}

impl JobRepositories {
    /// The name of a job here, and what it may see.
    fn find(
        &self,
        job: Arc<JobIdentity>,
    ) -> impl Future<Output = Result<(String, Arc<ServedRepository>), String>> + Send + use<> {
        let (sources, known) = (Arc::clone(&self.sources), self.known.clone());
        async move {
            let name = format!("{}/{}/{}", job.run, job.job, job.attempt);
            let found = known.try_get_with(name.clone(), look_up(sources, job)).await;
            Ok((name, found.map_err(|why: Arc<String>| why.to_string())?))
        }
    }
}

impl JobRepository for JobRepositories {
    fn serve(
        &self,
        job: Arc<JobIdentity>,
        request: GitRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, std::io::Result<Bytes>>, String>> {
        let author = job.author.clone();
        let found = self.find(job);
        async move {
            let (name, served) = found.await?;
            let GitRequest { is_advertisement, protocol, encoding, body } = request;
            let request = UploadPackRequest { is_advertisement, protocol, encoding, body };
            let who = Requester { job: &name, author: &author };
            upload_pack::serve(&served, who, request).await
        }
        .boxed()
    }

    fn read(&self, job: Arc<JobIdentity>, command: Vec<String>) -> BoxFuture<'static, Result<Option<Vec<u8>>, String>> {
        let author = job.author.clone();
        let found = self.find(job);
        async move {
            let (name, served) = found.await?;
            upload_pack::read(&served, Requester { job: &name, author: &author }, &command).await
        }
        .boxed()
    }

    fn test_result_names<'a>(&'a self, job: &'a JobIdentity) -> BoxFuture<'a, Arc<Vec<String>>> {
        let commit = job.github.get("sha").and_then(serde_json::Value::as_str).unwrap_or_default();
        let read = async move {
            let folder = repository_config::PATH.rsplit_once('/').map_or("", |(folder, _)| folder);
            let files = self.sources.stored_files(&job.repository, commit, &[folder], CONFIG).await.unwrap_or_default();
            let own = files.into_iter().find(|(path, _)| path == repository_config::PATH);
            let own = own.and_then(|(_, text)| RepositoryConfig::read(&text).ok());
            Arc::new(own.map(|own| own.test_results).unwrap_or_default())
        };
        self.test_results.get_with((job.repository.clone(), commit.to_owned()), read).boxed()
    }
}

async fn look_up(sources: Arc<RepositoryMirrors>, job: Arc<JobIdentity>) -> Result<Arc<ServedRepository>, String> {
    let text = |key: &str| job.github.get(key).and_then(serde_json::Value::as_str).unwrap_or_default();
    let commit = text("sha");
    let own = job.repository.as_str();
    let asked = RepositoryRequest { own, repository: own, reference: commit, need: FetchDepth::Everything };
    let found = sources.find(&asked).await.map_err(|error| error.to_string())?;
    let mut refs = found.refs;
    // A pull request's ref is the run's own.
    if job.reference.starts_with("refs/") && refs.iter().all(|(name, _)| *name != job.reference) {
        refs.push((job.reference.clone(), commit.to_owned()));
    }
    let branch = job.github.get("event").and_then(|event| event["repository"]["default_branch"].as_str());
    let head = branch.map(|branch| format!("refs/heads/{branch}")).unwrap_or_default();
    let path = sources.folder(&found.key).await.map_err(|error| error.to_string())?;
    Ok(Arc::new(ServedRepository { path, refs, head, commit: commit.to_owned() }))
}
