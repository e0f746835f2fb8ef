//! The HTTP port: deadlines and permits of connections, and whose request each is.

use std::{convert::Infallible, future::Future, pin::pin, sync::Arc, time::Duration};

use axum::{Router, body::Body};
use connections::{
    client_address::{ClientAddress, TrustedProxies},
    listener::{Accepted, LimitedListener, Refusals},
};
use http_body_util::BodyExt as _;
use hyper::{
    HeaderMap, Request, Response,
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Web, router};

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
    let router = router(web).with_state(());
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => break,
        };
        let proxies = listener.proxies().clone();
        connections.spawn(connection(accepted, builder.clone(), router.clone(), proxies, stop.clone()));
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
    router: Router,
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
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ClientAddress::from(client));
        let answer = router.call(request);
        busy_until_sent(answer, busy)
    });
    let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
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

/// The answer, with its connection busy until the last of it was sent.
async fn busy_until_sent(
    answer: impl Future<Output = Result<Response<Body>, Infallible>>,
    busy: connections::shares::Busy,
) -> Result<Response<Body>, Infallible> {
    let answer = answer.await?;
    Ok(answer.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _held = &busy;
            frame
        }))
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
