//! Starts processes, carries their output, learns how they ended.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, PipeReader, PipeWriter, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{ffi::OsStringExt, fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use nix::{
    errno::Errno,
    fcntl::{FcntlArg, fcntl},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        signal::{Signal, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid},
    },
    unistd::{Pid, getpgid},
};

use crate::{
    files,
    process_tree::{KnownProcess, below},
    spool::Spool,
    users::{self, User},
    wire::{Exited, Output, Start, Stream, context, from_init::Message},
};

/// Bytes read at once.
const CHUNK: usize = 256 << 10;
/// Bytes an output pipe holds, where the kernel allows it: the most that it gives an ordinary user.
const PIPE: i32 = 1 << 20;
/// Output that keeps coming is read once in this time: each piece costs a wake-up of everyone on its way.
const PAUSE: Duration = Duration::from_millis(1);
/// Pieces without a wait between them after which output counts as such. A step that says little never gets there.
const BUSY: u32 = 8;
/// After the end of a process its pipes may be held by what it left behind. They are read until silent for this long…
const QUIET: Duration = Duration::from_millis(200);
/// …and at most for this long.
const GRACE: Duration = Duration::from_secs(5);

/// How long what a signalled process leaves behind may go on.
const LEFT: Duration = Duration::from_millis(2500);

/// Processes that run.
#[derive(Default)]
pub(crate) struct Processes {
    table: Mutex<Table>,
    changed: Condvar,
}

#[derive(Default)]
struct Table {
    running: HashMap<Pid, Running>,
    /// Nothing below us lives or waits to be reaped.
    empty: bool,
}

struct Running {
    process: u64,
    status: mpsc::Sender<WaitStatus>,
    /// What stood below it when it was last signalled.
    below: Vec<KnownProcess>,
    /// Closed when the process ended: wakes its reader.
    _ended: PipeWriter,
}

impl Processes {
    pub(crate) fn new() -> Self {
        Self { table: Mutex::new(Table { empty: true, ..Table::default() }), changed: Condvar::new() }
    }

    /// Starts a process; its output and end go to the spool.
    pub(crate) fn start(&self, start: Start, default_user: &str, spool: &Arc<Spool>) -> io::Result<()> {
        let user = users::find(if start.user.is_empty() { default_user } else { &start.user })?;
        for file in &start.files {
            files::write(file, &user)?;
        }
        let (mut command, program) = prepare(&start, &user)?;
        let Start { process, input, collect, collect_limit, .. } = start;
        let kills_before = out_of_memory_kills();
        let (ended, ended_writer) = io::pipe()?;
        let (sender, status) = mpsc::channel();
        // The table stays locked from before the fork until the process is known, so that it is not taken for an orphan.
        let mut child = {
            let mut table = self.lock();
            let child = command.spawn().map_err(context(program.display()))?;
            table
                .running
                .insert(pid_of(&child), Running { process, status: sender, below: Vec::new(), _ended: ended_writer });
            table.empty = false;
            self.changed.notify_all();
            child
        };
        drop(command);
        let _ = std::fs::write(format!("/proc/{}/oom_score_adj", child.id()), "500");
        if let Some(mut stdin) = child.stdin.take() {
            // A process may end without reading its input.
            thread::spawn(move || drop(stdin.write_all(&input)));
        }
        let mut carrier = Carrier { process, spool: Arc::clone(spool), streams: Vec::new() };
        carrier.streams.extend(child.stdout.take().map(|pipe| (Stream::Stdout, File::from(OwnedFd::from(pipe)))));
        carrier.streams.extend(child.stderr.take().map(|pipe| (Stream::Stderr, File::from(OwnedFd::from(pipe)))));
        carrier.streams.iter().for_each(|(_, pipe)| widen(pipe));
        thread::spawn(move || {
            carrier.carry(&ended);
            let (code, signal) = match status.recv() {
                Ok(WaitStatus::Exited(_, code)) => (code, 0),
                Ok(WaitStatus::Signaled(_, signal, _)) => (128 + signal as i32, signal as i32),
                _ => (-1, 0),
            };
            carrier.spool.answer(Message::Exited(Exited {
                process,
                code,
                signal,
                files: files::read(&collect, collect_limit),
                out_of_memory: out_of_memory_kills() > kills_before,
            }));
            carrier.discard();
        });
        Ok(())
    }

    /// Signals a process that runs, its group, and what moved out of the group below it; others are left alone, since
    /// their number may serve another by now. What is still there a while after the end of the process is killed.
    pub(crate) fn signal(&self, process: u64, signal: i32) {
        let Ok(signal) = Signal::try_from(signal) else { return };
        let mut table = self.lock();
        let Some((&pid, running)) = table.running.iter_mut().find(|(_, running)| running.process == process) else {
            return;
        };
        let found = below(pid);
        let _ = killpg(pid, signal);
        for process in found.iter().filter(|process| getpgid(Some(process.pid)) != Ok(pid)) {
            process.signal(signal);
        }
        running.below.retain(|known| !found.contains(known));
        running.below.extend(found);
    }

    /// Reaps for ever: processes started here and orphans that were left to us.
    pub(crate) fn reap(&self) {
        loop {
            // Only look: a failed start reaps its own child, under the lock.
            match waitid(Id::All, WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT) {
                Ok(status) => {
                    let mut table = self.lock();
                    let Some(pid) = status.pid() else { continue };
                    if let Ok(status) = waitpid(pid, Some(WaitPidFlag::WNOHANG))
                        && status.pid().is_some()
                        && let Some(running) = table.running.remove(&pid)
                    {
                        let _ = running.status.send(status);
                        kill_the_rest(running.below);
                    }
                }
                Err(Errno::ECHILD) => {
                    let mut table = self.lock();
                    table.empty = table.running.is_empty();
                    self.changed.notify_all();
                    drop(self.changed.wait_while(table, |table| table.empty).unwrap_or_else(PoisonError::into_inner));
                }
                Err(_) => {}
            }
        }
    }

    /// Waits until nothing runs; false if something still does at `deadline`.
    pub(crate) fn wait_until_none(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        let waited = self.changed.wait_timeout_while(self.lock(), left, |table| !table.empty);
        waited.unwrap_or_else(PoisonError::into_inner).0.empty
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Kills what a process that was told to end left behind, after the time that it has to end by itself.
fn kill_the_rest(left: Vec<KnownProcess>) {
    if !left.is_empty() {
        thread::spawn(move || {
            thread::sleep(LEFT);
            left.iter().for_each(|process| process.signal(Signal::SIGKILL));
        });
    }
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

/// Builds the call; the environment it holds is forgotten with it.
fn prepare(start: &Start, user: &User) -> io::Result<(Command, PathBuf)> {
    let mut argv = start.argv.iter();
    let name = argv.next().ok_or_else(|| io::Error::other("no program was named"))?;
    let directory = Path::new(&start.directory);
    if start.make_directory {
        files::make_directory(directory, user)?;
    } else if !directory.is_dir() {
        let said = format!("the working directory {} does not exist: make it in a step before", directory.display());
        return Err(io::Error::other(said));
    }
    let environment: Vec<(&[u8], &[u8])> = start
        .environment
        .iter()
        .filter_map(|entry| {
            let at = entry.iter().position(|byte| *byte == b'=')?;
            Some((entry.get(..at)?, entry.get(at + 1..)?))
        })
        .collect();
    let path = environment.iter().find(|(name, _)| *name == b"PATH").map_or(&[][..], |(_, value)| value);
    let path = if start.search_path.is_empty() { path } else { start.search_path.as_bytes() };
    let program = find_program(name, path, directory)?;
    let mut command = Command::new(&program);
    let text = |bytes: &[u8]| std::ffi::OsString::from_vec(bytes.to_vec());
    command
        .arg0(name)
        .args(argv)
        .env_clear()
        .envs(environment.iter().map(|(name, value)| (text(name), text(value))))
        .current_dir(directory)
        .process_group(0)
        .stdin(if start.input.is_empty() { Stdio::null() } else { Stdio::piped() })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if nix::unistd::getuid().is_root() {
        command.uid(user.uid).gid(user.gid);
    }
    Ok((command, program))
}

fn find_program(name: &str, path: &[u8], directory: &Path) -> io::Result<PathBuf> {
    if name.contains('/') {
        return Ok(directory.join(name));
    }
    let executable = |candidate: &PathBuf| {
        candidate.metadata().is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
    };
    path.split(|byte| *byte == b':')
        .map(|part| directory.join(std::ffi::OsString::from_vec(part.to_vec())).join(name))
        .find(executable)
        .ok_or_else(|| {
            let path = String::from_utf8_lossy(path);
            io::Error::new(io::ErrorKind::NotFound, format!("{name}: no such program in PATH ({path})"))
        })
}

/// Kills by the kernel for lack of memory in our control group, by version 2 or 1.
fn out_of_memory_kills() -> u64 {
    ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"]
        .iter()
        .filter_map(|path| std::fs::read_to_string(path).ok())
        .find_map(|text| text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok()))
        .unwrap_or(0)
}

/// Carries the output of one process.
struct Carrier {
    process: u64,
    spool: Arc<Spool>,
    streams: Vec<(Stream, File)>,
}

impl Carrier {
    /// Returns when both pipes are closed and the process has ended, or when it has ended and its pipes are silent.
    fn carry(&mut self, ended: &PipeReader) {
        let mut buffer = vec![0; CHUNK];
        let mut deadline = None;
        let mut busy = 0;
        while deadline.is_none() || !self.streams.is_empty() {
            let timeout = match deadline {
                None => PollTimeout::NONE,
                Some(deadline) => {
                    let left = QUIET.min(Instant::saturating_duration_since(&deadline, Instant::now()));
                    PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO)
                }
            };
            let mut polled: Vec<PollFd<'_>> =
                self.streams.iter().map(|(_, file)| PollFd::new(file.as_fd(), PollFlags::POLLIN)).collect();
            if deadline.is_none() {
                polled.push(PollFd::new(ended.as_fd(), PollFlags::POLLIN));
            }
            let asked = Instant::now();
            match poll(&mut polled, timeout) {
                Ok(0) => return,
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return,
            }
            let ready: Vec<bool> = polled.iter().map(|one| one.any() == Some(true)).collect();
            drop(polled);
            if deadline.is_none() && ready.last() == Some(&true) {
                deadline = Some(Instant::now() + GRACE);
            }
            busy = if asked.elapsed() < PAUSE { busy + 1 } else { 0 };
            if busy > BUSY && deadline.is_none() {
                thread::sleep(PAUSE);
            }
            let mut index = 0;
            self.streams.retain_mut(|(stream, file)| {
                let is_ready = ready.get(index) == Some(&true);
                index += 1;
                !is_ready || forward(self.process, &self.spool, *stream, file, &mut buffer)
            });
        }
    }

    /// Keeps reading for those left behind, who would die of a closed pipe, and forgets what they say.
    fn discard(self) {
        for (_, mut file) in self.streams {
            thread::spawn(move || io::copy(&mut file, &mut io::sink()));
        }
    }
}

/// Room for a writer to go on while its output is on its way. A pipe that stays small only costs speed.
pub(crate) fn widen(pipe: impl AsFd) {
    let _ = fcntl(pipe, FcntlArg::F_SETPIPE_SZ(PIPE));
}

/// Sends one piece on; false at the end of the stream.
fn forward(process: u64, spool: &Spool, stream: Stream, file: &mut File, buffer: &mut [u8]) -> bool {
    let data = match file.read(buffer) {
        Ok(0) => return false,
        Ok(count) => buffer.get(..count).unwrap_or_default().to_vec(),
        Err(error) => return error.kind() == io::ErrorKind::Interrupted,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time_ms = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
    spool.output(Message::Output(Output { process, stream: stream.into(), data, time_ms }));
    true
}
