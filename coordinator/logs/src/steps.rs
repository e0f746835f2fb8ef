//! Records of one attempt as steps with whole lines. Pure.

use std::collections::{BTreeMap, VecDeque};

use proto::{
    STEP_CLEANUP, STEP_SETUP,
    worker::{LogRecord, LogStream, Mark},
};
use serde::{Deserialize, Serialize};
use workflow::plan::Conclusion;

/// The viewer of the act format takes logs shorter than this, in bytes. Of one step no more is kept.
pub const LIMIT: usize = 1024 * 1024;
/// Bytes of memory that the lines of one attempt, or those of a whole run, take. However many steps share the viewer's
/// limit, of each more is kept than it can show.
pub(super) const MOST: usize = 8 * LIMIT;
/// Bytes of memory that a line takes besides its text.
const LINE: usize = 48;
/// Steps of an attempt; what further ones print stands with the last of them.
const STEPS: usize = 2000;
/// Bytes of a line; a longer one is shown as several.
const LONGEST: usize = LIMIT;

/// One step as it was printed.
#[derive(Debug)]
pub(super) struct Step {
    index: i32,
    pub(super) name: String,
    pub(super) lines: Lines,
    /// Its conclusion and its milliseconds; `None`: the log has no end of it.
    pub(super) end: Option<(Conclusion, u64)>,
    first_ms: u64,
    last_ms: u64,
    joiner: Joiner,
}

impl Step {
    pub(super) fn new(index: i32, name: String, time_ms: u64) -> Self {
        let joiner = Joiner::default();
        Self { index, name, lines: Lines::default(), end: None, first_ms: time_ms, last_ms: time_ms, joiner }
    }

    /// Milliseconds it took, as far as is known.
    pub(super) fn duration_ms(&self) -> u64 {
        self.end.map_or(self.last_ms.saturating_sub(self.first_ms), |(_, duration)| duration)
    }
}

/// What one attempt printed, taken piece by piece, of each step the beginning and the end.
#[derive(Debug)]
pub struct Printed {
    steps: Vec<Step>,
    /// Bytes of memory of a step's first lines, and of its last.
    room: usize,
}

impl Default for Printed {
    fn default() -> Self {
        Self::within(LIMIT)
    }
}

impl Printed {
    /// With so many bytes of memory for a step's first lines, and for its last.
    pub(super) fn within(room: usize) -> Self {
        Self { steps: Vec::new(), room }
    }

    /// Takes the next records. Output that comes after its step ended (of a background process) still belongs to it.
    pub fn push(&mut self, records: &[LogRecord]) {
        for record in records {
            self.take(record);
        }
        while self.bytes() > MOST && self.room > LINE {
            self.shrink(self.room / 2);
        }
    }

    /// Bytes of memory of its lines.
    pub(super) fn bytes(&self) -> usize {
        self.steps.iter().map(|step| step.lines.first_bytes + step.lines.last_bytes).sum()
    }

    /// Keeps less of each step.
    pub(super) fn shrink(&mut self, room: usize) {
        self.room = self.room.min(room);
        self.steps.iter_mut().for_each(|step| step.lines.shrink(self.room));
    }

    /// Whether it printed nothing at all.
    pub(super) fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Its steps, none left without its last line.
    pub(super) fn into_steps(mut self) -> Vec<Step> {
        for step in &mut self.steps {
            let lines = &mut step.lines;
            step.joiner.flush(|_, text| returned(&text).for_each(|line| lines.push(line.to_owned(), self.room)));
        }
        self.steps
    }

    fn take(&mut self, record: &LogRecord) {
        let (steps, room) = (&mut self.steps, self.room);
        match (&record.mark, record.stream()) {
            (Some(mark), LogStream::Mark) if !mark.ended && steps.len() < STEPS => {
                steps.push(Step::new(record.step, mark.name.clone(), record.time_ms));
            }
            (Some(mark), LogStream::Mark) => {
                let position = steps
                    .iter()
                    .rposition(|step| step.index == record.step && step.end.is_none() && step.name == mark.name)
                    .or_else(|| steps.iter().rposition(|step| step.index == record.step && step.end.is_none()));
                if position.is_none() && steps.len() >= STEPS {
                    return;
                }
                let end = Some((conclusion(mark), mark.duration_ms));
                with(steps, position, record, &mark.name, |step| step.end = end);
            }
            _ => {
                let position = steps.iter().rposition(|step| step.index == record.step);
                let position = position.or_else(|| (steps.len() >= STEPS).then_some(STEPS - 1));
                with(steps, position, record, &unnamed(record.step), |step| {
                    step.last_ms = record.time_ms;
                    let lines = &mut step.lines;
                    step.joiner
                        .push(record, |_, text| returned(&text).for_each(|line| lines.push(line.to_owned(), room)));
                });
            }
        }
    }
}

/// A step's first and last lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    first: Vec<String>,
    /// Bytes of memory.
    first_bytes: usize,
    last: VecDeque<String>,
    last_bytes: usize,
    left_out: usize,
}

impl Lines {
    /// Adds a line. Of the first lines and of the last ones so many bytes of memory are kept, or the beginning of one line.
    pub(super) fn push(&mut self, mut line: String, room: usize) {
        shorten(&mut line, room);
        if self.last.is_empty() && self.left_out == 0 && self.first_bytes < room {
            self.first_bytes += size(&line);
            self.first.push(line);
            return;
        }
        self.last_bytes += size(&line);
        self.last.push_back(line);
        self.shrink_last(room);
    }

    fn shrink(&mut self, room: usize) {
        let mut bytes = 0;
        let kept = self.first.iter().take_while(|line| {
            bytes += size(line);
            bytes <= room
        });
        let kept = kept.count().max(1).min(self.first.len());
        for line in self.first.split_off(kept).into_iter().rev() {
            match self.left_out {
                0 => self.last.push_front(line),
                _ => self.left_out += 1,
            }
        }
        self.first.iter_mut().chain(&mut self.last).for_each(|line| shorten(line, room));
        self.first_bytes = self.first.iter().map(|line| size(line)).sum();
        self.last_bytes = self.last.iter().map(|line| size(line)).sum();
        self.shrink_last(room);
    }

    fn shrink_last(&mut self, room: usize) {
        while self.last_bytes > room
            && self.last.len() > 1
            && let Some(line) = self.last.pop_front()
        {
            self.last_bytes -= size(&line);
            self.left_out += 1;
        }
    }

    pub(super) fn insert_first(&mut self, line: String) {
        self.first.insert(0, line);
    }

    /// Lines between the first and the last that are not here.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &String> {
        self.first.iter().chain(&self.last)
    }
}

/// Cuts a line that alone has more than `room`.
fn shorten(line: &mut String, room: usize) {
    if line.len() > room {
        line.truncate(line.floor_char_boundary(room));
        line.shrink_to_fit();
    }
}

/// Bytes of memory of a line.
fn size(line: &str) -> usize {
    line.len() + LINE
}

/// Changes the step at a position, or a new one.
fn with(
    steps: &mut Vec<Step>,
    position: Option<usize>,
    record: &LogRecord,
    name: &str,
    change: impl FnOnce(&mut Step),
) {
    if let Some(step) = position.and_then(|position| steps.get_mut(position)) {
        return change(step);
    }
    let mut step = Step::new(record.step, name.to_owned(), record.time_ms);
    change(&mut step);
    steps.push(step);
}

fn unnamed(index: i32) -> String {
    match index {
        STEP_SETUP => SETUP.to_owned(),
        STEP_CLEANUP => "Complete job".to_owned(),
        index => format!("Step {}", i64::from(index) + 1),
    }
}

/// The step around the steps that act and GitHub show first.
pub(super) const SETUP: &str = "Set up job";

fn conclusion(mark: &Mark) -> Conclusion {
    match mark.conclusion.as_str() {
        "success" => Conclusion::Success,
        "skipped" => Conclusion::Skipped,
        "cancelled" => Conclusion::Cancelled,
        _ => Conclusion::Failure,
    }
}

/// Makes whole lines of pieces; stdout, stderr and notices may interleave in the middle of a line.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Joiner([Partial; 3]);

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Partial {
    since_ms: u64,
    bytes: Vec<u8>,
}

impl Joiner {
    /// Gives each line that this piece completes, with the time its first byte was printed. Carriage returns inside of it
    /// stay: see [`returned`] and [`last_state`].
    pub(super) fn push(&mut self, record: &LogRecord, mut emit: impl FnMut(u64, String)) {
        let [stdout, stderr, notice] = &mut self.0;
        let partial = match record.stream() {
            LogStream::Stderr => stderr,
            LogStream::Notice => notice,
            LogStream::Stdout | LogStream::Unspecified | LogStream::Mark => stdout,
        };
        for piece in record.text.split_inclusive(|byte| *byte == b'\n') {
            if partial.bytes.is_empty() {
                partial.since_ms = record.time_ms;
            }
            partial.bytes.extend_from_slice(piece);
            if piece.ends_with(b"\n") || partial.bytes.len() >= LONGEST {
                partial.end(&mut emit);
            }
        }
    }

    /// Forgets what was overwritten of lines that have no end yet.
    fn forget_overwritten(&mut self) {
        for partial in &mut self.0 {
            // What follows the last one overwrites; one at the end may belong to a line end.
            let Some((_, before)) = partial.bytes.split_last() else { continue };
            if let Some(at) = before.iter().rposition(|byte| *byte == b'\r') {
                partial.bytes.drain(..=at);
            }
        }
    }

    /// Bytes that wait for their line's end.
    fn pending(&self) -> usize {
        self.0.iter().map(|partial| partial.bytes.len()).sum()
    }

    /// Gives what was left without a line end.
    pub(super) fn flush(&mut self, mut emit: impl FnMut(u64, String)) {
        for partial in self.0.iter_mut().filter(|partial| !partial.bytes.is_empty()) {
            partial.end(&mut emit);
        }
    }
}

/// A joiner for each step: steps may print at once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Joiners(BTreeMap<i32, Joiner>);

impl Joiners {
    /// As [`Joiner::push`].
    pub(super) fn push(&mut self, record: &LogRecord, emit: impl FnMut(u64, String)) {
        let joiner = self.0.entry(record.step).or_default();
        joiner.push(record, emit);
        if joiner.pending() == 0 {
            self.0.remove(&record.step);
        }
    }

    /// For lines that are shown in their last state: what was overwritten needs no room.
    pub(super) fn forget_overwritten(&mut self, step: i32) {
        self.0.get_mut(&step).into_iter().for_each(Joiner::forget_overwritten);
    }

    /// As [`Joiner::pending`].
    pub(super) fn pending(&self) -> usize {
        self.0.values().map(Joiner::pending).sum()
    }

    /// As [`Joiner::flush`], with the step before.
    pub(super) fn flush(&mut self, mut emit: impl FnMut(i32, u64, String)) {
        for (step, mut joiner) in std::mem::take(&mut self.0) {
            joiner.flush(|time_ms, text| emit(step, time_ms, text));
        }
    }
}

impl Partial {
    fn end(&mut self, emit: &mut impl FnMut(u64, String)) {
        let text = String::from_utf8_lossy(&self.bytes);
        let text = text.strip_suffix('\n').unwrap_or(&text).trim_end_matches('\r');
        emit(self.since_ms, text.to_owned());
        self.bytes.clear();
    }
}

/// The lines of a text in which a carriage return is a line end of its own, as in the log that the runner of GitHub keeps:
/// a progress bar is as many lines as it had states.
pub(super) fn returned(text: &str) -> std::str::Split<'_, char> {
    text.split('\r')
}

/// What a terminal shows of a line in the end: what was printed after its last carriage return.
pub(super) fn last_state(text: &str) -> &str {
    text.rsplit('\r').next().unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_keeps_its_first_and_last_lines_and_counts_the_others() {
        let mut lines = Lines::default();
        let count = 5 * LIMIT / 100;
        (0..count).for_each(|number| lines.push(format!("{number:052}"), LIMIT));
        for room in [LIMIT, LIMIT / 2, LIMIT / 64] {
            lines.shrink(room);
            let kept: Vec<_> = lines.iter().collect();
            assert_eq!(kept.len() + lines.left_out(), count);
            assert!(kept.len() * 100 <= 2 * room + 100, "{} lines are kept", kept.len());
            assert_eq!(kept.first().map(|line| line.trim_start_matches('0')), Some(""));
            assert!(kept.last().is_some_and(|line| line.ends_with(&(count - 1).to_string())));
        }
    }

    fn printed(step: i32, text: &[u8]) -> LogRecord {
        LogRecord { step, stream: LogStream::Stdout.into(), text: text.to_vec().into(), ..LogRecord::default() }
    }

    #[test]
    fn attack_08_what_is_kept_for_the_viewer_takes_little_memory_whatever_was_printed() {
        let (empty, endless) = (vec![b'\n'; 20_000], vec![b'x'; 20_000]);
        for text in [&empty, &endless] {
            let mut all = Printed::default();
            for step in 0..20 {
                (0..60).for_each(|_| all.push(&[printed(step, text)]));
            }
            assert!(all.bytes() <= MOST, "{} bytes are held", all.bytes());
            let waiting: usize = all.steps.iter().map(|step| step.joiner.pending()).sum();
            assert!(waiting <= 20 * LONGEST, "{waiting} bytes wait for the end of their line");
            assert_eq!(all.steps.len(), 20);
        }
    }

    #[test]
    fn attack_08_an_attempt_of_very_many_steps_has_them_in_the_last_one() {
        let mark = |step: i32, ended| LogRecord {
            step,
            stream: LogStream::Mark.into(),
            mark: Some(Mark { name: step.to_string(), ended, ..Mark::default() }),
            ..LogRecord::default()
        };
        let mut all = Printed::default();
        for step in 0..10_000 {
            all.push(&[mark(step, false), printed(step, b"a line\n"), mark(step, true)]);
        }
        let steps = all.into_steps();
        assert_eq!(steps.len(), STEPS);
        let lines: usize = steps.iter().map(|step| step.lines.iter().count()).sum();
        assert_eq!(lines, 10_000, "no line is lost");
    }
}
