//! Gauges that are set when they are asked for: what is queued, connected, kept and left to do.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicI64, AtomicU64},
    time::Duration,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::disk_usage::DiskUsage;
use dispatch::{ConnectedWorker, Dispatch};
use domain::{
    run::Millis,
    schedule::{self, QueuedJob, WaitReason, WorkerView},
};
use logs::Logs;
use nostr_client::{intake::Counted, relays::Relays};
use store::Store;

type Label = [(&'static str, &'static str); 1];
type Text = [(&'static str, String); 1];
type Seconds = Gauge<f64, AtomicU64>;

/// Sizes of folders are measured this often: every file is looked at.
const MEASURED: Duration = Duration::from_secs(600);

/// Why jobs wait, as label values.
const REASONS: [&str; 6] = ["unassigned", "no_worker", "no_labels", "draining", "busy", "avoided"];

/// Where the samples come from.
pub(crate) struct SampleInputs {
    pub(crate) store: Store,
    pub(crate) dispatch: Dispatch,
    pub(crate) relays: Relays,
    pub(crate) ignored: Counted,
    pub(crate) logs: Logs,
    /// The data folder.
    pub(crate) data: PathBuf,
    pub(crate) clock: fn() -> Millis,
}

pub(super) struct Samples {
    sources: SampleInputs,
    queued: Family<Label, Gauge>,
    waited: Family<Label, Seconds>,
    workers: Gauge,
    slots: Family<Label, Gauge>,
    relays: Family<Text, Gauge>,
    ignored: Family<Label, Counter>,
    pending: Family<Text, Gauge>,
    pending_age: Family<Text, Seconds>,
    open_logs: Gauge,
    followed_runs: Gauge,
    disk_free: Gauge<i64, AtomicI64>,
    sizes: Family<Label, Gauge>,
    measured: tokio::sync::watch::Receiver<Sizes>,
}

/// Bytes below the data folder, by what they are.
type Sizes = BTreeMap<&'static str, u64>;

impl Samples {
    pub(super) fn new(registry: &mut Registry, sources: SampleInputs) -> Self {
        let measured = measure(sources.data.clone());
        let this = Self {
            sources,
            queued: Family::default(),
            waited: Family::default(),
            workers: Gauge::default(),
            slots: Family::default(),
            relays: Family::default(),
            ignored: Family::default(),
            pending: Family::default(),
            pending_age: Family::default(),
            open_logs: Gauge::default(),
            followed_runs: Gauge::default(),
            disk_free: Gauge::default(),
            sizes: Family::default(),
            measured,
        };
        registry.register("queue_jobs", "Jobs that wait for a worker, by reason", this.queued.clone());
        registry.register_with_unit(
            "queue_wait",
            "How long the oldest job of each reason has been waiting for a worker",
            Unit::Seconds,
            this.waited.clone(),
        );
        registry.register("workers", "Connected workers", this.workers.clone());
        registry.register("slots", "Slots of connected workers, by state", this.slots.clone());
        registry.register("relay_connected", "Whether a relay is connected (1) or not (0)", this.relays.clone());
        registry.register("intake_ignored", "Events that were not answered, by reason", this.ignored.clone());
        registry.register("work_pending", "Work that is stored and not done, by kind", this.pending.clone());
        registry.register_with_unit(
            "work_age",
            "Age of the oldest work that is due and not done, by kind",
            Unit::Seconds,
            this.pending_age.clone(),
        );
        registry.register("logs_open", "Log files open for writing", this.open_logs.clone());
        registry.register("runs_followed", "Runs whose logs somebody follows", this.followed_runs.clone());
        let free = this.disk_free.clone();
        registry.register_with_unit("disk_free", "Free space of the data folder's file system", Unit::Bytes, free);
        registry.register_with_unit(
            "data_size",
            "Bytes in the data folder, by kind; measured every ten minutes",
            Unit::Bytes,
            this.sizes.clone(),
        );
        this
    }

    /// Sets every gauge to what is so now.
    pub(super) async fn take(&self) -> anyhow::Result<()> {
        let SampleInputs { store, dispatch, relays, ignored, logs, data, clock } = &self.sources;
        let now = clock();
        let workers = dispatch.workers();
        self.queue(&store.queued().await?, &workers, now);
        self.workers.set(count(workers.len()));
        let slots: usize = workers.iter().map(|worker| worker.slots as usize).sum();
        let quarantined: usize = workers.iter().map(|worker| worker.quarantined).sum();
        let busy: usize = workers.iter().map(|worker| worker.busy).sum();
        let free = slots.saturating_sub(busy + quarantined);
        for (state, slots) in [("busy", busy), ("quarantined", quarantined), ("free", free)] {
            self.slots.get_or_create(&[("state", state)]).set(count(slots));
        }
        self.relays.clear();
        for relay in relays.states().into_iter().filter(|relay| relay.named) {
            self.relays.get_or_create(&[("relay", relay.url)]).set(relay.connected.into());
        }
        for (reason, total) in ignored.now() {
            let counter = self.ignored.get_or_create(&[("reason", reason.into())]);
            counter.inc_by(total.saturating_sub(counter.get()));
        }
        // A kind whose last row went has none: it must not keep the number that it had.
        self.pending.clear();
        self.pending_age.clear();
        for backlog in store.backlog(now).await? {
            let age = backlog.due_since.map_or(0, |since| now.saturating_sub(since));
            let kind = [("kind", backlog.kind)];
            self.pending.get_or_create(&kind).set(backlog.pending.try_into().unwrap_or(i64::MAX));
            self.pending_age.get_or_create(&kind).set(seconds(age));
        }
        self.open_logs.set(count(logs.open_count()));
        self.followed_runs.set(count(logs.followed_count()));
        self.disk_free.set(free_bytes(data)?.try_into().unwrap_or(i64::MAX));
        for (kind, bytes) in &*self.measured.borrow() {
            self.sizes.get_or_create(&[("kind", kind)]).set((*bytes).try_into().unwrap_or(i64::MAX));
        }
        Ok(())
    }

    fn queue(&self, queue: &[QueuedJob], workers: &[ConnectedWorker], now: Millis) {
        let mut waiting: BTreeMap<&str, (usize, Millis)> = REASONS.iter().map(|reason| (*reason, (0, now))).collect();
        let views: Vec<WorkerView> = workers.iter().map(view).collect();
        let mut reasons = vec!["unassigned"; queue.len()];
        for (position, why) in schedule::assign(queue, &views).waiting {
            if let Some(reason) = reasons.get_mut(position) {
                *reason = label(&why);
            }
        }
        for (job, reason) in queue.iter().zip(reasons) {
            if let Some((jobs, oldest)) = waiting.get_mut(reason) {
                *jobs += 1;
                *oldest = job.since.min(*oldest);
            }
        }
        for reason in REASONS {
            let (jobs, oldest) = waiting.get(reason).copied().unwrap_or((0, now));
            self.queued.get_or_create(&[("reason", reason)]).set(count(jobs));
            self.waited.get_or_create(&[("reason", reason)]).set(seconds(now.saturating_sub(oldest)));
        }
    }
}

/// A worker as the scheduler sees it; whose jobs it has does not matter for the reasons.
fn view(worker: &ConnectedWorker) -> WorkerView {
    WorkerView {
        id: worker.id.as_str().into(),
        labels: std::sync::Arc::new(worker.labels.iter().cloned().collect()),
        slots: worker.slots as usize,
        busy: vec![None; worker.busy + worker.quarantined],
        draining: worker.draining,
    }
}

fn label(why: &WaitReason) -> &'static str {
    match why {
        WaitReason::NoWorker => "no_worker",
        WaitReason::NoLabels { .. } => "no_labels",
        WaitReason::Draining { .. } => "draining",
        WaitReason::Busy { .. } => "busy",
        WaitReason::Avoided { .. } => "avoided",
    }
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn seconds(milliseconds: Millis) -> f64 {
    Duration::from_millis(milliseconds).as_secs_f64()
}

/// Bytes that this process may still write.
fn free_bytes(folder: &Path) -> anyhow::Result<u64> {
    let found = nix::sys::statvfs::statvfs(folder)?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

/// Measures the data folder every now and then, as long as the receiver is there.
fn measure(data: PathBuf) -> tokio::sync::watch::Receiver<Sizes> {
    let (sizes, measured) = tokio::sync::watch::channel(Sizes::new());
    tokio::spawn(async move {
        while !sizes.is_closed() {
            let data = data.clone();
            // A folder that can't be read now is measured the next time.
            if let Ok(found) = tokio::task::spawn_blocking(move || folder_sizes(&data)).await {
                sizes.send_replace(found);
            }
            tokio::select! {
                () = tokio::time::sleep(MEASURED) => {}
                () = sizes.closed() => return,
            }
        }
    });
    measured
}

fn folder_sizes(data: &Path) -> Sizes {
    let database: u64 =
        ["longshore.db", "longshore.db-wal"].iter().map(|name| DiskUsage::of(&data.join(name)).bytes).sum();
    let folders = ["logs", "blobs", "mirrors"].map(|folder| (folder, DiskUsage::of(&data.join(folder)).bytes));
    [("database", database)].into_iter().chain(folders).collect()
}
