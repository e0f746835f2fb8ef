//! Limits that hold for each event that asks for something, whatever its family: looked at before anything else is read.

use config::Limits;
use domain::run::Millis;
use nostr::Event;

/// Why an event is not read: too many tags or bytes, too far from now, or a sign that nothing can hold.
pub(super) fn out_of_bounds(event: &Event, limits: &Limits, now: Millis) -> Option<String> {
    let seconds = now / 1000;
    let at = event.created_at.as_secs();
    if event.tags.len() > limits.event_tags {
        return Some(format!("the event has {} tags, this pool reads at most {}", event.tags.len(), limits.event_tags));
    }
    let bytes = event.content.len()
        + event.tags.iter().flat_map(|tag| tag.as_slice()).map(|value| value.len() + 3).sum::<usize>();
    if bytes > limits.event_bytes {
        return Some(format!("the event has {bytes} bytes, this pool reads at most {}", limits.event_bytes));
    }
    if at > seconds.saturating_add(limits.ahead) {
        return Some(format!("the event is dated {} seconds ahead: set the clock it was made with", at - seconds));
    }
    if at < seconds.saturating_sub(limits.age) {
        return Some(format!("the event is {} hours old: send the job again", (seconds - at) / 3600));
    }
    event
        .tags
        .iter()
        .flat_map(|tag| tag.as_slice())
        .any(|value| value.contains('\0'))
        .then(|| "the event holds the character U+0000, which no environment can hold".into())
}
