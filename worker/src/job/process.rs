//! Runs one process of a step: its environment and files before, its end and what it left in files after.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use indexmap::IndexMap;
use tokio::time::{Instant, sleep};

use super::{
    deadline::{Interrupt, StopCause},
    report_limits::{STEP_VALUES, SUMMARY},
    step_env::StepEnv,
};
use crate::{
    dialect::{step_dialect::StepFile, step_values::StepValues},
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
    /// Runs a process with the files around it that it may leave values in.
    pub(super) async fn process(&mut self, mut process: ProcessSpec) -> ProcessResult {
        let beside = process.machine.take();
        let machine = beside.as_deref().unwrap_or(self.machine);
        let files = self.job.dialect.step_files(&machine.temp(), &self.contexts.number());
        self.contexts.count();
        for StepFile { variable, path, .. } in &files {
            process.environment.insert((*variable).to_owned(), path.clone());
            process.files.push((path.clone(), Bytes::new(), 0o666));
        }
        if !self.has_event || beside.is_some() {
            let event = self.contexts.event_file();
            process.files.extend(event.map(|(path, content)| (path, content.into(), 0o644)));
        }
        let workspace = self.machine.workspace();
        let reader = self.job.dialect.line_reader(&process.environment, &workspace);
        let command = Command {
            argv: process.argv,
            environment: process.environment.into_iter().collect(),
            // A step may have removed the workspace; what a workflow names must be there.
            make_directory: process.directory == workspace,
            directory: process.directory,
            search_path: process.search_path,
            files: process.files,
            collect: files.iter().map(|file| file.path.clone()).collect(),
            ..Command::default()
        };
        let output = self.job.log.open(process.step, reader, workspace).await;
        let ended = self.until_end(machine, command, &output, process.deadline).await;
        let said = self.job.log.close(output).await;
        self.started = true;
        self.has_event |= beside.is_none();
        let mut done = ProcessResult { ended, outputs: IndexMap::new(), state: IndexMap::new(), failed: false };
        self.take_over(said, &mut done, process.step).await;
        if let ProcessEnd::Exit(exit) = &mut done.ended {
            let collected = std::mem::take(&mut exit.files);
            let too_long = std::mem::take(&mut exit.too_long);
            let of = |path: &str| files.iter().find(|file| file.path == path);
            for (path, content) in collected.into_iter().filter(|(_, content)| !content.is_empty()) {
                if let Some(file) = of(&path) {
                    self.read_file(file, &content, &mut done, process.step).await;
                }
            }
            for (path, content) in too_long {
                if let Some(file) = of(&path) {
                    self.too_long(file, &content, &mut done, process.step).await;
                }
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

    async fn read_file(&mut self, file: &StepFile, content: &[u8], done: &mut ProcessResult, step: i32) {
        match self.job.dialect.read_step_file(file, &String::from_utf8_lossy(content)) {
            Ok(values) => self.take_over(values, done, step).await,
            Err(problem) => {
                self.refuse(step, &problem).await;
                done.failed = true;
            }
        }
    }

    /// A file was more than can be read. Of a summary, what was read counts.
    async fn too_long(&mut self, file: &StepFile, content: &[u8], done: &mut ProcessResult, step: i32) {
        if file.is_summary {
            self.error(format!("the step summary is cut: it may have {SUMMARY} bytes"));
            return self.read_file(file, content, done, step).await;
        }
        self.refuse(step, &format!("what the step wrote to ${} is too long", file.variable)).await;
        done.failed = true;
    }

    /// What a process left holds for its step, and for those after it.
    async fn take_over(&mut self, values: StepValues, done: &mut ProcessResult, step: i32) {
        done.failed |= values.failed;
        self.messages.annotate(values.annotations, &self.job.masker);
        if !values.summary.is_empty() {
            self.messages.summarise(&values.summary, &self.job.masker);
        }
        let size =
            |map: &IndexMap<String, String>| map.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
        for (name, value) in values.outputs {
            if self.has_room(name.len() + value.len()) {
                done.outputs.insert(name, value);
            } else {
                let why = format!("output {name} is left out: {}", Self::too_many_values());
                self.refuse(step, &why).await;
            }
        }
        let paths: usize = values.paths.iter().map(String::len).sum();
        if !self.has_room(size(&values.state) + size(&values.env) + paths) {
            self.refuse(step, &Self::too_many_values()).await;
            done.failed = true;
            return;
        }
        done.state.extend(values.state);
        self.contexts.add_env(values.env);
        values.paths.iter().for_each(|path| self.contexts.add_path(path));
    }

    /// Takes room for values that steps leave, where there is enough.
    fn has_room(&mut self, size: usize) -> bool {
        let fits = self.values_size + size <= STEP_VALUES;
        self.values_size += if fits { size } else { 0 };
        fits
    }

    fn too_many_values() -> String {
        format!("what the steps of a job leave for each other may have {} MiB together", STEP_VALUES >> 20)
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
