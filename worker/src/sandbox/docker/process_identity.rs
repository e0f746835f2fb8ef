//! Names the process that made something on the engine, so that another can see whether it still lives.

use std::fs;

/// This process; `None` where /proc does not say.
pub(super) fn current() -> Option<String> {
    let pid = std::process::id();
    Some([boot()?, namespace()?, pid.to_string(), start(pid)?].join(" "))
}

/// Whether the process is known to be gone that was [`current`] once: what it made is nobody's then. Of a process in
/// another container, on another machine or before a restart of this one nothing is known.
pub(super) fn is_gone(name: &str) -> bool {
    let words: Vec<_> = name.split(' ').collect();
    let &[theirs, namespace_of, pid, since] = words.as_slice() else { return false };
    let (Some(boot), Some(namespace), Ok(pid)) = (boot(), namespace(), pid.parse()) else { return false };
    theirs == boot && namespace_of == namespace && start(pid).is_none_or(|start| start != since)
}

fn boot() -> Option<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").ok().map(|text| text.trim().to_owned())
}

/// Processes are numbered by each.
fn namespace() -> Option<String> {
    Some(fs::read_link("/proc/self/ns/pid").ok()?.to_string_lossy().into_owned())
}

/// When a process began: its number is used again after it (proc_pid_stat(5), field 22).
fn start(pid: u32) -> Option<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use super::*;

    #[test]
    fn a_process_that_ended_is_known_to_be_gone_and_no_other() {
        let ours = current().unwrap();
        assert!(!is_gone(&ours));
        let words: Vec<_> = ours.split(' ').collect();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        child.wait().unwrap();
        let [boot, namespace, own, since] = words[..] else { panic!("{ours}") };
        let named = |parts: [&str; 4]| parts.join(" ");
        assert!(is_gone(&named([boot, namespace, &pid.to_string(), since])));
        assert!(is_gone(&named([boot, namespace, own, "1"])), "its number was used again");
        assert!(!is_gone(&named(["another", namespace, "1", "1"])), "of another machine");
        assert!(!is_gone(&named([boot, "pid:[1]", "1", "1"])), "of another container");
        assert!(!is_gone("") && !is_gone("a b") && !is_gone("a b c d"));
    }
}
