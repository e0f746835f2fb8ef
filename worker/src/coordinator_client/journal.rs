//! Remembers on disk which attempts this worker has, and results that nobody has taken yet.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use bytes::Bytes;
use proto::worker::{Attempt, Result as Report};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};
use tracing::warn;

use crate::log::spool::SpoolFile;

/// Bytes of an entry on their way to its file.
const BUFFER: usize = 16 << 10;

/// One attempt in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct JournalEntry {
    run: String,
    job: String,
    attempt: u32,
    /// For the bulk service.
    pub(super) token: String,
    /// `JobReport` as JSON text; set once its processes are gone. One may have megabytes: it is shared with its message.
    #[serde(serialize_with = "write_text", deserialize_with = "read_text")]
    report: Option<Bytes>,
}

fn write_text<S: Serializer>(text: &Option<Bytes>, serializer: S) -> Result<S::Ok, S::Error> {
    text.as_deref().map(String::from_utf8_lossy).serialize(serializer)
}

fn read_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    Ok(Option::<String>::deserialize(deserializer)?.map(Bytes::from))
}

impl JournalEntry {
    pub(super) fn new(attempt: &Attempt, token: &str) -> Self {
        let Attempt { run, job, attempt } = attempt.clone();
        Self { run, job, attempt, token: token.to_owned(), report: None }
    }

    pub(super) fn attempt(&self) -> Attempt {
        Attempt { run: self.run.clone(), job: self.job.clone(), attempt: self.attempt }
    }

    pub(super) fn end(&mut self, report: &Report) {
        self.report = Some(report.report.clone());
    }

    /// The result, where there is one.
    pub(super) fn report(&self) -> Option<Report> {
        let report = self.report.clone()?;
        Some(Report { attempt: Some(self.attempt()), report })
    }
}

/// Folders of journal entries and spools. Every method leaves the disk to a thread that may block.
#[derive(Debug, Clone)]
pub(super) struct Journal(Arc<Folders>);

#[derive(Debug)]
struct Folders {
    entries: PathBuf,
    spools: PathBuf,
}

impl Journal {
    /// Makes the folders where they are missing.
    pub(super) fn open(data: &Path) -> io::Result<Self> {
        let (entries, spools) = (data.join("journal"), data.join("spool"));
        for folder in [&entries, &spools] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        Ok(Self(Arc::new(Folders { entries, spools })))
    }

    /// Notes a new attempt; says where its log goes. The entry may be lost with the machine's power: so is the attempt.
    pub(super) async fn begin(&self, entry: JournalEntry) -> io::Result<SpoolFile> {
        self.blocking(move |folders| {
            folders.begin(&entry)?;
            Ok(SpoolFile::new(folders.spool(&entry.attempt())))
        })
        .await
    }

    /// Stores the end of an attempt; it survives a crash after this.
    pub(super) async fn complete(&self, entry: JournalEntry) -> io::Result<()> {
        self.blocking(move |folders| folders.complete(&entry)).await
    }

    /// The log of an attempt that ended before this start, with what is in it.
    pub(super) async fn reopen(&self, attempt: &Attempt) -> io::Result<SpoolFile> {
        let attempt = attempt.clone();
        self.blocking(move |folders| {
            let log = SpoolFile::new(folders.spool(&attempt));
            log.open()?;
            Ok(log)
        })
        .await
    }

    /// Forgets an attempt and its spool.
    pub(super) async fn remove(&self, attempt: &Attempt) {
        let name = name(attempt);
        let removed = self.blocking(move |folders| {
            folders.remove(&name);
            Ok(())
        });
        if let Err(error) = removed.await {
            warn!(%error, "an attempt was not removed from the journal");
        }
    }

    /// Entries of before this start. Files that can't be read, and spools without an entry, are removed.
    pub(super) async fn entries(&self) -> io::Result<Vec<JournalEntry>> {
        self.blocking(Folders::entries).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Folders) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let folders = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || work(&folders)).await.map_err(io::Error::other)?
    }
}

impl Folders {
    fn spool(&self, attempt: &Attempt) -> PathBuf {
        self.spools.join(name(attempt))
    }

    fn begin(&self, entry: &JournalEntry) -> io::Result<()> {
        let file = File::options().write(true).create(true).truncate(true).mode(0o600).open(self.entry(entry))?;
        write_line(entry, &file)
    }

    /// Adds the end to the file: what is cut off by a crash leaves the line before it.
    fn complete(&self, entry: &JournalEntry) -> io::Result<()> {
        let file = File::options().append(true).create(true).mode(0o600).open(self.entry(entry))?;
        write_line(entry, &file)?;
        file.sync_all()?;
        File::open(&self.entries)?.sync_all()
    }

    fn entry(&self, entry: &JournalEntry) -> PathBuf {
        self.entries.join(name(&entry.attempt()))
    }

    fn remove(&self, name: &str) {
        for path in [self.entries.join(name), self.spools.join(name)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!(path = %path.display(), %error, "could not be removed");
            }
        }
    }

    fn entries(&self) -> io::Result<Vec<JournalEntry>> {
        let mut entries: BTreeMap<String, JournalEntry> = BTreeMap::new();
        for file in fs::read_dir(&self.entries)? {
            let file = file?;
            let name = file.file_name().to_string_lossy().into_owned();
            if name.contains('.') {
                fs::remove_file(file.path())?;
                continue;
            }
            match fs::read(file.path()).map_err(anyhow::Error::from).and_then(|data| last(&data)) {
                Ok(entry) => _ = entries.insert(name, entry),
                Err(error) => {
                    warn!(entry = name, %error, "an entry of the journal can't be read; its attempt is lost");
                    self.remove(&name);
                }
            }
        }
        for file in fs::read_dir(&self.spools)? {
            let name = file?.file_name().to_string_lossy().into_owned();
            if !entries.contains_key(&name) {
                self.remove(&name);
            }
        }
        Ok(entries.into_values().collect())
    }
}

/// Writes a state of an entry behind those before it, of which the last may be cut off.
fn write_line(entry: &JournalEntry, file: &File) -> io::Result<()> {
    let mut line = BufWriter::with_capacity(BUFFER, file);
    line.write_all(b"\n")?;
    serde_json::to_writer(&mut line, entry)?;
    line.flush()
}

/// The last state of an entry that was written whole.
fn last(data: &[u8]) -> anyhow::Result<JournalEntry> {
    let mut states = data.split(|byte| *byte == b'\n').rev();
    states.find_map(|state| serde_json::from_slice(state).ok()).context("no state of it was written whole")
}

/// Names of jobs are anything; the file's is its hash.
fn name(attempt: &Attempt) -> String {
    let text = format!("{}\0{}\0{}", attempt.run, attempt.job, attempt.attempt);
    hex::encode(Sha256::digest(text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn attempt() -> Attempt {
        Attempt { run: "r".into(), job: "a/../b".into(), attempt: 2 }
    }

    #[tokio::test]
    async fn entries_come_back_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let mut entry = JournalEntry::new(&attempt(), "token");
        journal.begin(entry.clone()).await.unwrap();
        let report = Report { attempt: Some(attempt()), report: "{}".into() };
        entry.end(&report);
        journal.complete(entry.clone()).await.unwrap();

        let journal = Journal::open(folder.path()).unwrap();
        let entries = journal.entries().await.unwrap();
        assert_eq!(entries, [entry]);
        assert_eq!(entries[0].report(), Some(report));
        journal.remove(&attempt()).await;
        assert!(journal.entries().await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn an_end_that_was_half_written_leaves_the_attempt_without_one() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        let entry = JournalEntry::new(&attempt(), "token");
        journal.begin(entry.clone()).await.unwrap();
        let mut file = File::options().append(true).open(journal.0.entry(&entry)).unwrap();
        file.write_all(b"\n{\"run\":\"r\",\"rep").unwrap();
        assert_eq!(journal.entries().await.unwrap(), std::slice::from_ref(&entry));
        // A full disk cuts a line off as well, and the end is written again.
        let ended = JournalEntry { token: "again".into(), ..entry };
        journal.complete(ended.clone()).await.unwrap();
        assert_eq!(journal.entries().await.unwrap(), [ended]);
    }

    #[tokio::test]
    async fn what_was_half_written_is_as_if_it_never_was_and_takes_no_room() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        for (path, text) in [("journal/abc.new", "{"), ("journal/def", "{"), ("spool/def", "x"), ("spool/ghi", "x")] {
            fs::write(folder.path().join(path), text).unwrap();
        }
        assert!(journal.entries().await.unwrap().is_empty());
        for part in ["journal", "spool"] {
            assert_eq!(fs::read_dir(folder.path().join(part)).unwrap().count(), 0, "{part}");
        }
    }

    /// A pipe stands for a disk that answers late: nothing can be read from it before something is written.
    #[test]
    fn a_slow_disk_holds_up_no_other_task() {
        let (done, finished) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let reopened = runtime.block_on(async {
                let folder = tempfile::tempdir().unwrap();
                let journal = Journal::open(folder.path()).unwrap();
                let pipe = journal.0.spool(&attempt());
                std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
                let reopening = tokio::spawn(async move { journal.reopen(&attempt()).await.map(drop) });
                // Another task goes on: only it ends the wait, with the head of a record that is too long.
                tokio::spawn(async move {
                    // Held until then: what is in a pipe that nobody holds is lost.
                    let mut pipe = File::options().read(true).write(true).open(pipe).unwrap();
                    pipe.write_all(&[0xff; 10]).unwrap();
                    reopening.await.unwrap()
                })
                .await
                .unwrap()
            });
            done.send(reopened.is_err()).unwrap();
        });
        let failed = finished.recv_timeout(std::time::Duration::from_secs(20));
        assert_eq!(failed, Ok(true), "a pipe is no spool, and the runtime was not held up");
    }
}
