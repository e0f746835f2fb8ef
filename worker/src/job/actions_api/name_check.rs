//! Looks at the names and keys that a job's programs give to the services, before they leave the worker, and answers what
//! the worker itself takes: check runs.
//!
//! Everybody who may see a run sees the names of its caches and artifacts, and they cannot be masked. The built-in actions
//! refuse those that hold a secret; programs that talk to the services themselves get such a refusal as an answer.

use std::{convert::Infallible, io, sync::Arc};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited, combinators::BoxBody};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, client::conn::http1::SendRequest, header,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Map, Value, json};
use tokio::{io::DuplexStream, sync::Mutex};
use tokio_util::task::AbortOnDropHandle;
use url::form_urlencoded;

use super::{CheckRuns, Tunnel};
use crate::log::mask::Masker;

/// Bytes on their way between a program and the services.
const PIECE: usize = 64 << 10;
/// Longest request that names something, in bytes.
const REQUEST: usize = 1 << 20;
/// What names a cache or an artifact: in bodies of requests, and in their URLs.
const BODY_FIELDS: &[&str] = &["key", "restore_keys", "restoreKeys", "name", "Name"];
const URL_FIELDS: &[&str] = &["keys", "artifactName", "itemPath"];

type Body = BoxBody<Bytes, io::Error>;

/// Serves one connection of a program (HTTP/1.1) to its end.
pub(super) async fn serve(
    connection: DuplexStream,
    tunnel: Arc<dyn Tunnel>,
    masker: Arc<Masker>,
    checks: Arc<CheckRuns>,
) {
    let (near, far) = tokio::io::duplex(PIECE);
    let _serving = AbortOnDropHandle::new(tokio::spawn(tunnel.serve(far)));
    let Ok((sender, driver)) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await else { return };
    // Whoever waits for an answer hears what went wrong.
    let mut driving = AbortOnDropHandle::new(tokio::spawn(async move { drop(driver.await) }));
    let services = Arc::new(Mutex::new(sender));
    let answering =
        service_fn(move |request| answer(request, Arc::clone(&services), Arc::clone(&masker), Arc::clone(&checks)));
    let mut server = hyper::server::conn::http1::Builder::new();
    let serving = server.half_close(true).serve_connection(TokioIo::new(connection), answering);
    tokio::pin!(serving);
    tokio::select! {
        _ = &mut serving => return,
        _ = &mut driving => serving.as_mut().graceful_shutdown(),
    }
    // The last answer still goes to its end; a connection that breaks has none.
    drop(serving.await);
}

async fn answer(
    request: Request<Incoming>,
    services: Arc<Mutex<SendRequest<Body>>>,
    masker: Arc<Masker>,
    checks: Arc<CheckRuns>,
) -> Result<Response<Body>, Infallible> {
    Ok(match checked(request, &masker, &checks).await {
        Ok(CheckedRequest::Answer(status, value)) => json_answer(status, &value),
        Ok(CheckedRequest::Request(request)) => {
            let mut services = services.lock().await;
            let sent = async {
                services.ready().await?;
                services.send_request(request).await
            };
            match sent.await {
                Ok(response) => response.map(|body| body.map_err(io::Error::other).boxed()),
                Err(error) => refusal(StatusCode::BAD_GATEWAY, "unavailable", &error.to_string()),
            }
        }
        Err((status, why)) => refusal(status, "invalid_argument", &why),
    })
}

/// A request that was looked at.
enum CheckedRequest {
    /// To be sent on.
    Request(Request<Body>),
    /// The worker's own answer.
    Answer(StatusCode, Value),
}

/// A request whose names hold no secret, to be sent on, or what is answered here.
///
/// What is looked at is what the services read: fields of URLs are decoded, and every body that is not a file's has to be
/// a JSON object, whatever its type says. A body that only the services could read would pass unseen.
async fn checked(
    request: Request<Incoming>,
    masker: &Masker,
    checks: &CheckRuns,
) -> Result<CheckedRequest, (StatusCode, String)> {
    let refused = |field: &str| {
        let why = format!("`{field}` holds a secret, and everybody who may see the run sees it: use its hash");
        (StatusCode::BAD_REQUEST, why)
    };
    let mut pairs = form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes());
    if let Some((name, _)) = pairs.find(|(name, value)| URL_FIELDS.contains(&&**name) && masker.finds(value)) {
        return Err(refused(&name));
    }
    if is_file(request.method(), request.uri().path()) {
        return Ok(CheckedRequest::Request(request.map(|body| body.map_err(io::Error::other).boxed())));
    }
    let (head, body) = request.into_parts();
    let body = Limited::new(body, REQUEST).collect().await.map_err(|error| {
        (StatusCode::PAYLOAD_TOO_LARGE, format!("a request may have {} MiB: {error}", REQUEST >> 20))
    })?;
    let bytes = body.to_bytes();
    if let Some((status, value)) = checks.answer(&head.method, head.uri.path(), &bytes) {
        return Ok(CheckedRequest::Answer(status, value));
    }
    if !bytes.is_empty() {
        let said: Map<String, Value> = serde_json::from_slice(&bytes).map_err(|error| {
            (StatusCode::BAD_REQUEST, format!("a request to this service is a JSON object: {error}"))
        })?;
        let holds = |value: &Value| match value {
            Value::String(text) => masker.finds(text),
            Value::Array(list) => list.iter().filter_map(Value::as_str).any(|text| masker.finds(text)),
            _ => false,
        };
        if let Some(field) = BODY_FIELDS.iter().find(|field| said.get(**field).is_some_and(holds)) {
            return Err(refused(field));
        }
    }
    Ok(CheckedRequest::Request(Request::from_parts(head, Full::new(bytes).map_err(|never| match never {}).boxed())))
}

/// Whether the body is (a part of) a file, or what git wants and has, by the route that takes it.
fn is_file(method: &Method, path: &str) -> bool {
    let is_git = *method == Method::POST && path.split('/').count() == 4 && path.ends_with("/git-upload-pack");
    is_git
        || path.starts_with("/storage/")
        || (*method == Method::PATCH && path.starts_with("/_apis/artifactcache/caches/"))
}

fn refusal(status: StatusCode, code: &str, why: &str) -> Response<Body> {
    json_answer(status, &json!({ "code": code, "msg": why, "message": why }))
}

fn json_answer(status: StatusCode, value: &Value) -> Response<Body> {
    let text = value.to_string();
    let mut response = Response::new(Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use futures::{FutureExt as _, future::BoxFuture};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Services that answer with what they were sent.
    struct Echo;

    impl Tunnel for Echo {
        fn serve(&self, connection: DuplexStream) -> BoxFuture<'static, ()> {
            let echo = service_fn(|request: Request<Incoming>| async move {
                let path = request.uri().to_string();
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let said = [path.as_bytes(), b" ", &body].concat();
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(said))))
            });
            async move {
                let server = hyper::server::conn::http1::Builder::new();
                drop(server.serve_connection(TokioIo::new(connection), echo).await);
            }
            .boxed()
        }
    }

    async fn answers(requests: &[String]) -> String {
        let masker = Arc::new(Masker::default());
        masker.add("s3cret/value");
        let (mut program, far) = tokio::io::duplex(PIECE);
        let serving = tokio::spawn(serve(far, Arc::new(Echo), masker, Arc::new(CheckRuns::new("o/r"))));
        program.write_all(requests.concat().as_bytes()).await.unwrap();
        program.shutdown().await.unwrap();
        let mut answers = String::new();
        program.read_to_string(&mut answers).await.unwrap();
        serving.await.unwrap();
        answers
    }

    fn request(line: &str, kind: &str, body: &str) -> String {
        format!("{line} HTTP/1.1\r\nhost: x\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }

    #[tokio::test]
    async fn attack_28_names_and_keys_that_hold_a_secret_stay_in_the_worker() {
        let json = "application/json";
        let asked = [
            request("POST /twirp/CreateCacheEntry", json, r#"{"key": "k-s3cret/value", "version": "v"}"#),
            request("POST /twirp/Get", json, r#"{"key": "k", "restore_keys": ["a", "s3cret/value-"]}"#),
            request("POST /twirp/CreateArtifact", json, r#"{"name": "s3cret\/value"}"#),
            request("GET /_apis/artifactcache/cache?keys=a,s3cret%2Fvalue&version=1", json, ""),
        ];
        for request in asked {
            let answer = answers(&[request]).await;
            assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("holds a secret"), "{answer}");
            assert!(!answer.contains("s3cret"), "{answer}");
        }
    }

    #[tokio::test]
    async fn attack_28_a_name_is_looked_at_however_its_request_is_written() {
        let deep = format!(r#"{{"name": "s3cret/value", "x": {}{}}}"#, "[".repeat(500), "]".repeat(500));
        let asked = [
            request("POST /twirp/CreateArtifact", "APPLICATION/JSON", r#"{"name": "s3cret/value"}"#),
            request("POST /twirp/CreateArtifact", "text/plain", r#"{"name": "s3cret/value"}"#),
            request("POST /twirp/CreateArtifact", "application/json", r#"{"name": "\u00733cret/value"}"#),
            request("POST /twirp/CreateArtifact", "application/json", r#"["run", "s3cret/value"]"#),
            request("POST /twirp/CreateArtifact", "application/json", &deep),
            request("POST /twirp/CreateArtifact", "application/json", r#"{"name": "s3cret/value", "x": 1e999}"#),
            request("GET /_apis/artifactcache/cache?keys=a,%733cret/value&version=1", "", ""),
            request("GET /_apis/artifactcache/cache?ke%79s=s3cret/value&version=1", "", ""),
        ];
        for request in asked {
            let answer = answers(std::slice::from_ref(&request)).await;
            assert!(answer.starts_with("HTTP/1.1 400"), "{request}: {answer}");
            assert!(!answer.contains("3cret"), "{answer}");
        }
    }

    #[tokio::test]
    async fn what_names_nothing_secret_is_carried_in_order_on_one_connection() {
        let json = "application/json; charset=utf-8";
        let answer = answers(&[
            request("POST /twirp/CreateCacheEntry", json, r#"{"key": "linux-1", "version": "v"}"#),
            request("PUT /storage/1?sig=2", "application/octet-stream", "the file may hold s3cret/value"),
            request("GET /download/1", "text/plain", ""),
        ])
        .await;
        let said: Vec<_> = answer.split("HTTP/1.1 ").skip(1).collect();
        assert_eq!(said.len(), 3, "{answer}");
        assert!(said.iter().all(|answer| answer.starts_with("200")), "{answer}");
        assert!(said[0].ends_with(r#"/twirp/CreateCacheEntry {"key": "linux-1", "version": "v"}"#), "{answer}");
        assert!(said[1].contains("/storage/1?sig=2 the file may hold s3cret/value"), "{answer}");
    }
}
