//! Rows of what a protocol answers: each event signed, and its delivery to the relays that it goes to.

use anyhow::Context;
use nostr::{Event, JsonUtil, Keys};
use serde::{Deserialize, Serialize};

use domain::id::RunId;
use domain::run::{FinalizedLog, Millis, NostrOrigin, RunState, RunUpdate};
use store::{Batch, Change, NewWork, Outgoing, RelayClass, Signer, WorkKind};

use super::{
    delivery::{Audience, DeliveryPlan},
    protocol::{Draft, Protocol, Protocols, Refusal},
};

/// What is sent to one relay.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EventDelivery {
    pub(crate) event: Event,
    pub(crate) class: RelayClass,
}

/// Turns answers into rows. It reads nothing and writes nothing itself.
#[derive(Debug, Clone)]
pub struct Outbox {
    keys: Keys,
    protocols: Protocols,
    delivery: DeliveryPlan,
}

impl Outbox {
    /// `keys` are the coordinator's, which sign what no publisher key signs.
    pub fn new(keys: Keys, protocols: Protocols, delivery: DeliveryPlan) -> Self {
        Self { keys, protocols, delivery }
    }

    /// The protocols whose answers are made here.
    pub fn protocols(&self) -> Protocols {
        self.protocols
    }

    /// These relays as far as events are sent to them; none of them has to take one.
    pub fn others<'a>(&self, urls: impl Iterator<Item = &'a String>) -> Vec<(String, RelayClass)> {
        self.delivery.others(urls)
    }

    /// The answers to an update of a run; none where it was not asked for by an event. `publisher` is the run's publisher
    /// key where that signs now.
    ///
    /// # Errors
    /// An event can't be signed.
    pub fn update(
        &self,
        state: &RunState,
        update: &RunUpdate,
        publisher: Option<&Keys>,
        now: Millis,
    ) -> anyhow::Result<Batch> {
        // Relays may hold the answer that an earlier database of this pool gave.
        let Some(origin) = state.request.origin.nostr().filter(|_| !state.answered) else { return Ok(Batch::new()) };
        let Some(protocol) = self.protocol(origin) else { return Ok(Batch::new()) };
        let relays = self.delivery.of_run(state);
        let mut batch = Batch::new();
        for mut draft in protocol.report(&state.id, origin, update, &self.keys.public_key()) {
            // Signed now: the key is erased with this very transaction.
            if let (Signer::Publisher { .. }, Some(keys)) = (&draft.signer, publisher) {
                draft.sign(keys).context("the publisher key does not sign the run's result")?;
            }
            batch.extend(self.event(&draft, &relays, Some(&state.id), now)?);
        }
        Ok(batch)
    }

    /// What the coordinator says of a repository, to it and to our own relays.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn announce(&self, draft: &Draft, relays: &[String], now: Millis) -> anyhow::Result<Batch> {
        self.event(draft, &self.delivery.of_repository(relays), None, now)
    }

    /// What the coordinator says of a run by itself, in this order.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn reports(&self, state: &RunState, drafts: &[Draft], now: Millis) -> anyhow::Result<Batch> {
        let relays = self.delivery.of_run(state);
        let rows = drafts.iter().map(|draft| self.event(draft, &relays, Some(&state.id), now));
        Ok(rows.collect::<anyhow::Result<Vec<Batch>>>()?.concat())
    }

    /// The answers to a refused request; `log` is where the reason can be read, if anywhere.
    ///
    /// # Errors
    /// As [`Self::update`].
    pub fn refusal(
        &self,
        refusal: &Refusal,
        audience: Audience,
        log: Option<&FinalizedLog>,
        now: Millis,
    ) -> anyhow::Result<Batch> {
        let origin = &refusal.origin;
        let Some(protocol) = self.protocol(origin) else { return Ok(Batch::new()) };
        let relays = self.delivery.of_refusal(refusal, audience);
        let mut batch = Batch::new();
        for draft in protocol.refuse(refusal, log, now / 1000, &self.keys.public_key()) {
            batch.extend(self.event(&draft, &relays, None, now)?);
        }
        Ok(batch)
    }

    /// The rows of one event; `run` is our id of the run it reports on.
    ///
    /// # Errors
    /// It can't be signed.
    pub fn event(
        &self,
        draft: &Draft,
        relays: &[(String, RelayClass)],
        run: Option<&RunId>,
        now: Millis,
    ) -> anyhow::Result<Batch> {
        outgoing(draft, &self.keys, relays, run, now)
    }

    /// `None` for what a version with other protocols has stored: it goes on unanswered.
    fn protocol(&self, origin: &NostrOrigin) -> Option<&'static dyn Protocol> {
        let protocol = self.protocols.of(origin);
        if protocol.is_none() {
            let (name, request) = (&origin.protocol, &origin.request.id);
            tracing::error!(request, "a request of the protocol `{name}` is not answered: this version has none of it");
        }
        protocol
    }
}

/// The rows of a draft: the event, signed, and its delivery to each relay. `keys` are the coordinator's, `run` is our id
/// of the run it reports on. Nothing where the publisher key that was to sign it is gone.
///
/// # Errors
/// The key is not the event's, or its signature is false.
pub fn outgoing(
    draft: &Draft,
    keys: &Keys,
    relays: &[(String, RelayClass)],
    run: Option<&RunId>,
    now: Millis,
) -> anyhow::Result<Batch> {
    let mut unsigned = draft.event.clone();
    let id = unsigned.id().to_hex();
    let event = match (draft.signature, &draft.signer) {
        (Some(signature), _) => unsigned.clone().add_signature(signature).context("a draft's signature is false")?,
        (None, Signer::Coordinator) => unsigned.clone().sign_with_keys(keys)?,
        (None, Signer::Publisher { run }) => {
            tracing::error!(run = run.as_str(), event = id, "the event is given up: its publisher key is erased");
            return Ok(Batch::new());
        }
    };
    let row = Outgoing {
        event: id,
        sequence: 0,
        unsigned: unsigned.as_json(),
        signature: Some(event.sig.to_string()),
        signer: draft.signer.clone(),
        relays: relays.to_vec(),
        run: run.cloned(),
        made_at: now,
    };
    let mut batch = vec![Change::Outbox(row.clone())];
    batch.extend(deliveries(&row, &event, relays, now)?);
    Ok(batch)
}

/// The kind of work that deliveries to relays of a class are.
pub(crate) fn work_kind(class: RelayClass) -> WorkKind {
    match class {
        RelayClass::Own => WorkKind::Publish,
        RelayClass::Other => WorkKind::PublishToOthers,
    }
}

/// The work of delivering an event to relays.
pub(crate) fn deliveries(
    row: &Outgoing,
    event: &Event,
    relays: &[(String, RelayClass)],
    now: Millis,
) -> anyhow::Result<Batch> {
    // From here on the rows of work say what is left to do.
    let mut batch = vec![Change::OutboxDone { event: row.event.clone() }];
    for (relay, class) in relays {
        let id = format!("publish {} {relay}", row.event);
        let kind = work_kind(*class);
        let work = NewWork { made_at: row.made_at, ..NewWork::new(id, kind, row.run.as_ref(), now) };
        let work = work.in_lane(relay).with_payload(&EventDelivery { event: event.clone(), class: *class })?;
        batch.push(work.into());
    }
    Ok(batch)
}
