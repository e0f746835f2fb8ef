//! The worker's end of what programs of a machine send to the services that actions call.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use proto::{
    TUNNEL_CONNECTIONS, TUNNEL_WINDOW,
    init::{Ack, Carry, Grant, Listen, ToInit, from_init::Message, to_init::Message as To},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::{Semaphore, mpsc},
};
use tokio_util::task::AbortOnDropHandle;

use super::{
    SandboxError,
    init_client::{ClientShared, InitClient, ReceivedMessage, unexpected},
};

/// Bytes carried in one message.
const PIECE: usize = 64 << 10;

/// A port of a machine; dropped, its connections break.
pub struct LoopbackPort {
    /// Its number on the machine's loopback.
    pub number: u16,
    /// Each connection that a program of the machine makes, as it comes.
    pub connections: mpsc::Receiver<DuplexStream>,
    _driver: AbortOnDropHandle<()>,
}

/// What a connection's own task is told.
enum Piece {
    Data(Bytes),
    Last,
}

/// One connection, as the driver knows it.
struct Connection {
    /// Dropped: the connection is closed.
    pieces: mpsc::UnboundedSender<Piece>,
    /// Bytes that the program may still send.
    granted: Arc<Semaphore>,
    /// Bytes that may be sent to it.
    room: Arc<Semaphore>,
    _task: AbortOnDropHandle<()>,
}

impl InitClient {
    /// Opens a port on the machine's loopback; 0: any that is free.
    pub(crate) async fn listen(&self, port: u16) -> Result<LoopbackPort, SandboxError> {
        let (request, mut answers) = self.subscribe();
        let shared = Arc::clone(&self.shared);
        let outgoing = self.outgoing.clone();
        self.send(To::Listen(Listen { request, port: port.into() })).await?;
        let Some(ReceivedMessage { sequence, message }) = answers.recv().await else {
            return Err(SandboxError::Lost(self.reason()));
        };
        self.acknowledge(sequence).await?;
        let number = match message {
            Message::Listening(listening) => u16::try_from(listening.port).unwrap_or(port),
            Message::Failed(failed) => return Err(SandboxError::Refused(failed.message)),
            other => return Err(unexpected(&other)),
        };
        // Room for all there may be: programs open several at once, and none may be lost because nobody took it yet.
        let (taken, connections) = mpsc::channel(TUNNEL_CONNECTIONS);
        let driver = Driver { shared, outgoing, request, taken, open: HashMap::new() };
        Ok(LoopbackPort { number, connections, _driver: AbortOnDropHandle::new(tokio::spawn(driver.run(answers))) })
    }
}

struct Driver {
    shared: Arc<ClientShared>,
    outgoing: mpsc::Sender<ToInit>,
    request: u64,
    taken: mpsc::Sender<DuplexStream>,
    open: HashMap<u64, Connection>,
}

impl Driver {
    /// Never waits for a connection: what its task has not taken is bounded by what was granted.
    async fn run(mut self, mut answers: mpsc::UnboundedReceiver<ReceivedMessage>) {
        while let Some(ReceivedMessage { sequence, message }) = answers.recv().await {
            self.take(message);
            let due = self.shared.lock().taken(sequence);
            if let Some(sequence) = due {
                let ack = ToInit { message: Some(To::Ack(Ack { sequence })) };
                if self.outgoing.send(ack).await.is_err() {
                    break;
                }
            }
        }
        self.shared.lock().requests.remove(&self.request);
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Opened(opened) => self.open(opened.connection),
            Message::Carried(carried) => {
                let Some(line) = self.open.get(&carried.connection) else { return };
                let length = u32::try_from(carried.data.len()).unwrap_or(u32::MAX);
                // More than was granted is nothing that init does.
                let within = length == 0 || line.granted.try_acquire_many(length).map(|room| room.forget()).is_ok();
                if carried.closed || !within {
                    self.open.remove(&carried.connection);
                    return;
                }
                // A task that is gone has no use for it.
                if !carried.data.is_empty() {
                    let _ = line.pieces.send(Piece::Data(carried.data));
                }
                if carried.last {
                    let _ = line.pieces.send(Piece::Last);
                }
            }
            Message::Granted(granted) => {
                if let Some(line) = self.open.get(&granted.connection) {
                    let bytes = usize::try_from(granted.bytes).unwrap_or(TUNNEL_WINDOW);
                    line.room.add_permits(bytes.min(TUNNEL_WINDOW.saturating_sub(line.room.available_permits())));
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, connection: u64) {
        self.open.retain(|_, line| !line.pieces.is_closed());
        let (near, far) = tokio::io::duplex(PIECE);
        let mut closer = Closer { outgoing: self.outgoing.clone(), connection, armed: true };
        if self.open.len() >= TUNNEL_CONNECTIONS || self.taken.try_send(far).is_err() {
            return;
        }
        let (pieces, arriving) = mpsc::unbounded_channel();
        let granted = Arc::new(Semaphore::new(TUNNEL_WINDOW));
        let room = Arc::new(Semaphore::new(TUNNEL_WINDOW));
        let outgoing = self.outgoing.clone();
        let (given, taken) = (Arc::clone(&granted), Arc::clone(&room));
        let task = tokio::spawn(async move {
            let closer = &mut closer;
            let (reading, writing) = tokio::io::split(near);
            let up = copy_up(writing, arriving, &outgoing, connection, &given);
            let down = copy_down(reading, &outgoing, connection, &taken);
            // Whichever side breaks ends both; the ordinary end is both ends.
            if tokio::try_join!(up, down).is_ok() {
                closer.armed = false;
            }
        });
        self.open.insert(connection, Connection { pieces, granted, room, _task: AbortOnDropHandle::new(task) });
    }
}

struct Broken;

/// From the machine's program to whoever serves it.
async fn copy_up(
    mut to: impl tokio::io::AsyncWrite + Unpin,
    mut pieces: mpsc::UnboundedReceiver<Piece>,
    outgoing: &mpsc::Sender<ToInit>,
    connection: u64,
    granted: &Semaphore,
) -> Result<(), Broken> {
    loop {
        match pieces.recv().await {
            Some(Piece::Data(data)) => {
                to.write_all(&data).await.map_err(|_| Broken)?;
                granted.add_permits(data.len());
                let grant = Grant { connection, bytes: data.len() as u64 };
                send(outgoing, To::Grant(grant)).await?;
            }
            Some(Piece::Last) => return to.shutdown().await.map_err(|_| Broken),
            None => return Err(Broken),
        }
    }
}

/// From whoever serves it to the machine's program.
async fn copy_down(
    mut from: impl tokio::io::AsyncRead + Unpin,
    outgoing: &mpsc::Sender<ToInit>,
    connection: u64,
    room: &Semaphore,
) -> Result<(), Broken> {
    let mut buffer = vec![0; PIECE];
    loop {
        let length = from.read(&mut buffer).await.map_err(|_| Broken)?;
        if length == 0 {
            return send(outgoing, To::Carry(Carry { connection, last: true, ..Carry::default() })).await;
        }
        let permits = u32::try_from(length).map_err(|_| Broken)?;
        room.acquire_many(permits).await.map_err(|_| Broken)?.forget();
        let data = Bytes::copy_from_slice(buffer.get(..length).unwrap_or_default());
        send(outgoing, To::Carry(Carry { connection, data, ..Carry::default() })).await?;
    }
}

async fn send(outgoing: &mpsc::Sender<ToInit>, message: To) -> Result<(), Broken> {
    outgoing.send(ToInit { message: Some(message) }).await.map_err(|_| Broken)
}

/// Tells init that a connection which did not end by itself is over.
struct Closer {
    outgoing: mpsc::Sender<ToInit>,
    connection: u64,
    armed: bool,
}

impl Drop for Closer {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let closed = Carry { connection: self.connection, closed: true, ..Carry::default() };
        let closed = ToInit { message: Some(To::Carry(closed)) };
        // With a full queue it has to wait its turn.
        if let Err(mpsc::error::TrySendError::Full(closed)) = self.outgoing.try_send(closed)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let outgoing = self.outgoing.clone();
            runtime.spawn(async move { outgoing.send(closed).await });
        }
    }
}
