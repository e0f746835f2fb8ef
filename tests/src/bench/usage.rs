//! What a process takes of the machine, as the kernel counts it.

use std::time::Duration;

use anyhow::{Context, Result};

/// Ticks of `/proc/PID/stat` in a second: fixed by the kernel's interface (`USER_HZ`) on every architecture we build for.
const TICKS: u64 = 100;

/// Proportional set size of a process in MiB, its threads included; the resident set where the kernel has no rollup.
pub(crate) fn mib(process: u32) -> Result<f64> {
    let folder = format!("/proc/{process}");
    let rollup = std::fs::read_to_string(format!("{folder}/smaps_rollup"));
    let (text, key) = match rollup {
        Ok(text) => (text, "Pss:"),
        Err(_) => (std::fs::read_to_string(format!("{folder}/status")).context("the process ended")?, "VmRSS:"),
    };
    kib(&text, key).map(|kib| kib / 1024.0).with_context(|| format!("no {key} for process {process}"))
}

/// Resident memory of a process in KiB.
pub(crate) fn resident_kib(process: u32) -> Result<f64> {
    let text = std::fs::read_to_string(format!("/proc/{process}/status")).context("the process ended")?;
    kib(&text, "VmRSS:").with_context(|| format!("no VmRSS for process {process}"))
}

/// Processor time of a process and of all that it started, what they started included, user and system together.
pub(crate) fn processor(process: u32) -> Result<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{process}/stat")).context("the process ended")?;
    let ticks = ticks(&text).with_context(|| format!("/proc/{process}/stat cannot be read: {text}"))?;
    // One that ends meanwhile counts as its parent's.
    let running = children(process).into_iter().filter_map(|child| processor(child).ok()).sum::<Duration>();
    Ok(Duration::from_millis(ticks * 1000 / TICKS) + running)
}

/// Children of a process that run.
fn children(process: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    texts.flat_map(|text| text.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<u32>>()).collect()
}

/// Processor time of several processes together.
pub(crate) fn processors(processes: &[u32]) -> Result<Duration> {
    processes.iter().map(|process| processor(*process)).sum()
}

fn kib(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

/// `utime`, `stime`, `cutime` and `cstime`; the second field is a name that may hold spaces and brackets.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let times = fields.split_whitespace().skip(11).take(4).map(|field| field.parse::<u64>().ok());
    times.collect::<Option<Vec<_>>>().filter(|times| times.len() == 4).map(|times| times.iter().sum())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use std::{
        io::Read as _,
        process::{Command, Stdio},
    };

    use nix::{
        sys::signal::{Signal, kill},
        unistd::Pid,
    };

    use super::*;

    #[test]
    fn only_the_named_line_counts() {
        let text = "Rss:  9 kB\nPss:    2048 kB\nPss_Anon:  1 kB\n";
        assert_eq!(kib(text, "Pss:"), Some(2048.0));
        assert_eq!(kib(text, "Swap:"), None);
    }

    #[test]
    fn this_process_has_some() {
        assert!(mib(std::process::id()).unwrap() > 0.1);
        assert!(resident_kib(std::process::id()).unwrap() > 100.0);
        assert!(processor(std::process::id()).is_ok());
    }

    #[test]
    fn what_a_child_started_counts_while_it_runs() {
        let script = "sh -c 'i=0; while [ $i -lt 1000000 ]; do i=$((i + 1)); done; echo; exec sleep 60'";
        let script = format!("{script}; true");
        let mut child = Command::new("sh").args(["-c", &script]).stdout(Stdio::piped()).spawn().unwrap();
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        let used = processor(child.id()).unwrap();
        for id in children(child.id()) {
            kill(Pid::from_raw(id.cast_signed()), Signal::SIGKILL).unwrap();
        }
        child.wait().unwrap();
        assert!(used >= Duration::from_millis(100), "{used:?}");
    }

    #[test]
    fn processor_time_is_that_of_the_process_and_its_ended_children_whatever_its_name_holds() {
        let stat = "7 (a ) name) S 1 7 7 0 -1 4194560 10 20 0 0 1 2 30 400 20 0 4 0 100 1000 10";
        assert_eq!(ticks(stat), Some(433));
        assert_eq!(ticks("7 (cut) S 1 7"), None);
    }
}
