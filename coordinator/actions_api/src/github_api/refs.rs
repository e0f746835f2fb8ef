//! Branches, tags and other refs, and the commits that they hold.

use serde_json::{Value, json};

use super::{Answer, Found, NoAnswer, Question};

/// Fields of a tag object, each ended by a unit separator.
const TAG: &str = "--format=%(objecttype)%1f%(objectname)%1f%(object)%1f%(type)%1f%(tag)%1f%(taggername)%1f\
                   %(taggeremail:trim)%1f%(taggerdate:iso-strict)%1f%(contents)%1e";

impl Question<'_> {
    /// The commit that a branch, a tag, a full ref or an id stands for, where one of the refs holds it.
    pub(super) async fn resolve(&self, reference: &str) -> Found<String> {
        let own = self.text("sha");
        let reference = if reference.is_empty() || reference == "HEAD" { own } else { reference };
        let full = reference.starts_with("refs/").then(|| reference.to_owned());
        let short = reference.strip_prefix("heads/").or_else(|| reference.strip_prefix("tags/")).unwrap_or(reference);
        let names = full.into_iter().chain([format!("refs/heads/{short}"), format!("refs/tags/{short}")]);
        for name in names {
            if let Some(found) = self.held(&name).await? {
                return Ok(found);
            }
        }
        self.resolve_id(reference).await
    }

    /// The commit of an id, or of its beginning, where one of the refs holds it.
    pub(super) async fn resolve_id(&self, id: &str) -> Found<String> {
        let is_id = (7..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let found = if is_id { self.held(id).await? } else { None };
        found.ok_or(NoAnswer::Missing)
    }

    async fn held(&self, name: &str) -> Found<Option<String>> {
        let commit = format!("{name}^{{commit}}");
        let Some(found) = self.git(&["rev-parse", "--verify", "--quiet", "--end-of-options", &commit]).await? else {
            return Ok(None);
        };
        let id = found.trim().to_owned();
        if id == self.text("sha") {
            return Ok(Some(id));
        }
        let held = self.git(&["for-each-ref", "--count=1", &format!("--contains={id}")]).await?;
        Ok(held.filter(|held| !held.trim().is_empty()).map(|_| id))
    }

    /// Refs whose names begin so: name, object, its type.
    async fn listed(&self, prefix: &str) -> Found<Vec<[String; 3]>> {
        let format = "--format=%(refname)%09%(objectname)%09%(objecttype)";
        let printed = self.git(&["for-each-ref", format, "refs/heads", "refs/tags", "refs/pull"]).await?;
        let printed = printed.unwrap_or_default();
        let lines = printed.lines().filter(|line| line.starts_with(prefix));
        let parts = |line: &str| line.split('\t').map(str::to_owned).collect::<Vec<_>>().try_into().ok();
        Ok(lines.filter_map(parts).collect())
    }

    pub(super) async fn references(&self, prefix: &str) -> Found<Value> {
        let all = self.listed(prefix).await?;
        let one = |[name, id, kind]: &[String; 3]| {
            let object = json!({ "sha": id, "type": kind, "url": self.url(&format!("/git/{kind}s/{id}")) });
            json!({ "ref": name, "url": self.url(&format!("/git/{name}")), "object": object })
        };
        Ok(all.iter().map(one).collect::<Vec<_>>().into())
    }

    pub(super) async fn reference(&self, name: &str) -> Found<Value> {
        let full = format!("refs/{name}");
        let Value::Array(all) = self.references(&full).await? else { return Err(NoAnswer::Missing) };
        all.into_iter().find(|one| one["ref"] == full).ok_or(NoAnswer::Missing)
    }

    /// Branches or tags.
    pub(super) async fn named(&self, prefix: &str) -> Found<Answer> {
        let (page, more, pages) = self.page_of(self.listed(prefix).await?);
        let mut found = Vec::new();
        for [name, ..] in page {
            let id = self.resolve(&name).await?;
            let short = name.strip_prefix(prefix).unwrap_or(&name);
            let commit = json!({ "sha": id, "url": self.url(&format!("/commits/{id}")) });
            found.push(json!({ "name": short, "commit": commit, "protected": false }));
        }
        Ok(Answer::Page { entries: found.into(), more, pages })
    }

    pub(super) async fn branch(&self, name: &str) -> Found<Value> {
        let id = self.resolve(&format!("refs/heads/{name}")).await?;
        Ok(json!({ "name": name, "commit": self.plain_commit(&id).await?, "protected": false }))
    }

    /// A tag object that one of the tags is.
    pub(super) async fn git_tag(&self, id: &str) -> Found<Value> {
        let printed = self.git(&["for-each-ref", TAG, "refs/tags"]).await?.unwrap_or_default();
        let records = printed.split('\u{1e}').map(|record| record.trim_start_matches('\n').splitn(9, '\u{1f}'));
        let records = records.filter_map(|fields| <[&str; 9]>::try_from(fields.collect::<Vec<_>>()).ok());
        let [_, _, object, kind, name, tagger, mail, at, message] =
            records.into_iter().find(|[kind, tag, ..]| *kind == "tag" && *tag == id).ok_or(NoAnswer::Missing)?;
        Ok(json!({
            "tag": name, "sha": id, "url": self.url(&format!("/git/tags/{id}")), "message": message,
            "tagger": { "name": tagger, "email": mail, "date": super::commits::utc(at) },
            "object": { "type": kind, "sha": object, "url": self.url(&format!("/git/{kind}s/{object}")) },
            "verification": { "verified": false, "reason": "unsigned", "signature": null, "payload": null },
        }))
    }
}
