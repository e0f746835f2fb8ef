//! Names that come from outside: repository addresses, refs, commits. Parsed here, trusted nowhere before.

use nostr::nips::{nip01::Coordinate, nip19::Nip19Coordinate};
use nostr::{FromBech32, Kind, PublicKey};

use domain::run::Repository;

/// Relay hints taken from one address.
const HINTS: usize = 8;
/// Characters of a `d` tag.
const IDENTIFIER: usize = 256;

/// A repository address as written.
#[derive(Debug, Clone, PartialEq)]
pub enum Address {
    /// The owner is named by key.
    Known(Repository),
    /// The owner is named by an internet identifier, which has to be looked up (NIP-05).
    Named {
        /// Local part; `_` for the domain itself.
        name: String,
        /// Domain.
        domain: String,
        /// The rest of the address; its owner is empty.
        repository: Repository,
    },
}

/// Why an address, ref or commit was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadName(pub String);

impl Address {
    /// Reads `naddr1…`, `nostr:naddr1…`, `30617:<hex>:<d>` and every `nostr://` form that NIP-34, ngit and the web
    /// client write: `nostr://<naddr>`, `nostr://<npub|nip05>/<d>`, relays as path segments or as `?relay=`, and a
    /// leading `ssh` or `user@ssh` segment.
    pub fn parse(text: &str) -> Result<Self, BadName> {
        let text = text.trim();
        let bad = |why: &str| BadName(format!("repository address {text:?}: {why}"));
        if let Some(rest) = text.strip_prefix("nostr://") {
            return Self::url(rest, &bad);
        }
        let bare = text.strip_prefix("nostr:").unwrap_or(text);
        if bare.starts_with("naddr1") {
            return naddr(bare).map(Self::Known).map_err(|why| bad(&why));
        }
        let coordinate = Coordinate::parse(bare)
            .map_err(|_| bad("expected naddr1…, nostr://<npub>/<identifier> or 30617:<key>:<identifier>"))?;
        // Runs of older clients point at the state (30618) of the same repository.
        if !matches!(coordinate.kind, Kind::GitRepoAnnouncement | Kind::RepoState) {
            return Err(bad("its kind is neither 30617 nor 30618"));
        }
        repository(&coordinate.public_key, &coordinate.identifier, Vec::new()).map(Self::Known).map_err(|why| bad(&why))
    }

    fn url(rest: &str, bad: &dyn Fn(&str) -> BadName) -> Result<Self, BadName> {
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut segments: Vec<&str> = path.trim_end_matches('/').split('/').collect();
        // ngit writes the protocol of the clone URLs, with or without a user, before the owner.
        if segments.len() > 2 && segments.first().is_some_and(|first| is_protocol(first)) {
            segments.remove(0);
        }
        let Some((owner, rest)) = segments.split_first() else { return Err(bad("it is empty")) };
        if owner.starts_with("naddr1") {
            return naddr(owner).map(Self::Known).map_err(|why| bad(&why));
        }
        let Some((identifier, relays)) = rest.split_last() else {
            return Err(bad("the identifier is missing: nostr://<npub>/<identifier>"));
        };
        let query = url::form_urlencoded::parse(query.as_bytes());
        let hints: Vec<String> = relays
            .iter()
            .map(|segment| decode(segment))
            .chain(query.filter(|(key, _)| key == "relay").map(|(_, value)| value.into_owned()))
            .filter_map(|hint| relay(&hint))
            .collect();
        let identifier = decode(identifier);
        if let Ok(key) = PublicKey::from_bech32(owner).or_else(|_| PublicKey::from_hex(owner)) {
            return repository(&key, &identifier, hints).map(Self::Known).map_err(|why| bad(&why));
        }
        let (name, domain) = owner.split_once('@').unwrap_or(("_", owner));
        let plain = |text: &str| text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b));
        if name.is_empty() || !domain.contains('.') || !plain(name) || !plain(domain) {
            return Err(bad("the owner is neither an npub nor an internet identifier (NIP-05)"));
        }
        let mut repository = Repository { identifier, relays: hints, ..Repository::default() };
        repository.relays.truncate(HINTS);
        Ok(Self::Named { name: name.to_owned(), domain: domain.to_owned(), repository })
    }
}

fn is_protocol(segment: &str) -> bool {
    let scheme = segment.rsplit_once('@').map_or(segment, |(_, scheme)| scheme);
    matches!(scheme, "ssh" | "https" | "http" | "git" | "ftp")
}

fn naddr(text: &str) -> Result<Repository, String> {
    let decoded = Nip19Coordinate::from_bech32(text).map_err(|error| format!("not an naddr: {error}"))?;
    if decoded.coordinate.kind != Kind::GitRepoAnnouncement {
        return Err("the naddr is not of a repository announcement (30617)".into());
    }
    let hints = decoded.relays.iter().filter_map(|hint| relay(hint.as_str())).collect();
    repository(&decoded.coordinate.public_key, &decoded.coordinate.identifier, hints)
}

/// A repository of this owner; the identifier is checked.
fn repository(owner: &PublicKey, identifier: &str, mut relays: Vec<String>) -> Result<Repository, String> {
    if identifier.is_empty() || identifier.chars().count() > IDENTIFIER || identifier.chars().any(char::is_control) {
        return Err(format!("the identifier must have 1 to {IDENTIFIER} printable characters"));
    }
    relays.truncate(HINTS);
    let owner = owner.to_hex();
    Ok(Repository { address: format!("30617:{owner}:{identifier}"), owner, identifier: identifier.to_owned(), relays })
}

fn decode(segment: &str) -> String {
    // `+` stands for itself in a path.
    let escaped = format!("x={}", segment.replace('+', "%2B"));
    url::form_urlencoded::parse(escaped.as_bytes()).next().map(|(_, value)| value.into_owned()).unwrap_or_default()
}

/// A relay hint as URL; `wss://` may be left out.
fn relay(hint: &str) -> Option<String> {
    let hint = hint.trim().trim_end_matches('/');
    let full = if hint.contains("://") { hint.to_owned() } else { format!("wss://{hint}") };
    let url = url::Url::parse(&full).ok()?;
    (matches!(url.scheme(), "ws" | "wss") && url.has_host()).then_some(full)
}

/// A full ref name of a branch or tag, by the rules of `git check-ref-format`, without parts that begin with a dash:
/// such a name could be read as an option somewhere.
pub fn check_ref(name: &str) -> Result<&str, BadName> {
    let bad = |why: &str| Err(BadName(format!("ref {name:?}: {why}")));
    let Some(short) = name.strip_prefix("refs/heads/").or_else(|| name.strip_prefix("refs/tags/")) else {
        return bad("only refs/heads/ and refs/tags/ are built");
    };
    if name.len() > 512 {
        return bad("longer than 512 bytes");
    }
    if short.bytes().any(|byte| byte <= b' ' || byte == 0x7f || b"~^:?*[\\".contains(&byte)) {
        return bad("it has a character that git does not allow");
    }
    if short.contains("..") || short.contains("@{") || short.ends_with('.') {
        return bad("git does not allow it");
    }
    for part in short.split('/') {
        if part.is_empty() || part.starts_with('.') || part.ends_with(".lock") {
            return bad("git does not allow one of its parts");
        }
        if part.starts_with('-') {
            return bad("a part begins with a dash");
        }
    }
    Ok(name)
}

/// A full commit id: 40 or 64 lower-case hex digits after this.
pub fn check_commit(text: &str) -> Result<String, BadName> {
    let lower = text.trim().to_ascii_lowercase();
    if is_object_id(&lower) {
        Ok(lower)
    } else {
        Err(BadName(format!("commit {text:?}: expected 40 or 64 hex digits")))
    }
}

/// Whether this is a full object id.
pub fn is_object_id(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;
    use nostr::{RelayUrl, ToBech32};

    const KEY: &str = "7e7e9c42a91bfef19fa929e5fda1b72e0ebc1a4c1141673e2794234d86addf4e";

    fn known(text: &str) -> Repository {
        match Address::parse(text) {
            Ok(Address::Known(repository)) => repository,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn t69_every_written_form_names_the_same_repository() {
        let key = PublicKey::from_hex(KEY).unwrap();
        let npub = key.to_bech32().unwrap();
        let coordinate = Coordinate::new(Kind::GitRepoAnnouncement, key).identifier("my-repo");
        let relays = [RelayUrl::parse("wss://relay.example").unwrap()];
        let naddr = Nip19Coordinate::new(coordinate, relays).to_bech32().unwrap();
        for (text, hints) in [
            (naddr.clone(), 1),
            (format!("nostr:{naddr}"), 1),
            (format!("nostr://{naddr}"), 1),
            (format!("30617:{KEY}:my-repo"), 0),
            (format!("30618:{KEY}:my-repo"), 0),
            (format!("nostr://{npub}/my-repo"), 0),
            (format!("nostr://{npub}/relay.example/my-repo"), 1),
            (format!("nostr://{npub}/wss%3A%2F%2Frelay.example/my-repo"), 1),
            (format!("nostr://{npub}/ws%3A%2F%2F127.0.0.1%3A7000/wss%3A%2F%2Frelay.example/my-repo"), 2),
            (format!("nostr://{npub}/my-repo?relay=wss%3A%2F%2Frelay.example&protocol=https"), 1),
            (format!("nostr://ssh/{npub}/relay.example/my-repo"), 1),
            (format!("nostr://git@ssh/{npub}/my-repo"), 0),
            (format!("nostr://{npub}/my%2Drepo"), 0),
        ] {
            let repository = known(&text);
            assert_eq!(repository.address, format!("30617:{KEY}:my-repo"), "{text}");
            assert_eq!(repository.relays.len(), hints, "{text}");
        }
    }

    #[test]
    fn an_internet_identifier_is_left_to_be_looked_up() {
        let parsed = Address::parse("nostr://dan@gitworkshop.dev/relay.example/ngit").unwrap();
        let Address::Named { name, domain, repository } = parsed else { panic!("{parsed:?}") };
        assert_eq!(
            (name.as_str(), domain.as_str(), repository.identifier.as_str()),
            ("dan", "gitworkshop.dev", "ngit")
        );
    }

    #[test]
    fn what_is_no_repository_is_refused_with_the_reason() {
        for text in ["", "nostr://", "nostr://npub1zzz/x", "https://example.org/x.git", "30023:abc:x", "naddr1qq"] {
            let error = Address::parse(text).unwrap_err().to_string();
            assert!(error.contains("repository address"), "{text}: {error}");
        }
    }

    #[test]
    fn attack_02_names_that_could_be_options_are_refused() {
        for name in [
            "--upload-pack=touch /tmp/x",
            "refs/heads/--upload-pack=x",
            "refs/heads/a/-b",
            "refs/heads/a..b",
            "refs/heads/a b",
            "refs/heads/a\nb",
            "refs/heads/x.lock",
            "refs/heads/@{u}",
            "refs/notes/x",
            "refs/heads/",
            "HEAD",
        ] {
            assert!(check_ref(name).is_err(), "{name}");
        }
        for name in ["refs/heads/main", "refs/heads/feature/a-b", "refs/tags/v1.0.0", "refs/heads/a\";curl$IFS"] {
            assert!(check_ref(name).is_ok(), "{name}");
        }
        assert!(check_commit("--help").is_err());
        assert!(check_commit(&"A".repeat(40)).is_ok_and(|commit| commit == "a".repeat(40)));
    }
}
