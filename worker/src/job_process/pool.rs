//! Processes that wait for a job: some with a machine for it, some without. Each is used once.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use proto::job_process::{Prepare, to_job_process::Message as ToMessage};
use tokio_util::task::TaskTracker;
use tracing::warn;

use super::process::{JobEvent, JobProcess, Spawner};

/// What a waiting process has: the machine of an image, or (`None`) nothing yet.
type Kind = Option<String>;

/// Waiting processes.
pub(super) struct ProcessPool {
    spawner: Arc<Spawner>,
    state: Mutex<WaitingProcesses>,
    /// Tasks that start processes.
    refills: TaskTracker,
}

/// What waits no more. Dropped, it is made up for: not at once, for that would slow the start of the job.
pub(super) struct Refill {
    pool: Arc<ProcessPool>,
    kinds: Vec<Kind>,
}

impl Drop for Refill {
    fn drop(&mut self) {
        // Without a runtime the process is ending.
        if tokio::runtime::Handle::try_current().is_ok() {
            self.kinds.drain(..).for_each(|kind| self.pool.refill(kind));
        }
    }
}

#[derive(Default)]
struct WaitingProcesses {
    ready: HashMap<Kind, Vec<JobProcess>>,
    /// How many are wanted.
    wanted: HashMap<Kind, usize>,
    /// Kinds being refilled, each by one task.
    filling: HashSet<Kind>,
    closed: bool,
}

impl ProcessPool {
    /// Keeps so many processes ready of each kind.
    pub(super) fn new(spawner: Arc<Spawner>, wanted: HashMap<Kind, usize>) -> Arc<Self> {
        let kinds: Vec<_> = wanted.keys().cloned().collect();
        let state = Mutex::new(WaitingProcesses { wanted, ..WaitingProcesses::default() });
        let pool = Arc::new(Self { spawner, state, refills: TaskTracker::new() });
        kinds.into_iter().for_each(|kind| pool.refill(kind));
        pool
    }

    /// A process for a job: with the machine of `image` where one waits, and where the job can use it. Another takes its place
    /// once the second value is dropped.
    pub(super) async fn take(self: &Arc<Self>, image: Kind) -> io::Result<(JobProcess, Refill)> {
        let kinds = if image.is_some() { vec![image, None] } else { vec![None] };
        let mut refill = Refill { pool: Arc::clone(self), kinds: Vec::new() };
        for kind in kinds {
            let taken = {
                let mut state = self.lock();
                let ready = state.ready.entry(kind.clone()).or_default();
                std::iter::from_fn(|| ready.pop()).find(|process| !process.is_over())
            };
            refill.kinds.push(kind);
            if let Some(process) = taken {
                return Ok((process, refill));
            }
        }
        Ok((self.spawner.spawn().await?, refill))
    }

    /// Ends all that wait, and waits for those that are being started.
    pub(super) async fn close(&self) {
        let ready = {
            let mut state = self.lock();
            state.closed = true;
            std::mem::take(&mut state.ready)
        };
        drop(ready);
        self.refills.close();
        self.refills.wait().await;
    }

    fn refill(self: &Arc<Self>, kind: Kind) {
        {
            let mut state = self.lock();
            if state.closed || !state.wanted.contains_key(&kind) || !state.filling.insert(kind.clone()) {
                return;
            }
        }
        let pool = Arc::clone(self);
        drop(self.refills.spawn(async move {
            while pool.is_short_of(&kind) {
                match pool.start(&kind).await {
                    Ok(process) => pool.put(&kind, process),
                    Err(reason) => {
                        let mut state = pool.lock();
                        state.filling.remove(&kind);
                        if !state.closed {
                            let image = kind.unwrap_or_default();
                            warn!(image, reason, "nothing waits for a job of this image; the next one tries again");
                        }
                        return;
                    }
                }
            }
        }));
    }

    async fn start(&self, kind: &Kind) -> Result<JobProcess, String> {
        if kind.is_some() {
            // Machines that jobs wait for come first. The sender lives in the spawner, which this pool holds.
            let _ = self.spawner.awaited.subscribe().wait_for(|count| *count == 0).await;
        }
        let mut process = self.spawner.spawn().await.map_err(|error| format!("the process of a job: {error}"))?;
        if let Some(image) = kind {
            process.send(ToMessage::Prepare(Prepare { image: image.clone() }));
            match process.events.recv().await {
                Some(JobEvent::Prepared(prepared)) => prepared?,
                Some(_) => return Err("its process said something else".to_owned()),
                None => return Err(format!("its process ended: {}", process.reason())),
            }
        }
        Ok(process)
    }

    /// Also ends the refilling, under the same lock, so that a process taken right after starts another.
    fn is_short_of(&self, kind: &Kind) -> bool {
        let mut state = self.lock();
        let wanted = state.wanted.get(kind).copied().unwrap_or_default();
        let closed = state.closed;
        let ready = state.ready.entry(kind.clone()).or_default();
        ready.retain(|process| !process.is_over());
        let short = !closed && ready.len() < wanted;
        if !short {
            state.filling.remove(kind);
        }
        short
    }

    fn put(&self, kind: &Kind, process: JobProcess) {
        let mut state = self.lock();
        // Dropped where the pool is closed: it ends.
        if !state.closed {
            state.ready.entry(kind.clone()).or_default().push(process);
        }
    }

    fn lock(&self) -> MutexGuard<'_, WaitingProcesses> {
        self.state.lock()
    }
}
