#![allow(clippy::unwrap_used, reason = "a test may stop at once")]

use std::{sync::Arc, time::Duration};

use config::Config;
use domain::id::RunId;
use domain::run::{
    self, FinalizedLog, NostrOrigin, OriginEvent, RequestOrigin, RunRules, RunUpdate, Visibility, testing,
};
use nostr::{Event, EventBuilder, Filter, Keys, Kind, PublicKey, Tag, TagKind, Timestamp};
use nostr_client::{
    delivery::DeliveryPlan,
    intake::IntakeConfig,
    outbox::Outbox,
    protocol::{Draft, EventMeaning, Protocol, Protocols, ReadContext, Rejection, hive_ci::HiveCi},
    publish::Publisher,
    relays::Relays,
    tags,
};
use nostr_relay_builder::{LocalRelay, RelayBuilder};
use store::{RelayClass, Signer, Store, seal::StoreKey};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{RunServiceConfig, adapters::relay_lookup::RelayLookup, now};

/// A second family of events: one event asks for a run or its end, and one event with a word answers.
#[derive(Debug)]
struct Bell;

/// Tags with one value.
type Pairs<'a> = &'a [(&'a str, &'a str)];

/// Asks for the run of a workflow, or for the end of what it names.
const RING: u16 = 7401;
/// Answers in the tone that was asked for.
const CHIME: u16 = 7402;

impl Bell {
    fn chime(origin: &NostrOrigin, word: &str, stamp: u64, us: &PublicKey) -> Vec<Draft> {
        let tone = origin.details["tone"].as_str().unwrap_or("plain").to_owned();
        let tags = vec![tags::tag("e", &origin.request.id), tags::tag("word", word), tags::tag("tone", tone)];
        vec![Draft::new(us, stamp, CHIME, tags, Signer::Coordinator)]
    }
}

impl Protocol for Bell {
    fn name(&self) -> &'static str {
        "bell"
    }

    fn kinds(&self) -> &'static [u16] {
        &[RING]
    }

    fn filters(&self, us: &PublicKey, since: Timestamp) -> Vec<Filter> {
        vec![Filter::new().kind(Kind::from(RING)).pubkey(*us).since(since)]
    }

    fn read(&self, event: &Event, _: &ReadContext<'_>) -> EventMeaning {
        match tags::first(event, "e") {
            Some(_) => EventMeaning::Cancel(tags::events(event).collect()),
            None => EventMeaning::Request { partner: None },
        }
    }

    fn request(
        &self,
        event: &Event,
        _: Option<&Event>,
        context: &ReadContext<'_>,
    ) -> Result<(RunRequest, Secrets), Rejection> {
        let Some(workflow) = tags::first(event, "workflow") else {
            return Err(Rejection::Refused(Box::new(Refusal::of_event(self, event, "name a workflow"))));
        };
        let request = RunRequest {
            id: event.id.to_hex(),
            origin: self.origin(event).into(),
            workflow: workflow.to_owned(),
            actor: event.pubkey.to_hex(),
            received_at: context.now,
            ..RunRequest::default()
        };
        Ok((request, Secrets::default()))
    }

    fn origin(&self, event: &Event) -> NostrOrigin {
        NostrOrigin {
            protocol: self.name().into(),
            request: OriginEvent { kind: RING, id: event.id.to_hex() },
            run: None,
            author: event.pubkey.to_hex(),
            publisher: None,
            relays: Vec::new(),
            details: serde_json::json!({ "tone": tags::first(event, "tone") }),
        }
    }

    fn partner_missing(&self, _: EventId, _: u64) -> String {
        String::new()
    }

    fn report(&self, _: &RunId, origin: &NostrOrigin, update: &RunUpdate, us: &PublicKey) -> Vec<Draft> {
        match update {
            RunUpdate::Queued { stamp } => Self::chime(origin, "queued", *stamp, us),
            _ => Vec::new(),
        }
    }

    fn refuse(&self, refusal: &Refusal, _: Option<&FinalizedLog>, stamp: u64, us: &PublicKey) -> Vec<Draft> {
        Self::chime(&refusal.origin, &refusal.reason, stamp, us)
    }

    fn answer_filters(&self, us: &PublicKey, requests: Option<&[EventId]>) -> Vec<Filter> {
        let chimes = Filter::new().kind(Kind::from(CHIME)).author(*us);
        vec![chimes.events(requests.into_iter().flatten().copied())]
    }

    fn answered(&self, event: &Event, us: &PublicKey) -> Option<EventId> {
        (event.pubkey == *us && event.kind == Kind::from(CHIME)).then(|| tags::events(event).next())?
    }
}

/// A pool that hears two protocols at one relay, without workers.
struct Pool {
    _folder: tempfile::TempDir,
    _relay: LocalRelay,
    url: String,
    keys: Keys,
    relays: Relays,
    service: RunService,
    admission: Admission,
    stop: CancellationToken,
}

impl Pool {
    async fn start() -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let relay = LocalRelay::new(RelayBuilder::default());
        relay.run().await.unwrap();
        let url = relay.url().await.to_string();
        let own = vec![url.clone()];
        let config = Arc::new(Config {
            relays: config::Relays { read: own.clone(), write: own, allow_private: true, ..Default::default() },
            policy: config::Policy { everyone: true, ..Default::default() },
            ..Config::default()
        });
        let (folder, keys) = (tempfile::tempdir().unwrap(), Keys::generate());
        let store = Store::open(&folder.path().join("db")).await.unwrap();
        let relays = Relays::new(&keys, &config.relays);
        let protocols = Protocols::new(&[&HiveCi, &Bell]);
        let delivery = DeliveryPlan::new(relays.clone(), &config.relays, now);
        let outbox = Outbox::new(keys.clone(), protocols, delivery);
        let key = StoreKey::from_hex(&"11".repeat(32)).unwrap();
        let (of_store, of_config) = (store.clone(), config.clone());
        let service = RunServiceConfig {
            store: of_store,
            store_key: key,
            outbox,
            served: Default::default(),
            config: of_config,
            clock: now,
        };
        let service = service.build(&mut crate::metrics::registry());
        let log_publisher = LogPublisher {
            blobs: blobs::Blobs::open_alone(&folder.path().join("blobs"), store.clone()).unwrap(),
            logs: logs::Logs::new(folder.path().join("logs")),
            outside: blobs::client::Client::new().unwrap(),
            servers: Arc::new([]),
            keys: keys.clone(),
            config: config.clone(),
            public_url: "https://ci.example".into(),
            clock: now,
        };
        let policy = Policy::new(&config).unwrap();
        let lookup = RelayLookup { relays: relays.clone(), config: config.relays.clone() };
        let mirrors = folder.path().join("mirrors");
        let sources = Arc::new(RepositoryMirrors::new(mirrors, config::Source::default(), Arc::new(lookup)));
        let limits = config::NipC1 { requests_of_owner: 2, requests_in_all: 3, ..config.nip_c1.clone() };
        let secret_updates = SecretUpdates {
            run_service: service.clone(),
            sources: sources.clone(),
            policy: policy.clone(),
            keys: Arc::default(),
            us: keys.public_key(),
        };
        let (run_service, policy_of_all) = (service.clone(), policy.clone());
        let handler = Admission { run_service, sources, policy: policy_of_all, log_publisher, limits, secret_updates };
        let admission = handler.clone();
        let intake = IntakeConfig {
            keys: keys.clone(),
            config,
            store: store.clone(),
            relays: relays.clone(),
            policy,
            protocols,
            handler,
            clock: now,
        };
        let publisher = Publisher::new(store.clone(), relays.clone(), RelayClass::Own, now);
        let handlers: Vec<Arc<dyn work::WorkHandler>> = vec![Arc::new(publisher)];
        let work = work::Config { store, coordinator: "test".into(), clock: now, handlers }.build();
        let stop = CancellationToken::new();
        let (intake, stopped) = (intake.build(), stop.clone());
        tokio::spawn(async move { stopped.run_until_cancelled(intake.run()).await });
        let stopped = stop.clone();
        tokio::spawn(async move { work.run(stopped).await });
        Self { _folder: folder, _relay: relay, url, keys, relays, service, admission, stop }
    }

    /// Publishes a request to the pool.
    async fn send(&self, author: &Keys, more: Pairs<'_>) -> Event {
        let more = more.iter().map(|(name, value)| Tag::custom(TagKind::custom(*name), [*value]));
        let event = EventBuilder::new(Kind::from(RING), "")
            .tag(Tag::public_key(self.keys.public_key()))
            .tags(more)
            .sign_with_keys(author)
            .unwrap();
        assert_eq!(self.relays.send(&self.url, &event).await, nostr_client::relays::Answer::Taken);
        event
    }

    /// The word and the tone of the answer, once it is at the relay.
    async fn answer(&self, request: &Event) -> (String, String) {
        let filter = Filter::new().kind(Kind::from(CHIME)).author(self.keys.public_key()).event(request.id);
        soon(async || {
            let found = self.relays.fetch_from(&self.url, &filter, Duration::from_secs(8)).await.unwrap();
            let value = |name| tags::first(found.first()?, name).map(str::to_owned);
            Some((value("word")?, value("tone")?))
        })
        .await
    }
}

/// What is there within a minute.
async fn soon<T>(look: impl AsyncFn() -> Option<T>) -> T {
    let found = async {
        loop {
            match look().await {
                Some(found) => return found,
                None => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(60), found).await.unwrap()
}

#[tokio::test]
async fn a_protocol_needs_its_own_module_alone_to_be_heard_answered_and_published() {
    let (pool, author) = (Pool::start().await, Keys::generate());
    let cases: [(Pairs<'_>, &str, &str); 3] = [
        (&[("workflow", "ci.yml")], "queued", "plain"),
        (&[("workflow", "ci.yml"), ("tone", "low")], "queued", "low"),
        (&[("tone", "high")], "name a workflow", "high"),
    ];
    for (tags, word, tone) in cases {
        let request = pool.send(&author, tags).await;
        assert_eq!(pool.answer(&request).await, (word.to_owned(), tone.to_owned()), "{tags:?}");
        let id = request.id.to_hex();
        let state = pool.service.store().run_by_event(&id).await.unwrap();
        assert_eq!(state.is_some(), word == "queued", "{tags:?}");
        let Some(state) = state else { continue };
        assert!(state.cancelled.is_none());
        pool.send(&author, &[("e", &id)]).await;
        let cancelled = soon(async || pool.service.store().run(&state.id).await.unwrap()?.cancelled).await;
        assert_eq!(cancelled.by, "its author", "{tags:?}");
    }
    pool.stop.cancel();
}

#[tokio::test]
async fn attack_60_in_an_open_pool_each_owner_has_few_repositories_served_and_all_together_so_many() {
    let pool = Pool::start().await;
    let [one, two] = [(); 2].map(|()| Keys::generate());
    let mut kept = Vec::new();
    for (owner, name) in [(&one, "a"), (&one, "b"), (&one, "c"), (&two, "d"), (&two, "e"), (&one, "a")] {
        let tags = [Tag::identifier(name), Tag::custom(TagKind::custom("relays"), [pool.url.as_str()])];
        let announcement = EventBuilder::new(Kind::GitRepoAnnouncement, "").tags(tags).sign_with_keys(owner).unwrap();
        assert_eq!(pool.relays.send(&pool.url, &announcement).await, nostr_client::relays::Answer::Taken);
        let address = format!("30617:{}:{name}", owner.public_key().to_hex());
        let tags = [vec!["a", &address, &pool.url], vec!["p", &pool.keys.public_key().to_hex()]].map(Tag::parse);
        let wish =
            EventBuilder::new(Kind::from(9843), "").tags(tags.map(Result::unwrap)).sign_with_keys(owner).unwrap();
        pool.admission.service(wish, pool.url.clone(), Vec::new()).await.unwrap();
        kept.push(pool.service.store().service_wishes(&address).await.unwrap().len());
    }
    assert_eq!(kept, [1, 1, 0, 1, 0, 1], "two of one owner, three in all; what is there already stays");
    pool.stop.cancel();
}

#[test]
fn a_run_is_repeated_in_its_own_repository_and_workflow_by_who_may_read_it() {
    let mut earlier = run::create(testing::new_run(RunRules::default(), false), 0).0;
    std::sync::Arc::make_mut(&mut earlier.request).origin = RequestOrigin::from(NostrOrigin {
        protocol: "pairs".into(),
        request: OriginEvent { kind: 5100, id: "job".into() },
        run: Some(OriginEvent { kind: 5401, id: "event".into() }),
        author: "author".into(),
        publisher: None,
        relays: Vec::new(),
        details: serde_json::Value::Null,
    });
    let same = testing::request();
    assert!(repeats(&same, "event", &earlier));
    assert!(!repeats(&same, "job", &earlier), "only the run's own event names it");
    let mut foreign = same.clone();
    foreign.repository.address = "30617:other:repo".into();
    assert!(!repeats(&foreign, "event", &earlier));
    let other = RunRequest { workflow: "other.yml".into(), ..same.clone() };
    assert!(!repeats(&other, "event", &earlier));
    earlier.visibility = Visibility::Readers(vec!["reader".into()]);
    let by = |actor: &str| repeats(&RunRequest { actor: actor.into(), ..same.clone() }, "event", &earlier);
    assert!(by(&earlier.request.actor) && by("reader") && !by("stranger"));
}

#[test]
fn attack_57_a_run_is_ended_by_its_author_and_by_a_maintainer_and_a_deletion_is_its_authors_alone() {
    let [author, owner, maintainer, stranger] = [(); 4].map(|()| Keys::generate().public_key());
    let mut run = run::create(testing::new_run(RunRules::default(), false), 0).0;
    let request = std::sync::Arc::make_mut(&mut run.request);
    request.origin = RequestOrigin::from(NostrOrigin {
        protocol: "pairs".into(),
        request: OriginEvent { kind: 5100, id: "job".into() },
        run: None,
        author: author.to_hex(),
        publisher: None,
        relays: Vec::new(),
        details: serde_json::Value::Null,
    });
    request.repository.owner = owner.to_hex();
    let mut planned = testing::planned(Vec::new());
    planned.maintainers = vec![owner.to_hex(), maintainer.to_hex()];
    run.planned = Some(std::sync::Arc::new(planned));
    let by = |cancel| canceller(&run, "job", cancel);
    for (key, cancel, deletion) in [
        (author, Some("its author"), Some("its author")),
        (owner, Some("a maintainer"), None),
        (maintainer, Some("a maintainer"), None),
        (stranger, None, None),
    ] {
        assert_eq!(by(CancelRequest::Cancel(key)), cancel);
        assert_eq!(by(CancelRequest::Deletion(key)), deletion);
    }
    assert_eq!(canceller(&run, "another", CancelRequest::Cancel(author)), None);
}
