//! GitHub's API over a repository of the test's own, read by git.

use std::{path::PathBuf, process::Command};

use futures::{FutureExt as _, future::BoxFuture, stream::BoxStream};

use super::*;

/// A repository of which everything is served.
struct OwnRepository(PathBuf);

impl JobRepository for OwnRepository {
    fn serve(
        &self,
        _: Arc<JobIdentity>,
        _: GitRequest,
    ) -> BoxFuture<'static, Result<BoxStream<'static, std::io::Result<bytes::Bytes>>, String>> {
        std::future::ready(Err("nobody fetches here".to_owned())).boxed()
    }

    fn read(&self, _: Arc<JobIdentity>, command: Vec<String>) -> BoxFuture<'static, Result<Option<Vec<u8>>, String>> {
        let output = Command::new("git").args(command).current_dir(&self.0).output().unwrap();
        std::future::ready(Ok(output.status.success().then_some(output.stdout))).boxed()
    }
}

/// Commits `c1` to `c7` on `main`, of which the last makes a link of a file and moves another one.
const MAKE: &str = "
export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@x GIT_COMMITTER_NAME=c GIT_COMMITTER_EMAIL=c@x
git init -q -b main .
for n in 1 2 3 4 5 6; do
  export GIT_AUTHOR_DATE=2026-01-0${n}T12:00:00+02:00 GIT_COMMITTER_DATE=2026-01-0${n}T12:00:00+02:00
  seq $n > count; echo same > link; printf 'one\\ntwo\\n' > old; git add .; git commit -q -m c$n
done
ln -sf count link; git mv old 'new name'; printf '\\0' > binary; git add .; git commit -q -m c7
git tag -a -m annotated v1 HEAD~3; git tag plain HEAD~2
";

#[tokio::test]
async fn lists_have_pages_and_differences_have_their_text_as_programs_ask_for_them() {
    let mut world = World::new(config::CacheAndArtifactLimits::default()).await;
    let folder = world.folder.path().join("repository");
    std::fs::create_dir(&folder).unwrap();
    let sh = |script: &str| {
        let output = Command::new("sh").args(["-ec", script]).current_dir(&folder).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    sh(MAKE);
    let (head, tree, tag) = (sh("git rev-parse HEAD"), sh("git rev-parse HEAD~3^{tree}"), sh("git rev-parse v1"));
    world.api = world.api.clone().with_repositories(Arc::new(OwnRepository(folder.clone())));
    let github = json!({ "repository": "o/r", "sha": head, "run_id": "7" });
    let github = github.as_object().unwrap().clone();
    let job = world.job(JobIdentity { github, ..identity("r1", "refs/heads/main", true) }).await;
    let get = async |path: &str, accept: &str| {
        let request = world.http.get(format!("{}/api/v3/repos/o/r{path}", job.url)).header("accept", accept);
        let answer = request.send().await.unwrap();
        let header =
            |name| answer.headers().get(name).map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
        let (link, kind) = (header("link").replace(&job.url, ""), header("content-type"));
        (answer.status().as_u16(), kind, link, answer.text().await.unwrap())
    };
    let messages = |text: &str, list: &str| -> Vec<String> {
        let value: Value = serde_json::from_str(text).unwrap();
        let list = if list.is_empty() { &value } else { &value[list] };
        list.as_array().unwrap().iter().map(|one| one["commit"]["message"].as_str().unwrap().to_owned()).collect()
    };
    let url = "/api/v3/repos/o/r/commits?per_page=3&page=";
    for (page, shown, links) in [
        (1, &["c7", "c6", "c5"][..], vec![(2, "next"), (3, "last")]),
        (2, &["c4", "c3", "c2"], vec![(1, "prev"), (1, "first"), (3, "next"), (3, "last")]),
        (3, &["c1"], vec![(2, "prev"), (1, "first")]),
    ] {
        let (_, _, link, text) = get(&format!("/commits?page={page}&per_page=3"), "*/*").await;
        assert_eq!(messages(&text, ""), shown);
        let links: Vec<String> = links.iter().map(|(page, name)| format!("<{url}{page}>; rel=\"{name}\"")).collect();
        assert_eq!(link, links.join(", "));
    }
    for (query, shown) in [
        ("?until=2026-01-03T00:00:00Z", &["c2", "c1"][..]),
        ("?since=2026-01-06T00:00:00Z", &["c7", "c6"]),
        ("?path=old", &["c7", "c1"]),
        ("?author=nobody", &[]),
        ("?sha=plain&author=a@x&per_page=1", &["c5"]),
    ] {
        assert_eq!(messages(&get(&format!("/commits{query}"), "*/*").await.3, ""), shown, "{query}");
    }
    for (query, shown, link) in [
        ("", &["c2", "c3", "c4", "c5", "c6", "c7"][..], false),
        ("?per_page=4", &["c2", "c3", "c4", "c5"], true),
        ("?per_page=4&page=2", &["c6", "c7"], true),
    ] {
        let range = format!("/compare/{}...main{query}", sh("git rev-parse HEAD~6"));
        let (_, _, links, text) = get(&range, "application/json").await;
        assert_eq!(
            (messages(&text, "commits"), !links.is_empty()),
            (shown.iter().map(|s| (*s).to_owned()).collect(), link)
        );
        assert!(
            serde_json::from_str::<Value>(&text).unwrap()["files"].as_array().unwrap().is_empty()
                == query.ends_with("page=2")
        );
    }
    let (_, _, _, text) = get("/commits/main", "*/*").await;
    let commit: Value = serde_json::from_str(&text).unwrap();
    let files: Vec<_> = commit["files"]
        .as_array()
        .unwrap()
        .iter()
        .map(|file| [&file["filename"], &file["status"], &file["patch"]])
        .collect();
    let expected = json!([
        ["binary", "added", null],
        ["link", "modified", "@@ -0,0 +1 @@\n+count\n\\ No newline at end of file"],
        ["new name", "renamed", null],
    ]);
    assert_eq!(json!(files), expected, "{commit:#}");
    assert_eq!(commit["commit"]["author"]["date"], "2026-01-06T10:00:00Z");
    for (path, accept, kind, part) in [
        ("/commits/main", "application/vnd.github.sha", "sha", head.as_str()),
        ("/commits/main", "application/vnd.github.v3.diff", "diff", "diff --git a/old b/new name"),
        ("/commits/v1", "application/vnd.github.patch", "patch", "Subject: [PATCH] c4"),
        ("/compare/v1...plain", "application/vnd.github.diff+json", "diff", "+5"),
        ("/compare/v1...plain", "application/vnd.github.patch", "patch", "Subject: [PATCH] c5"),
        ("/contents/count?ref=v1", "application/vnd.github.raw+json", "raw", "1\n2\n3\n4\n"),
    ] {
        let (status, found, _, text) = get(path, accept).await;
        let expected = format!("application/vnd.github.{kind}; charset=utf-8");
        assert!(status == 200 && found == expected && text.contains(part), "{path} {accept}: {status} {found} {text}");
    }
    for (path, pointer, value) in [
        ("/git/ref/tags/v1".to_owned(), "/object/type", json!("tag")),
        (format!("/git/tags/{tag}"), "/message", json!("annotated\n")),
        (format!("/git/commits/{head}"), "/message", json!("c7")),
        ("/git/trees/v1?recursive=1".to_owned(), "/sha", json!(tree)),
        (format!("/git/trees/{tree}"), "/tree/0/path", json!("count")),
        ("/tags?per_page=1".to_owned(), "/0/name", json!("plain")),
        (format!("/git/tags/{head}"), "/message", json!("Not Found")),
    ] {
        let (_, _, _, text) = get(&path, "*/*").await;
        let found: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(found.pointer(pointer), Some(&value), "{path}: {found:#}");
    }
    for path in [format!("/git/trees/{head}0"), "/git/blobs/abc".into(), "/issues".into()] {
        assert_eq!(get(&path, "*/*").await.0, 501, "{path}");
    }
}
