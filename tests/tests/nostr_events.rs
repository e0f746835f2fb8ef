//! Our events, read by the clients' rules.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use config::{Config, Limits};
use domain::run::{FinalizedLog, RunEnd, RunRequest, RunUpdate};
use longshore_tests::oracle::{
    ad, bah,
    gg::{self, Followed},
    ui::{Status, Ui},
    watch,
};
use nostr::{Event, EventBuilder, Keys, Kind, Tag, Timestamp, nips::nip44};
use nostr_client::{
    advertise::{PoolLoad, Price, advertisement},
    protocol::{Draft, Protocol, ReadContext, Refusal, Secrets, hive_ci::HiveCi},
};
use store::Signer;
use workflow::plan::{Conclusion, Reason};

const NOW: u64 = 1_780_000_000;

struct Fixture {
    pool: Keys,
    publisher: Keys,
    run: Event,
    job: Event,
    request: RunRequest,
    secrets: Secrets,
    followed: Followed,
}

fn signed(kind: u16, keys: &Keys, tags: &[&[&str]]) -> Event {
    EventBuilder::new(Kind::from(kind), "")
        .tags(tags.iter().map(|tag| Tag::parse(tag.iter().copied()).unwrap()))
        .custom_created_at(Timestamp::from(NOW))
        .sign_with_keys(keys)
        .unwrap()
}

impl Fixture {
    fn new() -> Self {
        let (pool, author, publisher) = (Keys::generate(), Keys::generate(), Keys::generate());
        let (us, key) = (pool.public_key(), publisher.secret_key().to_secret_hex());
        let sealed = nip44::encrypt(author.secret_key(), &us, key, nip44::Version::V2).unwrap();
        let workflow = ".github/workflows/ci.yml";
        let run = signed(
            5401,
            &author,
            &[
                &["a", &format!("30617:{}:my-repo", author.public_key())],
                &["workflow", workflow],
                &["publisher", &publisher.public_key().to_hex()],
                &["branch", "main"],
                &["commit", ""],
            ],
        );
        let job = signed(
            5100,
            &author,
            &[
                &["p", &us.to_hex()],
                &["e", &run.id.to_hex()],
                &["cmd", "bash"],
                &["args", "-c", "curl -fsSL u -o /tmp/run-workflow.sh && /tmp/run-workflow.sh"],
                &["secret", "HIVE_CI_NSEC", &sealed],
            ],
        );
        let limits = Limits::default();
        let context = ReadContext { keys: &pool, limits: &limits, commands: false, now: NOW * 1000 };
        let (request, secrets) = HiveCi.request(&job, Some(&run), &context).unwrap();
        let followed = Followed {
            run: run.id.to_hex(),
            job: job.id.to_hex(),
            requester: author.public_key(),
            worker: us,
            publisher: publisher.public_key(),
            workflow: workflow.into(),
            commit: String::new(),
        };
        Self { pool, publisher, run, job, request, secrets, followed }
    }

    fn sign(&self, draft: &Draft) -> Event {
        match (&draft.signature, &draft.signer) {
            (Some(signature), _) => draft.event.clone().add_signature(*signature).unwrap(),
            (None, Signer::Coordinator) => draft.event.clone().sign_with_keys(&self.pool).unwrap(),
            (None, Signer::Publisher { .. }) => draft.event.clone().sign_with_keys(&self.publisher).unwrap(),
        }
    }

    /// Everything we publish about a run with this end, in our order.
    fn story(&self, case: &Case) -> Vec<Event> {
        let log = log();
        let end = RunEnd {
            conclusion: case.conclusion,
            reason: case.reason.clone(),
            exit_code: case.exit_code,
            at: NOW * 1000,
        };
        let finished = RunUpdate::Finished { stamp: NOW + 2, end, log, duration_s: 93, definitions: Vec::new() };
        let updates = [RunUpdate::Queued { stamp: NOW }, RunUpdate::Running { stamp: NOW + 1 }, finished];
        let (origin, us) = (self.request.origin.nostr().unwrap(), self.pool.public_key());
        let drafts = updates.iter().flat_map(|update| HiveCi.report(&"run".into(), origin, update, &us));
        drafts.map(|draft| self.sign(&draft)).collect()
    }

    fn shown(&self, events: &[&Event]) -> Ui {
        let mut ui = Ui::new(self.run.clone());
        ui.receive(&self.job);
        events.iter().for_each(|event| ui.receive(event));
        ui
    }
}

fn log() -> FinalizedLog {
    FinalizedLog { url: format!("https://ci.example/{}", "a".repeat(64)), ..FinalizedLog::default() }
}

struct Case {
    name: &'static str,
    conclusion: Conclusion,
    reason: Option<Reason>,
    exit_code: i32,
    ui: Status,
    watch: watch::State,
    /// What the bridge makes of the 5101, the 5402 and the terminal 30100.
    gg: [gg::Outcome; 3],
}

fn cases() -> [Case; 4] {
    use gg::Outcome::{Error, Failure, Pending, Success};
    let failed = watch::State::Failed;
    [
        Case {
            name: "t01 success",
            conclusion: Conclusion::Success,
            reason: None,
            exit_code: 0,
            ui: Status::Success,
            watch: watch::State::Completed,
            gg: [Success, Success, Pending],
        },
        Case {
            name: "t02 a step exits 3",
            conclusion: Conclusion::Failure,
            reason: Some(Reason::Step),
            exit_code: 3,
            ui: Status::Failure,
            watch: failed,
            gg: [Failure, Failure, Failure],
        },
        Case {
            name: "t28 timeout",
            conclusion: Conclusion::Failure,
            reason: Some(Reason::Timeout),
            exit_code: 124,
            ui: Status::Failure,
            watch: failed,
            gg: [Failure, Failure, Error],
        },
        Case {
            name: "t29 cancelled",
            conclusion: Conclusion::Cancelled,
            reason: Some(Reason::Cancelled("by its author".into())),
            exit_code: 130,
            ui: Status::Cancelled,
            watch: failed,
            gg: [Failure, Error, Error],
        },
    ]
}

/// All orders of a list.
fn orders<T: Copy>(items: &[T]) -> Vec<Vec<T>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let with_first = |at: usize| {
        let mut rest = items.to_vec();
        let first = rest.remove(at);
        orders(&rest).into_iter().map(move |mut order| {
            order.insert(0, first);
            order
        })
    };
    (0..items.len()).flat_map(with_first).collect()
}

#[test]
fn t25_in_every_order_the_client_shows_the_truth_and_never_unknown() {
    let fixture = Fixture::new();
    for case in cases() {
        let story = fixture.story(&case);
        let all: Vec<&Event> = story.iter().collect();
        assert_eq!(all.len(), 5, "{}", case.name);
        for order in orders(&all) {
            let shown = fixture.shown(&order).shown();
            assert_eq!(shown.status, case.ui, "{}", case.name);
            assert!(!shown.inferred, "{}", case.name);
            assert_eq!((shown.duration, shown.log_url), (Some(93), Some(log().url)), "{}", case.name);
        }
    }
}

#[test]
fn t25_in_our_own_order_no_moment_shows_unknown() {
    let fixture = Fixture::new();
    for case in cases() {
        let story = fixture.story(&case);
        for end in 0..=story.len() {
            let prefix: Vec<&Event> = story[..end].iter().collect();
            assert_ne!(fixture.shown(&prefix).shown().status, Status::Unknown, "{} after {end} events", case.name);
        }
    }
}

#[test]
fn t01_t02_t28_t29_t34_the_other_clients_agree() {
    let fixture = Fixture::new();
    let (run, job) = (fixture.run.id.to_hex(), fixture.job.id.to_hex());
    let requester = fixture.job.pubkey.to_hex();
    for case in cases() {
        let story = fixture.story(&case);
        let states: Vec<_> = (1..=story.len())
            .map(|end| watch::state(&story[..end], &job, &fixture.pool.public_key()).unwrap())
            .collect();
        let expected = [watch::State::Queued, watch::State::Running, case.watch, case.watch, case.watch];
        assert_eq!(states, expected, "{}: the watcher", case.name);
        let outcomes: Vec<_> = story.iter().map(|event| fixture.followed.map(event).unwrap()).collect();
        let [result, run_result, terminal] = case.gg;
        let expected = [gg::Outcome::Pending, gg::Outcome::Pending, result, run_result, terminal];
        assert_eq!(outcomes, expected, "{}: the bridge", case.name);
        for event in &story {
            let checked = bah::check(event, &run, &job, &requester);
            // It has no word for a cancelled run in the 5402 and falls back to the 5101.
            let unknown = event.kind.as_u16() == 5402 && case.conclusion == Conclusion::Cancelled;
            assert_eq!(checked.is_err(), unknown, "{}: {checked:?}", case.name);
        }
    }
}

#[test]
fn t09_t11_a_refusal_is_a_failure_for_every_client() {
    let fixture = Fixture::new();
    let refusal = Refusal::of_request(&fixture.request, &fixture.secrets, "not on the list").unwrap();
    let (run, job, requester) = (fixture.run.id.to_hex(), fixture.job.id.to_hex(), fixture.job.pubkey.to_hex());
    for (log, inferred) in [(Some(log()), false), (None, true)] {
        let drafts = HiveCi.refuse(&refusal, log.as_ref(), NOW, &fixture.pool.public_key());
        let events: Vec<Event> = drafts.iter().map(|draft| fixture.sign(draft)).collect();
        let shown = fixture.shown(&events.iter().collect::<Vec<_>>()).shown();
        assert_eq!((shown.status, shown.inferred), (Status::Failure, inferred));
        assert_eq!(watch::state(&events, &job, &fixture.pool.public_key()), Some(watch::State::Failed));
        for event in &events {
            assert_eq!(fixture.followed.map(event), Ok(gg::Outcome::Failure));
            bah::check(event, &run, &job, &requester).unwrap();
        }
    }
}

fn advertised(price: Option<&Price>) -> Event {
    let mut config = Config { name: "pool-1".into(), description: "a pool".into(), ..Config::default() };
    config.relays.read = vec!["wss://relay.example".into()];
    config.policy.list = Some(format!("30000:{}:friends", "ab".repeat(32)));
    advertisement(&config, PoolLoad { slots: 16, queued: 2 }, price).sign_with_keys(&Keys::generate()).unwrap()
}

#[test]
fn t54_every_client_reads_the_free_advertisement_as_free() {
    let event = advertised(None);
    for ad in [ad::by_ui(&event).unwrap(), ad::by_gg(&event).unwrap(), ad::by_bah(&event).unwrap()] {
        assert_eq!(ad.name, "pool-1");
        assert_eq!(ad.architecture.as_deref(), Some(std::env::consts::ARCH));
        assert!(ad.act.is_some());
        assert_eq!(ad.price, ad::Price::Free);
        assert_eq!((ad.min_duration, ad.max_duration), (Some(1), Some(3600)));
        assert!(!ad::ui_cost(&ad).is_nan(), "it has a place in the client's order");
    }
    let content: serde_json::Value = serde_json::from_str(&event.content).unwrap();
    assert_eq!((&content["max_concurrent_jobs"], &content["current_queue_depth"]), (&16.into(), &2.into()));
    assert!(event.tags.iter().any(|tag| tag.as_slice()[0] == "freelist_event"));
}

#[test]
fn t54_every_client_reads_the_same_price() {
    let event = advertised(Some(&Price { mint: "https://mint.example".into(), rate: 1 }));
    let paid = ad::Price::Paid { rate: 1.0, unit: "sat".into(), mint: "https://mint.example".into() };
    for ad in [ad::by_ui(&event).unwrap(), ad::by_gg(&event).unwrap(), ad::by_bah(&event).unwrap()] {
        assert_eq!(ad.price, paid);
    }
}

#[test]
fn t54b_our_advertisement_has_its_place_in_the_clients_ranking() {
    let other = |price: ad::Price, min_duration: Option<u64>| ad::Ad {
        name: "other".into(),
        architecture: None,
        act: Some("0.2.88".into()),
        price,
        min_duration,
        max_duration: Some(3600),
    };
    let paid = |min| other(ad::Price::Paid { rate: 1.0, unit: "sat".into(), mint: String::new() }, min);
    let others = [paid(Some(0)), paid(Some(10)), other(ad::Price::Free, Some(5))];
    let free = ad::by_ui(&advertised(None)).unwrap();
    let priced = ad::by_ui(&advertised(Some(&Price { mint: "https://mint.example".into(), rate: 1 }))).unwrap();
    for (ours, place) in [(&free, 2), (&priced, 1)] {
        let mine = ad::ui_cost(ours);
        assert!(!mine.is_nan());
        // The client puts the cheapest first; equal ones stand in the order of their queues.
        let before = others.iter().filter(|ad| ad::ui_cost(ad) < mine).count();
        assert_eq!(before, place, "{ours:?}");
    }
    // A free one that names no duration has no place at all: that is why ours does.
    assert!(ad::ui_cost(&other(ad::Price::Free, None)).is_nan());
}
