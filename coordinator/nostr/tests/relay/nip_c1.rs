//! Manual triggers and wishes for service, heard on relays.

use super::*;

fn signed(by: &Keys, kind: u16, pool: &Keys, more: &[&[&str]], at: Timestamp) -> Event {
    let repository = format!("30617:{}:repo", by.public_key());
    EventBuilder::new(Kind::from(kind), "")
        .tags(tags([&["a", &repository], &["p", &pool.public_key().to_hex()]]))
        .tags(more.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()))
        .custom_created_at(at)
        .sign_with_keys(by)
        .unwrap()
}

fn trigger(by: &Keys, pool: &Keys, more: &[&[&str]]) -> Event {
    let (commit, hash) = ("1".repeat(40), "2".repeat(64));
    let own: [&[&str]; 2] = [&["c", &commit], &["w", ".github/workflows/ci.yml", &hash]];
    signed(by, nip_c1::MANUAL_TRIGGER, pool, &[&own, more].concat(), Timestamp::now())
}

#[tokio::test]
async fn t71_t72_a_trigger_is_taken_in_once_and_one_that_breaks_a_rule_is_counted() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let ((_a, a), (_b, b)) = (relay().await, relay().await);
    let both = [a, b];
    let (pool, author) = (Keys::generate(), Keys::generate());
    let mut heard = Heard::start(&pool, hearing(both.to_vec()), &store);
    let paid = trigger(&author, &pool, &[&["payment", "cashuB"]]);
    let good = trigger(&author, &pool, &[]);
    publish(&both, &paid).await;
    publish(&both, &good).await;
    assert_eq!(heard.next().await, Handed::Accepted(good.id.to_hex()));
    assert!(heard.counted.now()[&Ignored::Malformed] > 0, "the one that offers a payment");
    heard.task.abort();
    let mut heard = Heard::start(&pool, hearing(both.to_vec()), &store);
    let next = trigger(&author, &pool, &[&["r", "refs/heads/main"]]);
    publish(&both, &next).await;
    assert_eq!(heard.next().await, Handed::Accepted(next.id.to_hex()), "and the first one not again");
    heard.task.abort();
}

#[tokio::test]
async fn a_wish_for_service_is_heard_however_old_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let (_relay, url) = relay().await;
    let urls = [url];
    let (pool, author) = (Keys::generate(), Keys::generate());
    let year = Timestamp::from(Timestamp::now().as_secs() - 365 * 86_400);
    let wish = signed(&author, nip_c1::SERVICE_REQUEST, &pool, &[], year);
    publish(&urls, &wish).await;
    let mut heard = Heard::start(&pool, hearing(urls.to_vec()), &store);
    assert_eq!(heard.next().await, Handed::Service(wish.id));
    let stop = signed(&author, nip_c1::SERVICE_STOP, &pool, &[], Timestamp::now());
    publish(&urls, &stop).await;
    assert_eq!(heard.next().await, Handed::Service(stop.id));
    heard.task.abort();
}
