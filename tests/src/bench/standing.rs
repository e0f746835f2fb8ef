//! What a coordinator takes while nothing happens, and after much has happened: G9 (memory) and G11 (processor).

use std::time::Duration;

use anyhow::Result;

use super::{
    cluster::{Cluster, Setup},
    fleet::{Duty, Fleet},
    progress,
    report::{Bound, Report},
    scale::Scale,
    usage,
};
use crate::harness::raw_relay;

const WORKERS: usize = 1000;
/// Connected workers at which memory is read.
const STEPS: [usize; 2] = [100, 1000];
/// Ended runs after which memory is read.
const ENDED: [usize; 2] = [10_000, 100_000];
/// Requests that are sent at once meanwhile.
const PORTION: usize = 500;
/// Until what was just needed is given back.
const REST: Duration = Duration::from_secs(10);
/// How long the idle processor time is watched.
const WATCHED: Duration = Duration::from_secs(60);

/// Memory of idle connections, and processor time with all of them.
pub(super) async fn connections(scale: Scale, report: &mut Report) -> Result<()> {
    let workers = scale.count(WORKERS, 20);
    progress(&format!("G9 and G11: {workers} idle workers"));
    let cluster = Cluster::start(Setup::new(workers, &[1])).await?;
    let process = cluster.coordinator()?;
    let mut fleets = vec![cluster.fleet(0..1).await?];
    tokio::time::sleep(scale.time(REST)).await;
    let alone = usage::resident_kib(process)?;
    for step in STEPS {
        let (from, to) = (connected(&fleets), scale.count(step, 4).min(workers));
        fleets.push(cluster.fleet(from..to).await?);
        tokio::time::sleep(scale.time(REST)).await;
        let each = (usage::resident_kib(process)? - alone) / f64::from(u32::try_from(to - 1)?);
        let bound = if step == WORKERS { Bound::AtMost(100.0) } else { Bound::Information };
        report.number(&format!("G9 an idle worker connection, at {to}"), "KiB", bound, Ok(each), None);
    }
    report.note(format!("G9: resident with one worker {:.1} MiB", alone / 1024.0));
    let (before, time) = (usage::processor(process)?, scale.time(WATCHED));
    tokio::time::sleep(time).await;
    let share = (usage::processor(process)? - before).as_secs_f64() / time.as_secs_f64() * 100.0;
    let what = format!("G11 coordinator, idle with {workers} workers");
    report.number(&what, "% of a core", Bound::AtMost(1.0), Ok(share), None);
    for fleet in fleets {
        fleet.disconnect().await;
    }
    Ok(())
}

/// Memory after many ended runs, beside that after a tenth of them.
pub(super) async fn ended_runs(scale: Scale, report: &mut Report) -> Result<()> {
    let cluster = Cluster::start(Setup::new(100, &[1])).await?;
    let fleet = cluster.fleet(0..100).await?;
    fleet.set(Duty::Work(Duration::ZERO));
    let process = cluster.coordinator()?;
    let mut memory = Vec::new();
    for ended in ENDED.map(|ended| scale.count(ended, 20)) {
        while fleet.accepted() < ended {
            let runs = PORTION.min(ended - fleet.accepted());
            // Read before: the first results are accepted while the last requests are published.
            let all = fleet.accepted() + runs;
            progress(&format!("G9: {} of {ended} runs ended", fleet.accepted()));
            raw_relay::publish_groups(cluster.relay(), &cluster.requests(1, runs)?).await?;
            fleet.until_accepted(all, Duration::from_secs(600)).await?;
        }
        cluster.until_idle(Duration::from_secs(120)).await?;
        tokio::time::sleep(scale.time(REST)).await;
        memory.push(usage::resident_kib(process)? / 1024.0);
    }
    let [few, many] = memory[..] else { anyhow::bail!("two measurements") };
    let [fewer, more] = ENDED.map(|ended| scale.count(ended, 20));
    let what = format!("G9 resident after {more} ended runs; floor: after {fewer}");
    report.number(&what, "MiB", Bound::AtMost(few * 1.1), Ok(many), Some(few));
    fleet.disconnect().await;
    Ok(())
}

fn connected(fleets: &[Fleet]) -> usize {
    fleets.iter().map(Fleet::welcomed).sum()
}
