//! The source and the actions a job uses.

use workflow::plan::Reason;

use crate::{harness::Run, run};

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

/// As repositories with several actions have it: programs and Dockerfiles lie beside the folders of the actions.
#[tokio::test(flavor = "multi_thread")]
async fn programs_of_an_action_may_lie_anywhere_in_its_repository_and_nowhere_else() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = Run::steps(
        "
- uses: actions/checkout@v4
- uses: ./actions/hello
- uses: ./actions/img
  with: {entrypoint: /bin/echo, args: own words}
- uses: owner/repo/sub@v1
- uses: ./actions/out
- if: always()
  uses: owner/repo/out@v1",
    )
    .repository(
        folder.path(),
        &[
            ("actions/hello/action.yml", "runs: {using: node20, main: ../../lib/hello.js, post: ../../lib/hello.js}"),
            ("actions/img/action.yml", "runs: {using: docker, image: ../../lib/Dockerfile}"),
            ("actions/out/action.yml", "runs: {using: node20, main: ../../../etc/x.js}"),
            ("lib/hello.js", "console.log('hello from lib')"),
            ("lib/Dockerfile", "FROM longshore/ubuntu:dev\nENTRYPOINT [\"echo\", \"from the image\"]\n"),
        ],
    );
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    job.actions = vec![
        file("sub/action.yml", "runs: {using: node20, pre: ../dist/p.js, main: ../dist/m.js, post: ../dist/q.js}"),
        file("dist/p.js", "console.log('pre')"),
        file("dist/m.js", "console.log('main')"),
        file("dist/q.js", "console.log('post')"),
        file("out/action.yml", "runs: {using: node20, main: ../../x.js}"),
    ];
    let Some(outcome) = run(job).await else { return };
    let lines = ["pre", "hello from lib", "own words", "main", "hello from lib", "post"];
    assert_eq!(outcome.lines(), lines, "{}", outcome.notices());
    let notices = outcome.notices();
    for wrong in ["./actions/out: ../../../etc/x.js lies outside", "owner/repo/out@v1: ../../x.js lies outside"] {
        assert!(notices.contains(wrong), "{notices}");
    }
    assert!(!notices.contains("declares no input"), "{notices}");
}

/// GitHub docs, `jobs.<job_id>.steps[*].uses`: the repository of the workflow at the running commit, without a checkout.
#[tokio::test(flavor = "multi_thread")]
async fn an_action_of_the_same_repository_comes_from_the_running_commit() {
    let folder = tempfile::tempdir().unwrap();
    let mut job = Run::steps(
        "
- uses: $/tools/greet
- run: mkdir -p tools/inner && echo broken > tools/inner/action.yml
- uses: $//tools/inner
- uses: owner/repo/outer@v1
- uses: actions/checkout@v4
- uses: ./tools/greet
- uses: $/tools/hooked",
    )
    .repository(
        folder.path(),
        &[
            ("tools/greet/action.yml", "runs: {using: composite, steps: [{uses: $/tools/inner}]}"),
            ("tools/inner/action.yml", "runs: {using: composite, steps: [{run: echo hello from inner, shell: bash}]}"),
            ("tools/hooked/action.yml", "runs: {using: node20, pre: ../say.js, main: ../say.js, post: ../say.js}"),
            ("tools/say.js", "console.log('hooked')"),
        ],
    );
    let github = job.order.contexts.get("github").unwrap().clone();
    job.order.contexts.insert(
        "job".into(),
        serde_json::json!({"workflow_repository": github["repository"], "workflow_sha": job.order.source.commit}),
    );
    job.actions = vec![
        ("outer/action.yml".into(), "runs: {using: composite, steps: [{uses: $/own}]}".into()),
        ("own/action.yml".into(), "runs: {using: composite, steps: [{run: echo theirs, shell: bash}]}".into()),
    ];
    let Some(outcome) = run(job).await else { return };
    let inner = "hello from inner";
    let lines = ["hooked", inner, inner, "theirs", inner, "hooked", "hooked"];
    assert_eq!(outcome.lines(), lines, "{}", outcome.notices());
    assert_eq!(outcome.report.actions.keys().collect::<Vec<_>>(), ["owner/repo@v1"]);

    // A workflow of another repository means that one.
    let mut job = Run::steps("- uses: $/own");
    job.order
        .contexts
        .insert("job".into(), serde_json::json!({"workflow_repository": "owner/repo", "workflow_sha": "5".repeat(40)}));
    job.actions =
        vec![("own/action.yml".into(), "runs: {using: composite, steps: [{run: echo theirs, shell: bash}]}".into())];
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines(), ["theirs"], "{}", outcome.notices());
    assert_eq!(outcome.report.actions.keys().collect::<Vec<_>>(), [&format!("owner/repo@{}", "5".repeat(40))]);
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
async fn an_action_of_another_repository_that_cannot_be_had_ends_the_job_before_its_first_step() {
    let job = Run::steps("- run: echo never\n- if: false\n  uses: some/action@v1");
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines(), [""; 0]);
    let Some(Reason::Invalid(reason)) = &outcome.report.reason else { panic!("{:?}", outcome.report.reason) };
    assert!(reason.contains("some/action@v1"), "{reason}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_action_that_asks_for_a_newer_node_runs_on_the_one_that_is_there_and_the_log_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let files = [
        ("new/action.yml", "runs: {using: node99, main: main.js}"),
        ("new/main.js", "console.log('ran on', process.version.split('.').length)"),
        ("old/action.yml", "runs: {using: node12, main: ../new/main.js}"),
    ];
    let steps = "- uses: actions/checkout@v4\n- uses: ./old\n- uses: ./new";
    let Some(outcome) = run(Run::steps(steps).repository(folder.path(), &files)).await else { return };
    assert_eq!(outcome.lines(), ["ran on 3", "ran on 3"], "{}", outcome.notices());
    let notices = outcome.notices();
    let said: Vec<&str> = notices.lines().filter(|line| line.contains("Node.js")).collect();
    let [line] = said[..] else { panic!("{said:?}") };
    assert!(line.contains("./new asks for node99; the Node.js that is here runs it: v"), "{line}");
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
async fn attack_15_a_privileged_run_of_a_foreign_pull_request_has_the_base_code_unless_it_asks_for_the_other() {
    let folder = tempfile::tempdir().unwrap();
    let steps = "
- uses: actions/checkout@v4
- run: cat code.sh
- id: head
  continue-on-error: true
  uses: actions/checkout@v4
  with: {ref: '${{ github.event.pull_request.head.sha }}'}
- run: cat code.sh; echo ${{ steps.head.outcome }}
- uses: actions/checkout@v4
  with: {ref: '${{ github.event.pull_request.head.sha }}', allow-unsafe-pr-checkout: true}
- run: cat code.sh";
    let mut job = Run::steps(steps).repository(folder.path(), &[("code.sh", "ours\n")]);
    let script =
        "echo theirs > code.sh && git -c user.name=n -c user.email=e@example.org commit -qam two && git rev-parse HEAD";
    let output = std::process::Command::new("sh").args(["-c", script]).current_dir(folder.path()).output().unwrap();
    let head = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let event = serde_json::json!({
        "pull_request": {"head": {"sha": head, "repo": {"full_name": "npub1eve/hello"}}, "base": {"ref": "main"}},
    });
    let github = job.order.contexts.get_mut("github").unwrap().as_object_mut().unwrap();
    github.insert("event_name".into(), "pull_request_target".into());
    github.insert("event".into(), event);
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines(), ["ours", "ours", "failure", "theirs"], "{}", outcome.notices());
    assert!(outcome.notices().contains("allow-unsafe-pr-checkout: true"), "{}", outcome.notices());
}

/// Actions a0 to a8, each of which uses the next one forty times.
fn bomb(last: &str) -> Vec<(String, String)> {
    let mut files: Vec<_> = (0..8)
        .map(|number| {
            let uses = format!("    - uses: acme/bomb/a{}@main\n", number + 1).repeat(40);
            (format!("a{number}/action.yml"), format!("runs:\n  using: composite\n  steps:\n{uses}"))
        })
        .collect();
    files.push(("a8/action.yml".into(), last.into()));
    files
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_11_composite_actions_that_multiply_are_refused_before_the_first_step() {
    let mut job = Run::steps("- run: echo never\n- uses: acme/bomb/a0@main");
    job.actions = bomb("runs: {using: node20, main: main.js, pre: pre.js}");
    let began = std::time::Instant::now();
    let Some(outcome) = run(job).await else { return };
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    let Some(Reason::Invalid(why)) = &outcome.report.reason else { panic!("{:?}", outcome.report.reason) };
    assert!(why.contains("more than 1000 times"), "{why}");
    assert_eq!(outcome.lines(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_11_composite_actions_that_multiply_can_be_ended_while_they_run() {
    let bomb = || {
        let mut job = Run::steps("- uses: acme/bomb/a0@main\n- if: always()\n  run: echo after");
        job.actions = bomb("runs: {using: composite, steps: []}");
        job
    };
    let mut limited = bomb();
    limited.order.timeout_ms = 3000;
    let mut killed = bomb();
    let kill = killed.kill.clone();
    killed.order.timeout_ms = 600_000;
    let began = std::time::Instant::now();
    let Some(outcome) = run(limited).await else { return };
    assert_eq!(outcome.report.reason, Some(Reason::Timeout));
    tokio::spawn(async move {
        tokio::time::sleep(std::time::Duration::from_secs(5)).await;
        kill.cancel();
    });
    let outcome = run(killed).await.unwrap();
    assert!(matches!(outcome.report.reason, Some(Reason::Cancelled(_))), "{:?}", outcome.report.reason);
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}
