//! What a job's steps see, do and leave, on a real engine.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::sync::atomic::{AtomicUsize, Ordering};

use worker::{
    config::JobLimits,
    sandbox::{
        Sandbox as _,
        docker::{DockerConfig, DockerSandbox},
    },
};
use workflow::plan::{Conclusion, Reason};

mod actions;
mod background;
mod commands;
mod docker;
mod ending;
mod harness;
mod isolation;
mod report;
mod services;
mod token;

use harness::{Outcome, Run};

/// Runs a job on the engine of this machine; `None` only where the engine was given up by name.
async fn run(run: Run) -> Option<Outcome> {
    static RUNS: AtomicUsize = AtomicUsize::new(0);
    if std::env::var("LONGSHORE_NO_ENGINE").is_ok_and(|value| value == "1") {
        return None;
    }
    let worker = format!("steps-{}-{}", std::process::id(), RUNS.fetch_add(1, Ordering::Relaxed));
    let outcomes = run_all(worker, [run]).await;
    outcomes.into_iter().next()
}

/// Runs jobs one after the other on one worker, and removes the images that it made for them.
async fn run_all(worker: String, runs: impl IntoIterator<Item = Run>) -> Vec<Outcome> {
    // As a worker sets it up.
    let folder = tempfile::tempdir().expect("folder");
    let limits = JobLimits::default();
    let config = DockerConfig {
        worker: worker.clone(),
        volumes: Some((folder.path().to_owned(), limits.disk)),
        job_limits: Some(limits.resources()),
        ..DockerConfig::default()
    };
    let docker = DockerSandbox::connect(config).await.expect("a Docker engine; LONGSHORE_NO_ENGINE=1 goes on without");
    let mut outcomes = Vec::new();
    for run in runs {
        outcomes.push(run.on(docker.clone()).await);
    }
    docker.close().await;
    let remove =
        format!("docker images -q --filter label=longshore.worker={worker} | sort -u | xargs -r docker rmi -f");
    std::process::Command::new("sh").args(["-c", &remove]).output().expect("docker");
    outcomes
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
- run: echo never
  working-directory: ./not/there
- if: failure()
  run: ls; echo after",
        &["a b", "a b", "after"],
        &["success", "success", "failure", "success"],
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
        "variables differ by letter case, in the context too",
        "
- run: printf 'stage=one\\nSTAGE=two\\n' >> \"$GITHUB_ENV\"
- run: echo Mixed=south >> \"$GITHUB_ENV\"
- env: {MIXED: north}
  run: echo \"$stage $STAGE ${{ env.stage }} ${{ env.STAGE }} ${{ env.MIXED }} ${{ env.Mixed }} [${{ env.Stage }}]\"",
        &["one two one two north south []"],
        &["success", "success", "success"],
    ),
    (
        "where GitHub's API is may be changed, other default variables not",
        "
- env: {GITHUB_API_URL: 'https://api.example.org', GITHUB_SHA: mine}
  run: echo \"$GITHUB_API_URL $(expr length $GITHUB_SHA)\"
- run: echo \"$GITHUB_API_URL\"",
        &["https://api.example.org 40", "http://ci.localhost:4480/api/v3"],
        &["success", "success"],
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
async fn a_job_container_sees_every_context_has_volumes_of_its_own_and_a_home_for_any_user() {
    let job = Run::new(
        "
jobs:
  test:
    runs-on: ubuntu-latest
    env: {WORD: for-all}
    container:
      image: longshore/ubuntu:dev
      env: {SEEN: '${{ env.WORD }} ${{ runner.os }} ${{ runner.temp != '''' }} ${{ job.workflow_sha }}'}
      options: --user 4711
      ports: [8080]
      volumes: [/scratch/space, 'seed:/seed:ro']
    steps:
      - run: |
          echo \"$SEEN\"
          test -d /scratch/space && echo there
          touch /seed/x 2>/dev/null || echo read only
          git config --global user.name me && echo kept > ~/kept
      - run: cat ~/kept; git config user.name; id -u
",
    );
    let mut job = job;
    job.order.contexts.insert("job".into(), serde_json::json!({"workflow_sha": "abc"}));
    let Some(outcome) = run(job).await else { return };
    let lines = ["for-all Linux true abc", "there", "read only", "kept", "me", "4711"];
    assert_eq!(outcome.lines(), lines, "{}\n{:?}", outcome.notices(), outcome.report.reason);
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
    echo "$JOB" | jq -c '[.workflow_ref, .workflow_sha, .workflow_repository, .workflow_file_path, .check_run_id]'
    echo ${{{{ job.check_run_id }}}}
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
    let told = serde_json::json!({
        "workflow_ref": "o/r/.github/workflows/b.yml@v1", "workflow_sha": "5", "workflow_repository": "o/r",
        "workflow_file_path": ".github/workflows/b.yml", "check_run_id": 281_474_976_710_655_u64,
    });
    job.order.contexts.insert("job".into(), told);
    let Some(outcome) = run(job).await else { return };
    let identity = r#"["o/r/.github/workflows/b.yml@v1","5","o/r",".github/workflows/b.yml",281474976710655]"#;
    assert_eq!(outcome.lines(), [identity, "281474976710655", "__run 1"], "{}", outcome.notices());
}
