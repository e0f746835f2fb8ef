//! A run as a tree of jobs and steps, in as many lines as there is room for. Pure: moments are milliseconds.

use std::collections::BTreeMap;

use console::{Style, strip_ansi_codes, truncate_str};
use indexmap::IndexMap;

use super::printable::printable;

/// Pictures of something that goes on, one after the other.
const TURNING: [&str; 4] = ["◐", "◓", "◑", "◒"];
/// How long each is shown, in milliseconds.
const TURN: u64 = 250;

/// How far a job or a step came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StatusMark {
    Waiting,
    Running,
    Success,
    Failure,
    Cancelled,
    Skipped,
}

impl StatusMark {
    /// What a conclusion's name says; anything else goes on.
    pub(crate) fn of(conclusion: &str) -> Self {
        match conclusion {
            "success" => Self::Success,
            "failure" => Self::Failure,
            "cancelled" => Self::Cancelled,
            "skipped" => Self::Skipped,
            _ => Self::Running,
        }
    }

    fn picture(self, now: u64) -> &'static str {
        match self {
            Self::Waiting => "○",
            Self::Running => TURNING.iter().cycle().nth((now / TURN % 4) as usize).copied().unwrap_or("◐"),
            Self::Success => "✓",
            Self::Failure => "✗",
            Self::Cancelled => "⊘",
            Self::Skipped => "–",
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Waiting | Self::Skipped => Style::new().dim(),
            Self::Running => Style::new().cyan(),
            Self::Success => Style::new().green(),
            Self::Failure => Style::new().red(),
            Self::Cancelled => Style::new().yellow(),
        }
    }

    /// Its picture, as it stands in a line.
    pub(crate) fn shown(self) -> String {
        self.style().apply_to(self.picture(0)).to_string()
    }

    fn is_open(self) -> bool {
        matches!(self, Self::Waiting | Self::Running)
    }
}

/// Jobs by key, in the plan's order.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    jobs: IndexMap<String, TreeNode>,
}

/// A job with its steps, or a step.
#[derive(Debug)]
struct TreeNode {
    name: String,
    mark: StatusMark,
    /// Why it waits or failed.
    note: String,
    since: Option<u64>,
    took: Option<u64>,
    /// By number, the order in which they run.
    steps: BTreeMap<i32, TreeNode>,
}

/// How much of a job is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DetailLevel {
    Steps,
    /// Steps of what goes on or failed.
    Open,
    /// The step that runs, or that failed.
    Current,
    Jobs,
}

impl Tree {
    /// A job is, or is now, in this state.
    pub(crate) fn job(&mut self, key: &str, name: &str, mark: StatusMark, note: &str, now: u64) {
        let entry = self.jobs.entry(key.to_owned()).or_insert_with(|| TreeNode::new(name));
        entry.turn(name, mark, note, now);
    }

    /// When a job began and ended, as somebody says who was there.
    pub(crate) fn times(&mut self, key: &str, began: Option<u64>, ended: Option<u64>) {
        let (Some(job), Some(began)) = (self.jobs.get_mut(key), began) else { return };
        job.since = Some(began);
        job.took = ended.map(|ended| ended.saturating_sub(began)).or(job.took);
    }

    /// A step of a job is, or is now, in this state.
    pub(crate) fn step(&mut self, job: &str, number: i32, name: &str, mark: StatusMark, now: u64) {
        let entry = self.jobs.entry(job.to_owned()).or_insert_with(|| TreeNode::new(job));
        entry.steps.entry(number).or_insert_with(|| TreeNode::new(name)).turn(name, mark, "", now);
    }

    /// A job runs once more: the steps of the attempt before say nothing about it.
    pub(crate) fn restart(&mut self, job: &str) {
        if let Some(job) = self.jobs.get_mut(job) {
            job.steps.clear();
        }
    }

    /// Forgets jobs that are no more, such as the one that became the legs of its matrix.
    pub(crate) fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.jobs.retain(|key, _| exists(key));
    }

    /// The tree in at most `height` lines of at most `width` columns.
    pub(crate) fn lines(&self, width: usize, height: usize, now: u64) -> Vec<String> {
        let mut lines = Vec::new();
        for detail in [DetailLevel::Steps, DetailLevel::Open, DetailLevel::Current, DetailLevel::Jobs] {
            lines = self.jobs.values().flat_map(|job| job.lines(detail, now)).collect();
            if lines.len() <= height {
                break;
            }
        }
        if lines.len() > height {
            lines = self.most_wanted(height, now);
        }
        lines.iter().map(|line| truncate_str(line, width, "…").into_owned()).collect()
    }

    /// The tree that stays when all is over: the jobs, and the steps of those that failed.
    pub(crate) fn last_lines(&self, width: usize, now: u64) -> Vec<String> {
        let lines = self.jobs.values().flat_map(|job| job.lines(DetailLevel::Open, now));
        lines.map(|line| truncate_str(&line, width, "…").into_owned()).collect()
    }

    /// Only some jobs fit: those that run or failed first. The last line counts the others.
    fn most_wanted(&self, height: usize, now: u64) -> Vec<String> {
        let rank = |job: &&TreeNode| match job.mark {
            StatusMark::Running => 0,
            StatusMark::Failure => 1,
            StatusMark::Cancelled => 2,
            StatusMark::Waiting => 3,
            StatusMark::Success | StatusMark::Skipped => 4,
        };
        let mut jobs: Vec<&TreeNode> = self.jobs.values().collect();
        jobs.sort_by_key(rank);
        let shown = height.saturating_sub(1).min(jobs.len());
        let mut lines: Vec<String> =
            jobs.iter().take(shown).flat_map(|job| job.lines(DetailLevel::Jobs, now)).collect();
        let count = |marks: &[StatusMark]| jobs.iter().skip(shown).filter(|job| marks.contains(&job.mark)).count();
        let others = [
            (count(&[StatusMark::Running]), "running"),
            (count(&[StatusMark::Failure, StatusMark::Cancelled]), "failed"),
            (count(&[StatusMark::Waiting]), "waiting"),
            (count(&[StatusMark::Success, StatusMark::Skipped]), "done"),
        ];
        let others: Vec<String> =
            others.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
        lines.push(format!("… and {}", others.join(", ")));
        lines.truncate(height);
        lines
    }
}

impl TreeNode {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            mark: StatusMark::Waiting,
            note: String::new(),
            since: None,
            took: None,
            steps: BTreeMap::new(),
        }
    }

    fn turn(&mut self, name: &str, mark: StatusMark, note: &str, now: u64) {
        if mark == StatusMark::Running && self.mark != StatusMark::Running {
            self.since = Some(now);
        }
        if !mark.is_open() && self.mark == StatusMark::Running {
            self.took = self.since.map(|since| now.saturating_sub(since));
        }
        self.name = plain(name);
        self.mark = mark;
        self.note = plain(note);
    }

    fn lines(&self, detail: DetailLevel, now: u64) -> Vec<String> {
        let mut lines = vec![self.line("", now)];
        let steps = self.steps.values().filter(|step| match detail {
            DetailLevel::Steps => true,
            DetailLevel::Open => matches!(self.mark, StatusMark::Running | StatusMark::Failure),
            DetailLevel::Current => {
                (self.mark == StatusMark::Running && step.mark == StatusMark::Running)
                    || (self.mark == StatusMark::Failure && step.mark == StatusMark::Failure)
            }
            DetailLevel::Jobs => false,
        });
        lines.extend(steps.map(|step| step.line("  ", now)));
        lines
    }

    fn line(&self, indent: &str, now: u64) -> String {
        let picture = self.mark.style().apply_to(self.mark.picture(now));
        let mut line = format!("{indent}{picture} {}", self.name);
        let time = match (self.mark, self.since) {
            (StatusMark::Running, Some(since)) => Some(now.saturating_sub(since)),
            _ => self.took,
        };
        let dim = Style::new().dim();
        if let Some(time) = time {
            line.push_str(&format!(" {}", dim.apply_to(duration(time))));
        }
        if !self.note.is_empty() {
            line.push_str(&format!(" {}", dim.apply_to(format!("({})", self.note))));
        }
        line
    }
}

/// A name as a line shows it: without colours of its own.
fn plain(text: &str) -> String {
    strip_ansi_codes(&printable(text)).into_owned()
}

/// A length of time for people.
pub(crate) fn duration(millis: u64) -> String {
    let seconds = millis / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}.{} s", millis % 1000 / 100),
        (0, minutes, seconds) => format!("{minutes} min {seconds} s"),
        (hours, minutes, _) => format!("{hours} h {minutes} min"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(tree: &Tree, width: usize, height: usize, now: u64) -> Vec<String> {
        tree.lines(width, height, now).iter().map(|line| strip_ansi_codes(line).into_owned()).collect()
    }

    fn sample() -> Tree {
        let mut tree = Tree::default();
        for key in ["build", "test", "deploy"] {
            tree.job(key, key, StatusMark::Waiting, "", 0);
        }
        tree.job("build", "build", StatusMark::Running, "", 1000);
        tree.step("build", 0, "Checkout", StatusMark::Running, 1000);
        tree.step("build", 0, "Checkout", StatusMark::Success, 2500);
        tree.step("build", 1, "make", StatusMark::Running, 2500);
        tree.step("build", 1, "make", StatusMark::Failure, 64_000);
        tree.job("build", "build", StatusMark::Failure, "a step failed", 64_100);
        tree.job("test", "test (a, b)", StatusMark::Running, "", 64_100);
        tree.step("test", 0, "cargo test", StatusMark::Running, 65_000);
        tree
    }

    #[test]
    fn jobs_and_steps_show_how_far_they_came_and_how_long_it_took() {
        assert_eq!(
            lines(&sample(), 80, 20, 66_000),
            [
                "✗ build 1 min 3 s (a step failed)",
                "  ✓ Checkout 1.5 s",
                "  ✗ make 1 min 1 s",
                "◐ test (a, b) 1.9 s",
                "  ◐ cargo test 1.0 s",
                "○ deploy",
            ]
        );
    }

    #[test]
    fn what_does_not_fit_gives_way_to_what_runs_and_what_failed() {
        let tree = sample();
        assert_eq!(lines(&tree, 80, 5, 66_000).len(), 5, "the steps that went well are left out");
        assert_eq!(lines(&tree, 80, 3, 66_000).len(), 3, "then all steps");
        assert_eq!(lines(&tree, 80, 2, 66_000), ["◐ test (a, b) 1.9 s", "… and 1 failed, 1 waiting"]);
        assert!(lines(&tree, 10, 9, 66_000).iter().all(|line| line.chars().count() <= 10));
    }

    #[test]
    fn a_job_that_is_seen_late_shows_its_own_times() {
        let mut tree = Tree::default();
        tree.job("a", "a", StatusMark::Running, "", 60_000);
        tree.times("a", Some(45_000), None);
        tree.job("b", "b", StatusMark::Success, "", 60_000);
        tree.times("b", Some(1000), Some(16_700));
        tree.times("no such job", Some(1), None);
        assert_eq!(lines(&tree, 80, 9, 60_000), ["◐ a 15.0 s", "✓ b 15.7 s"]);
    }

    #[test]
    fn what_stays_of_the_tree_are_the_jobs_and_the_steps_of_those_that_failed() {
        let mut tree = sample();
        tree.step("test", 0, "cargo test", StatusMark::Success, 66_000);
        tree.job("test", "test (a, b)", StatusMark::Success, "", 66_100);
        let last: Vec<_> = tree.last_lines(80, 0).iter().map(|line| strip_ansi_codes(line).into_owned()).collect();
        assert_eq!(last[1..], ["  ✓ Checkout 1.5 s", "  ✗ make 1 min 1 s", "✓ test (a, b) 2.0 s", "○ deploy"]);
    }

    #[test]
    fn attack_49_a_name_moves_no_cursor_and_brings_no_colour() {
        let mut tree = Tree::default();
        tree.job("a", "\u{1b}[2Ja\u{1b}[31mb\nc", StatusMark::Waiting, "", 0);
        assert_eq!(lines(&tree, 80, 9, 0), ["○ ab␊c"]);
    }

    #[test]
    fn a_job_that_runs_once_more_begins_without_steps() {
        let mut tree = sample();
        tree.restart("build");
        tree.restart("no such job");
        tree.step("build", 0, "Checkout", StatusMark::Running, 66_000);
        let lines = lines(&tree, 80, 20, 66_000);
        assert_eq!(lines[..2], ["✗ build 1 min 3 s (a step failed)", "  ◐ Checkout 0.0 s"]);
        assert_eq!(lines.len(), 5, "{lines:?}");
    }

    #[test]
    fn a_job_that_became_legs_is_forgotten() {
        let mut tree = sample();
        tree.keep(|key| key != "deploy");
        assert_eq!(lines(&tree, 80, 20, 66_000).len(), 5);
    }
}
