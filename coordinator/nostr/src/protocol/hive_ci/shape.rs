//! The shapes of `cmd` and `args` that Hive CI clients send (named A1 to A7 in the order in which they were found).

use nostr::Event;

use crate::tags;

/// How a job would start its runner script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// A1: `bash -c` that downloads the runner script (Budabit).
    Download,
    /// A2: `bash -lc` with the runner script in a here-document (older Budabit).
    Inline,
    /// A3: the client's placeholder, which should never be sent.
    Placeholder,
    /// A4: A1 with a check of the script's SHA-256 (the watcher).
    CheckedDownload,
    /// A5: `sh -c 'git clone … act …' hive-ci …` (Gitea bridge).
    CloneAndAct,
    /// A6: `loom-ci run …`.
    LoomCi,
    /// A7: `bash -c '… act -W …'`, very old.
    Act,
}

impl Shape {
    /// Recognises a job's shape; `None`: none of these.
    pub(super) fn of(job: &Event) -> Option<Self> {
        let command = tags::first(job, "cmd")?;
        let args: Vec<&str> = tags::all(job, "args").next()?.iter().skip(1).map(String::as_str).collect();
        let script = args.get(1).copied().unwrap_or_default();
        match (command, args.first().copied()) {
            ("loom-ci", Some("run")) => Some(Self::LoomCi),
            ("sh", Some("-c")) if args.get(2) == Some(&"hive-ci") => Some(Self::CloneAndAct),
            ("bash", Some("-lc")) if script.contains("HIVE_CI_RUNNER_SCRIPT_EOF_DELIMITER") => Some(Self::Inline),
            ("bash", Some("-lc")) if script.contains("Runner script will be injected") => Some(Self::Placeholder),
            ("bash", Some("-c")) if script.contains("curl ") && script.contains("/run-workflow.sh") => {
                let checked = script.contains("sha256sum") || script.contains("shasum");
                Some(if checked { Self::CheckedDownload } else { Self::Download })
            }
            ("bash", Some("-c")) if script.contains("act -W") => Some(Self::Act),
            _ => None,
        }
    }

    /// Why this shape is not run; `None`: it is.
    pub(super) fn refusal(self) -> Option<&'static str> {
        match self {
            Self::Download | Self::Inline | Self::CheckedDownload => None,
            Self::Placeholder => Some("job shape A3 is the client's placeholder, not a job: submit the run again"),
            Self::CloneAndAct => Some("job shape A5 is not supported yet"),
            Self::LoomCi => Some("job shape A6 is not supported yet"),
            Self::Act => Some("job shape A7 is not supported yet"),
        }
    }
}
