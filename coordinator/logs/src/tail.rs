//! Following a run's logs: reads from the files, waits until one of them grew.

use std::{
    io::{ErrorKind, SeekFrom},
    ops::Bound,
    path::{Path, PathBuf},
};

use anyhow::Context;
use bytes::Bytes;
use tokio::{
    fs,
    io::{AsyncReadExt, AsyncSeekExt},
};

use domain::id::JobKey;

use super::{
    growth::{Attempt, Follower, Lengths},
    name, record,
};

/// Bytes read at once. A record that is longer is read whole.
pub(super) const PIECE: u64 = 256 * 1024;

/// Job key and attempt, with the bytes already read of it. Text form: `Last-Event-ID` of the live log.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions(Lengths);

impl Positions {
    /// Reads what `to_string` wrote; any other text stands for the beginning.
    pub fn parse(text: &str) -> Self {
        let entry = |entry: &str| {
            let mut parts = entry.split('.');
            let job = name::unescape(parts.next()?)?.into();
            Some(((job, parts.next()?.parse().ok()?), parts.next()?.parse().ok()?))
        };
        Self(text.split(',').filter_map(entry).collect())
    }

    /// The ends of these logs.
    pub fn behind(attempts: Vec<(JobKey, u32, u64)>) -> Self {
        Self(attempts.into_iter().map(|(job, attempt, length)| ((job, attempt), length)).collect())
    }
}

impl std::fmt::Display for Positions {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, ((job, attempt), offset)) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(formatter, "{comma}{}.{attempt}.{offset}", name::escape(job.as_str()))?;
        }
        Ok(())
    }
}

/// Whole records of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    /// Job key.
    pub job: JobKey,
    /// From 1.
    pub attempt: u32,
    /// Where it begins.
    pub offset: u64,
    /// Encoded records, none cut.
    pub bytes: Bytes,
}

/// A reader of one run's logs.
#[derive(Debug)]
pub struct Tail {
    folder: PathBuf,
    positions: Positions,
    growth: Follower,
    /// Bytes known to be there; `None`: the folder was not listed yet.
    lengths: Option<Lengths>,
    /// The attempt of the last piece. The next piece is of another one, if possible: an attempt that prints without end
    /// must not delay the others.
    last: Attempt,
}

impl Tail {
    pub(super) fn new(folder: PathBuf, positions: Positions, growth: Follower) -> Self {
        Self { folder, positions, growth, lengths: None, last: Attempt::default() }
    }

    /// How far it has read.
    pub fn positions(&self) -> &Positions {
        &self.positions
    }

    /// The next piece that is there; `None`: nothing new now.
    pub async fn read(&mut self) -> anyhow::Result<Option<Piece>> {
        let mut lengths = match self.lengths.take() {
            Some(lengths) => lengths,
            // Later appends are announced by `growth`, so the folder is listed once.
            None => listed(self.folder.clone()).await?,
        };
        self.growth.update(&mut lengths);
        let piece = self.next(&lengths).await;
        self.lengths = Some(lengths);
        piece
    }

    async fn next(&mut self, lengths: &Lengths) -> anyhow::Result<Option<Piece>> {
        let behind = lengths.range((Bound::Excluded(&self.last), Bound::Unbounded));
        for (attempt, &length) in behind.chain(lengths.range(..=&self.last)) {
            let offset = self.positions.0.get(attempt).copied().unwrap_or(0);
            if offset >= length {
                continue;
            }
            let (job, number) = attempt;
            let path = self.folder.join(name::escape(job.as_str())).join(number.to_string());
            let bytes = whole_records(&path, offset, length).await?;
            if !bytes.is_empty() {
                self.positions.0.insert(attempt.clone(), offset + bytes.len() as u64);
                self.last.clone_from(attempt);
                return Ok(Some(Piece { job: job.clone(), attempt: *number, offset, bytes }));
            }
        }
        Ok(None)
    }

    /// Waits until there may be more.
    pub async fn wait(&mut self) {
        self.growth.changed().await;
    }
}

async fn listed(folder: PathBuf) -> anyhow::Result<Lengths> {
    Ok(attempts(folder).await?.into_iter().map(|(job, attempt, length)| ((job, attempt), length)).collect())
}

/// The whole records from `offset` on that fit one piece, at least one if there is one; none behind `end`.
pub(super) async fn whole_records(path: &Path, offset: u64, end: u64) -> anyhow::Result<Bytes> {
    let explained = || format!("can't read the log {}", path.display());
    let mut file = match fs::File::open(path).await {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Bytes::new()),
        Err(error) => return Err(error).with_context(explained),
    };
    let mut size = PIECE;
    loop {
        let asked = size.min(end - offset);
        let mut bytes = Vec::new();
        file.seek(SeekFrom::Start(offset)).await.with_context(explained)?;
        (&mut file).take(asked).read_to_end(&mut bytes).await.with_context(explained)?;
        let taken = record::decode(&bytes).taken;
        if taken > 0 || asked == end - offset || (bytes.len() as u64) < asked {
            bytes.truncate(taken);
            return Ok(bytes.into());
        }
        size *= 4;
    }
}

/// Job key, attempt and bytes of each log in a run's folder, by job and attempt.
pub(super) async fn attempts(folder: PathBuf) -> anyhow::Result<Vec<(JobKey, u32, u64)>> {
    let shown = folder.display().to_string();
    let listing = tokio::task::spawn_blocking(move || list(&folder)).await.context("the log's thread ended")?;
    listing.with_context(|| format!("can't list the logs in {shown}"))
}

fn list(folder: &Path) -> std::io::Result<Vec<(JobKey, u32, u64)>> {
    let mut found = Vec::new();
    for job in entries(folder)? {
        let Some(key) = job.file_name().to_str().and_then(name::unescape).map(JobKey::from) else { continue };
        for attempt in entries(&job.path())? {
            let number = attempt.file_name().to_str().and_then(|name| name.parse().ok());
            if let (Some(number), Ok(metadata)) = (number, attempt.metadata()) {
                found.push((key.clone(), number, metadata.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn entries(folder: &Path) -> std::io::Result<Vec<std::fs::DirEntry>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => entries.collect(),
        // Nothing was printed yet, or the run was removed meanwhile.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}
