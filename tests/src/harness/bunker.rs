//! A remote signer (NIP-46) at a real relay, which allows everything to whoever knows its secret.

use std::{collections::HashSet, sync::Arc, time::Duration};

use anyhow::{Context, Result, ensure};
use nostr::{Event, EventBuilder, Filter, JsonUtil, Keys, Kind, PublicKey, Tag, nips::nip44};
use nostr_sdk::{Client, RelayPoolNotification};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use super::browser::sign;

/// A signer at work. Its own key is not that of its user.
#[derive(Debug)]
pub struct Bunker {
    /// What the user pastes.
    pub address: String,
    /// Kinds of the events that it signed, in that order.
    pub signed: Arc<Mutex<Vec<u16>>>,
    _work: AbortOnDropHandle<()>,
}

struct Signer {
    own: Keys,
    user: Keys,
    secret: String,
    signed: Arc<Mutex<Vec<u16>>>,
}

impl Bunker {
    /// Signs for a user at a relay.
    pub async fn start(relay: &str, user: Keys) -> Result<Self> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let own = Keys::generate();
        let secret = Keys::generate().public_key().to_hex();
        let client = Client::default();
        client.add_relay(relay).await?;
        client.connect().await;
        client.wait_for_connection(Duration::from_secs(30)).await;
        let mut notifications = client.notifications();
        client.subscribe(Filter::new().kind(Kind::NostrConnect).pubkey(own.public_key()), None).await?;
        let named: String = url::form_urlencoded::byte_serialize(relay.as_bytes()).collect();
        let address = format!("bunker://{}?relay={named}&secret={secret}", own.public_key().to_hex());
        let signed = Arc::<Mutex<Vec<u16>>>::default();
        let mut signer = Signer { own, user, secret, signed: signed.clone() };
        let work = tokio::spawn(async move {
            let mut known = HashSet::new();
            while let Ok(notification) = notifications.recv().await {
                let RelayPoolNotification::Event { event, .. } = notification else { continue };
                // Anything that is no message to us is left alone, as any signer would.
                if let Ok(answer) = signer.answer(&event, &mut known) {
                    let _ = client.send_event(&answer).await;
                }
            }
        });
        Ok(Self { address, signed, _work: AbortOnDropHandle::new(work) })
    }
}

impl Signer {
    fn answer(&mut self, event: &Event, known: &mut HashSet<PublicKey>) -> Result<Event> {
        let asked = nip44::decrypt(self.own.secret_key(), &event.pubkey, &event.content)?;
        let asked: Value = serde_json::from_str(&asked)?;
        let text = |at: usize| asked["params"][at].as_str().unwrap_or_default().to_owned();
        let method = asked["method"].as_str().unwrap_or_default();
        let result = match method {
            "connect" => {
                ensure!(text(0) == self.own.public_key().to_hex());
                match text(1) == self.secret {
                    true => {
                        known.insert(event.pubkey);
                        Ok("ack".to_owned())
                    }
                    false => Err("the secret is another"),
                }
            }
            _ if !known.contains(&event.pubkey) => Err("connect first"),
            "get_public_key" => Ok(self.user.public_key().to_hex()),
            "nip44_encrypt" => Ok(nip44::encrypt(
                self.user.secret_key(),
                &PublicKey::from_hex(&text(0))?,
                text(1),
                nip44::Version::V2,
            )?),
            "sign_event" => {
                let signed = sign(&self.user, &serde_json::from_str(&text(0)).context("no event")?)?;
                self.signed.lock().push(signed.kind.as_u16());
                Ok(signed.as_json())
            }
            _ => Err("this signer can't do that"),
        };
        let answer = match result {
            Ok(result) => json!({"id": asked["id"], "result": result}),
            Err(error) => json!({"id": asked["id"], "result": "", "error": error}),
        };
        let sealed = nip44::encrypt(self.own.secret_key(), &event.pubkey, answer.to_string(), nip44::Version::V2)?;
        let to = Tag::public_key(event.pubkey);
        Ok(EventBuilder::new(Kind::NostrConnect, sealed).tag(to).sign_with_keys(&self.own)?)
    }
}
