//! `longshore completions` and `longshore man`: what shells and `man` know of the commands.

use std::{path::PathBuf, process::ExitCode};

use anyhow::{Context, Result};
use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::Cli;

/// Print the completions of a shell
///
/// bash: longshore completions bash > ~/.local/share/bash-completion/completions/longshore
/// zsh: longshore completions zsh > a folder of $fpath, as _longshore
/// fish: longshore completions fish > ~/.config/fish/completions/longshore.fish
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct CompletionArgs {
    /// The shell
    shell: Shell,
}

/// Write the manual pages
///
/// One page for each command, longshore.1, longshore-exec.1 and so on: to read them with man, name a folder man1 below
/// one of $(manpath), such as ~/.local/share/man/man1.
#[derive(Debug, clap::Args)]
pub(crate) struct ManArgs {
    /// Folder of the pages; made where it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

pub(crate) fn completions(args: &CompletionArgs) -> Result<ExitCode> {
    clap_complete::generate(args.shell, &mut Cli::command(), "longshore", &mut std::io::stdout());
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn pages(args: &ManArgs) -> Result<ExitCode> {
    let cannot = || format!("cannot write manual pages to {}", args.folder.display());
    std::fs::create_dir_all(&args.folder).with_context(cannot)?;
    clap_mangen::generate_to(Cli::command(), &args.folder).with_context(cannot)?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_and_values_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }
}
