//! What `uses:` of a step names. Pure.
//!
//! Source of the rules: GitHub docs, "jobs.<job_id>.steps\[*\].uses". Beside `owner/repo[/path]@ref` the repository may
//! be announced on Nostr (NIP-34): `npub1…/repo[/path]@ref`, `naddr1…[/path]@ref` or `nostr://…[//path]@ref`.

use workflow::github::workflow_ref::{self_reference, split_uses};

use crate::fetch::ActionRef;

/// Actions that this worker does itself. A fork or mirror of one has another name, and is fetched.
const BUILT_IN: &[&str] = &[
    "actions/checkout",
    "actions/cache",
    "actions/cache/restore",
    "actions/cache/save",
    "actions/upload-artifact",
    "actions/download-artifact",
];

/// What a step uses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Uses {
    /// A folder below the workspace; empty: the workspace itself.
    Local(String),
    /// A folder of the repository of the file that it stands in, at the commit that runs.
    OwnRepository(String),
    /// An image: what follows `docker://`.
    Image(String),
    /// Done by the worker: its name, lower-case.
    BuiltIn(String),
    /// An action of another repository.
    Remote(ActionRef),
}

impl Uses {
    /// Reads `uses:`. The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(image) = text.strip_prefix("docker://") {
            return Ok(Self::Image(image.to_owned()));
        }
        if text == "." || text.starts_with("./") || text.starts_with(".\\") {
            let inside = inside(&text.replace('\\', "/"));
            return inside.map(Self::Local).ok_or_else(|| format!("{text}: a local action must lie in the workspace"));
        }
        if let Some(path) = self_reference(text)? {
            return inside(&path)
                .map(Self::OwnRepository)
                .ok_or_else(|| format!("{text}: the action must lie in its repository"));
        }
        let wrong = || format!("{text}: write owner/repo[/path]@ref, $/path, ./path or docker://image");
        let (place, reference) = text.rsplit_once('@').ok_or_else(wrong)?;
        let (repository, path) = split_uses(place).ok_or_else(wrong)?;
        let plain = |part: &str| !part.is_empty() && !part.chars().any(|c| c.is_control() || c.is_whitespace());
        // Parts become folders in the job's container.
        let harmless = |text: &str| text.split('/').all(|part| part != "." && part != "..");
        if !plain(reference) || !plain(&repository) || ![place, reference].into_iter().all(harmless) {
            return Err(wrong());
        }
        let path = inside(&path).ok_or_else(wrong)?;
        let whole = if path.is_empty() { repository.clone() } else { format!("{repository}/{path}") };
        let whole = whole.to_ascii_lowercase();
        if BUILT_IN.contains(&whole.as_str()) {
            return Ok(Self::BuiltIn(whole));
        }
        Ok(Self::Remote(ActionRef { repository, path, reference: reference.to_owned() }))
    }
}

/// A path below a folder, without its detours. `None`: it leaves the folder.
pub fn inside(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
    use super::*;

    #[test]
    fn every_form_names_its_action() {
        let remote = |repository: &str, path: &str, reference: &str| {
            let (repository, path, reference) = (repository.into(), path.into(), reference.into());
            Uses::Remote(ActionRef { repository, path, reference })
        };
        for (text, expected) in [
            ("./", Uses::Local(String::new())),
            (".", Uses::Local(String::new())),
            ("./a/../b//c", Uses::Local("b/c".into())),
            ("$/tools/greet", Uses::OwnRepository("tools/greet".into())),
            ("$//x/../y", Uses::OwnRepository("y".into())),
            ("docker://alpine:3", Uses::Image("alpine:3".into())),
            ("Actions/Checkout@v4", Uses::BuiltIn("actions/checkout".into())),
            ("owner/repo@v1", remote("owner/repo", "", "v1")),
            ("owner/repo/a/b@feature/x", remote("owner/repo", "a/b", "feature/x")),
            ("npub1abc/repo/sub@v1", remote("npub1abc/repo", "sub", "v1")),
            ("naddr1abc@v1", remote("naddr1abc", "", "v1")),
            ("naddr1abc/sub@v1", remote("naddr1abc", "sub", "v1")),
            ("nostr://npub1abc/relay.example/repo//sub@v1", remote("nostr://npub1abc/relay.example/repo", "sub", "v1")),
        ] {
            assert_eq!(Uses::parse(text), Ok(expected), "{text}");
        }
        let Ok(Uses::Remote(remote)) = Uses::parse("nostr://npub1abc/repo@v1") else { panic!("no remote action") };
        assert_eq!(remote.folder(), "nostr_/npub1abc/repo/v1");
    }

    #[test]
    fn attack_12_no_path_leaves_its_folder() {
        for text in [
            "./../../etc",
            "$/../x",
            "$/",
            "$/tools/x@v1",
            "./a/../../x",
            ".\\..\\x",
            "owner/repo/../../x@v1",
            "owner/../x@v1",
            "../owner/repo@v1",
            "owner/repo@../../x",
            "owner/repo@..",
            "nostr://npub1abc/repo//../x@v1",
            "naddr1abc/../../x@v1",
            "owner@v1",
            "owner/repo",
            "owner/repo@",
            "https://example.org/x@v1",
            "owner/re po@v1",
        ] {
            assert!(Uses::parse(text).is_err(), "{text}");
        }
    }
}
