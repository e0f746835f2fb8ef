//! Signed links into private runs, valid for an hour: a browser that follows a link sends no token.
//!
//! The signature covers the path, the query and the reader. Anybody who has such a link can follow it, to the one thing
//! that it names.

use axum::http::{Method, request::Parts};
use ring::hmac;

use super::Web;
use domain::id::JobKey;
use domain::run::{RunState, Visibility};

/// Seconds for which a link is valid.
const HOLDS: u64 = 3600;

/// The link for a reader (64 hex); the path itself if everybody may follow it.
pub(super) fn link(web: &Web, reader: Option<&str>, visibility: &Visibility, path: &str) -> String {
    let (Visibility::Readers(_), Some(reader)) = (visibility, reader) else { return path.to_owned() };
    let until = (web.settings.now)() / 1000 + HOLDS;
    let joint = if path.contains('?') { '&' } else { '?' };
    let signed = format!("{path}{joint}until={until}&reader={reader}");
    let signature = hmac::sign(&key(web), signed.as_bytes());
    format!("{signed}&sig={}", hex::encode(signature))
}

/// URL of the log of one attempt of a job as text.
pub(super) fn job_log(web: &Web, reader: Option<&str>, run: &RunState, job: &JobKey, attempt: u32) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.append_pair("format", "text").append_pair("job", job.as_str()).append_pair("attempt", &attempt.to_string());
    link(web, reader, &run.visibility, &format!("/api/runs/{}/logs?{}", run.id, query.finish()))
}

/// URL of the full log of a run as text.
pub(super) fn full_log(web: &Web, reader: Option<&str>, run: &RunState) -> String {
    link(web, reader, &run.visibility, &format!("/api/runs/{}/logs?format=text", run.id))
}

/// The reader that a link was made for; `None`: it is not signed. `Err`: it is no longer valid.
pub(super) fn reader(web: &Web, parts: &Parts) -> Result<Option<String>, ()> {
    let whole = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let Some((signed, signature)) = whole.rsplit_once("&sig=").filter(|_| parts.method == Method::GET) else {
        return Ok(None);
    };
    let signature = hex::decode(signature).map_err(drop)?;
    hmac::verify(&key(web), signed.as_bytes(), &signature).map_err(drop)?;
    let query = signed.split_once('?').map_or("", |(_, query)| query);
    let field = |name: &str| url::form_urlencoded::parse(query.as_bytes()).filter(|(key, _)| key == name).last();
    let until = field("until").and_then(|(_, until)| until.parse::<u64>().ok()).unwrap_or_default();
    match field("reader") {
        Some((_, reader)) if until > (web.settings.now)() / 1000 => Ok(Some(reader.into_owned())),
        _ => Err(()),
    }
}

fn key(web: &Web) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &web.settings.link_key)
}
