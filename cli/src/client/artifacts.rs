//! `longshore artifacts`: what the jobs of a run uploaded, listed or unpacked here.

use std::{
    io::{Seek as _, Write as _},
    path::{Component, Path, PathBuf},
    process::ExitCode,
};

use ::actions_api::{ArchiveError, Existing, unpack_archive};
use anyhow::{Context, Result, anyhow, bail, ensure};
use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::api::{ApiClient, ServerArgs};
use crate::terminal::{
    printable::printable,
    progress::Progress,
    table::{Column, table, width},
};

/// Bytes to which one artifact may unpack; the help says it, too.
const LARGEST: u64 = 10 << 30;

/// List what the jobs of a run uploaded, or download it
///
/// Without a name the run's artifacts are listed. One that is named is unpacked into the folder itself; of several, or
/// of --all, each gets a folder of its name in there. What comes must have the SHA-256 that the list says. Links, and
/// paths that lead out of the folder, are left out; an artifact that unpacks to more than 10 GiB is refused.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run: its id, its number in the pool, or the id of its run (5401) or job (5100) event
    run: String,
    /// Download these artifacts
    #[arg(value_name = "NAME", group = "wanted")]
    names: Vec<String>,
    /// Download every artifact of the run
    #[arg(long, group = "wanted")]
    all: bool,
    /// Where they are unpacked, instead of into the folder that you are in
    #[arg(long, value_name = "DIR", requires = "wanted")]
    into: Option<PathBuf>,
    /// Replace files that are there already
    #[arg(long, requires = "wanted")]
    force: bool,
    /// Print JSON: the list, or each downloaded artifact with its folder
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// An artifact, as the API lists it.
#[derive(Debug, Deserialize)]
struct Artifact {
    id: u64,
    name: String,
    job: String,
    /// Bytes of its archive.
    size: u64,
    sha256: String,
    /// In milliseconds.
    expires_at: u64,
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let api = args.server.connect()?;
    let listed: Value = api.get(&format!("/api/runs/{}/artifacts", args.run)).await?;
    let lists = args.names.is_empty() && !args.all;
    if lists && args.json {
        println!("{listed:#}");
        return Ok(ExitCode::SUCCESS);
    }
    let artifacts: Vec<Artifact> = serde_json::from_value(listed)
        .with_context(|| format!("{}: the answer is not what this version reads", api.base()))?;
    let wanted = wanted(&args.run, &artifacts, &args.names)?;
    if wanted.is_empty() {
        eprintln!("run {} has no artifacts: none was uploaded yet, or their time is over", args.run);
    }
    if !lists {
        args.download(&api, wanted).await?;
    } else if !wanted.is_empty() {
        print!("{}", listing(&wanted, width()));
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    #[allow(clippy::print_stdout)]
    async fn download(&self, api: &ApiClient, wanted: Vec<&Artifact>) -> Result<()> {
        let into = self.into.as_deref().unwrap_or(Path::new("."));
        let existing = if self.force { Existing::Replaced } else { Existing::Kept };
        let mut done = Vec::new();
        for artifact in wanted {
            let folder = if self.names.len() == 1 { into.to_owned() } else { below(into, &artifact.name)? };
            let fetched = artifact.fetch(api, &self.run, &folder, existing).await;
            fetched.with_context(|| format!("artifact {}", printable(&artifact.name)))?;
            if !self.json {
                println!("{} is in {}", printable(&artifact.name), folder.display());
            }
            done.push(json!({"name": artifact.name, "sha256": artifact.sha256, "folder": folder.to_string_lossy()}));
        }
        if self.json {
            println!("{:#}", Value::from(done));
        }
        Ok(())
    }
}

impl Artifact {
    /// Downloads it, checks it, and unpacks it into a folder.
    async fn fetch(&self, api: &ApiClient, run: &str, folder: &Path, existing: Existing) -> Result<()> {
        let mut response = api.send(Method::GET, &format!("/api/runs/{run}/artifacts/{}", self.id), &[]).await?;
        let unusable = || format!("{}: make it writable, or name another folder with --into", folder.display());
        std::fs::create_dir_all(folder).with_context(unusable)?;
        // In there, as it may be too large for elsewhere; it has no name and goes with its handle.
        let mut file = tempfile::tempfile_in(folder).with_context(unusable)?;
        let mut progress = Progress::of("the artifact", Some(self.size));
        let (mut hash, mut length) = (Sha256::new(), 0_u64);
        while let Some(piece) = response.chunk().await.context("the download broke off: try again")? {
            length += piece.len() as u64;
            ensure!(length <= self.size, "more came than the {} bytes of the list: nothing was unpacked", self.size);
            hash.update(&piece);
            file.write_all(&piece).with_context(|| format!("{}: is there room?", folder.display()))?;
            progress.at(length);
        }
        drop(progress);
        let found = hex::encode(hash.finalize());
        ensure!(
            found == self.sha256,
            "what came has the SHA-256 {found}, the list says {}: nothing was unpacked; try again",
            printable(&self.sha256)
        );
        file.rewind().with_context(unusable)?;
        unpack_archive(file, LARGEST, existing, folder).map_err(|error| match error {
            ArchiveError::Occupied(_) => {
                anyhow!("{error}: name another folder with --into, or replace it with --force")
            }
            error => anyhow!(error),
        })
    }
}

/// Those with these names; without a name, all.
fn wanted<'a>(run: &str, artifacts: &'a [Artifact], names: &[String]) -> Result<Vec<&'a Artifact>> {
    if let Some(missing) = names.iter().find(|name| artifacts.iter().all(|artifact| artifact.name != **name)) {
        let there: Vec<&str> = artifacts.iter().map(|artifact| artifact.name.as_str()).collect();
        let there = if there.is_empty() { "none (any more)".to_owned() } else { there.join(", ") };
        bail!("no artifact {missing}: run {run} has {}", printable(&there));
    }
    Ok(artifacts.iter().filter(|artifact| names.is_empty() || names.contains(&artifact.name)).collect())
}

/// The folder of an artifact's name below another: a name from outside leads nowhere else.
fn below(into: &Path, name: &str) -> Result<PathBuf> {
    let mut parts = Path::new(name).components();
    match (parts.next(), parts.next()) {
        (Some(Component::Normal(part)), None) => Ok(into.join(part)),
        _ => bail!("no folder can have the name of the artifact {name:?}: download it alone"),
    }
}

fn listing(artifacts: &[&Artifact], width: Option<usize>) -> String {
    let columns = [
        Column::whole("NAME"),
        Column::number("BYTES"),
        Column::text("JOB"),
        Column::whole("EXPIRES (UTC)"),
        Column::text("SHA-256"),
    ];
    let row = |artifact: &&Artifact| {
        let expires = i64::try_from(artifact.expires_at).ok();
        let expires = expires.and_then(|millis| jiff::Timestamp::from_millisecond(millis).ok());
        vec![
            printable(&artifact.name),
            artifact.size.to_string(),
            printable(&artifact.job),
            expires.map(|moment| moment.strftime("%Y-%m-%d %H:%M").to_string()).unwrap_or_default(),
            printable(&artifact.sha256),
        ]
    };
    table(&columns, &artifacts.iter().map(row).collect::<Vec<_>>(), width)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn artifacts() -> Vec<Artifact> {
        let of = |(id, name): (u64, &str)| Artifact {
            id,
            name: name.into(),
            job: "build".into(),
            size: 1536,
            sha256: "ab".repeat(32),
            expires_at: 86_400_000,
        };
        [(1, "report"), (2, "more")].map(of).into()
    }

    #[test]
    fn an_unknown_artifact_is_answered_with_those_there_are() {
        let found = |there: &[Artifact], names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            match wanted("7", there, &names) {
                Ok(found) => found.iter().map(|artifact| artifact.name.as_str()).collect::<Vec<_>>().join(", "),
                Err(error) => error.to_string(),
            }
        };
        let all = artifacts();
        assert_eq!(found(&all, &[]), "report, more");
        assert_eq!(found(&all, &["more"]), "more");
        assert_eq!(found(&all, &["more", "nope"]), "no artifact nope: run 7 has report, more");
        assert_eq!(found(&[], &["nope"]), "no artifact nope: run 7 has none (any more)");
    }

    #[test]
    fn attack_43_an_artifacts_name_leads_to_no_other_folder() {
        for name in ["..", ".", "", "/etc", "a/b", "../a", "./a"] {
            assert!(below(Path::new("out"), name).is_err(), "{name}");
        }
        assert_eq!(below(Path::new("out"), "report (1)").unwrap(), Path::new("out/report (1)"));
    }

    #[test]
    fn a_narrow_terminal_cuts_the_hash_and_no_name() {
        let all = artifacts();
        let shown = listing(&all.iter().collect::<Vec<_>>(), Some(60));
        assert!(shown.lines().all(|line| line.chars().count() <= 60), "{shown}");
        assert!(shown.contains("report   1536  build  1970-01-02 00:00  abab"), "{shown}");
    }
}
