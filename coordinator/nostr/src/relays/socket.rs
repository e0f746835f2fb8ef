//! A websocket to a checked address: the name is not resolved again, and small messages do not wait for each other.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use async_wsocket::{Message, WebSocket};
use futures::{Sink, SinkExt, StreamExt, TryStreamExt, stream::SplitSink};
use nostr_sdk::pool::transport::{
    error::TransportError,
    websocket::{WebSocketSink, WebSocketStream},
};
use tokio::net::TcpStream;
use tokio_tungstenite::client_async_tls;

use network::Checked;

/// Connects to one of the addresses, tried in their order, within `timeout`.
pub(super) async fn connect(
    to: &Checked,
    timeout: Duration,
) -> Result<(WebSocketSink, WebSocketStream), TransportError> {
    let connecting = async {
        let stream = TcpStream::connect(&to.addresses[..]).await.map_err(TransportError::backend)?;
        // A question right after a farewell would else wait 40 ms for an acknowledgement.
        stream.set_nodelay(true).map_err(TransportError::backend)?;
        let (socket, _) = Box::pin(client_async_tls(to.url.as_str(), stream)).await.map_err(TransportError::backend)?;
        Ok(WebSocket::Tokio(socket))
    };
    let socket: WebSocket = tokio::time::timeout(timeout, connecting).await.map_err(TransportError::backend)??;
    let (sink, stream) = socket.split();
    Ok((Box::new(Outgoing(sink)), Box::pin(stream.map_err(TransportError::backend))))
}

/// The sending half with the pool's errors. (`sink_map_err` panics when it is used after an error.)
struct Outgoing(SplitSink<WebSocket, Message>);

impl Sink<Message> for Outgoing {
    type Error = TransportError;

    fn poll_ready(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_ready_unpin(context).map_err(TransportError::backend)
    }

    fn start_send(mut self: Pin<&mut Self>, message: Message) -> Result<(), TransportError> {
        self.0.start_send_unpin(message).map_err(TransportError::backend)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_flush_unpin(context).map_err(TransportError::backend)
    }

    fn poll_close(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        self.0.poll_close_unpin(context).map_err(TransportError::backend)
    }
}
