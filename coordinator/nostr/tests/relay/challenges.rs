//! A relay that asks who we are, as often and as long-windedly as it likes.

use futures::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, accept_async, tungstenite::Message};

use super::*;

fn challenge(text: &str) -> Message {
    Message::text(serde_json::json!(["AUTH", text]).to_string())
}

/// The first connection to a relay of ours that is a websocket: the relay is also asked for its limits.
async fn accepted(listener: &TcpListener) -> WebSocketStream<TcpStream> {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        if let Ok(socket) = accept_async(stream).await {
            return socket;
        }
    }
}

#[tokio::test]
async fn attack_58_a_relay_that_challenges_again_and_again_gets_few_answers_and_is_left() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let relays = Relays::new(&Keys::generate(), &config::Relays { allow_private: true, ..config::Relays::default() });
    let _lease = relays.lease(&url).unwrap();
    let (mut to, mut from) = soon("a connection", accepted(&listener)).await.split();
    to.send(challenge(&"x".repeat(900_000))).await.unwrap();
    to.send(challenge("short")).await.unwrap();
    let answer = soon("an answer", from.next()).await.unwrap().unwrap();
    let answer: serde_json::Value = serde_json::from_str(answer.to_text().unwrap()).unwrap();
    let tags = answer[1]["tags"].to_string();
    assert!(answer[0] == "AUTH" && tags.contains("short"), "the long challenge has no answer: {tags}");
    tokio::spawn(async move {
        for number in 0..1000 {
            if to.send(challenge(&number.to_string())).await.is_err() {
                return;
            }
        }
    });
    let rest = from.take_while(|message| std::future::ready(message.as_ref().is_ok_and(Message::is_text)));
    let rest = soon("the end of the connection", rest.count()).await;
    assert!(rest < 20, "{rest} answers");
    let state = relays.states().into_iter().find(|state| state.url == url).unwrap();
    assert!(!state.connected && state.error.as_deref().is_some_and(|error| error.contains("who we are")), "{state:?}");
}

#[tokio::test]
async fn attack_58_what_a_relay_says_of_an_event_is_kept_cut() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}", listener.local_addr().unwrap());
    let relays = Relays::new(&Keys::generate(), &config::Relays { allow_private: true, ..config::Relays::default() });
    let event = EventBuilder::text_note("any").sign_with_keys(&Keys::generate()).unwrap();
    let id = event.id;
    let relay = async {
        let (mut to, mut from) = accepted(&listener).await.split();
        from.next().await.unwrap().unwrap();
        let answer = serde_json::json!(["OK", id, false, format!("blocked: {}", "x".repeat(700_000))]);
        to.send(Message::text(answer.to_string())).await.unwrap();
        (to, from)
    };
    let (answer, _open) = soon("an answer", async { tokio::join!(relays.send(&url, &event), relay) }).await;
    let Answer::Refused(reason) = answer else { panic!("{answer:?}") };
    assert!(reason.starts_with("blocked: xxx") && reason.len() < 400, "{}", reason.len());
}
