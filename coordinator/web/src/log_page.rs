//! The page of one job's log: lines that can be read without a script, which a script makes live and endless.

use askama::Template;
use axum::{
    extract::{Path, State},
    response::Html,
};
use serde::Deserialize;

use domain::id::{JobKey, RunId};

use super::{
    QueryParams, Refusal, Web,
    auth::Caller,
    dto::turns,
    html::{HtmlError, rendered},
    links, log_lines, run_lookup, time,
};
use logs::lines::NumberedLine;

/// Lines on one page.
const PAGE: u64 = 500;

/// Which lines are shown.
#[derive(Debug, Deserialize)]
pub(super) struct LogPageQuery {
    job: JobKey,
    attempt: Option<u32>,
    /// The first one.
    from: Option<u64>,
    /// One that is to be seen.
    line: Option<u64>,
    /// Name of the step to begin with.
    step: Option<String>,
}

#[derive(Template)]
#[template(path = "log.html")]
struct Log<'a> {
    pool: &'a str,
    run: &'a RunId,
    /// Where the run's whole log is.
    text: String,
    serial: u64,
    job: &'a JobKey,
    name: &'a str,
    attempt: u32,
    total: u64,
    complete: bool,
    from: u64,
    here: u64,
    lines: Vec<NumberedLine>,
}

pub(super) async fn log(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
    QueryParams(wanted): QueryParams<LogPageQuery>,
) -> Result<Html<String>, HtmlError> {
    let run = run_lookup::find(&web, &caller, &id).await?;
    let (attempt, complete) = log_lines::attempt(&run, &wanted.job, wanted.attempt)?;
    let (job, logs) = (&wanted.job, &web.logs);
    let mut here = wanted.line.unwrap_or(0);
    if let Some(step) = &wanted.step {
        here = logs.step(&run.id, job, attempt, step).await.map_err(Refusal::from)?.unwrap_or(0);
    }
    let from = wanted.from.unwrap_or_else(|| here.saturating_sub(5)).max(1);
    let to = from.saturating_add(PAGE - 1);
    let range = logs.lines(&run.id, job, attempt, complete, (from, to)).await.map_err(Refusal::from)?;
    rendered(&Log {
        pool: &web.settings.name,
        run: &run.id,
        text: links::full_log(&web, caller.key.as_deref(), &run),
        serial: run.serial,
        job,
        name: run.jobs.get(job).map_or("", |job| &job.name),
        attempt,
        total: range.total,
        complete,
        from,
        here,
        lines: range.lines,
    })
}

impl Log<'_> {
    /// Address of the page that begins with a line.
    fn page(&self, from: u64) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        query.append_pair("job", self.job.as_str()).append_pair("attempt", &self.attempt.to_string());
        query.append_pair("from", &from.to_string());
        format!("/runs/{}/log?{}", self.run, query.finish())
    }

    fn previous(&self) -> Option<String> {
        (self.from > 1).then(|| self.page(self.from.saturating_sub(PAGE).max(1)))
    }

    fn next(&self) -> Option<String> {
        let last = self.lines.last()?.number;
        (last < self.total).then(|| self.page(last + 1))
    }
}

/// How a page shows a line.
trait Shown {
    fn plain(&self) -> String;
    fn beside(&self) -> String;
    fn clock(&self) -> String;
}

impl Shown for NumberedLine {
    /// The text without control sequences.
    fn plain(&self) -> String {
        let text = strip_ansi(&self.text);
        match &self.ended {
            Some((conclusion, duration)) => format!("{text}: {conclusion} after {duration} ms"),
            None => text,
        }
    }

    /// The step, where several print at the same time.
    fn beside(&self) -> String {
        self.within.as_deref().map(|step| format!("[{}] ", strip_ansi(step))).unwrap_or_default()
    }

    fn clock(&self) -> String {
        time::moment(&self.time_ms)
    }
}

/// A text without control sequences (ECMA-48).
fn strip_ansi(text: &str) -> String {
    let mut kept = String::with_capacity(text.len());
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        if letter != '\u{1b}' {
            match letter {
                _ if turns(letter) => kept.push(char::REPLACEMENT_CHARACTER),
                '\t' => kept.push(letter),
                _ if !letter.is_control() => kept.push(letter),
                _ => {}
            }
            continue;
        }
        match letters.next() {
            Some('[') => while letters.next().is_some_and(|letter| !('\u{40}'..='\u{7e}').contains(&letter)) {},
            Some(']') => {
                while letters.next_if(|letter| *letter != '\u{7}' && *letter != '\u{1b}').is_some() {}
                letters.next_if_eq(&'\u{7}');
            }
            _ => {}
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attack_49_control_sequences_leave_no_trace_and_turned_text_is_shown_to_be() {
        let cases = [
            ("\u{1b}[1;31mred\u{1b}[0m and plain", "red and plain"),
            ("\u{1b}]0;title\u{7}after", "after"),
            ("cut \u{1b}[31", "cut "),
            ("a\u{8}b\tc", "ab\tc"),
            ("\u{1b}]8;;javascript:alert(1)\u{1b}\\link\u{1b}]8;;\u{7}", "link"),
            ("\u{1b}]52;c;aGk=\u{7}\u{1b}[2K\u{1b}[1Aover", "over"),
            ("safe\u{202e}gnp.exe", "safe\u{fffd}gnp.exe"),
        ];
        assert!(cases.iter().all(|(text, plain)| strip_ansi(text) == *plain));
    }
}
