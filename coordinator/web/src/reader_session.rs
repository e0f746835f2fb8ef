//! Sessions of readers: who signed once (NIP-98) reads what the key may read, for an hour, without a signature for each
//! request. A session reads and does nothing else.

use axum::http::{Method, header, request::Parts};
use ring::hmac;
use serde::Serialize;
use utoipa::ToSchema;

use super::Web;

/// Seconds for which a session lasts.
const LASTS: u64 = 3600;

/// A session.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReaderSession {
    /// To be sent as `Authorization: Bearer …` with requests that read.
    token: String,
    /// When it ends, Unix seconds.
    until: u64,
}

/// A session for a key (64 hex), from now on.
pub(super) fn begin(web: &Web, key: &str) -> ReaderSession {
    let until = (web.settings.now)() / 1000 + LASTS;
    ReaderSession { token: token(web, key, until), until }
}

fn token(web: &Web, key: &str, until: u64) -> String {
    let text = format!("{key}.{until}");
    format!("{text}.{}", hex::encode(hmac::sign(&secret(web), &signed(&text))))
}

/// The key (64 hex) of a session's token; `None`: the request brings none. `Err`: it is over, or no session of ours, or
/// the request does more than read.
pub(super) fn reader(web: &Web, parts: &Parts) -> Result<Option<String>, &'static str> {
    let value = parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Some((scheme, token)) = value.split_once(' ') else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Ok(None);
    }
    let (text, tag) = token.trim().rsplit_once('.').ok_or("it is no session of this server")?;
    let tag = hex::decode(tag).map_err(|_| "it is no session of this server")?;
    hmac::verify(&secret(web), &signed(text), &tag).map_err(|_| "it is no session of this server")?;
    if parts.method != Method::GET && parts.method != Method::HEAD {
        return Err("a session may only read: sign this request (NIP-98, kind 27235)");
    }
    match text.split_once('.').map(|(key, until)| (key, until.parse::<u64>())) {
        Some((key, Ok(until))) if until > (web.settings.now)() / 1000 => Ok(Some(key.to_owned())),
        _ => Err("it is over: sign in again"),
    }
}

/// The text that is signed. Links are signed with the same key and begin with `/`.
fn signed(text: &str) -> Vec<u8> {
    format!("session {text}").into_bytes()
}

fn secret(web: &Web) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, &web.settings.link_key)
}
