//! How the clients of Hive CI and NIP-C1 read our events and logs, written from the description of their behaviour and apart from
//! the product's code.

pub mod act_log;
pub mod ad;
pub mod bah;
pub mod gg;
pub mod ngit;
pub mod ui;
pub mod watch;

use nostr::{Event, Tag};

/// Values of the first tag of this name, without the name.
fn first<'a>(event: &'a Event, name: &str) -> Option<&'a [String]> {
    event.tags.iter().map(Tag::as_slice).find(|tag| tag.first().is_some_and(|n| n == name)).and_then(|tag| tag.get(1..))
}

/// Value of the first tag of this name.
pub(crate) fn value<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    first(event, name)?.first().map(String::as_str)
}

/// First values of all tags of this name.
pub(crate) fn values<'a>(event: &'a Event, name: &str) -> Vec<&'a str> {
    let tags = event.tags.iter().map(Tag::as_slice).filter(|tag| tag.first().is_some_and(|n| n == name));
    tags.filter_map(|tag| tag.get(1)).map(String::as_str).collect()
}

/// Whether the last path segment of an https URL is exactly 64 hex digits.
fn is_hash_url(url: &str) -> bool {
    let segment = url.strip_prefix("https://").and_then(|rest| rest.rsplit_once('/')).map(|(_, segment)| segment);
    segment.is_some_and(|segment| segment.len() == 64 && segment.bytes().all(|b| b.is_ascii_hexdigit()))
}
