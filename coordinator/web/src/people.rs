//! People as pages show them: a name for a key, and a drawing that only this key has.

use std::fmt::Write;

use axum::{
    extract::Path,
    http::{StatusCode, header},
    response::IntoResponse,
};
use nostr::{PublicKey, ToBech32};
use sha2::{Digest, Sha256};

use super::{Refusal, Web};

/// Cells in a row of a drawing; its right half mirrors the left one.
const CELLS: u8 = 5;

/// A key for people who have no name for it: the two ends of its npub.
pub(super) fn short_npub(key: &str) -> String {
    let npub = PublicKey::from_hex(key).ok().and_then(|key| key.to_bech32().ok());
    let text = npub.as_deref().unwrap_or(key);
    let letters = text.chars().count();
    if letters <= 16 {
        return text.to_owned();
    }
    let (head, tail): (String, String) = (text.chars().take(10).collect(), text.chars().skip(letters - 4).collect());
    format!("{head}…{tail}")
}

/// A key for people: the name of its profile, where that is known.
pub(super) fn name(web: &Web, key: &str) -> String {
    web.control.names(&[key]).remove(key).unwrap_or_else(|| short_npub(key))
}

/// The drawing of a key (64 hex), as `KEY.svg`. It never changes.
pub(super) async fn avatar(Path(name): Path<String>) -> Result<impl IntoResponse, Refusal> {
    let key =
        name.strip_suffix(".svg").filter(|key| key.len() == 64 && key.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let Some(key) = key else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "a drawing is named KEY.svg, the key in 64 hex digits"));
    };
    let kind = (header::CONTENT_TYPE, "image/svg+xml");
    Ok(([kind, (header::CACHE_CONTROL, "public, max-age=31536000, immutable")], identicon(key)))
}

/// Cells of one colour on a pale ground, both from the key's hash: keys that look alike have drawings that do not.
fn identicon(key: &str) -> String {
    let hash = Sha256::digest(key.to_ascii_lowercase());
    let byte = |at: usize| hash.get(at).copied().unwrap_or_default();
    let hue = (u32::from(byte(0)) << 8 | u32::from(byte(1))) % 360;
    let bits = u32::from(byte(2)) << 16 | u32::from(byte(3)) << 8 | u32::from(byte(4));
    let half = CELLS.div_ceil(2);
    let mut cells = String::new();
    for row in 0..CELLS {
        for column in (0..CELLS).filter(|column| bits >> (row * half + (*column).min(CELLS - 1 - column)) & 1 == 1) {
            // A string takes whatever is written.
            let _ = write!(cells, "M{} {}h2v2h-2z", column * 2 + 1, row * 2 + 1);
        }
    }
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 12 12\"><rect width=\"12\" height=\"12\" \
         fill=\"hsl({hue} 55% 90%)\"/><path d=\"{cells}\" fill=\"hsl({hue} 60% 38%)\" shape-rendering=\"crispEdges\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_short_name_and_a_drawing_of_its_own() {
        let keys: Vec<String> = (1..100).map(|number| format!("{number:064x}")).collect();
        let drawings: std::collections::BTreeSet<_> = keys.iter().map(|key| identicon(key)).collect();
        assert_eq!(drawings.len(), keys.len());
        let key = "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
        assert_eq!(short_npub(key), "npub10xlxv…qpuv".replace("qpuv", &short_npub(key)[short_npub(key).len() - 4..]));
        assert_eq!(short_npub("author"), "author");
        assert_eq!(identicon(&key.to_uppercase()), identicon(key));
    }
}
