//! `longshore dev`: a whole pool in one process, for trying things out.

use std::{path::{Path, PathBuf}, process::ExitCode, sync::Arc};

use anyhow::Context;
use coordinator::{config::{self, Config, keys}, serve};
use nostr_relay_builder::{LocalRelay, RelayBuilder, builder::RateLimit};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use worker::{config::Config as WorkerConfig, link::{self, Sandboxed, Shutdown}};

use crate::exec::{
    machine::{Kind, images},
    pair,
};

/// Run a relay, a coordinator and a worker in one process
///
/// For this machine alone: everybody who reaches its relay may run workflows free of charge, and repositories may be on
/// loopback addresses. Its first line, once ready: {"relay":"ws://…","http":"http://…","pubkey":"…"}
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Folder of keys, database, mirrors and logs; kept between runs
    #[arg(long, value_name = "DIR", default_value = ".longshore")]
    data: PathBuf,
    /// Port of the relay on 127.0.0.1; 0: a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    relay_port: u16,
    /// Port of pages, API and blobs on 127.0.0.1; 0: a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    http_port: u16,
    /// Jobs at a time
    #[arg(long, value_name = "N", default_value_t = 2)]
    slots: u32,
    /// The image that stands for a runner label; may be repeated
    #[arg(long = "image", value_name = "LABEL=IMAGE", value_parser = pair)]
    images: Vec<(String, String)>,
    /// Where jobs run: `docker`, or `host`: on this machine, as you, with no isolation
    #[arg(long, value_enum, default_value = "docker")]
    sandbox: Kind,
    /// Containers kept ready for each image
    #[arg(long, value_name = "N", default_value_t = 1)]
    warm: usize,
}

pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    std::fs::create_dir_all(&args.data)
        .with_context(|| format!("--data {}: cannot be made", args.data.display()))?;
    let data = std::fs::canonicalize(&args.data)?;
    let keys = keys_in(&data.join("keys"))?;
    // Before anything listens: without an engine nothing else is worth starting.
    let worker = worker_config(&args, &data);
    let sandbox = crate::worker::sandbox(&worker).await?;

    let unlimited = RateLimit { max_reqs: 10_000, notes_per_minute: u32::MAX };
    let mut builder = RelayBuilder::default().addr([127, 0, 0, 1].into()).rate_limit(unlimited);
    if args.relay_port > 0 {
        builder = builder.port(args.relay_port);
    }
    let relay = LocalRelay::new(builder);
    relay.run().await.with_context(|| format!("the relay cannot listen on 127.0.0.1:{}", args.relay_port))?;
    let url = relay.url().await.to_string().trim_end_matches('/').to_owned();

    let stop = CancellationToken::new();
    let config = coordinator_config(&args, &data, &keys, &url);
    let running = serve::start(config, stop.clone()).await.context("the coordinator did not start")?;
    let shutdown = Shutdown::default();
    let coordinator = format!("http://{}", running.grpc);
    let link = link::run(
        WorkerConfig { coordinator, identity_file: keys.worker.clone(), ..worker },
        Arc::new(Sandboxed(sandbox.clone())),
        shutdown.clone(),
    );
    let mut link = tokio::spawn(link);
    eprintln!("dev: everybody who reaches {url} may run workflows here, free of charge; loopback clone URLs are allowed");
    println!("{}", json!({ "relay": url, "http": format!("http://{}", running.http), "pubkey": running.pubkey.to_hex() }));

    let coordinator = running.ended();
    tokio::pin!(coordinator);
    let ended = tokio::select! {
        () = crate::worker::asked_to_end() => Ok(()),
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
    sandbox.close().await;
    relay.shutdown();
    ended.map(|()| ExitCode::SUCCESS)
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
    Config {
        data: data.join("coordinator"),
        key_file: keys.nostr.clone(),
        store_key_file: keys.store.clone(),
        name: "longshore dev".into(),
        description: "A pool on one machine, for trying things out".into(),
        http: format!("127.0.0.1:{}", args.http_port),
        public_url: String::new(),
        grpc: "127.0.0.1:0".into(),
        relays: config::Relays {
            read: relays(),
            write: relays(),
            lookup: relays(),
            allow_private: true,
            ..config::Relays::default()
        },
        policy: config::Policy { everyone: true, ..Config::default().policy },
        source: config::Source { allow_private: true, allow_file: true, ..config::Source::default() },
        workers: vec![keys.worker_identity.clone()],
        ..Config::default()
    }
}

fn worker_config(args: &Args, data: &Path) -> WorkerConfig {
    let kind = match args.sandbox {
        Kind::Docker => "docker",
        Kind::Host => "host",
    };
    let mut config = WorkerConfig {
        name: format!("dev-{}", std::process::id()),
        slots: args.slots,
        data: data.join("worker"),
        sandbox: kind.into(),
        ..WorkerConfig::default()
    };
    config.pool.size = args.warm;
    config.labels = images(args.sandbox, &args.images);
    config
}
