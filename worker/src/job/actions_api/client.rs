//! The worker's own calls of the services, for the actions that it does itself.

use std::io;

use bytes::Bytes;
use futures::{Stream, StreamExt as _, TryStreamExt, stream::BoxStream};
use http_body_util::{BodyExt, BodyStream, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::{
    Method, Request, Response,
    body::{Frame, Incoming},
    header,
};
use hyper_util::rt::TokioIo;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tokio_util::task::AbortOnDropHandle;

use super::ActionsApiAccess;
use crate::sandbox::ACTIONS_API_HOST;

/// Longest answer that is no file, in bytes.
const ANSWER: usize = 8 << 20;
/// Bytes on their way between us and the services.
const PIECE: usize = 64 << 10;

type Body = BoxBody<Bytes, io::Error>;

/// Calls with an attempt's token.
pub(in crate::job) struct ActionsApiClient<'a>(pub(in crate::job) &'a ActionsApiAccess);

/// What a service answered, as long as its connection is held.
struct Answer {
    response: Response<Incoming>,
    connection: [AbortOnDropHandle<()>; 2],
}

/// A service's refusal.
pub(in crate::job) struct ActionsApiError {
    /// HTTP status.
    pub(in crate::job) status: u16,
    /// For people.
    pub(in crate::job) reason: String,
}

impl From<ActionsApiError> for String {
    fn from(refusal: ActionsApiError) -> Self {
        refusal.reason
    }
}

fn broken(error: impl std::fmt::Display) -> ActionsApiError {
    ActionsApiError { status: 0, reason: format!("the coordinator's services: {error}") }
}

impl ActionsApiClient<'_> {
    /// A method of a twirp service, `CacheService/CreateCacheEntry` for instance.
    pub(in crate::job) async fn call(&self, method: &str, body: &Value) -> Result<Value, ActionsApiError> {
        let path = format!("/twirp/github.actions.results.api.v1.{method}");
        let bytes = Bytes::from(body.to_string());
        let body = Full::new(bytes).map_err(|never| match never {}).boxed();
        let answer = self.send(Method::POST, &path, "application/json", body).await?;
        text(answer).await
    }

    /// Sends bytes to a URL that a service gave.
    pub(in crate::job) async fn put(
        &self,
        url: &str,
        bytes: impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static,
    ) -> Result<(), ActionsApiError> {
        let body = BodyExt::boxed(StreamBody::new(bytes.map_ok(Frame::data)));
        let answer = self.send(Method::PUT, path_of(url), "application/octet-stream", body).await?;
        text(answer).await.map(drop)
    }

    /// Gets the bytes of a URL that a service gave.
    pub(in crate::job) async fn get(
        &self,
        url: &str,
    ) -> Result<BoxStream<'static, io::Result<Bytes>>, ActionsApiError> {
        let empty = Full::new(Bytes::new()).map_err(|never| match never {}).boxed();
        let answer = self.send(Method::GET, path_of(url), "application/octet-stream", empty).await?;
        if !answer.response.status().is_success() {
            return text(answer).await.map(|_| futures::stream::empty().boxed());
        }
        let Answer { response, connection } = answer;
        let frames = TryStreamExt::map_err(BodyStream::new(response.into_body()), io::Error::other);
        let bytes = frames.try_filter_map(move |frame| {
            let _held = &connection;
            std::future::ready(Ok(frame.into_data().ok()))
        });
        Ok(bytes.boxed())
    }

    async fn send(&self, method: Method, path: &str, kind: &str, body: Body) -> Result<Answer, ActionsApiError> {
        let (near, far) = tokio::io::duplex(PIECE);
        let serving = AbortOnDropHandle::new(tokio::spawn(self.0.tunnel.serve(far)));
        let (mut sender, driver) = hyper::client::conn::http1::handshake(TokioIo::new(near)).await.map_err(broken)?;
        let driving = AbortOnDropHandle::new(tokio::spawn(async move {
            // Whoever waits for the answer hears what went wrong.
            let _ = driver.await;
        }));
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, ACTIONS_API_HOST)
            .header(header::CONTENT_TYPE, kind)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.0.token.expose_secret()))
            .body(body)
            .map_err(broken)?;
        let response = sender.send_request(request).await.map_err(broken)?;
        Ok(Answer { response, connection: [serving, driving] })
    }
}

async fn text(answer: Answer) -> Result<Value, ActionsApiError> {
    let Answer { response, connection: _held } = answer;
    let status = response.status();
    let body = Limited::new(response.into_body(), ANSWER).collect().await.map_err(broken)?.to_bytes();
    let value: Value = serde_json::from_slice(&body).unwrap_or_default();
    if status.is_success() {
        return Ok(value);
    }
    let said = value["msg"].as_str().map_or_else(|| status.to_string(), str::to_owned);
    Err(ActionsApiError { status: status.as_u16(), reason: said })
}

/// URLs name the services as a job's programs reach them.
fn path_of(url: &str) -> &str {
    let behind = url.split_once("://").map_or(url, |(_, rest)| rest);
    behind.find('/').and_then(|at| behind.get(at..)).unwrap_or("/")
}
