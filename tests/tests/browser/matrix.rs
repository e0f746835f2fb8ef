//! The legs of a matrix are one entry of the list of jobs, and each of them is run again by itself.

use std::time::Duration;

use super::{SIGNED_IN, Stage};

const PATH: &str = ".github/workflows/legs.yml";
/// One leg fails the first time; `ship` is behind them.
const LEGS: &str = "name: Legs
on: workflow_dispatch
jobs:
  test:
    runs-on: ubuntu-latest
    strategy: { fail-fast: false, matrix: { os: [one, two, three] } }
    steps:
      - run: test \"$GITHUB_RUN_ATTEMPT\" -gt 1 -o ${{ matrix.os }} != two
  ship:
    needs: test
    runs-on: ubuntu-latest
    steps:
      - run: echo shipped
";

#[tokio::test(flavor = "multi_thread")]
async fn a_matrix_is_one_entry_with_the_failed_leg_first_and_that_leg_alone_is_run_again_from_where_it_failed() {
    let stage = Stage::start().await;
    let signer = stage.browser.sign_with(stage.world.owner.clone()).await.unwrap();
    stage.world.push("legs", &[(PATH, LEGS)]).await.unwrap();
    let (run, job) = stage.world.send(&stage.world.press(stage.dev.pubkey, PATH)).await.unwrap();
    stage.world.listener.end(&run, &job, Duration::from_secs(180)).await.unwrap();
    stage.open(&format!("/runs/{}", job.id.to_hex())).await;
    let list = "(() => { const legs = document.querySelector('aside .jobs details');
        return legs && legs.open + ' ' + legs.querySelector('summary').innerText.replace(/\\s+/g, ' ') + ': '
          + [...legs.querySelectorAll('.name')].slice(1).map((one) => one.textContent).join(); })()";
    let shown = stage.until(list).await;
    assert!(shown.starts_with("true failure test 2/3 ·"), "{shown}");
    assert!(shown.ends_with(": test (two),test (one),test (three)"), "{shown}");
    let entries = "String(document.querySelectorAll('aside > .jobs > li').length)";
    assert_eq!(stage.until(entries).await, "2");
    stage.is_sound().await;

    stage.browser.sign_in().await.unwrap();
    stage.until(SIGNED_IN).await;
    stage.until("document.querySelector('.failed [data-again] button')?.click() ?? 'pressed'").await;
    let scope = "(() => { const select = document.querySelector('dialog[open] select[name=again]');
        return select && select.value + ' of ' + [...select.options].map((one) => one.textContent).join('; '); })()";
    let options = "Failed jobs and the jobs that depend on them; All jobs; All legs of test; test (one); test (two); test (three); ship";
    assert_eq!(stage.until(scope).await, format!("job test/1 of {options}"));
    stage.is_sound().await;
    let before = stage.browser.client.current_url().await.unwrap();
    stage.browser.press("Start run").await.unwrap();
    stage
        .until(&format!("location.href !== '{before}' && document.querySelector('#state.success')?.textContent"))
        .await;
    assert_eq!(stage.carried().await, "test/0 test/2");
    assert!(stage.until(list).await.starts_with("false success test 3/3"), "what went well is folded");
    stage.is_sound().await;
    signer.abort();
}
