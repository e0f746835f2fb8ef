//! The one writer of a job's log: cuts output into lines, reads them, masks, makes records, keeps the limit.
//!
//! A task owns all of it; what it is told comes through a bounded queue, so a slow sink slows the step.

use std::{
    collections::HashMap,
    io,
    ops::ControlFlow,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt as _, future::BoxFuture};
use proto::worker::{LogStream, Mark};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{output::OutputParser, paths::absolute, report_limits};
use crate::{
    dialect::{line_reader::LineReader, step_values::StepValues},
    log::{LogSink, Record, mask::Masker},
    sandbox::{Machine, OutputSink, OutputStream},
};

/// A started line waits this long for its end before it is shown as it is.
const PROMPT: Duration = Duration::from_millis(100);
/// Longest file that a line may want, in bytes, and how long it may take to come.
const WANTED_FILE: u64 = 1 << 20;
const READ: Duration = Duration::from_secs(10);
/// Records that go to the sink together, at most.
const BATCH: usize = 64;
/// Longest text of one record, in bytes.
pub(super) const RECORD_TEXT: usize = 64 * 1024;

enum LogEvent {
    Open { output: u64, step: i32, reader: Box<dyn LineReader>, workspace: String },
    Reader(Arc<dyn Machine>),
    Output { output: u64, stream: OutputStream, data: Bytes, time_ms: u64 },
    Close { output: u64, answer: oneshot::Sender<StepValues> },
    Notice { step: i32, text: String },
    Mark { step: i32, mark: Mark },
    End(oneshot::Sender<io::Result<(u64, Bytes)>>),
}

/// Handle of a job's log.
#[derive(Clone)]
pub(super) struct LogWriter {
    events: mpsc::Sender<LogEvent>,
    masker: Arc<Masker>,
    /// Number of the next process's output.
    next: Arc<AtomicU64>,
}

impl LogWriter {
    /// Starts the writer. `stop` is cancelled where the limit is passed or the sink fails.
    pub(super) fn start(
        sink: Arc<dyn LogSink>,
        masker: Arc<Masker>,
        limit: u64,
        stop: LogStop,
    ) -> (Self, JoinHandle<()>) {
        let (events, queue) = mpsc::channel(32);
        let writer = LogTask {
            sink,
            masker: Arc::clone(&masker),
            left: limit,
            limit,
            stop,
            failed: false,
            batch: Vec::new(),
            machine: None,
        };
        (Self { events, masker, next: Arc::default() }, tokio::spawn(writer.run(queue)))
    }

    /// Where a process's output goes until [`Self::close`]; several may be open at once.
    pub(super) async fn open(&self, step: i32, reader: Box<dyn LineReader>, workspace: String) -> ProcessLog {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.send(LogEvent::Open { output: number, step, reader, workspace }).await;
        ProcessLog { number, events: self.events.clone() }
    }

    /// The machine is there: files that commands name are read from it.
    pub(super) async fn reads(&self, machine: Arc<dyn Machine>) {
        self.send(LogEvent::Reader(machine)).await;
    }

    /// The process ended: everything it printed is on its way into the log, and this is what it said by that.
    pub(super) async fn close(&self, output: ProcessLog) -> StepValues {
        let (answer, values) = oneshot::channel();
        self.send(LogEvent::Close { output: output.number, answer }).await;
        values.await.unwrap_or_default()
    }

    /// Longshore says something; several lines are fine.
    pub(super) async fn notice(&self, step: i32, text: &str) {
        self.send(LogEvent::Notice { step, text: self.masker.text(text) }).await;
    }

    pub(super) async fn begin(&self, step: i32, name: &str) {
        let mark = Mark { name: self.step_name(name), ..Mark::default() };
        self.send(LogEvent::Mark { step, mark }).await;
    }

    pub(super) async fn end_of(&self, step: i32, name: &str, conclusion: &str, outcome: &str, duration: Duration) {
        let mark = Mark {
            name: self.step_name(name),
            ended: true,
            conclusion: conclusion.to_owned(),
            outcome: outcome.to_owned(),
            duration_ms: u64::try_from(duration.as_millis()).unwrap_or(u64::MAX),
        };
        self.send(LogEvent::Mark { step, mark }).await;
    }

    /// A step's name as the log says it: it stands before lines of its own.
    fn step_name(&self, name: &str) -> String {
        let mut name = self.masker.text(name);
        name.truncate(name.floor_char_boundary(report_limits::STEP_NAME));
        name
    }

    /// Ends the log.
    pub(super) async fn end(&self) -> io::Result<(u64, Bytes)> {
        let (answer, end) = oneshot::channel();
        self.send(LogEvent::End(answer)).await;
        end.await.map_err(io::Error::other)?
    }

    /// The writer outlives every handle, so nothing is lost here.
    async fn send(&self, event: LogEvent) {
        let _ = self.events.send(event).await;
    }
}

/// Why a log ends its job.
#[derive(Clone, Default)]
pub(super) struct LogStop {
    /// More text than the limit.
    pub(super) limit: CancellationToken,
    /// The sink fails.
    pub(super) broken: CancellationToken,
}

/// A process's way into the log.
pub(super) struct ProcessLog {
    number: u64,
    events: mpsc::Sender<LogEvent>,
}

impl OutputSink for ProcessLog {
    fn write(&self, stream: OutputStream, data: Bytes, time_ms: u64) -> BoxFuture<'_, ()> {
        async move {
            let _ = self.events.send(LogEvent::Output { output: self.number, stream, data, time_ms }).await;
        }
        .boxed()
    }
}

struct LogTask {
    sink: Arc<dyn LogSink>,
    masker: Arc<Masker>,
    left: u64,
    limit: u64,
    stop: LogStop,
    failed: bool,
    batch: Vec<Record>,
    machine: Option<Arc<dyn Machine>>,
}

impl LogTask {
    async fn run(mut self, mut queue: mpsc::Receiver<LogEvent>) {
        let mut open: HashMap<u64, OpenProcess> = HashMap::new();
        loop {
            let due = open.values().filter_map(|open| open.due).min();
            let event = tokio::select! {
                biased;
                event = queue.recv() => event,
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    let now = Instant::now();
                    for open in open.values_mut().filter(|open| open.due.is_some_and(|due| due <= now)) {
                        open.due = None;
                        open.parser.prompt(&self.masker);
                        self.collect(open);
                    }
                    self.flush().await;
                    continue;
                }
            };
            let mut next = event;
            if next.is_none() {
                break;
            }
            // What waits already goes to the sink together: a step's few words are one write, not five.
            while let Some(event) = next {
                if self.take(event, &mut open).await.is_break() {
                    return;
                }
                next = if self.batch.len() < BATCH { queue.try_recv().ok() } else { None };
            }
            self.flush().await;
        }
    }

    /// Turns an event into records. Breaks at the end of the log.
    async fn take(&mut self, event: LogEvent, open: &mut HashMap<u64, OpenProcess>) -> ControlFlow<()> {
        match event {
            LogEvent::Open { output, step, reader, workspace } => {
                let parser = OutputParser::new(reader, workspace);
                open.insert(output, OpenProcess { step, time_ms: 0, due: None, parser });
            }
            LogEvent::Reader(machine) => self.machine = Some(machine),
            LogEvent::Output { output, stream, mut data, time_ms } => {
                if let Some(open) = open.get_mut(&output) {
                    open.time_ms = time_ms;
                    while !data.is_empty() {
                        data = data.split_off(open.parser.take(stream, &data, &self.masker));
                        self.give_wanted_file(open).await;
                    }
                    self.collect(open);
                    open.due = open.parser.waits().then(|| open.due.unwrap_or_else(|| Instant::now() + PROMPT));
                }
            }
            LogEvent::Close { output, answer } => {
                let values = match open.remove(&output) {
                    Some(mut open) => {
                        open.parser.finish(&self.masker);
                        self.give_wanted_file(&mut open).await;
                        self.collect(&mut open);
                        open.parser.into_values()
                    }
                    None => StepValues::default(),
                };
                let _ = answer.send(values);
            }
            LogEvent::Notice { step, mut text } => {
                text.push('\n');
                self.text(step, LogStream::Notice, now_ms(), text.into());
            }
            LogEvent::Mark { step, mark } => {
                // It comes beyond the limit too: the steps of a job are always told.
                self.left = self.left.saturating_sub(mark.name.len() as u64);
                self.batch.push(Record {
                    time_ms: now_ms(),
                    step,
                    stream: LogStream::Mark.into(),
                    mark: Some(mark),
                    ..Record::default()
                });
            }
            LogEvent::End(answer) => {
                self.flush().await;
                let _ = answer.send(self.sink.finish().await);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    /// Reads the file that the last line wants. Without a machine, or in bad time, there is none.
    async fn give_wanted_file(&self, open: &mut OpenProcess) {
        let Some(path) = open.parser.wanted() else { return };
        let paths = [absolute(open.parser.workspace(), path)];
        let read = async { Some(self.machine.as_ref()?.read(&paths, WANTED_FILE).await) };
        let content = match tokio::time::timeout(READ, read).await {
            Ok(Some(Ok(files))) => {
                files.into_iter().next().map(|(_, content)| content).ok_or("there is no such file".into())
            }
            Ok(Some(Err(error))) => Err(error.to_string()),
            Ok(None) | Err(_) => Err("it could not be read".to_owned()),
        };
        open.parser.give_file(content.as_deref().map_err(Clone::clone), &self.masker);
    }

    fn collect(&mut self, open: &mut OpenProcess) {
        for (stream, text) in open.parser.ready() {
            let stream = match stream {
                OutputStream::Stdout => LogStream::Stdout,
                OutputStream::Stderr => LogStream::Stderr,
            };
            self.text(open.step, stream, open.time_ms, text.into());
        }
    }

    fn text(&mut self, step: i32, stream: LogStream, time_ms: u64, mut text: Bytes) {
        while !text.is_empty() {
            let mut piece = text.split_to(cut(&text));
            let allowed = usize::try_from(self.left).unwrap_or(usize::MAX).min(piece.len());
            self.left -= allowed as u64;
            let whole = allowed == piece.len();
            let record =
                |stream: LogStream, text: Bytes| Record { time_ms, step, stream: stream.into(), text, mark: None };
            piece.truncate(allowed);
            if !piece.is_empty() {
                self.batch.push(record(stream, piece));
            }
            if !whole {
                if !self.stop.limit.is_cancelled() {
                    let said = format!("[log cut here: the job printed more than its limit of {} bytes]\n", self.limit);
                    self.batch.push(record(LogStream::Notice, said.into()));
                    self.stop.limit.cancel();
                }
                return;
            }
        }
    }

    async fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch = std::mem::take(&mut self.batch);
        if self.failed {
            return;
        }
        if let Err(error) = self.sink.append(batch).await {
            tracing::error!(%error, "a job's log could not be stored: its job ends");
            self.failed = true;
            self.stop.broken.cancel();
        }
    }
}

struct OpenProcess {
    step: i32,
    time_ms: u64,
    /// When a started line is shown without its end.
    due: Option<Instant>,
    parser: OutputParser,
}

/// Where to cut text for one record: behind the last line that fits, else between two characters.
fn cut(text: &[u8]) -> usize {
    if text.len() <= RECORD_TEXT {
        return text.len();
    }
    let head = text.get(..RECORD_TEXT).unwrap_or(text);
    if let Some(at) = memchr::memrchr(b'\n', head) {
        return at + 1;
    }
    let continued = |at: usize| text.get(at).is_some_and(|byte| byte & 0xc0 == 0x80);
    (RECORD_TEXT - 3..=RECORD_TEXT).rev().find(|at| !continued(*at)).unwrap_or(RECORD_TEXT)
}

/// Milliseconds since the Unix epoch.
pub(super) fn now_ms() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or_default()
}
