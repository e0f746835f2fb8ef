//! Mirrors of a worker, beside a coordinator that serves one repository.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::{path::Path, process::Command, sync::Arc};

use futures::{StreamExt as _, stream::BoxStream};
use proto::worker::{
    ActionsApiRequest, ArchiveRequest, Attempt, DataChunk, LogAck, LogRequest, ResolveRequest, Resolved, SourceRequest,
    bulk_server::{Bulk, BulkServer},
};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};
use workflow::plan::SourceRef;

use super::*;
use crate::fetch::{ActionStore, CommitQuery, LocatedCommit, Mirrors};

struct Repository(PathBuf);

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl Bulk for Repository {
    type LogsStream = Answers<LogAck>;
    type SourceStream = Answers<DataChunk>;
    type ArchiveStream = Answers<DataChunk>;
    type ActionsApiStream = Answers<DataChunk>;

    async fn logs(&self, _: Request<Streaming<LogRequest>>) -> Result<Response<Self::LogsStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn source(&self, request: Request<SourceRequest>) -> Result<Response<Self::SourceStream>, Status> {
        let SourceRequest { commit, have, .. } = request.into_inner();
        let without: String = have.iter().map(|id| format!(" ^{id}")).collect();
        let script = format!(
            "git update-ref refs/longshore/{commit} {commit}
             git bundle create --quiet - refs/longshore/{commit}{without}"
        );
        let data = sh(&self.0, &script).into();
        Ok(Response::new(futures::stream::iter([Ok(DataChunk { data })]).boxed()))
    }

    async fn resolve(&self, _: Request<ResolveRequest>) -> Result<Response<Resolved>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn archive(&self, _: Request<ArchiveRequest>) -> Result<Response<Self::ArchiveStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn actions_api(
        &self,
        _: Request<Streaming<ActionsApiRequest>>,
    ) -> Result<Response<Self::ActionsApiStream>, Status> {
        Err(Status::unimplemented(""))
    }
}

fn sh(folder: &Path, script: &str) -> Vec<u8> {
    let output = Command::new("sh").args(["-ec", script]).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// A commit without a parent, of so many random bytes.
fn commit(repository: &Path, bytes: usize) -> String {
    let git = "git -c user.name=n -c user.email=e@example.org";
    let script = format!(
        "blob=$(head -c {bytes} /dev/urandom | git hash-object -w --stdin)
         {git} commit-tree -m x $(printf '100644 blob %s\\tf\\n' $blob | git mktree)"
    );
    String::from_utf8(sh(repository, &script)).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_36_a_mirror_has_no_more_than_the_quota_however_many_commits_are_brought() {
    let repository = tempfile::tempdir().unwrap();
    sh(repository.path(), "git init -q .");
    let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", incoming.local_addr().unwrap());
    let service = BulkServer::new(Repository(repository.path().to_owned()));
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(incoming));

    let data = tempfile::tempdir().unwrap();
    let quota = 700_000;
    let mirrors = Mirrors::new(data.path().join("mirrors"), quota, ActionStore::new(data.path().join("actions")));
    let (_url, url) = watch::channel(Some(url));
    let connection = Arc::new(BulkConnection::new(url, None));
    let sources = Arc::new(mirrors).for_attempt(connection, Attempt::default(), String::new());
    let locate = async |commit: &str| -> anyhow::Result<LocatedCommit> {
        let source = SourceRef { repository: "r".into(), commit: commit.to_owned(), ..SourceRef::default() };
        sources.locate(&source, &CommitQuery::default()).await
    };
    let size = |mirror: &Path| -> u64 {
        String::from_utf8(sh(mirror, "du -sb . | cut -f 1")).unwrap().trim().parse().unwrap()
    };
    for _ in 0..5 {
        let id = commit(repository.path(), 300_000);
        let found = locate(&id).await.unwrap();
        sh(&found.path, &format!("git cat-file -e {id}^{{tree}}"));
        // Folders count besides.
        assert!(size(&found.path) < quota + 60_000, "{}", size(&found.path));
    }
    // It is not begun anew under somebody who reads it.
    let read = locate(&commit(repository.path(), 300_000)).await.unwrap();
    let [one, other] = [(); 2].map(|()| commit(repository.path(), 300_000));
    let both = [locate(&one).await, locate(&other).await];
    let errors: Vec<_> = both.into_iter().filter_map(|located| located.err()).map(|error| error.to_string()).collect();
    assert!(!errors.is_empty() && errors.iter().all(|error| error.contains("other jobs read")), "{errors:?}");
    drop(read);
    locate(&other).await.unwrap();
    // And no more is brought at once than all may have.
    let error = format!("{:#}", locate(&commit(repository.path(), 800_000)).await.unwrap_err());
    assert!(error.contains("disk.mirror_bytes"), "{error}");
}
