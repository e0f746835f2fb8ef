//! G8: jobs a second that a coordinator assigns to a thousand simulated workers and takes the results of, durably.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nostr::Event;

use super::{
    celery,
    cluster::{Cluster, Database, Setup},
    fleet::{Duty, Fleet, Records},
    pairs::millis,
    progress,
    report::{Bound, Report},
    scale::Scale,
};

const WORKERS: usize = 1000;
/// Jobs of one run.
const LEGS: usize = 20;
/// The clock of the first part, and of the part at half its rate.
const TIME: [Duration; 2] = [Duration::from_secs(60), Duration::from_secs(20)];
/// Jobs a second that are there to be done in the first part, and half as many in the second; a coordinator that does more
/// is measured until they are done.
const PROVIDED: usize = 3500;
/// The same on PostgreSQL.
const PROVIDED_POSTGRES: usize = 1500;

/// What one stretch of work gave.
struct Stretch {
    jobs: usize,
    took: Duration,
    records: Records,
}

impl Stretch {
    #[allow(clippy::cast_precision_loss, reason = "small")]
    fn rate(&self) -> f64 {
        self.jobs as f64 / self.took.as_secs_f64()
    }
}

/// Measures it, and the same number of tasks through Celery with Redis where both are on PATH.
pub(super) async fn measure(scale: Scale, report: &mut Report) -> Result<()> {
    let workers = scale.count(WORKERS, 20);
    let time = TIME.map(|time| scale.time(time));
    let rate = scale.count(PROVIDED, 200);
    let (full, half) = (provided(rate, time[0]), provided(rate / 2, time[1]));
    let runs = full + half;
    progress(&format!("G8: {workers} workers, {runs} runs of {LEGS} jobs, {} s", time[0].as_secs()));
    let setup = Setup::new(workers, &[LEGS]);
    let mut cluster = Cluster::start(setup).await?;
    let requests = cluster.queue(LEGS, runs).await.context("the jobs could not be queued")?;
    // From here on events of ours are written and stay.
    cluster.end_relay()?;
    let fleet = cluster.fleet(0..workers).await?;

    let full = stretch(&fleet, Duty::Work(Duration::ZERO), time[0], full * LEGS).await?;
    let what = "G8 jobs assigned, accepted and completed";
    report.number(what, "jobs/s", Bound::AtLeast(2000.0), Ok(full.rate()), None);
    if let Some(theirs) = celery::rate(cluster.folder(), scale.count(2000, 100)).await {
        match theirs {
            Ok(theirs) => {
                let times = full.rate() / theirs;
                report.number("G8 beside Celery with Redis, acks late", "×", Bound::AtLeast(5.0), Ok(times), None);
                report.note(format!("G8: Celery with Redis: {theirs:.0} tasks/s"));
            }
            Err(error) => report.note(format!("G8: Celery could not be measured: {error:#}")),
        }
    } else {
        report.note("G8: celery and redis-server are not both on PATH".into());
    }

    let pause = Duration::from_secs_f64(f64::from(u32::try_from(workers)?) / (full.rate() / 2.0));
    let half = stretch(&fleet, Duty::Work(pause), time[1], half * LEGS).await?;
    let mut hand_outs = half.records.hand_outs.clone();
    hand_outs.sort();
    let p99 = hand_outs.get((hand_outs.len() * 99).div_ceil(100).saturating_sub(1)).copied();
    let p99 = p99.map(millis).ok_or_else(|| "no job was handed out".to_owned());
    report.number("G8 hand-out, p99 at half the rate", "ms", Bound::AtMost(50.0), p99, None);
    report.note(format!("G8: half the rate was {:.0} jobs/s; queue of {} jobs", half.rate(), runs * LEGS));

    let wrong = reconcile(&cluster, &requests, [&full.records, &half.records]).await;
    let wrong = wrong.map_err(|error| format!("{error:#}"));
    report.number("G8 jobs lost or done twice", "jobs", Bound::AtMost(0.0), wrong, None);
    fleet.disconnect().await;
    drop(cluster);

    let setup = Setup { database: Database::Postgres, ..setup };
    let runs = provided(scale.count(PROVIDED_POSTGRES, 100), time[0]);
    match Box::pin(on_postgres(setup, runs, time[0])).await {
        Ok(rate) => report.number("G8 the same on PostgreSQL", "jobs/s", Bound::Information, Ok(rate), None),
        Err(error) => report.note(format!("G8: PostgreSQL could not be measured: {error:#}")),
    }
    Ok(())
}

/// Runs that are enough for this many jobs a second.
fn provided(rate: usize, time: Duration) -> usize {
    rate * usize::try_from(time.as_secs()).unwrap_or_default() / LEGS
}

async fn on_postgres(setup: Setup, runs: usize, time: Duration) -> Result<f64> {
    let mut cluster = Cluster::start(setup).await?;
    cluster.queue(LEGS, runs).await?;
    cluster.end_relay()?;
    let fleet = cluster.fleet(0..setup.workers).await?;
    let rate = stretch(&fleet, Duty::Work(Duration::ZERO), time, runs * LEGS).await?.rate();
    fleet.disconnect().await;
    Ok(rate)
}

/// Works for a time, or until `most` jobs are done; ends what is under way.
async fn stretch(fleet: &Fleet, duty: Duty, time: Duration, most: usize) -> Result<Stretch> {
    let before = fleet.accepted();
    let from = Instant::now();
    fleet.set(duty);
    while from.elapsed() < time && fleet.accepted() - before < most {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let jobs = fleet.accepted() - before;
    let took = from.elapsed();
    fleet.set(Duty::Idle);
    fleet.settle(Duration::from_secs(60)).await?;
    Ok(Stretch { jobs, took, records: fleet.take_records() })
}

/// Jobs that the coordinator and the workers do not agree on, or that were done more than once.
async fn reconcile(cluster: &Cluster, requests: &[Vec<Event>], records: [&Records; 2]) -> Result<f64> {
    let mut reported: HashMap<(String, String), usize> = HashMap::new();
    for ((run, job, _), times) in records.iter().flat_map(|records| &records.accepted) {
        *reported.entry((run.clone(), job.clone())).or_default() += times;
    }
    let twice = reported.values().filter(|times| **times != 1).count();
    let mut done: HashSet<(String, String)> = HashSet::new();
    let mut again = 0;
    for request in requests {
        let job_event = request.last().context("a request has two events")?.id.to_hex();
        let run = cluster.api(&format!("api/runs/{job_event}")).await?;
        let id = run["id"].as_str().context("a run has an id")?;
        for job in run["jobs"].as_array().context("a run has jobs")? {
            if job["conclusion"].is_null() {
                continue;
            }
            let attempts = job["attempts"].as_array().map_or(0, Vec::len);
            again += usize::from(attempts > 1);
            done.insert((id.to_owned(), job["key"].as_str().context("a job has a key")?.to_owned()));
        }
    }
    ensure!(!done.is_empty(), "the coordinator shows no job as done");
    let reported: HashSet<(String, String)> = reported.into_keys().collect();
    let lost = reported.symmetric_difference(&done).count();
    progress(&format!("G8: {} jobs reconciled: {lost} differ, {twice} twice, {again} tried again", done.len()));
    Ok(f64::from(u32::try_from(lost + twice)?))
}
