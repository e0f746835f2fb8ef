//! The JSON API of runs.

use axum::{
    Json,
    extract::{Path, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Deserialize;
use utoipa::IntoParams;

use domain::id::RunId;

use super::{
    QueryParams, Refusal, Web,
    auth::{Action, Caller},
    authors,
    dto::{RunSummary, RunView},
    request_limits::{self, Client},
    run_detail, run_lookup,
};
use store::{Filter, Page, Reader, Status};

/// Most runs on one page of a list.
pub(super) const PAGE: u32 = 50;

/// Which runs are requested.
#[derive(Debug, Clone, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default)]
pub(super) struct RunQuery {
    /// A search, as the page of runs takes it: `status:failure branch:main fix`. What it names goes before the fields.
    pub(super) q: Option<String>,
    /// Words of which each stands in the names of workflow, branch and repository, or in the title.
    pub(super) text: Option<String>,
    /// Address of the repository.
    pub(super) repository: Option<String>,
    /// Name of the repository, whoever owns it.
    pub(super) repository_name: Option<String>,
    /// Path of the workflow, or the name of a file in `.github/workflows`.
    pub(super) workflow: Option<String>,
    /// Short name of the branch or tag.
    pub(super) branch: Option<String>,
    /// `planning`, `waiting`, `queued`, `running`, `sealing`, `success`, `failure`, `cancelled` or `skipped`; or several, with
    /// commas.
    pub(super) status: Option<String>,
    /// Author, 64 hex or npub.
    #[serde(alias = "author")]
    pub(super) actor: Option<String>,
    /// Name of the event: `push`, `workflow_dispatch`, …
    pub(super) event: Option<String>,
    /// Id of the event (5100) that asked for it.
    pub(super) request: Option<String>,
    /// Id of the run that they repeat.
    pub(super) previous: Option<String>,
    /// Only runs that have not ended.
    pub(super) unfinished: bool,
    /// Position of the page: only runs with a smaller serial. `Link: <…>; rel="next"` has that of the next page.
    pub(super) before: Option<u64>,
    /// Runs on the page, 50 at most.
    pub(super) limit: Option<u32>,
}

impl RunQuery {
    /// The filter for this caller. Empty fields, as a form sends them, count as missing.
    pub(super) fn filter(&self, caller: &Caller) -> Result<Filter, Refusal> {
        let given = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
        let bad = |reason: String| Refusal::new(StatusCode::BAD_REQUEST, reason);
        let statuses = given(&self.status).unwrap_or_default();
        let status = statuses.split(',').filter(|word| !word.is_empty()).map(|word| {
            word.parse::<Status>().map_err(|_| {
                let known = Status::all().iter().map(|status| status.as_str()).collect::<Vec<_>>().join(", ");
                bad(format!("no run has the status `{word}`: ask for {known}"))
            })
        });
        let actor = given(&self.actor).map(|text| match nostr::PublicKey::parse(&text) {
            Ok(key) => Ok(key.to_hex()),
            Err(_) => Err(bad(format!("the author `{text}` is no key: write an npub, or 64 hex digits"))),
        });
        let repository = given(&self.repository);
        if let Some(text) = repository.as_ref().filter(|text| !is_address(text)) {
            let remedy = "write 30617:KEY:NAME, as the repository's page shows it";
            return Err(bad(format!("the repository `{text}` is no address: {remedy}")));
        }
        Ok(Filter {
            repository,
            workflow: Some(self.path()).filter(|path| !path.is_empty()),
            branch: given(&self.branch),
            event: given(&self.event),
            request: given(&self.request),
            previous: given(&self.previous).map(RunId::from),
            status: status.collect::<Result<_, _>>()?,
            actor: actor.transpose()?,
            unfinished: self.unfinished,
            words: self.search_words(),
            repository_name: given(&self.repository_name),
            reader: caller.reader.clone(),
        })
    }

    /// Whether it depends on a run's status if it is listed.
    pub(super) fn is_by_status(&self) -> bool {
        self.unfinished || self.status.as_ref().is_some_and(|status| !status.is_empty())
    }

    /// Path of the workflow; a file name alone stands for one in `.github/workflows`. Empty: any.
    pub(super) fn path(&self) -> String {
        match self.workflow.as_deref().unwrap_or_default() {
            name if name.ends_with(".yml") || name.ends_with(".yaml") => match name.contains('/') {
                true => name.to_owned(),
                false => format!(".github/workflows/{name}"),
            },
            text => text.to_owned(),
        }
    }

    /// Query string of another page of the same list.
    pub(super) fn query(&self, before: Option<u64>) -> String {
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        let fields = [
            ("text", &self.text),
            ("repository", &self.repository),
            ("repository_name", &self.repository_name),
            ("workflow", &self.workflow),
            ("branch", &self.branch),
            ("status", &self.status),
            ("actor", &self.actor),
            ("event", &self.event),
            ("request", &self.request),
            ("previous", &self.previous),
        ];
        for (name, value) in fields {
            if let Some(value) = value.as_ref().filter(|value| !value.is_empty()) {
                query.append_pair(name, value);
            }
        }
        if self.unfinished {
            query.append_pair("unfinished", "true");
        }
        if let Some(limit) = self.limit {
            query.append_pair("limit", &limit.to_string());
        }
        if let Some(before) = before {
            query.append_pair("before", &before.to_string());
        }
        query.finish()
    }

    fn limit(&self) -> u32 {
        self.limit.unwrap_or(PAGE).clamp(1, PAGE)
    }
}

/// Whether a text has the form of a repository's address, 30617:KEY:NAME.
pub(super) fn is_address(text: &str) -> bool {
    text.strip_prefix("30617:").is_some_and(|rest| rest.contains(':'))
}

/// A page of the runs that this caller may see, newest first, and where the next one begins.
pub(super) async fn list(
    web: &Web,
    caller: &Caller,
    client: Client,
    wanted: &RunQuery,
) -> Result<(Vec<RunSummary>, Option<u64>), Refusal> {
    let limit = wanted.limit();
    // One more than is shown tells whether there is a next page.
    let page = Page { before: wanted.before, limit: limit + 1 };
    let filter = wanted.filter(caller)?;
    // Words are looked for in every one of many runs; all else has an index.
    let searches = !filter.words.is_empty() || filter.repository_name.is_some();
    let _permit = searches.then(|| request_limits::permit(&web.limits.searches, client, "searches")).transpose()?;
    let mut found = web.store.list(&filter, page).await?;
    let more = found.len() > limit as usize;
    found.truncate(limit as usize);
    let next = found.last().filter(|_| more).map(|run| run.serial);
    Ok((authors::summaries(web, found), next))
}

/// Runs, newest first.
#[utoipa::path(get, path = "/api/runs", tag = "runs", params(RunQuery), responses(
    (status = 200, body = [RunSummary], headers(("link" = String, description = "The next page, where there is one"))),
    (status = 400, body = super::Problem), (status = 429, body = super::Problem), (status = 503, body = super::Problem),
))]
pub(super) async fn runs(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    QueryParams(wanted): QueryParams<RunQuery>,
) -> Result<(HeaderMap, Json<Vec<RunSummary>>), Refusal> {
    let wanted = wanted.resolved();
    let (runs, next) = list(&web, &caller, client, &wanted).await?;
    let mut headers = HeaderMap::new();
    if let Some(next) = next {
        let link = format!("</api/runs?{}>; rel=\"next\"", wanted.query(Some(next)));
        if let Ok(link) = HeaderValue::from_str(&link) {
            headers.insert(header::LINK, link);
        }
    }
    Ok((headers, Json(runs)))
}

/// One run: by its id, its serial, or the id of an event that asked for it.
#[utoipa::path(get, path = "/api/runs/{id}", tag = "runs", params(("id" = String, Path)), responses(
    (status = 200, body = RunView), (status = 404, body = super::Problem),
))]
pub(super) async fn run(State(web): State<Web>, caller: Caller, Path(id): Path<String>) -> Result<Response, Refusal> {
    let _turn = web.limits.runs.acquire().await?;
    let state = run_lookup::find(&web, &caller, &id).await?;
    Ok(Json(run_detail::run(&web, &caller, state).await?).into_response())
}

/// Ends a run. For its author, the repository's maintainers and the operator.
#[utoipa::path(post, path = "/api/runs/{id}/cancel", tag = "runs", params(("id" = String, Path)), responses(
    (status = 202, description = "It is being ended"), (status = 401, body = super::Problem),
    (status = 403, body = super::Problem), (status = 404, body = super::Problem),
))]
pub(super) async fn cancel(
    State(web): State<Web>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Refusal> {
    let key = caller.signed()?.to_owned();
    let state = run_lookup::find(&web, &caller, &id).await?;
    let maintains = state.planned.as_ref().is_some_and(|planned| planned.maintainers.contains(&key));
    let owns = state.request.actor == key || state.request.repository.owner == key;
    if !(maintains || owns || caller.reader == Reader::Operator) {
        let reason = "only the author of the run, the repository's maintainers and the operator may cancel it";
        return Err(Refusal::new(StatusCode::FORBIDDEN, reason));
    }
    caller.spend(&web, Action::Decides)?;
    web.control.cancel(&state.id, &key).await?;
    Ok(StatusCode::ACCEPTED)
}
