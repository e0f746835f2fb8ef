//! A workflow file as an event (kind 35417, `docs/definitions.md`): how it is written, read, and which one counts. Pure.

use std::collections::BTreeMap;

use nostr::Event;
use sha2::{Digest, Sha256};
use workflow::plan::Dialect;

use super::{
    address::Address,
    announcement::{Precedence, precedence},
};
use store::DefinitionRow;

/// The kind: addressable, so relays keep the newest of each author, repository and path.
pub const KIND: u16 = 35417;
/// Bytes of a text.
pub const LONGEST: usize = 128 * 1024;
/// Bytes of a path.
const PATH: usize = 256;
/// Bytes of all tags, and their number: with what else clients write.
const TAGS: usize = 4096;
const MOST_TAGS: usize = 64;

/// A definition, read and found well-formed. Whether it counts is another question: [`in_force`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    /// Id of the event, 64 hex.
    pub event: String,
    /// 64 hex.
    pub author: String,
    /// Seconds.
    pub made_at: u64,
    /// `30617:<owner hex>:<d>`.
    pub repository: String,
    /// Path that it stands for.
    pub path: String,
    /// The file; `None`: its author withdraws what stood here.
    pub text: Option<String>,
    /// Of the text, hex.
    pub sha256: String,
}

/// Why an event is no definition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the definition does not count: {0}")]
pub struct Defect(String);

impl Definition {
    /// Reads an event whose signature was checked.
    ///
    /// # Errors
    /// It is not written as `docs/definitions.md` says.
    pub fn read(event: &Event) -> Result<Self, Defect> {
        let bad = |why: String| Err(Defect(why));
        if event.kind.as_u16() != KIND {
            return bad(format!("its kind is {}, not {KIND}", event.kind.as_u16()));
        }
        let bytes: usize = event.tags.iter().flat_map(|tag| tag.as_slice()).map(String::len).sum();
        if bytes > TAGS || event.tags.len() > MOST_TAGS {
            return bad(format!("its tags are too long: {MOST_TAGS} of {TAGS} bytes together are allowed"));
        }
        let (repository, path) = (only(event, "a")?, only(event, "path")?);
        match Address::parse(repository) {
            Ok(Address::Known(known)) if known.address == repository => {}
            _ => return bad(format!("its `a` {repository:?} is no repository: write 30617:KEY:NAME, the key in hex")),
        }
        if path.len() > PATH {
            return bad(format!("its path is longer than {PATH} bytes"));
        }
        Dialect::of_path(path).map_err(Defect)?;
        if only(event, "d")? != identifier(repository, path) {
            return bad("its `d` must be the repository's address, a colon, and the path".into());
        }
        let text = &event.content;
        if text.len() > LONGEST {
            return bad(format!("its text has {} bytes, {LONGEST} are allowed", text.len()));
        }
        if text.contains('\0') {
            return bad("its text holds the character U+0000".into());
        }
        let sha256 = hash(text);
        if only(event, "x")? != sha256 {
            return bad(format!("its `x` is not the SHA-256 of its text, which is {sha256}"));
        }
        let withdrawn = event.tags.iter().any(|tag| tag.as_slice().first().is_some_and(|name| name == "withdrawn"));
        match (withdrawn, text.trim().is_empty()) {
            (true, false) => return bad("one that is withdrawn has no text".into()),
            (false, true) => return bad("it has no text: add the tag `withdrawn` to take a workflow away".into()),
            _ => {}
        }
        Ok(Self {
            event: event.id.to_hex(),
            author: event.pubkey.to_hex(),
            made_at: event.created_at.as_secs(),
            repository: repository.to_owned(),
            path: path.to_owned(),
            text: (!withdrawn).then(|| text.clone()),
            sha256,
        })
    }
}

/// What decides whether a definition counts, wherever it is kept.
pub trait Claim {
    /// 64 hex.
    fn author(&self) -> &str;
    /// Path that it stands for.
    fn path(&self) -> &str;
    /// What sorts first counts.
    fn precedence(&self) -> Precedence;
}

impl Claim for Definition {
    fn author(&self) -> &str {
        &self.author
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn precedence(&self) -> Precedence {
        precedence(self.made_at, &self.event)
    }
}

impl Claim for DefinitionRow {
    fn author(&self) -> &str {
        &self.author
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn precedence(&self) -> Precedence {
        precedence(self.made_at, &self.event)
    }
}

/// The tags of a definition of this text; `None` withdraws what stood there.
pub fn tags(repository: &str, path: &str, text: Option<&str>) -> Vec<Vec<String>> {
    let mut tags = vec![
        vec!["d".to_owned(), identifier(repository, path)],
        vec!["a".into(), repository.to_owned()],
        vec!["path".into(), path.to_owned()],
        vec!["x".into(), hash(text.unwrap_or_default())],
    ];
    if text.is_none() {
        tags.push(vec!["withdrawn".into()]);
    }
    tags
}

/// When a new version is dated, in seconds: later than the newest that is known, whoever made it. Of two of one second
/// the lowest id would count, which may be that of the earlier one.
pub fn dated(now: u64, newest: Option<u64>) -> u64 {
    newest.map_or(now, |newest| now.max(newest.saturating_add(1)))
}

/// The definitions that count, by path: of those whose authors count, the newest, at equal times the lowest id. One that
/// is withdrawn is among them: it hides what was before it.
pub fn in_force<C: Claim>(all: impl IntoIterator<Item = C>, maintainers: &[String]) -> BTreeMap<String, C> {
    let mut found: BTreeMap<String, C> = BTreeMap::new();
    for one in all {
        if !maintainers.iter().any(|key| key == one.author()) {
            continue;
        }
        let path = one.path().to_owned();
        if found.get(&path).is_none_or(|known| one.precedence() < known.precedence()) {
            found.insert(path, one);
        }
    }
    found
}

/// The `d` of a definition.
pub fn identifier(repository: &str, path: &str) -> String {
    format!("{repository}:{path}")
}

fn hash(text: &str) -> String {
    hex::encode(Sha256::digest(text.as_bytes()))
}

/// The value of the only tag of this name.
fn only<'a>(event: &'a Event, name: &str) -> Result<&'a str, Defect> {
    let mut values = event.tags.iter().filter_map(|tag| match tag.as_slice() {
        [first, value, ..] if first == name => Some(value.as_str()),
        _ => None,
    });
    match (values.next(), values.next()) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Defect(format!("it has no `{name}`"))),
        (Some(_), Some(_)) => Err(Defect(format!("it has more than one `{name}`"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use nostr::{EventBuilder, Keys, Kind, Tag, Timestamp};

    use super::*;
    use crate::announcement::maintainers;

    const PATH: &str = ".github/workflows/ci.yml";
    const TEXT: &str = "on: push\njobs: {}\n";

    fn signed(keys: &Keys, kind: u16, at: u64, tags: Vec<Vec<String>>, content: &str) -> Event {
        let tags = tags.into_iter().map(|tag| Tag::parse(tag).unwrap());
        let builder = EventBuilder::new(Kind::from(kind), content).tags(tags).custom_created_at(Timestamp::from(at));
        builder.sign_with_keys(keys).unwrap()
    }

    fn address(owner: &Keys) -> String {
        format!("30617:{}:demo", owner.public_key().to_hex())
    }

    fn definition(by: &Keys, owner: &Keys, at: u64, text: Option<&str>) -> Definition {
        let tags = tags(&address(owner), PATH, text);
        Definition::read(&signed(by, KIND, at, tags, text.unwrap_or_default())).unwrap()
    }

    #[test]
    fn attack_58_a_definition_is_hardly_longer_than_its_text() {
        let owner = Keys::generate();
        let good = tags(&address(&owner), PATH, Some(TEXT));
        let padded = |more: Vec<Vec<String>>| {
            let tags = good.iter().cloned().chain(more).collect();
            Definition::read(&signed(&owner, KIND, 5, tags, TEXT))
        };
        assert!(padded(vec![vec!["client".into(), "some client".into()]]).is_ok());
        for more in [vec![vec!["pad".to_owned(), "x".repeat(1_000_000)]], vec![vec!["pad".to_owned()]; 100]] {
            assert!(padded(more).unwrap_err().to_string().contains("tags are too long"));
        }
    }

    #[test]
    fn what_is_written_is_read_again_and_what_deviates_is_refused_with_the_reason() {
        let owner = Keys::generate();
        let repository = address(&owner);
        let read = definition(&owner, &owner, 5, Some(TEXT));
        assert_eq!((read.text.as_deref(), read.made_at, read.path.as_str()), (Some(TEXT), 5, PATH));
        assert_eq!((read.repository, read.sha256), (repository.clone(), hash(TEXT)));
        assert_eq!(definition(&owner, &owner, 5, None).text, None);

        let good = tags(&repository, PATH, Some(TEXT));
        let with = |name: &str, value: &str| {
            let mut tags = good.clone();
            tags.iter_mut().filter(|tag| tag[0] == name).for_each(|tag| tag[1] = value.to_owned());
            tags
        };
        let without = |name: &str| good.iter().filter(|tag| tag[0] != name).cloned().collect::<Vec<_>>();
        let and = |tag: &[&str]| [good.clone(), vec![tag.iter().map(ToString::to_string).collect()]].concat();
        let long = "x".repeat(LONGEST + 1);
        let outside = "src/ci.yml";
        for (tags, text, reason) in [
            (without("a"), TEXT, "no `a`"),
            (without("path"), TEXT, "no `path`"),
            (without("d"), TEXT, "no `d`"),
            (without("x"), TEXT, "no `x`"),
            (and(&["path", ".github/workflows/other.yml"]), TEXT, "more than one `path`"),
            (and(&["a", "30617:x:y"]), TEXT, "more than one `a`"),
            (with("a", "30618:x:y"), TEXT, "no repository"),
            (with("a", &repository.replace("30617", "30618")), TEXT, "no repository"),
            (with("d", PATH), TEXT, "its `d` must be"),
            (with("x", &hash("other")), TEXT, "not the SHA-256"),
            (tags(&repository, outside, Some(TEXT)), TEXT, "must lie in one of"),
            (tags(&repository, ".github/workflows/../x.yml", Some(TEXT)), TEXT, "inside the repository"),
            (tags(&repository, PATH, Some(&long)), &long, "are allowed"),
            (tags(&repository, PATH, Some("a\0")), "a\0", "U+0000"),
            (tags(&repository, PATH, Some(" \n")), " \n", "no text"),
            (and(&["withdrawn"]), TEXT, "withdrawn has no text"),
        ] {
            let error = Definition::read(&signed(&owner, KIND, 1, tags, text)).unwrap_err().to_string();
            assert!(error.contains(reason), "{reason}: {error}");
        }
        let error = Definition::read(&signed(&owner, 30618, 1, good, TEXT)).unwrap_err().to_string();
        assert!(error.contains("its kind is 30618"), "{error}");
    }

    #[test]
    fn the_newest_of_the_owner_and_the_maintainers_counts_and_a_strangers_never() {
        let keys: Vec<Keys> = (0..4).map(|_| Keys::generate()).collect();
        let [owner, maintainer, former, stranger] = [0, 1, 2, 3].map(|n| keys[n].clone());
        let hex = |keys: &Keys| keys.public_key().to_hex();
        let lists = |at: u64, listed: &[&Keys]| {
            let mut tag = vec!["maintainers".to_owned()];
            tag.extend(listed.iter().map(|keys| hex(keys)));
            signed(&owner, 30617, at, vec![vec!["d".into(), "demo".into()], tag], "")
        };
        let announced = [lists(1, &[&maintainer, &former]), lists(2, &[&maintainer])];
        let count: Vec<String> = maintainers(&hex(&owner), "demo", &announced, true).into_iter().collect();

        let by = |keys: &Keys, at: u64, text: &str| definition(keys, &owner, at, Some(text));
        let withdrawn = |keys: &Keys, at: u64| definition(keys, &owner, at, None);
        let (tied, rival) = (by(&owner, 5, "on: tied"), by(&maintainer, 5, "on: rival"));
        let lowest = if tied.event < rival.event { "on: tied" } else { "on: rival" };
        let cases = [
            ("alone", vec![by(&owner, 1, "on: a")], Some("on: a")),
            ("a maintainer's newer", vec![by(&owner, 1, "on: a"), by(&maintainer, 2, "on: b")], Some("on: b")),
            ("an older after a newer", vec![by(&maintainer, 2, "on: b"), by(&owner, 1, "on: a")], Some("on: b")),
            ("a stranger's newest", vec![by(&owner, 1, "on: a"), by(&stranger, 9, "on: s")], Some("on: a")),
            ("a stranger's alone", vec![by(&stranger, 9, "on: s")], None),
            ("a removed maintainer's", vec![by(&former, 9, "on: f")], None),
            ("a removed maintainer's newest", vec![by(&former, 9, "on: f"), by(&owner, 1, "on: a")], Some("on: a")),
            ("withdrawn by another", vec![by(&owner, 1, "on: a"), withdrawn(&maintainer, 2)], None),
            ("withdrawn by a stranger", vec![by(&owner, 1, "on: a"), withdrawn(&stranger, 2)], Some("on: a")),
            ("taken up again", vec![withdrawn(&owner, 2), by(&maintainer, 3, "on: c")], Some("on: c")),
            ("at equal times", vec![tied.clone(), rival.clone()], Some(lowest)),
            ("at equal times, the other way round", vec![rival, tied], Some(lowest)),
        ];
        for (name, all, text) in cases {
            let found = in_force(all, &count);
            let counts = found.get(PATH).and_then(|one| one.text.as_deref());
            assert_eq!(counts, text, "{name}");
        }
    }

    #[test]
    fn a_new_version_counts_however_soon_it_follows_the_one_before() {
        let owner = Keys::generate();
        assert_eq!((dated(7, None), dated(7, Some(3))), (7, 7));
        let mut all: Vec<Definition> = Vec::new();
        for text in ["on: a", "on: b", "on: c", "on: d"] {
            let at = dated(7, all.iter().map(|one| one.made_at).max());
            all.push(definition(&owner, &owner, at, Some(text)));
            let found = in_force(all.clone(), &[owner.public_key().to_hex()]);
            assert_eq!(found.get(PATH).and_then(|one| one.text.as_deref()), Some(text));
        }
    }

    #[test]
    fn one_event_names_one_path_of_one_repository() {
        let (owner, other) = (Keys::generate(), Keys::generate());
        let all = [(&owner, PATH), (&owner, ".github/workflows/b.yml"), (&other, PATH)];
        let names: std::collections::BTreeSet<String> =
            all.iter().map(|(owner, path)| tags(&address(owner), path, Some(TEXT))[0][1].clone()).collect();
        assert_eq!(names.len(), 3);
    }
}
