//! The client's verbs.

pub(crate) mod api;
pub(crate) mod approve;
pub(crate) mod artifacts;
pub(crate) mod cache;
pub(crate) mod cancel;
pub(crate) mod chain_check;
pub(crate) mod definition;
pub(crate) mod event_chain;
pub(crate) mod hive_ci;
pub(crate) mod key_file;
pub(crate) mod keygen;
pub(crate) mod local_commit;
pub(crate) mod logs;
pub(crate) mod relay;
pub(crate) mod report_chain;
pub(crate) mod repository;
pub(crate) mod repository_values;
pub(crate) mod rerun;
pub(crate) mod run_events;
pub(crate) mod run_status;
pub(crate) mod runs;
pub(crate) mod show;
pub(crate) mod submit;
pub(crate) mod verify;
pub(crate) mod watch;
pub(crate) mod workers;

use std::process::ExitCode;

/// A state with the reason for it in brackets.
pub(crate) fn with_reason(state: &str, why: Option<&str>) -> String {
    match why.filter(|why| !why.is_empty()) {
        Some(why) => format!("{state} ({why})"),
        None => state.to_owned(),
    }
}

/// The status word of a run that lists use: a run in the phase `active` may be waiting, queued or running.
pub(crate) fn status_word(phase: &str, waits: bool, started: bool) -> &str {
    match (phase, waits, started) {
        ("active", true, _) => "waiting",
        ("active", false, false) => "queued",
        ("active", false, true) => "running",
        (phase, ..) => phase,
    }
}

/// A job's name, with the number of its attempt from the second on.
pub(crate) fn name_with_attempt(name: &str, attempt: u32) -> String {
    if attempt > 1 { format!("{name}, attempt {attempt}") } else { name.to_owned() }
}

/// The exit code for a run's conclusion.
pub(crate) fn exit_code(conclusion: Option<&str>) -> ExitCode {
    match conclusion {
        Some("success" | "skipped") => ExitCode::SUCCESS,
        Some("cancelled") => ExitCode::from(130),
        _ => ExitCode::FAILURE,
    }
}
