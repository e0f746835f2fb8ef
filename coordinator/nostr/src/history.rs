//! Which requests this pool has answered, as relays know it: a new or restored database does not.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use nostr::{Event, EventId, Filter, PublicKey, Timestamp};

use crate::{
    protocol::Protocols,
    relays::{RelayError, Relays, normal},
};

/// Requests asked for in one filter; each has a few answers at most.
const REQUESTS: usize = 100;
/// Answers that are asked for where any are meant: so few that every relay gives as many, and fewer are all that there are.
const ANSWERS: usize = 50;

/// What is asked, and whom.
pub struct AnswerHistory<'a> {
    /// The connections.
    pub relays: &'a Relays,
    /// Which relays are ours. One that answers is enough: each of them gets every answer.
    pub config: &'a config::Relays,
    /// The families of events that answer.
    pub protocols: Protocols,
    /// The pool's key.
    pub us: PublicKey,
    /// How long a relay may take.
    pub wait: Duration,
}

impl AnswerHistory<'_> {
    /// Those of the requests that have a final answer.
    ///
    /// # Errors
    /// None of the relays answered: nothing is known.
    pub async fn answered(&self, requests: &[EventId]) -> Result<HashSet<EventId>, RelayError> {
        let filters =
            |some| self.protocols.iter().flat_map(move |protocol| protocol.answer_filters(&self.us, Some(some)));
        let filters: Vec<Filter> = requests.chunks(REQUESTS).flat_map(filters).collect();
        let answers = self.query(&filters).await?;
        Ok(self.requests_of(answers.iter().flatten()).filter(|id| requests.contains(id)).collect())
    }

    /// Requests whose final answers were made at some time (s) or later; `None`: they are too many to be told in one answer.
    ///
    /// # Errors
    /// None of the relays answered: nothing is known.
    pub async fn answered_since(&self, since: u64) -> Result<Option<HashSet<EventId>>, RelayError> {
        let filters = self.protocols.iter().flat_map(|protocol| protocol.answer_filters(&self.us, None));
        let filters: Vec<Filter> =
            filters.map(|filter| filter.since(Timestamp::from_secs(since)).limit(ANSWERS)).collect();
        let answers = self.query(&filters).await?;
        let all_were_told = answers.iter().all(|answer| answer.len() < ANSWERS);
        Ok(all_were_told.then(|| self.requests_of(answers.iter().flatten()).collect()))
    }

    fn requests_of<'e>(&self, answers: impl Iterator<Item = &'e Event>) -> impl Iterator<Item = EventId> {
        answers.filter_map(|event| self.protocols.iter().find_map(|protocol| protocol.answered(event, &self.us)))
    }

    /// What our own relays answer, to each filter.
    async fn query(&self, filters: &[Filter]) -> Result<Vec<Vec<Event>>, RelayError> {
        let ours = self.config.write.iter().chain(&self.config.read);
        let urls: HashSet<String> = ours.filter_map(|url| normal(url)).collect();
        let asked = urls.iter().map(|url| async move {
            let answers = filters.iter().map(|filter| self.relays.fetch_from(url, filter, self.wait));
            join_all(answers).await.into_iter().collect::<Result<Vec<_>, _>>()
        });
        let mut found = Vec::new();
        let mut failure = Some(RelayError::NotConnected("no relay is configured".into()));
        let mut heard = false;
        for answer in join_all(asked).await {
            match answer {
                Ok(events) => {
                    heard = true;
                    found.extend(events);
                }
                Err(error) => failure = Some(error),
            }
        }
        match failure {
            Some(error) if !heard => Err(error),
            _ => Ok(found),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::{EventBuilder, Keys, Kind, Tag};
    use nostr_relay_builder::{LocalRelay, RelayBuilder, builder::RateLimit};

    use super::*;
    use crate::relays::Answer;

    #[tokio::test]
    async fn answers_of_some_time_are_told_at_once_unless_there_are_too_many() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let unhurried = RateLimit { max_reqs: 1000, notes_per_minute: 10_000 };
        let relay = LocalRelay::new(RelayBuilder::default().rate_limit(unhurried));
        relay.run().await.unwrap();
        let url = relay.url().await.to_string();
        let keys = Keys::generate();
        let config = config::Relays { write: vec![url.clone()], allow_private: true, ..config::Relays::default() };
        let relays = Relays::new(&keys, &config);
        let request = |number: u16| EventId::from_hex(&format!("{number:064x}")).unwrap();
        let answer = async |number: u16, at: u64| {
            let tags = [Tag::event(request(number)), Tag::public_key(keys.public_key())];
            let event = EventBuilder::new(Kind::from(5101), "").tags(tags);
            let event = event.custom_created_at(Timestamp::from_secs(at)).sign_with_keys(&keys).unwrap();
            assert_eq!(relays.send(&url, &event).await, Answer::Taken);
        };
        let (protocols, wait) = (Protocols::new(&[&crate::protocol::hive_ci::HiveCi]), Duration::from_secs(8));
        let history = AnswerHistory { relays: &relays, config: &config, protocols, us: keys.public_key(), wait };
        answer(1, 1000).await;
        answer(2, 2000).await;
        assert_eq!(history.answered_since(1500).await, Ok(Some(HashSet::from([request(2)]))));
        assert_eq!(history.answered(&[request(1), request(3)]).await, Ok(HashSet::from([request(1)])));
        for number in 3..ANSWERS as u16 + 3 {
            answer(number, 3000).await;
        }
        assert_eq!(history.answered_since(1500).await, Ok(None));
    }
}
