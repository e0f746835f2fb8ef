//! Manual triggers and service controls: every rule, and what stands.

use super::*;

fn trigger(us: &Keys, by: &Keys) -> Vec<Vec<String>> {
    vec![
        tag(&["p", &us.public_key().to_hex()]),
        tag(&["a", &address(by), "wss://relay.example"]),
        tag(&["c", COMMIT]),
        tag(&["w", PATH, SHA256]),
    ]
}

fn refused(by: &Keys, tags: &[Vec<String>]) -> String {
    ManualTrigger::read(&signed(by, MANUAL_TRIGGER, tags)).unwrap_err().to_string()
}

#[test]
fn t71_a_manual_trigger_names_repository_commit_and_file() {
    let (us, by) = (Keys::generate(), Keys::generate());
    let other = format!("30617:{}:my-repo", us.public_key());
    let tags = with(&with(&trigger(&us, &by), &["a", &other]), &["r", "refs/heads/main"]);
    // The button of a web client copies the result's own id, and says what it is for people.
    let tags = with(&with(&tags, &["r", "run-1"]), &["alt", "a trigger"]);
    let read = ManualTrigger::read(&signed(&by, MANUAL_TRIGGER, &tags)).unwrap();
    assert_eq!(read.coordinator, us.public_key());
    let subject = read.subject;
    assert_eq!(subject.repositories[0].address(), address(&by));
    assert_eq!(subject.repositories[0].relay, "wss://relay.example");
    assert_eq!(subject.repositories.len(), 2);
    assert_eq!(subject.objects, [COMMIT]);
    assert_eq!((subject.workflow.path.as_str(), subject.workflow.sha256.as_str()), (PATH, SHA256));
    assert_eq!(subject.context, RunContext::Ref("refs/heads/main".into()));
}

#[test]
fn t72_a_manual_trigger_that_breaks_a_rule_is_nothing_and_the_rule_is_named() {
    let (us, by) = (Keys::generate(), Keys::generate());
    let good = trigger(&us, &by);
    for (tags, why) in [
        (without(&good, "p"), "no `p` tag"),
        (with(&good, &["p", &by.public_key().to_hex()]), "more than one `p`"),
        (with(&without(&good, "p"), &["p", "nobody"]), "not a public key"),
        (without(&good, "a"), "no `a` tag"),
        (with(&good, &["a", &format!("30617:{}:other", by.public_key())]), "different identifiers"),
        (with(&without(&good, "a"), &["a", &format!("30618:{}:my-repo", by.public_key())]), "address of a repository"),
        (with(&without(&good, "a"), &["a", &format!("30617:{}:", by.public_key())]), "address of a repository"),
        (without(&good, "c"), "no `c` tag"),
        (with(&good, &["c", "1234"]), "id of a git object"),
        (without(&good, "w"), "no `w` tag"),
        (with(&good, &["w", "other.yml", SHA256]), "more than one `w`"),
        (with(&without(&good, "w"), &["w", PATH]), "SHA-256"),
        (with(&without(&good, "w"), &["w", "", SHA256]), "path of a workflow"),
        (with(&good, &["o", "manual"]), "must not have a `o`"),
        (with(&with(&good, &["r", "refs/heads/a"]), &["r", "refs/heads/b"]), "more than one `r`"),
        (with(&with(&good, &["r", "refs/heads/a"]), &["E", SHA256]), "a git ref and a pull request"),
        (with(&with(&good, &["E", SHA256]), &["K", "1617"]), "kind of a pull request"),
        (with(&good, &["E", "no id"]), "event's id"),
    ] {
        let reason = refused(&by, &tags);
        assert!(reason.contains(why), "{why}: {reason}");
    }
    let with_content = signed_at(&by, MANUAL_TRIGGER, &good, NOW, "now!");
    assert_eq!(ManualTrigger::read(&with_content), Err(Malformed::Content));
    assert!(ManualTrigger::read(&signed(&by, SERVICE_REQUEST, &good)).is_err());
}

#[test]
fn t50_what_offers_a_payment_is_refused_whatever_it_is() {
    let (us, by) = (Keys::generate(), Keys::generate());
    for offer in [["payment", "cashuB"], ["payment", ""], ["cashu", "x"], ["amount", "21"], ["cashu_pubkey", "02"]] {
        let tags = with(&trigger(&us, &by), &offer);
        assert_eq!(ManualTrigger::read(&signed(&by, MANUAL_TRIGGER, &tags)), Err(Malformed::Payment));
        let tags = with(&control(&us, &by), &offer);
        for kind in [SERVICE_REQUEST, SERVICE_STOP] {
            assert_eq!(ServiceControl::read(&signed(&by, kind, &tags)), Err(Malformed::Payment));
        }
    }
}

fn control(us: &Keys, by: &Keys) -> Vec<Vec<String>> {
    vec![tag(&["a", &address(by)]), tag(&["p", &us.public_key().to_hex()])]
}

#[test]
fn a_service_control_has_one_repository_and_one_coordinator_and_no_end_of_its_own() {
    let (us, by) = (Keys::generate(), Keys::generate());
    let good = control(&us, &by);
    let read = ServiceControl::read(&signed(&by, SERVICE_REQUEST, &with(&good, &["alt", "please"]))).unwrap();
    assert!(read.starts && read.author == by.public_key() && read.coordinator == us.public_key());
    assert_eq!(read.repository.address(), address(&by));
    assert!(!ServiceControl::read(&signed(&by, SERVICE_STOP, &good)).unwrap().starts);
    for (tags, why) in [
        (with(&good, &["a", &address(&by)]), "more than one `a`"),
        (with(&good, &["p", &by.public_key().to_hex()]), "more than one `p`"),
        (with(&good, &["d", "x"]), "must not have a `d`"),
        (with(&good, &["expiration", "1900000000"]), "must not have a `expiration`"),
        (without(&good, "a"), "no `a` tag"),
        (without(&good, "p"), "no `p` tag"),
    ] {
        let reason = ServiceControl::read(&signed(&by, SERVICE_REQUEST, &tags)).unwrap_err().to_string();
        assert!(reason.contains(why), "{why}: {reason}");
    }
    let with_content = signed_at(&by, SERVICE_STOP, &good, NOW, "stop");
    assert_eq!(ServiceControl::read(&with_content), Err(Malformed::Content));
}

/// A control of somebody at a time; the last digit of its id as given.
fn said(by: &Keys, starts: bool, created_at: u64, id: u8) -> ServiceControl {
    ServiceControl {
        id: EventId::from_byte_array([id; 32]),
        author: by.public_key(),
        created_at,
        starts,
        coordinator: by.public_key(),
        repository: RepositoryAddress::parse(&address(by), "").unwrap(),
    }
}

#[test]
fn the_newest_request_of_a_maintainer_stands_until_somebody_stops_it_who_may() {
    let [maintainer, other, stranger] = [(); 3].map(|()| Keys::generate());
    let maintains = |key: &PublicKey| [&maintainer, &other].iter().any(|keys| keys.public_key() == *key);
    let id =
        |controls: &[ServiceControl]| standing_request(controls, maintains).map(|control| control.id.to_bytes()[0]);
    assert_eq!(id(&[]), None);
    let (first, second) = (said(&maintainer, true, 10, 1), said(&other, true, 20, 2));
    assert_eq!(id(&[first.clone(), second.clone()]), Some(2));
    assert_eq!(id(&[said(&stranger, true, 30, 3)]), None, "not a maintainer's");
    // A maintainer ends everybody's, and only what was said before.
    let stop = said(&maintainer, false, 25, 4);
    assert_eq!(id(&[first.clone(), stop.clone(), second.clone()]), None);
    assert_eq!(id(&[first.clone(), stop, second.clone(), said(&other, true, 26, 5)]), Some(5));
    // Anybody else ends their own: of somebody who maintains no longer, that is nothing.
    assert_eq!(id(&[first.clone(), second.clone(), said(&stranger, false, 30, 6)]), Some(2));
    // At one second the lower id is the later.
    assert_eq!(id(&[first.clone(), said(&maintainer, false, 10, 0)]), None);
    assert_eq!(id(&[first, said(&maintainer, false, 10, 9)]), Some(1));
}
