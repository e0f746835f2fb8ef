//! The built-in `actions/cache`, and its halves `restore` and `save`.
//!
//! Source of the rules: the README of actions/cache. Trouble with a cache is a warning: a job can do without.

use indexmap::IndexMap;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use workflow::plan::Conclusion;

use super::{
    checkout::flag,
    post_step::CacheSave,
    workspace_tar::{self, PackMode},
};
use crate::job::{
    actions_api::{ActionsApiAccess, ActionsApiClient},
    step::{StepResult, StepScope},
    steps::StepRunner,
};

/// Pieces of an archive on their way.
const PIECES: usize = 4;

struct CacheInputs {
    key: String,
    path: String,
    restore_keys: Vec<String>,
    lookup_only: bool,
    fail_on_miss: bool,
}

impl CacheInputs {
    fn read(inputs: &IndexMap<String, String>) -> Result<Self, String> {
        let input = |name: &str| {
            inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
        };
        let need = |name: &str| match input(name) {
            "" => Err(format!("input required and not supplied: {name}")),
            text => Ok(text.to_owned()),
        };
        Ok(Self {
            key: need("key")?,
            path: need("path")?,
            restore_keys: input("restore-keys")
                .lines()
                .map(str::trim)
                .filter(|key| !key.is_empty())
                .map(str::to_owned)
                .collect(),
            lookup_only: flag("lookup-only", input("lookup-only"), false)?,
            fail_on_miss: flag("fail-on-cache-miss", input("fail-on-cache-miss"), false)?,
        })
    }
}

/// Of what an entry is made: those of other paths, or made by another program, do not fit.
fn version(path: &str) -> String {
    let paths: Vec<&str> = path.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    hex::encode(Sha256::digest(format!("longshore tar 1\n{}", paths.join("\n"))))
}

impl StepRunner<'_> {
    /// `actions/cache` and `actions/cache/restore`. What is to be saved later is the second of the pair.
    pub(super) async fn restore_cache(
        &mut self,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
        halves: bool,
    ) -> Result<(StepResult, Option<CacheSave>), String> {
        let asked = CacheInputs::read(inputs)?;
        self.refuse_secret("key", &asked.key)?;
        asked.restore_keys.iter().try_for_each(|key| self.refuse_secret("restore-keys", key))?;
        let access = self.access()?;
        let machine = self.env.machine;
        let work = async {
            let entry = json!({
                "key": asked.key, "restore_keys": asked.restore_keys, "version": version(&asked.path),
            });
            let found = ActionsApiClient(&access).call("CacheService/GetCacheEntryDownloadURL", &entry).await?;
            let (Some(url), Some(key)) = (found["signed_download_url"].as_str(), found["matched_key"].as_str()) else {
                return Ok(None);
            };
            if !asked.lookup_only {
                let archive = ActionsApiClient(&access).get(url).await?;
                machine.unpack("/", false, archive).await.map_err(|error| error.to_string())?;
            }
            Ok::<_, String>(Some(key.to_owned()))
        };
        let restored = match self.timed(scope, work).await {
            Ok(restored) => restored,
            Err(end) => return Ok((end, None)),
        };
        let found = match restored {
            Ok(found) => found,
            Err(problem) => {
                self.env.warn(scope.index, &format!("Failed to restore: {problem}")).await;
                None
            }
        };
        let mut end = StepResult::new(Conclusion::Success);
        if halves {
            end.outputs.insert("cache-primary-key".into(), asked.key.clone());
        }
        let keys =
            std::iter::once(&asked.key).chain(&asked.restore_keys).map(String::as_str).collect::<Vec<_>>().join(", ");
        let exact = found.as_ref() == Some(&asked.key);
        match &found {
            Some(key) => {
                let word = if asked.lookup_only {
                    "Cache found and can be restored from key"
                } else {
                    "Cache restored from key"
                };
                self.env.job.log.notice(scope.index, &format!("{word}: {key}")).await;
                end.outputs.insert("cache-hit".into(), exact.to_string());
                end.outputs.insert("cache-matched-key".into(), key.clone());
            }
            None if asked.fail_on_miss => {
                return Err(format!(
                    "Failed to restore cache entry. Exiting as fail-on-cache-miss is set. Input key: {}",
                    asked.key
                ));
            }
            None => {
                self.env.job.log.notice(scope.index, &format!("Cache not found for input keys: {keys}")).await;
            }
        }
        let saving = (!exact).then_some(CacheSave { key: asked.key, path: asked.path });
        Ok((end, saving))
    }

    /// `actions/cache/save`.
    pub(super) async fn save_given(
        &mut self,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let CacheInputs { key, path, .. } = CacheInputs::read(inputs)?;
        self.save_cache(&CacheSave { key, path }, scope).await
    }

    pub(super) async fn save_cache(&mut self, saving: &CacheSave, scope: &StepScope<'_>) -> Result<StepResult, String> {
        // A value may have become a secret since the key was read.
        self.refuse_secret("key", &saving.key)?;
        let access = self.access()?;
        let machine = self.env.machine;
        let saved = match self.timed(scope, save(&access, machine, saving, self.disk_limit())).await {
            Ok(saved) => saved,
            Err(end) => return Ok(end),
        };
        match saved {
            Ok(outcome) => {
                let said = match outcome {
                    SaveOutcome::Saved => format!("Cache saved with key: {}", saving.key),
                    SaveOutcome::Existed => {
                        format!("Cache not saved: another job has saved one with the key {} already", saving.key)
                    }
                };
                self.env.job.log.notice(scope.index, &said).await;
            }
            Err(problem) => self.env.warn(scope.index, &format!("Failed to save: {problem}")).await,
        }
        Ok(StepResult::new(Conclusion::Success))
    }
}

/// What became of an entry that was to be saved.
enum SaveOutcome {
    Saved,
    /// Another job was faster: entries never change.
    Existed,
}

async fn save(
    access: &ActionsApiAccess,
    machine: &dyn crate::sandbox::Machine,
    saving: &CacheSave,
    limit: u64,
) -> Result<SaveOutcome, String> {
    let client = ActionsApiClient(access);
    let entry = json!({"key": saving.key, "version": version(&saving.path)});
    let made = client.call("CacheService/CreateCacheEntry", &entry).await?;
    let Some(url) = made["signed_upload_url"].as_str() else {
        return match made["message"].as_str() {
            Some(problem) => Err(problem.to_owned()),
            None => Ok(SaveOutcome::Existed),
        };
    };
    let patterns = workspace_tar::patterns(machine, &saving.path)?;
    let (pieces, arriving) = mpsc::channel(PIECES);
    let (packed, sent) = tokio::join!(
        workspace_tar::pack(machine, PackMode::Tree, &patterns, limit, pieces),
        client.put(url, ReceiverStream::new(arriving)),
    );
    if !packed? {
        return Err("the paths do not exist, hence no cache is being saved".to_owned());
    }
    sent?;
    let saved = client.call("CacheService/FinalizeCacheEntryUpload", &entry).await?;
    Ok(if saved["existed"] == true { SaveOutcome::Existed } else { SaveOutcome::Saved })
}
