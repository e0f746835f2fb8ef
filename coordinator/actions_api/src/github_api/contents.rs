//! Files and folders of a commit.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{Answer, Found, NoAnswer, Question};

/// Bytes of a file that is given whole (GitHub's own limit).
const CONTENT: usize = 1 << 20;
/// Entries of a tree (GitHub's own limit).
const TREE: usize = 100_000;

/// A line of `ls-tree -l`.
struct Entry<'p> {
    mode: &'p str,
    kind: &'p str,
    id: &'p str,
    size: Option<u64>,
    path: &'p str,
}

fn entries(printed: &str) -> impl Iterator<Item = Entry<'_>> {
    printed.split('\0').filter_map(|line| {
        let (facts, path) = line.split_once('\t')?;
        let facts: Vec<&str> = facts.split_whitespace().collect();
        let [mode, kind, id, size] = <[&str; 4]>::try_from(facts).ok()?;
        Some(Entry { mode, kind, id, size: size.parse().ok(), path })
    })
}

impl Question<'_> {
    pub(super) async fn contents(&self, path: &str) -> Found<Answer> {
        let commit = self.resolve(self.parameter("ref").unwrap_or_default()).await?;
        let object = format!("{commit}:{path}");
        let kind = self.git(&["cat-file", "-t", &object]).await?.ok_or(NoAnswer::Missing)?;
        if kind.trim() == "tree" {
            let listed = self.git(&["ls-tree", "-l", "-z", &object]).await?.ok_or(NoAnswer::Missing)?;
            let shown = entries(&listed).map(|entry| {
                let kind = match (entry.kind, entry.mode) {
                    ("tree", _) => "dir",
                    ("commit", _) => "submodule",
                    (_, "120000") => "symlink",
                    _ => "file",
                };
                let path = if path.is_empty() { entry.path.to_owned() } else { format!("{path}/{}", entry.path) };
                self.content(kind, &path, entry.id, entry.size.unwrap_or_default(), &commit)
            });
            return Ok(Answer::Json(shown.collect::<Vec<_>>().into()));
        }
        if self.media == "raw" {
            return Ok(Answer::Bytes(
                "raw",
                self.git_bytes(&["cat-file", "blob", &object]).await?.ok_or(NoAnswer::Missing)?,
            ));
        }
        let id = self.git(&["rev-parse", "--verify", "--end-of-options", &object]).await?.ok_or(NoAnswer::Missing)?;
        let size = self.git(&["cat-file", "-s", &object]).await?.and_then(|size| size.trim().parse::<usize>().ok());
        let size = size.ok_or(NoAnswer::Missing)?;
        let mut file = self.content("file", path, id.trim(), size as u64, &commit);
        let (encoding, content) = match size {
            0..=CONTENT => {
                let bytes = self.git_bytes(&["cat-file", "blob", &object]).await?.ok_or(NoAnswer::Missing)?;
                ("base64", STANDARD.encode(bytes))
            }
            _ => ("none", String::new()),
        };
        file["encoding"] = encoding.into();
        file["content"] = content.into();
        Ok(Answer::Json(file))
    }

    fn content(&self, kind: &str, path: &str, id: &str, size: u64, commit: &str) -> Value {
        let name = path.rsplit('/').next().unwrap_or_default();
        let url = self.url(&format!("/contents/{path}?ref={commit}"));
        json!({ "type": kind, "name": name, "path": path, "sha": id, "size": size, "url": url })
    }

    /// The tree of a commit: by its own id, where a ref holds the commit, or by what stands for the commit.
    pub(super) async fn tree(&self, asked: &str) -> Found<Value> {
        let commit = match self.resolve(asked).await {
            Ok(commit) => commit,
            Err(NoAnswer::Missing) => {
                let all = self.git(&["log", "--all", "--format=%T %H"]).await?.unwrap_or_default();
                let found = all.lines().find_map(|line| line.strip_prefix(asked)?.strip_prefix(' '));
                // Of a folder within one it is not known whether a ref holds it.
                found.ok_or(NoAnswer::Unknown)?.to_owned()
            }
            Err(error) => return Err(error),
        };
        let root = format!("{commit}^{{tree}}");
        let id = self.git(&["rev-parse", "--verify", "--end-of-options", &root]).await?.ok_or(NoAnswer::Missing)?;
        let deep = if self.parameter("recursive").is_some() { &["-r", "-t"][..] } else { &[] };
        let words = [&["ls-tree", "-l", "-z"][..], deep, &[root.as_str()][..]].concat();
        let listed = self.git(&words).await?.ok_or(NoAnswer::Missing)?;
        let mut shown: Vec<Value> = entries(&listed)
            .take(TREE + 1)
            .map(|Entry { mode, kind, id, size, path }| {
                let mut entry = json!({ "path": path, "mode": mode, "type": kind, "sha": id });
                if let Some(size) = size {
                    entry["size"] = size.into();
                }
                entry
            })
            .collect();
        let truncated = shown.len() > TREE;
        shown.truncate(TREE);
        let id = id.trim();
        Ok(json!({ "sha": id, "url": self.url(&format!("/git/trees/{id}")), "tree": shown, "truncated": truncated }))
    }
}
