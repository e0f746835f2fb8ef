//! Secrets and variables of a repository over the API: their names, and orders that set or remove one.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse,
};
use bytes::Bytes;
use nostr::{Kind, nips::nip01::Coordinate};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{
    Problem, Refusal, SettingsRefusal, ValueAnswer, ValueOrder, Web,
    auth::{Action, Caller},
};
use store::{ListedValue, ValueKind};

/// Bytes of a name, and of an environment's (GitHub docs, "Deployments and environments reference").
const NAME: usize = 255;

/// A secret or a variable.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ValueView {
    /// `secret` or `variable`.
    pub(super) kind: &'static str,
    /// In upper case.
    pub(super) name: String,
    /// The environment whose jobs have it, in lower case; empty: every job of a trusted run has it.
    pub(super) environment: String,
    /// Who set it, 64 hex.
    pub(super) author: String,
    /// When, Unix seconds by the author's clock.
    pub(super) set_at: u64,
    /// Of a variable; a secret's is never shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) value: Option<String>,
}

/// Sets a secret or a variable, or removes it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Order {
    /// `secret` or `variable`.
    kind: String,
    /// Letters, digits and `_`; case makes no difference.
    name: String,
    /// The environment whose jobs are to have it; empty: every job of a trusted run.
    #[serde(default)]
    environment: String,
    /// A variable's value; a secret's is encrypted for the pool (NIP-44). Without it the name is removed.
    #[serde(default)]
    value: Option<String>,
}

/// What came of an order.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Ordered {
    /// As it is stored.
    name: String,
    /// As it is stored.
    environment: String,
    /// Whether the name stood for something before.
    replaced: bool,
}

/// Names of a repository's secrets and variables, with who set them and when. For its owner and maintainers.
#[utoipa::path(get, path = "/api/repositories/{address}/values", tag = "repositories",
    params(("address" = String, Path, description = "30617:KEY:NAME")),
    responses(
        (status = 200, body = Vec<ValueView>), (status = 401, body = Problem), (status = 403, body = Problem),
        (status = 503, body = Problem),
    ))]
pub(super) async fn list(
    State(web): State<Web>,
    caller: Caller,
    Path(address): Path<String>,
) -> Result<impl IntoResponse, Refusal> {
    may_manage(&web, &address, caller.signed()?).await?;
    let listed: Vec<ValueView> = listed(&web, &address).await?;
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], Json(listed)))
}

pub(super) async fn listed(web: &Web, address: &str) -> Result<Vec<ValueView>, Refusal> {
    Ok(web.store.list_repository_values(address).await?.into_iter().map(ValueView::from).collect())
}

/// Sets a secret or a variable of a repository, or of one of its environments, or removes it. For its owner and
/// maintainers. The signature must cover the body (NIP-98, `payload`) and is good once. Of two orders of one name the one
/// with the later time counts, whenever they come.
#[utoipa::path(post, path = "/api/repositories/{address}/values", tag = "repositories", request_body = Order,
    params(("address" = String, Path, description = "30617:KEY:NAME")),
    responses(
        (status = 200, body = Ordered), (status = 400, body = Problem), (status = 401, body = Problem),
        (status = 403, body = Problem), (status = 404, body = Problem), (status = 409, body = Problem),
        (status = 429, body = Problem), (status = 503, body = Problem),
    ))]
pub(super) async fn order(
    State(web): State<Web>,
    caller: Caller,
    Path(address): Path<String>,
    body: Bytes,
) -> Result<Json<Ordered>, Refusal> {
    let by = caller.signed_with(&body)?.to_owned();
    let (event, at) = caller.signing()?;
    let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
    let Order { kind, name, environment, value } = serde_json::from_slice(&body)
        .map_err(|error| bad(format!("send {{\"kind\": \"secret\", \"name\": …, \"value\": …}}: {error}")))?;
    let kind = match kind.as_str() {
        "secret" => ValueKind::Secret,
        "variable" => ValueKind::Variable,
        _ => return Err(bad("`kind` is `secret` or `variable`".into())),
    };
    let name = name_of(&name).map_err(bad)?;
    let environment = environment_of(&environment).map_err(bad)?;
    may_manage(&web, &address, &by).await?;
    caller.spend(&web, Action::Decides)?;
    let removes = value.is_none();
    let (shown, place) = (name.clone(), environment.clone());
    let order = ValueOrder { repository: address, environment, kind, name, value, by, event, at };
    match web.control.order_value(order).await? {
        ValueAnswer::Taken { replaces: false } if removes => {
            Err(Refusal::new(StatusCode::NOT_FOUND, format!("there is no {} {shown} to remove here", kind.as_str())))
        }
        ValueAnswer::Taken { replaces } => Ok(Json(Ordered { name: shown, environment: place, replaced: replaces })),
        ValueAnswer::Older => Err(Refusal::new(
            StatusCode::CONFLICT,
            format!("a later order of {shown} counts already, or one of the same second: sign it again in a second"),
        )
        .retry_after(1)),
        ValueAnswer::Unusable(why) => Err(bad(why)),
    }
}

/// Lets owner and maintainers of a repository pass; everybody else gets one answer, whatever there is.
pub(super) async fn may_manage(web: &Web, address: &str, key: &str) -> Result<(), Refusal> {
    let is_repository = Coordinate::parse(address).is_ok_and(|known| known.kind == Kind::GitRepoAnnouncement);
    let answer = if is_repository { web.control.may_manage(address, key).await? } else { Err(SettingsRefusal::Others) };
    answer.map_err(|refusal| match refusal {
        SettingsRefusal::Others => Refusal::new(
            StatusCode::FORBIDDEN,
            "only owner and maintainers of a repository that this pool runs for manage its secrets, variables and caches",
        ),
        SettingsRefusal::Busy => {
            Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many such requests at a time: try again").retry_after(5)
        }
    })
}

/// GitHub docs, "Secrets reference": letters, digits and `_`, not beginning with a digit or `GITHUB_`; stored in upper
/// case.
fn name_of(name: &str) -> Result<String, String> {
    let upper = name.to_ascii_uppercase();
    let word = upper.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if upper.is_empty() || upper.len() > NAME || !word || upper.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(format!("a name has 1 to {NAME} letters, digits and `_`, and does not begin with a digit"));
    }
    match upper.starts_with("GITHUB_") {
        true => Err("names that begin with GITHUB_ are reserved".into()),
        false => Ok(upper),
    }
}

fn environment_of(name: &str) -> Result<String, String> {
    let name = name.trim().to_lowercase();
    match name.len() > NAME || name.contains(char::is_control) {
        true => Err(format!("an environment's name has at most {NAME} bytes and no control characters")),
        false => Ok(name),
    }
}

impl From<ListedValue> for ValueView {
    fn from(one: ListedValue) -> Self {
        Self {
            kind: one.kind.as_str(),
            name: one.name,
            environment: one.environment,
            author: one.author,
            set_at: one.ordered_at,
            value: one.value,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn names_follow_githubs_rules() {
        for (given, stored) in [("npm_token", "NPM_TOKEN"), ("_A1", "_A1"), ("GITHUB", "GITHUB")] {
            assert_eq!(name_of(given).unwrap(), stored);
        }
        for wrong in ["", "1A", "A-B", "A B", "ü", "github_token", "GITHUB_X", "A\n", &"A".repeat(256)] {
            assert!(name_of(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(environment_of(" Production ").unwrap(), "production");
        assert!(environment_of("a\u{7}").is_err() && environment_of(&"a".repeat(256)).is_err());
    }
}
