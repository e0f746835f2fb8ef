//! The first process of a job's container: starts steps, carries their output, reaps what they leave.
//!
//! Usage: `longshore-init NONCE USER WORKSPACE TEMP OPEN_FILES`, then `init.proto` over stdin and stdout. Threads and blocking
//! calls only: the program must be small, and the steps are the ones to have the machine.
//!
//! `longshore-init forward …` is a helper of its own, see [`forward`].
//!
//! As PID 1 it outlives its reader: end of input means "detached". Otherwise (the `host` back end) the end of input
//! ends every step and the program.

#![allow(clippy::disallowed_types, reason = "the program is kept small: the locks and conditions of std suffice")]

mod archive;
mod files;
mod forward;
mod glob;
mod pack;
mod process;
mod process_tree;
mod serve;
mod spool;
mod terminate;
mod tunnel;
mod users;
mod wire;

use std::process::ExitCode;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

fn main() -> ExitCode {
    // First of all: steps that run as root beside us must not reach our stdin, stdout or memory through /proc.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        return refuse(&format!("cannot hide from the steps: {error}"));
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let helped = match words.split_first() {
        Some((word, routes)) if word == "forward" => Some(forward::start(routes)),
        Some((word, routes)) if word == "carry" => Some(forward::carry(routes)),
        Some((word, patterns)) if word == "pack" => {
            return match pack::run(patterns) {
                Ok(true) => ExitCode::SUCCESS,
                Ok(false) => pack::NOTHING.into(),
                Err(error) => refuse(&error.to_string()),
            };
        }
        _ => None,
    };
    if let Some(helped) = helped {
        return helped.map_or_else(|error| refuse(&error.to_string()), |()| ExitCode::SUCCESS);
    }
    let mut arguments = words.into_iter();
    let (Some(nonce), Some(user), Some(workspace), Some(temp), Some(Ok(open_files))) = (
        arguments.next(),
        arguments.next(),
        arguments.next(),
        arguments.next(),
        arguments.next().map(|number| number.parse::<u64>()),
    ) else {
        return refuse("usage: longshore-init NONCE USER WORKSPACE TEMP OPEN_FILES");
    };
    if let Err(error) = limit_open_files(open_files) {
        return refuse(&format!("cannot limit open files to {open_files}: {error}"));
    }
    match serve::serve(&serve::InitOptions { nonce, user, workspace: workspace.into(), temp: temp.into() }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error.to_string()),
    }
}

/// Steps inherit it. Not left to the engine: it refuses to start where its own limit is lower.
fn limit_open_files(wanted: u64) -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let limit = wanted.min(hard);
    setrlimit(Resource::RLIMIT_NOFILE, limit, limit)
}

#[allow(clippy::print_stderr)]
fn refuse(message: &str) -> ExitCode {
    eprintln!("longshore-init: {message}");
    ExitCode::FAILURE
}
