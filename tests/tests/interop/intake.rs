//! Job intake: every accepted shape runs, everything else is refused with a reason or left alone.

use longshore_tests::{
    harness::client::{Shape, kind, sign, tag},
    oracle::gg::{Followed, Outcome},
};
use nostr::{EventBuilder, Keys, Kind, Tag, ToBech32, nips::nip44};

use super::{LIMIT, PASSES, PATH, Stage, needs_engine};

#[tokio::test(flavor = "multi_thread")]
async fn t01_a_press_in_the_web_client_ends_in_a_signed_success() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    let commit = stage.world.repository.git(&["rev-parse", "HEAD"]).unwrap();
    let mut press = stage.press();
    press.commit = commit;
    let run = stage.run(press).await;
    run.assert_normal_end("completed");
    assert_eq!((tag(run.result(), "success"), tag(run.result(), "exit_code")), ("true".into(), "0".into()));
    let result = run.workflow_result();
    assert_eq!(tag(result, "status"), "success");
    assert_eq!(tag(result, "workflow"), PATH);
    assert!(tag(result, "duration").parse::<u64>().is_ok());
    let url = tag(result, "log_url");
    assert!(url.rsplit('/').next().is_some_and(|last| last.len() == 64), "{url}");
    assert!(run.log().await.contains("fine"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t02_a_failing_step_is_a_failure_with_its_exit_code() {
    needs_engine!();
    let stage = Stage::with(&PASSES.replace("echo fine", "exit 3")).await;
    let run = stage.run(stage.press()).await;
    run.assert_normal_end("failed");
    assert_eq!((tag(run.result(), "success"), tag(run.result(), "exit_code")), ("false".into(), "3".into()));
    assert_eq!(tag(run.workflow_result(), "status"), "failure");
    assert_eq!(tag(run.workflow_result(), "exit_code"), "3");
}

#[tokio::test(flavor = "multi_thread")]
async fn t04_the_runner_script_in_a_heredoc_is_never_run() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    let mut press = stage.press();
    press.shape = Shape::A2;
    let script = std::path::Path::new("/tmp/run-workflow.sh");
    assert!(!script.exists(), "a leftover of something else: remove it");
    stage.run(press).await.assert_normal_end("completed");
    assert!(!script.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn t05_a_watchers_push_of_a_tag_is_a_push_of_that_tag() {
    needs_engine!();
    let show = "run: echo \"${{ github.event_name }} ${{ github.ref }} ${{ github.ref_type }} ${{ github.sha }}\"";
    let stage = Stage::with(&PASSES.replace("run: echo fine", show)).await;
    let commit = stage.world.repository.git(&["rev-parse", "HEAD"]).unwrap();
    stage.world.repository.git(&["tag", "--annotate", "-m", "v1", "v1"]).unwrap();
    let object = stage.world.repository.git(&["rev-parse", "v1"]).unwrap();
    stage.world.repository.publish(&stage.world.git.folder, "repo.git").unwrap();
    stage.world.state(&[("refs/heads/main", &commit), ("refs/tags/v1", &object)]).await.unwrap();
    let mut press = stage.press();
    press.author = Keys::generate();
    press.shape = Shape::A4;
    press.trigger = "push".into();
    press.branch = "v1".into();
    press.reference = Some("refs/tags/v1".into());
    press.commit = commit.clone();
    let run = stage.run(press).await;
    run.assert_normal_end("completed");
    let log = run.log().await;
    assert!(log.contains(&format!("push refs/tags/v1 tag {commit}")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t06_the_bridges_job_ends_in_a_commit_status_of_success() {
    needs_engine!();
    // The bridge takes logs over https alone.
    let stage = Stage::with_files(&[(PATH, PASSES)], &["--public-url", "https://ci.example.org"]).await;
    let commit = stage.world.repository.git(&["rev-parse", "HEAD"]).unwrap();
    let mut press = stage.press();
    press.shape = Shape::A5;
    press.trigger = "push".into();
    press.commit = commit.clone();
    press.nsec = Some(press.publisher.secret_key().to_bech32().unwrap());
    let run = stage.run(press).await;
    run.assert_normal_end("completed");
    let followed = Followed {
        run: run.run.id.to_hex(),
        job: run.job.id.to_hex(),
        requester: run.press.author.public_key(),
        worker: stage.dev.pubkey,
        publisher: run.press.publisher.public_key(),
        workflow: PATH.into(),
        commit,
    };
    let outcomes: Vec<Outcome> = run.answers.0.iter().map(|event| followed.map(event).unwrap()).collect();
    assert_eq!(outcomes, [Outcome::Pending, Outcome::Pending, Outcome::Success, Outcome::Success, Outcome::Pending]);
    assert!(!std::path::Path::new("/tmp/run-workflow.sh").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_of_the_deployment_system_and_of_very_old_clients_run_natively() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    for shape in [Shape::A6, Shape::A7] {
        let mut press = stage.press();
        press.shape = shape;
        let run = stage.run(press).await;
        run.assert_normal_end("completed");
        for event in &run.answers.0 {
            let (of, job, author) = (run.run.id.to_hex(), run.job.id.to_hex(), run.job.pubkey.to_hex());
            longshore_tests::oracle::bah::check(event, &of, &job, &author).unwrap();
        }
    }
    assert!(!std::path::Path::new("/tmp/run-workflow.sh").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plain_loom_command_runs_where_the_operator_allows_it() {
    needs_engine!();
    let stage = Stage::with_files(&[(PATH, PASSES)], &["--set", "policy.command_label=ubuntu-latest"]).await;
    let author = &stage.world.owner;
    let sealed = nip44::encrypt(author.secret_key(), &stage.dev.pubkey, "abc", nip44::Version::V2).unwrap();
    let script =
        "cat; echo \"$GREETING:$(echo $KEY | tr a-c A-C):$1:$(ls | wc -l):${ACTIONS_RUNTIME_TOKEN:-none}\"; exit 3";
    let us = stage.dev.pubkey.to_hex();
    let tags = [
        &["p", &us][..],
        &["cmd", "sh"],
        &["args", "-c", script, "sh", "it's ${{ github.actor }}"],
        &["env", "GREETING", "${{ secrets.KEY }} $HOME"],
        &["secret", "KEY", &sealed],
    ];
    let tags = tags.map(|tag| Tag::parse(tag.iter().copied()).unwrap());
    let job = EventBuilder::new(Kind::from(kind::JOB), "from 'stdin'\n").tags(tags).sign_with_keys(author).unwrap();
    stage.world.listener.publish(&job).await.unwrap();
    let answers = stage.world.listener.end(&job, &job, LIMIT).await;
    let answers = answers.unwrap_or_else(|error| panic!("{error:#}\n{}", stage.dev.process.text()));
    assert_eq!(answers.statuses(), ["queued", "running", "failed"]);
    assert_eq!(answers.kinds(), [30100, 30100, 5101, 30100], "there is no run that a 5402 would be of");
    let result = answers.only(kind::RESULT).unwrap();
    assert_eq!((tag(result, "e"), tag(result, "p")), (job.id.to_hex(), author.public_key().to_hex()));
    assert_eq!((tag(result, "success"), tag(result, "exit_code")), ("false".into(), "3".into()));
    let log = reqwest::get(tag(result, "stdout")).await.unwrap().text().await.unwrap();
    assert!(log.contains("from 'stdin'"), "{log}");
    assert!(log.contains("${{ secrets.KEY }} $HOME:ABC:it's ${{ github.actor }}:0:none"), "{log}");
    let page = reqwest::get(format!("{}/api/runs", stage.dev.http)).await.unwrap().text().await.unwrap();
    assert!(page.contains("'sh' '-c'"), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t53_who_is_on_the_list_runs_and_a_newer_list_holds_for_the_next_job() {
    needs_engine!();
    let operator = Keys::generate();
    let list = format!("policy.list=30000:{}:friends", operator.public_key());
    let stage = Stage::with_files(&[(PATH, PASSES)], &["--set", "policy.everyone=false", "--set", &list]).await;
    let refused = async || {
        let run = stage.run(stage.press()).await;
        run.assert_well_formed();
        assert_eq!(run.answers.statuses(), ["failed"]);
        assert!(run.error().contains("may not run here"), "{}", run.error());
    };
    let publish = async |people: &[&Keys], at: u64| {
        let mut tags = vec![vec!["d".to_owned(), "friends".into()]];
        tags.extend(people.iter().map(|keys| vec!["p".to_owned(), keys.public_key().to_hex()]));
        let at = nostr::Timestamp::from(nostr::Timestamp::now().as_secs() - 100 + at);
        let list = longshore_tests::harness::client::sign_at(&operator, 30000, tags, at).unwrap();
        stage.world.listener.publish(&list).await.unwrap();
        // The list and the next job come by one connection, and are read side by side.
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    };
    refused().await;
    publish(&[&stage.world.owner], 1).await;
    stage.run(stage.press()).await.assert_normal_end("completed");
    publish(&[&operator], 2).await;
    refused().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t08_an_empty_commit_builds_the_state_and_names_the_commit_first() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    let commit = stage.world.repository.git(&["rev-parse", "HEAD"]).unwrap();
    let run = stage.run(stage.press()).await;
    run.assert_normal_end("completed");
    let log = run.log().await;
    let spoken: Vec<&str> = log.lines().filter(|line| !line.contains('⭐')).collect();
    assert!(spoken[0].contains(&commit), "{log}");
    assert_eq!(tag(run.workflow_result(), "commit"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn t09_a_publisher_secret_of_another_key_runs_nothing() {
    let stage = Stage::with(PASSES).await;
    let mut press = stage.press();
    press.nsec = Some(Keys::generate().secret_key().to_bech32().unwrap());
    let run = stage.run(press).await;
    run.assert_well_formed();
    assert_eq!(run.answers.statuses(), ["failed"]);
    assert!(run.answers.of(kind::WORKFLOW_RESULT).is_empty());
    assert_eq!(tag(run.result(), "success"), "false");
    assert!(!run.error().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn t11_a_job_that_arrives_before_its_run_waits_for_it() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    let press = stage.press();
    let (run, job) = press.events().unwrap();
    stage.world.listener.publish(&job).await.unwrap();
    // Another run from start to end lies between the two halves.
    stage.run(stage.press()).await;
    assert!(stage.world.listener.answers(&run, &job).is_empty());
    stage.world.listener.publish(&run).await.unwrap();
    stage.ended(press, run, job).await.assert_normal_end("completed");
}

#[tokio::test(flavor = "multi_thread")]
async fn t12_the_same_job_again_is_not_run_again() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    let run = stage.run(stage.press()).await;
    for _ in 0..3 {
        stage.world.listener.publish(&run.job).await.unwrap();
        stage.world.listener.publish(&run.run).await.unwrap();
    }
    stage.run(stage.press()).await.assert_normal_end("completed");
    assert_eq!(stage.world.listener.answers(&run.run, &run.job).len(), run.answers.0.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn t15_a_job_for_another_worker_is_left_alone() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    let mut press = stage.press();
    press.worker = Keys::generate().public_key();
    let (run, job) = stage.world.send(&press).await.unwrap();
    stage.nothing_about(&run, &job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t16_an_image_generation_request_is_left_alone() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    let tags = vec![
        vec!["p".to_owned(), stage.dev.pubkey.to_hex()],
        vec!["i".into(), "a lighthouse at dawn".into(), "text".into()],
        vec!["output".into(), "image/png".into()],
    ];
    let job = sign(&stage.world.owner, kind::JOB, tags).unwrap();
    stage.world.listener.publish(&job).await.unwrap();
    stage.nothing_about(&job, &job).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn t20_a_workflow_path_that_is_outside_or_missing_fails_with_a_readable_log() {
    let stage = Stage::with(PASSES).await;
    for path in ["../../etc/x.yml", "/etc/passwd", ".github/workflows/missing.yml"] {
        let mut press = stage.press();
        press.workflow = path.into();
        let run = stage.run(press).await;
        run.assert_well_formed();
        assert_eq!(run.answers.statuses().last().unwrap(), "failed");
        assert_eq!(tag(run.workflow_result(), "status"), "failure");
        let log = run.log().await;
        assert!(log.contains(path), "{path}: {log}");
        assert!(!log.contains("root:"), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn t21_yaml_that_cannot_be_read_fails_with_line_and_message() {
    let stage = Stage::with("on: push\njobs:\n  build:\n    runs-on: [ubuntu-latest\n    steps: 3\n").await;
    let run = stage.run(stage.press()).await;
    run.assert_well_formed();
    assert_eq!(tag(run.workflow_result(), "status"), "failure");
    assert_ne!(tag(run.workflow_result(), "exit_code"), "0");
    let log = run.log().await;
    assert!(log.contains(&format!("{PATH}:")), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn t50_a_payment_is_refused_and_left_untouched() {
    let stage = Stage::with(PASSES).await;
    let mut press = stage.press();
    press.payment = Some("cashuBo2F0gaJhaUgA".into());
    let run = stage.run(press).await;
    run.assert_well_formed();
    assert!(run.error().contains("this pool takes no payment, send the job without one"), "{}", run.error());
    assert_eq!(tag(run.result(), "change"), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn t57_the_announced_commit_comes_from_the_second_clone_url() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    stage.world.repository.publish(&stage.world.git.folder, "old.git").unwrap();
    let commit = stage.world.push("second", &[(PATH, &PASSES.replace("fine", "second"))]).await.unwrap();
    // Replaceable events of one second are told apart by id alone: the next announcement needs a later one.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    stage.world.announce(&["old.git", "repo.git"]).await.unwrap();
    let mut press = stage.press();
    press.commit = commit;
    let run = stage.run(press).await;
    run.assert_normal_end("completed");
    assert!(run.log().await.contains("second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn t58_a_state_that_precedes_its_objects_is_waited_for() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let commit = stage.world.repository.commit("later", &[(PATH, &PASSES.replace("fine", "later"))]).unwrap();
    stage.world.state(&[("refs/heads/main", &commit)]).await.unwrap();
    let press = stage.press();
    let (run, job) = stage.world.send(&press).await.unwrap();
    stage.world.listener.status(&job, "queued", LIMIT).await.unwrap();
    stage.world.repository.publish(&stage.world.git.folder, "repo.git").unwrap();
    let ended = stage.ended(press, run, job).await;
    ended.assert_normal_end("completed");
    assert!(ended.log().await.contains("later"));
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_numbered_without_a_gap_however_their_two_events_meet() {
    needs_engine!();
    let stage = Stage::with(PASSES).await;
    let listener = &stage.world.listener;
    let mut sent = Vec::new();
    for _ in 0..10 {
        let (run, job) = stage.press().events().unwrap();
        let (first, second) = tokio::join!(listener.publish(&job), listener.publish(&run));
        first.and(second).unwrap();
        sent.push((run, job));
    }
    for (run, job) in &sent {
        listener.end(run, job, LIMIT).await.unwrap();
    }
    let url = format!("{}/api/runs?limit=50", stage.dev.http.trim_end_matches('/'));
    let runs: serde_json::Value = reqwest::get(url).await.unwrap().json().await.unwrap();
    for count in ["serial", "number"] {
        let mut counted: Vec<u64> = runs.as_array().unwrap().iter().map(|run| run[count].as_u64().unwrap()).collect();
        counted.sort_unstable();
        assert_eq!(counted, (1..=10).collect::<Vec<u64>>(), "{count}");
    }
}
