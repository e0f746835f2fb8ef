//! `longshore`: CI/CD for Nostr git. The one binary: coordinator, worker, and the client's verbs.

mod client;
mod clock;
mod coordinator;
mod data_lock;
#[cfg(feature = "dev")]
mod dev;
mod doctor;
mod eval;
mod exec;
mod fetched_actions;
mod label_images;
mod lint;
mod manual;
mod plan;
mod store_rekey;
mod store_size;
mod terminal;
mod worker;
mod workflow_files;

use std::{io::IsTerminal, process::ExitCode};

use ::worker::job_process::ForkRole;
use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use crate::terminal::printable::printable_lines;

/// A tenth of the coordinator's processor time with the system's allocator was the allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// What every command's exit code says.
const EXIT_CODES: &str = "\
Exit codes:
  0    done; of a run: success, or nothing to do
  1    of a run: failure; of lint, plan, verify and doctor: something is wrong
  2    it could not be done: a wrong flag, file or key, or nobody answered; the message says what to do
  130  of a run: cancelled
  141  nobody reads what is printed any more";

/// CI/CD for Nostr git: a coordinator hears job events on relays, workers run them in containers
///
/// Try it: `longshore dev` starts a relay, a coordinator and a worker in one process. `longshore exec .` runs the
/// workflow of a local checkout without any of them.
#[derive(Debug, Parser)]
#[command(version, propagate_version = true, after_long_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Coordinator(coordinator::Args),
    Worker(worker::Args),
    #[cfg(feature = "dev")]
    Dev(dev::Args),
    Exec(Box<exec::Args>),
    Lint(lint::Args),
    Plan(plan::Args),
    Eval(eval::Args),
    Submit(client::submit::Args),
    Rerun(client::rerun::Args),
    Runs(client::runs::Args),
    Show(client::show::Args),
    Logs(client::logs::Args),
    Artifacts(client::artifacts::Args),
    Watch(client::watch::Args),
    Approve(client::approve::Args),
    Cancel(client::cancel::Args),
    Definition(client::definition::Args),
    Repository(client::repository::Args),
    Secret(client::repository_values::SecretArgs),
    Variable(client::repository_values::VariableArgs),
    Cache(client::cache::Args),
    Workers(client::workers::Args),
    Verify(client::verify::Args),
    Keygen(client::keygen::Args),
    Doctor(doctor::Args),
    Store(store_size::Args),
    Completions(manual::CompletionArgs),
    Man(manual::ManArgs),
}

impl Command {
    /// Whether there are jobs to bring to an end before the process may end.
    fn runs_jobs(&self) -> bool {
        match self {
            Self::Coordinator(_) | Self::Worker(_) | Self::Exec(_) => true,
            #[cfg(feature = "dev")]
            Self::Dev(_) => true,
            _ => false,
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|name| name == ::worker::job_process::COMMAND) && arguments.next().is_none() {
        return serve_jobs();
    }
    let command = Cli::parse().command;
    log_to_stderr();
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(Box::pin(start(command))),
        Err(error) => no_threads(error),
    }
}

/// What a worker starts: no command for people. Here a process forks one for each job, and goes on in each.
fn serve_jobs() -> ExitCode {
    log_to_stderr();
    install_tls_provider();
    match ::worker::job_process::serve_forks() {
        Ok(ForkRole::Server) => ExitCode::SUCCESS,
        Ok(ForkRole::Job) => serve_one_job(),
        Err(error) => {
            print_error(&anyhow::Error::from(error).context("this command is for `longshore worker` alone"));
            ExitCode::from(2)
        }
    }
}

/// One thread and a few that may block: there may be as many such processes as the worker has slots, and each is limited in
/// what it may have.
fn serve_one_job() -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().max_blocking_threads(32).enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(Box::pin(::worker::job_process::serve_one_job()));
            // The worker sends the spans, and what is still under way here is of no use any more.
            std::process::exit(ended.map_or_else(
                |error| {
                    print_error(&error);
                    2
                },
                |()| 0,
            ));
        }
        Err(error) => no_threads(error),
    }
}

fn no_threads(error: std::io::Error) -> ExitCode {
    print_error(&anyhow::Error::from(error).context("the threads of this process"));
    ExitCode::from(2)
}

/// One provider for every TLS user of the process; a second call would be the only way to fail.
fn install_tls_provider() {
    let _ = rustls::crypto::ring::default_provider().install_default();
}

async fn start(command: Command) -> ExitCode {
    if !command.runs_jobs() {
        exit_on_closed_pipe();
    }
    install_tls_provider();
    let ended = match telemetry::start() {
        Ok(()) => Box::pin(run(command)).await,
        Err(error) => Err(error),
    };
    // It blocks until the spans are sent, by tasks of this runtime.
    let _ = tokio::task::spawn_blocking(telemetry::stop).await;
    match ended {
        Ok(code) => code,
        Err(error) => {
            print_error(&error);
            ExitCode::from(2)
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Coordinator(args) => coordinator::run(args).await,
        Command::Worker(args) => worker::run(args).await,
        #[cfg(feature = "dev")]
        Command::Dev(args) => Box::pin(dev::run(args)).await,
        Command::Exec(args) => Box::pin(exec::run(*args)).await,
        Command::Lint(args) => lint::run(&args).await,
        Command::Plan(args) => plan::run(&args).await,
        Command::Eval(args) => eval::run(&args),
        Command::Submit(args) => client::submit::run(args).await,
        Command::Rerun(args) => client::rerun::run(args).await,
        Command::Runs(args) => client::runs::run(args).await,
        Command::Show(args) => client::show::run(args).await,
        Command::Logs(args) => client::logs::run(args).await,
        Command::Artifacts(args) => client::artifacts::run(args).await,
        Command::Watch(args) => client::watch::run(args).await,
        Command::Approve(args) => client::approve::run(args).await,
        Command::Cancel(args) => client::cancel::run(args).await,
        Command::Definition(args) => client::definition::run(args).await,
        Command::Repository(args) => client::repository::run(args).await,
        Command::Secret(args) => client::repository_values::secret(args).await,
        Command::Variable(args) => client::repository_values::variable(args).await,
        Command::Cache(args) => client::cache::run(args).await,
        Command::Workers(args) => client::workers::run(args).await,
        Command::Verify(args) => client::verify::run(args).await,
        Command::Keygen(args) => client::keygen::run(&args),
        Command::Doctor(args) => doctor::run(args).await,
        Command::Store(args) => store_size::run(args).await,
        Command::Completions(args) => manual::completions(&args),
        Command::Man(args) => manual::pages(&args),
    }
}

fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("LONGSHORE_LOG")
        .unwrap_or_else(|_| EnvFilter::new("info,nostr_relay_pool=off,nostr_relay_builder=off"));
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        .with_target(false)
        // Where standard error is gone there is nowhere to say so.
        .log_internal_errors(false);
    match std::env::var("LONGSHORE_LOG_FORMAT").as_deref() {
        Ok("json") => logger.json().with_ansi(false).init(),
        _ => logger.init(),
    }
}

/// The code with which a shell shows that a program ended at a closed pipe: 128 and SIGPIPE.
const CLOSED_PIPE: i32 = 141;

/// Ends without a word where nobody reads what is printed any more (`longshore lint … | head`). Not for commands with
/// jobs to bring to an end: `println!` tells of a closed pipe by a panic only.
fn exit_on_closed_pipe() {
    let otherwise = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let said = panic.payload().downcast_ref::<String>();
        if said.is_some_and(|said| said.starts_with("failed ") && said.contains("Broken pipe")) {
            std::process::exit(CLOSED_PIPE);
        }
        otherwise(panic);
    }));
}

#[allow(clippy::print_stderr)]
fn print_error(error: &anyhow::Error) {
    eprintln!("longshore: {}", printable_lines(&format!("{error:#}")));
}
