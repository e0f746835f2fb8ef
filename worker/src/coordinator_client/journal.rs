//! Remembers on disk which attempts this worker has, and results that nobody has taken yet.

use std::{
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use proto::worker::{Attempt, Result as Report};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tracing::warn;

/// One attempt in the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct JournalEntry {
    run: String,
    job: String,
    attempt: u32,
    /// For the bulk service.
    pub(super) token: String,
    /// Set once its processes are gone.
    ended: Option<End>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct End {
    /// `JobReport` as JSON text.
    report: String,
    log_bytes: u64,
    log_sha256: String,
}

impl JournalEntry {
    pub(super) fn new(attempt: &Attempt, token: &str) -> Self {
        let Attempt { run, job, attempt } = attempt.clone();
        Self { run, job, attempt, token: token.to_owned(), ended: None }
    }

    pub(super) fn attempt(&self) -> Attempt {
        Attempt { run: self.run.clone(), job: self.job.clone(), attempt: self.attempt }
    }

    pub(super) fn end(&mut self, report: &Report) {
        self.ended = Some(End {
            report: String::from_utf8_lossy(&report.report).into_owned(),
            log_bytes: report.log_bytes,
            log_sha256: hex::encode(&report.log_sha256),
        });
    }

    /// The result, where there is one.
    pub(super) fn report(&self) -> Option<Report> {
        let end = self.ended.as_ref()?;
        Some(Report {
            attempt: Some(self.attempt()),
            report: end.report.clone().into(),
            log_bytes: end.log_bytes,
            log_sha256: hex::decode(&end.log_sha256).ok()?.into(),
        })
    }
}

/// Folders of journal entries and spools.
pub(super) struct Journal {
    entries: PathBuf,
    spools: PathBuf,
}

impl Journal {
    pub(super) fn open(data: &Path) -> io::Result<Self> {
        let (entries, spools) = (data.join("journal"), data.join("spool"));
        for folder in [&entries, &spools] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        Ok(Self { entries, spools })
    }

    /// Where the log of an attempt is kept until it is stored elsewhere.
    pub(super) fn spool(&self, attempt: &Attempt) -> PathBuf {
        self.spools.join(name(attempt))
    }

    /// Stores an entry; it survives a crash after this.
    pub(super) fn write(&self, entry: &JournalEntry) -> io::Result<()> {
        let path = self.entries.join(name(&entry.attempt()));
        let fresh = path.with_extension("new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&fresh)?;
        file.write_all(&serde_json::to_vec(entry)?)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(&self.entries)?.sync_all()
    }

    /// Forgets an attempt and its spool.
    pub(super) fn remove(&self, attempt: &Attempt) {
        for path in [self.entries.join(name(attempt)), self.spool(attempt)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                warn!(path = %path.display(), %error, "could not be removed");
            }
        }
    }

    /// What an earlier life left. Entries that can't be read are told of and left out.
    pub(super) fn entries(&self) -> io::Result<Vec<JournalEntry>> {
        let mut entries = Vec::new();
        for file in fs::read_dir(&self.entries)? {
            let path = file?.path();
            if path.extension().is_some() {
                fs::remove_file(&path)?;
                continue;
            }
            match fs::read(&path).map_err(anyhow::Error::from).and_then(|d| Ok(serde_json::from_slice(&d)?)) {
                Ok(entry) => entries.push(entry),
                Err(error) => warn!(path = %path.display(), %error, "an entry of the journal can't be read"),
            }
        }
        Ok(entries)
    }
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

    #[test]
    fn entries_come_back_until_they_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let attempt = Attempt { run: "r".into(), job: "a/../b".into(), attempt: 2 };
        let journal = Journal::open(folder.path()).unwrap();
        let mut entry = JournalEntry::new(&attempt, "token");
        journal.write(&entry).unwrap();
        let report =
            Report { attempt: Some(attempt.clone()), report: "{}".into(), log_bytes: 3, log_sha256: vec![1, 2].into() };
        entry.end(&report);
        journal.write(&entry).unwrap();

        let journal = Journal::open(folder.path()).unwrap();
        let entries = journal.entries().unwrap();
        assert_eq!(entries, [entry]);
        assert_eq!(entries[0].report(), Some(report));
        journal.remove(&attempt);
        assert!(journal.entries().unwrap().is_empty());
    }

    #[test]
    fn what_was_half_written_is_as_if_it_never_was() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path()).unwrap();
        fs::write(folder.path().join("journal/abc.new"), "{").unwrap();
        fs::write(folder.path().join("journal/def"), "{").unwrap();
        assert!(journal.entries().unwrap().is_empty());
    }
}
