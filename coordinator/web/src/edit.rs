//! The editor of a repository's workflow definitions: a text, the jobs it would run, its versions and their differences.

use askama::Template;
use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Html,
};
use nostr::{Kind, nips::nip01::Coordinate};
use serde::Deserialize;

use super::{
    QueryParams, Refusal, Web, api,
    auth::Caller,
    definitions::{self, DefinitionView, PoolLabels, Preview},
    diff::DiffLine,
    html::{HtmlError, rendered, repository_name},
    people, repositories,
    request_limits::{self, Client},
    time,
};
use store::{Filter, Page};

/// Text of a new file.
const START: &str = "name: CI\non: [push, workflow_dispatch]\njobs:\n  build:\n    runs-on: ubuntu-latest\n    steps:\n      - uses: actions/checkout@v4\n      - run: echo \"it works\"\n";
/// Path of a new file.
const NAME: &str = ".github/workflows/ci.yml";

/// Which file and which version are edited.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EditQuery {
    path: String,
    version: String,
    /// Compare the version with this one.
    from: String,
}

#[derive(Template)]
#[template(path = "edit.html")]
struct Edit<'a> {
    pool: &'a str,
    name: String,
    address: &'a str,
    back: String,
    /// Paths of known workflow files.
    paths: Vec<String>,
    path: String,
    text: String,
    /// Source of the text, for people.
    origin: String,
    preview: Preview,
    versions: Vec<Shown>,
    /// Unix seconds of the newest version of this path: the next one must be later.
    newest: u64,
    in_force: bool,
    compared: Option<Compared>,
}

/// A version in the list.
struct Shown {
    view: DefinitionView,
    page: String,
    compare: Option<String>,
}

struct Compared {
    from: String,
    to: String,
    lines: Vec<DiffLine>,
}

impl Compared {
    fn short_from(&self) -> &str {
        short(&self.from)
    }

    fn short_to(&self) -> &str {
        short(&self.to)
    }
}

/// The beginning of an event's id, or all of what is none.
fn short(event: &str) -> &str {
    event.get(..8).filter(|_| event.len() == 64).unwrap_or(event)
}

pub(super) async fn page(
    State(web): State<Web>,
    caller: Caller,
    client: Client,
    Path(address): Path<String>,
    QueryParams(wanted): QueryParams<EditQuery>,
) -> Result<Html<String>, HtmlError> {
    if !Coordinate::parse(&address).is_ok_and(|known| known.kind == Kind::GitRepoAnnouncement) {
        let reason = "write the repository as 30617:KEY:NAME, the key in hex";
        return Err(Refusal::new(StatusCode::NOT_FOUND, reason).into());
    }
    let versions = definitions::versions(&web, &caller, &address).await?;
    let files = committed(&web, &caller, &address).await?;
    let mut paths: Vec<String> = versions.iter().map(|version| version.path.clone()).collect();
    paths.extend(files.iter().map(|file| file.path.clone()));
    paths.sort();
    paths.dedup();
    let path = match wanted.path.trim() {
        "" => paths.first().cloned().unwrap_or_else(|| NAME.to_owned()),
        path => path.to_owned(),
    };

    let of_path = || versions.iter().filter(|version| version.path == path);
    let counts = of_path().find(|version| version.in_force);
    let asked = match wanted.version.as_str() {
        "" => counts.filter(|version| !version.withdrawn),
        event => Some(of_path().find(|version| version.event == event).ok_or_else(|| {
            Refusal::new(StatusCode::NOT_FOUND, "no such version, or its author does not count any more")
        })?),
    };
    let file = files.into_iter().find(|file| file.path == path);
    let (text, origin) = match (asked, file) {
        (Some(version), _) => {
            let row = definitions::find(&web, &caller, &version.event).await?;
            let which = if version.in_force { "the current version" } else { "an earlier version" };
            (
                definitions::text(&row),
                format!("{which}, made {} UTC", time::moment(&version.created_at.saturating_mul(1000))),
            )
        }
        (None, Some(file)) => (file.text, "the commit's file; there is no definition for it".to_owned()),
        (None, None) => (START.to_owned(), "a template: neither the commit nor a definition has this file".to_owned()),
    };
    let compared = match asked {
        Some(version) if !wanted.from.is_empty() => {
            let older = definitions::find(&web, &caller, &wanted.from).await?;
            if older.path != path || older.repository != address {
                return Err(Refusal::new(StatusCode::BAD_REQUEST, "only versions of one path can be compared").into());
            }
            let lines = definitions::compared(&web, client, (definitions::text(&older), text.clone())).await?;
            Some(Compared { from: older.event, to: version.event.clone(), lines })
        }
        _ => None,
    };
    let (newest, in_force) =
        (of_path().next().map_or(0, |version| version.created_at), counts.is_some_and(|one| !one.withdrawn));
    let shown = |event: &str| {
        (repositories::edit_page(&address, &path, Some(event)), definitions::before(&versions, &path, event))
    };
    let links: Vec<_> = of_path().map(|version| shown(&version.event)).collect();
    let versions = versions.into_iter().filter(|version| version.path == path).zip(links);
    let versions = versions.map(|(view, (page, before))| {
        let compare = before.map(|before| format!("{page}&from={before}"));
        Shown { view, page, compare }
    });
    let versions = versions.collect();
    let (shown_path, shown_text) = (path.clone(), text.clone());
    let permit = request_limits::permit(&web.limits.renderings, client, "checks of workflows")?;
    let labels = PoolLabels::of(&web).await?;
    let preview = tokio::task::spawn_blocking(move || (definitions::look(&shown_path, &shown_text, &labels), permit));
    let (preview, _) = preview.await.map_err(Refusal::from)?;
    let (name, back) = (repository_name(&address), repositories::page(&address));
    let address = address.as_str();
    let pool = &web.settings.name;
    rendered(&Edit {
        pool,
        name,
        address,
        back,
        paths,
        path,
        text,
        origin,
        preview,
        versions,
        newest,
        in_force,
        compared,
    })
}

/// Workflow files at the commit of the newest run that this reader may see.
async fn committed(web: &Web, caller: &Caller, address: &str) -> Result<Vec<super::File>, Refusal> {
    let filter = Filter { repository: Some(address.to_owned()), reader: caller.reader.clone(), ..Filter::default() };
    let runs = web.store.list(&filter, Page { before: None, limit: api::PAGE }).await?;
    match runs.into_iter().find(|run| !run.commit.is_empty()) {
        Some(run) => Ok(web.control.workflows(address, &run.commit).await?),
        None => Ok(Vec::new()),
    }
}

impl Shown {
    fn made(&self) -> String {
        time::moment(&self.view.created_at.saturating_mul(1000))
    }

    fn short_author(&self) -> String {
        people::short_npub(&self.view.author)
    }

    fn short_event(&self) -> &str {
        short(&self.view.event)
    }
}
