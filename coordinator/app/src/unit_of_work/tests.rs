#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use prometheus_client::registry::Registry;
use std::sync::Arc;

use config::Config;
use domain::id::{JobKey, RunId};
use domain::run::{
    JobPhase, Millis, RunEvent, RunPhase, RunRefusal, RunState, WaitCondition,
    testing::{concurrency, job, planned, report, request},
};
use nostr::Keys;
use nostr_client::{
    delivery::DeliveryPlan,
    outbox::Outbox,
    protocol::{Protocols, Secrets},
    relays::Relays,
};
use store::{Batch, Change, Store, seal::StoreKey};
use workflow::plan::{Conclusion, QueueMode};

use crate::run_service::{Applied, RunService, RunServiceConfig};

const NOW: Millis = 1_700_000_000_000;

fn now() -> Millis {
    NOW
}

/// Two services over one store, as two coordinators have it.
struct World {
    store: Store,
    service: RunService,
    other: RunService,
}

impl World {
    fn new() -> Self {
        let store = Store::in_memory().unwrap();
        let config = Arc::new(Config::default());
        let keys = Keys::generate();
        let service = || {
            let delivery = DeliveryPlan::new(Relays::new(&keys, &config.relays), &config.relays, now);
            let outbox = Outbox::new(keys.clone(), Protocols::new(&[]), delivery);
            let key = StoreKey::from_hex(&"ab".repeat(32)).unwrap();
            let (store, config) = (store.clone(), config.clone());
            RunServiceConfig { store, store_key: key, outbox, served: Default::default(), config, clock: now }
                .build(&mut Registry::default())
        };
        Self { service: service(), other: service(), store }
    }

    /// A run of two jobs one after the other, in a concurrency group of the run where one is named.
    async fn run(&self, group: Option<&str>) -> RunId {
        let mut plan = planned(vec![("a", job(&[])), ("b", job(&["a"]))]);
        plan.plan.concurrency = group.map(|group| concurrency(group, false, QueueMode::Max));
        let accepted = self.service.accept(request(), None, &Secrets::default(), Batch::new()).await.unwrap();
        self.apply(&accepted.id, RunEvent::Planned(Box::new(plan))).await;
        accepted.id.clone()
    }

    async fn apply(&self, run: &RunId, event: RunEvent) -> Applied {
        self.service.apply(run, event, Batch::new()).await.unwrap()
    }

    async fn stored(&self, run: &RunId) -> RunState {
        self.store.run(run).await.unwrap().unwrap()
    }

    async fn queued(&self) -> Vec<(RunId, JobKey)> {
        self.store.queued().await.unwrap().into_iter().map(|queued| (queued.run, queued.job)).collect()
    }
}

fn accepted(job: &str) -> RunEvent {
    RunEvent::Accepted { job: job.into(), worker: "w".into() }
}

fn finished(job: &str) -> RunEvent {
    RunEvent::Finished { job: job.into(), attempt: 1, report: report(Conclusion::Success, None) }
}

#[tokio::test]
async fn an_event_is_stored_with_everything_that_follows_from_it() {
    let world = World::new();
    let run = world.run(None).await;
    assert_eq!(world.queued().await, [(run.clone(), "a".into())]);
    world.apply(&run, accepted("a")).await;
    let Applied::Changed(state) = world.apply(&run, finished("a")).await else { panic!() };
    assert_eq!(world.queued().await, [(run.clone(), "b".into())]);
    let stored = world.stored(&run).await;
    assert_eq!(stored, *state, "what was answered is what a restart reads");
    let reports = world.store.reports_of(&stored, u64::MAX).await.unwrap().found;
    assert_eq!(reports.keys().collect::<Vec<_>>(), ["a"]);
}

#[tokio::test]
async fn a_group_goes_from_run_to_run_in_one_transaction() {
    let world = World::new();
    let (first, second) = (world.run(Some("deploy")).await, world.run(Some("deploy")).await);
    let serial = world.stored(&first).await.serial;
    let waiting = world.stored(&second).await;
    let RunPhase::Waiting { on: WaitCondition::Concurrency { holder, .. } } = &waiting.phase else { panic!() };
    assert_eq!(*holder, Some(serial), "it knows for whom it waits");
    world.apply(&first, RunEvent::Cancel { by: "somebody".into() }).await;
    assert!(matches!(world.stored(&first).await.phase, RunPhase::Finalizing { .. }));
    assert!(matches!(world.stored(&second).await.phase, RunPhase::Active));
    assert_eq!(world.queued().await, [(second, "a".into())], "the first one's job is queued no more");
}

#[tokio::test]
async fn a_refused_event_writes_nothing_but_what_came_with_it() {
    let world = World::new();
    let run = world.run(None).await;
    world.apply(&run, accepted("a")).await;
    let before = world.stored(&run).await;
    let also = vec![Change::Seen { id: "event".into(), at: NOW }];
    let applied = world.service.apply(&run, accepted("a"), also).await.unwrap();
    assert!(matches!(applied, Applied::Unchanged(RunRefusal::Stale)));
    assert_eq!(world.stored(&run).await, before);
    assert!(world.store.seen("event").await.unwrap());
}

#[tokio::test]
async fn an_event_on_an_old_version_is_decided_again_on_the_stored_one() {
    let world = World::new();
    let run = world.run(None).await;
    // The other coordinator changes the run behind this one's back.
    assert!(matches!(world.other.apply(&run, accepted("a"), Batch::new()).await.unwrap(), Applied::Changed(_)));
    let twice = world.apply(&run, accepted("a")).await;
    assert!(matches!(twice, Applied::Unchanged(RunRefusal::Stale)), "a job is accepted once");
    assert!(matches!(world.apply(&run, finished("a")).await, Applied::Changed(_)));
    // And the other way round: what is refused by an old version is not refused by the stored one.
    assert!(matches!(world.other.apply(&run, accepted("b"), Batch::new()).await.unwrap(), Applied::Changed(_)));
    assert!(matches!(world.apply(&run, finished("b")).await, Applied::Changed(_)));
    assert_eq!(world.stored(&run).await.jobs["b"].attempts.len(), 1);
}

#[tokio::test]
async fn events_of_one_run_at_once_are_all_applied() {
    let world = World::new();
    let run = world.run(None).await;
    let cells = domain::run::testing::cells(&[], serde_json::json!({"n": (0..20).collect::<Vec<_>>()}));
    let wide = world.service.accept(request(), None, &Secrets::default(), Batch::new()).await.unwrap();
    world.apply(&wide.id, RunEvent::Planned(Box::new(planned(vec![("m", cells)])))).await;
    let all = (0..20).map(|cell| {
        let (service, id) = (if cell % 2 == 0 { &world.service } else { &world.other }, wide.id.clone());
        async move { service.apply(&id, accepted(&format!("m/{cell}")), Batch::new()).await.unwrap() }
    });
    let applied = futures::future::join_all(all).await;
    assert!(applied.iter().all(|applied| matches!(applied, Applied::Changed(_))));
    let stored = world.stored(&wide.id).await;
    assert!(stored.jobs.values().all(|job| matches!(job.phase, JobPhase::Running { .. })));
    assert_eq!(world.queued().await, [(run, "a".into())]);
}
