//! What a job may use up, change for its helpers, and leave behind (attacks by their numbers in the threat list).

use workflow::plan::{Conclusion, Reason};

use crate::{harness::Run, run, run_all};

#[tokio::test(flavor = "multi_thread")]
async fn attack_31_variables_of_a_step_do_not_reach_what_works_for_it() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("mark");
    let evil = folder.path().join("evil.sh");
    std::fs::write(&evil, format!("#!/bin/sh\ntouch {}\nexit 1\n", mark.display())).unwrap();
    std::process::Command::new("chmod").arg("+x").arg(&evil).status().unwrap();
    let evil = evil.display();
    let steps = format!(
        "
- uses: actions/checkout@v4
  env: &evil
    PATH: {0}
    LD_PRELOAD: /nowhere.so
    GIT_DIR: /nowhere
    GIT_SSH_COMMAND: {evil}
    GIT_EXTERNAL_DIFF: {evil}
    GIT_CONFIG_COUNT: '1'
    GIT_CONFIG_KEY_0: core.fsmonitor
    GIT_CONFIG_VALUE_0: {evil}
    DOCKER_HOST: tcp://127.0.0.1:1
    DOCKER_CONFIG: /nowhere
- run: cat hello.txt
- uses: docker://longshore/ubuntu:dev
  env: {{DOCKER_HOST: 'tcp://127.0.0.1:1', DOCKER_CONFIG: /nowhere}}
  with: {{args: 'cat hello.txt'}}",
        folder.path().display()
    );
    let source = tempfile::tempdir().unwrap();
    let job = Run::steps(&steps).repository(source.path(), &[("hello.txt", "hello\n")]);
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines(), ["hello", "hello"], "{}", outcome.notices());
    assert!(!mark.exists(), "a helper ran what a step named");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_36_a_job_that_fills_its_disk_ends_by_that_name() {
    for place in ["/workspace", "/var/tmp"] {
        let mut job = Run::steps(&format!("- run: head -c 300M /dev/zero > {place}/big; sleep 600\n- run: echo never"));
        job.limits.disk = 100 << 20;
        let Some(outcome) = run(job).await else { return };
        assert_eq!(outcome.report.reason, Some(Reason::Disk), "{place}: {}", outcome.notices());
        assert_eq!(outcome.report.conclusion, Conclusion::Failure);
        assert_eq!(outcome.lines(), [""; 0]);
    }
    let mut job = Run::steps("- run: mkdir many && cd many && seq 30000 | xargs touch; sleep 600");
    job.limits.disk = 20 << 20;
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.report.reason, Some(Reason::Disk), "{}", outcome.notices());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_36_a_disk_that_is_filled_where_nothing_is_seen_ends_its_job_by_that_name() {
    for script in [
        "exec 7<>held; rm held; head -c 300M /dev/zero >&7; sleep 600",
        "for i in $(seq 40); do d=$(printf 'd%.0s' $(seq 200)); mkdir $d; cd -P ./$d; done; head -c 300M /dev/zero > big; sleep 600",
    ] {
        let mut job = Run::steps(&format!("- run: cd /var/tmp; {script}\n- run: echo never"));
        job.limits.disk = 100 << 20;
        let Some(outcome) = run(job).await else { return };
        assert_eq!(outcome.report.reason, Some(Reason::Disk), "{script}: {}", outcome.notices());
        assert!(outcome.notices().contains("used the 100 MiB of disk that it may use"), "{}", outcome.notices());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_38_nothing_of_a_job_is_left_for_the_next() {
    if std::env::var("LONGSHORE_NO_ENGINE").is_ok_and(|value| value == "1") {
        return;
    }
    let places =
        "/workspace $HOME $RUNNER_TEMP /tmp /var/tmp /dev/shm /opt/hostedtoolcache $HOME/.docker /mine /github/home";
    let job = |steps: &str| {
        Run::new(&format!(
            "jobs:\n  test:\n    runs-on: ubuntu-latest\n    container: {{image: 'longshore/ubuntu:dev', volumes: ['shared:/mine']}}
    services:\n      s: {{image: 'longshore/ubuntu:dev', command: sleep 600, volumes: ['shared:/its']}}\n    steps:{steps}"
        ))
    };
    let leave = job(&format!(
        "\n      - run: for place in {places}; do mkdir -p $place; echo secret > $place/left-behind; done; cat /mine/left-behind
      - uses: docker://longshore/ubuntu:dev\n        with: {{args: 'sh -c \"echo left > $HOME/left-behind\"'}}"
    ));
    let look = job(&format!(
        "\n      - run: for place in {places}; do ls $place/left-behind || true; done 2>/dev/null; echo looked
      - uses: docker://longshore/ubuntu:dev\n        with: {{args: 'sh -c \"ls $HOME; ls /workspace; echo looked\"'}}"
    ));
    let mut look = look;
    look.order.source.repository = "another".into();
    let outcomes = run_all(format!("steps-attack-38-{}", std::process::id()), [leave, look]).await;
    assert_eq!(outcomes[0].lines(), ["secret"], "{}", outcomes[0].notices());
    assert_eq!(outcomes[1].lines(), ["looked", "looked"], "{}", outcomes[1].notices());
}
