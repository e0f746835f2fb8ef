#![allow(clippy::unwrap_used)]

use nostr::{EventBuilder, Keys, Tag, Timestamp};

use super::*;

const C1: &str = "2222222222222222222222222222222222222222";

fn event(keys: &Keys, kind: u16, content: &str, tags: &[&[&str]]) -> Event {
    let tags = tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap());
    let builder = EventBuilder::new(Kind::from(kind), content).tags(tags).allow_self_tagging();
    builder.custom_created_at(Timestamp::from(5)).sign_with_keys(keys).unwrap()
}

fn repository(owner: &Keys) -> Repository {
    let owner = owner.public_key().to_hex();
    Repository { address: format!("30617:{owner}:x"), owner, identifier: "x".into(), relays: Vec::new() }
}

#[test]
fn a_pull_request_is_read_as_clients_write_it() {
    let (owner, maintainer, stranger) = (Keys::generate(), Keys::generate(), Keys::generate());
    let hex = |keys: &Keys| keys.public_key().to_hex();
    let (ours, maintainers) = (repository(&owner), [hex(&owner), hex(&maintainer)]);
    let address = format!("30617:{}:x", hex(&maintainer));
    let whole: &[&[&str]] = &[
        &["a", &address, "wss://relay.example"],
        &["subject", "Add a thing"],
        &["branch-name", "add-thing"],
        &["t", "bug"],
        &["b", "dev"],
        &["c", C1],
        &["clone", "https://a.example/x.git", "https://b.example/x.git"],
    ];
    let root = event(&stranger, 1618, "Because.\nIt is nice.", whole);
    let read = read_root(&root, &ours, &maintainers).unwrap();
    assert_eq!((read.title.as_str(), read.body.as_str()), ("Add a thing", "Because.\nIt is nice."));
    assert_eq!((read.base.as_deref(), read.branch.as_str(), read.labels.len()), (Some("dev"), "add-thing", 1));
    assert_eq!((read.author, read.head.kind, read.head.clones.len()), (hex(&stranger), 1618, 2));
    assert_eq!((read.head.commit.as_str(), read.head.event), (C1, root.id.to_hex()));

    let bare: &[&[&str]] = &[&["a", &ours.address], &["c", C1]];
    let read = read_root(&event(&stranger, 1618, "First line\nmore", bare), &ours, &maintainers).unwrap();
    assert_eq!((read.title.as_str(), read.base), ("First line", None));
    let other = format!("30617:{}:x", hex(&stranger));
    for tags in [
        [&["a", &other][..], &["c", C1]],
        [&["a", "30617:zz"], &["c", C1]],
        [&["a", &ours.address], &["c", "--upload-pack=x"]],
        [&["a", &ours.address], &["d", "x"]],
    ] {
        assert!(read_root(&event(&stranger, 1618, "", &tags), &ours, &maintainers).is_none(), "{tags:?}");
    }
    let option: &[&[&str]] = &[&["a", &ours.address], &["c", C1], &["b", "--x"]];
    assert!(read_root(&event(&stranger, 1618, "", option), &ours, &maintainers).is_none());
}

#[test]
fn updates_and_statuses_are_of_the_request_that_they_name() {
    let keys = Keys::generate();
    let root = "ab".repeat(32);
    let update = event(&keys, 1619, "", &[&["E", &root], &["c", C1]]);
    assert_eq!((root_of(&update).as_deref(), read_update(&update, &root).unwrap().kind), (Some(root.as_str()), 1619));
    assert!(read_update(&update, &"cd".repeat(32)).is_none());
    assert!(read_update(&event(&keys, 1619, "", &[&["E", &root], &["c", "x"]]), &root).is_none());
    let other = "cd".repeat(32);
    let closed = event(&keys, 1632, "", &[&["e", &other, "", "mention"], &["e", &root, "", "root"]]);
    assert_eq!(root_of(&closed).as_deref(), Some(root.as_str()));
    assert_eq!(read_status(&closed, &root).unwrap().state, PullRequestState::Closed);
    assert!(read_status(&closed, &other).is_none());
    assert_eq!(root_of(&event(&keys, 1630, "", &[&["e", "nonsense"]])), None);
    assert_eq!(root_of(&event(&keys, 1, "", &[&["e", &root]])), None);
}

#[test]
fn what_a_stranger_writes_is_cut() {
    let keys = Keys::generate();
    let ours = repository(&keys);
    let (long, url) = ("ü".repeat(20_000), format!("https://{}", "a".repeat(600)));
    let tags: &[&[&str]] = &[&["a", &ours.address], &["c", C1], &["subject", &long], &["t", &long], &["clone", &url]];
    let read = read_root(&event(&keys, 1618, &long, tags), &ours, &[]).unwrap();
    assert!(read.title.len() <= TITLE && read.body.len() <= BODY && read.labels[0].len() <= LABEL);
    assert!(read.head.clones.is_empty());
}
