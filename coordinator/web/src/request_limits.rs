//! What requests may cost at a time, in all and for each client.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    sync::Arc,
};

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, request::Parts},
};
use connections::{
    client_address::{CLIENTS_OF_NETWORK, ClientAddress, ClientNetwork},
    shares::{Full, Limits, Permit, Shares},
};
use futures::{Stream, StreamExt as _};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::Semaphore;

use super::{Refusal, Settings};

/// Seconds after which who was refused may try again.
const AGAIN: u16 = 10;
/// Relays of signers that pages of one client may have dialled in a minute, those of one network, and those of all clients
/// in a second.
const DIALS: NonZeroU32 = NonZeroU32::new(20).unwrap();
const ALL_DIALS: NonZeroU32 = NonZeroU32::new(10).unwrap();
/// Clients whose dials are remembered before those that are long past are forgotten.
const REMEMBERED: usize = 4096;

/// Permits for what costs more than a page.
pub(super) struct RequestLimits {
    /// Event streams and whole logs.
    pub(super) streams: Shares,
    /// Searches in logs.
    pub(super) searches: Shares,
    /// Workflow texts that are checked, and badges.
    pub(super) renderings: Shares,
    /// Pages whose summaries are rendered at a time; others wait, for some milliseconds each.
    pub(super) summaries: Arc<Semaphore>,
    /// Runs that are read with all that belongs to them at a time; others wait, for some milliseconds each.
    pub(super) runs: Arc<Semaphore>,
    /// Uploads of blobs.
    pub(super) uploads: Shares,
    /// Pages that listen to a remote signer.
    pub(super) signers: Shares,
    dials: DefaultKeyedRateLimiter<ClientAddress>,
    network_dials: DefaultKeyedRateLimiter<ClientNetwork>,
    all_dials: DefaultDirectRateLimiter,
}

impl RequestLimits {
    pub(super) fn new(settings: &Settings) -> Self {
        let shares = |all, each| Shares::new(Limits { all, each });
        // What goes on until its end, whoever waits for it.
        let kept = |all, each| Shares::kept(Limits { all, each });
        let clients = u32::try_from(CLIENTS_OF_NETWORK).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN);
        Self {
            streams: shares(settings.streams, settings.streams_per_address),
            searches: kept(32, 8),
            renderings: kept(32, 8),
            summaries: Arc::new(Semaphore::new(2)),
            runs: Arc::new(Semaphore::new(4)),
            uploads: shares(32, 8),
            // As many as there are relays of others that are connected for them: each page may name one of its own.
            signers: shares(64, 4),
            dials: RateLimiter::keyed(Quota::per_minute(DIALS)),
            network_dials: RateLimiter::keyed(Quota::per_minute(DIALS.saturating_mul(clients))),
            all_dials: RateLimiter::direct(Quota::per_second(ALL_DIALS)),
        }
    }

    /// Whether a relay may be dialled for a client.
    pub(super) fn dial(&self, client: Client) -> Result<(), Refusal> {
        if self.dials.len() > REMEMBERED {
            self.dials.retain_recent();
            self.network_dials.retain_recent();
        }
        if self.dials.check_key(&client.0).is_err() || self.network_dials.check_key(&client.0.network()).is_err() {
            let reason = "your address had too many signers called: wait a minute";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason).retry_after(60));
        }
        match self.all_dials.check() {
            Ok(()) => Ok(()),
            Err(_) => Err(busy("calls of signers")),
        }
    }
}

/// A permit for a client; `what` names what there is too much of.
pub(super) fn permit(shares: &Shares, client: Client, what: &str) -> Result<Permit, Refusal> {
    shares.enter(client.0).map_err(|full| match full {
        Full::Client => {
            let reason = format!("your address has as many {what} as one may have: end one, or try again in {AGAIN} s");
            Refusal::new(StatusCode::TOO_MANY_REQUESTS, reason).retry_after(AGAIN)
        }
        Full::All => busy(what),
    })
}

fn busy(what: &str) -> Refusal {
    let reason = format!("there are as many {what} as this server takes: try again in {AGAIN} s");
    Refusal::new(StatusCode::SERVICE_UNAVAILABLE, reason).retry_after(AGAIN)
}

/// A stream that ends when its permit is given to another client.
pub(super) fn while_permitted<S: Stream>(stream: S, permit: Permit) -> impl Stream<Item = S::Item> {
    stream.take_until(permit.lost()).map(move |item| {
        let _held = &permit;
        item
    })
}

/// Whose request it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client(pub(super) ClientAddress);

impl<S: Send + Sync> FromRequestParts<S> for Client {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(Self::of(parts))
    }
}

impl Client {
    /// A request that came through no port of ours has no address; all of those count as one client.
    pub(super) fn of(parts: &Parts) -> Self {
        let unknown = || IpAddr::V4(Ipv4Addr::UNSPECIFIED).into();
        Self(parts.extensions.get::<ClientAddress>().copied().unwrap_or_else(unknown))
    }
}
