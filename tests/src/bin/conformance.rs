//! Runs a conformance corpus and prints one line for each case, each folder, and everything. Exits 1 where a case
//! failed.

#![expect(clippy::print_stdout, reason = "the report is this program's output")]

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use longshore_tests::conformance::{Dialect, FOLDERS, Folder, Outcome, Selection, Tally};

/// Measures Longshore against a conformance corpus.
#[derive(Debug, Parser)]
struct Arguments {
    /// The corpus, or any folder of the same layout; a folder that is not there is 0 cases.
    dir: PathBuf,
    /// Only this folder, such as `expressions` or `authored/github`.
    #[arg(long, value_name = "FOLDER")]
    only: Option<String>,
    /// Only one dialect's cases.
    #[arg(long)]
    dialect: Option<Dialect>,
    /// Only cases whose id contains this.
    #[arg(long, value_name = "SUBSTRING")]
    id: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let selection = Selection { id: arguments.id };
    let wanted = |folder: &&Folder| {
        arguments.only.as_deref().is_none_or(|only| only.trim_end_matches('/') == folder.name)
            && arguments.dialect.is_none_or(|dialect| dialect == folder.dialect)
    };
    let folders: Vec<&Folder> = FOLDERS.iter().filter(wanted).collect();
    let mut all = Tally::default();
    for parts in folders.chunk_by(|left, right| left.name == right.name) {
        let mut tally = Tally::default();
        for folder in parts {
            for case in (folder.run)(&arguments.dir, &selection) {
                tally.count(&case.outcome);
                match case.outcome {
                    Outcome::Passed => println!("ok {}", case.id),
                    Outcome::Failed(why) => println!("FAIL {}: {}", case.id, one_line(&why)),
                    Outcome::Skipped(need) => println!("skip {}: {}", case.id, one_line(&need)),
                }
            }
            if let Some(bonus) = folder.bonus {
                println!("{}", (bonus.run)(&arguments.dir, &selection));
            }
        }
        if let Some(folder) = parts.first() {
            println!("{}: {tally}", folder.name);
        }
        all.add(tally);
    }
    println!("conformance: {all}");
    if all.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one_line(text: &str) -> String {
    text.replace('\n', "\\n")
}
