//! Bytes named by their SHA-256, kept in object storage, with their owners in the store.
//!
//! Storage and store share no transaction. A put copies its bytes into place, commits the row, and copies again where the
//! object is gone; a removal moves the object aside first and looks for rows after that. However the two interleave, an
//! object that has a row stays. An object without a row, left by a crash, is collected by the next sweep.

mod byte_range;
pub mod client;

use std::{ops::Range, path::Path as FilePath, sync::Arc};

use bytes::Bytes;
use futures::{Stream, StreamExt, TryFutureExt, TryStreamExt, stream::BoxStream};
use object_store::{
    GetOptions, GetRange, ObjectStore, ObjectStoreExt, WriteMultipart, local::LocalFileSystem, path::Path,
};
use sha2::{Digest, Sha256};

pub use byte_range::{ByteRange, content_range};
use domain::id::BlobHash;
use domain::run::Millis;
use store::{Blob, Change, Store, StoreError};
use workflow::time::DAY_MS;

/// Parts of one upload that are written to the storage at the same time.
const PARTS: usize = 4;

/// Bytes up to which a body is held in memory and written once, straight to its place.
const SMALL: usize = 256 * 1024;

/// Milliseconds after which a staged part that belongs to no blob yet is removed.
const STAGED: Millis = DAY_MS;

/// Milliseconds after which an object without a row is removed; before, its `put` may still be about to commit the row.
const UNCOMMITTED: Millis = 3600 * 1000;

/// Folder of uploads that are not complete.
const INCOMING: &str = "incoming";

/// Folder of objects whose removal is not decided yet, each named `<sha256>.<unique>`.
const REMOVING: &str = "removing";

/// Stored bytes. Clones share them.
#[derive(Debug, Clone)]
pub struct Blobs {
    objects: Arc<dyn ObjectStore>,
    store: Store,
}

/// What is known of bytes before they are stored.
#[derive(Debug, Clone)]
pub struct Deposit {
    /// MIME type.
    pub kind: String,
    /// Run id, or a pubkey.
    pub owner: String,
    /// Whether everybody may read them.
    pub public: bool,
    /// Now.
    pub now: Millis,
    /// When they may be removed.
    pub expires_at: Millis,
    /// Their hash must be one of these; `None`: any.
    pub allowed: Option<Vec<BlobHash>>,
    /// Most bytes.
    pub limit: u64,
}

/// Whether the bytes were stored before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Put {
    /// They are new.
    New(Blob),
    /// They were stored already, by this owner or another.
    Known(Blob),
}

impl Put {
    /// The row, either way.
    pub fn blob(&self) -> &Blob {
        match self {
            Self::New(blob) | Self::Known(blob) => blob,
        }
    }
}

/// Why bytes could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// More than the limit.
    #[error("the blob is larger than {0} bytes")]
    TooLarge(u64),
    /// Not what was announced.
    #[error("the bytes have the SHA-256 {0}, which was not announced")]
    Mismatch(BlobHash),
    /// The upload was cut off.
    #[error("the upload broke off: {0}")]
    Body(#[source] std::io::Error),
    /// The object storage.
    #[error("blob storage: {0}")]
    Storage(#[from] object_store::Error),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Blobs {
    /// The same for the only process that uses the folder: unfinished uploads of an earlier process are removed.
    pub fn open_alone(folder: &FilePath, store: Store) -> anyhow::Result<Self> {
        let incoming = folder.join(INCOMING);
        match std::fs::remove_dir_all(&incoming) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                let what = format!("can't empty {}: does it belong to this user?", incoming.display());
                Err(anyhow::Error::new(error).context(what))
            }
            _ => Self::open(folder, store),
        }
    }

    /// Blobs in `folder`, which is created if it is missing.
    pub fn open(folder: &FilePath, store: Store) -> anyhow::Result<Self> {
        use anyhow::Context;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("can't make the blob folder {}: is its parent writable?", folder.display()))?;
        let objects = LocalFileSystem::new_with_prefix(folder)
            .with_context(|| format!("can't open the blob folder {}", folder.display()))?
            .with_fsync(true);
        Ok(Self { objects: Arc::new(objects), store })
    }

    /// Stores the bytes of a stream. They are not readable before their hash is checked.
    pub async fn put<S>(&self, body: S, deposit: Deposit) -> Result<Put, BlobError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        let mut body = std::pin::pin!(body);
        let (mut first, mut length) = (Vec::new(), 0);
        while length <= SMALL {
            match body.next().await {
                Some(Ok(bytes)) => {
                    length += bytes.len();
                    first.push(bytes);
                }
                Some(Err(error)) => return Err(BlobError::Body(error)),
                None => return self.put_bytes(first.concat().into(), deposit).await,
            }
        }
        let incoming = Path::from(format!("{INCOMING}/{}", uuid::Uuid::now_v7()));
        let body = futures::stream::iter(first.into_iter().map(Ok)).chain(body);
        let received = Box::pin(self.receive(body, &incoming, deposit.limit)).await?;
        let put = self.settle(received, deposit, &Content::Received(&incoming)).await;
        self.objects.delete(&incoming).await?;
        put
    }

    /// Stores bytes that are in memory.
    pub async fn put_bytes(&self, bytes: Bytes, deposit: Deposit) -> Result<Put, BlobError> {
        let size = bytes.len() as u64;
        if size > deposit.limit {
            return Err(BlobError::TooLarge(deposit.limit));
        }
        let received = Received { hash: BlobHash::of(&bytes), size };
        self.settle(received, deposit, &Content::Held(bytes)).await
    }

    /// Brings bytes to their place, and commits the row.
    async fn settle(&self, received: Received, deposit: Deposit, bytes: &Content<'_>) -> Result<Put, BlobError> {
        let sha256 = received.hash;
        if deposit.allowed.is_some_and(|allowed| !allowed.contains(&sha256)) {
            return Err(BlobError::Mismatch(sha256));
        }
        let known = self.store.has_blob(&sha256).await?;
        let place = place(&sha256);
        if !known || !self.exists(&place).await? {
            self.write(bytes, &place).await?;
        }
        let blob = Blob {
            sha256,
            size: received.size,
            kind: deposit.kind,
            owner: deposit.owner,
            public: deposit.public,
            stored_at: deposit.now,
            expires_at: deposit.expires_at,
        };
        self.store.commit(vec![Change::Blob(blob.clone())]).await?;
        // A removal may have moved the first copy aside before the row existed; from now on none does.
        if !self.exists(&place).await? {
            self.write(bytes, &place).await?;
        }
        Ok(if known { Put::Known(blob) } else { Put::New(blob) })
    }

    async fn exists(&self, place: &Path) -> Result<bool, BlobError> {
        match self.objects.head(place).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn write(&self, bytes: &Content<'_>, place: &Path) -> Result<(), BlobError> {
        match bytes {
            Content::Held(bytes) => self.objects.put(place, bytes.clone().into()).await.map(drop)?,
            Content::Received(incoming) => self.objects.copy(incoming, place).await?,
        }
        Ok(())
    }

    /// Stores one part of a blob that [`Blobs::put_staged`] completes. Returns its length in bytes.
    pub async fn stage<S>(&self, upload: &str, part: &str, body: S, limit: u64) -> Result<u64, BlobError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        let incoming = Path::from(format!("{INCOMING}/{}", uuid::Uuid::now_v7()));
        let received = Box::pin(self.receive(body, &incoming, limit)).await?;
        self.objects.rename(&incoming, &staged(upload, part)).await?;
        Ok(received.size)
    }

    /// Stores staged parts, in this order, as one blob; `None`: one of them is missing.
    pub async fn put_staged(&self, upload: &str, parts: &[String], deposit: Deposit) -> Result<Option<Put>, BlobError> {
        let mut places = Vec::with_capacity(parts.len());
        for part in parts {
            let place = staged(upload, part);
            match self.objects.head(&place).await {
                Ok(_) => places.push(place),
                Err(object_store::Error::NotFound { .. }) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
        let body = futures::stream::iter(places).map(|place| part(Arc::clone(&self.objects), place)).flatten();
        let put = self.put(body.boxed(), deposit).await?;
        self.unstage(upload).await?;
        Ok(Some(put))
    }

    /// Removes the staged parts of an upload that nobody completes any more.
    pub async fn unstage(&self, upload: &str) -> Result<(), BlobError> {
        self.remove_staged(Some(upload), Millis::MAX).await
    }

    /// Removes staged parts: those of one upload, or all that are older than a time.
    async fn remove_staged(&self, upload: Option<&str>, before: Millis) -> Result<(), BlobError> {
        let folder = upload.map_or_else(|| Path::from("staged"), |upload| Path::from_iter(["staged", upload]));
        let mut parts = self.objects.list(Some(&folder));
        while let Some(part) = parts.try_next().await? {
            let since = Millis::try_from(part.last_modified.timestamp_millis()).unwrap_or(0);
            if since < before {
                match self.objects.delete(&part.location).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    async fn receive<S>(&self, body: S, incoming: &Path, limit: u64) -> Result<Received, BlobError>
    where
        S: Stream<Item = std::io::Result<Bytes>> + Send,
    {
        let mut upload = WriteMultipart::new(self.objects.put_multipart(incoming).await?);
        let mut hash = Sha256::new();
        let mut size = 0;
        let mut body = std::pin::pin!(body);
        let broken = loop {
            match body.next().await {
                None => break None,
                Some(Err(error)) => break Some(BlobError::Body(error)),
                Some(Ok(bytes)) => {
                    size += bytes.len() as u64;
                    if size > limit {
                        break Some(BlobError::TooLarge(limit));
                    }
                    hash.update(&bytes);
                    upload.wait_for_capacity(PARTS).await?;
                    upload.put(bytes);
                }
            }
        };
        match broken {
            Some(error) => {
                upload.abort().await?;
                Err(error)
            }
            None => {
                upload.finish().await?;
                Ok(Received { hash: <[u8; 32]>::from(hash.finalize()).into(), size })
            }
        }
    }

    /// Reads stored bytes, or a part of them; `None`: there are none.
    pub async fn get(
        &self,
        sha256: &BlobHash,
        range: Option<Range<u64>>,
    ) -> Result<Option<BoxStream<'static, std::io::Result<Bytes>>>, BlobError> {
        let options = GetOptions { range: range.map(GetRange::Bounded), ..GetOptions::default() };
        match self.objects.get_opts(&place(sha256), options).await {
            Ok(found) => Ok(Some(found.into_stream().map_err(std::io::Error::other).boxed())),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Removes an owner's row; the bytes are removed with the last row.
    pub async fn delete(&self, sha256: &BlobHash, owner: &str) -> Result<(), BlobError> {
        let gone = Change::BlobGone { sha256: sha256.clone(), owner: owner.to_owned() };
        self.store.commit(vec![gone]).await?;
        if self.store.has_blob(sha256).await? { Ok(()) } else { self.discard(sha256).await }
    }

    /// Removes an object, unless a row for it appears after it was moved aside.
    async fn discard(&self, sha256: &BlobHash) -> Result<(), BlobError> {
        let aside = Path::from_iter([REMOVING, &format!("{sha256}.{}", uuid::Uuid::now_v7())]);
        match self.objects.rename(&place(sha256), &aside).await {
            Ok(()) => self.decide(&aside, sha256).await,
            Err(error) => missing_is_fine(error),
        }
    }

    /// Removes an object that was moved aside, or moves it back if there is a row for it.
    async fn decide(&self, aside: &Path, sha256: &BlobHash) -> Result<(), BlobError> {
        let decided = if self.store.has_blob(sha256).await? {
            self.objects.rename(aside, &place(sha256)).await
        } else {
            // The last owner's row is gone after a power failure too.
            self.store.synced().await?;
            self.objects.delete(aside).await
        };
        decided.or_else(missing_is_fine)
    }

    /// Removes expired blobs, abandoned parts and objects without a row.
    pub async fn expire(&self, now: Millis) -> Result<(), BlobError> {
        for blob in self.store.blobs_expired(now).await? {
            self.delete(&blob.sha256, &blob.owner).await?;
        }
        self.remove_staged(None, now.saturating_sub(STAGED)).await?;
        self.collect(now.saturating_sub(UNCOMMITTED)).await
    }

    /// Removes objects without a row that are older than a time, and decides about those that a crash left aside.
    async fn collect(&self, before: Millis) -> Result<(), BlobError> {
        let mut aside = self.objects.list(Some(&Path::from(REMOVING)));
        while let Some(object) = aside.try_next().await? {
            let Some((name, _)) = object.location.filename().and_then(|name| name.split_once('.')) else { continue };
            match name.parse() {
                Ok(sha256) => self.decide(&object.location, &sha256).await?,
                Err(_) => self.objects.delete(&object.location).await.or_else(missing_is_fine::<BlobError>)?,
            }
        }
        for folder in 0..=u8::MAX {
            let folder = hex::encode([folder]);
            let found: Vec<_> = self.objects.list(Some(&Path::from(folder.as_str()))).try_collect().await?;
            if found.is_empty() {
                continue;
            }
            let known = self.store.blob_hashes(&folder).await?;
            for object in found {
                let since = Millis::try_from(object.last_modified.timestamp_millis()).unwrap_or(0);
                let Some(name) = object.location.filename().filter(|name| since < before && !known.contains(*name))
                else {
                    continue;
                };
                match name.parse() {
                    Ok(sha256) => self.discard(&sha256).await?,
                    Err(_) => self.objects.delete(&object.location).await.or_else(missing_is_fine::<BlobError>)?,
                }
            }
        }
        Ok(())
    }
}

/// Ignores that an object is missing: another removal was faster.
fn missing_is_fine<E: From<object_store::Error>>(error: object_store::Error) -> Result<(), E> {
    match error {
        object_store::Error::NotFound { .. } => Ok(()),
        error => Err(error.into()),
    }
}

/// Where the bytes of a blob are before they are at their place.
enum Content<'a> {
    /// In memory.
    Held(Bytes),
    /// Received as this object.
    Received(&'a Path),
}

struct Received {
    hash: BlobHash,
    size: u64,
}

/// Bytes that were written to one object.
fn part(objects: Arc<dyn ObjectStore>, place: Path) -> BoxStream<'static, std::io::Result<Bytes>> {
    let found = async move { objects.get(&place).await.map(|found| found.into_stream()) };
    found.try_flatten_stream().map_err(std::io::Error::other).boxed()
}

/// Names of parts come from the sender: only their hashes become file names.
fn staged(upload: &str, part: &str) -> Path {
    Path::from_iter(["staged", upload, &hex::encode(Sha256::digest(part))])
}

/// Path of a blob, in two levels: folders with very many entries are slow.
fn place(sha256: &BlobHash) -> Path {
    let name = sha256.as_str();
    Path::from_iter([name.get(..2).unwrap_or("00"), name])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may stop at once")]

    use super::*;

    fn deposit(owner: &str) -> Deposit {
        Deposit {
            kind: "text/plain".into(),
            owner: owner.into(),
            public: true,
            now: 1,
            expires_at: 100,
            allowed: None,
            limit: 1000,
        }
    }

    async fn blobs() -> (tempfile::TempDir, Blobs) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.sqlite")).await.unwrap();
        let blobs = Blobs::open(&folder.path().join("blobs"), store).unwrap();
        (folder, blobs)
    }

    async fn read(blobs: &Blobs, sha256: &BlobHash, range: Option<Range<u64>>) -> Option<Vec<u8>> {
        let parts: Vec<Bytes> = blobs.get(sha256, range).await.unwrap()?.try_collect().await.unwrap();
        Some(parts.concat())
    }

    fn files(folder: &FilePath) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
        entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
    }

    #[tokio::test]
    async fn bytes_come_back_whole_or_in_part_until_their_last_owner_goes() {
        let (folder, blobs) = blobs().await;
        let put = blobs.put_bytes(Bytes::from_static(b"hello blob"), deposit("a")).await.unwrap();
        let sha256 = put.blob().sha256.clone();
        assert!(matches!(put, Put::New(_)));
        assert_eq!(sha256, BlobHash::of(b"hello blob"));
        let again = blobs.put_bytes(Bytes::from_static(b"hello blob"), deposit("b")).await.unwrap();
        assert!(matches!(again, Put::Known(_)));
        assert_eq!(read(&blobs, &sha256, None).await.unwrap(), b"hello blob");
        assert_eq!(read(&blobs, &sha256, Some(6..8)).await.unwrap(), b"bl");
        blobs.delete(&sha256, "a").await.unwrap();
        assert!(read(&blobs, &sha256, None).await.is_some());
        blobs.expire(100).await.unwrap();
        assert_eq!(read(&blobs, &sha256, None).await, None);
        assert_eq!(files(&folder.path().join("blobs")), Vec::<std::path::PathBuf>::new());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn bytes_that_one_owner_gives_up_while_another_stores_them_stay() {
        let (_folder, blobs) = blobs().await;
        for round in 0..300_u32 {
            let bytes = Bytes::from(round.to_string());
            let sha256 = BlobHash::of(&bytes);
            blobs.put_bytes(bytes.clone(), deposit("a")).await.unwrap();
            let (put, deleted) = tokio::join!(
                tokio::spawn({
                    let (blobs, bytes) = (blobs.clone(), bytes.clone());
                    async move { blobs.put_bytes(bytes, deposit("b")).await }
                }),
                tokio::spawn({
                    let (blobs, sha256) = (blobs.clone(), sha256.clone());
                    async move { blobs.delete(&sha256, "a").await }
                }),
            );
            put.unwrap().unwrap();
            deleted.unwrap().unwrap();
            assert_eq!(read(&blobs, &sha256, None).await.as_deref(), Some(bytes.as_ref()), "round {round}");
        }
    }

    #[tokio::test]
    async fn objects_without_a_row_are_collected_once_no_put_can_be_under_way_and_others_stay() {
        let (folder, blobs) = blobs().await;
        let kept = blobs.put_bytes(Bytes::from_static(b"kept"), deposit("a")).await.unwrap().blob().sha256.clone();
        let orphan = BlobHash::of(b"orphan");
        let cut_off = Path::from(format!("{REMOVING}/{kept}.1"));
        blobs.objects.put(&place(&orphan), "left by a crash".into()).await.unwrap();
        blobs.objects.rename(&place(&kept), &cut_off).await.unwrap();
        blobs.collect(0).await.unwrap();
        assert!(read(&blobs, &orphan, None).await.is_some(), "its row may be on its way");
        assert_eq!(read(&blobs, &kept, None).await.unwrap(), b"kept", "a removal that broke off is taken back");
        blobs.collect(Millis::MAX).await.unwrap();
        assert_eq!(files(&folder.path().join("blobs")), [folder.path().join(format!("blobs/{}", place(&kept)))]);
    }

    #[tokio::test]
    async fn what_is_too_large_unannounced_or_broken_off_leaves_nothing() {
        let (folder, blobs) = blobs().await;
        let large = blobs.put_bytes(vec![0; 1001].into(), deposit("a")).await;
        assert!(matches!(large, Err(BlobError::TooLarge(1000))));
        let announced = Deposit { allowed: Some(vec![BlobHash::of(b"other")]), ..deposit("a") };
        assert!(matches!(blobs.put_bytes(Bytes::from_static(b"x"), announced).await, Err(BlobError::Mismatch(_))));
        let body = futures::stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("gone"))]);
        assert!(matches!(blobs.put(body, deposit("a")).await, Err(BlobError::Body(_))));
        assert_eq!(files(&folder.path().join("blobs")), Vec::<std::path::PathBuf>::new());
    }
}
