//! Sends deliveries: the handler of their rows of work. Each place is a lane, so that one that hangs delays no other.

use std::time::Duration;

use futures::{FutureExt as _, future::BoxFuture};
use reqwest::{StatusCode, header};
use ring::hmac;
use serde::Deserialize;

use config::Webhook;
use domain::id::RunId;
use domain::run::Millis;
use network::{self, Reach};
use store::{Batch, ClaimedWork, DeliveryState, LaneOrder, WebhookDeliveryChange, WorkKind};
use work::{BackOff, Outcome, WorkHandler};

/// One try.
const TIMEOUT: Duration = Duration::from_secs(15);
/// A delivery is given up after this (ms).
const PATIENCE: Millis = 24 * 3_600_000;
/// Waits between tries; with jitter the longest is an hour.
const BACK_OFF: BackOff = BackOff { first: Duration::from_secs(1), longest: Duration::from_secs(1800) };

/// What sending is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// Places that the operator names.
    pub webhooks: Vec<Webhook>,
    /// Unix milliseconds.
    pub clock: fn() -> Millis,
}

/// Sends deliveries of webhooks: the handler of [`WorkKind::Webhook`].
#[derive(Debug)]
pub struct Sender(Config);

/// What a header says of a delivery; its body says it too.
#[derive(Deserialize)]
struct Headline {
    event: String,
}

impl Config {
    /// The handler.
    pub fn build(self) -> Sender {
        Sender(self)
    }
}

impl Sender {
    /// Tries once. Returns what is to be stored of it.
    async fn deliver(&self, row: &ClaimedWork) -> Batch {
        let Some(webhook) = self.0.webhooks.iter().find(|webhook| webhook.url == row.lane) else {
            return ended(row, DeliveryState::GivenUp, "its webhook is no longer configured");
        };
        let Ok(Headline { event }) = row.read_payload() else {
            return ended(row, DeliveryState::GivenUp, "what was stored of it can't be read");
        };
        let reason = match post(webhook, &event, row).await {
            Ok(answer) => return ended(row, DeliveryState::Delivered, &answer),
            Err(reason) => reason,
        };
        let wait = Millis::try_from(BACK_OFF.delay(row.tries).as_millis()).unwrap_or(Millis::MAX);
        let due = (self.0.clock)().saturating_add(wait);
        if due >= row.made_at.saturating_add(PATIENCE) {
            tracing::warn!(
                delivery = row.id,
                run = row.run.as_ref().map(RunId::as_str),
                "a webhook is given up: {reason}"
            );
            return ended(row, DeliveryState::GivenUp, &reason);
        }
        tracing::warn!(
            delivery = row.id,
            run = row.run.as_ref().map(RunId::as_str),
            tries = row.tries,
            "a webhook was not taken: {reason}"
        );
        vec![row.retry(due, reason)]
    }
}

impl WorkHandler for Sender {
    fn kind(&self) -> WorkKind {
        WorkKind::Webhook
    }

    /// A lane for each place, and one for places that are no longer configured.
    fn parallelism(&self) -> u32 {
        u32::try_from(self.0.webhooks.len()).unwrap_or(u32::MAX).saturating_add(1)
    }

    fn lanes(&self) -> LaneOrder {
        LaneOrder::OneAtATime
    }

    fn back_off(&self) -> BackOff {
        BACK_OFF
    }

    fn handle(&self, rows: Vec<ClaimedWork>) -> BoxFuture<'_, anyhow::Result<Outcome>> {
        async move {
            let mut batch = Batch::new();
            for row in &rows {
                batch.extend(self.deliver(row).await);
            }
            Ok(Outcome::Store(batch))
        }
        .boxed()
    }
}

fn ended(row: &ClaimedWork, state: DeliveryState, answer: &str) -> Batch {
    let (id, answer) = (row.id.clone(), answer.to_owned());
    vec![WebhookDeliveryChange::End { id, state, tries: row.tries, answer }.into(), row.complete()]
}

/// What the place answered; the error says why it does not count.
async fn post(webhook: &Webhook, event: &str, row: &ClaimedWork) -> Result<String, String> {
    let reach = Reach { private: webhook.allow_private, file: false };
    // DefinitionScan at for each try: a name may lead elsewhere later.
    let checked = network::check_web(&webhook.url, reach)
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
    let key = hmac::Key::new(hmac::HMAC_SHA256, webhook.secret.as_bytes());
    let signature = hmac::sign(&key, row.payload.as_bytes());
    let sent = client
        .post(checked.url)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::USER_AGENT, concat!("longshore/", env!("CARGO_PKG_VERSION")))
        .header("longshore-event", event)
        .header("longshore-delivery", &row.id)
        .header("longshore-signature", format!("sha256={}", hex::encode(signature)))
        .body(row.payload.clone())
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
mod tests;
