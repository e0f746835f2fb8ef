//! G2: from a job event to its assignment at the worker, repository and commit known, beside a bare event from a publisher
//! to a subscriber through the same relay.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nostr::{Event, JsonUtil, Keys};
use serde_json::Value;

use super::{
    cluster::{Cluster, Setup},
    fleet::{Duty, Fleet},
    goals::{WARM_UPS, failures, said, say},
    pairs::{Pairs, millis},
    progress,
    report::{Bound, Report},
    scale::Scale,
};
use crate::harness::{
    client::sign,
    raw_relay::{Publisher, Subscriber},
};

/// Jobs, one at a time.
const JOBS: usize = 1000;
/// Longest wait for one.
const LIMIT: Duration = Duration::from_secs(30);
/// Of the bare event: a kind that nobody else here hears.
const KIND: u16 = 5999;

/// Measures it in turns.
pub(super) async fn measure(scale: Scale, report: &mut Report) -> Result<()> {
    let jobs = scale.count(JOBS, 10);
    progress(&format!("G2: {jobs} jobs, one at a time"));
    let cluster = Cluster::start(Setup::new(1, &[1])).await?;
    let fleet = cluster.fleet(0..1).await?;
    fleet.set(Duty::Work(Duration::ZERO));
    let mut publisher = Publisher::connect(cluster.relay()).await?;
    let mut subscriber = Subscriber::connect(cluster.relay(), &[KIND]).await?;
    let keys = Keys::generate();
    let mut pairs = Pairs::default();
    let mut ours = Vec::new();
    for round in 0..WARM_UPS + jobs {
        let request = cluster.requests(1, 1)?.pop().context("one request")?;
        let bare = bare(&keys, request.last().context("a request has two events")?)?;
        let floor = said(passed(&mut publisher, &mut subscriber, &bare).await);
        let assigned = assigned(&fleet, &mut publisher, &request).await.map_err(|error| format!("{error:#}"));
        if round < WARM_UPS || round % 100 == 0 {
            say(round, jobs, "assignment", &[&floor, &assigned]);
        }
        if round >= WARM_UPS {
            ours.extend(assigned.clone());
            pairs.push(assigned, floor);
        }
    }
    report.ratio("G2 job event → assignment at the worker; floor: event → subscriber, verified", 8.0, &pairs);
    failures("G2", &pairs, report);
    ours.sort();
    let p99 = ours.get((ours.len() * 99).div_ceil(100).saturating_sub(1)).copied();
    let p99 = p99.map(millis).ok_or_else(|| "no job was assigned".to_owned());
    report.number("G2 job event → assignment, p99", "ms", Bound::AtMost(10.0), p99, None);
    fleet.disconnect().await;
    Ok(())
}

/// An event of the same size.
fn bare(keys: &Keys, like: &Event) -> Result<Event> {
    sign(keys, KIND, like.tags.iter().map(|tag| tag.as_slice().to_vec()).collect())
}

/// From the event sent until a subscriber has verified it, as every client has to.
async fn passed(publisher: &mut Publisher, subscriber: &mut Subscriber, event: &Event) -> Result<Duration> {
    let from = Instant::now();
    let heard = async {
        let heard: Value = subscriber.next().await?;
        let heard = Event::from_json(heard.to_string())?;
        heard.verify()?;
        anyhow::Ok((heard.id, from.elapsed()))
    };
    let (sent, heard) = tokio::join!(publisher.publish(event), heard);
    sent?;
    let (id, took) = heard?;
    ensure!(id == event.id, "another event came");
    Ok(took)
}

/// From the job event sent until a worker has the job, and the end of that job besides: one at a time.
async fn assigned(fleet: &Fleet, publisher: &mut Publisher, request: &[Event]) -> Result<Duration> {
    let [run, job] = request else { anyhow::bail!("a request has two events") };
    publisher.publish(run).await?;
    // The coordinator has it too, so that the clock starts with the second half alone.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let (before, done) = (fleet.assigned(), fleet.accepted());
    let from = Instant::now();
    let (sent, assigned) = tokio::join!(publisher.publish(job), fleet.until_assigned(before + 1, LIMIT));
    sent?;
    assigned?;
    let at = fleet.take_records().assignments.last().map(|(_, at)| *at).context("an assignment is recorded")?;
    fleet.until_accepted(done + 1, LIMIT).await?;
    Ok(at - from)
}
