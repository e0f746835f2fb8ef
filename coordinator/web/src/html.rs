//! Shared parts of the pages: rendering, errors, display names.

use askama::Template;
use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{Html, IntoResponse, Response},
};

use super::Refusal;

#[derive(Template)]
#[template(path = "refused.html")]
struct Refused<'a> {
    reason: &'a str,
    /// Whether it may exist for other readers.
    hidden: bool,
}

/// An error as a page.
pub(super) struct HtmlError(Refusal);

impl<E: Into<Refusal>> From<E> for HtmlError {
    fn from(refusal: E) -> Self {
        Self(refusal.into())
    }
}

impl IntoResponse for HtmlError {
    fn into_response(self) -> Response {
        let hidden = self.0.status == StatusCode::NOT_FOUND;
        let page = Refused { reason: &self.0.reason, hidden }.render();
        (self.0.status, Html(page.unwrap_or_else(|_| "This page is not there.".to_owned()))).into_response()
    }
}

/// The page for a URL without content.
pub(super) async fn nothing(headers: HeaderMap) -> Response {
    refused(&headers, Refusal::new(StatusCode::NOT_FOUND, "there is nothing at this address"))
}

/// A refusal in the form the client expects: a page for browsers, the header of Blossom for others.
pub(super) fn refused(headers: &HeaderMap, refusal: Refusal) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accepts| accepts.to_str().ok());
    if accepts.is_some_and(|kinds| kinds.contains("text/html")) {
        let page = Refused { reason: "There is no such page.", hidden: false }.render();
        (refusal.status, Html(page.unwrap_or_else(|_| "There is no such page.".to_owned()))).into_response()
    } else {
        refusal.into_response()
    }
}

/// A rendered page.
pub(super) fn rendered(page: &impl Template) -> Result<Html<String>, HtmlError> {
    Ok(Html(page.render().map_err(Refusal::from)?))
}

/// A repository's address for people: its name, and the beginning of its owner's key.
pub(super) fn repository_name(address: &str) -> String {
    match address.splitn(3, ':').collect::<Vec<_>>()[..] {
        [_, owner, name] => format!("{name} of {}", owner.chars().take(8).collect::<String>()),
        _ => address.to_owned(),
    }
}
