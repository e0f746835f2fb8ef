//! What the tests of a job said stands on the run's page, the failed ones first, with the run since which they fail.

use std::{process::Command, time::Duration};

use longshore_tests::harness::{browser::Browser, pool::Dev, process::binary, world::World};

use super::PATH;

/// The second run fails in another way as well.
const WORKFLOW: &str = r#"name: CI
on: workflow_dispatch
jobs:
  test:
    name: Tests
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/upload-artifact@v4
        with: { name: test-results, path: "*.xml" }
      - uses: actions/upload-artifact@v4
        with: { name: ours-1, path: other.xml }
      - run: exit 1
"#;
const FIRST: &str = r#"<testsuite name="math"><testcase classname="math.Adds" name="two and two" time="0.25"/>
<testcase classname="math.Adds" name="a &lt;b&gt; and b" time="1.5"><failure message="expected 4, &lt;img src=x onerror=alert(1)&gt; found 5">at
line 7</failure><system-out>said this</system-out></testcase>
<testcase name="later"><skipped message="not on Linux"/></testcase></testsuite>"#;
const SECOND: &str = r#"<testsuite name="math"><testcase classname="math.Adds" name="two and two"><failure message="broken now"/></testcase>
<testcase classname="math.Adds" name="a &lt;b&gt; and b"><failure message="expected 4, found 6"/></testcase></testsuite>"#;

#[tokio::test(flavor = "multi_thread")]
async fn failed_tests_stand_first_with_what_they_said_and_the_run_since_which_they_fail() {
    let data = tempfile::tempdir().unwrap();
    let dev = Dev::start(&data.path().join("data"), &["--sandbox", "host"]).unwrap();
    let files = [
        (PATH, WORKFLOW),
        (".github/longshore.yml", "test-results: ours-*\n"),
        ("results.xml", FIRST),
        ("other.xml", "<testcase name='of another name'/>"),
    ];
    let world = World::new(&dev.relay, &files).await.unwrap();
    let browser = Browser::start().await.unwrap();
    let until = async |expression: &str| {
        let found = browser.until(expression).await;
        let found = found.unwrap_or_else(|error| panic!("{error:#}\n{}", dev.process.text()));
        found.as_str().unwrap_or_default().to_owned()
    };
    let open = async || {
        let (run, job) = world.send(&world.press(dev.pubkey, PATH)).await.unwrap();
        world.listener.end(&run, &job, Duration::from_secs(180)).await.unwrap();
        browser.client.goto(&format!("{}/runs/{}", dev.http, job.id.to_hex())).await.unwrap();
        until("document.querySelector('#state.failure')?.textContent").await;
        job.id.to_hex()
    };
    open().await;
    let tallies = "[...document.querySelectorAll('#tests .tally')].map((one) => one.textContent).join()";
    assert_eq!(until(tallies).await, "1 failed,1 skipped,3 passed");
    let failed = until("document.querySelector('.tests .annotations')?.innerText").await;
    for part in ["a <b> and b", "math.Adds", "new failure", "1.5 s", "expected 4, <img src=x onerror=alert(1)> found 5"]
    {
        assert!(failed.contains(part), "{part}: {failed}");
    }
    browser.click(".tests .test details summary").await.unwrap();
    let output = until("document.querySelector('.tests .test details[open] pre')?.textContent").await;
    assert_eq!(output, "at\nline 7\nsaid this");
    let names = "[...document.querySelectorAll('details.tests')].map((one) => one.querySelector('b').textContent + ' ' + one.open).join()";
    assert_eq!(until(names).await, "test-results true,ours-1 false", "what failed is first, and open");
    assert_eq!(browser.audit().await.unwrap(), Vec::<String>::new());

    // One looks into the artifact, and takes one file of it.
    browser.click("#artifacts a[href*='/runs/'][aria-label='Files of test-results']").await.unwrap();
    let files = until("[...document.querySelectorAll('#files a')].map((one) => one.textContent).join()").await;
    assert_eq!(files, "other.xml,results.xml");
    assert_eq!(browser.audit().await.unwrap(), Vec::<String>::new());
    let fetched = "(window.taken ??= (fetch(document.querySelectorAll('#files a')[1].href).then(async (answer) => {
        window.taken = answer.headers.get('content-disposition') + ' ' + (await answer.text()); }), '')) || null";
    let fetched = until(fetched).await;
    assert_eq!(fetched, format!("attachment; filename=\"results.xml\" {FIRST}"));

    world.push("second", &[("results.xml", SECOND)]).await.unwrap();
    let job = open().await;
    let since = "[...document.querySelectorAll('.tests .annotations .tag')].map((one) => one.textContent).join()";
    assert_eq!(until(since).await, "new failure,failed since run #1");
    assert_eq!(browser.audit().await.unwrap(), Vec::<String>::new());

    let show = ["show", &job, "--server", &dev.http];
    let shown = Command::new(binary("longshore").unwrap()).args(show).output().unwrap();
    let shown = String::from_utf8(shown.stdout).unwrap();
    assert!(shown.contains("✗ math.Adds › a <b> and b (failed since run #1)\n    expected 4, found 6\n"), "{shown}");
}
