//! 50,000 events of 1,000 keys in a minute, through a relay that the pool reads: 2,500 pairs of authors that the policy
//! knows, as many whole pairs of strangers, and the rest what only costs: jobs without a run, jobs that are refused and name
//! relays, cancels of many jobs. Another known author sends a job each second.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nostr::{Event, Keys, PublicKey};
use tokio_util::sync::CancellationToken;

use super::{
    Row,
    watch::{AnswerWatch, ProcessWatch},
};
use crate::{
    bench::{
        fleet::{Duty, Fleet, identities},
        scale::Scale,
        usage,
    },
    harness::{
        client::{Press, kind, sign},
        pool::Pool,
        raw_relay::Publisher,
        world::{Relay, World},
    },
};

const MINUTE: Duration = Duration::from_secs(60);
const KNOWN: usize = 100;
const STRANGERS: usize = 900;
/// Pairs of each of the two.
const PAIRS: usize = 2_500;
const EVENTS: usize = 50_000;
/// Simulated workers, and how long each of their jobs takes.
const WORKERS: usize = 32;
const JOB: Duration = Duration::from_millis(100);
/// Connections to the relay that flood.
const CONNECTIONS: usize = 4;
/// The flood is sent in so many portions a second.
const PORTIONS: u32 = 10;
const PATH: &str = ".github/workflows/one.yml";
const WORKFLOW: &str =
    "name: one\non: push\njobs:\n  work:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo hi\n";

const FLOOD: &str = "50,000 events of 1,000 keys";
/// MiB of the coordinator at most.
const MEMORY: f64 = 256.0;
/// Seconds until a probe is assigned.
const ASSIGNED: f64 = 5.0;
/// Seconds after the flood until every pair of a known author has its result.
const ENDED: f64 = 60.0;

/// Runs it, or a part of it.
///
/// # Errors
/// The pool can't be started, or the relay does not take the events.
pub async fn run(scale: Scale, mut say: impl FnMut(&str)) -> Result<Vec<Row>> {
    let (time, pairs, events) = (scale.time(MINUTE), scale.count(PAIRS, 10), scale.count(EVENTS, 200));
    say(&format!("{events} events in {time:?}, {pairs} pairs of known authors among them"));
    let folder = tempfile::tempdir()?;
    let relay = Relay::start(folder.path())?;
    let world = World::new(&relay.url, &[(PATH, WORKFLOW)]).await?;
    let known: Vec<Keys> = (0..KNOWN).map(|_| Keys::generate()).collect();
    let prober = Keys::generate();
    let keys: Vec<String> = known.iter().chain([&prober]).map(|keys| keys.public_key().to_hex()).collect();
    // With a named owner a stranger may turn out to be a maintainer, and his run has to be looked for: the dearer case.
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url))?
        .with("LONGSHORE_POLICY_EVERYONE", "false")
        .with("LONGSHORE_POLICY_PUBKEYS", &keys.join(","))
        .with("LONGSHORE_POLICY_OWNERS", &world.owner.public_key().to_hex())
        .with("LONGSHORE_LIMITS_AUTHOR_PER_MINUTE", "1000")
        .with("LONGSHORE_WORKERS", &identities(WORKERS)?.join(","));
    let coordinator = pool.coordinator()?;
    let fleet = Fleet::connect(&pool.grpc_url(), &pool.folder.join("ca.pem"), 0..WORKERS, 1).await?;
    fleet.set(Duty::Work(JOB));

    let press = |author: &Keys| Press { author: author.clone(), ..world.press(pool.pubkey, PATH) };
    let pair = |author: &Keys| -> Result<Vec<Event>> {
        let (run, job) = press(author).events()?;
        Ok(vec![run, job])
    };
    let pairs_of =
        |authors: &[Keys]| -> Result<Vec<Vec<Event>>> { authors.iter().cycle().take(pairs).map(pair).collect() };
    let strangers: Vec<Keys> = (0..STRANGERS).map(|_| Keys::generate()).collect();
    let wanted = pairs_of(&known)?;
    let jobs: Vec<String> = wanted.iter().filter_map(|pair| Some(pair.last()?.id.to_hex())).collect();
    let mut groups = wanted;
    groups.extend(pairs_of(&strangers)?);
    let in_pairs = 2 * groups.len();
    for (number, stranger) in strangers.iter().cycle().take(events.saturating_sub(in_pairs)).enumerate() {
        groups.push(vec![costly(number, stranger, &pool.pubkey, &relay.url)?]);
    }
    // Each second has its part of everything.
    let portions = (time.as_secs_f64() * f64::from(PORTIONS)).round() as usize;
    let mut portions: Vec<Vec<Event>> = vec![Vec::new(); portions.max(1)];
    let count = portions.len();
    for (number, group) in groups.into_iter().enumerate() {
        if let Some(portion) = portions.get_mut(number % count) {
            portion.extend(group);
        }
    }

    let answers = AnswerWatch::start(&relay.url).await?;
    let watch = ProcessWatch::start(coordinator.id());
    say("  all is signed, it begins");
    let begun = Instant::now();
    let sent = CancellationToken::new();
    let flooded = async {
        let took = flood(&relay.url, portions).await;
        sent.cancel();
        took
    };
    let (took, probed) = tokio::try_join!(flooded, probe(&relay.url, &sent, || pair(&prober)))?;
    let over = Instant::now();
    let ids: Vec<String> = probed.iter().map(|(id, _)| id.clone()).collect();
    let missing = answers.until_ended(&jobs, Duration::from_secs_f64(ENDED * 3.0)).await;
    answers.until_ended(&ids, Duration::from_secs_f64(ENDED)).await;

    let seconds = |from: Instant, to: Instant| to.saturating_duration_since(from).as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "some hundred MiB")]
    let memory = watch.peak().mib as f64;
    let slowest = answers.look(|answers| {
        probed.iter().try_fold(0.0_f64, |slowest, (id, at)| {
            let running = answers.running.get(id).ok_or("one was never assigned")?;
            Ok(slowest.max(seconds(*at, *running)))
        })
    });
    let last = answers.look(|answers| match missing {
        0 => Ok(jobs.iter().filter_map(|job| answers.ended.get(job)).map(|at| seconds(over, *at)).fold(0.0, f64::max)),
        _ => Err(format!("{missing} of {} have none", jobs.len())),
    });
    let refused = answers.look(|answers| answers.refused);
    say(&format!(
        "  sent in {:.0} s, with {} probes; the coordinator took {:.0} s of processor time; {refused} strangers were told why in {:.1} \
         minutes",
        took.as_secs_f64(),
        probed.len(),
        usage::processor(coordinator.id())?.as_secs_f64(),
        seconds(begun, Instant::now()) / 60.0,
    ));
    say(&format!("  {}", counted(&pool.http).await?));
    fleet.disconnect().await;
    Ok(vec![
        Row::at_most(FLOOD, "memory of the coordinator", "MiB", MEMORY, Ok(memory)),
        Row::at_most(FLOOD, "slowest probe until it is assigned", "s", ASSIGNED, slowest),
        Row::at_most(FLOOD, "last known result after the end", "s", ENDED, last),
    ])
}

/// What only costs: a job without a run, one that is refused and names relays, a cancel of many.
fn costly(number: usize, author: &Keys, pool: &PublicKey, relay: &str) -> Result<Event> {
    let id = |salt: usize| format!("{:064x}", number * 1000 + salt);
    let tag = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect::<Vec<String>>();
    let mut tags = vec![tag(&["p", &pool.to_hex()])];
    let kind = match number % 3 {
        0 => {
            tags.extend([tag(&["e", &id(0), relay]), tag(&["cmd", "bash"]), tag(&["args", "-c", "act -W x.yml"])]);
            kind::JOB
        }
        1 => {
            let named: Vec<String> = (0..12).map(|n| format!("wss://r{number}-{n}.example.org")).collect();
            tags.extend([tag(&["e", &id(0)]), tag(&["e", &id(1)]), tag(&["cmd", "bash"]), tag(&["args", "-c", "x"])]);
            tags.push(tag(&["env", "HIVE_CI_RELAYS", &named.join(",")]));
            kind::JOB
        }
        _ => {
            tags.extend((0..50).map(|salt| tag(&["e", &id(salt)])));
            kind::CANCEL
        }
    };
    sign(author, kind, tags)
}

/// Sends the portions, each at its time. Returns how long it took.
async fn flood(relay: &str, portions: Vec<Vec<Event>>) -> Result<Duration> {
    let mut publishers = Vec::new();
    for _ in 0..CONNECTIONS {
        publishers.push(Publisher::connect(relay).await?);
    }
    let begun = Instant::now();
    let mut tick = tokio::time::interval(Duration::from_secs(1) / PORTIONS);
    for portion in portions {
        tick.tick().await;
        // A pair stays on one connection: its two events are neighbours.
        let part = portion.len().div_ceil(CONNECTIONS).next_multiple_of(2).max(2);
        let sent =
            publishers.iter_mut().zip(portion.chunks(part)).map(|(publisher, events)| publisher.publish_all(events));
        futures::future::try_join_all(sent).await.context("the relay does not take the flood")?;
    }
    Ok(begun.elapsed())
}

/// Sends a job each second until all is sent. Returns when each went, by its id.
async fn probe(
    relay: &str,
    sent: &CancellationToken,
    pair: impl Fn() -> Result<Vec<Event>>,
) -> Result<Vec<(String, Instant)>> {
    let mut publisher = Publisher::connect(relay).await?;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let mut probes = Vec::new();
    while sent.run_until_cancelled(tick.tick()).await.is_some() {
        let probe = pair()?;
        let at = Instant::now();
        publisher.publish_all(&probe).await?;
        probes.extend(probe.last().map(|job| (job.id.to_hex(), at)));
    }
    Ok(probes)
}

/// What intake counted.
async fn counted(http: &str) -> Result<String> {
    let metrics = reqwest::get(format!("{http}/metrics")).await?.text().await?;
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("longshore_intake_ignored_total"));
    let counts: Vec<String> = lines.filter(|line| !line.ends_with(" 0")).map(str::to_owned).collect();
    Ok(format!("not answered: {}", counts.join(", ")))
}
