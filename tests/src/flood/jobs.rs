//! A hostile job of each kind beside a good one, on the two slots of one worker. The good job's time is compared with that
//! beside a job that sleeps, in turns; the worker's own memory must stay; the hostile job must end, with its reason.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nostr::Event;

use super::{
    Row,
    hostile_jobs::{HOSTILE_JOBS, HostileJob, VolumeImage, push_many_files, workflows},
    resident_mib,
    watch::ProcessWatch,
};
use crate::{
    bench::pairs::Pairs,
    harness::{
        client::{Answers, kind, sign, tag},
        pool::Pool,
        world::{Relay, World},
    },
};

const GOOD: &str = ".github/workflows/good.yml";
const SLEEPING: &str = ".github/workflows/sleeping.yml";
const SLEEPING_JOB: &str =
    "on: push\njobs:\n  sleeping:\n    runs-on: ubuntu-latest\n    steps:\n      - run: exec sleep 600\n";
/// Steps of the good job besides its checkout, each with some work.
const STEPS: usize = 20;
const STEP: &str = "      - run: seq 400000 | gzip -9 > part.gz; gzip --test part.gz\n";

/// The good job's time beside a hostile one, by its time beside a sleeping one.
const RATIO: f64 = 1.5;
/// MiB by which the worker's own process may be larger afterwards, and meanwhile: a report passes through it.
const GROWN: u64 = 8;
const PEAK: u64 = 16;
/// When a hostile job must have ended, since it began.
const ENDED: Duration = Duration::from_secs(60);
/// How long anything is waited for.
const LIMIT: Duration = Duration::from_secs(150);
/// Where the machine comes to rest.
const PAUSE: Duration = Duration::from_millis(500);
/// Where the worker has given back what it needed for a moment.
const SETTLED: Duration = Duration::from_secs(2);
/// Characters of a reason that the table has room for.
const REASON: usize = 38;

/// What an operator sets for a pool that anybody may use. Seconds of a run; then, of a job, bytes of its log and its disk,
/// its processes, its memory.
const RUN_SECONDS: &str = "45";
const JOB_LIMITS: [(&str, &str); 6] = [
    ("LONGSHORE_SLOTS", "2"),
    ("LONGSHORE_POOL_SIZE", "2"),
    ("LONGSHORE_LIMITS_LOG", "67108864"),
    ("LONGSHORE_LIMITS_DISK", "536870912"),
    ("LONGSHORE_LIMITS_PROCESSES", "512"),
    ("LONGSHORE_LIMITS_MEMORY", "1073741824"),
];

/// How a hostile job ended.
struct HostileEnd {
    took: Duration,
    /// As the result's event says it; empty: it succeeded.
    reason: String,
    /// The run as the API shows it.
    shown: String,
}

/// The pool and its worker.
struct Stage {
    pool: Pool,
    world: World,
    worker: u32,
}

/// Runs all kinds whose names hold one of `only`, or every kind where that is empty.
///
/// # Errors
/// The pool can't be started, or a job that sleeps does not run.
pub async fn run(only: &[String], pairs: usize, mut say: impl FnMut(&str)) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let relay = Relay::start(folder.path())?;
    let image = VolumeImage::build()?;
    let good = format!(
        "on: push\njobs:\n  good:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n{}",
        STEP.repeat(STEPS)
    );
    let hostile = workflows(&image);
    let files = [(GOOD, good.as_str()), (SLEEPING, SLEEPING_JOB)];
    let files: Vec<(&str, &str)> =
        files.into_iter().chain(hostile.iter().map(|(path, text)| (*path, text.as_str()))).collect();
    let world = World::new(&relay.url, &files).await?;
    push_many_files(&world).await?;
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url))?
        .with("LONGSHORE_LIMITS_AUTHOR_PER_MINUTE", "1000")
        .with("LONGSHORE_POLICY_MAX_DURATION", RUN_SECONDS);
    let _coordinator = pool.coordinator()?;
    let environment: Vec<(&str, &str)> =
        JOB_LIMITS.into_iter().chain([("LONGSHORE_LOCAL_IMAGES", image.0.as_str())]).collect();
    let worker = pool.worker(&environment)?;
    let stage = Stage { pool, world, worker: worker.id() };
    // Whatever is made once is there before anything is measured.
    let first = stage.beside(SLEEPING, false).await?;
    let _ = stage.beside(SLEEPING, false).await?;
    say(&format!("the first good job beside a sleeping one: {}", shown(&first.0)));
    say(
        "kind, reason; a good job's time by that beside a sleeping job, MiB by which the worker grows (at its peak), end",
    );
    let wanted = |job: &&HostileJob| only.is_empty() || only.iter().any(|part| job.name.contains(part.as_str()));
    let mut rows = Vec::new();
    for job in HOSTILE_JOBS.iter().filter(wanted) {
        rows.push(stage.measure(job, pairs, &mut say).await?);
    }
    Ok(rows)
}

impl Stage {
    async fn measure(&self, job: &HostileJob, pairs: usize, say: &mut impl FnMut(&str)) -> Result<Row> {
        let (before, watch) = (resident_mib(self.worker)?, ProcessWatch::start(self.worker));
        let (mut times, mut end) = (Pairs::default(), None);
        for number in 1..=pairs {
            let (floor, _) = self.beside(SLEEPING, false).await?;
            let is_last = number == pairs;
            let (beside, ended) = self.beside(job.path, is_last).await?;
            say(&format!("  {}: {} beside it, {} beside a sleeping one", job.name, shown(&beside), shown(&floor)));
            times.push(beside, floor);
            end = is_last.then_some(ended);
        }
        tokio::time::sleep(SETTLED).await;
        let grown = resident_mib(self.worker)?.saturating_sub(before);
        let peak = watch.peak().mib.saturating_sub(before);
        let end = end.context("there must be a pair at least")?;
        let ratio = times.ratios().filter(|_| times.failures().is_empty()).map(|ratios| ratios.median);
        for failure in times.failures() {
            say(&format!("  the good job: {failure}"));
        }
        let (mut ended, mut is_right) = ("no end".to_owned(), false);
        let (mut reason, mut missing) = (String::new(), String::new());
        match end {
            Ok(end) => {
                is_right = end.took <= ENDED && end.is_as(job);
                ended = format!("{:.0} s", end.took.as_secs_f64());
                if !end.shown.contains(job.said) {
                    missing = format!("; its page does not say `{}`", job.said);
                }
                reason = if end.reason.is_empty() { "success".to_owned() } else { end.reason };
            }
            Err(cause) => reason.push_str(&cause),
        }
        say(&format!("  {}: ended after {ended}: {reason}{missing}", job.name));
        let times = ratio.map_or_else(|| "failed".to_owned(), |ratio| format!("{ratio:.2} ×"));
        Ok(Row {
            flood: job.name.to_owned(),
            what: cut(&reason),
            measured: format!("{times}, {grown} ({peak}) MiB, {ended}"),
            bound: format!("≤ {RATIO} ×, {GROWN} ({PEAK}) MiB, {} s", ENDED.as_secs()),
            holds: ratio.is_some_and(|ratio| ratio <= RATIO) && grown <= GROWN && peak <= PEAK && is_right,
        })
    }

    /// The time of a good job beside another one, which began before and is cancelled after it, or goes on until it ends by
    /// itself.
    async fn beside(
        &self,
        path: &str,
        to_its_end: bool,
    ) -> Result<(Result<Duration, String>, Result<HostileEnd, String>)> {
        let (run, job) = self.press(path).await?;
        let listener = &self.world.listener;
        let begins = |answers: &Answers| answers.ended() || answers.statuses().iter().any(|status| status == "running");
        listener.answered(&run, &job, LIMIT, begins).await.with_context(|| format!("{path} does not begin"))?;
        let begun = Instant::now();
        let good = async {
            let took = self.good().await;
            if !to_its_end {
                self.cancel(&job).await?;
            }
            anyhow::Ok(took)
        };
        let end = async {
            let took = self.result(&run, &job).await.map(|result| (begun.elapsed(), result));
            let (took, result) = took.map_err(|_| format!("it has not ended after {} s", LIMIT.as_secs()))?;
            let shown = self.shown(&run).await.map_err(|error| error.to_string())?;
            Ok(HostileEnd { took, reason: tag(&result, "error"), shown })
        };
        let (good, end) = tokio::join!(good, end);
        tokio::time::sleep(PAUSE).await;
        Ok((good?, end))
    }

    /// Runs a good job; gives the time from its press to its result.
    async fn good(&self) -> Result<Duration, String> {
        let begun = Instant::now();
        let ended = async {
            let (run, job) = self.press(GOOD).await?;
            self.result(&run, &job).await
        };
        let result = ended.await.map_err(|error| format!("{error:#}").chars().take(200).collect::<String>())?;
        match tag(&result, "success").as_str() {
            "true" => Ok(begun.elapsed()),
            _ => Err(tag(&result, "error")),
        }
    }

    async fn press(&self, path: &str) -> Result<(Event, Event)> {
        self.world.send(&self.world.press(self.pool.pubkey, path)).await
    }

    async fn result(&self, run: &Event, job: &Event) -> Result<Event> {
        let has_result = |answers: &Answers| !answers.of(kind::RESULT).is_empty();
        let answers = self.world.listener.answered(run, job, LIMIT, has_result).await?;
        Ok(answers.only(kind::RESULT)?.clone())
    }

    async fn cancel(&self, job: &Event) -> Result<()> {
        let tags = vec![vec!["e".into(), job.id.to_hex()], vec!["p".into(), self.pool.pubkey.to_hex()]];
        self.world.listener.publish(&sign(&self.world.owner, kind::CANCEL, tags)?).await
    }

    async fn shown(&self, run: &Event) -> Result<String> {
        Ok(reqwest::get(format!("{}/api/runs/{}", self.pool.http, run.id.to_hex())).await?.text().await?)
    }
}

impl HostileEnd {
    fn is_as(&self, job: &HostileJob) -> bool {
        self.reason.contains(job.reason)
            && self.reason.is_empty() == job.reason.is_empty()
            && self.shown.contains(job.said)
    }
}

fn shown(time: &Result<Duration, String>) -> String {
    time.as_ref().map_or_else(Clone::clone, |time| format!("{:.2} s", time.as_secs_f64()))
}

/// A reason as far as the table has room for it.
fn cut(reason: &str) -> String {
    let text: String = reason.chars().take(REASON - 1).collect();
    if text.len() < reason.len() { format!("{text}…") } else { text }
}
