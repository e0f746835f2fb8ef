//! Secret updates: what they may say, for which key, and in which order.

use nostr::nips::nip44;
use secrecy::ExposeSecret;

use super::*;

/// A maintainer with keys to encrypt for, and what they send.
struct Fixture {
    us: Keys,
    by: Keys,
    keys: SecretsKeys,
    recipient: PublicKey,
    advertisement: EventId,
}

impl Fixture {
    fn new() -> Self {
        let mut keys = SecretsKeys::default();
        let recipient = keys.current(NOW);
        let advertisement = EventId::from_byte_array([7; 32]);
        keys.advertised(advertisement, NOW, NOW + LONGEST_ADVERTISED);
        Self { us: Keys::generate(), by: Keys::generate(), keys, recipient, advertisement }
    }

    fn text(&self, at: u64, set: &serde_json::Value, remove: &[&str]) -> String {
        let author = self.by.public_key().to_hex();
        serde_json::json!({"author": author, "created_at": at, "set": set, "remove": remove}).to_string()
    }

    fn sent(&self, text: &str, at: u64, change: impl FnOnce(Vec<Vec<String>>) -> Vec<Vec<String>>) -> Event {
        let sender = Keys::generate();
        let sealed = nip44::encrypt(sender.secret_key(), &self.recipient, text, nip44::Version::V2).unwrap();
        let tags = vec![
            tag(&["a", &address(&self.by)]),
            tag(&["p", &self.us.public_key().to_hex()]),
            tag(&["e", &self.advertisement.to_hex(), "", "secrets-key"]),
            tag(&["sender", &sender.public_key().to_hex()]),
            tag(&["recipient", &self.recipient.to_hex()]),
            tag(&["encryption", "nip44-v2"]),
        ];
        signed_at(&self.by, SECRET_UPDATE, &change(tags), at, &sealed)
    }

    fn read(&self, event: &Event) -> Result<SecretUpdate, Malformed> {
        self.keys.read(event, &self.us.public_key())
    }

    /// An update at a time, read.
    fn update(&self, at: u64, set: &serde_json::Value, remove: &[&str]) -> SecretUpdate {
        self.read(&self.sent(&self.text(at, set, remove), at, |tags| tags)).unwrap()
    }

    fn refused(&self, text: &str) -> String {
        self.read(&self.sent(text, NOW, |tags| tags)).unwrap_err().to_string()
    }
}

#[test]
fn an_update_is_read_with_the_key_that_its_advertisement_named() {
    let of = Fixture::new();
    let update = of.update(NOW, &serde_json::json!({"TOKEN": "value"}), &["OLD"]);
    assert_eq!(update.set["TOKEN"].expose_secret(), "value");
    assert_eq!(update.remove, ["OLD"]);
    assert_eq!(update.repository.address(), address(&of.by));
    assert!(!format!("{update:?}").contains("value"), "nothing prints it");
}

#[test]
fn t75_an_update_whose_text_is_of_another_author_or_time_is_refused() {
    let of = Fixture::new();
    let text = of.text(NOW, &serde_json::json!({"TOKEN": "value"}), &[]);
    let other = text.replace(&of.by.public_key().to_hex(), &of.us.public_key().to_hex());
    assert!(of.refused(&other).contains("another author or time"));
    // Signed again later, it would be newer than what was said meanwhile.
    let later = of.sent(&text, NOW + 5, |tags| tags);
    assert!(of.read(&later).unwrap_err().to_string().contains("another author or time"));
}

#[test]
fn an_update_has_the_tags_that_bind_it_and_no_others() {
    let of = Fixture::new();
    let text = of.text(NOW, &serde_json::json!({"TOKEN": "value"}), &[]);
    let refused = |change: &dyn Fn(Vec<Vec<String>>) -> Vec<Vec<String>>| {
        of.read(&of.sent(&text, NOW, change)).unwrap_err().to_string()
    };
    let stranger = Keys::generate();
    let replaced = |name: &'static str, by: Vec<String>| {
        move |tags: Vec<Vec<String>>| without(&tags, name).into_iter().chain([by.clone()]).collect::<Vec<_>>()
    };
    for name in ["a", "p", "e", "sender", "recipient", "encryption"] {
        assert!(refused(&|tags| without(&tags, name)).contains("it has no"), "{name}");
        let twice = |tags: Vec<Vec<String>>| {
            let again = tags.iter().find(|tag| tag[0] == name).cloned();
            tags.into_iter().chain(again).collect::<Vec<_>>()
        };
        assert!(refused(&twice).contains("more than one"), "{name}");
    }
    assert!(refused(&|tags| with(&tags, &["alt", "secrets"])).contains("must not have a `alt`"));
    assert!(refused(&replaced("a", tag(&["a", &address(&stranger)]))).contains("key that signed"));
    assert_eq!(refused(&replaced("p", tag(&["p", &stranger.public_key().to_hex()]))), Malformed::NotOurs.to_string());
    assert!(
        refused(&replaced("recipient", tag(&["recipient", &stranger.public_key().to_hex()]))).contains("not there")
    );
    assert!(refused(&replaced("sender", tag(&["sender", &stranger.public_key().to_hex()]))).contains("decrypted"));
    assert!(refused(&replaced("e", tag(&["e", SHA256, "", "secrets-key"]))).contains("not there"));
    assert!(refused(&replaced("e", tag(&["e", &of.advertisement.to_hex()]))).contains("secrets-key"));
    assert!(refused(&replaced("encryption", tag(&["encryption", "nip04"]))).contains("nip44-v2"));
}

#[test]
fn names_and_values_of_an_update_are_bounded() {
    let of = Fixture::new();
    let many: serde_json::Map<String, serde_json::Value> = (0..101).map(|n| (format!("N{n}"), "v".into())).collect();
    for (set, remove, why) in [
        (serde_json::json!({}), &[][..], "neither sets nor removes"),
        (serde_json::json!({"A": "v"}), &["A"][..], "sets and removes A"),
        (serde_json::json!({"lower": "v"}), &[][..], "no name"),
        (serde_json::json!({"1A": "v"}), &[][..], "no name"),
        (serde_json::json!({"GITHUB_TOKEN": "v"}), &[][..], "no name"),
        (serde_json::json!({}), &["NGIT_CI_TRIGGER"][..], "no name"),
        (serde_json::json!({"A": ""}), &[][..], "0 bytes"),
        (serde_json::json!({"A": "v".repeat(16_385)}), &[][..], "16385 bytes"),
        (serde_json::Value::Object(many), &[][..], "more than 100"),
        (serde_json::json!({"WORKFLOW_SECRETS_DECRYPTION_BUNKER": "bunker://"}), &[][..], "not supported"),
    ] {
        let reason = of.refused(&of.text(NOW, &set, remove));
        assert!(reason.contains(why), "{why}: {reason}");
    }
    let more = of.text(NOW, &serde_json::json!({"A": "v"}), &[]).replace("\"set\"", "\"extra\":1,\"set\"");
    assert!(of.refused(&more).contains("is not an object"));
    assert!(of.refused("secret text").contains("is not an object"), "the text itself is not shown");
}

#[test]
fn keys_turn_over_within_a_day_and_go_when_nothing_can_be_meant_for_them() {
    let mut of = Fixture::new();
    let text = |of: &Fixture, at| of.text(at, &serde_json::json!({"A": "v"}), &[]);
    assert_eq!(of.keys.current(NOW + 600), of.recipient, "a new advertisement is no new key");
    let late = of.sent(&text(&of, NOW + LONGEST_ADVERTISED), NOW + LONGEST_ADVERTISED, |tags| tags);
    assert!(of.read(&late).unwrap_err().to_string().contains("not made while"));
    let early = of.sent(&text(&of, NOW - 1), NOW - 1, |tags| tags);
    assert!(of.read(&early).is_err());
    let good = of.sent(&text(&of, NOW + 10), NOW + 10, |tags| tags);
    // A day later there is another, which has to be another before any advertisement of it could be older than a day.
    assert_ne!(of.keys.current(NOW + 86_400 - LONGEST_ADVERTISED), of.recipient);
    assert!(of.read(&good).is_err(), "the first one's advertisement expired long ago");
    let mut of = Fixture::new();
    let good = of.sent(&text(&of, NOW + 10), NOW + 10, |tags| tags);
    of.keys.current(NOW + LONGEST_ADVERTISED + 60);
    assert!(of.read(&good).is_ok(), "it may be on its way for a minute");
    of.keys.current(NOW + LONGEST_ADVERTISED + 61);
    assert!(of.read(&good).is_err());
}
