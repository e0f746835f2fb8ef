//! Shells that a step can't have.
//!
//! Source: GitHub docs, "jobs.<job_id>.steps\[*\].shell", and context availability, which names no context for it.

use crate::expression;
use crate::github::report::Report;
use crate::spelling::suggestion;
use crate::yaml::YamlNode;

use super::labels::system;
use super::start;
use super::walk::{jobs, listed, plain, steps};

const NAMED: [&str; 7] = ["bash", "sh", "pwsh", "python", "node", "cmd", "powershell"];

pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    shell(of_defaults(root), None, report);
    for (_, job) in jobs(root) {
        let system = system_of(job);
        shell(of_defaults(job), system, report);
        for step in steps(job) {
            let named = step.get("shell");
            shell(named, system, report);
            if let Some(node) = named.filter(|node| node.text().is_some_and(names_context)) {
                let help =
                    "name the shell, or give it under `defaults.run` of the job, where contexts are known".to_owned();
                report.warning_with(node.span, "GitHub knows no context in the `shell` of a step", Some(help));
            }
        }
    }
}

/// Places of shells whose expression is the same whatever happens.
pub(super) fn constants(root: &YamlNode) -> Vec<(usize, usize)> {
    let constant = |node: &&YamlNode| {
        let text = node.text().unwrap_or_default();
        text.contains("${{") && !expression::expressions(text).is_empty() && !names_context(text)
    };
    of_defaults(root).filter(constant).map(|node| start(node.span)).into_iter().collect()
}

fn names_context(text: &str) -> bool {
    expression::expressions(text).iter().any(|(_, expression)| !expression.contexts().is_empty())
}

fn of_defaults(node: &YamlNode) -> Option<&YamlNode> {
    node.get("defaults")?.get("run")?.get("shell")
}

/// The operating system of a job, where all its labels tell it.
fn system_of(job: &YamlNode) -> Option<&'static str> {
    let runs_on = job.get("runs-on")?;
    let labels = listed(Some(runs_on.get("labels").unwrap_or(runs_on)));
    let mut systems = labels.iter().filter_map(|label| system(plain(label)?));
    let first = systems.next()?;
    systems.all(|other| other == first).then_some(first)
}

fn shell(node: Option<&YamlNode>, system: Option<&str>, report: &mut Report<'_>) {
    let Some((node, text)) = node.and_then(|node| Some((node, plain(node)?.trim()))) else { return };
    if text.is_empty() || text.contains("{0}") {
        return;
    }
    let name = text.to_lowercase();
    if !NAMED.contains(&name.as_str()) {
        let help = suggestion(text, NAMED)
            .unwrap_or_else(|| format!("write the whole command, with `{{0}}` for the script: `{text} {{0}}`"));
        return report.warning_with(node.span, format!("there is no shell `{text}`"), Some(help));
    }
    let missing = match system {
        Some("windows") => name == "sh",
        Some(_) => name == "cmd" || name == "powershell",
        None => false,
    };
    if missing {
        let help = if system == Some("windows") { "`bash` and `pwsh` are there" } else { "`pwsh` is there" };
        let message = format!("the shell `{text}` is not there on {}", shown(system.unwrap_or_default()));
        report.warning_with(node.span, message, Some(help.to_owned()));
    }
}

fn shown(system: &str) -> &'static str {
    match system {
        "windows" => "Windows",
        "macos" => "macOS",
        _ => "Linux",
    }
}
