//! One program as a workflow: a job with one step. Nothing of what a program is given is read as an expression.

use std::fmt::Write as _;

use super::call_graph::{self, CALL_GRAPH_LIMITS};
use crate::dialect::{
    call_graph::{CalledFiles, GraphBuild},
    command::Command,
};

/// Where the file would stand.
const PATH: &str = ".github/workflows/command.yml";
/// Characters of the command in the run's name.
const NAME: usize = 80;

pub(crate) fn build(command: &Command<'_>) -> GraphBuild {
    call_graph::build(PATH, &text(command), &CalledFiles::new(), CALL_GRAPH_LIMITS)
}

fn text(command: &Command<'_>) -> String {
    let Command { program, arguments, input, env, secrets, label } = command;
    let words: Vec<String> = [*program].into_iter().chain(arguments.iter().map(String::as_str)).map(quoted).collect();
    let words = words.join(" ");
    let script = match input.is_empty() {
        true => format!("exec {words}"),
        // Its exit code is that of the program.
        false => format!("printf %s {} | {words}", quoted(input)),
    };
    let mut text = String::from("on: workflow_dispatch\n");
    let name: String = words.chars().take(NAME).collect();
    // Writing to a text does not fail.
    let _ = writeln!(
        text,
        "name: Command\nrun-name: {}\njobs:\n  command:\n    runs-on: {}",
        literal(&name),
        scalar(label)
    );
    if !env.is_empty() || !secrets.is_empty() {
        text.push_str("    env:\n");
    }
    for (name, value) in env.iter().filter(|(name, _)| !secrets.contains(name)) {
        let _ = writeln!(text, "      {}: {}", scalar(name), literal(value));
    }
    for name in *secrets {
        let _ = writeln!(text, "      {}: {}", scalar(name), scalar(&format!("${{{{ secrets.{name} }}}}")));
    }
    let _ = writeln!(text, "    steps:\n      - shell: sh\n        run: {}", literal(&script));
    text
}

/// A word of a POSIX shell.
fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// A value in which nothing is an expression.
fn literal(value: &str) -> String {
    scalar(&value.replace("${{", "${{ '${{' }}"))
}

/// A double-quoted scalar of YAML.
fn scalar(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for character in value.chars() {
        match character {
            '"' | '\\' => text.extend(['\\', character]),
            // Not printable, or a line break (YAML 1.2, 5.1 and 5.4).
            _ if character.is_control()
                || matches!(character, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') =>
            {
                let _ = write!(text, "\\U{:08x}", u32::from(character));
            }
            _ => text.push(character),
        }
    }
    text.push('"');
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use indexmap::IndexMap;

    use super::*;
    use crate::{expression, plan::JobContent};

    #[test]
    fn whatever_a_command_is_given_reaches_it_as_it_is() {
        let odd = "it's \"odd\": \\ ${{ secrets.KEY }} # $HOME\n\t\u{1b}[31m é\u{85}\u{2028} - x";
        let arguments = ["-c".to_owned(), odd.to_owned(), String::new()];
        let env = IndexMap::from([("NAME".to_owned(), odd.to_owned()), ("KEY".to_owned(), "given twice".to_owned())]);
        let secrets = ["KEY".to_owned()];
        let command = Command {
            program: "sh",
            arguments: &arguments,
            input: odd,
            env: &env,
            secrets: &secrets,
            label: "ubuntu-latest",
        };
        let GraphBuild::Done(Some(graph), diagnostics) = build(&command) else { panic!("{}", text(&command)) };
        assert!(diagnostics.is_empty(), "{diagnostics:?}");
        let job = &graph.plan.jobs["command"];
        let JobContent::Steps(steps) = &job.work else { panic!("{job:?}") };
        let written = serde_json::to_value((&steps[0], &job.env)).unwrap().to_string();
        // As the templates are evaluated without any context.
        let plain = |template: &str| {
            let contexts = expression::Object::new();
            let scope = expression::Scope {
                contexts: &contexts,
                functions: &expression::NoHostFunctions,
                limits: expression::EvaluationLimits::default(),
            };
            expression::interpolate_text(template, &scope).unwrap()
        };
        let script = format!("printf %s {0} | 'sh' '-c' {0} ''", quoted(odd));
        assert_eq!(plain(&script.replace("${{", "${{ '${{' }}")), script);
        let json = |text: &str| serde_json::to_string(&text.replace("${{", "${{ '${{' }}")).unwrap();
        assert!(written.contains(&json(&script)), "{written}");
        assert!(written.contains(&json(odd)) && written.contains("${{ secrets.KEY }}"), "{written}");
        assert!(!written.contains("given twice"), "{written}");
    }
}
