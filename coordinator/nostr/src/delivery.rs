//! Where answers go: our write relays, and in bounded number the job's, the repository's and the author's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use nostr::{Event, Filter, Kind, PublicKey};
use parking_lot::Mutex;

use domain::run::{Millis, RunState};
use store::RelayClass;

use super::{
    Clock,
    protocol::Refusal,
    relays::{Relays, normal},
    tags,
};

/// At most so many relays of others get an event.
const OTHERS: usize = 12;
/// At most so many read relays of an author.
const OF_AUTHOR: usize = 4;
/// An author's relay list is asked for again after this time (ms).
const FRESH: Millis = 3_600_000;
/// Authors remembered.
const AUTHORS: usize = 10_000;
/// How long relays may take to answer.
const WAIT: Duration = Duration::from_secs(5);

/// How far a refusal goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// To all relays of an answer.
    Everywhere,
    /// To our own relays: its author may not run here, or sends too much. Nothing that such an author names is dialled.
    OwnRelays,
}

/// Finds the relays of an answer. Clones share what is known.
#[derive(Debug, Clone)]
pub struct DeliveryPlan {
    relays: Relays,
    own: Vec<String>,
    asked: Vec<String>,
    clock: Clock,
    authors: Arc<Mutex<HashMap<String, AuthorRelays>>>,
}

/// The relays that an author reads, as they were at a time.
#[derive(Debug, Clone)]
struct AuthorRelays {
    read: Vec<String>,
    at: Millis,
}

impl DeliveryPlan {
    /// `config` names our own relays.
    pub fn new(relays: Relays, config: &config::Relays, clock: Clock) -> Self {
        let own = config.write.iter().filter_map(|url| normal(url)).collect();
        let asked = config.read.iter().chain(&config.index).chain(&config.lookup).cloned().collect();
        Self { relays, own, asked, clock, authors: Arc::default() }
    }

    /// Our write relays alone.
    pub fn own(&self) -> Vec<(String, RelayClass)> {
        self.own.iter().map(|url| (url.clone(), RelayClass::Own)).collect()
    }

    /// The relays of an answer about a run: those that its request names, its repository's, and its author's. Waits for
    /// nothing: an author whose relay list (NIP-65) is unknown is looked up for the next answer.
    pub fn of_run(&self, run: &RunState) -> Vec<(String, RelayClass)> {
        let (named, read) = match run.request.origin.nostr() {
            Some(origin) => (origin.relays.as_slice(), self.read_relays(&origin.author)),
            None => (&[][..], Vec::new()),
        };
        let announced = run.planned.as_ref().map(|planned| planned.relays.as_slice()).unwrap_or_default();
        self.merge(named.iter().chain(announced).chain(&run.request.repository.relays).chain(&read))
    }

    /// The relays of what is said of a repository, which is published on these.
    pub fn of_repository(&self, relays: &[String]) -> Vec<(String, RelayClass)> {
        self.merge(relays.iter())
    }

    /// The relays of a refusal.
    pub fn of_refusal(&self, refusal: &Refusal, audience: Audience) -> Vec<(String, RelayClass)> {
        match audience {
            Audience::OwnRelays => self.own(),
            Audience::Everywhere => {
                let read = self.read_relays(&refusal.origin.author);
                self.merge(refusal.origin.relays.iter().chain(&read))
            }
        }
    }

    /// These relays as far as they may be sent to, in bounded number; none of them has to take an event.
    pub fn others<'a>(&self, urls: impl Iterator<Item = &'a String>) -> Vec<(String, RelayClass)> {
        self.add_others(Vec::new(), urls)
    }

    fn merge<'a>(&self, others: impl Iterator<Item = &'a String>) -> Vec<(String, RelayClass)> {
        self.add_others(self.own(), others)
    }

    fn add_others<'a>(
        &self,
        mut all: Vec<(String, RelayClass)>,
        others: impl Iterator<Item = &'a String>,
    ) -> Vec<(String, RelayClass)> {
        let most = all.len() + OTHERS;
        for url in others.filter_map(|url| self.relays.usable(url)) {
            if all.len() >= most {
                break;
            }
            if !all.iter().any(|(known, _)| *known == url) {
                self.relays.open_lane(&url);
                all.push((url, RelayClass::Other));
            }
        }
        all
    }

    fn read_relays(&self, author: &str) -> Vec<String> {
        let now = (self.clock)();
        let mut authors = self.authors.lock();
        let known = authors.get(author).cloned();
        if known.as_ref().is_none_or(|known| known.at + FRESH < now) {
            if authors.len() >= AUTHORS {
                authors.clear();
            }
            let read = known.as_ref().map(|known| known.read.clone()).unwrap_or_default();
            authors.insert(author.to_owned(), AuthorRelays { read, at: now });
            tokio::spawn(self.clone().look_up(author.to_owned()));
        }
        known.map(|known| known.read).unwrap_or_default()
    }

    async fn look_up(self, author: String) {
        let Ok(key) = PublicKey::from_hex(&author) else { return };
        let filter = Filter::new().kind(Kind::RelayList).author(key);
        let found = self.relays.fetch(&self.asked, &filter, WAIT).await;
        let Some(newest) = newest(found, &key) else { return };
        let read = read_relays(&newest);
        let at = (self.clock)();
        self.authors.lock().insert(author, AuthorRelays { read, at });
    }
}

/// The newest of replaceable events by `author`; of equally old ones the lowest id (NIP-01).
pub(super) fn newest(events: Vec<Event>, author: &PublicKey) -> Option<Event> {
    let by_author = events.into_iter().filter(|event| event.pubkey == *author);
    by_author.max_by(|a, b| a.created_at.cmp(&b.created_at).then_with(|| b.id.cmp(&a.id)))
}

/// Relays an author reads (NIP-65): `r` tags without a marker, or with `read`.
fn read_relays(list: &Event) -> Vec<String> {
    let read = tags::all(list, "r").filter(|tag| tag.get(2).is_none_or(|marker| marker == "read"));
    read.filter_map(|tag| tag.get(1)).filter_map(|url| normal(url)).take(OF_AUTHOR).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys, Tag, Timestamp};

    use super::*;

    fn list(keys: &Keys, at: u64, tags: &[&[&str]]) -> Event {
        EventBuilder::new(Kind::RelayList, "")
            .tags(tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()))
            .custom_created_at(Timestamp::from(at))
            .sign_with_keys(keys)
            .unwrap()
    }

    #[test]
    fn an_authors_read_relays_are_those_without_marker_or_marked_read() {
        let keys = Keys::generate();
        let event = list(
            &keys,
            1,
            &[
                &["r", "wss://a.example/"],
                &["r", "wss://b.example", "write"],
                &["r", "wss://c.example", "read"],
                &["r", "nonsense"],
            ],
        );
        assert_eq!(read_relays(&event), ["wss://a.example", "wss://c.example"]);
        let newer = list(&keys, 2, &[]);
        let foreign = list(&Keys::generate(), 3, &[]);
        assert_eq!(newest(vec![event, newer.clone(), foreign], &keys.public_key()), Some(newer));
    }

    #[tokio::test]
    async fn others_are_capped_and_our_own_come_first() {
        let config = config::Relays { write: vec!["wss://own.example/".into()], ..config::Relays::default() };
        let plan = DeliveryPlan::new(Relays::new(&Keys::generate(), &config), &config, || 0);
        let many: Vec<String> = (0..40).map(|n| format!("wss://r{n}.example")).chain(["http://x".into()]).collect();
        let to = plan.merge(many.iter().chain(["wss://own.example".to_owned()].iter()));
        assert_eq!(to.len(), 1 + OTHERS);
        assert_eq!(to[0], ("wss://own.example".to_owned(), RelayClass::Own));
        assert!(to[1..].iter().all(|(_, class)| *class == RelayClass::Other));
    }

    #[tokio::test]
    async fn attack_60_no_delivery_is_made_for_a_relay_that_cannot_be_public() {
        let config = config::Relays { write: vec!["ws://127.0.0.1:7".into()], ..config::Relays::default() };
        let plan = DeliveryPlan::new(Relays::new(&Keys::generate(), &config), &config, || 0);
        let hostile = ["ws://127.0.0.1:22", "wss://localhost", "ws://169.254.169.254", "wss://db.internal"];
        let to = plan.merge(hostile.map(str::to_owned).iter());
        assert_eq!(to, [("ws://127.0.0.1:7".to_owned(), RelayClass::Own)]);
    }
}
