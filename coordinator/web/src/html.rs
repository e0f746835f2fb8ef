//! Shared parts of the pages: rendering, errors, display names.

use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use super::{Refusal, Web};

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

/// Writes the page of an error, in the frame of all pages.
pub(super) async fn framed(State(web): State<Web>, mut response: Response) -> Response {
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
