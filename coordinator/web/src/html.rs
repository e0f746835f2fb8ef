//! Shared parts of the pages: rendering, errors, display names.

use askama::Template;
use axum::{
    body::HttpBody,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    middleware::Next,
    response::{Html, IntoResponse, Response},
};
use flate2::Compression;

use super::{Refusal, Web, assets};

/// Type of every page.
const HTML: &str = "text/html; charset=utf-8";
/// Most bytes of a page that is compressed: a larger one would keep others waiting.
const PACKED: u64 = 512 << 10;

#[derive(Template)]
#[template(path = "refused.html")]
struct Refused<'a> {
    pool: &'a str,
    heading: &'a str,
    reason: &'a str,
    /// Whether it may exist for other readers.
    hidden: bool,
}

/// An error as a page.
pub(super) struct HtmlError(Refusal);

/// Stands in a response whose page is not written yet: it wants the name of the pool.
#[derive(Debug, Clone)]
struct Unframed {
    reason: String,
    hidden: bool,
}

impl<E: Into<Refusal>> From<E> for HtmlError {
    fn from(refusal: E) -> Self {
        Self(refusal.into())
    }
}

impl IntoResponse for HtmlError {
    fn into_response(self) -> Response {
        unframed(self.0.status, self.0.reason, self.0.status == StatusCode::NOT_FOUND)
    }
}

fn unframed(status: StatusCode, reason: String, hidden: bool) -> Response {
    let mut response = status.into_response();
    response.extensions_mut().insert(Unframed { reason, hidden });
    response
}

/// Writes pages of errors in the frame of all pages, and sends pages compressed to who takes them so.
pub(super) async fn finished(State(web): State<Web>, request: Request, next: Next) -> Response {
    let takes_gzip = assets::takes_gzip(request.headers());
    let response = framed(&web, next.run(request).await);
    let is_page = response.headers().get(header::CONTENT_TYPE).is_some_and(|kind| kind == HTML);
    match response.body().size_hint().exact() {
        Some(size) if takes_gzip && is_page && size <= PACKED => compressed(response).await,
        _ => response,
    }
}

async fn compressed(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    let Ok(text) = axum::body::to_bytes(body, usize::MAX).await else {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    };
    parts.headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    let packed = assets::packed(&text, Compression::fast());
    if packed.is_empty() {
        return (parts, text).into_response();
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    parts.headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    (parts, packed).into_response()
}

fn framed(web: &Web, mut response: Response) -> Response {
    let Some(Unframed { reason, hidden }) = response.extensions_mut().remove::<Unframed>() else { return response };
    let status = response.status();
    let (heading, reason) = match (status, hidden) {
        (StatusCode::NOT_FOUND, true) => ("Page not found", "It does not exist, or it is private."),
        (StatusCode::NOT_FOUND, false) => ("Page not found", "There is nothing at this address."),
        _ => ("This did not work", reason.as_str()),
    };
    let page = Refused { pool: &web.settings.name, heading, reason, hidden }.render();
    (status, Html(page.unwrap_or_else(|_| reason.to_owned()))).into_response()
}

/// The page for a URL without content.
pub(super) async fn nothing(headers: HeaderMap) -> Response {
    refused(&headers, Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
}

/// A refusal in the form the client expects: a page for browsers, the header of Blossom for others.
pub(super) fn refused(headers: &HeaderMap, refusal: Refusal) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accepts| accepts.to_str().ok());
    match accepts.is_some_and(|kinds| kinds.contains("text/html")) {
        true => unframed(refusal.status, refusal.reason, false),
        false => refusal.into_response(),
    }
}

/// A rendered page.
pub(super) fn rendered(page: &impl Template) -> Result<Html<String>, HtmlError> {
    Ok(Html(page.render().map_err(Refusal::from)?))
}

/// A repository's address for people: its name.
pub(super) fn repository_name(address: &str) -> String {
    address.splitn(3, ':').nth(2).unwrap_or(address).to_owned()
}
