#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use std::sync::atomic::{AtomicU64, Ordering};

use futures::future::BoxFuture;
use store::NewWork;
use tokio::sync::{mpsc, watch};

use super::*;

/// A clock that stands until it is set.
static NOW: AtomicU64 = AtomicU64::new(1_000_000);

fn now() -> Millis {
    NOW.load(Ordering::SeqCst)
}

type Act = Box<dyn Fn(Vec<ClaimedWork>) -> BoxFuture<'static, anyhow::Result<Outcome>> + Send + Sync>;

/// A handler made of a function.
struct By {
    kind: WorkKind,
    lanes: LaneOrder,
    act: Act,
}

impl WorkHandler for By {
    fn kind(&self) -> WorkKind {
        self.kind
    }

    fn parallelism(&self) -> u32 {
        4
    }

    fn lanes(&self) -> LaneOrder {
        self.lanes
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        (self.act)(rows)
    }
}

fn by<F>(kind: WorkKind, lanes: LaneOrder, act: impl Fn(Vec<ClaimedWork>) -> F + Send + Sync + 'static) -> Arc<By>
where
    F: Future<Output = anyhow::Result<Outcome>> + Send + 'static,
{
    Arc::new(By { kind, lanes, act: Box::new(move |rows| Box::pin(act(rows))) })
}

/// Completes every row and says which.
fn completing(kind: WorkKind) -> (Arc<By>, mpsc::UnboundedReceiver<ClaimedWork>) {
    let (done, seen) = mpsc::unbounded_channel();
    let handler = by(kind, LaneOrder::Independent, move |rows| {
        rows.iter().for_each(|row| done.send(row.clone()).unwrap());
        let outcome = Outcome::Store(rows.iter().map(ClaimedWork::complete).collect());
        std::future::ready(Ok(outcome))
    });
    (handler, seen)
}

struct Running {
    store: Store,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    _folder: Option<tempfile::TempDir>,
}

async fn start(handlers: Vec<Arc<dyn WorkHandler>>) -> Running {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store.db")).await.unwrap();
    Running { _folder: Some(folder), ..start_on(store, "c1", handlers) }
}

fn start_on(store: Store, coordinator: &str, handlers: Vec<Arc<dyn WorkHandler>>) -> Running {
    let stop = CancellationToken::new();
    let config = Config { store: store.clone(), coordinator: coordinator.to_owned(), clock: now, handlers };
    let task = tokio::spawn(config.build().run(stop.clone()));
    Running { store, stop, task, _folder: None }
}

impl Running {
    async fn add(&self, new: NewWork) {
        self.store.commit(vec![new.into()]).await.unwrap();
    }

    async fn rows(&self) -> Vec<ClaimedWork> {
        self.store.work_of(&"r".into()).await.unwrap()
    }
}

fn task(id: &str, kind: WorkKind) -> NewWork {
    NewWork::new(id, kind, Some(&"r".into()), now())
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), work).await.unwrap_or_else(|_| panic!("`{what}` did not come"))
}

#[tokio::test]
async fn work_that_is_due_is_done_once_and_its_row_is_gone() {
    let (handler, mut seen) = completing(WorkKind::Plan);
    let running = start(vec![handler]).await;
    running.add(task("a", WorkKind::Plan)).await;
    running.add(task("b", WorkKind::Plan)).await;
    let mut done = [within("a", seen.recv()).await.unwrap().id, within("b", seen.recv()).await.unwrap().id];
    done.sort();
    assert_eq!(done, ["a", "b"]);
    running.stop.cancel();
    within("the end", running.task).await.unwrap().unwrap();
    let rows = running.store.work_of(&"r".into()).await.unwrap();
    // An outcome that the shutdown cut off is done again; it is never half done.
    assert!(rows.iter().all(|row| row.claim.is_empty()));
    assert!(seen.try_recv().is_err());
}

#[tokio::test]
async fn a_handler_that_panics_backs_off_alone() {
    let (fine, mut seen) = completing(WorkKind::Wake);
    let (calls, mut called) = watch::channel(0);
    let bad = by(WorkKind::Plan, LaneOrder::Independent, move |_| {
        calls.send_modify(|calls| *calls += 1);
        async { panic!("a bug") }
    });
    let running = start(vec![bad, fine]).await;
    running.add(task("bug", WorkKind::Plan)).await;
    within("the bug", called.changed()).await.unwrap();
    for id in ["a", "b", "c"] {
        running.add(task(id, WorkKind::Wake)).await;
        assert_eq!(within(id, seen.recv()).await.unwrap().id, id);
    }
    let row = within("its back-off", async {
        loop {
            let rows = running.rows().await;
            match rows.into_iter().find(|row| row.id == "bug" && row.claim.is_empty()) {
                Some(row) => return row,
                None => tokio::task::yield_now().await,
            }
        }
    })
    .await;
    assert!(row.due > now(), "it is not tried again at once");
    assert_eq!((row.tries, *called.borrow()), (1, 1));
}

#[tokio::test]
async fn a_timer_that_is_armed_anew_by_its_own_work_is_kept() {
    let (done, mut seen) = mpsc::unbounded_channel();
    let handler = by(WorkKind::Expire, LaneOrder::Independent, move |rows| {
        let row = rows.into_iter().next().unwrap();
        done.send(row.id.clone()).unwrap();
        // The run's transition arms it again, then the task says it is done: both in one transaction.
        let again = task(&row.id, WorkKind::Expire).due_at(now() + 3_600_000);
        std::future::ready(Ok(Outcome::Store(vec![again.into(), row.complete()])))
    });
    let running = start(vec![handler]).await;
    running.add(task("r expire", WorkKind::Expire)).await;
    within("the timer", seen.recv()).await.unwrap();
    let row = within("the new timer", async {
        loop {
            match running.rows().await.into_iter().next() {
                Some(row) if row.due > now() => return row,
                Some(_) => tokio::task::yield_now().await,
                None => panic!("the timer that was armed anew is lost"),
            }
        }
    })
    .await;
    assert_eq!((row.id.as_str(), row.tries), ("r expire", 0));
}

#[tokio::test]
async fn what_a_process_that_died_had_claimed_is_done_by_the_next_one() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store.db")).await.unwrap();
    store.commit(vec![task("a", WorkKind::Plan).into()]).await.unwrap();
    let limits = vec![ClaimLimit { kind: WorkKind::Plan, limit: 1, lanes: LaneOrder::Independent }];
    let dead = |coordinator: &str| ClaimRequest {
        limits: limits.clone(),
        claim: format!("{coordinator}/1"),
        now: now(),
        until: now() + 60_000,
    };
    assert_eq!(store.claim_work(dead("c1")).await.unwrap().len(), 1);

    // Another coordinator waits until the claim lapses.
    assert!(store.claim_work(dead("c10")).await.unwrap().is_empty());
    let (handler, mut seen) = completing(WorkKind::Plan);
    let running = start_on(store.clone(), "c1", vec![handler]);
    let row = within("the work", seen.recv()).await.unwrap();
    assert_eq!((row.id.as_str(), row.tries), ("a", 2), "its own next life takes it up at once");
    running.stop.cancel();
    within("the end", running.task).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_timer_fires_while_other_due_work_is_under_way() {
    let (fine, mut seen) = completing(WorkKind::Wake);
    let slow = by(WorkKind::Plan, LaneOrder::Independent, |_| std::future::pending());
    let running = start(vec![slow, fine]).await;
    running.add(task("plan", WorkKind::Plan)).await;
    // Due in a moment of the loop's own timer: nothing is announced then.
    running.add(task("wake", WorkKind::Wake).due_at(now() + 50)).await;
    let early = tokio::time::timeout(Duration::from_millis(10), seen.recv()).await;
    assert!(early.is_err(), "not before it is due");
    NOW.fetch_add(50, Ordering::SeqCst);
    assert_eq!(within("the timer", seen.recv()).await.unwrap().id, "wake");
}

#[tokio::test]
async fn the_rows_of_a_lane_come_in_order_and_in_batches() {
    let (done, mut seen) = mpsc::unbounded_channel();
    let handler = by(WorkKind::Publish, LaneOrder::InOrder { batch: 2 }, move |rows| {
        done.send(rows.iter().map(|row| (row.lane.clone(), row.id.clone())).collect::<Vec<_>>()).unwrap();
        std::future::ready(Ok(Outcome::Store(rows.iter().map(ClaimedWork::complete).collect())))
    });
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store.db")).await.unwrap();
    let rows = [("x", "1"), ("y", "2"), ("x", "3"), ("x", "4")];
    let added = rows.map(|(lane, id)| task(id, WorkKind::Publish).in_lane(lane).into());
    store.commit(added.into()).await.unwrap();
    let _running = start_on(store, "c1", vec![handler]);
    let mut lanes: HashMap<String, Vec<String>> = HashMap::new();
    for _ in 0..3 {
        let batch = within("a batch", seen.recv()).await.unwrap();
        assert!(batch.len() <= 2);
        batch.into_iter().for_each(|(lane, id)| lanes.entry(lane).or_default().push(id));
    }
    assert_eq!(
        (lanes["x"].as_slice(), lanes["y"].as_slice()),
        (["1", "3", "4"].map(String::from).as_slice(), ["2".to_owned()].as_slice())
    );
}
