//! Where requests arrive: who may run, and what those are told who may not.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use nostr::{Event, EventId};

use super::{log_publisher::LogPublisher, repository_services, run_service::RunService, secret_updates::SecretUpdates};
use domain::run::{Rerun, RunEvent, RunRequest, RunState};
use logs::act_format;
use nostr_client::{
    delivery::Audience,
    intake::{CancelRequest, RequestHandler},
    policy::{AuthorStanding, Policy},
    protocol::{Refusal, Secrets, nip_c1::ServiceControl},
};
use source::RepositoryMirrors;
use store::{Batch, Reader, ServiceChange, ServiceWish};

/// Deletions are heard for at most this many unfinished runs.
const LIVE: u32 = 400;

/// Takes requests in.
#[derive(Clone)]
pub(super) struct Admission {
    pub(super) run_service: RunService,
    pub(super) sources: Arc<RepositoryMirrors>,
    pub(super) policy: Policy,
    pub(super) log_publisher: LogPublisher,
    pub(super) limits: config::NipC1,
    pub(super) secret_updates: SecretUpdates,
}

impl Admission {
    /// Why nobody may begin a run now: the room that is left belongs to those that run.
    fn low_space(&self) -> Option<String> {
        let problem = self.run_service.store().low_space()?;
        tracing::warn!("a request is refused: {problem}");
        Some("this pool is short of disk space and takes no new runs: ask its operator, or try again later".into())
    }

    /// The earlier run that a request asks for again: one of ours, of the same workflow, that its author may read. What
    /// the request leaves open is taken from it. The inner error is for the author.
    async fn rerun(
        &self,
        request: &mut RunRequest,
        secrets: &Secrets,
    ) -> anyhow::Result<Result<Option<Rerun>, String>> {
        let Some(again) = request.again.clone() else { return Ok(Ok(None)) };
        let found = self.run_service.store().run_by_event(&again.previous).await?;
        // One answer for all that is not there for this author: it gives nothing away.
        let Some(earlier) = found.filter(|earlier| repeats(request, &again.previous, earlier)) else {
            return Ok(Err(format!(
                "the run {} is none of this workflow and repository here: rerun it at the pool that ran it",
                again.previous
            )));
        };
        if let Some(planned) = &earlier.planned {
            if !planned.commit.as_str().starts_with(&request.commit) {
                return Ok(Err(format!(
                    "a rerun is of the commit {}, the run names {}: leave it empty, or press \"run\" instead",
                    planned.commit, request.commit
                )));
            }
            request.commit = planned.commit.to_string();
            if request.branch.is_empty() && request.reference.is_none() {
                request.reference = Some(planned.reference.clone());
            }
        }
        let mut takes_over = false;
        if request.trigger.is_none() && earlier.request.trigger.is_some() {
            request.trigger.clone_from(&earlier.request.trigger);
            takes_over = true;
        }
        if request.inputs.is_none() && earlier.request.inputs.is_some() {
            request.inputs.clone_from(&earlier.request.inputs);
            takes_over = true;
        }
        Ok(earlier.rerun(&again.jobs, &request.actor, &secrets.names(), takes_over).map(Some))
    }
}

/// Whether a run is what a request may ask for again.
fn repeats(request: &RunRequest, event: &str, earlier: &RunState) -> bool {
    let asked = earlier.request.origin.nostr().is_some_and(|origin| origin.run_event().id == event);
    let reader = Reader::Key(request.actor.clone());
    let theirs = [&earlier.request.actor, &earlier.request.repository.owner].contains(&&request.actor);
    asked
        && earlier.request.repository.address == request.repository.address
        && earlier.request.workflow == request.workflow
        && (theirs || reader.may_read(&earlier.visibility))
}

/// Who, for people, cancels a run by an event; `None`: it is not theirs to end.
fn canceller(state: &RunState, request: &str, cancel: CancelRequest) -> Option<&'static str> {
    let origin = state.request.origin.nostr().filter(|origin| origin.request.id == request)?;
    let (CancelRequest::Cancel(key) | CancelRequest::Deletion(key)) = cancel;
    let key = key.to_hex();
    let maintains = || {
        let planned = state.planned.as_ref();
        state.request.repository.owner == key || planned.is_some_and(|planned| planned.maintainers.contains(&key))
    };
    match cancel {
        _ if origin.author == key => Some("its author"),
        CancelRequest::Cancel(_) if maintains() => Some("a maintainer"),
        CancelRequest::Cancel(_) | CancelRequest::Deletion(_) => None,
    }
}

impl RequestHandler for Admission {
    fn accept(
        &self,
        mut request: RunRequest,
        secrets: Secrets,
        settle: Batch,
    ) -> BoxFuture<'_, anyhow::Result<Option<Refusal>>> {
        async move {
            let allowed = self.policy.decide(&request.actor, &[&request.repository.address]).await;
            let permitted = match allowed.err().or_else(|| self.low_space()) {
                Some(reason) => Err(reason),
                None => self.rerun(&mut request, &secrets).await?,
            };
            let rerun = match permitted {
                Ok(rerun) => rerun,
                Err(reason) => return Ok(Refusal::of_request(&request, &secrets, reason)),
            };
            if request.command.is_none() {
                self.sources.look_ahead(&request.id, &request.repository);
            }
            let state = self.run_service.accept(request, rerun, &secrets, settle).await?;
            tracing::info!(
                run = state.id.as_str(),
                serial = state.serial,
                workflow = state.request.workflow,
                "accepted"
            );
            Ok(None)
        }
        .boxed()
    }

    fn refuse(&self, refusal: Refusal, audience: Audience, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            // Only what a publisher key signs names a log.
            let log = match &refusal.publisher {
                Some(_) => {
                    let workflow = &refusal.workflow;
                    let head = act_format::Head { workflow, commit: "", reference: "", full_url: "" };
                    let text = act_format::render_message(&head, &refusal.reason);
                    Some(self.log_publisher.note(&refusal.origin.request.id, &text).await?)
                }
                None => None,
            };
            let now = self.run_service.now();
            let mut batch = settle;
            batch.extend(self.run_service.outbox().refusal(&refusal, audience, log.as_ref(), now)?);
            Ok(self.run_service.store().commit(batch).await?)
        }
        .boxed()
    }

    fn cancel(&self, request: EventId, cancel: CancelRequest) -> BoxFuture<'_, anyhow::Result<bool>> {
        async move {
            let request = request.to_hex();
            let Some(state) = self.run_service.store().run_by_event(&request).await? else { return Ok(false) };
            let Some(by) = canceller(&state, &request, cancel) else { return Ok(true) };
            self.run_service.apply(&state.id, RunEvent::Cancel { by: by.into() }, Vec::new()).await?;
            Ok(true)
        }
        .boxed()
    }

    fn service(&self, event: Event, relay: String, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            let Ok(control) = ServiceControl::read(&event) else { return Ok(()) };
            let (author, address) = (control.author.to_hex(), control.repository.address());
            if let Err(reason) = self.policy.decide(&author, &[&address]).await {
                tracing::debug!(event = %event.id, reason, "a wish for service is not taken");
                return Ok(());
            }
            // Where everybody may run, each owner has so many, and all have: each is looked at and spoken of for as long as it
            // is served.
            if self.policy.standing(&control.author) != AuthorStanding::Known {
                let (of_owner, in_all) = self.run_service.store().wished_repositories(&address).await?;
                if of_owner >= u64::from(self.limits.requests_of_owner) || in_all >= u64::from(self.limits.requests_in_all) {
                    tracing::info!(event = %event.id, author, address, of_owner, in_all, "too many repositories are served");
                    return Ok(());
                }
            }
            // Nothing is kept of those that may not ask. Where that can't be told now, whoever the operator knows is asked
            // after later.
            match self.sources.standing(&repository_services::repository(&control.repository)).await {
                Ok(found) if found.maintainers.contains(&author) => {}
                Ok(_) => {
                    tracing::info!(event = %event.id, author, address, "a wish for service is no maintainer's");
                    return Ok(());
                }
                Err(_) if self.policy.standing(&control.author) == AuthorStanding::Known => {}
                Err(error) => {
                    tracing::debug!(event = %event.id, address, "who may wish for service is not known: {error}");
                    return Ok(());
                }
            }
            let wish = ServiceWish {
                repository: address.clone(),
                author,
                starts: control.starts,
                event: event.id.to_hex(),
                made_at: control.created_at,
                relay,
            };
            let mut batch = settle;
            let look = repository_services::look_at(&address, self.run_service.now())?;
            batch.extend([ServiceChange::Wish(wish).into(), look]);
            Ok(self.run_service.store().commit(batch).await?)
        }
        .boxed()
    }

    fn secrets(&self, event: Event, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            self.secret_updates.take(&event).await?;
            Ok(self.run_service.store().commit(settle).await?)
        }
        .boxed()
    }

    fn live(&self) -> BoxFuture<'_, anyhow::Result<Vec<EventId>>> {
        async move {
            let live = self.run_service.store().live_job_events(LIVE).await?;
            Ok(live.iter().filter_map(|id| EventId::from_hex(id).ok()).collect())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests;
