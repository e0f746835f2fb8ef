//! The services that actions call, for a job as it stands in the store.

use actions_api::{ActionsApi, JobIdentity, LeaseCheck};
use dispatch::ActionsAccess;
use domain::run::{self, AttemptId};
use futures::{FutureExt, future::BoxFuture};
use std::sync::Arc;
use store::Store;
use tokio::io::DuplexStream;
use workflow::plan::JobOrder;

/// Jobs' connections are served for the run as it stands in the store.
pub(crate) struct Services {
    pub(crate) origin: ActionsApi,
    pub(crate) store: Store,
}

impl dispatch::ActionsApi for Services {
    fn access<'a>(&'a self, attempt: &'a AttemptId, order: &'a JobOrder) -> Option<ActionsAccess> {
        let who = JobIdentity {
            run: attempt.run.clone(),
            job: attempt.job.clone(),
            attempt: attempt.number,
            repository: order.source.repository.clone(),
            ..JobIdentity::default()
        };
        let id_token = order.source.trusted && actions_api::grants(order.job.permissions.as_ref());
        Some(ActionsAccess { token: self.origin.token(&who).into(), id_token })
    }

    fn serve(&self, attempt: AttemptId, held: LeaseCheck, connection: DuplexStream) -> BoxFuture<'static, ()> {
        let (origin, store) = (self.origin.clone(), self.store.clone());
        async move {
            match store.run(&attempt.run).await {
                Ok(Some(state)) => {
                    let who = who(&state, &attempt);
                    origin.serve(Arc::new(who), held, connection).await;
                }
                Ok(None) => {}
                Err(error) => tracing::error!("a job's connection cannot be served: {error}"),
            }
        }
        .boxed()
    }
}

/// What a run's job may have of caches and artifacts.
fn who(state: &run::RunState, attempt: &AttemptId) -> JobIdentity {
    let planned = state.planned.as_ref();
    let mut who = JobIdentity {
        run: attempt.run.clone(),
        job: attempt.job.clone(),
        attempt: attempt.number,
        repository: state.request.repository.address.clone(),
        author: state.request.actor.clone(),
        ..JobIdentity::default()
    };
    if let Some(planned) = planned {
        who.reference.clone_from(&planned.reference);
        let actor = &state.request.actor;
        let maintains = planned.maintainers.contains(actor) || state.request.repository.owner == *actor;
        // Whoever wants something merged makes the base's own files run, and need be nobody whom the repository knows.
        let by_anybody = state.request.pull_request.as_ref().is_some_and(|of| of.runs_base);
        who.actor_trust = match (maintains, by_anybody) {
            (true, _) => "maintainer",
            (false, true) => "anybody",
            (false, false) => "named",
        };
        who.environment = state.jobs.get(&attempt.job).and_then(|job| job.environment.clone());
        who.trusted = planned.is_trusted();
        who.bases = JobIdentity::bases_of(&planned.context);
        who.github.clone_from(&planned.context);
        let order = run::order(state, &attempt.job);
        let permissions = order.as_ref().and_then(|order| order.job.permissions.as_ref());
        who.id_token = planned.is_trusted() && actions_api::grants(permissions);
    }
    who
}
