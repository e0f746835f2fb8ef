//! What holds for a run whatever happens in whatever order.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};
use workflow::plan::{Conclusion, Concurrency, Job, QueueMode, Reason};

use crate::run::{testing::*, *};

const KEYS: [&str; 6] = ["j0", "j1", "j1/0", "j1/1", "j2", "j3"];

fn any_condition() -> impl Strategy<Value = Option<String>> {
    prop_oneof![
        4 => Just(None),
        1 => prop::sample::select(vec!["always()", "failure()", "cancelled()", "!cancelled()"])
            .prop_map(|text| Some(text.to_owned())),
    ]
}

fn any_concurrency() -> impl Strategy<Value = Option<Concurrency>> {
    prop_oneof![
        3 => Just(None),
        1 => prop::sample::select(vec!["g", "h"]).prop_map(|group| Some(concurrency(group, false, QueueMode::Single))),
    ]
}

/// `asked` needs a word of somebody, `timed` a moment.
fn any_environment() -> impl Strategy<Value = Option<Value>> {
    prop::sample::select(vec![None, None, None, Some(json!("asked")), Some(json!("timed"))])
}

fn protections() -> Vec<EnvironmentProtection> {
    let one = |name: &str, approvers, wait_ms| EnvironmentProtection {
        name: name.into(),
        approvers,
        wait_ms,
        branches: Vec::new(),
    };
    vec![one("asked", Approvers::Maintainers, 5), one("timed", Approvers::Nobody, 10)]
}

/// Four jobs, the second maybe a matrix, needs only backwards.
fn any_plan() -> impl Strategy<Value = Planned> {
    let one = (any_condition(), any::<[bool; 3]>(), any::<bool>(), any_concurrency(), any_environment());
    (prop::collection::vec(one, 4), any::<bool>(), any::<bool>(), any::<bool>(), any_concurrency()).prop_map(
        |(jobs, matrix, fail_fast, proven, concurrency)| {
            let ids = ["j0", "j1", "j2", "j3"];
            let jobs =
                jobs.into_iter().enumerate().map(|(index, (condition, needs, tolerated, concurrency, environment))| {
                    let needs: Vec<&str> = (0..index).filter(|&need| needs[need]).map(|need| ids[need]).collect();
                    let mut made = if matrix && index == 1 { cells(&needs, json!({"x": [1, 2]})) } else { job(&needs) };
                    made.condition = condition;
                    made.concurrency = concurrency;
                    made.environment = environment;
                    made.strategy.fail_fast = Some(json!(fail_fast));
                    (ids[index], Job { continue_on_error: Some(json!(tolerated)), ..made })
                });
            let mut made = Planned { proven, maintainers: vec!["m".into()], ..planned(jobs.collect()) };
            made.plan.concurrency = concurrency;
            made
        },
    )
}

fn any_reason() -> impl Strategy<Value = Option<Reason>> {
    prop::sample::select(vec![
        None,
        Some(Reason::Step),
        Some(Reason::Timeout),
        Some(Reason::StartFailed("no".into())),
        Some(Reason::SandboxLost("gone".into())),
        Some(Reason::Cancelled("stopped".into())),
    ])
}

fn any_event() -> impl Strategy<Value = RunEvent> {
    let key = || prop::sample::select(KEYS.to_vec()).prop_map(JobKey::from);
    let attempt = || 1..4_u32;
    prop_oneof![
        8 => (key(), prop::sample::select(vec!["w1", "w2"]))
            .prop_map(|(job, worker)| RunEvent::Accepted { job, worker: worker.into() }),
        6 => (key(), attempt()).prop_map(|(job, attempt)| RunEvent::Begun { job, attempt }),
        8 => (key(), attempt(), any_reason()).prop_map(|(job, attempt, reason)| {
            let conclusion = match &reason {
                None => Conclusion::Success,
                Some(Reason::Cancelled(_)) => Conclusion::Cancelled,
                Some(_) => Conclusion::Failure,
            };
            RunEvent::Finished { job, attempt, report: report(conclusion, reason) }
        }),
        4 => (key(), attempt()).prop_map(|(job, attempt)| RunEvent::Lost { job, attempt, reason: "late".into() }),
        1 => key().prop_map(|job| RunEvent::Unmatched { job }),
        1 => Just(RunEvent::Cancel { by: "somebody".into() }),
        3 => prop::option::of(key()).prop_map(|job| RunEvent::Granted { job }),
        1 => (prop::option::of(key()), 7..9_u64).prop_map(|(job, serial)| RunEvent::HeldBy { job, serial }),
        1 => (key(), "[ab]").prop_map(|(job, to)| RunEvent::Preempted { job, to }),
        2 => (key(), any::<bool>(), "[ms]").prop_map(|(job, yes, by)| {
            let verdict = if yes { ApprovalVerdict::Approved } else { ApprovalVerdict::Rejected };
            RunEvent::Decided { job, verdict, by, comment: String::new() }
        }),
        1 => key().prop_map(|job| RunEvent::Due { job }),
        1 => Just(RunEvent::Expired),
        1 => Just(RunEvent::Unplannable { message: "no".into() }),
        1 => Just(RunEvent::LogFinalized { log: FinalizedLog::default() }),
    ]
}

/// What an effect asks for, so that asking twice shows.
fn asked(effect: &RunEffect) -> String {
    match effect {
        RunEffect::StoreReport { job, attempt, .. } => format!("report {job} {attempt}"),
        RunEffect::Plan => "plan".into(),
        RunEffect::Queue { job, attempt, .. } => format!("queue {job} {attempt}"),
        RunEffect::Unqueue { job, attempt } => format!("unqueue {job} {attempt}"),
        RunEffect::Lease { job, attempt, .. } => format!("lease {job} {attempt}"),
        RunEffect::EndLease { job, attempt } => format!("end lease {job} {attempt}"),
        RunEffect::Stop { job, attempt, .. } => format!("stop {job} {attempt}"),
        RunEffect::Join { job, .. } => format!("join {job:?}"),
        RunEffect::Leave { job, .. } => format!("leave {job:?}"),
        RunEffect::Timer { at } => format!("timer {at}"),
        RunEffect::Wake { job, at } => format!("wake {job} {at}"),
        RunEffect::Publish(RunUpdate::Queued { .. }) => "publish queued".into(),
        RunEffect::Publish(RunUpdate::Waiting { reason, .. }) => format!("publish wait: {reason}"),
        RunEffect::Publish(RunUpdate::Running { .. }) => "publish running".into(),
        RunEffect::Publish(RunUpdate::Finished { .. }) => "publish finished".into(),
        RunEffect::FinalizeLog => "seal".into(),
        RunEffect::EraseSecrets => "erase secrets".into(),
    }
}

/// What the rest of the system sees to at last: a lease that nobody renews runs out, a job that nobody takes is given
/// up, a log is sealed.
fn next_certain_event(state: &RunState) -> Option<RunEvent> {
    match &state.phase {
        RunPhase::Planning => Some(RunEvent::Unplannable { message: "gone".into() }),
        RunPhase::Waiting { .. } => Some(RunEvent::Granted { job: None }),
        RunPhase::Active => state.jobs.iter().find_map(|(key, job)| match &job.phase {
            JobPhase::Waiting { on: WaitCondition::Concurrency { .. }, .. } => {
                Some(RunEvent::Granted { job: Some(key.clone()) })
            }
            JobPhase::Waiting { on: WaitCondition::Approval { .. }, .. } => {
                let (verdict, by) = (ApprovalVerdict::Approved, "m".to_owned());
                Some(RunEvent::Decided { job: key.clone(), verdict, by, comment: String::new() })
            }
            JobPhase::Waiting { .. } => Some(RunEvent::Due { job: key.clone() }),
            JobPhase::Queued { .. } => Some(RunEvent::Unmatched { job: key.clone() }),
            JobPhase::Running { .. } | JobPhase::Cancelling { .. } => Some(RunEvent::Lost {
                job: key.clone(),
                attempt: job.attempts.last()?.number,
                reason: "lease ran out".into(),
            }),
            _ => None,
        }),
        RunPhase::Finalizing { .. } => Some(RunEvent::LogFinalized { log: FinalizedLog::default() }),
        RunPhase::Done { .. } => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, ..ProptestConfig::default() })]

    #[test]
    fn any_order_repetition_and_loss_of_events_ends_in_one_terminal_state_with_no_effect_asked_for_twice(
        plan in any_plan(),
        planned_at in 0..4_usize,
        mut events in prop::collection::vec(any_event(), 0..40),
        secrets in any::<bool>(),
        step in prop::sample::select(vec![0_u64, 10, 20_000]),
    ) {
        let planned = RunEvent::Planned(Box::new(plan));
        events.insert(planned_at.min(events.len()), planned.clone());
        events.push(planned);
        let rules = RunRules { max_duration_ms: 60_000, ..RunRules::default() };
        let made = NewRun { environments: protections(), ..new_run(rules, secrets) };
        let (mut state, effects) = create(made, START);
        let mut now = START;
        let mut count: BTreeMap<String, u32> = BTreeMap::new();
        let mut stamps = Vec::new();
        let mut note = |effects: &[RunEffect]| {
            for effect in effects {
                if let RunEffect::Publish(RunUpdate::Queued { stamp } | RunUpdate::Waiting { stamp, .. } | RunUpdate::Running { stamp } | RunUpdate::Finished { stamp, .. }) = effect {
                    stamps.push(*stamp);
                }
                *count.entry(asked(effect)).or_default() += 1;
            }
        };
        note(&effects);
        let mut ends = Vec::new();
        let mut random = events.into_iter();
        for _ in 0..1_000 {
            let next = random.next();
            // What is certain comes after some time.
            now += if next.is_some() { step } else { step.max(10) };
            let Some(event) = next.or_else(|| next_certain_event(&state)) else { break };
            let before = state.clone();
            match advance(&state, event.clone(), now) {
                Ok((after, effects)) => {
                    prop_assert_eq!(after.version, before.version + 1);
                    prop_assert!(!matches!(before.phase, RunPhase::Done { .. }), "a run that ended was changed by {:?}", event);
                    note(&effects);
                    state = after;
                }
                Err(_) => prop_assert_eq!(&before, &state),
            }
            if let RunPhase::Done { end, .. } = &state.phase {
                ends.push(end.clone());
            }
        }
        prop_assert!(matches!(state.phase, RunPhase::Done { .. }), "never ended: {:?}", state.phase);
        prop_assert!(ends.windows(2).all(|pair| pair[0] == pair[1]));
        let joins = count.keys().filter(|what| what.starts_with("join ") || what.starts_with("wake ")).count();
        for (what, times) in &count {
            // Two jobs may wait for the same, and each says so.
            if let Some(reason) = what.strip_prefix("publish wait: ") {
                prop_assert!(usize::try_from(*times).unwrap() <= joins, "{} was said {} times", reason, times);
                continue;
            }
            prop_assert!(*times == 1, "{} was asked for {} times", what, times);
        }
        prop_assert_eq!(count.get("publish finished").copied(), Some(1));
        prop_assert_eq!(count.get("seal").copied(), Some(1));
        prop_assert!(stamps.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
