//! Tags of an event, read by name and written by name.

use nostr::{Event, EventId, Tag, TagKind};

/// The tags of this name, each as `[name, value, …]`.
pub fn all<'a>(event: &'a Event, name: &'a str) -> impl Iterator<Item = &'a [String]> {
    event.tags.iter().map(Tag::as_slice).filter(move |tag| tag.first().is_some_and(|first| first == name))
}

/// The value of the first tag of this name.
pub fn first<'a>(event: &'a Event, name: &'a str) -> Option<&'a str> {
    all(event, name).next().and_then(|tag| tag.get(1)).map(String::as_str)
}

/// The value of the only tag of this name; `None` where there is none, or more than one.
pub fn only<'a>(event: &'a Event, name: &'a str) -> Option<&'a str> {
    let mut tags = all(event, name);
    let tag = tags.next()?;
    if tags.next().is_some() { None } else { tag.get(1).map(String::as_str) }
}

/// Ids of the events that the `e` tags name; what is no id is left out.
pub fn events(event: &Event) -> impl Iterator<Item = EventId> {
    all(event, "e").filter_map(|tag| EventId::from_hex(tag.get(1)?).ok())
}

/// A tag with one value.
pub fn tag(name: &str, value: impl Into<String>) -> Tag {
    Tag::custom(TagKind::custom(name), [value.into()])
}
