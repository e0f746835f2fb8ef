//! G12 and starts: how soon a coordinator that was killed hands out jobs again, beside opening and reading its tables; and
//! how soon one with a long history is ready.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use rusqlite::Connection;

use super::{
    cluster::{Cluster, Setup},
    fleet::Duty,
    pages, progress,
    report::{Bound, Report},
    scale::Scale,
};
use crate::harness::raw_relay;

/// Jobs that run when the coordinator is killed.
const RUNNING: usize = 1000;
/// Jobs that wait meanwhile.
const WAITING: usize = 100;
/// Legs of each run.
const LEGS: usize = 20;
/// Kills.
const KILLS: usize = 5;
/// Runs in a long history, and runs that did not end.
const HISTORY: [usize; 2] = [100_000, 1000];

/// Kills a coordinator with many running jobs, again and again.
pub(super) async fn killed(scale: Scale, report: &mut Report) -> Result<()> {
    let running = scale.count(RUNNING, LEGS) / LEGS * LEGS;
    let waiting = scale.count(WAITING, LEGS).div_ceil(LEGS) * LEGS;
    progress(&format!("G12: killed with {running} running jobs"));
    let kills = scale.count(KILLS, 1);
    let mut cluster = Cluster::start(Setup::new(running + kills, &[LEGS])).await?;
    cluster.queue(LEGS, (running + waiting) / LEGS).await?;
    let fleet = cluster.fleet(0..running).await?;
    fleet.set(Duty::Hold);
    fleet.until_assigned(running, Duration::from_secs(300)).await?;
    let (mut again, mut floors) = (Vec::new(), Vec::new());
    for kill in 0..kills {
        cluster.kill_coordinator()?;
        // What the killed process left is read before another one touches it, from a copy.
        let copy = cluster.folder().join(format!("copy-{kill}"));
        copy_database(&cluster.database(), &copy)?;
        floors.push(read_all(&copy.join("longshore.db"))?);
        // A worker that has nothing yet shows when jobs are handed out again.
        let from = Instant::now();
        let fresh = cluster.fleet_from(running + kill..running + kill + 1, Duty::Hold)?;
        cluster.start_coordinator().await?;
        fresh.until_assigned(1, Duration::from_secs(120)).await?;
        again.push(from.elapsed());
        fleet.until_welcomed((kill + 2) * running, Duration::from_secs(120)).await?;
        fresh.set(Duty::Idle);
        fresh.settle(Duration::from_secs(60)).await?;
        fresh.disconnect().await;
    }
    fleet.set(Duty::Idle);
    fleet.settle(Duration::from_secs(120)).await?;
    let records = fleet.take_records();
    let worst = again.iter().zip(&floors).map(|(again, floor)| again.as_secs_f64() - floor.as_secs_f64());
    let worst = worst.fold(f64::MIN, f64::max) * 1000.0;
    let floor = floors.iter().max().map(|floor| floor.as_secs_f64() * 1000.0);
    let what = format!("G12 killed with {running} running: dispatching again, beyond opening and reading the tables");
    report.number(&what, "ms", Bound::AtMost(1000.0), Ok(worst), floor);
    let lost =
        running.abs_diff(records.accepted.len()) + records.accepted.values().filter(|times| **times != 1).count();
    let lost = f64::from(u32::try_from(lost)?);
    report.number("G12 running jobs lost or ended twice", "jobs", Bound::AtMost(0.0), Ok(lost), None);
    fleet.disconnect().await;
    Ok(())
}

/// Starts a coordinator with many ended and some unfinished runs.
pub(super) async fn history(scale: Scale, report: &mut Report) -> Result<()> {
    let [ended, unfinished] = HISTORY.map(|runs| scale.count(runs, 20));
    progress(&format!("a start with {ended} ended and {unfinished} unfinished runs"));
    let mut cluster = Cluster::start(Setup::new(1, &[1])).await?;
    let fleet = cluster.fleet(0..1).await?;
    fleet.set(Duty::Work(Duration::ZERO));
    raw_relay::publish_groups(cluster.relay(), &cluster.requests(1, 1)?).await?;
    fleet.until_accepted(1, Duration::from_secs(60)).await?;
    cluster.until_idle(Duration::from_secs(60)).await?;
    fleet.disconnect().await;
    cluster.end_coordinator();
    pages::fill(&cluster.database(), ended)?;
    cluster.start_coordinator().await?;
    cluster.queue(1, unfinished).await?;
    cluster.end_coordinator();
    let floor = read_all(&cluster.database())?.as_secs_f64() * 1000.0;
    let took = cluster.start_coordinator().await?.as_secs_f64() * 1000.0;
    let what = format!("start with {ended} ended and {unfinished} unfinished runs; floor: reading all tables");
    report.number(&what, "ms", Bound::AtMost(2000.0), Ok(took), Some(floor));
    Ok(())
}

/// The database with its log of changes, as a crash left them.
fn copy_database(database: &Path, into: &Path) -> Result<()> {
    std::fs::create_dir_all(into)?;
    let folder = database.parent().context("a database is in a folder")?;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("longshore.db") {
            std::fs::copy(entry.path(), into.join(name))?;
        }
    }
    Ok(())
}

/// How long opening a database and reading every row of every table takes.
fn read_all(database: &Path) -> Result<Duration> {
    let from = Instant::now();
    let store = Connection::open(database)?;
    let mut tables =
        store.prepare("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")?;
    let tables = tables.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let mut count = 0;
    for table in tables {
        let mut statement = store.prepare(&format!("SELECT * FROM \"{table}\""))?;
        let columns = statement.column_count();
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            for column in 0..columns {
                row.get_ref(column)?;
            }
            count += 1;
        }
    }
    ensure!(count > 0, "the database is empty");
    Ok(from.elapsed())
}
