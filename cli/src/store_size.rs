//! `longshore store`: what the coordinator keeps, how much room it takes, and the key that its secrets are sealed under.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::{Context as _, ensure};
use config::{Config, load};
use coordinator::DiskUsage;
use serde_json::json;
use store::Store;

use crate::store_rekey::RekeyArgs;

/// What the coordinator keeps in its data folder and database: its size, and its key
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show how much room each table and folder takes
    Size(SizeArgs),
    Rekey(RekeyArgs),
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

/// Room that something takes, and may take.
struct Usage {
    name: &'static str,
    bytes: u64,
    limit: Option<u64>,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let args = match args.action {
        Action::Size(args) => args,
        Action::Rekey(args) => return crate::store_rekey::run(args).await,
    };
    let environment = std::env::vars().collect();
    let given = load::Given { file: args.config.as_deref(), environment, sets: &args.sets, ..Default::default() };
    let config: Config = load::load(&Config::complete(), &given)?.config;
    let store = open(&config).await?;
    let tables = store.table_sizes().await?;
    let usages = usages(&config, store.caches_total(None).await?);
    let mut text = String::new();
    if args.json {
        let tables: Vec<_> =
            tables.iter().map(|table| json!({"name": table.name, "rows": table.rows, "bytes": table.bytes})).collect();
        let usages: Vec<_> = usages
            .iter()
            .map(|usage| json!({"name": usage.name, "bytes": usage.bytes, "limit": usage.limit}))
            .collect();
        text = format!("{:#}\n", json!({"tables": tables, "folders": usages}));
    } else {
        for table in &tables {
            text.push_str(&format!("{:>14} bytes {:>10} rows  table {}\n", table.bytes, table.rows, table.name));
        }
        for Usage { name, bytes, limit } in &usages {
            let limit = limit.map_or_else(String::new, |limit| format!(", limit {limit}"));
            text.push_str(&format!("{bytes:>14} bytes {:>10}       {name}{limit}\n", ""));
        }
    }
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

/// What grows in the data folder. Caches are blobs: their bytes are among those.
fn usages(config: &Config, caches: u64) -> [Usage; 4] {
    let folder = |name, limit| Usage { name, bytes: DiskUsage::of(&config.data.join(name)).bytes, limit };
    let limits = &config.retention;
    [
        folder("blobs", None),
        Usage { name: "caches", bytes: caches, limit: Some(limits.cache_bytes) },
        folder("logs", Some(limits.log_bytes)),
        folder("mirrors", Some(limits.mirror_bytes)),
    ]
}

async fn open(config: &Config) -> anyhow::Result<Store> {
    if !config.store.url.is_empty() {
        return Ok(Store::connect(&config.store.url).await?);
    }
    let file = config.data.join("longshore.db");
    ensure!(file.exists(), "{} is not there: name the coordinator's configuration with --config", file.display());
    Store::open(&file).await.with_context(|| format!("{}: can't be read", file.display()))
}
