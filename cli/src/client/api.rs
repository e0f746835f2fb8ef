//! The coordinator's HTTP API, as the client's verbs use it.

use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag};
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::submit;

/// Where a coordinator is that nobody named.
const LOCAL: &str = "http://127.0.0.1:7080";

/// Where the coordinator is, and who asks
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Server {
    /// The coordinator's address
    #[arg(long, value_name = "URL", env = "LONGSHORE_SERVER", default_value = LOCAL)]
    server: String,
    /// File with your secret key (nsec1… or hex) to sign with, requests (NIP-98) too; else LONGSHORE_NSEC is used
    #[arg(long, visible_alias = "key", value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// A question to the coordinator, and how its answer is printed
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Question {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: Server,
}

/// A connection to the API.
#[derive(Debug)]
pub(crate) struct Api {
    base: String,
    keys: Option<Keys>,
    http: reqwest::Client,
}

impl Server {
    /// The key that requests are signed with, where there is one.
    pub(crate) fn keys(&self) -> Result<Option<Keys>> {
        if self.key_file.is_none() && std::env::var_os("LONGSHORE_NSEC").is_none() {
            return Ok(None);
        }
        submit::keys(self.key_file.as_ref()).map(Some)
    }

    pub(crate) fn connect(&self) -> Result<Api> {
        let named = ["http://", "https://"].iter().any(|scheme| self.server.starts_with(scheme));
        ensure!(named, "--server {:?}: write it as http://HOST:PORT or https://HOST", self.server);
        let http = reqwest::Client::builder().build().context("no HTTP client")?;
        Ok(Api { base: self.server.trim_end_matches('/').to_owned(), keys: self.keys()?, http })
    }
}

impl Api {
    /// Reads one JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.send(Method::GET, path, &[]).await?;
        response.json().await.with_context(|| format!("{}{path}: the answer is not what this version reads", self.base))
    }

    /// Reads a text.
    pub(crate) async fn get_text(&self, path: &str) -> Result<String> {
        self.send(Method::GET, path, &[]).await?.text().await.context("the answer broke off")
    }

    /// The coordinator's address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// A run's page.
    pub(crate) fn page(&self, run: &str) -> String {
        format!("{}/runs/{run}", self.base)
    }

    /// What another command needs, after a space, to ask the same coordinator: nothing where it would anyway.
    pub(crate) fn flag(&self) -> String {
        let named = std::env::var("LONGSHORE_SERVER").unwrap_or_else(|_| LOCAL.to_owned());
        if named.trim_end_matches('/') == self.base { String::new() } else { format!(" --server {}", self.base) }
    }

    /// Asks for something to be done.
    pub(crate) async fn post(&self, path: &str) -> Result<Response> {
        self.send(Method::POST, path, &[]).await
    }

    /// Asks for something to be done, with what there is to say about it.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Result<Response> {
        let url = format!("{}{path}", self.base);
        let body = body.to_string();
        let mut request = self.http.post(&url).header("content-type", "application/json");
        if let Some(keys) = &self.keys {
            request = request.header("authorization", authorization(keys, &url, "POST", Some(&body))?);
        }
        self.checked(request.body(body).send().await.with_context(|| self.nobody())?).await
    }

    /// Sends a request; an answer that is no success is an error with cause and remedy.
    pub(crate) async fn send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
        self.checked(self.try_send(method, path, headers).await?).await
    }

    /// An answer that is a success; any other is an error with cause and remedy.
    pub(crate) async fn checked(&self, response: Response) -> Result<Response> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let reason = response.text().await.unwrap_or_default();
        let remedy = match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if self.keys.is_none() => {
                "; put your nsec into LONGSHORE_NSEC, or name its file with --key-file"
            }
            _ => "",
        };
        bail!("{} says {}: {}{remedy}", self.base, status.as_u16(), told(&reason))
    }

    /// The same, whatever the status.
    pub(crate) async fn try_send(&self, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Response> {
        let url = format!("{}{path}", self.base);
        let mut request = self.http.request(method.clone(), &url);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(keys) = &self.keys {
            request = request.header("authorization", authorization(keys, &url, method.as_str(), None)?);
        }
        request.send().await.with_context(|| self.nobody())
    }

    fn nobody(&self) -> String {
        format!("no coordinator answers at {}: start one, or name another with --server", self.base)
    }
}

/// The reason that an answer of the API gives; any other answer as it came.
fn told(answer: &str) -> String {
    let problem: Option<Value> = serde_json::from_str(answer).ok();
    let error = problem.and_then(|problem| problem["error"].as_str().map(str::to_owned));
    error.unwrap_or_else(|| answer.trim().to_owned())
}

/// The header of NIP-98; a body is signed for with its hash.
fn authorization(keys: &Keys, url: &str, method: &str, body: Option<&str>) -> Result<String> {
    let mut tags = vec![["u", url], ["method", method]];
    let payload = body.map(|body| hex::encode(Sha256::digest(body.as_bytes())));
    tags.extend(payload.as_deref().map(|hash| ["payload", hash]));
    let tags = tags.into_iter().map(Tag::parse).collect::<Result<Vec<_>, _>>();
    let event = EventBuilder::new(Kind::from(27235), "").tags(tags.context("a tag is empty")?).sign_with_keys(keys);
    Ok(format!("Nostr {}", base64(event.context("cannot sign")?.as_json().as_bytes())))
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_reason_alone() {
        for (answer, reason) in [
            (r#"{"error":"no such run"}"#, "no such run"),
            (r#"{"other":1}"#, r#"{"other":1}"#),
            ("bad gateway\n", "bad gateway"),
        ] {
            assert_eq!(told(answer), reason);
        }
    }
}
