//! Ids of what the domain is about: a type for each, so that one is not taken for another.
//!
//! Each is stored and sent as its text alone. Clones share the text and allocate nothing: ids are copied into every event,
//! row and index.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// An id that is compared and passed on, and of which any text is accepted: one that nothing has is not found.
macro_rules! opaque_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

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
    fn a_map_is_searched_by_text() {
        let (hashed, sorted) = (HashMap::from([(RunId::from("r"), 1)]), BTreeMap::from([(RunId::from("r"), 1)]));
        assert_eq!((hashed.get("r"), sorted.get("r"), hashed.get("s")), (Some(&1), Some(&1), None));
    }
}
