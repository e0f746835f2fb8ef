//! Connections to relays: one for each relay, shared by all who ask and send, and one more to hear requests.
//!
//! A user of a relay holds a [`RelayLease`]. Relays that the operator named stay connected; any other is left once
//! nobody has used it for a while, and there is a ceiling on how many of them are connected at a time.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
    time::Duration,
};

use futures::future::join_all;
use nostr::{Event, EventId, Filter, Keys, RelayUrl, SubscriptionId, message::MachineReadablePrefix};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    time::Instant,
};

use domain::run::Millis;
use network::Reach;

use self::{
    connection::{COMMANDS, Command, Connection, Endpoint},
    lanes::Lanes,
    standing::EventQueue,
};
pub use self::{
    standing::{QueueRoom, QueuedEvent},
    watched::Urgency,
};

mod connection;
mod lanes;
mod limits;
mod message_size;
mod outgoing;
mod query;
mod socket;
mod standing;
mod watched;

/// Relays that the operator did not name, connected at a time.
const UNNAMED: usize = 64;
/// Relays of others that are in use when what may as well be gone without gets no more of them.
const SPARE: usize = UNNAMED / 4;
/// Memory of answers that are on their way from relays that the operator named, and from all others, in bytes.
const ANSWERS: [usize; 2] = [128 << 20, 64 << 20];
/// A relay that the operator did not name is left after nobody used it for this long.
const IDLE: Duration = Duration::from_secs(30);
/// How long a relay may take to answer an event.
const ANSWER: Duration = Duration::from_secs(10);

/// How it begins that a relay did not answer.
pub(crate) const NO_ANSWER: &str = "no answer";

/// A relay's answer to an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It has the event, now or from before.
    Taken,
    /// It will not take it.
    Refused(String),
    /// Not now: unreachable, busy, or wants something first.
    Later(String),
}

/// Why a relay gives nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RelayError {
    /// Not the URL of a relay.
    #[error("{0:?} is not the address of a relay (ws:// or wss://)")]
    NotARelay(String),
    /// Its address is not on the public internet.
    #[error("{0} is not a public address: relays of others must be on the internet")]
    NotReachable(String),
    /// Too many relays are connected that the operator did not name.
    #[error("{UNNAMED} relays of others are connected already: try again in a minute")]
    TooMany,
    /// There is no connection.
    #[error("not connected: {0}")]
    NotConnected(String),
    /// The relay refused the question.
    #[error("{0}")]
    Refused(String),
    /// It did not answer in time.
    #[error("{NO_ANSWER} within {} s", .0.as_secs())]
    TimedOut(Duration),
}

/// What a subscription brings.
#[derive(Debug)]
pub enum Delivery {
    /// An event that matches its filters.
    Event(Box<QueuedEvent>),
    /// What the relay had stored has come, as much as it gives at a time (NIP-01: `EOSE`).
    EndOfStored,
    /// Events may have been missed: the connection was lost, or they came faster than they were taken. The reader
    /// subscribes again.
    Interrupted,
    /// The relay ended the subscription, with its reason.
    Closed(String),
}

/// How a relay is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RelayState {
    /// Its URL.
    pub url: String,
    /// Whether the operator named it.
    pub named: bool,
    /// Whether it is connected now.
    pub connected: bool,
    /// Since when (ms since the Unix epoch).
    pub since: Millis,
    /// Why it is not connected; `None` while it is, and before the first attempt has ended.
    pub error: Option<String>,
}

/// The relays we use. Clones share the connections, which end with the last one.
#[derive(Debug, Clone)]
pub struct Relays(Arc<Registry>);

#[derive(Debug)]
struct Registry {
    keys: Keys,
    named: HashSet<String>,
    allow_private: bool,
    open: Mutex<HashMap<Use, Entry>>,
    lanes: Mutex<Lanes>,
    /// Room for answers, as [`ANSWERS`] says.
    answers: [Arc<Semaphore>; 2],
}

/// What a connection is for, and with which relay it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Use {
    /// Hearing requests, alone: neither our questions nor our events, nor the relay's work for them, hold up what is heard.
    Listening(String),
    /// All the rest.
    Exchange(String),
}

impl Use {
    fn url(&self) -> &str {
        match self {
            Self::Listening(url) | Self::Exchange(url) => url,
        }
    }
}

#[derive(Debug)]
struct Entry {
    /// Kept alive here; every lease holds another.
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<RelayState>,
    named: bool,
    used: Instant,
}

impl Entry {
    fn is_leased(&self) -> bool {
        self.commands.strong_count() > 1
    }
}

/// The use of one relay: its connection is not ended while this is held.
#[derive(Debug, Clone)]
pub struct RelayLease {
    url: String,
    commands: mpsc::Sender<Command>,
    state: watch::Receiver<RelayState>,
}

/// Events of a relay from now on. Dropped, it ends at the relay too.
#[derive(Debug)]
pub struct Subscription {
    lease: RelayLease,
    id: SubscriptionId,
    to: mpsc::WeakSender<Delivery>,
    bytes: Arc<Semaphore>,
    room: QueueRoom,
    deliveries: mpsc::Receiver<Delivery>,
}

/// Bytes of memory that an event takes at most, by its JSON.
pub(crate) fn event_memory(json: &str) -> usize {
    message_size::MessageSize::of(json).memory
}

/// A relay's URL in the one form we keep; `None`: it is none.
pub fn normal(url: &str) -> Option<String> {
    let url = RelayUrl::parse(url.trim()).ok()?;
    Some(url.as_str_without_trailing_slash().to_owned())
}

fn now() -> Millis {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX))
}

impl Relays {
    /// Nothing is dialled before it is used. `keys` answer relays that ask who we are (NIP-42).
    pub fn new(keys: &Keys, config: &config::Relays) -> Self {
        let named = [&config.read, &config.write, &config.index, &config.lookup];
        let named = named.into_iter().flatten().filter_map(|url| normal(url)).collect();
        let (keys, allow_private) = (keys.clone(), config.allow_private);
        let answers = ANSWERS.map(|bytes| Arc::new(Semaphore::new(bytes)));
        let (open, lanes) = (Mutex::default(), Mutex::default());
        Self(Arc::new(Registry { keys, named, allow_private, open, lanes, answers }))
    }

    /// A relay's URL in the one form we keep, if it may be dialled as far as the URL alone says; its addresses are looked
    /// at then. Nothing is kept of a relay that this refuses.
    pub fn usable(&self, url: &str) -> Option<String> {
        let url = normal(url)?;
        let usable = self.is_named(&url) || network::may_be_relay(&url, self.0.reach(false));
        usable.then_some(url)
    }

    /// Whether the operator named a relay, given in its normal form.
    pub fn is_named(&self, url: &str) -> bool {
        self.0.named.contains(url)
    }

    /// Notes that events go to a relay that the operator did not name. There are 64 at most: for another one, the one
    /// goes that was named longest ago.
    pub fn open_lane(&self, url: &str) {
        if self.is_named(url) {
            return;
        }
        let open = self.0.open();
        let is_connected =
            |url: &str| open.get(&Use::Exchange(url.to_owned())).is_some_and(|entry| entry.state.borrow().connected);
        self.0.lanes.lock().open(url, is_connected);
    }

    /// Whether events still go to a relay: always to one that the operator named.
    pub fn keeps_lane(&self, url: &str) -> bool {
        self.is_named(url) || self.0.lanes.lock().keep(url)
    }

    /// Notes that a relay took an event.
    pub fn note_answer(&self, url: &str) {
        self.0.lanes.lock().note_answer(url);
    }

    /// Whether a relay that is not the operator's took an event since events go to it.
    pub fn has_answered(&self, url: &str) -> bool {
        self.0.lanes.lock().has_answered(url)
    }

    /// The use of a relay that may as well be gone without: of others there is room for few such.
    ///
    /// # Errors
    /// As of [`Self::lease`].
    pub fn lease_spare(&self, url: &str) -> Result<RelayLease, RelayError> {
        let purpose = Use::Exchange(normal(url).ok_or_else(|| RelayError::NotARelay(url.to_owned()))?);
        {
            let open = self.0.open();
            let is_new = !open.contains_key(&purpose) && !self.is_named(purpose.url());
            if is_new && open.values().filter(|entry| !entry.named && entry.is_leased()).count() >= SPARE {
                return Err(RelayError::TooMany);
            }
        }
        self.lease_for(purpose)
    }

    /// The use of a relay, which is being connected from now on.
    ///
    /// # Errors
    /// [`RelayError::NotARelay`], [`RelayError::NotReachable`] and [`RelayError::TooMany`].
    pub fn lease(&self, url: &str) -> Result<RelayLease, RelayError> {
        let url = normal(url).ok_or_else(|| RelayError::NotARelay(url.to_owned()))?;
        self.lease_for(Use::Exchange(url))
    }

    /// The use of a connection of its own to a relay, for hearing requests alone.
    ///
    /// # Errors
    /// As of [`Self::lease`].
    pub fn listen(&self, url: &str) -> Result<RelayLease, RelayError> {
        // What is heard has questions soon.
        let RelayLease { url, .. } = self.lease(url)?;
        self.lease_for(Use::Listening(url))
    }

    fn lease_for(&self, purpose: Use) -> Result<RelayLease, RelayError> {
        let url = purpose.url().to_owned();
        let mut open = self.0.open();
        if let Some(entry) = open.get_mut(&purpose) {
            entry.used = Instant::now();
            return Ok(RelayLease { url, commands: entry.commands.clone(), state: entry.state.clone() });
        }
        let named = self.0.named.contains(&url);
        let reach = self.0.reach(named);
        if !named && !network::may_be_relay(&url, reach) {
            return Err(RelayError::NotReachable(url));
        }
        if !named && open.values().filter(|entry| !entry.named).count() >= UNNAMED {
            let unused = open.iter().filter(|(_, entry)| !entry.named && !entry.is_leased());
            let longest = unused.min_by_key(|(_, entry)| entry.used).map(|(purpose, _)| purpose.clone());
            open.remove(&longest.ok_or(RelayError::TooMany)?);
        }
        let (commands, received) = mpsc::channel(COMMANDS);
        // Of a relay that is lost one connection tells.
        let quiet = matches!(purpose, Use::Listening(_));
        let answers = self.0.answers[usize::from(!named)].clone();
        let endpoint = Endpoint { url: url.clone(), reach, keys: self.0.keys.clone(), named, quiet, answers };
        let state = RelayState { url: url.clone(), named, connected: false, since: now(), error: None };
        let (state, states) = watch::channel(state);
        tokio::spawn(Connection::new(endpoint, received, state).run());
        if !named {
            tokio::spawn(leave_unused(Arc::downgrade(&self.0), purpose.clone(), commands.downgrade()));
        }
        let entry = Entry { commands: commands.clone(), state: states.clone(), named, used: Instant::now() };
        open.insert(purpose, entry);
        Ok(RelayLease { url, commands, state: states })
    }

    /// How the relays are doing that are in use, those that the operator named first. One is connected if all its
    /// connections are.
    pub fn states(&self) -> Vec<RelayState> {
        let mut states: Vec<RelayState> = self.0.open().values().map(|entry| entry.state.borrow().clone()).collect();
        states.sort_by(|a, b| (!a.named, &a.url, a.connected).cmp(&(!b.named, &b.url, b.connected)));
        states.dedup_by(|a, b| a.url == b.url);
        states
    }

    /// Sends an event and waits for the answer, at most some seconds.
    pub async fn send(&self, url: &str, event: &Event) -> Answer {
        match self.lease(url) {
            Ok(lease) => lease.send(Arc::new(event.clone())).await,
            Err(error @ RelayError::TooMany) => Answer::Later(error.to_string()),
            Err(error) => Answer::Refused(error.to_string()),
        }
    }

    /// Asks relays at the same time what they have stored. Returns what came within `wait`, each event once and
    /// verified.
    pub async fn fetch(&self, urls: &[String], filter: &Filter, wait: Duration) -> Vec<Event> {
        let answers = join_all(urls.iter().map(|url| self.fetch_from(url, filter, wait))).await;
        let mut seen = HashSet::new();
        let answers = answers.into_iter().zip(urls).filter_map(|(answer, url)| {
            answer.inspect_err(|error| tracing::debug!(relay = url, %error, "no answer")).ok()
        });
        answers.flatten().filter(|event| seen.insert(event.id)).collect()
    }

    /// Asks one relay what it has stored: verified events that match.
    ///
    /// # Errors
    /// The relay did not answer within `wait`.
    pub async fn fetch_from(&self, url: &str, filter: &Filter, wait: Duration) -> Result<Vec<Event>, RelayError> {
        self.lease(url)?.fetch(filter.clone(), wait).await
    }
}

impl Registry {
    fn open(&self) -> MutexGuard<'_, HashMap<Use, Entry>> {
        self.open.lock()
    }

    fn reach(&self, named: bool) -> Reach {
        Reach { private: self.allow_private || named, file: false }
    }
}

/// Leaves a relay that nobody uses for a while.
async fn leave_unused(registry: Weak<Registry>, purpose: Use, commands: mpsc::WeakSender<Command>) {
    loop {
        tokio::time::sleep(IDLE / 2).await;
        let Some(registry) = registry.upgrade() else { return };
        let mut open = registry.open();
        let Some(entry) = open.get_mut(&purpose) else { return };
        if commands.upgrade().is_none_or(|commands| !commands.same_channel(&entry.commands)) {
            return;
        }
        if entry.is_leased() {
            entry.used = Instant::now();
        } else if entry.used.elapsed() >= IDLE {
            open.remove(&purpose);
            return;
        }
    }
}

impl RelayLease {
    /// The relay's URL.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the relay is connected now.
    pub fn is_connected(&self) -> bool {
        self.state.borrow().connected
    }

    /// Waits until the relay is connected.
    ///
    /// # Errors
    /// It is not within `wait`.
    pub async fn connected(&self, wait: Duration) -> Result<(), RelayError> {
        let mut state = self.state.clone();
        let connected = tokio::time::timeout(wait, state.wait_for(|state| state.connected)).await;
        match connected {
            Ok(Ok(_)) => Ok(()),
            _ => Err(match self.state.borrow().error.clone() {
                Some(error) => RelayError::NotConnected(error),
                None => RelayError::TimedOut(wait),
            }),
        }
    }

    /// Sends an event and waits for the answer, at most 10 s. Events are sent in the order of the calls.
    pub async fn send(&self, event: Arc<Event>) -> Answer {
        let (reply, answer) = oneshot::channel();
        let sent = async {
            self.commands.send(Command::Send { event, reply }).await.ok()?;
            answer.await.ok()
        };
        match tokio::time::timeout(ANSWER, sent).await {
            Ok(Some(answer)) => answer,
            Ok(None) => Answer::Later("the connection has ended".into()),
            Err(_) => Answer::Later(RelayError::TimedOut(ANSWER).to_string()),
        }
    }

    /// What the relay has stored: verified events that match. Questions with the same filter share one answer, which was
    /// asked for after each of them.
    ///
    /// # Errors
    /// The relay did not answer within `wait`.
    pub async fn fetch(&self, filter: Filter, wait: Duration) -> Result<Vec<Event>, RelayError> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            let ended = |()| RelayError::NotConnected("the connection has ended".into());
            self.commands.send(Command::Query { filter, reply }).await.map_err(|_| ended(()))?;
            answer.await.map_err(|_| ended(()))?
        };
        tokio::time::timeout(wait, asked).await.unwrap_or(Err(RelayError::TimedOut(wait)))
    }

    /// An event as soon as the relay has it, verified; `None`: the connection has ended.
    pub async fn watch(&self, id: EventId, urgency: Urgency) -> Option<Event> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Watch { id, urgency, reply }).await.ok()?;
        answer.await.ok()
    }

    /// All that matches from now on, and what is stored. `id` is unique among subscriptions of this relay. What the reader
    /// has not taken yet, or holds, takes no more room than this.
    pub async fn subscribe(&self, id: &str, filters: Vec<Filter>, room: QueueRoom) -> Subscription {
        let (to, deliveries) = mpsc::channel(room.events);
        let bytes = Arc::new(Semaphore::new(room.bytes.min(Semaphore::MAX_PERMITS)));
        let (id, lease) = (SubscriptionId::new(id), self.clone());
        let queue = EventQueue { to: to.clone(), bytes: bytes.clone(), room };
        // A connection that has ended drops the sender, which the reader sees.
        let _ = self.commands.send(Command::Subscribe { id: id.clone(), filters, queue }).await;
        Subscription { lease, id, to: to.downgrade(), bytes, room, deliveries }
    }
}

impl Subscription {
    /// Waits for the next delivery; `None`: the connection has ended.
    pub async fn next(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    /// Asks for something else from now on, or for the same again.
    pub async fn replace(&self, filters: Vec<Filter>) {
        let Some(to) = self.to.upgrade() else { return };
        let queue = EventQueue { to, bytes: self.bytes.clone(), room: self.room };
        let _ = self.lease.commands.send(Command::Subscribe { id: self.id.clone(), filters, queue }).await;
    }
}

/// Reads a refusal (NIP-01: machine-readable prefixes).
fn answer(message: String) -> Answer {
    use MachineReadablePrefix as Prefix;
    match Prefix::parse(&message) {
        Some(Prefix::Duplicate) => Answer::Taken,
        Some(Prefix::RateLimited | Prefix::Error | Prefix::AuthRequired) => Answer::Later(message),
        _ => Answer::Refused(message),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_that_has_the_event_took_it_and_a_busy_one_is_asked_again() {
        let cases = [
            ("duplicate: already have this event", Answer::Taken),
            ("rate-limited: slow down", Answer::Later("rate-limited: slow down".into())),
            ("auth-required: sign in", Answer::Later("auth-required: sign in".into())),
            ("error: disk full", Answer::Later("error: disk full".into())),
            ("blocked: not on the list", Answer::Refused("blocked: not on the list".into())),
            ("no", Answer::Refused("no".into())),
        ];
        for (message, expected) in cases {
            assert_eq!(answer(message.into()), expected, "{message}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn relays_of_others_are_bounded_and_left_when_nobody_uses_them() {
        let config = config::Relays { allow_private: true, ..config::Relays::default() };
        let relays = Relays::new(&Keys::generate(), &config);
        let url = |number: usize| format!("ws://192.0.2.1:{}", 1000 + number);
        let mut leases: Vec<_> = (0..UNNAMED).map(|number| relays.lease(&url(number)).unwrap()).collect();
        assert_eq!(relays.lease(&url(UNNAMED)).unwrap_err(), RelayError::TooMany);
        let second = relays.lease(&url(0)).unwrap();
        drop(leases.remove(0));
        assert_eq!(relays.lease(&url(UNNAMED)).unwrap_err(), RelayError::TooMany, "another use of it goes on");
        drop(second);
        leases.push(relays.lease(&url(UNNAMED)).unwrap());
        assert_eq!(relays.states().len(), UNNAMED);
        leases.truncate(2);
        tokio::time::sleep(IDLE * 2).await;
        assert_eq!(relays.states().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn relays_that_the_operator_named_stay() {
        let config = config::Relays { read: vec!["ws://192.0.2.1:1/".into()], ..config::Relays::default() };
        let relays = Relays::new(&Keys::generate(), &config);
        drop(relays.lease("ws://192.0.2.1:1").unwrap());
        tokio::time::sleep(IDLE * 3).await;
        assert_eq!(relays.states().len(), 1);
    }
}
