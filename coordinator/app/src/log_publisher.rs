//! Puts logs where authors can read them: the built-in Blossom endpoint, and configured servers.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures::TryStreamExt;
use nostr::Keys;
use url::Url;

use blobs::{Blobs, Deposit, client::Client};
use config::Config;
use domain::id::BlobHash;
use domain::run::{FinalizedLog, Millis, RunState, Visibility};
use logs::Logs;

/// MIME type of every log.
const TEXT: &str = "text/plain; charset=utf-8";
/// Milliseconds of a day.
const DAY_MS: Millis = 24 * 3600 * 1000;

/// Keeps the texts of runs.
#[derive(Clone)]
pub(super) struct LogPublisher {
    pub(super) blobs: Blobs,
    pub(super) logs: Logs,
    pub(super) outside: Client,
    pub(super) servers: Arc<[Url]>,
    pub(super) keys: Keys,
    pub(super) config: Arc<Config>,
    pub(super) public_url: String,
    pub(super) clock: fn() -> Millis,
}

impl LogPublisher {
    /// Stores the log of a run whose jobs ended.
    pub(super) async fn seal(&self, state: &RunState) -> anyhow::Result<FinalizedLog> {
        let page = format!("{}/runs/{}", self.public_url, state.id);
        let public = state.visibility == Visibility::Public;
        let whole = self.logs.full_text(&state.id, None).map_err(std::io::Error::other);
        let whole = self.blobs.put(whole, self.deposit(state.id.as_str(), public, state.expires_at)).await;
        let full_url = match public {
            true => self.url(&whole.context("the complete log can't be stored")?.blob().sha256),
            // Nobody may fetch it by its hash; the page asks who is there.
            false => page.clone(),
        };
        let text = match public {
            true => self.logs.act_text(state, &full_url).await?,
            false => format!("This run is not public. Its page: {page}"),
        };
        let servers = if public { &*self.servers } else { &[] };
        let (sha256, url) = self.put(state.id.as_str(), text, state.expires_at, servers).await?;
        Ok(FinalizedLog { url, sha256: Some(sha256), full_url })
    }

    /// Stores a short text for somebody whose job never became a run.
    pub(super) async fn note(&self, owner: &str, text: &str) -> anyhow::Result<FinalizedLog> {
        let expires_at = (self.clock)().saturating_add(self.config.keep_days.saturating_mul(DAY_MS));
        let (sha256, url) = self.put(owner, text.to_owned(), expires_at, &[]).await?;
        Ok(FinalizedLog { url: url.clone(), sha256: Some(sha256), full_url: url })
    }

    async fn put(
        &self,
        owner: &str,
        text: String,
        expires_at: Millis,
        servers: &[Url],
    ) -> anyhow::Result<(BlobHash, String)> {
        let bytes = Bytes::from(text);
        let stored = self.blobs.put_bytes(bytes.clone(), self.deposit(owner, true, expires_at)).await;
        let sha256 = stored.context("the log can't be stored")?.blob().sha256.clone();
        let mut url = self.url(&sha256);
        if !servers.is_empty() {
            let now = (self.clock)() / 1000;
            match self.outside.upload_any(servers, &bytes, TEXT, std::slice::from_ref(&self.keys), now).await {
                // Strict clients read https alone.
                Ok(outside) if !url.starts_with("https://") => url = outside.to_string(),
                Ok(_) => {}
                Err(error) => tracing::warn!("the log stays on our own endpoint: {error:#}"),
            }
        }
        Ok((sha256, url))
    }

    fn url(&self, sha256: &BlobHash) -> String {
        format!("{}/{sha256}", self.public_url)
    }

    fn deposit(&self, owner: &str, public: bool, expires_at: Millis) -> Deposit {
        Deposit {
            kind: TEXT.into(),
            owner: owner.to_owned(),
            public,
            now: (self.clock)(),
            expires_at,
            allowed: None,
            limit: u64::MAX,
        }
    }
}
