//! Connections of the job's programs to the services that actions call, carried through the conversation.
//!
//! Two threads for a connection. Neither ever holds the conversation up: what the worker sends beyond the window ends the
//! connection, and what programs send waits in their sockets until the worker grants room.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::Duration,
};

use crate::{
    spool::Spool,
    wire::{
        Carried, Carry, Grant, Granted, Listen, Listening, Opened, TUNNEL_CONNECTIONS, TUNNEL_WINDOW, context, failed,
        failed::Of, from_init::Message,
    },
};

/// Bytes carried in one message.
const PIECE: usize = 64 << 10;
/// After an error of the listener, a moment in which descriptors or connections may become free.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections that are open.
#[derive(Default)]
pub(crate) struct Tunnel {
    table: Mutex<Table>,
    /// A connection ended.
    room: Condvar,
}

#[derive(Default)]
struct Table {
    open: HashMap<u64, Arc<Open>>,
    last: u64,
}

struct Open {
    socket: TcpStream,
    /// To the thread that writes; `None` once no more comes.
    pieces: Mutex<Option<mpsc::Sender<Vec<u8>>>>,
    flow: Mutex<Flow>,
    granted: Condvar,
}

struct Flow {
    /// Bytes the worker still takes.
    credit: usize,
    /// Bytes of the worker that are not written yet.
    unwritten: usize,
    closed: bool,
    /// Directions that still carry something.
    directions: u8,
}

impl Tunnel {
    /// Listens, and answers for it; connections follow from a thread of their own.
    pub(crate) fn listen(self: &Arc<Self>, listen: &Listen, spool: &Arc<Spool>) {
        let request = listen.request;
        let port = u16::try_from(listen.port).unwrap_or(0);
        let bound = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| {
            let port = listener.local_addr()?.port();
            Ok((listener, port))
        });
        match bound.map_err(context(format_args!("listen on 127.0.0.1:{port}"))) {
            Ok((listener, port)) => {
                spool.answer(Message::Listening(Listening { request, port: port.into() }));
                let (tunnel, spool) = (Arc::clone(self), Arc::clone(spool));
                thread::spawn(move || tunnel.accept(&listener, request, &spool));
            }
            Err(error) => spool.answer(failed(Of::Request(request), &error)),
        }
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, request: u64, spool: &Arc<Spool>) {
        loop {
            drop(
                self.room
                    .wait_while(self.lock(), |table| table.open.len() >= TUNNEL_CONNECTIONS)
                    .unwrap_or_else(PoisonError::into_inner),
            );
            let accepted = listener.accept().and_then(|(socket, _)| self.begin(socket, request, spool));
            if accepted.is_err() {
                thread::sleep(PAUSE);
            }
        }
    }

    fn begin(self: &Arc<Self>, socket: TcpStream, request: u64, spool: &Arc<Spool>) -> io::Result<()> {
        socket.set_nodelay(true)?;
        let (reads, writes) = (socket.try_clone()?, socket.try_clone()?);
        let (sender, pieces) = mpsc::channel();
        let flow = Flow { credit: TUNNEL_WINDOW, unwritten: 0, closed: false, directions: 2 };
        let open = Arc::new(Open {
            socket,
            pieces: Mutex::new(Some(sender)),
            flow: Mutex::new(flow),
            granted: Condvar::new(),
        });
        let connection = {
            let mut table = self.lock();
            table.last += 1;
            let connection = table.last;
            table.open.insert(connection, Arc::clone(&open));
            connection
        };
        spool.output(Message::Opened(Opened { request, connection }));
        let (tunnel, carried, opened) = (Arc::clone(self), Arc::clone(spool), Arc::clone(&open));
        thread::spawn(move || {
            let end = opened.read(reads, |data| {
                carried.output(Message::Carried(Carried { request, connection, data, ..Carried::default() }));
            });
            let closed = end.is_err();
            carried.output(Message::Carried(Carried { request, connection, last: true, closed, ..Carried::default() }));
            tunnel.ended(connection, &opened, closed);
        });
        let (tunnel, granted) = (Arc::clone(self), Arc::clone(spool));
        thread::spawn(move || {
            let end = open.write(writes, &pieces, |bytes| {
                granted.output(Message::Granted(Granted { request, connection, bytes }));
            });
            if end.is_err() {
                let closed = Carried { request, connection, closed: true, ..Carried::default() };
                granted.output(Message::Carried(closed));
            }
            tunnel.ended(connection, &open, end.is_err());
        });
        Ok(())
    }

    /// Bytes of the worker. Never waits.
    pub(crate) fn carry(&self, carry: Carry) {
        let Some(open) = self.lock().open.get(&carry.connection).cloned() else { return };
        let mut flow = open.flow();
        flow.unwritten += carry.data.len();
        let over = flow.unwritten > TUNNEL_WINDOW;
        drop(flow);
        if carry.closed || over {
            open.close();
            return;
        }
        let mut pieces = open.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sender) = pieces.as_ref().filter(|_| !carry.data.is_empty()) {
            // The thread that writes is gone only with its socket.
            let _ = sender.send(carry.data);
        }
        if carry.last {
            *pieces = None;
        }
    }

    /// The worker takes more.
    pub(crate) fn grant(&self, grant: &Grant) {
        if let Some(open) = self.lock().open.get(&grant.connection) {
            let bytes = usize::try_from(grant.bytes).unwrap_or(TUNNEL_WINDOW);
            let mut flow = open.flow();
            flow.credit = flow.credit.saturating_add(bytes).min(TUNNEL_WINDOW);
            open.granted.notify_all();
        }
    }

    fn ended(&self, connection: u64, open: &Open, broken: bool) {
        if broken {
            open.close();
        }
        let mut flow = open.flow();
        flow.directions -= 1;
        if flow.directions == 0 {
            drop(flow);
            self.lock().open.remove(&connection);
            self.room.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn flow(&self) -> MutexGuard<'_, Flow> {
        self.flow.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends both directions.
    fn close(&self) {
        self.flow().closed = true;
        self.granted.notify_all();
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner).take();
        // It may be closed already.
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    fn read(&self, mut socket: TcpStream, carry: impl Fn(Vec<u8>)) -> io::Result<()> {
        let mut buffer = vec![0; PIECE];
        loop {
            let room = {
                let waiting = |flow: &mut Flow| flow.credit == 0 && !flow.closed;
                let flow = self.granted.wait_while(self.flow(), waiting).unwrap_or_else(PoisonError::into_inner);
                if flow.closed {
                    return Err(io::ErrorKind::ConnectionAborted.into());
                }
                flow.credit.min(PIECE)
            };
            let length = match socket.read(buffer.get_mut(..room).unwrap_or_default()) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.flow().credit -= length;
            carry(buffer.get(..length).unwrap_or_default().to_vec());
        }
    }

    fn write(&self, mut socket: TcpStream, pieces: &mpsc::Receiver<Vec<u8>>, grant: impl Fn(u64)) -> io::Result<()> {
        while let Ok(piece) = pieces.recv() {
            socket.write_all(&piece)?;
            self.flow().unwritten -= piece.len();
            grant(piece.len() as u64);
        }
        socket.shutdown(Shutdown::Write)
    }
}
