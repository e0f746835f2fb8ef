//! Sends deliveries: each place has a lane of its own, so that one that hangs delays no other.

use std::{sync::Arc, time::Duration};

use reqwest::{StatusCode, header};
use ring::hmac;
use tokio::{sync::broadcast::error::RecvError, task::JoinSet};

use config::Webhook;
use domain::run::Millis;
use network::{self, Reach};
use store::{Change, ChangeNotification, Delivery, DeliveryState, Hook, Store, StoreError};

/// One try.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A delivery is given up after this (ms).
const PATIENCE: Millis = 24 * 3_600_000;
/// Waits between tries (ms): the first, which doubles, and the longest.
const BACK_OFF: [Millis; 2] = [1000, 3_600_000];
/// Deliveries that are done are shown for so long (ms).
const SHOWN: Millis = 30 * 24 * 3_600_000;
/// A lane looks again after this, whatever it heard.
const IDLE: Millis = 3_600_000;

/// Sends what is told.
#[derive(Clone)]
pub struct Sender {
    store: Store,
    hooks: Arc<[Webhook]>,
    clock: fn() -> Millis,
}

impl Sender {
    /// Joins what sending needs; nothing is sent before [`Self::run`].
    pub fn new(store: Store, hooks: &[Webhook], clock: fn() -> Millis) -> Self {
        Self { store, hooks: hooks.into(), clock }
    }

    /// Sends until dropped.
    ///
    /// # Errors
    /// The store has stopped.
    pub async fn run(self) -> anyhow::Result<()> {
        self.drop_removed().await?;
        let mut lanes = JoinSet::new();
        for at in 0..self.hooks.len() {
            let this = self.clone();
            lanes.spawn(async move {
                match this.hooks.get(at) {
                    Some(hook) => this.lane(hook).await,
                    None => Ok(()),
                }
            });
        }
        match lanes.join_next().await {
            Some(ended) => Ok(ended??),
            None => std::future::pending().await,
        }
    }

    /// Gives up what goes to places that the operator no longer names.
    async fn drop_removed(&self) -> Result<(), StoreError> {
        for place in self.store.delivery_places().await? {
            if self.hooks.iter().any(|hook| hook.url == place) {
                continue;
            }
            while let Some(one) = self.store.next_delivery(&place).await? {
                let answer = "its webhook is no longer configured".to_owned();
                let given_up = Delivery { state: DeliveryState::GivenUp, answer, ..one };
                self.store.commit(vec![Change::Hook(Hook::Tried(given_up))]).await?;
            }
        }
        Ok(())
    }

    async fn lane(&self, hook: &Webhook) -> Result<(), StoreError> {
        // Listening first: what is told after the look is heard of.
        let mut notices = self.store.subscribe();
        loop {
            let now = (self.clock)();
            let next = self.store.next_delivery(&hook.url).await?;
            let wait = match next {
                Some(one) if one.due <= now => {
                    self.deliver(hook, one).await?;
                    continue;
                }
                Some(one) => one.due - now,
                None => IDLE,
            };
            let until = tokio::time::sleep(Duration::from_millis(wait.min(IDLE)));
            tokio::pin!(until);
            loop {
                tokio::select! {
                    () = &mut until => break,
                    notice = notices.recv() => match notice {
                        Ok(ChangeNotification::Hooks) | Err(RecvError::Lagged(_)) => break,
                        Ok(_) => {}
                        Err(RecvError::Closed) => {
                            return Err(StoreError::Database("the store has stopped; restart the coordinator".into()));
                        }
                    },
                }
            }
        }
    }

    /// Tries once, and writes down what came of it.
    async fn deliver(&self, hook: &Webhook, mut one: Delivery) -> Result<(), StoreError> {
        let answered = post(hook, &one).await;
        let now = (self.clock)();
        one.tries = one.tries.saturating_add(1);
        match answered {
            Ok(status) => (one.state, one.answer) = (DeliveryState::Delivered, status),
            Err(reason) => {
                tracing::warn!(delivery = one.id, run = one.run, tries = one.tries, "a webhook was not told: {reason}");
                one.answer = reason;
                one.due = now.saturating_add(back_off(one.tries));
                if one.due >= one.made_at.saturating_add(PATIENCE) {
                    one.state = DeliveryState::GivenUp;
                }
            }
        }
        let forget = Hook::Forget(now.saturating_sub(SHOWN));
        self.store.commit(vec![Change::Hook(Hook::Tried(one)), Change::Hook(forget)]).await
    }
}

fn back_off(tries: u32) -> Millis {
    BACK_OFF[0].saturating_mul(1 << tries.saturating_sub(1).min(20)).min(BACK_OFF[1])
}

/// What the place answered; the error says why it does not count.
async fn post(hook: &Webhook, one: &Delivery) -> Result<String, String> {
    let reach = Reach { private: hook.allow_private, file: false };
    // Looked at for each try: a name may lead elsewhere later.
    let checked = network::check_web(&hook.url, reach)
        .await
        .map_err(|error| format!("{error}: set `allow_private = true` for this webhook if it should lead there"))?;
    let host = checked.url.host_str().unwrap_or_default().to_owned();
    let client = reqwest::Client::builder()
        .timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .resolve_to_addrs(&host, &checked.addresses)
        .build()
        .map_err(|error| format!("no HTTP client: {error}"))?;
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, hook.secret.as_bytes()), one.body.as_bytes());
    let sent = client
        .post(checked.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("longshore/", env!("CARGO_PKG_VERSION")))
        .header("longshore-event", &one.event)
        .header("longshore-delivery", &one.id)
        .header("longshore-signature", format!("sha256={}", hex::encode(signature)))
        .body(one.body.clone())
        .send()
        .await;
    match sent {
        Ok(answer) if answer.status().is_success() => Ok(answer.status().to_string()),
        Ok(answer) if answer.status().is_redirection() => {
            Err(format!("{}: redirects are not followed, name the last address", answer.status()))
        }
        Ok(answer) if answer.status() == StatusCode::UNAUTHORIZED => {
            Err(format!("{}: does it check with the same secret?", answer.status()))
        }
        Ok(answer) => Err(answer.status().to_string()),
        // The address may hold a token of its own: it is known to who reads this anyway, and not repeated.
        Err(error) => Err(format!("can't be reached: {}", error.without_url())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_an_hour() {
        let waits: Vec<_> = [1, 2, 3, 12, 13, 40, u32::MAX].into_iter().map(back_off).collect();
        assert_eq!(waits, [1000, 2000, 4000, 2_048_000, 3_600_000, 3_600_000, 3_600_000]);
    }
}
