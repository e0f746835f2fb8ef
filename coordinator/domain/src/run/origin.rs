//! What a run was asked for by, as far as its answers, its pages and its stored row need it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// Who asked, and what answering needs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", from = "StoredOrigin")]
pub enum RequestOrigin {
    /// Events of a protocol on Nostr.
    Nostr(Box<NostrOrigin>),
    /// Something that happened to a repository which is followed.
    Trigger(Box<TriggerOrigin>),
    /// The coordinator's own API.
    #[default]
    Api,
}

impl RequestOrigin {
    /// The events that asked; `None`: it came another way.
    pub fn nostr(&self) -> Option<&NostrOrigin> {
        match self {
            Self::Nostr(origin) => Some(origin),
            Self::Trigger(_) | Self::Api => None,
        }
    }
}

/// What happened that started a run without anybody asking for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TriggerOrigin {
    /// The event that told of it: a repository's state (30618), for example. `None`: a time came.
    pub event: Option<OriginEvent>,
    /// Relays of the repository.
    pub relays: Vec<String>,
}

impl From<TriggerOrigin> for RequestOrigin {
    fn from(origin: TriggerOrigin) -> Self {
        Self::Trigger(Box::new(origin))
    }
}

impl From<NostrOrigin> for RequestOrigin {
    fn from(origin: NostrOrigin) -> Self {
        Self::Nostr(Box::new(origin))
    }
}

/// The events that asked for a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NostrOrigin {
    /// Name of the protocol that read them and makes the answers.
    pub protocol: String,
    /// The event that asks: its deletion is a cancel, and answers name it.
    pub request: OriginEvent,
    /// The event that describes the run, where that is another one.
    pub run: Option<OriginEvent>,
    /// Author of both, 64 hex.
    pub author: String,
    /// The key that signs the run's result, where its secret came and fits.
    pub publisher: Option<String>,
    /// Relays that the events name.
    pub relays: Vec<String>,
    /// What else the protocol's answers need; nobody else reads it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

impl NostrOrigin {
    /// The event by which a rerun names the run.
    pub fn run_event(&self) -> &OriginEvent {
        self.run.as_ref().unwrap_or(&self.request)
    }
}

/// An event that asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginEvent {
    /// Its kind.
    pub kind: u16,
    /// Its id, 64 hex.
    pub id: String,
}

/// An origin in any form that was ever stored.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind")]
enum StoredOrigin {
    Nostr(Box<NostrOrigin>),
    Trigger(Box<TriggerOrigin>),
    Api,
    #[serde(untagged)]
    Pair(Box<PairOrigin>),
}

/// The form of earlier versions, whose only protocol made a run of two events: its name stood as the kind.
#[derive(Deserialize)]
struct PairOrigin {
    kind: String,
    run_event: String,
    job_event: String,
    author: String,
    publisher: Option<String>,
    relays: Vec<String>,
    #[serde(flatten)]
    details: Map<String, Value>,
}

impl From<StoredOrigin> for RequestOrigin {
    fn from(stored: StoredOrigin) -> Self {
        match stored {
            StoredOrigin::Nostr(origin) => Self::Nostr(origin),
            StoredOrigin::Trigger(origin) => Self::Trigger(origin),
            StoredOrigin::Api => Self::Api,
            StoredOrigin::Pair(pair) => Self::from(NostrOrigin {
                protocol: pair.kind,
                request: OriginEvent { kind: 5100, id: pair.job_event },
                run: Some(OriginEvent { kind: 5401, id: pair.run_event }),
                author: pair.author,
                publisher: pair.publisher,
                relays: pair.relays,
                details: pair.details.into(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use serde_json::json;

    use super::*;

    fn read(stored: Value) -> RequestOrigin {
        serde_json::from_value(stored).unwrap()
    }

    #[test]
    fn an_origin_that_an_earlier_version_stored_is_read_whatever_its_protocol_added() {
        let origin = read(json!({
            "kind": "pairs", "run_event": "r", "job_event": "j", "author": "a", "publisher": null,
            "workflow": "ci.yml", "relays": ["wss://relay.example"],
        }));
        let expected = NostrOrigin {
            protocol: "pairs".into(),
            request: OriginEvent { kind: 5100, id: "j".into() },
            run: Some(OriginEvent { kind: 5401, id: "r".into() }),
            author: "a".into(),
            publisher: None,
            relays: vec!["wss://relay.example".into()],
            details: json!({"workflow": "ci.yml"}),
        };
        assert_eq!(origin, expected.into());
    }

    #[test]
    fn an_origin_is_read_as_it_was_written() {
        let alone = NostrOrigin {
            protocol: "single".into(),
            request: OriginEvent { kind: 1, id: "e".into() },
            run: None,
            author: "a".into(),
            publisher: Some("p".into()),
            relays: Vec::new(),
            details: Value::Null,
        };
        assert_eq!(alone.run_event().id, "e");
        let with_details = NostrOrigin { details: json!({"kind": 1}), ..alone.clone() };
        let event = Some(OriginEvent { kind: 30618, id: "s".into() });
        let trigger = TriggerOrigin { event, relays: vec!["wss://relay.example".into()] };
        for origin in [RequestOrigin::Api, alone.into(), with_details.into(), trigger.into()] {
            assert_eq!(read(serde_json::to_value(&origin).unwrap()), origin);
        }
        assert!(serde_json::from_value::<RequestOrigin>(json!({"kind": "nostr"})).is_err());
    }
}
