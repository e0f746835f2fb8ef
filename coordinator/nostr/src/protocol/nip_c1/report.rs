//! What is said of a run: its progress (39842), its jobs' results (9841), its own result (9842), and the end of its jobs' logs
//! while they run (39841).
//!
//! A result is dated by what it reports and made of nothing else, so that making it twice gives one event.

use nostr::{EventId, PublicKey, Tag, TagKind};
use serde_json::json;
use workflow::plan::{Conclusion, Reason};

use crate::{protocol::Draft, tags::tag};
use store::Signer;

use super::{
    JOB_RESULT, LIVE_TAIL, LONGEST_ADVERTISED, PROGRESS, WORKFLOW_RESULT,
    run_subject::{RunSubject, StartedBy},
};

/// Bytes of an event as it is sent: relays commonly take 64 KiB (NIP-11, `max_message_length`), frame included.
const EVENT: usize = 60_000;
/// Bytes for id, key, signature, times and the frame.
const FRAME: usize = 700;
/// Bytes of a log's end in a job's result.
pub const RESULT_TAIL: usize = 4096;
/// Bytes of a log's end while the job runs, and of all of a run together, as JSON.
pub const LIVE_JOB_TAIL: usize = 16_384;
const LIVE_ALL: usize = 48_000;
/// Bytes of one output, and of all that one result names. Readers take 64 KiB; what is sent has to fit one event.
const OUTPUT: usize = 8192;
const OUTPUTS: usize = 20_000;
/// Bytes of names, of URLs and of the like.
const TEXT: usize = 512;

/// How a run or a job ended, in the words of these events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::IntoStaticStr, strum::EnumString)]
#[strum(serialize_all = "snake_case")]
pub enum EndWord {
    /// Well.
    Success,
    /// A step or a job failed.
    Failure,
    /// A failure that is tolerated.
    Neutral,
    /// Somebody or something ended it.
    Cancelled,
    /// It was not to be run.
    Skipped,
    /// It took longer than it may.
    TimedOut,
    /// It did not begin.
    StartupFailure,
}

impl EndWord {
    /// The word for an end of ours.
    pub fn of(conclusion: Conclusion, reason: Option<&Reason>, tolerated: bool) -> Self {
        match (conclusion, reason) {
            (Conclusion::Success, _) => Self::Success,
            (Conclusion::Skipped, _) => Self::Skipped,
            (Conclusion::Cancelled, Some(Reason::Timeout)) => Self::TimedOut,
            (Conclusion::Cancelled, _) => Self::Cancelled,
            (Conclusion::Failure, _) if tolerated => Self::Neutral,
            (Conclusion::Failure, Some(Reason::Timeout)) => Self::TimedOut,
            (
                Conclusion::Failure,
                Some(Reason::StartFailed(_) | Reason::PullFailed(_) | Reason::NoWorker(_) | Reason::Invalid(_)),
            ) => Self::StartupFailure,
            (Conclusion::Failure, _) => Self::Failure,
        }
    }

    fn word(self) -> &'static str {
        self.into()
    }
}

/// Whose request a run was started by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Provenance {
    /// Whether it is a manual trigger; else it is the standing service request.
    pub manual: bool,
    /// The event.
    pub request: EventId,
    /// Where it can be read; may be empty.
    pub relay: String,
    /// Its author.
    pub requester: PublicKey,
}

impl Provenance {
    fn tag(&self) -> Tag {
        let marker = if self.manual { "manual-trigger" } else { "service-request" };
        quote(&self.request.to_hex(), &self.relay, &self.requester.to_hex(), marker)
    }
}

/// A run.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// Its id.
    pub run: String,
    /// Who speaks: the coordinator's key.
    pub us: PublicKey,
    /// What it is of.
    pub subject: RunSubject,
    /// Why it was started.
    pub started_by: StartedBy,
    /// When it was asked for (s).
    pub queued_at: u64,
    /// When its first job began (s).
    pub started_at: Option<u64>,
    /// What it waits for before anything of it begins, for people.
    pub waits: Option<String>,
    /// Whose request it was started by, if anybody's.
    pub provenance: Option<Provenance>,
    /// Where these events can be read.
    pub relay: String,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage<'a> {
    /// Nothing runs yet.
    Queued,
    /// These jobs run.
    InProgress(&'a [String]),
    /// It has ended.
    Concluded(EndWord),
}

/// The result of a job that was published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotedJob {
    /// The event (9841).
    pub event: EventId,
    /// The job.
    pub job: String,
    /// Whether it is what people look for: those are named first where not all fit.
    pub failed: bool,
}

/// The end of a job.
#[derive(Debug, Clone)]
pub struct JobEnd {
    /// Its key: the id in the file, with the number of the cell behind it where there are several.
    pub job: String,
    /// Its name, for people.
    pub name: String,
    /// How it ended.
    pub end: EndWord,
    /// When (s).
    pub ended_at: u64,
    /// When its first step began (s).
    pub started_at: Option<u64>,
    /// Of the failed step; 0 on success. `None`: nothing ran.
    pub exit_code: Option<i32>,
    /// Labels that it asked for.
    pub labels: Vec<String>,
    /// The attempt that counts, from 1, and the worker that made it. `None`: nothing ran.
    pub attempt: Option<(u32, String)>,
    /// Digest of its image.
    pub digest: Option<String>,
    /// Where its complete log is; empty: nowhere.
    pub logs: String,
    /// The end of its log, and how many bytes stand before that.
    pub tail: (String, u64),
    /// What it hands on.
    pub outputs: Vec<(String, String)>,
    /// Files that it made: URL, name of the file, name of the artifact.
    pub artifacts: Vec<[String; 3]>,
}

impl RunReport {
    /// How far the run is, at a time (s): to be made anew before it expires.
    pub fn progress(&self, stage: Stage<'_>, jobs: &[QuotedJob], stamp: u64) -> Draft {
        let mut tags = self.subject.tags(self.started_by);
        tags.push(tag("d", &self.run));
        match stage {
            Stage::Queued => {
                tags.push(tag("status", "queued"));
                // The kind has no word for it; `alt` is for people, in every kind (NIP-31).
                tags.extend(self.waits.as_ref().map(|why| tag("alt", cut(why))));
            }
            Stage::InProgress(running) => {
                tags.push(tag("status", "in_progress"));
                if !running.is_empty() {
                    tags.push(Tag::custom(TagKind::custom("in-progress"), running.iter().take(TEXT)));
                }
            }
            Stage::Concluded(end) => tags.extend([tag("status", "concluded"), tag("conclusion", end.word())]),
        }
        self.times(&mut tags);
        tags.push(tag("expiration", (stamp + LONGEST_ADVERTISED).to_string()));
        // By which request it runs is decided when it begins.
        let provenance = self.provenance.iter().filter(|by| by.manual || stage != Stage::Queued);
        tags.extend(provenance.map(Provenance::tag));
        self.quotes(&mut tags, jobs);
        Draft::new(&self.us, stamp, PROGRESS, tags, Signer::Coordinator)
    }

    /// The result of a job.
    pub fn job_result(&self, job: &JobEnd) -> Draft {
        let mut tags = self.subject.tags(self.started_by);
        let address = format!("{PROGRESS}:{}:{}", self.us, self.run);
        tags.push(Tag::custom(TagKind::custom("q"), [address.as_str(), &self.relay]));
        tags.extend(self.provenance.iter().filter(|by| by.manual).map(Provenance::tag));
        tags.extend([tag("job", cut(&job.job)), tag("name", cut(&job.name)), tag("conclusion", job.end.word())]);
        if !job.logs.is_empty() {
            tags.push(tag("logs", &job.logs));
        }
        tags.push(tag("queued_at", self.queued_at.to_string()));
        tags.extend(job.started_at.map(|at| tag("started_at", at.to_string())));
        tags.extend(job.exit_code.map(|code| tag("exit_code", code.to_string())));
        if !job.labels.is_empty() {
            tags.push(Tag::custom(TagKind::custom("runs_on"), job.labels.iter().take(16).map(|label| cut(label))));
        }
        if let Some((attempt, worker)) = &job.attempt {
            tags.extend([tag("attempt", attempt.to_string()), tag("runner", cut(worker))]);
        }
        tags.extend(job.digest.as_ref().map(|digest| tag("digest", cut(digest))));
        let (tail, before) = &job.tail;
        let kept = end_of(tail, RESULT_TAIL);
        let omitted = before + (tail.len() - kept.len()) as u64;
        let content = match (kept, omitted) {
            ("", 0) => String::new(),
            _ => format!("[log-tail omitted={omitted}]\n{kept}"),
        };
        let mut room = Room::beside(&tags, encoded(&content));
        outputs(&mut tags, &job.outputs, &mut room);
        for [url, file, artifact] in &job.artifacts {
            let named = Tag::custom(TagKind::custom("artifact"), [url, file, artifact]);
            if room.take(&named) {
                tags.push(named);
            }
        }
        Draft::with_content(&self.us, job.ended_at, JOB_RESULT, tags, content)
    }

    /// The result of the run, which ended at a time (s).
    pub fn result(&self, end: EndWord, jobs: &[QuotedJob], ended_at: u64) -> Draft {
        let mut tags = self.subject.tags(self.started_by);
        tags.extend([tag("r", &self.run), tag("conclusion", end.word())]);
        self.times(&mut tags);
        tags.extend(self.provenance.iter().map(Provenance::tag));
        self.quotes(&mut tags, jobs);
        Draft::new(&self.us, ended_at, WORKFLOW_RESULT, tags, Signer::Coordinator)
    }

    /// The ends of the logs of jobs that run, at a time (s): of each its key, the text, and how many bytes stand before it.
    pub fn live_tail(&self, jobs: &[(String, String, u64)], stamp: u64) -> Draft {
        let mut tags = self.subject.tags(self.started_by);
        tags.extend([tag("d", &self.run), tag("expiration", (stamp + LONGEST_ADVERTISED).to_string())]);
        let mut each = LIVE_JOB_TAIL.min(LIVE_ALL / jobs.len().max(1));
        let content = loop {
            let tails = jobs.iter().map(|(job, text, before)| {
                let tail = end_of(text, each);
                json!({ "job": job, "tail": tail, "omitted": before + (text.len() - tail.len()) as u64 })
            });
            let content = json!({ "jobs": tails.collect::<Vec<_>>() }).to_string();
            // Signs that JSON writes with many more bytes.
            if encoded(&content) <= LIVE_ALL || each == 0 {
                break content;
            }
            each /= 2;
        };
        Draft::with_content(&self.us, stamp, LIVE_TAIL, tags, content)
    }

    fn times(&self, tags: &mut Vec<Tag>) {
        tags.push(tag("queued_at", self.queued_at.to_string()));
        tags.extend(self.started_at.map(|at| tag("started_at", at.to_string())));
    }

    /// Names jobs' results: all of them, or as many as one event holds.
    fn quotes(&self, tags: &mut Vec<Tag>, jobs: &[QuotedJob]) {
        let us = self.us.to_hex();
        let of = |job: &QuotedJob| quote(&job.event.to_hex(), &self.relay, &us, &job.job);
        let mut room = Room::beside(tags, 0);
        let (failed, others): (Vec<&QuotedJob>, Vec<&QuotedJob>) = jobs.iter().partition(|job| job.failed);
        tags.extend(failed.into_iter().chain(others).map(of).take_while(|quoted| room.take(quoted)));
    }
}

/// `q`: an event, where it can be read, who signed it, and what it is.
fn quote(event: &str, relay: &str, author: &str, marker: &str) -> Tag {
    Tag::custom(TagKind::custom("q"), [event, relay, author, marker])
}

/// `output` and `output-omitted`: what a job hands on, each name once.
fn outputs(tags: &mut Vec<Tag>, outputs: &[(String, String)], room: &mut Room) {
    let mut all = Room { bytes: OUTPUTS.min(room.bytes) };
    for (name, value) in outputs.iter().filter(|(name, _)| !name.is_empty() && name.len() <= TEXT) {
        let whole = Tag::custom(TagKind::custom("output"), [name, value]);
        if value.len() <= OUTPUT && all.take(&whole) {
            room.take(&whole);
            tags.push(whole);
            continue;
        }
        let omitted = Tag::custom(TagKind::custom("output-omitted"), [name.as_str(), "oversized"]);
        if room.take(&omitted) {
            tags.push(omitted);
        }
    }
}

/// Bytes that are left in an event.
struct Room {
    bytes: usize,
}

impl Room {
    fn beside(tags: &[Tag], content: usize) -> Self {
        let used = tags.iter().map(size).sum::<usize>() + content + FRAME;
        Self { bytes: EVENT.saturating_sub(used) }
    }

    /// Whether there is room for a tag; then it is taken.
    fn take(&mut self, tag: &Tag) -> bool {
        match self.bytes.checked_sub(size(tag)) {
            Some(left) => {
                self.bytes = left;
                true
            }
            None => false,
        }
    }
}

/// Bytes of a tag as JSON, with its comma.
fn size(tag: &Tag) -> usize {
    tag.as_slice().iter().map(|text| encoded(text) + 1).sum::<usize>() + 2
}

/// Bytes of a text as JSON.
fn encoded(text: &str) -> usize {
    let of = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..0x20 | 0x7f => 6,
        _ => 1,
    };
    text.bytes().map(of).sum::<usize>() + 2
}

/// The end of a text, of whole characters.
fn end_of(text: &str, bytes: usize) -> &str {
    text.get(text.ceil_char_boundary(text.len().saturating_sub(bytes))..).unwrap_or_default()
}

fn cut(text: &str) -> &str {
    text.get(..text.floor_char_boundary(TEXT)).unwrap_or_default()
}
