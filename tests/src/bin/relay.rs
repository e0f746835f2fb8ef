//! A Nostr relay as a process of its own: `relay [PORT]`. Prints its URL, then runs until it is ended.
//!
//! It listens itself, with TCP_NODELAY: the embedded relay's own listener lacks it, and each "end of stored events"
//! would wait 40 ms for an acknowledgement, which relays in the wild do not.

use std::net::SocketAddr;

use anyhow::Context;
use axum::{
    Router,
    body::Body,
    extract::{ConnectInfo, Request, State},
    http::{StatusCode, header},
    response::Response,
    routing::any,
    serve::ListenerExt,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper_util::rt::TokioIo;
use nostr_relay_builder::{LocalRelay, RelayBuilder, builder::RateLimit};
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use tokio::net::TcpListener;

/// Appended to the key of a handshake (RFC 6455).
const HANDSHAKE: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    // The builder's own default of 60 events a minute is for the public internet.
    let limit = RateLimit { max_reqs: 10_000, notes_per_minute: 1_000_000 };
    let relay = LocalRelay::new(RelayBuilder::default().rate_limit(limit));
    let port: u16 = std::env::args().nth(1).map_or(Ok(0), |port| port.parse()).context("the port is no number")?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await.context("the port cannot be had")?;
    announce(&format!("ws://{}", listener.local_addr()?));
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    let app = Router::new().fallback(any(upgrade)).with_state(relay);
    axum::serve(listener, app.into_make_service_with_connect_info::<SocketAddr>()).await?;
    Ok(())
}

/// Answers a websocket handshake, and gives the connection to the relay.
async fn upgrade(
    State(relay): State<LocalRelay>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    mut request: Request,
) -> Response {
    let mut response = Response::new(Body::empty());
    let Some(key) = request.headers().get(header::SEC_WEBSOCKET_KEY) else {
        *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
        return response;
    };
    let accept = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), HANDSHAKE.as_bytes()].concat());
    let headers = response.headers_mut();
    headers.insert(header::CONNECTION, header::HeaderValue::from_static("upgrade"));
    headers.insert(header::UPGRADE, header::HeaderValue::from_static("websocket"));
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

#[allow(clippy::print_stdout)]
fn announce(url: &str) {
    println!("{url}");
}
