//! How a `run:` script becomes a command.
//!
//! Source of the rules: GitHub docs, "jobs.<job_id>.steps\[*\].shell".

use crate::dialect::shell::Shell;

/// The shell of a step that names none: `bash -e` where the machine has bash, else `sh -e`.
pub(super) fn default_for(has_bash: bool) -> Shell {
    plain(if has_bash { &["bash", "-e", "{0}"] } else { &["sh", "-e", "{0}"] }, "sh")
}

/// A shell as written. The error says what to write instead.
pub(super) fn named(name: &str) -> Result<Shell, String> {
    Ok(match name.trim() {
        "bash" => plain(&["bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "{0}"], "sh"),
        "sh" => plain(&["sh", "-e", "{0}"], "sh"),
        "python" => plain(&["python", "{0}"], "py"),
        "node" => plain(&["node", "{0}"], "js"),
        "pwsh" | "powershell" => Shell {
            prepend: "$ErrorActionPreference = 'stop'\n",
            append: "\nif ((Test-Path -LiteralPath variable:\\LASTEXITCODE)) { exit $LASTEXITCODE }\n",
            ..plain(&[name.trim(), "-command", ". '{0}'"], "ps1")
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
            Shell { argv, extension: "sh", prepend: "", append: "" }
        }
    })
}

fn plain(argv: &[&str], extension: &'static str) -> Shell {
    Shell { argv: argv.iter().map(|word| (*word).to_owned()).collect(), extension, prepend: "", append: "" }
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
            assert_eq!(named(name).unwrap().command("/s").join(" "), expected);
        }
        assert_eq!(default_for(true).shown(), "bash -e {0}");
        assert_eq!(default_for(false).shown(), "sh -e {0}");
        for name in ["cmd", "fish", "bash 'x", ""] {
            assert!(named(name).is_err(), "{name}");
        }
    }
}
