//! Tags of one event, read as strictly as the readers of this family read: what is missing, repeated or malformed makes the
//! event nothing at all.

use std::fmt;

use nostr::{Event, EventId, PublicKey, Tag};

/// Bytes of a wrong value that an error shows.
const SHOWN: usize = 80;

/// Why an event is not what its kind says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// Nothing is to stand in it.
    #[error("its content must be empty")]
    Content,
    /// A tag is missing.
    #[error("it has no `{0}` tag")]
    Missing(&'static str),
    /// A tag stands there more often than it may.
    #[error("it has more than one `{0}` tag")]
    Repeated(&'static str),
    /// A tag is there that has no place in it.
    #[error("it must not have a `{0}` tag")]
    Unexpected(String),
    /// A tag says something else than it can mean.
    #[error("its `{tag}` tag is not {expected}: `{value}`")]
    Value {
        /// Name of the tag.
        tag: &'static str,
        /// What is expected, for people.
        expected: &'static str,
        /// What it says, or the beginning of it.
        value: String,
    },
    /// One event is about one repository, by its announcements.
    #[error("its `a` tags name repositories of different identifiers")]
    SeveralRepositories,
    /// A run is of a ref or of a pull request.
    #[error("it names a git ref and a pull request")]
    SeveralContexts,
    /// It offers money.
    #[error("it offers a payment, and this pool takes none: the token is not redeemed, send it without")]
    Payment,
    /// It is about something that this version can't do.
    #[error("{0}")]
    Unsupported(&'static str),
    /// It is addressed to somebody else.
    #[error("it is addressed to another coordinator")]
    NotOurs,
    /// A secret update that can't be opened, or does not say what it should.
    #[error("{0}")]
    Secret(String),
}

impl Malformed {
    /// A value that can't be meant.
    pub(super) fn value(tag: &'static str, expected: &'static str, value: &str) -> Self {
        let value = value.get(..value.floor_char_boundary(SHOWN)).unwrap_or_default().to_owned();
        Self::Value { tag, expected, value }
    }
}

/// Tags of one event.
#[derive(Clone, Copy)]
pub(super) struct EventTags<'a>(&'a Event);

impl<'a> EventTags<'a> {
    pub(super) fn new(event: &'a Event) -> Self {
        Self(event)
    }

    /// The tags of a name, whole.
    pub(super) fn all(self, name: &str) -> impl Iterator<Item = &'a [String]> {
        self.0.tags.iter().map(Tag::as_slice).filter(move |tag| tag.first().is_some_and(|first| first == name))
    }

    /// Values of the tags of a name.
    pub(super) fn values(self, name: &str) -> impl Iterator<Item = &'a str> {
        self.all(name).filter_map(|tag| tag.get(1)).map(String::as_str)
    }

    /// The only tag of a name; `None`: there is none.
    pub(super) fn at_most_one(self, name: &'static str) -> Result<Option<&'a [String]>, Malformed> {
        let mut tags = self.all(name);
        let first = tags.next();
        if tags.next().is_some() { Err(Malformed::Repeated(name)) } else { Ok(first) }
    }

    /// The only tag of a name, which must be there.
    pub(super) fn one(self, name: &'static str) -> Result<&'a [String], Malformed> {
        self.at_most_one(name)?.ok_or(Malformed::Missing(name))
    }

    /// Its value, which must not be empty.
    pub(super) fn value(self, name: &'static str) -> Result<&'a str, Malformed> {
        value_of(name, self.one(name)?)
    }

    /// The same of a tag that may be missing.
    pub(super) fn optional_value(self, name: &'static str) -> Result<Option<&'a str>, Malformed> {
        self.at_most_one(name)?.map(|tag| value_of(name, tag)).transpose()
    }

    /// Nothing may stand in the event's content.
    pub(super) fn without_content(self) -> Result<(), Malformed> {
        if self.0.content.is_empty() { Ok(()) } else { Err(Malformed::Content) }
    }

    /// Tags that have no place in the event.
    pub(super) fn without(self, names: &[&'static str]) -> Result<(), Malformed> {
        match names.iter().find(|name| self.all(name).next().is_some()) {
            Some(name) => Err(Malformed::Unexpected((*name).to_owned())),
            None => Ok(()),
        }
    }

    /// Money is never taken, in no form that it comes in.
    pub(super) fn without_payment(self) -> Result<(), Malformed> {
        if self.without(&["payment", "cashu", "cashu_pubkey", "amount"]).is_err() {
            return Err(Malformed::Payment);
        }
        Ok(())
    }
}

impl fmt::Debug for EventTags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.tags.fmt(f)
    }
}

fn value_of<'a>(name: &'static str, tag: &'a [String]) -> Result<&'a str, Malformed> {
    match tag.get(1).map(String::as_str) {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(Malformed::value(name, "a value", "")),
    }
}

/// A key of 64 hex digits.
pub(super) fn key(tag: &'static str, value: &str) -> Result<PublicKey, Malformed> {
    PublicKey::from_hex(value).map_err(|_| Malformed::value(tag, "a public key (64 hex)", value))
}

/// An event's id of 64 hex digits.
pub(super) fn event_id(tag: &'static str, value: &str) -> Result<EventId, Malformed> {
    EventId::from_hex(value).map_err(|_| Malformed::value(tag, "an event's id (64 hex)", value))
}

/// Whether a text is the id of a git object: 40 or 64 hex digits.
pub(super) fn is_object_id(value: &str) -> bool {
    matches!(value.len(), 40 | 64) && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// Whether a text is a SHA-256: 64 hex digits.
pub(super) fn is_sha256(value: &str) -> bool {
    value.len() == 64 && value.bytes().all(|byte| byte.is_ascii_hexdigit())
}
