//! The coordinator's HTTP API, as the client's verbs use it.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, anyhow, bail, ensure};
use nostr::{EventBuilder, JsonUtil, Keys, Kind, Tag};
use reqwest::{Method, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::key_file;

/// Address of the coordinator unless another is given.
const LOCAL: &str = "http://127.0.0.1:7080";
/// How long the coordinator may take to answer, and may be silent within an answer. Event streams are never silent for
/// as long: the server sends a comment every 15 s.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the coordinator is, and who asks
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct ServerArgs {
    /// The coordinator's address
    #[arg(long, value_name = "URL", env = "LONGSHORE_SERVER", default_value = LOCAL)]
    server: String,
    /// File with your secret key (nsec1… or hex) to sign with, requests (NIP-98) too; else LONGSHORE_NSEC is used
    #[arg(long, visible_alias = "key", value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// A query to the coordinator, and how its answer is printed
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct QueryArgs {
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) server: ServerArgs,
}

/// A connection to the API.
#[derive(Debug)]
pub(crate) struct ApiClient {
    base: String,
    keys: Option<Keys>,
    http: reqwest::Client,
    patience: Duration,
}

impl ServerArgs {
    /// The key that requests are signed with, where there is one.
    pub(crate) fn keys(&self) -> Result<Option<Keys>> {
        if self.key_file.is_none() && !key_file::is_in_environment() {
            return Ok(None);
        }
        key_file::read(self.key_file.as_deref()).map(Some)
    }

    pub(crate) fn connect(&self) -> Result<ApiClient> {
        let named = ["http://", "https://"].iter().any(|scheme| self.server.starts_with(scheme));
        ensure!(named, "--server {:?}: write it as http://HOST:PORT or https://HOST", self.server);
        ApiClient::new(self.server.trim_end_matches('/'), self.keys()?, PATIENCE)
    }
}

impl QueryArgs {
    /// Reads a JSON document from the coordinator.
    pub(crate) async fn get(&self, path: &str) -> Result<Value> {
        self.server.connect()?.get(path).await
    }

    /// Prints an answer: as JSON where `--json` asks for it, else as `text` prints it.
    #[allow(clippy::print_stdout)]
    pub(crate) fn print(&self, answer: &Value, text: impl FnOnce(&Value)) -> ExitCode {
        if self.json {
            println!("{answer:#}");
        } else {
            text(answer);
        }
        ExitCode::SUCCESS
    }
}

impl ApiClient {
    /// A client that waits at most `patience` for an answer, and for each part of one.
    fn new(base: &str, keys: Option<Keys>, patience: Duration) -> Result<Self> {
        let http = reqwest::Client::builder().connect_timeout(patience).read_timeout(patience).build();
        Ok(Self { base: base.to_owned(), keys, http: http.context("no HTTP client")?, patience })
    }

    /// Reads one JSON document.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T> {
        let response = self.send(Method::GET, path, &[]).await?;
        response.json().await.with_context(|| format!("{}{path}: the answer is not what this version reads", self.base))
    }

    /// The coordinator's address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// A run's page.
    pub(crate) fn page(&self, run: &str) -> String {
        format!("{}/runs/{run}", self.base)
    }

    /// The flag, after a space, that makes another command use the same coordinator; empty if it would by default.
    pub(crate) fn server_flag(&self) -> String {
        let named = std::env::var("LONGSHORE_SERVER").unwrap_or_else(|_| LOCAL.to_owned());
        if named.trim_end_matches('/') == self.base { String::new() } else { format!(" --server {}", self.base) }
    }

    /// Sends a request without a body.
    pub(crate) async fn post(&self, path: &str) -> Result<Response> {
        self.send(Method::POST, path, &[]).await
    }

    /// Sends a request with a JSON body; an answer that is no success is an error with cause and remedy.
    pub(crate) async fn post_json(&self, path: &str, body: &Value) -> Result<Response> {
        self.checked(self.try_post_json(path, body).await?).await
    }

    /// The same, whatever the status.
    pub(crate) async fn try_post_json(&self, path: &str, body: &Value) -> Result<Response> {
        let url = format!("{}{path}", self.base);
        let body = body.to_string();
        let mut request = self.http.post(&url).header("content-type", "application/json");
        if let Some(keys) = &self.keys {
            request = request.header("authorization", authorization(keys, &url, "POST", Some(&body))?);
        }
        request.body(body).send().await.map_err(|error| self.no_answer(error))
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
        bail!("{} says {}: {}{remedy}", self.base, status.as_u16(), error_message(&reason))
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
        request.send().await.map_err(|error| self.no_answer(error))
    }

    /// Why there is no answer, and what to do.
    fn no_answer(&self, error: reqwest::Error) -> anyhow::Error {
        let base = &self.base;
        let cause = if error.is_timeout() && !error.is_connect() {
            let seconds = self.patience.as_secs();
            format!(
                "{base} took the request and gave no answer within {seconds} s: what was asked for may still happen; see \
                 what is wrong there with `longshore doctor{}`, then try again",
                self.server_flag()
            )
        } else {
            format!("no coordinator answers at {base}: start one, or name another with --server")
        };
        anyhow!(error).context(cause)
    }
}

/// The error message in a problem document of the API; any other body verbatim.
fn error_message(answer: &str) -> String {
    let problem: Option<Value> = serde_json::from_str(answer).ok();
    let error = problem.and_then(|problem| problem["error"].as_str().map(str::to_owned));
    error.unwrap_or_else(|| answer.trim().to_owned())
}

/// The header of NIP-98; a body is signed for with its hash. A signature is good once: the nonce tells two requests of one
/// second apart.
fn authorization(keys: &Keys, url: &str, method: &str, body: Option<&str>) -> Result<String> {
    let nonce = hex::encode(rand::random::<[u8; 8]>());
    let mut tags = vec![["u", url], ["method", method], ["nonce", &nonce]];
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
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_coordinator_that_takes_a_request_and_never_answers_is_an_error_with_a_remedy() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let base = format!("http://{}", listener.local_addr().unwrap());
        // It keeps what it accepts open, and reads nothing.
        let silent = tokio::spawn(async move {
            let mut open = Vec::new();
            while let Ok((connection, _)) = listener.accept().await {
                open.push(connection);
            }
        });
        let api = ApiClient::new(&base, None, Duration::from_millis(50)).unwrap();
        let error = api.post("/api/runs/1/cancel").await.unwrap_err().to_string();
        assert!(error.contains("gave no answer") && error.contains("longshore doctor"), "{error}");
        silent.abort();
    }

    #[test]
    fn a_refusal_is_shown_by_its_reason_alone() {
        for (answer, reason) in [
            (r#"{"error":"no such run"}"#, "no such run"),
            (r#"{"other":1}"#, r#"{"other":1}"#),
            ("bad gateway\n", "bad gateway"),
        ] {
            assert_eq!(error_message(answer), reason);
        }
    }
}
