//! `make screenshots`: every page of the dashboard, light and dark, of runs that really ran.

#![allow(clippy::print_stdout)]

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use longshore_tests::harness::{browser::Browser, pool::Dev, world::World};
use nostr::{Event, EventBuilder, Kind, Timestamp};
use serde_json::json;

const FILE: &str = ".github/workflows/ci.yml";
const WORKFLOW: &str = r#"name: CI
on: [push, workflow_dispatch]
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - name: Compile
        run: |
          echo "::group::Dependencies"
          for part in parser planner scheduler; do printf '\033[32m   Compiling\033[0m %s\n' "$part"; sleep 0.3; done
          echo "::endgroup::"
          for number in $(seq 1 400); do echo "unit $number of 400"; done
  test:
    name: Test (${{ matrix.suite }})
    needs: build
    runs-on: ubuntu-latest
    strategy:
      fail-fast: false
      matrix:
        suite: [unit, system, upgrade]
    steps:
      - name: Run the suite
        run: |
          printf '# %s\n\n| case | result |\n|---|---|\n| 1 | ok |\n| 2 | **%s** |\n' "${{ matrix.suite }}" "ok" >> "$GITHUB_STEP_SUMMARY"
          echo "::warning file=src/plan.rs,line=12::this case is slow"
          for number in $(seq 1 9); do printf '\033[32mok\033[0m case %s: the old store is read\n' "$number"; done
          if test "${{ matrix.suite }}" = upgrade; then
            printf '\033[31mFAILED\033[0m case 10: runs of version 3 are read\n'
            printf '  left: \033[1m4\033[0m\n right: \033[1m5\033[0m\n  at tests/upgrade.rs:81:9\n'
            echo "::error file=tests/upgrade.rs,line=81,title=case 10::expected 4, got 5"
            exit 1
          fi
  lint:
    runs-on: ubuntu-latest
    steps:
      - run: echo "nothing to complain of"
  release:
    needs: [test, lint]
    runs-on: ubuntu-latest
    steps:
      - run: echo "released"
"#;
const GREEN: &str = ".github/workflows/docs.yml";
const DOCS: &str = "name: Docs\non: [push, workflow_dispatch]\njobs:\n  pages:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo built\n";
const WAITS: &str = ".github/workflows/gpu.yml";
const GPU: &str = "name: Train\non: [push, workflow_dispatch]\njobs:\n  train:\n    runs-on: gpu\n    steps:\n      - run: nvidia-smi\n";

const SLOW: &str = ".github/workflows/soak.yml";
const SOAK: &str = r#"name: Soak
on: workflow_dispatch
jobs:
  prepare:
    runs-on: ubuntu-latest
    steps:
      - run: echo "the data is there"
  soak:
    name: Soak (${{ matrix.store }})
    needs: prepare
    runs-on: ubuntu-latest
    strategy:
      max-parallel: 1
      matrix:
        store: [sqlite, postgres]
    steps:
      - run: for number in $(seq 1 600); do echo "round $number"; sleep 1; done
"#;
const DEPLOY: &str = ".github/workflows/deploy.yml";
const DEPLOYS: &str = r#"name: Deploy
on: workflow_dispatch
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - run: echo built
  deploy:
    needs: build
    runs-on: ubuntu-latest
    environment: production
    steps:
      - run: echo deployed
"#;
const TESTED: &str = ".github/workflows/tests.yml";
const TESTS: &str = r#"name: Tests
on: workflow_dispatch
jobs:
  test:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - uses: actions/upload-artifact@v4
        with: { name: test-results, path: junit.xml }
      - run: exit 1
"#;
const FIRST: &str = r#"<testsuites><testsuite name="store">
<testcase classname="store::upgrade" name="runs of version 3 are read" time="1.82"><failure message="expected 4, got 5">thread panicked at tests/upgrade.rs:81:9:
assertion `left == right` failed
  left: 4
 right: 5</failure></testcase>
<testcase classname="store::upgrade" name="runs of version 2 are read" time="0.91"/>
<testcase classname="store::rows" name="a stale write is refused" time="0.04"/>
<testcase classname="store::postgres" name="a connection that was lost is made anew"><skipped message="no database"/></testcase>
</testsuite></testsuites>"#;

const NIGHT: &str = ".github/workflows/nightly.yml";
const NIGHTLY: &str = r#"# Tried as a definition before it is committed
name: Nightly
on:
  schedule:
    - cron: "0 3 * * *"
  workflow_dispatch:
jobs:
  soak:
    name: Soak (${{ matrix.hours }} h)
    runs-on: ubuntu-latest
    strategy:
      matrix:
        hours: [1, 4]
    steps:
      - name: Soak
        run: echo "no leak in ${{ matrix.hours }} hours"
  report:
    needs: soak
    if: ${{ !cancelled() }}
    runs-on: ubuntu-latest
    steps:
      - run: echo "${{ needs.soak.result }}"
"#;

/// Takes pictures
#[derive(Debug, Parser)]
struct Args {
    /// Where they go
    folder: PathBuf,
    /// Height of the window, in pixels
    #[arg(long, default_value_t = 800)]
    height: u32,
}

#[tokio::main]
async fn main() -> Result<()> {
    let Args { folder, height } = Args::parse();
    std::fs::create_dir_all(&folder)?;
    let data = tempfile::tempdir()?;
    let dev = Dev::start(
        &data.path().join("data"),
        &["--sandbox", "host", "--set", "environments=[{name = \"production\", repository = \"*\"}]"],
    )?;
    let files = [(FILE, WORKFLOW), (GREEN, DOCS), (WAITS, GPU)];
    let world = World::new(&dev.relay, &files).await?;
    let ended = async |path: &str| -> Result<(Event, Event)> {
        let (run, job) = world.send(&world.press(dev.pubkey, path)).await?;
        world.listener.end(&run, &job, Duration::from_secs(300)).await?;
        Ok((run, job))
    };
    let profile = r#"{"name":"ann","display_name":"Ann Brandt"}"#;
    world.listener.publish(&EventBuilder::new(Kind::Metadata, profile).sign_with_keys(&world.owner)?).await?;
    for message in ["Describe the planner", "Explain how leases expire", "Read runs of version 3"] {
        ended(GREEN).await?;
        // The state of a repository has seconds: the next one is later.
        tokio::time::sleep(Duration::from_millis(1100)).await;
        world.push(message, &[("NEWS.md", message)]).await?;
    }
    let (_, job) = ended(FILE).await?;
    world.send(&world.press(dev.pubkey, WAITS)).await?;
    let at = |ago: u64| Timestamp::from(Timestamp::now().as_secs().saturating_sub(ago));
    let earlier = NIGHTLY.replace("ubuntu-latest", "ubuntu-24.04");
    let first = world.define(&world.owner, NIGHT, Some(&earlier), at(90_000)).await?;
    ended(NIGHT).await?;
    let version = world.define(&world.owner, NIGHT, Some(NIGHTLY), at(0)).await?;
    ended(NIGHT).await?;
    let browser = Browser::start().await?;
    browser.client.goto(&format!("{}/pool", dev.http)).await?;
    // The queue has the job once the page says why it waits.
    while !browser.client.source().await?.contains("has the label gpu") {
        tokio::time::sleep(Duration::from_millis(300)).await;
        browser.client.refresh().await?;
    }
    let job = job.id.to_hex();
    let pages = [
        ("runs", "/".to_owned()),
        ("run", format!("/runs/{job}")),
        ("log", format!("/runs/{job}/log?job=build&step=Compile")),
        ("failed", format!("/runs/{job}/log?job=test/2")),
        ("pool", "/pool".into()),
        ("repositories", "/repositories".into()),
        ("edit", format!("/repositories/{}/edit?path={NIGHT}", world.address())),
        (
            "compare",
            format!(
                "/repositories/{}/edit?path={NIGHT}&version={}&from={}#compared",
                world.address(),
                version.id,
                first.id
            ),
        ),
        ("repository", format!("/repositories/{}", world.address())),
        ("refused", "/runs/none".into()),
    ];
    // Asked for once, the names of people are known.
    browser.client.goto(&dev.http).await?;
    while !browser.client.source().await?.contains("Ann Brandt") {
        tokio::time::sleep(Duration::from_millis(300)).await;
        browser.client.refresh().await?;
    }
    let camera = Camera { browser: &browser, folder: &folder, http: &dev.http, height };
    camera.take(&pages).await?;

    // What only those see who are signed in, and what goes on.
    let second = FIRST.replace(
        "name=\"a stale write is refused\" time=\"0.04\"/>",
        "name=\"a stale write is refused\" time=\"0.04\"><failure message=\"it was taken\"/></testcase>",
    );
    let more = [(SLOW, SOAK), (DEPLOY, DEPLOYS), (TESTED, TESTS)];
    world.push("Keep the results of tests", &[&more[..], &[("junit.xml", FIRST)]].concat()).await?;
    ended(TESTED).await?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    world.push("Refuse stale writes", &[("junit.xml", second.as_str())]).await?;
    let (_, tested) = ended(TESTED).await?;
    let (_, waiting) = world.send(&world.press(dev.pubkey, DEPLOY)).await?;
    let (_, running) = world.send(&world.press(dev.pubkey, SLOW)).await?;
    let signer = browser.sign_with(world.owner.clone()).await?;
    browser.client.goto(&dev.http).await?;
    browser.sign_in().await?;
    browser
        .until(
            "[...document.querySelectorAll('#who button')].some((button) => button.textContent === 'Sign out') && 'in'",
        )
        .await?;
    for (id, seen) in [(&waiting.id, ".approval button"), (&running.id, "aside .jobs .running")] {
        browser.client.goto(&format!("{}/runs/{}", dev.http, id.to_hex())).await?;
        browser.until(&format!("document.querySelector('{seen}') && 'there'")).await?;
    }
    let pages = [
        ("running", format!("/runs/{}", running.id.to_hex())),
        ("waiting", format!("/runs/{}", waiting.id.to_hex())),
        ("tests", format!("/runs/{}#tests", tested.id.to_hex())),
        ("signed-in", format!("/runs/{job}")),
        ("settings", format!("/repositories/{}/settings", world.address())),
    ];
    camera.take(&pages).await?;
    signer.abort();
    Ok(())
}

/// What takes pictures of pages.
struct Camera<'a> {
    browser: &'a Browser,
    folder: &'a Path,
    http: &'a str,
    height: u32,
}

impl Camera<'_> {
    /// Takes pages, by their names, light, dark and on a phone.
    async fn take(&self, pages: &[(&str, String)]) -> Result<()> {
        for (scheme, width) in [("light", 1280), ("dark", 1280), ("phone", 390)] {
            self.take_as(scheme, width, pages).await?;
        }
        Ok(())
    }

    async fn take_as(&self, scheme: &str, width: u32, pages: &[(&str, String)]) -> Result<()> {
        let Self { browser, folder, http, height } = self;
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.devtools("Emulation.setDeviceMetricsOverride", size).await?;
        let scheme_of = if scheme == "dark" { "dark" } else { "light" };
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme_of}]});
        browser.devtools("Emulation.setEmulatedMedia", feature).await?;
        for (name, path) in pages {
            browser.client.goto(&format!("{http}{path}")).await?;
            // What a script draws is there a frame after the page is.
            browser.until("document.readyState === 'complete' && (!document.getElementById('log') || document.querySelector('#log .row .text')) && (!document.getElementById('colours') || !document.getElementById('colours').hidden)").await?;
            let file = folder.join(format!("{name}-{scheme}.png"));
            let picture = browser.client.screenshot().await?;
            std::fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
            println!("{}", file.display());
        }
        Ok(())
    }
}
