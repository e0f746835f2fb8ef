//! Warm machines: started before a job needs them, each used once.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::{MachineSpec, ResourceLimits, SandboxError, container::Containers, machine::DockerMachine};

/// Warm machines by image.
pub(super) struct WarmPool {
    containers: Arc<Containers>,
    size: usize,
    limits: ResourceLimits,
    state: Mutex<WarmMachines>,
    /// Machines that jobs wait for: refilling yields to them.
    awaited: watch::Sender<usize>,
    /// Tasks that start machines.
    refills: TaskTracker,
}

#[derive(Default)]
struct WarmMachines {
    ready: HashMap<String, Vec<Arc<DockerMachine>>>,
    /// Images being refilled, each by one task.
    filling: HashSet<String>,
    closed: bool,
}

impl WarmPool {
    pub(super) fn new(containers: Arc<Containers>, size: usize, limits: ResourceLimits) -> Self {
        Self {
            containers,
            size,
            limits,
            state: Mutex::default(),
            awaited: watch::Sender::new(0),
            refills: TaskTracker::new(),
        }
    }

    /// Keeps machines of these images ready, and no others.
    pub(super) fn want(self: &Arc<Self>, images: &[String]) {
        if self.size == 0 {
            return;
        }
        let dropped = {
            let mut state = self.lock();
            let kept =
                images.iter().map(|image| (image.clone(), state.ready.remove(image).unwrap_or_default())).collect();
            std::mem::replace(&mut state.ready, kept)
        };
        drop(dropped);
        images.iter().for_each(|image| self.refill(image));
    }

    /// A warm machine, where one fits.
    pub(super) fn take(self: &Arc<Self>, spec: &MachineSpec) -> Option<Arc<DockerMachine>> {
        if *spec != (MachineSpec { attempt: spec.attempt.clone(), ..self.plain(&spec.image) }) {
            return None;
        }
        let machine = {
            let mut state = self.lock();
            let ready = state.ready.get_mut(&spec.image)?;
            std::iter::from_fn(|| ready.pop()).find(|machine| !machine.is_lost())
        };
        self.refill(&spec.image);
        machine
    }

    /// A new machine for a job that waits.
    pub(super) async fn make_for_job(&self, spec: &MachineSpec) -> Result<Arc<DockerMachine>, SandboxError> {
        let _awaited = Awaited::new(&self.awaited);
        Ok(DockerMachine::new(&self.containers, self.containers.make(spec).await?))
    }

    /// Drops all machines, and waits for those that are being started: one that nobody waits for would outlive the process.
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

    fn plain(&self, image: &str) -> MachineSpec {
        MachineSpec { image: image.to_owned(), limits: self.limits.clone(), ..MachineSpec::default() }
    }

    fn refill(self: &Arc<Self>, image: &str) {
        if !self.lock().filling.insert(image.to_owned()) {
            return;
        }
        let (pool, image) = (Arc::clone(self), image.to_owned());
        drop(self.refills.spawn(async move {
            let mut awaited = pool.awaited.subscribe();
            while pool.is_short_of(&image) {
                // The sender lives in the pool, which this task holds.
                let _ = awaited.wait_for(|count| *count == 0).await;
                match pool.containers.make(&pool.plain(&image)).await {
                    Ok(started) => pool.put(&image, DockerMachine::new(&pool.containers, started)),
                    Err(error) => {
                        let mut state = pool.lock();
                        state.filling.remove(&image);
                        if !state.closed {
                            tracing::warn!(image, %error, "no warm container; the next job of this image tries again");
                        }
                        return;
                    }
                }
            }
        }));
    }

    /// Also ends the refilling, under the same lock, so that a machine taken right after starts another.
    fn is_short_of(&self, image: &str) -> bool {
        let mut state = self.lock();
        let short = !state.closed && state.ready.get(image).is_some_and(|ready| ready.len() < self.size);
        if !short {
            state.filling.remove(image);
        }
        short
    }

    fn put(&self, image: &str, machine: Arc<DockerMachine>) {
        let mut state = self.lock();
        match state.ready.get_mut(image) {
            Some(ready) => ready.push(machine),
            // No longer wanted. Its removal needs no lock of ours.
            None => drop(machine),
        }
    }

    fn lock(&self) -> MutexGuard<'_, WarmMachines> {
        self.state.lock()
    }
}

/// Counts a waiting job.
struct Awaited<'a>(&'a watch::Sender<usize>);

impl<'a> Awaited<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
