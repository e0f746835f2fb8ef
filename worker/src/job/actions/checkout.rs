//! The built-in `actions/checkout`.
//!
//! Source of the rules: the README of actions/checkout. Nothing that it would keep for later is kept: there are no
//! credentials to persist.

use std::sync::Arc;

use indexmap::IndexMap;
use serde_json::Value;
use workflow::plan::Conclusion;

use super::text;
use crate::{
    fetch::{self, CheckoutOptions, SparseCheckout, SubmoduleMode},
    github::{untrusted_checkout, uses},
    job::{
        deadline::{Interrupt, StopCause},
        paths::absolute,
        step::{StepResult, StepScope},
        steps::StepRunner,
    },
};

/// Inputs that ask for nothing here, with what makes them needless.
const NEEDLESS: &[(&str, &str)] = &[
    ("ssh-key", "repositories are fetched over https"),
    ("ssh-known-hosts", "repositories are fetched over https"),
    ("filter", "the worker has the objects already"),
];

impl StepRunner<'_> {
    pub(super) async fn checkout(
        &mut self,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let input = |name: &str| {
            inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
        };
        if !flag("allow-unsafe-pr-checkout", input("allow-unsafe-pr-checkout"), false)? {
            let github = self.github();
            untrusted_checkout::check(
                text(&github, "event_name"),
                github.get("event").unwrap_or(&Value::Null),
                text(&github, "repository"),
                input("repository"),
                input("ref"),
            )
            .map_err(|refused| format!("actions/checkout: {refused}"))?;
        }
        let wanted = self.wanted(&input).map_err(|problem| format!("actions/checkout: {problem}"))?;
        for (name, why) in NEEDLESS.iter().filter(|(name, _)| !input(name).is_empty()) {
            self.env.job.log.notice(scope.index, &format!("actions/checkout: `{name}` is ignored: {why}")).await;
        }
        let path = uses::inside(input("path")).filter(|_| !input("path").starts_with('/'));
        let path = path.ok_or("actions/checkout: `path` must stay in the workspace")?;
        let directory = absolute(&self.env.machine.workspace(), &path).trim_end_matches('/').to_owned();
        let clean = flag("clean", input("clean"), true)?;
        let attempt = Arc::clone(&self.env.job.attempt);
        let sources = Arc::clone(&self.env.job.sources);
        let machine = self.env.machine;
        let work = async {
            let out = fetch::checkout(sources.as_ref(), &attempt.order.source, &wanted).await;
            let out = out.map_err(|error| format!("actions/checkout: {error:#}"))?;
            let unpacked = machine.unpack(&directory, clean, out.archive).await;
            unpacked.map_err(|error| format!("actions/checkout: {error}"))?;
            Ok::<_, String>((out.commit, out.reference, out.notes))
        };
        let (commit, reference, mut notes) = match self.timed(scope, work).await {
            Ok(result) => result?,
            Err(end) => return Ok(end),
        };
        let named = if reference.is_empty() { String::new() } else { format!(" ({reference})") };
        notes.push(format!("Checked out {commit}{named} to {directory}"));
        self.env.job.log.notice(scope.index, &notes.join("\n")).await;
        let mut end = StepResult::new(Conclusion::Success);
        // GitHub's gives the ref as it was asked for.
        let asked = if wanted.reference.is_empty() { &reference } else { &wanted.reference };
        end.outputs.insert("ref".into(), asked.clone());
        end.outputs.insert("commit".into(), commit);
        Ok(end)
    }

    /// What the worker does itself for a step, within the step's time and the job's. An error is the end of a step that
    /// was ended.
    pub(super) async fn timed<T>(
        &mut self,
        scope: &StepScope<'_>,
        work: impl Future<Output = Result<T, String>>,
    ) -> Result<Result<T, String>, StepResult> {
        let interrupt = tokio::select! {
            result = work => return Ok(result),
            interrupt = self.env.job.deadline.interrupt(scope.deadline) => interrupt,
        };
        match interrupt {
            Interrupt::Step => Ok(Err("the step's time is over".into())),
            Interrupt::Job(cause) => {
                self.env.job.deadline.end(cause);
                let gone = matches!(cause, StopCause::Cancelled | StopCause::Killed | StopCause::Timeout);
                Err(StepResult::new(if gone { Conclusion::Cancelled } else { Conclusion::Failure }))
            }
        }
    }

    fn wanted<'i>(&self, input: &impl Fn(&str) -> &'i str) -> Result<CheckoutOptions, String> {
        let github = self.github();
        let [own, server] = ["repository", "server_url"].map(|key| text(&github, key));
        let (mut repository, other) =
            (input("repository").to_owned(), input("github-server-url").trim_end_matches('/'));
        let mut remote = format!("{server}/{}", if repository.is_empty() { own } else { &repository });
        if !other.is_empty() && other != server {
            let name = if repository.is_empty() { own } else { &repository };
            repository = format!("{other}/{name}");
            remote.clone_from(&repository);
        } else if repository.eq_ignore_ascii_case(own) {
            repository.clear();
        }
        if repository.is_empty() && self.env.job.attempt.order.source.repository.is_empty() {
            return Err("this job has no repository".into());
        }
        if flag("lfs", input("lfs"), false)? {
            return Err("`lfs: true` is not supported: files of Git LFS stay pointers; fetch them in a step".into());
        }
        let depth = match input("fetch-depth") {
            "" => 1,
            text => text.parse().map_err(|_| format!("fetch-depth must be a number, not {text}"))?,
        };
        let submodules = match input("submodules").to_ascii_lowercase().as_str() {
            "recursive" => SubmoduleMode::Recursive,
            text if flag("submodules", text, false)? => SubmoduleMode::Direct,
            _ => SubmoduleMode::None,
        };
        let patterns = input("sparse-checkout");
        let sparse = match patterns {
            "" => None,
            patterns => {
                let cone = flag("sparse-checkout-cone-mode", input("sparse-checkout-cone-mode"), true)?;
                let lines: Vec<&str> = patterns.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
                Some(SparseCheckout { patterns: lines.join("\n"), cone })
            }
        };
        Ok(CheckoutOptions {
            repository,
            reference: input("ref").to_owned(),
            depth,
            tags: flag("fetch-tags", input("fetch-tags"), false)?,
            submodules,
            sparse,
            most_bytes: self.disk_limit(),
            remote,
        })
    }
}

/// An input that is true or false.
pub(super) fn flag(name: &str, text: &str, default: bool) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "" => Ok(default),
        "true" => Ok(true),
        "false" => Ok(false),
        other => Err(format!("`{name}` must be true or false, not {other}")),
    }
}
