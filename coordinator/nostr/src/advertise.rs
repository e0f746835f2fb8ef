//! The pool's advertisement (10100), its relay list (10002), and what it offers to repositories (19843, 19844): how clients find
//! us and see that we are alive.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use nostr::{Event, EventBuilder, Keys, Kind, PublicKey, Tag, TagKind, Timestamp};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use config::Config;

use super::{
    Clock,
    protocol::nip_c1::{self, LONGEST_ADVERTISED, SecretsKeys, ServiceOffer},
    relays::{Answer, Relays, normal},
    tags::tag,
};

/// Advertisement of a pool.
pub const ADVERTISEMENT: u16 = 10100;
/// Clients take a pool for gone after five minutes without a new advertisement.
const EVERY: Duration = Duration::from_secs(90);
/// What is offered to repositories lives for half an hour.
const OFFERED: Duration = Duration::from_secs(15 * 60);
/// A change is told after this, with those that follow it at once.
const DEBOUNCE: Duration = Duration::from_secs(3);
/// Relays that are named for secrets.
const INBOXES: usize = 8;
/// How long a relay may take.
const WAIT: Duration = Duration::from_secs(20);
/// What clients look for before they offer a pool, with the versions whose behaviour we follow.
const SOFTWARE: [(&str, &str); 4] = [("act", "0.2.89"), ("git", "2.45"), ("docker", "27"), ("loom-ci", "1")];

/// What changes in an advertisement.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PoolLoad {
    /// Slots of all workers.
    pub slots: u32,
    /// Jobs that wait.
    pub queued: u32,
}

/// A price, as every client reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Price {
    /// URL of the mint.
    pub mint: String,
    /// Sat for a second.
    pub rate: u64,
}

/// The advertisement, unsigned. A pool without a price has no price tag: some clients take a rate of 0 for malformed.
pub fn advertisement(config: &Config, load: PoolLoad, price: Option<&Price>) -> EventBuilder {
    let content = serde_json::json!({
        "name": config.name,
        "description": config.description,
        "max_concurrent_jobs": load.slots,
        "current_queue_depth": load.queued,
    });
    let architecture = std::env::consts::ARCH;
    let mut tags = vec![tag("A", architecture)];
    tags.extend(SOFTWARE.iter().map(|(name, version)| list("S", &[name, version, ""])));
    if let Some(Price { mint, rate }) = price {
        // One form for two readings: (mint, rate, unit), and (…, rate, unit, mint).
        tags.push(list("price", &[mint, &rate.to_string(), "sat", mint]));
    }
    tags.push(tag("metric", "second"));
    // Clients rank by rate × min_duration; 0 would have no order.
    tags.push(tag("min_duration", "1"));
    tags.push(tag("max_duration", config.policy.max_duration.max(1).to_string()));
    tags.extend(config.relays.read.iter().filter_map(|url| normal(url)).map(|url| tag("relay", url)));
    tags.extend(config.policy.list.as_deref().map(|address| tag("freelist_event", address)));
    EventBuilder::new(Kind::from(ADVERTISEMENT), content.to_string()).tags(tags)
}

/// The relay list (NIP-65), unsigned: where we listen and where we write.
pub fn relay_list(config: &Config) -> EventBuilder {
    let of = |urls: &[String]| urls.iter().filter_map(|url| normal(url)).collect::<Vec<_>>();
    let (read, write) = (of(&config.relays.read), of(&config.relays.write));
    let read = read.into_iter().map(|url| list("r", &[&url, "read"]));
    let write = write.into_iter().map(|url| list("r", &[&url, "write"]));
    EventBuilder::new(Kind::RelayList, "").tags(read.chain(write))
}

fn list(name: &str, values: &[&str]) -> Tag {
    Tag::custom(TagKind::custom(name), values.iter().map(|value| (*value).to_owned()))
}

/// Publishes both kinds. They replace their own older versions, so nothing is stored for them.
#[derive(Debug, Clone)]
pub struct Advertiser {
    keys: Keys,
    relays: Relays,
    config: Arc<Config>,
    clock: Clock,
    secrets_keys: Arc<Mutex<SecretsKeys>>,
}

impl Advertiser {
    /// Joins what advertising needs.
    pub fn new(
        keys: Keys,
        relays: Relays,
        config: Arc<Config>,
        clock: Clock,
        secrets_keys: Arc<Mutex<SecretsKeys>>,
    ) -> Self {
        Self { keys, relays, config, clock, secrets_keys }
    }

    /// Publishes relay list and advertisement once. Returns each relay with its answer.
    ///
    /// # Errors
    /// The key can't sign.
    pub async fn announce(&self, load: PoolLoad) -> anyhow::Result<Vec<(String, Answer)>> {
        let both = (self.publish(relay_list(&self.config)), self.publish(advertisement(&self.config, load, None)));
        let (_, answers) = tokio::try_join!(both.0, both.1)?;
        Ok(answers)
    }

    /// Publishes the advertisement again every 90 seconds, and soon after a change, until the sender is gone.
    pub async fn run(&self, mut load: watch::Receiver<PoolLoad>) {
        let mut next = Instant::now() + EVERY;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(next) => {
                    let now = *load.borrow_and_update();
                    if let Err(error) = self.publish(advertisement(&self.config, now, None)).await {
                        tracing::error!("the pool was not advertised: {error:#}");
                    }
                    next = Instant::now() + EVERY;
                }
                changed = load.changed() => match changed {
                    Ok(()) => next = next.min(Instant::now() + DEBOUNCE),
                    Err(_) => return,
                }
            }
        }
    }

    /// Publishes what is offered to repositories (NIP-C1) for as long as something is: again before it expires, and soon
    /// after a change.
    pub async fn run_offers(&self, mut offers: watch::Receiver<Option<ServiceOffer>>) {
        loop {
            let offer = offers.borrow_and_update().clone();
            for event in offer.iter().flat_map(|offer| self.offered(offer)) {
                let sent = async { Ok::<_, anyhow::Error>(self.send(&event?).await) };
                if let Err(error) = sent.await {
                    tracing::error!("what is offered to repositories was not published: {error:#}");
                }
            }
            tokio::select! {
                () = tokio::time::sleep(OFFERED), if offer.is_some() => {}
                changed = offers.changed() => match changed {
                    Ok(()) => tokio::time::sleep(DEBOUNCE).await,
                    Err(_) => return,
                }
            }
        }
    }

    /// What is offered now, with the key that secrets are encrypted for.
    fn offered(&self, offer: &ServiceOffer) -> [anyhow::Result<Event>; 2] {
        let (us, stamp) = (self.keys.public_key(), (self.clock)() / 1000);
        let mut offer = offer.clone();
        offer.offer.secrets_key = self.secrets_key(stamp);
        offer.drafts(&us, stamp).map(|draft| {
            let event = draft.event.sign_with_keys(&self.keys)?;
            if event.kind == Kind::from(nip_c1::ADVERTISEMENT) {
                // Before anybody can answer it.
                self.secrets_keys.lock().advertised(event.id, stamp, stamp + LONGEST_ADVERTISED);
            }
            Ok(event)
        })
    }

    /// For whom secrets are encrypted, and where they are sent; `None`: none are taken.
    fn secrets_key(&self, stamp: u64) -> Option<(PublicKey, Vec<String>)> {
        let inboxes = self.config.relays.read.iter().filter_map(|url| normal(url)).take(INBOXES).collect();
        self.config.nip_c1.requests.then(|| (self.secrets_keys.lock().current(stamp), inboxes))
    }

    async fn publish(&self, event: EventBuilder) -> anyhow::Result<Vec<(String, Answer)>> {
        let event = event.custom_created_at(Timestamp::from((self.clock)() / 1000)).sign_with_keys(&self.keys)?;
        Ok(self.send(&event).await)
    }

    async fn send(&self, event: &Event) -> Vec<(String, Answer)> {
        let urls = self.config.relays.write.iter().chain(&self.config.relays.index);
        let urls: indexmap::IndexSet<String> = urls.filter_map(|url| normal(url)).collect();
        let sent = urls.into_iter().map(|url| async move {
            let answer = tokio::time::timeout(WAIT, self.relays.send(&url, event)).await;
            let answer = answer.unwrap_or_else(|_| Answer::Later("no answer in time".into()));
            (url, answer)
        });
        join_all(sent).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn t56_the_relay_list_names_where_we_listen_and_where_we_write() {
        let mut config = Config::default();
        config.relays.read = vec!["wss://a.example".into(), "wss://b.example/".into()];
        config.relays.write = vec!["wss://b.example".into()];
        let event = relay_list(&config).sign_with_keys(&Keys::generate()).unwrap();
        let tags: Vec<Vec<String>> = event.tags.iter().map(|tag| tag.as_slice().to_vec()).collect();
        assert_eq!(
            tags,
            [["r", "wss://a.example", "read"], ["r", "wss://b.example", "read"], ["r", "wss://b.example", "write"]]
        );
    }
}
