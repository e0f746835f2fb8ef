//! A registry with one small image, `tool:1`, for everybody or for who has the password.

use std::{
    io::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use base64::Engine as _;
use sha2::{Digest as _, Sha256};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
};
use worker::sandbox::Credentials;

pub(crate) struct Registry {
    pub(crate) address: String,
    /// Manifests that were asked for.
    pub(crate) asked: Arc<AtomicUsize>,
    /// Connections on which the layer is being sent.
    pub(crate) sending: Arc<AtomicUsize>,
}

/// To whom a registry gives its image.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Gives {
    All,
    Owner,
    /// The layer never ends.
    Nothing,
}

struct Content {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layer: Vec<u8>,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

pub(crate) fn password() -> Credentials {
    Credentials { username: "owner".into(), password: "correct horse".to_owned().into() }
}

impl Registry {
    pub(crate) async fn start(is_open: bool) -> Self {
        Self::giving(if is_open { Gives::All } else { Gives::Owner }).await
    }

    /// One that sends the first bytes of a layer, and no more.
    pub(crate) async fn stalling() -> Self {
        Self::giving(Gives::Nothing).await
    }

    async fn giving(gives: Gives) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let registry = Self { address, asked: Arc::default(), sending: Arc::default() };
        let (content, asked, sending) =
            (Arc::new(content()), Arc::clone(&registry.asked), Arc::clone(&registry.sending));
        tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let counts = (Arc::clone(&asked), Arc::clone(&sending));
                tokio::spawn(answer(connection, gives, Arc::clone(&content), counts));
            }
        });
        registry
    }

    pub(crate) fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.address)
    }
}

/// Of an image that nobody has.
fn content() -> Content {
    let mut tar = tar::Builder::new(Vec::new());
    let mark = hex::encode(rand::random::<[u8; 16]>());
    for (path, text) in [("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n"), ("mark", mark.as_str())] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, path, text.as_bytes()).unwrap();
    }
    let tar = tar.into_inner().unwrap();
    let mut layer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    layer.write_all(&tar).unwrap();
    let layer = layer.finish().unwrap();
    let architecture = if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" };
    let config = serde_json::json!({
        "architecture": architecture, "os": "linux", "config": {}, "history": [],
        "rootfs": {"type": "layers", "diff_ids": [digest(&tar)]},
    });
    let config = config.to_string().into_bytes();
    let part = |kind: &str, bytes: &[u8]| {
        serde_json::json!({
            "mediaType": format!("application/vnd.docker.{kind}"), "size": bytes.len(), "digest": digest(bytes),
        })
    };
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": part("container.image.v1+json", &config),
        "layers": [part("image.rootfs.diff.tar.gzip", &layer)],
    });
    Content { manifest: manifest.to_string().into_bytes(), config, layer }
}

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

async fn answer(
    connection: TcpStream,
    gives: Gives,
    content: Arc<Content>,
    (asked, sending): (Arc<AtomicUsize>, Arc<AtomicUsize>),
) {
    let is_open = gives != Gives::Owner;
    let mut lines = BufReader::new(connection);
    let mut head = String::new();
    // The engine tries TLS first, which has no lines.
    while !head.ends_with("\r\n\r\n") {
        if !matches!(lines.read_line(&mut head).await, Ok(1..)) {
            return;
        }
    }
    let mut words = head.split(' ');
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let pair = base64::engine::general_purpose::STANDARD.encode("owner:correct horse");
    let is_owner = head.lines().any(|line| line == format!("Authorization: Basic {pair}"));
    if path.contains("/manifests/") {
        asked.fetch_add(1, Ordering::Relaxed);
    }
    let found = |name: &str| path.ends_with(name);
    let bodies = [
        ("/manifests/1".to_owned(), MANIFEST, &content.manifest),
        (format!("/manifests/{}", digest(&content.manifest)), MANIFEST, &content.manifest),
        (format!("/blobs/{}", digest(&content.config)), "application/octet-stream", &content.config),
        (format!("/blobs/{}", digest(&content.layer)), "application/octet-stream", &content.layer),
    ];
    let known = path.starts_with("/v2/tool/");
    let body = bodies.iter().find(|(name, ..)| known && found(name));
    let (status, more, kind, body): (_, _, _, &[u8]) = match body {
        _ if !is_owner && !is_open => {
            let body = br#"{"errors": [{"code": "UNAUTHORIZED", "message": "authentication required"}]}"#;
            ("401 Unauthorized", "www-authenticate: Basic realm=\"test\"\r\n", "application/json", body)
        }
        Some((_, kind, body)) => ("200 OK", "", *kind, body),
        None if path == "/v2/" => ("200 OK", "", "application/json", b"{}"),
        None => {
            let body = br#"{"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]}"#;
            ("404 Not Found", "", "application/json", body)
        }
    };
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\ndocker-content-digest: {}\r\n\
         docker-distribution-api-version: registry/2.0\r\n{more}connection: close\r\n\r\n",
        body.len(),
        digest(body)
    );
    let mut connection = lines.into_inner();
    let _ = connection.write_all(head.as_bytes()).await;
    if gives == Gives::Nothing && method == "GET" && body == content.layer {
        sending.fetch_add(1, Ordering::Relaxed);
        let _ = connection.write_all(&body[..2]).await;
        // Until the other end goes.
        let _ = connection.read(&mut [0; 16]).await;
        sending.fetch_sub(1, Ordering::Relaxed);
        return;
    }
    if method != "HEAD" {
        let _ = connection.write_all(body).await;
    }
    let _ = connection.shutdown().await;
}
