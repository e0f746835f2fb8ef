//! P1 to P3: what people see in a real browser, of a log of a million lines, of a line as it is printed, of a hundred
//! thousand runs.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use fantoccini::Locator;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{
    floor::Floor,
    goals::{WARM_UPS, failures, said, say},
    pairs::{Pairs, median, millis},
    progress,
    report::Report,
    stage::{Running, Stage, Work},
};
use crate::harness::browser::Browser;

/// What a page may take to show a line, beside twice what the engine takes to hand it out.
const ON_THE_WAY: Duration = Duration::from_millis(100);
/// Runs in the list, those that are there included.
const RUNS: usize = 100_000;
/// Requests and queries of which one sample is the median: each is short and noisy.
const ASKED: usize = 20;
/// What the list's page asks its database.
const LISTED: &str = "SELECT id, serial, number, attempt, previous, repository, workflow, name, commit_id, branch, \
    event, actor, phase, status, wait_kind, wait_name, wait_until, wait_holder, conclusion, created_at, started_at, \
    ended_at, changed, title FROM runs WHERE visibility = 'public' ORDER BY serial DESC LIMIT 51";

/// When a page first showed anything, in milliseconds since it was asked for.
const PAINTED: &str = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime";
/// Goes to the line that was typed into the page's own form, and answers after the first picture that has its text in sight: what a frame's
/// callbacks draw is in that frame's picture, which is made before the next task.
const JUMP: &str = "
const [number, done] = arguments;
const log = document.getElementById('log');
const form = document.querySelector('#log-bar input[name=line]').form;
const from = performance.now();
form.requestSubmit();
const look = () => requestAnimationFrame(() => setTimeout(() => {
  const place = document.getElementById('L' + number)?.querySelector('.text')?.getBoundingClientRect();
  const sight = log.getBoundingClientRect();
  if (place && place.top >= sight.top && place.bottom <= sight.bottom) done(performance.now() - from);
  else look();
}));
look();";
/// Notes when each line that is a stamp came into the page.
const WATCH: &str = "
window.since = Date.now();
window.came = {};
new MutationObserver(() => {
  const now = performance.timeOrigin + performance.now();
  for (const { textContent: stamp } of document.querySelectorAll('#log .row .text')) {
    if (/^\\d{19}$/.test(stamp)) window.came[stamp] ??= now;
  }
}).observe(document.getElementById('log'), { childList: true, subtree: true });";

/// A run's page and its log's page, with a million lines beside the same with a hundred.
pub(super) async fn large_log(stage: &Stage, on: &Running, pairs: usize, report: &mut Report) -> Result<()> {
    progress("a log of 1,000,000 lines, and one of 100");
    let (large, small) = (stage.ended(on, Work::Log).await?, stage.ended(on, Work::FewLines).await?);
    let browser = Browser::start().await?;
    let names = ["run page, first paint", "log page, first paint", "log page, jump to a line"];
    let mut all: [Pairs; 3] = Default::default();
    for round in 0..WARM_UPS + pairs {
        let few = look_at(&browser, &on.page(&small), line(round, 100)).await;
        let many = look_at(&browser, &on.page(&large), line(round, 1_000_000)).await;
        say(round, pairs, "run, log and jump; many lines, then few", &many.iter().chain(&few).collect::<Vec<_>>());
        if round >= WARM_UPS {
            for ((pairs, many), few) in all.iter_mut().zip(many).zip(few) {
                pairs.push(many, few);
            }
        }
    }
    for (name, pairs) in names.into_iter().zip(&all) {
        report.ratio(&format!("P1 {name}, 1,000,000 lines; floor: the same with 100"), 2.0, pairs);
        failures("P1", pairs, report);
    }
    Ok(())
}

/// How long a line takes from the step that prints it to the page, beside the engine's own stream.
pub(super) async fn live_line(
    stage: &Stage,
    on: &Running,
    floor: &Floor,
    pairs: usize,
    report: &mut Report,
) -> Result<()> {
    let browser = Browser::start().await?;
    let mut all = Pairs::default();
    for round in 0..WARM_UPS + pairs {
        let echo = said(floor.ticks().await);
        let line = said(watched(&browser, stage, on).await);
        say(round, pairs, "a live line", &[&echo, &line]);
        if round >= WARM_UPS {
            all.push(line, echo.map(|echo| echo * 2 + ON_THE_WAY));
        }
    }
    report.ratio("P2 step prints → line in the browser, p50; floor: 2 × attached to the engine + 100 ms", 1.0, &all);
    failures("P2", &all, report);
    Ok(())
}

/// The list of runs, beside the query that it asks.
pub(super) async fn long_list(stage: &Stage, pairs: usize, report: &mut Report) -> Result<()> {
    progress("a pool with 100,000 runs");
    let pool = stage.pool("history", 1, 0)?;
    stage.ended(&pool, Work::Echo).await?;
    let pool = pool.between_lives(async |folder| fill(&database(folder), RUNS)).await?;
    let store = connect(&database(pool.folder()))?;
    let client = reqwest::Client::new();
    let mut all = Pairs::default();
    for round in 0..WARM_UPS + pairs {
        let query = said(queried(&store));
        let page = said(listed(&client, pool.http()).await);
        say(round, pairs, "a list of 100,000 runs", &[&query, &page]);
        if round >= WARM_UPS {
            all.push(page, query);
        }
    }
    report.ratio("P3 list page of 100,000 runs; floor: its bare query", 3.0, &all);
    failures("P3", &all, report);
    Ok(())
}

/// Another place in each round, so that nothing of it is there already.
fn line(round: usize, lines: u64) -> u64 {
    (round as u64 + 1) * 483_059 % lines + 1
}

/// First paint of a run's page and of its log's page, and the time of a jump there.
async fn look_at(browser: &Browser, page: &str, line: u64) -> [Result<Duration, String>; 3] {
    let run = said(painted(browser, page).await);
    let log = said(painted(browser, &format!("{page}/log?job=work0")).await);
    let jump = async {
        browser.until("document.querySelector('#log-bar input[name=line]') && true").await?;
        let field = browser.client.find(Locator::Css("#log-bar input[name=line]")).await?;
        field.send_keys(&line.to_string()).await?;
        let took = browser.client.execute_async(JUMP, vec![json!(line)]).await?;
        duration(&took)
    };
    [run, log, said(jump.await)]
}

async fn painted(browser: &Browser, page: &str) -> Result<Duration> {
    browser.client.goto(page).await?;
    duration(&browser.until(PAINTED).await?)
}

fn duration(took: &Value) -> Result<Duration> {
    let millis = took.as_f64().with_context(|| format!("the browser gave {took} for a time"))?;
    Ok(Duration::try_from_secs_f64(millis / 1000.0)?)
}

/// The median of what lines took that were printed while the page was watched.
async fn watched(browser: &Browser, stage: &Stage, on: &Running) -> Result<Duration> {
    let job = stage.started(on, Work::Ticks).await?;
    browser.client.goto(&format!("{}/log?job=work0", on.page(&job.id))).await?;
    browser.client.execute(WATCH, Vec::new()).await?;
    stage.wait(&job).await?;
    let seen = browser.client.execute("return { since: window.since, came: window.came }", Vec::new()).await?;
    let since = seen["since"].as_f64().context("the page does not say since when it is watched")?;
    let mut took = Vec::new();
    for (stamp, came) in seen["came"].as_object().into_iter().flatten() {
        let printed = stamp.parse::<f64>()? / 1e6;
        let came = came.as_f64().context("a line came at no time")?;
        if printed > since {
            took.push(came - printed);
        }
    }
    ensure!(took.len() >= 20, "only {} lines came while the page was watched", took.len());
    Ok(Duration::try_from_secs_f64(median(&took).unwrap_or_default() / 1000.0)?)
}

/// Copies a run that ended until the store has this many.
pub(super) fn fill(database: &Path, runs: usize) -> Result<()> {
    let store = connect(database)?;
    let mut columns = store.prepare("SELECT name FROM pragma_table_info('runs')")?;
    let columns = columns.query_map([], |row| row.get(0))?.collect::<Result<Vec<String>, _>>()?;
    let value = |column: &String| match column.as_str() {
        "id" => "printf('%064x', i)".to_owned(),
        "serial" | "number" | "changed" => format!("{column} + i"),
        _ => column.clone(),
    };
    let values: Vec<String> = columns.iter().map(value).collect();
    let statement = format!(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {runs} - 1) \
         INSERT INTO runs ({}) SELECT {} FROM n, (SELECT * FROM runs LIMIT 1)",
        columns.join(", "),
        values.join(", ")
    );
    store.execute(&statement, [])?;
    // Or the next run would have the serial of one of these.
    store.execute("UPDATE counters SET value = (SELECT max(serial) FROM runs) WHERE name = 'run'", [])?;
    let count: i64 = store.query_row("SELECT count(*) FROM runs", [], |row| row.get(0))?;
    ensure!(usize::try_from(count)? == runs, "the store has {count} runs");
    Ok(())
}

fn database(folder: &Path) -> PathBuf {
    folder.join("data/longshore.db")
}

/// Through the same client library as the product.
fn connect(database: &Path) -> Result<Connection> {
    Connection::open(database).with_context(|| format!("cannot open {}", database.display()))
}

fn queried(store: &Connection) -> Result<Duration> {
    let mut times = Vec::with_capacity(ASKED);
    let mut statement = store.prepare(LISTED)?;
    for _ in 0..ASKED {
        let from = Instant::now();
        let mut rows = statement.query([])?;
        let mut count = 0;
        while let Some(row) = rows.next()? {
            row.get_ref(0)?;
            count += 1;
        }
        times.push(from.elapsed());
        ensure!(count == 51, "the query gave {count} rows");
    }
    middle(&times)
}

async fn listed(client: &reqwest::Client, http: &str) -> Result<Duration> {
    let mut times = Vec::with_capacity(ASKED);
    for _ in 0..ASKED {
        let from = Instant::now();
        let page = client.get(http).send().await?.error_for_status()?.text().await?;
        times.push(from.elapsed());
        ensure!(page.contains("before="), "the page has no next one");
    }
    middle(&times)
}

fn middle(times: &[Duration]) -> Result<Duration> {
    let times: Vec<f64> = times.iter().map(|time| millis(*time)).collect();
    Ok(Duration::try_from_secs_f64(median(&times).unwrap_or_default() / 1000.0)?)
}
