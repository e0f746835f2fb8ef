//! git as a process: its environment, its limits, and what it prints.

use std::process::{ExitStatus, Stdio};

use bytes::Bytes;
use futures::{StreamExt, stream::BoxStream};
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};
use tokio_util::io::ReaderStream;

use super::GitError;

/// Bytes of memory that git may take for itself.
const MEMORY: u64 = 1 << 30;

/// How a git command ended.
pub(in super::super) struct Ended {
    pub(in super::super) status: ExitStatus,
    pub(in super::super) output: String,
    /// What it complained of, in one line.
    pub(in super::super) complaint: String,
}

/// git with nothing of this machine's configuration, no prompt, no hooks and no redirects.
pub(in super::super) fn bare_git() -> Command {
    let mut command = Command::new("git");
    command.env_clear().envs(std::env::vars_os().filter(|(name, _)| name == "PATH" || name == "SSL_CERT_FILE"));
    command.env("GIT_ALLOW_PROTOCOL", "none").env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0");
    command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("HOME", "/nonexistent").env("LC_ALL", "C");
    command.args(["-c", "http.followRedirects=false", "-c", "core.hooksPath=/dev/null", "-c", "gc.auto=0"]);
    command.args(["-c", "protocol.version=2", "-c", "safe.directory=*", "-c", "credential.helper="]);
    command.args(["-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30"]);
    // Large objects are passed through, not held.
    command.args(["-c", "core.bigFileThreshold=16m", "-c", "pack.threads=1", "-c", "pack.windowMemory=64m"]);
    // A fetch that is cut off leaves nothing: loose objects would look complete.
    command.args(["-c", "fetch.unpackLimit=1"]);
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Sets the limits of a process and of all that it starts: bytes of each file that it writes, and memory.
pub(in super::super) fn confine(child: &Child, file: u64) {
    let Some(pid) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) else { return };
    let limit = |most: u64| Rlimit { current: Some(most), maximum: Some(most) };
    for (resource, most) in [(Resource::Fsize, file), (Resource::Data, MEMORY)] {
        if let Err(error) = prlimit(Some(pid), resource, limit(most)) {
            // One that has ended needs none.
            tracing::debug!(%error, ?resource, "a limit of git is not set");
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err takes")]
pub(super) fn not_started(error: std::io::Error) -> GitError {
    GitError(format!("cannot start git: {error}; install git 2.38 or later"))
}

/// The beginning of what comes out of a pipe. The rest is read too, so that git does not block on a full one.
pub(super) async fn head(pipe: Option<impl AsyncRead + Unpin>, limit: u64) -> String {
    let mut kept = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = (&mut pipe).take(limit).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).into_owned()
}

/// What a command prints, as it comes. The exit status counts: what ended early must not look complete.
pub(super) fn stream(
    mut command: Command,
    name: &'static str,
    file: u64,
) -> Result<BoxStream<'static, std::io::Result<Bytes>>, GitError> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(not_started)?;
    confine(&child, file);
    let output = child.stdout.take().ok_or_else(|| GitError(format!("{name} has no output")))?;
    let ended = futures::stream::once(async move {
        match child.wait().await {
            Ok(status) if status.success() => Ok(Bytes::new()),
            Ok(status) => Err(std::io::Error::other(format!("{name} ended with {status}"))),
            Err(error) => Err(error),
        }
    });
    Ok(ReaderStream::with_capacity(output, 64 * 1024).chain(ended).boxed())
}
