//! Where requests arrive: who may run, and what those are told who may not.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use nostr::{Keys, PublicKey};

use super::{log_publisher::LogPublisher, run_service::RunService};
use domain::run::{RequestOrigin, Rerun, RunEvent, RunRequest, RunState};
use logs::act_format;
use nostr_client::{
    hive_ci::{self, Refusal, Secrets},
    intake::{Audience, RequestHandler},
    policy::Policy,
    routes::Routes,
};
use source::Sources;
use store::{Batch, Reader};

/// Job events are heard for at most this many unfinished runs.
const LIVE: u32 = 400;

/// Takes requests in.
pub(super) struct Admission {
    pub(super) run_service: RunService,
    pub(super) sources: Arc<Sources>,
    pub(super) policy: Policy,
    pub(super) routes: Routes,
    pub(super) archive: LogPublisher,
    pub(super) keys: Keys,
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
            if !planned.commit.starts_with(&request.commit) {
                return Ok(Err(format!(
                    "a rerun is of the commit {}, the run names {}: leave it empty, or press \"run\" instead",
                    planned.commit, request.commit
                )));
            }
            request.commit.clone_from(&planned.commit);
            if request.branch.is_empty() && request.reference.is_none() {
                request.reference = Some(planned.reference.clone());
            }
        }
        if request.trigger.is_none() {
            request.trigger.clone_from(&earlier.request.trigger);
        }
        if request.inputs.is_none() {
            request.inputs.clone_from(&earlier.request.inputs);
        }
        Ok(earlier.rerun(&again.jobs, &secrets.names()).map(Some))
    }
}

/// Whether a run is what a request may ask for again.
fn repeats(request: &RunRequest, event: &str, earlier: &RunState) -> bool {
    let asked = matches!(&earlier.request.origin, RequestOrigin::HiveCi { run_event, .. } if run_event == event);
    let reader = Reader::Key(request.actor.clone());
    let theirs = [&earlier.request.actor, &earlier.request.repository.owner].contains(&&request.actor);
    asked
        && earlier.request.repository.address == request.repository.address
        && earlier.request.workflow == request.workflow
        && (theirs || reader.may_read(&earlier.visibility))
}

impl RequestHandler for Admission {
    fn accept(&self, mut request: RunRequest, secrets: Secrets, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            let maintainers = || self.sources.maintainers(&request.repository);
            let allowed = self.policy.decide(&request.actor, maintainers).await;
            let permitted = match allowed.err().or_else(|| self.low_space()) {
                Some(reason) => Err(reason),
                None => self.rerun(&mut request, &secrets).await?,
            };
            let rerun = match permitted {
                Ok(rerun) => rerun,
                Err(reason) => {
                    return match Refusal::of_request(&request, &secrets, reason) {
                        Some(refusal) => self.refuse(refusal, Audience::Everywhere, settle).await,
                        None => Ok(()),
                    };
                }
            };
            let state = self.run_service.accept(request, rerun, &secrets, settle).await?;
            tracing::info!(run = state.id, serial = state.serial, workflow = state.request.workflow, "accepted");
            Ok(())
        }
        .boxed()
    }

    fn refuse(&self, refusal: Refusal, audience: Audience, settle: Batch) -> BoxFuture<'_, anyhow::Result<()>> {
        async move {
            // Only a 5402 names a log, and only with the publisher key there is one.
            let log = match &refusal.run {
                Some(run) => {
                    let head = act_format::Head { workflow: &run.workflow, commit: "", reference: "", full_url: "" };
                    Some(self.archive.note(&refusal.job, &act_format::render_message(&head, &refusal.reason)).await?)
                }
                None => None,
            };
            let us: PublicKey = self.keys.public_key();
            let relays = self.routes.of_refusal(&refusal, audience);
            let drafts = hive_ci::refusal_events(&refusal, log.as_ref(), self.run_service.now() / 1000, &us);
            let mut batch = settle;
            for draft in &drafts {
                batch.extend(self.run_service.outgoing(draft, &relays, None)?);
            }
            Ok(self.run_service.store().commit(batch).await?)
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, job_event: &'a str, by: &'a str) -> BoxFuture<'a, anyhow::Result<()>> {
        async move {
            let Some(state) = self.run_service.store().run_by_event(job_event).await? else { return Ok(()) };
            let ours = matches!(&state.request.origin, RequestOrigin::HiveCi { job_event: job, author, .. } if job == job_event && author == by);
            if ours {
                self.run_service.apply(&state.id, RunEvent::Cancel { by: "its author".into() }, Vec::new()).await?;
            }
            Ok(())
        }
        .boxed()
    }

    fn live(&self) -> BoxFuture<'_, anyhow::Result<Vec<String>>> {
        async move { Ok(self.run_service.store().live_job_events(LIVE).await?) }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::run::{self, RunRules, Visibility, testing};

    #[test]
    fn a_run_is_repeated_in_its_own_repository_and_workflow_by_who_may_read_it() {
        let mut earlier = run::create(testing::new_run(RunRules::default(), false), 0).0;
        std::sync::Arc::make_mut(&mut earlier.request).origin = RequestOrigin::HiveCi {
            run_event: "event".into(),
            job_event: "job".into(),
            author: "author".into(),
            publisher: None,
            workflow: String::new(),
            relays: Vec::new(),
        };
        let same = testing::request();
        assert!(repeats(&same, "event", &earlier));
        assert!(!repeats(&same, "job", &earlier), "only the run's own event names it");
        let mut foreign = same.clone();
        foreign.repository.address = "30617:other:repo".into();
        assert!(!repeats(&foreign, "event", &earlier));
        let other = RunRequest { workflow: "other.yml".into(), ..same.clone() };
        assert!(!repeats(&other, "event", &earlier));
        earlier.visibility = Visibility::Readers(vec!["reader".into()]);
        let by = |actor: &str| repeats(&RunRequest { actor: actor.into(), ..same.clone() }, "event", &earlier);
        assert!(by(&earlier.request.actor) && by("reader") && !by("stranger"));
    }
}
