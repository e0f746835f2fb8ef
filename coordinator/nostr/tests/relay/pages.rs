//! A relay gives what it has stored in pages.

use std::collections::HashSet;

use super::{strangers::send_all, *};

/// A pair whose job is so many seconds old.
fn dated(author: &Keys, (run, job): (Event, Event), age: u64) -> (Event, Event) {
    let at = job.created_at - Duration::from_secs(age);
    let job = EventBuilder::new(job.kind, "").tags(job.tags).custom_created_at(at).sign_with_keys(author).unwrap();
    (run, job)
}

#[tokio::test]
async fn all_that_came_while_nobody_listened_is_read_however_much_a_relay_gives_at_a_time() {
    let (author, pool) = (Keys::generate(), Keys::generate());
    let us = pool.public_key();
    let limit = RateLimit { max_reqs: 20, notes_per_minute: u32::MAX };
    let (_relay, url) = started(RelayBuilder::default().rate_limit(limit).default_filter_limit(200)).await;
    // A few in each second.
    let pairs: Vec<(Event, Event)> = (0..700).map(|number| dated(&author, pair(&author, &us), number / 3)).collect();
    let mut waited_for: HashSet<String> = pairs.iter().map(|(_, job)| job.id.to_hex()).collect();
    send_all(&url, pairs.into_iter().flat_map(|(run, job)| [run, job]).collect()).await;
    let mut config = closed(vec![url.clone()], &[&author]);
    config.limits.author_per_minute = 10_000;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut heard = Heard::start(&pool, config, &store);
    while !waited_for.is_empty() {
        let Handed::Accepted(request) = heard.next().await else { panic!("{} are missing", waited_for.len()) };
        assert!(waited_for.remove(&request), "{request} was taken in twice");
    }
    heard.task.abort();
}

#[tokio::test]
async fn attack_59_a_second_that_strangers_filled_hides_nothing_of_a_known_author() {
    const PAGE: usize = 150;
    let (author, pool) = (Keys::generate(), Keys::generate());
    let us = pool.public_key();
    let limit = RateLimit { max_reqs: 20, notes_per_minute: u32::MAX };
    let relay = RelayBuilder::default().rate_limit(limit).default_filter_limit(PAGE).max_filter_limit(PAGE);
    let (_relay, url) = started(relay).await;
    let at = Timestamp::now() - Duration::from_secs(30);
    let job_at = |author: &Keys, (run, job): (Event, Event)| {
        let job = EventBuilder::new(job.kind, "").tags(job.tags).custom_created_at(at).sign_with_keys(author).unwrap();
        (run, job)
    };
    let strangers: Vec<Event> = (0..2 * PAGE)
        .map(|_| {
            let stranger = Keys::generate();
            job_at(&stranger, pair(&stranger, &us)).1
        })
        .collect();
    // Relays give events of one second in the order of their ids: one of these comes in no page of all authors.
    let (lowest, highest) = (strangers.iter().map(|job| job.id).min(), strangers.iter().map(|job| job.id).max());
    let ours = |fits: &dyn Fn(EventId) -> bool| {
        std::iter::repeat_with(|| job_at(&author, pair(&author, &us))).find(|(_, job)| fits(job.id)).unwrap()
    };
    let pairs = [ours(&|id| Some(id) < lowest), ours(&|id| Some(id) > highest)];
    let mut waited_for: HashSet<String> = pairs.iter().map(|(_, job)| job.id.to_hex()).collect();
    let older = {
        let (run, job) = pair(&author, &us);
        let at = at - Duration::from_secs(5);
        (run, EventBuilder::new(job.kind, "").tags(job.tags).custom_created_at(at).sign_with_keys(&author).unwrap())
    };
    waited_for.insert(older.1.id.to_hex());
    let all = pairs.into_iter().chain([older]).flat_map(|(run, job)| [run, job]).chain(strangers).collect();
    send_all(&url, all).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut heard = Heard::start(&pool, closed(vec![url.clone()], &[&author]), &store);
    while !waited_for.is_empty() {
        if let Handed::Accepted(request) = heard.next().await {
            assert!(waited_for.remove(&request), "{request} was taken in twice");
        }
    }
    assert_eq!(heard.counted.now()[&Ignored::PassedOver], 1, "the operator hears that strangers were passed over");
    heard.task.abort();
}
