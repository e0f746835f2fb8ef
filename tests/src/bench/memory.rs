//! Memory of a process, as the kernel counts it.

use anyhow::{Context, Result};

/// Proportional set size of a process in MiB, its threads included; the resident set where the kernel has no rollup.
pub fn mib(process: u32) -> Result<f64> {
    let folder = format!("/proc/{process}");
    let rollup = std::fs::read_to_string(format!("{folder}/smaps_rollup"));
    let (text, key) = match rollup {
        Ok(text) => (text, "Pss:"),
        Err(_) => (std::fs::read_to_string(format!("{folder}/status")).context("the process ended")?, "VmRSS:"),
    };
    kib(&text, key).map(|kib| kib / 1024.0).with_context(|| format!("no {key} for process {process}"))
}

fn kib(text: &str, key: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

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
    }
}
