//! A database that was restored from a copy would go on with runs that were answered after the copy was made: those are
//! ended at the start, before anything is handed out.

use std::{collections::HashMap, time::Duration};

use nostr::{EventId, PublicKey};
use nostr_client::{history::AnswerHistory, relays::Relays};

use super::run_service::RunService;

/// How long the start waits for relays. With a database that was not restored, nothing is lost if none answers.
const WAIT: Duration = Duration::from_millis(1500);
/// Unfinished runs that are asked for.
const RUNS: u32 = 100_000;

/// Ends unfinished runs whose final answers our relays have.
///
/// # Errors
/// The store can't be read or written.
pub(super) async fn end_answered(
    run_service: &RunService,
    relays: &Relays,
    config: &config::Relays,
    us: &PublicKey,
) -> anyhow::Result<()> {
    let (store, protocols) = (run_service.store(), run_service.outbox().protocols());
    let events = store.live_job_events(RUNS).await?;
    let jobs: HashMap<EventId, String> =
        events.into_iter().filter_map(|event| Some((EventId::from_hex(&event).ok()?, event))).collect();
    if jobs.is_empty() {
        return Ok(());
    }
    let asked: Vec<EventId> = jobs.keys().copied().collect();
    let history = AnswerHistory { relays, config, protocols, us: *us, wait: WAIT };
    let answered = match history.answered(&asked).await {
        Ok(answered) => answered,
        Err(error) => {
            tracing::warn!("whether unfinished runs were answered before can't be found out: {error}");
            return Ok(());
        }
    };
    for event in answered.iter().filter_map(|id| jobs.get(id)) {
        let Some(state) = store.run_by_event(event).await? else { continue };
        tracing::warn!(
            run = state.id.as_str(),
            serial = state.serial,
            "answered before, as our relays know: it is ended"
        );
        run_service.end_answered(&state.id).await?;
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use config::Config;
    use domain::run::{NostrOrigin, OriginEvent, RequestOrigin, RunPhase, testing};
    use nostr::Keys;
    use nostr_client::{
        delivery::DeliveryPlan,
        outbox::Outbox,
        protocol::{Protocol, Protocols, Secrets},
    };
    use store::{Store, seal::StoreKey};

    use super::*;
    use crate::RunServiceConfig;

    #[tokio::test]
    async fn a_run_that_was_answered_before_ends_without_a_second_answer() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&folder.path().join("db")).await.unwrap();
        let (keys, config) = (Keys::generate(), Arc::new(Config::default()));
        let delivery = DeliveryPlan::new(Relays::new(&keys, &config.relays), &config.relays, || testing::START);
        let protocols = Protocols::new(&[&nostr_client::protocol::hive_ci::HiveCi]);
        let outbox = Outbox::new(keys.clone(), protocols, delivery);
        let key = StoreKey::from_hex(&"11".repeat(32)).unwrap();
        let service = RunServiceConfig {
            store: store.clone(),
            store_key: key,
            outbox,
            served: Default::default(),
            config,
            clock: || testing::START,
        };
        let service = service.build(&mut crate::metrics::registry());
        let mut ended = Vec::new();
        for (number, answered) in [(1, true), (2, false)] {
            let mut request = testing::request();
            request.id = format!("{number:064}");
            request.origin = RequestOrigin::from(NostrOrigin {
                protocol: nostr_client::protocol::hive_ci::HiveCi.name().into(),
                request: OriginEvent { kind: 5100, id: request.id.clone() },
                run: Some(OriginEvent { kind: 5401, id: "ab".repeat(32) }),
                author: keys.public_key().to_hex(),
                publisher: None,
                relays: Vec::new(),
                details: serde_json::Value::Null,
            });
            let run = service.accept(request, None, &Secrets::default(), Vec::new()).await.unwrap();
            let before = store.outbox_of(&run.id).await.unwrap().len();
            if answered {
                service.end_answered(&run.id).await.unwrap();
            } else {
                let event = domain::run::RunEvent::Cancel { by: "its author".into() };
                service.apply(&run.id, event, Vec::new()).await.unwrap();
            }
            let state = store.run(&run.id).await.unwrap().unwrap();
            assert!(!matches!(state.phase, RunPhase::Planning), "{:?}", state.phase);
            ended.push((store.outbox_of(&run.id).await.unwrap().len() - before, state.answered));
        }
        assert_eq!(ended[0], (0, true));
        assert!(!ended[1].1);
    }
}
