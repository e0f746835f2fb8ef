//! What steps say by commands, files and matchers, and what they cannot say.

use crate::{harness::Run, run};

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
async fn names_of_variables_and_inputs_may_be_expressions() {
    let jobs = r#"
env: {"${{ format('{0}_DIR', 'BUILD') }}": out}
jobs:
  job:
    runs-on: ubuntu-latest
    env: {"${{ insert }}": "${{ fromJSON('{\"INSERTED\": 1}') }}", "${{ github.ref_name }}_x": y}
    steps:
      - uses: actions/checkout@v4
      - env: {"${{ env.BUILD_DIR }}": "${{ env.main_x }}", plain: p}
        run: echo "$BUILD_DIR $INSERTED $main_x $out $plain ${{ env.out }}"
      - uses: ./act
        with: {"${{ format('wh{0}', 'o') }}": me}
      - continue-on-error: true
        env: {plain: a, "${{ 'plain' }}${{ '' }}": b}
        run: echo never
"#;
    let folder = tempfile::tempdir().unwrap();
    let action = "inputs: {who: {required: true}}
runs: {using: composite, steps: [{shell: sh, run: 'echo hello ${{ inputs.who }}'}]}";
    let job = Run::new(jobs).repository(folder.path(), &[("act/action.yml", action)]);
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines(), ["out 1 y y p y", "hello me"], "{}", outcome.notices());
    assert!(outcome.notices().contains("is already defined: plain"), "{}", outcome.notices());
}

#[tokio::test(flavor = "multi_thread")]
async fn problem_matchers_make_annotations_of_what_tools_print() {
    let steps = r#"
- run: |
    cat > tsc.json <<'E'
    {"problemMatcher": [{"owner": "tsc", "pattern": [{"regexp": "^([^\\s].*)[\\(:](\\d+)[,:](\\d+)(?:\\):\\s+|\\s+-\\s+)(error|warning|info)\\s+TS(\\d+)\\s*:\\s*(.*)$",
      "file": 1, "line": 2, "column": 3, "severity": 4, "code": 5, "message": 6}]}]}
    E
    echo "src/before.ts(1,1): error TS1: before"
    echo "::add-matcher::tsc.json"
    echo "src/a.ts(3,7): error TS2304: Cannot find name"
    echo "plain"
- run: |
    printf '\033[31m%s/src/b.ts(4,8): warning TS7: coloured\033[0m\n' "$GITHUB_WORKSPACE"
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
    token=a-long; token=$token-token
    echo \"::stop-commands::$token\"
    echo '::error::fake'
    echo '::another-token::'
    echo '::warning::fake'
    echo \"::$token::\"
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
- env: {TITLE: "x\nNODE_OPTIONS=--require /evil\nEVIL=1"}
  run: |
    { echo 'SAFE<<d1f2'; echo "$TITLE"; echo d1f2; } >> "$GITHUB_ENV"
- run: echo "[$NODE_OPTIONS] [$EVIL] $(printf %s "$SAFE" | wc -l)"
- run: echo 'NODE_OPTIONS=--require /evil' >> "$GITHUB_ENV"; echo 'GITHUB_SHA=evil' >> "$GITHUB_ENV"
- run: echo "[$NODE_OPTIONS] ${GITHUB_SHA:0:4}"
- run: printf 'A<<E\nno end' >> "$GITHUB_ENV"
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
