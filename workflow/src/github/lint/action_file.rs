//! `action.yml`: what an action takes and gives, and what is wrong with the file.
//!
//! Source: GitHub docs, "Metadata syntax reference".

use crate::github::LIMITS;
use crate::spelling::suggestion;
use crate::yaml::{self, MergeKeys, YamlNode};

/// What an action takes and gives.
#[derive(Debug, Default)]
pub(super) struct ActionShape {
    /// Its name, for people.
    pub(super) name: String,
    inputs: Vec<ActionInput>,
    /// Names of its outputs; `None`: any.
    pub(super) outputs: Option<Vec<String>>,
}

#[derive(Debug)]
struct ActionInput {
    name: String,
    must_be_given: bool,
    /// What is said about it, maybe nothing; `None`: it is not deprecated.
    deprecation: Option<String>,
}

impl ActionShape {
    pub(super) fn add_input(&mut self, name: &str, must_be_given: bool, deprecation: Option<String>) {
        self.inputs.push(ActionInput { name: name.to_owned(), must_be_given, deprecation });
    }

    /// Names of the inputs that have no default and must be given.
    pub(super) fn required(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().filter(|input| input.must_be_given).map(|input| input.name.as_str())
    }

    /// Names of the inputs that are not deprecated.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().filter(|input| input.deprecation.is_none()).map(|input| input.name.as_str())
    }

    pub(super) fn takes(&self, name: &str) -> bool {
        self.inputs.iter().any(|input| input.name.eq_ignore_ascii_case(name))
    }

    /// What is said about a deprecated input.
    pub(super) fn deprecation(&self, name: &str) -> Option<&str> {
        self.inputs.iter().find(|input| input.name.eq_ignore_ascii_case(name))?.deprecation.as_deref()
    }
}

/// Reads an action's file: its shape, and what is wrong with it. `None`: it can't be read.
pub(super) fn read(text: &str) -> (Option<ActionShape>, Vec<String>) {
    let stream = yaml::read(text, LIMITS, MergeKeys::Apply);
    let mut wrong: Vec<String> = stream.problems.into_iter().map(|problem| problem.message).collect();
    let [root] = stream.documents.as_slice() else { return (None, wrong) };
    wrong.extend(faults(root));
    let mut shape = ActionShape { outputs: Some(Vec::new()), ..ActionShape::default() };
    shape.name = root.get("name").and_then(YamlNode::text).unwrap_or_default().to_owned();
    for (name, input) in root.get("inputs").map(YamlNode::entries).unwrap_or_default() {
        let flag = |key| input.get(key).is_some_and(|node| node.to_json() == true);
        let deprecation = input.get("deprecationMessage").and_then(YamlNode::text).map(str::to_owned);
        let must_be_given = flag("required") && input.get("default").is_none();
        shape.add_input(name.text().unwrap_or_default(), must_be_given, deprecation);
    }
    let outputs = root.get("outputs").map(YamlNode::entries).unwrap_or_default();
    let given = outputs.iter().filter_map(|(name, _)| Some(name.text()?.to_owned()));
    shape.outputs.get_or_insert_default().extend(given);
    (Some(shape), wrong)
}

fn faults(root: &YamlNode) -> Vec<String> {
    let mut wrong = Vec::new();
    for key in ["name", "description", "runs"] {
        if root.get(key).is_none_or(|node| node.text().is_some_and(str::is_empty)) {
            wrong.push(format!("the key `{key}` is missing"));
        }
    }
    if let Some(runs) = root.get("runs") {
        of_runs(runs, &mut wrong);
    }
    wrong
}

fn of_runs(runs: &YamlNode, wrong: &mut Vec<String>) {
    let Some(using) = runs.get("using").and_then(YamlNode::text) else {
        return wrong.push("`runs` has no `using`: write `node24`, `composite` or `docker`".to_owned());
    };
    let (needed, known): (&str, &[&str]) = match using {
        "composite" => ("steps", &["using", "steps"]),
        "docker" => (
            "image",
            &["using", "image", "pre-entrypoint", "entrypoint", "post-entrypoint", "args", "env", "pre-if", "post-if"],
        ),
        "node20" | "node24" => ("main", &["using", "main", "pre", "pre-if", "post", "post-if"]),
        _ if using.starts_with("node") => {
            return wrong.push(format!("`{using}` is not maintained any more: `node24` runs"));
        }
        _ => {
            let near = suggestion(using, ["node24", "node20", "composite", "docker"]);
            return wrong.push(with_help(&format!("nothing runs `using: {using}`"), near));
        }
    };
    if runs.get(needed).is_none() {
        wrong.push(format!("`using: {using}` needs the key `{needed}`"));
    }
    for key in runs.entries().iter().filter_map(|(key, _)| key.text()).filter(|key| !known.contains(key)) {
        let help = suggestion(key, known.iter().copied());
        wrong.push(with_help(&format!("`using: {using}` takes no `{key}`"), help));
    }
}

fn with_help(message: &str, help: Option<String>) -> String {
    help.map_or_else(|| message.to_owned(), |help| format!("{message}: {help}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_that_does_not_run_is_told_why() {
        let (shape, wrong) = read(
            "name: x\ninputs: {a: {required: true}, b: {deprecationMessage: old}}\n\
             outputs: {o: {}}\nruns: {using: node12, main: x.js}",
        );
        let shape = shape.unwrap_or_default();
        assert_eq!(shape.required().collect::<Vec<_>>(), ["a"]);
        assert_eq!((shape.deprecation("B"), &shape.outputs), (Some("old"), &Some(vec!["o".to_owned()])));
        for expected in ["`description` is missing", "`node12` is not maintained"] {
            assert!(wrong.iter().any(|message| message.contains(expected)), "{expected}: {wrong:?}");
        }
        let (_, wrong) = read("name: x\ndescription: x\nruns: {using: composite, stepz: []}");
        assert_eq!(wrong.len(), 2, "{wrong:?}");
    }
}
