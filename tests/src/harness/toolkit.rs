//! GitHub's own packages for actions, unpatched, put together to programs of actions.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

/// Makes `import.meta.url` of the packages work in a bundle.
const HEAD: &str = "const __here=require('url').pathToFileURL(__filename).href;";

/// Programs of `tests/toolkit`.
const PROGRAMS: [&str; 4] = ["kept", "commits", "history", "tools"];

/// A program of `tests/toolkit`; all are made once below `folder`, from the versions of their lock file.
pub async fn program(folder: &Path, name: &str) -> Result<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("toolkit");
    let programs = PROGRAMS.map(|name| format!("{name}.mjs"));
    let files: Vec<&str> =
        ["package.json", "package-lock.json"].into_iter().chain(programs.iter().map(String::as_str)).collect();
    let mut hash = Sha256::new();
    for file in &files {
        hash.update(std::fs::read(source.join(file))?);
    }
    let done = folder.join(format!("toolkit-{}", hex::encode(hash.finalize())));
    if !done.exists() {
        std::fs::create_dir_all(folder)?;
        let work = tempfile::tempdir_in(folder)?;
        for file in &files {
            std::fs::copy(source.join(file), work.path().join(file))?;
        }
        run(work.path(), "npm", &["ci", "--no-audit", "--no-fund"]).await?;
        let banner = format!("--banner:js={HEAD}");
        let options = [
            "--bundle",
            "--platform=node",
            "--target=node20",
            "--format=cjs",
            "--define:import.meta.url=__here",
            &banner,
            "--outdir=made",
            "--out-extension:.js=.cjs",
        ];
        let arguments: Vec<&str> = programs.iter().map(String::as_str).chain(options).collect();
        run(work.path(), "node_modules/.bin/esbuild", &arguments).await?;
        // Whole or not at all: another test may look, or have been first.
        if let Err(error) = std::fs::rename(work.path().join("made"), &done) {
            ensure!(done.exists(), "{}: {error}", done.display());
        }
    }
    Ok(std::fs::read_to_string(done.join(format!("{name}.cjs")))?)
}

async fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let found = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
    let output = tokio::process::Command::new(found).args(arguments).current_dir(folder).output().await;
    let output = output.with_context(|| format!("{program}: is Node.js with npm on the PATH?"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What the program `kept` says where all is as on GitHub.
pub const SAID: &[&str] = &[
    "first restore undefined",
    "saved true",
    "restored deps-1 100005",
    "again -1",
    "uploaded true true 64",
    "listed report",
    "downloaded report 20971520 false",
    "earlier report report true",
    "all more,report more 0",
    "earlier failed: Unable to find an artifact with the name: none",
    "earlier upload failed: Create Artifact Container failed: Artifact service responded with 410",
    "duplicate failed: Failed to CreateArtifact: Received non-retryable error: Failed request: (409) Conflict: an artifact with this name already exists on the workflow run",
    "deleted true",
];
