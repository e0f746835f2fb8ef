//! What holds for PostgreSQL: several processes on one database, and a server that goes away.

use super::*;

#[tokio::test]
async fn a_change_of_one_coordinator_is_announced_to_the_other() {
    let database = crate::testing::postgres_database().await.unwrap();
    let (one, other) = (Store::connect(&database).await.unwrap(), Store::connect(&database).await.unwrap());
    let mut changes = other.subscribe();
    one.commit(vec![Change::Queue(queued("a", 1)), Change::Outbox(outgoing("e"))]).await.unwrap();
    assert_eq!(changes.recv().await.unwrap(), ChangeNotification::Queue);
    assert_eq!(changes.recv().await.unwrap(), ChangeNotification::Outbox);
    assert_eq!(other.queued().await.unwrap(), [queued("a", 1)]);
}

#[tokio::test]
async fn two_coordinators_count_and_number_changes_as_one_does() {
    let database = crate::testing::postgres_database().await.unwrap();
    let stores = [Store::connect(&database).await.unwrap(), Store::connect(&database).await.unwrap()];
    // Both counters in opposite orders: locks taken one by one would deadlock.
    let pairs = (0..40_u64).map(|index| {
        let store = stores[usize::try_from(index % 2).unwrap()].clone();
        async move {
            let new = Change::Run(RunChange::whole(run(&format!("{index}"), index)));
            let mut batch = vec![new, Change::Outbox(outgoing(&format!("e{index}")))];
            if index % 2 == 0 {
                batch.reverse();
            }
            let (number, committed) = futures::future::join(store.next("serial"), store.commit(batch)).await;
            committed.unwrap();
            number.unwrap()
        }
    });
    let mut numbers = futures::future::join_all(pairs).await;
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=40).collect::<Vec<_>>());
    let changes = stores[0].changed(&Filter::default(), 0, 100).await.unwrap();
    let changes: Vec<_> = changes.iter().map(|run| run.changed).collect();
    assert_eq!(changes, (1..=40).collect::<Vec<_>>());
}

#[tokio::test]
async fn connections_that_the_server_closed_are_replaced() {
    let database = crate::testing::postgres_database().await.unwrap();
    let store = Store::connect(&database).await.unwrap();
    store.commit(vec![Change::Queue(queued("a", 1))]).await.unwrap();
    let others = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
                  WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let killed: i64 = crate::sql::query_scalar(others).fetch_one(&store.readers).await.unwrap();
    assert!(killed > 0, "the writer and the feed have connections");
    store.commit(vec![Change::Queue(queued("b", 2))]).await.unwrap();
    assert_eq!(store.queued().await.unwrap(), [queued("a", 1), queued("b", 2)]);
}
