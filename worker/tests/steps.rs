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
  uses: ./nowhere
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
    assert!(outcome.notices().contains("other/one: repositories other than the job's own"));
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

#[tokio::test(flavor = "multi_thread")]
async fn an_action_of_another_repository_that_cannot_be_had_ends_the_job_before_its_first_step() {
    let job = Run::steps("- run: echo never\n- if: false\n  uses: some/action@v1");
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines(), [""; 0]);
    let Some(Reason::Invalid(reason)) = &outcome.report.reason else { panic!("{:?}", outcome.report.reason) };
    assert!(reason.contains("some/action@v1"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_needs_node_in_an_image_without_it_says_what_to_do_and_may_get_the_workers() {
    let files = [
        ("act/action.yml", "runs: {using: node20, main: main.js}"),
        ("act/main.js", "console.log('ran')"),
        // Stands for a machine without Node.js: what is on the path first, and cannot be found.
        ("hide.sh", "mv $(command -v node) /usr/bin/node.hidden"),
    ];
    let folder = tempfile::tempdir().unwrap();
    let steps = "- uses: actions/checkout@v4\n- run: sh hide.sh\n- uses: ./act";
    let Some(outcome) = run(Run::steps(steps).repository(folder.path(), &files)).await else { return };
    for part in ["needs the program `node`", "longshore/ubuntu:dev", "worker's configuration"] {
        assert!(outcome.notices().contains(part), "{part}: {}", outcome.notices());
    }
    let program = folder.path().join("program");
    std::fs::write(&program, "#!/bin/sh\nexec /usr/bin/node.hidden \"$@\"\n").unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut job = Run::steps(steps).repository(folder.path(), &files);
    job.node = Some(program);
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines(), ["ran"], "{}", outcome.notices());
}

#[tokio::test(flavor = "multi_thread")]
async fn problem_matchers_make_annotations_of_what_tools_print() {
    let steps = r#"
- run: |
    cat > tsc.json <<'E'
    {"problemMatcher": [{"owner": "tsc", "pattern": [{"regexp": "^([^\s].*)[\(:](\d+)[,:](\d+)(?:\):\s+|\s+-\s+)(error|warning|info)\s+TS(\d+)\s*:\s*(.*)$",
      "file": 1, "line": 2, "column": 3, "severity": 4, "code": 5, "message": 6}]}]}
    E
    echo "src/before.ts(1,1): error TS1: before"
    echo "::add-matcher::tsc.json"
    echo "src/a.ts(3,7): error TS2304: Cannot find name"
    echo "plain"
- run: |
    printf '[31m%s/src/b.ts(4,8): warning TS7: coloured[0m
' "$GITHUB_WORKSPACE"
    printf 'src/c.ts(5,9): '; sleep 0.5; echo 'error TS8: in two pieces'
    echo "::remove-matcher owner=tsc::"
    echo "src/after.ts(1,1): error TS1: after"
- run: echo '::add-matcher::none.json'
"#;
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    let found: Vec<_> = outcome
        .report
        .annotations
        .iter()
        .map(|a| {
            (a.level.as_str(), a.file.as_deref().unwrap_or_default(), a.line.unwrap_or_default(), a.message.as_str())
        })
        .collect();
    assert_eq!(
        found,
        [
            ("error", "src/a.ts", 3, "Cannot find name"),
            ("warning", "src/b.ts", 4, "coloured"),
            ("error", "src/c.ts", 5, "in two pieces"),
            ("error", "", 0, "add-matcher none.json: there is no such file"),
        ]
    );
    let lines = outcome.lines();
    for line in
        ["src/before.ts(1,1): error TS1: before", "##[error]src/a.ts(3,7): error TS2304: Cannot find name", "plain"]
    {
        assert!(lines.contains(&line.to_owned()), "{line}: {lines:#?}");
    }
    assert_eq!(outcome.conclusions(), ["success", "success", "failure"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_03_output_sets_no_variable_and_no_path_unless_its_step_allows_it() {
    let steps = "
- id: a
  run: printf '%s\\n' '::set-env name=LD_PRELOAD::/evil.so' '::add-path::/evil' '##[set-env name=B;]x'
- if: always()
  run: 'echo \"[$LD_PRELOAD] [$B] [${PATH%%:*}] ${{ steps.a.outcome }}\"'
- if: always()
  env: {ACTIONS_ALLOW_UNSECURE_COMMANDS: true}
  run: printf '%s\\n' '::set-env name=B::set' '::add-path::/mine' '::set-env name=NODE_OPTIONS::--require x'
- if: always()
  run: 'echo \"[$B] [${PATH%%:*}] [$NODE_OPTIONS]\"'";
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    let lines = outcome.lines();
    assert!(lines.iter().any(|line| line.starts_with("[] [] [/usr") && line.ends_with("failure")), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("the command set-env is disabled")), "{lines:#?}");
    assert_eq!(lines.last().map(String::as_str), Some("[set] [/mine] []"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_04_only_a_good_token_stops_commands_and_only_the_same_one_ends_that() {
    let steps = "
- run: |
    echo '::stop-commands::a-long-token'
    echo '::error::fake'
    echo '::another-token::'
    echo '::warning::fake'
    echo '::a-long-token::'
    echo '::notice::real'
- if: always()
  run: echo '::stop-commands::warning'; echo '::stop-commands::'; echo '::stop-commands::pause-logging'
- if: always()
  run: echo '::notice::a new step hears commands again'; echo '::stop-commands::x-left-open-y'
- if: always()
  run: echo '::notice::and so does the next'";
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    let of = |level: &str| {
        outcome.report.annotations.iter().filter(|a| a.level == level).map(|a| a.message.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(of("notice"), ["real", "a new step hears commands again", "and so does the next"]);
    assert_eq!(of("warning"), [""; 0]);
    assert_eq!(of("error").len(), 3, "each bad token is one: {:?}", of("error"));
    assert_eq!(outcome.conclusions(), ["success", "failure", "success", "success"]);
    // Who reads the log could end the pause with the token.
    assert!(!outcome.everything().contains("a-long-token"), "{:#?}", outcome.lines());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_05_text_from_outside_sets_no_variable_through_a_file() {
    let steps = r#"
- env: {TITLE: "x
NODE_OPTIONS=--require /evil
EVIL=1"}
  run: |
    { echo 'SAFE<<d1f2'; echo "$TITLE"; echo d1f2; } >> "$GITHUB_ENV"
- run: echo "[$NODE_OPTIONS] [$EVIL] $(printf %s "$SAFE" | wc -l)"
- run: echo 'NODE_OPTIONS=--require /evil' >> "$GITHUB_ENV"; echo 'GITHUB_SHA=evil' >> "$GITHUB_ENV"
- run: echo "[$NODE_OPTIONS] ${GITHUB_SHA:0:4}"
- run: printf 'A<<E
no end' >> "$GITHUB_ENV"
- if: always()
  run: echo "[$A]"
"#;
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    let lines = outcome.lines();
    assert_eq!(lines, ["[] [] 2", "[] 0000", "[]"], "{}", outcome.notices());
    assert_eq!(outcome.conclusions(), ["success", "success", "success", "success", "failure", "success"]);
    assert!(outcome.report.annotations.iter().any(|a| a.message.contains("NODE_OPTIONS")));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_13_hash_files_sees_nothing_outside_of_the_workspace() {
    let steps = "
- run: |
    echo text > inside
    ln -s /etc directory; ln -s /etc/passwd file
- run: echo \"[${{ hashFiles('directory/passwd') }}] [${{ hashFiles('file') }}] [${{ hashFiles('/etc/passwd') }}]\"
- id: up
  continue-on-error: true
  run: echo ${{ hashFiles('../**') }}
- run: echo ${{ steps.up.outcome }} ${{ hashFiles('**') == hashFiles('inside') }}";
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    assert_eq!(outcome.lines(), ["[] [] []", "failure true"], "{}", outcome.notices());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_summary_beyond_its_limit_is_left_out_and_its_step_succeeds() {
    let steps = "
- run: echo small >> $GITHUB_STEP_SUMMARY
- run: head -c 1100000 /dev/zero | tr '\\0' x >> $GITHUB_STEP_SUMMARY
- run: head -c 5000000 /dev/zero | tr '\\0' x >> $GITHUB_STEP_SUMMARY
- run: head -c 5000000 /dev/zero | tr '\\0' x >> $GITHUB_OUTPUT";
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    assert_eq!(outcome.report.summary, "small\n");
    assert_eq!(outcome.conclusions(), ["success", "success", "success", "failure"]);
    let said: Vec<_> = outcome.report.annotations.iter().map(|a| a.message.contains("summary")).collect();
    assert_eq!(said, [true, true, false]);
}

/// GitHub docs, "Contexts reference" and "Variables reference": what every step of a job sees.
#[tokio::test(flavor = "multi_thread")]
async fn contexts_and_default_variables_are_complete() {
    let github = "action action_ref action_repository actor actor_id api_url base_ref env event \
                  event_name event_path graphql_url head_ref job path ref ref_name ref_protected ref_type repository \
                  repository_id repository_owner repository_owner_id repositoryUrl retention_days run_attempt run_id \
                  run_number secret_source server_url sha token triggering_actor workflow workflow_ref workflow_sha \
                  workspace";
    let variables = "CI GITHUB_ACTION GITHUB_ACTIONS GITHUB_ACTOR GITHUB_ACTOR_ID GITHUB_API_URL GITHUB_ENV \
                     GITHUB_EVENT_NAME GITHUB_EVENT_PATH GITHUB_GRAPHQL_URL GITHUB_JOB GITHUB_OUTPUT GITHUB_PATH \
                     GITHUB_REF GITHUB_REF_NAME GITHUB_REF_PROTECTED GITHUB_REF_TYPE GITHUB_REPOSITORY \
                     GITHUB_REPOSITORY_ID GITHUB_REPOSITORY_OWNER GITHUB_REPOSITORY_OWNER_ID GITHUB_RETENTION_DAYS \
                     GITHUB_RUN_ATTEMPT GITHUB_RUN_ID GITHUB_RUN_NUMBER GITHUB_SERVER_URL GITHUB_SHA GITHUB_STATE \
                     GITHUB_STEP_SUMMARY GITHUB_TRIGGERING_ACTOR GITHUB_WORKFLOW GITHUB_WORKFLOW_REF \
                     GITHUB_WORKFLOW_SHA GITHUB_WORKSPACE RUNNER_ARCH RUNNER_ENVIRONMENT RUNNER_NAME RUNNER_OS \
                     RUNNER_TEMP RUNNER_TOOL_CACHE";
    let steps = format!(
        r#"
- env: {{GITHUB: '${{{{ toJSON(github) }}}}', RUNNER: '${{{{ toJSON(runner) }}}}', JOB: '${{{{ toJSON(job) }}}}'}}
  run: |
    for key in {github}; do echo "$GITHUB" | jq -e --arg k "$key" 'has($k)' > /dev/null || echo "github.$key"; done
    for key in name os arch temp tool_cache environment; do echo "$RUNNER" | jq -e --arg k "$key" '.[$k] != ""' > /dev/null || echo "runner.$key"; done
    echo "$JOB" | jq -e 'has("status") and has("container") and has("services")' > /dev/null || echo job
    for name in {variables}; do [ -n "$(printenv "$name")" ] || echo "$name"; done
    for name in GITHUB_ACTION_REPOSITORY GITHUB_ACTION_REF GITHUB_BASE_REF GITHUB_HEAD_REF; do printenv "$name" > /dev/null || echo "$name"; done
    [ "${{{{ github.env }}}}" = "$GITHUB_ENV" ] && [ "${{{{ github.path }}}}" = "$GITHUB_PATH" ] || echo "files ${{{{ github.env }}}}"
    echo "$GITHUB_ACTION ${{{{ strategy.job-total }}}}"
"#
    );
    let mut job = Run::steps(&steps);
    for (key, value) in [
        ("ref_type", "branch"),
        ("run_attempt", "1"),
        ("run_number", "3"),
        ("workflow_ref", "x@refs/heads/main"),
        ("workflow_sha", "0"),
        ("triggering_actor", "npub1x"),
        ("repository_owner", "npub1x"),
        ("repositoryUrl", "u"),
        ("secret_source", "Actions"),
        ("head_ref", ""),
        ("base_ref", ""),
    ] {
        let github = job.order.contexts.get_mut("github").and_then(|github| github.as_object_mut()).unwrap();
        github.insert(key.into(), value.into());
    }
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines(), ["__run 1"], "{}", outcome.notices());
}
