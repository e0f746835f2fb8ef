//! The part of GitHub's REST API that a job's own repository and run can answer; everything else is `501` with a remedy.
//!
//! Shapes after GitHub's REST reference (commits, comparisons, contents, git references, branches, tags, workflow runs and
//! jobs), with the fields that programs of actions read. Reading only.

use std::collections::HashMap;

use axum::{
    Json,
    extract::{Path, Query, Request, State},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use domain::run::{JobPhase, RunPhase, RunState};
use serde_json::{Value, json};
use workflow::plan::Conclusion;

use super::{ActionsApi, Caller, caller};

/// Entries of one page, at most (GitHub's own limit).
const PAGE: usize = 100;
/// Files of one commit or comparison (GitHub's own limit).
const FILES: usize = 300;
/// Commits of one comparison.
const COMMITS: usize = 250;
/// Bytes of a file that is given whole (GitHub's own limit).
const CONTENT: usize = 1 << 20;
/// Fields of a commit, each ended by a unit separator, and a record separator behind them.
const FORMAT: &str = "--format=%H%x1f%T%x1f%P%x1f%an%x1f%ae%x1f%aI%x1f%cn%x1f%ce%x1f%cI%x1f%B%x1e";

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

type Answer = Result<Value, NoAnswer>;

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
    match (Question { api: &api, caller: &caller, parameters: &parameters }).answer(&rest).await {
        Ok(value) => Json(value).into_response(),
        Err(NoAnswer::Missing) => (StatusCode::NOT_FOUND, Json(json!({ "message": "Not Found" }))).into_response(),
        Err(NoAnswer::Unknown) => not_here(),
        Err(NoAnswer::Failed(why)) => {
            (StatusCode::SERVICE_UNAVAILABLE, Json(json!({ "message": why }))).into_response()
        }
    }
}

pub(super) fn not_here() -> Response {
    let message = "This is not GitHub: of its API a job has here what its own repository and run can answer, for reading \
                   (commits, compare, contents, git/ref, branches, tags, actions/runs). For GitHub's own, give the step a \
                   token of yours as a secret and `env: {GITHUB_API_URL: https://api.github.com}`, or remove the call.";
    (StatusCode::NOT_IMPLEMENTED, Json(json!({ "message": message }))).into_response()
}

struct Question<'a> {
    api: &'a ActionsApi,
    caller: &'a Caller,
    parameters: &'a Parameters,
}

impl Question<'_> {
    async fn answer(&self, rest: &[&str]) -> Answer {
        match rest {
            [] => Ok(self.repository()),
            ["commits"] => self.commits().await,
            ["commits", reference @ ..] => self.commit(&reference.join("/"), true).await,
            ["compare", range @ ..] => self.compare(&range.join("/")).await,
            ["contents", path @ ..] => self.contents(&path.join("/")).await,
            ["git", "ref", name @ ..] => self.reference(&name.join("/")).await,
            ["git", "matching-refs", name @ ..] => self.references(&format!("refs/{}", name.join("/"))).await,
            ["branches"] => self.named("refs/heads/").await,
            ["branches", name @ ..] => self.branch(&name.join("/")).await,
            ["tags"] => self.named("refs/tags/").await,
            ["actions", "runs", id] => Ok(self.run(id).await?.0),
            ["actions", "runs", id, "jobs"] => Ok(self.run(id).await?.1),
            _ => Err(NoAnswer::Unknown),
        }
    }

    /// What git prints, asked in the job's repository; `None`: it says no.
    async fn git(&self, arguments: &[&str]) -> Result<Option<String>, NoAnswer> {
        let repositories = self.api.repositories.clone().ok_or(NoAnswer::Unknown)?;
        let arguments = arguments.iter().map(|word| (*word).to_owned()).collect();
        let printed = repositories.read(self.caller.identity.clone(), arguments).await.map_err(NoAnswer::Failed)?;
        Ok(printed.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
    }

    /// The commit that a branch, a tag, a full ref or an id stands for, where one of the refs holds it.
    async fn resolve(&self, reference: &str) -> Result<String, NoAnswer> {
        let own = text(self.caller, "sha");
        let reference = if reference.is_empty() || reference == "HEAD" { own } else { reference };
        let full = reference.starts_with("refs/").then(|| reference.to_owned());
        let short = reference.strip_prefix("heads/").or_else(|| reference.strip_prefix("tags/")).unwrap_or(reference);
        let names = full.into_iter().chain([format!("refs/heads/{short}"), format!("refs/tags/{short}")]);
        for name in names.chain(is_id(reference).then(|| reference.to_owned())) {
            let commit = format!("{name}^{{commit}}");
            let Some(found) = self.git(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await?
            else {
                continue;
            };
            let id = found.trim().to_owned();
            let held = self.git(&["for-each-ref", "--count=1", &format!("--contains={id}")]).await?;
            if id == own || held.is_some_and(|held| !held.trim().is_empty()) {
                return Ok(id);
            }
        }
        Err(NoAnswer::Missing)
    }

    fn url(&self, below: &str) -> String {
        format!("{}/repos/{}{below}", text(self.caller, "api_url"), text(self.caller, "repository"))
    }

    fn repository(&self) -> Value {
        let full = text(self.caller, "repository");
        let (owner, name) = full.split_once('/').unwrap_or(("", full));
        let page = format!("{}/{full}", text(self.caller, "server_url"));
        let event = self.caller.identity.github.get("event");
        let branch = event.and_then(|event| event["repository"]["default_branch"].as_str()).unwrap_or("main");
        json!({
            "name": name, "full_name": full, "private": false, "fork": false, "archived": false, "disabled": false,
            "owner": { "login": owner, "type": "User" }, "default_branch": branch, "url": self.url(""),
            "html_url": page, "clone_url": format!("{page}.git"), "topics": [],
            "permissions": { "admin": false, "push": false, "pull": true },
        })
    }

    fn number(&self, key: &str, default: usize) -> usize {
        self.parameters.get(key).and_then(|text| text.parse().ok()).unwrap_or(default)
    }

    fn page(&self) -> (usize, usize) {
        let size = self.number("per_page", 30).clamp(1, PAGE);
        (size, self.number("page", 1).saturating_sub(1).saturating_mul(size))
    }

    async fn commits(&self) -> Answer {
        let start = self.resolve(self.parameters.get("sha").map_or("", String::as_str)).await?;
        let (size, skip) = self.page();
        let (size, skip) = (format!("--max-count={size}"), format!("--skip={skip}"));
        let mut words = vec!["log", FORMAT, &size, &skip, "--end-of-options", &start, "--"];
        let path = self.parameters.get("path").filter(|path| !path.is_empty()).map(|path| format!(":(literal){path}"));
        words.extend(path.as_deref());
        let printed = self.git(&words).await?.ok_or(NoAnswer::Missing)?;
        Ok(self.read_commits(&printed).into())
    }

    fn read_commits(&self, printed: &str) -> Vec<Value> {
        printed.split('\u{1e}').filter_map(|record| self.read_commit(record.trim_start_matches('\n'))).collect()
    }

    fn read_commit(&self, record: &str) -> Option<Value> {
        let [sha, tree, parents, author, author_mail, authored, committer, committer_mail, committed, message] =
            record.splitn(10, '\u{1f}').collect::<Vec<_>>().try_into().ok()?;
        let page = format!("{}/{}/commit/{sha}", text(self.caller, "server_url"), text(self.caller, "repository"));
        let parent = |id: &str| json!({ "sha": id, "url": self.url(&format!("/commits/{id}")) });
        Some(json!({
            "sha": sha, "url": self.url(&format!("/commits/{sha}")), "html_url": page,
            "commit": {
                "author": { "name": author, "email": author_mail, "date": authored },
                "committer": { "name": committer, "email": committer_mail, "date": committed },
                "message": message.trim_end_matches('\n'), "tree": { "sha": tree }, "comment_count": 0,
            },
            "author": null, "committer": null, "parents": parents.split_whitespace().map(parent).collect::<Vec<_>>(),
        }))
    }

    async fn commit(&self, reference: &str, with_files: bool) -> Answer {
        let id = self.resolve(reference).await?;
        let printed = self.git(&["log", FORMAT, "--max-count=1", "--end-of-options", &id]).await?;
        let mut commit = printed.and_then(|printed| self.read_commits(&printed).pop()).ok_or(NoAnswer::Missing)?;
        if with_files {
            let files =
                self.files(&["diff-tree", "--root", "-r", "-M", "-m", "--first-parent", "--no-commit-id", &id]).await?;
            let sum = |key: &str| files.iter().filter_map(|file| file[key].as_u64()).sum::<u64>();
            let (additions, deletions) = (sum("additions"), sum("deletions"));
            commit["stats"] = json!({ "additions": additions, "deletions": deletions, "total": additions + deletions });
            commit["files"] = files.into();
        }
        Ok(commit)
    }

    /// The files that a diff names, with their lines counted.
    async fn files(&self, diff: &[&str]) -> Result<Vec<Value>, NoAnswer> {
        let (command, rest) = diff.split_first().ok_or(NoAnswer::Unknown)?;
        let with = |kind: &'static str| -> Vec<&str> {
            [command, &kind, &"-z"].into_iter().copied().chain(rest.iter().copied()).collect()
        };
        let states = self.git(&with("--name-status")).await?.ok_or(NoAnswer::Missing)?;
        let counts = self.git(&with("--numstat")).await?.ok_or(NoAnswer::Missing)?;
        let counts = counted(&counts);
        let mut words = states.split('\0').filter(|word| !word.is_empty());
        let mut files = Vec::new();
        while let (Some(state), true) = (words.next(), files.len() < FILES) {
            let first = words.next().unwrap_or_default();
            let moved = state.starts_with(['R', 'C']);
            let name = if moved { words.next().unwrap_or_default() } else { first };
            let status = match state.chars().next() {
                Some('A') => "added",
                Some('D') => "removed",
                Some('R') => "renamed",
                Some('C') => "copied",
                _ => "modified",
            };
            let (additions, deletions) = counts.get(name).copied().unwrap_or_default();
            let mut file = json!({
                "filename": name, "status": status, "additions": additions, "deletions": deletions,
                "changes": additions + deletions, "sha": null,
            });
            if moved {
                file["previous_filename"] = first.into();
            }
            files.push(file);
        }
        Ok(files)
    }

    async fn compare(&self, range: &str) -> Answer {
        let (base, head) = range.split_once("...").or_else(|| range.split_once("..")).ok_or(NoAnswer::Missing)?;
        let (base, head) = (self.resolve(base).await?, self.resolve(head).await?);
        let merge = self.git(&["merge-base", &base, &head]).await?.ok_or(NoAnswer::Missing)?.trim().to_owned();
        let count = |range: String| async move {
            let printed = self.git(&["rev-list", "--count", "--end-of-options", &range]).await?;
            Ok::<u64, NoAnswer>(printed.and_then(|text| text.trim().parse().ok()).unwrap_or_default())
        };
        let (ahead, behind) = (count(format!("{base}..{head}")).await?, count(format!("{head}..{base}")).await?);
        let status = match (ahead, behind) {
            (0, 0) => "identical",
            (_, 0) => "ahead",
            (0, _) => "behind",
            _ => "diverged",
        };
        let most = format!("--max-count={COMMITS}");
        let between = format!("{base}..{head}");
        let printed = self.git(&["log", "--reverse", FORMAT, &most, "--end-of-options", &between]).await?;
        let commits = self.read_commits(&printed.unwrap_or_default());
        let files = self.files(&["diff-tree", "-r", "-M", &merge, &head]).await?;
        Ok(json!({
            "status": status, "ahead_by": ahead, "behind_by": behind, "total_commits": ahead,
            "base_commit": self.commit(&base, false).await?, "merge_base_commit": self.commit(&merge, false).await?,
            "commits": commits, "files": files,
        }))
    }

    async fn contents(&self, path: &str) -> Answer {
        let commit = self.resolve(self.parameters.get("ref").map_or("", String::as_str)).await?;
        let object = format!("{commit}:{path}");
        let kind = self.git(&["cat-file", "-t", &object]).await?.ok_or(NoAnswer::Missing)?;
        let id = self.git(&["rev-parse", "--verify", "--end-of-options", &object]).await?.ok_or(NoAnswer::Missing)?;
        let entry = |kind: &str, path: &str, id: &str, size: u64| {
            let name = path.rsplit('/').next().unwrap_or_default();
            json!({ "type": kind, "name": name, "path": path, "sha": id, "size": size, "url": self.url(&format!("/contents/{path}?ref={commit}")) })
        };
        if kind.trim() == "tree" {
            let listed = self.git(&["ls-tree", "-l", "-z", &object]).await?.ok_or(NoAnswer::Missing)?;
            let entries = listed.split('\0').filter_map(|line| {
                let (facts, name) = line.split_once('\t')?;
                let facts: Vec<&str> = facts.split_whitespace().collect();
                let [mode, kind, id, size] = <[&str; 4]>::try_from(facts).ok()?;
                let kind = match (kind, mode) {
                    ("tree", _) => "dir",
                    ("commit", _) => "submodule",
                    (_, "120000") => "symlink",
                    _ => "file",
                };
                let path = if path.is_empty() { name.to_owned() } else { format!("{path}/{name}") };
                Some(entry(kind, &path, id, size.parse().unwrap_or_default()))
            });
            return Ok(entries.collect::<Vec<_>>().into());
        }
        let size = self.git(&["cat-file", "-s", &object]).await?.and_then(|size| size.trim().parse::<usize>().ok());
        let size = size.ok_or(NoAnswer::Missing)?;
        let mut file = entry("file", path, id.trim(), size as u64);
        if size > CONTENT {
            file["encoding"] = "none".into();
            file["content"] = "".into();
            return Ok(file);
        }
        let repositories = self.api.repositories.clone().ok_or(NoAnswer::Unknown)?;
        let words = ["cat-file", "blob", &object].map(str::to_owned).to_vec();
        let bytes = repositories.read(self.caller.identity.clone(), words).await.map_err(NoAnswer::Failed)?;
        file["encoding"] = "base64".into();
        file["content"] = STANDARD.encode(bytes.ok_or(NoAnswer::Missing)?).into();
        Ok(file)
    }

    /// Refs whose names begin so: name, object, its type.
    async fn listed(&self, prefix: &str) -> Result<Vec<[String; 3]>, NoAnswer> {
        let printed = self
            .git(&[
                "for-each-ref",
                "--format=%(refname)%09%(objectname)%09%(objecttype)",
                "refs/heads",
                "refs/tags",
                "refs/pull",
            ])
            .await?;
        let printed = printed.unwrap_or_default();
        let lines = printed.lines().filter(|line| line.starts_with(prefix));
        let parts = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().ok();
        Ok(lines.filter_map(parts).collect())
    }

    async fn references(&self, prefix: &str) -> Answer {
        let all = self.listed(prefix).await?;
        let one = |[name, id, kind]: &[String; 3]| json!({ "ref": name, "url": self.url(&format!("/git/{name}")), "object": { "sha": id, "type": kind } });
        Ok(all.iter().map(one).collect::<Vec<_>>().into())
    }

    async fn reference(&self, name: &str) -> Answer {
        let full = format!("refs/{name}");
        let Value::Array(all) = self.references(&full).await? else { return Err(NoAnswer::Missing) };
        all.into_iter().find(|one| one["ref"] == full).ok_or(NoAnswer::Missing)
    }

    async fn named(&self, prefix: &str) -> Answer {
        let (size, skip) = self.page();
        let mut found = Vec::new();
        for [name, ..] in self.listed(prefix).await?.into_iter().skip(skip).take(size) {
            let id = self.resolve(&name).await?;
            let short = name.strip_prefix(prefix).unwrap_or(&name);
            found.push(json!({ "name": short, "commit": { "sha": id, "url": self.url(&format!("/commits/{id}")) }, "protected": false }));
        }
        Ok(found.into())
    }

    async fn branch(&self, name: &str) -> Answer {
        let commit = self.commit(&format!("refs/heads/{name}"), false).await?;
        Ok(json!({ "name": name, "commit": commit, "protected": false }))
    }

    /// This run, and its jobs.
    async fn run(&self, id: &str) -> Result<(Value, Value), NoAnswer> {
        if id != text(self.caller, "run_id") {
            return Err(NoAnswer::Missing);
        }
        let found = self.api.store.run(&self.caller.identity.run).await;
        let state = found.map_err(|error| NoAnswer::Failed(error.to_string()))?.ok_or(NoAnswer::Unknown)?;
        Ok((self.shown_run(id, &state), self.shown_jobs(id, &state)))
    }

    fn shown_run(&self, id: &str, state: &RunState) -> Value {
        let page = format!("{}/{}/actions/runs/{id}", text(self.caller, "server_url"), text(self.caller, "repository"));
        let end = match &state.phase {
            RunPhase::Done { end, .. } | RunPhase::Finalizing { end } => Some(end.conclusion),
            _ => None,
        };
        json!({
            "id": id.parse::<u64>().ok(), "name": text(self.caller, "workflow"), "event": text(self.caller, "event_name"),
            "head_sha": text(self.caller, "sha"), "head_branch": text(self.caller, "ref_name"), "run_number": state.number,
            "run_attempt": state.attempt, "status": if end.is_some() { "completed" } else { "in_progress" },
            "conclusion": end.map(Conclusion::as_str), "url": self.url(&format!("/actions/runs/{id}")), "html_url": page,
            "jobs_url": self.url(&format!("/actions/runs/{id}/jobs")), "created_at": time(state.created_at),
        })
    }

    fn shown_jobs(&self, run: &str, state: &RunState) -> Value {
        let jobs: Vec<Value> = state
            .jobs
            .iter()
            .map(|(key, job)| {
                let conclusion = job.conclusion().map(Conclusion::as_str);
                let status = match &job.phase {
                    _ if conclusion.is_some() => "completed",
                    JobPhase::Running { .. } => "in_progress",
                    JobPhase::Queued { .. } => "queued",
                    _ => "waiting",
                };
                json!({
                    "id": key.as_str(), "run_id": run.parse::<u64>().ok(), "name": job.name, "status": status,
                    "conclusion": conclusion, "labels": job.labels, "head_sha": text(self.caller, "sha"), "steps": [],
                    "run_attempt": state.attempt,
                })
            })
            .collect();
        json!({ "total_count": jobs.len(), "jobs": jobs })
    }
}

/// Lines added and removed by name, as `--numstat -z` prints them: a name that was moved stands behind both.
fn counted(printed: &str) -> HashMap<&str, (u64, u64)> {
    let mut counts = HashMap::new();
    let mut words = printed.split('\0').filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let mut parts = word.splitn(3, '\t');
        let (Some(added), Some(removed)) = (parts.next(), parts.next()) else { continue };
        let name = match parts.next() {
            Some("") | None => {
                words.next();
                words.next().unwrap_or_default()
            }
            Some(name) => name,
        };
        counts.insert(name, (added.parse().unwrap_or_default(), removed.parse().unwrap_or_default()));
    }
    counts
}

fn is_id(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn time(at: u64) -> Option<String> {
    let at = i64::try_from(at).ok().and_then(|at| jiff::Timestamp::from_millisecond(at).ok())?;
    Some(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn text<'c>(caller: &'c Caller, key: &str) -> &'c str {
    caller.identity.github.get(key).and_then(Value::as_str).unwrap_or_default()
}
