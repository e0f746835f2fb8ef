//! The things that `doctor` looks at.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use ::config::{
    self,
    load::{Given, load},
};
use anyhow::{Context as _, Result};
use futures::future::join_all;
use reqwest::{Method, StatusCode};
use worker::sandbox::docker::{EngineBounds, engine_bounds, engine_info};

use super::{Finding, Health};
use crate::client::{api::ApiClient, relay};

/// How far clocks may be apart, in seconds: signed requests (NIP-98) are taken for as long.
const APART: u64 = 60;
/// How long a relay's page may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Memory that a job may use by default; an engine with less ends jobs early.
const MEMORY: u64 = 4 << 30;

/// What configurations ask for.
#[derive(Debug, Default)]
pub(super) struct Requirements {
    /// Where jobs are heard.
    pub(super) read: BTreeSet<String>,
    /// Where results go.
    pub(super) write: BTreeSet<String>,
    pub(super) images: BTreeSet<String>,
    /// Runtimes that the engine must know.
    pub(super) runtimes: BTreeSet<String>,
    /// A worker's jobs run in containers.
    pub(super) engine: bool,
}

pub(super) fn git() -> Finding {
    let what = "git";
    match Command::new("git").arg("--version").output() {
        Ok(output) if output.status.success() => {
            Finding::good(what, String::from_utf8_lossy(&output.stdout).trim().to_owned())
        }
        _ => Finding::wrong(what, "the program git cannot be run", "install it: repositories are fetched with it"),
    }
}

/// Reads every configuration as its role would.
pub(super) fn configurations(files: &[PathBuf]) -> (Vec<Finding>, Requirements) {
    let mut needs = Requirements::default();
    if files.is_empty() {
        let remedy = "name one with --config to check it; longshore keygen writes two to begin with";
        return (vec![Finding::note("configuration", "none was named", remedy)], needs);
    }
    let check = |file: &PathBuf| {
        let what = format!("configuration {}", file.display());
        match configuration(file, &mut needs) {
            Ok((role, warnings)) if warnings.is_empty() => Finding::good(&what, format!("of a {role}")),
            Ok((role, warnings)) => Finding::note(&what, format!("of a {role}"), warnings.join("; ")),
            Err(error) => Finding::wrong(&what, format!("{error:#}"), "correct it, or let longshore keygen write one"),
        }
    };
    (files.iter().map(check).collect(), needs)
}

fn configuration(file: &Path, needs: &mut Requirements) -> Result<(&'static str, Vec<String>)> {
    let text = std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let given = Given { file: Some(file), environment: std::env::vars().collect(), ..Given::default() };
    // Only a worker names its coordinator.
    let of_worker = text.parse::<toml::Table>().is_ok_and(|table| table.contains_key("coordinator"));
    if of_worker {
        let loaded = load(&worker::config::Config::complete(), &given)?;
        let mut warnings = loaded.config.check()?;
        warnings.extend(loaded.warnings);
        if loaded.config.sandbox.needs_docker_engine() {
            needs.engine = true;
            needs.runtimes.extend(loaded.config.runtimes.into_values());
            needs.images.extend(loaded.config.labels.into_values());
        }
        return Ok(("worker", warnings));
    }
    let loaded = load(&config::Config::complete(), &given)?;
    let mut warnings = loaded.config.check()?;
    warnings.extend(loaded.warnings);
    let relays = loaded.config.relays;
    needs.read.extend(relays.read);
    needs.write.extend(relays.write);
    Ok(("coordinator", warnings))
}

pub(super) async fn engine(images: &BTreeSet<String>, runtimes: &BTreeSet<String>) -> Vec<Finding> {
    let what = "Docker engine";
    let images: Vec<String> = images.iter().cloned().collect();
    let examined = match engine_info(None, &images).await {
        Ok(examined) => examined,
        Err(error) => {
            let remedy = "see above; longshore exec --sandbox host goes without an engine, and without isolation";
            return vec![Finding::wrong(what, error.to_string(), remedy)];
        }
    };
    let found = format!("version {}, runtime {}", examined.version, examined.runtime);
    let mut findings = vec![if examined.memory < MEMORY {
        let remedy = format!("give it more, or lower limits.memory: a job may use {} GiB", MEMORY >> 30);
        Finding::note(what, format!("{found}, {} MiB of memory", examined.memory >> 20), remedy)
    } else {
        Finding::good(what, found)
    }];
    findings.extend(runtimes.iter().map(|runtime| {
        let what = format!("runtime {runtime}");
        match examined.runtimes.contains(runtime) {
            true => Finding::good(&what, "known to the engine"),
            false => {
                let remedy =
                    "install it and name it in `runtimes` of /etc/docker/daemon.json, or take it out of [runtimes]";
                Finding::wrong(&what, "not known to the engine: jobs of its labels fail", remedy)
            }
        }
    }));
    if let Ok(bounds) = engine_bounds(None).await {
        findings.extend(self::bounds(&bounds));
    }
    let remedy = "what jobs may do on this machine is then up to who writes them: run only those of people you trust";
    findings.extend(examined.warnings.iter().map(|warning| Finding::note("isolation of jobs", warning, remedy)));
    findings.extend(images.iter().map(|image| {
        let what = format!("image {image}");
        if examined.missing.contains(image) {
            let remedy = format!("docker pull {image}, or map the label to another image; the first job pulls it else");
            Finding::note(&what, "not on the engine", remedy)
        } else {
            Finding::good(&what, "on the engine")
        }
    }));
    findings
}

/// How far the engine lets a worker bound its jobs.
fn bounds(bounds: &EngineBounds) -> [Finding; 3] {
    let root = match bounds.maps_users {
        true => Finding::good("root in containers", "an ordinary user of this machine"),
        false => {
            let remedy = "userns-remap of the engine, or one that runs without root, would make it an ordinary user";
            Finding::note("root in containers", "root of this machine, with few of its capabilities", remedy)
        }
    };
    let disk = match &bounds.no_fixed_volumes {
        None if bounds.bounds_layers => Finding::good("disk of jobs", "volumes and containers of a fixed size"),
        None => Finding::good("disk of jobs", "volumes of a fixed size; the rest is counted"),
        Some(cause) => {
            let remedy = "volumes of a fixed size need root, loop devices and e2fsprogs (docs/operations.md)";
            Finding::note("disk of jobs", format!("counted every few seconds alone: {cause}"), remedy)
        }
    };
    let limits = match bounds.shares_limits {
        true => Finding::good("limits of jobs", "shared by all containers of a job"),
        false => {
            let remedy = "run the worker as root beside an engine with the option native.cgroupdriver=cgroupfs";
            Finding::note(
                "limits of jobs",
                "services and Docker actions of a job have its memory and processes anew",
                remedy,
            )
        }
    };
    [root, disk, limits]
}

/// What a worker that is started here would have around the process of each job.
pub(super) fn process_limits() -> Finding {
    let what = "limits of jobs' processes";
    match worker::job_process::describe_limits(&worker::config::JobLimits::default()) {
        (found, true) => Finding::good(what, found),
        (found, false) => {
            let remedy =
                "run the worker as root, or as a systemd service with Delegate=yes: one job may slow the others else";
            Finding::note(what, found, remedy)
        }
    }
}

/// Tables of the kernel that jobs share with each other and with the machine, and the room that they should have. No
/// control group counts them: one job may take them all.
const KERNEL_TABLES: [(&str, u64); 6] = [
    ("fs.aio-max-nr", 1 << 20),
    ("fs.file-max", 4_000_000),
    ("fs.inotify.max_user_instances", 8192),
    ("fs.inotify.max_user_watches", 1 << 20),
    ("kernel.pty.max", 16_384),
    ("net.netfilter.nf_conntrack_max", 1 << 20),
];

/// Whether the kernel of this machine has room in its tables for many jobs.
pub(super) fn kernel_tables() -> Finding {
    let read = |name: &str| -> Option<u64> {
        let text = std::fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).ok()?;
        text.trim().parse().ok()
    };
    table_sizes(read)
}

fn table_sizes(read: impl Fn(&str) -> Option<u64>) -> Finding {
    let what = "tables of the kernel";
    // What is not there is not counted: a kernel that tracks no connections has no table of them.
    let small =
        KERNEL_TABLES.iter().filter_map(|(name, room)| Some((name, room, read(name).filter(|has| has < room)?)));
    let (mut found, mut remedy) = (Vec::new(), Vec::new());
    for (name, room, has) in small {
        found.push(format!("{name} = {has}"));
        remedy.push(format!("{name}={room}"));
    }
    if found.is_empty() {
        return Finding::good(what, "have room for many jobs");
    }
    let remedy = format!("sysctl -w {}, and the same in /etc/sysctl.d (deploy/HARDENING.md)", remedy.join(" "));
    Finding::note(what, format!("small: one job takes from the others what it opens ({})", found.join(", ")), remedy)
}

/// One relay that answers is enough to be heard: each purpose has a list, and of each list one must answer.
pub(super) async fn relays(relays: &[String], purposes: &[(&str, &BTreeSet<String>)]) -> Vec<Finding> {
    if relays.is_empty() {
        let remedy = "name one with --relay, or a coordinator's configuration, to see whether it answers";
        return vec![Finding::note("relays", "none was named", remedy)];
    }
    let reach = async |url: &String| {
        let what = format!("relay {url}");
        match relay::connect(std::slice::from_ref(url)).await {
            Ok(client) => {
                client.disconnect().await;
                Finding::good(&what, "answers")
            }
            Err(error) => {
                let remedy = "check its address and the way to it";
                Finding::wrong(&what, format!("{error:#}"), remedy)
            }
        }
    };
    let mut findings = join_all(relays.iter().map(reach)).await;
    let answering: Vec<&String> =
        relays.iter().zip(&findings).filter(|(_, finding)| finding.state == Health::Good).map(|(url, _)| url).collect();
    let silent = silent(purposes, &answering);
    if !answering.is_empty() {
        findings.iter_mut().filter(|finding| finding.state == Health::Wrong).for_each(|f| f.state = Health::Note);
    }
    findings.extend(silent);
    findings
}

/// Lists of which no relay answers.
fn silent(purposes: &[(&str, &BTreeSet<String>)], answering: &[&String]) -> Vec<Finding> {
    let dead = purposes.iter().filter(|(_, list)| !list.is_empty() && !list.iter().any(|url| answering.contains(&url)));
    let finding = |(purpose, list): &(&str, &BTreeSet<String>)| {
        let found = format!("none of the {} configured answers", list.len());
        Finding::wrong(purpose, found, "check their addresses and the way to them; one that answers is enough")
    };
    dead.map(finding).collect()
}

/// Whether the coordinator is ready, by its own account (`/readyz`): what it can't do now, and what it warns of.
pub(super) async fn coordinator(server: &ApiClient) -> Finding {
    let asked = async {
        let response = server.try_send(Method::GET, "/readyz", &[]).await?;
        let status = response.status();
        anyhow::Ok((status, response.text().await?))
    };
    match asked.await {
        Ok((status, report)) => readiness(server.base(), status, &report),
        Err(error) => {
            let remedy = "start one (longshore dev, longshore coordinator) or name it with --server; exec needs none";
            Finding::note("coordinator", format!("{error:#}"), remedy)
        }
    }
}

/// Judges a readiness report: its first line says whether requests are served, each other line names a problem.
fn readiness(base: &str, status: StatusCode, report: &str) -> Finding {
    let what = "coordinator";
    let problems: Vec<&str> = report.lines().skip(1).filter(|line| !line.trim().is_empty()).collect();
    let problems = problems.join("; ");
    match (status.is_success(), problems.is_empty()) {
        (true, true) => Finding::good(what, format!("{base} is ready")),
        (true, false) => {
            let remedy = "it works; mend this before it becomes worse (docs/operations.md)";
            Finding::note(what, format!("{base} is ready, with warnings: {problems}"), remedy)
        }
        (false, _) => {
            let cause = if problems.is_empty() { format!("it answers {status}") } else { problems };
            let remedy = "mend this; it goes on by itself, without a restart (docs/operations.md)";
            Finding::wrong(what, format!("{base} is not ready: {cause}"), remedy)
        }
    }
}

/// Compares the clock with whoever says what time it is.
pub(super) async fn clock(server: &ApiClient, relays: &[String]) -> Finding {
    let pages = relays.iter().filter_map(|relay| relay.strip_prefix("ws").map(|rest| format!("http{rest}")));
    let remote = pages.filter(|page| !page.contains("127.0.0.1") && !page.contains("localhost"));
    // Relays elsewhere know better than a coordinator on this machine.
    for url in remote.chain(std::iter::once(server.base().to_owned())) {
        if let Some(theirs) = date_of(&url).await {
            return judge(&url, theirs, SystemTime::now());
        }
    }
    Finding::note("clock", "nobody was there to compare it with", "name a relay with --relay")
}

async fn date_of(url: &str) -> Option<SystemTime> {
    let client = reqwest::Client::builder().timeout(PATIENCE).build().ok()?;
    let response = client.request(Method::GET, url).send().await.ok()?;
    let text = response.headers().get("date")?.to_str().ok()?;
    let parsed = jiff::fmt::rfc2822::parse(text).ok()?;
    let seconds = u64::try_from(parsed.timestamp().as_second()).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds))
}

fn judge(who: &str, theirs: SystemTime, ours: SystemTime) -> Finding {
    let (apart, word) = match ours.duration_since(theirs) {
        Ok(ahead) => (ahead.as_secs(), "ahead of"),
        Err(error) => (error.duration().as_secs(), "behind"),
    };
    if apart > APART {
        let remedy =
            "set it (timedatectl set-ntp true): events and requests that are signed at another time are refused";
        return Finding::wrong("clock", format!("{apart} s {word} {who}"), remedy);
    }
    Finding::good("clock", format!("as that of {who}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_are_wrong_where_none_of_a_list_answers() {
        let list = |urls: &[&str]| urls.iter().map(|url| (*url).to_owned()).collect::<BTreeSet<_>>();
        let (read, write, none) = (list(&["wss://a", "wss://b"]), list(&["wss://c"]), list(&[]));
        let purposes = [("relays to read", &read), ("relays to write", &write), ("others", &none)];
        let answering = "wss://b".to_owned();
        let found = silent(&purposes, &[&answering]);
        let wrong: Vec<_> = found.iter().map(|finding| (finding.what.as_str(), finding.state)).collect();
        assert_eq!(wrong, [("relays to write", Health::Wrong)]);
        assert_eq!(silent(&purposes, &[]).len(), 2);
    }

    #[test]
    fn attack_36_tables_of_the_kernel_that_one_job_can_take_are_named_with_their_remedy() {
        assert_eq!(table_sizes(|_| Some(u64::MAX)).state, Health::Good);
        assert_eq!(table_sizes(|_| None).state, Health::Good, "a kernel without a table has none that is small");
        let finding = table_sizes(|name| Some(if name == "fs.aio-max-nr" { 65_536 } else { u64::MAX }));
        assert_eq!(finding.state, Health::Note);
        assert!(finding.found.contains("fs.aio-max-nr = 65536"), "{}", finding.found);
        assert!(finding.remedy.is_some_and(|remedy| remedy.contains("fs.aio-max-nr=1048576")));
    }

    #[test]
    fn a_full_disk_is_wrong_and_a_lost_relay_a_note() {
        let judged = |status, report| {
            let finding = readiness("http://c", status, report);
            (finding.state, finding.found)
        };
        assert_eq!(judged(StatusCode::OK, "ready\n"), (Health::Good, "http://c is ready".into()));
        let (state, found) = judged(StatusCode::OK, "ready\nrelay wss://a: lost since 12:00\n");
        assert!(state == Health::Note && found.contains("relay wss://a: lost"), "{found}");
        let (state, found) = judged(StatusCode::SERVICE_UNAVAILABLE, "not ready\nthe disk is full\n");
        assert!(state == Health::Wrong && found.contains("the disk is full"), "{found}");
    }

    #[test]
    fn a_clock_that_is_off_is_shown_with_its_direction() {
        let then = UNIX_EPOCH + Duration::from_secs(1_000_000);
        for (theirs, state, text) in [(0, Health::Good, "as that of"), (90, Health::Wrong, "behind")] {
            let finding = judge("wss://r", then + Duration::from_secs(theirs), then);
            assert_eq!(finding.state, state);
            assert!(finding.found.contains(text), "{finding:?}");
        }
        assert!(judge("wss://r", then, then + Duration::from_secs(3600)).found.contains("3600 s ahead of"));
    }
}
