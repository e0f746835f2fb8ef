//! `longshore store`: what a coordinator keeps on disk.

use std::{
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, Result};
use config::{Config, load};
use serde::Serialize;

use crate::terminal::table::{Column, table, width};

/// Folders of the data folder with a kind of their own.
const FOLDERS: [&str; 3] = ["logs", "blobs", "mirrors"];
/// Name with which the files of the database begin.
const DATABASE: &str = "longshore.db";

/// What a coordinator keeps in its data folder
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: StoreVerb,
}

#[derive(Debug, clap::Subcommand)]
enum StoreVerb {
    /// How much the database, logs, blobs and mirrors take; reads the folder alone, the coordinator may be running
    Size {
        /// Configuration (TOML) of the coordinator
        #[arg(long, value_name = "FILE", env = "LONGSHORE_CONFIG")]
        config: Option<PathBuf>,
        /// One key of the configuration, e.g. --set data=/var/lib/longshore; may be repeated
        #[arg(long = "set", value_name = "KEY=VALUE")]
        sets: Vec<String>,
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// What one kind of data takes.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
struct DataSize {
    /// `database`, `logs`, `blobs`, `mirrors` or `other`.
    kind: &'static str,
    bytes: u64,
    files: u64,
}

#[allow(clippy::print_stdout)]
pub(crate) fn run(args: Args) -> Result<ExitCode> {
    let StoreVerb::Size { config, sets, json } = args.verb;
    let environment = std::env::vars().collect();
    let given = load::Given { file: config.as_deref(), environment, sets: &sets, ..load::Given::default() };
    let data = load::load(&Config::complete(), &given)?.config.data;
    let sizes = sizes(&data)
        .with_context(|| format!("{}: name the coordinator's configuration with --config", data.display()))?;
    if json {
        println!("{}", serde_json::to_string_pretty(&sizes)?);
        return Ok(ExitCode::SUCCESS);
    }
    let all = sizes.iter().fold(DataSize { kind: "all", ..DataSize::default() }, |all, one| DataSize {
        bytes: all.bytes.saturating_add(one.bytes),
        files: all.files + one.files,
        ..all
    });
    let row = |size: &DataSize| vec![size.kind.to_owned(), amount(size.bytes), size.files.to_string()];
    let rows: Vec<_> = sizes.iter().chain(std::iter::once(&all)).map(row).collect();
    print!("{}", table(&[Column::whole("KIND"), Column::number("SIZE"), Column::number("FILES")], &rows, width()));
    Ok(ExitCode::SUCCESS)
}

/// The sizes of a data folder, by kind.
///
/// # Errors
/// The folder can't be read.
fn sizes(data: &Path) -> Result<Vec<DataSize>> {
    let kinds = ["database", "logs", "blobs", "mirrors", "other"];
    let mut sizes = kinds.map(|kind| DataSize { kind, ..DataSize::default() });
    for entry in fs::read_dir(data).context("the data folder can't be read")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let kind = match FOLDERS.iter().find(|folder| **folder == name) {
            Some(folder) => folder,
            None if name.starts_with(DATABASE) => "database",
            None => "other",
        };
        if let Some(size) = sizes.iter_mut().find(|size| size.kind == kind) {
            add(&entry.path(), size)?;
        }
    }
    Ok(sizes.into())
}

/// Adds a file, or every file of a folder. What is removed meanwhile counts nothing; links are not followed.
fn add(path: &Path, size: &mut DataSize) -> Result<()> {
    let gone = |error: &std::io::Error| error.kind() == ErrorKind::NotFound;
    let unreadable = || format!("{} can't be read", path.display());
    let found = match fs::symlink_metadata(path) {
        Err(error) if gone(&error) => return Ok(()),
        found => found.with_context(unreadable)?,
    };
    if !found.is_dir() {
        size.bytes = size.bytes.saturating_add(found.len());
        size.files += 1;
        return Ok(());
    }
    let entries = match fs::read_dir(path) {
        Err(error) if gone(&error) => return Ok(()),
        entries => entries.with_context(unreadable)?,
    };
    for entry in entries {
        add(&entry.with_context(unreadable)?.path(), size)?;
    }
    Ok(())
}

/// Bytes in the largest binary unit that leaves at least 1.
fn amount(bytes: u64) -> String {
    let units = [("GiB", 1_u64 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match units.iter().find(|(_, unit)| bytes >= *unit) {
        Some((name, unit)) => format!("{:.1} {name}", bytes as f64 / *unit as f64),
        None => format!("{bytes} B"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_data_folder_is_counted_by_kind() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path();
        for (path, bytes) in
            [("longshore.db", 10), ("longshore.db-wal", 5), ("logs/a/1", 3), ("blobs/x", 4), ("oidc.key", 1)]
        {
            let path = data.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, vec![0; bytes]).unwrap();
        }
        let found: Vec<_> = sizes(data).unwrap().into_iter().map(|size| (size.kind, size.bytes, size.files)).collect();
        assert_eq!(found, [("database", 15, 2), ("logs", 3, 1), ("blobs", 4, 1), ("mirrors", 0, 0), ("other", 1, 1)]);
        assert!(sizes(&data.join("none")).is_err());
    }

    #[test]
    fn amounts_have_the_largest_unit_that_fits() {
        assert_eq!([0, 1023, 1536, 3 << 20, 5 << 30].map(amount), ["0 B", "1023 B", "1.5 KiB", "3.0 MiB", "5.0 GiB"]);
    }
}
