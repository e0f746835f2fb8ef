//! Plain Loom jobs: a 5100 that names a program and no run. They are run where the operator allows it, and refused with a
//! reason elsewhere.

use nostr::Event;
use secrecy::SecretString;

use super::{
    HiveCi,
    read::{Pair, origin},
};
use crate::{
    protocol::{ReadContext, Refusal, Rejection, Secrets},
    tags,
};
use domain::run::{PlainCommand, RunRequest};

/// Why a job without a run is not run here.
pub(super) fn refusal(job: &Event) -> String {
    let command = tags::first(job, "cmd").unwrap_or_default();
    let command: String = command.chars().filter(|c| !c.is_control()).take(40).collect();
    format!(
        "this pool runs workflows, not plain Loom commands (`{command}`): send the job with an `e` tag that names its \
         Hive CI run (kind 5401)"
    )
}

/// Reads a job that names a program. Its id and signature were checked before.
///
/// # Errors
/// A refusal.
pub(super) fn request(job: &Event, context: &ReadContext<'_>) -> Result<(RunRequest, Secrets), Rejection> {
    match read(job, context) {
        Ok((request, values)) => Ok((request, Secrets { publisher: None, values })),
        Err(reason) => Err(Rejection::Refused(Box::new(Refusal::of_event(&HiveCi, job, reason)))),
    }
}

fn read(job: &Event, context: &ReadContext<'_>) -> Result<(RunRequest, Vec<(String, SecretString)>), String> {
    if !context.commands {
        return Err(refusal(job));
    }
    let pair = Pair { job, run: job, context };
    pair.unpaid()?;
    let program = tags::first(job, "cmd").unwrap_or_default().to_owned();
    if program.is_empty() {
        return Err("the job's `cmd` is empty: name the program to run".into());
    }
    if job.content.contains('\0') {
        return Err("the job's content, the program's input, holds the character U+0000: leave it out".into());
    }
    let arguments = tags::all(job, "args").next().unwrap_or_default().iter().skip(1).cloned().collect();
    let mut notices = Vec::new();
    let (_, env) = pair.env(&mut notices)?;
    let values = pair.secrets(&mut notices)?;
    let request = RunRequest {
        id: job.id.to_hex(),
        origin: origin(job).into(),
        actor: job.pubkey.to_hex(),
        env,
        notices,
        command: Some(PlainCommand { program, arguments, input: job.content.clone() }),
        received_at: context.now,
        ..RunRequest::default()
    };
    Ok((request, values))
}
