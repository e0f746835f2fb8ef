//! What is on its way to a relay, bounded in messages and bytes: a relay that does not read costs no more.

use std::sync::Arc;

use futures::{SinkExt, stream::SplitSink};
use nostr::{ClientMessage, JsonUtil};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_tungstenite::tungstenite::Message;

use super::socket::Socket;

/// Messages that a relay has not read yet; one that lets more pile up is disconnected.
const MESSAGES: usize = 8192;
/// Their bytes, to a relay that the operator named and to any other.
const BYTES: [usize; 2] = [8 << 20, 2 << 20];

/// The connection can't be used any more.
#[derive(Debug)]
pub(super) struct Lost(pub(super) String);

/// Where messages to the relay go.
#[derive(Debug)]
pub(super) struct Outgoing {
    messages: mpsc::Sender<Unwritten>,
    room: Arc<Semaphore>,
    bytes: usize,
}

/// A message, and the room that it takes until it is written.
#[derive(Debug)]
pub(super) struct Unwritten {
    message: Message,
    _room: OwnedSemaphorePermit,
}

impl Outgoing {
    pub(super) fn new(named: bool) -> (Self, mpsc::Receiver<Unwritten>) {
        let (messages, unwritten) = mpsc::channel(MESSAGES);
        let bytes = BYTES[usize::from(!named)];
        (Self { messages, room: Arc::new(Semaphore::new(bytes)), bytes }, unwritten)
    }

    pub(super) fn post(&self, message: &ClientMessage<'_>) -> Result<(), Lost> {
        self.put(Message::Text(message.as_json().into()))
    }

    pub(super) fn put(&self, message: Message) -> Result<(), Lost> {
        // A single message always has room.
        let size = u32::try_from(message.len().min(self.bytes)).unwrap_or(u32::MAX);
        let unread = || Lost("it does not read what we send".into());
        let room = self.room.clone().try_acquire_many_owned(size).map_err(|_| unread())?;
        self.messages.try_send(Unwritten { message, _room: room }).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => unread(),
            mpsc::error::TrySendError::Closed(_) => Lost("it can't be written to any more".into()),
        })
    }

    /// Whether what may wait should wait: half of the room is kept for what may not.
    pub(super) fn is_busy(&self) -> bool {
        self.room.available_permits() < self.bytes / 2 || self.messages.capacity() < MESSAGES / 2
    }

    /// Waits until that is over.
    pub(super) async fn ready(&self) {
        let half = u32::try_from(self.bytes / 2).unwrap_or(u32::MAX);
        let messages = self.messages.reserve_many(MESSAGES / 2);
        let _ = tokio::join!(self.room.acquire_many(half), messages);
    }
}

/// Writes messages, all that wait with one flush, until the connection ends.
pub(super) async fn write(mut sink: SplitSink<Socket, Message>, mut messages: mpsc::Receiver<Unwritten>) {
    let mut batch = Vec::new();
    while messages.recv_many(&mut batch, 256).await > 0 {
        for Unwritten { message, _room } in batch.drain(..) {
            if sink.feed(message).await.is_err() {
                return;
            }
        }
        if sink.flush().await.is_err() {
            return;
        }
    }
    let _ = sink.close().await;
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn attack_58_a_relay_that_does_not_read_costs_a_bounded_number_of_bytes() {
        for (named, bytes) in [(true, BYTES[0]), (false, BYTES[1])] {
            let (outgoing, mut unwritten) = Outgoing::new(named);
            let message = || Message::Text("x".repeat(100_000).into());
            let taken = (0..1000).take_while(|_| outgoing.put(message()).is_ok()).count();
            assert_eq!(taken, bytes / 100_000);
            assert!(outgoing.is_busy());
            while unwritten.try_recv().is_ok() {}
            outgoing.ready().await;
            assert!(!outgoing.is_busy());
            outgoing.put(Message::Text("x".repeat(9 << 20).into())).unwrap();
            assert!(outgoing.put(message()).is_err(), "one message alone is sent, however large it is");
        }
    }
}
