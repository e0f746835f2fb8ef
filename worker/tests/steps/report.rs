//! A job's report and its log: outputs, annotations, summary, masked secrets, limits.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use futures::future::BoxFuture;
use worker::job::{ActionsApiAccess, Tunnel};
use workflow::plan::{Conclusion, Reason};

use crate::{harness::Run, run};

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
    environment: {name: 'live-${{ github.job }}', url: 'https://example.org/${{ steps.a.outputs.leak }}'}
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
    let environment = report.environment.as_ref().unwrap();
    assert_eq!(environment.name, "live-test");
    assert_eq!(environment.url.as_deref(), Some("https://example.org/x ***"));
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
    let ends = outcome.records.iter().filter_map(|record| record.mark.as_ref()).filter(|mark| mark.ended);
    let ends: Vec<_> = ends.map(|mark| mark.conclusion.as_str()).collect();
    assert_eq!(ends, ["success", "failure", "success"], "what failed is the step alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_06_no_job_output_carries_a_secret_whatever_its_form() {
    let job = Run::new(
        "
jobs:
  test:
    runs-on: ubuntu-latest
    outputs:
      plain: ${{ steps.a.outputs.plain }}
      encoded: ${{ steps.a.outputs.encoded }}
      inside: ${{ steps.a.outputs.inside }}
      masked: ${{ steps.a.outputs.masked }}
      direct: ${{ secrets.TOKEN }}
      fine: ${{ steps.a.outputs.fine }}
    steps:
      - id: a
        env: {T: '${{ secrets.TOKEN }}'}
        run: |
          echo '::add-mask::made-up-later'
          echo \"plain=$T\" >> $GITHUB_OUTPUT
          echo \"encoded=$(printf %s \"$T\" | base64)\" >> $GITHUB_OUTPUT
          printf 'inside<<E\\nfirst line\\n{\"key\": \"%s\"}\\nE\\n' \"$T\" >> $GITHUB_OUTPUT
          echo 'masked=made-up-later' >> $GITHUB_OUTPUT
          echo fine=text >> $GITHUB_OUTPUT
      - env: {T: '${{ secrets.TOKEN }}', SAME: '${{ steps.a.outputs.plain }}'}
        run: test \"$T\" = \"$SAME\"",
    );
    let Some(outcome) = run(job.secret("TOKEN", "tok_9f8e7d6c5b")).await else { return };
    assert_eq!(outcome.conclusions(), ["success", "success"], "steps of the job itself may use it");
    let outputs: Vec<_> = outcome.report.outputs.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(outputs, [("fine", "text")]);
    for name in ["plain", "encoded", "inside", "masked", "direct"] {
        assert!(outcome.notices().contains(&format!("{name} is left out")), "{name}: {}", outcome.notices());
    }
    for text in ["tok_9f8e7d6c5b", "dG9rXzlmOGU3ZDZjNWI"] {
        assert!(!outcome.everything().contains(text), "{text}");
    }
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
async fn a_summary_beyond_its_limit_is_cut_and_its_step_succeeds() {
    let steps = "
- run: echo small >> $GITHUB_STEP_SUMMARY
- run: head -c 1100000 /dev/zero | tr '\\0' x >> $GITHUB_STEP_SUMMARY
- run: head -c 5000000 /dev/zero | tr '\\0' x >> $GITHUB_STEP_SUMMARY
- run: head -c 5000000 /dev/zero | tr '\\0' x >> $GITHUB_OUTPUT";
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    let summary = &outcome.report.summary;
    assert!(summary.starts_with("small\nxxx") && summary.len() <= (2 << 20) + 10, "{}", summary.len());
    assert!(summary.contains("[cut: it had 1100000 bytes]") && summary.ends_with("[cut: it had 2097152 bytes]"));
    assert_eq!(outcome.conclusions(), ["success", "success", "success", "failure"]);
    let said: Vec<_> = outcome.report.annotations.iter().map(|a| a.message.contains("summary")).collect();
    assert_eq!(said, [true, false]);
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
async fn outputs_beyond_their_limit_are_left_out_whole_and_named() {
    let job = Run::new(
        "
jobs:
  test:
    runs-on: ubuntu-latest
    outputs:
      first: ${{ steps.a.outputs.large }}
      second: ${{ steps.a.outputs.large }}
      small: ${{ steps.a.outputs.small }}
    steps:
      - id: a
        run: |
          echo \"large=$(head -c 700000 /dev/zero | tr '\\0' x)\" >> $GITHUB_OUTPUT
          echo small=kept >> $GITHUB_OUTPUT
",
    );
    let Some(outcome) = run(job).await else { return };
    let lengths: Vec<_> = outcome.report.outputs.iter().map(|(name, value)| (name.as_str(), value.len())).collect();
    assert_eq!(lengths, [("first", 700_000), ("small", 4)]);
    assert_eq!(outcome.report.conclusion, Conclusion::Success);
    let annotation = &outcome.report.annotations[0];
    assert!(annotation.level == "error" && annotation.message.contains("output second is left out"), "{annotation:?}");
}

/// What people read of a job is bounded where it arises: a report that is too long would never arrive.
#[tokio::test(flavor = "multi_thread")]
async fn attack_51_a_flood_of_messages_makes_no_report_that_is_too_long() {
    let steps: String = (0..6)
        .map(|_| {
            "
- run: |
    long=$(head -c 450000 /dev/zero | tr '\\0' m)
    for i in $(seq 40); do echo \"::error::$long\"; done
    head -c 1048576 /dev/zero > $GITHUB_STEP_SUMMARY
    echo \"v=$long$long$long$long\" >> $GITHUB_OUTPUT"
        })
        .collect();
    let Some(outcome) = run(Run::steps(&steps)).await else { return };
    let size = serde_json::to_vec(&outcome.report).unwrap().len();
    assert!(size < proto::REPORT_LIMIT, "{size}");
    assert_eq!(outcome.conclusions(), ["success"; 6]);
    let annotations = &outcome.report.annotations;
    assert!(annotations[0].message.len() <= 64 << 10 && annotations[0].message.ends_with("[cut: it had 450000 bytes]"));
    assert!(annotations.last().unwrap().message.contains("left out"));
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_27_a_value_masked_by_one_step_is_masked_in_whatever_comes_later() {
    let job = Run::new(
        "
jobs:
  test:
    runs-on: ubuntu-latest
    outputs: {o: '${{ steps.late.outputs.o }}', fine: yes}
    steps:
      - run: |
          value=late-$(printf %s canary)
          echo \"before $value\"
          echo \"# early $value\" >> $GITHUB_STEP_SUMMARY
          sleep 1
          echo \"::add-mask::$value\"
          echo \"V=$value\" >> $GITHUB_ENV
          echo \"same step $value\"
      - id: late
        name: named ${{ env.V }}
        run: |
          echo \"other step $V\"; echo \"stderr $V\" >&2
          echo \"o=$V\" >> $GITHUB_OUTPUT
          echo \"summary $V\" >> $GITHUB_STEP_SUMMARY
          echo \"::warning file=$V.c,title=$V::message $V\"
      - if: always()
        working-directory: ${{ env.V }}
        run: echo
",
    );
    let Some(outcome) = run(job).await else { return };
    let all = outcome.everything();
    assert_eq!(all.matches("late-canary").count(), 1, "only what was printed before: {all}");
    assert!(outcome.lines().contains(&"before late-canary".to_owned()));
    assert_eq!(outcome.report.outputs.keys().collect::<Vec<_>>(), ["fine"]);
    assert_eq!(outcome.report.summary, "# early ***\nsummary ***\n");
    assert_eq!(outcome.report.steps[1].name, "named ***");
}

/// More masks than a job may have: the step fails, what it prints is not shown, and others go on.
#[tokio::test(flavor = "multi_thread")]
async fn attack_36_a_flood_of_masks_fails_its_step_with_the_reason() {
    let job = Run::steps(
        "
- run: |
    seq -f '::add-mask::%032g' 6000
    echo to be seen by nobody
- if: always()
  run: |
    for i in $(seq 120); do echo \"::add-mask::$(head -c 60000 /dev/zero | tr '\\0' x)$i\"; done
- if: always()
  run: echo to be seen",
    );
    let began = std::time::Instant::now();
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.conclusions(), ["failure", "failure", "success"]);
    assert_eq!(outcome.report.reason, Some(Reason::Step));
    let refusals = outcome.report.annotations.iter().filter(|a| a.message.contains("a job may mask 4096 values"));
    assert_eq!(refusals.count(), 2);
    assert_eq!(outcome.lines().last().unwrap(), "to be seen", "and nothing of what follows a refused mask");
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_10_matchers_of_high_cost_stop_looking_and_the_job_goes_on() {
    let pattern = r#"{"regexp": "((?:[a-q][^u-z]{13}){4}\\W)", "message": 1}"#;
    let matchers: Vec<_> = (0..30).map(|n| format!(r#"{{"owner": "o{n}", "pattern": [{pattern}]}}"#)).collect();
    let file = format!(r#"{{"problemMatcher": [{}]}}"#, matchers.join(","));
    let job = Run::steps(&format!(
        "
- run: |
    cat > m.json <<'E'
    {file}
    E
    echo '::add-matcher::m.json'
    line=$(head -c 16000 /dev/zero | tr '\\0' a)
    for i in $(seq 2000); do echo \"$line\"; done
    echo done"
    ));
    let began = std::time::Instant::now();
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.conclusions(), ["success"]);
    assert!(outcome.lines().contains(&"done".to_owned()));
    assert!(began.elapsed().as_secs() < 100, "{:?}", began.elapsed());
}

/// Services that count who comes to them.
struct Nobody(Arc<AtomicUsize>);

impl Tunnel for Nobody {
    fn serve(&self, _: tokio::io::DuplexStream) -> BoxFuture<'static, ()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Box::pin(async {})
    }
}

/// A canary in every place that leaves a job: what is shown is masked, what cannot be masked is refused.
#[tokio::test(flavor = "multi_thread")]
async fn attack_28_a_secret_leaves_a_job_in_no_name_key_text_or_error() {
    let mut job = Run::new(
        "
jobs:
  test:
    runs-on: ubuntu-latest
    env: {S: '${{ secrets.S }}'}
    environment: {name: live, url: 'https://${{ env.S }}.example.org'}
    outputs: {value: '${{ env.S }}'}
    steps:
      - {uses: actions/cache@v4, with: {path: x, key: 'k-${{ secrets.S }}'}}
      - {if: always(), uses: actions/cache/restore@v4, with: {path: x, key: k, restore-keys: '${{ secrets.S }}-'}}
      - {if: always(), uses: actions/cache/save@v4, with: {path: x, key: '${{ secrets.S }}'}}
      - {if: always(), uses: actions/upload-artifact@v4, with: {path: x, name: 'a-${{ secrets.S }}'}}
      - {if: always(), uses: actions/download-artifact@v4, with: {name: '${{ secrets.S }}'}}
      - {if: always(), uses: actions/download-artifact@v4, with: {pattern: '${{ secrets.S }}*'}}
      - {if: always(), name: '${{ secrets.S }}', run: 'exit 3', shell: '${{ secrets.S }} {0}'}
      - {if: always(), run: 'echo x', working-directory: '/${{ secrets.S }}'}
      - if: always()
        env: {S: '${{ secrets.S }}'}
        run: |
          echo \"::error file=$S,title=$S::$S\"
          echo \"::group::$S\"; echo \"::debug::$S\"; echo \"::set-env name=$S::$S\"; echo \"::remove-matcher owner=$S::\"
          echo \"::add-matcher::$S\"
          echo \"$S\" >> $GITHUB_OUTPUT
      - if: always()
        env: {S: '${{ secrets.S }}'}
        run: echo \"x<<$S\" >> $GITHUB_ENV
",
    )
    .secret("S", "canary-4f1c/9e");
    let asked = Arc::new(AtomicUsize::new(0));
    let tunnel = Arc::new(Nobody(Arc::clone(&asked)));
    job.actions_api = Some(ActionsApiAccess { token: "runtime-token-77".to_owned().into(), id_token: true, tunnel });
    let Some(outcome) = run(job).await else { return };
    let all = outcome.everything();
    assert!(!all.contains("canary-4f1c") && !all.contains("runtime-token-77"), "{all}");
    let failed = outcome.conclusions().iter().filter(|conclusion| **conclusion == "failure").count();
    assert_eq!(failed, 10, "{:?}", outcome.conclusions());
    assert_eq!(asked.load(Ordering::Relaxed), 0, "no name or key left the worker");
    assert_eq!(outcome.notices().matches("holds a secret").count(), 6, "{}", outcome.notices());
}
