//! Runs a second: event pairs in, results out, through the embedded relay, beside what that relay alone passes of the
//! very same events.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nostr::{Event, JsonUtil};
use serde_json::Value;

use super::{
    cluster::{self, Cluster, Setup},
    fleet::{Duty, Fleet},
    pairs::{Pairs, millis},
    progress,
    report::{Bound, Report},
    scale::Scale,
    usage,
};
use crate::harness::{
    client::kind,
    pool::Dev,
    raw_relay,
    world::{Relay, World},
};

/// Runs that are asked for at once.
const RUNS: usize = 400;
/// Events of ours about one run: queued, running, how it ended, and two results.
const ANSWERS: usize = 5;
/// Rounds, each with its floor.
const ROUNDS: usize = 3;
/// Jobs of each side where matrices are compared.
const JOBS: usize = 1000;
/// Legs of a large matrix and of a small one.
const LEGS: [usize; 2] = [250, 10];
/// Simulated workers.
const WORKERS: usize = 100;

/// One round: how long it took, and every event that there was, by run.
struct Round {
    took: Duration,
    groups: Vec<Vec<Event>>,
}

/// With jobs run by the `host` back end, in one process with relay and coordinator.
pub(super) async fn host(scale: Scale, report: &mut Report) -> Result<()> {
    progress("runs, host back end");
    let runs = scale.count(RUNS, 8);
    let folder = tempfile::tempdir()?;
    let arguments = ["--sandbox", "host", "--slots", "8", "--set", "limits.author_per_minute=1000000"];
    let dev = Dev::start(&folder.path().join("dev"), &arguments)?;
    let world = World::new(&dev.relay, &[(&cluster::workflow(1), &cluster::workflow_text(1))]).await?;
    let requests = |count: usize| (0..count).map(|_| pair(&world, dev.pubkey)).collect::<Result<Vec<_>>>();
    round(&dev.relay, requests(8)?).await.context("a first few runs")?;
    let processes = [dev.process.id()];
    let what = "runs, host back end, event pairs in → results out; floor: the relay alone with the same events";
    let measured = rounds(&dev.relay, &processes, runs, requests).await;
    conclude(what, (0.08, 12.0), runs, measured, report);
    Ok(())
}

/// With simulated workers: relay and coordinator are processes, the workers cost nothing of it.
pub(super) async fn simulated(scale: Scale, report: &mut Report) -> Result<()> {
    progress("runs, simulated workers");
    let runs = scale.count(RUNS, 8);
    let cluster = Cluster::start(Setup::new(WORKERS, &[1])).await?;
    let fleet = cluster.fleet(0..WORKERS).await?;
    fleet.set(Duty::Work(Duration::ZERO));
    round(cluster.relay(), cluster.requests(1, 8)?).await.context("a first few runs")?;
    let processes = [cluster.coordinator()?, cluster.relay_process()];
    let what = "runs, simulated workers, event pairs in → results out; floor: the relay alone with the same events";
    let measured = rounds(cluster.relay(), &processes, runs, |count| cluster.requests(1, count)).await;
    conclude(what, (0.15, 6.0), runs, measured, report);
    fleet.disconnect().await;
    Ok(())
}

/// A thousand requests at once through a relay that grants a connection few subscriptions, beside one that grants all.
pub(super) async fn subscriptions(scale: Scale, report: &mut Report) -> Result<()> {
    let runs = scale.count(1000, 50);
    progress(&format!("{runs} requests at once, through a relay with 20 subscriptions"));
    let mut times = Vec::new();
    for subscriptions in [None, Some(20)] {
        let cluster = Cluster::start(Setup { subscriptions, ..Setup::new(WORKERS, &[1]) }).await?;
        let fleet = cluster.fleet(0..WORKERS).await?;
        fleet.set(Duty::Work(Duration::ZERO));
        round(cluster.relay(), cluster.requests(1, 8)?).await.context("a first few runs")?;
        times.push(round(cluster.relay(), cluster.requests(1, runs)?).await.map_err(|error| format!("{error:#}")));
        fleet.disconnect().await;
    }
    let mut pairs = Pairs::default();
    let mut took = times.into_iter().map(|round| round.map(|round| round.took));
    if let (Some(unlimited), Some(limited)) = (took.next(), took.next()) {
        pairs.push(limited, unlimited);
    }
    let what = format!("{runs} requests at once, 20 subscriptions a connection; floor: the same without that limit");
    report.ratio(&what, 1.25, &pairs);
    super::goals::failures("1000 requests", &pairs, report);
    Ok(())
}

/// What a job costs in a large matrix, beside one in a small matrix.
pub(super) async fn matrices(scale: Scale, report: &mut Report) -> Result<()> {
    progress("jobs of large and of small matrices");
    let cluster = Cluster::start(Setup::new(WORKERS, &LEGS)).await?;
    let fleet = cluster.fleet(0..WORKERS).await?;
    let jobs = scale.count(JOBS, LEGS[0]);
    matrix(&cluster, &fleet, LEGS[1], 2).await?;
    let large = matrix(&cluster, &fleet, LEGS[0], jobs / LEGS[0]).await;
    let small = matrix(&cluster, &fleet, LEGS[1], jobs / LEGS[1]).await;
    let mut pairs = Pairs::default();
    pairs.push(large.map_err(|error| format!("{error:#}")), small.map_err(|error| format!("{error:#}")));
    report.ratio("CPU of a job in a matrix of 250; floor: of one in a matrix of 10", 1.2, &pairs);
    fleet.disconnect().await;
    Ok(())
}

/// Processor time of the coordinator for one job.
async fn matrix(cluster: &Cluster, fleet: &Fleet, legs: usize, runs: usize) -> Result<Duration> {
    let coordinator = cluster.coordinator()?;
    fleet.set(Duty::Work(Duration::ZERO));
    let before = usage::processor(coordinator)?;
    ended(cluster.relay(), cluster.requests(legs, runs)?).await?;
    let jobs = u32::try_from(legs * runs)?;
    Ok((usage::processor(coordinator)? - before) / jobs)
}

fn pair(world: &World, pool: nostr::PublicKey) -> Result<Vec<Event>> {
    let (run, job) = world.press(pool, &cluster::workflow(1)).events()?;
    Ok(vec![run, job])
}

struct Measured {
    pairs: Pairs,
    /// Processor time of each run.
    each: Vec<Duration>,
}

async fn rounds(
    relay: &str,
    processes: &[u32],
    runs: usize,
    requests: impl Fn(usize) -> Result<Vec<Vec<Event>>>,
) -> Result<Measured> {
    let mut measured = Measured { pairs: Pairs::default(), each: Vec::new() };
    for number in 1..=ROUNDS {
        let before = usage::processors(processes)?;
        let Round { took, groups } = round(relay, requests(runs)?).await?;
        let each = (usage::processors(processes)? - before) / u32::try_from(runs)?;
        let folder = tempfile::tempdir()?;
        let alone = Relay::start(folder.path())?;
        let floor = raw_relay::pass(&alone.url, &groups).await?;
        progress(&format!("runs, {number}/{ROUNDS}: {:.0} ms, the relay alone {:.0} ms", millis(took), millis(floor)));
        measured.pairs.push(Ok(took), Ok(floor));
        measured.each.push(each);
    }
    Ok(measured)
}

fn conclude(what: &str, goals: (f64, f64), runs: usize, measured: Result<Measured>, report: &mut Report) {
    let (speed, processor) = goals;
    let (pairs, each) = match measured {
        Ok(Measured { pairs, each }) => {
            let each: Vec<f64> = each.into_iter().map(millis).collect();
            (pairs, super::pairs::median(&each).ok_or_else(|| "nothing was measured".to_owned()))
        }
        Err(error) => {
            let mut pairs = Pairs::default();
            pairs.push(Err(format!("{error:#}")), Ok(Duration::ZERO));
            (pairs, Err(format!("{error:#}")))
        }
    };
    report.speed(what, (runs, "runs"), speed, &pairs);
    super::goals::failures("runs", &pairs, report);
    let name = what.split(", event pairs").next().unwrap_or(what);
    report.number(&format!("{name}: CPU a run, all processes"), "ms", Bound::AtMost(processor), each, None);
}

/// Asks for runs at once, and waits until one subscriber has every answer.
async fn round(relay: &str, requests: Vec<Vec<Event>>) -> Result<Round> {
    let from = Instant::now();
    let answers = ended(relay, requests.clone()).await?;
    let took = from.elapsed();
    let mut groups = requests;
    let owners: HashMap<String, usize> = groups
        .iter()
        .enumerate()
        .flat_map(|(group, events)| events.iter().map(move |event| (event.id.to_hex(), group)))
        .collect();
    let mut all: Vec<Event> =
        answers.values().map(|event| Event::from_json(event.to_string())).collect::<Result<_, _>>()?;
    all.sort_by_key(|event| (event.created_at, event.kind == nostr::Kind::from(kind::STATUS)));
    for event in all {
        let names: Vec<&str> = event.tags.iter().filter_map(|tag| tag.content()).collect();
        if let Some(group) = names.iter().find_map(|name| owners.get(*name)) {
            groups[*group].push(event);
        }
    }
    ensure!(groups.iter().all(|group| group.len() == 2 + ANSWERS), "a run has other than {ANSWERS} answers");
    Ok(Round { took, groups })
}

/// Publishes requests and collects all answers; each run must succeed.
async fn ended(relay: &str, requests: Vec<Vec<Event>>) -> Result<HashMap<String, Value>> {
    let kinds = [kind::STATUS, kind::RESULT, kind::WORKFLOW_RESULT];
    let mut subscriber = raw_relay::Subscriber::connect(relay, &kinds).await?;
    let wanted = kinds.iter().map(|kind| (u64::from(*kind), requests.len())).collect();
    // Of the statuses only the last one of a run counts here.
    let class = |event: &Value| {
        let class = event["kind"].as_u64();
        let status = value(event, "status");
        class.filter(|class| *class != u64::from(kind::STATUS) || !matches!(status, Some("queued" | "running")))
    };
    let (sent, answers) = tokio::join!(raw_relay::publish_groups(relay, &requests), subscriber.collect(wanted, class));
    sent?;
    let answers = answers?;
    let failed = answers
        .values()
        .find(|event| event["kind"].as_u64() == Some(kind::RESULT.into()) && value(event, "success") != Some("true"));
    ensure!(failed.is_none(), "a run failed: {failed:?}");
    Ok(answers)
}

/// The value of a tag.
fn value<'a>(event: &'a Value, name: &str) -> Option<&'a str> {
    event["tags"].as_array()?.iter().find(|tag| tag[0] == name)?[1].as_str()
}
