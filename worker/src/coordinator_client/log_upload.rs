//! Brings a spool to the coordinator: offsets, acknowledgements, resuming.

use std::{path::Path, time::Duration};

use backon::{BackoffBuilder as _, ExponentialBuilder};
use proto::worker::{Attempt, LogAck, LogChunk, LogClose, LogOpen, LogRequest, bulk_client::BulkClient, log_request};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout_at},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};
use tracing::debug;

use super::bulk::BulkClientWatch;
use crate::log::spool::{Spool, SpoolFile, SpoolProgress};

/// Small output waits at most this long for more, except the first of a burst, which goes at once.
const BATCH_TIME: Duration = Duration::from_millis(100);
/// This much does not wait for more: a full chunk.
const BATCH_BYTES: u64 = proto::LOG_CHUNK_LIMIT as u64;
/// The shortest and the longest wait between two tries; jitter adds up to as much again.
const WAITS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// How shipping ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum LogUploadEnd {
    /// The coordinator has stored all of it for good.
    Closed,
    /// The attempt is not current: nobody wants its log.
    Stale,
    /// The coordinator will never take it, and says why.
    Refused(String),
}

/// Ships what the spool has and gets, until its end. Goes on after cuts from where the coordinator is.
pub(crate) async fn run(log: &SpoolFile, mut bulk: BulkClientWatch, attempt: Attempt, token: String) -> LogUploadEnd {
    let (path, mut progress) = (log.path(), log.progress());
    let waits = ExponentialBuilder::default().with_min_delay(WAITS.0).with_max_delay(WAITS.1).without_max_times();
    let waits = waits.with_jitter();
    let mut wait = waits.build();
    loop {
        let client = match bulk.wait_for(Option::is_some).await {
            Ok(client) => client.clone(),
            Err(_) => return LogUploadEnd::Refused("the worker is ending".to_owned()),
        };
        let Some(client) = client else { continue };
        let open = LogOpen { attempt: Some(attempt.clone()), token: token.clone() };
        let begun = Instant::now();
        match stream(client, open, path, &mut progress).await {
            Ok(shipped) => return shipped,
            Err(status) if is_final(&status) => return LogUploadEnd::Refused(status.message().to_owned()),
            Err(status) => debug!(reason = status.message(), "a log stream was cut; going on"),
        }
        if begun.elapsed() > WAITS.1 {
            wait = waits.build();
        }
        tokio::time::sleep(wait.next().unwrap_or(WAITS.1)).await;
    }
}

fn is_final(status: &Status) -> bool {
    matches!(status.code(), Code::DataLoss | Code::InvalidArgument | Code::OutOfRange | Code::Unimplemented)
}

/// One stream, from LogOpen to the acknowledged close or a cut.
async fn stream(
    mut client: BulkClient<Channel>,
    open: LogOpen,
    path: &Path,
    progress: &mut watch::Receiver<SpoolProgress>,
) -> Result<LogUploadEnd, Status> {
    // Four chunks under way fill the wire; more would only sit in memory.
    let (out, stream) = mpsc::channel(4);
    send_message(&out, log_request::Message::Open(open)).await?;
    let mut acks = client.logs(ReceiverStream::new(stream)).await?.into_inner();
    let first = ack(&mut acks).await?;
    if first.stop {
        return Ok(LogUploadEnd::Stale);
    }
    let sending = send(out, path, progress, first.received);
    let acknowledgements = async {
        loop {
            match ack(&mut acks).await? {
                LogAck { stop: true, .. } => return Ok(LogUploadEnd::Stale),
                LogAck { closed: true, .. } => return Ok(LogUploadEnd::Closed),
                LogAck { .. } => {}
            }
        }
    };
    tokio::pin!(acknowledgements);
    tokio::select! {
        end = &mut acknowledgements => end,
        // The outbound side stays open: its end would be the end of the stream before the close is answered.
        sent = sending => match sent {
            Ok(_open) => acknowledgements.await,
            Err(status) if status.code() == Code::Cancelled => acknowledgements.await,
            Err(status) => Err(status),
        },
    }
}

/// Sends everything from `offset` on as it comes, then the close.
async fn send(
    out: mpsc::Sender<LogRequest>,
    path: &Path,
    progress: &mut watch::Receiver<SpoolProgress>,
    mut offset: u64,
) -> Result<mpsc::Sender<LogRequest>, Status> {
    let mut next = Instant::now();
    loop {
        let there = wait_for_batch(progress, offset, next).await?;
        if there.bytes > offset {
            let data = read(path, offset).await?;
            if data.is_empty() {
                return Err(Status::data_loss("the log has less bytes than it was said to have"));
            }
            let length = data.len() as u64;
            send_message(&out, log_request::Message::Chunk(LogChunk { offset, data: data.into() })).await?;
            offset += length;
            next = Instant::now() + BATCH_TIME;
        } else if let Some(sha256) = there.sha256 {
            send_message(&out, log_request::Message::Close(LogClose { total: there.bytes, sha256 })).await?;
            return Ok(out);
        }
    }
}

/// Waits until there is something to send: enough, or not before `next`, or the end.
async fn wait_for_batch(
    progress: &mut watch::Receiver<SpoolProgress>,
    offset: u64,
    next: Instant,
) -> Result<SpoolProgress, Status> {
    let gone = |_| Status::internal("the spool was closed before its end");
    let any = |p: &SpoolProgress| p.bytes > offset || p.sha256.is_some();
    let enough = |p: &SpoolProgress| p.bytes >= offset + BATCH_BYTES || p.sha256.is_some();
    progress.wait_for(any).await.map_err(gone)?;
    if Instant::now() < next
        && let Ok(closed) = timeout_at(next, progress.wait_for(enough)).await
    {
        closed.map_err(gone)?;
    }
    let there = progress.borrow_and_update().clone();
    Ok(there)
}

async fn read(path: &Path, offset: u64) -> Result<Vec<u8>, Status> {
    let path = path.to_owned();
    let data = tokio::task::spawn_blocking(move || Spool::read(&path, offset, proto::LOG_CHUNK_LIMIT)).await;
    let data = data.map_err(|error| Status::internal(error.to_string()))?;
    data.map_err(|error| Status::internal(format!("spool: {error}")))
}

async fn send_message(out: &mpsc::Sender<LogRequest>, message: log_request::Message) -> Result<(), Status> {
    let request = LogRequest { message: Some(message) };
    out.send(request).await.map_err(|_| Status::cancelled("the connection broke"))
}

async fn ack(acks: &mut Streaming<LogAck>) -> Result<LogAck, Status> {
    acks.message().await?.ok_or_else(|| Status::unavailable("the coordinator ended the stream"))
}
