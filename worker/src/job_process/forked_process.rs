//! Processes forked for jobs, as their worker has them: starts them and hears how they ended. The process that forks is
//! started when it is first needed, and anew where it is gone.

use std::{
    io,
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::process::ExitStatusExt as _,
    },
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
};

use rustix::{
    net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair},
    process::{Pid, PidfdFlags, pidfd_open},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    net::UnixStream,
    process::{Child, Command},
    sync::{mpsc, oneshot},
};
use tracing::warn;

use super::{
    COMMAND,
    fork_server::{ANSWER, ForkRequest},
    socket,
};

/// Requests that may wait.
const REQUESTS: usize = 64;
/// What of the worker's environment its jobs' processes have: none of it is a secret.
const ENVIRONMENT: [&str; 8] =
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "LONGSHORE_LOG", "LONGSHORE_LOG_FORMAT", "RUST_BACKTRACE"];

enum Request {
    Start { folder: PathBuf, sockets: [OwnedFd; 2], answer: oneshot::Sender<io::Result<Pid>> },
    Status { process: Pid, answer: oneshot::Sender<io::Result<ExitStatus>> },
}

/// Starts processes. Clones share one that forks; it ends with the last of them, and with the processes' own handles.
#[derive(Debug, Clone)]
pub(super) struct ForkClient(mpsc::Sender<Request>);

/// A process that was started.
#[derive(Debug)]
pub(super) struct ForkedProcess {
    /// It keeps its number until [`Self::wait`] has given its status.
    pub(super) number: Pid,
    /// Readable once it has ended.
    end: AsyncFd<OwnedFd>,
    client: ForkClient,
}

impl ForkClient {
    /// Nothing is started yet.
    pub(super) fn new() -> Self {
        let (requests, queue) = mpsc::channel(REQUESTS);
        tokio::spawn(answer_all(queue));
        Self(requests)
    }

    /// Starts a process that works in `folder`, with these sockets as standard input and output. It is the first of a
    /// group of processes.
    ///
    /// # Errors
    /// The system gives no process, or can't watch one (Linux before 5.3).
    pub(super) async fn start(&self, folder: &Path, sockets: [OwnedFd; 2]) -> io::Result<ForkedProcess> {
        let (answer, answered) = oneshot::channel();
        let number = self.request(Request::Start { folder: folder.to_owned(), sockets, answer }, answered).await?;
        let end = pidfd_open(number, PidfdFlags::empty())?;
        #[expect(deprecated, reason = "what is asked for instead is for descriptors that may be closed meanwhile")]
        let end = AsyncFd::with_interest(end, Interest::READABLE)?;
        Ok(ForkedProcess { number, end, client: self.clone() })
    }

    async fn request<T>(&self, request: Request, answered: oneshot::Receiver<io::Result<T>>) -> io::Result<T> {
        let gone = || io::Error::other("nothing starts processes any more");
        self.0.send(request).await.map_err(|_| gone())?;
        answered.await.map_err(|_| gone())?
    }
}

impl ForkedProcess {
    /// Waits until it has ended. Gives how, once.
    pub(super) async fn wait(&self) -> io::Result<ExitStatus> {
        drop(self.end.readable().await?);
        let (answer, answered) = oneshot::channel();
        self.client.request(Request::Status { process: self.number, answer }, answered).await
    }
}

async fn answer_all(mut queue: mpsc::Receiver<Request>) {
    let mut server: Option<ForkServer> = None;
    while let Some(request) = queue.recv().await {
        match request {
            Request::Start { folder, sockets, answer } => {
                let started = start(&mut server, &folder, &sockets).await;
                let _ = answer.send(started);
            }
            Request::Status { process, answer } => {
                let status = match &mut server {
                    Some(server) => server.request(&ForkRequest::Status(process), &[]).await,
                    None => Err(io::Error::other("the process that started it is gone")),
                };
                let _ = answer.send(status.map(ExitStatus::from_raw));
            }
        }
    }
}

/// A new process of the server that is there, or of a new one.
async fn start(server: &mut Option<ForkServer>, folder: &Path, sockets: &[OwnedFd]) -> io::Result<Pid> {
    let request = ForkRequest::Start(folder);
    let mut had_one = server.is_some();
    loop {
        let current = match server.take() {
            Some(current) => server.insert(current),
            None => server.insert(ForkServer::spawn()?),
        };
        match current.request(&request, sockets).await {
            Ok(number) => return Pid::from_raw(number).ok_or_else(|| io::Error::other("a process without a number")),
            Err(error) if current.is_gone() => {
                *server = None;
                if !std::mem::take(&mut had_one) {
                    return Err(error);
                }
                warn!(%error, "the process that starts those of jobs is gone; it is started anew");
            }
            Err(error) => return Err(error),
        }
    }
}

/// The process that forks.
#[derive(Debug)]
struct ForkServer {
    /// One of messages, not of bytes; whether it can be read makes no difference there.
    socket: UnixStream,
    gone: bool,
    _child: Child,
}

impl ForkServer {
    fn spawn() -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // The very program that runs, also where another took its place on the disk.
        let child = Command::new("/proc/self/exe")
            .arg0("longshore")
            .arg(COMMAND)
            .env_clear()
            .envs(ENVIRONMENT.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            // The allocator takes what it needs, no gigabyte at once.
            .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()?;
        Ok(Self { socket: socket::from_std(ours.into())?, gone: false, _child: child })
    }

    fn is_gone(&self) -> bool {
        self.gone
    }

    /// One answer for one request, in their order.
    async fn request(&mut self, request: &ForkRequest<'_>, sockets: &[OwnedFd]) -> io::Result<i32> {
        match self.exchange(request, sockets).await {
            Ok(answer) if answer < 0 => Err(io::Error::from_raw_os_error(-answer)),
            Ok(answer) => Ok(answer),
            Err(error) => {
                self.gone = true;
                Err(error)
            }
        }
    }

    async fn exchange(&self, request: &ForkRequest<'_>, sockets: &[OwnedFd]) -> io::Result<i32> {
        self.socket.async_io(Interest::WRITABLE, || request.send(self.socket.as_fd(), sockets)).await?;
        let mut answer = [0; ANSWER];
        let read = || Ok(recv(&self.socket, &mut answer[..], RecvFlags::empty())?.0);
        match self.socket.async_io(Interest::READABLE, read).await? {
            ANSWER => Ok(i32::from_le_bytes(answer)),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the process that starts those of jobs ended")),
        }
    }
}
