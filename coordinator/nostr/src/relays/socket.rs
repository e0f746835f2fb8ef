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
/// Bytes of one message from a relay that the operator named, and from any other; NIP-01 sets no limit.
const MESSAGE: [usize; 2] = [5 << 20, 1 << 20];

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

/// Connects to one of the addresses, tried in their order. `named`: by the operator.
pub(super) async fn connect(to: &CheckedUrl, named: bool) -> Result<Socket, ConnectError> {
    let connecting = async {
        let stream = TcpStream::connect(&to.addresses[..]).await?;
        // A message right after another would otherwise wait 40 ms for an acknowledgement.
        stream.set_nodelay(true)?;
        let most = MESSAGE[usize::from(!named)];
        let limits = WebSocketConfig::default().max_message_size(Some(most)).max_frame_size(Some(most));
        let handshake = Box::pin(client_async_tls_with_config(to.url.as_str(), stream, Some(limits), None));
        let (socket, _) = handshake.await.map_err(Box::new)?;
        Ok(socket)
    };
    tokio::time::timeout(CONNECT, connecting).await.map_err(|_| ConnectError::TimedOut)?
}
