//! The client's verbs.

pub(crate) mod api;
pub(crate) mod approve;
pub(crate) mod artifacts;
pub(crate) mod asked;
pub(crate) mod cancel;
pub(crate) mod chain;
pub(crate) mod definition;
pub(crate) mod keygen;
pub(crate) mod logs;
pub(crate) mod relay;
pub(crate) mod rerun;
pub(crate) mod runs;
pub(crate) mod show;
pub(crate) mod stream;
pub(crate) mod submit;
pub(crate) mod verify;
pub(crate) mod watch;
pub(crate) mod workers;

use std::process::ExitCode;

/// A state, and why it is so.
pub(crate) fn because(state: &str, why: Option<&str>) -> String {
    match why.filter(|why| !why.is_empty()) {
        Some(why) => format!("{state} ({why})"),
        None => state.to_owned(),
    }
}

/// The phase of a run in the word that lists have for it: one that is active may wait as a whole, or not have begun.
pub(crate) fn standing(phase: &str, waits: bool, started: bool) -> &str {
    match (phase, waits, started) {
        ("active", true, _) => "waiting",
        ("active", false, false) => "queued",
        ("active", false, true) => "running",
        (phase, ..) => phase,
    }
}

/// A job's name, with the number of its attempt where that is not the first.
pub(crate) fn attempted(name: &str, attempt: u32) -> String {
    if attempt > 1 { format!("{name}, attempt {attempt}") } else { name.to_owned() }
}

/// The exit code that a run's conclusion stands for.
pub(crate) fn code_of(conclusion: Option<&str>) -> ExitCode {
    match conclusion {
        Some("success" | "skipped") => ExitCode::SUCCESS,
        Some("cancelled") => ExitCode::from(130),
        _ => ExitCode::FAILURE,
    }
}
