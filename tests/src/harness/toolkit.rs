//! GitHub's own packages for caches and artifacts, unpatched, put together to one program of an action.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest as _, Sha256};

/// Makes `import.meta.url` of the packages work in a bundle.
const HEAD: &str = "const __here=require('url').pathToFileURL(__filename).href;";

/// The program of `tests/toolkit`, made once below `folder` from the versions of its lock file.
pub async fn program(folder: &Path) -> Result<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("toolkit");
    let files = ["package.json", "package-lock.json", "index.mjs"];
    let mut hash = Sha256::new();
    for file in files {
        hash.update(std::fs::read(source.join(file))?);
    }
    let done = folder.join(format!("toolkit-{}.cjs", hex::encode(hash.finalize())));
    if !done.exists() {
        std::fs::create_dir_all(folder)?;
        let work = tempfile::tempdir_in(folder)?;
        for file in files {
            std::fs::copy(source.join(file), work.path().join(file))?;
        }
        run(work.path(), "npm", &["ci", "--no-audit", "--no-fund"]).await?;
        run(
            work.path(),
            "node_modules/.bin/esbuild",
            &[
                "index.mjs",
                "--bundle",
                "--platform=node",
                "--target=node20",
                "--format=cjs",
                "--define:import.meta.url=__here",
                &format!("--banner:js={HEAD}"),
                "--outfile=index.cjs",
            ],
        )
        .await?;
        // Whole or not at all: another test may look.
        std::fs::rename(work.path().join("index.cjs"), &done)?;
    }
    Ok(std::fs::read_to_string(done)?)
}

async fn run(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let found = if program.contains('/') { folder.join(program) } else { PathBuf::from(program) };
    let output = tokio::process::Command::new(found).args(arguments).current_dir(folder).output().await;
    let output = output.with_context(|| format!("{program}: is Node.js with npm on the PATH?"))?;
    ensure!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// What the program says where all is as on GitHub.
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
