//! How a `run:` script becomes a command.
//!
//! Source of the rules: GitHub docs, "jobs.<job_id>.steps\[*\].shell".

/// A script file and the command that runs it; `{0}` stands for the file's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shell {
    argv: Vec<String>,
    extension: &'static str,
    prepend: &'static str,
    append: &'static str,
}

impl Shell {
    /// The shell of a step that names none: `bash -e` where the machine has bash, else `sh -e`.
    pub fn default_for(has_bash: bool) -> Self {
        Self::plain(if has_bash { &["bash", "-e", "{0}"] } else { &["sh", "-e", "{0}"] }, "sh")
    }

    /// A shell as written. The error says what to write instead.
    pub fn named(name: &str) -> Result<Self, String> {
        Ok(match name.trim() {
            "bash" => Self::plain(&["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "{0}"], "sh"),
            "sh" => Self::plain(&["sh", "-e", "{0}"], "sh"),
            "python" => Self::plain(&["python", "{0}"], "py"),
            "node" => Self::plain(&["node", "{0}"], "js"),
            "pwsh" | "powershell" => Self {
                prepend: "$ErrorActionPreference = 'stop'\n",
                append: "\nif ((Test-Path -LiteralPath variable:\\LASTEXITCODE)) { exit $LASTEXITCODE }\n",
                ..Self::plain(&[name.trim(), "-command", ". '{0}'"], "ps1")
            },
            "cmd" => return Err("shell `cmd` needs Windows; use bash, sh, python or pwsh".into()),
            custom => {
                let argv = shlex::split(custom)
                    .filter(|argv| !argv.is_empty())
                    .ok_or_else(|| format!("shell `{custom}` has a quote that does not end"))?;
                if !argv.iter().any(|word| word.contains("{0}")) {
                    return Err(format!(
                        "shell `{custom}` is not known: use bash, sh, python, pwsh, or a command with {{0}} where the script goes"
                    ));
                }
                Self { argv, extension: "sh", prepend: "", append: "" }
            }
        })
    }

    fn plain(argv: &[&str], extension: &'static str) -> Self {
        Self { argv: argv.iter().map(|word| (*word).to_owned()).collect(), extension, prepend: "", append: "" }
    }

    /// The script's file name, given one without an extension.
    pub fn file(&self, stem: &str) -> String {
        format!("{stem}.{}", self.extension)
    }

    /// The content of the file.
    pub fn content(&self, script: &str) -> String {
        let script = script.replace("\r\n", "\n");
        format!("{}{script}{}", self.prepend, self.append)
    }

    /// The command, given the path of the file.
    pub fn command(&self, path: &str) -> Vec<String> {
        self.argv.iter().map(|word| word.replace("{0}", path)).collect()
    }

    /// As it stands in the log.
    pub fn shown(&self) -> String {
        self.argv.join(" ")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn shells_run_as_github_documents() {
        for (name, expected) in [
            ("bash", "bash --noprofile --norc -e -o pipefail /s"),
            ("sh", "sh -e /s"),
            ("python", "python /s"),
            ("pwsh", "pwsh -command . '/s'"),
            ("perl -w {0}", "perl -w /s"),
            ("env 'A=b c' bash {0}", "env A=b c bash /s"),
        ] {
            assert_eq!(Shell::named(name).unwrap().command("/s").join(" "), expected);
        }
        assert_eq!(Shell::default_for(true).shown(), "bash -e {0}");
        assert_eq!(Shell::default_for(false).shown(), "sh -e {0}");
        for name in ["cmd", "fish", "bash 'x", ""] {
            assert!(Shell::named(name).is_err(), "{name}");
        }
    }
}
