//! What requests and answers hold in memory while they are on their way, in all and for each client, and how slowly they
//! may go.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{BoxError, Error, body::Body};
use bytes::Bytes;
use connections::{
    client_address::ClientAddress,
    shares::{Busy, Limits, Permit, Shares},
};
use futures::{StreamExt as _, stream::FuturesUnordered};
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};
use tokio_util::sync::WaitForCancellationFutureOwned;

/// Bytes of one permit.
const UNIT: usize = 1 << 20;
/// Permits, in all and for one client. Who has most gives way.
const UNITS: Limits = Limits { all: 96, each: 24 };
/// So many bytes need no permit: a connection has as many in its buffers.
const SMALL: usize = 64 << 10;
/// Bytes that are given to a connection at a time, so that what it did not send yet is known.
const PIECE: usize = 32 << 10;
/// A body takes at most this long, and a second more for each of so many bytes.
const BODY: Duration = Duration::from_secs(30);
const BODY_RATE: u64 = 16 << 10;
/// Who does not take what waits for him takes at least so many bytes in each of these spans.
const SPAN: Duration = Duration::from_secs(30);
const TAKEN: usize = 128 << 10;

/// Permits for what is large. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct TransferLimits(Shares);

/// Permits of one body.
#[derive(Debug)]
struct Held {
    _permits: Vec<Permit>,
    lost: FuturesUnordered<WaitForCancellationFutureOwned>,
}

impl Held {
    /// Whether one of them was given to another client.
    fn is_lost(&mut self, cx: &mut Context<'_>) -> bool {
        matches!(self.lost.poll_next_unpin(cx), Poll::Ready(Some(())))
    }
}

impl TransferLimits {
    pub(super) fn new() -> Self {
        Self(Shares::new(UNITS))
    }

    /// Permits for so many bytes, or for what one client may have at most; `None`: there are none left.
    fn take(&self, client: ClientAddress, bytes: usize) -> Option<Held> {
        let units = bytes.div_ceil(UNIT).clamp(1, UNITS.each);
        let permits: Vec<Permit> = (0..units).map_while(|_| self.0.enter(client).ok()).collect();
        let lost = permits.iter().map(Permit::lost).collect();
        (permits.len() == units).then_some(Held { _permits: permits, lost })
    }

    /// An answer with its permits; `None`: there are none for it now.
    pub(super) fn answer(&self, body: Body, client: ClientAddress, busy: Busy) -> Option<Body> {
        // What is a stream takes permits piece by piece.
        let whole = body.size_hint().exact().and_then(|exact| usize::try_from(exact).ok());
        let held = match whole.filter(|bytes| *bytes > SMALL) {
            Some(bytes) => Some(self.take(client, bytes)?),
            None => None,
        };
        Some(Body::new(AnswerBody { inner: body, rest: Bytes::new(), held, limits: self.clone(), client, _busy: busy }))
    }

    /// A request's body, which ends in time.
    pub(super) fn request(
        &self,
        body: impl HttpBody<Data = Bytes, Error: Into<BoxError>> + Send + Unpin + 'static,
        client: ClientAddress,
    ) -> Body {
        Body::new(RequestBody {
            inner: body,
            limits: self.clone(),
            client,
            held: None,
            received: 0,
            begun: None,
            late: None,
        })
    }
}

struct AnswerBody {
    inner: Body,
    /// What of a frame is not given yet.
    rest: Bytes,
    held: Option<Held>,
    limits: TransferLimits,
    client: ClientAddress,
    _busy: Busy,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        loop {
            if self.held.as_mut().is_some_and(|held| held.is_lost(cx)) {
                return Poll::Ready(Some(Err(broken("its memory is given to another client"))));
            }
            if !self.rest.is_empty() {
                let length = PIECE.min(self.rest.len());
                let piece = self.rest.split_to(length);
                if self.rest.is_empty() {
                    self.held = None;
                }
                return Poll::Ready(Some(Ok(Frame::data(piece))));
            }
            let frame = match ready!(Pin::new(&mut self.inner).poll_frame(cx)) {
                Some(Ok(frame)) => frame,
                ended => return Poll::Ready(ended),
            };
            match frame.into_data() {
                Ok(data) if data.len() > SMALL => {
                    if self.held.is_none() {
                        self.held = self.limits.take(self.client, data.len());
                    }
                    if self.held.is_none() {
                        return Poll::Ready(Some(Err(broken("there is no memory left for it"))));
                    }
                    self.rest = data;
                }
                Ok(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.inner.size_hint(), self.rest.len() as u64);
        match inner.exact() {
            Some(exact) => SizeHint::with_exact(exact.saturating_add(rest)),
            None => SizeHint::default(),
        }
    }
}

/// A request's body: it takes permits where it is large, and ends in time.
struct RequestBody<B> {
    inner: B,
    limits: TransferLimits,
    client: ClientAddress,
    held: Option<Held>,
    received: u64,
    begun: Option<Instant>,
    late: Option<Pin<Box<Sleep>>>,
}

impl<B: HttpBody<Data = Bytes, Error: Into<BoxError>> + Unpin> HttpBody for RequestBody<B> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        if self.held.as_mut().is_some_and(|held| held.is_lost(cx)) {
            return Poll::Ready(Some(Err(broken("its memory is given to another client"))));
        }
        let begun = *self.begun.get_or_insert_with(Instant::now);
        match Pin::new(&mut self.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                self.received += frame.data_ref().map_or(0, |data| data.len() as u64);
                if self.received > SMALL as u64 && self.held.is_none() {
                    // Who collects a body collects two of them at most.
                    self.held = self.limits.take(self.client, 2 * UNIT);
                    if self.held.is_none() {
                        return Poll::Ready(Some(Err(broken("there is no memory left for it"))));
                    }
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(ended) => Poll::Ready(ended.map(|error| error.map_err(Error::new))),
            Poll::Pending => {
                let until = begun + BODY + Duration::from_secs(self.received / BODY_RATE);
                let late = self.late.get_or_insert_with(|| Box::pin(sleep_until(until)));
                if late.deadline() != until {
                    late.as_mut().reset(until);
                }
                ready!(late.as_mut().poll(cx));
                Poll::Ready(Some(Err(broken("it comes too slowly"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

fn broken(why: &'static str) -> Error {
    Error::new(io::Error::other(why))
}

/// A connection that fails where its other end does not take what waits for it.
pub(super) struct PacedStream<S> {
    inner: S,
    /// While something waits: when the span is over, and bytes that were taken in it.
    waits: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<S: AsyncWrite + Unpin> PacedStream<S> {
    pub(super) fn new(inner: S) -> Self {
        Self { inner, waits: None }
    }

    /// Looks at the outcome of a write of so many bytes.
    fn pace(
        &mut self,
        cx: &mut Context<'_>,
        offered: usize,
        written: Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(written)) => {
                let enough = self.waits.as_ref().is_some_and(|(_, taken)| taken.saturating_add(written) >= TAKEN);
                if written >= offered || enough {
                    self.waits = None;
                } else if let Some((_, taken)) = &mut self.waits {
                    *taken += written;
                }
                Poll::Ready(Ok(written))
            }
            Poll::Pending => {
                let (over, _) = self.waits.get_or_insert_with(|| (Box::pin(sleep_until(Instant::now() + SPAN)), 0));
                ready!(over.as_mut().poll(cx));
                Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the other end does not read")))
            }
            failed => failed,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedStream<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(cx, bytes);
        self.pace(cx, bytes.len(), written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let offered = slices.iter().map(|slice| slice.len()).sum();
        let written = Pin::new(&mut self.inner).poll_write_vectored(cx, slices);
        self.pace(cx, offered, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::net::IpAddr;

    use http_body_util::BodyExt as _;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn client(number: u8) -> ClientAddress {
        IpAddr::from([192, 0, 2, number]).into()
    }

    fn busy() -> Busy {
        Shares::new(Limits { all: 1, each: 1 }).enter(client(1)).unwrap().busy()
    }

    #[tokio::test]
    async fn attack_59_what_is_not_read_yet_is_bounded_for_a_client_and_in_all() {
        let limits = TransferLimits::new();
        let large = || Body::from(vec![0; 4 * UNIT]);
        let answers: Vec<Body> = (0..10).map_while(|_| limits.answer(large(), client(1), busy())).collect();
        assert_eq!(answers.len(), 6, "24 MiB of one client");
        assert!(limits.answer(Body::from(vec![0; SMALL]), client(1), busy()).is_some(), "small ones always");
        let of_others: Vec<Body> =
            (2..100).map_while(|number| limits.answer(large(), client(number), busy())).collect();
        assert!(of_others.len() > 18, "who has most gives way: {}", of_others.len());
        let mut lost = 0;
        for mut answer in answers {
            lost += usize::from(answer.frame().await.unwrap().is_err());
        }
        assert!(lost > 0);
        drop(of_others);
        let whole = limits.answer(large(), client(1), busy()).unwrap();
        assert_eq!(whole.size_hint().exact(), Some(4 * UNIT as u64));
        assert_eq!(whole.collect().await.unwrap().to_bytes().len(), 4 * UNIT);
        assert_eq!(limits.0.taken(), 0, "and what was sent is free");
    }

    #[tokio::test(start_paused = true)]
    async fn attack_59_a_body_that_comes_byte_by_byte_ends_in_time_and_many_that_are_large_have_a_bound() {
        let limits = TransferLimits::new();
        let drops = futures::stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(25)).await;
            Some((Ok::<_, io::Error>(Bytes::from_static(b" ")), ()))
        });
        let begun = Instant::now();
        assert!(limits.request(Body::from_stream(drops), client(1)).collect().await.is_err());
        assert!(begun.elapsed() < Duration::from_secs(60), "{:?}", begun.elapsed());
        let half_sent = || {
            let first = futures::stream::iter([Ok::<_, io::Error>(Bytes::from(vec![b' '; 1_990_000]))]);
            limits.request(Body::from_stream(first.chain(futures::stream::pending())), client(1))
        };
        let mut bodies = Vec::new();
        let mut taken = 0;
        for _ in 0..20 {
            let mut body = half_sent();
            taken += usize::from(body.frame().await.unwrap().is_ok());
            bodies.push(body);
        }
        assert_eq!(taken, UNITS.each / 2);
    }

    #[tokio::test(start_paused = true)]
    async fn attack_59_who_does_not_read_what_was_asked_for_is_hung_up_on() {
        let (near, mut far) = tokio::io::duplex(1024);
        let mut paced = PacedStream::new(near);
        let begun = Instant::now();
        let reading = async {
            loop {
                tokio::time::sleep(Duration::from_secs(5)).await;
                let _ = tokio::io::AsyncReadExt::read(&mut far, &mut [0; 10]).await;
            }
        };
        let error = tokio::select! {
            written = paced.write_all(&[0; 100_000]) => written.unwrap_err(),
            () = reading => return,
        };
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < SPAN * 2);
    }
}
