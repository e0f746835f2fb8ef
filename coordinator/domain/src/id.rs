//! Ids of what the domain is about: a type for each, so that one is not taken for another.
//!
//! Each is stored and sent as its text alone. Clones share the text and allocate nothing: ids are copied into every event,
//! row and index.

use std::{borrow::Borrow, fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A text that is not of the form that an id has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {expected}")]
pub struct MalformedId {
    expected: &'static str,
    text: String,
}

/// What all ids have: their text, by which they are compared, shown and looked up in maps.
macro_rules! id_text {
    ($name:ident) => {
        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                self.as_str()
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.as_str() == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.as_str() == *other
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(self.as_str(), f)
            }
        }
    };
}

/// An id that is compared and passed on, and of which any text is accepted: one that nothing has is not found.
macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        id_text!($name);

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }
    };
}

/// An id in lowercase hex digits, of one of these lengths: any other text is refused, also where it is read from storage.
macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $expected:literal, $length:pat) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Arc<str>);

        id_text!($name);

        impl FromStr for $name {
            type Err = MalformedId;

            fn from_str(text: &str) -> Result<Self, MalformedId> {
                let is_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
                match text.len() {
                    $length if text.bytes().all(is_hex) => Ok(Self(text.into())),
                    _ => Err(MalformedId { expected: $expected, text: text.chars().take(80).collect() }),
                }
            }
        }

        impl TryFrom<String> for $name {
            type Error = MalformedId;

            fn try_from(text: String) -> Result<Self, MalformedId> {
                text.parse()
            }
        }
    };
}

opaque_id! {
    /// Id of a run: the text of a UUID v7, which the coordinator makes.
    RunId
}

opaque_id! {
    /// Key of a job, or of a call, within its run: the path of job ids from the run's own file down, each with the number
    /// of its matrix cell: `build`, `test/2`, `caller/1/build`. The empty key stands for the run's own file.
    JobKey
}

impl JobKey {
    /// Whether it stands for the run's own file.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key of a job, or of a call, of the file that this call is of.
    pub fn child(&self, id: &str) -> Self {
        if self.is_empty() { id.into() } else { format!("{self}/{id}").into() }
    }

    /// Whether it belongs to a call, at any depth.
    pub fn is_within(&self, call: &Self) -> bool {
        self.0.strip_prefix(call.as_str()).is_some_and(|rest| rest.starts_with('/'))
    }
}

hex_id! {
    /// Content address of stored bytes: their SHA-256, as 64 lowercase hex digits.
    BlobHash, "SHA-256 in 64 lowercase hex digits", 64
}

impl BlobHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from(<[u8; 32]>::from(Sha256::digest(bytes)))
    }
}

impl From<[u8; 32]> for BlobHash {
    /// A SHA-256 that was computed piece by piece.
    fn from(digest: [u8; 32]) -> Self {
        Self(hex::encode(digest).into())
    }
}

hex_id! {
    /// Id of a commit in git: 40 lowercase hex digits, or 64 where the repository uses SHA-256.
    CommitId, "commit id in 40 or 64 lowercase hex digits", 40 | 64
}

/// For `#[serde(with)]`: an id that may be missing, and is stored as the empty text then.
pub mod empty_if_none {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    /// Writes the text, or an empty one.
    pub fn serialize<T: AsRef<str>, S: Serializer>(id: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(id.as_ref().map_or("", AsRef::as_ref))
    }

    /// Reads a text that may be empty.
    ///
    /// # Errors
    /// It is neither empty nor such an id.
    pub fn deserialize<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() { Ok(None) } else { text.parse().map(Some).map_err(D::Error::custom) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use std::collections::{BTreeMap, HashMap};

    use super::*;

    #[test]
    fn an_id_is_stored_as_its_text() {
        let key = JobKey::from("test/2");
        assert_eq!(serde_json::to_string(&key).unwrap(), "\"test/2\"");
        assert_eq!(serde_json::from_str::<JobKey>("\"test/2\"").unwrap(), key);
        let map: BTreeMap<RunId, JobKey> = BTreeMap::from([("r".into(), key)]);
        assert_eq!(serde_json::to_string(&map).unwrap(), "{\"r\":\"test/2\"}");
        assert_eq!(serde_json::from_str::<BTreeMap<RunId, JobKey>>("{\"r\":\"test/2\"}").unwrap(), map);
    }

    #[test]
    fn a_hash_has_one_form_and_nothing_else_is_read_as_one() {
        let hash = BlobHash::of(b"abc");
        assert_eq!(hash, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.as_str().parse().as_ref(), Ok(&hash));
        let json = serde_json::to_string(&hash).unwrap();
        assert_eq!((json.len(), serde_json::from_str(&json).ok()), (66, Some(hash)));
        for wrong in ["", "abc", &"A".repeat(64), &"g".repeat(64), &"a".repeat(63), &"a".repeat(65)] {
            let error = wrong.parse::<BlobHash>().unwrap_err().to_string();
            assert!(error.ends_with("is no SHA-256 in 64 lowercase hex digits"), "{error}");
            assert!(serde_json::from_value::<BlobHash>(wrong.into()).is_err());
        }
        assert!("c".repeat(40).parse::<CommitId>().is_ok() && "c".repeat(64).parse::<CommitId>().is_ok());
        assert!("c".repeat(41).parse::<CommitId>().is_err());
    }

    #[test]
    fn an_id_that_may_be_missing_is_stored_as_an_empty_text() {
        #[derive(Debug, PartialEq, Serialize, Deserialize)]
        struct Row(#[serde(with = "empty_if_none")] Option<BlobHash>);
        for (row, json) in
            [(Row(None), "\"\"".to_owned()), (Row(Some(BlobHash::of(b""))), format!("\"{}\"", BlobHash::of(b"")))]
        {
            assert_eq!(serde_json::to_string(&row).unwrap(), json);
            assert_eq!(serde_json::from_str::<Row>(&json).unwrap(), row);
        }
        assert!(serde_json::from_str::<Row>("\"abc\"").is_err());
    }

    #[test]
    fn a_map_is_searched_by_text() {
        let (hashed, sorted) = (HashMap::from([(RunId::from("r"), 1)]), BTreeMap::from([(RunId::from("r"), 1)]));
        assert_eq!((hashed.get("r"), sorted.get("r"), hashed.get("s")), (Some(&1), Some(&1), None));
    }
}
