//! Secrets at rest: each run has a data key, wrapped by the store key; values are sealed under the data key.
//!
//! ChaCha20-Poly1305 with a random nonce before the ciphertext. The run's id and the value's name are authenticated,
//! so that a sealed value can't be moved to another run or name.

use domain::id::RunId;

use ring::{
    aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;

/// Wraps the data keys of all runs. The same on every coordinator.
#[derive(Debug)]
pub struct StoreKey(SecretBox<[u8; KEY_BYTES]>);

/// Why values could not be sealed or opened.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum SealError {
    /// The key's text is no key.
    #[error("a store key is 64 hexadecimal digits; make one with `longshore keygen`")]
    NoKey,
    /// Another key sealed it, or the bytes were changed.
    #[error("the stored secrets of run {0} can't be opened: was the store key replaced, or the database changed?")]
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
}

/// Sealed values by name, and the data key that opens them, wrapped by the store key.
pub type Sealed = (Vec<(String, Vec<u8>)>, Vec<u8>);

/// Seals a run's values under a new data key.
pub fn seal(store_key: &StoreKey, run: &RunId, values: &[(String, SecretString)]) -> Result<Sealed, SealError> {
    let data_key = random::<KEY_BYTES>()?;
    let cipher = cipher(run, data_key.as_slice())?;
    let sealed = values.iter().map(|(name, value)| {
        Ok((name.clone(), encrypt(&cipher, &value_aad(run, name), value.expose_secret().as_bytes())?))
    });
    let sealed = sealed.collect::<Result<_, SealError>>()?;
    let wrapped = encrypt(&wrapper(run, store_key)?, &key_aad(run), data_key.as_slice())?;
    Ok((sealed, wrapped))
}

/// Opens what [`seal`] made for this run.
pub fn open(
    store_key: &StoreKey,
    run: &RunId,
    sealed: &[(String, Vec<u8>)],
    wrapped_key: &[u8],
) -> Result<Vec<(String, SecretString)>, SealError> {
    let broken = || SealError::Broken(run.to_string());
    let data_key = decrypt(&wrapper(run, store_key)?, &key_aad(run), wrapped_key).ok_or_else(broken)?;
    let cipher = cipher(run, &data_key)?;
    let values = sealed.iter().map(|(name, bytes)| {
        let value = decrypt(&cipher, &value_aad(run, name), bytes).ok_or_else(broken)?;
        let text = str::from_utf8(&value).map_err(|_| broken())?;
        Ok((name.clone(), SecretString::from(text)))
    });
    values.collect()
}

fn wrapper(run: &RunId, store_key: &StoreKey) -> Result<LessSafeKey, SealError> {
    cipher(run, store_key.0.expose_secret())
}

fn cipher(run: &RunId, key: &[u8]) -> Result<LessSafeKey, SealError> {
    let key = UnboundKey::new(&CHACHA20_POLY1305, key).map_err(|_| SealError::Broken(run.to_string()))?;
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

fn value_aad(run: &RunId, name: &str) -> Vec<u8> {
    [b"value\0", run.as_str().as_bytes(), b"\0", name.as_bytes()].concat()
}

fn key_aad(run: &RunId) -> Vec<u8> {
    [b"key\0", run.as_str().as_bytes()].concat()
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

    fn values() -> Vec<(String, SecretString)> {
        vec![("TOKEN".into(), "s3cret\nwith lines ✓".into()), ("EMPTY".into(), "".into())]
    }

    #[test]
    fn what_was_sealed_opens_with_the_same_key_for_the_same_run_only() {
        let store_key = key();
        let (sealed, wrapped) = seal(&store_key, &"run-1".into(), &values()).unwrap();
        let opened = open(&store_key, &"run-1".into(), &sealed, &wrapped).unwrap();
        let plain = |list: &[(String, SecretString)]| {
            list.iter().map(|(name, value)| (name.clone(), value.expose_secret().to_owned())).collect::<Vec<_>>()
        };
        assert_eq!(plain(&opened), plain(&values()));
        let broken = |run: &str| Some(SealError::Broken(run.into()));
        assert_eq!(open(&key(), &"run-1".into(), &sealed, &wrapped).err(), broken("run-1"));
        assert_eq!(open(&store_key, &"run-2".into(), &sealed, &wrapped).err(), broken("run-2"));
    }

    #[test]
    fn a_sealed_value_cant_take_another_name_or_be_changed() {
        let store_key = key();
        let (sealed, wrapped) = seal(&store_key, &"run".into(), &values()).unwrap();
        let mut renamed = sealed.clone();
        renamed[0].0 = "OTHER".into();
        assert!(open(&store_key, &"run".into(), &renamed, &wrapped).is_err());
        for position in 0..sealed[0].1.len() {
            let mut changed = sealed.clone();
            changed[0].1[position] ^= 1;
            assert!(open(&store_key, &"run".into(), &changed, &wrapped).is_err(), "byte {position}");
        }
        assert!(open(&store_key, &"run".into(), &sealed, &wrapped[..5]).is_err());
    }

    #[test]
    fn no_plain_text_stands_in_what_is_stored() {
        let (sealed, _) = seal(&key(), &"run".into(), &[("A".into(), "canary-4711".into())]).unwrap();
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
