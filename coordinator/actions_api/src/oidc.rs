//! ID tokens of jobs (OpenID Connect), with the claims of GitHub's.
//!
//! Source of the rules: GitHub docs, "OpenID Connect reference". The issuer's documents, by which others verify tokens, are
//! served below the coordinator's public URL.

use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _, path::Path, sync::Arc};

use anyhow::{Context as _, anyhow};
use axum::{
    Json,
    extract::{Query, State},
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _},
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::{ActionsApi, Authorized, JobIdentity, Refusal};
use domain::run::Millis;

/// Seconds for which a token is valid.
const LIFE: u64 = 300;
/// Longest audience, in bytes.
const AUDIENCE: usize = 1024;
/// Fields of the `github` context that are claims of the same name.
const CLAIMS: &[&str] = &[
    "actor",
    "base_ref",
    "event_name",
    "head_ref",
    "ref",
    "ref_type",
    "repository",
    "repository_owner",
    "run_attempt",
    "run_id",
    "run_number",
    "sha",
    "workflow",
    "workflow_ref",
    "workflow_sha",
];

/// Signs tokens.
pub struct Issuer {
    url: String,
    key: EcdsaKeyPair,
    id: String,
}

impl Issuer {
    /// The issuer at a public URL, with the key in a file, which is created if it is missing.
    pub fn open(file: &Path, url: &str) -> anyhow::Result<Self> {
        let place = || format!("key of the OIDC issuer {}", file.display());
        let pkcs8 = match std::fs::read(file) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
                let made = made.map_err(|_| anyhow!("no randomness")).with_context(place)?;
                let mut options = std::fs::OpenOptions::new();
                let mut out = options.write(true).create_new(true).mode(0o600).open(file).with_context(place)?;
                out.write_all(made.as_ref()).and_then(|()| out.sync_all()).with_context(place)?;
                made.as_ref().to_vec()
            }
            Err(error) => return Err(error).with_context(place),
        };
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8, &SystemRandom::new());
        let key = key.map_err(|error| anyhow!("{error}: move it away, and a new one is made")).with_context(place)?;
        let id = hex::encode(Sha256::digest(key.public_key())).chars().take(32).collect();
        Ok(Self { url: url.trim_end_matches('/').to_owned(), key, id })
    }

    /// The documents for verifiers, by their names below `/.well-known/`.
    pub fn documents(&self) -> [(String, Value); 2] {
        let configuration = json!({
            "issuer": self.url,
            "jwks_uri": format!("{}/.well-known/jwks", self.url),
            "subject_types_supported": ["public", "pairwise"],
            "response_types_supported": ["id_token"],
            "claims_supported": CLAIMS.iter().chain(&["actor_trust", "environment", "sub", "aud", "exp", "iat", "iss", "jti", "nbf"]).collect::<Vec<_>>(),
            "id_token_signing_alg_values_supported": ["ES256"],
            "scopes_supported": ["openid"],
        });
        // An uncompressed point (SEC 1, 2.3.3): the byte 4, then both coordinates.
        let point = self.key.public_key().as_ref();
        let half = |from, to| URL_SAFE_NO_PAD.encode(point.get(from..to).unwrap_or_default());
        let key = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": half(1, 33), "y": half(33, 65),
        });
        [("openid-configuration".to_owned(), configuration), ("jwks".to_owned(), json!({ "keys": [key] }))]
    }

    fn token(&self, identity: &JobIdentity, audience: Option<&str>, now: Millis) -> Result<String, Refusal> {
        let text = |name: &str| identity.github.get(name).and_then(Value::as_str).unwrap_or_default();
        let repository = text("repository");
        let mut claims: Map<String, Value> =
            CLAIMS.iter().filter_map(|name| Some(((*name).to_owned(), identity.github.get(*name)?.clone()))).collect();
        let now = now / 1000;
        let subject = match (identity.environment.as_deref(), text("event_name")) {
            // A colon in the name would begin another part (GitHub docs: OpenID Connect reference).
            (Some(environment), _) => format!("repo:{repository}:environment:{}", environment.replace(':', "%3A")),
            (None, "pull_request") => format!("repo:{repository}:pull_request"),
            (None, _) => format!("repo:{repository}:ref:{}", text("ref")),
        };
        let audience = audience.map_or_else(|| format!("{}/{}", self.url, text("repository_owner")), str::to_owned);
        for (name, value) in [
            ("iss", Value::from(self.url.as_str())),
            ("sub", subject.into()),
            ("aud", audience.into()),
            ("iat", now.into()),
            ("nbf", now.saturating_sub(60).into()),
            ("exp", now.saturating_add(LIFE).into()),
            ("jti", uuid::Uuid::now_v7().to_string().into()),
            ("repository_address", identity.repository.as_str().into()),
            ("actor_trust", identity.actor_trust.into()),
        ] {
            claims.insert(name.to_owned(), value);
        }
        claims.extend(identity.environment.as_deref().map(|name| ("environment".to_owned(), name.into())));
        let header = json!({ "typ": "JWT", "alg": "ES256", "kid": self.id });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims.into()));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature = signature.map_err(|_| super::internal(&"the OIDC issuer could not sign"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Whether a job's `permissions:` allow ID tokens; without `permissions:` they don't, as on GitHub.
pub fn grants(permissions: Option<&Value>) -> bool {
    match permissions {
        Some(Value::String(all)) => all == "write-all",
        Some(Value::Object(named)) => named.get("id-token").and_then(Value::as_str) == Some("write"),
        _ => false,
    }
}

impl ActionsApi {
    /// With an issuer of OIDC tokens.
    pub fn with_issuer(self, issuer: Issuer) -> Self {
        Self { issuer: Some(Arc::new(issuer)), ..self }
    }
}

#[derive(Debug, Deserialize)]
pub(super) struct TokenQuery {
    audience: Option<String>,
}

pub(super) async fn token(
    State(api): State<ActionsApi>,
    Authorized(identity, _): Authorized,
    Query(asked): Query<TokenQuery>,
) -> Result<Json<Value>, Refusal> {
    let refused = |reason: &str| Refusal::new(axum::http::StatusCode::FORBIDDEN, "permission_denied", reason);
    let issuer = api.issuer.as_ref().ok_or_else(|| refused("there is no OIDC issuer here: a pool has one"))?;
    if !identity.id_token {
        return Err(refused("the job needs `permissions: id-token: write`, and a commit of the maintainers'"));
    }
    if asked.audience.as_ref().is_some_and(|audience| audience.len() > AUDIENCE) {
        return Err(Refusal::invalid("the audience is too long"));
    }
    let value = issuer.token(&identity, asked.audience.as_deref(), api.now())?;
    Ok(Json(json!({ "value": value })))
}
