//! Artifacts as clients before version 4 read them; what jobs wrote into the archives is hostile.

use std::io::Write;

use zip::{ZipWriter, write::SimpleFileOptions};

use super::*;

/// An archive of these files.
fn zipped(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    for (name, bytes) in files {
        archive.start_file(*name, SimpleFileOptions::default()).unwrap();
        archive.write_all(bytes).unwrap();
    }
    archive.finish().unwrap().into_inner()
}

impl Job<'_> {
    async fn get(&self, path: &str) -> reqwest::Response {
        self.world.http.get(format!("{}{path}", self.url)).bearer_auth(&self.token).send().await.unwrap()
    }

    async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().await.unwrap()
    }

    /// Paths and sizes of an artifact's files as they are listed, or why they are not.
    async fn files(&self, artifact: u64) -> Result<Vec<(String, u64)>, String> {
        let listed = self.json(&format!("/_apis/resources/Containers/{artifact}")).await;
        let Some(items) = listed["value"].as_array() else { return Err(listed["message"].as_str().unwrap().into()) };
        Ok(items
            .iter()
            .map(|item| (item["path"].as_str().unwrap().to_owned(), item["fileLength"].as_u64().unwrap()))
            .collect())
    }
}

fn id(answer: &(u16, Value)) -> u64 {
    answer.1["artifact_id"].as_str().unwrap_or_else(|| panic!("{answer:?}")).parse().unwrap()
}

#[tokio::test]
async fn an_artifact_is_listed_and_read_file_by_file() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let large: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_le_bytes).collect();
    let bytes = zipped(&[("a.txt", b"one".to_vec()), ("sub/large", large.clone()), ("empty", Vec::new())]);
    let artifact = id(&job.upload("report", &bytes).await);
    let listed = job.json("/_apis/pipelines/workflows/7/artifacts?api-version=6.0-preview").await;
    assert_eq!((&listed["count"], &listed["value"][0]["name"]), (&json!(1), &json!("report")));
    let url = listed["value"][0]["fileContainerResourceUrl"].as_str().unwrap();
    assert!(url.ends_with(&format!("/_apis/resources/Containers/{artifact}")), "{url}");
    let expected = [("report/a.txt".to_owned(), 3), ("report/sub/large".into(), 4_000_000), ("report/empty".into(), 0)];
    assert_eq!(job.files(artifact).await.unwrap(), expected);
    let items = job.json(&format!("/_apis/resources/Containers/{artifact}?itemPath=report")).await;
    let place = items["value"][1]["contentLocation"].as_str().unwrap().strip_prefix(&job.url).unwrap().to_owned();
    let answer = job.get(&place).await;
    assert_eq!(answer.headers()["content-length"], "4000000");
    assert_eq!(answer.bytes().await.unwrap(), large);
    let missing = format!("/_apis/resources/Containers/{artifact}/items/9");
    assert_eq!(job.get(&missing).await.status(), 404);
}

#[tokio::test]
async fn attack_45_an_archive_that_unpacks_to_too_much_or_lies_about_it_is_refused_or_breaks_off() {
    let limits =
        config::CacheAndArtifactLimits { artifact_bytes: 1 << 20, ..config::CacheAndArtifactLimits::default() };
    let world = World::new(limits).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let bomb = zipped(&[("zeros", vec![0; 2 << 20])]);
    assert!(bomb.len() < 10_000);
    let artifact = id(&job.upload("bomb", &bomb).await);
    let why = job.files(artifact).await.unwrap_err();
    assert!(why.contains("unpacks to more than 1048576 bytes") && why.contains("@v4"), "{why}");

    // The directory says three bytes, the data is more.
    let mut liar = zipped(&[("zeros", vec![0; 300_000])]);
    let size = 300_000_u32.to_le_bytes();
    let at = liar.windows(4).rposition(|bytes| bytes == size).unwrap();
    liar.splice(at..at + 4, 3_u32.to_le_bytes());
    let artifact = id(&job.upload("liar", &liar).await);
    let place = format!("/_apis/resources/Containers/{artifact}/items/0");
    let given = job.get(&place).await.bytes().await.map(|bytes| bytes.len());
    assert!(given.as_ref().is_ok_and(|length| *length <= 3) || given.is_err(), "{given:?}");

    let names: Vec<String> = (0..20_000).map(|number| format!("{number:0>500}")).collect();
    let many: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), Vec::new())).collect();
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let artifact = id(&job.upload("many", zipped(&many)).await);
    let why = job.files(artifact).await.unwrap_err();
    assert!(why.contains("directory has more than"), "{why}");
    let artifact = id(&job.upload("none", "no archive at all").await);
    assert!(job.files(artifact).await.unwrap_err().contains("no ZIP archive"), "whatever was uploaded");
}

#[tokio::test]
async fn attack_43_no_path_in_an_archive_leads_out_of_where_it_is_unpacked() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let bytes = zipped(&[
        ("../up", b"x".to_vec()),
        ("/etc/passwd", b"x".to_vec()),
        ("a/../../up", b"x".to_vec()),
        ("fine", b"x".to_vec()),
    ]);
    let artifact = id(&job.upload("paths", bytes).await);
    for (path, _) in job.files(artifact).await.unwrap() {
        assert!(!path.contains("..") && path.starts_with("paths/") && !path.contains("//"), "{path}");
    }
}

#[tokio::test]
async fn attack_43_artifacts_come_out_each_in_its_own_folder_and_nowhere_else() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let (job, other) =
        (world.job(identity("r1", "refs/heads/main", true)).await, world.job(identity("r2", "", true)).await);
    let mut archive = ZipWriter::new(std::io::Cursor::new(Vec::new()));
    archive.add_symlink("out", "..", SimpleFileOptions::default()).unwrap();
    for name in ["../up", "a/../../up", "out/through", "sub/fine"] {
        archive.start_file(name, SimpleFileOptions::default()).unwrap();
        archive.write_all(b"x").unwrap();
    }
    id(&job.upload("report", archive.finish().unwrap().into_inner()).await);
    id(&job.upload("more", zipped(&[("a", b"one".to_vec()), ("empty", Vec::new())])).await);
    id(&other.upload("foreign", zipped(&[("a", b"x".to_vec())])).await);

    let folder = world.folder.path().join("artifacts/here");
    assert_eq!(world.api.unpack(&"r1".into(), &folder).await.unwrap(), ["report", "more"]);
    let within = |folder: &std::path::Path| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        entries.collect::<std::collections::BTreeSet<_>>().into_iter().collect::<Vec<_>>()
    };
    assert_eq!(within(&world.folder.path().join("artifacts")), ["here"]);
    assert_eq!(within(&folder), ["more", "report"]);
    assert_eq!(within(&folder.join("report")), ["out", "sub"]);
    assert_eq!(within(&folder.join("report/out")), ["through"], "a folder, whatever else it says it is");
    assert_eq!(within(&folder.join("more")), ["a", "empty"]);
    assert_eq!(std::fs::read(folder.join("more/a")).unwrap(), b"one");
}

#[test]
fn what_is_unpacked_takes_no_files_place_unless_that_is_wanted_and_goes_through_no_link() {
    let folder = tempfile::tempdir().unwrap();
    let (into, outside) = (folder.path().join("into"), folder.path().join("outside"));
    let unpack = |files: &[(&str, Vec<u8>)], existing| {
        let mut archive = tempfile::tempfile().unwrap();
        archive.write_all(&zipped(files)).unwrap();
        unpack_archive(archive, 100, existing, &into)
    };
    std::fs::create_dir(&into).unwrap();
    std::fs::write(&outside, "mine").unwrap();
    std::os::unix::fs::symlink(&outside, into.join("b")).unwrap();
    let files = [("a", b"one".to_vec()), ("b", b"two".to_vec()), ("../up", b"x".to_vec())];
    let occupied = unpack(&files, Existing::Kept).unwrap_err().to_string();
    assert!(occupied.ends_with("into/b is there already") && !into.join("a").exists(), "all or nothing: {occupied}");
    unpack(&files, Existing::Replaced).unwrap();
    let read = |path: &std::path::Path| std::fs::read_to_string(path).unwrap();
    assert_eq!([&into.join("a"), &into.join("b"), &outside].map(|path| read(path)), ["one", "two", "mine"]);
    assert!(!folder.path().join("up").exists());
    let large = unpack(&[("c", vec![0; 101])], Existing::Kept).unwrap_err().to_string();
    assert!(large.contains("more than 100 bytes") && !into.join("c").exists(), "{large}");
}

#[tokio::test]
async fn uploads_by_earlier_versions_and_artifacts_of_other_runs_are_refused_with_what_to_do() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let of_run = |id: &str, run: &str| {
        let github = json!({"run_id": id}).as_object().unwrap().clone();
        JobIdentity { github, ..identity(run, "refs/heads/main", true) }
    };
    let (job, other) = (world.job(of_run("7", "r1")).await, world.job(of_run("8", "r2")).await);
    let artifact = id(&job.upload("report", zipped(&[("a", b"x".to_vec())])).await);
    let path = "/_apis/pipelines/workflows/7/artifacts?api-version=6.0-preview";
    assert_eq!(job.get(path).await.status(), 200);
    assert_eq!(other.get(path).await.status(), 404);
    assert_eq!(other.get(&format!("/_apis/resources/Containers/{artifact}/items/0")).await.status(), 404);
    let url = format!("{}{path}", job.url);
    assert_eq!(world.http.get(&url).send().await.unwrap().status(), 401, "without the token");
    let refused = world.http.post(&url).bearer_auth(&job.token).body("{}").send().await.unwrap();
    assert_eq!(refused.status(), 410);
    assert!(refused.headers()["x-reason"].to_str().unwrap().contains("actions/upload-artifact@v4"));
}

#[tokio::test]
async fn attack_45_an_archive_of_very_many_files_is_not_listed() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let names: Vec<String> = (0..25_000).map(|number| number.to_string()).collect();
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), Vec::new())).collect();
    let artifact = id(&job.upload("many", zipped(&files)).await);
    let why = job.files(artifact).await.unwrap_err();
    assert!(why.contains("directory has more than"), "{why}");
    let controls = "\u{1}".repeat(60_000);
    let long: Vec<(String, Vec<u8>)> = (0..16).map(|number| (format!("{number}{controls}"), Vec::new())).collect();
    let long: Vec<(&str, Vec<u8>)> = long.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect();
    let artifact = id(&job.upload("long", zipped(&long)).await);
    let why = job.files(artifact).await.unwrap_err();
    assert!(why.contains("too many files to list"), "{why}");
}

#[tokio::test]
async fn attack_45_a_job_that_does_not_read_its_lists_has_one_of_them_in_memory() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let job = world.job(identity("r1", "refs/heads/main", true)).await;
    let names: Vec<String> = (0..12_000).map(|number| format!("{number:030}")).collect();
    let files: Vec<(&str, Vec<u8>)> = names.iter().map(|name| (name.as_str(), Vec::new())).collect();
    let artifact = id(&job.upload("many", zipped(&files[..9000])).await);
    let path = format!("/_apis/resources/Containers/{artifact}");
    let caller = Arc::new(identity("r1", "refs/heads/main", true));
    let mut unread = Vec::new();
    for _ in 0..2 {
        let (mut near, far) = tokio::io::duplex(16 << 10);
        let (api, caller) = (world.api.clone(), caller.clone());
        tokio::spawn(async move { api.serve(caller, Arc::new(|| true), far).await });
        let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n\r\n", job.token);
        tokio::io::AsyncWriteExt::write_all(&mut near, request.as_bytes()).await.unwrap();
        unread.push(near);
        let first = unread.first_mut().unwrap();
        tokio::io::AsyncReadExt::read_u8(first).await.unwrap();
    }
    let mut second = unread.pop().unwrap();
    let wait = std::time::Duration::from_millis(500);
    let waited = tokio::time::timeout(wait, tokio::io::AsyncReadExt::read_u8(&mut second)).await;
    assert!(waited.is_err(), "the second waits until the first is read");
    drop(unread);
    tokio::io::AsyncReadExt::read_u8(&mut second).await.unwrap();
}

#[tokio::test]
async fn attack_45_jobs_that_do_not_read_their_files_hold_up_no_other_job() {
    let world = World::new(config::CacheAndArtifactLimits::default()).await;
    let bytes = zipped(&[("zeros", vec![0; 32 << 20])]);
    let mut unread = Vec::new();
    for run in 0..5 {
        let job = world.job(identity(&format!("r{run}"), "refs/heads/main", true)).await;
        let artifact = id(&job.upload("large", &bytes).await);
        let path = format!("/_apis/resources/Containers/{artifact}/items/0");
        for _ in 0..2 {
            unread.push(job.get(&path).await);
        }
        assert!(unread.iter().all(|answer| answer.status() == 200));
        let more = tokio::time::timeout(std::time::Duration::from_millis(100), job.get(&path)).await;
        assert!(more.is_err(), "a job has two at a time");
    }
    let other = world.job(identity("other", "refs/heads/main", true)).await;
    let artifact = id(&other.upload("report", &zipped(&[("a.txt", b"one".to_vec())])).await);
    let read = async {
        assert_eq!(other.files(artifact).await.unwrap(), [("report/a.txt".to_owned(), 3)]);
        other.get(&format!("/_apis/resources/Containers/{artifact}/items/0")).await.bytes().await.unwrap()
    };
    assert_eq!(tokio::time::timeout(std::time::Duration::from_secs(10), read).await.unwrap(), "one");
    let read = unread.pop().unwrap().bytes().await.unwrap();
    assert_eq!(read.len(), 32 << 20, "who reads at last gets all");
}
