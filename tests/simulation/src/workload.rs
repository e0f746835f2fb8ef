//! What is asked of the pool: requests with workflows of many shapes.

use domain::run::{NostrOrigin, OriginEvent, Planned, RequestOrigin, RunRequest, testing};
use nostr::Keys;
use serde_json::json;
use workflow::plan::{Concurrency, Job, QueueMode, Strategy};

use crate::{clock, random::Random};

/// Concurrency groups that runs and jobs share.
const GROUPS: [&str; 3] = ["deploy", "docs", "release"];

/// A request and what its workflow will turn out to be.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) request: RunRequest,
    /// `None`: its workflow is wrong.
    pub(crate) planned: Option<Planned>,
}

/// A new request of now.
pub(crate) fn request(random: &mut Random, author: &Keys) -> Asked {
    let id = |random: &mut Random| (0..4).map(|_| format!("{:016x}", random.number(0..u64::MAX))).collect::<String>();
    let (run_event, job_event) = (id(random), id(random));
    let author = author.public_key().to_hex();
    let base = testing::request();
    let origin = RequestOrigin::from(NostrOrigin {
        protocol: "hive_ci".into(),
        request: OriginEvent { kind: 5100, id: job_event.clone() },
        run: Some(OriginEvent { kind: 5401, id: run_event }),
        author: author.clone(),
        publisher: None,
        relays: Vec::new(),
        details: json!({ "workflow": base.workflow.clone() }),
    });
    let request = RunRequest { id: job_event, origin, actor: author, received_at: clock::now(), ..base };
    let planned = (!random.percent(5)).then(|| plan(random));
    Asked { request, planned }
}

fn plan(random: &mut Random) -> Planned {
    let names = ["build", "test", "lint", "deploy"];
    let count = 1 + random.index(names.len());
    let mut jobs: Vec<(&str, Job)> = Vec::new();
    for (position, name) in names.into_iter().take(count).enumerate() {
        let needs: Vec<&str> = names.iter().take(position).copied().filter(|_| random.percent(40)).collect();
        let mut job = testing::job(&needs);
        if random.percent(25) {
            let legs: Vec<usize> = (0..2 + random.index(3)).collect();
            job.strategy = Strategy { matrix: Some(json!({ "leg": legs })), ..Strategy::default() };
        }
        if random.percent(10) {
            job.condition = Some("always()".into());
        }
        if random.percent(15) {
            job.concurrency = Some(group(random));
        }
        jobs.push((name, job));
    }
    let mut planned = testing::planned(jobs);
    if random.percent(15) {
        planned.plan.concurrency = Some(group(random));
    }
    planned
}

fn group(random: &mut Random) -> Concurrency {
    let name = GROUPS.get(random.index(GROUPS.len())).copied().unwrap_or_default();
    let cancel = random.percent(30);
    let queue = if !cancel && random.percent(50) { QueueMode::Max } else { QueueMode::Single };
    testing::concurrency(name, cancel, queue)
}

/// Names of all groups.
pub(crate) fn groups() -> impl Iterator<Item = &'static str> {
    GROUPS.into_iter()
}
