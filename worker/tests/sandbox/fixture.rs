//! An engine for each test, under a worker name of its own, and scripts to run on it.

use std::{future::Future, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;
use worker::sandbox::{
    Command, Machine, MachineSpec, OutputSink, OutputStream, ProcessExit, Sandbox, SandboxError,
    docker::{DockerConfig, DockerSandbox},
};

/// PATH of every step here.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub(crate) fn image() -> String {
    std::env::var("LONGSHORE_TEST_IMAGE").unwrap_or_else(|_| "longshore/ubuntu:dev".into())
}

pub(crate) fn spec() -> MachineSpec {
    MachineSpec { image: image(), ..MachineSpec::default() }
}

/// Runs a test against a worker of its own, and removes all it made.
pub(crate) fn with_docker<F: Future<Output = ()>>(test: impl FnOnce(Arc<DockerSandbox>) -> F) {
    with_config(DockerConfig::default(), test);
}

pub(crate) fn with_config<F: Future<Output = ()>>(config: DockerConfig, test: impl FnOnce(Arc<DockerSandbox>) -> F) {
    if std::env::var("LONGSHORE_NO_ENGINE").is_ok_and(|value| value == "1") {
        eprintln!("skipped: no engine");
        return;
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let config = DockerConfig { worker: format!("test-{:016x}", rand::random::<u64>()), ..config };
        let docker = DockerSandbox::connect(config).await.unwrap();
        let outcome = std::panic::AssertUnwindSafe(test(Arc::clone(&docker))).catch_unwind().await;
        docker.close().await;
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
}

/// Keeps what it is given.
#[derive(Default)]
pub(crate) struct Collected {
    pieces: Mutex<Vec<(OutputStream, Bytes)>>,
    wakes: tokio::sync::Notify,
}

impl OutputSink for Collected {
    fn write(&self, stream: OutputStream, data: Bytes, _time_ms: u64) -> BoxFuture<'_, ()> {
        self.pieces.lock().push((stream, data));
        self.wakes.notify_one();
        std::future::ready(()).boxed()
    }
}

impl Collected {
    pub(crate) fn text(&self, of: OutputStream) -> String {
        let pieces = self.pieces.lock();
        let bytes: Vec<u8> =
            pieces.iter().filter(|(stream, _)| *stream == of).flat_map(|(_, data)| data.to_vec()).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until standard output holds a text.
    pub(crate) async fn wait_for(&self, text: &str) {
        let seen = async {
            while !self.text(OutputStream::Stdout).contains(text) {
                self.wakes.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), seen).await.expect("the step never said it");
    }
}

pub(crate) fn script(text: &str) -> Command {
    Command {
        argv: ["bash", "-c", text].map(String::from).to_vec(),
        environment: vec![("PATH".into(), PATH.into())],
        directory: "/workspace".into(),
        ..Command::default()
    }
}

/// In a machine without a workspace.
pub(crate) fn script_in(directory: &str, text: &str) -> Command {
    Command { directory: directory.into(), ..script(text) }
}

pub(crate) async fn run(
    machine: &dyn Machine,
    command: Command,
) -> Result<(ProcessExit, String, String), SandboxError> {
    let output = Collected::default();
    let exit = machine.run(command, &output).await?;
    Ok((exit, output.text(OutputStream::Stdout), output.text(OutputStream::Stderr)))
}

/// Standard output of a script that succeeds.
pub(crate) async fn say(machine: &dyn Machine, text: &str) -> String {
    let (exit, out, err) = run(machine, script(text)).await.unwrap();
    assert_eq!(exit.code, 0, "{text}: {out}{err}");
    out
}
