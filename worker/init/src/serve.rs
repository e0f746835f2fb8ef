//! The conversation with the worker.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

use crate::{
    archive::{self, Pieces},
    files, glob,
    process::{Processes, widen},
    spool::Spool,
    terminate,
    tunnel::Tunnel,
    users::{self, User},
    wire::{
        self, File, INIT_PROTOCOL, Read, ReadResult, Ready, Unpack, Unpacked, failed, from_init::Message,
        to_init::Message as To,
    },
};

/// Pieces of an archive that may wait for the disk.
const PIECES: usize = 16;

/// Where this program stands, from its arguments.
pub(crate) struct InitOptions {
    /// Repeated in `Ready`.
    pub(crate) nonce: String,
    /// User of steps that name none; empty: ours.
    pub(crate) user: String,
    /// Made, and given to the user.
    pub(crate) workspace: PathBuf,
    /// Made, and open to all as /tmp is.
    pub(crate) temp: PathBuf,
}

/// Serves until told to shut down; see [`crate`] for the end of input.
pub(crate) fn serve(options: &InitOptions) -> io::Result<()> {
    let first = std::process::id() == 1;
    if !first {
        // Without a container around us, what steps leave behind has to come back to us.
        nix::sys::prctl::set_child_subreaper(true)?;
    }
    let user = users::find(&options.user)?;
    files::make_directory(&options.workspace, &user)?;
    files::own(&options.workspace, &user)?;
    files::make_directory(&options.temp, &user)?;
    fs::set_permissions(&options.temp, fs::Permissions::from_mode(0o1777))?;

    let spool = Arc::new(Spool::new());
    let processes = Arc::new(Processes::new());
    let reaped = Arc::clone(&processes);
    thread::spawn(move || reaped.reap());
    let written = Arc::clone(&spool);
    thread::spawn(move || write_all(&written));
    let home = home_of(&user, &options.temp)?.to_string_lossy().into_owned();
    spool.answer(Message::Ready(Ready { nonce: options.nonce.clone(), protocol: INIT_PROTOCOL, home }));

    let mut server = Server { options, user, spool, processes, tunnel: Arc::default(), transfers: HashMap::new() };
    let mut input = io::BufReader::with_capacity(64 << 10, io::stdin());
    let grace = loop {
        match wire::read(&mut input)? {
            Some(message) => match message.message {
                Some(To::Shutdown(shutdown)) => break Duration::from_millis(shutdown.grace_ms.into()),
                Some(message) => server.take(message),
                None => {}
            },
            None if first => loop {
                thread::park();
            },
            None => break Duration::ZERO,
        }
    };
    terminate::all(&server.processes, grace);
    Ok(())
}

/// The user's home, or a folder beside the one for temporary files where it has none that it could use.
fn home_of(user: &User, temp: &Path) -> io::Result<PathBuf> {
    if user.has_home() {
        return Ok(user.home.clone());
    }
    let home = temp.with_file_name("home");
    files::make_directory(&home, user)?;
    files::own(&home, user)?;
    Ok(home)
}

/// Writes for ever. Nobody reads while the worker is away: the engine takes what comes then.
fn write_all(spool: &Spool) {
    // Straight to the descriptor: the library's own buffer would look for line ends.
    let Ok(output) = io::stdout().as_fd().try_clone_to_owned() else { return };
    widen(&output);
    let mut output = fs::File::from(output);
    while output.write_all(&spool.next()).is_ok() {}
}

struct Server<'a> {
    options: &'a InitOptions,
    user: User,
    spool: Arc<Spool>,
    processes: Arc<Processes>,
    tunnel: Arc<Tunnel>,
    transfers: HashMap<u64, mpsc::SyncSender<Vec<u8>>>,
}

impl Server<'_> {
    fn take(&mut self, message: To) {
        match message {
            To::Start(start) => {
                let process = start.process;
                if let Err(error) = self.processes.start(start, &self.options.user, &self.spool) {
                    self.spool.answer(wire::failed(failed::Of::Process(process), &error));
                }
            }
            To::Signal(signal) => self.processes.signal(signal.process, signal.signal),
            To::Ack(ack) => self.spool.acknowledge(ack.sequence),
            To::Resume(resume) => self.spool.resume(resume.after, resume.marker),
            To::Unpack(unpack) => self.unpack(unpack),
            To::UnpackData(piece) => {
                // A receiver that is gone has answered with what went wrong.
                if let Some(sender) = self.transfers.get(&piece.transfer) {
                    let _ = sender.send(piece.data);
                }
                if piece.last {
                    self.transfers.remove(&piece.transfer);
                }
            }
            To::Read(read) => {
                let spool = Arc::clone(&self.spool);
                thread::spawn(move || spool.answer(answer(&read)));
            }
            To::Listen(listen) => self.tunnel.listen(&listen, &self.spool),
            To::Carry(carry) => self.tunnel.carry(carry),
            To::Grant(grant) => self.tunnel.grant(&grant),
            To::Shutdown(_) => {}
        }
    }

    fn unpack(&mut self, unpack: Unpack) {
        let (sender, receiver) = mpsc::sync_channel(PIECES);
        self.transfers.insert(unpack.transfer, sender);
        let (spool, user) = (Arc::clone(&self.spool), self.user.clone());
        thread::spawn(move || {
            let Unpack { transfer, directory, clean } = unpack;
            let mut pieces = Pieces::new(receiver);
            let done = archive::unpack(&mut pieces, Path::new(&directory), clean, &user)
                .and_then(|()| io::copy(&mut pieces, &mut io::sink()));
            spool.answer(match done {
                Ok(_) => Message::Unpacked(Unpacked { transfer }),
                Err(error) => wire::failed(failed::Of::Transfer(transfer), &error),
            });
        });
    }
}

fn answer(read: &Read) -> Message {
    let request = read.request;
    if read.hash_below.is_empty() {
        return Message::Read(ReadResult { request, files: files::read(&read.paths, read.limit) });
    }
    match glob::hash(Path::new(&read.hash_below), &read.paths) {
        Ok(hash) => {
            let files = hash.map(|content| File { content, ..File::default() }).into_iter().collect();
            Message::Read(ReadResult { request, files })
        }
        Err(error) => wire::failed(failed::Of::Request(request), &error),
    }
}
