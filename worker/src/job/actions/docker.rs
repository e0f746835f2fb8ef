//! Docker actions: each of their programs runs in a machine of its own, beside the job's and hardened as it is.
//!
//! Source of the rules: GitHub docs, "Metadata syntax", `runs` for Docker container actions, and "Dockerfile support".

use std::sync::Arc;

use indexmap::IndexMap;

use super::{LoadedAction, context};
use crate::{
    github::action::DockerAction,
    job::{
        actions_api::ServicePort,
        process::ProcessSpec,
        step::{StepResult, StepScope},
        steps::StepRunner,
    },
    sandbox::{ImageProgram, Machine, MachineSpec, SHARED_WORKSPACE, VolumeMount},
};

/// What needs containers, in messages.
pub(super) const DOCKER_ACTION: &str = "a Docker action";
/// Home of Docker actions, which those of one job share.
const HOME: &str = "/github/home";
/// Where the event's payload lies in their machines, as GitHub has it.
const EVENT: &str = "/github/workflow/event.json";

impl StepRunner<'_> {
    /// Runs a program of a Docker action. `hook`: the entrypoint of one that runs before or after the step.
    pub(super) async fn contain(
        &mut self,
        loaded: &LoadedAction,
        docker: &DockerAction,
        hook: Option<&str>,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", loaded.uses);
        let machine = self.machine_for(loaded, docker, scope).await?;
        let way = match &self.env.contexts.actions_api {
            Some((_, services)) => {
                let masker = Arc::clone(&self.env.job.masker);
                let checks = Arc::clone(&self.env.job.checks);
                let way = ServicePort::open(services, machine.as_ref(), masker, checks).await;
                let way = way.map_err(|error| said(&error))?;
                let variables = way.variables(services);
                Some((way, variables))
            }
            None => None,
        };
        let ended = async {
            let place = loaded.place(scope.place.env.clone(), Some(context(inputs)));
            let evaluator =
                self.env.contexts.evaluator(&place, &scope.env, &scope.action, scope.status, self.env.machine);
            let mut own = scope.env.clone();
            for (name, value) in &docker.env {
                own.insert(name.clone(), evaluator.text(value).await.map_err(|error| said(&error))?);
            }
            let mut args = Vec::new();
            for arg in &docker.args {
                args.push(evaluator.text(arg).await.map_err(|error| said(&error))?);
            }
            let image = machine.need_containers(DOCKER_ACTION).map_err(|error| said(&error))?.image_program();
            let argv = argv(docker, hook, args, inputs, &image).map_err(|error| said(&error))?;
            for (name, value) in inputs {
                own.insert(format!("INPUT_{}", name.replace(' ', "_").to_uppercase()), value.clone());
            }
            let state = self.states.get(&scope.key).into_iter().flatten();
            own.extend(state.map(|(name, value)| (format!("STATE_{name}"), value.clone())));
            let image = machine.image_environment().into_iter().collect();
            let mut environment = self.env.contexts.environment_over(image, &place, &own, &scope.action);
            environment.extend(way.iter().flat_map(|(_, variables)| variables.clone()));
            for (name, value) in [
                ("HOME", HOME),
                ("GITHUB_WORKSPACE", SHARED_WORKSPACE),
                ("GITHUB_EVENT_PATH", EVENT),
                ("RUNNER_TEMP", &machine.temp()),
            ] {
                environment.insert(name.to_owned(), value.to_owned());
            }
            let event = self.env.contexts.event_file();
            let process = ProcessSpec {
                step: scope.index,
                machine: Some(Arc::clone(&machine)),
                argv,
                environment,
                directory: SHARED_WORKSPACE.into(),
                files: event.into_iter().map(|(_, content)| (EVENT.into(), content.into(), 0o644)).collect(),
                search_path: String::new(),
                deadline: scope.deadline,
            };
            let mut done = self.env.process(process).await;
            self.states.entry(scope.key.clone()).or_default().extend(std::mem::take(&mut done.state));
            Ok(self.judge(done, scope.index).await)
        }
        .await;
        machine.destroy().await;
        ended
    }

    /// A machine of the action's image, which is pulled or built where it is not there.
    async fn machine_for(
        &mut self,
        loaded: &LoadedAction,
        docker: &DockerAction,
        scope: &StepScope<'_>,
    ) -> Result<Arc<dyn Machine>, String> {
        let said = |error: &dyn std::fmt::Display| format!("{}: {error}", loaded.uses);
        let Some(image) = docker.image.strip_prefix("docker://") else {
            let file = loaded.file(&docker.image).map_err(|error| said(&error))?;
            return self.build(loaded, &file, scope).await.map_err(|error| said(&error));
        };
        if image.is_empty() || image.starts_with('-') || image.contains(char::is_whitespace) {
            return Err(said(&format!("`{image}` is no image reference")));
        }
        let containers = self.env.machine.need_containers(DOCKER_ACTION).map_err(|error| said(&error))?;
        let making = containers.create_container(self.spec_of_action(image.to_owned()), true);
        tokio::select! {
            machine = making => machine.map_err(|error| said(&error)),
            _ = self.env.job.deadline.interrupted(None) => Err(said(&"the job ended while its container was made")),
        }
    }

    pub(super) fn spec_of_action(&self, image: String) -> MachineSpec {
        let volumes = vec![VolumeMount { name: "_github_home".into(), target: HOME.into(), read_only: false }];
        MachineSpec { image, volumes, ..self.env.job.plain_spec() }
    }
}

/// What is run: the step's own words, else the action's, else the image's.
fn argv(
    docker: &DockerAction,
    hook: Option<&str>,
    args: Vec<String>,
    inputs: &IndexMap<String, String>,
    image: &ImageProgram,
) -> Result<Vec<String>, String> {
    let input = |name: &str| {
        let found = inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.trim().is_empty())
    };
    let words = |text: &str| shlex::split(text).ok_or_else(|| format!("`{text}` has a quote that does not end"));
    let entrypoint = match hook.or_else(|| input("entrypoint")).or(docker.entrypoint.as_deref()) {
        Some(text) => Some(words(text)?),
        None => None,
    };
    let args = match input("args") {
        Some(text) => words(text)?,
        None => args,
    };
    // An image's own command belongs to its own entrypoint.
    let args = if args.is_empty() && entrypoint.is_none() { image.command.clone() } else { args };
    let argv: Vec<_> = entrypoint.unwrap_or_else(|| image.entrypoint.clone()).into_iter().chain(args).collect();
    if argv.is_empty() {
        return Err("the image says not what to run: write `entrypoint:`".into());
    }
    Ok(argv)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_steps_words_come_before_the_actions_and_those_before_the_images() {
        let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let image = ImageProgram { entrypoint: words("entry -x"), command: words("cmd"), ..ImageProgram::default() };
        let own = DockerAction { entrypoint: Some("own".into()), ..DockerAction::default() };
        let with = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect();
        for (docker, hook, args, inputs, expected) in [
            (&DockerAction::default(), None, "", with(&[]), "entry -x cmd"),
            (&DockerAction::default(), None, "a b", with(&[]), "entry -x a b"),
            (&own, None, "", with(&[]), "own"),
            (&own, Some("before"), "a", with(&[]), "before a"),
            (&own, None, "a", with(&[("args", "c d"), ("entryPoint", "/bin/e f")]), "/bin/e f c d"),
        ] {
            assert_eq!(argv(docker, hook, words(args), &inputs, &image).unwrap(), words(expected));
        }
        assert!(argv(&DockerAction::default(), None, Vec::new(), &with(&[]), &ImageProgram::default()).is_err());
        assert!(argv(&own, None, Vec::new(), &with(&[("args", "'open")]), &image).is_err());
    }
}
