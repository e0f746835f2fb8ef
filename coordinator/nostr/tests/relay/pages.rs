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
