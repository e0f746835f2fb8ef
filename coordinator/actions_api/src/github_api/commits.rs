//! Commits and comparisons.

use serde_json::{Value, json};

use super::{Answer, Found, NoAnswer, Question};

/// Commits of one comparison whose pages are not asked for (GitHub's own limit).
const COMPARED: usize = 250;
/// Fields of a commit, each ended by a unit separator, and a record separator behind them.
const FORMAT: &str = "--format=%H%x1f%T%x1f%P%x1f%an%x1f%ae%x1f%aI%x1f%cn%x1f%ce%x1f%cI%x1f%B%x1e";

impl Question<'_> {
    pub(super) async fn commits(&self) -> Found<Answer> {
        let start = self.resolve(self.parameter("sha").unwrap_or_default()).await?;
        let (size, skip) = self.page();
        let filters = ["since", "until", "author", "committer"]
            .into_iter()
            .filter_map(|name| Some(format!("--{name}={}", self.parameter(name)?)));
        let filters: Vec<String> = filters.chain(["--fixed-strings".to_owned()]).collect();
        let path = self.parameter("path").map(|path| format!(":(literal){path}"));
        let tail = ["--end-of-options", &start, "--"].into_iter().chain(path.as_deref());
        let (most, skipped) = (format!("--max-count={}", size + 1), format!("--skip={skip}"));
        let words = ["log", FORMAT, &most, &skipped].into_iter().chain(filters.iter().map(String::as_str));
        let printed = self.git(&words.chain(tail.clone()).collect::<Vec<_>>()).await?.ok_or(NoAnswer::Missing)?;
        let mut commits = self.read_commits(&printed);
        let more = commits.len() > size;
        commits.truncate(size);
        let mut pages = None;
        if more {
            // Programs count commits by the number of the last page. Where counting takes too long, it is not said.
            let words = ["rev-list", "--count"].into_iter().chain(filters.iter().map(String::as_str));
            let counted = self.git(&words.chain(tail).collect::<Vec<_>>()).await.ok().flatten();
            pages = counted.and_then(|text| text.trim().parse::<usize>().ok()).map(|count| count.div_ceil(size));
        }
        Ok(Answer::Page { entries: commits.into(), more, pages })
    }

    fn read_commits(&self, printed: &str) -> Vec<Value> {
        printed.split('\u{1e}').filter_map(|record| self.read_commit(record.trim_start_matches('\n'))).collect()
    }

    fn read_commit(&self, record: &str) -> Option<Value> {
        let [sha, tree, parents, author, author_mail, authored, committer, committer_mail, committed, message] =
            record.splitn(10, '\u{1f}').collect::<Vec<_>>().try_into().ok()?;
        let parent = |id: &str| {
            json!({
                "sha": id, "url": self.url(&format!("/commits/{id}")), "html_url": self.page_url(&format!("/commit/{id}")),
            })
        };
        Some(json!({
            "sha": sha, "url": self.url(&format!("/commits/{sha}")), "html_url": self.page_url(&format!("/commit/{sha}")),
            "commit": {
                "author": { "name": author, "email": author_mail, "date": utc(authored) },
                "committer": { "name": committer, "email": committer_mail, "date": utc(committed) },
                "message": message.trim_end_matches('\n'),
                "tree": { "sha": tree, "url": self.url(&format!("/git/trees/{tree}")) },
                "url": self.url(&format!("/git/commits/{sha}")), "comment_count": 0,
            },
            "author": null, "committer": null, "parents": parents.split_whitespace().map(parent).collect::<Vec<_>>(),
        }))
    }

    /// A commit without its files.
    pub(super) async fn plain_commit(&self, id: &str) -> Found<Value> {
        let printed = self.git(&["log", FORMAT, "--max-count=1", "--end-of-options", id]).await?;
        printed.and_then(|printed| self.read_commits(&printed).pop()).ok_or(NoAnswer::Missing)
    }

    pub(super) async fn commit(&self, reference: &str) -> Found<Answer> {
        let id = self.resolve(reference).await?;
        match self.media {
            "sha" => return Ok(Answer::Bytes("sha", id.into_bytes())),
            "diff" => return self.diff_text(&["--root", "--first-parent", "-m", "--no-commit-id", &id]).await,
            "patch" => return self.patch_text(&["-1", "--root", "--end-of-options", &id]).await,
            _ => {}
        }
        let mut commit = self.plain_commit(&id).await?;
        let files = self.files(&["--root", "-m", "--first-parent", "--no-commit-id", &id]).await?;
        let sum = |key: &str| files.iter().filter_map(|file| file[key].as_u64()).sum::<u64>();
        let (additions, deletions) = (sum("additions"), sum("deletions"));
        commit["stats"] = json!({ "additions": additions, "deletions": deletions, "total": additions + deletions });
        commit["files"] = files.into();
        Ok(Answer::Json(commit))
    }

    /// A commit as the git database has it.
    pub(super) async fn git_commit(&self, id: &str) -> Found<Value> {
        let id = self.resolve_id(id).await?;
        let mut found = self.plain_commit(&id).await?;
        let mut commit = found["commit"].take();
        commit["sha"] = id.into();
        commit["parents"] = found["parents"].take();
        commit["html_url"] = found["html_url"].take();
        commit["verification"] = json!({ "verified": false, "reason": "unsigned", "signature": null, "payload": null });
        Ok(commit)
    }

    pub(super) async fn compare(&self, range: &str) -> Found<Answer> {
        let (base, head) = range.split_once("...").or_else(|| range.split_once("..")).ok_or(NoAnswer::Missing)?;
        // `OWNER:BRANCH` names a fork as a rule; here there is none but the repository itself.
        let owner = self.text("repository").split('/').next().unwrap_or_default();
        let own = |side| match str::split_once(side, ':') {
            Some((who, branch)) if who.eq_ignore_ascii_case(owner) => branch,
            _ => side,
        };
        let (base, head) = (self.resolve(own(base)).await?, self.resolve(own(head)).await?);
        let merge = self.git(&["merge-base", &base, &head]).await?.ok_or(NoAnswer::Missing)?.trim().to_owned();
        let between = format!("{base}..{head}");
        match self.media {
            "diff" => return self.diff_text(&[&merge, &head]).await,
            "patch" => return self.patch_text(&["--end-of-options", &between]).await,
            _ => {}
        }
        let count = |range: String| async move {
            let printed = self.git(&["rev-list", "--count", "--end-of-options", &range]).await?;
            Found::Ok(printed.and_then(|text| text.trim().parse::<usize>().ok()).unwrap_or_default())
        };
        let (ahead, behind) = (count(between.clone()).await?, count(format!("{head}..{base}")).await?);
        let status = match (ahead, behind) {
            (0, 0) => "identical",
            (_, 0) => "ahead",
            (0, _) => "behind",
            _ => "diverged",
        };
        // By pages it goes from the oldest on; without, it is the newest that are given.
        let paged = self.parameter("page").or(self.parameter("per_page")).is_some();
        let size = if paged { self.number("per_page", COMPARED).clamp(1, COMPARED) } else { COMPARED };
        let before = if paged { (self.page_number() - 1).saturating_mul(size) } else { ahead.saturating_sub(size) };
        let end = before.saturating_add(size).min(ahead);
        let (most, skip) = (format!("--max-count={}", end.saturating_sub(before)), format!("--skip={}", ahead - end));
        let words = ["log", "--reverse", FORMAT, &most, &skip, "--end-of-options", &between];
        let commits = self.read_commits(&self.git(&words).await?.unwrap_or_default());
        let files = if self.page_number() == 1 { self.files(&[&merge, &head]).await? } else { Vec::new() };
        let page = self.page_url(&format!("/compare/{base}...{head}"));
        let entries = json!({
            "url": self.url(&format!("/compare/{base}...{head}")), "html_url": page, "permalink_url": page,
            "diff_url": format!("{page}.diff"), "patch_url": format!("{page}.patch"),
            "status": status, "ahead_by": ahead, "behind_by": behind, "total_commits": ahead,
            "base_commit": self.plain_commit(&base).await?, "merge_base_commit": self.plain_commit(&merge).await?,
            "commits": commits, "files": files,
        });
        Ok(Answer::Page { entries, more: paged && end < ahead, pages: Some(ahead.div_ceil(size)) })
    }
}

/// A time as GitHub writes it, in UTC.
pub(super) fn utc(time: &str) -> String {
    time.parse::<jiff::Timestamp>()
        .map_or_else(|_| time.to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}
