//! Connections and streams of clients who take what they can get.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use futures::future::join_all;
use nostr::Keys;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
};

use super::{IDLE, Server, public};

/// A connection from one of this machine's addresses.
async fn connect(server: &Server, from: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    let to: SocketAddr = server.url.trim_start_matches("http://").parse().unwrap();
    socket.connect(to).await.unwrap()
}

/// Everything that comes until the other end closes the connection, which must be soon.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let read = tokio::time::timeout(IDLE * 10, stream.read_to_end(&mut bytes)).await;
    // A connection that was reset has ended too.
    assert!(read.is_ok(), "the connection stays open");
    String::from_utf8_lossy(&bytes).into_owned()
}

async fn ask(stream: &mut TcpStream) {
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut part = [0; 4096];
    let read = stream.read(&mut part).await.unwrap();
    assert!(part[..read].starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&part[..read]));
}

async fn page(server: &Server, from: &str) -> u16 {
    let client = reqwest::Client::builder().local_address(from.parse::<IpAddr>().unwrap()).build().unwrap();
    client.get(format!("{}/healthz", server.url)).send().await.unwrap().status().as_u16()
}

#[tokio::test]
async fn attack_59_who_says_nothing_or_says_it_slowly_is_hung_up_on() {
    let server = Server::start().await;
    let begun = Instant::now();
    let mut silent = connect(&server, "127.0.0.1").await;
    let mut slow = connect(&server, "127.0.0.1").await;
    let mut idle = connect(&server, "127.0.0.1").await;
    ask(&mut idle).await;
    let trickle = async {
        slow.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
        for _ in 0..100 {
            tokio::time::sleep(IDLE / 10).await;
            if slow.write_all(b"x: y\r\n").await.is_err() {
                break;
            }
        }
        begun.elapsed()
    };
    let (took, _, _) = tokio::join!(trickle, rest(&mut silent), rest(&mut idle));
    assert!(took < IDLE * 5, "{took:?}");
    assert!(begun.elapsed() >= IDLE && begun.elapsed() < IDLE * 5, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn attack_59_one_address_has_so_many_connections_and_many_addresses_keep_nobody_out() {
    let server = Server::start().await;
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(connect(&server, "127.0.0.2").await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    let mut fifth = connect(&server, "127.0.0.2").await;
    let refused = rest(&mut fifth).await;
    assert!(refused.starts_with("HTTP/1.1 429") && refused.contains("retry-after: 10"), "{refused}");
    // Two more addresses take what is left; whoever comes then gets a place of who has most.
    for from in ["127.0.0.3", "127.0.0.4"] {
        held.push(connect(&server, from).await);
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    for from in ["127.0.0.5", "127.0.0.6", "127.0.0.1"] {
        assert_eq!(page(&server, from).await, 200, "{from}");
    }
    let closed = join_all(
        held[..4]
            .iter_mut()
            .map(|stream| async { tokio::time::timeout(IDLE / 4, stream.read(&mut [0])).await.is_ok() }),
    );
    assert!(closed.await.into_iter().filter(|closed| *closed).count() >= 2);
}

#[tokio::test]
async fn attack_59_one_client_follows_so_many_streams_and_the_proxy_says_who_it_is() {
    let server = Server::start_behind(&["127.0.0.1/32"]).await;
    server.commit(vec![public("a", 1, &Keys::generate())]).await;
    let follow = async |headers: &[(&'static str, &str)], path: &str| {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_str(value).unwrap()))
            .collect();
        server.http.get(format!("{}{path}", server.url)).headers(headers).send().await.unwrap()
    };
    let of = |client: &'static str| [("x-forwarded-for", client)];
    let mut held = Vec::new();
    for path in ["/api/changes", "/api/runs/a/logs"] {
        held.push(follow(&of("198.51.100.1"), path).await);
    }
    assert!(held.iter().all(|answer| answer.status() == 200));
    // What the client wrote itself changes nothing.
    let forged = [("x-forwarded-for", "203.0.113.9, 198.51.100.1")];
    for headers in [&of("198.51.100.1")[..], &forged] {
        let refused = follow(headers, "/api/changes").await;
        assert_eq!((refused.status().as_u16(), refused.headers()["retry-after"].to_str().unwrap()), (429, "10"));
    }
    // Addresses of one /64 are one client.
    held.push(follow(&of("2001:db8:1:1::1"), "/api/changes").await);
    assert_eq!(held[2].status(), 200);
    // All three are taken: a client with fewer than another gets one of the other's.
    held.push(follow(&of("2001:db8:1:1::2"), "/api/changes").await);
    assert_eq!(held[3].status(), 503, "it has as many as any other would have left");
    let newcomer = follow(&of("198.51.100.7"), "/api/changes").await;
    assert_eq!(newcomer.status(), 200);
    let ended = tokio::time::timeout(Duration::from_secs(5), held.remove(0).bytes());
    assert!(ended.await.is_ok(), "the oldest stream of who had most has ended");
}

#[tokio::test]
async fn attack_59_a_peer_that_is_no_proxy_cannot_say_who_it_is() {
    let server = Server::start_behind(&["127.0.0.9/32"]).await;
    let mut statuses = Vec::new();
    let mut held = Vec::new();
    for client in ["198.51.100.1", "198.51.100.2", "198.51.100.3"] {
        let request = server.http.get(format!("{}/api/changes", server.url)).header("x-forwarded-for", client);
        let answer = request.header("forwarded", format!("for={client}")).send().await.unwrap();
        statuses.push(answer.status().as_u16());
        held.push(answer);
    }
    assert_eq!(statuses, [200, 200, 429]);
}
