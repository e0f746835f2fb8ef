//! Who may run.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::Context;
use nostr::{Event, Filter, FromBech32, Kind, PublicKey, nips::nip01::Coordinate, nips::nip19::Nip19Coordinate};
use parking_lot::RwLock;

use super::{delivery::newest, relays::Relays, tags};

/// How long relays may take to give the list.
const WAIT: Duration = Duration::from_secs(10);

/// The configured policy. Clones share the list.
#[derive(Debug, Clone)]
pub struct Policy {
    everyone: bool,
    maintainers: bool,
    keys: HashSet<String>,
    list: Option<List>,
}

#[derive(Debug, Clone)]
struct List {
    address: Coordinate,
    newest: Arc<RwLock<Option<Event>>>,
}

impl Policy {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A key or the list's address can't be read.
    pub fn new(config: &config::Policy) -> anyhow::Result<Self> {
        let key = |text: &String| {
            let key = PublicKey::parse(text);
            Ok(key
                .with_context(|| format!("policy.pubkeys: `{text}` is no public key, give npub1… or 64 hex"))?
                .to_hex())
        };
        let list = config.list.as_deref().map(address).transpose()?;
        Ok(Self {
            everyone: config.everyone,
            maintainers: config.maintainers,
            keys: config.pubkeys.iter().map(key).collect::<anyhow::Result<_>>()?,
            list: list.map(|address| List { address, newest: Arc::default() }),
        })
    }

    /// Whether `author` (64 hex) may run. `maintainers` of the repository (64 hex each) are looked up only where it
    /// depends on them.
    ///
    /// # Errors
    /// They may not: the reason, for the author.
    pub async fn decide<F: Future<Output = Vec<String>>>(
        &self,
        author: &str,
        maintainers: impl FnOnce() -> F,
    ) -> Result<(), String> {
        let named = self.everyone || self.keys.contains(author) || self.listed(author);
        if named || self.maintainers && maintainers().await.iter().any(|key| key == author) {
            return Ok(());
        }
        Err(format!("{author} may not run here: ask the operator of this pool to add the key"))
    }

    fn listed(&self, author: &str) -> bool {
        let Some(list) = &self.list else { return false };
        let newest = list.newest.read();
        newest
            .as_ref()
            .is_some_and(|event| tags::all(event, "p").any(|tag| tag.get(1).is_some_and(|key| key == author)))
    }

    /// What to subscribe to, so that a new list holds for the next job.
    pub fn filter(&self) -> Option<Filter> {
        self.list.as_ref().map(|list| {
            let Coordinate { kind, public_key, identifier } = &list.address;
            Filter::new().kind(*kind).author(*public_key).identifier(identifier)
        })
    }

    /// Takes a verified event that may be a newer list. Returns whether it was.
    pub fn offer(&self, event: Event) -> bool {
        let Some(list) = &self.list else { return false };
        let Coordinate { kind, public_key, identifier } = &list.address;
        if event.kind != *kind || event.tags.identifier() != Some(identifier.as_str()) {
            return false;
        }
        let mut current = list.newest.write();
        let offered = event.id;
        *current = newest(current.take().into_iter().chain([event]).collect(), public_key);
        current.as_ref().is_some_and(|event| event.id == offered)
    }

    /// Fetches the list, at start.
    pub async fn load(&self, relays: &Relays, urls: &[String]) {
        let Some(filter) = self.filter() else { return };
        for event in relays.fetch(urls, &filter, WAIT).await {
            self.offer(event);
        }
    }
}

/// Reads `30000:<hex>:<d>` or naddr1….
fn address(text: &str) -> anyhow::Result<Coordinate> {
    let text = text.trim().trim_start_matches("nostr:");
    let found = Coordinate::parse(text).ok().or_else(|| Some(Nip19Coordinate::from_bech32(text).ok()?.coordinate));
    found
        .filter(|address| address.kind == Kind::FollowSet)
        .with_context(|| format!("policy.list: `{text}` is no list of keys, give 30000:<hex>:<d> or its naddr1…"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use nostr::{EventBuilder, Keys, Tag, Timestamp, ToBech32};

    use super::*;

    #[tokio::test]
    async fn each_rule_of_the_policy_lets_its_own_in_and_maintainers_are_asked_for_only_where_they_decide() {
        let (named, maintainer, stranger) = (Keys::generate(), Keys::generate(), Keys::generate());
        let hex = |keys: &Keys| keys.public_key().to_hex();
        let policy = Policy::new(&config::Policy {
            pubkeys: vec![named.public_key().to_bech32().unwrap()],
            maintainers: true,
            ..config::Policy::default()
        })
        .unwrap();
        let maintainers = || std::future::ready(vec![hex(&maintainer)]);
        let never = || async { unreachable!("the maintainers do not matter") };
        assert_eq!(policy.decide(&hex(&named), never).await, Ok(()));
        assert_eq!(policy.decide(&hex(&maintainer), maintainers).await, Ok(()));
        assert!(policy.decide(&hex(&stranger), maintainers).await.is_err());
        let nobody = Policy::new(&config::Policy::default()).unwrap();
        assert!(nobody.decide(&hex(&named), never).await.is_err());
        let everyone = Policy::new(&config::Policy { everyone: true, ..config::Policy::default() }).unwrap();
        assert_eq!(everyone.decide(&hex(&stranger), never).await, Ok(()));
    }

    #[tokio::test]
    async fn t53_a_newer_list_holds_for_the_next_job() {
        let (operator, user) = (Keys::generate(), Keys::generate());
        let policy = Policy::new(&config::Policy {
            list: Some(format!("30000:{}:friends", operator.public_key())),
            ..config::Policy::default()
        })
        .unwrap();
        let list = |keys: &Keys, at: u64, people: &[PublicKey]| {
            EventBuilder::new(Kind::FollowSet, "")
                .tag(Tag::identifier("friends"))
                .tags(people.iter().map(|key| Tag::public_key(*key)))
                .custom_created_at(Timestamp::from(at))
                .sign_with_keys(keys)
                .unwrap()
        };
        let user = user.public_key();
        let may_run = async || policy.decide(&user.to_hex(), || std::future::ready(Vec::new())).await.is_ok();
        assert!(!policy.offer(list(&Keys::generate(), 9, &[user])), "somebody else's list of the same name");
        assert!(!may_run().await);
        assert!(policy.offer(list(&operator, 5, &[user])));
        assert!(may_run().await);
        assert!(!policy.offer(list(&operator, 4, &[])), "an older list");
        assert!(may_run().await);
        assert!(policy.offer(list(&operator, 6, &[])));
        assert!(!may_run().await);
    }

    #[test]
    fn a_wrong_key_or_address_names_the_setting() {
        let wrong = [
            config::Policy { pubkeys: vec!["npub1nonsense".into()], ..config::Policy::default() },
            config::Policy { list: Some("30023:aa:x".into()), ..config::Policy::default() },
        ];
        for (config, name) in wrong.iter().zip(["policy.pubkeys", "policy.list"]) {
            assert!(Policy::new(config).unwrap_err().to_string().contains(name));
        }
    }
}
