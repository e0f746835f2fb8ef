//! Who may use an image that is on the engine already: what one job pulled with its password says nothing of another, and
//! what the operator keeps there is not a job's.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use secrecy::ExposeSecret as _;
use sha2::{Digest as _, Sha256};

use crate::sandbox::Credentials;

/// How long a registry's yes counts.
const PROOF: Duration = Duration::from_secs(24 * 3600);
/// Proofs that are remembered.
const PROOFS: usize = 4096;

/// An image, and the hash of the credentials that its registry gave it to; `None`: to everybody.
type Proof = (String, Option<[u8; 32]>);

/// Knows for whom registries gave what is here, and what of it the operator lets every job use.
pub(super) struct ImageAccess {
    /// Normalised references; one that ends with `*` stands for all that begin so. `None`: every image that is here.
    local: Option<Vec<String>>,
    proofs: Mutex<HashMap<Proof, Instant>>,
}

impl ImageAccess {
    pub(super) fn new(local: Option<&[String]>) -> Self {
        let local = local.map(|local| {
            local.iter().map(|name| if name.ends_with('*') { name.clone() } else { normalised(name) }).collect()
        });
        Self { local, proofs: Mutex::default() }
    }

    /// Whether every job may use what is here under this name.
    pub(super) fn is_local(&self, reference: &str) -> bool {
        let Some(local) = &self.local else { return true };
        let name = normalised(reference);
        local.iter().any(|known| match known.strip_suffix('*') {
            Some(start) => name.starts_with(start),
            None => name == *known,
        })
    }

    /// Notes that a registry gave an image.
    pub(super) fn prove(&self, id: &str, credentials: Option<&Credentials>) {
        let now = Instant::now();
        let mut proofs = self.proofs.lock();
        if proofs.len() >= PROOFS {
            proofs.retain(|_, since| now.duration_since(*since) < PROOF);
        }
        if proofs.len() >= PROOFS
            && let Some(oldest) = proofs.iter().min_by_key(|(_, since)| **since).map(|(proof, _)| proof.clone())
        {
            proofs.remove(&oldest);
        }
        proofs.insert((id.to_owned(), credentials.map(hash)), now);
    }

    /// Whether a registry gave an image to these credentials, or to everybody, not long ago.
    pub(super) fn is_proven(&self, id: &str, credentials: Option<&Credentials>) -> bool {
        let proofs = self.proofs.lock();
        [None, credentials.map(hash)]
            .into_iter()
            .filter_map(|who| proofs.get(&(id.to_owned(), who)))
            .any(|since| since.elapsed() < PROOF)
    }
}

fn hash(credentials: &Credentials) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((credentials.username.len() as u64).to_be_bytes());
    hash.update(&credentials.username);
    hash.update(credentials.password.expose_secret());
    hash.finalize().into()
}

/// A reference with its tag, without what the engine adds to every name.
pub(super) fn normalised(reference: &str) -> String {
    let name = ["docker.io/", "index.docker.io/"].iter().find_map(|start| reference.strip_prefix(start));
    let name = name.unwrap_or(reference);
    with_tag(name.strip_prefix("library/").unwrap_or(name))
}

/// Without a tag the engine would bring every tag there is.
pub(super) fn with_tag(reference: &str) -> String {
    let name = reference.rsplit_once('/').map_or(reference, |(_, name)| name);
    if name.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn credentials(username: &str, password: &str) -> Credentials {
        Credentials { username: username.into(), password: password.to_owned().into() }
    }

    #[test]
    fn attack_39_a_proof_counts_for_who_gave_it_alone() {
        let access = ImageAccess::new(Some(&[]));
        let (owner, stranger) = (credentials("owner", "secret"), credentials("owner", "guess"));
        access.prove("sha256:a", Some(&owner));
        assert!(access.is_proven("sha256:a", Some(&owner)));
        for other in
            [None, Some(&stranger), Some(&credentials("ownersecret", "")), Some(&credentials("", "ownersecret"))]
        {
            assert!(!access.is_proven("sha256:a", other));
        }
        assert!(!access.is_proven("sha256:b", Some(&owner)));
        access.prove("sha256:b", None);
        assert!(access.is_proven("sha256:b", None) && access.is_proven("sha256:b", Some(&stranger)));
        for number in 0..2 * PROOFS {
            access.prove(&number.to_string(), None);
        }
        assert_eq!(access.proofs.lock().len(), PROOFS);
    }

    #[test]
    fn an_image_is_known_by_every_form_of_its_name() {
        let named = ["ubuntu", "r.example:5000/a/b", "team/*", "x@sha256:0"].map(String::from);
        let access = ImageAccess::new(Some(&named));
        for name in [
            "ubuntu",
            "ubuntu:latest",
            "library/ubuntu",
            "docker.io/library/ubuntu:latest",
            "r.example:5000/a/b:latest",
            "team/x:1",
            "x@sha256:0",
        ] {
            assert!(access.is_local(name), "{name}");
        }
        for name in
            ["ubuntu:24.04", "r.example:5000/a/b:2", "r.example:5000/ubuntu", "sha256:0", "3f5a", "teams/x", "x"]
        {
            assert!(!access.is_local(name), "{name}");
        }
        assert!(ImageAccess::new(None).is_local("anything"));
    }
}
