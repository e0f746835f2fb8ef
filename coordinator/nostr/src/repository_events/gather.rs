//! Which relay is asked for what, so that all repositories are heard of in few subscriptions. Pure.

use std::collections::{BTreeMap, BTreeSet};

use nostr::{Alphabet, Filter, PublicKey, SingleLetterTag, Timestamp};

use super::{KINDS, REQUEST_KINDS, WatchedRepository};

/// Values of one set in a filter; relays refuse very long ones.
const VALUES: usize = 100;
/// Filters of one subscription.
const FILTERS: usize = 10;
/// Subscriptions at one relay: it grants twenty as a rule, and questions and requests need some.
const SUBSCRIPTIONS: usize = 6;
/// Relays of one repository that are listened to.
const OF_REPOSITORY: usize = 5;
/// Relays listened to that the operator did not name; those that have most repositories come first.
const OTHERS: usize = 32;

/// Where a subscription is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RelaySlot {
    /// The relay, in its normal form.
    pub(super) relay: String,
    /// Which of our subscriptions there.
    pub(super) number: usize,
}

/// The subscriptions for these repositories. `usable` gives a relay's normal form where it may be dialled.
pub(super) fn gather(
    repositories: &[WatchedRepository],
    everywhere: &[String],
    usable: impl Fn(&str) -> Option<String>,
    is_named: impl Fn(&str) -> bool,
) -> BTreeMap<RelaySlot, Vec<Filter>> {
    let mut by_relay: BTreeMap<String, Vec<&WatchedRepository>> = BTreeMap::new();
    for repository in repositories {
        let own = repository.relays.iter().filter_map(|url| usable(url)).take(OF_REPOSITORY);
        let relays: BTreeSet<String> = own.chain(everywhere.iter().cloned()).collect();
        for relay in relays {
            by_relay.entry(relay).or_default().push(repository);
        }
    }
    let (named, mut others): (Vec<_>, Vec<_>) = by_relay.into_iter().partition(|(relay, _)| is_named(relay));
    others.sort_by_key(|(relay, repositories)| (std::cmp::Reverse(repositories.len()), relay.clone()));
    let left_out = others.len().saturating_sub(OTHERS);
    if left_out > 0 {
        tracing::warn!(left_out, "followed repositories are published on more relays than are listened to");
    }
    let mut slots = BTreeMap::new();
    for (relay, repositories) in named.into_iter().chain(others.into_iter().take(OTHERS)) {
        let filters = filters(&repositories);
        for (number, some) in filters.chunks(FILTERS).enumerate() {
            slots.insert(RelaySlot { relay: relay.clone(), number }, some.to_vec());
        }
    }
    slots
}

/// Filters for repositories at one relay; those for all events of the kinds, where these would be too many.
fn filters(repositories: &[&WatchedRepository]) -> Vec<Filter> {
    let mut filters = own_filters(repositories);
    filters.extend(request_filters(repositories));
    if filters.len() <= FILTERS * SUBSCRIPTIONS {
        return filters;
    }
    let since = repositories.iter().map(|repository| repository.requests_since).min().unwrap_or_default();
    vec![Filter::new().kinds(KINDS), Filter::new().kinds(REQUEST_KINDS).since(since)]
}

/// For what repositories say of themselves.
fn own_filters(repositories: &[&WatchedRepository]) -> Vec<Filter> {
    let mut filters = Vec::new();
    let (mut names, mut authors): (BTreeSet<&str>, BTreeSet<PublicKey>) = Default::default();
    let mut close = |names: &mut BTreeSet<&str>, authors: &mut BTreeSet<PublicKey>| {
        let (names, authors) = (std::mem::take(names), std::mem::take(authors));
        if !names.is_empty() {
            filters.push(Filter::new().kinds(KINDS).identifiers(names).authors(authors));
        }
    };
    for repository in repositories {
        let more = repository.authors.iter().filter(|author| !authors.contains(*author)).count();
        if names.len() >= VALUES || authors.len() + more > VALUES {
            close(&mut names, &mut authors);
        }
        names.insert(&repository.identifier);
        authors.extend(repository.authors.iter().copied());
    }
    close(&mut names, &mut authors);
    filters
}

/// For what anybody says of pull requests to them.
fn request_filters(repositories: &[&WatchedRepository]) -> Vec<Filter> {
    let addresses: Vec<(String, Timestamp)> = repositories
        .iter()
        .flat_map(|one| one.addresses().into_iter().map(|address| (address, one.requests_since)))
        .collect();
    let filter = |some: &[(String, Timestamp)]| {
        let since = some.iter().map(|(_, since)| *since).min().unwrap_or_default();
        let named = some.iter().map(|(address, _)| address);
        let filter = Filter::new().kinds(REQUEST_KINDS).since(since);
        filter.custom_tags(SingleLetterTag::lowercase(Alphabet::A), named)
    };
    addresses.chunks(VALUES).map(filter).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::Keys;

    use super::*;

    fn repository(number: usize, author: PublicKey, relays: &[&str]) -> WatchedRepository {
        WatchedRepository {
            address: format!("30617:{author}:r{number}"),
            identifier: format!("r{number}"),
            authors: vec![author],
            relays: relays.iter().map(|url| (*url).to_owned()).collect(),
            requests_since: Timestamp::from(u64::try_from(number).unwrap() + 5),
        }
    }

    fn slots(repositories: &[WatchedRepository], everywhere: &[&str]) -> BTreeMap<RelaySlot, Vec<Filter>> {
        let everywhere: Vec<String> = everywhere.iter().map(|url| (*url).to_owned()).collect();
        gather(repositories, &everywhere, |url| Some(url.to_owned()), |url| everywhere.iter().any(|named| named == url))
    }

    #[test]
    fn nothing_is_asked_for_where_nothing_is_followed() {
        assert!(slots(&[], &["wss://ours.example"]).is_empty());
    }

    #[test]
    fn repositories_share_filters_and_ten_thousand_of_them_take_few_subscriptions() {
        let author = Keys::generate().public_key();
        let some: Vec<_> = (0..250).map(|number| repository(number, author, &["wss://r.example"])).collect();
        let found = slots(&some, &[]);
        let filters = found.values().next().unwrap();
        assert_eq!((found.len(), filters.len()), (1, 6));
        let (own, requests) = filters.split_at(3);
        assert!(own.iter().all(|filter| filter.authors.as_ref().unwrap().len() == 1));
        assert!(requests.iter().all(|filter| filter.authors.is_none() && filter.generic_tags.len() == 1));
        let since: Vec<u64> = requests.iter().map(|filter| filter.since.unwrap().as_secs()).collect();
        assert_eq!(since, [5, 105, 205], "as far back as the first of each");

        let many: Vec<_> = (0..10_000).map(|number| repository(number, author, &["wss://r.example"])).collect();
        let found = slots(&many, &["wss://ours.example"]);
        assert_eq!(found.len(), 2, "one at each relay");
        assert!(found.values().all(|filters| filters.len() == 2 && filters[0].authors.is_none()));
    }

    #[test]
    fn authors_of_one_filter_are_bounded_as_well() {
        let many: Vec<_> =
            (0..250).map(|n| repository(n, Keys::generate().public_key(), &["wss://r.example"])).collect();
        let found = slots(&many, &[]);
        let filters = found.values().next().unwrap();
        assert_eq!(filters.len(), 6);
        let most = |filter: &Filter| filter.authors.as_ref().map_or(0, BTreeSet::len);
        assert!(filters.iter().all(|filter| most(filter) <= VALUES));
    }

    #[test]
    fn of_relays_that_nobody_named_the_most_used_are_listened_to() {
        let author = Keys::generate().public_key();
        let own = |number: usize| format!("wss://r{number}.example");
        let mut all: Vec<_> = (0..100).map(|number| repository(number, author, &[own(number).as_str()])).collect();
        all.extend((100..103).map(|number| repository(number, author, &["wss://popular.example"])));
        let found = slots(&all, &["wss://ours.example"]);
        let relays: BTreeSet<&str> = found.keys().map(|slot| slot.relay.as_str()).collect();
        assert_eq!(relays.len(), OTHERS + 1);
        assert!(relays.contains("wss://popular.example") && relays.contains("wss://ours.example"));
    }
}
