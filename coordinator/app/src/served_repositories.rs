//! Which repositories are served now, as this process knows it: their runs are reported job by job, whoever asked for them.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
};

use nostr::{EventId, PublicKey};
use tokio::sync::watch;

use config::Config;
use domain::run::RunRequest;
use nostr_client::protocol::nip_c1::{self, RepositoryAddress};

/// The repositories that are served now. Clones share it.
#[derive(Debug, Clone)]
pub struct ServedRepositories {
    /// Addresses that the operator named.
    configured: Arc<HashSet<String>>,
    served: watch::Sender<HashMap<String, Service>>,
}

/// By whom a repository is served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Service {
    /// The request: its id, its author, and a relay that had it. `None`: the operator named the repository, or it is not
    /// known yet.
    pub(super) request: Option<(EventId, PublicKey, String)>,
    /// Who maintains it: each has an announcement of it, or may have one.
    pub(super) maintainers: BTreeSet<PublicKey>,
}

impl Default for ServedRepositories {
    fn default() -> Self {
        Self { configured: Arc::default(), served: watch::Sender::new(HashMap::new()) }
    }
}

impl ServedRepositories {
    /// Those that the operator named.
    ///
    /// # Errors
    /// One is no address.
    pub(super) fn new(config: &Config) -> anyhow::Result<Self> {
        Ok(Self { configured: Arc::new(config.nip_c1.addresses()?.into_iter().collect()), ..Self::default() })
    }

    /// Whether a run is reported job by job: its repository is served, or it was asked for in the words of those reports.
    pub(super) fn reports(&self, request: &RunRequest) -> bool {
        let by_trigger = || request.origin.nostr().is_some_and(|origin| origin.protocol == nip_c1::NAME);
        let repository = &request.repository;
        self.is_configured(&repository.address)
            || by_trigger()
            || self.find(&repository.address, &repository.owner, &repository.identifier, |_| ()).is_some()
    }

    /// The request by which a repository is served, if it is by one.
    pub(super) fn request_of(&self, request: &RunRequest) -> Option<(EventId, PublicKey, String)> {
        let repository = &request.repository;
        let found = |service: &Service| service.request.clone();
        self.find(&repository.address, &repository.owner, &repository.identifier, found)?
    }

    /// The address by which a repository is served that one of its maintainers announces.
    pub(super) fn address_of(&self, named: &RepositoryAddress) -> Option<String> {
        let served = self.served.borrow();
        let address = named.address();
        if served.contains_key(&address) {
            return Some(address);
        }
        let is_it = |(known, service): &(&String, &Service)| {
            known.splitn(3, ':').nth(2) == Some(&named.identifier) && service.maintainers.contains(&named.owner)
        };
        served.iter().find(is_it).map(|(known, _)| known.clone())
    }

    /// What is known of a repository that is served: by its address, or by that of another announcement of it.
    fn find<T>(&self, address: &str, owner: &str, identifier: &str, read: impl Fn(&Service) -> T) -> Option<T> {
        let served = self.served.borrow();
        if served.is_empty() {
            return None;
        }
        if let Some(service) = served.get(address) {
            return Some(read(service));
        }
        let owner = PublicKey::from_hex(owner).ok()?;
        let is_it = |(known, service): &(&String, &Service)| {
            known.splitn(3, ':').nth(2) == Some(identifier) && service.maintainers.contains(&owner)
        };
        served.iter().find(is_it).map(|(_, service)| read(service))
    }

    /// Whether the operator named a repository.
    pub(super) fn is_configured(&self, address: &str) -> bool {
        self.configured.contains(address)
    }

    /// Whether a repository is served, and that was said.
    pub(super) fn is_served(&self, address: &str) -> bool {
        self.served.borrow().contains_key(address)
    }

    /// Whether any is.
    pub(super) fn any(&self) -> bool {
        !self.configured.is_empty() || !self.served.borrow().is_empty()
    }

    /// Notes whether a repository is served.
    pub(super) fn set(&self, address: &str, service: Option<Service>) {
        self.served.send_if_modified(|served| match service {
            Some(service) => served.insert(address.to_owned(), service.clone()) != Some(service),
            None => served.remove(address).is_some(),
        });
    }

    /// Tells of each change.
    pub(super) fn subscribe(&self) -> watch::Receiver<HashMap<String, Service>> {
        self.served.subscribe()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use domain::run::Repository;
    use nostr::Keys;

    use super::*;

    fn request(owner: &PublicKey, identifier: &str) -> RunRequest {
        let repository = Repository {
            address: format!("30617:{owner}:{identifier}"),
            owner: owner.to_hex(),
            identifier: identifier.into(),
            relays: Vec::new(),
        };
        RunRequest { repository, ..RunRequest::default() }
    }

    #[test]
    fn a_repository_that_is_served_is_so_under_the_address_of_each_maintainer() {
        let [owner, maintainer, stranger] = [(); 3].map(|()| Keys::generate().public_key());
        let served = ServedRepositories::default();
        assert!(!served.reports(&request(&owner, "repo")) && !served.any());
        let by = (EventId::all_zeros(), maintainer, "wss://relay.example".to_owned());
        let service = Service { request: Some(by.clone()), maintainers: [owner, maintainer].into() };
        served.set(&format!("30617:{owner}:repo"), Some(service));
        for key in [&owner, &maintainer] {
            assert!(served.reports(&request(key, "repo")));
            assert_eq!(served.request_of(&request(key, "repo")), Some(by.clone()));
            assert!(!served.reports(&request(key, "other")));
            let named = RepositoryAddress::parse(&format!("30617:{key}:repo"), "").unwrap();
            assert_eq!(served.address_of(&named), Some(format!("30617:{owner}:repo")));
        }
        assert!(!served.reports(&request(&stranger, "repo")), "whoever announces one of that name");
        served.set(&format!("30617:{owner}:repo"), None);
        assert!(!served.reports(&request(&owner, "repo")) && served.request_of(&request(&owner, "repo")).is_none());
    }
}
