//! What steps without an `id:` are called in `github.action`. Pure.
//!
//! Source of the rules: GitHub docs, "Contexts reference: github.action".

use std::collections::HashSet;

use workflow::plan::{ControlAction, StepAction, StepEntry};

use super::uses::Uses;
use crate::fetch::ActionRef;

/// A name for each step: its id, else one made of what it runs, numbered from the second on.
pub(super) fn names(entries: &[StepEntry]) -> Vec<String> {
    let id = |entry: &StepEntry| match entry {
        StepEntry::Step(step) => step.id.clone(),
        StepEntry::Control(control) => control.id.clone(),
    };
    let mut taken: HashSet<String> = entries.iter().filter_map(id).collect();
    let name = |entry: &StepEntry| {
        if let Some(id) = id(entry) {
            return id;
        }
        let base = match entry {
            StepEntry::Step(step) => base(&step.action),
            StepEntry::Control(control) => match control.control {
                ControlAction::Wait(_) => "__wait".to_owned(),
                ControlAction::WaitAll => "__wait-all".to_owned(),
                ControlAction::Cancel(_) => "__cancel".to_owned(),
            },
        };
        let free = (2..).map(|number| format!("{base}_{number}"));
        let name = std::iter::once(base.clone()).chain(free).find(|name| !taken.contains(name)).unwrap_or_default();
        taken.insert(name.clone());
        name
    };
    entries.iter().map(name).collect()
}

fn base(action: &StepAction) -> String {
    let plain = match action {
        StepAction::Run { .. } => "run".to_owned(),
        StepAction::Uses { uses, .. } => match Uses::parse(uses) {
            Ok(Uses::Local(_) | Uses::OwnRepository(_)) => "self".to_owned(),
            Ok(Uses::Image(image)) => image,
            Ok(Uses::BuiltIn(name)) => name,
            Ok(Uses::Remote(ActionRef { repository, .. })) => repository,
            Err(_) => "run".to_owned(),
        },
    };
    let plain: String = plain.chars().map(|c| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' }).collect();
    format!("__{plain}")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn steps_without_an_id_are_called_by_what_they_run() {
        let text = "on: push\njobs: {a: {runs-on: x, steps: [{run: a}, {run: b}, {id: c, run: c}, {run: d},
            {uses: actions/checkout@v4}, {uses: actions/checkout@v4}, {uses: ./x}, {uses: o/r/p@v1}]}}";
        let (plan, problems) = workflow::github::parse("t.yml", text);
        let Some(plan) = plan else { panic!("{problems:?}") };
        let workflow::plan::JobContent::Steps(steps) = &plan.jobs["a"].work else { panic!("no steps") };
        let expected =
            ["__run", "__run_2", "c", "__run_3", "__actions_checkout", "__actions_checkout_2", "__self", "__o_r"];
        assert_eq!(names(steps), expected);
    }
}
