//! Which workflow files a push starts.

use serde::{Deserialize, Serialize};
use workflow::{
    dialect::trigger::{TriggerDecision, TriggerEvent},
    plan::Dialect,
};

/// A workflow file that the pushed commit has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushedFile {
    /// Its path.
    pub path: String,
    /// As it is in the pushed commit.
    pub text: String,
    /// As the default branch has it; `None`: that has none.
    pub on_default_branch: Option<String>,
}

/// What is decided of one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Its path.
    pub path: String,
    /// Whether it is started.
    pub decision: TriggerDecision,
}

/// Decides which files an event starts.
///
/// The default branch's file decides, so that nobody widens a filter by a push to another branch. A file that the default
/// branch does not have speaks for itself. One that can't be read is started: its run says what is wrong with it.
pub fn decide(files: &[PushedFile], event: &TriggerEvent<'_>) -> Vec<Verdict> {
    let verdict = |file: &PushedFile| Verdict { path: file.path.clone(), decision: of_file(file, event) };
    files.iter().map(verdict).collect()
}

/// A line of a workflow's `on: schedule`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleLine {
    /// Path of the workflow.
    pub path: String,
    /// The five fields as written.
    pub cron: String,
}

/// The schedules of these files, as the default branch has them.
pub fn schedule_lines(files: &[PushedFile]) -> Vec<ScheduleLine> {
    let of = |file: &PushedFile| {
        let text = file.on_default_branch.as_deref().unwrap_or(&file.text);
        let plan = Dialect::of_path(&file.path).ok()?.parse(&file.path, text).0?;
        let mut cron = plan.on.get("schedule")?.cron.clone();
        cron.sort();
        cron.dedup();
        Some(cron.into_iter().map(|cron| ScheduleLine { path: file.path.clone(), cron }).collect::<Vec<_>>())
    };
    files.iter().filter_map(of).flatten().collect()
}

fn of_file(file: &PushedFile, event: &TriggerEvent<'_>) -> TriggerDecision {
    let dialect = match Dialect::of_path(&file.path) {
        Ok(dialect) => dialect,
        Err(why) => return TriggerDecision::Ignored(why),
    };
    let plan = |text: &str| dialect.parse(&file.path, text).0;
    let deciding = file.on_default_branch.as_deref().and_then(plan).or_else(|| plan(&file.text));
    deciding.map_or(TriggerDecision::Starts, |plan| dialect.decide_trigger(&plan, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(files: &[PushedFile], reference: &str, changed: Option<&[String]>) -> Vec<String> {
        let event = TriggerEvent { name: "push", reference, changed_paths: changed, ..TriggerEvent::default() };
        let starts = decide(files, &event).into_iter().filter(|verdict| verdict.decision == TriggerDecision::Starts);
        starts.map(|verdict| verdict.path).collect()
    }

    fn file(path: &str, text: &str, on_default_branch: Option<&str>) -> PushedFile {
        let workflow = |on: &str| match on {
            "" => "on: [".to_owned(),
            on => format!("on: {on}\njobs: {{a: {{runs-on: x, steps: [{{run: b}}]}}}}"),
        };
        PushedFile { path: path.into(), text: workflow(text), on_default_branch: on_default_branch.map(workflow) }
    }

    #[test]
    fn t63_the_default_branchs_file_decides_and_a_new_one_speaks_for_itself() {
        let (main_only, all) = ("{push: {branches: [main]}}", "push");
        let files = [
            file(".github/workflows/widened.yml", all, Some(main_only)),
            file(".github/workflows/narrowed.yml", main_only, Some(all)),
            file(".github/workflows/new.yml", all, None),
            file(".github/workflows/tags.yml", "{push: {tags: ['v*']}}", None),
            file(".github/workflows/manual.yml", "workflow_dispatch", None),
        ];
        let named = |names: &[&str]| names.iter().map(|n| format!(".github/workflows/{n}.yml")).collect::<Vec<_>>();
        assert_eq!(started(&files, "refs/heads/topic", None), named(&["narrowed", "new"]));
        assert_eq!(started(&files, "refs/heads/main", None), named(&["widened", "narrowed", "new"]));
        assert_eq!(started(&files, "refs/tags/v1", None), named(&["narrowed", "new", "tags"]));
    }

    #[test]
    fn paths_are_held_against_what_changed() {
        let files = [file(".ngit/workflows/src.yml", "{push: {paths: ['src/**']}}", None)];
        let (source, docs) = (["src/a.rs".to_owned()], ["README.md".to_owned()]);
        assert_eq!(started(&files, "refs/heads/main", Some(&source)).len(), 1);
        assert_eq!(started(&files, "refs/heads/main", Some(&docs)).len(), 0);
        assert_eq!(started(&files, "refs/heads/main", None).len(), 1, "what is not known holds nothing back");
    }

    #[test]
    fn schedules_are_those_of_the_default_branch_each_line_once() {
        let twice = "{schedule: [{cron: '0 3 * * *'}, {cron: '0 3 * * *'}, {cron: '*/9 * * * *'}], push: }";
        let path = ".github/workflows/nightly.yml";
        let files = [file(path, "push", Some(twice)), file(".github/workflows/other.yml", "push", None)];
        let line = |cron: &str| ScheduleLine { path: path.into(), cron: cron.into() };
        assert_eq!(schedule_lines(&files), [line("*/9 * * * *"), line("0 3 * * *")]);
    }

    #[test]
    fn a_file_that_cannot_be_read_is_started_so_that_its_run_says_why() {
        let broken = [file(".github/workflows/broken.yml", "", Some(""))];
        assert_eq!(started(&broken, "refs/heads/main", None).len(), 1);
        let mended = [file(".github/workflows/mended.yml", "workflow_dispatch", Some(""))];
        assert_eq!(started(&mended, "refs/heads/main", None).len(), 0);
        let elsewhere = [file("ci.yml", "push", None)];
        assert_eq!(started(&elsewhere, "refs/heads/main", None).len(), 0);
    }
}
