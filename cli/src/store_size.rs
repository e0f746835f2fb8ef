//! `longshore store`: what the coordinator keeps, and how much room it takes.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, ensure};
use config::{Config, load};
use serde_json::json;
use store::Store;

/// What the coordinator keeps in its data folder and database
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show how much room each table and folder takes
    Size(SizeArgs),
}

#[derive(Debug, clap::Args)]
struct SizeArgs {
    /// Configuration of the coordinator (TOML)
    #[arg(long, value_name = "FILE", env = "LONGSHORE_CONFIG")]
    config: Option<PathBuf>,
    /// One key of the configuration, e.g. data=/var/lib/longshore; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Folders of the data folder that grow.
const FOLDERS: [&str; 3] = ["blobs", "logs", "mirrors"];

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Action::Size(args) = args.action;
    let environment = std::env::vars().collect();
    let given = load::Given { file: args.config.as_deref(), environment, sets: &args.sets, ..Default::default() };
    let config: Config = load::load(&Config::complete(), &given)?.config;
    let tables = open(&config).await?.table_sizes().await?;
    let folders: Vec<(&str, u64)> = FOLDERS.iter().map(|name| (*name, folder_size(&config.data.join(name)))).collect();
    let mut text = String::new();
    if args.json {
        let tables: Vec<_> =
            tables.iter().map(|table| json!({"name": table.name, "rows": table.rows, "bytes": table.bytes})).collect();
        let folders: Vec<_> = folders.iter().map(|(name, bytes)| json!({"name": name, "bytes": bytes})).collect();
        text = format!("{:#}\n", json!({"tables": tables, "folders": folders}));
    } else {
        for table in &tables {
            text.push_str(&format!("{:>14} bytes {:>10} rows  table {}\n", table.bytes, table.rows, table.name));
        }
        for (name, bytes) in &folders {
            text.push_str(&format!("{bytes:>14} bytes {:>10}       folder {name}\n", ""));
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

async fn open(config: &Config) -> anyhow::Result<Store> {
    if !config.store.url.is_empty() {
        return Ok(Store::connect(&config.store.url).await?);
    }
    let file = config.data.join("longshore.db");
    ensure!(file.exists(), "{} is not there: name the coordinator's configuration with --config", file.display());
    Store::open(&file).await.with_context(|| format!("{}: can't be read", file.display()))
}

/// Bytes of the files in a folder and below; what vanishes meanwhile does not count.
fn folder_size(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => folder_size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}
