//! W1 to W4: whole workflows, from the signed event to the signed result, beside the engine alone and beside peers.

use std::time::Duration;

use anyhow::Result;

use super::{
    floor::Floor,
    goals::{WARM_UPS, failures, said, say},
    pairs::Pairs,
    peers::Peer,
    report::Report,
    stage::{Running, Stage, Work},
};

/// Jobs at once, on either side.
const AT_ONCE: usize = 4;

/// One of the four.
#[derive(Debug, Clone, Copy)]
pub(super) struct Workflow {
    name: &'static str,
    work: Work,
    /// At most this, times the floor with our network.
    limit: f64,
    /// The same with a warm pool.
    warm: Option<f64>,
}

/// The four.
pub(super) const W1: Workflow = Workflow { name: "W1 one job", work: Work::Echo, limit: 1.15, warm: Some(0.3) };
pub(super) const W2: Workflow = Workflow { name: "W2 twenty steps", work: Work::TwentySteps, limit: 0.35, warm: None };
pub(super) const W3: Workflow = Workflow { name: "W3 ten jobs", work: Work::TenJobs, limit: 1.10, warm: None };
pub(super) const W4: Workflow = Workflow { name: "W4 matrix of eight", work: Work::Matrix, limit: 1.10, warm: None };

/// What they run on.
pub(super) struct Sides<'a> {
    pub(super) stage: &'a Stage,
    /// Four slots, nothing warm.
    pub(super) cold: &'a Running,
    pub(super) warm: &'a Running,
    /// With our network mode, mounts and limits.
    pub(super) floor: &'a mut Floor,
    /// The same without a network.
    pub(super) bare: &'a mut Floor,
    pub(super) peers: &'a [Peer],
}

/// Measures one, all sides in turns.
pub(super) async fn measure(workflow: Workflow, pairs: usize, sides: &mut Sides<'_>, report: &mut Report) {
    let Workflow { name, work, .. } = workflow;
    let mut ours = Pairs::default();
    let mut warm_pairs = Pairs::default();
    let mut beside_bare = Pairs::default();
    let mut peers: Vec<Pairs> = sides.peers.iter().map(|_| Pairs::default()).collect();
    for round in 0..WARM_UPS + pairs {
        let floor = said(alone(sides.floor, work).await);
        let bare = said(alone(sides.bare, work).await);
        let cold = sides.stage.whole(sides.cold, work).await;
        let warm = match workflow.warm {
            Some(_) => Some(sides.stage.whole(sides.warm, work).await),
            None => None,
        };
        let mut theirs = Vec::new();
        for peer in sides.peers {
            let run = peer.run(sides.stage.checkout(), work.path()).await;
            theirs.push(run.map_err(|error| format!("{error:#}")));
        }
        let mut shown = vec![&floor, &bare, &cold];
        shown.extend(warm.iter().chain(&theirs));
        say(round, pairs, name, &shown);
        if round < WARM_UPS {
            continue;
        }
        for (pairs, time) in peers.iter_mut().zip(theirs) {
            pairs.push(time, bare.clone());
        }
        if let Some(warm) = warm {
            warm_pairs.push(warm, floor.clone());
        }
        beside_bare.push(cold.clone(), bare);
        ours.push(cold, floor);
    }
    report.ratio(&format!("{name}, cold; floor: the engine alone with our network"), workflow.limit, &ours);
    failures(name, &ours, report);
    if let Some(limit) = workflow.warm {
        report.ratio(&format!("{name}, warm; the same floor"), limit, &warm_pairs);
        failures(name, &warm_pairs, report);
    }
    report.beside(&format!("{name}, cold; floor without a network"), &beside_bare);
    for (peer, pairs) in sides.peers.iter().zip(&peers) {
        report.beside(&format!("{name}, {}; floor without a network", peer.name), pairs);
        failures(&peer.name, pairs, report);
    }
}

async fn alone(floor: &mut Floor, work: Work) -> Result<Duration> {
    match work {
        Work::TwentySteps => floor.execs(20).await,
        Work::TenJobs => floor.jobs(10, AT_ONCE).await,
        Work::Matrix => floor.jobs(8, AT_ONCE).await,
        _ => floor.jobs(1, 1).await,
    }
}
