//! Carries sealed messages between a page and somebody's remote signer (NIP-46): one kind of event, both ways, unread.
//!
//! The page may speak to nobody but us. What is carried is bounded: only to a relay at which a page listens for its
//! answers, so many pages, so many messages of each.

use std::{
    collections::HashMap,
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt as _, stream};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use nostr::{Event, Filter, Keys, Kind, PublicKey, Timestamp};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{
    relays::{Answer, Delivery, QueueRoom, Relays, normal},
    tags,
};
use network::{self, Reach};

/// Messages of remote signing (NIP-46).
const KIND: Kind = Kind::NostrConnect;
/// Bytes of a message's content: NIP-44 makes of 65,535 bytes at most this.
const CONTENT: usize = 88 * 1024;
/// Pages that listen at a time.
const PAGES: usize = 256;
/// A page listens anew after this.
const LISTENS: Duration = Duration::from_secs(3600);
/// Messages that wait for a page, and what they take.
const ROOM: QueueRoom = QueueRoom { events: 64, bytes: 512 << 10, largest: CONTENT + 4096 };
/// How long a relay may take to be there.
const CONNECT: Duration = Duration::from_secs(10);
/// Messages of one page in a minute, and of all in a second.
const OWN: NonZeroU32 = NonZeroU32::new(60).unwrap();
const ALL: NonZeroU32 = NonZeroU32::new(50).unwrap();

/// Why a message is not carried.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Objection {
    /// It is none that is carried.
    #[error("{0}")]
    Wrong(String),
    /// Too much at a time.
    #[error("{0}")]
    Busy(&'static str),
    /// The relay does not take it.
    #[error("the signer's relay {0}")]
    Relay(String),
}

/// The relays of signers. Clones share them.
#[derive(Clone)]
pub struct RemoteSigners(Arc<Inner>);

struct Inner {
    relays: Relays,
    reach: Reach,
    /// Pages that listen, by relay and key.
    open: Mutex<HashMap<(String, String), usize>>,
    /// Pages so far: each has a subscription of its own.
    pages: AtomicU64,
    own: DefaultKeyedRateLimiter<String>,
    all: DefaultDirectRateLimiter,
}

impl RemoteSigners {
    /// Connections of their own, under a key of nobody: what signers' relays do must not touch the pool's.
    pub fn new(config: &config::Relays) -> Self {
        Self(Arc::new(Inner {
            relays: Relays::new(&Keys::generate(), config),
            reach: Reach { private: config.allow_private, file: false },
            open: Mutex::default(),
            pages: AtomicU64::default(),
            own: RateLimiter::keyed(Quota::per_minute(OWN)),
            all: RateLimiter::direct(Quota::per_second(ALL)),
        }))
    }

    /// Messages to a page's key at a relay, from now on.
    ///
    /// # Errors
    /// The relay or the key is none, too many pages listen, or the relay is not there.
    pub async fn answers(&self, relay: &str, key: &str) -> Result<impl Stream<Item = Event> + Send + use<>, Objection> {
        let url = self.relay(relay).await?;
        let page = PublicKey::from_hex(key).map_err(|_| Objection::Wrong("`key` is no public key (64 hex)".into()))?;
        let listening = self.listen(url.clone(), page.to_hex())?;
        let unreachable = |error: &dyn std::fmt::Display| Objection::Relay(format!("can't be reached: {error}"));
        let lease = self.0.relays.lease(&url).map_err(|error| unreachable(&error))?;
        lease.connected(CONNECT).await.map_err(|error| unreachable(&error))?;
        let filter = move || Filter::new().kind(KIND).pubkey(page).since(Timestamp::now() - Duration::from_secs(10));
        let id = format!("page{}", self.0.pages.fetch_add(1, Ordering::Relaxed));
        let subscription = lease.subscribe(&id, vec![filter()], ROOM).await;
        let until = Instant::now() + LISTENS;
        let answers = stream::unfold((subscription, listening), move |(mut subscription, listening)| async move {
            loop {
                match tokio::time::timeout_at(until, subscription.next()).await.ok()?? {
                    Delivery::Event(event) => return Some((event.into_event(), (subscription, listening))),
                    Delivery::EndOfStored => {}
                    Delivery::Interrupted => subscription.replace(vec![filter()]).await,
                    Delivery::Closed(_) => return None,
                }
            }
        });
        let answers = answers.filter(move |event| {
            let theirs = tags::first(event, "p") == Some(page.to_hex().as_str());
            std::future::ready(theirs && event.kind == KIND && event.content.len() <= CONTENT && event.verify().is_ok())
        });
        Ok(answers)
    }

    /// Sends a page's message, whose signature was checked.
    ///
    /// # Errors
    /// It is none that is carried, no answer to it is listened for, it is too much, or the relay does not take it.
    pub async fn send(&self, relay: &str, event: &Event) -> Result<(), Objection> {
        let wrong = |reason: &str| Err(Objection::Wrong(reason.to_owned()));
        if event.kind != KIND || event.tags.len() != 1 || tags::first(event, "p").is_none() {
            return wrong("only messages to a remote signer are carried: kind 24133 with one `p` tag");
        }
        if event.content.len() > CONTENT {
            return wrong("the message is too long for a remote signer");
        }
        let page = event.pubkey.to_hex();
        // Before the name is looked up: a page that listens had that done for it.
        let is_open = normal(relay).is_some_and(|url| self.0.open().contains_key(&(url, page.clone())));
        if !is_open {
            return wrong("nobody listens for the answer: read /api/signer/answers for this key and relay first");
        }
        let url = self.relay(relay).await?;
        if self.0.own.check_key(&page).is_err() || self.0.all.check().is_err() {
            return Err(Objection::Busy("too many messages to signers: wait a minute"));
        }
        match self.0.relays.send(&url, event).await {
            Answer::Taken => Ok(()),
            Answer::Refused(reason) | Answer::Later(reason) => {
                Err(Objection::Relay(format!("did not take the message: {reason}")))
            }
        }
    }

    /// The relay's one form, where it may be dialled; looked at again with each connection.
    async fn relay(&self, text: &str) -> Result<String, Objection> {
        let url = normal(text).ok_or_else(|| Objection::Wrong(format!("{text:?} is no relay's address")))?;
        match network::check_relay(&url, self.0.reach).await {
            Ok(_) => Ok(url),
            Err(error) => Err(Objection::Wrong(error.to_string())),
        }
    }

    fn listen(&self, relay: String, key: String) -> Result<Listening, Objection> {
        let mut open = self.0.open();
        if open.values().sum::<usize>() >= PAGES {
            return Err(Objection::Busy("too many pages wait for their signers: try again in a minute"));
        }
        let place = (relay, key);
        *open.entry(place.clone()).or_default() += 1;
        // Forgets keys that are long gone.
        self.0.own.retain_recent();
        Ok(Listening { inner: self.0.clone(), place })
    }
}

impl Inner {
    fn open(&self) -> parking_lot::MutexGuard<'_, HashMap<(String, String), usize>> {
        self.open.lock()
    }
}

/// A page that listens, counted until it is dropped.
struct Listening {
    inner: Arc<Inner>,
    place: (String, String),
}

impl Drop for Listening {
    fn drop(&mut self) {
        let mut open = self.inner.open();
        if let Some(count) = open.get_mut(&self.place) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                open.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::{EventBuilder, Tag};

    use super::*;

    fn message(kind: Kind, content: &str, to: usize) -> Event {
        let keys = Keys::generate();
        let tags = (0..to).map(|_| Tag::public_key(Keys::generate().public_key()));
        EventBuilder::new(kind, content).tags(tags).sign_with_keys(&keys).unwrap()
    }

    #[tokio::test]
    async fn attack_60_no_relay_in_the_operators_network_is_dialled_for_a_page() {
        let signers = RemoteSigners::new(&config::Relays::default());
        let key = Keys::generate().public_key().to_hex();
        for relay in [
            "ws://127.0.0.1:7000",
            "ws://localhost:7000",
            "wss://[::1]",
            "ws://169.254.169.254",
            "https://example.org",
            "x",
        ] {
            assert!(matches!(signers.answers(relay, &key).await.err(), Some(Objection::Wrong(_))), "{relay}");
            let sent = signers.send(relay, &message(KIND, "x", 1)).await;
            assert!(matches!(sent, Err(Objection::Wrong(_))), "{relay}");
        }
        assert!(matches!(signers.answers("wss://1.1.1.1", "no key").await.err(), Some(Objection::Wrong(_))));
    }

    #[tokio::test]
    async fn only_small_messages_to_one_signer_are_carried_and_only_where_a_page_listens() {
        let signers = RemoteSigners::new(&config::Relays::default());
        let cases = [
            (message(Kind::TextNote, "x", 1), "kind 24133"),
            (message(KIND, "x", 0), "one `p` tag"),
            (message(KIND, "x", 2), "one `p` tag"),
            (message(KIND, &"x".repeat(CONTENT + 1), 1), "too long"),
            (message(KIND, "x", 1), "nobody listens"),
        ];
        for (event, reason) in cases {
            let refused = signers.send("wss://1.1.1.1", &event).await.unwrap_err().to_string();
            assert!(refused.contains(reason), "{refused}");
        }
    }

    #[tokio::test]
    async fn so_many_pages_listen_and_no_more_until_one_goes() {
        let signers = RemoteSigners::new(&config::Relays::default());
        let mut pages = Vec::new();
        for number in 0..PAGES {
            pages.push(signers.listen("wss://1.1.1.1".into(), number.to_string()).unwrap());
        }
        assert!(matches!(signers.listen("wss://1.1.1.1".into(), "more".into()), Err(Objection::Busy(_))));
        pages.pop();
        assert!(signers.listen("wss://1.1.1.1".into(), "more".into()).is_ok());
        drop(pages);
        assert!(signers.0.open().is_empty(), "what is not listened to is forgotten");
    }
}
