//! Floors: what the engine alone takes for the same work, through the same client library.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use bollard::{
    container::{AttachContainerResults, LogOutput},
    exec::StartExecResults,
    models::ExecConfig,
    query_parameters::{AttachContainerOptionsBuilder, StartContainerOptions, WaitContainerOptions},
};
use futures::{Stream, StreamExt, future::try_join_all};

use super::{
    engine::{Engine, Made, Shape},
    pairs::median,
};

/// Numbered lines of 100 bytes, their end included.
pub const LOG: [&str; 5] = ["seq", "-f", "%099.0f", "1", "1000000"];
/// Bytes of [`LOG`].
pub const LOG_BYTES: u64 = 100_000_000;
/// What time it is in nanoseconds, sixty times.
pub const TICKS: &str = "for i in $(seq 60); do date +%s%N; sleep 0.2; done";
/// One exec is noisy: each sample is the median of this many.
const EXECS: usize = 5;

/// The engine and the shape of its containers.
#[derive(Debug)]
pub struct Floor {
    engine: Engine,
    shape: Shape,
    idle: Option<Made>,
    /// Further shapes like it, each with a network of its own, for containers beside each other.
    lanes: Vec<Shape>,
}

impl Floor {
    /// Floors with containers of this shape.
    pub fn new(engine: Engine, shape: Shape) -> Self {
        Self { engine, shape, idle: None, lanes: Vec::new() }
    }

    /// Create, attach and start, until the first byte of `echo`.
    pub async fn cold(&mut self) -> Result<Duration> {
        let from = Instant::now();
        let made = self.engine.create(&self.shape, &["echo", "hi"]).await?;
        let mut attached = self.attach(&made).await?;
        let first = async {
            let first = attached.output.next().await;
            (first, from.elapsed())
        };
        let (started, (first, took)) =
            tokio::join!(self.engine.api.start_container(&made.id, None::<StartContainerOptions>), first);
        started?;
        match first.context("echo printed nothing")?? {
            LogOutput::StdOut { message } if message.starts_with(b"hi") => {}
            other => bail!("echo printed {other:?}"),
        }
        self.engine.remove(made).await?;
        Ok(took)
    }

    /// `docker exec true`: create, start, read to the end, inspect.
    pub async fn exec(&mut self) -> Result<Duration> {
        let idle = match self.idle.take() {
            Some(idle) => idle,
            None => {
                let made = self.engine.create(&self.shape, &["sleep", "infinity"]).await?;
                self.engine.api.start_container(&made.id, None::<StartContainerOptions>).await?;
                made
            }
        };
        let id = self.idle.insert(idle).id.clone();
        let mut times = Vec::with_capacity(EXECS);
        for _ in 0..EXECS {
            times.push(self.one_exec(&id, &["true"]).await?.as_secs_f64());
        }
        Ok(Duration::from_secs_f64(median(&times).unwrap_or_default()))
    }

    /// [`LOG`] in a container of its own, from create to the end of a raw attach.
    pub async fn log(&mut self) -> Result<Duration> {
        let from = Instant::now();
        let made = self.engine.create(&self.shape, &LOG).await?;
        let attached = self.attach(&made).await?;
        let (started, bytes) = tokio::join!(
            self.engine.api.start_container(&made.id, None::<StartContainerOptions>),
            read_all(attached.output)
        );
        let took = from.elapsed();
        started?;
        let bytes = bytes?;
        ensure!(bytes == LOG_BYTES, "the floor's attach gave {bytes} bytes of {LOG_BYTES}");
        self.engine.remove(made).await?;
        Ok(took)
    }

    /// [`TICKS`] in a container of its own: the median from the moment that a line says to its coming out of the engine.
    pub async fn ticks(&self) -> Result<Duration> {
        let made = self.engine.create(&self.shape, &["bash", "-c", TICKS]).await?;
        let mut attached = self.attach(&made).await?;
        self.engine.api.start_container(&made.id, None::<StartContainerOptions>).await?;
        let mut took = Vec::new();
        while let Some(piece) = attached.output.next().await {
            let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
            let piece = piece?.into_bytes();
            let stamp = std::str::from_utf8(&piece)?.trim();
            let printed = Duration::from_nanos(stamp.parse().with_context(|| format!("`{stamp}` is no time"))?);
            took.push(now.saturating_sub(printed).as_secs_f64());
        }
        self.engine.remove(made).await?;
        Ok(Duration::from_secs_f64(median(&took).context("nothing was printed")?))
    }

    /// Jobs of one `echo`, each in a container from create to removed, so many at once. Networks are made before.
    pub async fn jobs(&mut self, count: usize, at_once: usize) -> Result<Duration> {
        while self.lanes.len() < at_once {
            self.lanes.push(self.engine.twin(&self.shape).await?);
        }
        let (next, from) = (AtomicUsize::new(0), Instant::now());
        let lane = async |shape: &Shape| -> Result<()> {
            while next.fetch_add(1, Ordering::Relaxed) < count {
                self.job(shape).await?;
            }
            Ok(())
        };
        try_join_all(self.lanes.iter().take(at_once).map(lane)).await?;
        Ok(from.elapsed())
    }

    /// One container, from create to removed, and this many execs of a shell in it.
    pub async fn execs(&self, count: usize) -> Result<Duration> {
        let from = Instant::now();
        let made = self.engine.create(&self.shape, &["sleep", "infinity"]).await?;
        self.engine.api.start_container(&made.id, None::<StartContainerOptions>).await?;
        for _ in 0..count {
            self.one_exec(&made.id, &["bash", "-e", "-c", "true"]).await?;
        }
        self.engine.remove(made).await?;
        Ok(from.elapsed())
    }

    async fn job(&self, shape: &Shape) -> Result<()> {
        let made = self.engine.create(shape, &["echo", "hi"]).await?;
        let attached = self.attach(&made).await?;
        let (started, bytes) = tokio::join!(
            self.engine.api.start_container(&made.id, None::<StartContainerOptions>),
            read_all(attached.output)
        );
        started?;
        ensure!(bytes? == 3, "echo hi printed something else");
        let mut ends = self.engine.api.wait_container(&made.id, None::<WaitContainerOptions>);
        let end = ends.next().await.context("the engine did not say how a container ended")??;
        ensure!(end.status_code == 0, "echo hi ended with {}", end.status_code);
        self.engine.remove(made).await
    }

    async fn attach(&self, made: &Made) -> Result<AttachContainerResults> {
        let options = AttachContainerOptionsBuilder::new().stdout(true).stderr(true).stream(true).build();
        Ok(self.engine.api.attach_container(&made.id, Some(options)).await?)
    }

    async fn one_exec(&self, id: &str, command: &[&str]) -> Result<Duration> {
        let from = Instant::now();
        let config = ExecConfig {
            cmd: Some(command.iter().map(|&word| word.into()).collect()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..ExecConfig::default()
        };
        let exec = self.engine.api.create_exec(id, config).await?.id;
        let StartExecResults::Attached { output, .. } = self.engine.api.start_exec(&exec, None).await? else {
            bail!("the engine did not attach to the exec");
        };
        read_all(output).await?;
        let code = self.engine.api.inspect_exec(&exec).await?.exit_code;
        ensure!(code == Some(0), "{command:?} ended with {code:?}");
        Ok(from.elapsed())
    }
}

async fn read_all(mut output: impl Stream<Item = Result<LogOutput, bollard::errors::Error>> + Unpin) -> Result<u64> {
    let mut bytes = 0;
    while let Some(piece) = output.next().await {
        bytes += piece?.into_bytes().len() as u64;
    }
    Ok(bytes)
}
