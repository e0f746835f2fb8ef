//! The worker's end of `init.proto`: requests, their answers, and output with back-pressure.
//!
//! One task reads, one writes. What arrives is hostile input: a step may run as root beside init.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Buf, Bytes, BytesMut};
use futures::{StreamExt, stream::BoxStream};
use parking_lot::Mutex;
use prost::Message as _;
use proto::{
    INIT_MESSAGE_LIMIT, INIT_PROTOCOL,
    init::{
        Ack, Failed, FailedKind, File, FromInit, Read, Ready, Resume, Shutdown, Signal, Start, ToInit, Unpack,
        UnpackData, failed, from_init::Message, to_init::Message as To,
    },
};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    sync::mpsc,
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Command, OutputSink, OutputStream, ProcessExit, ProcessHandle, SandboxError};

/// What init writes.
pub(crate) type InitReader = BoxStream<'static, io::Result<Bytes>>;
/// What init reads.
pub(crate) type InitWriter = Pin<Box<dyn AsyncWrite + Send>>;

/// Messages to init that may wait.
const OUTGOING: usize = 16;
/// Bytes taken after which init is told that it may forget them, whoever took them. A quarter of what it keeps: beyond
/// that the steps wait, so that answers never queue behind output that nobody takes.
const ACKNOWLEDGE: usize = 1 << 20;
/// Bytes that may wait for callers. Twice what init may send unacknowledged, and room for answers with files.
const WAITING_LIMIT: usize = (8 << 20) + 2 * INIT_MESSAGE_LIMIT;
/// Bytes before the marker that may be left of a connection before this one.
const STALE_LIMIT: usize = INIT_MESSAGE_LIMIT;
/// Bytes of one piece of an archive.
const PIECE: usize = 256 << 10;
/// Bytes of all files sent with one start; leaves room for the rest of its message.
const START_LIMIT: usize = 12 << 20;
/// Bytes of one collected file: GitHub allows 1 MiB for a summary.
const COLLECT_LIMIT: u64 = 2 << 20;

/// An open connection to `longshore-init`.
pub(crate) struct InitClient {
    pub(super) shared: Arc<ClientShared>,
    pub(super) outgoing: mpsc::Sender<ToInit>,
    next: AtomicU64,
    _tasks: [AbortOnDropHandle<()>; 2],
}

pub(super) struct ClientShared {
    state: Mutex<PendingMessages>,
    lost: OnceLock<String>,
    /// Cancelled once `lost` is set.
    ended: CancellationToken,
}

#[derive(Default)]
pub(super) struct PendingMessages {
    pub(super) requests: HashMap<u64, mpsc::UnboundedSender<ReceivedMessage>>,
    /// Bytes of messages that wait for callers, by sequence number; bounds the queues.
    waiting: BTreeMap<u64, usize>,
    bytes: usize,
    /// Bytes of messages that were taken and that init still keeps, by sequence number.
    kept: BTreeMap<u64, usize>,
    kept_bytes: usize,
    /// The last message that came.
    last: u64,
}

impl PendingMessages {
    fn arrived(&mut self, sequence: u64, size: usize) {
        self.waiting.insert(sequence, size);
        self.bytes += size;
    }

    /// A caller is done with a message. Returns what init may forget: everything before the first that still waits.
    pub(super) fn consumed(&mut self, sequence: u64) -> u64 {
        self.done(sequence);
        let through = self.through();
        self.forgotten(through);
        through
    }

    /// As [`Self::consumed`], for a message of many: `None` while init may as well keep it for now.
    pub(super) fn taken(&mut self, sequence: u64) -> Option<u64> {
        self.done(sequence);
        self.due()
    }

    /// What init is to be told that it may forget, where that is much: the rest of a process that was given up on, too.
    fn due(&mut self) -> Option<u64> {
        let through = self.through();
        let some = self.kept.first_key_value().is_some_and(|(first, _)| *first <= through);
        (some && self.kept_bytes >= ACKNOWLEDGE).then(|| self.forgotten(through))?;
        Some(through)
    }

    fn done(&mut self, sequence: u64) {
        if let Some(size) = self.waiting.remove(&sequence) {
            self.bytes -= size;
            self.kept.insert(sequence, size);
            self.kept_bytes += size;
        }
    }

    fn through(&self) -> u64 {
        self.waiting.first_key_value().map_or(self.last, |(first, _)| first - 1)
    }

    fn forgotten(&mut self, through: u64) {
        let left = self.kept.split_off(&(through + 1));
        self.kept_bytes -= self.kept.values().sum::<usize>();
        self.kept = left;
    }
}

pub(super) struct ReceivedMessage {
    pub(super) sequence: u64,
    pub(super) message: Message,
}

impl InitClient {
    /// Makes contact: what answers must know `nonce`.
    pub(crate) async fn open(
        incoming: InitReader,
        mut writer: InitWriter,
        nonce: &str,
    ) -> Result<(Self, Ready), SandboxError> {
        let shared =
            Arc::new(ClientShared { state: Mutex::default(), lost: OnceLock::new(), ended: CancellationToken::new() });
        let marker = Bytes::from_owner(rand::random::<[u8; 32]>());
        let (outgoing, mut messages) = mpsc::channel::<ToInit>(OUTGOING);
        let acknowledging = Arc::clone(&shared);
        let writing = tokio::spawn(async move {
            while let Some(message) = messages.recv().await {
                let mut bytes = message.encode_length_delimited_to_vec();
                // Nobody else may be left to say it.
                if let Some(sequence) = acknowledging.lock().due() {
                    let ack = ToInit { message: Some(To::Ack(Ack { sequence })) };
                    bytes.extend_from_slice(&ack.encode_length_delimited_to_vec());
                }
                // Whoever waits for an answer hears from the reading task what went wrong.
                if writer.write_all(&bytes).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
        });
        let (ready_sender, mut ready) = mpsc::unbounded_channel();
        // Request 0 is `Ready`.
        shared.lock().requests.insert(0, ready_sender);
        let reading =
            tokio::spawn({
                let (shared, marker, outgoing) = (Arc::clone(&shared), marker.clone(), outgoing.clone());
                async move {
                    let reason =
                        match read_all(FrameReader { incoming, buffer: BytesMut::new() }, &marker, &shared, &outgoing)
                            .await
                        {
                            Ok(()) => "the container ended".to_owned(),
                            Err(error) => error.to_string(),
                        };
                    let _ = shared.lost.set(reason);
                    shared.lock().requests.clear();
                    shared.ended.cancel();
                }
            });
        let tasks = [AbortOnDropHandle::new(writing), AbortOnDropHandle::new(reading)];
        let init = Self { shared, outgoing, next: 1.into(), _tasks: tasks };
        init.send(To::Resume(Resume { after: 0, marker })).await?;
        match ready.recv().await {
            Some(ReceivedMessage { message: Message::Ready(ready), sequence })
                if ready.nonce == nonce && ready.protocol == INIT_PROTOCOL =>
            {
                init.acknowledge(sequence).await?;
                Ok((init, ready))
            }
            Some(_) => Err(SandboxError::Start("its first process is not the longshore-init of this worker".into())),
            None => Err(SandboxError::Start(init.reason())),
        }
    }

    /// Waits until init is gone; says why.
    pub(crate) async fn lost(&self) -> String {
        self.shared.ended.cancelled().await;
        self.reason()
    }

    fn is_lost(&self) -> bool {
        self.shared.lost.get().is_some()
    }

    /// Runs one process to its end. Dropped before: the process is killed.
    pub(crate) async fn run(&self, command: Command, output: &dyn OutputSink) -> Result<ProcessExit, SandboxError> {
        let mut request = self.request();
        let process = request.id;
        let running = Running { init: self, handle: command.handle.clone() };
        let start = start_message(process, command)?;
        running.handle.set(process);
        self.send(To::Start(start)).await?;
        loop {
            let (sequence, message) = request.answer().await?;
            match message {
                Message::Output(piece) => {
                    let stream = match piece.stream() {
                        proto::init::Stream::Stderr => OutputStream::Stderr,
                        _ => OutputStream::Stdout,
                    };
                    output.write(stream, piece.data, piece.time_ms).await;
                    self.acknowledge_some(sequence).await?;
                }
                Message::Exited(exited) => {
                    // Nothing is running for the drop guard to kill.
                    running.handle.set(0);
                    self.acknowledge_some(sequence).await?;
                    let (too_long, files): (Vec<_>, Vec<_>) = exited.files.into_iter().partition(|file| file.too_long);
                    return Ok(ProcessExit {
                        code: exited.code,
                        signal: exited.signal,
                        files: contents(files)?,
                        too_long: too_long.into_iter().map(|file| (file.path, file.content)).collect(),
                        out_of_memory: exited.out_of_memory,
                    });
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Signals the group of a process that runs.
    pub(crate) async fn signal(&self, process: &ProcessHandle, signal: i32) {
        let process = process.number();
        if process != 0 {
            // A lost connection is told to whoever waits for the process.
            let _ = self.send(To::Signal(Signal { process, signal })).await;
        }
    }

    /// Ends every process and init.
    pub(crate) async fn shutdown(&self) {
        // Where nobody hears it any more, all has ended.
        let _ = self.send(To::Shutdown(Shutdown { grace_ms: 0 })).await;
    }

    /// Unpacks an archive.
    pub(crate) async fn unpack(
        &self,
        directory: &str,
        clean: bool,
        mut archive: BoxStream<'_, io::Result<Bytes>>,
    ) -> Result<(), SandboxError> {
        let mut request = self.request();
        let transfer = request.id;
        self.send(To::Unpack(Unpack { transfer, directory: directory.to_owned(), clean })).await?;
        let mut source = Ok(());
        while let Some(piece) = archive.next().await {
            match piece {
                Ok(mut data) => {
                    while !data.is_empty() {
                        let data = data.split_to(data.len().min(PIECE));
                        self.send(To::UnpackData(UnpackData { transfer, data, last: false })).await?;
                    }
                }
                Err(error) => {
                    source = Err(SandboxError::Refused(format!("the archive for {directory} broke off: {error}")));
                    break;
                }
            }
        }
        self.send(To::UnpackData(UnpackData { transfer, data: Bytes::new(), last: true })).await?;
        let answer = self.acknowledged(&mut request).await;
        source?;
        match answer? {
            Message::Unpacked(_) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Reads files; `hash_below` as in `init.proto`.
    pub(crate) async fn read(
        &self,
        paths: &[String],
        limit: u64,
        hash_below: &str,
    ) -> Result<Vec<(String, Bytes)>, SandboxError> {
        let mut request = self.request();
        let message = Read { request: request.id, paths: paths.to_vec(), limit, hash_below: hash_below.to_owned() };
        self.send(To::Read(message)).await?;
        match self.acknowledged(&mut request).await? {
            Message::Read(result) => contents(result.files),
            other => Err(unexpected(&other)),
        }
    }

    /// `hashFiles()` below a directory, as hexadecimal digits.
    pub(crate) async fn hash(&self, below: &str, patterns: &[String]) -> Result<Option<String>, SandboxError> {
        let files = self.read(patterns, 0, below).await?;
        Ok(files.first().map(|(_, hash)| hex::encode(hash)))
    }

    fn request(&self) -> Request<'_> {
        let (id, answers) = self.subscribe();
        Request { id, answers, taken: None, init: self }
    }

    /// A new request, and what will be said to it.
    pub(super) fn subscribe(&self) -> (u64, mpsc::UnboundedReceiver<ReceivedMessage>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, answers) = mpsc::unbounded_channel();
        self.shared.lock().requests.insert(id, sender);
        (id, answers)
    }

    async fn acknowledged(&self, request: &mut Request<'_>) -> Result<Message, SandboxError> {
        let (sequence, message) = request.answer().await?;
        self.acknowledge(sequence).await?;
        Ok(message)
    }

    pub(super) async fn acknowledge(&self, sequence: u64) -> Result<(), SandboxError> {
        let sequence = self.shared.lock().consumed(sequence);
        self.send(To::Ack(Ack { sequence })).await
    }

    /// As [`Self::acknowledge`], for messages of which there are many: init hears of them together, so that a step costs
    /// one message to init.
    async fn acknowledge_some(&self, sequence: u64) -> Result<(), SandboxError> {
        let due = self.shared.lock().taken(sequence);
        match due {
            Some(sequence) => self.send(To::Ack(Ack { sequence })).await,
            None => Ok(()),
        }
    }

    pub(super) async fn send(&self, message: To) -> Result<(), SandboxError> {
        let sent = self.outgoing.send(ToInit { message: Some(message) }).await;
        sent.map_err(|_| SandboxError::Lost(self.reason()))
    }

    pub(super) fn reason(&self) -> String {
        self.shared.lost.get().cloned().unwrap_or_else(|| "the connection to the container broke".into())
    }
}

impl ClientShared {
    pub(super) fn lock(&self) -> parking_lot::MutexGuard<'_, PendingMessages> {
        self.state.lock()
    }
}

/// Kills its process unless that ended.
struct Running<'a> {
    init: &'a InitClient,
    handle: ProcessHandle,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let process = self.handle.number();
        self.handle.set(0);
        if process != 0 {
            let kill = Signal { process, signal: 9 };
            // With a full queue the machine is about to be destroyed by whoever gave up on it.
            let _ = self.init.outgoing.try_send(ToInit { message: Some(To::Signal(kill)) });
        }
    }
}

/// Waits for what init says to one request.
struct Request<'a> {
    id: u64,
    answers: mpsc::UnboundedReceiver<ReceivedMessage>,
    /// The message its caller may be busy with.
    taken: Option<u64>,
    init: &'a InitClient,
}

impl Request<'_> {
    async fn answer(&mut self) -> Result<(u64, Message), SandboxError> {
        if self.init.is_lost() && self.answers.is_empty() {
            return Err(SandboxError::Lost(self.init.reason()));
        }
        let Some(ReceivedMessage { sequence, message }) = self.answers.recv().await else {
            return Err(SandboxError::Lost(self.init.reason()));
        };
        self.taken = Some(sequence);
        match message {
            Message::Failed(failed) => Err(refusal(failed)),
            message => Ok((sequence, message)),
        }
    }
}

impl Drop for Request<'_> {
    fn drop(&mut self) {
        let mut state = self.init.shared.lock();
        state.requests.remove(&self.id);
        if let Some(sequence) = self.taken {
            state.done(sequence);
        }
        while let Ok(arrived) = self.answers.try_recv() {
            state.done(arrived.sequence);
        }
    }
}

fn start_message(process: u64, command: Command) -> Result<Start, SandboxError> {
    let size: usize = command.files.iter().map(|(_, content, _)| content.len()).sum();
    if size + command.input.len() > START_LIMIT {
        return Err(SandboxError::Refused(format!("a step's files and input exceed {} MiB", START_LIMIT >> 20)));
    }
    let file = |(path, content, mode)| File { path, content, mode, too_long: false };
    Ok(Start {
        process,
        argv: command.argv,
        environment: command.environment.into_iter().map(|(name, value)| format!("{name}={value}").into()).collect(),
        directory: command.directory,
        user: command.user,
        files: command.files.into_iter().map(file).collect(),
        collect: command.collect,
        input: command.input,
        collect_limit: COLLECT_LIMIT,
        search_path: command.search_path,
        make_directory: command.make_directory,
    })
}

fn contents(files: Vec<File>) -> Result<Vec<(String, Bytes)>, SandboxError> {
    if let Some(file) = files.iter().find(|file| file.too_long) {
        return Err(SandboxError::Refused(format!("{}: the file is too long", file.path)));
    }
    Ok(files.into_iter().map(|file| (file.path, file.content)).collect())
}

fn refusal(failed: Failed) -> SandboxError {
    match failed.kind() {
        FailedKind::NotFound => SandboxError::NotFound(failed.message),
        _ => SandboxError::Refused(failed.message),
    }
}

pub(super) fn unexpected(message: &Message) -> SandboxError {
    let kind = match message {
        Message::Ready(_) => "Ready",
        Message::Output(_) => "Output",
        Message::Exited(_) => "Exited",
        Message::Failed(_) => "Failed",
        Message::Unpacked(_) => "Unpacked",
        Message::Read(_) => "ReadResult",
        Message::Listening(_) => "Listening",
        Message::Opened(_) => "Opened",
        Message::Carried(_) => "Carried",
        Message::Granted(_) => "Granted",
    };
    SandboxError::Lost(format!("its first process answered with an unexpected {kind}"))
}

/// Number of the request a message belongs to.
fn request_of(message: &Message) -> u64 {
    match message {
        Message::Ready(_) => 0,
        Message::Output(output) => output.process,
        Message::Exited(exited) => exited.process,
        Message::Unpacked(unpacked) => unpacked.transfer,
        Message::Read(read) => read.request,
        Message::Listening(listening) => listening.request,
        Message::Opened(opened) => opened.request,
        Message::Carried(carried) => carried.request,
        Message::Granted(granted) => granted.request,
        Message::Failed(failed) => match failed.of {
            Some(failed::Of::Process(id) | failed::Of::Transfer(id) | failed::Of::Request(id)) => id,
            None => u64::MAX,
        },
    }
}

async fn read_all(
    mut frames: FrameReader,
    marker: &[u8],
    shared: &ClientShared,
    outgoing: &mpsc::Sender<ToInit>,
) -> io::Result<()> {
    frames.skip_through(marker).await?;
    let mut expected = 1;
    while let Some((frame, size)) = frames.next().await? {
        if frame.sequence != expected {
            return Err(io::Error::other(format!("message {} came where {expected} was due", frame.sequence)));
        }
        expected += 1;
        let mut state = shared.lock();
        state.last = frame.sequence;
        state.arrived(frame.sequence, size);
        let heard = frame.message.is_some_and(|message| {
            let receiver = state.requests.get(&request_of(&message));
            receiver
                .is_some_and(|receiver| receiver.send(ReceivedMessage { sequence: frame.sequence, message }).is_ok())
        });
        // Without a receiver its caller gave up; the message is of no use, and takes no room from others.
        if !heard {
            match outgoing.try_reserve() {
                Ok(room) => {
                    if let Some(sequence) = state.taken(frame.sequence) {
                        room.send(ToInit { message: Some(To::Ack(Ack { sequence })) });
                    }
                }
                Err(_) => state.done(frame.sequence),
            }
        }
        if state.bytes > WAITING_LIMIT {
            return Err(io::Error::other("its first process sent more than it may without being asked"));
        }
    }
    Ok(())
}

/// Cuts the byte stream into messages.
struct FrameReader {
    incoming: InitReader,
    buffer: BytesMut,
}

impl FrameReader {
    /// False at the end.
    async fn fill(&mut self) -> io::Result<bool> {
        match self.incoming.next().await.transpose()? {
            Some(bytes) => {
                self.buffer.extend_from_slice(&bytes);
                Ok(true)
            }
            None => Ok(false),
        }
    }

    async fn skip_through(&mut self, marker: &[u8]) -> io::Result<()> {
        let mut skipped = 0;
        loop {
            if let Some(at) = self.buffer.windows(marker.len()).position(|window| window == marker) {
                self.buffer.advance(at + marker.len());
                return Ok(());
            }
            let stale = self.buffer.len().saturating_sub(marker.len());
            self.buffer.advance(stale);
            skipped += stale;
            if skipped > STALE_LIMIT {
                return Err(io::Error::other("its first process does not speak as longshore-init does"));
            }
            if !self.fill().await? {
                return Err(io::Error::other("its first process ended before it was ready"));
            }
        }
    }

    /// The next message and its bytes.
    async fn next(&mut self) -> io::Result<Option<(FromInit, usize)>> {
        loop {
            if let Some((prefix, length)) = length(&self.buffer)? {
                if self.buffer.len() >= prefix + length {
                    self.buffer.advance(prefix);
                    let message = self.buffer.split_to(length).freeze();
                    let frame = FromInit::decode(message).map_err(io::Error::other)?;
                    return Ok(Some((frame, length)));
                }
                self.buffer.reserve(prefix + length - self.buffer.len());
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }
}

/// Bytes of the length at the start of a buffer, and the length; `None` while it is incomplete.
fn length(buffer: &[u8]) -> io::Result<Option<(usize, usize)>> {
    let mut value = 0_usize;
    for (index, byte) in buffer.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return match value <= INIT_MESSAGE_LIMIT {
                true => Ok(Some((index + 1, value))),
                false => Err(io::Error::other("a message of its first process exceeds 16 MiB")),
            };
        }
    }
    match buffer.len() < 4 {
        true => Ok(None),
        false => Err(io::Error::other("its first process sent no valid message")),
    }
}
