//! What this coordinator offers: its advertisement (19843), the repositories that may ask for service (19844), and those that
//! it serves (39844).

use std::collections::BTreeSet;

use nostr::{EventId, Kind, PublicKey, Tag, TagKind};

use crate::{protocol::Draft, tags::tag};
use store::Signer;

use super::{
    ADVERTISEMENT, LONGEST_ADVERTISED, LONGEST_STATUS, READINESS, REPOSITORY_STATUS, run_subject::RepositoryAddress,
};

/// The family of runners, in the words of these events: files of GitHub Actions.
const FAMILY: &str = "act";
/// Labels and paths that one event names.
const SELECTORS: usize = 100;
/// Repositories and keys that the list of readiness names.
const LISTED: usize = 500;

/// Who is let in, in the words of an advertisement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum AdmissionPolicy {
    /// Repositories and owners that the operator named.
    OperatorSelected,
    /// Any repository whose maintainer asks for it.
    MaintainerRequest,
}

/// What a coordinator says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// Name and version of the program.
    pub software: (String, String),
    /// Labels that jobs may ask for.
    pub labels: BTreeSet<String>,
    /// Who is let in.
    pub admission: AdmissionPolicy,
    /// Whether some repositories are served without a request.
    pub automatic: bool,
    /// For whom secrets are encrypted, and where they are sent; `None`: none are taken.
    pub secrets_key: Option<(PublicKey, Vec<String>)>,
}

/// What is offered, and to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceOffer {
    /// What.
    pub offer: Offer,
    /// Repositories that may ask for service.
    pub repositories: Vec<RepositoryAddress>,
    /// Owners all of whose repositories may.
    pub owners: Vec<PublicKey>,
}

impl ServiceOffer {
    /// The events that say so at a time (s).
    pub fn drafts(&self, us: &PublicKey, stamp: u64) -> [Draft; 2] {
        [advertisement(us, &self.offer, stamp), readiness(us, &self.repositories, &self.owners, stamp)]
    }
}

/// `W` and `R`: what runs here. A coordinator without a worker offers the family all the same, so one label stands there.
fn capabilities(labels: &BTreeSet<String>) -> Vec<Tag> {
    let known: BTreeSet<String> = labels.iter().map(|label| label.to_ascii_lowercase()).collect();
    let mut tags = vec![tag("W", FAMILY)];
    tags.extend(known.iter().take(SELECTORS).map(|label| tag("R", format!("{FAMILY}:{label}"))));
    if known.is_empty() {
        tags.push(tag("R", format!("{FAMILY}:ubuntu-latest")));
    }
    tags
}

/// The advertisement at a time (s). It is to be replaced before it expires.
pub fn advertisement(us: &PublicKey, offer: &Offer, stamp: u64) -> Draft {
    let admission: &'static str = offer.admission.into();
    let (name, version) = &offer.software;
    let mut tags = vec![Tag::custom(TagKind::custom("software"), [name, version])];
    tags.extend(capabilities(&offer.labels));
    let execution = if offer.automatic { "automatic" } else { "request-required" };
    // Nobody pays.
    tags.extend([tag("M", admission), tag("X", execution), tag("B", "not-required")]);
    if let Some((key, inboxes)) = offer.secrets_key.as_ref().filter(|(_, inboxes)| !inboxes.is_empty()) {
        let values = ["nip44-v2".to_owned(), key.to_hex()].into_iter().chain(inboxes.iter().cloned());
        tags.push(Tag::custom(TagKind::custom("secrets-key"), values));
    }
    tags.push(tag("expiration", (stamp + LONGEST_ADVERTISED).to_string()));
    Draft::new(us, stamp, ADVERTISEMENT, tags, Signer::Coordinator)
}

/// The repositories, and the owners of repositories, that may ask for service. An empty list replaces an earlier one.
pub fn readiness(us: &PublicKey, repositories: &[RepositoryAddress], owners: &[PublicKey], stamp: u64) -> Draft {
    let addresses: BTreeSet<String> = repositories.iter().map(RepositoryAddress::address).collect();
    let owners: BTreeSet<&PublicKey> = owners.iter().collect();
    let mut tags: Vec<Tag> = addresses.into_iter().map(|address| tag("a", address)).collect();
    tags.extend(owners.into_iter().map(|owner| tag("p", owner.to_hex())));
    tags.truncate(LISTED);
    tags.push(tag("expiration", (stamp + LONGEST_STATUS).to_string()));
    Draft::new(us, stamp, READINESS, tags, Signer::Coordinator)
}

/// What a coordinator does for one repository.
#[derive(Debug, Clone)]
pub struct RepositoryService {
    /// The repository, as its selected maintainer announces it.
    pub selected: RepositoryAddress,
    /// Its maintainers, the selected one among them or not.
    pub maintainers: BTreeSet<PublicKey>,
    /// Labels that its jobs may ask for.
    pub labels: BTreeSet<String>,
    /// Where its workflow files are, as patterns.
    pub workflow_paths: Vec<String>,
}

impl RepositoryService {
    /// The status that says so at a time (s). It is to be replaced before it expires.
    pub fn status(&self, us: &PublicKey, stamp: u64) -> Draft {
        let selected = self.selected.address();
        let mut tags = vec![tag("d", &selected), self.selected.tag()];
        let others = self.maintainers.iter().filter(|key| **key != self.selected.owner);
        tags.extend(others.map(|key| tag("a", format!("30617:{key}:{}", self.selected.identifier))));
        tags.push(tag("s", "acting"));
        tags.extend(capabilities(&self.labels));
        tags.extend(self.workflow_paths.iter().take(SELECTORS).map(|path| tag("workflow-path", path)));
        tags.push(tag("expiration", (stamp + LONGEST_STATUS).to_string()));
        Draft::new(us, stamp, REPOSITORY_STATUS, tags, Signer::Coordinator)
    }
}

/// Takes back the status of a repository that is served no more; `last` is the event that said it, where it is known.
pub fn withdrawal(us: &PublicKey, repository: &RepositoryAddress, last: Option<EventId>, stamp: u64) -> Draft {
    let mut tags = vec![tag("a", format!("{REPOSITORY_STATUS}:{us}:{}", repository.address()))];
    tags.extend(last.map(|last| tag("e", last.to_hex())));
    tags.push(tag("k", REPOSITORY_STATUS.to_string()));
    Draft::new(us, stamp, Kind::EventDeletion.as_u16(), tags, Signer::Coordinator)
}
