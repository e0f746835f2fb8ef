//! Who may run, and whose requests come first.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use governor::{
    DefaultDirectRateLimiter, Quota, RateLimiter,
    clock::{Clock as _, DefaultClock},
};
use nostr::{Event, Filter, FromBech32, Kind, PublicKey, nips::nip01::Coordinate, nips::nip19::Nip19Coordinate};
use parking_lot::{Mutex, RwLock};
use tokio::time::Instant;

use config::Config;

use self::maintained::Maintained;
use super::{delivery::newest, relays::Relays, tags};

mod maintained;

/// How long relays may take to give the list.
const WAIT: Duration = Duration::from_secs(10);

/// The configured policy. Clones share what is known: the list, who maintains what, and how often strangers were answered.
#[derive(Debug, Clone)]
pub struct Policy(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    everyone: bool,
    maintainers: bool,
    keys: HashSet<PublicKey>,
    /// Addresses of the repositories whose maintainers may run.
    repositories: HashSet<String>,
    /// Whoever announces a repository of which the maintainers may run.
    owners: HashSet<PublicKey>,
    /// Owners of all those repositories.
    owning: HashSet<PublicKey>,
    /// By address or `*`.
    trusted: HashMap<String, HashSet<PublicKey>>,
    all_trusted: HashSet<PublicKey>,
    list: Option<List>,
    maintained: Maintained,
    answers: Answers,
}

#[derive(Debug)]
struct List {
    address: Coordinate,
    newest: RwLock<(Option<Event>, HashSet<PublicKey>)>,
}

/// How the policy sees an author of whose request nothing is known but that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthorStanding {
    /// The operator named the key, or something by which it is known. Comes first in everything.
    Known,
    /// May run, as far as the repository allows it. Gets what is left.
    Unknown,
    /// May run nothing here, whatever the request says.
    Excluded,
}

/// How many of those that are not known are told why they are refused.
#[derive(Debug)]
struct Answers {
    rate: DefaultDirectRateLimiter,
    /// Nobody is, before.
    none_before: Mutex<Option<Instant>>,
}

impl Answers {
    fn take(&self) -> bool {
        match self.rate.check() {
            Ok(()) => true,
            Err(not_until) => {
                let wait = not_until.wait_time_from(DefaultClock::default().now());
                *self.none_before.lock() = Some(Instant::now() + wait);
                false
            }
        }
    }

    fn left(&self) -> bool {
        self.none_before.lock().is_none_or(|at| at <= Instant::now())
    }
}

impl Policy {
    /// Reads the configuration.
    ///
    /// # Errors
    /// A key or an address can't be read.
    pub fn new(config: &Config) -> anyhow::Result<Self> {
        let policy = &config.policy;
        let keys = |name: &str, keys: &[String]| -> anyhow::Result<HashSet<PublicKey>> {
            let wrong = |text: &String| format!("{name}: `{text}` is no public key, give npub1… or 64 hex");
            keys.iter().map(|text| PublicKey::parse(text).with_context(|| wrong(text))).collect()
        };
        let repositories: HashSet<String> = policy.addresses()?.into_iter().collect();
        let owners = keys("policy.owners", &policy.owners)?;
        let owning = repositories.iter().filter_map(|address| owner(address)).chain(owners.iter().copied()).collect();
        let trusted = config.trusted().into_iter();
        let trusted = trusted.map(|(name, some)| Ok((name, keys("repositories.*.trusted", &some)?)));
        let trusted: HashMap<String, HashSet<PublicKey>> = trusted.collect::<anyhow::Result<_>>()?;
        let list = policy.list.as_deref().map(address).transpose()?;
        let per_minute = NonZeroU32::new(config.limits.refusals_per_minute).unwrap_or(NonZeroU32::MIN);
        Ok(Self(Arc::new(Rules {
            everyone: policy.everyone,
            maintainers: policy.maintainers && (!repositories.is_empty() || !owners.is_empty()),
            keys: keys("policy.pubkeys", &policy.pubkeys)?,
            repositories,
            owners,
            owning,
            all_trusted: trusted.values().flatten().copied().collect(),
            trusted,
            list: list.map(|address| List { address, newest: RwLock::default() }),
            maintained: Maintained::default(),
            answers: Answers {
                rate: RateLimiter::direct(Quota::per_minute(per_minute)),
                none_before: Mutex::default(),
            },
        })))
    }

    /// Whether strangers may run.
    pub fn is_open(&self) -> bool {
        self.0.everyone
    }

    /// How an author stands, before anything else of a request is known. Costs no look-up.
    pub fn standing(&self, author: &PublicKey) -> AuthorStanding {
        let rules = &self.0;
        let maintains = || rules.maintainers && (rules.owning.contains(author) || rules.maintained.contains(author));
        if rules.keys.contains(author) || rules.all_trusted.contains(author) || self.listed(author) || maintains() {
            AuthorStanding::Known
        } else if rules.everyone || rules.maintainers {
            AuthorStanding::Unknown
        } else {
            AuthorStanding::Excluded
        }
    }

    /// Authors that are [`AuthorStanding::Known`], as far as they are now.
    pub fn known_authors(&self) -> Vec<PublicKey> {
        let rules = &self.0;
        let mut known: HashSet<PublicKey> = rules.keys.union(&rules.all_trusted).copied().collect();
        if let Some(list) = &rules.list {
            known.extend(list.newest.read().1.iter().copied());
        }
        if rules.maintainers {
            known.extend(rules.owning.iter().copied());
            known.extend(rules.maintained.all());
        }
        known.into_iter().collect()
    }

    /// Whether `author` (64 hex) may run for one of the repositories at these addresses. Who maintains those is looked up
    /// again where it depends on that, at most every half a minute.
    ///
    /// # Errors
    /// They may not: the reason, for the author.
    pub async fn decide(&self, author: &str, addresses: &[&str]) -> Result<(), String> {
        let rules = &self.0;
        let Ok(key) = PublicKey::from_hex(author) else { return Err(format!("{author} is no public key")) };
        if rules.everyone || rules.keys.contains(&key) || self.listed(&key) {
            return Ok(());
        }
        if addresses.iter().any(|address| self.trusts(address, &key)) {
            return Ok(());
        }
        let named: Vec<&str> = addresses.iter().copied().filter(|address| self.names(address)).collect();
        let maintains =
            || named.iter().any(|address| owner(address) == Some(key) || rules.maintained.maintains(address, &key));
        if !named.is_empty() && (maintains() || rules.maintained.look_again().await && maintains()) {
            return Ok(());
        }
        Err(Self::refusal(author))
    }

    /// Why an author is refused who may not run, for them.
    pub fn refusal(author: &str) -> String {
        format!("{author} may not run here: ask the operator of this pool to add the key, or to name the repository")
    }

    /// Whether the operator trusts a key for a repository: what is set for it alone counts before what is set for all.
    fn trusts(&self, address: &str, key: &PublicKey) -> bool {
        let trusted = self.0.trusted.get(address).or_else(|| self.0.trusted.get("*"));
        trusted.is_some_and(|keys| keys.contains(key))
    }

    /// Whether maintainers of a repository may run.
    fn names(&self, address: &str) -> bool {
        let rules = &self.0;
        let by_owner = || owner(address).is_some_and(|owner| rules.owners.contains(&owner));
        rules.maintainers && (rules.repositories.contains(address) || by_owner())
    }

    /// Whether somebody may run for a repository by the configuration: what relays say may be missing for a while.
    /// `maintainers` are those (64 hex) that were known before.
    pub fn serves(&self, address: &str, maintainers: &[String]) -> bool {
        let rules = &self.0;
        let mut known = maintainers.iter().filter_map(|key| PublicKey::from_hex(key).ok()).chain(owner(address));
        rules.everyone
            || rules.list.is_some()
            || self.names(address)
            || rules.trusted.contains_key(address)
            || known.any(|key| rules.keys.contains(&key) || self.trusts(address, &key))
    }

    /// Whether one more of those that are not known is told why they are refused; counts as told.
    pub fn answers_stranger(&self) -> bool {
        self.0.answers.take()
    }

    /// Whether there may be an answer left for those that are not known.
    pub fn has_answers_left(&self) -> bool {
        self.0.answers.left()
    }

    /// Addresses of the repositories whose maintainers may run, and keys whose repositories are such; none where nobody may
    /// run by that.
    pub fn repositories(&self) -> (Vec<String>, Vec<PublicKey>) {
        if !self.0.maintainers {
            return Default::default();
        }
        (self.0.repositories.iter().cloned().collect(), self.0.owners.iter().copied().collect())
    }

    /// Who maintains them, by address: as it was looked up just now.
    pub fn set_maintainers(&self, maintainers: HashMap<String, HashSet<PublicKey>>) {
        self.0.maintained.set(maintainers);
    }

    /// Who maintains a repository, as it was looked up last.
    pub fn maintainers(&self, address: &str) -> Option<HashSet<PublicKey>> {
        self.0.maintained.of(address)
    }

    /// Waits until somebody wants to know who maintains the repositories now.
    pub async fn maintainers_wanted(&self) {
        self.0.maintained.wanted().await;
    }

    fn listed(&self, author: &PublicKey) -> bool {
        self.0.list.as_ref().is_some_and(|list| list.newest.read().1.contains(author))
    }

    /// What to subscribe to, so that a new list holds for the next job.
    pub fn filter(&self) -> Option<Filter> {
        self.0.list.as_ref().map(|list| {
            let Coordinate { kind, public_key, identifier } = &list.address;
            Filter::new().kind(*kind).author(*public_key).identifier(identifier)
        })
    }

    /// Whether an event says of itself that it is the list.
    pub fn is_list(&self, event: &Event) -> bool {
        self.0.list.as_ref().is_some_and(|list| {
            let Coordinate { kind, public_key, identifier } = &list.address;
            event.kind == *kind && event.pubkey == *public_key && event.tags.identifier() == Some(identifier.as_str())
        })
    }

    /// Takes a verified event that may be a newer list. Returns whether it was.
    pub fn offer(&self, event: Event) -> bool {
        let Some(list) = self.0.list.as_ref().filter(|_| self.is_list(&event)) else { return false };
        let public_key = &list.address.public_key;
        let mut current = list.newest.write();
        let (event_before, keys) = &mut *current;
        let offered = event.id;
        *event_before = newest(event_before.take().into_iter().chain([event]).collect(), public_key);
        let Some(event) = event_before.as_ref().filter(|event| event.id == offered) else { return false };
        *keys = tags::all(event, "p").filter_map(|tag| PublicKey::from_hex(tag.get(1)?).ok()).collect();
        true
    }

    /// Fetches the list, at start.
    pub async fn load(&self, relays: &Relays, urls: &[String]) {
        let Some(filter) = self.filter() else { return };
        for event in relays.fetch(urls, &filter, WAIT).await {
            self.offer(event);
        }
    }
}

/// Who announced the repository at an address.
fn owner(address: &str) -> Option<PublicKey> {
    let (owner, _) = address.strip_prefix("30617:")?.split_once(':')?;
    PublicKey::from_hex(owner).ok()
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

    fn policy(policy: config::Policy) -> Policy {
        Policy::new(&Config { policy, ..Config::default() }).unwrap()
    }

    #[tokio::test]
    async fn each_rule_of_the_policy_lets_its_own_in() {
        let (named, stranger) = (Keys::generate(), Keys::generate());
        let hex = |keys: &Keys| keys.public_key().to_hex();
        let pubkeys = vec![named.public_key().to_bech32().unwrap()];
        let closed = policy(config::Policy { pubkeys, ..config::Policy::default() });
        assert_eq!(closed.decide(&hex(&named), &[]).await, Ok(()));
        assert!(closed.decide(&hex(&stranger), &[]).await.is_err());
        assert_eq!(closed.standing(&named.public_key()), AuthorStanding::Known);
        assert_eq!(closed.standing(&stranger.public_key()), AuthorStanding::Excluded);
        let nobody = policy(config::Policy::default());
        assert!(nobody.decide(&hex(&named), &[]).await.is_err());
        let everyone = policy(config::Policy { everyone: true, ..config::Policy::default() });
        assert_eq!(everyone.decide(&hex(&stranger), &[]).await, Ok(()));
        assert_eq!(everyone.standing(&stranger.public_key()), AuthorStanding::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn attack_61_maintainers_may_run_for_the_repositories_that_the_operator_named_and_no_others() {
        let [owner, maintainer, other_owner, stranger] = [(); 4].map(|()| Keys::generate().public_key());
        let [mine, theirs, own] = [(owner, "mine"), (other_owner, "theirs"), (stranger, "own")]
            .map(|(key, name)| format!("30617:{key}:{name}"));
        let policy = policy(config::Policy {
            maintainers: true,
            repositories: vec![mine.clone()],
            owners: vec![other_owner.to_hex()],
            ..config::Policy::default()
        });
        let looked_up = policy.clone();
        let (mine_again, theirs_again) = (mine.clone(), theirs.clone());
        // What a refresh finds when somebody is missed.
        let refresh = tokio::spawn(async move {
            loop {
                looked_up.maintainers_wanted().await;
                let of = |key: PublicKey| HashSet::from([key, maintainer]);
                looked_up.set_maintainers(HashMap::from([
                    (mine_again.clone(), of(owner)),
                    (theirs_again.clone(), of(other_owner)),
                ]));
            }
        });
        let may = async |key: PublicKey, address: &str| policy.decide(&key.to_hex(), &[address]).await.is_ok();
        assert_eq!(policy.standing(&maintainer), AuthorStanding::Unknown, "not looked up yet");
        for address in [&mine, &theirs] {
            assert!(may(maintainer, address).await && !may(stranger, address).await);
        }
        assert_eq!(policy.standing(&maintainer), AuthorStanding::Known);
        assert!(may(owner, &mine).await && !may(owner, &theirs).await && !may(owner, &format!("{mine}2")).await);
        assert!(may(other_owner, &format!("30617:{other_owner}:new")).await);
        // Whoever announces a repository is its owner: of that nothing follows.
        assert!(!may(stranger, &own).await && !may(maintainer, &own).await);
        assert_eq!(policy.standing(&stranger), AuthorStanding::Unknown);
        refresh.abort();
    }

    #[tokio::test]
    async fn a_key_that_is_trusted_for_a_repository_may_run_there_alone() {
        let [owner, watcher] = [(); 2].map(|()| Keys::generate().public_key());
        let address = format!("30617:{owner}:repo");
        let trusted = config::RepositoryConfig { trusted: vec![watcher.to_hex()], ..Default::default() };
        let name = format!("{}/repo", owner.to_bech32().unwrap());
        let config = Config { repositories: [(name, trusted)].into(), ..Config::default() };
        let policy = Policy::new(&config).unwrap();
        assert_eq!(policy.standing(&watcher), AuthorStanding::Known);
        assert!(policy.decide(&watcher.to_hex(), &[&address]).await.is_ok());
        assert!(policy.decide(&watcher.to_hex(), &[&format!("{address}2")]).await.is_err());
        assert!(policy.decide(&owner.to_hex(), &[&address]).await.is_err());
    }

    #[tokio::test]
    async fn attack_59_of_strangers_so_many_are_answered_as_the_operator_allows() {
        let mut config = Config::default();
        config.limits.refusals_per_minute = 3;
        let policy = Policy::new(&config).unwrap();
        assert!(policy.has_answers_left());
        assert_eq!((0..100).filter(|_| policy.answers_stranger()).count(), 3);
        assert!(!policy.has_answers_left());
    }

    #[tokio::test]
    async fn t53_a_newer_list_holds_for_the_next_job() {
        let (operator, user) = (Keys::generate(), Keys::generate());
        let list = Some(format!("30000:{}:friends", operator.public_key()));
        let policy = policy(config::Policy { list, ..config::Policy::default() });
        let list = |keys: &Keys, at: u64, people: &[PublicKey]| {
            EventBuilder::new(Kind::FollowSet, "")
                .tag(Tag::identifier("friends"))
                .tags(people.iter().map(|key| Tag::public_key(*key)))
                .custom_created_at(Timestamp::from(at))
                .sign_with_keys(keys)
                .unwrap()
        };
        let user = user.public_key();
        let may_run = async || policy.decide(&user.to_hex(), &[]).await.is_ok();
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
            let config = Config { policy: config.clone(), ..Config::default() };
            assert!(Policy::new(&config).unwrap_err().to_string().contains(name));
        }
    }
}
