//! What a job's steps see, do and leave, on a real engine.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};

use worker::sandbox::{
    Sandbox as _,
    docker::{Docker, DockerConfig},
};
use workflow::plan::{Conclusion, Reason};

#[path = "steps/harness.rs"]
mod harness;

use harness::{Outcome, Run};

/// Runs a job on the engine of this machine; `None` only where the engine was given up by name.
async fn run(run: Run) -> Option<Outcome> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    if std::env::var("LONGSHORE_NO_ENGINE").is_ok_and(|value| value == "1") {
        return None;
    }
    let worker = format!("steps-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let config = DockerConfig { worker, ..DockerConfig::default() };
    let docker = Docker::connect(config).await.expect("a Docker engine; LONGSHORE_NO_ENGINE=1 goes on without");
    let outcome = run.on(docker.clone()).await;
    docker.close().await;
    Some(outcome)
}

/// Steps, the lines they print, and how each concludes.
const TABLE: &[(&str, &str, &[&str], &[&str])] = &[
    (
        "output and state of steps",
        "
- id: a
  run: |
    echo \"x=1\" >> \"$GITHUB_OUTPUT\"
    printf 'm<<E\\ntwo\\nlines\\nE\\n' >> \"$GITHUB_OUTPUT\"
- run: printf '%s\\n' '${{ steps.a.outputs.x }}' '${{ steps.a.outputs.m }}' '${{ steps.a.outcome }}'",
        &["1", "two", "lines", "success"],
        &["success", "success"],
    ),
    (
        "environment and path files",
        "
- run: |
    echo 'A=from file' >> \"$GITHUB_ENV\"
    mkdir -p bin && printf '#!/bin/sh\\necho tool' > bin/tool && chmod +x bin/tool
    echo \"$PWD/bin\" >> \"$GITHUB_PATH\"
    echo \"now ${A:-unset}\"
- run: echo \"$A ${{ env.A }}\"; tool
- env: {A: step}
  run: echo \"$A ${{ env.A }}\"",
        &["now unset", "from file from file", "tool", "step step"],
        &["success", "success", "success"],
    ),
    (
        "default shell is bash without pipefail; bash itself has it",
        "
- run: |
    false | true
    echo \"${BASH_VERSION:+bash}\"
- shell: bash
  run: 'false | true'
- if: failure()
  shell: sh
  run: echo sh
- if: always()
  shell: python3 {0}
  run: print('python')",
        &["bash", "sh", "python"],
        &["success", "failure", "success", "success"],
    ),
    (
        "a failure skips the rest, but not what asks for it",
        "
- id: f
  run: exit 3
- run: echo never
- if: failure() && steps.f.outcome == 'failure'
  run: echo saw it
- if: always()
  run: echo always ${{ job.status }}
- if: success()
  run: echo never",
        &["saw it", "always failure"],
        &["failure", "skipped", "success", "success", "skipped"],
    ),
    (
        "a tolerated failure",
        "
- id: f
  continue-on-error: true
  run: exit 1
- run: echo ${{ steps.f.outcome }} ${{ steps.f.conclusion }} ${{ job.status }}",
        &["failure success success"],
        &["success", "success"],
    ),
    (
        "working-directory",
        "
- run: mkdir -p 'a b'
- working-directory: a b
  run: basename \"$PWD\"
- working-directory: ./made/here
  run: basename \"$PWD\"",
        &["a b", "here"],
        &["success", "success", "success"],
    ),
    (
        "default variables and contexts",
        "
- id: me
  run: |
    echo \"$CI $GITHUB_ACTIONS $GITHUB_REPOSITORY $GITHUB_REF_NAME $GITHUB_ACTION $RUNNER_OS\"
    [ \"$PWD\" = \"$GITHUB_WORKSPACE\" ] && [ '${{ github.workspace }}' = \"$PWD\" ] && echo workspace
    grep -q refs/heads/main \"$GITHUB_EVENT_PATH\" && [ -w \"$RUNNER_TEMP\" ] && [ -w \"$HOME\" ] && echo files
    echo ${{ vars.COLOUR }} ${{ github.event.ref }} ${{ runner.os }} ${{ strategy.job-total }}",
        &["true true npub1x/hello main me Linux", "workspace", "files", "blue refs/heads/main Linux 1"],
        &["success"],
    ),
    (
        "commands",
        "
- id: c
  run: |
    echo '::set-output name=o::old way'
    echo '::group::Title'
    echo '::debug::hidden'
    echo '::stop-commands::tok3n'
    echo '::warning::held off'
    echo '::tok3n::'
    echo 'plain ::warning::text'
- run: echo '${{ steps.c.outputs.o }}'",
        &[
            "##[warning]the command set-output is deprecated: write to the file $GITHUB_OUTPUT instead",
            "##[group]Title",
            "::stop-commands::tok3n",
            "::warning::held off",
            "::tok3n::",
            "plain ::warning::text",
            "old way",
        ],
        &["success", "success"],
    ),
    (
        "disabled commands fail their step",
        "
- run: echo '::set-env name=A::b'
- if: failure()
  run: echo \"A is '$A'\"",
        &["##[error]the command set-env is disabled: write to the file $GITHUB_ENV instead", "A is ''"],
        &["failure", "success"],
    ),
    (
        "a step that cannot be read fails, the others go on by their conditions",
        "
- run: echo 'words' >> \"$GITHUB_ENV\"
- if: failure()
  uses: some/action@v1
- if: always()
  uses: ./../outside
- if: always()
  shell: fish
  run: echo never
- if: always()
  run: echo end",
        &["end"],
        &["failure", "failure", "failure", "failure", "success"],
    ),
];

#[tokio::test(flavor = "multi_thread")]
async fn steps_do_as_github_documents() {
    for (name, steps, lines, conclusions) in TABLE {
        let Some(outcome) = run(Run::steps(steps)).await else {
            return;
        };
        assert_eq!(outcome.lines(), *lines, "{name}\n{}", outcome.notices());
        assert_eq!(outcome.conclusions(), *conclusions, "{name}\n{}", outcome.notices());
        let failed = conclusions.contains(&"failure");
        assert_eq!(outcome.report.conclusion, if failed { Conclusion::Failure } else { Conclusion::Success }, "{name}");
        assert_eq!(outcome.report.reason, failed.then_some(Reason::Step), "{name}");
        assert!(outcome.report.started, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_tells_outputs_annotations_summary_and_exit_code() {
    let job = Run::new(
        "
env: {W: workflow, J: workflow, S: workflow}
jobs:
  test:
    runs-on: ubuntu-latest
    env: {J: job, S: job}
    defaults: {run: {shell: bash}}
    outputs:
      out: ${{ steps.a.outputs.o }}
      leak: ${{ steps.a.outputs.leak }}
    steps:
      - id: a
        name: Step of ${{ env.S }}
        env: {S: step, T: '${{ secrets.TOKEN }}'}
        run: |
          echo \"o=$W $J $S\" >> $GITHUB_OUTPUT
          echo \"leak=x $T\" >> $GITHUB_OUTPUT
          echo \"# Sum with $T\" >> $GITHUB_STEP_SUMMARY
          echo \"::error file=a.rs,line=3,endLine=4,col=5,title=Bad::message $T%0Atwo\"
          exit 9
",
    );
    let Some(outcome) = run(job.secret("TOKEN", "tok_9f8e7d")).await else {
        return;
    };
    let report = &outcome.report;
    assert_eq!(report.outputs.get("out").map(String::as_str), Some("workflow job step"));
    assert_eq!(report.outputs.get("leak"), None, "an output with a secret is dropped");
    assert!(outcome.notices().contains("leak is left out"));
    assert_eq!(report.steps[0].name, "Step of step");
    assert_eq!((report.exit_code, report.steps[0].exit_code), (9, Some(9)));
    assert_eq!(report.summary, "# Sum with ***\n");
    let annotation = &report.annotations[0];
    assert_eq!(annotation.message, "message ***\ntwo");
    assert_eq!((annotation.line, annotation.end_line, annotation.column), (Some(3), Some(4), Some(5)));
    assert!(!outcome.everything().contains("tok_9f8e7d"));
    let marks: Vec<_> =
        outcome.records.iter().filter_map(|r| r.mark.as_ref()).map(|m| (m.name.as_str(), m.ended)).collect();
    assert_eq!(
        marks,
        [
            ("Set up job", false),
            ("Set up job", true),
            ("Main Step of step", false),
            ("Main Step of step", true),
            ("Complete job", false),
            ("Complete job", true),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_21_encoded_secrets_do_not_leave_a_job() {
    let job = Run::steps(
        "
- env: {T: '${{ secrets.TOKEN }}'}
  run: |
    printf '%s' \"$T\" | base64 -w0; echo
    printf 'x%s' \"$T\" | base64 -w0; echo
    printf 'xy%sz' \"$T\" | base64 -w0; echo
    printf '%s' \"$T\" | od -An -tx1 | tr -d ' \\n'; echo
    printf '%s' \"$T\" | jq -sRr @uri
    printf '%s' \"$T\" | jq -sR .
    printf '%s' \"$T\" | jq -sRr @html
    printf '%q\\n' \"$T\"
- name: named ${{ secrets.TOKEN }}
  run: echo '${{ secrets.TOKEN }}' >&2",
    );
    let secret = "Zaq1&<x>sw2-p@ss";
    let Some(outcome) = run(job.secret("TOKEN", secret)).await else {
        return;
    };
    let lines = outcome.lines();
    assert_eq!(lines.len(), 9, "{lines:#?}");
    for line in &lines {
        assert!(line.contains("***"), "{line}");
    }
    assert!(!outcome.everything().contains(secret));
    assert!(outcome.everything().contains("named ***"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_22_multi_line_secrets_are_masked_line_by_line() {
    let job = Run::steps(
        "
- env: {KEY: '${{ secrets.KEY }}'}
  run: |
    echo \"$KEY\"
    echo \"$KEY\" | sed 's/^/  /; s/$/\\r/'
    echo \"$KEY\" | while read -r line; do echo \"line $line\"; done",
    );
    let Some(outcome) = run(job.secret("KEY", "BEGIN-KEY\nline-alpha-1\nline-beta-2\n")).await else {
        return;
    };
    for part in ["BEGIN-KEY", "line-alpha-1", "line-beta-2"] {
        assert!(!outcome.everything().contains(part), "{part}\n{:?}", outcome.lines());
    }
    assert!(outcome.lines().contains(&"line ***".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_23_a_secret_written_byte_by_byte_is_masked() {
    let job = Run::steps(
        "
- env: {T: '${{ secrets.TOKEN }}'}
  run: |
    for i in $(seq 1 ${#T}); do printf '%s' \"$(printf '%s' \"$T\" | cut -c $i)\"; sleep 0.12; done; echo ' end'
- run: |
    echo '::add-mask::late-value'
    printf 'late-'; sleep 0.3; echo 'value'",
    );
    let Some(outcome) = run(job.secret("TOKEN", "hunter22")).await else {
        return;
    };
    assert_eq!(outcome.lines(), ["*** end", "***"]);
    assert!(!outcome.records.iter().any(|record| record.text.starts_with(b"h")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_without_a_line_end_is_seen_while_its_step_runs() {
    let mut job = Run::steps("- run: |\n    printf 'password: '; sleep 60");
    job.cancel_at = Some(("password: ", job.kill.clone()));
    let began = std::time::Instant::now();
    let Some(outcome) = run(job).await else {
        return;
    };
    assert!(began.elapsed().as_secs() < 30, "the prompt was not seen");
    assert_eq!(outcome.report.conclusion, Conclusion::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_51_floods_are_cut_at_the_limit_and_named() {
    for script in ["yes", "head -c 1G /dev/zero", "head -c 8M /dev/urandom; yes"] {
        let mut job = Run::steps(&format!("- run: {script}\n- if: always()\n  run: echo never"));
        job.limits.log = 4 << 20;
        let Some(outcome) = run(job).await else {
            return;
        };
        assert_eq!(outcome.report.reason, Some(Reason::LogLimit), "{script}");
        assert_eq!(outcome.report.conclusion, Conclusion::Failure, "{script}");
        let bytes: usize = outcome.records.iter().map(|record| record.text.len()).sum();
        assert!(bytes < (4 << 20) + 4096, "{script}: {bytes}");
        assert!(outcome.records.iter().all(|record| record.text.len() <= 64 * 1024), "{script}");
        assert!(outcome.notices().contains("log cut here"), "{script}");
        assert_eq!(outcome.conclusions().last(), Some(&"skipped"), "{script}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_stops_its_step_and_runs_what_is_always_run() {
    let mut job = Run::steps(
        "
- run: trap 'echo got INT; exit 1' INT; echo ready; while true; do sleep 0.1; done
- run: echo never
- if: cancelled()
  run: echo cancelled ${{ job.status }}
- if: always()
  run: echo always
- if: failure()
  run: echo never",
    );
    job.cancel_at = Some(("ready", job.cancel.clone()));
    let Some(outcome) = run(job).await else {
        return;
    };
    assert_eq!(outcome.lines(), ["ready", "got INT", "cancelled cancelled", "always"]);
    assert_eq!(outcome.conclusions(), ["cancelled", "skipped", "success", "success", "skipped"]);
    assert_eq!(outcome.report.conclusion, Conclusion::Cancelled);
    assert!(matches!(outcome.report.reason, Some(Reason::Cancelled(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_job_runs_nothing_more_though_its_step_ignores_signals() {
    let mut job = Run::steps(
        "- run: trap '' INT TERM; echo ready; while true; do sleep 1; done\n- if: always()\n  run: echo never",
    );
    job.cancel_at = Some(("ready", job.kill.clone()));
    let began = std::time::Instant::now();
    let Some(outcome) = run(job).await else {
        return;
    };
    assert!(began.elapsed().as_secs() < 7, "a kill does not wait for signals");
    assert_eq!(outcome.lines(), ["ready"]);
    assert_eq!(outcome.conclusions(), ["cancelled", "skipped"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_out_of_time_fails_and_a_job_out_of_time_ends() {
    let steps = "
- id: slow
  timeout-minutes: 0.01
  continue-on-error: true
  run: sleep 60
- run: echo ${{ steps.slow.outcome }}";
    let Some(outcome) = run(Run::steps(steps)).await else {
        return;
    };
    assert_eq!(outcome.lines(), ["failure"]);
    assert_eq!(outcome.report.conclusion, Conclusion::Success);

    let mut job = Run::steps("- run: sleep 60\n- run: echo never\n- if: always()\n  run: echo clean-up");
    job.order.timeout_ms = 1500;
    let Some(outcome) = run(job).await else {
        return;
    };
    assert_eq!(outcome.lines(), ["clean-up"], "{}\n{:?}", outcome.notices(), outcome.report);
    assert_eq!(outcome.report.reason, Some(Reason::Timeout));
    assert_eq!(outcome.report.conclusion, Conclusion::Failure);
}

#[tokio::test(flavor = "multi_thread")]
async fn checkout_and_local_actions_run_from_the_repository() {
    let folder = tempfile::tempdir().unwrap();
    let job = Run::steps(
        "
- uses: actions/checkout@v4
- run: git log --format=%s; git status --porcelain; cat hello.txt
- id: c
  uses: ./actions/outer
  with: {who: world}
  env: {AROUND: yes}
- run: echo \"${{ steps.c.outputs.greeting }} ${{ steps.c.outcome }}\"
- uses: ./actions/js
  with: {label: A}
- uses: ./actions/js
  with: {label: B}
- uses: actions/checkout@v4
  with: {path: second, fetch-depth: 0}
- run: cat second/hello.txt
- uses: actions/checkout@v4
  with: {repository: other/one}",
    )
    .repository(
        folder.path(),
        &[
            ("hello.txt", "hello\n"),
            (
                "actions/outer/action.yml",
                "inputs: {who: {required: true}, mark: {default: '!'}}
outputs: {greeting: {value: '${{ steps.i.outputs.text }}'}}
runs:
  using: composite
  steps:
    - id: i
      uses: ./actions/inner
      with: {text: 'hi ${{ inputs.who }}${{ inputs.mark }}'}
    - shell: bash
      run: echo \"$AROUND $(basename $GITHUB_ACTION_PATH) [${{ steps.c.outputs.greeting }}]\"
",
            ),
            (
                "actions/inner/action.yml",
                "inputs: {text: {}}
outputs: {text: {value: '${{ steps.s.outputs.t }}'}}
runs:
  using: composite
  steps:
    - {id: s, shell: sh, run: 'echo \"t=${{ inputs.text }}\" >> $GITHUB_OUTPUT'}
",
            ),
            (
                "actions/js/action.yml",
                "inputs: {label: {}, odd name: {default: dflt}}\nruns: {using: node20, main: main.js, post: post.js}\n",
            ),
            (
                "actions/js/main.js",
                "require('fs').appendFileSync(process.env.GITHUB_STATE, `l=${process.env.INPUT_LABEL}\\n`);
                 console.log(`main ${process.env.INPUT_LABEL} ${process.env.INPUT_ODD_NAME}`)",
            ),
            ("actions/js/post.js", "console.log(`post ${process.env.STATE_l}`)"),
        ],
    );
    let Some(outcome) = run(job).await else {
        return;
    };
    assert_eq!(
        outcome.lines(),
        [
            "one",
            "hello",
            "yes outer []",
            "hi world! success",
            "main A dflt",
            "main B dflt",
            "hello",
            "post B",
            "post A"
        ],
        "{}",
        outcome.notices()
    );
    assert!(outcome.notices().contains("only this job's repository (npub1x/hello)"));
    assert_eq!(outcome.conclusions()[8..], ["failure", "success", "success"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_may_not_ask_for_is_refused_by_name() {
    for (keys, part) in [
        ("services: {db: {image: postgres}}", "services (db)"),
        ("container: {image: x, options: --privileged}", "--privileged"),
        ("container: {image: x, volumes: ['/:/host']}", "host"),
    ] {
        let job = format!("jobs:\n  test:\n    runs-on: ubuntu-latest\n    {keys}\n    steps: [{{run: echo never}}]");
        let Some(outcome) = run(Run::new(&job)).await else {
            return;
        };
        let Some(Reason::Invalid(reason)) = &outcome.report.reason else {
            panic!("{keys}: {:?}", outcome.report.reason)
        };
        assert!(reason.contains(part), "{reason}");
        assert!(!outcome.report.started);
        assert_eq!(outcome.lines(), [""; 0]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn exec_has_the_source_in_the_workspace_before_the_first_step() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = Run::steps("- run: cat hello.txt").repository(folder.path(), &[("hello.txt", "hello\n")]);
    job.checked_out = true;
    let Some(outcome) = run(job).await else {
        return;
    };
    assert_eq!(outcome.lines(), ["hello"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn debug_lines_are_shown_where_they_are_asked_for() {
    let steps = "- run: echo '::debug::inner'; echo \"debug ${RUNNER_DEBUG:-off}\"";
    let Some(outcome) = run(Run::steps(steps)).await else {
        return;
    };
    assert_eq!(outcome.lines(), ["debug off"]);
    let Some(outcome) = run(Run::steps(steps).secret("ACTIONS_STEP_DEBUG", "true")).await else {
        return;
    };
    assert_eq!(outcome.lines(), ["##[debug]inner", "debug 1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_container_has_its_image_options_environment_and_sh() {
    let job = Run::new(
        "
jobs:
  test:
    runs-on: ubuntu-latest
    container:
      image: longshore/${{ 'ubuntu' }}:dev
      env: {FROM_CONTAINER: container, OVER: container}
      options: --hostname inner-host --user 100:101
      volumes: ['shared-data:/data']
    env: {OVER: job}
    steps:
      - run: |
          echo \"$(hostname) $FROM_CONTAINER $OVER $(id -u):$(id -g) ${BASH_VERSION:-sh}\"
          echo \"V=1\" >> \"$GITHUB_ENV\"; echo kept > kept
          [ '${{ job.container.id != '' }}' = true ] && echo has an id
      - {shell: bash, run: 'echo \"$(cat kept) $V $PWD\"'}
",
    );
    let mut job = job;
    job.image = "no/such:image".into();
    let Some(outcome) = run(job).await else { return };
    let lines = ["inner-host container job 100:101 sh", "has an id", "kept 1 /workspace"];
    assert_eq!(outcome.lines(), lines, "{}\n{:?}", outcome.notices(), outcome.report.reason);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_out_of_memory_says_so() {
    let mut job = Run::steps("- run: head -c 900M /dev/zero | tail");
    job.limits.memory = 128 << 20;
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.report.reason, Some(Reason::OutOfMemory), "{}", outcome.notices());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_that_cannot_be_had_is_named() {
    let mut job = Run::steps("- run: echo never");
    job.image = "127.0.0.1:9/no/such:image".into();
    let Some(outcome) = run(job).await else { return };
    let Some(Reason::PullFailed(reason)) = &outcome.report.reason else { panic!("{:?}", outcome.report.reason) };
    assert!(reason.contains("127.0.0.1:9/no/such:image"), "{reason}");
    assert!(!outcome.report.started);
}
