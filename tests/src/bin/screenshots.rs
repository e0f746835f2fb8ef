//! `make screenshots`: every page of the dashboard, light and dark, of runs that really ran.

#![allow(clippy::print_stdout)]

use std::{path::PathBuf, time::Duration};

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
    let dev = Dev::start(&data.path().join("data"), &["--sandbox", "host"])?;
    let world = World::new(&dev.relay, &[(FILE, WORKFLOW), (GREEN, DOCS), (WAITS, GPU)]).await?;
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
    for (scheme, width) in [("light", 1280), ("dark", 1280), ("phone", 390)] {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600});
        browser.devtools("Emulation.setDeviceMetricsOverride", size).await?;
        let scheme_of = if scheme == "dark" { "dark" } else { "light" };
        let feature = json!({"features": [{"name": "prefers-color-scheme", "value": scheme_of}]});
        browser.devtools("Emulation.setEmulatedMedia", feature).await?;
        for (name, path) in &pages {
            browser.client.goto(&format!("{}{path}", dev.http)).await?;
            // What a script draws is there a frame after the page is.
            browser.until("document.readyState === 'complete' && (!document.getElementById('log') || document.querySelector('#log .row .text')) && (!document.getElementById('colours') || !document.getElementById('colours').hidden)").await?;
            let file = folder.join(format!("{name}-{scheme}.png"));
            let picture = browser.client.screenshot().await?;
            std::fs::write(&file, picture).with_context(|| format!("cannot write {}", file.display()))?;
            println!("{}", file.display());
        }
    }
    Ok(())
}
