//! The deployment system (Bahia): strict about every event.

use nostr::Event;

use super::value;

/// Checks one event of a run.
///
/// # Errors
/// Why it is refused.
pub fn check(event: &Event, run: &str, job: &str, requester: &str) -> Result<(), String> {
    event.verify().map_err(|error| error.to_string())?;
    let need = |name: &str| value(event, name).ok_or(format!("no `{name}`"));
    let number = |name: &str| need(name)?.parse::<i64>().map_err(|_| format!("`{name}` is no integer"));
    let equal = |name: &str, expected: &str| {
        let found = need(name)?;
        if found == expected { Ok(()) } else { Err(format!("`{name}` is {found}, not {expected}")) }
    };
    match event.kind.as_u16() {
        30100 => {
            equal("d", job)?;
            equal("e", job)?;
            equal("p", requester)?;
            match need("status")? {
                "queued" | "running" | "completed" | "failed" | "cancelled" | "timeout" => Ok(()),
                other => Err(format!("status {other}")),
            }
        }
        5101 => {
            equal("e", job)?;
            equal("p", requester)?;
            number("exit_code")?;
            match need("success")? {
                "true" | "false" => Ok(()),
                other => Err(format!("success {other}")),
            }
        }
        5402 => {
            equal("e", run)?;
            number("exit_code")?;
            number("duration")?;
            need("log_url")?;
            match need("status")? {
                "success" | "failure" => Ok(()),
                other => Err(format!("status {other}")),
            }
        }
        kind => Err(format!("kind {kind} is not read")),
    }
}
