//! `longshore doctor`: what a pool, or `exec`, would miss on this machine, and what to do about it.

mod checks;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::Result;
use serde::Serialize;

use crate::{client::api::ServerArgs, label_images::use_present_images, terminal::printable::printable_lines};

/// Check what Longshore needs: git, the Docker engine, images, configurations, relays, the coordinator and the clock
///
/// Nothing is changed. Each thing that is wrong is told with its remedy, and the exit code is then 1.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// A configuration of a coordinator or a worker; may be repeated
    #[arg(long = "config", value_name = "FILE", env = "LONGSHORE_CONFIG", value_delimiter = ',')]
    configs: Vec<PathBuf>,
    /// A relay that must answer, besides those of the configurations; may be repeated
    #[arg(long = "relay", value_name = "URL", env = "LONGSHORE_RELAY", value_delimiter = ',')]
    relays: Vec<String>,
    /// An image that must be there, besides those of the configurations; may be repeated
    #[arg(long = "image", value_name = "IMAGE")]
    images: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Finding {
    what: String,
    state: Health,
    /// What was found.
    found: String,
    /// What to do.
    #[serde(skip_serializing_if = "Option::is_none")]
    remedy: Option<String>,
}

/// How it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Health {
    Good,
    /// Something goes without it.
    Note,
    Wrong,
}

impl Finding {
    fn good(what: &str, found: impl Into<String>) -> Self {
        Self { what: what.to_owned(), state: Health::Good, found: found.into(), remedy: None }
    }

    fn note(what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: Health::Note, remedy: Some(remedy.into()), ..Self::good(what, found) }
    }

    fn wrong(what: &str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { state: Health::Wrong, ..Self::note(what, found, remedy) }
    }
}

#[allow(clippy::print_stdout)]
pub(crate) async fn run(args: Args) -> Result<ExitCode> {
    let (mut findings, needs) = checks::configurations(&args.configs);
    findings.insert(0, checks::git());
    let mut images = needs.images;
    images.extend(args.images.iter().cloned());
    if needs.engine || args.configs.is_empty() {
        if images.is_empty() {
            // What exec and dev take where nothing is said.
            let mut config = worker::config::Config::default();
            use_present_images(&mut config, &[]).await;
            images.extend(config.labels.into_values());
        }
        findings.extend(checks::engine(&images, &needs.runtimes).await);
        findings.push(checks::process_limits());
        findings.push(checks::kernel_tables());
    }
    let named: BTreeSet<&String> = needs.read.iter().chain(&needs.write).chain(&args.relays).collect();
    let relays: Vec<String> = named.into_iter().cloned().collect();
    let purposes = [("relays.read", &needs.read), ("relays.write", &needs.write)];
    findings.extend(checks::relays(&relays, &purposes).await);
    let server = args.server.connect()?;
    findings.push(checks::coordinator(&server).await);
    findings.push(checks::clock(&server, &relays).await);
    let wrong = findings.iter().filter(|finding| finding.state == Health::Wrong).count();
    if args.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else {
        findings.iter().for_each(show);
        println!("{}", if wrong == 0 { "nothing is wrong".to_owned() } else { format!("{wrong} wrong") });
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[allow(clippy::print_stdout)]
fn show(finding: &Finding) {
    let (sign, style) = match finding.state {
        Health::Good => ("ok   ", console::Style::new().green()),
        Health::Note => ("note ", console::Style::new().yellow()),
        Health::Wrong => ("WRONG", console::Style::new().red()),
    };
    println!("{} {}: {}", style.apply_to(sign), finding.what, printable_lines(&finding.found));
    if let Some(remedy) = &finding.remedy {
        println!("      → {}", printable_lines(remedy));
    }
}
