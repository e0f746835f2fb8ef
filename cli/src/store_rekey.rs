//! `longshore store rekey`: another key for the secrets that a stopped coordinator has stored.
//!
//! A kill at any moment leaves the data under one of two keys, both in files. The new one is on the disk before the
//! database is changed, in one transaction, and takes the old one's place after it. Started again, the command goes on
//! from where it stopped: the database says which key it is under.

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, bail, ensure};
use config::{Config, keys, load};
use secrecy::ExposeSecret as _;
use store::{Store, seal::StoreKey};
use zeroize::Zeroizing;

/// The name that the database server shows for this command's connections.
const APPLICATION: &str = "longshore store rekey";

/// Change the store key that all secrets are sealed under
///
/// Stop every coordinator on the database first. A new key is made and takes the place of the one in `store_key_file`;
/// where several coordinators share a database, give each the new file. Links into private runs and tokens of running
/// jobs come from this key too: jobs that run are lost, so drain the workers before. Where it is cut off, run it again:
/// it goes on. Backups of the database from before need the old key.
#[derive(Debug, clap::Args)]
pub(crate) struct RekeyArgs {
    /// Configuration of the coordinator (TOML)
    #[arg(long, value_name = "FILE", env = "LONGSHORE_CONFIG")]
    config: Option<PathBuf>,
    /// One key of the configuration, e.g. data=/var/lib/longshore; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
}

pub(crate) async fn run(args: RekeyArgs) -> anyhow::Result<ExitCode> {
    let environment = std::env::vars().collect();
    let given = load::Given { file: args.config.as_deref(), environment, sets: &args.sets, ..Default::default() };
    let config: Config = load::load(&Config::complete(), &given)?.config;
    let _alone = crate::data_lock::acquire(&config.data, "`data`").context("stop the coordinator first")?;
    let store = open(&config).await?;
    let said = rekey(&store, &config.store_key_file).await?;
    writeln!(std::io::stdout(), "{said}")?;
    Ok(ExitCode::SUCCESS)
}

async fn open(config: &Config) -> anyhow::Result<Store> {
    if config.store.url.is_empty() {
        let file = config.data.join("longshore.db");
        ensure!(file.exists(), "{} is not there: name the coordinator's configuration with --config", file.display());
        return Ok(Store::open(&file).await?);
    }
    let store = Store::connect_as(&config.store.url, APPLICATION).await?;
    let others = store.coordinator_connections().await?;
    ensure!(others == 0, "a coordinator uses the database ({others} connections): stop every one of them first");
    Ok(store)
}

/// Brings database and file to a new key, from wherever an earlier call stopped; says what was done.
async fn rekey(store: &Store, file: &Path) -> anyhow::Result<String> {
    let old = read(file)?;
    let next = next_to(file);
    if !next.exists() {
        store.check_store_key(&old).await?;
        let key = StoreKey::generate()?;
        keys::write_new(&next, 0o600, &Zeroizing::new(format!("{}\n", key.expose_secret())))?;
        sync_folder(&next)?;
    }
    // One that was cut off while it was written is no key that the database can know.
    let Ok(new) = read(&next) else { bail!("{} is no whole key: remove it, and run this again", next.display()) };
    let is_changed = store.store_key_mark().await?.is_some_and(|mark| mark == new.mark());
    if !is_changed {
        store.rekey(Arc::new(old), Arc::new(new)).await?;
    }
    fs::rename(&next, file).with_context(|| {
        let (next, file) = (next.display(), file.display());
        format!("the database is under the new key, which is in {next}: move it to {file}, or run this again")
    })?;
    sync_folder(file)?;
    Ok(format!("the new store key is in {}: keep a copy with your backups", file.display()))
}

/// Where the new key stands until it takes the old one's place.
fn next_to(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".new");
    PathBuf::from(name)
}

fn read(file: &Path) -> anyhow::Result<StoreKey> {
    let secret = keys::read_store_key(file)?;
    Ok(StoreKey::from_hex(&Zeroizing::new(hex::encode(*secret)))?)
}

/// A name in a folder survives a power failure once the folder is synced.
fn sync_folder(file: &Path) -> anyhow::Result<()> {
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.with_context(|| format!("{} can't be synced", folder.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    async fn stage() -> (tempfile::TempDir, Store, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("longshore.db")).await.unwrap();
        let file = folder.path().join("store.key");
        fs::write(&file, StoreKey::generate().unwrap().expose_secret()).unwrap();
        store.check_store_key(&read(&file).unwrap()).await.unwrap();
        (folder, store, file)
    }

    #[tokio::test]
    async fn the_key_of_the_file_is_the_new_one_and_the_old_one_is_refused() {
        let (_folder, store, file) = stage().await;
        let old = read(&file).unwrap();
        rekey(&store, &file).await.unwrap();
        let refused = store.check_store_key(&old).await.unwrap_err().to_string();
        assert!(refused.contains("another store key"), "{refused}");
        store.check_store_key(&read(&file).unwrap()).await.unwrap();
        assert!(!next_to(&file).exists() && keys::too_open(&file).is_none());
    }

    #[tokio::test]
    async fn it_goes_on_wherever_a_kill_stopped_it() {
        for database_changed in [false, true] {
            let (_folder, store, file) = stage().await;
            let (old, key) = (read(&file).unwrap(), StoreKey::generate().unwrap());
            keys::write_new(&next_to(&file), 0o600, key.expose_secret()).unwrap();
            let new = read(&next_to(&file)).unwrap();
            if database_changed {
                store.rekey(Arc::new(old), Arc::new(read(&next_to(&file)).unwrap())).await.unwrap();
                let refused = store.check_store_key(&read(&file).unwrap()).await.unwrap_err().to_string();
                assert!(refused.contains("run it again"), "{refused}");
            }
            rekey(&store, &file).await.unwrap();
            assert_eq!(read(&file).unwrap().mark(), new.mark(), "database changed before: {database_changed}");
            store.check_store_key(&new).await.unwrap();
        }
        let (_folder, store, file) = stage().await;
        fs::write(next_to(&file), "ab").unwrap();
        let refused = rekey(&store, &file).await.unwrap_err().to_string();
        assert!(refused.contains("no whole key"), "{refused}");
        store.check_store_key(&read(&file).unwrap()).await.unwrap();
    }
}
