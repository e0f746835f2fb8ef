//! Receives logs and serves repository objects, for the attempt whose token a call carries.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use proto::worker::{
    ArchiveRequest, DataChunk, LogAck, LogChunk, LogRequest, ResolveRequest, Resolved, SourceRequest, log_request,
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};
use tracing::debug;

use super::{
    Inner,
    messages::attempt_id,
    peer_proof::{PeerProof, UnprovenCall},
};
use domain::run::AttemptId;

/// Shortest time between two acknowledgements, each of which needs an fsync.
const ACK_EVERY: Duration = Duration::from_millis(100);
/// Largest chunk of a bundle or an archive, in bytes.
const CHUNK: usize = 256 * 1024;

type Acks = mpsc::Sender<Result<LogAck, Status>>;

/// The attempt that a call is for, its worker and its repository.
pub(super) struct Caller {
    pub(super) attempt: AttemptId,
    pub(super) worker: String,
    repository: String,
}

/// Checks the token of a call. An attempt that is over, or another worker's, gets the same error: a caller learns
/// nothing about attempts that are not its own.
pub(super) async fn caller(
    inner: &Inner,
    proof: &PeerProof,
    attempt: Option<proto::worker::Attempt>,
    token: &str,
) -> Result<Caller, Status> {
    let attempt = attempt_id(attempt.ok_or_else(|| Status::invalid_argument("the call names no attempt"))?);
    let refused = || Status::permission_denied("the attempt is over, or the token is not its own: stop");
    let holder = inner.holder(&attempt).await.map_err(|error| Status::unavailable(format!("{error:#}")))?;
    let (worker, repository) = holder.ok_or_else(refused)?;
    if inner.tokens.is_attempt(token, &attempt, &worker) {
        proof.prove();
        Ok(Caller { attempt, worker, repository: repository.to_string() })
    } else {
        Err(refused())
    }
}

/// Receives one log stream, to its end.
pub(super) async fn logs(
    inner: Arc<Inner>,
    mut inbound: Streaming<LogRequest>,
    (proof, call): (PeerProof, Option<UnprovenCall>),
    acks: Acks,
    stop: CancellationToken,
) {
    let outcome = tokio::select! {
        biased;
        outcome = take(&inner, &mut inbound, (&proof, call), &acks) => outcome,
        () = stop.cancelled() => Err(Status::unavailable("the coordinator is shutting down")),
    };
    if let Err(status) = outcome {
        debug!(reason = status.message(), "a log stream ended");
        _ = acks.send(Err(status)).await;
    }
}

async fn take(
    inner: &Inner,
    inbound: &mut Streaming<LogRequest>,
    (proof, call): (&PeerProof, Option<UnprovenCall>),
    acks: &Acks,
) -> Result<(), Status> {
    let Some(log_request::Message::Open(open)) = next(inbound).await? else {
        return Err(Status::invalid_argument("a log stream begins with LogOpen"));
    };
    let caller = match caller(inner, proof, open.attempt, &open.token).await {
        Ok(caller) => caller,
        // The worker keeps its spool and tries again.
        Err(status) if status.code() == tonic::Code::Unavailable => return Err(status),
        Err(_) => return stopped(acks).await,
    };
    drop(call);
    let (logs, attempt) = (&inner.config.logs, &caller.attempt);
    let length = logs.open(&attempt.run, &attempt.job, attempt.number).await.map_err(storage)?;
    let durable = logs.sync(&attempt.run, &attempt.job, attempt.number).await.map_err(storage)?;
    send(acks, LogAck { received: length, durable, ..LogAck::default() }).await?;

    let (received, lengths) = watch::channel(length);
    let writing = async {
        loop {
            let chunk = match next(inbound).await? {
                Some(log_request::Message::Chunk(chunk)) => chunk,
                Some(log_request::Message::Close(close)) => return Ok(Written::Closing(close)),
                Some(log_request::Message::Open(_)) => return Err(Status::invalid_argument("LogOpen comes once")),
                None => return Ok(Written::Left),
            };
            let Some(length) = append(inner, &caller, chunk).await? else { return Ok(Written::Stale) };
            received.send_replace(length);
        }
    };
    // The close has an acknowledgement of its own, so it does not wait for ACK_EVERY.
    let written = tokio::select! {
        biased;
        written = writing => written?,
        failed = acknowledge(inner, &caller.attempt, lengths, acks) => return failed,
    };
    match written {
        Written::Left => Ok(()),
        Written::Stale => stopped(acks).await,
        Written::Closing(close) => {
            // A wrong total or hash stays wrong: DATA_LOSS tells the worker not to retry.
            let closed = logs.close(&attempt.run, &attempt.job, attempt.number, close.total, &close.sha256).await;
            closed.map_err(|error| Status::data_loss(format!("the log can't be closed: {error:#}")))?;
            let total = close.total;
            send(acks, LogAck { received: total, durable: total, closed: true, ..LogAck::default() }).await
        }
    }
}

enum Written {
    /// The worker closed the log.
    Closing(proto::worker::LogClose),
    /// The connection was lost.
    Left,
    /// The attempt is no longer the worker's.
    Stale,
}

/// The log's new length, or `None` where the attempt is over.
async fn append(inner: &Inner, caller: &Caller, chunk: LogChunk) -> Result<Option<u64>, Status> {
    if chunk.data.len() > proto::LOG_CHUNK_LIMIT {
        return Err(Status::invalid_argument(format!("a log chunk has at most {} bytes", proto::LOG_CHUNK_LIMIT)));
    }
    let (attempt, most) = (&caller.attempt, inner.config.log_bytes);
    if chunk.offset.saturating_add(chunk.data.len() as u64) > most {
        // What is there stays; DATA_LOSS tells the worker not to try again.
        let what =
            format!("the log has more than {most} bytes: print less, or have the operator raise limits.log_bytes");
        return Err(Status::data_loss(what));
    }
    if !inner.holds(attempt, &caller.worker).await.map_err(storage)? {
        return Ok(None);
    }
    let appended = inner.config.logs.append(&attempt.run, &attempt.job, attempt.number, chunk.offset, chunk.data).await;
    appended.map(Some).map_err(storage)
}

/// Syncs the log to the disk and acknowledges it, at most every [`ACK_EVERY`], while further chunks arrive. Returns only
/// when that fails.
async fn acknowledge(
    inner: &Inner,
    attempt: &AttemptId,
    mut lengths: watch::Receiver<u64>,
    acks: &Acks,
) -> Result<(), Status> {
    let mut last = Instant::now();
    while lengths.changed().await.is_ok() {
        sleep_until(last + ACK_EVERY).await;
        last = Instant::now();
        let received = *lengths.borrow_and_update();
        let durable = inner.config.logs.sync(&attempt.run, &attempt.job, attempt.number).await.map_err(storage)?;
        send(acks, LogAck { received: received.max(durable), durable, ..LogAck::default() }).await?;
    }
    Ok(())
}

async fn stopped(acks: &Acks) -> Result<(), Status> {
    send(acks, LogAck { stop: true, ..LogAck::default() }).await
}

async fn send(acks: &Acks, ack: LogAck) -> Result<(), Status> {
    acks.send(Ok(ack)).await.map_err(|_| Status::cancelled("the worker went away"))
}

async fn next(inbound: &mut Streaming<LogRequest>) -> Result<Option<log_request::Message>, Status> {
    Ok(inbound.message().await?.and_then(|request| request.message))
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
fn storage(error: anyhow::Error) -> Status {
    Status::unavailable(format!("the log can't be stored: {error:#}"))
}

type Chunks = BoxStream<'static, Result<DataChunk, Status>>;

/// The objects of a commit, of the attempt's own repository or of one that was resolved for the attempt.
pub(super) async fn source(inner: &Inner, request: SourceRequest, proof: &PeerProof) -> Result<Chunks, Status> {
    let caller = caller(inner, proof, request.attempt, &request.token).await?;
    let repository = if request.repository.is_empty() { caller.repository.clone() } else { request.repository };
    if repository.is_empty() {
        return Err(Status::not_found("the job has no repository"));
    }
    caller.may_have(inner, &repository, &request.grant)?;
    let commit = request.commit.clone();
    let wanted: Vec<String> = std::iter::once(request.commit).chain(request.also).collect();
    let bundle = inner.config.objects.bundle(&repository, &wanted, &request.have).await;
    bundle.map(chunks).map_err(|error| Status::not_found(format!("commit {commit}: {error:#}")))
}

/// What a name in the attempt's workflow stands for.
pub(super) async fn resolve(inner: &Inner, request: ResolveRequest, proof: &PeerProof) -> Result<Resolved, Status> {
    let caller = caller(inner, proof, request.attempt.clone(), &request.token).await?;
    let found = inner.config.objects.resolve(&caller.repository, &request).await;
    let found = found.map_err(|error| Status::not_found(format!("{error:#}")))?;
    let grant = inner.tokens.grant(&caller.attempt, &caller.worker, &found.repository);
    Ok(Resolved { grant, ..found })
}

/// The files of a commit that was resolved for the attempt.
pub(super) async fn archive(inner: &Inner, request: ArchiveRequest, proof: &PeerProof) -> Result<Chunks, Status> {
    let caller = caller(inner, proof, request.attempt, &request.token).await?;
    caller.may_have(inner, &request.repository, &request.grant)?;
    let archive = inner.config.objects.archive(&request.repository, &request.commit).await;
    archive.map(chunks).map_err(|error| Status::not_found(format!("commit {}: {error:#}", request.commit)))
}

impl Caller {
    /// Whether a repository's objects are for this attempt: its own, or one that was resolved for it. Other mirrors may
    /// hold what the attempt's repository must not see.
    fn may_have(&self, inner: &Inner, repository: &str, grant: &[u8]) -> Result<(), Status> {
        if repository == self.repository || inner.tokens.is_grant(grant, &self.attempt, &self.worker, repository) {
            return Ok(());
        }
        Err(Status::permission_denied(
            "the repository was not resolved for this attempt: call Resolve, and send its grant",
        ))
    }
}

fn chunks(pieces: BoxStream<'static, std::io::Result<Bytes>>) -> Chunks {
    let cut = pieces.flat_map(|piece| {
        let chunks: Vec<Result<DataChunk, Status>> = match piece {
            Ok(data) => split(data).map(|data| Ok(DataChunk { data })).collect(),
            Err(error) => vec![Err(Status::unavailable(format!("the objects broke off: {error}")))],
        };
        futures::stream::iter(chunks)
    });
    cut.boxed()
}

fn split(mut data: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || (!data.is_empty()).then(|| data.split_to(data.len().min(CHUNK))))
}
