//! Text that outsiders choose, put into a script: it is run as a part of the script (script injection).
//!
//! Source: GitHub docs, "Script injections" and "Security hardening": such values end with `body`, `default_branch`,
//! `email`, `head_ref`, `label`, `message`, `name`, `page_name`, `ref` and `title`.

use super::walk::all_steps;
use crate::{
    expression::{printed_in, word_length},
    github::report::Report,
    yaml::YamlNode,
};

/// What anybody chooses who can name a branch, make a commit, or open or comment something; `*` is any key.
const UNTRUSTED: [&str; 33] = [
    "github.head_ref",
    "github.ref",
    "github.ref_name",
    "github.workflow_ref",
    "github.event.ref",
    "github.event.head_commit.message",
    "github.event.head_commit.author.email",
    "github.event.head_commit.author.name",
    "github.event.head_commit.committer.email",
    "github.event.head_commit.committer.name",
    "github.event.commits.*.message",
    "github.event.commits.*.author.email",
    "github.event.commits.*.author.name",
    "github.event.commits.*.committer.email",
    "github.event.commits.*.committer.name",
    "github.event.comment.body",
    "github.event.discussion.body",
    "github.event.discussion.title",
    "github.event.issue.body",
    "github.event.issue.title",
    "github.event.label.name",
    "github.event.pages.*.page_name",
    "github.event.pull_request.body",
    "github.event.pull_request.head.label",
    "github.event.pull_request.head.ref",
    "github.event.pull_request.head.repo.default_branch",
    "github.event.pull_request.title",
    "github.event.release.body",
    "github.event.release.name",
    "github.event.release.tag_name",
    "github.event.review.body",
    "github.event.review_comment.body",
    "github.event.workflow_run.head_branch",
];

/// Warns of such text in the steps' scripts.
pub(super) fn check(root: &YamlNode, report: &mut Report<'_>) {
    all_steps(root).for_each(|step| self::step(step, report));
}

fn step(step: &YamlNode, report: &mut Report<'_>) {
    if let Some(run) = step.get("run") {
        script(run, "`env:` the value under a name, and write \"$NAME\" in the script", report);
    }
    let uses = step.get("uses").and_then(YamlNode::text).unwrap_or_default();
    if uses.to_lowercase().starts_with("actions/github-script@")
        && let Some(text) = step.get("with").and_then(|with| with.get("script"))
    {
        script(text, "`env:` the value under a name, and read `process.env.NAME` in the script", report);
    }
}

fn script(node: &YamlNode, remedy: &str, report: &mut Report<'_>) {
    let Some(text) = node.text().filter(|text| text.contains("${{")) else { return };
    for found in printed_in(text) {
        if let Some(untrusted) = untrusted(&found.keys) {
            let named = found.keys.join(".");
            let what = if named == untrusted { String::new() } else { format!(", e.g. {untrusted}") };
            let message =
                format!("`{named}` may hold text that an outsider chose{what}: here it is run as a part of the script");
            let rest = text.get(found.position..).unwrap_or_default();
            let dotted = rest.find(|sign: char| !(sign.is_alphanumeric() || "_-.*".contains(sign)));
            let length = dotted.unwrap_or(rest.len()).max(word_length(rest));
            let part = found.position..found.position + length;
            report.warning_within(node, part, message, Some(format!("give {remedy}")));
        }
    }
}

/// An untrusted value that this path may be, or contain.
fn untrusted(keys: &[String]) -> Option<&'static str> {
    UNTRUSTED.into_iter().find(|pattern| {
        let wanted: Vec<&str> = pattern.split('.').collect();
        let fits = |(key, wanted): (&String, &&str)| key == wanted || key == "*" || *wanted == "*";
        keys.len() <= wanted.len() && keys.iter().zip(&wanted).all(fits)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use crate::{
        diagnostic::{Diagnostic, Severity},
        dialect::surroundings::NoSurroundings,
        github::lint::lint,
    };

    fn warnings(step: &str) -> Vec<Diagnostic> {
        let text = format!("on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - {step}\n");
        let mut found = lint("ci.yml", &text, Vec::new(), &NoSurroundings);
        assert!(found.iter().all(|one| one.severity == Severity::Warning), "{found:?}");
        found.retain(|one| one.message.contains("outsider"));
        found
    }

    #[test]
    fn attack_01_text_that_an_outsider_chose_in_a_script_is_warned_of() {
        for (step, named) in [
            ("run: echo ${{ github.ref_name }}", "github.ref_name"),
            ("run: echo \"${{ github.head_ref || github.sha }}\"", "github.head_ref"),
            ("run: echo ${{ github.event.pull_request.title }}", "github.event.pull_request.title"),
            ("run: echo ${{ github.event.commits[0].message }}", "github.event.commits.*.message"),
            ("run: echo ${{ join(github.event.commits.*.author.name, ',') }}", "github.event.commits.*.author.name"),
            ("run: echo '${{ toJSON(github.event) }}'", "github.event"),
            ("run: echo '${{ toJSON(github) }}'", "github"),
            ("run: \"echo ${{ format('{0}', github['event'].issue.body) }}\"", "github.event.issue.body"),
            (
                "{uses: actions/github-script@v7, with: {script: 'x(`${{ github.event.comment.body }}`)'}}",
                "github.event.comment.body",
            ),
            ("{parallel: [{run: 'echo ${{ github.ref }}'}]}", "github.ref"),
        ] {
            let found = warnings(step);
            assert_eq!(found.len(), 1, "{step}: {found:?}");
            assert!(found[0].message.starts_with(&format!("`{named}` may hold text")), "{}", found[0].message);
            assert!(found[0].help.as_ref().unwrap().contains("`env:` the value"), "{found:?}");
        }
        let found = warnings("run: echo ${{ github.ref_name }}");
        assert_eq!((found[0].span.line, found[0].span.column), (6, 23));
    }

    #[test]
    fn attack_01_what_nobody_outside_chooses_and_what_is_passed_as_a_variable_is_not_warned_of() {
        for step in [
            "run: echo ${{ github.sha }} ${{ github.event_name }} ${{ github.actor }} ${{ github.run_id }}",
            "run: echo ${{ github.event.pull_request.number }} ${{ github.event.pull_request.head.sha }}",
            "{run: 'echo \"$REF\"', env: {REF: '${{ github.ref_name }}'}}",
            "{uses: actions/checkout@v4, with: {ref: '${{ github.head_ref }}'}}",
            "run: echo ${{ github.ref == 'refs/heads/main' && 'release' || 'test' }}",
            "run: echo ${{ contains(github.event.head_commit.message, 'x') }}",
            "{run: echo hi, if: \"github.ref == 'refs/heads/main'\"}",
        ] {
            assert_eq!(warnings(step), [], "{step}");
        }
    }
}
