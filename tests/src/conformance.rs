//! A corpus of cases others wrote, run case by case and folder by folder.
//!
//! Each folder of the corpus has its module and one line for each dialect in [`FOLDERS`].

use std::path::Path;

pub mod commands;
pub mod expressions;
pub mod github_run;
pub mod lint;
mod manifest;
mod pool_run;
pub mod realworld;
pub mod validity;
pub mod workflow_parser;

/// Whose files a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Dialect {
    /// GitHub Actions.
    Github,
    /// GitLab CI.
    Gitlab,
}

/// One case and how it went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseResult {
    /// Unique in the corpus.
    pub id: String,
    /// How it went.
    pub outcome: Outcome,
}

/// How a case went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As expected.
    Passed,
    /// Otherwise, and in what way.
    Failed(String),
    /// Not run: what it needs is switched off.
    Skipped(String),
}

/// Which cases to run.
#[derive(Debug, Clone, Default)]
pub struct Selection {
    /// Only cases whose id contains this.
    pub id: Option<String>,
}

impl Selection {
    /// Whether the case `id` is to be run.
    #[must_use]
    pub fn takes(&self, id: &str) -> bool {
        self.id.as_deref().is_none_or(|part| id.contains(part))
    }
}

/// One folder of the corpus, or that part of it which is one dialect's.
#[derive(Debug, Clone, Copy)]
pub struct Folder {
    /// Its path below the corpus, and its name in the report.
    pub name: &'static str,
    /// Whose cases [`Folder::run`] runs.
    pub dialect: Dialect,
    /// Runs the selected cases below the corpus; a folder that is not there has none.
    pub run: fn(&Path, &Selection) -> Vec<CaseResult>,
    /// Checks that don't decide a case.
    pub bonus: Option<Bonus>,
}

/// Checks beside the cases, which are counted apart.
#[derive(Debug, Clone, Copy)]
pub struct Bonus {
    /// Makes them over the selected cases; what is printed of them.
    pub run: fn(&Path, &Selection) -> String,
}

/// The folders that can be run, in the order of the report. A folder with two dialects is here twice, side by side.
pub const FOLDERS: &[Folder] = &[
    Folder {
        name: "expressions",
        dialect: Dialect::Github,
        run: expressions::run,
        bonus: Some(Bonus { run: expressions::messages }),
    },
    Folder { name: "workflow-parser", dialect: Dialect::Github, run: workflow_parser::run, bonus: None },
    Folder { name: "validity", dialect: Dialect::Github, run: validity::github, bonus: None },
    Folder { name: "commands", dialect: Dialect::Github, run: commands::run, bonus: None },
    Folder { name: "github-run", dialect: Dialect::Github, run: github_run::act, bonus: None },
    Folder { name: "authored/github", dialect: Dialect::Github, run: github_run::authored, bonus: None },
    Folder { name: "reports", dialect: Dialect::Github, run: github_run::reports, bonus: None },
    Folder { name: "realworld", dialect: Dialect::Github, run: realworld::github, bonus: None },
    Folder { name: "lint", dialect: Dialect::Github, run: lint::good_files, bonus: Some(Bonus { run: lint::lines }) },
];

/// How many cases went which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// As expected.
    pub passed: usize,
    /// Otherwise.
    pub failed: usize,
    /// Not run.
    pub skipped: usize,
}

impl Tally {
    /// Counts one more.
    pub fn count(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Skipped(_) => self.skipped += 1,
        }
    }

    /// Counts all of `other` too.
    pub fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}
