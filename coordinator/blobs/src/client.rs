//! Uploads to other Blossom servers (BUD-02, BUD-06, BUD-11).

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use bytes::Bytes;
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag, Timestamp};
use parking_lot::Mutex;
use reqwest::{StatusCode, header};
use serde::Deserialize;
use sha2::{Digest, Sha256};
use url::Url;

/// Time limit of one try at one server: a hanging server must not delay a result.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer that is read, in bytes.
const ANSWER: usize = 64 * 1024;
/// Seconds for which an upload token is valid.
const TOKEN: u64 = 300;

/// A client of Blossom servers. Clones share what is known of the servers.
#[derive(Debug, Clone)]
pub struct Client {
    http: reqwest::Client,
    /// The encoding that each server accepted last, by origin.
    encodings: Arc<Mutex<HashMap<String, Encoding>>>,
}

/// Encoding of the token. BUD-11 asks for the first; older servers know the second alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Encoding {
    UrlSafe,
    Standard,
}

impl Encoding {
    fn other(self) -> Self {
        match self {
            Self::UrlSafe => Self::Standard,
            Self::Standard => Self::UrlSafe,
        }
    }
}

#[derive(Deserialize)]
struct Descriptor {
    url: String,
    sha256: String,
}

impl Client {
    /// A client that follows no redirects: a token is for one server.
    pub fn new() -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("can't set up the HTTP client")?;
        Ok(Self { http, encodings: Arc::default() })
    }

    /// Uploads bytes to the first server that accepts them; returns the errors of the servers before it as well.
    pub async fn upload_any(
        &self,
        servers: &[Url],
        bytes: &Bytes,
        kind: &str,
        signers: &[Keys],
        now: u64,
    ) -> anyhow::Result<Url> {
        let mut errors = Vec::new();
        for server in servers {
            for signer in signers {
                match self.upload(server, bytes, kind, signer, now).await {
                    Ok(url) => return Ok(url),
                    Err(error) => errors.push(format!("{error:#}")),
                }
            }
        }
        anyhow::bail!("no Blossom server took the blob: {}", errors.join("; "))
    }

    /// Uploads bytes to one server, with the other encoding after a 401; the URL ends in their hash. `now` in seconds.
    pub async fn upload(
        &self,
        server: &Url,
        bytes: &Bytes,
        kind: &str,
        signer: &Keys,
        now: u64,
    ) -> anyhow::Result<Url> {
        let sha256 = hex::encode(Sha256::digest(bytes));
        let host = server.host_str().unwrap_or_default().to_owned();
        let token = token(&sha256, &host, signer, now).with_context(|| format!("{server}: can't sign the token"))?;
        let origin = server.origin().ascii_serialization();
        let mut encoding = self.lock().get(&origin).copied().unwrap_or(Encoding::UrlSafe);
        let mut response = self.put(server, bytes, kind, &sha256, &token, encoding).await?;
        // Also where one was accepted before: a token without padding is the same in both.
        if response.status() == StatusCode::UNAUTHORIZED {
            encoding = encoding.other();
            response = self.put(server, bytes, kind, &sha256, &token, encoding).await?;
        }
        let status = response.status();
        if !status.is_success() {
            let reason =
                response.headers().get("x-reason").and_then(|value| value.to_str().ok()).unwrap_or("no reason");
            anyhow::bail!("{server} refused the blob: {status}, {reason:.300}");
        }
        self.lock().insert(origin, encoding);
        let answer = limited(response).await.with_context(|| format!("{server}: can't read the answer"))?;
        let descriptor: Descriptor =
            serde_json::from_slice(&answer).with_context(|| format!("{server} answered with no blob descriptor"))?;
        anyhow::ensure!(
            descriptor.sha256.eq_ignore_ascii_case(&sha256),
            "{server} stored other bytes: it names the hash {}",
            descriptor.sha256.chars().take(64).collect::<String>()
        );
        bare_url(&descriptor.url, &sha256).with_context(|| format!("{server} gave the URL {:.200}", descriptor.url))
    }

    async fn put(
        &self,
        server: &Url,
        bytes: &Bytes,
        kind: &str,
        sha256: &str,
        token: &str,
        encoding: Encoding,
    ) -> anyhow::Result<reqwest::Response> {
        let token = match encoding {
            Encoding::UrlSafe => URL_SAFE_NO_PAD.encode(token),
            Encoding::Standard => STANDARD.encode(token),
        };
        let url = server.join("/upload").with_context(|| format!("{server} is no Blossom server's address"))?;
        let request = self.http.put(url).header(header::CONTENT_TYPE, kind).header("x-sha-256", sha256);
        let request = request.header(header::AUTHORIZATION, format!("Nostr {token}")).body(bytes.clone());
        request.send().await.with_context(|| format!("{server} can't be reached"))
    }

    fn lock(&self) -> parking_lot::MutexGuard<'_, HashMap<String, Encoding>> {
        self.encodings.lock()
    }
}

/// Kind 24242 for one blob and one server.
fn token(sha256: &str, host: &str, signer: &Keys, now: u64) -> anyhow::Result<String> {
    let tags = [
        vec!["t".to_owned(), "upload".to_owned()],
        vec!["x".to_owned(), sha256.to_owned()],
        vec!["expiration".to_owned(), (now + TOKEN).to_string()],
        vec!["server".to_owned(), host.to_lowercase()],
    ];
    let tags = tags.into_iter().map(Tag::parse).collect::<Result<Vec<_>, _>>()?;
    let event = EventBuilder::new(Kind::Custom(24242), "Upload CI log")
        .tags(tags)
        .custom_created_at(Timestamp::from(now))
        .sign_with_keys(signer)?;
    Ok(event.as_json())
}

async fn limited(mut response: reqwest::Response) -> anyhow::Result<Vec<u8>> {
    let mut answer = Vec::new();
    while let Some(part) = response.chunk().await? {
        answer.extend_from_slice(&part);
        anyhow::ensure!(answer.len() <= ANSWER, "the answer is longer than {ANSWER} bytes");
    }
    Ok(answer)
}

/// Readers of `log_url` want its last segment to be the hash alone, while BUD-02 adds an extension.
fn bare_url(text: &str, sha256: &str) -> anyhow::Result<Url> {
    let mut url = Url::parse(text)?;
    anyhow::ensure!(matches!(url.scheme(), "http" | "https"), "it is not http");
    let last = url.path_segments().and_then(|mut segments| segments.next_back()).unwrap_or_default().to_owned();
    let name = last.split('.').next().unwrap_or_default();
    anyhow::ensure!(name.eq_ignore_ascii_case(sha256), "it does not end in the blob's hash");
    if let Ok(mut segments) = url.path_segments_mut() {
        segments.pop().push(sha256);
    }
    url.set_query(None);
    url.set_fragment(None);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_url_ends_in_the_hash_alone() {
        let hash = "ab".repeat(32);
        let cases = [
            (format!("https://b.example/{hash}.txt?x=1"), Some(format!("https://b.example/{hash}"))),
            (format!("https://b.example/files/{hash}"), Some(format!("https://b.example/files/{hash}"))),
            (format!("file:///{hash}"), None),
            ("https://b.example/other".to_owned(), None),
            ("nonsense".to_owned(), None),
        ];
        for (given, expected) in cases {
            assert_eq!(bare_url(&given, &hash).ok().map(String::from), expected, "{given}");
        }
    }
}
