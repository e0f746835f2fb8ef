//! The HTTP port: deadlines and permits of connections, and whose request each is.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use connections::{
    client_address::{ClientAddress, TrustedProxies},
    listener::{Accepted, LimitedListener, Refusals},
};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::Incoming,
    header,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Web, router,
    transfer_limits::{PacedStream, TransferLimits},
};

/// Most bytes of a request's header.
const LONGEST_HEADER: usize = 64 * 1024;
/// How long live logs go on at shutdown.
const LAST_READERS: Duration = Duration::from_secs(1);

/// What a client reads whose connection has no permit.
pub const REFUSALS: Refusals = Refusals {
    client: b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 10\r\ncontent-type: text/plain\r\nconnection: close\r\n\
        content-length: 52\r\n\r\nYour address has too many connections: close some.\r\n",
    all: b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 10\r\ncontent-type: text/plain\r\nconnection: close\r\n\
        content-length: 48\r\n\r\nThere are too many connections: try again soon.\n",
};

/// Serves until `stop`.
///
/// # Errors
/// None so far: a connection that fails ends by itself.
pub async fn serve(mut listener: LimitedListener, web: Web, stop: CancellationToken) -> anyhow::Result<()> {
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(web.settings.idle).max_buf_size(LONGEST_HEADER);
    // Bound to its state once: what each connection copies is a pointer.
    let transfers = TransferLimits::new();
    let router = router(web).with_state(());
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let proxies = listener.proxies().clone();
        let service = (router.clone(), transfers.clone());
        connections.spawn(connection(accepted, builder.clone(), service, proxies, stop.clone()));
    }
    drop(listener);
    connections.close();
    // Live logs do not end by themselves: a reader must not delay the shutdown.
    let _ = tokio::time::timeout(LAST_READERS, connections.wait()).await;
    Ok(())
}

/// Serves one connection to its end, or until its permit is given to another client.
async fn connection(
    accepted: Accepted,
    builder: http1::Builder,
    (router, transfers): (Router, TransferLimits),
    proxies: TrustedProxies,
    stop: CancellationToken,
) {
    let Accepted { stream, peer, permit } = accepted;
    let (lost, permit) = (permit.lost(), Arc::new(permit));
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |request: Request<Incoming>| {
        let busy = permit.busy();
        let headers = request.headers();
        let client = proxies.client(peer, lines(headers, "forwarded"), lines(headers, "x-forwarded-for"));
        let client = ClientAddress::from(client);
        let mut request = request.map(|body| transfers.request(body, client));
        request.extensions_mut().insert(client);
        let answer = router.call(request);
        until_sent(answer, transfers.clone(), client, busy)
    });
    let mut served = pin!(builder.serve_connection(TokioIo::new(PacedStream::new(stream)), service));
    let mut lost = pin!(lost);
    let ended = tokio::select! {
        ended = served.as_mut() => Some(ended),
        () = lost.as_mut() => Some(Ok(())),
        () = stop.cancelled() => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::trace!("a connection of {peer} broke off: {error}");
    }
}

/// The answer, with its connection busy, and its memory counted, until the last of it was sent.
async fn until_sent(
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
    transfers: TransferLimits,
    client: ClientAddress,
    busy: connections::shares::Busy,
) -> Result<Response<Body>, Infallible> {
    let (parts, body) = answer.await?.into_parts();
    let answer = transfers.answer(body, client, busy).map(|body| Response::from_parts(parts, body));
    Ok(answer.unwrap_or_else(|| {
        let mut refusal = Response::new(Body::from("Too much is being sent at a time: read the answers that come.\n"));
        *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        refusal.headers_mut().insert(header::RETRY_AFTER, 10.into());
        refusal
    }))
}

fn lines<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    // A line that is no text hides who sent it, as an unreadable element does.
    headers.get_all(name).iter().map(|line| line.to_str().unwrap_or("unknown"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_answers_for_whom_there_is_no_place_are_whole() {
        for answer in [REFUSALS.client, REFUSALS.all] {
            let text = std::str::from_utf8(answer).unwrap();
            let (head, body) = text.split_once("\r\n\r\n").unwrap();
            assert!(head.contains(&format!("content-length: {}", body.len())), "{text}: {}", body.len());
            assert!(head.contains("retry-after: 10"));
        }
    }
}
