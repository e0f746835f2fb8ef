//! Two builds of the product beside each other, in turns: nothing may have become slower since an earlier commit.

use std::{path::Path, time::Duration};

use anyhow::Result;

use super::{
    engine::Engine,
    goals::{Choice, Goal, WARM_UPS, failures, say},
    pairs::Pairs,
    progress,
    report::Report,
    stage::{Running, Stage, Work},
};

/// At most this, times the earlier build.
const LIMIT: f64 = 1.05;
/// What is compared, by the goal that has the same measure.
const COMPARED: [(Goal, &str, Measure); 8] = [
    (Goal::G1, "G1 event seen → first byte, cold", Measure::First { warm: false }),
    (Goal::G3, "G3 event seen → first byte, warm", Measure::First { warm: true }),
    (Goal::G4, "G4 a step", Measure::Step),
    (Goal::G6, "G6 100 MB of log", Measure::Log),
    (Goal::W1, "W1 one job, whole", Measure::Whole(Work::Echo)),
    (Goal::W2, "W2 twenty steps, whole", Measure::Whole(Work::TwentySteps)),
    (Goal::W3, "W3 ten jobs, whole", Measure::Whole(Work::TenJobs)),
    (Goal::W4, "W4 matrix of eight, whole", Measure::Whole(Work::Matrix)),
];

#[derive(Debug, Clone, Copy)]
enum Measure {
    First { warm: bool },
    Step,
    Log,
    Whole(Work),
}

/// The pools of one build.
struct Build {
    cold: Running,
    warm: Running,
    /// Four slots.
    wide: Running,
}

impl Build {
    fn start(stage: &Stage, program: &Path, name: &str) -> Result<Self> {
        let pool = |kind: &str, slots, warm| stage.pool_of(program, &format!("{name}-{kind}"), slots, warm);
        Ok(Self { cold: pool("cold", 1, 0)?, warm: pool("warm", 1, 2)?, wide: pool("wide", 4, 0)? })
    }

    async fn measure(&self, stage: &Stage, measure: Measure) -> Result<Duration, String> {
        match measure {
            Measure::First { warm } => {
                let on = if warm { &self.warm } else { &self.cold };
                stage.run(on, Work::Echo).await.map(|job| job.first)
            }
            Measure::Step => {
                let one = stage.run(&self.warm, Work::OneStep).await?;
                let twenty = stage.run(&self.warm, Work::TwentySteps).await?;
                // Never nothing: a ratio is made of it.
                Ok((twenty.whole.saturating_sub(one.whole) / 19).max(Duration::from_micros(10)))
            }
            Measure::Log => stage.run(&self.cold, Work::Log).await.map(|job| job.whole),
            Measure::Whole(work) => stage.whole(&self.wide, work).await,
        }
    }
}

/// Measures what both builds can do. Relay, repository and machine are shared; which build goes first alternates.
pub(super) async fn measure(engine: &Engine, program: &Path, choice: &Choice, report: &mut Report) -> Result<()> {
    progress("starting relay, repository and pools of both builds");
    let stage = Stage::start().await?;
    let now = Build::start(&stage, &crate::harness::process::binary("longshore")?, "now")?;
    let base = Build::start(&stage, program, "base")?;
    for (goal, what, measure) in COMPARED {
        if !choice.has(goal) {
            continue;
        }
        let (mut pairs, count) = (Pairs::default(), choice.pairs(goal));
        for round in 0..WARM_UPS + count {
            let (ours, earlier) = if round % 2 == 0 {
                let ours = now.measure(&stage, measure).await;
                (ours, base.measure(&stage, measure).await)
            } else {
                let earlier = base.measure(&stage, measure).await;
                (now.measure(&stage, measure).await, earlier)
            };
            say(round, count, &format!("{what}; now, then base"), &[&ours, &earlier]);
            if round >= WARM_UPS {
                pairs.push(ours, earlier);
            }
        }
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        report.ratio(&format!("{what}; floor: the earlier build"), LIMIT, &pairs);
        report.note(format!("{what}: load afterwards {}", load.trim()));
        failures(what, &pairs, report);
    }
    drop((now, base));
    engine.clean_up().await
}
