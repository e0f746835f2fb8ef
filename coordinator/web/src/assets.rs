//! What pages load. Everything lies in the program, and is sent compressed to browsers that take it so.

use std::{collections::HashMap, io::Write, sync::LazyLock};

use axum::{
    extract::Path,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use super::Refusal;

const CSS: &str = "text/css; charset=utf-8";
const SVG: &str = "image/svg+xml";
const SCRIPT: &str = "text/javascript; charset=utf-8";

macro_rules! assets {
    ($($name:literal as $kind:ident),* $(,)?) => {
        const ASSETS: &[(&str, &str, &str)] = &[$(($name, $kind, include_str!(concat!("../assets/", $name)))),*];
    };
}

assets! {
    "design.css" as CSS,
    "page.css" as CSS,
    "log.css" as CSS,
    "icon.svg" as SVG,
    "icon-success.svg" as SVG,
    "icon-failure.svg" as SVG,
    "icon-running.svg" as SVG,
    "icon-waiting.svg" as SVG,
    "icon-cancelled.svg" as SVG,
    "page.js" as SCRIPT,
    "dom.js" as SCRIPT,
    "copy.js" as SCRIPT,
    "list.js" as SCRIPT,
    "search.js" as SCRIPT,
    "time.js" as SCRIPT,
    "fresh.js" as SCRIPT,
    "run.js" as SCRIPT,
    "log.js" as SCRIPT,
    "log_bar.js" as SCRIPT,
    "log_folds.js" as SCRIPT,
    "log_row.js" as SCRIPT,
    "ansi.js" as SCRIPT,
    "sign.js" as SCRIPT,
    "edit.js" as SCRIPT,
    "yaml.js" as SCRIPT,
    "make.js" as SCRIPT,
    "dialog.js" as SCRIPT,
    "review.js" as SCRIPT,
    "settings.js" as SCRIPT,
    "stream.js" as SCRIPT,
    "bunker.js" as SCRIPT,
    "noble/ciphers/chacha.js" as SCRIPT,
    "noble/ciphers/_arx.js" as SCRIPT,
    "noble/ciphers/_poly1305.js" as SCRIPT,
    "noble/ciphers/utils.js" as SCRIPT,
    "noble/hashes/hkdf.js" as SCRIPT,
    "noble/hashes/hmac.js" as SCRIPT,
    "noble/hashes/sha2.js" as SCRIPT,
    "noble/hashes/_md.js" as SCRIPT,
    "noble/hashes/_u64.js" as SCRIPT,
    "noble/hashes/utils.js" as SCRIPT,
    "noble/secp256k1/index.js" as SCRIPT,
}

/// One file as it is sent.
#[derive(Debug)]
struct Asset {
    kind: &'static str,
    text: &'static str,
    /// The same with gzip; empty where that failed.
    packed: Bytes,
    /// Names this content: a browser that has it is told so.
    tag: HeaderValue,
}

/// Compressed once, at the first request.
static PACKED: LazyLock<HashMap<&'static str, Asset>> = LazyLock::new(|| {
    let asset = |&(name, kind, text): &(&'static str, &'static str, &'static str)| {
        let tag = HeaderValue::from_str(&format!("W/\"{}\"", hex::encode(Sha256::digest(text))));
        let tag = tag.unwrap_or_else(|_| HeaderValue::from_static("W/\"\""));
        (name, Asset { kind, text, packed: packed(text.as_bytes(), Compression::best()).into(), tag })
    };
    ASSETS.iter().map(asset).collect()
});

/// Whether a client takes answers that are compressed with gzip.
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let given = headers.get(header::ACCEPT_ENCODING).and_then(|value| value.to_str().ok()).unwrap_or_default();
    given.split(',').any(|coding| coding.trim().split(';').next() == Some("gzip"))
}

/// A text with gzip; empty where that failed.
pub(super) fn packed(text: &[u8], level: Compression) -> Vec<u8> {
    let mut packed = GzEncoder::new(Vec::new(), level);
    packed.write_all(text).and_then(|()| packed.finish()).unwrap_or_default()
}

/// One file, by its name.
pub(super) async fn asset(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Refusal> {
    let Some(asset) = PACKED.get(name.as_str()) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "there is no such file"));
    };
    let given = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let same = given(header::IF_NONE_MATCH).split(',').any(|tag| tag.trim() == asset.tag);
    let mut response = match (same, takes_gzip(&headers) && !asset.packed.is_empty()) {
        (true, _) => StatusCode::NOT_MODIFIED.into_response(),
        (false, true) => ([(header::CONTENT_ENCODING, "gzip")], asset.packed.clone()).into_response(),
        (false, false) => Bytes::from_static(asset.text.as_bytes()).into_response(),
    };
    let fields = response.headers_mut();
    fields.insert(header::CONTENT_TYPE, HeaderValue::from_static(asset.kind));
    fields.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    fields.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    fields.insert(header::ETAG, asset.tag.clone());
    Ok(response)
}
