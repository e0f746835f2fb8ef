//! Passwords that stand in the file, where everybody reads them.

use crate::github::report::Report;
use crate::yaml::YamlNode;

use super::walk::{jobs, plain};

pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    for (_, job) in jobs(root) {
        let services = job.get("services").map(YamlNode::entries).unwrap_or_default();
        for container in job.get("container").into_iter().chain(services.iter().map(|(_, service)| service)) {
            let password = container.get("credentials").and_then(|credentials| credentials.get("password"));
            if let Some(password) = password.filter(|node| plain(node).is_some_and(|text| !text.is_empty())) {
                let help = "keep it as a secret, and write `${{ secrets.NAME }}`".to_owned();
                report.warning_with(password.span, "the password stands in the file", Some(help));
            }
        }
    }
}
