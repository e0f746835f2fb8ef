//! Which requests this pool has answered, as relays know it: a new or restored database does not.

use std::{collections::HashSet, time::Duration};

use futures::future::join_all;
use nostr::{Event, EventId, PublicKey};

use crate::{
    protocol::Protocols,
    relays::{RelayError, Relays, normal},
};

/// Requests asked for in one filter; each has a few answers at most.
const REQUESTS: usize = 100;

/// Asks our own relays for final answers to these requests. One relay that answers is enough: each of our relays
/// gets every answer.
///
/// # Errors
/// None of the relays answered within `wait`: nothing is known.
pub async fn answered(
    relays: &Relays,
    config: &config::Relays,
    protocols: Protocols,
    us: &PublicKey,
    requests: &[EventId],
    wait: Duration,
) -> Result<HashSet<EventId>, RelayError> {
    let urls: HashSet<String> = config.write.iter().chain(&config.read).filter_map(|url| normal(url)).collect();
    let filters: Vec<_> = protocols
        .iter()
        .flat_map(|protocol| requests.chunks(REQUESTS).flat_map(move |some| protocol.answer_filters(us, some)))
        .collect();
    let asked = urls.iter().map(|url| {
        let filters = &filters;
        async move {
            let answers = filters.iter().map(|filter| relays.fetch_from(url, filter, wait));
            join_all(answers).await.into_iter().collect::<Result<Vec<_>, _>>()
        }
    });
    let mut found = HashSet::new();
    let mut failure = Some(RelayError::NotConnected("no relay is configured".into()));
    let mut heard = false;
    for answer in join_all(asked).await {
        match answer {
            Ok(events) => {
                heard = true;
                let answered = |event: &Event| protocols.iter().find_map(|protocol| protocol.answered(event, us));
                found.extend(events.iter().flatten().filter_map(answered));
            }
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if !heard => Err(error),
        _ => Ok(found.into_iter().filter(|id| requests.contains(id)).collect()),
    }
}
