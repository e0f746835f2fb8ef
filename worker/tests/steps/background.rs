//! Steps in the background: what runs beside what, what a wait brings, what a cancel ends.

use workflow::plan::{Conclusion, Reason};

use crate::{
    harness::{Outcome, Run},
    run,
};

fn sorted(outcome: &Outcome) -> Vec<String> {
    let mut lines = outcome.lines();
    lines.sort();
    lines
}

fn names(outcome: &Outcome) -> Vec<&str> {
    outcome.report.steps.iter().map(|step| step.name.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_steps_of_a_parallel_group_meet_and_what_comes_after_has_their_outputs() {
    let steps = r#"
- run: mkfifo there back
- parallel:
    - id: one
      name: says ${{ 'hello' }}
      run: |
        echo hello > there
        read -r word < back
        echo "one heard $word"
        echo "word=$word" >> "$GITHUB_OUTPUT"
    - id: two
      run: |
        read -r word < there
        echo thanks > back
        echo "two heard $word"
        echo "word=$word" >> "$GITHUB_OUTPUT"
- run: echo "${{ steps.one.outputs.word }} ${{ steps.two.outputs.word }} ${{ steps.two.conclusion }}""#;
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    assert_eq!(sorted(&outcome), ["one heard thanks", "thanks hello success", "two heard hello"]);
    assert_eq!(outcome.report.conclusion, Conclusion::Success);
    let of = |step: i32| {
        let mine = outcome
            .records
            .iter()
            .filter(|record| record.step == step && record.stream() != proto::worker::LogStream::Notice);
        mine.flat_map(|record| record.text.to_vec()).collect::<Vec<u8>>()
    };
    assert_eq!((of(1), of(2)), (b"one heard thanks\n".to_vec(), b"two heard hello\n".to_vec()), "each has its own log");
    assert_eq!(names(&outcome)[3], "Wait for parallel steps");
    let waited = "Waiting for steps in the background: says hello, read -r word < there";
    assert!(outcome.notices().contains(waited), "{}", outcome.notices());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_step_in_the_background_sets_holds_once_it_was_waited_for() {
    let steps = r#"
- id: early
  background: true
  run: |
    echo "COLOUR=green" >> "$GITHUB_ENV"
    echo "/opt/early" >> "$GITHUB_PATH"
    echo "word=set" >> "$GITHUB_OUTPUT"
    echo "::add-mask::not-for-all"
    echo "::notice::seen"
    echo "from early" >> "$GITHUB_STEP_SUMMARY"
    touch masked
- id: late
  background: true
  run: mkfifo go; touch waiting; cat go
- run: |
    until test -e masked -a -e waiting; do sleep 0.1; done
    echo "before: ${COLOUR:-no} [${{ steps.early.outcome }}${{ steps.early.outputs.word }}] not-for-all"
- wait: early
- run: |
    echo "after: $COLOUR ${{ env.COLOUR }} ${{ steps.early.outcome }} ${{ steps.early.outputs.word }} ${PATH%%:*} [${{ steps.late.outcome }}]"
    echo end > go
- wait-all:
- run: echo "late ${{ steps.late.outcome }}""#;
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    let expected =
        ["after: green green success set /opt/early []", "before: no [] ***", "end", "late success", "::notice"];
    let lines = sorted(&outcome);
    for line in &expected[..4] {
        assert!(lines.iter().any(|found| found == line), "{line}: {lines:#?}");
    }
    assert_eq!(outcome.report.summary, "from early\n");
    assert!(outcome.report.annotations.iter().any(|annotation| annotation.message == "seen"));
    assert_eq!(outcome.conclusions(), ["success"; 7]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_in_the_background_is_the_failure_of_the_wait() {
    let steps = r#"
- id: bad
  background: true
  run: exit 7
- id: tolerated
  background: true
  continue-on-error: true
  run: exit 8
- run: echo goes on ${{ job.status }}
- id: hold
  wait: [tolerated, bad]
- run: echo never
- if: failure()
  run: echo ${{ steps.bad.conclusion }} ${{ steps.tolerated.outcome }} ${{ steps.tolerated.conclusion }} ${{ steps.hold.outcome }}
- wait-all:"#;
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    assert_eq!(outcome.lines(), ["goes on success", "failure failure success failure"]);
    let expected = ["failure", "success", "success", "failure", "skipped", "success", "success"];
    assert_eq!(outcome.conclusions(), expected);
    assert_eq!((outcome.report.conclusion, outcome.report.exit_code), (Conclusion::Failure, 7));
    assert_eq!(outcome.report.reason, Some(Reason::Step));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wait_may_tolerate_what_failed() {
    let steps = "
- {id: bad, background: true, run: exit 7}
- {wait-all: , continue-on-error: true}
- run: echo ${{ steps.bad.outcome }} ${{ job.status }}";
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    assert_eq!(outcome.lines(), ["failure success"]);
    assert_eq!(outcome.report.conclusion, Conclusion::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_end_of_a_job_waits_for_what_nobody_waited_for() {
    let steps = "
- {name: slow, background: true, run: mkfifo go; touch ready; cat go; exit 4}
- {run: 'until test -e ready; do sleep 0.1; done; (sleep 1; echo late > go) >/dev/null 2>&1 &'}";
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    assert_eq!(outcome.lines(), ["late"]);
    assert_eq!(names(&outcome)[2], "Wait for all background steps");
    assert_eq!(outcome.conclusions(), ["failure", "success", "failure"]);
    assert_eq!((outcome.report.conclusion, outcome.report.exit_code), (Conclusion::Failure, 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancel_ends_one_step_which_may_say_goodbye() {
    let steps = r#"
- id: server
  background: true
  run: |
    trap 'echo goodbye; echo "said=yes" >> "$GITHUB_OUTPUT"; exit 1' INT
    echo up; touch up
    while true; do sleep 0.1; done
- id: other
  background: true
  run: mkfifo go; touch ready; cat go
- run: until test -e up -a -e ready; do sleep 0.1; done
- cancel: server
- run: echo "${{ steps.server.outcome }} ${{ job.status }}"; echo other goes on > go
- wait-all:"#;
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    let lines = outcome.lines();
    assert_eq!(lines[..2], ["up", "goodbye"], "{lines:?}");
    assert_eq!(sorted(&outcome), ["cancelled success", "goodbye", "other goes on", "up"]);
    assert_eq!(outcome.conclusions(), ["cancelled", "success", "success", "success", "success", "success"]);
    assert_eq!(outcome.report.conclusion, Conclusion::Success);
    assert!(outcome.notices().contains("The step was cancelled."), "{}", outcome.notices());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_before_its_cancel_counts_at_the_end() {
    let steps = "
- {id: bad, background: true, run: touch ended; exit 3}
- {id: other, background: true, run: until test -e ended; do sleep 0.1; done}
- wait: other
- run: sleep 1
- cancel: bad
- run: echo ${{ steps.bad.outcome }} ${{ job.status }}";
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    assert_eq!(outcome.lines(), ["failure success"]);
    assert_eq!((outcome.report.conclusion, outcome.report.exit_code), (Conclusion::Failure, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_job_ends_its_steps_in_the_background_too() {
    let trapped = |name: &str, then: &str| {
        format!("trap 'echo {name} got INT; exit 1' INT; touch {name}; {then}; while true; do sleep 0.1; done")
    };
    let mut job = Run::steps(&format!(
        "
- {{background: true, run: \"{}\"}}
- run: \"until test -e behind; do sleep 0.1; done; {}\"
- wait-all:
- if: always()
  run: echo always ${{{{ job.status }}}}",
        trapped("behind", "true"),
        trapped("front", "echo ready"),
    ));
    job.cancel_at = Some(("ready", job.cancel.clone()));
    let Some(outcome) = run(job).await else { return };
    assert_eq!(sorted(&outcome), ["always cancelled", "behind got INT", "front got INT", "ready"]);
    assert_eq!(outcome.conclusions(), ["cancelled", "cancelled", "cancelled", "success"]);
    assert_eq!(outcome.report.conclusion, Conclusion::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_job_waits_for_no_step_in_the_background() {
    let mut job = Run::steps(
        "
- {background: true, run: trap '' INT TERM; touch behind; while true; do sleep 1; done}
- run: until test -e behind; do sleep 0.1; done; echo ready; sleep 600",
    );
    job.cancel_at = Some(("ready", job.kill.clone()));
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.conclusions(), ["cancelled", "cancelled", "cancelled"]);
    assert_eq!(outcome.report.conclusion, Conclusion::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn times_and_conditions_are_those_of_each_step() {
    let steps = "
- {id: slow, background: true, timeout-minutes: 0.01, continue-on-error: true, run: sleep 600}
- {id: skipped, background: true, if: failure(), run: echo never}
- wait-all:
- run: echo ${{ steps.slow.outcome }} ${{ steps.skipped.outcome }}";
    let Some(outcome) = run(Run::steps(steps)).await else { return };
    assert_eq!(outcome.lines(), ["failure skipped"]);
    assert_eq!(outcome.report.conclusion, Conclusion::Success);

    let mut job = Run::steps("- {background: true, run: sleep 600}\n- {run: echo first}\n- {wait-all: }");
    job.order.timeout_ms = 1500;
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.report.reason, Some(Reason::Timeout));
    assert_eq!(outcome.report.conclusion, Conclusion::Failure);
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_run_at_once_and_the_next_has_to_wait_for_its_turn() {
    let mut steps = String::from("- run: mkdir up\n");
    for number in 1..=10 {
        steps += &format!("- {{background: true, run: touch up/{number}; until test -e go; do sleep 0.1; done}}\n");
    }
    steps += "
- {id: next, background: true, run: echo never}
- {id: last, background: true, run: echo its turn}
- run: until test $(ls up | wc -l) = 10; do sleep 0.1; done
- cancel: next
- run: echo ${{ steps.next.outcome }}; touch go
- wait-all:";
    let Some(outcome) = run(Run::steps(&steps)).await else { return };
    assert_eq!(outcome.lines(), ["cancelled", "its turn"]);
    assert_eq!(outcome.report.conclusion, Conclusion::Success);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_composite_action_may_run_in_the_background_and_may_not_do_so_itself() {
    let action = "
outputs: {word: {value: '${{ steps.second.outputs.word }}'}}
runs:
  using: composite
  steps:
    - {shell: bash, run: 'echo A=inner >> $GITHUB_ENV'}
    - {id: second, shell: bash, run: 'echo word=$A >> $GITHUB_OUTPUT'}";
    let wrong = "runs: {using: composite, steps: [{shell: bash, run: echo never, background: true}]}";
    let folder = tempfile::tempdir().expect("a folder");
    let files = [("good/action.yml", action), ("bad/action.yml", wrong)];
    let steps = "
- parallel:
    - {id: good, uses: ./good}
    - {id: bad, uses: ./bad, continue-on-error: true}
- run: echo ${{ steps.good.outputs.word }} $A ${{ steps.bad.outcome }}";
    let mut job = Run::steps(steps).repository(folder.path(), &files);
    job.checked_out = true;
    let Some(outcome) = run(job).await else { return };
    assert_eq!(outcome.lines(), ["inner inner failure"]);
    assert!(outcome.notices().contains("`background:` has no place in a composite action"), "{}", outcome.notices());
}
