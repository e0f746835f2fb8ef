//! `longshore dev`: a whole pool in one process, for trying things out.

mod local_repository;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, ensure};
use config::{self, Config, keys, load};
use nostr_relay_builder::{LocalRelay, RelayBuilder, builder::RateLimit};
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use worker::{config::Config as WorkerConfig, coordinator_client::Shutdown};

use self::local_repository::{AnnouncedRepository, LocalRepository};
use crate::{client::key_file, exec::pair, label_images};

/// Run a relay, a coordinator and a worker in one process
///
/// For this machine alone: everybody who reaches its relay may run workflows free of charge, and repositories may be on
/// loopback addresses. Its first line, once ready: {"relay":"ws://…","http":"http://…","pubkey":"…"}
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of keys, database, mirrors and logs; kept between runs
    #[arg(long, value_name = "DIR", default_value = ".longshore")]
    data: PathBuf,
    /// A git repository of this machine to run workflows of: the relay knows it, and its branches as they move. A
    /// commit starts the workflows that are `on: push`. Its owner is the key in LONGSHORE_NSEC, else one that is kept with the others
    #[arg(long, value_name = "DIR")]
    repository: Option<PathBuf>,
    /// One key of the coordinator's configuration, e.g. --set definitions.policy=off; a list as in TOML:
    /// --set 'environments=[{name = "production", repository = "*"}]'; may be repeated
    #[arg(long = "set", value_name = "KEY=VALUE")]
    sets: Vec<String>,
    /// Port of the relay on 127.0.0.1; 0: a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    relay_port: u16,
    /// Port of pages, API and blobs on 127.0.0.1; 0: a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    http_port: u16,
    /// Jobs at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    slots: u32,
    /// The image that stands for a runner label; may be repeated. That of ubuntu-latest stands for ubuntu-24.04 and
    /// ubuntu-22.04 too
    #[arg(long = "image", value_name = "LABEL=IMAGE", value_parser = pair)]
    images: Vec<(String, String)>,
    /// Where jobs run: `docker`, or `host`: on this machine, as you, with no isolation
    #[arg(long, default_value = "docker")]
    sandbox: worker::sandbox::SandboxKind,
    /// Seconds a run may take
    #[arg(long, value_name = "SECONDS")]
    max_duration: Option<u64>,
    /// Base of the URLs in events, where the dashboard is reached by another name
    #[arg(long, value_name = "URL", default_value = "")]
    public_url: String,
    /// Containers kept ready for each image
    #[arg(long, value_name = "N", default_value_t = 1)]
    warm: usize,
    /// Print what the other commands need of the `dev` that runs with this data folder, and end:
    /// eval "$(longshore dev --print-env)"
    #[arg(long)]
    print_env: bool,
}

/// In the data folder: what the other commands need.
const ENVIRONMENT: &str = "dev.env";
/// Names of workflows that one tries first.
const LIKELY: [&str; 5] = ["ci", "test", "tests", "build", "main"];

/// Prints what another process wrote for its data folder.
#[allow(clippy::print_stdout)]
fn print_environment(data: &Path) -> anyhow::Result<ExitCode> {
    let shown = data.display();
    let is_running = data.is_dir() && crate::data_lock::acquire(data, "--data").is_err();
    ensure!(
        is_running,
        "no `longshore dev` runs with the data folder {shown}: start one, or name its folder with --data"
    );
    let text = std::fs::read_to_string(data.join(ENVIRONMENT));
    print!("{}", text.with_context(|| format!("the `longshore dev` of {shown} is not ready yet: try again"))?);
    Ok(ExitCode::SUCCESS)
}

/// The workflow of an example.
fn likely(workflows: Vec<String>) -> Option<String> {
    let stem = |path: &String| Path::new(path).file_stem().map(|stem| stem.to_string_lossy().into_owned());
    let place =
        |path: &String| LIKELY.iter().position(|name| stem(path).as_deref() == Some(name)).unwrap_or(LIKELY.len());
    workflows.into_iter().min_by_key(place)
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    if args.print_env {
        return print_environment(&args.data);
    }
    let _alone = crate::data_lock::acquire(&args.data, "--data")?;
    let data = std::fs::canonicalize(&args.data)?;
    // One that was killed left its ports.
    let environment = data.join(ENVIRONMENT);
    let _ = std::fs::remove_file(&environment);
    // The folder, with its keys, is in somebody's work tree as a rule.
    std::fs::write(data.join(".gitignore"), "*\n").with_context(|| format!("{}", data.display()))?;
    let keys = keys_in(&data.join("keys"))?;
    let owner_file = data.join("keys/owner.key");
    let owned = key_file::is_in_environment();
    let local = match &args.repository {
        Some(directory) if owned => Some(LocalRepository::open(directory, key_file::read(None)?)?),
        Some(directory) => Some(LocalRepository::open(directory, local_repository::owner(&owner_file)?)?),
        None => None,
    };
    // Before anything is made on the engine, which would be left there.
    for (flag, port) in [("--relay-port", args.relay_port), ("--http-port", args.http_port)] {
        let cause = || format!("nothing can listen on 127.0.0.1:{port}; name another port with {flag}");
        std::net::TcpListener::bind(("127.0.0.1", port)).with_context(cause)?;
    }
    // Before anything listens: without an engine nothing else is worth starting.
    let worker = WorkerConfig { identity_file: keys.worker.clone(), ..worker_config(&args, &data).await };
    if !args.sandbox.is_isolated() {
        eprintln!("dev: --sandbox host: steps run as processes of this machine, with your rights and your files");
    }
    let sandbox = worker::sandbox(&worker).await?;

    let DevPool { relay, url, running, shared, stop } = match start(&args, &data, &keys, local).await {
        Ok(started) => started,
        Err(error) => {
            sandbox.close().await;
            return Err(error);
        }
    };
    let shutdown = Shutdown::default();
    let coordinator = format!("http://{}", running.grpc);
    let worker = WorkerConfig { coordinator, ..worker };
    let link = worker::run(worker, sandbox, shutdown.clone(), || ());
    let mut link = tokio::spawn(link);
    eprintln!(
        "dev: everybody who reaches {url} may run workflows here, free of charge; loopback clone URLs are allowed"
    );
    let http = format!("http://{}", running.http);
    let mut ready = json!({ "relay": url, "http": http, "pubkey": running.pubkey.to_hex() });
    let mut exports = format!("LONGSHORE_SERVER={http} LONGSHORE_RELAY={url} LONGSHORE_POOL={}", running.pubkey);
    let mut hint = String::new();
    if let Some(shared) = &shared {
        ready["repository"] = shared.address().into();
        exports.push_str(&format!(" LONGSHORE_REPOSITORY={}", shared.address()));
        hint = likely(shared.workflows()).map(|path| format!("\n  longshore submit -W {path}")).unwrap_or_default();
    }
    println!("{ready}");
    eprintln!("dev: dashboard: {http}");
    // A variable that is there is there in another terminal too, as a rule.
    let key = match &shared {
        Some(_) if owned => String::new(),
        Some(_) => format!("\n  export LONGSHORE_NSEC=$(cat '{}')", owner_file.display()),
        None => "\n  export LONGSHORE_NSEC=nsec1…  # your key: it signs what you ask for".to_owned(),
    };
    let known = if owned || shared.is_none() { "" } else { &key };
    std::fs::write(&environment, format!("export {exports}{}\n", known.replace("\n  ", "\n")))
        .with_context(|| format!("{}: cannot be written", environment.display()))?;
    eprintln!(
        "dev: for the other commands, in another terminal: eval \"$(longshore dev --print-env --data '{}')\", which is\n  \
         export {exports}{key}{hint}",
        data.display()
    );
    let follow = shared.map(|shared| tokio::spawn(shared.follow()));

    let coordinator = running.ended();
    tokio::pin!(coordinator);
    let ended = tokio::select! {
        () = crate::worker::terminated() => Ok(()),
        ended = &mut coordinator => ended,
        ended = &mut link => match ended {
            Ok(Err(error)) => Err(error.context("the worker did not start")),
            Ok(Ok(())) => Ok(()),
            Err(error) => Err(error.into()),
        },
    };
    shutdown.drain.cancel();
    shutdown.stop.cancel();
    if !link.is_finished() {
        // What went wrong with jobs that were cut off is in the journal for the next start.
        let _ = link.await;
    }
    stop.cancel();
    if ended.is_ok() {
        coordinator.await?;
    }
    follow.iter().for_each(|follow| follow.abort());
    // The next one has other ports.
    let _ = std::fs::remove_file(environment);
    drop(relay);
    ended.map(|()| ExitCode::SUCCESS)
}

/// What a pool has beside its worker.
struct DevPool {
    relay: AbortOnDropHandle<std::io::Result<()>>,
    url: String,
    running: ::coordinator::Running,
    shared: Option<AnnouncedRepository>,
    stop: CancellationToken,
}

async fn start(args: &Args, data: &Path, keys: &keys::Keys, local: Option<LocalRepository>) -> anyhow::Result<DevPool> {
    let unlimited = RateLimit { max_reqs: 10_000, notes_per_minute: u32::MAX };
    let relay = LocalRelay::new(RelayBuilder::default().rate_limit(unlimited));
    let listener = TcpListener::bind(("127.0.0.1", args.relay_port)).await;
    let listener = listener.with_context(|| format!("the relay cannot listen on 127.0.0.1:{}", args.relay_port))?;
    let url = format!("ws://{}", listener.local_addr()?);
    let relay = AbortOnDropHandle::new(tokio::spawn(local_relay::serve(listener, relay)));
    let shared = match local {
        Some(local) => Some(local.announce(&url).await?),
        None => None,
    };
    let repositories = shared.iter().map(AnnouncedRepository::address).collect();
    let config = Config {
        triggers: config::Triggers { repositories, ..config::Triggers::default() },
        ..coordinator_config(args, data, keys, &url)
    };
    let config = configured(config, &args.sets)?;
    let stop = CancellationToken::new();
    let running = ::coordinator::start(config, stop.clone()).await.context("the coordinator did not start")?;
    Ok(DevPool { relay, url, running, shared, stop })
}

/// The keys of an earlier run, or new ones.
fn keys_in(folder: &Path) -> anyhow::Result<keys::Keys> {
    std::fs::create_dir_all(folder).with_context(|| format!("{}: cannot be made", folder.display()))?;
    if folder.join("nostr.key").exists() {
        return keys::read_keys(folder);
    }
    keys::make_keys(folder, &["127.0.0.1".to_owned()])
}

fn coordinator_config(args: &Args, data: &Path, keys: &keys::Keys, relay: &str) -> Config {
    let relays = || vec![relay.to_owned()];
    let defaults = Config::default().policy;
    Config {
        data: data.join("coordinator"),
        key_file: keys.nostr.clone(),
        store_key_file: keys.store.clone(),
        name: "longshore dev".into(),
        description: "A pool on one machine, for trying things out".into(),
        http: format!("127.0.0.1:{}", args.http_port),
        public_url: args.public_url.clone(),
        grpc: "127.0.0.1:0".into(),
        relays: config::Relays {
            read: relays(),
            write: relays(),
            lookup: relays(),
            allow_private: true,
            ..config::Relays::default()
        },
        policy: config::Policy {
            everyone: true,
            max_duration: args.max_duration.unwrap_or(defaults.max_duration),
            ..defaults
        },
        source: config::Source { allow_private: true, allow_file: true, ..config::Source::default() },
        workers: vec![keys.worker_identity.clone()],
        ..Config::default()
    }
}

/// The configuration with what the command line sets over it.
fn configured(config: Config, sets: &[String]) -> anyhow::Result<Config> {
    if sets.is_empty() {
        return Ok(config);
    }
    let base = toml::Table::try_from(&config).context("the configuration has no TOML form")?;
    let loaded = load::load(&Config::complete(), &load::Given { base, sets, ..load::Given::default() })?;
    for warning in loaded.config.check()? {
        tracing::warn!("{warning}");
    }
    Ok(loaded.config)
}

async fn worker_config(args: &Args, data: &Path) -> WorkerConfig {
    let mut config = WorkerConfig {
        name: "dev".into(),
        slots: args.slots,
        data: data.join("worker"),
        sandbox: args.sandbox,
        private_registries: ["localhost", "127.0.0.1"].map(String::from).into(),
        ..WorkerConfig::default()
    };
    config.pool.size = args.warm;
    label_images::use_present_images(&mut config, &args.images).await;
    if let Some((_, image)) = args.images.iter().find(|(label, _)| label == "ubuntu-latest") {
        config.labels.values_mut().for_each(|default| default.clone_from(image));
    }
    config.labels.extend(args.images.iter().cloned());
    config
}
