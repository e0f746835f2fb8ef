//! What maintainers store for a repository: the order of orders, what a job is given, bounds, and another store key.

use std::sync::Arc;

use secrecy::ExposeSecret as _;

use super::*;
use crate::{
    ListedValue, MAX_VALUE, MAX_VALUES, OrderOutcome, RepositoryValue, StoreKeyError, ValueContent, ValueKind,
    seal::{self, SealOwner, StoreKey},
};

crate::testing::on_each_engine! {
    of_a_name_the_newest_order_counts_and_a_removed_value_does_not_come_back,
    a_job_finds_what_is_stored_for_its_repository_and_its_environment_and_nothing_else,
    values_have_bounds_for_each_place_and_each_author,
    another_store_key_opens_everything_afterwards_and_the_old_one_nothing,
}

const REPOSITORY: &str = "30617:o:r";

fn order(kind: ValueKind, environment: &str, name: &str, at: u64, value: Option<&str>) -> RepositoryValue {
    RepositoryValue {
        repository: REPOSITORY.into(),
        environment: environment.into(),
        kind,
        name: name.into(),
        ordered_at: at,
        event: format!("{:02x}", 0x80),
        author: "maintainer".into(),
        content: value.map(|text| ValueContent::Plain(text.into())),
    }
}

fn variable(environment: &str, name: &str, at: u64, value: Option<&str>) -> RepositoryValue {
    order(ValueKind::Variable, environment, name, at, value)
}

fn key() -> Arc<StoreKey> {
    Arc::new(StoreKey::from_hex(StoreKey::generate().unwrap().expose_secret()).unwrap())
}

const TAKEN: fn(bool) -> OrderOutcome = |replaces| OrderOutcome::Taken { replaces };

async fn of_a_name_the_newest_order_counts_and_a_removed_value_does_not_come_back(store: &Store) {
    let event = |order: RepositoryValue, event: &str| RepositoryValue { event: event.into(), ..order };
    let shown = async || {
        let listed = store.list_repository_values(REPOSITORY).await.unwrap();
        listed.into_iter().map(|one| one.value.unwrap()).collect::<Vec<_>>().join(" ")
    };
    let say = async |order| store.order_value(order).await.unwrap();
    assert_eq!(say(variable("", "A", 10, Some("first"))).await, TAKEN(false));
    assert_eq!(say(variable("", "A", 10, Some("first"))).await, OrderOutcome::Older, "the same order again");
    assert_eq!(say(event(variable("", "A", 10, Some("higher")), "90")).await, OrderOutcome::Older);
    assert_eq!(say(event(variable("", "A", 10, Some("lower")), "70")).await, TAKEN(true), "the lower id is the later");
    assert_eq!(say(variable("", "A", 9, Some("older"))).await, OrderOutcome::Older);
    assert_eq!(shown().await, "lower");
    assert_eq!(say(variable("", "A", 20, None)).await, TAKEN(true));
    assert_eq!(say(variable("", "A", 20, None)).await, OrderOutcome::Older);
    assert_eq!(say(variable("", "A", 15, Some("resurrected"))).await, OrderOutcome::Older);
    assert_eq!(shown().await, "");
    assert_eq!(say(variable("", "B", 20, None)).await, TAKEN(false), "a removal may come before what it removes");
    assert_eq!(say(variable("", "B", 15, Some("late"))).await, OrderOutcome::Older);
    assert_eq!(say(variable("", "A", 21, Some("anew"))).await, TAKEN(false));
    assert_eq!(store.forget_removed_values(20_000).await.unwrap(), 0);
    assert_eq!(store.forget_removed_values(21_000).await.unwrap(), 1);
    assert_eq!(shown().await, "anew");
    let authors = [(REPOSITORY.to_owned(), vec!["maintainer".to_owned()])].into();
    assert_eq!(store.repositories_with_values().await.unwrap(), authors);
    assert_eq!(store.note_served(REPOSITORY, false, 100, 50).await.unwrap(), 0);
    assert_eq!(store.note_served(REPOSITORY, false, 149, 50).await.unwrap(), 0);
    assert_eq!(store.note_served(REPOSITORY, true, 200, 50).await.unwrap(), 0, "it is served again");
    assert_eq!(store.note_served(REPOSITORY, false, 300, 50).await.unwrap(), 0);
    assert_eq!(store.note_served(REPOSITORY, false, 350, 50).await.unwrap(), 1);
    assert_eq!(shown().await, "");
}

async fn a_job_finds_what_is_stored_for_its_repository_and_its_environment_and_nothing_else(store: &Store) {
    let sealed = |environment: &str, name: &str| RepositoryValue {
        content: Some(ValueContent::Sealed { value: b"sealed".to_vec(), wrapped_key: b"key".to_vec() }),
        ..order(ValueKind::Secret, environment, name, 1, None)
    };
    let foreign = RepositoryValue { repository: "30617:o:other".into(), ..variable("", "FOREIGN", 1, Some("x")) };
    let orders = [
        sealed("", "TOKEN"),
        sealed("production", "TOKEN"),
        sealed("staging", "TOKEN"),
        variable("", "REGION", 1, Some("eu")),
        variable("production", "REGION", 1, Some("us")),
        foreign,
    ];
    for order in orders {
        assert_eq!(store.order_value(order).await.unwrap(), TAKEN(false));
    }
    let both = [ValueKind::Secret, ValueKind::Variable];
    let given = async |environment, kinds: &[ValueKind]| {
        let found = store.repository_values(REPOSITORY, environment, kinds).await.unwrap();
        let word = |one: RepositoryValue| format!("{}/{}/{}", one.environment, one.kind.as_str(), one.name);
        found.into_iter().map(word).collect::<Vec<_>>()
    };
    assert_eq!(given(None, &both).await, ["/variable/REGION", "/secret/TOKEN"]);
    let in_production = ["/variable/REGION", "/secret/TOKEN", "production/variable/REGION", "production/secret/TOKEN"];
    assert_eq!(given(Some("production"), &both).await, in_production);
    assert_eq!(given(Some("production"), &[ValueKind::Secret]).await, ["/secret/TOKEN", "production/secret/TOKEN"]);
    assert_eq!(given(Some("other"), &both).await.len(), 2);
    let listed = store.list_repository_values(REPOSITORY).await.unwrap();
    let values: Vec<_> = listed.iter().map(|one: &ListedValue| one.value.as_deref()).collect();
    assert_eq!(values, [None, Some("eu"), None, Some("us"), None], "no list has a secret");
    let names = store.repository_value_names(REPOSITORY).await.unwrap();
    let names: Vec<_> = names.iter().map(|(kind, place, name)| format!("{}/{place}/{name}", kind.as_str())).collect();
    assert_eq!(
        names,
        ["secret//TOKEN", "secret/production/TOKEN", "secret/staging/TOKEN", "variable//", "variable/production/"]
    );
}

async fn values_have_bounds_for_each_place_and_each_author(store: &Store) {
    let full = async |order: RepositoryValue| match store.order_value(order).await.unwrap() {
        OrderOutcome::Full(why) => why,
        other => format!("{other:?}"),
    };
    for number in 0..MAX_VALUES {
        let taken = store.order_value(variable("", &format!("N{number}"), 1, Some("x"))).await.unwrap();
        assert_eq!(taken, TAKEN(false));
    }
    assert!(full(variable("", "MORE", 1, Some("x"))).await.contains("has 100 variables already"));
    assert_eq!(full(variable("", "N1", 2, Some("y"))).await, "Taken { replaces: true }", "one that is there changes");
    assert_eq!(full(variable("", "N1", 3, None)).await, "Taken { replaces: true }", "and goes");
    assert_eq!(full(variable("", "MORE", 1, Some("x"))).await, "Taken { replaces: false }");
    let long = "x".repeat(MAX_VALUE);
    for number in 0..5 {
        let taken = store.order_value(variable("e0", &format!("N{number}"), 1, Some(&long))).await.unwrap();
        assert_eq!(taken, TAKEN(false));
    }
    assert!(full(variable("e0", "N5", 1, Some(&long))).await.contains("256 KiB"));
    for number in 1..MAX_VALUES {
        let taken = store.order_value(variable(&format!("e{number}"), "N", 1, Some("x"))).await.unwrap();
        assert_eq!(taken, TAKEN(false));
    }
    assert!(full(variable("more", "N", 1, Some("x"))).await.contains("100 environments"));
    let secret = |repository: u64, number: u64| RepositoryValue {
        repository: format!("30617:o:{repository}"),
        content: Some(ValueContent::Sealed { value: vec![0; 1 << 20], wrapped_key: Vec::new() }),
        ..order(ValueKind::Secret, "", &format!("N{number}"), 1, None)
    };
    for number in 0..31 {
        assert_eq!(store.order_value(secret(number, number)).await.unwrap(), TAKEN(false));
    }
    assert!(full(secret(99, 99)).await.contains("more than 32 MiB"));
    let other = RepositoryValue { author: "other".into(), ..secret(99, 99) };
    assert_eq!(full(other).await, "Taken { replaces: false }", "of another author");
}

async fn another_store_key_opens_everything_afterwards_and_the_old_one_nothing(store: &Store) {
    let (old, new) = (key(), key());
    let secret = |text: &str| vec![("TOKEN".to_owned(), text.into())];
    let run = RunId::from("run");
    let (sealed, wrapped_key) = seal::seal(&old, &SealOwner::from(&run), &secret("of the run")).unwrap();
    store.commit(vec![Change::Secrets { run: run.clone(), sealed, wrapped_key }]).await.unwrap();
    let owner = SealOwner::repository(REPOSITORY, "production");
    let (mut sealed, wrapped_key) = seal::seal(&old, &owner, &secret("of the repository")).unwrap();
    let content = Some(ValueContent::Sealed { value: sealed.remove(0).1, wrapped_key });
    let order = RepositoryValue { content, ..order(ValueKind::Secret, "production", "TOKEN", 1, None) };
    store.order_value(order).await.unwrap();

    // An earlier version wrote no mark.
    assert!(matches!(store.check_store_key(&new).await, Err(StoreKeyError::Other)));
    assert_eq!(store.store_key_mark().await.unwrap(), None);
    store.check_store_key(&old).await.unwrap();
    assert!(matches!(store.rekey(new.clone(), old.clone()).await, Err(StoreKeyError::Other)));
    assert_eq!(store.rekey(old.clone(), new.clone()).await.unwrap(), 2);
    let refused = store.check_store_key(&old).await.unwrap_err().to_string();
    assert!(refused.contains("longshore store rekey"), "{refused}");
    store.check_store_key(&new).await.unwrap();

    let opens = async |key: &StoreKey| {
        let of_run = store.secrets(&run).await.unwrap().unwrap();
        let found = store.repository_values(REPOSITORY, Some("production"), &[ValueKind::Secret]).await.unwrap();
        let Some(ValueContent::Sealed { value, wrapped_key }) = found[0].content.clone() else { panic!("not sealed") };
        let of_run = seal::open(key, &SealOwner::from(&run), &of_run.sealed, &of_run.wrapped_key);
        let of_repository = seal::open(key, &owner, &[("TOKEN".into(), value)], &wrapped_key);
        let text = |opened: Result<Vec<(String, secrecy::SecretString)>, _>| {
            opened.ok().map(|values| values[0].1.expose_secret().to_owned())
        };
        [text(of_run), text(of_repository)]
    };
    assert_eq!(opens(&new).await, [Some("of the run".to_owned()), Some("of the repository".to_owned())]);
    assert_eq!(opens(&old).await, [None, None]);
}
