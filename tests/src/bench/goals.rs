//! The goals: each is measured in turns with its floor, after two warm-ups.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use anyhow::Result;
use clap::ValueEnum;

use super::{
    assignment, base, dispatch_rate,
    engine::Engine,
    floor::Floor,
    pages,
    pairs::{Pairs, median, millis},
    peers, progress, recovery,
    report::Report,
    scale::Scale,
    stage::{Running, Stage, Timed, Work},
    standing, throughput,
    workflows::{self, Sides, W1, W2, W3, W4},
};

pub(super) const WARM_UPS: usize = 2;
/// For G9: long enough for what a job left to be given back.
const IDLE: Duration = Duration::from_secs(20);

/// What can be measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Goal {
    /// From the event to the first byte, nothing warm.
    G1,
    /// From the event to the assignment at a worker.
    G2,
    /// From the event to the first byte, with warm containers.
    G3,
    /// One more step.
    G4,
    /// 100 MB of log.
    G6,
    /// Jobs a second, with simulated workers.
    G8,
    /// Memory at rest.
    G9,
    /// Memory and processor time of idle connections (G9, G11).
    Connections,
    /// Memory after many ended runs (G9).
    Ended,
    /// Dispatching again after a kill.
    G12,
    /// A start with a long history.
    History,
    /// Runs a second through the embedded relay.
    Runs,
    /// One job, whole, beside peers on PATH.
    W1,
    /// Twenty steps, whole.
    W2,
    /// Ten jobs, four at once.
    W3,
    /// A matrix of eight, four at once.
    W4,
    /// Pages of a run with a million lines of log.
    P1,
    /// A line, from the step to the browser.
    P2,
    /// The list of a hundred thousand runs.
    P3,
    /// What Docker alone takes; the product is not started.
    Floors,
}

/// What to measure.
#[derive(Debug, Clone)]
pub struct Choice {
    /// Goals.
    pub goals: BTreeSet<Goal>,
    /// Pairs for each, instead of each goal's own number.
    pub pairs: Option<usize>,
    /// How much of the large measurements is done.
    pub scale: Scale,
    /// The program of an earlier commit: what both can do is measured in turns, and nothing else.
    pub base: Option<PathBuf>,
}

impl Choice {
    pub(super) fn has(&self, goal: Goal) -> bool {
        self.goals.contains(&goal)
    }

    /// Whether a Docker engine is needed.
    pub fn needs_engine(&self) -> bool {
        self.goals.iter().any(|goal| !goal.is_of_simulated_workers())
    }

    pub(super) fn pairs(&self, goal: Goal) -> usize {
        self.pairs.unwrap_or(match goal {
            Goal::G1 | Goal::G3 => 30,
            Goal::G4 => 20,
            Goal::G6 | Goal::W1 | Goal::W2 | Goal::W3 | Goal::W4 | Goal::P1 | Goal::P3 | Goal::Floors => 10,
            Goal::P2 => 5,
            _ => 1,
        })
    }
}

impl Goal {
    fn is_of_simulated_workers(self) -> bool {
        matches!(self, Self::G2 | Self::G8 | Self::Connections | Self::Ended | Self::G12 | Self::History | Self::Runs)
    }
}

/// Measures what was chosen; the engine is there where [`Choice::needs_engine`] says so.
pub async fn measure(engine: Option<&Engine>, choice: &Choice) -> Result<Report> {
    let mut report = Report::default();
    if let (Some(engine), Some(program)) = (engine, &choice.base) {
        Box::pin(base::measure(engine, program, choice, &mut report)).await?;
        return Ok(report);
    }
    let simulated: Vec<Goal> = choice.goals.iter().copied().filter(|goal| goal.is_of_simulated_workers()).collect();
    for goal in simulated {
        if let Err(error) = Box::pin(with_simulated_workers(goal, choice.scale, &mut report)).await {
            report.failed(&format!("{goal:?}"), &format!("{error:#}"));
        }
    }
    match engine {
        Some(engine) => Box::pin(with_engine(engine, choice, report)).await,
        None => Ok(report),
    }
}

async fn with_simulated_workers(goal: Goal, scale: Scale, report: &mut Report) -> Result<()> {
    match goal {
        Goal::G2 => assignment::measure(scale, report).await,
        Goal::G8 => dispatch_rate::measure(scale, report).await,
        Goal::Connections => standing::connections(scale, report).await,
        Goal::Ended => standing::ended_runs(scale, report).await,
        Goal::G12 => recovery::killed(scale, report).await,
        Goal::History => recovery::history(scale, report).await,
        Goal::Runs => {
            throughput::host(scale, report).await?;
            throughput::simulated(scale, report).await?;
            throughput::matrices(scale, report).await?;
            throughput::subscriptions(scale, report).await
        }
        _ => Ok(()),
    }
}

async fn with_engine(engine: &Engine, choice: &Choice, mut report: Report) -> Result<Report> {
    if choice.has(Goal::Floors) {
        let shape = engine.plain().await?;
        floors(&mut Floor::new(engine.clone(), shape), choice.pairs(Goal::Floors), &mut report).await;
        return Ok(report);
    }
    progress("starting relay, repository and two pools");
    let stage = Stage::start().await?;
    let cold = stage.pool("cold", 1, 0)?;
    let shape = stage.shape(&cold, engine).await?;
    let warm = stage.pool("warm", 1, 2)?;
    let bare = Floor::new(engine.clone(), shape.without_network());
    let mut bench = Bench { cold, warm, stage, floor: Floor::new(engine.clone(), shape), bare, report };
    if choice.has(Goal::G1) || choice.has(Goal::G3) {
        bench.starts(choice).await;
    }
    if choice.has(Goal::G4) {
        bench.steps(choice.pairs(Goal::G4)).await;
    }
    if choice.has(Goal::G9) {
        bench.memory().await;
    }
    if choice.has(Goal::G6) {
        bench.logs(choice.pairs(Goal::G6)).await;
    }
    bench.workflows(choice).await?;
    bench.pages(choice).await?;
    if !bench.report.holds() {
        keep_logs(&mut bench);
    }
    // The floors' containers hold a volume of the worker, which it removes when it ends.
    engine.clean_up().await?;
    Ok(bench.report)
}

struct Bench {
    // Before the stage: a worker ends while the relay is still there.
    cold: Running,
    warm: Running,
    stage: Stage,
    floor: Floor,
    bare: Floor,
    report: Report,
}

impl Bench {
    /// G1 and G3 share their cold jobs: floor, cold, warm, floor, cold, warm, …
    async fn starts(&mut self, choice: &Choice) {
        let (mut beside_floor, mut beside_cold) = (Pairs::default(), Pairs::default());
        let (mut cold_jobs, mut warm_jobs) = (Vec::new(), Vec::new());
        let pairs = choice.pairs(Goal::G1);
        for round in 0..WARM_UPS + pairs {
            let floor = said(self.floor.cold().await);
            let cold = self.stage.run(&self.cold, Work::Echo).await;
            let warm = match choice.has(Goal::G3) {
                true => Some(self.stage.run(&self.warm, Work::Echo).await),
                false => None,
            };
            let (first, warm_first) = (first(&cold), warm.as_ref().map(first));
            say(round, pairs, "first byte", &[&floor, &first, warm_first.as_ref().unwrap_or(&Err("-".into()))]);
            if round < WARM_UPS {
                continue;
            }
            if let Some(warm_first) = warm_first {
                beside_cold.push(warm_first, first.clone());
            }
            beside_floor.push(first, floor);
            cold_jobs.extend(cold.ok());
            warm_jobs.extend(warm.and_then(Result::ok));
        }
        if choice.has(Goal::G1) {
            self.report.ratio(
                "G1 event seen → first byte, cold; floor: create, attach, start → first byte",
                1.10,
                &beside_floor,
            );
            failures("G1", &beside_floor, &mut self.report);
            self.around("G1", &cold_jobs);
            if let Some(ratios) = beside_floor.ratios() {
                self.report.note(format!("G1: p95 of the ratios {:.3} (wished for: ≤ 1.3)", ratios.p95));
            }
        }
        if choice.has(Goal::G3) {
            self.report.ratio("G3 the same, warm; floor: our own cold", 0.10, &beside_cold);
            failures("G3", &beside_cold, &mut self.report);
            self.around("G3", &warm_jobs);
            let resolution = beside_cold.floor().map_or(0.0, |cold| 1.0 / cold);
            self.report.note(format!("G3: stamps are whole milliseconds, which is ± {resolution:.4} of the ratio"));
        }
    }

    async fn steps(&mut self, pairs: usize) {
        let mut all = Pairs::default();
        for round in 0..WARM_UPS + pairs {
            let floor = said(self.floor.exec().await);
            let one = self.stage.run(&self.warm, Work::OneStep).await;
            let twenty = self.stage.run(&self.warm, Work::TwentySteps).await;
            // A difference may be negative by chance in one pair; that counts as nothing, not as a failure.
            let step = one.and_then(|one| Ok(twenty?.whole.saturating_sub(one.whole) / 19));
            say(round, pairs, "a step", &[&floor, &step]);
            if round >= WARM_UPS {
                all.push(step, floor);
            }
        }
        self.report.ratio("G4 a step, (20 steps − 1 step) / 19; floor: an exec of `true`", 0.15, &all);
        failures("G4", &all, &mut self.report);
    }

    async fn logs(&mut self, pairs: usize) {
        let mut all = Pairs::default();
        let mut jobs = Vec::new();
        for round in 0..WARM_UPS + pairs {
            let floor = said(self.floor.log().await);
            let job = self.stage.run(&self.cold, Work::Log).await;
            let whole = job.clone().map(|job| job.whole);
            say(round, pairs, "100 MB of log", &[&floor, &whole]);
            if round >= WARM_UPS {
                all.push(whole, floor);
                jobs.extend(job.ok());
            }
        }
        self.report.ratio(
            "G6 100 MB of log: event seen → stored and acknowledged; floor: create → raw attach read",
            1.5,
            &all,
        );
        failures("G6", &all, &mut self.report);
        self.around("G6", &jobs);
        if let (Ok(coordinator), Ok(worker)) = self.cold.memory() {
            self.report.note(format!("after G6: coordinator {coordinator:.1} MiB, worker {worker:.1} MiB"));
        }
    }

    async fn workflows(&mut self, choice: &Choice) -> Result<()> {
        let chosen = [(Goal::W1, W1), (Goal::W2, W2), (Goal::W3, W3), (Goal::W4, W4)];
        if !chosen.iter().any(|(goal, _)| choice.has(*goal)) {
            return Ok(());
        }
        let peers = peers::installed().await;
        if peers.is_empty() {
            self.report.note("no peer (act, wrkflw) is on PATH".into());
        }
        let wide = self.stage.pool("wide", 4, 0)?;
        let (stage, warm, floor, bare) = (&self.stage, &self.warm, &mut self.floor, &mut self.bare);
        let mut sides = Sides { stage, cold: &wide, warm, floor, bare, peers: &peers };
        for (goal, workflow) in chosen {
            if choice.has(goal) {
                workflows::measure(workflow, choice.pairs(goal), &mut sides, &mut self.report).await;
            }
        }
        Ok(())
    }

    async fn pages(&mut self, choice: &Choice) -> Result<()> {
        let Self { cold, stage, floor, report, .. } = self;
        if choice.has(Goal::P1) {
            pages::large_log(stage, cold, choice.pairs(Goal::P1), report).await?;
        }
        if choice.has(Goal::P2) {
            pages::live_line(stage, cold, floor, choice.pairs(Goal::P2), report).await?;
        }
        if choice.has(Goal::P3) {
            pages::long_list(stage, choice.pairs(Goal::P3), report).await?;
        }
        Ok(())
    }

    async fn memory(&mut self) {
        progress(&format!("memory, after {} s of rest", IDLE.as_secs()));
        let job = self.stage.run(&self.warm, Work::Echo).await;
        tokio::time::sleep(IDLE).await;
        let (coordinator, worker) = match job {
            Ok(_) => self.warm.memory(),
            Err(cause) => (Err(cause.clone()), Err(cause)),
        };
        self.report.memory("G9 coordinator at rest (PSS)", 40.0, coordinator);
        self.report.memory("G9 worker at rest (PSS)", 20.0, worker);
    }

    /// What a user sees: from sending to the first byte, and to the end being heard.
    fn around(&mut self, goal: &str, jobs: &[Timed]) {
        let middle = |of: fn(&Timed) -> Duration| {
            median(&jobs.iter().map(|job| millis(of(job))).collect::<Vec<_>>()).unwrap_or(f64::NAN)
        };
        let (first, heard) = (middle(|job| job.sent_to_first), middle(|job| job.sent_to_heard));
        let whole = middle(|job| job.whole);
        self.report.note(format!(
            "{goal}: sent → first byte {first:.0} ms; event seen → last report {whole:.0} ms; sent → end heard {heard:.0} ms"
        ));
    }
}

async fn floors(floor: &mut Floor, pairs: usize, report: &mut Report) {
    let (mut cold, mut exec, mut log) = (Pairs::default(), Pairs::default(), Pairs::default());
    for round in 0..WARM_UPS + pairs {
        let times = [said(floor.cold().await), said(floor.exec().await), said(floor.log().await)];
        say(round, pairs, "cold start, exec, log", &times.iter().collect::<Vec<_>>());
        if round >= WARM_UPS {
            for (pairs, time) in [&mut cold, &mut exec, &mut log].into_iter().zip(times) {
                pairs.push(time.clone(), time);
            }
        }
    }
    let names = [
        "create, attach, start → first byte of `echo`",
        "an exec of `true`: create, start, end, inspect",
        "100 MB: create, attach, start → end",
    ];
    for (name, pairs) in names.into_iter().zip([&cold, &exec, &log]) {
        report.floor(name, pairs);
        failures(name, pairs, report);
    }
}

pub(super) fn failures(what: &str, pairs: &Pairs, report: &mut Report) {
    for cause in pairs.failures() {
        report.note(format!("{what} failed once: {}", cause.lines().next().unwrap_or_default()));
    }
}

/// The folder of a stage goes away with it: what a failure may need is moved aside.
fn keep_logs(bench: &mut Bench) {
    let kept = std::env::temp_dir().join(format!("longshore-bench-{}", std::process::id()));
    for running in [&bench.cold, &bench.warm] {
        let into = kept.join(running.folder().file_name().unwrap_or_default());
        let entries = std::fs::read_dir(running.folder()).into_iter().flatten().flatten().map(|entry| entry.path());
        for log in entries.filter(|path| path.extension().is_some_and(|end| end == "log")) {
            let _ = std::fs::create_dir_all(&into);
            let _ = std::fs::copy(&log, into.join(log.file_name().unwrap_or_default()));
        }
    }
    bench.report.note(format!("what the processes said is kept in {}", kept.display()));
}

fn first(job: &Result<Timed, String>) -> Result<Duration, String> {
    job.clone().map(|job| job.first)
}

pub(super) fn said<T>(result: Result<T>) -> Result<T, String> {
    result.map_err(|error| format!("floor: {error:#}"))
}

pub(super) fn say(round: usize, pairs: usize, what: &str, times: &[&Result<Duration, String>]) {
    let times: Vec<String> = times
        .iter()
        .map(|time| time.as_ref().map_or_else(ToString::to_string, |time| format!("{:.1} ms", millis(*time))))
        .collect();
    let number = match round.checked_sub(WARM_UPS) {
        Some(index) => format!("{}/{pairs}", index + 1),
        None => "warm-up".into(),
    };
    progress(&format!("{what}, {number}: {}", times.join(", ")));
}
