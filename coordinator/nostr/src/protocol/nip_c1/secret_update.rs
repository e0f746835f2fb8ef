//! Secret updates (29846): a maintainer gives or removes secrets, encrypted for a key that this process made and never
//! stores.

use std::{cmp::Reverse, collections::BTreeMap};

use nostr::{Event, EventId, Keys, PublicKey, nips::nip44};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::{
    LONGEST_ADVERTISED, SECRET_UPDATE,
    event_tags::{EventTags, Malformed, event_id, key},
    run_subject::RepositoryAddress,
};

/// A key is used no longer than this (s) from when it was first advertised.
const ROTATE: u64 = 86_400;
/// It is destroyed so long (s) after the last advertisement that names it has expired: an update may be on its way.
const GRACE: u64 = 60;
/// Names in one update.
const NAMES: usize = 100;
/// Bytes of a value, of the whole text, and of that encrypted.
const VALUE: usize = 16_384;
const TEXT: usize = 65_535;
const ENCRYPTED: usize = 100 << 10;
/// Bytes of a name.
const NAME: usize = 256;
/// The word that stands for a maintainer's remote signer, which unlocks sealed secrets.
const BUNKER: &str = "WORKFLOW_SECRETS_DECRYPTION_BUNKER";
/// What variables of a job begin with that are not a maintainer's to set.
const RESERVED: [&str; 5] = ["GITHUB_", "RUNNER_", "ACTIONS_", "NGIT_CI_", "LONGSHORE_"];

/// What one update changes, all of it together.
#[derive(Debug)]
pub struct SecretUpdate {
    /// The repository: its announcement is of the maintainer who signed.
    pub repository: RepositoryAddress,
    /// The event, and when it was made (s): the order of updates.
    pub order: UpdateOrder,
    /// Values to keep, by name.
    pub set: BTreeMap<String, SecretString>,
    /// Names to forget.
    pub remove: Vec<String>,
}

/// The place of an update among those of one repository and name: the later is greater, of two at one second the one with the
/// lower id is later.
pub type UpdateOrder = (u64, Reverse<EventId>);

impl SecretUpdate {
    /// Whom an update is for. Nothing else of it is read.
    ///
    /// # Errors
    /// It is for nobody, or for several.
    pub(super) fn coordinator(event: &Event) -> Result<PublicKey, Malformed> {
        key("p", EventTags::new(event).value("p")?)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plaintext {
    author: String,
    created_at: u64,
    set: BTreeMap<String, SecretString>,
    remove: Vec<String>,
}

/// Keys for which maintainers encrypt. They live in memory: after a restart nothing that was meant for an earlier process
/// can be read.
#[derive(Debug, Default)]
pub struct SecretsKeys {
    /// The last one is the current one.
    generations: Vec<Generation>,
}

/// One key, and the advertisements that name it.
#[derive(Debug)]
struct Generation {
    keys: Keys,
    first_advertised: Option<u64>,
    /// Id, and the seconds from and before which updates may be made.
    advertisements: Vec<(EventId, u64, u64)>,
}

impl SecretsKeys {
    /// The key to advertise at a time (s): a new one at the start and after a day. Those that can no longer be meant are
    /// destroyed.
    pub fn current(&mut self, now: u64) -> PublicKey {
        for generation in &mut self.generations {
            generation.advertisements.retain(|(_, _, expiration)| now <= expiration.saturating_add(GRACE));
        }
        let is_fresh = |generation: &Generation| {
            // An advertisement that is made now lives on for as long as one may.
            generation.first_advertised.is_none_or(|first| now < first.saturating_add(ROTATE - LONGEST_ADVERTISED))
        };
        let fresh = self.generations.pop_if(|last| is_fresh(last));
        self.generations.retain(|generation| !generation.advertisements.is_empty());
        let current = fresh.unwrap_or_else(|| Generation {
            keys: Keys::generate(),
            first_advertised: None,
            advertisements: Vec::new(),
        });
        let key = current.keys.public_key();
        self.generations.push(current);
        key
    }

    /// Notes an advertisement of ours that names the current key.
    pub fn advertised(&mut self, advertisement: EventId, created_at: u64, expiration: u64) {
        if let Some(current) = self.generations.last_mut() {
            current.first_advertised.get_or_insert(created_at);
            current.advertisements.push((advertisement, created_at, expiration));
        }
    }

    /// Reads an update. Its id and signature were checked before.
    ///
    /// # Errors
    /// It is not shaped as one, not for `us`, not for a key that is still there, or what is encrypted is not what the event
    /// says: then nothing of it counts.
    pub fn read(&self, event: &Event, us: &PublicKey) -> Result<SecretUpdate, Malformed> {
        let tags = EventTags::new(event);
        if event.kind.as_u16() != SECRET_UPDATE {
            return Err(Malformed::Unsupported("it is no secret update (kind 29846)"));
        }
        let known = ["a", "p", "e", "sender", "recipient", "encryption"];
        let name = |tag: &nostr::Tag| tag.as_slice().first().cloned().unwrap_or_default();
        if let Some(other) = event.tags.iter().map(name).find(|name| !known.contains(&name.as_str())) {
            return Err(Malformed::Unexpected(other));
        }
        if key("p", tags.value("p")?)? != *us {
            return Err(Malformed::NotOurs);
        }
        let repository = RepositoryAddress::read(tags.one("a")?)?;
        if repository.owner != event.pubkey {
            return Err(Malformed::value("a", "an announcement of the key that signed", &repository.address()));
        }
        let encryption = tags.value("encryption")?;
        if encryption != "nip44-v2" {
            return Err(Malformed::value("encryption", "`nip44-v2`", encryption));
        }
        let (sender, recipient) = (key("sender", tags.value("sender")?)?, key("recipient", tags.value("recipient")?)?);
        let named = tags.one("e")?;
        if named.get(3).map(String::as_str) != Some("secrets-key") {
            return Err(Malformed::value("e", "an advertisement with the marker `secrets-key`", &named.join(" ")));
        }
        let keys = self.of(event_id("e", tags.value("e")?)?, &recipient, event.created_at.as_secs())?;
        let order = (event.created_at.as_secs(), Reverse(event.id));
        let plaintext = open(event, keys, &sender)?;
        let (set, remove) = check(plaintext, event)?;
        Ok(SecretUpdate { repository, order, set, remove })
    }

    /// The key that an advertisement named at the time of an update.
    fn of(&self, advertisement: EventId, recipient: &PublicKey, at: u64) -> Result<&Keys, Malformed> {
        let gone = || Malformed::Secret("it is for a key that is not there any more: send it again".into());
        let of_key = self.generations.iter().find(|generation| generation.keys.public_key() == *recipient);
        let generation = of_key.ok_or_else(gone)?;
        let named = generation.advertisements.iter().find(|(id, ..)| *id == advertisement);
        let (_, from, before) = named.ok_or_else(gone)?;
        if at < *from || at >= *before {
            return Err(Malformed::Secret("it was not made while its advertisement was valid".into()));
        }
        Ok(&generation.keys)
    }
}

fn open(event: &Event, keys: &Keys, sender: &PublicKey) -> Result<Plaintext, Malformed> {
    if event.content.len() > ENCRYPTED {
        return Err(Malformed::Secret(format!("it is longer than {} KiB", ENCRYPTED >> 10)));
    }
    let text = nip44::decrypt(keys.secret_key(), sender, &event.content)
        .map_err(|error| Malformed::Secret(format!("it can't be decrypted: {error}")))?;
    let text = SecretString::from(text);
    if text.expose_secret().len() > TEXT {
        return Err(Malformed::Secret(format!("its text is longer than {TEXT} bytes")));
    }
    // The error of the reader would show the text.
    serde_json::from_str(text.expose_secret())
        .map_err(|_| Malformed::Secret("its text is not an object of author, created_at, set and remove".into()))
}

type Operations = (BTreeMap<String, SecretString>, Vec<String>);

fn check(Plaintext { author, created_at, set, remove }: Plaintext, event: &Event) -> Result<Operations, Malformed> {
    let wrong = |why: String| Err(Malformed::Secret(why));
    if author != event.pubkey.to_hex() || created_at != event.created_at.as_secs() {
        return wrong("its text is of another author or time than the event".into());
    }
    if set.is_empty() && remove.is_empty() {
        return wrong("it neither sets nor removes anything".into());
    }
    if set.len() + remove.len() > NAMES {
        return wrong(format!("it has more than {NAMES} names"));
    }
    for name in set.keys().chain(&remove) {
        if !is_name(name) {
            return wrong(format!(
                "`{}` is no name that a secret may have",
                name.escape_debug().take(NAME).collect::<String>()
            ));
        }
        if name == BUNKER {
            return wrong(format!("{BUNKER} is not supported: this pool unlocks no sealed secrets"));
        }
    }
    if let Some(both) = remove.iter().find(|name| set.contains_key(*name)) {
        return wrong(format!("it sets and removes {both}"));
    }
    let lengths = || set.iter().map(|(name, value)| (name, value.expose_secret().len()));
    if let Some((name, length)) = lengths().find(|(_, length)| *length == 0 || *length > VALUE) {
        return wrong(format!("the value of {name} has {length} bytes: 1 to {VALUE} are allowed"));
    }
    Ok((set, remove))
}

/// `[A-Z_][A-Z0-9_]*`, and nothing that a job has anyway.
fn is_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    let begins = bytes.next().is_some_and(|byte| byte.is_ascii_uppercase() || byte == b'_');
    let goes_on = bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    begins && goes_on && name.len() <= NAME && name != "CI" && !RESERVED.iter().any(|start| name.starts_with(start))
}
