//! Artifacts, version 4 of the protocol: one archive for each name, readable by all jobs of the run.

use std::path::Path;

use anyhow::Context as _;
use axum::{Json, extract::State, http::HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ActionsApi, Authorized, JobIdentity, Refusal, base, cache::number, storage::UploadKind, token};
use blobs::BlobError;
use domain::id::RunId;
use domain::run::Millis;
use store::{Artifact, ArtifactChange, ArtifactsOf, Blob, Change, StoreError};
use workflow::time::DAY_MS;

/// Artifacts of one run; GitHub has this limit for a job.
const ARTIFACTS: u64 = 500;
/// The part of an author's quota that his runs have which their repository does not trust: one of so many.
const UNTRUSTED: u64 = 10;
/// Artifacts that are looked at together to make room.
const REMOVED: u32 = 100;
/// Longest name, in bytes.
const NAME: usize = 256;

#[derive(Debug, Deserialize)]
pub(super) struct ArtifactRequest {
    #[serde(alias = "workflowRunBackendId")]
    workflow_run_backend_id: String,
    #[serde(default)]
    name: String,
    #[serde(default, alias = "expiresAt")]
    expires_at: Option<String>,
    #[serde(default)]
    size: Option<Value>,
    #[serde(default)]
    hash: Option<String>,
    #[serde(default, alias = "nameFilter")]
    name_filter: Option<String>,
    #[serde(default, alias = "idFilter")]
    id_filter: Option<Value>,
}

/// Owner of an artifact's bytes.
pub fn owner(id: u64) -> String {
    format!("artifact:{id}")
}

impl ActionsApi {
    /// Unpacks the artifacts of a run, each into a folder of its name below this one, and gives their names. Only what
    /// is a file in them, and lies in there, comes out.
    ///
    /// # Errors
    /// One of them can't be read, or its files can't be written.
    pub async fn unpack(&self, run: &RunId, folder: &Path) -> anyhow::Result<Vec<String>> {
        let (limit, mut names) = (self.limits.artifact_bytes, Vec::new());
        for Artifact { name, sha256, size, .. } in self.store.artifacts(run).await? {
            // Names that lead elsewhere did not come in.
            let unpacked = self.archives.unpack(&sha256, size, limit, folder.join(&name)).await;
            unpacked.with_context(|| format!("artifact {name}"))?;
            names.push(name);
        }
        Ok(names)
    }

    async fn artifact(&self, identity: &JobIdentity, name: &str) -> Result<Option<Artifact>, StoreError> {
        Ok(self.store.artifacts(&identity.run).await?.into_iter().find(|artifact| artifact.name == name))
    }

    /// The artifact that a new one would replace: that of an earlier attempt of the same job.
    async fn replaced(&self, identity: &JobIdentity, name: &str) -> Result<Option<Artifact>, Refusal> {
        match self.artifact(identity, name).await? {
            Some(found) if found.job == identity.job && found.attempt < identity.attempt => Ok(Some(found)),
            Some(_) => Err(Refusal::exists("an artifact with this name already exists on the workflow run")),
            None => Ok(None),
        }
    }

    /// Removes the oldest artifacts of ended runs until all take no more than a limit.
    pub(super) async fn make_artifact_room(&self, limit: u64) -> Result<(), BlobError> {
        let mut total = self.store.artifact_bytes(ArtifactsOf::Pool).await?;
        while total > limit {
            let oldest = self.store.artifacts_oldest(REMOVED).await?;
            if oldest.is_empty() {
                break;
            }
            for artifact in oldest {
                if total <= limit {
                    break;
                }
                self.remove_artifact(&artifact).await?;
                total = total.saturating_sub(artifact.size);
                tracing::info!(
                    run = artifact.run.as_str(),
                    artifact = artifact.name,
                    "removed: artifacts take too much room"
                );
            }
        }
        Ok(())
    }

    /// Why a repository, or an author, may keep no artifact of this size.
    async fn over_quota(&self, identity: &JobIdentity, size: u64) -> Result<Option<String>, Refusal> {
        let (repository, author) = (identity.repository.as_str(), identity.author.as_str());
        let (of_repository, of_author) =
            (self.limits.artifact_bytes_per_repository, self.limits.artifact_bytes_per_author);
        // What nobody of the repository stands for takes none of its room, and little of the pool's.
        let first = if identity.trusted {
            (ArtifactsOf::Repository(repository), "the repository", of_repository, "artifact_bytes_per_repository")
        } else {
            let who = "who asks for runs of outsiders and of unproven commits";
            (ArtifactsOf::AuthorAlone(author), who, of_author / UNTRUSTED, "artifact_bytes_per_author")
        };
        let all = (ArtifactsOf::Author(author), "who asked for the run", of_author, "artifact_bytes_per_author");
        for (of, who, limit, key) in [first, all] {
            if self.store.artifact_bytes(of).await?.saturating_add(size) > limit {
                return Ok(Some(format!(
                    "{who} keeps {limit} bytes of artifacts at most: set `retention-days` so that they go sooner, or have \
                     the operator raise kept.{key}"
                )));
            }
        }
        Ok(None)
    }

    pub(super) async fn remove_artifact(&self, artifact: &Artifact) -> Result<(), BlobError> {
        self.store.commit(vec![Change::Artifact(ArtifactChange::Remove { id: artifact.id })]).await?;
        self.blobs.delete(&artifact.sha256, &owner(artifact.id)).await
    }

    async fn keep_artifact(&self, identity: &JobIdentity, name: &str, blob: Blob, until: u64) -> Result<u64, Refusal> {
        let earlier = self.replaced(identity, name).await?;
        let (stored, bytes) = self.store.artifacts_total(&identity.run).await?;
        let others = stored.saturating_sub(earlier.iter().len() as u64);
        let replaced = earlier.as_ref().map_or(0, |earlier| earlier.size);
        let total = bytes.saturating_sub(replaced).saturating_add(blob.size);
        if total > self.limits.artifact_bytes || others >= ARTIFACTS {
            self.blobs.delete(&blob.sha256, &blob.owner).await?;
            let said = format!("a run keeps at most {ARTIFACTS} artifacts and {} bytes", self.limits.artifact_bytes);
            return Err(Refusal::too_large(said));
        }
        if let Some(why) = self.over_quota(identity, blob.size.saturating_sub(replaced)).await? {
            self.blobs.delete(&blob.sha256, &blob.owner).await?;
            return Err(Refusal::too_large(why));
        }
        let id = self.store.next("artifacts").await?;
        let artifact = Artifact {
            id,
            run: identity.run.clone(),
            job: identity.job.clone(),
            attempt: identity.attempt,
            name: name.to_owned(),
            sha256: blob.sha256.clone(),
            size: blob.size,
            made_at: self.now(),
            expires_at: until,
        };
        // Its lifetime is that of the row.
        let kept = Blob { owner: owner(id), expires_at: i64::MAX.unsigned_abs(), ..blob.clone() };
        let gone = Change::BlobGone { sha256: blob.sha256, owner: blob.owner };
        // One transaction replaces the earlier one: a crash leaves one of them.
        let mut batch: Vec<Change> =
            earlier.iter().map(|earlier| Change::Artifact(ArtifactChange::Remove { id: earlier.id })).collect();
        let added =
            if identity.trusted { ArtifactChange::Add(artifact) } else { ArtifactChange::AddForAuthor(artifact) };
        batch.extend([Change::Artifact(added), Change::Blob(kept), gone]);
        self.store.commit(batch).await?;
        if let Some(earlier) = earlier {
            self.blobs.delete(&earlier.sha256, &owner(earlier.id)).await?;
        }
        Ok(id)
    }

    fn expect(&self, identity: &JobIdentity, name: &str, until: Millis) {
        self.expiries.insert(format!("{} {name}", identity.text()), until);
    }

    fn expected(&self, identity: &JobIdentity, name: &str) -> Option<Millis> {
        self.expiries.remove(&format!("{} {name}", identity.text()))
    }

    /// When an artifact expires: as its job asks, at most after the operator's limit.
    fn until(&self, asked: Option<&str>) -> Millis {
        let latest = self.now().saturating_add(self.limits.artifact_days.saturating_mul(DAY_MS));
        let asked = asked.and_then(|text| text.parse::<jiff::Timestamp>().ok());
        let asked = asked.and_then(|stamp| u64::try_from(stamp.as_millisecond()).ok());
        asked.map_or(latest, |asked| asked.min(latest))
    }
}

/// Names become file names: those with separators and the like are refused, as the toolkit does.
fn check(name: &str) -> Result<(), Refusal> {
    let plain = !name.chars().any(|c| c.is_control() || "\"\\/:<>|*?".contains(c));
    if !plain || name.is_empty() || name.len() > NAME || name == "." || name == ".." {
        return Err(Refusal::invalid("an artifact's name has 1 to 256 bytes and none of \" \\ / : < > | * ?"));
    }
    Ok(())
}

/// A job may use the artifacts of its own run alone.
fn own(identity: &JobIdentity, named: &ArtifactRequest) -> Result<(), Refusal> {
    if identity.run == named.workflow_run_backend_id.as_str() {
        return Ok(());
    }
    Err(Refusal::missing("a job sees the artifacts of its own run only"))
}

pub(super) async fn create(
    State(api): State<ActionsApi>,
    authorized: Authorized,
    headers: HeaderMap,
    Json(named): Json<ArtifactRequest>,
) -> Result<Json<Value>, Refusal> {
    let identity = authorized.0.clone();
    own(&identity, &named)?;
    check(&named.name)?;
    api.announce_upload(&authorized.caller(), UploadKind::Artifact, &named.name)?;
    api.replaced(&identity, &named.name).await?;
    api.expect(&identity, &named.name, api.until(named.expires_at.as_deref()));
    let url = api.upload_url(&base(&headers), &identity, UploadKind::Artifact, &named.name);
    Ok(Json(json!({ "ok": true, "signed_upload_url": url })))
}

pub(super) async fn finalize(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    Json(named): Json<ArtifactRequest>,
) -> Result<Json<Value>, Refusal> {
    own(&identity, &named)?;
    check(&named.name)?;
    let uploaded = api.uploaded(&identity, UploadKind::Artifact, &named.name).await?;
    let blob = uploaded.ok_or_else(|| Refusal::missing("nothing was uploaded for this artifact"))?;
    let size = named.size.as_ref().and_then(number);
    let hash = named.hash.as_deref().map(|hash| hash.trim_start_matches("sha256:"));
    if size.is_some_and(|size| size != blob.size)
        || hash.is_some_and(|hash| !hash.eq_ignore_ascii_case(blob.sha256.as_str()))
    {
        return Err(Refusal::invalid("what came in is not what was announced: its size or SHA-256 differs"));
    }
    let until = api.expected(&identity, &named.name).unwrap_or_else(|| api.until(None));
    let (sha256, size) = (blob.sha256.clone(), blob.size);
    let id = api.keep_artifact(&identity, &named.name, blob, until).await?;
    api.report_tests(&identity, id, &named.name, &sha256, size).await;
    api.finish_upload(&identity, UploadKind::Artifact, &named.name);
    Ok(Json(json!({ "ok": true, "artifact_id": id.to_string() })))
}

pub(super) async fn list(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    Json(named): Json<ArtifactRequest>,
) -> Result<Json<Value>, Refusal> {
    own(&identity, &named)?;
    let id = named.id_filter.as_ref().and_then(number);
    let artifacts = api.store.artifacts(&identity.run).await?.into_iter().filter(|artifact| {
        named.name_filter.as_ref().is_none_or(|name| *name == artifact.name) && id.is_none_or(|id| id == artifact.id)
    });
    let shown: Vec<Value> = artifacts
        .map(|artifact| {
            json!({
                "workflow_run_backend_id": identity.run,
                "workflow_job_run_backend_id": token::backend_job(&identity),
                "database_id": artifact.id.to_string(),
                "name": artifact.name,
                "size": artifact.size.to_string(),
                "created_at": json_timestamp(artifact.made_at),
                "digest": format!("sha256:{}", artifact.sha256),
            })
        })
        .collect();
    Ok(Json(json!({ "artifacts": shown })))
}

pub(super) async fn url(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    headers: HeaderMap,
    Json(named): Json<ArtifactRequest>,
) -> Result<Json<Value>, Refusal> {
    own(&identity, &named)?;
    let found = api.artifact(&identity, &named.name).await?;
    let found = found.ok_or_else(|| Refusal::missing(format!("the run has no artifact {}", named.name)))?;
    let url = api.download_url(&base(&headers), &identity, &found.sha256, "artifact.zip");
    Ok(Json(json!({ "signed_url": url })))
}

pub(super) async fn delete(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    Json(named): Json<ArtifactRequest>,
) -> Result<Json<Value>, Refusal> {
    own(&identity, &named)?;
    let found = api.artifact(&identity, &named.name).await?;
    let found = found.ok_or_else(|| Refusal::missing(format!("the run has no artifact {}", named.name)))?;
    api.remove_artifact(&found).await?;
    Ok(Json(json!({ "ok": true, "artifact_id": found.id.to_string() })))
}

/// A moment in Unix milliseconds as JSON of protobuf has it (protobuf.dev: ProtoJSON, `Timestamp`): clients refuse a
/// fraction of one or two digits, which is what a format without trailing zeros gives one time in ten.
fn json_timestamp(at: u64) -> String {
    let at = i64::try_from(at).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.unwrap_or_default().strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::json_timestamp;

    #[test]
    fn a_moment_has_three_digits_of_its_second_whatever_they_are() {
        assert_eq!(json_timestamp(1_700_000_000_120), "2023-11-14T22:13:20.120Z");
        assert_eq!(json_timestamp(1_700_000_000_000), "2023-11-14T22:13:20.000Z");
        assert_eq!(json_timestamp(1_700_000_000_123), "2023-11-14T22:13:20.123Z");
    }
}
