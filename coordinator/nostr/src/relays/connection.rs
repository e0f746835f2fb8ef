//! The task that owns one connection: it dials, dials again, and shares the connection among all who use the relay.
//!
//! Questions go through [`Queries`], events are sent without waiting for the answer to the one before, subscriptions
//! that stand are delivered to a queue of their reader. Reading never waits for anybody: an answer must not be held up
//! by a reader that waits for it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder};
use futures::StreamExt;
use nostr::{
    ClientMessage, Event, EventBuilder, EventId, Filter, JsonUtil, Keys, RelayMessage, RelayUrl, SubscriptionId,
};
use tokio::{
    sync::{Semaphore, mpsc, oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_tungstenite::tungstenite::Message;

use network::{CheckedUrl, Reach, peer_text};

use super::{
    Answer, Delivery, RelayError, RelayState, answer,
    limits::ConnectionLimits,
    message_size::{self, MessageSize},
    now,
    outgoing::{Lost, Outgoing, write},
    query::{Ended, Queries, Reply, is_about_identity, is_about_number},
    socket::{self, Socket},
    standing::{EventQueue, OpenSubscription, Opened, event_subscription},
    watched::{Urgency, Watched},
};

/// Commands that wait for the connection's task.
pub(super) const COMMANDS: usize = 1024;
/// A relay that was away for longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(10);
/// Waits between attempts to connect: the first, and the longest.
const RETRY: [Duration; 2] = [Duration::from_millis(500), Duration::from_secs(60)];
/// Somebody who wants the relay shortens the wait to this.
const WANTED: Duration = Duration::from_secs(5);
/// A connection that was up for so long starts again with the shortest wait.
const STEADY: Duration = Duration::from_secs(30);
/// How often what nobody waits for is looked for.
const TICK: Duration = Duration::from_secs(2);
/// A ping is sent after this long, and a relay that was silent for twice as long is disconnected.
const PING: Duration = Duration::from_secs(50);
/// How long a relay may take to accept who we are (NIP-42).
const AUTHENTICATION: Duration = Duration::from_secs(5);
/// Bytes of a relay's challenge, and challenges in a minute of one connection: each is signed.
const CHALLENGE: usize = 1024;
const CHALLENGES: u32 = 10;
/// Waits after a relay had no room for a single subscription: the first, and the longest.
const NO_ROOM: [Duration; 2] = [Duration::from_millis(250), Duration::from_secs(10)];
/// The subscription of events that are awaited by id.
const WATCH: &str = "watch";

/// What is wanted of a relay.
#[derive(Debug)]
pub(super) enum Command {
    /// What it has stored.
    Query { filter: Filter, reply: Reply },
    /// An event, as soon as it has it.
    Watch { id: EventId, urgency: Urgency, reply: oneshot::Sender<Event> },
    /// That it takes an event.
    Send { event: Arc<Event>, reply: oneshot::Sender<Answer> },
    /// All that matches, from now on; replaces the subscription of the same id.
    Subscribe { id: SubscriptionId, filters: Vec<Filter>, queue: EventQueue },
}

/// How a relay is reached.
#[derive(Debug, Clone)]
pub(super) struct Endpoint {
    pub(super) url: String,
    pub(super) reach: Reach,
    pub(super) keys: Keys,
    /// Another connection to the same relay tells the operator how it is doing.
    pub(super) quiet: bool,
    /// Whether the operator named it.
    pub(super) named: bool,
    /// Bytes of answers that may wait, for all relays that share it.
    pub(super) answers: Arc<Semaphore>,
}

#[derive(Debug)]
struct Sending {
    event: Arc<Event>,
    replies: Vec<oneshot::Sender<Answer>>,
    /// Sent again after the relay knew who we are.
    again: bool,
}

/// Ends with its last user, or when it is idle and nobody named it.
pub(super) struct Connection {
    endpoint: Endpoint,
    commands: mpsc::Receiver<Command>,
    state: watch::Sender<RelayState>,
    queries: Queries,
    standing: HashMap<SubscriptionId, OpenSubscription>,
    watched: Watched,
    sending: HashMap<EventId, Sending>,
    unsent: VecDeque<EventId>,
    /// Nothing is asked before.
    hold: Option<Instant>,
    holds: u32,
    /// After the hold, one subscription more than the relay had room for is tried.
    grow: bool,
    /// The event by which we said who we are, until it is answered.
    identity: Option<EventId>,
    /// When a challenge was answered first, and how many were since.
    challenged: (Instant, u32),
}

impl Connection {
    pub(super) fn new(endpoint: Endpoint, commands: mpsc::Receiver<Command>, state: watch::Sender<RelayState>) -> Self {
        let queries = Queries::new(ConnectionLimits::default(), endpoint.answers.clone());
        Self {
            endpoint,
            commands,
            state,
            queries,
            standing: HashMap::new(),
            watched: Watched::default(),
            sending: HashMap::new(),
            unsent: VecDeque::new(),
            hold: None,
            holds: 0,
            grow: false,
            identity: None,
            challenged: (Instant::now(), 0),
        }
    }

    /// Keeps the connection until nobody holds it any more.
    pub(super) async fn run(mut self) {
        let waits = || {
            let [first, longest] = RETRY;
            ExponentialBuilder::default()
                .with_min_delay(first)
                .with_max_delay(longest)
                .with_jitter()
                .without_max_times()
                .build()
        };
        let mut wait = waits();
        let mut away_since = Instant::now();
        loop {
            let endpoint = self.endpoint.clone();
            let dialled = self.offline(away_since, None, async move {
                let checked = network::check_relay(&endpoint.url, endpoint.reach).await?;
                let socket = socket::connect(&checked, endpoint.named).await?;
                Ok::<_, socket::ConnectError>((socket, checked))
            });
            let Some(dialled) = dialled.await else { return };
            let reason = match dialled {
                Ok((socket, checked)) => {
                    self.connected();
                    let begun = Instant::now();
                    let Some(Lost(reason)) = self.online(socket, checked).await else { return };
                    if begun.elapsed() > STEADY {
                        wait = waits();
                    }
                    away_since = Instant::now();
                    reason
                }
                Err(error) => peer_text(&error.to_string()),
            };
            self.disconnected(&reason);
            let pause = wait.next().unwrap_or(RETRY[1]);
            let not_before = Instant::now() + WANTED.min(pause);
            let slept = self.offline(away_since, Some(not_before), tokio::time::sleep(pause));
            if slept.await.is_none() && self.commands.is_closed() {
                return;
            }
        }
    }

    fn connected(&self) {
        let RelayState { url, named, error, .. } = self.state.borrow().clone();
        match (named && !self.endpoint.quiet, error) {
            (true, Some(_)) => tracing::info!(relay = url, "the relay is connected again"),
            _ => tracing::debug!(relay = url, "connected"),
        }
        self.state.send_modify(|state| {
            (state.connected, state.since, state.error) = (true, now(), None);
        });
    }

    fn disconnected(&mut self, reason: &str) {
        self.queries.disconnected();
        self.queries.set_limits(ConnectionLimits::default());
        (self.hold, self.holds, self.grow, self.identity) = (None, 0, false, None);
        for standing in self.standing.values_mut().filter(|standing| standing.opened == Opened::Sent) {
            standing.opened = Opened::Ended;
            standing.deliver(Delivery::Interrupted);
        }
        self.watched.disconnected();
        // Whether it took them is not known; they may be sent again.
        let unsent: HashSet<EventId> = self.unsent.iter().copied().collect();
        let sent: Vec<EventId> = self.sending.keys().filter(|id| !unsent.contains(id)).copied().collect();
        for id in sent {
            self.answer_send(&id, &Answer::Later(format!("the connection was lost: {reason}")));
        }
        let known = self.state.borrow().clone();
        if known.connected || known.error.is_none() {
            match known.named && !self.endpoint.quiet {
                true => tracing::warn!(relay = known.url, reason, "the relay is not connected"),
                false => tracing::debug!(relay = known.url, reason, "the relay is not connected"),
            }
            self.state.send_modify(|state| (state.connected, state.since) = (false, now()));
        }
        self.state.send_modify(|state| state.error = Some(reason.to_owned()));
    }

    /// Takes commands while `work` goes on without a connection. `None`: a command came after `until_wanted`, or
    /// nobody holds the connection any more.
    async fn offline<T>(
        &mut self,
        away_since: Instant,
        until_wanted: Option<Instant>,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let mut work = std::pin::pin!(work);
        let mut tick = tokio::time::interval(TICK);
        loop {
            tokio::select! {
                done = &mut work => return Some(done),
                command = self.commands.recv() => {
                    self.take(command?);
                    if until_wanted.is_some_and(|at| at < Instant::now()) {
                        return None;
                    }
                }
                _ = tick.tick() => {
                    self.forget();
                }
            }
            if away_since.elapsed() > PATIENCE {
                self.give_up_waiting();
            }
        }
    }

    /// Answers all who wait: the relay was away for too long.
    fn give_up_waiting(&mut self) {
        let reason = self.state.borrow().error.clone().unwrap_or_else(|| "it does not answer".to_owned());
        self.queries.fail(&RelayError::NotConnected(reason.clone()));
        self.unsent.clear();
        for id in self.sending.keys().copied().collect::<Vec<_>>() {
            self.answer_send(&id, &Answer::Later(format!("not connected: {reason}")));
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Query { filter, reply } => self.queries.add(filter, reply),
            Command::Watch { id, urgency, reply } => self.watched.add(id, urgency, reply),
            Command::Send { event, reply } => match self.sending.get_mut(&event.id) {
                Some(known) => known.replies.push(reply),
                None => {
                    self.unsent.push_back(event.id);
                    self.sending.insert(event.id, Sending { event, replies: vec![reply], again: false });
                }
            },
            Command::Subscribe { id, filters, queue } => {
                self.standing.insert(id, OpenSubscription::new(filters, queue));
            }
        }
    }

    /// Forgets what nobody waits for. Returns the subscriptions that are open for it.
    fn forget(&mut self) -> Vec<SubscriptionId> {
        let mut over = self.queries.forget_unawaited();
        for (id, standing) in &mut self.standing {
            standing.tell_missed();
            if standing.is_closed() && standing.opened != Opened::Ended {
                over.push(id.clone());
            }
        }
        self.standing.retain(|_, standing| !standing.is_closed());
        self.watched.forget_unawaited();
        self.sending.retain(|_, sending| sending.replies.iter().any(|reply| !reply.is_closed()));
        let sending = &self.sending;
        self.unsent.retain(|id| sending.contains_key(id));
        over
    }

    /// Uses a connection until it is lost. `None`: nobody holds it any more.
    async fn online(&mut self, socket: Socket, checked: CheckedUrl) -> Option<Lost> {
        let (sink, mut incoming) = socket.split();
        let (outgoing, messages) = Outgoing::new(self.endpoint.named);
        let mut helpers = JoinSet::new();
        helpers.spawn(write(sink, messages));
        let (limits, mut stated) = oneshot::channel();
        let mut stated_wanted = true;
        helpers.spawn(async move {
            let _ = limits.send(ConnectionLimits::fetch(checked).await);
        });
        let mut tick = tokio::time::interval(TICK);
        let (mut heard, mut pinged) = (Instant::now(), Instant::now());
        loop {
            let wake = self.next_wake();
            let done = tokio::select! {
                message = incoming.next() => {
                    heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => self.message(&text, &outgoing),
                        Some(Ok(Message::Close(_))) | None => Err(Lost("it closed the connection".into())),
                        Some(Ok(_)) => Ok(()),
                        Some(Err(error)) => Err(Lost(peer_text(&error.to_string()))),
                    }
                }
                command = self.commands.recv() => match command {
                    Some(command) => {
                        self.take(command);
                        // What comes at once is asked at once.
                        while let Ok(command) = self.commands.try_recv() {
                            self.take(command);
                        }
                        Ok(())
                    }
                    None => return None,
                },
                limits = &mut stated, if stated_wanted => {
                    stated_wanted = false;
                    if let Ok(limits) = limits {
                        self.queries.set_limits(limits);
                    }
                    Ok(())
                }
                _ = tick.tick() => {
                    let over = self.forget();
                    let closed = over.into_iter().try_for_each(|id| outgoing.post(&ClientMessage::close(id)));
                    if heard.elapsed() > PING * 2 {
                        Err(Lost("it was silent".into()))
                    } else if pinged.elapsed() > PING {
                        pinged = Instant::now();
                        closed.and(outgoing.put(Message::Ping(Vec::new().into())))
                    } else {
                        closed
                    }
                }
                () = outgoing.ready(), if !self.unsent.is_empty() => Ok(()),
                () = tokio::time::sleep_until(wake.unwrap_or_else(Instant::now)), if wake.is_some() => Ok(()),
            };
            if let Err(lost) = done.and_then(|()| self.ask_and_send(&outgoing)) {
                return Some(lost);
            }
        }
    }

    /// When there is something to send that had to wait.
    fn next_wake(&self) -> Option<Instant> {
        self.hold.into_iter().chain(self.watched.due()).min()
    }

    /// Sends what is due, as far as the relay has room for it.
    fn ask_and_send(&mut self, outgoing: &Outgoing) -> Result<(), Lost> {
        while !outgoing.is_busy()
            && let Some(id) = self.unsent.pop_front()
        {
            if let Some(sending) = self.sending.get(&id) {
                outgoing.post(&ClientMessage::event((*sending.event).clone()))?;
            }
        }
        let at = Instant::now();
        if self.hold.is_some_and(|hold| hold > at) {
            return Ok(());
        }
        self.hold = None;
        let mut limits = self.queries.limits();
        limits.subscriptions += usize::from(std::mem::take(&mut self.grow));
        self.queries.set_limits(limits);
        let mut open = self.standing() + self.queries.open();
        for (id, standing) in &mut self.standing {
            if standing.opened == Opened::Due && open < limits.subscriptions {
                standing.opened = Opened::Sent;
                open += 1;
                outgoing.post(&ClientMessage::req(id.clone(), standing.filters.clone()))?;
            }
        }
        let watch = SubscriptionId::new(WATCH);
        if let Some(filters) = self.watched.changed(at, self.queries.limits().filters) {
            match filters.is_empty() {
                true => outgoing.post(&ClientMessage::close(watch))?,
                false => outgoing.post(&ClientMessage::req(watch, filters))?,
            }
        }
        while let Some((id, filters)) = self.queries.next_subscription(self.standing()) {
            outgoing.post(&ClientMessage::req(id, filters))?;
        }
        Ok(())
    }

    /// Subscriptions that stay open.
    fn standing(&self) -> usize {
        let open = self.standing.values().filter(|standing| standing.opened == Opened::Sent).count();
        open + usize::from(self.watched.is_open())
    }

    fn message(&mut self, text: &str, outgoing: &Outgoing) -> Result<(), Lost> {
        // What nobody would take is not read.
        let size = MessageSize::of(text);
        let too_long = |standing: &OpenSubscription| !standing.takes(size);
        let standing = event_subscription(text).and_then(|id| self.standing.get(&SubscriptionId::new(id)));
        if size.memory > message_size::MOST || standing.is_some_and(too_long) {
            tracing::debug!(relay = self.endpoint.url, bytes = text.len(), "a message that is too long is left out");
            return Ok(());
        }
        let message = match RelayMessage::from_json(text) {
            Ok(message) => message,
            Err(error) => {
                tracing::debug!(relay = self.endpoint.url, %error, "a message that can't be read");
                return Ok(());
            }
        };
        match message {
            RelayMessage::Event { subscription_id, event } => {
                let id = subscription_id.into_owned();
                if let Some(standing) = self.standing.get_mut(&id) {
                    standing.event(event.into_owned(), size);
                } else if id.as_str() == WATCH {
                    self.watched.event(&event);
                } else {
                    self.queries.event(&id, &event, size.memory);
                }
            }
            RelayMessage::EndOfStoredEvents(id) => {
                return self.end_of_stored(id.into_owned(), outgoing);
            }
            RelayMessage::Closed { subscription_id, message } => self.closed(&subscription_id, &peer_text(&message)),
            RelayMessage::Ok { event_id, status, message } if self.identity == Some(event_id) => {
                self.identity = None;
                self.identified(status, &peer_text(&message));
            }
            RelayMessage::Ok { event_id, status, message } => {
                if status {
                    self.answer_send(&event_id, &Answer::Taken);
                } else {
                    self.refused(&event_id, peer_text(&message));
                }
            }
            RelayMessage::Auth { challenge } if challenge.len() > CHALLENGE => {
                tracing::debug!(relay = self.endpoint.url, bytes = challenge.len(), "a challenge that is too long");
            }
            RelayMessage::Auth { challenge } => {
                if self.challenged.0.elapsed() > Duration::from_secs(60) {
                    self.challenged = (Instant::now(), 0);
                }
                self.challenged.1 += 1;
                if self.challenged.1 > CHALLENGES {
                    return Err(Lost("it asks again and again who we are".into()));
                }
                let Ok(url) = RelayUrl::parse(&self.endpoint.url) else { return Ok(()) };
                match EventBuilder::auth(challenge, url).sign_with_keys(&self.endpoint.keys) {
                    Ok(event) => {
                        self.identity = Some(event.id);
                        outgoing.post(&ClientMessage::auth(event))?;
                    }
                    Err(error) => tracing::debug!(relay = self.endpoint.url, %error, "can't say who we are"),
                }
            }
            RelayMessage::Notice(notice) => {
                tracing::debug!(relay = self.endpoint.url, notice = peer_text(&notice), "a notice");
            }
            _ => {}
        }
        Ok(())
    }

    /// The relay has given all it has.
    fn end_of_stored(&mut self, id: SubscriptionId, outgoing: &Outgoing) -> Result<(), Lost> {
        if let Some(standing) = self.standing.get_mut(&id) {
            standing.deliver(Delivery::EndOfStored);
            return Ok(());
        }
        if self.queries.end_of_stored(&id) != Ended::Close {
            return Ok(());
        }
        self.holds = 0;
        outgoing.post(&ClientMessage::close(id))
    }

    /// The relay has ended a subscription.
    fn closed(&mut self, id: &SubscriptionId, reason: &str) {
        let (about_number, about_identity) = (is_about_number(reason), is_about_identity(reason));
        if about_identity {
            self.hold = Some(Instant::now() + AUTHENTICATION);
        }
        if let Some(standing) = self.standing.get_mut(id) {
            if about_number || about_identity {
                standing.opened = Opened::Due;
            } else {
                standing.opened = Opened::Ended;
                standing.deliver(Delivery::Closed(reason.to_owned()));
            }
        } else if id.as_str() == WATCH {
            self.watched.closed(!reason.is_empty());
        } else if self.queries.closed(id, reason) == Ended::Unknown {
            return;
        }
        if about_number {
            tracing::debug!(relay = self.endpoint.url, reason, "the relay has no room for a subscription");
            let open = self.standing() + self.queries.open();
            self.queries.set_limits(ConnectionLimits { subscriptions: open.max(1), ..self.queries.limits() });
            // Without one of ours that will end, time alone makes room.
            if self.queries.is_idle() {
                let [first, longest] = NO_ROOM;
                self.hold = Some(Instant::now() + (first * 2_u32.pow(self.holds.min(8))).min(longest));
                self.holds += 1;
                self.grow = true;
            }
        }
    }

    /// The relay has answered who we are.
    fn identified(&mut self, accepted: bool, reason: &str) {
        if accepted {
            self.hold = None;
            let again = self.sending.iter().filter(|(_, sending)| sending.again).map(|(id, _)| *id);
            self.unsent.extend(again.collect::<Vec<_>>());
            return;
        }
        tracing::debug!(relay = self.endpoint.url, reason, "the relay does not accept who we are");
        self.queries.fail(&RelayError::Refused(reason.to_owned()));
        for id in self.sending.iter().filter(|(_, sending)| sending.again).map(|(id, _)| *id).collect::<Vec<_>>() {
            self.answer_send(&id, &Answer::Later(reason.to_owned()));
        }
    }

    fn refused(&mut self, id: &EventId, reason: String) {
        let Some(sending) = self.sending.get_mut(id) else { return };
        if is_about_identity(&reason) && !sending.again {
            sending.again = true;
            return;
        }
        self.answer_send(id, &answer(reason));
    }

    fn answer_send(&mut self, id: &EventId, answer: &Answer) {
        let Some(sending) = self.sending.remove(id) else { return };
        for reply in sending.replies {
            let _ = reply.send(answer.clone());
        }
    }
}
