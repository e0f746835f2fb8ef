//! The dashboard in a real browser: what people see, press and sign, on pages that speak to nobody else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

#[path = "browser/approve.rs"]
mod approve;
#[path = "browser/dark.rs"]
mod dark;
#[path = "browser/definition.rs"]
mod definition;
#[path = "browser/list.rs"]
mod list;
#[path = "browser/live_log.rs"]
mod live_log;
#[path = "browser/matrix.rs"]
mod matrix;
#[path = "browser/private.rs"]
mod private;
#[path = "browser/start.rs"]
mod start;
#[path = "browser/test_reports.rs"]
mod test_reports;

use longshore_tests::harness::{browser::Browser, bunker::Bunker, pool::Dev, world::World};

const PATH: &str = ".github/workflows/ci.yml";

/// Fails unless its input says otherwise, and prints what would act if it were markup or a control sequence.
const WORKFLOW: &str = r##"name: "CI <img src=x onerror=document.title='broken-in'>"
on:
  push:
  workflow_dispatch:
    inputs:
      pass:
        default: "no"
jobs:
  build:
    name: Build <script>document.title='broken-in'</script>
    runs-on: ubuntu-latest
    steps:
      - name: Prepare
        run: |
          echo "# Summary <script>document.title='broken-in'</script> [x](javascript:alert(1)) **bold**" >> "$GITHUB_STEP_SUMMARY"
          printf '\033[31mred\033[0m <b onmouseover=alert(1)>text</b>\n'
          printf '\033]0;title\007\033]8;;javascript:alert(1)\007odd\033]8;;\007\033[2K\033[1A link \342\200\256gnp\n'
          for number in $(seq 1 3000); do echo "line $number of many"; done
      - name: Decide
        run: |
          echo "::error file=src/main.rs,line=3::<b>it does not pass</b>"
          echo "the decision is ${{ inputs.pass }}"
          test "${{ inputs.pass }}" = yes
  slow:
    runs-on: ubuntu-latest
    steps:
      - run: while true; do sleep 0.2; done
        if: inputs.pass == 'never'
"##;

/// Fails the first time; `ship` is behind what fails.
const PIPELINE: &str = "name: Pipeline
on: [push, workflow_dispatch]
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: echo built
  test:
    needs: build
    runs-on: ubuntu-latest
    steps:
      - run: test \"$GITHUB_RUN_ATTEMPT\" -gt 1
  ship:
    needs: test
    runs-on: ubuntu-latest
    steps:
      - run: echo shipped
";
const SECOND: &str = ".github/workflows/pipeline.yml";
const SIGNED_IN: &str =
    "[...document.querySelectorAll('#who button')].some((button) => button.textContent === 'Sign out') && 'in'";

struct Stage {
    dev: Dev,
    world: World,
    browser: Browser,
    _data: tempfile::TempDir,
}

impl Stage {
    async fn start() -> Self {
        let data = tempfile::tempdir().unwrap();
        let dev = Dev::start(&data.path().join("data"), &["--sandbox", "host"]).unwrap();
        let world = World::new(&dev.relay, &[(PATH, WORKFLOW), (SECOND, PIPELINE)]).await.unwrap();
        let browser = Browser::start().await.unwrap();
        Self { dev, world, browser, _data: data }
    }

    async fn open(&self, path: &str) {
        self.browser.client.goto(&format!("{}{path}", self.dev.http)).await.unwrap();
    }

    async fn until(&self, expression: &str) -> String {
        let found = self.browser.until(expression).await;
        let found = found.unwrap_or_else(|error| panic!("{error:#}\n{}", self.dev.process.text()));
        found.as_str().unwrap_or_default().to_owned()
    }

    /// The page does what it does quietly, here alone, for everybody, and nothing hostile in it acted.
    async fn is_sound(&self) {
        let url = self.browser.client.current_url().await.unwrap();
        assert_eq!(self.browser.audit().await.unwrap(), Vec::<String>::new(), "{url}");
        assert_eq!(self.browser.complaints().await.unwrap(), Vec::<String>::new(), "{url}");
        let strangers: Vec<_> = self.browser.requests().await.unwrap();
        let strangers: Vec<_> =
            strangers.iter().filter(|url| !url.starts_with(&self.dev.http) && !url.starts_with("data:")).collect();
        assert!(strangers.is_empty(), "{url} went to {strangers:?}");
        let title = self.browser.client.title().await.unwrap();
        assert!(!title.starts_with("broken-in"), "{url}");
        let inside = "document.querySelectorAll('main script, main img:not([src^=\"/api/badge.svg?\"], .avatar[src^=\"/avatars/\"]), main [onerror], main [onmouseover]').length === 0 && 'nothing'";
        assert_eq!(self.until(inside).await, "nothing", "{url}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_50_a_run_of_hostile_names_is_watched_from_its_press_to_its_failing_line_and_run_again_until_it_is_green()
 {
    let stage = Stage::start().await;
    let signer = stage.browser.sign_with(stage.world.owner.clone()).await.unwrap();
    stage.open("/").await;
    stage.is_sound().await;

    // The list shows the run without a reload.
    let (run, _) = stage.world.send(&stage.world.press(stage.dev.pubkey, PATH)).await.unwrap();
    stage.until("document.querySelector('#runs li a')?.href").await;
    // First click: the run. It is followed to its end.
    stage.browser.click("#runs li a").await.unwrap();
    stage.until("document.querySelector('#state.failure')?.textContent").await;
    let chain =
        stage.until("[...document.querySelectorAll('main code')].map((code) => code.textContent).join(' ')").await;
    assert!(chain.contains(&run.id.to_hex()));
    stage.until("[...document.querySelectorAll('td .state')].filter((state) => state.textContent === 'valid').length > 3 && 'signed'").await;
    stage.until("document.querySelector('.summary h1')?.textContent").await;
    // Why it failed is in sight at once: the step, its exit code and what it printed last.
    let seen =
        "(() => { const box = document.querySelector('.failed'); const lines = [...box.querySelectorAll('.log .row')];
        const line = lines.find((one) => one.textContent.includes('the decision is no'));
        scrollTo(0, 0);
        const fits = line && lines.every((one) => one.getBoundingClientRect().bottom <= 800);
        return fits && lines.length <= 15 && box.querySelector('h2').textContent; })()";
    let head = stage.until(seen).await;
    assert!(head.contains("Decide") && head.contains("exit code 1"), "{head}");
    let tally = stage.until("document.querySelector('.tally.error')?.textContent").await;
    assert_eq!(tally, "2 errors", "what the step said, and its exit code");
    assert!(stage.browser.client.title().await.unwrap().starts_with('✗'));
    stage.until("document.querySelector('link[rel=icon]').href.endsWith('icon-failure.svg') && 'red'").await;
    stage.is_sound().await;
    // Second click: the step that failed, and its line is in sight.
    stage.browser.click("details[open] ol.steps li:has(.failure) a").await.unwrap();
    let line = stage.until("[...document.querySelectorAll('#log .row .text')].map((text) => text.textContent).find((text) => text.startsWith('the decision is'))").await;
    assert_eq!(line, "the decision is no");
    stage.is_sound().await;

    // Signed in, the run is asked for again, with an input.
    stage.browser.client.back().await.unwrap();
    stage.browser.sign_in().await.unwrap();
    stage.until(SIGNED_IN).await;
    let first = stage.browser.client.current_url().await.unwrap();
    stage.browser.press("Run again").await.unwrap();
    stage.until("document.querySelector('dialog[open]') && 'open'").await;
    stage.is_sound().await;
    stage.until("(document.querySelector('dialog [name=\"input.pass\"]').value = 'yes') && 'filled'").await;
    stage.browser.press("Start run").await.unwrap();
    stage.until(&format!("location.href !== '{first}' && document.querySelector('#state.success')?.textContent")).await;
    stage.is_sound().await;
    signer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_and_every_page_is_sound_without_and_with_a_script() {
    let stage = Stage::start().await;
    let signer = stage.browser.sign_with(stage.world.owner.clone()).await.unwrap();
    stage.open("/").await;
    stage.browser.sign_in().await.unwrap();
    stage.until(SIGNED_IN).await;
    stage.browser.press("Run workflow").await.unwrap();
    let fill = format!(
        "(() => {{ const form = document.querySelector('dialog[open] form'); if (!form) return null;
           form.repository.value = '{}'; form.workflow.value = '{PATH}'; form.branch.value = 'main';
           form.inputs.value = 'pass=never'; return 'filled'; }})()",
        stage.world.address(),
    );
    stage.until(&fill).await;
    stage.browser.press("Start run").await.unwrap();
    stage.until("location.pathname.startsWith('/runs/') && document.querySelector('#state.running, #state.active')?.textContent").await;
    let run = stage.browser.client.current_url().await.unwrap();
    stage.open("/pool").await;
    let has = stage.until("document.querySelector('#workers .load a[href*=\"job=slow\"]')?.textContent").await;
    assert!(has.ends_with("#1 · slow"), "{has}");
    stage.is_sound().await;
    stage.browser.client.goto(run.as_str()).await.unwrap();
    stage.browser.press("Cancel run").await.unwrap();
    stage.browser.press("Cancel the run").await.unwrap();
    stage.until("document.querySelector('#state.cancelled, #state.failure')?.textContent").await;
    stage.is_sound().await;
    for path in ["/", "/pool", "/repositories", "/?status=success&branch=none"] {
        stage.open(path).await;
        stage.is_sound().await;
    }
    stage.open("/repositories").await;
    stage.browser.click("#repositories a").await.unwrap();
    let file = stage.until(&format!("document.querySelector('pre[aria-label=\"Text of {PATH}\"]')?.textContent")).await;
    assert_eq!(file.trim_end(), WORKFLOW.trim_end());
    stage.is_sound().await;
    // The file is run from here: the form knows which.
    stage.browser.press("Run").await.unwrap();
    let filled = "(() => { const form = document.querySelector('dialog[open] form'); return form && form.repository.value + ' ' + form.workflow.value; })()";
    assert_eq!(stage.until(filled).await, format!("{} {PATH}", stage.world.address()));
    stage.is_sound().await;
    signer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_49_a_log_of_many_lines_and_hostile_codes_jumps_searches_and_draws_only_what_is_in_sight() {
    let stage = Stage::start().await;
    let (run, job) = stage.world.send(&stage.world.press(stage.dev.pubkey, PATH)).await.unwrap();
    stage.world.listener.end(&run, &job, std::time::Duration::from_secs(180)).await.unwrap();
    stage.open(&format!("/runs/{}/log?job=build", job.id.to_hex())).await;
    // The step that failed is open at its error; what went well is folded, and opens with a press.
    let error = stage.until("document.querySelector('#log .row.error .text')?.textContent").await;
    assert_eq!(error, "<b>it does not pass</b>");
    let heads = "[...document.querySelectorAll('#log .head button')].map((head) => head.querySelector('.name').textContent + ' ' + head.getAttribute('aria-expanded')).join()";
    let heads = stage.until(heads).await;
    assert!(heads.contains("Prepare false") && heads.contains("Decide true"), "{heads}");
    stage.is_sound().await;
    stage.until("[...document.querySelectorAll('#log .head button')].find((head) => head.textContent.startsWith('successPrepare'))?.click() ?? 'pressed'").await;
    stage.until("document.querySelectorAll('#log .row').length > 30 && 'drawn'").await;
    let coloured = stage
        .until(
            "[...document.querySelectorAll('#log .c1')].map((red) => red.textContent).find((text) => text === 'red')",
        )
        .await;
    assert_eq!(coloured, "red");
    let odd = stage.until("[...document.querySelectorAll('#log .text')].map((text) => text.textContent).find((text) => text.startsWith('odd'))").await;
    assert_eq!(odd, "odd link \u{fffd}gnp");
    assert_eq!(stage.until("document.querySelectorAll('#log .text a').length === 0 && 'no link'").await, "no link");
    stage.until("(document.querySelector('input[name=search]').value = 'LINE 2999 OF') && 'typed'").await;
    stage.browser.click("button[aria-label='Next match']").await.unwrap();
    let hit = stage.until("document.querySelector('#log .hit mark')?.textContent").await;
    assert_eq!(hit, "line 2999 of");
    assert!(stage.until("location.search.includes('line=') && location.search").await.contains("line="));
    stage.until("document.querySelectorAll('#log .row').length < 200 && 'few'").await;
    // Keys wrap long lines, and lead back to the error.
    for (key, seen) in [
        ("w", "document.querySelector('#log.wraps .hit mark') && 'wrapped'"),
        ("e", "document.querySelector('#log .row.error') && 'at the error'"),
    ] {
        let press = format!(
            "document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true, cancelable: true }})) || 'pressed'"
        );
        stage.until(&press).await;
        stage.until(seen).await;
    }
    stage.is_sound().await;
}

impl Stage {
    /// Asks for the run on the page again, so much of it; ends on the page of the new run, which ended well.
    async fn again(&self, what: &str) {
        let before = self.browser.client.current_url().await.unwrap();
        self.browser.press("Run again").await.unwrap();
        let choose = format!(
            "(() => {{ const select = document.querySelector('dialog[open] select[name=again]'); if (!select) return null;
               select.value = '{what}'; return select.value === '{what}' && 'chosen'; }})()"
        );
        self.until(&choose).await;
        self.is_sound().await;
        self.browser.press("Start run").await.unwrap();
        self.until(&format!("location.href !== '{before}' && document.querySelector('#state.success')?.textContent"))
            .await;
    }

    /// Jobs of the page's run that were carried over, by their keys.
    async fn carried(&self) -> String {
        self.until(
            "[...document.querySelectorAll('#jobs details')].filter((job) => job.textContent.includes('did not run again'))
             .map((job) => job.dataset.key).join(' ') || 'none'",
        )
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_run_again_until_green_then_one_job_with_the_others_carried_over_and_the_runs_lead_to_each_other()
 {
    let stage = Stage::start().await;
    let signer = stage.browser.sign_with(stage.world.owner.clone()).await.unwrap();
    let (run, job) = stage.world.send(&stage.world.press(stage.dev.pubkey, SECOND)).await.unwrap();
    stage.world.listener.end(&run, &job, std::time::Duration::from_secs(180)).await.unwrap();
    stage.open(&format!("/runs/{}", job.id.to_hex())).await;
    stage.until("document.querySelector('#state.failure')?.textContent").await;
    let why = stage.until("document.querySelector('details[data-key=ship] summary')?.textContent").await;
    assert!(why.contains("skipped: test failed"), "{why}");
    stage.browser.sign_in().await.unwrap();
    stage.until(SIGNED_IN).await;

    stage.again("failed").await;
    assert_eq!(stage.carried().await, "build");
    stage.is_sound().await;
    stage.again("job ship").await;
    assert_eq!(stage.carried().await, "build test");
    stage.is_sound().await;
    for attempt in ["2", "1"] {
        let link = stage.until("document.querySelector('#previous a')?.textContent").await;
        assert!(link.ends_with(&format!("attempt {attempt}")), "{link}");
        stage.browser.click("#previous a").await.unwrap();
        stage
            .until(&format!(
                "document.querySelector('#reruns a')?.textContent.endsWith('attempt {}') && 'led back'",
                attempt.parse::<u8>().unwrap() + 1
            ))
            .await;
    }
    stage.is_sound().await;
    signer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_signs_in_with_a_remote_signer_runs_a_workflow_and_cancels_it_while_the_page_speaks_to_nobody_else() {
    let stage = Stage::start().await;
    let bunker = Bunker::start(&stage.dev.relay, stage.world.owner.clone()).await.unwrap();
    stage.open("/").await;
    let connect = async |address: &str| {
        stage.until(&format!("(() => {{ const field = document.querySelector('dialog[open] input[name=bunker]'); if (!field) return null; field.value = '{address}'; return 'filled'; }})()")).await;
        stage.browser.press("Connect").await.unwrap();
    };
    stage.browser.press("Sign in").await.unwrap();
    connect("bunker://nobody").await;
    stage.until("document.querySelector('dialog .problem')?.textContent").await;
    stage.is_sound().await;
    connect(&bunker.address).await;
    stage.until(SIGNED_IN).await;
    let key = stage.until("sessionStorage.getItem('longshore.key')").await;
    assert_eq!(key, stage.world.owner.public_key().to_hex());

    stage.browser.press("Run workflow").await.unwrap();
    let fill = format!(
        "(() => {{ const form = document.querySelector('dialog[open] form'); if (!form) return null;
           form.repository.value = '{}'; form.workflow.value = '{PATH}'; form.branch.value = 'main';
           form.inputs.value = 'pass=never'; return 'filled'; }})()",
        stage.world.address(),
    );
    stage.until(&fill).await;
    stage.browser.press("Start run").await.unwrap();
    stage.until("location.pathname.startsWith('/runs/') && document.querySelector('#state.running, #state.active')?.textContent").await;
    let actor =
        stage.until("[...document.querySelectorAll('dd code')].map((code) => code.textContent).join(' ')").await;
    assert!(actor.contains(&key), "{actor}");
    stage.browser.press("Cancel run").await.unwrap();
    stage.browser.press("Cancel the run").await.unwrap();
    stage.until("document.querySelector('#state.cancelled')?.textContent").await;
    stage.is_sound().await;
    let signed = bunker.signed.lock().clone();
    assert_eq!(signed, [27235, 5401, 5100, 27235], "the signer signed all of it");
}
