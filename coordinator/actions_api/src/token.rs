//! Signed tokens: the runtime token of an attempt, and URLs that authorize a request by themselves.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::hmac;
use serde_json::json;

use super::JobIdentity;

/// Signs with a key that every coordinator of the pool has. Nothing is stored.
pub(super) struct Tokens(hmac::Key);

impl Tokens {
    pub(super) fn new(key: &[u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, key))
    }

    /// A JSON web token: GitHub's toolkit reads run and job from its `scp`.
    pub(super) fn runtime(&self, identity: &JobIdentity) -> String {
        let scope = format!("Actions.Results:{}:{}", identity.run, backend_job(identity));
        let claims = json!({ "scp": scope, "iss": "longshore", "att": identity.text() });
        let text = format!("{}.{}", encode(br#"{"typ":"JWT","alg":"HS256"}"#), encode(claims.to_string().as_bytes()));
        let signature = hmac::sign(&self.0, text.as_bytes());
        format!("{text}.{}", encode(signature.as_ref()))
    }

    /// Whether a token is this attempt's: each attempt has exactly one, so it is computed again.
    pub(super) fn is_runtime(&self, token: &str, identity: &JobIdentity) -> bool {
        let Some((text, signature)) = token.rsplit_once('.') else { return false };
        let Ok(signature) = URL_SAFE_NO_PAD.decode(signature) else { return false };
        let ours = self.runtime(identity);
        ours.rsplit_once('.').is_some_and(|(expected, _)| expected == text)
            && hmac::verify(&self.0, text.as_bytes(), &signature).is_ok()
    }

    /// Signature of a path for a purpose (`put` or `get`), for this attempt.
    pub(super) fn path(&self, identity: &JobIdentity, purpose: &str, path: &str) -> String {
        encode(hmac::sign(&self.0, signed(identity, purpose, path).as_bytes()).as_ref())
    }

    pub(super) fn is_path(&self, signature: &str, identity: &JobIdentity, purpose: &str, path: &str) -> bool {
        let signature = URL_SAFE_NO_PAD.decode(signature);
        signature.is_ok_and(|tag| hmac::verify(&self.0, signed(identity, purpose, path).as_bytes(), &tag).is_ok())
    }

    /// A name that only this attempt's upload has.
    pub(super) fn upload(&self, identity: &JobIdentity, kind: &str, name: &str) -> String {
        hex::encode(hmac::sign(&self.0, signed(identity, kind, name).as_bytes()))
    }
}

/// A job's name in the token's scopes: a hash, since colons and blanks separate scopes.
pub(super) fn backend_job(identity: &JobIdentity) -> String {
    use sha2::Digest as _;
    hex::encode(sha2::Sha256::digest(identity.text())).chars().take(32).collect()
}

fn signed(identity: &JobIdentity, purpose: &str, path: &str) -> String {
    let attempt = identity.text();
    format!("url {}:{attempt} {}:{purpose} {path}", attempt.len(), purpose.len())
}

fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}
