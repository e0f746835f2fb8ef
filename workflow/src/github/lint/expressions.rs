//! Expressions: what they name and is not there, and values of a kind that makes no sense where they stand.

use crate::dialect::surroundings::Surroundings;
use crate::expression::{self, Expression, ObjectType, StaticType, type_check};
use crate::github::report::Report;
use crate::yaml::{YamlNode, YamlValue};

use super::context_types::{Contexts, input_type, results};
use super::walk::{event, jobs, listed};

/// What a place takes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ExpectedKind {
    /// Text is made of whatever is there.
    Text,
    Bool,
    Number,
    List,
    /// Any kind of value.
    Any,
    /// An `if:`.
    Condition,
}

pub(super) fn check(root: &YamlNode, around: &dyn Surroundings, report: &mut Report<'_>) {
    let mut contexts = Contexts::of_file(root);
    let all = results(root, around);
    let mut at = Checker { report };
    at.tree(root.get("run-name"), ExpectedKind::Text, &contexts);
    for key in ["env", "concurrency", "defaults"] {
        at.mapping(root.get(key), ExpectedKind::Text, &contexts);
    }
    at.call_inputs(root, &contexts);
    contexts.jobs = all.clone().into();
    let outputs = event(root, "workflow_call").and_then(|trigger| trigger.get("outputs"));
    for (_, output) in outputs.map(YamlNode::entries).unwrap_or_default() {
        at.tree(output.get("value"), ExpectedKind::Text, &contexts);
    }
    contexts.jobs = StaticType::Any;
    for (_, job) in jobs(root) {
        contexts.enter_job(job, &all);
        at.job(job, &mut contexts, around);
        if at.report.is_full() {
            return;
        }
    }
}

struct Checker<'r, 'a> {
    report: &'r mut Report<'a>,
}

impl Checker<'_, '_> {
    fn job(&mut self, job: &YamlNode, contexts: &mut Contexts, around: &dyn Surroundings) {
        for (key, wanted) in [
            ("name", ExpectedKind::Text),
            ("if", ExpectedKind::Condition),
            ("runs-on", ExpectedKind::Any),
            ("timeout-minutes", ExpectedKind::Number),
            ("cancel-timeout-minutes", ExpectedKind::Number),
            ("continue-on-error", ExpectedKind::Bool),
            ("container", ExpectedKind::Any),
            ("services", ExpectedKind::Any),
            ("concurrency", ExpectedKind::Any),
            ("with", ExpectedKind::Any),
        ] {
            self.tree(job.get(key), wanted, contexts);
        }
        for key in ["env", "defaults", "secrets"] {
            self.mapping(job.get(key), ExpectedKind::Text, contexts);
        }
        if let Some(strategy) = job.get("strategy") {
            self.tree(strategy.get("fail-fast"), ExpectedKind::Bool, contexts);
            self.tree(strategy.get("max-parallel"), ExpectedKind::Number, contexts);
            for (name, values) in strategy.get("matrix").map(YamlNode::entries).unwrap_or_default() {
                let is_filter = matches!(name.text(), Some("include" | "exclude"));
                let whole = values.text().is_some() && !is_filter;
                self.tree(Some(values), if whole { ExpectedKind::List } else { ExpectedKind::Any }, contexts);
            }
            self.tree(strategy.get("matrix").filter(|matrix| matrix.text().is_some()), ExpectedKind::Any, contexts);
        }
        for entry in job.get("steps").map(YamlNode::items).unwrap_or_default() {
            // Members of a group do not see each other.
            let members = entry.get("parallel").map_or(std::slice::from_ref(entry), |group| listed(Some(group)));
            members.iter().for_each(|step| self.step(step, contexts));
            members.iter().for_each(|step| contexts.after_step(step, around));
        }
        self.tree(job.get("outputs"), ExpectedKind::Text, contexts);
        self.tree(job.get("environment"), ExpectedKind::Any, contexts);
        self.tree(job.get("snapshot").and_then(|node| node.get("if")), ExpectedKind::Condition, contexts);
    }

    fn step(&mut self, step: &YamlNode, contexts: &Contexts) {
        if self.report.is_full() {
            return;
        }
        for (key, wanted) in [
            ("name", ExpectedKind::Text),
            ("if", ExpectedKind::Condition),
            ("run", ExpectedKind::Text),
            ("shell", ExpectedKind::Text),
            ("working-directory", ExpectedKind::Text),
            ("timeout-minutes", ExpectedKind::Number),
            ("continue-on-error", ExpectedKind::Bool),
        ] {
            self.tree(step.get(key), wanted, contexts);
        }
        for key in ["with", "env"] {
            self.mapping(step.get(key), ExpectedKind::Text, contexts);
        }
    }

    /// Defaults of a called workflow's inputs: each sees those before it (GitHub docs: `on.workflow_call.inputs`).
    fn call_inputs(&mut self, root: &YamlNode, contexts: &Contexts) {
        let mut contexts = contexts.clone();
        let mut known = ObjectType::default().with_remedy("a default can name inputs that come before");
        let inputs = event(root, "workflow_call").and_then(|trigger| trigger.get("inputs"));
        for (name, input) in inputs.map(YamlNode::entries).unwrap_or_default() {
            contexts.inputs = known.clone().into();
            let kind = input_type(input, &StaticType::Any);
            let wanted = match &kind {
                StaticType::Bool => ExpectedKind::Bool,
                StaticType::Number => ExpectedKind::Number,
                _ => ExpectedKind::Any,
            };
            self.tree(input.get("default"), wanted, &contexts);
            known.insert(name.text().unwrap_or_default(), kind);
        }
    }

    /// A mapping of such values, which may as a whole come of one expression: `env: ${{ fromJSON(…) }}`.
    fn mapping(&mut self, node: Option<&YamlNode>, wanted: ExpectedKind, contexts: &Contexts) {
        let whole = node.is_some_and(|node| node.text().is_some());
        self.tree(node, if whole { ExpectedKind::Any } else { wanted }, contexts);
    }

    /// A value, at any depth.
    fn tree(&mut self, node: Option<&YamlNode>, wanted: ExpectedKind, contexts: &Contexts) {
        let Some(node) = node else { return };
        match &node.value {
            YamlValue::Scalar(_) => self.text(node, wanted, contexts),
            YamlValue::Sequence(items) | YamlValue::Tagged(_, items) => {
                items.iter().for_each(|item| self.tree(Some(item), wanted, contexts));
            }
            YamlValue::Mapping(entries) => {
                entries.iter().for_each(|(_, value)| self.tree(Some(value), wanted, contexts));
            }
        }
    }

    fn text(&mut self, node: &YamlNode, wanted: ExpectedKind, contexts: &Contexts) {
        let text = node.text().unwrap_or_default();
        let has_marks = text.contains("${{");
        let expressions: Vec<(usize, Expression)> = match (has_marks, wanted) {
            (true, _) => expression::expressions(text),
            (false, ExpectedKind::Condition) => {
                let start = text.len() - text.trim_start().len();
                expression::parse(text.trim()).map(|one| vec![(start, one)]).unwrap_or_default()
            }
            (false, _) => return,
        };
        let alone = text.trim().starts_with("${{") && text.trim().ends_with("}}") && expressions.len() == 1;
        for (start, one) in &expressions {
            let (kind, faults) = type_check(one, contexts);
            for fault in faults {
                let part = start + fault.position..start + fault.position + fault.length;
                self.report.warning_within(node, part, fault.message, fault.help);
            }
            let part = *start..start + one.text_len();
            let embedded = has_marks && (!alone || wanted == ExpectedKind::Text);
            if wanted == ExpectedKind::Condition {
                continue;
            }
            if embedded && (kind.is_collection() || kind == StaticType::Null) {
                let printed = match kind {
                    StaticType::Null => "nothing",
                    StaticType::List(_) => "the word `Array`",
                    _ => "the word `Object`",
                };
                let help = kind.is_collection().then(|| "`toJSON(…)` writes it out, `.NAME` takes a part".to_owned());
                let message = format!("this puts {printed} into the text: it is {}", kind.named());
                self.report.warning_within(node, part, message, help);
            } else if let Some(needed) = misfit(wanted, &kind) {
                let message = format!("{needed} is taken here, and this is {}", kind.named());
                self.report.warning_within(node, part, message, Some("`fromJSON(…)` makes it of text".to_owned()));
            }
        }
    }
}

/// What a place takes instead of such a value.
fn misfit(wanted: ExpectedKind, kind: &StaticType) -> Option<&'static str> {
    let (fits, needed) = match wanted {
        ExpectedKind::Bool => (matches!(kind, StaticType::Any | StaticType::Null | StaticType::Bool), "a boolean"),
        ExpectedKind::List => (matches!(kind, StaticType::Any | StaticType::Null | StaticType::List(_)), "a list"),
        ExpectedKind::Number => (matches!(kind, StaticType::Any | StaticType::Null | StaticType::Number), "a number"),
        ExpectedKind::Text | ExpectedKind::Any | ExpectedKind::Condition => (true, ""),
    };
    (!fits).then_some(needed)
}
