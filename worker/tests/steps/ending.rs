//! How a job ends before its last step: cancelled, killed, out of time or memory, without an image.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use workflow::plan::{Conclusion, Reason};

use crate::{harness::Run, run};

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
async fn what_a_step_out_of_time_started_in_sessions_of_its_own_ends_with_it() {
    let steps = "
- timeout-minutes: 0.01
  continue-on-error: true
  run: |
    setsid sleep 4711 &
    (setsid sh -c 'trap \"\" INT TERM; sleep 4712; true') &
    sleep 60
- run: |
    left() { cat /proc/[0-9]*/cmdline 2>/dev/null | tr '\\0' ' ' | grep -o 'sleep 471[12]'; }
    for i in $(seq 100); do left >/dev/null || break; sleep 0.1; done
    echo \"left: $(left)\"";
    let Some(outcome) = run(Run::steps(steps)).await else {
        return;
    };
    assert_eq!(outcome.lines(), ["left: "], "{}", outcome.notices());
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
async fn an_image_that_its_registry_does_not_give_fails_its_job_for_good() {
    let registry = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = registry.local_addr().unwrap();
    tokio::spawn(async move {
        let body = r#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}"#;
        let head = "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\nconnection: close";
        let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        // The engine tries TLS first, and takes a plain answer to it for what it is.
        while let Ok((mut connection, _)) = registry.accept().await {
            let _ = connection.read(&mut [0; 4096]).await;
            let _ = connection.write_all(answer.as_bytes()).await;
        }
    });
    let mut job = Run::steps("- run: echo never");
    job.image = format!("{address}/no/such:image");
    let Some(outcome) = run(job).await else { return };
    let Some(Reason::Invalid(reason)) = &outcome.report.reason else { panic!("{:?}", outcome.report.reason) };
    assert!(reason.contains("/no/such:image") && reason.contains("its registry does not give it"), "{reason}");
    assert!(!outcome.report.started);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_job_may_not_ask_for_is_refused_by_name() {
    for (keys, part) in [
        ("services: {db: {image: x, options: --privileged}}", "services.db: option --privileged"),
        ("services: {db: {image: x, volumes: ['/:/host']}}", "services.db: volumes"),
        ("services: {db: {image: x, ports: ['53:53/udp']}}", "services.db: port `53:53/udp`"),
        ("services: {a: {image: x, ports: ['1:1']}, b: {image: x, ports: ['1:2']}}", "services.b: port 1"),
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
async fn attack_36_a_hash_of_a_file_with_holes_takes_no_longer_than_its_job_may() {
    let steps =
        "- run: truncate -s 2T big\n- if: hashFiles('big') != 'x'\n  run: echo never\n- if: always()\n  run: echo then";
    let mut job = Run::steps(steps);
    job.order.timeout_ms = 8000;
    let began = std::time::Instant::now();
    let Some(outcome) = run(job).await else { return };
    assert!(began.elapsed().as_secs() < 60, "{:?}", began.elapsed());
    assert_eq!(outcome.conclusions(), ["success", "failure", "success"], "{}", outcome.notices());
    assert_eq!(outcome.lines().last().map(String::as_str), Some("then"));
}
