//! Files in artifacts, for people who look into one: their list, and one of them.

use std::io;

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use store::Artifact;

use super::{ActionsApi, ArchiveError};

/// Unpacked bytes of one file that is given: whoever wants a larger one takes the archive.
const FILE: u64 = 64 << 20;

impl ActionsApi {
    /// Paths of the files of an artifact, with their unpacked bytes, in the order of the archive.
    ///
    /// # Errors
    /// It is no archive that can be read, or has more than some 10,000 files.
    pub async fn artifact_files(&self, artifact: &Artifact) -> Result<Vec<(String, u64)>, ArchiveError> {
        let entries = self.looked_into.entries(&artifact.sha256, artifact.size, u64::MAX).await?;
        Ok(entries.into_iter().map(|entry| (entry.path, entry.size)).collect())
    }

    /// A file of an artifact, and its length in bytes. `kept` is dropped when all was read, or the reader is given up.
    ///
    /// # Errors
    /// As above; it has no such file, or one of more than 64 MiB.
    pub async fn artifact_file(
        &self,
        artifact: &Artifact,
        path: &str,
        kept: impl Send + 'static,
    ) -> Result<(u64, BoxStream<'static, io::Result<Bytes>>), ArchiveError> {
        let (sha256, size) = (&artifact.sha256, artifact.size);
        let entries = self.looked_into.entries(sha256, size, u64::MAX).await?;
        let entry = entries.into_iter().find(|entry| entry.path == path).ok_or(ArchiveError::Missing)?;
        if entry.size > FILE {
            return Err(ArchiveError::LargeFile(FILE));
        }
        let (length, bytes) = self.looked_into.file(sha256, size, entry.index, u64::MAX, kept).await?;
        Ok((length, bytes.boxed()))
    }
}
