//! A websocket to a checked address: the name is not resolved again, and small messages do not wait for each other.

use std::time::Duration;

use network::CheckedUrl;
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, client_async_tls_with_config,
    tungstenite::{self, protocol::WebSocketConfig},
};

/// How long a relay may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);
/// Bytes of one message from a relay; NIP-01 sets no limit.
const MESSAGE: usize = 5 * 1024 * 1024;

/// A connection to a relay.
pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error("{0}")]
    Forbidden(#[from] network::Forbidden),
    #[error("it did not accept a connection within {} s", CONNECT.as_secs())]
    TimedOut,
    #[error("{0}")]
    Socket(#[from] std::io::Error),
    #[error("{0}")]
    Handshake(#[from] Box<tungstenite::Error>),
}

/// Connects to one of the addresses, tried in their order.
pub(super) async fn connect(to: &CheckedUrl) -> Result<Socket, ConnectError> {
    let connecting = async {
        let stream = TcpStream::connect(&to.addresses[..]).await?;
        // A message right after another would otherwise wait 40 ms for an acknowledgement.
        stream.set_nodelay(true)?;
        let limits = WebSocketConfig::default().max_message_size(Some(MESSAGE)).max_frame_size(Some(MESSAGE));
        let handshake = Box::pin(client_async_tls_with_config(to.url.as_str(), stream, Some(limits), None));
        let (socket, _) = handshake.await.map_err(Box::new)?;
        Ok(socket)
    };
    tokio::time::timeout(CONNECT, connecting).await.map_err(|_| ConnectError::TimedOut)?
}
