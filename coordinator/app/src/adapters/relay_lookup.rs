//! Repositories and relay lists, looked up on relays.

use futures::{FutureExt, future::BoxFuture};
use indexmap::IndexSet;
use nostr::{Event, Filter, Kind, PublicKey};
use nostr_client::{
    relays::{Relays, normal},
    tags,
};
use source::{EventQuery, announcement::newest};
use std::time::Duration;

/// How long relays may take to say what they have of a repository.
const LOOK_UP: Duration = Duration::from_secs(8);
/// Relays that requests and repositories name, asked for one thing.
const OTHERS: usize = 16;

/// Repositories are looked up on the relays the request and the operator name.
pub(crate) struct RelayLookup {
    pub(crate) relays: Relays,
    pub(crate) config: config::Relays,
}

impl RelayLookup {
    fn with_ours(&self, relays: &[String]) -> Vec<String> {
        let others: IndexSet<String> = relays.iter().filter_map(|url| self.relays.usable(url)).take(OTHERS).collect();
        let ours = self.config.lookup.iter().chain(&self.config.read).filter_map(|url| normal(url));
        others.into_iter().chain(ours).collect::<IndexSet<_>>().into_iter().collect()
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
                .filter_map(|tag| normal(tag.get(1)?))
                .take(8)
                .collect()
        }
        .boxed()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use domain::run::Repository;
    use nostr::{EventBuilder, Keys, Tag, TagKind};
    use nostr_client::relays::Answer;
    use nostr_relay_builder::{LocalRelay, RelayBuilder};

    use super::*;

    async fn relay() -> (LocalRelay, String) {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let relay = LocalRelay::new(RelayBuilder::default());
        relay.run().await.unwrap();
        let url = relay.url().await.to_string();
        (relay, url)
    }

    #[tokio::test]
    async fn t70_a_repository_whose_own_relays_are_gone_is_found_by_hint_outbox_and_index() {
        const GONE: &str = "ws://127.0.0.1:9";
        let ((_kept, has_it), (_kept_too, index)) = (relay().await, relay().await);
        let owner = Keys::generate();
        let announcement = EventBuilder::new(Kind::GitRepoAnnouncement, "")
            .tags([Tag::identifier("repo"), Tag::custom(TagKind::custom("relays"), [GONE])])
            .sign_with_keys(&owner)
            .unwrap();
        let list = EventBuilder::new(Kind::RelayList, "")
            .tag(Tag::custom(TagKind::custom("r"), [has_it.as_str(), "write"]))
            .sign_with_keys(&owner)
            .unwrap();
        let setup = config::Relays { allow_private: true, ..config::Relays::default() };
        let sender = Relays::new(&owner, &setup);
        assert_eq!(sender.send(&has_it, &announcement).await, Answer::Taken);
        assert_eq!(sender.send(&index, &list).await, Answer::Taken);
        let by_hint = (vec![GONE.to_owned(), has_it.clone()], setup.clone());
        let by_outbox = (vec![GONE.to_owned()], config::Relays { index: vec![index], ..setup.clone() });
        let by_lookup = (vec![GONE.to_owned()], config::Relays { lookup: vec![has_it], ..setup });
        for (hints, config) in [by_hint, by_outbox, by_lookup] {
            let lookup = RelayLookup { relays: Relays::new(&Keys::generate(), &config), config: config.clone() };
            let folder = tempfile::tempdir().unwrap();
            let sources =
                source::RepositoryMirrors::new(folder.path().to_owned(), config::Source::default(), Arc::new(lookup));
            let owner = owner.public_key().to_hex();
            let repository = Repository {
                address: format!("30617:{owner}:repo"),
                owner: owner.clone(),
                identifier: "repo".into(),
                relays: hints,
            };
            let standing = sources.standing(&repository).await;
            assert_eq!(standing.unwrap().maintainers, [owner], "{config:?}");
        }
    }
}
