//! Deliveries of webhooks: recorded once, sent as work, and shown as that stands.

use super::*;
use crate::{ClaimLimit, ClaimRequest, LaneOrder, NewWebhookDelivery, WebhookDelivery, WebhookDeliveryChange};

crate::testing::on_each_engine! {
    a_delivery_is_a_record_and_a_row_of_work_until_it_ends,
    all_work_that_is_left_is_counted_by_kind,
}

fn told(id: &str, made_at: u64) -> Change {
    let new = NewWebhookDelivery {
        id: id.into(),
        url: "https://h.example".into(),
        event: "run.queued".into(),
        run: "r".into(),
        body: r#"{"event":"run.queued"}"#.into(),
        made_at,
    };
    WebhookDeliveryChange::Add(new).into()
}

async fn claim(store: &Store, now: u64) -> Vec<crate::ClaimedWork> {
    let limits = vec![ClaimLimit { kind: WorkKind::Webhook, limit: 9, lanes: LaneOrder::OneAtATime }];
    let request = ClaimRequest { limits, claim: format!("c/{now}"), now, until: now + 100 };
    store.claim_work(request).await.unwrap()
}

async fn a_delivery_is_a_record_and_a_row_of_work_until_it_ends(store: &Store) {
    let mut notices = store.subscribe();
    store.commit(vec![told("d", 5)]).await.unwrap();
    assert_eq!(notices.recv().await.unwrap(), ChangeNotification::Work);
    let row = claim(store, 10).await.remove(0);
    assert_eq!((row.id.as_str(), row.lane.as_str(), row.made_at), ("d", "https://h.example", 5));
    assert_eq!(row.payload, r#"{"event":"run.queued"}"#);
    store.commit(vec![row.retry(50, "503 Service Unavailable")]).await.unwrap();
    let shown = WebhookDelivery {
        id: "d".into(),
        url: "https://h.example".into(),
        event: "run.queued".into(),
        run: "r".into(),
        made_at: 5,
        tries: 1,
        state: DeliveryState::Pending,
        answer: "503 Service Unavailable".into(),
        due: Some(50),
    };
    assert_eq!(store.webhook_deliveries(9).await.unwrap(), std::slice::from_ref(&shown));

    let row = claim(store, 50).await.remove(0);
    let state = DeliveryState::Delivered;
    let end = WebhookDeliveryChange::End { id: "d".into(), state, tries: row.tries, answer: "204".into() };
    store.commit(vec![end.into(), row.complete()]).await.unwrap();
    // The same thing told again is the same delivery.
    store.commit(vec![told("d", 60), told("later", 70)]).await.unwrap();
    assert!(claim(store, 99).await.iter().all(|row| row.id == "later"));
    let ended = WebhookDelivery { tries: 2, state, answer: "204".into(), due: None, ..shown };
    let all = store.webhook_deliveries(9).await.unwrap();
    assert_eq!((all[0].id.as_str(), &all[1]), ("later", &ended));
}

async fn all_work_that_is_left_is_counted_by_kind(store: &Store) {
    let wake = NewWork::new("w", WorkKind::Wake, Some(&"r".into()), 5).due_at(90);
    store.commit(vec![told("a", 5), told("b", 7), wake.into()]).await.unwrap();
    let backlog = store.backlog(50).await.unwrap();
    let of = |kind: &str| {
        let found = backlog.iter().find(|backlog| backlog.kind == kind).unwrap();
        (found.pending, found.due_since)
    };
    assert_eq!((of("webhook"), of("wake")), ((2, Some(5)), (1, None)));
}

/// What a version before deliveries became work left in its database.
async fn leave_deliveries(connection: &mut Connection) {
    schema::migrate_to(connection, 11).await.unwrap();
    let rows = "INSERT INTO hooks (id, url, event, run, body, made_at, due, tries, state, answer) VALUES
        ('taken', 'https://h.example', 'run.queued', 'r', '{}', 1, 1, 1, 'delivered', '204'),
        ('left', 'https://h.example', 'run.queued', 'r', '{\"event\":\"run.queued\"}', 2, 30, 4, 'pending', '503')";
    connection.run_script(rows).await.unwrap();
}

async fn are_sent(store: &Store) {
    let rows = claim(store, 30).await;
    assert_eq!(rows.iter().map(|row| row.id.as_str()).collect::<Vec<_>>(), ["left"]);
    assert_eq!((rows[0].tries, rows[0].payload.as_str()), (5, r#"{"event":"run.queued"}"#));
    let all = store.webhook_deliveries(9).await.unwrap();
    let states: Vec<_> = all.iter().map(|one| (one.state, one.answer.as_str())).collect();
    assert_eq!(states, [(DeliveryState::Pending, "503"), (DeliveryState::Delivered, "204")]);
}

#[tokio::test]
async fn deliveries_that_an_earlier_version_left_in_a_file_are_sent() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    leave_deliveries(&mut crate::sql::Connection::Sqlite(crate::sqlite::connect(&path).unwrap())).await;
    are_sent(&Store::open(&path).await.unwrap()).await;
}

#[tokio::test]
async fn deliveries_that_an_earlier_version_left_on_a_server_are_sent() {
    let database = crate::testing::postgres_database().await.unwrap();
    let client = crate::postgres::Pool::new(&database, "test").unwrap().connection().await.unwrap();
    leave_deliveries(&mut Connection::Postgres(client)).await;
    are_sent(&Store::connect(&database).await.unwrap()).await;
}
