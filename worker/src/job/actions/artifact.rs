//! The built-in `actions/upload-artifact` and `actions/download-artifact`.
//!
//! Source of the rules: the READMEs of the two actions.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use globset::GlobBuilder;
use indexmap::IndexMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::io::ReaderStream;
use workflow::plan::Conclusion;

use super::{
    artifact_zip::{self, ZippedArtifact},
    checkout::flag,
    text,
    workspace_tar::{self, PackMode},
};
use crate::job::{
    actions_api::{ActionsApiAccess, ActionsApiClient},
    paths::absolute,
    step::{StepResult, StepScope},
    steps::StepRunner,
};
use crate::log::mask::Masker;

/// Pieces of an archive on their way.
const PIECES: usize = 4;
const DAY: Duration = Duration::from_secs(24 * 3600);

struct ArtifactUpload {
    name: String,
    patterns: Vec<String>,
    /// What is said where nothing matches.
    shown: String,
    if_none: String,
    days: u64,
    level: u32,
    overwrite: bool,
    hidden: bool,
    masker: Arc<Masker>,
}

/// What came of an upload.
struct UploadedArtifact {
    id: String,
    digest: String,
    size: u64,
    files: u64,
}

impl StepRunner<'_> {
    pub(super) async fn upload_artifact(
        &mut self,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let input = |name: &str| {
            inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
        };
        let number = |name: &str, default: u64| match input(name) {
            "" => Ok(default),
            text => text.parse::<u64>().map_err(|_| format!("`{name}` must be a number, not {text}")),
        };
        if input("path").is_empty() {
            return Err("input required and not supplied: path".into());
        }
        let if_none = match input("if-no-files-found") {
            "" => "warn",
            word @ ("warn" | "error" | "ignore") => word,
            other => return Err(format!("`if-no-files-found` must be warn, error or ignore, not {other}")),
        };
        let upload = ArtifactUpload {
            name: if input("name").is_empty() { "artifact".to_owned() } else { input("name").to_owned() },
            patterns: workspace_tar::patterns(self.env.machine, input("path"))?,
            shown: input("path").lines().map(str::trim).collect::<Vec<_>>().join(", "),
            if_none: if_none.to_owned(),
            days: number("retention-days", 0)?,
            level: u32::try_from(number("compression-level", 6)?).unwrap_or(9).min(9),
            overwrite: flag("overwrite", input("overwrite"), false)?,
            hidden: flag("include-hidden-files", input("include-hidden-files"), false)?,
            masker: Arc::clone(&self.env.job.masker),
        };
        self.refuse_secret("name", &upload.name)?;
        let access = self.access()?;
        let (machine, run) = (self.env.machine, self.env.job.attempt.order.run.clone());
        let uploaded = match self.timed(scope, send(&access, machine, &run, &upload, self.disk_limit())).await {
            Ok(uploaded) => uploaded?,
            Err(end) => return Ok(end),
        };
        let mut end = StepResult::new(Conclusion::Success);
        let Some(UploadedArtifact { id, digest, size, files }) = uploaded else {
            let said =
                format!("No files were found with the provided path: {}. No artifacts will be uploaded.", upload.shown);
            match upload.if_none.as_str() {
                "error" => return Err(said),
                "warn" => self.env.warn(scope.index, &said).await,
                _ => self.env.job.log.notice(scope.index, &said).await,
            }
            return Ok(end);
        };
        let github = self.github();
        let [server, repository, serial] = ["server_url", "repository", "run_id"].map(|key| text(&github, key));
        let url = format!("{server}/{repository}/actions/runs/{serial}/artifacts/{id}");
        let files = if files == 1 { "1 file".to_owned() } else { format!("{files} files") };
        let said = format!(
            "Artifact {} has been successfully uploaded: {files}, {size} bytes, SHA-256 {digest}, artifact ID {id}",
            upload.name
        );
        self.env.job.log.notice(scope.index, &said).await;
        end.outputs.insert("artifact-id".into(), id);
        end.outputs.insert("artifact-url".into(), url);
        end.outputs.insert("artifact-digest".into(), digest);
        Ok(end)
    }

    pub(super) async fn download_artifact(
        &mut self,
        inputs: &IndexMap<String, String>,
        scope: &StepScope<'_>,
    ) -> Result<StepResult, String> {
        let input = |name: &str| {
            inputs.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map_or("", |(_, value)| value.trim())
        };
        let run = self.env.job.attempt.order.run.clone();
        let other = input("run-id");
        if !input("github-token").is_empty() && !other.is_empty() && other != text(&self.github(), "run_id") {
            return Err(
                "artifacts of other runs cannot be had here: remove `run-id`, or fetch them by the API of the \
                        coordinator in a step"
                    .into(),
            );
        }
        let ids: Vec<&str> = input("artifact-ids").split(',').map(str::trim).filter(|id| !id.is_empty()).collect();
        let name = input("name");
        if !name.is_empty() && !ids.is_empty() {
            return Err("inputs `name` and `artifact-ids` cannot be used together".into());
        }
        for text in [name, input("pattern")] {
            self.refuse_secret("name", text)?;
        }
        let merge = flag("merge-multiple", input("merge-multiple"), false)?;
        let pattern = match input("pattern") {
            "" => None,
            text => {
                let glob = GlobBuilder::new(text).literal_separator(true).build();
                Some(glob.map_err(|error| format!("`pattern`: {error}"))?.compile_matcher())
            }
        };
        let place = match input("path").strip_prefix('~') {
            Some(rest) if rest.is_empty() || rest.starts_with('/') => format!("{}{rest}", self.env.machine.home()),
            _ => absolute(&self.env.machine.workspace(), input("path")),
        };
        let place = place.trim_end_matches('/').to_owned();
        let access = self.access()?;
        let machine = self.env.machine;
        let work = async {
            let client = ActionsApiClient(&access);
            let listed = client.call("ArtifactService/ListArtifacts", &json!({"workflow_run_backend_id": run})).await?;
            let listed = listed["artifacts"].as_array().cloned().unwrap_or_default();
            let text = |artifact: &Value, key: &str| artifact[key].as_str().unwrap_or_default().to_owned();
            let wanted: Vec<(String, String)> = listed
                .iter()
                .map(|artifact| (text(artifact, "database_id"), text(artifact, "name")))
                .filter(|(id, known)| match (name, ids.is_empty()) {
                    ("", false) => ids.contains(&id.as_str()),
                    ("", true) => pattern.as_ref().is_none_or(|pattern| pattern.is_match(known)),
                    (name, _) => name == known,
                })
                .map(|(_, name)| (name.clone(), name))
                .collect();
            if wanted.is_empty() && !name.is_empty() {
                return Err(format!("Unable to download artifact(s): Artifact not found for name: {name}"));
            }
            let mut skipped = Vec::new();
            let direct = !name.is_empty() || merge || (ids.len() == 1 && wanted.len() == 1);
            for (name, folder) in &wanted {
                let named = json!({"workflow_run_backend_id": run, "name": name});
                let found = client.call("ArtifactService/GetSignedArtifactURL", &named).await?;
                let url = found["signed_url"].as_str().unwrap_or_default();
                let directory = if direct { place.clone() } else { format!("{place}/{folder}") };
                let (archive, left) = artifact_zip::open(client.get(url).await?).await?;
                let unpacked = machine.unpack(&directory, false, archive).await;
                unpacked.map_err(|error| format!("artifact {name}: {error}"))?;
                skipped.extend(left.await);
            }
            Ok((wanted.into_iter().map(|(name, _)| name).collect::<Vec<_>>(), skipped))
        };
        let (names, skipped) = match self.timed(scope, work).await {
            Ok(done) => done?,
            Err(end) => return Ok(end),
        };
        for entry in skipped {
            self.env.warn(scope.index, &format!("{entry}: left out, only files and folders are unpacked")).await;
        }
        let said = format!("Total of {} artifact(s) downloaded: {}", names.len(), names.join(", "));
        self.env.job.log.notice(scope.index, &said).await;
        let mut end = StepResult::new(Conclusion::Success);
        end.outputs.insert("download-path".into(), place);
        Ok(end)
    }

    /// Bytes of disk that the job may use; 0: any number.
    pub(super) fn disk_limit(&self) -> u64 {
        self.env.job.attempt.limits.disk
    }

    /// Names and keys are shown to everybody who may see the run, and cannot be masked: they would mean something else.
    pub(super) fn refuse_secret(&self, input: &str, text: &str) -> Result<(), String> {
        match self.env.job.masker.finds(text) {
            true => Err(format!("`{input}` holds a secret, and everybody who may see the run sees it: use its hash")),
            false => Ok(()),
        }
    }

    /// The services, where there are any.
    pub(super) fn access(&self) -> Result<ActionsApiAccess, String> {
        let access = self.env.job.attempt.actions_api.clone();
        access.ok_or_else(|| "this worker's coordinator keeps no caches and artifacts".into())
    }
}

async fn send(
    access: &ActionsApiAccess,
    machine: &dyn crate::sandbox::Machine,
    run: &str,
    upload: &ArtifactUpload,
    limit: u64,
) -> Result<Option<UploadedArtifact>, String> {
    let (pieces, arriving) = mpsc::channel(PIECES);
    let root = workspace_tar::root(&upload.patterns);
    let (packed, zipped) = tokio::join!(
        workspace_tar::pack(machine, PackMode::Files, &upload.patterns, limit, pieces),
        artifact_zip::make(arriving, root, upload.level, upload.hidden, Arc::clone(&upload.masker)),
    );
    let found = packed?;
    let ZippedArtifact { file, size, sha256, files } = zipped?;
    if !found || files == 0 {
        return Ok(None);
    }
    let client = ActionsApiClient(access);
    let mut named = json!({"workflow_run_backend_id": run, "name": upload.name, "version": 4});
    if upload.days > 0 {
        let until = SystemTime::now().checked_add(DAY * u32::try_from(upload.days).unwrap_or(u32::MAX));
        let until = until.and_then(|until| jiff::Timestamp::try_from(until).ok());
        named["expires_at"] = until.map(|until| until.to_string()).into();
    }
    let made = match client.call("ArtifactService/CreateArtifact", &named).await {
        Err(refusal) if refusal.status == 409 && upload.overwrite => {
            client.call("ArtifactService/DeleteArtifact", &named).await?;
            client.call("ArtifactService/CreateArtifact", &named).await?
        }
        made => made.map_err(|refusal| format!("Failed to create artifact {}: {}", upload.name, refusal.reason))?,
    };
    let url = made["signed_upload_url"].as_str().unwrap_or_default();
    client.put(url, ReaderStream::with_capacity(file, 256 << 10)).await?;
    named["size"] = size.to_string().into();
    named["hash"] = format!("sha256:{sha256}").into();
    let done = client.call("ArtifactService/FinalizeArtifact", &named).await?;
    let id = done["artifact_id"].as_str().unwrap_or_default().to_owned();
    Ok(Some(UploadedArtifact { id, digest: sha256, size, files }))
}
