//! What attempts upload, counted before it is written: bytes, objects and names, of each attempt and of each author.
//!
//! It is in memory: after a restart an attempt counts anew, and what it had not finished goes with the day's sweep.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

use super::{JobIdentity, LeaseCheck};

/// Objects that one attempt may write: blocks, chunks, whole uploads. Azure's clients make blocks of 8 MiB and more.
const OBJECTS: u32 = 20_000;
/// Bytes that an object takes, however few it has.
const OBJECT: u64 = 4096;
/// Uploads of one attempt that are not finished.
const UNFINISHED: usize = 500;

/// Files of artifacts that one attempt reads at a time: as many as `actions/download-artifact@v3` does.
const FILES: usize = 2;

/// Most bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct UploadLimits {
    /// Of all that one attempt writes.
    pub(super) of_attempt: u64,
    /// Of what all attempts of one author have not finished.
    pub(super) of_author: u64,
}

/// Why nothing more is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Exhausted {
    #[error("this job sent more bytes than one job may")]
    Bytes,
    #[error("this job sent more than {OBJECTS} blocks or files")]
    Objects,
    #[error("this job has {UNFINISHED} uploads that are not finished: finish them first")]
    Unfinished,
    #[error("the jobs of who asked for this run have too much in uploads that are not finished")]
    Author,
}

/// Accounts of the attempts that uploaded something and are not over. Clones share them.
#[derive(Clone)]
pub(super) struct UploadAccount(Arc<Mutex<Accounts>>, UploadLimits);

#[derive(Default)]
struct Accounts {
    attempts: HashMap<String, Attempt>,
    /// Bytes of unfinished uploads, by author.
    authors: HashMap<String, u64>,
}

struct Attempt {
    author: String,
    held: LeaseCheck,
    bytes: u64,
    objects: u32,
    /// Bytes of each upload that is not finished.
    unfinished: HashMap<String, u64>,
    /// One long answer at a time.
    answers: Arc<Semaphore>,
    /// Unpacked files that are sent at a time.
    files: Arc<Semaphore>,
}

impl UploadAccount {
    pub(super) fn new(limits: UploadLimits) -> Self {
        Self(Arc::default(), limits)
    }

    /// Counts an object of an upload before it is written.
    pub(super) fn begin(&self, identity: &JobIdentity, held: &LeaseCheck, upload: &str) -> Result<(), Exhausted> {
        {
            let mut accounts = self.0.lock();
            let attempt = accounts.attempt(identity, held);
            if attempt.objects >= OBJECTS {
                return Err(Exhausted::Objects);
            }
            if attempt.unfinished.len() >= UNFINISHED && !attempt.unfinished.contains_key(upload) {
                return Err(Exhausted::Unfinished);
            }
            attempt.objects += 1;
        }
        self.write(identity, held, upload, OBJECT)
    }

    /// Counts bytes of an upload before they are written.
    pub(super) fn write(
        &self,
        identity: &JobIdentity,
        held: &LeaseCheck,
        upload: &str,
        bytes: u64,
    ) -> Result<(), Exhausted> {
        let mut accounts = self.0.lock();
        let of_author = accounts.authors.get(&identity.author).copied().unwrap_or(0);
        let attempt = accounts.attempt(identity, held);
        attempt.bytes = attempt.bytes.saturating_add(bytes);
        // What objects take beside their bytes is not the client's to know: it counts where they are many.
        if attempt.bytes > self.1.of_attempt.saturating_add(u64::from(attempt.objects).saturating_mul(OBJECT)) {
            return Err(Exhausted::Bytes);
        }
        if of_author.saturating_add(bytes) > self.1.of_author {
            return Err(Exhausted::Author);
        }
        *attempt.unfinished.entry(upload.to_owned()).or_default() += bytes;
        *accounts.authors.entry(identity.author.clone()).or_default() += bytes;
        Ok(())
    }

    /// An upload is finished: what was kept of it counts elsewhere.
    pub(super) fn finish(&self, identity: &JobIdentity, upload: &str) {
        let mut accounts = self.0.lock();
        let bytes = accounts.attempts.get_mut(&identity.text()).and_then(|attempt| attempt.unfinished.remove(upload));
        accounts.give_back(&identity.author, bytes.unwrap_or(0));
    }

    /// The right to one long answer, of which an attempt has one at a time.
    pub(super) fn answers(&self, identity: &JobIdentity, held: &LeaseCheck) -> Arc<Semaphore> {
        self.0.lock().attempt(identity, held).answers.clone()
    }

    /// The rights to files of artifacts that are unpacked for the attempt.
    pub(super) fn files(&self, identity: &JobIdentity, held: &LeaseCheck) -> Arc<Semaphore> {
        self.0.lock().attempt(identity, held).files.clone()
    }

    /// Forgets attempts that are over. Returns them, and the uploads that they did not finish.
    pub(super) fn over(&self) -> (HashSet<String>, Vec<String>) {
        let mut accounts = self.0.lock();
        // Whoever asks whether an attempt is held takes a lock of his own.
        let over: Vec<(String, Attempt)> = accounts.attempts.extract_if(|_, attempt| !(attempt.held)()).collect();
        let (mut attempts, mut uploads) = (HashSet::new(), Vec::new());
        for (name, attempt) in over {
            accounts.give_back(&attempt.author, attempt.unfinished.values().sum());
            attempts.insert(name);
            uploads.extend(attempt.unfinished.into_keys());
        }
        (attempts, uploads)
    }
}

impl Accounts {
    fn attempt(&mut self, identity: &JobIdentity, held: &LeaseCheck) -> &mut Attempt {
        self.attempts.entry(identity.text()).or_insert_with(|| Attempt {
            author: identity.author.clone(),
            held: held.clone(),
            bytes: 0,
            objects: 0,
            unfinished: HashMap::new(),
            answers: Arc::new(Semaphore::new(1)),
            files: Arc::new(Semaphore::new(FILES)),
        })
    }

    fn give_back(&mut self, author: &str, bytes: u64) {
        if let Some(sum) = self.authors.get_mut(author) {
            *sum = sum.saturating_sub(bytes);
            if *sum == 0 {
                self.authors.remove(author);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn job(run: &str) -> JobIdentity {
        JobIdentity { run: run.into(), author: "author".into(), ..JobIdentity::default() }
    }

    fn held() -> LeaseCheck {
        Arc::new(|| true)
    }

    #[test]
    fn attack_45_objects_and_unfinished_uploads_of_an_attempt_have_a_number() {
        let account = UploadAccount::new(UploadLimits { of_attempt: u64::MAX / 2, of_author: u64::MAX });
        for number in 0..UNFINISHED {
            assert_eq!(account.begin(&job("r"), &held(), &number.to_string()), Ok(()));
        }
        assert_eq!(account.begin(&job("r"), &held(), "more"), Err(Exhausted::Unfinished));
        account.finish(&job("r"), "0");
        assert_eq!(account.begin(&job("r"), &held(), "more"), Ok(()));
        let rest = (0..).take_while(|_| account.begin(&job("r"), &held(), "more").is_ok()).count();
        assert_eq!(rest + UNFINISHED + 1, OBJECTS as usize);
        assert_eq!(account.begin(&job("other"), &held(), "more"), Ok(()));
    }

    #[test]
    fn attack_45_what_an_authors_jobs_did_not_finish_is_bounded_together_until_they_are_over() {
        let account = UploadAccount::new(UploadLimits { of_attempt: 1000, of_author: 1500 });
        let holds = Arc::new(AtomicBool::new(true));
        let shared = holds.clone();
        let first: LeaseCheck = Arc::new(move || shared.load(Ordering::Relaxed));
        assert_eq!(account.write(&job("one"), &first, "a", 1000), Ok(()));
        assert_eq!(account.write(&job("one"), &first, "a", 1), Err(Exhausted::Bytes));
        assert_eq!(account.write(&job("two"), &held(), "b", 501), Err(Exhausted::Author));
        assert_eq!(account.write(&job("two"), &held(), "b", 400), Ok(()));
        account.finish(&job("two"), "b");
        assert_eq!(account.over().1, Vec::<String>::new());
        holds.store(false, Ordering::Relaxed);
        assert_eq!(account.over().1, ["a"]);
        assert!(account.0.lock().authors.is_empty() && account.0.lock().attempts.len() == 1);
    }
}
