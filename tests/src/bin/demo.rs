//! `make demo`: a job event goes in, a signed result comes out, on embedded parts.
//!
//! Starts `longshore dev`, makes a repository and announces it, presses the button as the web client does, follows the
//! log live, and ends with the chain of events, every signature and the log's hash checked.

#![allow(clippy::print_stdout)]

use std::{
    path::Path,
    process::{Command, ExitCode, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Parser;
use longshore_tests::harness::{pool::Dev, process::binary, world::World};
use nostr::{Event, JsonUtil};

const WORKFLOW: &str = r#"name: CI
on: [push, workflow_dispatch]
env:
  GREETING: hello from Longshore
jobs:
  build:
    runs-on: ubuntu-latest
    outputs:
      version: ${{ steps.version.outputs.version }}
    steps:
      - uses: actions/checkout@v4
      - name: Compile
        run: |
          for part in parser planner scheduler; do
            echo "compiling $part"
            sleep 0.4
          done
      - id: version
        run: echo "version=1.2.$(git rev-list --count HEAD)" >> "$GITHUB_OUTPUT"
  test:
    name: Test (${{ matrix.suite }})
    runs-on: ubuntu-latest
    strategy:
      matrix:
        suite: [unit, system]
    steps:
      - uses: actions/checkout@v4
      - run: |
          for case in 1 2 3; do
            echo "${{ matrix.suite }} case $case of ${{ github.repository }}: ok"
            sleep 0.3
          done
  release:
    needs: [build, test]
    runs-on: ubuntu-latest
    steps:
      - run: echo "$GREETING, version ${{ needs.build.outputs.version }}; tests ${{ needs.test.result }}"
"#;

/// Runs the demo
#[derive(Debug, Parser)]
struct Args {
    /// `docker`, or `host` where no engine can be had
    #[arg(long, default_value = "docker")]
    sandbox: String,
    /// Stay up until Ctrl-C
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let _ = rustls::crypto::ring::default_provider().install_default();
    if args.sandbox == "host" {
        println!(
            "!! No Docker engine: steps run as plain processes of this machine, with your rights and your files.\n\
             !! That is for trusted workflows only. Install Docker to have each job in a container of its own.\n"
        );
    }
    let folder = tempfile::tempdir()?;
    heading("Starting relay, coordinator and worker in one process");
    let dev = Dev::start(&folder.path().join("data"), &["--sandbox", &args.sandbox])?;
    println!("relay      {}\ndashboard  {}\npool       {}", dev.relay, dev.http, dev.pubkey);

    heading("A repository on a git server, announced on the relay");
    let world = World::new(&dev.relay, &[(".github/workflows/ci.yml", WORKFLOW), ("README.md", "demo\n")]).await?;
    println!("{}", world.address());

    heading("Pressing \"Run workflow\", as the web client does");
    let press = world.press(dev.pubkey, ".github/workflows/ci.yml");
    let (run, job) = world.send(&press).await?;
    println!("{}  {}\n{}  {}", run.kind.as_u16(), run.id, job.kind.as_u16(), job.id);

    heading("The log, while it runs");
    let mut follow = Command::new(binary("longshore")?)
        .args(["logs", "--follow", "--server", &dev.http, &job.id.to_hex()])
        .stdin(Stdio::null())
        .spawn()
        .context("cannot start longshore logs")?;
    let end = world.listener.end(&run, &job, Duration::from_secs(300)).await;
    let answers = match end {
        Ok(answers) => answers,
        Err(error) => {
            let _ = follow.kill();
            bail!("{error:#}\n{}", dev.process.text());
        }
    };
    let _ = follow.wait();

    heading("The chain of events");
    let again = job.id;
    let mut chain: Vec<Event> = vec![run, job];
    chain.extend(answers.0);
    let code = verify(&chain, folder.path())?;
    if args.keep {
        heading("Your turn");
        println!("All stays up until you press Ctrl-C; the dashboard is at {}. In another terminal:\n", dev.http);
        if let Some(programs) = binary("longshore")?.parent() {
            println!("export PATH=\"{}:$PATH\"", programs.display());
        }
        println!("export LONGSHORE_SERVER={} LONGSHORE_RELAY={} LONGSHORE_POOL={}", dev.http, dev.relay, dev.pubkey);
        println!(
            "export LONGSHORE_NSEC={}  # the owner's, of this demo alone",
            world.owner.secret_key().to_secret_hex()
        );
        println!("longshore runs");
        println!("longshore submit --repository {} -W .github/workflows/ci.yml", world.address());
        println!("longshore rerun {again}");
        tokio::signal::ctrl_c().await?;
    }
    Ok(code)
}

fn verify(chain: &[Event], folder: &Path) -> Result<ExitCode> {
    let file = folder.join("chain.jsonl");
    std::fs::write(&file, chain.iter().map(JsonUtil::as_json).collect::<Vec<_>>().join("\n"))?;
    let id = chain.first().context("the chain is empty")?.id.to_hex();
    let mut command = Command::new(binary("longshore")?);
    let status =
        command.args(["verify", &id, "--events"]).arg(&file).status().context("cannot start longshore verify")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn heading(text: &str) {
    println!("\n── {text}");
}
