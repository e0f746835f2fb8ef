//! The repository that is run, as git in its jobs asks for it at the job's own address.

use std::{path::PathBuf, sync::Arc};

use actions_api::{GitRequest, JobIdentity, JobRepository};
use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};
use source::upload_pack::{self, Requester, ServedRepository, UploadPackRequest};

/// Branches, tags and what is known of `origin`'s branches.
pub(super) struct OwnRepository {
    root: PathBuf,
}

impl OwnRepository {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root }
    }
}

impl JobRepository for OwnRepository {
    fn serve(
        &self,
        job: Arc<JobIdentity>,
        request: GitRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, std::io::Result<Bytes>>, String>> {
        let found = find(self.root.clone(), Arc::clone(&job));
        async move {
            let served = found.await?;
            let GitRequest { is_advertisement, protocol, encoding, body } = request;
            let request = UploadPackRequest { is_advertisement, protocol, encoding, body };
            upload_pack::serve(&served, Requester { job: job.job.as_str(), author: "" }, request).await
        }
        .boxed()
    }

    fn read(&self, job: Arc<JobIdentity>, command: Vec<String>) -> BoxFuture<'static, Result<Option<Vec<u8>>, String>> {
        let found = find(self.root.clone(), Arc::clone(&job));
        async move { upload_pack::read(&found.await?, Requester { job: job.job.as_str(), author: "" }, &command).await }
            .boxed()
    }
}

async fn find(root: PathBuf, job: Arc<JobIdentity>) -> Result<ServedRepository, String> {
    let commit = job.github.get("sha").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    let reading = tokio::task::spawn_blocking(move || served(&root, commit));
    let served = reading.await.map_err(|error| error.to_string())?;
    served.map_err(|error| format!("the checkout cannot be read: {}", error.message()))
}

fn served(root: &std::path::Path, commit: String) -> Result<ServedRepository, git2::Error> {
    let repository = git2::Repository::open(root)?;
    let mut refs: Vec<(String, String)> = Vec::new();
    let mut theirs = Vec::new();
    for found in repository.references()?.flatten() {
        let (Ok(name), Some(id)) = (found.name(), found.target()) else { continue };
        if name.starts_with("refs/heads/") || name.starts_with("refs/tags/") {
            refs.push((name.to_owned(), id.to_string()));
        } else if let Some(branch) = name.strip_prefix("refs/remotes/origin/").filter(|branch| *branch != "HEAD") {
            theirs.push((format!("refs/heads/{branch}"), id.to_string()));
        }
    }
    // A branch that was never checked out is there as well, as it would be on a server.
    for (name, id) in theirs {
        if refs.iter().all(|(known, _)| *known != name) {
            refs.push((name, id));
        }
    }
    let head = repository.head().ok().and_then(|head| head.name().ok().map(str::to_owned));
    // The objects of a worktree lie with its repository.
    let path = repository.commondir().to_owned();
    Ok(ServedRepository { path, refs, head: head.filter(|name| name.starts_with("refs/")).unwrap_or_default(), commit })
}
