//! The dashboard in a real browser: what people see, press and sign, on pages that speak to nobody else.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop at once")]

use longshore_tests::harness::{browser::Browser, pool::Dev, world::World};

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
        let world = World::new(&dev.relay, &[(PATH, WORKFLOW)]).await.unwrap();
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
        let inside = "document.querySelectorAll('main script, main img:not([src^=\"/api/badge.svg?\"]), main [onerror], main [onmouseover]').length === 0 && 'nothing'";
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
    stage.until("document.querySelector('#runs tbody tr a')?.href").await;
    // First click: the run. It is followed to its end.
    stage.browser.click("#runs tbody tr a").await.unwrap();
    stage.until("document.querySelector('#state.failure')?.textContent").await;
    let chain =
        stage.until("[...document.querySelectorAll('main code')].map((code) => code.textContent).join(' ')").await;
    assert!(chain.contains(&run.id.to_hex()));
    stage.until("[...document.querySelectorAll('td .state')].filter((state) => state.textContent === 'valid').length > 3 && 'signed'").await;
    stage.until("document.querySelector('.summary h1')?.textContent").await;
    stage.is_sound().await;
    // Second click: the step that failed, and its line is in sight.
    stage.browser.click("details[open] ol.steps li:has(.failure) a").await.unwrap();
    let line = stage.until("[...document.querySelectorAll('#log .row .text')].map((text) => text.textContent).find((text) => text.startsWith('the decision is'))").await;
    assert_eq!(line, "the decision is no");
    stage.is_sound().await;

    // Signed in, the run is asked for again, with an input.
    stage.browser.client.back().await.unwrap();
    stage.browser.press("Sign in").await.unwrap();
    stage
        .until(
            "[...document.querySelectorAll('#who button')].some((button) => button.textContent === 'Sign out') && 'in'",
        )
        .await;
    let first = stage.browser.client.current_url().await.unwrap();
    stage.browser.press("Run again").await.unwrap();
    stage.until("document.querySelector('dialog[open]') && 'open'").await;
    stage.is_sound().await;
    stage.until("(document.querySelector('dialog textarea[name=inputs]').value = 'pass=yes') && 'filled'").await;
    stage.browser.press("Run").await.unwrap();
    stage.until(&format!("location.href !== '{first}' && document.querySelector('#state.success')?.textContent")).await;
    stage.is_sound().await;
    signer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_cancelled_and_every_page_is_sound_without_and_with_a_script() {
    let stage = Stage::start().await;
    let signer = stage.browser.sign_with(stage.world.owner.clone()).await.unwrap();
    stage.open("/").await;
    stage.browser.press("Sign in").await.unwrap();
    stage
        .until(
            "[...document.querySelectorAll('#who button')].some((button) => button.textContent === 'Sign out') && 'in'",
        )
        .await;
    stage.browser.press("Run a workflow").await.unwrap();
    let fill = format!(
        "(() => {{ const form = document.querySelector('dialog[open] form'); if (!form) return null;
           form.repository.value = '{}'; form.workflow.value = '{PATH}'; form.branch.value = 'main';
           form.inputs.value = 'pass=never'; return 'filled'; }})()",
        stage.world.address(),
    );
    stage.until(&fill).await;
    stage.browser.press("Run").await.unwrap();
    stage.until("location.pathname.startsWith('/runs/') && document.querySelector('#state.running, #state.active')?.textContent").await;
    stage.browser.press("Cancel").await.unwrap();
    stage.until("document.querySelector('#state.cancelled, #state.failure')?.textContent").await;
    stage.is_sound().await;
    for path in ["/", "/pool", "/repositories", "/?status=success&branch=none"] {
        stage.open(path).await;
        stage.is_sound().await;
    }
    stage.open("/repositories").await;
    stage.browser.click("#main table a").await.unwrap();
    let file = stage.until("document.querySelector('pre.log')?.textContent").await;
    assert_eq!(file.trim_end(), WORKFLOW.trim_end());
    stage.is_sound().await;
    signer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_49_a_log_of_many_lines_and_hostile_codes_jumps_searches_and_draws_only_what_is_in_sight() {
    let stage = Stage::start().await;
    let (run, job) = stage.world.send(&stage.world.press(stage.dev.pubkey, PATH)).await.unwrap();
    stage.world.listener.end(&run, &job, std::time::Duration::from_secs(180)).await.unwrap();
    stage.open(&format!("/runs/{}/log?job=build", job.id.to_hex())).await;
    stage.until("document.querySelectorAll('#log .row').length > 10 && 'drawn'").await;
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
    stage.browser.press("Next").await.unwrap();
    let hit = stage.until("document.querySelector('#log .hit mark')?.textContent").await;
    assert_eq!(hit, "line 2999 of");
    assert!(stage.until("location.search.includes('line=') && location.search").await.contains("line="));
    stage.until("document.querySelectorAll('#log .row').length < 200 && 'few'").await;
    stage.is_sound().await;
}

/// A definition whose texts would act if they were markup, with a mistake in its third line unless `job` is one.
fn night(job: &str) -> String {
    format!(
        "name: \"Night <img src=x onerror=document.title='broken-in'>\"\non: workflow_dispatch # <script>document.title='broken-in'</script>\njobs: {job}\n"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_edited_with_what_is_wrong_in_sight_published_run_and_compared() {
    let stage = Stage::start().await;
    let signer = stage.browser.sign_with(stage.world.owner.clone()).await.unwrap();
    let path = ".github/workflows/night.yml";
    let page = format!("/repositories/{}/edit?path={path}", stage.world.address());
    // Nobody ran or defined anything yet, and nobody is signed in.
    stage.open(&page).await;
    stage.until("document.querySelector('#colours .y-key')?.textContent").await;
    stage.is_sound().await;
    stage.browser.press("Sign in").await.unwrap();
    stage.until("[...document.querySelectorAll('#edit-actions button')].some((button) => button.textContent === 'Publish') && 'in'").await;

    let write = async |text: &str| {
        let text = serde_json::to_string(text).unwrap();
        let write = format!(
            "(() => {{ const text = document.getElementById('text'); if (!text || text.readOnly) return null; text.value = {text};
               text.dispatchEvent(new Event('input', {{ bubbles: true }})); return 'written'; }})()"
        );
        stage.until(&write).await
    };
    write(&night("1")).await;
    assert_eq!(stage.until("document.querySelector('#preview li.error button')?.textContent").await, "3:7");
    assert_eq!(stage.until("document.querySelector('#colours .y-bad')?.textContent").await, "jobs: 1");
    stage.is_sound().await;
    stage.browser.press("Publish").await.unwrap();
    stage.until("document.querySelector('#edit-actions .problem')?.textContent").await;
    // The place of a finding leads into the text, and Tab leads out of it.
    stage.browser.click("#preview li.error button").await.unwrap();
    stage.until("document.activeElement.id === 'text' && 'there'").await;
    let text = stage.browser.client.find(fantoccini::Locator::Id("text")).await.unwrap();
    text.send_keys("\u{e004}").await.unwrap();
    stage.until("document.activeElement.id !== 'text' && 'gone'").await;
    let shown = stage.browser.client.find(fantoccini::Locator::Id("text")).await.unwrap().prop("value").await.unwrap();
    assert_eq!(shown.unwrap(), night("1"));

    write(&night("{first: {runs-on: ubuntu-latest, steps: [{run: echo one}]}}")).await;
    assert_eq!(stage.until("document.querySelector('#preview tbody td')?.textContent").await, "first");
    stage.browser.press("Publish").await.unwrap();
    let first = stage.until("[...document.querySelectorAll('main tr')].find((row) => row.querySelector('.success'))?.querySelector('code.any').textContent").await;
    stage.is_sound().await;

    stage.browser.press("Run it").await.unwrap();
    stage.until("document.querySelector('dialog[open]') && 'open'").await;
    stage.is_sound().await;
    stage.browser.press("Run").await.unwrap();
    stage
        .until("location.pathname.startsWith('/runs/') && document.querySelector('#state.success')?.textContent")
        .await;
    assert_eq!(stage.until("document.querySelector('dd a[href*=\"/edit?\"]')?.textContent").await, first);
    stage.is_sound().await;

    stage.browser.click("dd a[href*=\"/edit?\"]").await.unwrap();
    write(&night("{second: {runs-on: ubuntu-latest, steps: [{run: echo two}]}}")).await;
    stage.browser.press("Publish").await.unwrap();
    stage.browser.click("a[href*=\"&from=\"]").await.unwrap();
    let added = stage.until("document.querySelector('.row.added .text')?.textContent").await;
    assert!(added.starts_with("jobs: {second:"), "{added}");
    let removed = stage.until("document.querySelector('.row.removed .text')?.textContent").await;
    assert!(removed.starts_with("jobs: {first:"), "{removed}");
    stage.is_sound().await;

    // What is withdrawn runs no more; the versions stay.
    stage.open(&page).await;
    stage.browser.press("Withdraw").await.unwrap();
    stage
        .until(
            "[...document.querySelectorAll('main td')].some((cell) => cell.textContent === 'withdrawn') && 'withdrawn'",
        )
        .await;
    stage.until("[...document.querySelectorAll('main tr')].length >= 4 && 'kept'").await;
    stage.is_sound().await;
    signer.abort();
}
