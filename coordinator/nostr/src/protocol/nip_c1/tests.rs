#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod of_run;
mod reading;
mod secrets;
mod writing;

use nostr::{Event, EventBuilder, EventId, JsonUtil, Keys, Kind, PublicKey, Tag, Timestamp};

use super::*;
use crate::protocol::Draft;

const NOW: u64 = 1_780_000_000;
const COMMIT: &str = "1111111111111111111111111111111111111111";
const SHA256: &str = "2222222222222222222222222222222222222222222222222222222222222222";
const PATH: &str = ".ngit/act/workflows/ci.yml";

/// An event of a kind with these tags.
fn signed(keys: &Keys, kind: u16, tags: &[Vec<String>]) -> Event {
    signed_at(keys, kind, tags, NOW, "")
}

fn signed_at(keys: &Keys, kind: u16, tags: &[Vec<String>], at: u64, content: &str) -> Event {
    EventBuilder::new(Kind::from(kind), content)
        .tags(tags.iter().map(|tag| Tag::parse(tag).unwrap()))
        .allow_self_tagging()
        .custom_created_at(Timestamp::from(at))
        .sign_with_keys(keys)
        .unwrap()
}

fn tag(values: &[&str]) -> Vec<String> {
    values.iter().map(|value| (*value).to_owned()).collect()
}

/// `tags` without those of a name.
fn without(tags: &[Vec<String>], name: &str) -> Vec<Vec<String>> {
    tags.iter().filter(|tag| tag[0] != name).cloned().collect()
}

/// `tags` with one more.
fn with(tags: &[Vec<String>], more: &[&str]) -> Vec<Vec<String>> {
    tags.iter().cloned().chain([tag(more)]).collect()
}

fn address(keys: &Keys) -> String {
    format!("30617:{}:my-repo", keys.public_key())
}
