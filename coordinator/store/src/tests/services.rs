//! Repositories that are served.

use crate::{Change, ServedRepository, ServiceChange, ServiceWish, Store};

crate::testing::on_each_engine! {
    of_the_wishes_of_one_author_the_newest_of_each_kind_is_kept,
    repositories_that_somebody_wished_something_for_are_counted_by_owner,
    what_is_served_is_known_until_it_ends,
}

fn wish(author: &str, starts: bool, made_at: u64, event: &str) -> ServiceWish {
    let [repository, author, event, relay] = ["r", author, event, "wss://relay"].map(str::to_owned);
    ServiceWish { repository, author, starts, event, made_at, relay }
}

async fn of_the_wishes_of_one_author_the_newest_of_each_kind_is_kept(store: &Store) {
    let newer = wish("a", true, 20, "c");
    let (stop, other) = (wish("a", false, 15, "d"), wish("b", true, 11, "e"));
    let all = [wish("a", true, 10, "b"), newer.clone(), stop.clone(), other.clone(), wish("a", true, 12, "f")];
    for wish in all {
        store.commit(vec![ServiceChange::Wish(wish).into()]).await.unwrap();
    }
    assert_eq!(store.service_wishes("r").await.unwrap(), [newer, stop.clone(), other.clone()]);
    // At one second the lower id is the later.
    for event in ["b", "d"] {
        store.commit(vec![ServiceChange::Wish(wish("a", true, 20, event)).into()]).await.unwrap();
    }
    assert_eq!(store.service_wishes("r").await.unwrap(), [wish("a", true, 20, "b"), stop, other]);
    assert!(store.service_wishes("another").await.unwrap().is_empty());
}

async fn repositories_that_somebody_wished_something_for_are_counted_by_owner(store: &Store) {
    for (repository, author) in [("30617:o:a", "o"), ("30617:o:a", "p"), ("30617:o:b", "o"), ("30617:q:a", "o")] {
        let wish = ServiceWish { repository: repository.into(), ..wish(author, true, 1, author) };
        store.commit(vec![ServiceChange::Wish(wish).into()]).await.unwrap();
    }
    assert_eq!(store.wished_repositories("30617:o:c").await.unwrap(), (2, 3));
    assert_eq!(store.wished_repositories("30617:o:a").await.unwrap(), (1, 2), "itself does not count");
    assert_eq!(store.wished_repositories("30617:r:a").await.unwrap(), (0, 3));
}

async fn what_is_served_is_known_until_it_ends(store: &Store) {
    let served = |stamp| ServedRepository {
        repository: "r".into(),
        status: format!("status {stamp}"),
        stamp,
        request: String::new(),
    };
    for stamp in [1, 2] {
        store.commit(vec![Change::from(ServiceChange::Serve(served(stamp)))]).await.unwrap();
    }
    assert_eq!(store.served_repositories().await.unwrap(), [served(2)]);
    assert_eq!(store.served_repository("r").await.unwrap(), Some(served(2)));
    store.commit(vec![ServiceChange::End { repository: "r".into() }.into()]).await.unwrap();
    assert_eq!(store.served_repository("r").await.unwrap(), None);
}
