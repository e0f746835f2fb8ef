//! Where requests arrive: who may run, and what those are told who may not.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use nostr::{Keys, PublicKey};

use super::{archive::Archive, engine::Engine};
use crate::{
    log::act,
    nostr::{
        hive_ci::{self, Refusal, Secrets},
        intake::{Desk, Reach},
        policy::{Judgement, Policy},
        routes::Routes,
    },
    run::{Event, Origin, Request},
    source::Sources,
    store::Batch,
};

/// Job events are heard for at most this many unfinished runs.
const LIVE: usize = 4096;

/// Takes requests in.
pub(super) struct Reception {
    pub(super) engine: Engine,
    pub(super) sources: Arc<Sources>,
    pub(super) policy: Policy,
    pub(super) routes: Routes,
    pub(super) archive: Archive,
    pub(super) keys: Keys,
}

impl Reception {
    /// Why an author may not run this; `None`: they may.
    async fn objection(&self, request: &Request) -> Option<String> {
        match self.policy.judge(&request.actor, None) {
            Judgement::Allowed => None,
            Judgement::Refused(reason) => Some(reason),
            Judgement::AskMaintainers => {
                let maintainers = self.sources.maintainers(&request.repository).await;
                match self.policy.judge(&request.actor, Some(&maintainers)) {
                    Judgement::Allowed => None,
                    Judgement::Refused(reason) => Some(reason),
                    Judgement::AskMaintainers => Some("the maintainers of the repository are not known".into()),
                }
            }
        }
    }
}

impl Desk for Reception {
    fn accept(&self, request: Request, secrets: Secrets, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            if let Some(reason) = self.objection(&request).await {
                return match Refusal::of_request(&request, &secrets, reason) {
                    Some(refusal) => self.refuse(refusal, Reach::Everywhere, settle).await,
                    None => Ok(()),
                };
            }
            let state = self.engine.accept(request, &secrets, settle).await?;
            tracing::info!(run = state.id, serial = state.serial, workflow = state.request.workflow, "accepted");
            Ok(())
        }
        .boxed()
    }

    fn refuse(&self, refusal: Refusal, reach: Reach, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            // Only a 5402 names a log, and only with the publisher key there is one.
            let log = match &refusal.run {
                Some(run) => {
                    let head = act::Head { workflow: &run.workflow, commit: "", reference: "", full_url: "" };
                    Some(self.archive.note(&refusal.job, &act::render_message(&head, &refusal.reason)).await?)
                }
                None => None,
            };
            let us: PublicKey = self.keys.public_key();
            let relays = self.routes.of_refusal(&refusal, reach);
            let drafts = hive_ci::refusal_events(&refusal, log.as_ref(), self.engine.now() / 1000, &us);
            let mut batch = settle;
            batch.extend(drafts.iter().map(|draft| self.engine.outgoing(draft, &relays, None)));
            Ok(self.engine.store().commit(batch).await?)
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, job_event: &'a str, by: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            let Some(state) = self.engine.store().run_by_event(job_event).await? else { return Ok(()) };
            let ours = matches!(&state.request.origin, Origin::HiveCi { job_event: job, author, .. } if job == job_event && author == by);
            if ours {
                self.engine.apply(&state.id, Event::Cancel { by: "its author".into() }, Vec::new()).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn live(&self) -> BoxFuture<'_, anyhow::Result<Vec<String>>> {
        async move {
            let mut runs = self.engine.store().unfinished().await?;
            runs.sort_by_key(|state| std::cmp::Reverse(state.serial));
            let jobs = runs.into_iter().filter_map(|state| match state.request.origin {
                Origin::HiveCi { job_event, .. } => Some(job_event),
                Origin::Api => None,
            });
            Ok(jobs.take(LIVE).collect())
        }
        .boxed()
    }
}
