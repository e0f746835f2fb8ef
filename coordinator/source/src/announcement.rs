//! What a repository says of itself: announcements (30617), states (30618), and whose word counts (NIP-34).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use nostr::{Event, Kind};

use super::address::{check_ref, is_object_id};

/// Refs read from one state event.
const REFS: usize = 5000;
/// Keys whose word can count for one repository.
pub(super) const MAINTAINERS: usize = 50;

/// The parts of a 30617 that building needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Clone URLs in their order.
    pub clone: Vec<String>,
    /// Relays of the repository.
    pub relays: Vec<String>,
    /// Keys it lists, 64 hex, without its author.
    pub maintainers: Vec<String>,
    /// Its author says that the role is theirs no more, or is another one: what others list makes them no maintainer.
    pub author_left: bool,
}

/// A 30618: refs and the commit each stands for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct State {
    refs: BTreeMap<String, Value>,
    head: Option<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Value {
    object: String,
    /// The commit of an annotated tag, where the event names it.
    peeled: Option<String>,
}

/// What sorts first counts.
pub type Precedence = (Reverse<u64>, String);

/// The newer before the older; at equal times the lower id first (NIP-01), whatever order they came in.
pub fn precedence(made_at: u64, id: &str) -> Precedence {
    (Reverse(made_at), id.to_owned())
}

/// The event that counts of several.
pub fn newest<'a>(events: impl IntoIterator<Item = &'a Event>) -> Option<&'a Event> {
    events.into_iter().min_by_key(|event| precedence(event.created_at.as_secs(), &event.id.to_hex()))
}

impl Announcement {
    /// Reads a 30617. Values may be spread over several tags or several positions of one.
    pub fn read(event: &Event) -> Self {
        let author = event.pubkey.to_hex();
        let roles: Vec<Role> = event.tags.iter().filter_map(|tag| Role::read(tag.as_slice())).collect();
        // Where roles stand, the list is a copy for older readers.
        let keys: Vec<String> = match roles.is_empty() {
            true => values(event, "maintainers").into_iter().map(|key| key.to_ascii_lowercase()).collect(),
            false => roles.iter().filter(|role| role.maintains && role.lasts).map(|role| role.key.clone()).collect(),
        };
        let own = || roles.iter().filter(|role| role.key == author);
        let maintains = own().any(|role| role.maintains && role.lasts);
        Self {
            clone: values(event, "clone"),
            relays: values(event, "relays"),
            maintainers: keys
                .into_iter()
                .filter(|key| key.len() == 64 && is_object_id(key) && *key != author)
                .collect(),
            // Whoever names no role of their own has always maintained it.
            author_left: own().next().is_some() && !maintains,
        }
    }
}

/// A role in a repository: `M` leads, `m` maintains, `o` moderates. Behind the key stand the seconds at which it began and
/// ended, by turns; none: it has always been so.
struct Role {
    key: String,
    maintains: bool,
    lasts: bool,
}

impl Role {
    fn read(tag: &[String]) -> Option<Self> {
        let [name @ ("M" | "m" | "o"), key] = [tag.first()?.as_str(), tag.get(1)?.as_str()] else { return None };
        let turns = tag.get(2..).unwrap_or_default();
        // A last end may be `defer`: it lasts as long as somebody else says. What can't be read gives no role.
        let readable = turns.iter().enumerate().all(|(place, turn)| {
            turn.parse::<u64>().is_ok() || (turn == "defer" && place % 2 == 1 && place + 1 == turns.len())
        });
        let lasts = readable && (turns.is_empty() || turns.len() % 2 == 1);
        Some(Self { key: key.to_ascii_lowercase(), maintains: name != "o", lasts })
    }
}

impl State {
    /// Reads a 30618. Names that git would not take are left out.
    pub fn read(event: &Event) -> Self {
        let mut state = Self::default();
        for tag in event.tags.iter().take(REFS) {
            let [name, value, rest @ ..] = tag.as_slice() else { continue };
            if name == "HEAD" {
                state.head = value.strip_prefix("ref: ").and_then(|name| check_ref(name).ok()).map(str::to_owned);
                continue;
            }
            let object = value.to_ascii_lowercase();
            if !is_object_id(&object) {
                continue;
            }
            // Three spellings of an annotated tag: a `^{}` twin (ngit), a third value, or the tag object alone.
            if let Some(base) = name.strip_suffix("^{}") {
                if check_ref(base).is_ok() {
                    state.refs.entry(base.to_owned()).or_default().peeled = Some(object);
                }
            } else if check_ref(name).is_ok() {
                let third = rest.first().map(|value| value.to_ascii_lowercase()).filter(|value| is_object_id(value));
                let entry = state.refs.entry(name.clone()).or_default();
                entry.object = object;
                // On branches a third value was, in old events, a parent commit.
                if name.starts_with("refs/tags/") && entry.peeled.is_none() {
                    entry.peeled = third;
                }
            }
        }
        state.refs.retain(|_, value| !value.object.is_empty());
        state
    }

    /// What a ref stands for: the commit, where the event names it, else the object to peel.
    pub fn target(&self, name: &str) -> Option<&str> {
        self.refs.get(name).map(|value| value.peeled.as_deref().unwrap_or(&value.object))
    }

    /// The full name of a short branch or tag name, branches first.
    pub fn full_name(&self, short: &str) -> Option<&str> {
        let names = [format!("refs/heads/{short}"), format!("refs/tags/{short}")];
        names.iter().find_map(|name| self.refs.get_key_value(name)).map(|(name, _)| name.as_str())
    }

    /// The branch built where none is named: HEAD, else main, master, or the first.
    pub fn default_branch(&self) -> Option<&str> {
        let head = self.head.as_deref().filter(|name| self.refs.contains_key(*name));
        head.or_else(|| {
            let known = ["refs/heads/main", "refs/heads/master"].into_iter().find(|name| self.refs.contains_key(*name));
            known.or_else(|| self.refs.keys().map(String::as_str).find(|name| name.starts_with("refs/heads/")))
        })
    }

    /// Every ref with what it stands for.
    pub fn targets(&self) -> impl Iterator<Item = (&str, &str)> {
        self.refs.keys().filter_map(|name| Some((name.as_str(), self.target(name)?)))
    }

    /// At most so many refs with what they stand for: this one first, then the default branch.
    pub fn tips(&self, first: &str, most: usize) -> Vec<(&str, &str)> {
        let preferred = [Some(first), self.default_branch().filter(|name| *name != first)];
        let preferred = preferred.into_iter().flatten().filter_map(|name| {
            let (name, _) = self.refs.get_key_value(name)?;
            Some((name.as_str(), self.target(name)?))
        });
        let mut tips: Vec<(&str, &str)> = preferred.collect();
        let others: Vec<(&str, &str)> = self.targets().filter(|tip| !tips.contains(tip)).collect();
        tips.extend(others);
        tips.truncate(most);
        tips
    }

    /// A ref that stands for this commit, branches first.
    pub fn ref_of(&self, commit: &str) -> Option<&str> {
        self.targets().find(|(_, target)| *target == commit).map(|(name, _)| name)
    }
}

/// Whose word counts: the owner, the keys its announcement lists and, where `recursive`, the keys their own
/// announcements of the same identifier list, and so on. Not those who say in an announcement of their own that they left.
pub fn maintainers(owner: &str, identifier: &str, announcements: &[Event], recursive: bool) -> BTreeSet<String> {
    let announced_by = |author: &str| {
        let own = announcements.iter().filter(|event| {
            event.kind == Kind::GitRepoAnnouncement
                && event.pubkey.to_hex() == author
                && event.tags.identifier() == Some(identifier)
        });
        newest(own).map(Announcement::read).unwrap_or_default()
    };
    let mut accepted = BTreeSet::from([owner.to_owned()]);
    let mut open = vec![announced_by(owner)];
    while let Some(announcement) = open.pop() {
        for key in announcement.maintainers {
            if accepted.len() >= MAINTAINERS || accepted.contains(&key) {
                continue;
            }
            let own = announced_by(&key);
            if own.author_left {
                continue;
            }
            accepted.insert(key);
            if recursive {
                open.push(own);
            }
        }
    }
    accepted
}

fn values(event: &Event, name: &str) -> Vec<String> {
    let tags = event.tags.iter().map(|tag| tag.as_slice());
    let named = tags.filter(|tag| tag.first().is_some_and(|first| first == name));
    named.flat_map(|tag| tag.iter().skip(1)).filter(|value| !value.is_empty()).take(100).cloned().collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use nostr::{EventBuilder, Keys, Tag, Timestamp};

    const C0: &str = "1111111111111111111111111111111111111111";
    const C1: &str = "2222222222222222222222222222222222222222";
    const G1: &str = "3333333333333333333333333333333333333333";

    fn event(keys: &Keys, kind: u16, at: u64, tags: &[&[&str]]) -> Event {
        let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
        let builder = EventBuilder::new(Kind::from(kind), "").tags(tags).custom_created_at(Timestamp::from(at));
        builder.sign_with_keys(keys).unwrap()
    }

    #[test]
    fn all_three_spellings_of_an_annotated_tag_give_the_commit() {
        let keys = Keys::generate();
        for (tags, target) in [
            (vec![vec!["refs/tags/v1", G1, C1]], C1),
            (vec![vec!["refs/tags/v1", G1], vec!["refs/tags/v1^{}", C1]], C1),
            (vec![vec!["refs/tags/v1^{}", C1], vec!["refs/tags/v1", G1, C0]], C1),
            (vec![vec!["refs/tags/v1", G1]], G1),
        ] {
            let tags: Vec<&[&str]> = tags.iter().map(Vec::as_slice).collect();
            assert_eq!(State::read(&event(&keys, 30618, 1, &tags)).target("refs/tags/v1"), Some(target));
        }
    }

    #[test]
    fn t62_a_third_value_on_a_branch_is_no_commit_to_build() {
        let state = State::read(&event(&Keys::generate(), 30618, 1, &[&["refs/heads/main", C1, C0]]));
        assert_eq!(state.target("refs/heads/main"), Some(C1));
    }

    #[test]
    fn the_default_branch_is_head_then_main_then_master_then_the_first() {
        let keys = Keys::generate();
        for (tags, branch) in [
            (vec![["HEAD", "ref: refs/heads/dev"], ["refs/heads/dev", C1], ["refs/heads/main", C0]], "refs/heads/dev"),
            (vec![["HEAD", "ref: refs/heads/gone"], ["refs/heads/master", C1]], "refs/heads/master"),
            (vec![["refs/heads/master", C1], ["refs/heads/main", C0]], "refs/heads/main"),
            (vec![["refs/tags/v1", C1], ["refs/heads/x", C0]], "refs/heads/x"),
        ] {
            let tags: Vec<&[&str]> = tags.iter().map(|tag| &tag[..]).collect();
            assert_eq!(State::read(&event(&keys, 30618, 1, &tags)).default_branch(), Some(branch));
        }
    }

    #[test]
    fn t60_at_equal_times_the_lowest_id_counts_in_any_order() {
        let (a, b) = (Keys::generate(), Keys::generate());
        let first = event(&a, 30618, 5, &[&["refs/heads/main", C0]]);
        let second = event(&b, 30618, 5, &[&["refs/heads/main", C1]]);
        let lowest = first.id.min(second.id);
        assert_eq!(newest([&first, &second]).unwrap().id, lowest);
        assert_eq!(newest([&second, &first]).unwrap().id, lowest);
        let later = event(&b, 30618, 6, &[]);
        assert_eq!(newest([&first, &later, &second]).unwrap().id, later.id);
    }

    #[test]
    fn roles_say_who_maintains_a_repository_and_the_list_only_where_there_are_none() {
        let [owner, lead, second, third, moderator] = [(); 5].map(|()| Keys::generate());
        let [l, s, t, m] = [&lead, &second, &third, &moderator].map(|keys| keys.public_key().to_hex());
        let read = |tags: &[&[&str]]| Announcement::read(&event(&owner, 30617, 1, tags)).maintainers;
        assert_eq!(read(&[&["maintainers", &l, &s]]), [l.clone(), s.clone()]);
        let roles: &[&[&str]] = &[
            &["maintainers", &l, &s, &t, &m],
            &["M", &l],
            &["m", &s, "10", "20", "30"],
            &["m", &t, "10", "20"],
            &["o", &m],
        ];
        assert_eq!(read(roles), [l.clone(), s.clone()], "a role that ended, and one that moderates, give no word");
        for broken in
            [&["m", &t, "soon"][..], &["m", &t, "defer"], &["m", &t, "1", "defer", "2"], &["m", &t, "1", "defer"]]
        {
            assert_eq!(read(&[broken]), <[String; 0]>::default(), "{broken:?}");
        }
    }

    #[test]
    fn a_maintainer_who_has_left_has_no_word_whoever_still_lists_them() {
        let [owner, second, third] = [(); 3].map(|()| Keys::generate());
        let hex = |keys: &Keys| keys.public_key().to_hex();
        let (o, s, t) = (hex(&owner), hex(&second), hex(&third));
        let by_owner = event(&owner, 30617, 1, &[&["d", "x"], &["M", &o], &["m", &s, "1"]]);
        let word_of = |own: &[&[&str]]| {
            let own: Vec<&[&str]> = std::iter::once(&["d", "x"][..]).chain(own.iter().copied()).collect();
            let announcements = [by_owner.clone(), event(&second, 30617, 2, &own)];
            maintainers(&o, "x", &announcements, true)
        };
        let both = BTreeSet::from([o.clone(), s.clone()]);
        let alone = BTreeSet::from([o.clone()]);
        assert_eq!(word_of(&[&["M", &o, "2"], &["m", &s, "2"]]), both);
        assert_eq!(word_of(&[&["maintainers", &o]]), both, "an announcement without roles ends none");
        assert_eq!(word_of(&[&["M", &o, "2"], &["m", &s, "2", "3"], &["m", &t]]), alone, "nor have those they list");
        assert_eq!(word_of(&[&["o", &s]]), alone, "who only moderates by their own word");
        assert_eq!(word_of(&[&["m", &s, "2", "defer"]]), alone, "nobody hands their own role to themselves");
        assert_eq!(word_of(&[&["m", &s, "2", "3", "4"]]), both, "who came back");
        // An address is its owner's, who can announce whatever they want there.
        let left = event(&owner, 30617, 3, &[&["d", "x"], &["m", &o, "1", "2"], &["M", &s]]);
        assert_eq!(maintainers(&o, "x", &[left], true), both);
    }

    #[test]
    fn maintainers_of_maintainers_count_where_configured() {
        let (owner, second, third, stranger) = (Keys::generate(), Keys::generate(), Keys::generate(), Keys::generate());
        let hex = |keys: &Keys| keys.public_key().to_hex();
        let announcements = [
            event(&owner, 30617, 1, &[&["d", "x"], &["maintainers", &hex(&stranger)]]),
            event(&owner, 30617, 2, &[&["d", "x"], &["maintainers", &hex(&second)]]),
            event(&second, 30617, 1, &[&["d", "x"], &["maintainers", &hex(&third), &hex(&owner)]]),
            event(&second, 30617, 9, &[&["d", "other"], &["maintainers", &hex(&stranger)]]),
            event(&stranger, 30617, 9, &[&["d", "x"], &["maintainers", &hex(&stranger)]]),
        ];
        let direct = maintainers(&hex(&owner), "x", &announcements, false);
        assert_eq!(direct, BTreeSet::from([hex(&owner), hex(&second)]));
        let closure = maintainers(&hex(&owner), "x", &announcements, true);
        assert_eq!(closure, BTreeSet::from([hex(&owner), hex(&second), hex(&third)]));
    }
}
