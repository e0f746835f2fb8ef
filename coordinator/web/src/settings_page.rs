//! The settings of a repository: its secrets, variables and caches. For its owner and maintainers.

use askama::Template;
use axum::{
    extract::{Path, State},
    http::{HeaderValue, StatusCode, header},
    response::IntoResponse,
};

use super::{
    Web,
    auth::Caller,
    byte_size::byte_size,
    html::{HtmlError, rendered, repository_name},
    people, repositories,
    repository_caches::{self, RepositoryCache},
    repository_values::{self, ValueView},
};
use domain::run::Millis;

#[derive(Template)]
#[template(path = "settings.html")]
struct Settings<'a> {
    pool: &'a str,
    now: Millis,
    name: String,
    address: &'a str,
    back: String,
    /// Why nothing is shown; none: everything is.
    refused: Option<String>,
    secrets: Vec<Row>,
    variables: Vec<Row>,
    caches: Vec<RepositoryCache>,
    /// Bytes of the caches that are shown, for people.
    cached: String,
}

/// A value in the list.
struct Row {
    view: ValueView,
    author_name: String,
}

pub(super) async fn page(
    State(web): State<Web>,
    caller: Caller,
    Path(address): Path<String>,
) -> Result<impl IntoResponse, HtmlError> {
    let refused = match &caller.key {
        None => Some("Owner and maintainers of the repository manage these: sign in as one of them.".to_owned()),
        Some(key) => match repository_values::may_manage(&web, &address, key).await {
            Ok(()) => None,
            Err(refusal) if refusal.status == StatusCode::FORBIDDEN => {
                Some(format!("{} is not one of them: {}.", people::name(&web, key), refusal.reason))
            }
            Err(refusal) => return Err(refusal.into()),
        },
    };
    let (mut secrets, mut variables, mut caches) = (Vec::new(), Vec::new(), Vec::new());
    if refused.is_none() {
        for view in repository_values::listed(&web, &address).await? {
            let row = Row { author_name: people::name(&web, &view.author), view };
            if row.view.kind == "secret" { secrets.push(row) } else { variables.push(row) }
        }
        caches = repository_caches::listed(&web, &address).await?;
    }
    let page = rendered(&Settings {
        pool: &web.settings.name,
        now: (web.settings.now)(),
        name: repository_name(&address),
        address: &address,
        back: repositories::page(&address),
        refused,
        secrets,
        variables,
        cached: byte_size(caches.iter().map(|cache| cache.size).sum()),
        caches,
    })?;
    Ok(([(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))], page))
}

impl Row {
    /// What its buttons are called for who does not see the table.
    fn label(&self) -> String {
        match self.view.environment.as_str() {
            "" => self.view.name.clone(),
            environment => format!("{} of the environment {environment}", self.view.name),
        }
    }

    fn at(&self) -> Millis {
        self.view.set_at.saturating_mul(1000)
    }
}

impl RepositoryCache {
    fn size(&self) -> String {
        byte_size(self.size)
    }
}
