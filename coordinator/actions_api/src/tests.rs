#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use serde_json::Value;
use tokio::net::TcpListener;

use domain::id::RunId;

use super::*;

mod artifact_v3;
mod github_api;
mod limits;

const CACHE: &str = "twirp/github.actions.results.api.v1.CacheService";
const ARTIFACT: &str = "twirp/github.actions.results.api.v1.ArtifactService";

struct World {
    api: ActionsApi,
    folder: tempfile::TempDir,
    http: reqwest::Client,
}

/// One job's view of the services.
struct Job<'w> {
    world: &'w World,
    url: String,
    token: String,
    run: RunId,
}

fn identity(run: &str, reference: &str, trusted: bool) -> JobIdentity {
    JobIdentity {
        run: run.into(),
        job: "build".into(),
        attempt: 1,
        repository: "30617:aa:repo".into(),
        author: "a".repeat(64),
        reference: reference.into(),
        bases: vec!["refs/heads/main".into()],
        trusted,
        ..JobIdentity::default()
    }
}

impl World {
    async fn new(limits: config::CacheAndArtifactLimits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("store.sqlite")).await.unwrap();
        let blobs = Blobs::open(&folder.path().join("blobs"), store.clone()).unwrap();
        let now = || u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self { api: ActionsApi::new(store, blobs, &[7; 32], limits, now), folder, http: reqwest::Client::new() }
    }

    async fn job(&self, identity: JobIdentity) -> Job<'_> {
        self.job_held(identity, Arc::new(|| true)).await
    }

    async fn job_held(&self, identity: JobIdentity, held: LeaseCheck) -> Job<'_> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (token, run) = (self.api.token(&identity), identity.run.clone());
        let (api, identity) = (self.api.clone(), Arc::new(identity));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (api, identity, held) = (api.clone(), identity.clone(), held.clone());
                tokio::spawn(async move { api.serve(identity, held, stream).await });
            }
        });
        Job { world: self, url, token, run }
    }

    fn files(&self) -> usize {
        fn count(folder: &std::path::Path) -> usize {
            let entries = std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path());
            entries.map(|path| if path.is_dir() { count(&path) } else { 1 }).sum()
        }
        count(&self.folder.path().join("blobs"))
    }
}

impl Job<'_> {
    async fn ask(&self, service: &str, method: &str, body: Value) -> (u16, Value) {
        let request = self.world.http.post(format!("{}/{service}/{method}", self.url)).bearer_auth(&self.token);
        let answer = request.json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn put(&self, url: &str, bytes: impl Into<Vec<u8>>) -> u16 {
        self.world.http.put(url).body(bytes.into()).send().await.unwrap().status().as_u16()
    }

    async fn save(&self, key: &str, bytes: &str) -> Result<(), String> {
        let (_, made) = self.ask(CACHE, "CreateCacheEntry", json!({"key": key, "version": "v"})).await;
        let Some(url) = made["signed_upload_url"].as_str() else {
            return Err(made["message"].as_str().unwrap_or_default().to_owned());
        };
        assert_eq!(self.put(url, bytes).await, 201);
        let entry = json!({"key": key, "version": "v", "size_bytes": bytes.len().to_string()});
        let (status, done) = self.ask(CACHE, "FinalizeCacheEntryUpload", entry).await;
        if status == 200 { Ok(()) } else { Err(done["msg"].as_str().unwrap_or_default().to_owned()) }
    }

    /// The key that is restored, and its bytes.
    async fn restore(&self, keys: &[&str]) -> Option<(String, String)> {
        let entry = json!({"key": keys[0], "restore_keys": keys[1..], "version": "v"});
        let (_, found) = self.ask(CACHE, "GetCacheEntryDownloadURL", entry).await;
        let bytes = reqwest::get(found["signed_download_url"].as_str()?).await.unwrap().text().await.unwrap();
        Some((found["matched_key"].as_str()?.to_owned(), bytes))
    }

    async fn upload_url(&self, name: &str) -> String {
        let named = json!({"workflow_run_backend_id": self.run, "name": name, "version": 4});
        let (_, made) = self.ask(ARTIFACT, "CreateArtifact", named).await;
        made["signed_upload_url"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    async fn upload(&self, name: &str, bytes: impl AsRef<[u8]>) -> (u16, Value) {
        let bytes = bytes.as_ref();
        let named = json!({"workflow_run_backend_id": self.run, "name": name, "version": 4});
        let (status, made) = self.ask(ARTIFACT, "CreateArtifact", named).await;
        let Some(url) = made["signed_upload_url"].as_str() else { return (status, made) };
        self.put(url, bytes).await;
        let named = json!({"workflow_run_backend_id": self.run, "name": name, "size": bytes.len().to_string()});
        self.ask(ARTIFACT, "FinalizeArtifact", named).await
    }
}

/// A ZIP archive of stored files.
fn zipped(files: &[(&str, &str)]) -> Vec<u8> {
    use std::io::Write as _;
    let mut archive = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (path, text) in files {
        archive.start_file(*path, zip::write::SimpleFileOptions::default()).unwrap();
        archive.write_all(text.as_bytes()).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

#[tokio::test]
async fn results_of_tests_in_an_artifact_of_that_name_are_reported_and_no_fault_of_theirs_is_the_jobs() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let id = RunId::from("run-1");
    let job = world.job(identity(id.as_str(), "refs/heads/main", true)).await;
    let passes = "<testsuite name='s'><testcase name='passes' time='0.5'/></testsuite>";
    let fails = "<testsuite name='s'><testcase name='fails'><failure message='no'>at 7</failure></testcase><broken>";
    let archive = zipped(&[("a/one.xml", passes), ("two.XML", fails), ("notes.txt", "<testcase name='no'/>")]);
    assert_eq!(job.upload("test-results-linux", &archive).await.0, 200);
    assert_eq!(job.upload("test-results-broken", "no archive").await.0, 200);
    assert_eq!(job.upload("other", &archive).await.0, 200);
    let reports = world.api.store.test_reports(&id).await.unwrap();
    assert_eq!(reports.len(), 1, "{reports:?}");
    assert_eq!((reports[0].failed, reports[0].passed, reports[0].millis), (1, 1, 500));
    let [fails, passes] = &reports[0].list.tests[..] else { panic!("{reports:?}") };
    assert_eq!((fails.name.as_str(), fails.message.as_str(), fails.output.as_str()), ("fails", "no", "at 7"));
    assert_eq!((passes.suite.as_str(), passes.outcome), ("s", store::TestOutcome::Passed));
    assert!(reports[0].list.unread[0].starts_with("two.XML: it ends within an element"), "{reports:?}");
}

#[tokio::test]
async fn files_of_an_artifact_are_listed_and_given_one_by_one_within_bounds() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let id = RunId::from("run-1");
    let job = world.job(identity(id.as_str(), "refs/heads/main", true)).await;
    let large = "\0".repeat((64 << 20) + 1);
    let files = [("a/one.txt", "one"), ("../out", "no"), ("ä b&.html", "<script>"), ("large", large.as_str())];
    assert_eq!(job.upload("report", zipped(&files)).await.0, 200);
    assert_eq!(job.upload("broken", "no archive").await.0, 200);
    let artifacts = world.api.store.artifacts(&id).await.unwrap();
    let [report, broken] = &artifacts[..] else { panic!("{artifacts:?}") };
    let listed = world.api.artifact_files(report).await.unwrap();
    let paths: Vec<_> = listed.iter().map(|(path, size)| (path.as_str(), *size)).collect();
    assert_eq!(paths, [("a/one.txt", 3), ("ä b&.html", 8), ("large", (64 << 20) + 1)], "what leads out is no file");
    assert!(matches!(world.api.artifact_files(broken).await, Err(ArchiveError::Unreadable(_))));
    let (length, bytes) = world.api.artifact_file(report, "ä b&.html", ()).await.unwrap();
    let bytes: Vec<_> = bytes.try_collect::<Vec<_>>().await.unwrap().concat();
    assert_eq!((length, bytes.as_slice()), (8, b"<script>".as_slice()));
    let refused = async |path: &str| world.api.artifact_file(report, path, ()).await.err();
    assert!(matches!(refused("large").await, Some(ArchiveError::LargeFile(_))));
    assert!(matches!(refused("../out").await, Some(ArchiveError::Missing)));
}

#[tokio::test]
async fn attack_45_archives_of_tests_are_read_within_bounds_and_a_number_of_times_for_a_run() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let id = RunId::from("run-1");
    let job = world.job(identity(id.as_str(), "refs/heads/main", true)).await;
    let case = "<testcase name='t'/>";
    let large = format!("{case}{}", " ".repeat(9 << 20));
    let full = format!("{case}{}", " ".repeat(7 << 20));
    let names: Vec<String> = (0..6).map(|number| format!("{number}.xml")).collect();
    let files: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), full.as_str())).collect();
    let files: Vec<(&str, &str)> = [("large.xml", large.as_str())].into_iter().chain(files).collect();
    assert_eq!(job.upload("test-results", &zipped(&files)).await.0, 200);
    let reports = world.api.store.test_reports(&id).await.unwrap();
    assert_eq!(reports[0].passed, 4, "{reports:?}");
    let unread = &reports[0].list.unread;
    assert!(unread[0].starts_with("large.xml: no more than 8388608 bytes of one file"), "{unread:?}");
    assert!(unread.len() == 3 && unread[1].contains("no more than 33554432 bytes of all files"), "{unread:?}");
    let small = zipped(&[("a.xml", case)]);
    for round in 0..110 {
        let name = format!("test-results-{round}");
        assert_eq!(job.upload(&name, &small).await.0, 200);
        let named = json!({"workflow_run_backend_id": id, "name": name});
        assert_eq!(job.ask(ARTIFACT, "DeleteArtifact", named).await.0, 200);
    }
    assert_eq!(world.api.store.test_reports(&id).await.unwrap().len(), 1, "they went with their artifacts");
    assert_eq!(job.upload("test-results-last", &small).await.0, 200);
    assert_eq!(world.api.store.test_reports(&id).await.unwrap().len(), 1, "enough were read for this run");
}

#[tokio::test]
async fn losing_the_race_for_a_key_is_nothing_that_githubs_toolkit_would_warn_of() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let jobs = [
        world.job(identity("r1", "refs/heads/main", true)).await,
        world.job(identity("r2", "refs/heads/main", true)).await,
    ];
    let entry = json!({"key": "k", "version": "v"});
    for (job, bytes) in jobs.iter().zip(["first", "second"]) {
        let (_, made) = job.ask(CACHE, "CreateCacheEntry", entry.clone()).await;
        assert_eq!(job.put(made["signed_upload_url"].as_str().unwrap(), bytes).await, 201);
    }
    let (_, first) = jobs[0].ask(CACHE, "FinalizeCacheEntryUpload", entry.clone()).await;
    let second = jobs[1].ask(CACHE, "FinalizeCacheEntryUpload", entry.clone()).await;
    assert_eq!(second, (200, json!({"ok": true, "entry_id": first["entry_id"], "existed": true})));
    assert_eq!(jobs[1].restore(&["k"]).await, Some(("k".into(), "first".into())), "an entry never changes");
    // A message is what the toolkit warns of.
    assert_eq!(jobs[1].ask(CACHE, "CreateCacheEntry", entry).await, (200, json!({"ok": false})));
}

#[tokio::test]
async fn a_cache_is_found_in_its_own_ref_first_then_in_the_base_exactly_first_then_the_newest() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let main = world.job(identity("r1", "refs/heads/main", true)).await;
    let branch = world.job(identity("r2", "refs/heads/topic", true)).await;
    let other = world.job(identity("r3", "refs/heads/other", true)).await;
    assert_eq!(main.restore(&["deps-1"]).await, None);
    main.save("deps-1", "one").await.unwrap();
    main.save("deps-2", "two").await.unwrap();
    let found = |key: &str, bytes: &str| Some((key.to_owned(), bytes.to_owned()));
    assert_eq!(main.restore(&["deps-1"]).await, found("deps-1", "one"));
    assert_eq!(branch.restore(&["deps-9", "deps-"]).await, found("deps-2", "two"));
    branch.save("deps-0", "mine").await.unwrap();
    assert_eq!(branch.restore(&["deps-9", "deps-"]).await, found("deps-0", "mine"), "its own ref comes first");
    assert_eq!(other.restore(&["deps-0"]).await, None, "another branch's caches are not its own");
    assert_eq!(main.save("deps-1", "again").await, Err(String::new()), "an entry never changes");
    assert_eq!(main.restore(&["deps-1"]).await, found("deps-1", "one"));
    let elsewhere =
        world.job(JobIdentity { repository: "30617:bb:repo".into(), ..identity("r4", "refs/heads/main", true) }).await;
    assert_eq!(elsewhere.restore(&["deps-1"]).await, None);
}

#[tokio::test]
async fn what_a_job_asked_of_caches_is_part_of_its_runs_result() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(JobIdentity { attempt: 2, ..identity("r1", "refs/heads/main", true) }).await;
    job.restore(&["deps-1"]).await;
    job.save("deps-1", "12345").await.unwrap();
    for _ in 0..2 {
        job.restore(&["deps-2", "deps-"]).await;
    }
    let uses = world.api.store.cache_uses(&"r1".into()).await.unwrap();
    let told: Vec<_> =
        uses.iter().map(|used| (used.outcome.as_str(), used.key.as_str(), used.found.as_deref(), used.size)).collect();
    assert!(uses.iter().all(|used| used.attempt == 2));
    assert_eq!(told.len(), 3, "the same again tells nothing new: {told:?}");
    for expected in
        [("miss", "deps-1", None, 0), ("saved", "deps-1", Some("deps-1"), 5), ("hit", "deps-2", Some("deps-1"), 5)]
    {
        assert!(told.contains(&expected), "{told:?}");
    }
    for number in 0..120 {
        job.restore(&[&format!("other-{number}")]).await;
    }
    assert_eq!(
        world.api.store.cache_uses(&"r1".into()).await.unwrap().len(),
        100,
        "a job can't fill the store with questions"
    );
}

#[tokio::test]
async fn the_earlier_protocol_saves_and_restores_the_same_entries_in_chunks() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let base = format!("{}/_apis/artifactcache", job.url);
    let send = async |request: reqwest::RequestBuilder| request.bearer_auth(&job.token).send().await.unwrap();
    let wanted = format!("{base}/cache?keys=deps-2,deps-&version=v");
    assert_eq!(send(world.http.get(&wanted)).await.status(), 204);
    let made = send(world.http.post(format!("{base}/caches")).json(&json!({"key": "deps-1", "version": "v"}))).await;
    let made: Value = made.json().await.unwrap();
    let entry = format!("{base}/caches/{}", made["cacheId"]);
    // Chunks come in any order.
    for (range, bytes) in [("bytes 3-5/*", "def"), ("bytes 0-2/*", "abc")] {
        let chunk = world.http.patch(&entry).header("content-range", range).body(bytes);
        assert_eq!(send(chunk).await.status(), 204);
    }
    assert_eq!(send(world.http.post(&entry).json(&json!({"size": 7}))).await.status(), 400);
    assert_eq!(send(world.http.post(&entry).json(&json!({"size": 6}))).await.status(), 204);
    let found: Value = send(world.http.get(&wanted)).await.json().await.unwrap();
    assert_eq!(found["cacheKey"], "deps-1");
    let bytes = reqwest::get(found["archiveLocation"].as_str().unwrap()).await.unwrap().text().await.unwrap();
    assert_eq!(bytes, "abcdef");
    assert_eq!(job.restore(&["deps-1"]).await.unwrap().1, "abcdef");
    let stranger = world.job(identity("r2", "refs/heads/topic", false)).await;
    let refused = world.http.post(format!("{}/_apis/artifactcache/caches", stranger.url)).bearer_auth(&stranger.token);
    let refused = refused.json(&json!({"key": "deps-3", "version": "v"})).send().await.unwrap();
    assert_eq!(refused.status(), 403);
}

#[tokio::test]
async fn attack_19_an_untrusted_run_restores_from_its_base_and_saves_nothing() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let main = world.job(identity("r1", "refs/heads/main", true)).await;
    main.save("deps", "good").await.unwrap();
    for reference in ["refs/heads/main", "refs/pull/1/head"] {
        let stranger = world.job(identity("r2", reference, false)).await;
        assert_eq!(stranger.restore(&["deps"]).await.unwrap().1, "good");
        assert!(stranger.save("deps-new", "evil").await.unwrap_err().contains("read-only"));
        // Not by the second half of the protocol either.
        let entry = json!({"key": "deps-new", "version": "v", "size_bytes": "4"});
        assert_eq!(stranger.ask(CACHE, "FinalizeCacheEntryUpload", entry).await.0, 403);
    }
    assert_eq!(main.restore(&["deps-new", "deps-"]).await, None);
}

#[tokio::test]
async fn what_was_not_used_for_longest_makes_room() {
    let world =
        World::new(config::CacheAndArtifactLimits { cache_bytes: 25, ..config::CacheAndArtifactLimits::default() })
            .await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    job.save("a", "0123456789").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    job.save("b", "abcdefghij").await.unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    assert!(job.restore(&["a"]).await.is_some());
    job.save("c", "ABCDEFGHIJ").await.unwrap();
    assert_eq!(job.restore(&["b"]).await, None);
    assert!(job.restore(&["a"]).await.is_some() && job.restore(&["c"]).await.is_some());
    assert_eq!(world.files(), 2);
    world.api.expire(u64::MAX, &config::Retention::default()).await.unwrap();
    assert_eq!((job.restore(&["a"]).await, world.files()), (None, 0));
}

#[tokio::test]
async fn attack_45_an_upload_has_a_limit_and_leaves_nothing_behind() {
    let world = World::new(config::CacheAndArtifactLimits {
        cache_bytes: 100,
        artifact_bytes: 100,
        ..config::CacheAndArtifactLimits::default()
    })
    .await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let (_, made) = job.ask(CACHE, "CreateCacheEntry", json!({"key": "k", "version": "v"})).await;
    let url = made["signed_upload_url"].as_str().unwrap().to_owned();
    assert_eq!(job.put(&url, "x".repeat(101)).await, 413);
    assert_eq!(job.upload("a", &"x".repeat(60)).await.0, 200);
    assert_eq!(job.upload("b", &"y".repeat(40)).await.0, 404, "one attempt sends so much, refused uploads counted");
    let next = world.job(JobIdentity { job: "other".into(), ..identity("r1", "refs/heads/main", true) }).await;
    assert_eq!(next.upload("c", &"z".repeat(60)).await.0, 413, "one run keeps so much");
    assert_eq!(world.files(), 1);
}

#[tokio::test]
async fn attack_43_an_artifact_has_no_name_that_leads_elsewhere() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    for name in ["", ".", "..", "../x", "a/b", "a\\b", "c:d", "a\nb", &"x".repeat(257)] {
        assert_eq!(job.upload(name, "x").await.0, 400, "{name:?}");
    }
    assert_eq!(job.upload("résumé 1", "x").await.0, 200);
}

#[tokio::test]
async fn an_artifact_belongs_to_its_run_and_its_name_is_taken_once_but_for_a_later_attempt_of_its_job() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    assert_eq!(job.upload("report", "first").await.0, 200);
    assert_eq!(job.upload("report", "again").await.0, 409);
    let sibling = world.job(JobIdentity { job: "test".into(), ..identity("r1", "refs/heads/main", true) }).await;
    assert_eq!(sibling.upload("report", "other").await.0, 409);
    let later = world.job(JobIdentity { attempt: 2, ..identity("r1", "refs/heads/main", true) }).await;
    assert_eq!(later.upload("report", "second").await.0, 200);
    let named = json!({"workflow_run_backend_id": "r1", "name": "report"});
    let (_, found) = sibling.ask(ARTIFACT, "GetSignedArtifactURL", named.clone()).await;
    let bytes = reqwest::get(found["signed_url"].as_str().unwrap()).await.unwrap().text().await.unwrap();
    assert_eq!(bytes, "second");
    let stranger = world.job(identity("r2", "refs/heads/main", true)).await;
    assert_eq!(stranger.ask(ARTIFACT, "GetSignedArtifactURL", named).await.0, 404);
}

#[tokio::test]
async fn tokens_and_urls_serve_their_own_attempt_while_it_is_held() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let held = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let told = held.clone();
    let whose = identity("r1", "refs/heads/main", true);
    let held_by = Arc::new(move || told.load(std::sync::atomic::Ordering::SeqCst));
    let job = world.job_held(whose.clone(), held_by).await;
    job.save("k", "bytes").await.unwrap();
    let entry = json!({"key": "k", "version": "v"});
    let (_, found) = job.ask(CACHE, "GetCacheEntryDownloadURL", entry.clone()).await;
    let url = found["signed_download_url"].as_str().unwrap().to_owned();

    let neighbour = world.job(JobIdentity { job: "other".into(), ..whose }).await;
    let borrowed = Job { token: job.token.clone(), url: neighbour.url.clone(), run: "r1".into(), world: &world };
    assert_eq!(borrowed.ask(CACHE, "GetCacheEntryDownloadURL", entry.clone()).await.0, 401);
    let moved = url.replace(&job.url, &neighbour.url);
    assert_eq!(reqwest::get(&moved).await.unwrap().status(), 401);
    for wrong in ["", "a.b.c", "none"] {
        let borrowed = Job { token: wrong.into(), url: job.url.clone(), run: "r1".into(), world: &world };
        assert_eq!(borrowed.ask(CACHE, "GetCacheEntryDownloadURL", entry.clone()).await.0, 401, "{wrong}");
    }
    let part = world.http.get(&url).header("range", "bytes=1-2").send().await.unwrap();
    assert_eq!((part.status().as_u16(), part.text().await.unwrap().as_str()), (206, "yt"));
    held.store(false, std::sync::atomic::Ordering::SeqCst);
    assert_eq!(job.ask(CACHE, "GetCacheEntryDownloadURL", entry).await.0, 401);
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 401);
}

#[tokio::test]
async fn githubs_api_is_refused_with_what_to_do() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let answer = reqwest::get(format!("{}/api/v3/repos/a/b", job.url)).await.unwrap();
    assert_eq!(answer.status(), 501);
    assert!(answer.text().await.unwrap().contains("https://api.github.com"));
}

#[tokio::test]
async fn a_job_that_may_gets_a_token_that_the_published_key_proves() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("oidc.key");
    let issuer = Issuer::open(&file, "https://ci.example/").unwrap();
    let [(_, configuration), (_, keys)] = issuer.documents();
    assert_eq!(Issuer::open(&file, "https://ci.example").unwrap().documents()[1].1, keys, "the key is kept");
    let mut world = World::new(config::CacheAndArtifactLimits::default()).await;
    world.api = world.api.with_issuer(issuer);
    let github = json!({"repository": "a/b", "repository_owner": "a", "ref": "refs/heads/main", "event_name": "push"});
    let github = github.as_object().unwrap().clone();
    let may = JobIdentity {
        id_token: true,
        github: github.clone(),
        actor_trust: "maintainer",
        ..identity("r1", "refs/heads/main", true)
    };
    let job = world.job(may).await;
    let ask = async |job: &Job<'_>, query: &str| {
        let request = job.world.http.get(format!("{}/oidc/token?api-version=2.0{query}", job.url));
        let answer = request.bearer_auth(&job.token).send().await.unwrap();
        (answer.status().as_u16(), answer.json::<Value>().await.unwrap())
    };
    let (status, answer) = ask(&job, "&audience=sts.example").await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["value"].as_str().unwrap();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let decode = |text: &str| {
        use base64::Engine as _;
        base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).unwrap()
    };
    let key = &keys["keys"][0];
    let point = [vec![4], decode(key["x"].as_str().unwrap()), decode(key["y"].as_str().unwrap())].concat();
    let public = ring::signature::UnparsedPublicKey::new(&ring::signature::ECDSA_P256_SHA256_FIXED, point);
    public.verify(signed.as_bytes(), &decode(signature)).unwrap();
    let claims: Value = serde_json::from_slice(&decode(signed.split('.').nth(1).unwrap())).unwrap();
    assert_eq!(claims["iss"], configuration["issuer"]);
    assert_eq!(
        (claims["sub"].as_str(), claims["aud"].as_str()),
        (Some("repo:a/b:ref:refs/heads/main"), Some("sts.example"))
    );
    assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 300);
    assert_eq!(claims["actor_trust"], "maintainer");
    assert_eq!(ask(&job, "").await.0, 200);
    let let_in = JobIdentity {
        id_token: true,
        github: github.clone(),
        environment: Some("prod:eu".into()),
        ..identity("r3", "refs/heads/main", true)
    };
    let (_, answer) = ask(&world.job(let_in).await, "").await;
    let claims: Value =
        serde_json::from_slice(&decode(answer["value"].as_str().unwrap().split('.').nth(1).unwrap())).unwrap();
    assert_eq!((&claims["sub"], &claims["environment"]), (&json!("repo:a/b:environment:prod%3Aeu"), &json!("prod:eu")));
    let other = world.job(JobIdentity { github, ..identity("r2", "refs/heads/main", true) }).await;
    assert_eq!(ask(&other, "").await.0, 403);
}

#[test]
fn permissions_grant_tokens_only_where_they_say_so() {
    for (permissions, granted) in [
        (json!({"id-token": "write", "contents": "read"}), true),
        (json!("write-all"), true),
        (json!("read-all"), false),
        (json!({"id-token": "none"}), false),
        (json!({}), false),
        (json!(null), false),
    ] {
        assert_eq!(grants(Some(&permissions)), granted, "{permissions}");
    }
    assert!(!grants(None));
}
