//! What happens in a simulated hour: requests, cancels, faults of everything, and then an end in which all is well again.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use domain::run::RunEvent;
use nostr::Keys;
use store::Store;
use tokio::time::Instant;

use crate::{
    Sabotage, Summary, clock,
    coordinator::{Address, Life, Machinery},
    disk::Machine,
    invariants,
    observer::Observer,
    random::Random,
    relay::Relay,
    worker::Worker,
    workload,
};

/// Workers of the pool.
const WORKERS: usize = 3;
/// Least and most requests.
const RUNS: std::ops::Range<u64> = 10..15;
/// Kills of the coordinator, of which there are always some.
const RESTARTS: std::ops::Range<u64> = 2..4;
/// Faults besides.
const FAULTS: std::ops::Range<u64> = 3..8;
/// When the last request comes and the last fault begins.
const TROUBLE: u64 = 40 * 60_000;
/// The whole time, unless something still has to end then.
const HOUR: Duration = Duration::from_secs(3600);
/// For everything to end once all is well: longer than any job with all its tries, and every back-off.
const PATIENCE: Duration = Duration::from_secs(3 * 3600);
/// How often what must always hold is looked at.
const LOOK: Duration = Duration::from_secs(180);

/// Something that happens at a moment.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Request,
    Cancel,
    Kill,
    Stop,
    KillWorker(usize),
    StopWorker(usize),
    Cut(usize),
    Silence(usize),
    RelayGone,
    DiskFull,
    DiskSlow,
    ClockStep,
}

/// Everything there is.
struct World {
    random: Random,
    machinery: Machinery,
    life: Option<Life>,
    workers: Vec<Arc<Worker>>,
    author: Keys,
    observer: Observer,
}

/// Simulates one seed.
pub(crate) async fn run(seed: u64, sabotage: Option<Sabotage>, observer: Observer) -> Result<Summary, String> {
    clock::start();
    let mut random = Random::new(seed);
    let happenings = plan(&mut random.part());
    let world = World::new(random, observer.clone(), sabotage);
    let outcome = match world {
        Ok(mut world) => world.live(happenings).await,
        Err(error) => Err(error),
    };
    if let Err(error) = outcome {
        observer.violated(format!("the simulation can't go on: {error:#}"));
    }
    observer.finish()
}

/// What a seed decides, by time.
fn plan(random: &mut Random) -> Vec<(Duration, Happening)> {
    let mut all = Vec::new();
    let mut add = |random: &mut Random, count: u64, of: &dyn Fn(&mut Random) -> Happening| {
        for _ in 0..count {
            let at = random.millis(0..TROUBLE);
            let happening = of(random);
            all.push((at, happening));
        }
    };
    let runs = random.number(RUNS);
    add(random, runs, &|_| Happening::Request);
    let cancels = random.number(0..4);
    add(random, cancels, &|_| Happening::Cancel);
    let restarts = random.number(RESTARTS);
    add(random, restarts, &|random| if random.percent(80) { Happening::Kill } else { Happening::Stop });
    let faults = random.number(FAULTS);
    add(random, faults, &|random| {
        let worker = random.index(WORKERS);
        match random.number(0..8) {
            0 => Happening::KillWorker(worker),
            1 => Happening::StopWorker(worker),
            2 => Happening::Cut(worker),
            3 => Happening::Silence(worker),
            4 => Happening::RelayGone,
            5 => Happening::DiskFull,
            6 => Happening::DiskSlow,
            _ => Happening::ClockStep,
        }
    });
    all.sort_by_key(|(at, _)| *at);
    all
}

impl World {
    fn new(mut random: Random, observer: Observer, sabotage: Option<Sabotage>) -> Result<Self> {
        let address = Address::default();
        let workers = (0..WORKERS)
            .map(|number| Worker::new(number, &mut random, address.clone(), observer.clone()))
            .collect::<Result<Vec<_>>>()?;
        let store = Store::in_memory()?;
        crate::sabotage::prepare(&store, sabotage)?;
        let machinery = Machinery {
            store,
            disk: Machine::new(random.part()),
            relay: Relay::new(random.part()),
            address,
            observer: observer.clone(),
            keys: keys(7)?,
            workers: workers.iter().map(|worker| worker.identity()).collect(),
        };
        Ok(Self { random, machinery, life: None, workers, author: keys(8)?, observer })
    }

    async fn live(&mut self, happenings: Vec<(Duration, Happening)>) -> Result<()> {
        self.life = Some(self.machinery.start().await?);
        self.workers.iter().for_each(Worker::start);
        let start = Instant::now();
        for (at, happening) in happenings {
            self.watch_until(start + at).await?;
            self.happen(happening).await?;
            if self.observer.is_violated() {
                return Ok(());
            }
        }
        self.watch_until(start + Duration::from_millis(TROUBLE)).await?;
        self.observer.note("from here on all is well");
        let until = Instant::now() + PATIENCE;
        while !self.is_at_rest().await? && Instant::now() < until && !self.observer.is_violated() {
            self.watch_until(Instant::now() + LOOK).await?;
        }
        self.watch_until(start + HOUR).await?;
        invariants::at_the_end(&self.machinery, &self.workers).await
    }

    /// Lets time pass; looks at what must always hold meanwhile.
    async fn watch_until(&self, at: Instant) -> Result<()> {
        while Instant::now() < at {
            tokio::time::sleep_until(at.min(Instant::now() + LOOK)).await;
            if self.life.is_some() {
                invariants::always(&self.machinery).await?;
            }
        }
        Ok(())
    }

    async fn is_at_rest(&self) -> Result<bool> {
        let store = &self.machinery.store;
        let requests = self.machinery.relay.published_requests();
        for asked in requests {
            let state = store.run_by_event(&asked.request.id).await?;
            if !state.is_some_and(|state| matches!(state.phase, domain::run::RunPhase::Done { .. })) {
                return Ok(false);
            }
        }
        Ok(store.next_work_due(0).await?.is_none() && self.workers.iter().all(|worker| worker.is_empty()))
    }

    async fn happen(&mut self, happening: Happening) -> Result<()> {
        let machinery = &self.machinery;
        match happening {
            Happening::Request => {
                self.observer.requested();
                machinery.relay.request(workload::request(&mut self.random, &self.author));
            }
            Happening::Cancel => self.cancel().await?,
            Happening::Kill | Happening::Stop => self.restart(happening).await?,
            Happening::KillWorker(number) => {
                self.observer.fault(&format!("worker {number} is killed"));
                let worker = self.worker(number);
                worker.kill();
                let absence = self.random.millis(0..120_000);
                tokio::spawn(async move {
                    tokio::time::sleep(absence).await;
                    worker.start();
                });
            }
            Happening::StopWorker(number) => {
                self.observer.fault(&format!("worker {number} is stopped"));
                let worker = self.worker(number);
                worker.set_stopped(true);
                let time = self.random.millis(1_000..120_000);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    worker.set_stopped(false);
                });
            }
            Happening::Cut(number) => {
                self.observer.fault(&format!("the line of worker {number} is cut"));
                self.worker(number).line.cut();
            }
            Happening::Silence(number) => {
                self.observer.fault(&format!("the line of worker {number} is silent"));
                let worker = self.worker(number);
                worker.disturb();
                worker.line.set_silent(true);
                let time = self.random.millis(1_000..120_000);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    worker.line.set_silent(false);
                });
            }
            Happening::RelayGone => {
                self.observer.fault("the relay is gone");
                let relay = machinery.relay.clone();
                relay.set_up(false);
                let time = self.random.millis(1_000..600_000);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    relay.set_up(true);
                });
            }
            Happening::DiskFull => {
                self.observer.fault("the disk is full");
                let disk = machinery.disk.clone();
                disk.set_full(true);
                let time = self.random.millis(1_000..120_000);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    disk.set_full(false);
                });
            }
            Happening::DiskSlow => {
                self.observer.fault("the disk is slow");
                let disk = machinery.disk.clone();
                disk.set_slow(true);
                let time = self.random.millis(1_000..120_000);
                tokio::spawn(async move {
                    tokio::time::sleep(time).await;
                    disk.set_slow(false);
                });
            }
            Happening::ClockStep => {
                let longest = 600_000;
                let step = i64::try_from(self.random.number(0..2 * longest))? - i64::try_from(longest)?;
                self.observer.fault(&format!("the clock is set by {step} ms"));
                clock::step(step);
            }
        }
        Ok(())
    }

    async fn restart(&mut self, how: Happening) -> Result<()> {
        let Some(life) = self.life.take() else { return Ok(()) };
        if matches!(how, Happening::Kill) {
            self.observer.fault("the coordinator is killed");
            life.kill();
        } else {
            self.observer.fault("the coordinator is ended");
            life.end().await;
        }
        let absence = self.random.millis(0..90_000);
        tokio::time::sleep(absence).await;
        // A process that can't write does not come up: its supervisor starts it again.
        loop {
            match self.machinery.start().await {
                Ok(life) => self.life = Some(life),
                Err(error) => {
                    self.observer.note(&format!("the coordinator does not start: {error:#}"));
                    tokio::time::sleep(Duration::from_secs(5)).await;
                    continue;
                }
            }
            break;
        }
        self.observer.restarted();
        self.observer.note("the coordinator runs again");
        Ok(())
    }

    /// Somebody cancels a run.
    async fn cancel(&mut self) -> Result<()> {
        let requests = self.machinery.relay.published_requests();
        if requests.is_empty() {
            return Ok(());
        }
        let Some(asked) = requests.get(self.random.index(requests.len())) else { return Ok(()) };
        let run = self.machinery.store.run_by_event(&asked.request.id).await?;
        if let (Some(state), Some(life)) = (run, &self.life) {
            self.observer.note(&format!("{} is cancelled", self.observer.run(state.id.as_str())));
            let cancel = RunEvent::Cancel { by: "its author".into() };
            // A full disk refuses that too; whoever asked may ask again.
            let _ = life.run_service.apply(&state.id, cancel, Vec::new()).await;
        }
        Ok(())
    }

    fn worker(&self, number: usize) -> Arc<Worker> {
        self.workers[number % self.workers.len()].clone()
    }
}

fn keys(number: u8) -> Result<Keys> {
    Ok(Keys::parse(&hex::encode([number; 32]))?)
}
