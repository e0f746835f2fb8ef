//! Puts logs where authors can read them: the built-in Blossom endpoint, and configured servers.

use std::sync::Arc;

use anyhow::Context;
use bytes::Bytes;
use futures::TryStreamExt;
use nostr::Keys;
use url::Url;

use blobs::{Blobs, Deposit, client::Client};
use config::Config;
use domain::id::{BlobHash, JobKey, RunId};
use domain::run::{FinalizedLog, Millis, RunState, Visibility};
use logs::Logs;
use nostr_client::protocol::nip_c1::RESULT_TAIL;
use parking_lot::Mutex;

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

    /// Stores the log of one attempt of a public run. Returns its URL, its end, and how many bytes stand before that; nothing
    /// of a log without a line.
    pub(super) async fn job_log(
        &self,
        state: &RunState,
        run: &RunId,
        job: &JobKey,
        attempt: u32,
    ) -> anyhow::Result<(String, (String, u64))> {
        let end = Mutex::new(LogEnd::default());
        let text = self.logs.attempt_text(run, job, attempt).map_err(std::io::Error::other);
        let text = text.inspect_ok(|bytes| end.lock().push(bytes));
        let stored = self.blobs.put(text, self.deposit(state.id.as_str(), true, state.expires_at)).await;
        let stored = stored.context("the log of a job can't be stored")?;
        let end = end.into_inner().text();
        let url = if end == LogEnd::default().text() { String::new() } else { self.url(&stored.blob().sha256) };
        Ok((url, end))
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

/// The last bytes of a text that is read in pieces.
#[derive(Default)]
struct LogEnd {
    kept: Vec<u8>,
    /// Bytes before those.
    before: u64,
}

impl LogEnd {
    fn push(&mut self, bytes: &[u8]) {
        self.kept.extend_from_slice(bytes);
        if self.kept.len() > 4 * RESULT_TAIL {
            self.shorten();
        }
    }

    fn shorten(&mut self) {
        let over = self.kept.len().saturating_sub(RESULT_TAIL);
        self.kept.drain(..over);
        self.before += over as u64;
    }

    /// Whole characters, and how many bytes stand before them.
    fn text(mut self) -> (String, u64) {
        self.shorten();
        // A character that was cut has its rest here: at most three bytes that begin none.
        let rest = self.kept.iter().take(3).take_while(|byte| (0x80..0xc0).contains(*byte)).count();
        self.kept.drain(..rest);
        (String::from_utf8_lossy(&self.kept).into_owned(), self.before + rest as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_log_is_of_whole_characters_whatever_the_pieces() {
        let text = "é".repeat(RESULT_TAIL) + "x";
        let mut end = LogEnd::default();
        text.as_bytes().chunks(1001).for_each(|piece| end.push(piece));
        let (kept, before) = end.text();
        assert!(text.ends_with(&kept) && kept.len() < RESULT_TAIL && kept.len() > RESULT_TAIL - 4);
        assert_eq!(before, (text.len() - kept.len()) as u64);
        assert_eq!(LogEnd::default().text(), (String::new(), 0));
    }
}
