//! The page of a job's log while the job runs, and what stands around the lines when it ends.

use std::time::Duration;

use longshore_tests::harness::{browser::Browser, pool::Dev, world::World};

const LIMIT: Duration = Duration::from_secs(120);
const PATH: &str = ".github/workflows/ci.yml";
const WORKFLOW: &str = "
on: workflow_dispatch
jobs:
  slow:
    runs-on: ubuntu-latest
    steps:
      - run: |
          echo begun
          until [ -e '$GO' ]; do sleep 0.1; done
          echo '::error::it broke'
          exit 3
";

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_somebody_follows_leads_to_the_failure_and_to_running_the_job_again() {
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(&data.path().join("data"), &["--sandbox", "host"]).unwrap();
    let go = data.path().join("go");
    let workflow = WORKFLOW.replace("$GO", &go.to_string_lossy());
    let world = World::new(&dev.relay, &[(PATH, workflow.as_str())]).await.unwrap();
    let browser = Browser::start().await.unwrap();
    let (run, job) = world.send(&world.press(dev.pubkey, PATH)).await.unwrap();
    world.listener.status(&job, "running", LIMIT).await.unwrap();
    let page = format!("{}/runs/{}/log?job=slow", dev.http, job.id.to_hex());
    browser.client.goto(&page).await.unwrap();
    let until = async |expression: &str| browser.until(expression).await.unwrap_or_else(|error| panic!("{error:#}"));
    until("document.querySelector('.log-facts .state.running') && document.title.startsWith('●') && 'runs'").await;
    until("document.querySelector('#job-actions button')?.hidden && 'not yet'").await;
    std::fs::write(&go, "").unwrap();
    until("document.querySelector('.log-facts .state.failure') && document.title.startsWith('✗') && 'failed'").await;
    until("document.querySelector('.log-facts').textContent.includes('exit code 3') && 'told'").await;
    until("document.querySelector('#log .row.error .text')?.textContent === 'it broke' && 'at the error'").await;
    world.listener.end(&run, &job, LIMIT).await.unwrap();
    until("document.querySelector('#job-actions button')?.hidden === false && 'again'").await;
    // Who has not signed in is asked to.
    browser.press("Run this job again").await.unwrap();
    until("document.querySelector('dialog[open] #sign-in-title')?.textContent").await;
}
