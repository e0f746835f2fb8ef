//! Webhooks: what becomes of runs and jobs is told over HTTP to the places that the operator names.
//!
//! A delivery is a row of work, written with the change that it tells of, so a kill loses none. Its id is made of what
//! it tells, so that whoever gets it twice knows it again.

mod sender;

use std::sync::Arc;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

pub use sender::{Config, Sender};

use config::{Webhook, WebhookEvent};
use domain::id::{JobKey, RunId};
use domain::run::{Job, JobPhase, Millis, RunPhase, RunState};
use store::{Batch, NewWebhookDelivery, Status, WebhookDeliveryChange};

/// The deliveries of a change of a run, from `before` (`None`: a new run) to `after`, to the places of `webhooks`. `pool`
/// is the base of links.
pub fn deliveries(webhooks: &[Webhook], before: Option<&RunState>, after: &RunState, pool: &str, now: Millis) -> Batch {
    if webhooks.is_empty() {
        return Batch::new();
    }
    let mut batch = Batch::new();
    for (event, job) in happened(before, after) {
        let wants = |webhook: &&Webhook| webhook.events.is_empty() || webhook.events.contains(&event);
        for webhook in webhooks.iter().filter(wants) {
            let key = job.map_or("", |(key, _)| key.as_str());
            let id = id(&webhook.url, &after.id, event, key);
            let body = body(&id, event, after, job, pool, now).to_string();
            let new = NewWebhookDelivery {
                id,
                url: webhook.url.clone(),
                event: event.as_str().to_owned(),
                run: after.id.clone(),
                body,
                made_at: now,
            };
            batch.push(WebhookDeliveryChange::Add(new).into());
        }
    }
    batch
}

type Happened<'a> = (WebhookEvent, Option<(&'a JobKey, &'a Job)>);

fn happened<'a>(before: Option<&RunState>, after: &'a RunState) -> Vec<Happened<'a>> {
    let Some(before) = before else { return vec![(WebhookEvent::RunQueued, None)] };
    let mut found = Vec::new();
    if before.started_at.is_none() && after.started_at.is_some() {
        found.push((WebhookEvent::RunRunning, None));
    }
    let done = |job: &Arc<Job>| matches!(job.phase, JobPhase::Done { .. });
    for (key, job) in &after.jobs {
        // What a rerun carries over ended in an earlier run.
        if done(job) && job.reused.is_none() && !before.jobs.get(key).is_some_and(done) {
            found.push((WebhookEvent::JobCompleted, Some((key, &**job))));
        }
    }
    let over = |state: &RunState| matches!(state.phase, RunPhase::Done { .. });
    if over(after) && !over(before) {
        found.push((WebhookEvent::RunCompleted, None));
    }
    found
}

fn id(url: &str, run: &RunId, event: WebhookEvent, job: &str) -> String {
    let digest = Sha256::digest(format!("{url}\n{run}\n{}\n{job}", event.as_str()));
    hex::encode(digest).chars().take(32).collect()
}

fn body(id: &str, event: WebhookEvent, run: &RunState, job: Option<(&JobKey, &Job)>, pool: &str, now: Millis) -> Value {
    let planned = run.planned.as_ref();
    let end = match &run.phase {
        RunPhase::Finalizing { end } | RunPhase::Done { end, .. } => Some(end),
        _ => None,
    };
    let job = job.map(|(key, job)| {
        json!({
            "key": key,
            "name": job.name,
            "conclusion": job.conclusion().map(workflow::plan::Conclusion::as_str),
            "attempt": job.attempts.last().map(|attempt| attempt.number),
        })
    });
    json!({
        "delivery": id,
        "event": event.as_str(),
        "at": now,
        "run": {
            "id": run.id,
            "serial": run.serial,
            "number": run.number,
            "attempt": run.attempt,
            "previous": run.rerun.as_ref().map(|rerun| &rerun.previous),
            "url": format!("{}/runs/{}", pool.trim_end_matches('/'), run.id),
            "repository": run.request.repository.address,
            "workflow": run.request.workflow,
            "name": planned.map(|planned| &planned.plan.name),
            "commit": planned.map_or(run.request.commit.as_str(), |planned| planned.commit.as_str()),
            "reference": planned.map_or(&run.request.branch, |planned| &planned.reference),
            "event": planned.map(|planned| &planned.event),
            "actor": run.request.actor,
            "request": run.request.id,
            "status": Status::of(run).as_str(),
            "conclusion": end.map(|end| end.conclusion.as_str()),
            "created_at": run.created_at,
            "started_at": run.started_at,
            "ended_at": end.map(|end| end.at),
        },
        "job": job,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use store::Change;
    use workflow::plan::Conclusion;

    use super::*;
    use domain::run::testing::{TestRun, job};

    fn hook(events: &[WebhookEvent]) -> Webhook {
        Webhook {
            url: "https://h.example".into(),
            secret: "s".repeat(16),
            events: events.to_vec(),
            allow_private: false,
        }
    }

    #[test]
    fn each_thing_that_happens_is_told_once_and_the_same_thing_has_the_same_id() {
        let hooks = [hook(&[]), Webhook { url: "https://other.example".into(), ..hook(&[WebhookEvent::RunCompleted]) }];
        let mut run = TestRun::with(vec![("build", job(&[])), ("test", job(&["build"]))]);
        let events = |before: Option<&RunState>, after: &RunState| -> Vec<(String, String)> {
            let told = deliveries(&hooks, before, after, "https://ci.example/", 7);
            let told = told.into_iter().map(|change| match change {
                Change::WebhookDelivery(WebhookDeliveryChange::Add(new)) => (new.event, new.id),
                other => panic!("{other:?}"),
            });
            told.collect()
        };
        let queued = events(None, &run.state);
        assert_eq!(queued, events(None, &run.state));
        assert_eq!(queued[0].0, "run.queued");
        let before = run.state.clone();
        let attempt = run.accept("build", "w1");
        assert!(events(Some(&before), &run.state).is_empty());
        let before = run.state.clone();
        run.apply(domain::run::RunEvent::Begun { job: "build".into(), attempt }).unwrap();
        assert_eq!(events(Some(&before), &run.state)[0].0, "run.running");
        let before = run.state.clone();
        run.finish("build", attempt, domain::run::testing::report(Conclusion::Failure, None));
        let names: Vec<_> = events(Some(&before), &run.state).into_iter().map(|(event, _)| event).collect();
        assert_eq!(names, ["job.completed", "job.completed"], "the one that failed and the one that is left out");
        let before = run.state.clone();
        run.apply(domain::run::RunEvent::LogFinalized { log: domain::run::FinalizedLog::default() }).unwrap();
        let ended = events(Some(&before), &run.state);
        assert_eq!(ended.len(), 2, "one for each place");
        assert_ne!(ended[0].1, ended[1].1);
    }

    #[test]
    fn a_body_says_which_run_and_job_and_how_it_ended() {
        let mut run = TestRun::with(vec![("build", job(&[]))]);
        run.run("build", Conclusion::Success);
        let said = body(
            "id",
            WebhookEvent::JobCompleted,
            &run.state,
            run.state.jobs.iter().next().map(|(key, job)| (key, &**job)),
            "https://ci.example/",
            7,
        );
        assert_eq!((&said["job"]["key"], &said["job"]["conclusion"]), (&json!("build"), &json!("success")));
        assert_eq!(said["run"]["url"], "https://ci.example/runs/run");
        assert_eq!(
            (&said["event"], &said["delivery"], &said["at"]),
            (&json!("job.completed"), &json!("id"), &json!(7))
        );
    }
}
