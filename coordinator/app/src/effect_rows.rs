//! Rows of transitions: a new version of a run, and what is to be done after it.

use std::sync::Arc;

use nostr::Keys;

use config::Config;
use domain::{
    run::{AttemptId, Millis, RunEffect, RunState},
    schedule::QueuedJob,
};
use nostr_client::{outbox::Outbox, protocol::nip_c1};
use store::{Batch, Change, Lease, LeaseChange, NewWork, RunChange, StoredReport, WorkChange, WorkKind};

/// Turns transitions into rows. It reads nothing and writes nothing itself.
#[derive(Clone)]
pub(super) struct RowMaker {
    pub(super) outbox: Outbox,
    pub(super) config: Arc<Config>,
}

/// A transition of one run.
pub(super) struct RunTransition {
    /// The version before; `None` for a new run.
    pub(super) before: Option<Arc<RunState>>,
    pub(super) after: Arc<RunState>,
    pub(super) effects: Vec<RunEffect>,
    /// The key that signs the run's result, where the run came with one and has ended.
    pub(super) publisher: Option<Keys>,
}

impl RowMaker {
    /// Returns the rows of a transition, webhooks and events for relays among them. Rows of concurrency groups are not:
    /// they depend on other runs.
    ///
    /// # Errors
    /// An event can't be signed.
    pub(super) fn rows(&self, transition: RunTransition, now: Millis) -> anyhow::Result<Batch> {
        let RunTransition { before, after, effects, publisher } = transition;
        let config = &self.config;
        let told = webhooks::deliveries(&config.webhooks, before.as_deref(), &after, &config.public_url, now);
        let reports = nip_c1::reports_change(before.as_deref(), &after);
        let mut batch = vec![Change::Run(RunChange { before, after: after.clone() })];
        if reports {
            let id = format!("{} report", after.id);
            batch.push(NewWork::new(id, WorkKind::ReportRun, Some(&after.id), now).into());
        }
        for effect in effects {
            self.effect(&after, effect, publisher.as_ref(), now, &mut batch)?;
        }
        batch.extend(told);
        Ok(batch)
    }

    fn effect(
        &self,
        state: &RunState,
        effect: RunEffect,
        publisher: Option<&Keys>,
        now: Millis,
        batch: &mut Batch,
    ) -> anyhow::Result<()> {
        let run = &state.id;
        let work = |name: &str, kind| NewWork::new(format!("{run} {name}"), kind, Some(run), now);
        match effect {
            RunEffect::Plan => batch.push(work("plan", WorkKind::Plan).into()),
            RunEffect::Queue { job, labels, avoid, reason, .. } => batch.push(Change::Queue(QueuedJob {
                run: run.clone(),
                job,
                labels,
                avoid,
                owner: state.turn_of().to_owned(),
                since: now,
                reason,
            })),
            RunEffect::Unqueue { job, .. } => batch.push(Change::Unqueue { run: run.clone(), job }),
            RunEffect::Lease { job, attempt, worker } => {
                let expires_at = now.saturating_add(self.config.lease_timeouts.lease_ms);
                batch.push(
                    LeaseChange::Begin(Lease {
                        attempt: AttemptId { run: run.clone(), job, number: attempt },
                        worker,
                        repository: state.request.repository.address.clone(),
                        expires_at,
                        cancel_reason: None,
                        confirm_by: None,
                    })
                    .into(),
                );
            }
            RunEffect::EndLease { job, attempt } => {
                batch.push(LeaseChange::End(AttemptId { run: run.clone(), job, number: attempt }).into());
            }
            RunEffect::Stop { job, attempt, reason, .. } => {
                let confirm_by = now.saturating_add(self.config.lease_timeouts.confirm_ms);
                let attempt = AttemptId { run: run.clone(), job, number: attempt };
                batch.push(LeaseChange::Cancel { attempt, reason, confirm_by }.into());
            }
            RunEffect::StoreReport { job, attempt, report } => {
                batch.push(Change::Report(StoredReport { run: run.clone(), job, attempt, report }));
            }
            // The unit of work advances the groups.
            RunEffect::Join { .. } | RunEffect::Leave { .. } => {}
            RunEffect::Wake { job, at } => {
                let wake = work(&format!("wake {job}"), WorkKind::Wake).due_at(at);
                batch.push(wake.with_payload(&serde_json::json!({ "job": job }))?.into());
            }
            RunEffect::Timer { at } => batch.push(work("expire", WorkKind::Expire).due_at(at).into()),
            RunEffect::Publish(update) => batch.extend(self.outbox.update(state, &update, publisher, now)?),
            RunEffect::FinalizeLog => batch.push(work("finalize log", WorkKind::FinalizeLog).into()),
            RunEffect::EraseSecrets => {
                batch.push(Change::EraseSecrets { run: run.clone() });
                batch.push(Change::Work(WorkChange::Remove { id: format!("{run} expire") }));
            }
        }
        Ok(())
    }
}
