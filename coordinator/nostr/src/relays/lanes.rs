//! Which relays of others are sent to: bounded in number, for anybody's events can name them.

use std::collections::HashMap;

use tokio::time::Instant;

/// Relays of others that are sent to.
pub(super) const LANES: usize = 64;

/// The relays.
#[derive(Debug, Default)]
pub(super) struct Lanes(HashMap<String, Lane>);

#[derive(Debug)]
struct Lane {
    /// When it was named last.
    named: Instant,
    /// It took an event.
    answered: bool,
}

impl Lane {
    fn new() -> Self {
        Self { named: Instant::now(), answered: false }
    }
}

impl Lanes {
    /// Adds a relay, or notes that it was named again. Where there are too many, the one goes that was named longest ago:
    /// first of those that took no event yet, and of those that are not connected, so that names that lead nowhere, or to
    /// relays that never answer, put out nobody.
    pub(super) fn open(&mut self, url: &str, is_connected: impl Fn(&str) -> bool) {
        if let Some(lane) = self.0.get_mut(url) {
            lane.named = Instant::now();
            return;
        }
        if self.0.len() >= LANES {
            let goes = self.0.iter().min_by_key(|(known, lane)| (lane.answered, is_connected(known), lane.named));
            if let Some(goes) = goes.map(|(known, _)| known.clone()) {
                self.0.remove(&goes);
            }
        }
        self.0.insert(url.to_owned(), Lane::new());
    }

    /// Whether a relay is sent to; one that nobody named since the start is, as long as there is room.
    pub(super) fn keep(&mut self, url: &str) -> bool {
        if !self.0.contains_key(url) && self.0.len() < LANES {
            self.0.insert(url.to_owned(), Lane::new());
        }
        self.0.contains_key(url)
    }

    /// Notes that a relay took an event.
    pub(super) fn note_answer(&mut self, url: &str) {
        if let Some(lane) = self.0.get_mut(url) {
            lane.answered = true;
        }
    }

    /// Whether a relay took an event since it is sent to.
    pub(super) fn has_answered(&self, url: &str) -> bool {
        self.0.get(url).is_some_and(|lane| lane.answered)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_that_lead_nowhere_put_out_none_that_is_connected() {
        let mut lanes = Lanes::default();
        let is_connected = |url: &str| url.starts_with("wss://good");
        for number in 0..8 {
            lanes.open(&format!("wss://good{number}"), is_connected);
        }
        for number in 0..1000 {
            lanes.open(&format!("wss://dead{number}"), is_connected);
        }
        assert_eq!(lanes.0.len(), LANES);
        assert!((0..8).all(|number| lanes.keep(&format!("wss://good{number}"))));
        assert!(lanes.keep("wss://dead999") && !lanes.keep("wss://dead0") && !lanes.keep("wss://unknown"));
    }

    #[test]
    fn attack_58_relays_that_never_answer_put_out_none_that_does() {
        let mut lanes = Lanes::default();
        lanes.open("wss://good", |_| true);
        lanes.note_answer("wss://good");
        for number in 0..1000 {
            lanes.open(&format!("wss://silent{number}"), |_| true);
        }
        assert!(lanes.keep("wss://good") && lanes.has_answered("wss://good") && !lanes.has_answered("wss://silent999"));
    }
}
