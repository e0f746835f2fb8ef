//! Containers and services that name no image, where no expression could give one.
//!
//! Source of the rules: actions/runner, `WorkflowTemplateConverter.ConvertToJobContainer`; actions/languageservices,
//! `container.ts`.

use crate::{
    github::report::Report,
    yaml::{YamlNode, YamlValue},
};

const NO_IMAGE: &str = "an image is missing: a container can't be without one";

/// Reports the container and the services of a job that have no image.
pub(super) fn check(job: &YamlNode, report: &mut Report<'_>) {
    if let Some(container) = job.get("container") {
        let no_key = matches!(container.value, YamlValue::Mapping(_)) && container.get("image").is_none();
        if (no_key || is_empty_docker(container)) && !is_computed(container) {
            report.error(container.span, NO_IMAGE);
        }
    }
    for (name, service) in job.get("services").map(YamlNode::entries).unwrap_or_default() {
        let image = match &service.value {
            YamlValue::Mapping(_) => service.get("image"),
            _ => Some(service),
        };
        let is_missing = image.is_none_or(|image| image.is_null() || image.text() == Some(""));
        if (is_missing || is_empty_docker(service)) && !is_computed(service) {
            report.error(name.span, NO_IMAGE);
        }
    }
}

/// `docker://` and nothing behind it, in either form.
fn is_empty_docker(container: &YamlNode) -> bool {
    let image = container.get("image").unwrap_or(container);
    image.text().is_some_and(|text| text.trim() == "docker://")
}

fn is_computed(node: &YamlNode) -> bool {
    node.to_json().to_string().contains("${{")
}
