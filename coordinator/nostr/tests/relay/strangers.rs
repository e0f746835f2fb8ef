//! What strangers send leaves those alone that the policy knows.

use futures::{SinkExt, StreamExt};
use nostr::{ClientMessage, JsonUtil};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use super::*;

/// How long a request of a known author may take, beside whatever strangers send.
const SOON: Duration = Duration::from_secs(10);

/// Sends events over one connection, without waiting for the answer to the one before.
pub(super) async fn send_all(url: &str, events: Vec<Event>) {
    let config = config::Relays { allow_private: true, ..config::Relays::default() };
    let lease = Relays::new(&Keys::generate(), &config).lease(url).unwrap();
    for some in events.chunks(500) {
        let sent = some.iter().map(|event| lease.send(Arc::new(event.clone())));
        assert!(futures::future::join_all(sent).await.iter().all(|answer| *answer == Answer::Taken));
    }
}

/// A job whose run does not exist, which names a relay where nobody is.
fn job_without_run(author: &Keys, pool: &PublicKey) -> Event {
    pair_with(author, pool, &[&["env", "HIVE_CI_RELAYS", "ws://127.0.0.1:9"]]).1
}

#[tokio::test]
async fn attack_59_three_hundred_jobs_of_strangers_that_wait_hold_up_no_known_author() {
    let (known, pool) = (Keys::generate(), Keys::generate());
    let us = pool.public_key();
    let (_relay, url) =
        started(RelayBuilder::default().rate_limit(RateLimit { max_reqs: 20, notes_per_minute: u32::MAX })).await;
    // Strangers may turn out to be maintainers here: their runs have to be looked for.
    let mut config = closed(vec![url.clone()], &[&known]);
    config.policy.maintainers = true;
    config.policy.owners = vec![Keys::generate().public_key().to_hex()];
    config.queue.pair = 3600;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut heard = Heard::start(&pool, config, &store);
    let jobs = (0..300).map(|_| job_without_run(&Keys::generate(), &us)).collect();
    send_all(&url, jobs).await;
    for _ in 0..3 {
        let (run, job) = pair(&known, &us);
        let begun = std::time::Instant::now();
        publish(std::slice::from_ref(&url), &run).await;
        publish(std::slice::from_ref(&url), &job).await;
        assert_eq!(heard.next().await, Handed::Accepted(job.id.to_hex()));
        assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    }
    // A job of theirs that comes before its run finds it, too.
    let (run, job) = pair(&known, &us);
    publish(std::slice::from_ref(&url), &job).await;
    soon("parking", async {
        while store.parked_for(&run.id.to_hex()).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let begun = std::time::Instant::now();
    publish(std::slice::from_ref(&url), &run).await;
    assert_eq!(heard.next().await, Handed::Accepted(job.id.to_hex()));
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let parked = store.parked_expired(Millis::MAX >> 1).await.unwrap();
    assert!(parked.len() <= 256, "{} requests of strangers wait", parked.len());
    let patience = parked.iter().map(|parked| parked.until).max().unwrap().saturating_sub(now());
    assert!(patience <= 720_000, "strangers wait for {patience} ms");
    heard.task.abort();
}

#[tokio::test]
async fn attack_59_thousands_of_jobs_of_strangers_are_neither_kept_nor_answered_beyond_the_rate() {
    let (known, pool) = (Keys::generate(), Keys::generate());
    let us = pool.public_key();
    let (_relay, url) =
        started(RelayBuilder::default().rate_limit(RateLimit { max_reqs: 20, notes_per_minute: u32::MAX })).await;
    let mut config = closed(vec![url.clone()], &[&known]);
    config.limits.refusals_per_minute = 5;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut heard = Heard::start(&pool, config, &store);
    let strangers: Vec<Keys> = (0..50).map(|_| Keys::generate()).collect();
    let jobs = (0..2000).map(|number| job_without_run(&strangers[number % strangers.len()], &us)).collect();
    send_all(&url, jobs).await;
    let (run, job) = pair(&known, &us);
    let begun = std::time::Instant::now();
    publish(std::slice::from_ref(&url), &run).await;
    publish(std::slice::from_ref(&url), &job).await;
    let mut refused = 0;
    loop {
        match heard.next().await {
            Handed::Accepted(id) => {
                assert_eq!(id, job.id.to_hex());
                break;
            }
            // Nothing that they name is dialled for the answer.
            Handed::Refused(reason, Audience::OwnRelays) => {
                assert!(reason.contains("may not run here"), "{reason}");
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    assert!((1..=6).contains(&refused), "{refused} refusals");
    assert!(store.parked_expired(Millis::MAX >> 1).await.unwrap().is_empty());
    heard.task.abort();
}

#[tokio::test]
async fn attack_59_pairs_of_strangers_leave_no_row_where_maintainers_may_run() {
    let (known, pool) = (Keys::generate(), Keys::generate());
    let us = pool.public_key();
    let (_relay, url) =
        started(RelayBuilder::default().rate_limit(RateLimit { max_reqs: 20, notes_per_minute: u32::MAX })).await;
    let mut config = closed(vec![url.clone()], &[&known]);
    config.policy.maintainers = true;
    config.policy.owners = vec![Keys::generate().public_key().to_hex()];
    config.limits.refusals_per_minute = 5;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let heard = Heard::start(&pool, config, &store);
    let pairs: Vec<(Event, Event)> = (0..300)
        .map(|_| {
            let stranger = Keys::generate();
            pair(&stranger, &us)
        })
        .collect();
    let jobs: Vec<EventId> = pairs.iter().map(|(_, job)| job.id).collect();
    let (runs, asked): (Vec<Event>, Vec<Event>) = pairs.into_iter().unzip();
    send_all(&url, runs).await;
    send_all(&url, asked).await;
    soon("all are counted", async {
        let unanswered = || heard.counted.now()[&Ignored::Stranger] + heard.counted.now()[&Ignored::TooMany];
        while unanswered() < 290 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let mut kept = 0;
    for job in jobs {
        kept += usize::from(store.seen(&job.to_hex()).await.unwrap());
    }
    assert!(kept <= 10, "{kept} rows of strangers");
    assert!(store.parked_expired(Millis::MAX >> 1).await.unwrap().is_empty());
    heard.task.abort();
}

/// A relay that answers each question with these events, whatever they are.
async fn lying_relay(events: Vec<Event>) -> (tokio::task::JoinHandle<()>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let events = Arc::new(events);
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(lie(stream, events.clone()));
        }
    });
    (task, url)
}

async fn lie(stream: TcpStream, events: Arc<Vec<Event>>) {
    // Who asks for the relay's page gets none.
    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
    let (mut to, mut from) = socket.split();
    while let Some(Ok(Message::Text(text))) = from.next().await {
        let Ok(ClientMessage::Req { subscription_id, .. }) = ClientMessage::from_json(&*text) else { continue };
        for event in events.iter() {
            let message = format!("[\"EVENT\",\"{subscription_id}\",{}]", event.as_json());
            to.send(Message::Text(message.into())).await.ok();
        }
        to.send(Message::Text(format!("[\"EOSE\",\"{subscription_id}\"]").into())).await.ok();
    }
}

#[tokio::test]
async fn attack_58_events_forged_in_a_known_authors_name_spend_nothing_of_theirs() {
    let (known, pool) = (Keys::generate(), Keys::generate());
    let (run, job) = pair(&known, &pool.public_key());
    // The very job with a false signature, and a hundred others in its author's name.
    let forge = |event: Event| {
        let sig = pair(&Keys::generate(), &pool.public_key()).1.sig;
        Event::new(event.id, event.pubkey, event.created_at, event.kind, event.tags, event.content, sig)
    };
    let mut forged = vec![forge(job.clone())];
    forged.extend((0..100).map(|_| forge(pair(&known, &pool.public_key()).1)));
    let (_lying, lying) = lying_relay(forged).await;
    let (_relay, honest) = relay().await;
    let mut config = closed(vec![lying, honest.clone()], &[&known]);
    config.limits.author_per_minute = 1;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut heard = Heard::start(&pool, config, &store);
    let counted = heard.counted.clone();
    soon("the forgeries", async {
        while counted.now()[&nostr_client::protocol::Ignored::Forged] < 101 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    let urls = [honest];
    publish(&urls, &run).await;
    publish(&urls, &job).await;
    assert_eq!(heard.next().await, Handed::Accepted(job.id.to_hex()));
    heard.task.abort();
}

#[tokio::test]
async fn a_cancel_that_comes_before_its_job_is_heard_and_somebody_elses_is_not() {
    let (known, other, pool) = (Keys::generate(), Keys::generate(), Keys::generate());
    let (_relay, url) = relay().await;
    let urls = [url.clone()];
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut heard = Heard::start(&pool, closed(urls.to_vec(), &[&known, &other]), &store);
    let us = pool.public_key();
    let cancel = |job: &Event, by: &Keys| {
        let tags = tags([&["e", &job.id.to_hex()], &["p", &us.to_hex()]]);
        EventBuilder::new(Kind::from(hive_ci::CANCEL), "").tags(tags).sign_with_keys(by).unwrap()
    };
    let ((first_run, first), (second_run, second)) = (pair(&known, &us), pair(&known, &us));
    for event in [&first_run, &second_run, &cancel(&first, &other), &cancel(&second, &known)] {
        publish(&urls, event).await;
    }
    // Both cancels are known once another request that came after them is.
    let (run, job) = pair(&other, &us);
    publish(&urls, &run).await;
    publish(&urls, &job).await;
    assert_eq!(heard.next().await, Handed::Accepted(job.id.to_hex()));
    publish(&urls, &first).await;
    assert_eq!(heard.next().await, Handed::Accepted(first.id.to_hex()));
    publish(&urls, &second).await;
    let Handed::Refused(reason, Audience::Everywhere) = heard.next().await else { panic!("it is accepted") };
    assert_eq!(reason, "cancelled by its author before it began");
    heard.task.abort();
}

#[tokio::test]
async fn attack_57_a_waiting_job_is_given_up_for_its_author_alone() {
    let (known, other, pool) = (Keys::generate(), Keys::generate(), Keys::generate());
    let (_relay, url) = relay().await;
    let urls = [url.clone()];
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut heard = Heard::start(&pool, closed(urls.to_vec(), &[&known, &other]), &store);
    let us = pool.public_key();
    let (run, job) = pair(&known, &us);
    publish(&urls, &job).await;
    soon("parking", async {
        while store.parked_for(&run.id.to_hex()).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for by in [&other, &known] {
        let tags = tags([&["e", &job.id.to_hex()], &["p", &us.to_hex()]]);
        let cancel = EventBuilder::new(Kind::from(hive_ci::CANCEL), "").tags(tags).sign_with_keys(by).unwrap();
        publish(&urls, &cancel).await;
        let parked = async || !store.parked_for(&run.id.to_hex()).await.unwrap().is_empty();
        if by == &other {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(parked().await);
        }
    }
    let Handed::Refused(reason, _) = heard.next().await else { panic!("it is accepted") };
    assert!(reason.contains("cancelled by its author"), "{reason}");
    heard.task.abort();
}

#[tokio::test]
async fn attack_56_what_is_sent_again_backdated_or_ahead_of_time_becomes_one_run_or_none() {
    let (known, pool) = (Keys::generate(), Keys::generate());
    let us = pool.public_key();
    let (run, job) = pair(&known, &us);
    let dated = |seconds: i64| {
        let at = nostr::Timestamp::from(job.created_at.as_secs().saturating_add_signed(seconds));
        let builder = EventBuilder::new(Kind::from(hive_ci::JOB), "").tags(job.tags.clone());
        builder.custom_created_at(at).sign_with_keys(&known).unwrap()
    };
    let (old, ahead) = (dated(-365 * 24 * 3600), dated(7200));
    let mut sent: Vec<Event> = (0..100).flat_map(|_| [job.clone(), run.clone()]).collect();
    sent.extend([old.clone(), ahead.clone()]);
    let ((_a, a), (_b, b)) = (lying_relay(sent.clone()).await, lying_relay(sent).await);
    let (_relay, honest) = relay().await;
    publish(std::slice::from_ref(&honest), &run).await;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut config = closed(vec![a, b, honest], &[&known]);
    config.limits.author_per_minute = 100;
    for life in 0..2 {
        let mut heard = Heard::start(&pool, config.clone(), &store);
        let mut handed = Vec::new();
        while let Ok(Some(one)) = tokio::time::timeout(Duration::from_secs(3), heard.handed.recv()).await {
            handed.push(one);
        }
        heard.task.abort();
        let accepted = handed.iter().filter(|one| matches!(one, Handed::Accepted(_))).count();
        assert_eq!(accepted, usize::from(life == 0), "{handed:?}");
        // The relay was asked for what is not older than three days: the backdated one is none that was asked for.
        let ahead_of_time = |one: &&Handed| matches!(one, Handed::Refused(reason, _) if reason.contains("ahead"));
        assert_eq!(handed.iter().filter(ahead_of_time).count(), usize::from(life == 0), "{handed:?}");
        assert_eq!(handed.len(), 2 * usize::from(life == 0), "{handed:?}");
    }
}

#[tokio::test]
async fn attack_61_a_repository_of_ones_own_lets_nobody_in_where_the_operator_named_another() {
    let (owner, stranger, pool) = (Keys::generate(), Keys::generate(), Keys::generate());
    let (_relay, url) = relay().await;
    let mut config = closed(vec![url.clone()], &[]);
    config.policy.maintainers = true;
    config.policy.repositories = vec![format!("30617:{}:repo", owner.public_key())];
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("db")).await.unwrap();
    let mut heard = Heard::start(&pool, config, &store);
    // Each is the owner of the repository that its run names.
    for (author, is_named) in [(&stranger, false), (&owner, true)] {
        let (run, job) = pair(author, &pool.public_key());
        publish(std::slice::from_ref(&url), &run).await;
        publish(std::slice::from_ref(&url), &job).await;
        match heard.next().await {
            Handed::Accepted(id) => assert!(is_named && id == job.id.to_hex()),
            Handed::Refused(reason, Audience::OwnRelays) => {
                assert!(!is_named && reason.contains("may not run here"), "{reason}");
            }
            other => panic!("{other:?}"),
        }
    }
    heard.task.abort();
}
