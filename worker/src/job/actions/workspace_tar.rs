//! Files of the machine as they come out of it, and where patterns begin.

use std::{
    io,
    sync::atomic::{AtomicU64, Ordering},
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    github::uses,
    sandbox::{Command, Machine, OutputSink, OutputStream},
};

/// Exit code of the packing program where nothing matched.
const NOTHING: i32 = 3;
/// Bytes of what it complains of.
const COMPLAINT: usize = 4096;

/// What is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PackMode {
    /// The contents of files.
    Files,
    /// Folders and links too.
    Tree,
}

/// Packs what absolute patterns match, as tar, into `pieces`: at most `limit` bytes, 0 for any number, since a file with
/// holes takes nothing of the job's disk. A failure ends it with an error, so that nothing half is taken for whole.
/// False: nothing matched.
pub(super) async fn pack(
    machine: &dyn Machine,
    what: PackMode,
    patterns: &[String],
    limit: u64,
    pieces: mpsc::Sender<io::Result<Bytes>>,
) -> Result<bool, String> {
    let mode = if what == PackMode::Tree { "tree" } else { "files" };
    let mut argv = vec![machine.init_path(), "pack".to_owned(), mode.to_owned()];
    argv.extend(patterns.iter().cloned());
    let command = Command { argv, directory: machine.workspace(), ..Command::default() };
    let left = AtomicU64::new(if limit == 0 { u64::MAX } else { limit });
    let sink = PackSink { pieces: pieces.clone(), left, full: CancellationToken::new(), complaint: Mutex::default() };
    // Dropped, the program is killed.
    let ended = tokio::select! {
        ended = machine.run(command, &sink) => Some(ended),
        () = sink.full.cancelled() => None,
    };
    let failed = match ended {
        None => format!("the files have more than the {} MiB of disk that a job may use, holes included", limit >> 20),
        Some(Ok(exit)) if exit.code == 0 => return Ok(true),
        Some(Ok(exit)) if exit.code == NOTHING => return Ok(false),
        Some(Ok(_)) => sink.complaint(),
        Some(Err(error)) => error.to_string(),
    };
    // Whoever takes the pieces may have given up before.
    let _ = pieces.send(Err(io::Error::other(failed.clone()))).await;
    Err(failed)
}

struct PackSink {
    pieces: mpsc::Sender<io::Result<Bytes>>,
    /// Bytes that may still come.
    left: AtomicU64,
    /// Cancelled: more came.
    full: CancellationToken,
    complaint: Mutex<Vec<u8>>,
}

impl PackSink {
    fn complaint(&self) -> String {
        let complaint = self.complaint.lock();
        String::from_utf8_lossy(&complaint).trim().to_owned()
    }
}

impl OutputSink for PackSink {
    fn write(&self, stream: OutputStream, data: Bytes, _time_ms: u64) -> BoxFuture<'_, ()> {
        async move {
            if stream == OutputStream::Stdout {
                let bytes = data.len() as u64;
                let taken =
                    self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes));
                if taken.is_err() {
                    return self.full.cancel();
                }
                let _ = self.pieces.send(Ok(data)).await;
                return;
            }
            let mut complaint = self.complaint.lock();
            if complaint.len() < COMPLAINT {
                complaint.extend_from_slice(&data);
            }
        }
        .boxed()
    }
}

/// Patterns of an input, one on each line, made absolute: relative ones lie in the workspace, `~` is the home.
pub(super) fn patterns(machine: &dyn Machine, text: &str) -> Result<Vec<String>, String> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| absolute(machine, line)).collect()
}

fn absolute(machine: &dyn Machine, line: &str) -> Result<String, String> {
    let (mark, pattern) = line.strip_prefix('!').map_or(("", line), |rest| ("!", rest.trim()));
    let whole = match pattern.strip_prefix('~') {
        Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", machine.home()),
        _ if pattern.starts_with('/') => pattern.to_owned(),
        _ => format!("{}/{pattern}", machine.workspace()),
    };
    let inside = uses::inside(&whole).ok_or_else(|| format!("path `{line}` leads nowhere"))?;
    Ok(format!("{mark}/{inside}"))
}

/// The folder below which files of an artifact are named: what all patterns begin with.
pub(super) fn root(patterns: &[String]) -> String {
    let begins = patterns.iter().filter(|pattern| !pattern.starts_with('!')).map(|pattern| begin(pattern));
    begins.reduce(common).unwrap_or_default().join("/")
}

/// The names of a pattern before the first with a wildcard.
fn begin(pattern: &str) -> Vec<&str> {
    let names = pattern.split('/').filter(|name| !name.is_empty());
    names.take_while(|name| !name.contains(['*', '?', '['])).collect()
}

fn common<'p>(one: Vec<&'p str>, other: Vec<&'p str>) -> Vec<&'p str> {
    one.into_iter().zip(other).take_while(|(a, b)| a == b).map(|(a, _)| a).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::sandbox::{JobSpec, Sandbox as _, host::HostSandbox};

    #[tokio::test]
    async fn attack_36_a_file_with_holes_is_packed_up_to_the_jobs_disk() {
        let machine = HostSandbox::new().unwrap().acquire(JobSpec::default()).await.unwrap();
        let path = format!("{}/sparse", machine.workspace());
        std::fs::File::create(&path).unwrap().set_len(3 << 30).unwrap();
        let (pieces, mut arriving) = mpsc::channel::<io::Result<Bytes>>(8);
        let counting = async {
            let (mut bytes, mut failure) = (0, None);
            while let Some(piece) = arriving.recv().await {
                match piece {
                    Ok(piece) => bytes += piece.len(),
                    Err(error) => failure = Some(error.to_string()),
                }
            }
            (bytes, failure)
        };
        let patterns = [path];
        let packing = pack(machine.as_ref(), PackMode::Files, &patterns, 100 << 20, pieces);
        let (packed, (bytes, failure)) = tokio::join!(packing, counting);
        let said = packed.unwrap_err();
        assert!(said.contains("more than the 100 MiB of disk"), "{said}");
        assert_eq!(failure, Some(said), "whoever takes it knows that it is not whole");
        assert!(bytes <= 100 << 20, "{bytes}");
        machine.destroy().await;
    }

    #[test]
    fn files_are_named_below_what_all_patterns_begin_with() {
        let root = |patterns: &[&str]| root(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(root(&["/w/out"]), "w/out");
        assert_eq!(root(&["/w/out/*.txt", "!/w/out/x"]), "w/out");
        assert_eq!(root(&["/w/a/b/**", "/w/a/c.txt"]), "w/a");
        assert_eq!(root(&["/w/a", "/tmp/b"]), "");
    }
}
