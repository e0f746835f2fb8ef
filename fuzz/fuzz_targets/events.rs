//! What a relay sends: an event as text, and the meaning of one whose id and signature were checked before.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use nostr::{Event, EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};
use nostr_client::protocol::{Protocol, ReadContext, hive_ci::HiveCi};

static KEYS: LazyLock<Keys> = LazyLock::new(Keys::generate);
static LIMITS: LazyLock<config::Limits> = LazyLock::new(config::Limits::default);
const NOW: u64 = 1_800_000_000;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Event::from_json(text);
    // Each line is a tag, its fields between tabs; the last one is the content.
    let mut lines: Vec<&str> = text.lines().collect();
    let content = lines.pop().unwrap_or_default();
    let tags: Vec<Tag> = lines.iter().filter_map(|line| Tag::parse(line.split('\t')).ok()).collect();
    let context = ReadContext { keys: &KEYS, limits: &LIMITS, commands: false, now: NOW * 1000 };
    let signed = |kind: u16| {
        let event = EventBuilder::new(Kind::from(kind), content).tags(tags.clone());
        event.custom_created_at(Timestamp::from(NOW)).sign_with_keys(&KEYS).ok()
    };
    for kind in HiveCi.kinds() {
        let Some(event) = signed(*kind) else { return };
        let _ = HiveCi.read(&event, &context);
        let _ = HiveCi.origin(&event);
        let _ = HiveCi.request(&event, Some(&event), &context);
    }
});
