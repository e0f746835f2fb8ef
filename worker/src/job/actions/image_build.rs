//! Builds the images of Docker actions: each stage in a machine beside the job's, with its network and its limits.
//!
//! The engine's own builder would run a Dockerfile with more capabilities than a job has, without a limit of processes,
//! and fetch addresses past the job's network. So it only keeps the result. Results are named by their content and by
//! the job's repository, and by its run where that is not trusted: nobody can name, or make, another's.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt as _, StreamExt as _, future::BoxFuture};
use indexmap::IndexSet;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio::time::{Instant, timeout_at};
use workflow::plan::SourceRef;

use super::{
    LoadedAction,
    build_context::{BuildContext, CONTEXT, CopyPlan},
    docker::DOCKER_ACTION,
    dockerignore::DockerIgnore,
};
use crate::{
    github::dockerfile::{self, BuildStage, CommandForm, CopyInstruction, Dockerfile, Instruction, expand},
    job::{log_writer::LogWriter, step::StepScope, steps::StepRunner},
    sandbox::{
        Command, ContainerHost, ImageProgram, Machine, MachineSpec, OutputSink, OutputStream, STAGE_IMAGE, SandboxError,
    },
};

/// Longest build.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// Stages of one Dockerfile: each has a container.
const STAGES: usize = 8;
/// Search path where an image names none, as the engine has it.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl StepRunner<'_> {
    /// The image of a Dockerfile of an action's repository, built where this worker does not have it.
    pub(super) async fn build(
        &mut self,
        loaded: &LoadedAction,
        file: &str,
        scope: &StepScope<'_>,
    ) -> Result<Arc<dyn Machine>, String> {
        // Its folder is the context, as on GitHub.
        let (folder, name) = file.rsplit_once('/').unwrap_or(("", file));
        let folder = format!("{}/{folder}", loaded.root);
        let folder = folder.trim_end_matches('/');
        let containers = self.env.machine.need_containers(DOCKER_ACTION).map_err(|error| error.to_string())?;
        let packed = containers.pack(folder, CONTEXT).await.map_err(|error| error.to_string())?;
        let mut context = read(packed, ".git").await.map_err(|error| format!("{folder}: {error}"))?;
        let text = context.text(name).ok_or_else(|| format!("there is no {file} in the action's repository"))?;
        let dockerfile = dockerfile::parse(&text).map_err(|problem| format!("{file}: {problem}"))?;
        // One of its own counts before that of the folder.
        for ignored in [format!("{name}.dockerignore"), ".dockerignore".into()] {
            if let Some(text) = context.text(&ignored) {
                let ignore = DockerIgnore::read(&text).map_err(|problem| format!("{ignored}: {problem}"))?;
                context.leave_out(&ignore);
                break;
            }
        }
        let context = Arc::new(context);
        let order = &self.env.job.attempt.order;
        let image = name_for(&order.source, &order.run, &context, &text);
        let spec = self.spec_of_action(image.clone());
        match containers.create_container(spec.clone(), true).await {
            Err(SandboxError::Image { .. }) => {}
            made => return made.map_err(|error| error.to_string()),
        }
        let step = scope.index;
        self.env.job.log.notice(step, &format!("##[group]Build {file}")).await;
        let end = Instant::now() + LIMIT;
        let building = {
            let build = Build {
                job: containers,
                plain: MachineSpec { user: "0:0".into(), ..self.env.job.plain_spec() },
                log: &self.env.job.log,
                step,
                context,
                built: Vec::new(),
            };
            let building =
                timeout_at(scope.deadline.map_or(end, |deadline| deadline.min(end)), build.run(&dockerfile, &image));
            tokio::select! {
                built = building => built.unwrap_or_else(|_| Err("the build took too long".into())),
                _ = self.env.job.deadline.interrupted(None) => Err("the job ended while its image was built".into()),
            }
        };
        self.env.job.log.notice(step, "##[endgroup]").await;
        building.map_err(|problem| format!("{file}: {problem}"))?;
        containers.create_container(spec, true).await.map_err(|error| error.to_string())
    }
}

/// Names an image by what its build sees, and by its Dockerfile, which it may not see.
fn name_for(source: &SourceRef, run: &str, context: &BuildContext, dockerfile: &str) -> String {
    // The services of a job may answer for others while it builds. What a trusted run builds serves all that are trusted.
    // Any other run may have secrets of its author that the next one's author has not: its images are its own.
    let shared_by = if source.trusted { "" } else { run };
    let mut hash = Sha256::new();
    for part in [source.repository.as_str(), shared_by, dockerfile] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    context.digest(&mut hash);
    format!("localhost/longshore-action:{}", hex::encode(hash.finalize()))
}

struct Build<'a> {
    job: &'a dyn ContainerHost,
    plain: MachineSpec,
    log: &'a LogWriter,
    step: i32,
    context: Arc<BuildContext>,
    /// Stages before this one.
    built: Vec<Built>,
}

/// A stage, as far as it is built.
struct Built {
    name: Option<String>,
    machine: Arc<dyn Machine>,
    program: ImageProgram,
    args: HashMap<String, String>,
    shell: Vec<String>,
}

impl Build<'_> {
    async fn run(mut self, file: &Dockerfile, image: &str) -> Result<(), String> {
        if file.stages.len() > STAGES {
            return Err(format!("it has more than {STAGES} stages"));
        }
        let mut global = HashMap::new();
        for (name, value) in &file.args {
            let value = expand(value.as_deref().unwrap_or_default(), &|name| global.get(name).cloned())?;
            global.insert(name.clone(), value);
        }
        for stage in &file.stages {
            let built = self.stage(stage, &global).await?;
            self.built.push(built);
        }
        let last = self.built.last().ok_or("it has no stage")?;
        let containers = last.machine.need_containers(DOCKER_ACTION).map_err(|error| error.to_string())?;
        containers.commit_image(image, &last.program).await.map_err(|error| error.to_string())
    }

    async fn stage(&self, stage: &BuildStage, global: &HashMap<String, String>) -> Result<Built, String> {
        let base = expand(&stage.base, &|name| global.get(name).cloned())?;
        self.write_line(&format!("FROM {base}")).await;
        if base == "scratch" {
            return Err("FROM scratch is not supported: begin with an image, however small".into());
        }
        let earlier = self.built.iter().find(|built| built.name.as_deref() == Some(&base.to_lowercase()));
        let (machine, program, shell) = match earlier {
            Some(earlier) => {
                // What it made goes on in a container of its own.
                let name = format!("{STAGE_IMAGE}:{}", hex::encode(rand::random::<[u8; 16]>()));
                let failed = |error: SandboxError| error.to_string();
                let containers = earlier.machine.need_containers(DOCKER_ACTION).map_err(failed)?;
                containers.commit_image(&name, &earlier.program).await.map_err(failed)?;
                let machine = self.machine(&name).await?;
                (machine, earlier.program.clone(), earlier.shell.clone())
            }
            None => {
                if base.starts_with('-') || base.contains(char::is_whitespace) || base.is_empty() {
                    return Err(format!("FROM `{base}` names no image"));
                }
                let machine = self.machine(&base).await?;
                let containers = machine.need_containers(DOCKER_ACTION).map_err(|error| error.to_string())?;
                let program = containers.image_program();
                (machine, program, ["/bin/sh", "-c"].map(String::from).to_vec())
            }
        };
        let mut built = Built { name: stage.name.clone(), machine, program, args: HashMap::new(), shell };
        for (text, step) in &stage.steps {
            self.write_line(text).await;
            self.apply(&mut built, step, global).await.map_err(|problem| format!("{text}: {problem}"))?;
        }
        Ok(built)
    }

    async fn machine(&self, image: &str) -> Result<Arc<dyn Machine>, String> {
        let spec = MachineSpec { image: image.to_owned(), ..self.plain.clone() };
        self.job.create_container(spec, false).await.map_err(|error| error.to_string())
    }

    async fn apply(
        &self,
        built: &mut Built,
        step: &Instruction,
        global: &HashMap<String, String>,
    ) -> Result<(), String> {
        let expanded = |built: &Built, text: &str| expand(text, &|name| built.variable(name));
        match step {
            Instruction::Run(words) => {
                let argv = match words {
                    CommandForm::Exec(words) => words.clone(),
                    CommandForm::Shell(text) => built.shell.iter().chain([text]).cloned().collect(),
                };
                self.process(built, argv, &built.program.user).await?;
            }
            Instruction::Copy(copy) => self.copy(built, copy).await?,
            Instruction::Env(pairs) => {
                let values = pairs.iter().map(|(name, value)| Ok((name.clone(), expanded(built, value)?)));
                for (name, value) in values.collect::<Result<Vec<_>, String>>()? {
                    built.program.environment.retain(|(known, _)| *known != name);
                    built.program.environment.push((name, value));
                }
            }
            Instruction::Arg(name, value) => {
                let value = match value {
                    Some(value) => Some(expanded(built, value)?),
                    None => global.get(name).cloned(),
                };
                built.args.extend(value.map(|value| (name.clone(), value)));
            }
            Instruction::Directory(path) => {
                let path = absolute(&built.program.directory, &expanded(built, path)?);
                let empty = futures::stream::once(async { Ok(Bytes::from_static(&[0; 1024])) }).boxed();
                built.machine.unpack(&path, false, empty).await.map_err(|error| error.to_string())?;
                built.program.directory = path;
            }
            Instruction::User(user) => built.program.user = expanded(built, user)?,
            Instruction::Entrypoint(words) => {
                built.program.entrypoint = built.words(words);
                // A command of the base belongs to its own entrypoint.
                built.program.command.clear();
            }
            Instruction::Command(words) => built.program.command = built.words(words),
            Instruction::Shell(words) => built.shell.clone_from(words),
        }
        Ok(())
    }

    async fn copy(&self, built: &Built, copy: &CopyInstruction) -> Result<(), String> {
        let expanded = |text: &String| expand(text, &|name| built.variable(name));
        let sources = copy.sources.iter().map(expanded).collect::<Result<Vec<_>, _>>()?;
        let written = expanded(&copy.target)?;
        let target = absolute(&built.program.directory, &written);
        let is_folder = written.ends_with('/')
            || written.ends_with("/.")
            || written == "."
            || copy.sources.len() > 1
            || self.is_folder(built, &target).await;
        let mut tops = Vec::new();
        match &copy.from {
            None => {
                let placed = place(Arc::clone(&self.context), sources, target, is_folder).await?;
                tops.extend(self.unpack(built, placed).await?);
            }
            Some(from) => {
                let machine = self.source_of(&expanded(from)?).await?;
                for source in sources {
                    let path = absolute("/", &source);
                    let containers = machine.need_containers(DOCKER_ACTION).map_err(|error| error.to_string())?;
                    let packed = containers.pack(&path, CONTEXT).await.map_err(|error| error.to_string())?;
                    let tree = read(packed, "").await.map_err(|error| format!("{path}: {error}"))?;
                    let name = path.rsplit('/').next().unwrap_or_default();
                    let (target, is_folder) = match tree.is_file() && is_folder {
                        true => (format!("{}/{name}", target.trim_end_matches('/')), false),
                        false => (target.clone(), is_folder),
                    };
                    let placed = place(Arc::new(tree), vec![".".into()], target, is_folder).await?;
                    tops.extend(self.unpack(built, placed).await?);
                }
            }
        }
        for (program, value) in [("chown", &copy.owner), ("chmod", &copy.mode)] {
            let Some(value) = value else { continue };
            let words = [program.to_owned(), "-R".into(), expanded(value)?];
            self.process(built, words.into_iter().chain(tops.iter().cloned()).collect(), "0:0").await?;
        }
        Ok(())
    }

    /// The stage or image that `--from` names.
    async fn source_of(&self, from: &str) -> Result<Arc<dyn Machine>, String> {
        let named = self.built.iter().find(|built| built.name.as_deref() == Some(&from.to_lowercase()));
        let numbered = from.parse().ok().and_then(|number: usize| self.built.get(number));
        match named.or(numbered) {
            Some(built) => Ok(Arc::clone(&built.machine)),
            None => self.machine(from).await,
        }
    }

    async fn is_folder(&self, built: &Built, path: &str) -> bool {
        let command = Command { directory: path.to_owned(), ..built.command(Vec::new(), "0:0") };
        let command = Command {
            argv: ["sh", "-c", "[ -d \"$0\" ]", path].map(String::from).to_vec(),
            directory: "/".into(),
            ..command
        };
        matches!(built.machine.run(command, &BuildOutput::new(self.log, self.step)).await, Ok(exit) if exit.code == 0)
    }

    /// Copies, and gives what was copied.
    async fn unpack(&self, built: &Built, mut plan: CopyPlan) -> Result<IndexSet<String>, String> {
        let (folder, tops) = (std::mem::take(&mut plan.folder), std::mem::take(&mut plan.tops));
        built.machine.unpack(&folder, false, plan.archive()).await.map_err(|error| error.to_string())?;
        Ok(tops)
    }

    async fn process(&self, built: &Built, argv: Vec<String>, user: &str) -> Result<(), String> {
        let output = BuildOutput::new(self.log, self.step);
        let ended = built.machine.run(built.command(argv, user), &output).await;
        output.end().await;
        match ended.map_err(|error| error.to_string())? {
            exit if exit.out_of_memory => Err("it used more memory than it may".into()),
            exit if exit.code != 0 => Err(format!("it ended with exit code {}", exit.code)),
            _ => Ok(()),
        }
    }

    async fn write_line(&self, text: &str) {
        self.log.notice(self.step, &format!("| {text}")).await;
    }
}

impl Built {
    /// What a name stands for in the stage.
    fn variable(&self, name: &str) -> Option<String> {
        let of_image = self.program.environment.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone());
        let path = || (name == "PATH").then(|| PATH.to_owned());
        of_image.or_else(|| self.args.get(name).cloned()).or_else(path)
    }

    fn words(&self, words: &CommandForm) -> Vec<String> {
        match words {
            CommandForm::Exec(words) => words.clone(),
            CommandForm::Shell(text) => self.shell.iter().chain([text]).cloned().collect(),
        }
    }

    fn command(&self, argv: Vec<String>, user: &str) -> Command {
        let mut environment = vec![("PATH".to_owned(), PATH.to_owned()), ("HOME".to_owned(), "/root".to_owned())];
        environment.extend(self.args.clone());
        environment.extend(self.program.environment.clone());
        // The last one of a name counts.
        let environment: indexmap::IndexMap<_, _> = environment.into_iter().collect();
        let directory = if self.program.directory.is_empty() { "/" } else { &self.program.directory };
        let user = if user.is_empty() { "0:0" } else { user };
        Command {
            argv,
            environment: environment.into_iter().collect(),
            directory: directory.to_owned(),
            make_directory: true,
            user: user.to_owned(),
            ..Command::default()
        }
    }
}

/// Reads a context, which may have as many entries as fit in it, beside the tasks of other jobs.
async fn read(packed: Vec<u8>, without: &'static str) -> Result<BuildContext, String> {
    let reading = tokio::task::spawn_blocking(move || BuildContext::read(packed, without));
    reading.await.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
}

/// Chooses what is copied, beside the tasks of other jobs.
async fn place(
    context: Arc<BuildContext>,
    sources: Vec<String>,
    target: String,
    is_folder: bool,
) -> Result<CopyPlan, String> {
    let placing = tokio::task::spawn_blocking(move || context.place(&sources, &target, is_folder));
    placing.await.map_err(|error| error.to_string())?
}

/// An absolute path without its detours.
fn absolute(folder: &str, path: &str) -> String {
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{folder}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

/// A build's output: text, in which nothing is a command.
struct BuildOutput<'a> {
    log: &'a LogWriter,
    step: i32,
    rest: Mutex<Vec<u8>>,
}

/// Bytes of a line that is not shown before it ends.
const LINE: usize = 64 << 10;

impl<'a> BuildOutput<'a> {
    fn new(log: &'a LogWriter, step: i32) -> Self {
        Self { log, step, rest: Mutex::default() }
    }

    async fn end(&self) {
        let rest = std::mem::take(&mut *self.rest.lock());
        self.show(&rest).await;
    }

    async fn show(&self, lines: &[u8]) {
        let text = String::from_utf8_lossy(lines);
        if !text.trim_end().is_empty() {
            let text = text.trim_end_matches(['\n', '\r']).replace('\n', "\n| ");
            self.log.notice(self.step, &format!("| {text}")).await;
        }
    }
}

impl OutputSink for BuildOutput<'_> {
    fn write(&self, _stream: OutputStream, data: Bytes, _time_ms: u64) -> BoxFuture<'_, ()> {
        async move {
            let whole = {
                let mut rest = self.rest.lock();
                rest.extend_from_slice(&data);
                let end = memchr::memrchr(b'\n', &rest).map_or(0, |at| at + 1);
                let end = if end == 0 && rest.len() > LINE { rest.len() } else { end };
                rest.drain(..end).collect::<Vec<_>>()
            };
            self.show(&whole).await;
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn attack_14_an_image_that_an_outsiders_run_or_an_unproven_commit_built_serves_no_other_run() {
        let context = BuildContext::read(vec![0; 1024], "").unwrap();
        let name = |trusted, run| {
            let source = SourceRef { repository: "r".into(), trusted, ..SourceRef::default() };
            name_for(&source, run, &context, "FROM x")
        };
        assert_ne!(name(false, "one"), name(false, "other"));
        assert_eq!(name(false, "one"), name(false, "one"));
        assert_eq!(name(true, "one"), name(true, "other"));
        assert_ne!(name(true, "one"), name(false, "one"));
    }
}
