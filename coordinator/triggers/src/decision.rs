//! Which workflow files an event starts.

use serde::{Deserialize, Serialize};
use workflow::{
    dialect::trigger::{TriggerDecision, TriggerEvent},
    plan::Dialect,
};

/// A workflow file of a commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedWorkflow {
    /// Its path.
    pub path: String,
    /// As it is in the commit.
    pub text: String,
    /// As the branch has it that decides: the default branch, or that which a pull request is to go into. `None`: it has none.
    pub deciding: Option<String>,
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
/// The file of the branch that decides counts, so that nobody widens a filter by a push to another branch, or by a pull
/// request. A file that this branch does not have speaks for itself. One that can't be read is started: its run says what is wrong with it.
pub fn decide(files: &[CommittedWorkflow], event: &TriggerEvent<'_>) -> Vec<Verdict> {
    let verdict = |file: &CommittedWorkflow| Verdict { path: file.path.clone(), decision: of_file(file, event) };
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
pub fn schedule_lines(files: &[CommittedWorkflow]) -> Vec<ScheduleLine> {
    let of = |file: &CommittedWorkflow| {
        let text = file.deciding.as_deref().unwrap_or(&file.text);
        let plan = Dialect::of_path(&file.path).ok()?.parse(&file.path, text).0?;
        let mut cron = plan.on.get("schedule")?.cron.clone();
        cron.sort();
        cron.dedup();
        Some(cron.into_iter().map(|cron| ScheduleLine { path: file.path.clone(), cron }).collect::<Vec<_>>())
    };
    files.iter().filter_map(of).flatten().collect()
}

fn of_file(file: &CommittedWorkflow, event: &TriggerEvent<'_>) -> TriggerDecision {
    let dialect = match Dialect::of_path(&file.path) {
        Ok(dialect) => dialect,
        Err(why) => return TriggerDecision::Ignored(why),
    };
    let plan = |text: &str| dialect.parse(&file.path, text).0;
    let plan = file.deciding.as_deref().and_then(plan).or_else(|| plan(&file.text));
    plan.map_or(TriggerDecision::Starts, |plan| dialect.decide_trigger(&plan, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn started(files: &[CommittedWorkflow], reference: &str, changed: Option<&[String]>) -> Vec<String> {
        let event = TriggerEvent { name: "push", reference, changed_paths: changed, ..TriggerEvent::default() };
        let starts = decide(files, &event).into_iter().filter(|verdict| verdict.decision == TriggerDecision::Starts);
        starts.map(|verdict| verdict.path).collect()
    }

    fn file(path: &str, text: &str, deciding: Option<&str>) -> CommittedWorkflow {
        let workflow = |on: &str| match on {
            "" => "on: [".to_owned(),
            on => format!("on: {on}\njobs: {{a: {{runs-on: x, steps: [{{run: b}}]}}}}"),
        };
        CommittedWorkflow { path: path.into(), text: workflow(text), deciding: deciding.map(workflow) }
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
    fn a_pull_request_is_decided_by_the_file_of_its_base_and_its_activity() {
        let (wide, narrow) = ("pull_request", "{pull_request: {branches: [main], types: [opened, labeled]}}");
        let files = [
            file(".github/workflows/widened.yml", wide, Some(narrow)),
            file(".github/workflows/new.yml", wide, None),
            file(".github/workflows/target.yml", "pull_request_target", None),
            file(".github/workflows/push.yml", "push", None),
        ];
        let started = |name: &str, base: &str, action: &str| {
            let reference = "refs/pull/7/merge";
            let event =
                TriggerEvent { name, reference, base_ref: Some(base), action: Some(action), ..TriggerEvent::default() };
            let starts =
                decide(&files, &event).into_iter().filter(|verdict| verdict.decision == TriggerDecision::Starts);
            let names: Vec<String> = starts
                .filter_map(|verdict| Some(verdict.path.rsplit('/').next()?.trim_end_matches(".yml").to_owned()))
                .collect();
            names.join(" ")
        };
        for (name, base, action, expected) in [
            ("pull_request", "main", "opened", "widened new"),
            ("pull_request", "main", "synchronize", "new"),
            ("pull_request", "main", "closed", ""),
            ("pull_request", "dev", "opened", "new"),
            ("pull_request_target", "dev", "reopened", "target"),
            ("pull_request_target", "dev", "closed", ""),
        ] {
            assert_eq!(started(name, base, action), expected, "{name} {base} {action}");
        }
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
