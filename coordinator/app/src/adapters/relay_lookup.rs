//! Repositories and relay lists, looked up on relays.

use futures::{FutureExt, future::BoxFuture};
use nostr::{Event, Filter, Kind, PublicKey};
use nostr_client::{relays::Relays, tags};
use source::{EventQuery, announcement::newest};
use std::time::Duration;

/// How long relays may take to say what they have of a repository.
const LOOK_UP: Duration = Duration::from_secs(8);

/// Repositories are looked up on the relays the request and the operator name.
pub(crate) struct RelayLookup {
    pub(crate) relays: Relays,
    pub(crate) config: config::Relays,
}

impl RelayLookup {
    fn with_ours(&self, relays: &[String]) -> Vec<String> {
        let ours = self.config.lookup.iter().chain(&self.config.read);
        relays
            .iter()
            .chain(ours)
            .filter_map(|url| nostr_client::relays::normal(url))
            .collect::<indexmap::IndexSet<_>>()
            .into_iter()
            .collect()
    }
}

impl EventQuery for RelayLookup {
    fn find<'a>(&'a self, relays: &'a [String], filter: Filter) -> BoxFuture<'a, Vec<Event>> {
        async move {
            let urls = self.with_ours(relays);
            self.relays.fetch(&urls, &filter, LOOK_UP).await
        }
        .boxed()
    }

    fn write_relays<'a>(&'a self, author: &'a str) -> BoxFuture<'a, Vec<String>> {
        async move {
            let Ok(key) = PublicKey::from_hex(author) else { return Vec::new() };
            let urls = self.with_ours(&self.config.index);
            let filter = Filter::new().kind(Kind::RelayList).author(key);
            let found = self.relays.fetch(&urls, &filter, LOOK_UP).await;
            let newest = newest(&found);
            let tags = newest.into_iter().flat_map(|event| tags::all(event, "r"));
            tags.filter(|tag| tag.get(2).is_none_or(|use_| use_ == "write"))
                .filter_map(|tag| nostr_client::relays::normal(tag.get(1)?))
                .take(8)
                .collect()
        }
        .boxed()
    }
}
