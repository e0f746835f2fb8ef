//! A job that waits for somebody: no worker hears of it, a kill of the coordinator forgets neither wait nor word.

use longshore_tests::harness::{
    client::{kind, tag},
    process::Process,
};
use nostr::Keys;
use serde_json::Value;

use super::{LIMIT, PATH, Stage, needs_engine};

const DEPLOYS: &str = "\
on: push
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: echo built
  deploy:
    needs: build
    runs-on: ubuntu-latest
    environment: {name: 'prod-${{ needs.build.result }}', url: https://example.org}
    steps:
      - run: echo deployed
";

impl Stage {
    /// `longshore approve` by somebody; what it printed, and its exit code.
    fn approve(&self, who: &Keys, run: &str, arguments: &[&str]) -> (i32, String) {
        let log = self.folder.path().join(format!("approve-{}.log", nostr::Keys::generate().public_key()));
        let nsec = who.secret_key().to_secret_hex();
        let mut all = vec!["approve", run, "--server", &self.pool.http];
        all.extend(arguments);
        let mut process = Process::start_with("longshore", &all, &[("LONGSHORE_NSEC", &nsec)], &log).unwrap();
        (process.wait(LIMIT).unwrap(), process.text())
    }

    /// The job as the API shows it, once it waits for somebody.
    async fn held(&self, run: &str) -> Value {
        let url = format!("{}/api/runs/{run}", self.pool.http);
        let until = std::time::Instant::now() + LIMIT;
        loop {
            let shown: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
            let job = shown["jobs"].as_array().into_iter().flatten().find(|job| job["key"] == "deploy").cloned();
            match job.filter(|job| job["approval"]["waits"] == true) {
                Some(job) => return job,
                None if std::time::Instant::now() > until => panic!("it does not wait: {shown:#}"),
                None => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_waits_for_a_maintainers_word_which_survives_a_kill_and_a_strangers_counts_for_nothing() {
    if !needs_engine() {
        return;
    }
    let mut stage = Stage::with(DEPLOYS).await;
    stage.pool = stage.pool.with("LONGSHORE_ENVIRONMENTS", "[{ repository = \"*\", name = \"prod*\" }]");
    let owner = stage.world.owner.clone();
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[]).unwrap();
    let (run, job) = stage.world.send(&stage.world.press(stage.pool.pubkey, PATH)).await.unwrap();
    let id = run.id.to_hex();
    let held = stage.held(&id).await;
    assert_eq!(held["approval"]["approvers"], serde_json::json!([owner.public_key().to_hex()]));
    assert_eq!(held["environment"]["name"], "prod-success");
    coordinator.kill().unwrap();

    let coordinator = stage.pool.coordinator().unwrap();
    assert_eq!(stage.held(&id).await["phase"], "waiting");
    let (code, said) = stage.approve(&Keys::generate(), &id, &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("403") && said.contains("may approve or reject the environment prod-success"), "{said}");
    assert_eq!(stage.held(&id).await["attempt"], 0, "no worker has it");
    let (code, said) = stage.approve(&owner, &id, &["--environment", "prod-success", "--comment", "ship it"]);
    assert_eq!((code, said.trim()), (0, "approved: deploy"));
    coordinator.kill().unwrap();

    let coordinator = stage.pool.coordinator().unwrap();
    let answers = stage.end(&run, &job, &[&coordinator, &worker]).await;
    super::assert_one_end(&answers);
    assert_eq!(answers.statuses(), ["queued", "running", "completed"], "words that every client knows");
    let url = format!("{}/api/runs/{id}", stage.pool.http);
    let shown: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
    let approval = &shown["jobs"][1]["approval"];
    assert_eq!((&approval["verdict"], &approval["comment"]), (&"approved".into(), &"ship it".into()), "{shown:#}");
    assert_eq!(approval["by"], owner.public_key().to_hex());
    let log = stage.folder.path().join("show.log");
    let mut show = Process::start_with("longshore", &["show", &id, "--server", &stage.pool.http], &[], &log).unwrap();
    assert_eq!(show.wait(LIMIT).unwrap(), 0, "{}", show.text());
    // A key that has no profile is shown by the ends of its npub.
    let line = "  approved for prod-success by npub1";
    let said = show.text().lines().any(|said| said.starts_with(line) && said.ends_with(": ship it"));
    assert!(said, "{}", show.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_job_fails_with_the_word_that_was_said_and_never_begins() {
    if !needs_engine() {
        return;
    }
    let workflow = "on: push\njobs:\n  deploy:\n    runs-on: ubuntu-latest\n    environment: production\n    steps:\n      \
                    - run: exit 3\n";
    let mut stage = Stage::with(workflow).await;
    let approver = Keys::generate();
    let environments = format!(
        "[{{ repository = \"*\", name = \"production\", approvers = [\"{}\"] }}]",
        approver.public_key().to_hex()
    );
    stage.pool = stage.pool.with("LONGSHORE_ENVIRONMENTS", &environments);
    let coordinator = stage.pool.coordinator().unwrap();
    let worker = stage.pool.worker(&[]).unwrap();
    let (run, job) = stage.world.send(&stage.world.press(stage.pool.pubkey, PATH)).await.unwrap();
    let id = run.id.to_hex();
    stage.held(&id).await;
    let short = &approver.public_key().to_hex()[..8];
    let told = stage.world.listener.answered(&run, &job, LIMIT, |answers| {
        let reason = format!("waits for an approval of the environment production by {short}");
        answers.of(kind::STATUS).iter().any(|event| tag(event, "status") == "queued" && tag(event, "reason") == reason)
    });
    told.await.unwrap();
    let (code, said) = stage.approve(&stage.world.owner, &id, &["--reject"]);
    assert_eq!(code, 2, "a maintainer is not asked here: {said}");
    let (code, said) = stage.approve(&approver, &id, &["--reject", "--comment", "not today"]);
    assert_eq!((code, said.trim()), (0, "rejected: deploy"));
    let answers = stage.end(&run, &job, &[&coordinator, &worker]).await;
    let result = answers.only(kind::RESULT).unwrap();
    assert_eq!(tag(result, "exit_code"), "125");
    let error = format!("the environment production was refused to it by {short}: not today");
    assert_eq!(tag(result, "error"), error);
}
