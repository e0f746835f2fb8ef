//! Connections that strangers open and leave idle, and streams that they follow, opened again as they are closed: from
//! many addresses, then from one. A page and a job of others are tried all the while.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::JoinSet,
};

use super::{Row, resident_mib, threads};
use crate::harness::{
    pool::Pool,
    world::{Relay, World},
};

const PATH: &str = ".github/workflows/ci.yml";
const WORKFLOW: &str = "on: push\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo hi\n";
/// Connections of each kind.
const IDLE_HTTP: usize = 2000;
const IDLE_GRPC: usize = 1000;
const STREAMS: usize = 2000;
/// What the coordinator may take, in MiB.
const MEMORY: u64 = 256;
/// What a page may take, mostly and at worst, and a job, while the flood goes on.
const PAGE: Duration = Duration::from_millis(500);
const SLOWEST_PAGE: Duration = Duration::from_secs(5);
const JOB: Duration = Duration::from_secs(10);
/// Pause before a closed connection is opened again.
const AGAIN: Duration = Duration::from_millis(500);

/// What the connections went through.
#[derive(Debug, Default)]
struct Counts {
    opened: AtomicU64,
    refused: AtomicU64,
    open: AtomicU64,
}

/// What was seen while a flood went on.
#[derive(Debug, Default)]
struct Seen {
    memory: u64,
    threads: u64,
    pages: Vec<Duration>,
    failed_pages: usize,
    jobs: Vec<Duration>,
    failed_jobs: usize,
    most_open: u64,
}

/// Runs both floods, each for so long.
///
/// # Errors
/// The pool can't be started.
pub async fn run(lasts: Duration, mut say: impl FnMut(&str)) -> Result<Vec<Row>> {
    let folder = tempfile::tempdir()?;
    let relay = Relay::start(folder.path())?;
    let pool = Pool::create(&folder.path().join("pool"), std::slice::from_ref(&relay.url))?
        .with("LONGSHORE_LIMITS_AUTHOR_PER_MINUTE", "100000");
    let world = World::new(&relay.url, &[(PATH, WORKFLOW)]).await?;
    let coordinator = pool.coordinator()?;
    let _worker = pool.worker(&[("LONGSHORE_SANDBOX", "host")])?;
    job(&world, &pool).await.context("a job before any flood")?;
    let before = resident_mib(coordinator.id())?;
    let mut rows = Vec::new();
    for addresses in [20, 1] {
        let name = format!("connections from {addresses} address{}", if addresses == 1 { "" } else { "es" });
        say(&format!("{name}, for {} s", lasts.as_secs()));
        let counts = Arc::new(Counts::default());
        let mut connections = open(&pool, addresses, &counts)?;
        let seen = watch(lasts, coordinator.id(), &pool, &world, &counts).await?;
        connections.shutdown().await;
        say(&format!(
            "  {} opened, {} refused or closed at once, {} open at most; {} threads; {before} MiB before",
            counts.opened.load(Ordering::Relaxed),
            counts.refused.load(Ordering::Relaxed),
            seen.most_open,
            seen.threads,
        ));
        rows.extend(seen.rows(&name));
    }
    Ok(rows)
}

/// Opens all connections, from so many addresses of this machine.
fn open(pool: &Pool, addresses: u8, counts: &Arc<Counts>) -> Result<JoinSet<()>> {
    let port = |url: &str| -> Result<SocketAddr> {
        let address = url.rsplit("//").next().unwrap_or_default();
        Ok(address.parse()?)
    };
    let (http, grpc) = (port(&pool.http)?, port(&pool.grpc_url())?);
    let kinds: [(usize, SocketAddr, &'static str); 3] = [
        (IDLE_HTTP, http, ""),
        (IDLE_GRPC, grpc, ""),
        (STREAMS, http, "GET /api/changes HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n"),
    ];
    let mut tasks = JoinSet::new();
    let mut numbers = (0..addresses).cycle();
    for (many, to, says) in kinds {
        for _ in 0..many {
            let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 1 + numbers.next().unwrap_or(0)));
            let counts = counts.clone();
            tasks.spawn(async move {
                loop {
                    let kept = hold(from, to, says, &counts).await;
                    if !kept {
                        counts.refused.fetch_add(1, Ordering::Relaxed);
                    }
                    tokio::time::sleep(AGAIN.mul_f64(0.5 + rand::random::<f64>())).await;
                }
            });
        }
    }
    Ok(tasks)
}

/// Holds one connection until the other end closes it; whether it was held for longer than a moment.
async fn hold(from: IpAddr, to: SocketAddr, says: &str, counts: &Counts) -> bool {
    let begun = Instant::now();
    let Ok(mut stream) = connect(from, to).await else { return false };
    counts.opened.fetch_add(1, Ordering::Relaxed);
    counts.open.fetch_add(1, Ordering::Relaxed);
    if stream.write_all(says.as_bytes()).await.is_ok() {
        let mut part = [0; 1024];
        while stream.read(&mut part).await.is_ok_and(|read| read > 0) {
            // A stream that was refused is given up, as one that ended.
            if part.starts_with(b"HTTP/1.1 4") || part.starts_with(b"HTTP/1.1 5") {
                break;
            }
        }
    }
    counts.open.fetch_sub(1, Ordering::Relaxed);
    begun.elapsed() > Duration::from_secs(1)
}

async fn connect(from: IpAddr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::new(from, 0))?;
    socket.connect(to).await
}

/// Looks at the coordinator's memory, a page and a job, again and again.
async fn watch(lasts: Duration, process: u32, pool: &Pool, world: &World, counts: &Counts) -> Result<Seen> {
    let end = Instant::now() + lasts;
    let client = reqwest::Client::builder()
        .local_address(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 99)))
        .pool_max_idle_per_host(0)
        .timeout(Duration::from_secs(30))
        .build()?;
    let looking = async {
        let mut seen = Seen::default();
        while Instant::now() < end {
            let begun = Instant::now();
            let answer = client.get(format!("{}/", pool.http)).send().await;
            let whole = match answer {
                Ok(answer) if answer.status().is_success() => answer.text().await.is_ok(),
                _ => false,
            };
            if whole {
                seen.pages.push(begun.elapsed());
            } else {
                seen.failed_pages += 1;
            }
            seen.memory = seen.memory.max(resident_mib(process)?);
            seen.threads = seen.threads.max(threads(process)?);
            seen.most_open = seen.most_open.max(counts.open.load(Ordering::Relaxed));
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        anyhow::Ok(seen)
    };
    let working = async {
        let (mut jobs, mut failed) = (Vec::new(), 0);
        while Instant::now() < end {
            match job(world, pool).await {
                Ok(took) => jobs.push(took),
                Err(_) => failed += 1,
            }
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
        (jobs, failed)
    };
    let (seen, (jobs, failed_jobs)) = tokio::join!(looking, working);
    Ok(Seen { jobs, failed_jobs, ..seen? })
}

/// Presses the workflow and waits for its result.
async fn job(world: &World, pool: &Pool) -> Result<Duration> {
    let begun = Instant::now();
    let (run, job) = world.send(&world.press(pool.pubkey, PATH)).await?;
    world.listener.end(&run, &job, Duration::from_secs(60)).await?;
    Ok(begun.elapsed())
}

impl Seen {
    fn rows(&self, flood: &str) -> Vec<Row> {
        let row = |what: &str, measured: String, bound: String, holds: bool| Row {
            flood: flood.to_owned(),
            what: what.to_owned(),
            measured,
            bound,
            holds,
        };
        let (page, slowest, job) = (median(&self.pages), longest(&self.pages), longest(&self.jobs));
        let of = |failed: usize, whole: usize| format!("{failed} of {}", failed + whole);
        let timed = |what: &str, time: Duration, bound: Duration| {
            row(what, shown(time), format!("< {}", shown(bound)), time < bound)
        };
        let memory = self.memory;
        vec![
            row("memory of the coordinator", format!("{memory} MiB"), format!("< {MEMORY} MiB"), memory < MEMORY),
            row("pages that failed", of(self.failed_pages, self.pages.len()), "0".into(), self.failed_pages == 0),
            timed("median wait for a page", page, PAGE),
            timed("longest wait for a page", slowest, SLOWEST_PAGE),
            row("jobs that failed", of(self.failed_jobs, self.jobs.len()), "0".into(), self.failed_jobs == 0),
            timed("longest job", job, JOB),
        ]
    }
}

fn median(times: &[Duration]) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn longest(times: &[Duration]) -> Duration {
    times.iter().copied().max().unwrap_or_default()
}

fn shown(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}
