//! 300 jobs that are refused, each of which names 12 relays of its own where nobody answers: half of them by strangers, half
//! by an author that the policy knows.

use std::time::{Duration, Instant};

use anyhow::Result;
use nostr::{Event, Keys};

use super::{
    Row,
    watch::{AnswerWatch, ProcessWatch, usage_of},
};
use crate::{
    bench::{
        fleet::{Duty, Fleet, identities},
        scale::Scale,
    },
    harness::{
        client::{Press, kind, sign},
        pool::Pool,
        raw_relay::Publisher,
        world::{Relay, World},
    },
};

const JOBS: usize = 300;
const RELAYS: usize = 12;
/// How long the coordinator is watched afterwards.
const AFTER: Duration = Duration::from_secs(30);
const FLOOD: &str = "300 refused jobs, 12 dead relays each";
/// MiB more at most.
const MEMORY: f64 = 20.0;
/// Threads more at most: a process starts some when it needs them.
const THREADS: f64 = 4.0;
/// Seconds that a known author's job may take.
const ENDED: f64 = 10.0;
const PATH: &str = ".github/workflows/one.yml";
const WORKFLOW: &str =
    "name: one\non: push\njobs:\n  work:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo hi\n";

/// Runs it, or a part of it.
///
/// # Errors
/// The pool can't be started, or the relay does not take the events.
pub async fn run(scale: Scale, mut say: impl FnMut(&str)) -> Result<Vec<Row>> {
    let jobs = scale.count(JOBS, 20);
    say(&format!("{jobs} refused jobs that name {RELAYS} relays each"));
    let folder = tempfile::tempdir()?;
    let relay = Relay::start(folder.path())?;
    let world = World::new(&relay.url, &[(PATH, WORKFLOW)]).await?;
    let (known, author) = (Keys::generate(), Keys::generate());
    let keys = [&known, &author].map(|keys| keys.public_key().to_hex()).join(",");
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url))?
        .with("LONGSHORE_POLICY_EVERYONE", "false")
        .with("LONGSHORE_POLICY_PUBKEYS", &keys)
        .with("LONGSHORE_LIMITS_AUTHOR_PER_MINUTE", "1000")
        // As in a pool of the internet: names are looked up, and lead nowhere.
        .with("LONGSHORE_RELAYS_ALLOW_PRIVATE", "false")
        .with("LONGSHORE_WORKERS", &identities(1)?.join(","));
    let coordinator = pool.coordinator()?;
    let fleet = Fleet::connect(&pool.grpc_url(), &pool.folder.join("ca.pem"), 0..1, 1).await?;
    fleet.set(Duty::Work(Duration::ZERO));
    let answers = AnswerWatch::start(&relay.url).await?;
    let mut publisher = Publisher::connect(&relay.url).await?;
    let press = Press { author: author.clone(), ..world.press(pool.pubkey, PATH) };
    // Whatever it needs once for a job is there before it is looked at.
    for _ in 0..5 {
        let (run, job) = press.events()?;
        publisher.publish_all(&[run, job.clone()]).await?;
        answers.until_ended(&[job.id.to_hex()], Duration::from_secs_f64(ENDED)).await;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = usage_of(coordinator.id())?;

    let watch = ProcessWatch::start(coordinator.id());
    let sent = (0..jobs).map(|number| refused(number, &known, &pool));
    let strangers = (0..jobs).map(|number| refused(jobs + number, &Keys::generate(), &pool));
    let refused: Vec<Event> = sent.take(jobs / 2).chain(strangers.take(jobs / 2)).collect::<Result<_>>()?;
    publisher.publish_all(&refused).await?;
    let begun = Instant::now();
    let mut slowest: Result<f64, String> = Ok(0.0);
    while begun.elapsed() < AFTER {
        let (run, job) = press.events()?;
        let at = Instant::now();
        publisher.publish_all(&[run, job.clone()]).await?;
        let missing = answers.until_ended(&[job.id.to_hex()], Duration::from_secs_f64(ENDED * 2.0)).await;
        slowest = match (missing, slowest) {
            (0, Ok(slowest)) => Ok(slowest.max(at.elapsed().as_secs_f64())),
            (_, slowest) => slowest.and(Err("a known author's job has no result".to_owned())),
        };
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let peak = watch.peak();
    say(&format!("  the coordinator had {} MiB and {} threads before", before.mib, before.threads));
    #[allow(clippy::cast_precision_loss, reason = "some hundred")]
    let [memory, threads] =
        [peak.mib.saturating_sub(before.mib), peak.threads.saturating_sub(before.threads)].map(|number| number as f64);
    fleet.disconnect().await;
    Ok(vec![
        Row::at_most(FLOOD, "memory besides", "MiB", MEMORY, Ok(memory)),
        Row::at_most(FLOOD, "threads besides", "", THREADS, Ok(threads)),
        Row::at_most(FLOOD, "slowest job of a known author", "s", ENDED, slowest),
    ])
}

/// A job that is refused because it names two runs.
fn refused(number: usize, author: &Keys, pool: &Pool) -> Result<Event> {
    let named: Vec<String> = (0..RELAYS).map(|n| format!("wss://r{number}-{n}.example.org")).collect();
    let tags = [
        vec!["p".to_owned(), pool.pubkey.to_hex()],
        vec!["e".into(), format!("{number:064x}")],
        vec!["e".into(), format!("{:064x}", number + 1)],
        vec!["cmd".into(), "bash".into()],
        vec!["args".into(), "-c".into(), "x".into()],
        vec!["env".into(), "HIVE_CI_RELAYS".into(), named.join(",")],
    ];
    sign(author, kind::JOB, tags.into())
}
