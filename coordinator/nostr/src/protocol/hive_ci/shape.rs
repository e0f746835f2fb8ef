//! The shapes of `cmd` and `args` that Hive CI clients send (named A1 to A7 in the order in which they were found), and what
//! they say of the run. None of them is executed: the workflow runs natively.

use std::collections::HashMap;

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
    /// A5: `sh -c 'git clone … act …' hive-ci CLONE_URL COMMIT TRIGGER WORKFLOW` (Gitea bridge).
    CloneAndAct,
    /// A6: `loom-ci run --workflow PATH …` (Bahia).
    LoomCi,
    /// A7: `bash -c '… act -W PATH …'`, very old.
    Act,
}

/// What the arguments say of the run: it counts where the run itself says nothing. Empty: nothing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Arguments<'a> {
    pub(super) workflow: &'a str,
    pub(super) commit: &'a str,
    pub(super) branch: &'a str,
    /// Full ref.
    pub(super) reference: &'a str,
    pub(super) trigger: &'a str,
    /// Id of the 5401.
    pub(super) run: &'a str,
    /// Sources that are wanted beside the repository.
    pub(super) dependencies: bool,
}

impl Shape {
    /// Recognises a job's shape; `None`: none of these.
    pub(super) fn of(job: &Event) -> Option<Self> {
        let command = tags::first(job, "cmd")?;
        let args = arguments(job);
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
            Self::Placeholder => Some("job shape A3 is the client's placeholder, not a job: submit the run again"),
            _ => None,
        }
    }

    /// What its arguments say of the run.
    pub(super) fn arguments(self, job: &Event) -> Arguments<'_> {
        let args = arguments(job);
        let at = |place: usize| args.get(place).copied().unwrap_or_default();
        match self {
            Self::CloneAndAct => Arguments { commit: at(4), trigger: at(5), workflow: at(6), ..Arguments::default() },
            Self::LoomCi => {
                let flags: HashMap<&str, &str> = args
                    .iter()
                    .zip(args.iter().skip(1))
                    .filter(|(flag, _)| flag.starts_with("--"))
                    .map(|(flag, value)| (*flag, *value))
                    .collect();
                let flag = |name: &str| flags.get(name).copied().unwrap_or_default();
                let wanted = flag("--ref");
                let full = wanted.starts_with("refs/");
                let is_commit = matches!(wanted.len(), 40 | 64) && wanted.bytes().all(|b| b.is_ascii_hexdigit());
                Arguments {
                    workflow: flag("--workflow"),
                    commit: if is_commit { wanted } else { "" },
                    branch: if full || is_commit { "" } else { wanted },
                    reference: if full { wanted } else { "" },
                    trigger: flag("--event"),
                    run: flag("--run"),
                    dependencies: flags.contains_key("--dep"),
                }
            }
            Self::Act => Arguments { workflow: workflow_of_act(at(1)), ..Arguments::default() },
            Self::Download | Self::Inline | Self::Placeholder | Self::CheckedDownload => Arguments::default(),
        }
    }
}

/// Values of the `args` tag.
fn arguments(job: &Event) -> Vec<&str> {
    tags::all(job, "args").next().unwrap_or_default().iter().skip(1).map(String::as_str).collect()
}

/// The path that a script gives to `act -W`, where it is one of a workflow file.
fn workflow_of_act(script: &str) -> &str {
    let path = script.split_once("act -W ").and_then(|(_, rest)| rest.split_whitespace().next()).unwrap_or_default();
    let path = path.trim_matches(['"', '\'']);
    if path.ends_with(".yml") || path.ends_with(".yaml") { path } else { "" }
}
