//! Logs of jobs: one append-only file for each attempt, followed live, and rendered as text.
//!
//! The file `data/logs/<run>/<job>/<attempt>` holds length-delimited `LogRecord` messages (worker.proto). Readers read the
//! file and are woken when it grew, so a slow reader delays neither the writer nor other readers.

pub mod act_format;
pub mod concurrent;
mod control_sequences;
mod full_text;
mod growth;
pub mod line_text;
pub mod lines;
mod name;
mod open_segments;
mod plain_text;
pub mod record;
mod segment;
mod steps;
mod tail;

use domain::id::{JobKey, RunId};

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::Context;
use bytes::Bytes;

pub use control_sequences::strip_control_sequences;
use growth::Followed;
use open_segments::OpenSegments;
use segment::Segment;
pub use tail::{Piece, Positions, Tail};

/// The logs of all runs. Clones share them.
#[derive(Debug, Clone)]
pub struct Logs {
    folder: PathBuf,
    open: Arc<OpenSegments>,
    followed: Followed,
}

/// Run id, job key and attempt.
type Key = (RunId, JobKey, u32);

impl Logs {
    /// Logs below `folder`, which is created with the first log.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into(), open: Arc::new(OpenSegments::new(Instant::now())), followed: Followed::default() }
    }

    /// Opens an attempt's log for appending; returns its length in bytes.
    pub async fn open(&self, run: &RunId, job: &JobKey, attempt: u32) -> anyhow::Result<u64> {
        let length = self.with(run, job, attempt, |segment| Ok(segment.length())).await?;
        self.followed.grew(run, job, attempt, length);
        Ok(length)
    }

    /// Appends at an offset; a repeated range is skipped, a gap is an error. Returns the new length.
    pub async fn append(
        &self,
        run: &RunId,
        job: &JobKey,
        attempt: u32,
        offset: u64,
        data: Bytes,
    ) -> anyhow::Result<u64> {
        let length = self.with(run, job, attempt, move |segment| segment.append(offset, &data)).await?;
        self.followed.grew(run, job, attempt, length);
        Ok(length)
    }

    /// Everything appended so far survives a crash after this returns. Returns its length in bytes.
    pub async fn sync(&self, run: &RunId, job: &JobKey, attempt: u32) -> anyhow::Result<u64> {
        let written = self.with(run, job, attempt, Segment::written).await?;
        if let Some(length) = written.durable() {
            return Ok(length);
        }
        tokio::task::spawn_blocking(move || written.sync()).await.context("the log's thread ended")?
    }

    /// The log is complete: checks total and SHA-256, and puts the file on the disk.
    pub async fn close(
        &self,
        run: &RunId,
        job: &JobKey,
        attempt: u32,
        total: u64,
        sha256: &[u8],
    ) -> anyhow::Result<()> {
        let expected = sha256.to_vec();
        self.with(run, job, attempt, move |segment| segment.close(total, &expected)).await?;
        self.open.close(&(run.clone(), job.clone(), attempt));
        // A short log has no index.
        if total < tail::PIECE / 2 {
            return Ok(());
        }
        let path = self.path(run, job, attempt)?;
        // Not awaited: a reader of lines builds the index where it is missing.
        tokio::spawn(async move {
            if let Err(error) = lines::update_index(&path).await {
                tracing::debug!("the lines of {} are not indexed: {error:#}", path.display());
            }
        });
        Ok(())
    }

    /// Logs that are open for writing.
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Runs whose logs are followed.
    pub fn followed_count(&self) -> usize {
        self.followed.len()
    }

    /// Follows the logs of a run from `from` on.
    pub fn tail(&self, run: &RunId, from: Positions) -> Tail {
        let folder = self.folder.join(name::escape(run.as_str()));
        Tail::new(folder, from, self.followed.follow(run))
    }

    /// The attempts of a run that have a log: job key, number and bytes.
    pub async fn attempts(&self, run: &RunId) -> anyhow::Result<Vec<(JobKey, u32, u64)>> {
        tail::attempts(self.folder.join(name::escape(run.as_str()))).await
    }

    /// Passes the records of one attempt to `take`, piece by piece.
    pub async fn each(
        &self,
        run: &RunId,
        job: &JobKey,
        attempt: u32,
        mut take: impl FnMut(&[proto::worker::LogRecord]),
    ) -> anyhow::Result<()> {
        let path = self.path(run, job, attempt)?;
        let mut offset = 0;
        loop {
            let piece = tail::whole_records(&path, offset, u64::MAX).await?;
            if piece.is_empty() {
                return Ok(());
            }
            take(&record::decode(&piece).records);
            offset += piece.len() as u64;
        }
    }

    /// Runs that have logs, and the folder of each.
    pub fn folders(&self) -> Vec<(RunId, PathBuf)> {
        let entries = std::fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let run = |entry: std::fs::DirEntry| Some((name::unescape(entry.file_name().to_str()?)?.into(), entry.path()));
        entries.filter_map(run).collect()
    }

    /// Removes the logs of a run, for good.
    pub async fn remove(&self, run: &RunId) -> anyhow::Result<()> {
        self.open.close_run(run);
        let folder = self.folder.join(name::escape(run.as_str()));
        match tokio::fs::remove_dir_all(&folder).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("can't remove the logs in {}", folder.display()))
            }
            _ => Ok(()),
        }
    }

    /// Works with an open segment on a thread that may block.
    async fn with<T: Send + 'static>(
        &self,
        run: &RunId,
        job: &JobKey,
        attempt: u32,
        work: impl FnOnce(&mut Segment) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let key = (run.clone(), job.clone(), attempt);
        let path = self.path(run, job, attempt)?;
        let open = Arc::clone(&self.open);
        tokio::task::spawn_blocking(move || work(&mut open.get(key, &path, Instant::now())?.lock()))
            .await
            .context("the log's thread ended")?
    }

    fn path(&self, run: &RunId, job: &JobKey, attempt: u32) -> anyhow::Result<PathBuf> {
        Ok(name::path(&self.folder, run, job)?.join(attempt.to_string()))
    }
}

/// Makes new entries of a folder survive a crash.
fn sync_folder(folder: &Path) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests;
