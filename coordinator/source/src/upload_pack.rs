//! Serves a repository to git, read-only, with the refs that one job may see (git's smart HTTP protocol).
//!
//! A mirror holds more than its repository's branches: commits that were pushed to others, or asked for once. So git is
//! given a repository of its own for each request, which borrows the mirror's objects and has these refs alone: what they
//! do not reach cannot be asked for.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, OnceLock},
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdout, Command},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

use super::git::{bare_git, confine};

/// What git reads and writes.
pub type ByteStream = BoxStream<'static, io::Result<Bytes>>;

/// Processes of all jobs: each may take the memory that [`confine`] leaves it.
const PROCESSES: usize = 8;
/// Processes of all jobs of one author.
const OF_AUTHOR: usize = 4;
/// Processes of one job: `git fetch` has one at a time.
const OF_JOB: usize = 2;
/// Longest answer, in time. The objects of a repository are read from the disk, and a job may read them slowly.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Longest that a job may take to read one piece of an answer, or to send its request.
const STALL: Duration = Duration::from_secs(30);
/// Pieces that a job may be behind.
const BEHIND: usize = 4;
/// Longest request, in bytes: what git wants, and what it has.
const REQUEST: usize = 16 << 20;
/// Longest head of an answer, in bytes.
const HEAD: usize = 16 << 10;
/// Bytes of one piece of an answer.
const PIECE: usize = 256 << 10;
/// Longest look-up.
const READING: Duration = Duration::from_secs(30);
/// Bytes that a look-up may print.
const PRINTED: u64 = 8 << 20;
/// Bytes of a file that such a process may write; it writes none.
const FILE: u64 = 1 << 20;
/// Name of the repository in its folder.
const SERVED: &str = "r.git";
/// Where commits stand that may be asked for by their ids and are not listed.
const HIDDEN: &str = "refs/longshore/";

/// A repository and what of it is served.
#[derive(Debug, Clone)]
pub struct ServedRepository {
    /// Its folder of git: bare, or `.git`.
    pub path: PathBuf,
    /// Names and objects.
    pub refs: Vec<(String, String)>,
    /// Full name of the default branch; empty: it has none.
    pub head: String,
    /// A commit that may be asked for whatever the refs hold.
    pub commit: String,
}

/// One request of git.
pub struct UploadPackRequest {
    /// What the repository has is asked for (`info/refs`); else objects of it.
    pub is_advertisement: bool,
    /// Header `Git-Protocol`.
    pub protocol: String,
    /// Header `Content-Encoding`.
    pub encoding: String,
    /// What git sends.
    pub body: ByteStream,
}

/// Who asks. The processes of one job, and those of all jobs of its author, are limited.
#[derive(Debug, Clone, Copy)]
pub struct Requester<'a> {
    /// The job, by a name that no other has.
    pub job: &'a str,
    /// Who asked for its run.
    pub author: &'a str,
}

/// Who has permits of their own.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Holder {
    Job(String),
    Author(String),
}

/// Answers one request. A job that reads less than a piece in 30 seconds gets no more: others may wait for its process.
///
/// # Errors
/// Why it is not answered, for who asked.
pub async fn serve(
    repository: &ServedRepository,
    who: Requester<'_>,
    request: UploadPackRequest,
) -> Result<ByteStream, String> {
    let permits = acquire_process(who).await?;
    let folder = repository_folder(repository).await?;
    let mut git = RunningGit(start(folder.path(), &request)?);
    confine(&git.0, FILE);
    let deadline = Instant::now() + LIMIT;
    let (input, output) = (git.0.stdin.take(), git.0.stdout.take());
    let mut output = output.ok_or("git has no output")?;
    let writing = tokio::spawn(async move {
        let Some(mut input) = input else { return };
        let mut body = request.body;
        let mut left = REQUEST;
        // A process that ends reads no more, and one whose input ends too early ends: it says why.
        while let Ok(Some(Ok(piece))) = timeout(STALL, body.next()).await {
            let Some(rest) = left.checked_sub(piece.len()) else { return };
            left = rest;
            if input.write_all(&piece).await.is_err() {
                return;
            }
        }
    });
    let writing = AbortOnDropHandle::new(writing);
    let begun = timeout_at(deadline, head(&mut output)).await.map_err(|_| "git took too long".to_owned())?;
    let begun = begun.map_err(|error| format!("git said nothing: {error}"))?;
    let answer = Answer { output, deadline, _writing: writing, _git: git, _folder: folder, _permits: permits };
    let (pieces, received) = mpsc::channel(BEHIND);
    // Its end does not wait for who reads: that may be never.
    let passing = AbortOnDropHandle::new(tokio::spawn(answer.pass(pieces)));
    let rest = futures::stream::unfold((received, passing), |(mut received, passing)| async {
        let piece = received.recv().await?;
        Some((piece, (received, passing)))
    });
    Ok(futures::stream::once(async { Ok(begun) }).chain(rest).boxed())
}

/// What a command of git that only reads prints in the repository; `None`: it fails.
///
/// # Errors
/// It could not be run, took too long, or printed too much.
pub async fn read(
    repository: &ServedRepository,
    who: Requester<'_>,
    command: &[String],
) -> Result<Option<Vec<u8>>, String> {
    let _permits = acquire_process(who).await?;
    let folder = repository_folder(repository).await?;
    let mut git: Command = bare_git();
    git.arg("--git-dir").arg(folder.path().join(SERVED)).args(command).stdout(Stdio::piped()).stderr(Stdio::null());
    git.process_group(0);
    let child = git.spawn().map_err(|error| format!("cannot start git: {error}; install git 2.38 or later"))?;
    let mut git = RunningGit(child);
    confine(&git.0, FILE);
    let output = git.0.stdout.take().ok_or("git has no output")?;
    let work = async {
        let mut printed = Vec::new();
        output.take(PRINTED + 1).read_to_end(&mut printed).await?;
        let status = git.0.wait().await?;
        io::Result::Ok((status.success(), printed))
    };
    let (succeeded, printed) = tokio::time::timeout(READING, work)
        .await
        .map_err(|_| "this takes too long to look up".to_owned())?
        .map_err(|error| format!("git: {error}"))?;
    if printed.len() as u64 > PRINTED {
        return Err("this is too much to look up: ask for less".to_owned());
    }
    Ok(succeeded.then_some(printed))
}

/// A git that runs, the first of a group of processes. Dropped, all of them end: what it started goes on working otherwise,
/// with nobody's permit.
struct RunningGit(Child);

impl Drop for RunningGit {
    fn drop(&mut self) {
        // It has a number for as long as its end was not looked at, and nobody else has that number until then.
        if let Some(group) = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

/// An answer on its way. Dropped, its process ends and its repository goes.
struct Answer {
    output: ChildStdout,
    deadline: Instant,
    _writing: AbortOnDropHandle<()>,
    _git: RunningGit,
    _folder: TempDir,
    _permits: [OwnedSemaphorePermit; 3],
}

impl Answer {
    /// Passes on what git says, until it ends or nobody reads it.
    async fn pass(mut self, pieces: mpsc::Sender<io::Result<Bytes>>) {
        while let Some(piece) = self.next().await {
            if pieces.send_timeout(piece, STALL).await.is_err() {
                return;
            }
        }
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let mut piece = Vec::with_capacity(PIECE);
        match timeout_at(self.deadline, self.output.read_buf(&mut piece)).await {
            Ok(Ok(0)) => None,
            Ok(Ok(_)) => Some(Ok(piece.into())),
            Ok(Err(error)) => Some(Err(error)),
            Err(_) => Some(Err(io::Error::other("git took too long"))),
        }
    }
}

/// Waits until one may have a process.
async fn acquire_process(who: Requester<'_>) -> Result<[OwnedSemaphorePermit; 3], String> {
    static ALL: OnceLock<Arc<Semaphore>> = OnceLock::new();
    static EACH: Mutex<Option<HashMap<Holder, Arc<Semaphore>>>> = Mutex::new(None);
    let ending = |_| "the coordinator is ending".to_owned();
    let [job, author] = {
        let mut each = EACH.lock();
        let each = each.get_or_insert_default();
        each.retain(|_, permits| Arc::strong_count(permits) > 1);
        [(Holder::Job(who.job.to_owned()), OF_JOB), (Holder::Author(who.author.to_owned()), OF_AUTHOR)]
            .map(|(holder, most)| each.entry(holder).or_insert_with(|| Arc::new(Semaphore::new(most))).clone())
    };
    // The narrowest first: who waits for it keeps nobody else waiting.
    let job = job.acquire_owned().await.map_err(ending)?;
    let author = author.acquire_owned().await.map_err(ending)?;
    let all = ALL.get_or_init(|| Arc::new(Semaphore::new(PROCESSES))).clone();
    Ok([job, author, all.acquire_owned().await.map_err(ending)?])
}

/// A folder in which [`SERVED`] is the repository.
async fn repository_folder(repository: &ServedRepository) -> Result<TempDir, String> {
    let repository = repository.clone();
    let written = tokio::task::spawn_blocking(move || {
        let folder = tempfile::tempdir()?;
        write_repository(&folder.path().join(SERVED), &repository)?;
        io::Result::Ok(folder)
    });
    let written = written.await.map_err(|error| error.to_string())?;
    written.map_err(|error| format!("no repository could be made for a request: {error}"))
}

/// A bare repository with the refs alone.
fn write_repository(path: &Path, repository: &ServedRepository) -> io::Result<()> {
    std::fs::create_dir_all(path.join("objects/info"))?;
    std::fs::create_dir_all(path.join("refs"))?;
    let objects = std::fs::canonicalize(repository.path.join("objects"))?;
    std::fs::write(path.join("objects/info/alternates"), format!("{}\n", objects.display()))?;
    let format = if repository.commit.len() == 64 { "1\n[extensions]\nobjectformat = sha256" } else { "0" };
    let config = format!(
        "[core]\nbare = true\nrepositoryformatversion = {format}\n[http]\nreceivepack = false\n[transfer]\nhideRefs = \
         {HIDDEN}\n[uploadpack]\nallowTipSHA1InWant = true\nallowReachableSHA1InWant = true\nallowFilter = true\n"
    );
    std::fs::write(path.join("config"), config)?;
    let head = if repository.head.is_empty() { "refs/heads/main" } else { &repository.head };
    std::fs::write(path.join("HEAD"), format!("ref: {head}\n"))?;
    let plain = |text: &str| !text.contains(char::is_whitespace) && !text.contains(char::is_control);
    let mut refs: Vec<String> = repository
        .refs
        .iter()
        .filter(|(name, object)| name.starts_with("refs/") && !name.starts_with(HIDDEN) && plain(name) && plain(object))
        .map(|(name, object)| format!("{object} {name}\n"))
        .collect();
    refs.push(format!("{} {HIDDEN}run\n", repository.commit));
    std::fs::write(path.join("packed-refs"), refs.concat())
}

fn start(folder: &Path, request: &UploadPackRequest) -> Result<Child, String> {
    let mut command: Command = bare_git();
    let (method, path, query, kind) = match request.is_advertisement {
        true => ("GET", "/r.git/info/refs", "service=git-upload-pack", ""),
        false => ("POST", "/r.git/git-upload-pack", "", "application/x-git-upload-pack-request"),
    };
    let plain = |text: &str| text.len() < 100 && text.bytes().all(|byte| byte.is_ascii_graphic());
    command
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", folder)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("REQUEST_METHOD", method)
        .env("PATH_INFO", path)
        .env("QUERY_STRING", query)
        .env("CONTENT_TYPE", kind)
        .env("HTTP_CONTENT_ENCODING", if plain(&request.encoding) { &request.encoding } else { "" })
        .env("GIT_PROTOCOL", if plain(&request.protocol) { &request.protocol } else { "" })
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .process_group(0);
    command.spawn().map_err(|error| format!("cannot start git: {error}; install git 2.38 or later"))
}

/// Reads the head of an answer (RFC 3875). Gives what came of the answer itself.
async fn head(output: &mut ChildStdout) -> io::Result<Bytes> {
    let mut read = Vec::new();
    loop {
        if let Some(end) = read.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(read.get(..end).unwrap_or_default()).into_owned();
            return match head.lines().find_map(|line| line.strip_prefix("Status: ")) {
                Some(status) => Err(io::Error::other(status.to_owned())),
                None => Ok(Bytes::copy_from_slice(read.get(end + 4..).unwrap_or_default())),
            };
        }
        if read.len() > HEAD || output.read_buf(&mut read).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const ME: Requester<'_> = Requester { job: "me", author: "me" };

    fn sh(folder: &Path, script: &str) -> String {
        let mut command = std::process::Command::new("sh");
        command.args(["-ec", script]).current_dir(folder).env("GIT_CONFIG_GLOBAL", "/dev/null");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "n").env(format!("GIT_{role}_EMAIL"), "e@example.org");
        }
        let output = command.output().unwrap();
        assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// A pkt-line (gitprotocol-common).
    fn line(text: &str) -> String {
        format!("{:04x}{text}", text.len() + 4)
    }

    async fn ask(repository: &ServedRepository, body: String, version: &str) -> Result<Vec<u8>, String> {
        let is_advertisement = body.is_empty();
        let body = futures::stream::once(async { Ok(Bytes::from(body)) }).boxed();
        let request = UploadPackRequest { is_advertisement, protocol: version.into(), encoding: String::new(), body };
        let pieces: Vec<_> = serve(repository, ME, request).await?.collect().await;
        Ok(pieces.into_iter().map(Result::unwrap).collect::<Vec<_>>().concat())
    }

    #[tokio::test]
    async fn attack_02_nothing_but_what_the_given_refs_reach_can_be_fetched() {
        let folder = tempfile::tempdir().unwrap();
        sh(folder.path(), "git init -q -b main .; git commit -q --allow-empty -m one; git tag v1");
        let first = sh(folder.path(), "git rev-parse HEAD");
        let run = sh(folder.path(), "git checkout -q -b run; git commit -q --allow-empty -m run; git rev-parse HEAD");
        let other = sh(
            folder.path(),
            "git checkout -q main -b other; git commit -q --allow-empty -m other; git rev-parse HEAD",
        );
        let served = ServedRepository {
            path: folder.path().join(".git"),
            refs: vec![("refs/heads/main".into(), first.clone()), ("refs/tags/v1".into(), first.clone())],
            head: "refs/heads/main".into(),
            commit: run.clone(),
        };
        let listed = ask(&served, String::new(), "").await.unwrap();
        let listed = String::from_utf8_lossy(&listed).into_owned();
        assert!(listed.contains(&format!("{first} refs/heads/main")) && listed.contains("refs/tags/v1"), "{listed}");
        assert!(
            !listed.contains(&other) && !listed.contains("refs/heads/other") && !listed.contains(HIDDEN),
            "{listed}"
        );
        for (wanted, given) in [(&first, true), (&run, true), (&other, false)] {
            let body = format!("{}0000{}", line(&format!("want {wanted} no-progress\n")), line("done\n"));
            let answer = ask(&served, body, "").await.unwrap();
            let packed = answer.windows(4).any(|four| four == b"PACK");
            assert_eq!(packed, given, "{wanted}: {}", String::from_utf8_lossy(&answer));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn attack_59_jobs_of_one_author_leave_processes_for_others() {
        let mut held = Vec::new();
        for number in 0..OF_AUTHOR {
            let job = format!("job {number}");
            held.push(acquire_process(Requester { job: &job, author: "eve" }).await.unwrap());
        }
        let more = Requester { job: "one more", author: "eve" };
        assert!(timeout(STALL, acquire_process(more)).await.is_err());
        assert!(timeout(STALL, acquire_process(Requester { job: "bob's", author: "bob" })).await.is_ok());
        held.pop();
        assert!(timeout(STALL, acquire_process(more)).await.is_ok());
    }

    #[tokio::test]
    async fn attack_45_who_does_not_read_an_answer_keeps_no_process() {
        let folder = tempfile::tempdir().unwrap();
        sh(folder.path(), "git init -q -b main .; head -c 8000000 /dev/urandom > f; git add f; git commit -qm one");
        let first = sh(folder.path(), "git rev-parse HEAD");
        let refs = vec![("refs/heads/main".into(), first.clone())];
        let path = folder.path().join(".git");
        let served = ServedRepository { path, refs, head: "refs/heads/main".into(), commit: first.clone() };
        let body = format!("{}0000{}", line(&format!("want {first} no-progress\n")), line("done\n"));
        let body = futures::stream::once(async { Ok(Bytes::from(body)) }).boxed();
        let request =
            UploadPackRequest { is_advertisement: false, protocol: String::new(), encoding: String::new(), body };
        let who = Requester { job: "slow", author: "slow" };
        let mut answer = serve(&served, who, request).await.unwrap();
        let _second = acquire_process(who).await.unwrap();
        // As much as is passed on without being read has come by now.
        tokio::time::sleep(Duration::from_secs(1)).await;
        tokio::time::pause();
        assert!(timeout(STALL / 2, acquire_process(who)).await.is_err(), "it may still read");
        assert!(timeout(STALL, acquire_process(who)).await.is_ok());
        let mut pieces = 0;
        while let Some(Ok(_)) = answer.next().await {
            pieces += 1;
        }
        assert!(pieces <= BEHIND + 1, "{pieces}");
    }

    #[tokio::test]
    async fn attack_45_a_request_that_is_given_up_leaves_no_process() {
        let folder = tempfile::tempdir().unwrap();
        sh(folder.path(), "git init -q -b main .; git commit -q --allow-empty -m one");
        let first = sh(folder.path(), "git rev-parse HEAD");
        let refs = vec![("refs/heads/main".into(), first.clone())];
        let path = folder.path().join(".git");
        let served = ServedRepository { path, refs, head: "refs/heads/main".into(), commit: first };
        let request = UploadPackRequest {
            is_advertisement: false,
            protocol: String::new(),
            encoding: "a-mark-of-this-test".into(),
            body: futures::stream::pending().boxed(),
        };
        let running = || {
            let processes = std::fs::read_dir("/proc").unwrap().flatten();
            let texts = processes.filter_map(|process| std::fs::read(process.path().join("environ")).ok());
            texts.filter(|text| String::from_utf8_lossy(text).contains("a-mark-of-this-test")).count()
        };
        let answer = serve(&served, Requester { job: "other", author: "a" }, request).await.unwrap();
        while running() < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(answer);
        let end = Instant::now() + Duration::from_secs(5);
        while running() > 0 {
            assert!(Instant::now() < end, "{} processes are left", running());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}
