//! Services of a job: containers beside it.

use workflow::plan::{Conclusion, Reason};

use crate::{harness::Run, run};

/// A web server that answers with its `GREETING`, and becomes healthy some time after its start.
pub(crate) const WEB: &str = r#"
          image: longshore/ubuntu:dev
          entrypoint: node -e
          command: >-
            "require('http').createServer((_, answer) => answer.end(process.env.GREETING + '\n')).listen(8080);
            setTimeout(() => require('fs').writeFileSync('/tmp/healthy', ''), 1500)"
          options: --health-cmd "test -e /tmp/healthy" --health-interval=1s --health-retries 60 --memory 256m"#;

pub(crate) fn job(keys: &str, steps: &str) -> Run {
    let steps: String = steps.lines().map(|line| format!("      {line}\n")).collect();
    Run::new(&format!("jobs:\n  test:\n    runs-on: ubuntu-latest\n    {keys}\n    steps:\n{steps}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_is_healthy_before_the_first_step_and_reached_by_name_and_by_localhost() {
    let services = format!(
        "env: {{WORD: hello}}
    services:
        web:{WEB}
          env: {{GREETING: \"${{{{ env.WORD }}}} from web\"}}
          ports: ['9000:8080']
        second:{WEB}
          env: {{GREETING: from second}}
          ports: [8080]
          volumes: ['shared:/shared']
        none: {{image: \"${{{{ vars.NONE }}}}\"}}"
    );
    let steps = "
- run: |
    curl -sS http://web:8080
    curl -sS http://localhost:9000
    curl -sS http://localhost:${{ job.services.second.ports['8080'] }}
- run: |
    echo ${{ job.services.web.ports['8080'] }} ${{ job.services.web.network == job.services.second.network }}
    echo ${{ job.services.web.id != '' }} none=${{ job.services.none.id }}";
    let Some(outcome) = run(job(&services, steps)).await else { return };
    assert_eq!(
        outcome.lines(),
        ["hello from web", "hello from web", "from second", "9000 true", "true none="],
        "{}",
        outcome.notices()
    );
    assert_eq!(outcome.report.conclusion, Conclusion::Success);
    for said in ["Service web: ready", "Waiting for health checks", "Service none: no image"] {
        assert!(outcome.notices().contains(said), "{}", outcome.notices());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_a_container_shares_a_volume_and_reaches_its_service_by_name_alone() {
    let keys = format!(
        "container: {{image: 'longshore/ubuntu:dev', volumes: ['shared:/mine']}}
    services:
        web:{WEB} --network-alias other-name
          env: {{GREETING: hello}}
          ports: ['9000:8080']
          volumes: ['shared:/its']"
    );
    let steps = "
- run: |
    curl -sS http://other-name:8080
    curl -s http://localhost:9000 || echo closed
    echo kept > /mine/file && cat /mine/file";
    let Some(outcome) = run(job(&keys, steps)).await else { return };
    let lines = outcome.lines();
    assert_eq!(lines.first().map(String::as_str), Some("hello"), "{lines:?} {}", outcome.notices());
    assert_eq!(lines.get(lines.len() - 2..).unwrap(), ["closed", "kept"], "{lines:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_unhealthy_or_ends_fails_the_job_with_its_last_lines() {
    let unhealthy = "command: sh -c 'echo warming up; sleep 600'
          options: --health-cmd false --health-interval 100ms --health-retries 2";
    let ended = "command: sh -c 'echo no configuration; exit 3'
          options: --health-cmd true --health-interval 60s";
    for (service, why, said) in
        [(unhealthy, "health check fails", "| warming up"), (ended, "exit code 3", "| no configuration")]
    {
        let keys = format!("services:\n        db:\n          image: longshore/ubuntu:dev\n          {service}");
        let Some(outcome) = run(job(&keys, "- run: echo never")).await else { return };
        let Some(Reason::Invalid(reason)) = &outcome.report.reason else { panic!("{:?}", outcome.report.reason) };
        assert!(reason.contains("services.db") && reason.contains(why), "{reason}");
        assert!(outcome.notices().contains(said), "{}", outcome.notices());
        assert!(!outcome.report.started);
        assert_eq!(outcome.lines(), [""; 0]);
    }
}
