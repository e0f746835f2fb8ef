//! Runs one process of a step: its environment and files before, its end and what it left in files after.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use indexmap::IndexMap;
use tokio::time::{Instant, sleep};

use super::{
    command_files::CommandFiles,
    deadline::{Interrupt, StopCause},
    output::ParserOptions,
    step_env::{SUMMARY, StepEnv},
};
use crate::{
    github::files::{self, CommandFile},
    sandbox::{Command, Machine, ProcessExit, SandboxError},
};

/// What a process that must end is sent, and how long each has to work (GitHub's runner: 7.5 s, then 2.5 s).
const SIGNALS: [(i32, Duration); 3] =
    [(2, Duration::from_millis(7500)), (15, Duration::from_millis(2500)), (9, Duration::from_secs(10))];

/// One process to run.
pub(super) struct ProcessSpec {
    pub(super) step: i32,
    /// Where it runs; `None`: in the job's own machine.
    pub(super) machine: Option<Arc<dyn Machine>>,
    pub(super) argv: Vec<String>,
    pub(super) environment: IndexMap<String, String>,
    pub(super) directory: String,
    pub(super) files: Vec<(String, Bytes, u32)>,
    /// Where its program is looked for; empty: on its own `PATH`.
    pub(super) search_path: String,
    /// When the step's time is over.
    pub(super) deadline: Option<Instant>,
}

/// How a process ended.
#[derive(Debug)]
pub(super) enum ProcessEnd {
    /// By itself.
    Exit(ProcessExit),
    /// The step's time was over.
    TimedOut,
    /// The job ends.
    Interrupted(StopCause),
    /// Its program is not in the machine.
    NotFound(String),
    /// It could not be started as asked.
    Refused(String),
    /// The machine went away.
    Lost(String),
}

/// A process's end and what it said.
pub(super) struct ProcessResult {
    pub(super) ended: ProcessEnd,
    pub(super) outputs: IndexMap<String, String>,
    pub(super) state: IndexMap<String, String>,
    /// Commands or files of the process were wrong: the step fails.
    pub(super) failed: bool,
}

impl StepEnv<'_> {
    /// Runs a process with the command files around it.
    pub(super) async fn process(&mut self, mut process: ProcessSpec) -> ProcessResult {
        let beside = process.machine.take();
        let machine = beside.as_deref().unwrap_or(self.machine);
        let files = CommandFiles::new(&machine.temp(), &self.contexts.number());
        self.contexts.count();
        for (name, path) in files.entries() {
            process.environment.insert(name.to_owned(), path.to_owned());
            process.files.push((path.to_owned(), Bytes::new(), 0o666));
        }
        if !self.has_event || beside.is_some() {
            let (path, content) = self.contexts.event();
            process.files.push((path, content.into(), 0o644));
        }
        let is = |name: &str, wanted: &str| process.environment.get(name).is_some_and(|value| value == wanted);
        let options = ParserOptions {
            debug: is("RUNNER_DEBUG", "1"),
            unsecure: is("ACTIONS_ALLOW_UNSECURE_COMMANDS", "true"),
            workspace: self.machine.workspace(),
        };
        let command = Command {
            argv: process.argv,
            environment: process.environment.into_iter().collect(),
            directory: process.directory,
            search_path: process.search_path,
            files: process.files,
            collect: files.entries().map(|(_, path)| path.to_owned()).into(),
            ..Command::default()
        };
        let output = self.job.log.open(process.step, options).await;
        let ended = self.until_end(machine, command, &output, process.deadline).await;
        let parsed = self.job.log.close(output).await;
        self.started = true;
        self.has_event |= beside.is_none();
        let mut done = ProcessResult { ended, outputs: parsed.outputs, state: parsed.state, failed: parsed.failed };
        self.contexts.add_env(parsed.env);
        parsed.paths.iter().for_each(|path| self.contexts.add_path(path));
        self.annotate(parsed.annotations);
        if let ProcessEnd::Exit(exit) = &mut done.ended {
            let collected = std::mem::take(&mut exit.files);
            let too_long = std::mem::take(&mut exit.too_long);
            self.read_files(&files, collected, &mut done, process.step).await;
            for path in too_long {
                self.too_long(&files, &path, &mut done, process.step).await;
            }
        }
        done
    }

    async fn until_end(
        &mut self,
        machine: &dyn Machine,
        command: Command,
        output: &dyn crate::sandbox::OutputSink,
        deadline: Option<Instant>,
    ) -> ProcessEnd {
        let handle = command.handle.clone();
        let mut run = machine.run(command, output);
        let job_deadline = &mut self.job.deadline;
        let interrupt = tokio::select! {
            result = &mut run => return ended(result),
            interrupt = job_deadline.interrupt(deadline) => interrupt,
        };
        let mut ended = match interrupt {
            Interrupt::Step => ProcessEnd::TimedOut,
            Interrupt::Job(cause) => {
                job_deadline.end(cause);
                ProcessEnd::Interrupted(cause)
            }
        };
        for (signal, patience) in SIGNALS {
            let hard = job_deadline.ended.is_some_and(|cause| !cause.is_graceful());
            if hard && signal != 9 {
                continue;
            }
            machine.signal(&handle, signal).await;
            tokio::select! {
                result = &mut run => {
                    if let Err(SandboxError::Lost(text)) = result {
                        return ProcessEnd::Lost(text);
                    }
                    return ended;
                }
                () = sleep(patience) => {}
                () = hard_end(job_deadline), if !hard => {
                    if let Some(cause) = job_deadline.ended {
                        ended = ProcessEnd::Interrupted(cause);
                    }
                }
            }
        }
        ProcessEnd::Lost("a process did not end when it was killed".into())
    }

    async fn read_files(
        &mut self,
        files: &CommandFiles,
        collected: Vec<(String, Bytes)>,
        done: &mut ProcessResult,
        step: i32,
    ) {
        for (path, content) in collected {
            if content.is_empty() {
                continue;
            }
            let text = String::from_utf8_lossy(&content);
            let result = if path == files.env {
                self.set_env(&text)
            } else if path == files.output {
                files::parse(CommandFile::Output, &text).map(|values| done.outputs.extend(values.set))
            } else if path == files.state {
                files::parse(CommandFile::State, &text).map(|values| done.state.extend(values.set))
            } else if path == files.path {
                files::paths(&text).iter().for_each(|path| self.contexts.add_path(path));
                Ok(())
            } else {
                self.summarise(&text);
                Ok(())
            };
            if let Err(error) = result {
                let message = error.to_string();
                self.refuse(step, &message).await;
                done.failed = true;
            }
        }
    }

    /// A file was more than can be read. A summary is only left out, as on GitHub.
    async fn too_long(&mut self, files: &CommandFiles, path: &str, done: &mut ProcessResult, step: i32) {
        if path == files.summary {
            return self.error(format!("the step summary is left out; it may have {SUMMARY} bytes"));
        }
        let name = files.entries().into_iter().find(|(_, known)| *known == path).map_or("", |(name, _)| name);
        self.refuse(step, &format!("what the step wrote to ${name} is too long")).await;
        done.failed = true;
    }

    fn set_env(&mut self, text: &str) -> Result<(), files::CommandFileError> {
        let values = files::parse(CommandFile::Env, text)?;
        self.contexts.add_env(values.set);
        for name in values.refused {
            self.error(format!("{name} cannot be set by GITHUB_ENV: it would run code in every later step"));
        }
        Ok(())
    }
}

/// Waits until a gentle end becomes a hard one.
async fn hard_end(deadline: &mut super::deadline::Deadline) {
    loop {
        if let Interrupt::Job(cause) = deadline.interrupt(None).await {
            deadline.end(cause);
            if !cause.is_graceful() {
                return;
            }
        }
    }
}

fn ended(result: Result<ProcessExit, SandboxError>) -> ProcessEnd {
    match result {
        Ok(exit) => ProcessEnd::Exit(exit),
        Err(SandboxError::NotFound(text)) => ProcessEnd::NotFound(text),
        Err(SandboxError::Refused(text)) => ProcessEnd::Refused(text),
        Err(error) => ProcessEnd::Lost(error.to_string()),
    }
}
