//! The part of GitHub's REST API that a job's own repository and run can answer; everything else is `501` with a remedy.
//!
//! Shapes after GitHub's REST reference (commits, comparisons, contents, git database, branches, tags, workflow runs and
//! jobs), with the fields that programs of actions read, pages with their `Link` header, and the media types that
//! `Accept` names. Reading only.

mod commits;
mod contents;
mod diff;
mod refs;
mod runs;

use std::collections::HashMap;

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};

use super::{ActionsApi, Caller, base, caller};

/// Entries of one page, at most (GitHub's own limit).
const PAGE: usize = 100;

type Parameters = HashMap<String, String>;

/// Why a question has no answer.
enum NoAnswer {
    /// There is no such thing.
    Missing,
    /// This part of the API is not here.
    Unknown,
    /// It could not be looked up.
    Failed(String),
}

/// What is answered.
enum Answer {
    Json(Value),
    /// Entries of a list, whether there are more, and how many pages there are, where that is known.
    Page {
        entries: Value,
        more: bool,
        pages: Option<usize>,
    },
    /// Bytes as they are, of this media type of GitHub's.
    Bytes(&'static str, Vec<u8>),
}

type Found<T> = Result<T, NoAnswer>;

/// Answers a call of GitHub's API.
pub(super) async fn answer(
    State(api): State<ActionsApi>,
    Path(path): Path<String>,
    Query(parameters): Query<Parameters>,
    request: Request,
) -> Response {
    let (parts, _) = request.into_parts();
    let caller = match caller(&parts) {
        Ok(caller) => caller,
        Err(refusal) => return refusal.into_response(),
    };
    let own = text(&caller, "repository");
    let mut segments = path.split('/');
    let asked = [segments.next(), segments.next(), segments.next()];
    let is_own = matches!(asked, [Some("repos"), Some(owner), Some(name)] if format!("{owner}/{name}").eq_ignore_ascii_case(own));
    let rest: Vec<&str> = segments.filter(|segment| !segment.is_empty()).collect();
    if parts.method != Method::GET || !is_own {
        return not_here();
    }
    let accepted = parts.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let origin = base(&parts.headers);
    let question =
        Question { api: &api, caller: &caller, parameters: &parameters, origin: &origin, media: media_type(accepted) };
    match question.answer(&rest).await {
        Ok(Answer::Json(value)) => Json(value).into_response(),
        Ok(Answer::Bytes(kind, bytes)) => {
            ([(header::CONTENT_TYPE, format!("application/vnd.github.{kind}; charset=utf-8"))], bytes).into_response()
        }
        Ok(Answer::Page { entries, more, pages }) => {
            let url = format!("{origin}{}", parts.uri.path());
            let links = links(&url, parts.uri.query().unwrap_or_default(), question.page_number(), more, pages);
            let mut response = Json(entries).into_response();
            if let (false, Ok(links)) = (links.is_empty(), HeaderValue::from_str(&links)) {
                response.headers_mut().insert(header::LINK, links);
            }
            response
        }
        Err(NoAnswer::Missing) => (StatusCode::NOT_FOUND, Json(json!({ "message": "Not Found" }))).into_response(),
        Err(NoAnswer::Unknown) => not_here(),
        Err(NoAnswer::Failed(why)) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "message": why }))).into_response()
        }
    }
}

pub(super) fn not_here() -> Response {
    let message = "This is not GitHub: of its API a job has here what its own repository and run can answer, for reading \
                   (commits, compare, contents, git/ref, git/commits, git/tags, git/trees, branches, tags, actions/runs). \
                   For GitHub's own, give the step a token of yours as a secret and \
                   `env: {GITHUB_API_URL: https://api.github.com}`, or remove the call.";
    (StatusCode::NOT_IMPLEMENTED, Json(json!({ "message": message }))).into_response()
}

/// The form that `Accept` asks for besides JSON: `raw` of `application/vnd.github.raw+json` (GitHub docs, "Getting started
/// with the REST API: media types").
fn media_type(accepted: &str) -> &str {
    let words = accepted.split(',').map(|word| word.split(';').next().unwrap_or_default().trim());
    let named = words.filter_map(|word| word.strip_prefix("application/vnd.github.")).next().unwrap_or_default();
    named.trim_end_matches("+json").rsplit('.').next().unwrap_or_default()
}

/// Header `Link` (RFC 8288), by which programs find the other pages.
fn links(url: &str, query: &str, page: usize, more: bool, pages: Option<usize>) -> String {
    let kept: String = query
        .split('&')
        .filter(|word| !word.is_empty() && !word.starts_with("page="))
        .map(|word| format!("{word}&"))
        .collect();
    let link = |page: usize, relation: &str| format!("<{url}?{kept}page={page}>; rel=\"{relation}\"");
    let before = (page > 1).then(|| [link(page - 1, "prev"), link(1, "first")]);
    let next = more.then(|| link(page + 1, "next"));
    let last = pages.filter(|_| more).map(|pages| link(pages, "last"));
    before.into_iter().flatten().chain(next).chain(last).collect::<Vec<_>>().join(", ")
}

struct Question<'a> {
    api: &'a ActionsApi,
    caller: &'a Caller,
    parameters: &'a Parameters,
    /// Scheme and host that the caller reached.
    origin: &'a str,
    /// A form other than JSON, where one is asked for.
    media: &'a str,
}

impl Question<'_> {
    async fn answer(&self, rest: &[&str]) -> Found<Answer> {
        let json = match rest {
            [] => self.repository(),
            ["commits"] => return self.commits().await,
            ["commits", reference @ ..] => return self.commit(&reference.join("/")).await,
            ["compare", range @ ..] => return self.compare(&range.join("/")).await,
            ["contents", path @ ..] => return self.contents(&path.join("/")).await,
            ["git", "ref", name @ ..] => self.reference(&name.join("/")).await?,
            ["git", "matching-refs", name @ ..] => self.references(&format!("refs/{}", name.join("/"))).await?,
            ["git", "commits", id] => self.git_commit(id).await?,
            ["git", "tags", id] => self.git_tag(id).await?,
            ["git", "trees", tree @ ..] => self.tree(&tree.join("/")).await?,
            ["branches"] => return self.named("refs/heads/").await,
            ["branches", name @ ..] => self.branch(&name.join("/")).await?,
            ["tags"] => return self.named("refs/tags/").await,
            ["actions", "runs", id] => self.run(id, None).await?,
            ["actions", "runs", id, "attempts", attempt] => self.run(id, Some(attempt)).await?,
            ["actions", "runs", id, "jobs"] => return self.jobs(id, None).await,
            ["actions", "runs", id, "attempts", attempt, "jobs"] => return self.jobs(id, Some(attempt)).await,
            _ => return Err(NoAnswer::Unknown),
        };
        Ok(Answer::Json(json))
    }

    /// What git prints, asked in the job's repository; `None`: it says no.
    async fn git(&self, arguments: &[&str]) -> Found<Option<String>> {
        let printed = self.git_bytes(arguments).await?;
        Ok(printed.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    async fn git_bytes(&self, arguments: &[&str]) -> Found<Option<Vec<u8>>> {
        let repositories = self.api.repositories.clone().ok_or(NoAnswer::Unknown)?;
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        repositories.read(self.caller.identity.clone(), arguments).await.map_err(NoAnswer::Failed)
    }

    fn text(&self, key: &str) -> &str {
        text(self.caller, key)
    }

    /// Where the API has something of the repository.
    fn url(&self, below: &str) -> String {
        format!("{}/api/v3/repos/{}{below}", self.origin, self.text("repository"))
    }

    /// Where GitHub would have a page of it.
    fn page_url(&self, below: &str) -> String {
        format!("{}/{}{below}", self.origin, self.text("repository"))
    }

    fn repository(&self) -> Value {
        let full = self.text("repository");
        let (owner, name) = full.split_once('/').unwrap_or(("", full));
        let event = self.caller.identity.github.get("event");
        let branch = event.and_then(|event| event["repository"]["default_branch"].as_str()).unwrap_or("main");
        json!({
            "name": name, "full_name": full, "private": false, "fork": false, "archived": false, "disabled": false,
            "owner": { "login": owner, "type": "User" }, "default_branch": branch, "url": self.url(""),
            "html_url": self.page_url(""), "clone_url": self.page_url(".git"), "topics": [],
            "permissions": { "admin": false, "push": false, "pull": true },
        })
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn number(&self, name: &str, default: usize) -> usize {
        self.parameter(name).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    fn page_number(&self) -> usize {
        self.number("page", 1).max(1)
    }

    /// Entries of the page that is asked for, and how many stand before it.
    fn page(&self) -> (usize, usize) {
        let size = self.number("per_page", 30).clamp(1, PAGE);
        (size, (self.page_number() - 1).saturating_mul(size))
    }

    /// The part of a list that is asked for.
    fn page_of<T>(&self, all: Vec<T>) -> (Vec<T>, bool, Option<usize>) {
        let (size, skip) = self.page();
        let (more, pages) = (all.len() > skip.saturating_add(size), all.len().div_ceil(size));
        (all.into_iter().skip(skip).take(size).collect(), more, Some(pages))
    }
}

fn text<'c>(caller: &'c Caller, key: &str) -> &'c str {
    caller.identity.github.get(key).and_then(Value::as_str).unwrap_or_default()
}
