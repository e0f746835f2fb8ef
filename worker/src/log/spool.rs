//! Where a job's records go on this machine: a file that outlives the worker, or whatever a caller does with each one.

use std::{
    fs::File,
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::watch;

use super::{LogSink, Record};

/// Largest record that is read back, in bytes; the console cuts text far below it.
const RECORD_LIMIT: u64 = 1 << 20;

/// The file of a job's log and how far it is, whichever process writes it.
#[derive(Debug, Clone)]
pub struct SpoolFile {
    path: PathBuf,
    progress: watch::Sender<SpoolProgress>,
}

impl SpoolFile {
    /// A file that may not be there yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), progress: watch::Sender::new(SpoolProgress::default()) }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Tells how far the file is, each time it grows.
    pub fn progress(&self) -> watch::Receiver<SpoolProgress> {
        self.progress.subscribe()
    }

    /// Whether nothing more comes.
    pub fn is_finished(&self) -> bool {
        self.progress.borrow().sha256.is_some()
    }

    /// Another process wrote so far. It never shrinks, and an end is final.
    pub(crate) fn advance(&self, to: SpoolProgress) {
        self.progress.send_if_modified(|progress| {
            let further = progress.sha256.is_none() && to.bytes >= progress.bytes && *progress != to;
            if further {
                *progress = to;
            }
            further
        });
    }

    /// Opens it for writing, made where it is missing. After a crash it goes on behind the last whole record.
    pub fn open(&self) -> io::Result<Spool> {
        let mut file = File::options().read(true).write(true).create(true).truncate(false).open(&self.path)?;
        let mut hash = Sha256::new();
        let bytes = whole_records(&file, &mut hash)?;
        file.set_len(bytes)?;
        file.seek(SeekFrom::Start(bytes))?;
        self.progress.send_modify(|progress| *progress = SpoolProgress { bytes, sha256: None });
        Ok(Spool { file: Arc::new(Mutex::new(Written { file, hash, bytes })), progress: self.progress.clone() })
    }
}

/// Writes a file of length-delimited records: what a worker keeps until the coordinator has stored it.
pub struct Spool {
    file: Arc<Mutex<Written>>,
    progress: watch::Sender<SpoolProgress>,
}

/// How far a spool is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SpoolProgress {
    /// Bytes that can be read.
    pub bytes: u64,
    /// SHA-256 of everything; set once nothing more comes.
    pub sha256: Option<Bytes>,
}

struct Written {
    file: File,
    hash: Sha256,
    bytes: u64,
}

impl Spool {
    /// At most `limit` bytes from `offset` on; blocks on the disk.
    pub fn read(path: &Path, offset: u64, limit: usize) -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        let mut data = Vec::new();
        file.take(limit as u64).read_to_end(&mut data)?;
        Ok(data)
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Written) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || work(&mut file.lock())).await.map_err(io::Error::other)?
    }
}

impl LogSink for Spool {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, io::Result<()>> {
        async move {
            let data = encode(&records);
            let bytes = self
                .blocking(move |written| {
                    written.file.write_all(&data)?;
                    written.hash.update(&data);
                    written.bytes += data.len() as u64;
                    Ok(written.bytes)
                })
                .await?;
            self.progress.send_modify(|progress| progress.bytes = bytes);
            Ok(())
        }
        .boxed()
    }

    fn finish(&self) -> BoxFuture<'_, io::Result<(u64, Bytes)>> {
        let (bytes, sha256) = {
            let written = self.file.lock();
            (written.bytes, Bytes::copy_from_slice(&written.hash.clone().finalize()))
        };
        self.progress.send_modify(|progress| *progress = SpoolProgress { bytes, sha256: Some(sha256.clone()) });
        futures::future::ready(Ok((bytes, sha256))).boxed()
    }
}

/// Gives each record to a function: the terminal of `longshore exec`, or a test.
pub struct RecordCallback<F> {
    take: F,
    state: Mutex<(Sha256, u64)>,
}

impl<F: Fn(Record) + Send + Sync> RecordCallback<F> {
    /// Calls `take` with every record, in order.
    pub fn new(take: F) -> Self {
        Self { take, state: Mutex::new((Sha256::new(), 0)) }
    }
}

impl<F: Fn(Record) + Send + Sync> LogSink for RecordCallback<F> {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'_, io::Result<()>> {
        let data = encode(&records);
        {
            let mut state = self.state.lock();
            state.0.update(&data);
            state.1 += data.len() as u64;
        }
        records.into_iter().for_each(&self.take);
        futures::future::ready(Ok(())).boxed()
    }

    fn finish(&self) -> BoxFuture<'_, io::Result<(u64, Bytes)>> {
        let state = self.state.lock();
        let end = (state.1, Bytes::copy_from_slice(&state.0.clone().finalize()));
        futures::future::ready(Ok(end)).boxed()
    }
}

fn encode(records: &[Record]) -> Vec<u8> {
    let sizes = records.iter().map(Record::encoded_len);
    let mut data = Vec::with_capacity(sizes.map(|size| size + prost::length_delimiter_len(size)).sum());
    for record in records {
        // Fails only where there is no room, and a vector grows.
        let _ = record.encode_length_delimited(&mut data);
    }
    data
}

/// Hashes the whole records of a file and returns their length.
fn whole_records(file: &File, hash: &mut Sha256) -> io::Result<u64> {
    let mut reader = BufReader::new(file);
    let mut good = 0;
    let mut record = Vec::new();
    loop {
        record.clear();
        let mut length = 0_u64;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            if reader.read(&mut byte)? == 0 {
                return Ok(good);
            }
            record.push(byte[0]);
            length |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let head = record.len();
        if length > RECORD_LIMIT {
            return Ok(good);
        }
        (&mut reader).take(length).read_to_end(&mut record)?;
        if (record.len() - head) as u64 != length {
            return Ok(good);
        }
        hash.update(&record);
        good += record.len() as u64;
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    fn record(text: &str) -> Record {
        Record { text: Bytes::copy_from_slice(text.as_bytes()), ..Record::default() }
    }

    #[tokio::test]
    async fn a_spool_goes_on_behind_its_last_whole_record() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let log = SpoolFile::new(&path);
        let spool = log.open().unwrap();
        spool.append(vec![record("one\n"), record("two\n")]).await.unwrap();
        let whole = log.progress().borrow().bytes;
        drop(spool);
        File::options().append(true).open(&path).unwrap().write_all(&[40, 1, 2]).unwrap();

        let log = SpoolFile::new(&path);
        let spool = log.open().unwrap();
        assert_eq!(log.progress().borrow().bytes, whole);
        spool.append(vec![record("three\n")]).await.unwrap();
        let (bytes, sha256) = spool.finish().await.unwrap();
        let data = Spool::read(&path, 0, usize::MAX).unwrap();
        assert_eq!(bytes, data.len() as u64);
        assert_eq!(sha256, Sha256::digest(&data).as_slice());
        let mut rest = data.as_slice();
        let mut texts = Vec::new();
        while !rest.is_empty() {
            texts.push(Record::decode_length_delimited(&mut rest).unwrap().text);
        }
        assert_eq!(texts, ["one\n", "two\n", "three\n"]);
    }
}
