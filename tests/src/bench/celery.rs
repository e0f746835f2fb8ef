//! Celery with Redis as a peer of the dispatcher, where both are on PATH.

use std::{path::Path, process::Stdio, time::Duration};

use anyhow::{Context, Result, ensure};
use tokio::process::Command;

use super::peers::on_path;
use crate::harness::process::free_port;

const SCRIPT: &str = include_str!("celery.py");
/// For all of it.
const LIMIT: Duration = Duration::from_secs(300);

/// Tasks a second; `None` where one of the two is not installed.
pub(super) async fn rate(folder: &Path, tasks: usize) -> Option<Result<f64>> {
    let redis = on_path("redis-server")?;
    let celery = on_path("celery")?;
    Some(measure(folder, tasks, &redis, &celery).await)
}

async fn measure(folder: &Path, tasks: usize, redis: &Path, celery: &Path) -> Result<f64> {
    let folder = folder.join("celery");
    std::fs::create_dir_all(&folder)?;
    let script = folder.join("bench.py");
    std::fs::write(&script, SCRIPT)?;
    let port = free_port()?.to_string();
    // Each command is in its log before it is answered, as a job here is in the database.
    let arguments = ["--port", &port, "--bind", "127.0.0.1", "--appendonly", "yes", "--appendfsync", "everysec"];
    let mut server = Command::new(redis);
    server.args(arguments).current_dir(&folder).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    let _server = server.spawn().context("redis-server does not start")?;
    let up = async {
        while tokio::net::TcpStream::connect(format!("127.0.0.1:{port}")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), up).await.context("redis-server does not listen")?;
    let running = Command::new(interpreter(celery))
        .arg(&script)
        .arg(tasks.to_string())
        .env("REDIS", format!("redis://127.0.0.1:{port}/0"))
        .current_dir(&folder)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(LIMIT, running).await.context("Celery hangs")??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().parse().context("Celery's rate is no number")
}

/// The Python that has Celery: the one that its own program names in its first line, else the one on PATH.
fn interpreter(celery: &Path) -> String {
    let program = std::fs::read_to_string(celery).unwrap_or_default();
    let first = program.lines().next().and_then(|line| line.strip_prefix("#!")).map(str::trim);
    first.filter(|first| first.contains("python")).unwrap_or("python3").to_owned()
}
