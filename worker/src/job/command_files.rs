//! The files that a process leaves values in for its job: `GITHUB_ENV`, `GITHUB_OUTPUT` and the like.

/// The command files of one process.
pub(super) struct CommandFiles {
    pub(super) env: String,
    pub(super) output: String,
    pub(super) state: String,
    pub(super) path: String,
    pub(super) summary: String,
}

impl CommandFiles {
    pub(super) fn new(temp: &str, number: &str) -> Self {
        let file = |kind: &str| command_file(temp, kind, number);
        Self {
            env: file("set_env"),
            output: file("set_output"),
            state: file("save_state"),
            path: file("add_path"),
            summary: file("step_summary"),
        }
    }

    pub(super) fn entries(&self) -> [(&'static str, &str); 5] {
        [
            ("GITHUB_ENV", &self.env),
            ("GITHUB_OUTPUT", &self.output),
            ("GITHUB_STATE", &self.state),
            ("GITHUB_PATH", &self.path),
            ("GITHUB_STEP_SUMMARY", &self.summary),
        ]
    }
}

/// Where the command files of a process lie.
pub(super) fn command_file(temp: &str, kind: &str, number: &str) -> String {
    format!("{temp}/_runner_file_commands/{kind}_{number}")
}
