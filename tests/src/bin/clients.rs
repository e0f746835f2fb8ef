//! `make clients`: the real `ngit` and `ngit-grasp` against a pool, one line for each thing that holds.

#![allow(clippy::print_stdout)]

use std::{path::PathBuf, process::ExitCode};

use clap::Parser;
use longshore_tests::clients::{self, programs::Programs};

/// Characters of each cause of a failure that are shown: some hold all events that were heard.
const SHOWN: usize = 4000;

/// Drives a pool with the real client and the real server of Nostr git
#[derive(Debug, Parser)]
struct Args {
    /// Folder of ngit, git-remote-nostr and ngit-grasp
    #[arg(long)]
    programs: PathBuf,
    /// `docker`, or `host` where no engine can be had
    #[arg(long, default_value = "docker")]
    sandbox: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let programs = Programs::of(&args.programs)?;
    // Dropped at the end, whatever that is: homes, keys and all data lie in it.
    let folder = tempfile::tempdir()?;
    tokio::select! {
        ended = clients::run(&programs, &args.sandbox, folder.path(), |line| println!("{line}")) => {
            if let Err(error) = ended {
                let causes: Vec<String> = error.chain().map(|cause| cause.to_string().chars().take(SHOWN).collect()).collect();
                println!("\n{}", causes.join("\n"));
                return Ok(ExitCode::FAILURE);
            }
            println!("ngit and ngit-grasp agree with this pool");
            Ok(ExitCode::SUCCESS)
        }
        _ = tokio::signal::ctrl_c() => {
            println!("interrupted: what was started is ended");
            Ok(ExitCode::from(130))
        }
    }
}
