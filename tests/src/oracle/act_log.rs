//! The log parser of the Hive CI viewer.

/// How a job or step looks in the viewer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Nothing was said.
    Pending,
    /// A tick.
    Success,
    /// A cross.
    Failure,
}

/// A job as the viewer shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedJob {
    /// Trimmed, without a trailing `-<digits>`.
    pub name: String,
    /// Failure sticks.
    pub status: Status,
    /// In the order they began.
    pub steps: Vec<ParsedStep>,
}

impl ParsedJob {
    /// Milliseconds: the sum of its steps, there is no line for it.
    pub fn duration_ms(&self) -> f64 {
        self.steps.iter().filter_map(|step| step.duration_us).map(|us| us as f64 / 1000.0).sum()
    }
}

/// A step as the viewer shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParsedStep {
    /// As in the marker; the display drops one leading `Main `, `Pre ` or `Post `.
    pub name: String,
    /// Pending where no end was read.
    pub status: Status,
    /// Microseconds.
    pub duration_us: Option<u64>,
    /// What it shows below the step.
    pub lines: Vec<String>,
}

struct Reading {
    job: ParsedJob,
    owed: bool,
}

/// Reads a log as the viewer does.
pub fn parse(text: &str) -> Vec<ParsedJob> {
    let mut jobs: Vec<Reading> = Vec::new();
    let mut current: Option<usize> = None;
    for line in text.split('\n') {
        let (content, prefixed) = match prefix(line) {
            Some((name, content)) => {
                let position = jobs.iter().position(|reading| reading.job.name == name).unwrap_or_else(|| {
                    let job = ParsedJob { name, status: Status::Pending, steps: Vec::new() };
                    jobs.push(Reading { job, owed: false });
                    jobs.len() - 1
                });
                current = Some(position);
                (content, true)
            }
            None => (line, false),
        };
        if let Some(reading) = current.and_then(|position| jobs.get_mut(position)) {
            reading.line(content, prefixed);
        }
    }
    jobs.into_iter().map(|reading| reading.job).collect()
}

impl Reading {
    fn line(&mut self, content: &str, prefixed: bool) {
        let plain = without_ansi(content);
        if std::mem::take(&mut self.owed) && !prefixed {
            match (duration(&plain), self.job.steps.last_mut()) {
                (Some(duration), Some(step)) => step.duration_us = Some(duration),
                _ => self.owed = true,
            }
            return;
        }
        if let Some((_, name)) = plain.split_once("⭐ Run ") {
            let name = name.trim().to_owned();
            self.job.steps.push(ParsedStep { name, status: Status::Pending, duration_us: None, lines: Vec::new() });
        } else if plain.contains('✅') && plain.contains("Success") {
            self.end(Status::Success, &plain);
        } else if plain.contains('❌') && plain.contains("Failure") {
            self.end(Status::Failure, &plain);
            self.job.status = Status::Failure;
        } else if plain.contains('🏁') {
            if !plain.contains("succeeded") {
                self.job.status = Status::Failure;
            } else if self.job.status != Status::Failure {
                self.job.status = Status::Success;
            }
        } else if let Some(step) = self.job.steps.last_mut() {
            let shown = content.strip_prefix('|').map(|rest| {
                let mut characters = rest.chars();
                if characters.next().is_some_and(char::is_whitespace) { characters.as_str() } else { rest }
            });
            step.lines.push(shown.unwrap_or(content).to_owned());
        }
    }

    fn end(&mut self, status: Status, plain: &str) {
        if let Some(step) = self.job.steps.last_mut() {
            step.status = status;
            step.duration_us = duration(plain);
            self.owed = step.duration_us.is_none();
        }
    }
}

/// `^\[([^\]/]+)\/([^\]]+)\]\s(.*)$` of JavaScript: the job's name and the rest.
fn prefix(line: &str) -> Option<(String, &str)> {
    let (inside, rest) = line.strip_prefix('[')?.split_once(']')?;
    let (workflow, job) = inside.split_once('/')?;
    if workflow.is_empty() || job.is_empty() {
        return None;
    }
    let mut characters = rest.chars();
    characters.next().filter(|c| c.is_whitespace() || *c == '\u{feff}')?;
    let content = characters.as_str();
    if content.contains(['\r', '\u{2028}', '\u{2029}']) {
        return None;
    }
    let job = job.trim();
    let name = match job.rsplit_once('-') {
        Some((name, digits)) if !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => job,
    };
    Some((name.to_owned(), content))
}

/// `\[(?:(\d+)m)?(\d+(?:\.\d+)?)(ms|s)\]`, the first match, in microseconds.
fn duration(text: &str) -> Option<u64> {
    let pattern = regex::Regex::new(r"\[(?:(\d+)m)?(\d+(?:\.\d+)?)(ms|s)\]").ok()?;
    let found = pattern.captures(text)?;
    let minutes: f64 = found.get(1).map_or(Some(0.0), |text| text.as_str().parse().ok())?;
    let number: f64 = found.get(2)?.as_str().parse().ok()?;
    let unit = if found.get(3)?.as_str() == "ms" { 1e3 } else { 1e6 };
    Some((minutes * 60e6 + number * unit).round() as u64)
}

fn without_ansi(text: &str) -> String {
    match regex::Regex::new("\u{1b}\\[[0-9;?]*[ -/]*[@-~]") {
        Ok(pattern) => pattern.replace_all(text, "").into_owned(),
        Err(_) => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sample that was run through the viewer's own function, with what it gave.
    #[test]
    fn the_known_sample_gives_the_known_result() {
        let jobs = parse(
            "[CI/build] ⭐ Run Set up job\n\
             [CI/build] ✅  Success - Set up job [412ms]\n\
             [CI/build] ⭐ Run Main actions/checkout@v4\n\
             [CI/build] | Syncing repository\n\
             [CI/build] ✅  Success - Main actions/checkout@v4 [1.23s]\n\
             [CI/build] ⭐ Run Main cargo test\n\
             [CI/build] | running 3 tests\n\
             [CI/build] ❌  Failure - Main cargo test [2m3.5s]\n\
             [CI/build] ⭐ Run Complete job\n\
             [CI/build] ✅  Success - Complete job [3ms]\n\
             [CI/build] 🏁  Job failed\n\
             [CI/Test (linux)-1] ⭐ Run Main test\n\
             [CI/Test (linux)-1] ✅  Success - Main test [4.1s]\n\
             [CI/Test (linux)-1] 🏁  Job succeeded",
        );
        let summary: Vec<_> =
            jobs.iter().map(|job| (job.name.as_str(), job.status, job.duration_ms(), job.steps.len())).collect();
        assert_eq!(summary, [("build", Status::Failure, 125_145.0, 4), ("Test (linux)", Status::Success, 4100.0, 1)]);
        assert_eq!(jobs[0].steps[2].lines, ["running 3 tests"]);
    }

    #[test]
    fn a_carriage_return_hides_the_prefix_and_an_owed_duration_eats_lines() {
        let jobs = parse("lost\n[a/b] ⭐ Run x\n[a/b] | p\r\n[a/b] ✅ Success\nnoise\n[3s]\nafter\n[a/b-2] | shown");
        assert_eq!(jobs.len(), 1);
        assert_eq!(jobs[0].steps[0].lines, ["[a/b] | p\r", "after", "shown"]);
        assert_eq!(jobs[0].steps[0].duration_us, Some(3_000_000));
    }
}
