//! Secrets at rest: each owner has a data key, wrapped by the store key; values are sealed under the data key.
//!
//! An owner is a run, or one secret of a repository. ChaCha20-Poly1305 with a random nonce before the ciphertext. The
//! owner and the value's name are authenticated, so that a sealed value can't be moved to another owner or name.

use std::fmt;

use domain::id::RunId;

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;

/// Wraps all data keys. The same on every coordinator.
#[derive(Debug)]
pub struct StoreKey(SecretBox<[u8; KEY_BYTES]>);

/// Why values could not be sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// The key's text is no key.
    #[error("a store key is 64 hexadecimal digits; make one with `longshore keygen`")]
    NoKey,
    /// Another key sealed it, or the bytes were changed.
    #[error("the stored secrets of {0} can't be opened: was the store key replaced, or the database changed?")]
    Broken(String),
    /// The machine gives no randomness.
    #[error("no randomness from the operating system")]
    NoRandomness,
}

impl StoreKey {
    /// From 64 hex digits; space around them is ignored.
    pub fn from_hex(text: &str) -> Result<Self, SealError> {
        let mut key = Box::new([0; KEY_BYTES]);
        hex::decode_to_slice(text.trim(), key.as_mut_slice()).map_err(|_| SealError::NoKey)?;
        Ok(Self(SecretBox::new(key)))
    }

    /// A new one, as the 64 hex digits for its file.
    pub fn generate() -> Result<SecretString, SealError> {
        let key = random::<KEY_BYTES>()?;
        Ok(hex::encode(key.as_slice()).into())
    }

    /// What a database knows the key by: it tells keys apart and says nothing else of them.
    pub fn mark(&self) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, self.0.expose_secret());
        hex::encode(hmac::sign(&key, b"the mark of a store key"))
    }
}

/// What sealed values belong to: they open for nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealOwner {
    /// What is authenticated.
    text: String,
    /// For people.
    name: String,
}

impl From<&RunId> for SealOwner {
    fn from(run: &RunId) -> Self {
        Self { text: run.to_string(), name: format!("run {run}") }
    }
}

impl SealOwner {
    /// Of the secrets of a repository, for an environment of it; empty: for all of it.
    pub fn repository(repository: &str, environment: &str) -> Self {
        // No run's id has such a character.
        Self { text: format!("repository\0{repository}\0{environment}"), name: format!("the repository {repository}") }
    }
}

impl fmt::Display for SealOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Sealed values by name, and the data key that opens them, wrapped by the store key.
pub type Sealed = (Vec<(String, Vec<u8>)>, Vec<u8>);

/// Seals an owner's values under a new data key.
pub fn seal(store_key: &StoreKey, owner: &SealOwner, values: &[(String, SecretString)]) -> Result<Sealed, SealError> {
    let data_key = random::<KEY_BYTES>()?;
    let cipher = cipher(owner, data_key.as_slice())?;
    let sealed = values.iter().map(|(name, value)| {
        Ok((name.clone(), encrypt(&cipher, &value_aad(owner, name), value.expose_secret().as_bytes())?))
    });
    let sealed = sealed.collect::<Result<_, SealError>>()?;
    let wrapped = encrypt(&wrapper(owner, store_key)?, &key_aad(owner), data_key.as_slice())?;
    Ok((sealed, wrapped))
}

/// Opens what [`seal`] made for this owner.
pub fn open(
    store_key: &StoreKey,
    owner: &SealOwner,
    sealed: &[(String, Vec<u8>)],
    wrapped_key: &[u8],
) -> Result<Vec<(String, SecretString)>, SealError> {
    let broken = || SealError::Broken(owner.to_string());
    let data_key = decrypt(&wrapper(owner, store_key)?, &key_aad(owner), wrapped_key).ok_or_else(broken)?;
    let cipher = cipher(owner, &data_key)?;
    let values = sealed.iter().map(|(name, bytes)| {
        let value = decrypt(&cipher, &value_aad(owner, name), bytes).ok_or_else(broken)?;
        let text = str::from_utf8(&value).map_err(|_| broken())?;
        Ok((name.clone(), SecretString::from(text)))
    });
    values.collect()
}

/// Wraps an owner's data key by another store key.
pub(crate) fn rewrap(
    old: &StoreKey,
    new: &StoreKey,
    owner: &SealOwner,
    wrapped_key: &[u8],
) -> Result<Vec<u8>, SealError> {
    let data_key = decrypt(&wrapper(owner, old)?, &key_aad(owner), wrapped_key);
    let data_key = data_key.ok_or_else(|| SealError::Broken(owner.to_string()))?;
    encrypt(&wrapper(owner, new)?, &key_aad(owner), &data_key)
}

fn wrapper(owner: &SealOwner, store_key: &StoreKey) -> Result<LessSafeKey, SealError> {
    cipher(owner, store_key.0.expose_secret())
}

fn cipher(owner: &SealOwner, key: &[u8]) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| SealError::Broken(owner.to_string()))?;
    Ok(LessSafeKey::new(key))
}

fn encrypt(cipher: &LessSafeKey, aad: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
    let nonce = random::<NONCE_LEN>()?;
    // Room for the tag from the start: growing would leave a copy of the plain text behind.
    let mut body = Zeroizing::new(Vec::with_capacity(plain.len() + CHACHA20_POLY1305.tag_len()));
    body.extend_from_slice(plain);
    cipher
        .seal_in_place_append_tag(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut *body)
        .map_err(|_| SealError::NoRandomness)?;
    Ok([nonce.as_slice(), body.as_slice()].concat())
}

fn decrypt(cipher: &LessSafeKey, aad: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, body) = sealed.split_first_chunk::<NONCE_LEN>()?;
    let mut body = Zeroizing::new(body.to_vec());
    let length = cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(aad), &mut body).ok()?.len();
    body.truncate(length);
    Some(body)
}

fn value_aad(owner: &SealOwner, name: &str) -> Vec<u8> {
    [b"value\0", owner.text.as_bytes(), b"\0", name.as_bytes()].concat()
}

fn key_aad(owner: &SealOwner) -> Vec<u8> {
    [b"key\0", owner.text.as_bytes()].concat()
}

fn random<const N: usize>() -> Result<Zeroizing<[u8; N]>, SealError> {
    let mut bytes = Zeroizing::new([0; N]);
    SystemRandom::new().fill(bytes.as_mut_slice()).map_err(|_| SealError::NoRandomness)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    fn key() -> StoreKey {
        StoreKey::from_hex(StoreKey::generate().unwrap().expose_secret()).unwrap()
    }

    fn run(id: &str) -> SealOwner {
        SealOwner::from(&RunId::from(id))
    }

    fn values() -> Vec<(String, SecretString)> {
        vec![("TOKEN".into(), "s3cret\nwith lines ✓".into()), ("EMPTY".into(), "".into())]
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_for_the_same_run_only() {
        let store_key = key();
        let (sealed, wrapped) = seal(&store_key, &run("run-1"), &values()).unwrap();
        let opened = open(&store_key, &run("run-1"), &sealed, &wrapped).unwrap();
        let plain = |list: &[(String, SecretString)]| {
            list.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(plain(&opened), plain(&values()));
        let broken = |run: &str| Some(SealError::Broken(format!("run {run}")));
        assert_eq!(open(&key(), &run("run-1"), &sealed, &wrapped).err(), broken("run-1"));
        assert_eq!(open(&store_key, &run("run-2"), &sealed, &wrapped).err(), broken("run-2"));
    }

    #[test]
    fn a_secret_of_a_repository_opens_for_its_own_repository_and_environment_alone() {
        let (store_key, own) = (key(), SealOwner::repository("30617:a:b", "production"));
        let (sealed, wrapped) = seal(&store_key, &own, &values()).unwrap();
        assert!(open(&store_key, &own, &sealed, &wrapped).is_ok());
        for (repository, environment) in
            [("30617:a:b", ""), ("30617:a:b", "staging"), ("30617:a:c", "production"), ("30617:a:b\0production", "")]
        {
            let other = SealOwner::repository(repository, environment);
            assert!(open(&store_key, &other, &sealed, &wrapped).is_err(), "{other:?}");
        }
    }

    #[test]
    fn a_data_key_that_was_wrapped_anew_opens_with_the_new_store_key_alone() {
        let (old, new, own) = (key(), key(), run("run"));
        let (sealed, wrapped) = seal(&old, &own, &values()).unwrap();
        let again = rewrap(&old, &new, &own, &wrapped).unwrap();
        assert!(open(&new, &own, &sealed, &again).is_ok() && open(&old, &own, &sealed, &again).is_err());
        assert!(rewrap(&new, &old, &own, &wrapped).is_err(), "what it was not wrapped by opens nothing");
        assert!(old.mark() != new.mark() && old.mark().len() == 64);
    }

    #[test]
    fn a_sealed_value_cant_take_another_name_or_be_changed() {
        let store_key = key();
        let (sealed, wrapped) = seal(&store_key, &run("run"), &values()).unwrap();
        let mut renamed = sealed.clone();
        renamed[0].0 = "OTHER".into();
        assert!(open(&store_key, &run("run"), &renamed, &wrapped).is_err());
        for position in 0..sealed[0].1.len() {
            let mut changed = sealed.clone();
            changed[0].1[position] ^= 1;
            assert!(open(&store_key, &run("run"), &changed, &wrapped).is_err(), "byte {position}");
        }
        assert!(open(&store_key, &run("run"), &sealed, &wrapped[..5]).is_err());
    }

    #[test]
    fn no_plain_text_stands_in_what_is_stored() {
        let (sealed, _) = seal(&key(), &run("run"), &[("A".into(), "canary-4711".into())]).unwrap();
        assert!(!sealed[0].1.windows(11).any(|window| window == b"canary-4711"));
    }

    #[test]
    fn a_store_key_is_sixty_four_hex_digits() {
        for text in ["", "abc", &"g".repeat(64), &"0".repeat(63)] {
            assert_eq!(StoreKey::from_hex(text).err(), Some(SealError::NoKey), "{text:?}");
        }
        assert!(StoreKey::from_hex(&format!(" {}\n", "0a".repeat(32))).is_ok());
    }
}
