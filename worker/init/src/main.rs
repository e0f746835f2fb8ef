//! The first process of a job's container: starts steps, carries their output, reaps what they leave.
//!
//! Usage: `longshore-init NONCE USER WORKSPACE TEMP`, then `init.proto` over stdin and stdout. Threads and blocking
//! calls only: the program must be small, and the steps are the ones to have the machine.
//!
//! As PID 1 it outlives its reader: end of input means "detached". Otherwise (the `host` back end) the end of input
//! ends every step and the program.

mod archive;
mod files;
mod glob;
mod process;
mod serve;
mod spool;
mod terminate;
mod users;
mod wire;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: steps that run as root beside us must not reach our stdin, stdout or memory through /proc.
    if let Err(error) = nix::sys::prctl::set_dumpable(false) {
        return refuse(&format!("cannot hide from the steps: {error}"));
    }
    let mut arguments = std::env::args().skip(1);
    let (Some(nonce), Some(user), Some(workspace), Some(temp)) =
        (arguments.next(), arguments.next(), arguments.next(), arguments.next())
    else {
        return refuse("usage: longshore-init NONCE USER WORKSPACE TEMP");
    };
    match serve::serve(&serve::Place { nonce, user, workspace: workspace.into(), temp: temp.into() }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => refuse(&error.to_string()),
    }
}

#[allow(clippy::print_stderr)]
fn refuse(message: &str) -> ExitCode {
    eprintln!("longshore-init: {message}");
    ExitCode::FAILURE
}
