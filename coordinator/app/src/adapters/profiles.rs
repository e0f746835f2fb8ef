//! Names of people, from their profiles (kind 0): looked up on the operator's relays in the background, and kept in memory.

use std::{collections::HashMap, sync::Arc, time::Duration};

use moka::sync::Cache;
use nostr::{Event, Filter, Kind, PublicKey};
use nostr_client::relays::{Relays, normal};
use serde::Deserialize;
use tokio::sync::mpsc;

/// Keys whose names are kept.
const KEPT: u64 = 10_000;
/// How long a name is believed, and how long it is before somebody without one is asked for again.
const FRESH: Duration = Duration::from_secs(3600);
const AGAIN: Duration = Duration::from_secs(300);
/// Keys that are asked for at once, and that may wait for it. Further ones are asked for when they are shown again.
const AT_ONCE: usize = 100;
const WAITING: usize = 500;
/// How long relays may take.
const LOOK_UP: Duration = Duration::from_secs(8);
/// Longest profile that is read, in bytes.
const LONGEST: usize = 64 * 1024;
/// Most characters of a name.
const NAME: usize = 40;

/// Names by key. Clones share them.
#[derive(Clone)]
pub(crate) struct Profiles {
    names: Cache<PublicKey, Arc<str>>,
    /// Those that were asked for lately.
    asked: Cache<PublicKey, ()>,
    wanted: mpsc::Sender<PublicKey>,
}

/// What a profile says, as far as it is read.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Metadata {
    display_name: Option<String>,
    name: Option<String>,
}

impl Profiles {
    /// Looks names up on these relays, until the last clone is gone.
    pub(crate) fn new(relays: Relays, config: &config::Relays) -> Self {
        let names = Cache::builder().max_capacity(KEPT).time_to_live(FRESH).build();
        let asked = Cache::builder().max_capacity(KEPT).time_to_live(AGAIN).build();
        let (wanted, queue) = mpsc::channel(WAITING);
        let urls = config.lookup.iter().chain(&config.index).chain(&config.read).filter_map(|url| normal(url));
        let mut urls: Vec<String> = urls.collect();
        urls.sort();
        urls.dedup();
        tokio::spawn(look_up(relays, urls, names.clone(), queue));
        Self { names, asked, wanted }
    }

    /// The names that are known; the others are asked for, to be known the next time.
    pub(crate) fn names(&self, keys: &[&str]) -> HashMap<String, String> {
        let mut found = HashMap::new();
        for key in keys {
            let Ok(public) = PublicKey::from_hex(key) else { continue };
            if let Some(name) = self.names.get(&public) {
                found.insert((*key).to_owned(), name.to_string());
            } else if !self.asked.contains_key(&public) && self.wanted.try_send(public).is_ok() {
                // Where too many wait, the next page asks again.
                self.asked.insert(public, ());
            }
        }
        found
    }
}

async fn look_up(
    relays: Relays,
    urls: Vec<String>,
    names: Cache<PublicKey, Arc<str>>,
    mut queue: mpsc::Receiver<PublicKey>,
) {
    let mut keys = Vec::new();
    while queue.recv_many(&mut keys, AT_ONCE).await > 0 {
        let filter = Filter::new().kind(Kind::Metadata).authors(keys.drain(..));
        let mut newest: HashMap<PublicKey, Event> = HashMap::new();
        for event in relays.fetch(&urls, &filter, LOOK_UP).await {
            let known = newest.get(&event.pubkey);
            if known.is_none_or(|known| known.created_at < event.created_at) {
                newest.insert(event.pubkey, event);
            }
        }
        for (key, event) in newest {
            if let Some(name) = name(&event.content) {
                names.insert(key, name.into());
            }
        }
    }
}

/// The name that a profile gives, in one line.
fn name(content: &str) -> Option<String> {
    let metadata: Metadata = serde_json::from_str(content.get(..).filter(|text| text.len() <= LONGEST)?).ok()?;
    let clean = |text: String| {
        let letters = text.chars().filter(|letter| !letter.is_control() && !turns_or_hides(*letter));
        letters.take(NAME).collect::<String>().trim().to_owned()
    };
    [metadata.display_name, metadata.name].into_iter().flatten().map(clean).find(|name| !name.is_empty())
}

/// Letters that change the direction of the text around them, or that nobody sees: a name could hide another in them.
fn turns_or_hides(letter: char) -> bool {
    matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::{EventBuilder, Keys, Timestamp};
    use nostr_client::relays::Answer;
    use nostr_relay_builder::{LocalRelay, RelayBuilder};

    use super::*;

    #[test]
    fn a_name_is_one_line_of_what_the_profile_says() {
        let cases = [
            (r#"{"name":"ann","display_name":"Ann B."}"#, Some("Ann B.")),
            (r#"{"name":"ann","display_name":"  "}"#, Some("ann")),
            ("{\"name\":\"a\\u202enn\\n\"}", Some("ann")),
            (r#"{"name":7}"#, None),
            ("no profile", None),
        ];
        for (content, expected) in cases {
            assert_eq!(name(content).as_deref(), expected, "{content}");
        }
        assert_eq!(name(&format!("{{\"name\":\"{}\"}}", "ä".repeat(100))).unwrap().chars().count(), NAME);
    }

    #[tokio::test]
    async fn names_are_asked_for_once_and_known_from_then_on() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let relay = LocalRelay::new(RelayBuilder::default());
        relay.run().await.unwrap();
        let url = relay.url().await.to_string();
        let setup = config::Relays { allow_private: true, read: vec![url.clone()], ..config::Relays::default() };
        let (keys, other) = (Keys::generate(), Keys::generate());
        let relays = Relays::new(&keys, &setup);
        for (text, at) in [(r#"{"name":"old"}"#, 100), (r#"{"name":"Ann"}"#, 200)] {
            let event = EventBuilder::new(Kind::Metadata, text).custom_created_at(Timestamp::from(at));
            let event = event.sign_with_keys(&keys).unwrap();
            assert_eq!(relays.send(&url, &event).await, Answer::Taken);
        }
        let profiles = Profiles::new(relays, &setup);
        let (known, unknown) = (keys.public_key().to_hex(), other.public_key().to_hex());
        let until = std::time::Instant::now() + LOOK_UP;
        while profiles.names(&[&known, &unknown, "no key"]).is_empty() && std::time::Instant::now() < until {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(profiles.names(&[&known, &unknown]), HashMap::from([(known, "Ann".to_owned())]));
    }
}
