//! A TCP proxy that cuts: every connection through it after a number of bytes, until it is told to let them be.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

pub(crate) struct Proxy {
    pub(crate) port: u16,
    pub(crate) cuts: Arc<AtomicUsize>,
}

impl Proxy {
    /// Cuts `cuts` connections, each after `bytes` towards the server.
    pub(crate) async fn start(to: u16, bytes: usize, cuts: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let done = Arc::new(AtomicUsize::new(0));
        tokio::spawn({
            let done = done.clone();
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    tokio::spawn(carry(client, to, bytes, cuts, done.clone()));
                }
            }
        });
        Self { port, cuts: done }
    }
}

async fn carry(client: TcpStream, to: u16, bytes: usize, cuts: usize, done: Arc<AtomicUsize>) {
    let server = TcpStream::connect(("127.0.0.1", to)).await.unwrap();
    client.set_nodelay(true).unwrap();
    server.set_nodelay(true).unwrap();
    let ((mut up, mut to_client), (mut down, mut to_server)) = (client.into_split(), server.into_split());
    let forward = async {
        let (mut buffer, mut sum) = (vec![0; 64 * 1024], 0);
        while let Ok(length @ 1..) = up.read(&mut buffer).await {
            sum += length;
            if sum > bytes && done.load(Ordering::SeqCst) < cuts {
                done.fetch_add(1, Ordering::SeqCst);
                return;
            }
            if to_server.write_all(&buffer[..length]).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = forward => {}
        _ = tokio::io::copy(&mut down, &mut to_client) => {}
    }
}
