//! A Nostr relay on this machine, behind a listener of its own.
//!
//! The embedded relay's listener lacks TCP_NODELAY, so each "end of stored events" would wait 40 ms for an acknowledgement,
//! which relays in the wild do not; and it takes connections from every page that a browser on the machine has open.

use std::net::SocketAddr;

use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
    routing::any,
    serve::ListenerExt,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper_util::rt::TokioIo;
use nostr_relay_builder::LocalRelay;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::net::TcpListener;
use url::{Host, Url};

/// Appended to the key of a handshake (RFC 6455).
const HANDSHAKE: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Serves a relay until the listener fails. Programs may connect, which name no origin, and pages of this machine; a page of
/// anywhere else may not, though its visitor's browser would let it.
///
/// # Errors
/// The listener fails.
pub async fn serve(listener: TcpListener, relay: LocalRelay) -> std::io::Result<()> {
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let app = Router::new().fallback(any(upgrade)).with_state(relay);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await
}

/// Answers a websocket handshake, and gives the connection to the relay.
async fn upgrade(
    State(relay): State<LocalRelay>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    let mut response = Response::new(Body::empty());
    if !is_of_this_machine(request.headers()) {
        *response.status_mut() = StatusCode::FORBIDDEN;
        return response;
    }
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), HANDSHAKE.as_bytes()].concat());
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = STANDARD.encode(accept).parse() {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    tokio::spawn(async move {
        if let Ok(connection) = hyper::upgrade::on(&mut request).await {
            // A client that goes away is no failure of the relay.
            let _ = relay.take_connection(TokioIo::new(connection), address).await;
        }
    });
    response
}

/// Whether no page asks, or one of this machine (RFC 6454).
fn is_of_this_machine(headers: &HeaderMap) -> bool {
    headers.get_all(header::ORIGIN).iter().all(|origin| {
        let url = origin.to_str().ok().and_then(|origin| Url::parse(origin).ok());
        match url.as_ref().and_then(Url::host) {
            Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_49_pages_of_elsewhere_reach_no_relay_of_this_machine() {
        for (origin, may) in [
            (None, true),
            (Some("http://localhost:5173"), true),
            (Some("http://127.0.0.1:8080"), true),
            (Some("http://[::1]:8080"), true),
            (Some("https://evil.example"), false),
            (Some("https://localhost.evil.example"), false),
            (Some("https://127.0.0.1.evil.example"), false),
            (Some("null"), false),
        ] {
            let origin = origin.map(|origin| (header::ORIGIN, HeaderValue::from_static(origin)));
            assert_eq!(is_of_this_machine(&HeaderMap::from_iter(origin.clone())), may, "{origin:?}");
        }
    }
}
