//! A relay over bare websockets: events signed beforehand go in with many in flight, and one subscriber counts them. No
//! client library stands between, so that a floor is the relay's own.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use futures::{SinkExt, StreamExt, future::try_join_all};
use nostr::{Event, JsonUtil};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// Connections that publish at once.
pub const CONNECTIONS: usize = 4;
/// Events without an answer on each of them.
pub const IN_FLIGHT: usize = 32;
/// Longest silence of a relay.
const SILENCE: Duration = Duration::from_secs(120);

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A connection that publishes.
pub struct Publisher {
    socket: Socket,
}

/// A connection with one subscription.
pub struct Subscriber {
    socket: Socket,
}

impl Publisher {
    /// Connects.
    pub async fn connect(relay: &str) -> Result<Self> {
        Ok(Self { socket: connect(relay).await? })
    }

    /// Publishes one event and waits until the relay took it.
    pub async fn publish(&mut self, event: &Event) -> Result<()> {
        self.publish_all(std::slice::from_ref(event)).await
    }

    /// Publishes in this order with [`IN_FLIGHT`] unanswered, until the relay took them all.
    pub async fn publish_all(&mut self, events: &[Event]) -> Result<()> {
        let (mut sent, mut taken) = (0, 0);
        while taken < events.len() {
            while let Some(event) = events.get(sent).filter(|_| sent - taken < IN_FLIGHT) {
                self.socket.feed(Message::text(format!("[\"EVENT\",{}]", event.as_json()))).await?;
                sent += 1;
            }
            self.socket.flush().await?;
            let answer = next(&mut self.socket).await?;
            match answer[0].as_str() {
                Some("OK") if answer[2] == true => taken += 1,
                Some("OK") => bail!("the relay refused an event: {answer}"),
                _ => {}
            }
        }
        Ok(())
    }
}

impl Subscriber {
    /// Subscribes to what comes from now on.
    pub async fn connect(relay: &str, kinds: &[u16]) -> Result<Self> {
        let mut socket = connect(relay).await?;
        let request = json!(["REQ", "bench", { "kinds": kinds, "limit": 0 }]);
        socket.send(Message::text(request.to_string())).await?;
        loop {
            match next(&mut socket).await?[0].as_str() {
                Some("EOSE") => return Ok(Self { socket }),
                Some("CLOSED") => bail!("the relay closed the subscription"),
                _ => {}
            }
        }
    }

    /// The next event, as it came: nothing is verified.
    pub async fn next(&mut self) -> Result<Value> {
        loop {
            let mut message = next(&mut self.socket).await?;
            match message[0].as_str() {
                Some("EVENT") => return Ok(message[2].take()),
                Some("CLOSED") => bail!("the relay closed the subscription: {message}"),
                _ => {}
            }
        }
    }

    /// Collects events until there are as many different ones of each class as wanted; gives all, by id.
    pub async fn collect(
        &mut self,
        mut wanted: HashMap<u64, usize>,
        class: impl Fn(&Value) -> Option<u64>,
    ) -> Result<HashMap<String, Value>> {
        let mut events = HashMap::new();
        while wanted.values().any(|left| *left > 0) {
            let event = self.next().await.with_context(|| format!("still missing, by class: {wanted:?}"))?;
            let (id, class) = (event["id"].as_str().unwrap_or_default().to_owned(), class(&event));
            if events.insert(id, event).is_none()
                && let Some(left) = class.and_then(|class| wanted.get_mut(&class))
            {
                *left = left.saturating_sub(1);
            }
        }
        Ok(events)
    }
}

/// Publishes groups of events, each group in its order and on one connection, over [`CONNECTIONS`].
pub async fn publish_groups(relay: &str, groups: &[Vec<Event>]) -> Result<()> {
    let publish = async |offset: usize| {
        let events: Vec<Event> = groups.iter().skip(offset).step_by(CONNECTIONS).flatten().cloned().collect();
        Publisher::connect(relay).await?.publish_all(&events).await
    };
    try_join_all((0..CONNECTIONS).map(publish)).await.map(drop)
}

/// How long a relay alone takes to pass these events on: from the first one sent until one subscriber has all.
pub async fn pass(relay: &str, groups: &[Vec<Event>]) -> Result<Duration> {
    let mut wanted: HashMap<u64, usize> = HashMap::new();
    for event in groups.iter().flatten() {
        *wanted.entry(event.kind.as_u16().into()).or_default() += 1;
    }
    ensure!(!wanted.is_empty(), "there are no events");
    let kinds: Vec<u16> = wanted.keys().filter_map(|kind| u16::try_from(*kind).ok()).collect();
    let mut subscriber = Subscriber::connect(relay, &kinds).await?;
    let from = Instant::now();
    tokio::try_join!(publish_groups(relay, groups), subscriber.collect(wanted, |event| event["kind"].as_u64()))?;
    Ok(from.elapsed())
}

async fn connect(relay: &str) -> Result<Socket> {
    let (socket, _) = connect_async(relay).await.with_context(|| format!("cannot connect to {relay}"))?;
    if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
        stream.set_nodelay(true)?;
    }
    Ok(socket)
}

async fn next(socket: &mut Socket) -> Result<Value> {
    loop {
        let message = tokio::time::timeout(SILENCE, socket.next()).await.context("the relay is silent")?;
        if let Message::Text(text) = message.context("the relay closed the connection")?? {
            return Ok(serde_json::from_str(&text)?);
        }
    }
}
