//! Workflow commands that runners take no more.
//!
//! Source: GitHub docs, "Workflow commands"; GitHub's announcements of 2020-10 and 2022-10.

use crate::github::report::Report;
use crate::yaml::YamlNode;

use super::walk::all_steps;

/// Each with what is written instead.
const GONE: [(&str, &str); 4] = [
    ("::set-output name=", "write `echo \"NAME=VALUE\" >> \"$GITHUB_OUTPUT\"`"),
    ("::save-state name=", "write `echo \"NAME=VALUE\" >> \"$GITHUB_STATE\"`"),
    ("::set-env name=", "write `echo \"NAME=VALUE\" >> \"$GITHUB_ENV\"`"),
    ("::add-path::", "write `echo \"FOLDER\" >> \"$GITHUB_PATH\"`"),
];

pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    for run in all_steps(root).filter_map(|step| step.get("run")) {
        let text = run.text().unwrap_or_default();
        for (command, instead) in GONE {
            for (at, _) in text.match_indices(command) {
                let name = command.trim_end_matches("name=").trim().trim_matches(':');
                let part = at..at + 2 + name.len();
                let message = format!("the command `::{name}` is deprecated, and switched off on GitHub's runners");
                report.warning_within(run, part, message, Some(instead.to_owned()));
            }
        }
    }
}
