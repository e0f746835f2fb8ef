//! Files that two trees differ in, and differences as text.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Answer, Found, NoAnswer, Question};

/// Files of one commit or comparison (GitHub's own limit).
const FILES: usize = 300;
/// Longest difference of one file that stands with it, in bytes.
const PATCH: usize = 64 << 10;
/// No program that attributes of the repository name is run.
const DIFF: [&str; 5] = ["diff-tree", "-r", "-M", "--no-ext-diff", "--no-textconv"];

impl Question<'_> {
    /// The difference of two trees as text.
    pub(super) async fn diff_text(&self, between: &[&str]) -> Found<Answer> {
        let printed = self.git_bytes(&[&DIFF, &["-p"][..], between].concat()).await?.ok_or(NoAnswer::Missing)?;
        Ok(Answer::Bytes("diff", printed))
    }

    /// Commits as mails, each with its difference.
    pub(super) async fn patch_text(&self, range: &[&str]) -> Found<Answer> {
        let words = [&["format-patch", "--stdout", "--no-ext-diff", "--no-textconv"][..], range].concat();
        Ok(Answer::Bytes("patch", self.git_bytes(&words).await?.ok_or(NoAnswer::Missing)?))
    }

    /// The files that two trees differ in, with their lines counted and their differences.
    pub(super) async fn files(&self, between: &[&str]) -> Found<Vec<Value>> {
        let with = |form: &[&'static str]| [&DIFF[..], form, between].concat();
        let listed = self.git(&with(&["--raw", "-z"])).await?.ok_or(NoAnswer::Missing)?;
        let counts = self.git(&with(&["--numstat", "-z"])).await?.ok_or(NoAnswer::Missing)?;
        let counts = counted(&counts);
        // What is too much to be looked up is left out, as GitHub leaves out what is too long.
        let text = self.git(&with(&["-p"])).await.ok().flatten().unwrap_or_default();
        let mut patches = patches(&text);
        let mut words = listed.split('\0').filter(|word| !word.is_empty());
        let mut files = Vec::new();
        while let (Some(facts), true) = (words.next(), files.len() < FILES) {
            // `:100644 100644 OLD NEW M`
            let facts: Vec<&str> = facts.split(' ').collect();
            let [_, _, old, new, state] = <[&str; 5]>::try_from(facts).map_err(|_| NoAnswer::Missing)?;
            let first = words.next().unwrap_or_default();
            let moved = state.starts_with(['R', 'C']);
            let name = if moved { words.next().unwrap_or_default() } else { first };
            let (status, id) = match state.chars().next() {
                Some('A') => ("added", new),
                Some('D') => ("removed", old),
                Some('R') => ("renamed", new),
                Some('C') => ("copied", new),
                _ => ("modified", new),
            };
            let (additions, deletions) = counts.get(name).copied().unwrap_or_default();
            let mut file = json!({
                "sha": id, "filename": name, "status": status, "additions": additions, "deletions": deletions,
                "changes": additions + deletions,
            });
            if moved {
                file["previous_filename"] = first.into();
            }
            let patch = patches.next();
            // A file that became a link, or the other way round: one difference removes it, the next one brings it.
            let patch = if state.starts_with('T') { patches.next() } else { patch };
            if let Some(patch) = patch.filter(|patch| !patch.is_empty() && patch.len() <= PATCH) {
                file["patch"] = patch.into();
            }
            files.push(file);
        }
        Ok(files)
    }
}

/// The differences of files, in their order: from the first hunk on, empty where there is none.
fn patches(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest.starts_with("diff --git ").then_some(())?;
        // Lines of files begin with a sign.
        let end = rest.find("\ndiff --git ").map_or(rest.len(), |at| at + 1);
        let (one, after) = rest.split_at(end);
        rest = after;
        let hunks = one.find("\n@@ ").and_then(|at| one.get(at + 1..)).unwrap_or_default();
        Some(hunks.trim_end_matches('\n'))
    })
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
