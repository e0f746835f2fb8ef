//! Docker actions: images and Dockerfiles.

use workflow::plan::Conclusion;

use crate::{
    harness::Run,
    run, run_all,
    services::{WEB, job},
};

#[tokio::test(flavor = "multi_thread")]
async fn an_image_as_a_step_shares_workspace_network_files_and_home_with_the_job() {
    let services = format!("services:\n        web:{WEB}\n          env: {{GREETING: from web}}");
    let steps = "
- run: echo from job > file
- id: image
  uses: docker://longshore/ubuntu:dev
  env: {MINE: mine}
  with:
    entrypoint: /bin/bash
    args: >-
      -ec 'cat file ${{ github.workspace }}/file; pwd; echo \"$HOME $MINE $GITHUB_WORKSPACE $0 $1\"; echo back > back;
      echo o=output >> $GITHUB_OUTPUT; echo E=variable >> $GITHUB_ENV; echo kept > $HOME/kept; curl -sS http://web:8080;
      jq -r .ref $GITHUB_EVENT_PATH; echo \"${INPUT_ENTRYPOINT}\"; echo ::notice::said' zero 'one two'
- run: cat back; echo \"$E ${{ steps.image.outputs.o }}\"
- uses: docker://longshore/ubuntu:dev
  with: {args: cat /github/home/kept}
- uses: docker://longshore/ubuntu:dev
  with: {args: sh -c 'exit 4'}";
    let Some(outcome) = run(job(&services, steps)).await else { return };
    let lines = [
        "from job",
        "from job",
        "/github/workspace",
        "/github/home mine /github/workspace zero one two",
        "from web",
        "refs/heads/main",
        "/bin/bash",
        "##[notice]said",
        "back",
        "variable output",
        "kept",
    ];
    assert_eq!(outcome.lines(), lines, "{}", outcome.notices());
    assert_eq!(outcome.conclusions(), ["success", "success", "success", "success", "failure"]);
    assert_eq!(outcome.report.exit_code, 4);
}

const ACTION: &str = "
inputs: {who: {default: nobody}}
runs:
  using: docker
  image: image/Dockerfile
  args: ['${{ inputs.who }}', second]
  env: {OWN: 'of ${{ inputs.who }}'}
  post-entrypoint: sh /post.sh
";

const DOCKERFILE: &str = r#"ARG BASE=longshore/ubuntu
FROM ${BASE}:dev AS build
WORKDIR /src
COPY *.txt ./
RUN cat one.txt two.txt > made && \
    # between
    grep -E '^(CapBnd|NoNewPrivs)' /proc/self/status && echo "::error::no command"
FROM longshore/ubuntu:dev
ENV GREETING="hello" PATH="/tool:${PATH}"
COPY --from=build /src/made /made
COPY --chown=100:101 --chmod=700 tool /tool/
COPY main.sh /main.sh
COPY post.sh /
ENTRYPOINT ["sh", "/main.sh"]
"#;

fn with_action(folder: &std::path::Path, word: &str) -> Run {
    let steps = "
- uses: actions/checkout@v4
- id: a
  uses: ./action
  with: {who: world}
- run: echo \"${{ steps.a.outputs.o }}\"";
    Run::steps(steps).repository(
        folder,
        &[
            ("action/action.yml", ACTION),
            ("action/image/Dockerfile", DOCKERFILE),
            ("action/image/one.txt", "one\n"),
            ("action/image/two.txt", word),
            ("action/image/tool/tool", "#!/bin/sh\nstat -c '%u:%g %a' \"$0\"\n"),
            (
                "action/image/main.sh",
                "cat /made; echo \"$GREETING $1 $2 $INPUT_WHO $OWN\"; tool
                 echo o=out >> $GITHUB_OUTPUT; echo s=state >> $GITHUB_STATE",
            ),
            ("action/image/post.sh", "#!/bin/sh\necho post $STATE_s $1\n"),
        ],
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dockerfile_is_built_as_the_job_is_and_once() {
    let folder = tempfile::tempdir().unwrap();
    if std::env::var("LONGSHORE_NO_ENGINE").is_ok_and(|value| value == "1") {
        return;
    }
    let jobs = [with_action(folder.path(), "two\n"), with_action(folder.path(), "two\n")];
    let outcomes = run_all(format!("steps-docker-{}", std::process::id()), jobs).await;
    let lines = ["one", "two", "hello world second world of world", "100:101 700", "out", "post state world"];
    for outcome in &outcomes {
        assert_eq!(outcome.report.conclusion, Conclusion::Success, "{}", outcome.notices());
        assert_eq!(outcome.lines(), lines, "{}", outcome.notices());
        assert!(outcome.report.annotations.is_empty());
    }
    assert!(outcomes[0].notices().contains("Build action/image/Dockerfile"));
    // CHOWN 0, DAC_OVERRIDE 1, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7, NET_BIND_SERVICE 10, SYS_CHROOT 18.
    assert!(outcomes[0].notices().contains("00000000000404fb"), "{}", outcomes[0].notices());
    assert!(!outcomes[1].notices().contains("Build action/image/Dockerfile"), "{}", outcomes[1].notices());
}

/// Two repositories whose actions look the same but for what is in them.
#[tokio::test(flavor = "multi_thread")]
async fn attack_40_an_image_is_used_for_what_it_was_built_from_alone() {
    if std::env::var("LONGSHORE_NO_ENGINE").is_ok_and(|value| value == "1") {
        return;
    }
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let words = ["theirs\n", "ours\n", "ours\n"];
    let mut jobs: Vec<_> = folders.iter().zip(words).map(|(folder, word)| with_action(folder.path(), word)).collect();
    // The third has what the second has, in another repository.
    jobs[2].order.source.repository = "another".into();
    let outcomes = run_all(format!("steps-attack-40-{}", std::process::id()), jobs).await;
    for (outcome, word) in outcomes.iter().zip(words) {
        assert_eq!(outcome.lines().get(1).map(String::as_str), Some(word.trim()), "{}", outcome.notices());
        assert!(outcome.notices().contains("Build action/image/Dockerfile"), "{}", outcome.notices());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_build_that_fails_or_asks_for_more_than_a_job_may_says_so() {
    for (dockerfile, part) in [
        ("FROM longshore/ubuntu:dev\nADD http://169.254.169.254/ /x", "line 2: ADD http"),
        ("FROM longshore/ubuntu:dev\nRUN echo why; exit 3", "exit code 3"),
        ("FROM longshore/ubuntu:dev\nCOPY ../../../etc/passwd /x", "outside"),
        ("FROM longshore/ubuntu:dev\nRUN timeout 3 bash -c 'exec 3<>/dev/tcp/169.254.169.254/80'", "exit code"),
        ("FROM localhost/absent:1", "localhost/absent:1"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let job = Run::steps("- uses: actions/checkout@v4\n- uses: ./").repository(
            folder.path(),
            &[("action.yml", "runs: {using: docker, image: Dockerfile}"), ("Dockerfile", dockerfile)],
        );
        let Some(outcome) = run(job).await else { return };
        assert_eq!(outcome.conclusions(), ["success", "failure"], "{dockerfile}");
        let said = outcome.report.annotations.iter().any(|annotation| annotation.message.contains(part));
        assert!(said, "{dockerfile}: {:?}", outcome.report.annotations);
    }
}
