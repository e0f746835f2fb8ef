//! Many runs and the groups between them, events in any order: one at a time, nobody forgotten.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, VecDeque};

use proptest::prelude::*;
use workflow::plan::{Conclusion, Reason};

use super::{
    deadlock::{self, DeadlockSearch},
    *,
};
use crate::run::{
    FinalizedLog, JobPhase, NewRun, Planned, RunEffect as Ask, RunPhase, RunRules, RunState,
    testing::{concurrency, job, new_run, planned, report},
};

/// A pool in memory: what the engine does with rows, done with maps.
#[derive(Default)]
struct World {
    runs: BTreeMap<RunId, RunState>,
    groups: BTreeMap<String, Group>,
    now: Millis,
    /// Circles of waits that were broken.
    circles: usize,
}

impl World {
    fn apply(&mut self, run: &RunId, event: run::RunEvent) {
        let mut news = VecDeque::from([(run.clone(), event)]);
        let mut asked = Vec::new();
        loop {
            self.spread(&mut news, &mut asked);
            let Some((run, job)) = asked.pop() else { break };
            if let Some(to) = self.circle(&run, &job) {
                self.circles += 1;
                news.push_back((run, run::RunEvent::Preempted { job, to }));
            }
        }
    }

    /// To what a job gives way whose ask closed a circle.
    fn circle(&self, run: &RunId, job: &JobKey) -> Option<String> {
        let state = &self.runs[run];
        let group = state.jobs.get(job)?.waits_for()?;
        let first = self.groups[group].holder.clone()?;
        let mut search = DeadlockSearch::new(state, job);
        let mut met = search.visit_holder(&first);
        while let Some(member) = search.next_holder().filter(|_| !met) {
            for waited in self.runs[&member.run].waits_below(member.job.as_ref()) {
                met |= self.groups[&waited].holder.as_ref().is_some_and(|holder| search.visit_holder(holder));
            }
        }
        met.then(|| deadlock::describe(group, &first))
    }

    fn spread(&mut self, news: &mut VecDeque<(RunId, run::RunEvent)>, asked: &mut Vec<(RunId, JobKey)>) {
        while let Some((id, event)) = news.pop_front() {
            self.now += 1;
            let Some(state) = self.runs.get(&id) else { continue };
            let Ok((state, effects)) = run::advance(state, event, self.now) else { continue };
            for effect in effects {
                let (name, event) = match effect {
                    Ask::Join { job, ask } => {
                        asked.extend(job.iter().map(|job| (id.clone(), job.clone())));
                        let member = Member { run: id.clone(), serial: state.serial, job, since: self.now };
                        (ask.group.clone(), GroupEvent::JoinRequested { member, ask })
                    }
                    Ask::Leave { job, group } => (group, GroupEvent::Left { run: id.clone(), job }),
                    _ => continue,
                };
                let known = self.groups.entry(name.clone()).or_insert_with(|| Group::new(name));
                if let Ok((next, effects)) = advance(known, event, self.now) {
                    *known = next;
                    news.extend(effects.into_iter().map(GroupEffect::into_run_event));
                }
            }
            self.runs.insert(id, state);
        }
    }

    /// What holds a group now: it may have a worker, or wait for one.
    fn holding(&self, group: &str) -> Vec<String> {
        let claims = |claim: &Option<run::GroupClaim>| claim.as_ref().is_some_and(|claim| claim.ask.group == group);
        let mut found = Vec::new();
        for state in self.runs.values() {
            if claims(&state.claim) && matches!(state.phase, RunPhase::Active) {
                found.push(state.id.to_string());
            }
            for (key, job) in state.jobs.iter().filter(|(_, job)| claims(&job.claim)) {
                let busy = matches!(
                    job.phase,
                    JobPhase::Queued { .. } | JobPhase::Running { .. } | JobPhase::Cancelling { .. }
                );
                if busy {
                    found.push(format!("{}/{key}", state.id));
                }
            }
        }
        found
    }
}

#[derive(Debug, Clone)]
enum Move {
    Arrives { run: Option<(usize, bool, bool)>, job: Option<(usize, bool, bool)> },
    Goes(usize),
    Cancelled(usize),
}

const GROUPS: [&str; 3] = ["a", "b", "c"];

fn any_claim(groups: std::ops::Range<usize>) -> impl Strategy<Value = Option<(usize, bool, bool)>> {
    prop::option::weighted(0.7, (groups, any::<bool>(), any::<bool>()))
}

/// Runs and jobs ask for the same groups: circles of waits come about.
fn any_move() -> impl Strategy<Value = Move> {
    prop_oneof![
        3 => (any_claim(0..3), any_claim(0..3)).prop_map(|(run, job)| Move::Arrives { run, job }),
        6 => (0..100_usize).prop_map(Move::Goes),
        1 => (0..100_usize).prop_map(Move::Cancelled),
    ]
}

fn plan_of(run: Option<(usize, bool, bool)>, claim: Option<(usize, bool, bool)>) -> Planned {
    let written = |(group, cancel, max): (usize, bool, bool)| {
        let queue = if max && !cancel { QueueMode::Max } else { QueueMode::Single };
        concurrency(GROUPS[group], cancel, queue)
    };
    let first = workflow::plan::Job { concurrency: claim.map(written), ..job(&[]) };
    let mut made = planned(vec![("first", first), ("last", job(&["first"]))]);
    made.plan.concurrency = run.map(written);
    made
}

/// One more step of a run, as workers and the seal would take it.
fn next(state: &RunState) -> Option<run::RunEvent> {
    if let RunPhase::Finalizing { .. } = state.phase {
        return Some(run::RunEvent::LogFinalized { log: FinalizedLog::default() });
    }
    state.jobs.iter().find_map(|(key, job)| {
        let (job_key, attempt) = (key.clone(), job.attempts.last().map_or(1, |attempt| attempt.number));
        match &job.phase {
            JobPhase::Queued { .. } => Some(run::RunEvent::Accepted { job: job_key, worker: "w".into() }),
            JobPhase::Running { .. } => {
                let report = report(Conclusion::Success, None);
                Some(run::RunEvent::Finished { job: job_key, attempt, report })
            }
            JobPhase::Cancelling { .. } => {
                let report = report(Conclusion::Cancelled, Some(Reason::Cancelled("stopped".into())));
                Some(run::RunEvent::Finished { job: job_key, attempt, report })
            }
            _ => None,
        }
    })
}

/// A run that holds one group, and whose first job asks for another.
fn arrives(world: &mut World, run: &str, job: &str) -> RunId {
    let serial = world.runs.len() as u64 + 1;
    let id = RunId::from(format!("r{serial}"));
    let made = NewRun { id: id.clone(), serial, ..new_run(RunRules::default(), false) };
    world.runs.insert(id.clone(), run::create(made, world.now).0);
    let group = |name: &str| Some(concurrency(name, false, QueueMode::Max));
    let first = workflow::plan::Job { concurrency: group(job), ..job_of() };
    let mut made =
        planned(vec![("begin", job_of()), ("first", workflow::plan::Job { needs: vec!["begin".into()], ..first })]);
    made.plan.concurrency = group(run);
    world.apply(&id, run::RunEvent::Planned(Box::new(made)));
    id
}

fn job_of() -> workflow::plan::Job {
    job(&[])
}

fn goes(world: &mut World, id: &RunId) {
    let event = next(&world.runs[id]).unwrap();
    world.apply(id, event);
}

#[test]
fn of_runs_that_wait_for_each_other_in_a_circle_the_one_that_closes_it_gives_its_job_up_and_all_others_go_on() {
    for circle in [&["a", "b"][..], &["a", "b", "c"], &["a", "b", "c", "d", "e"]] {
        let mut world = World { now: 1_700_000_000_000, ..World::default() };
        let after = |at: usize| circle[(at + 1) % circle.len()];
        let runs: Vec<_> = (0..circle.len()).map(|at| arrives(&mut world, circle[at], after(at))).collect();
        for id in &runs {
            goes(&mut world, id);
            goes(&mut world, id);
        }
        let last = runs.last().unwrap();
        let cancelled: Vec<_> =
            world.runs.values().filter(|run| run.jobs["first"].conclusion() == Some(Conclusion::Cancelled)).collect();
        assert_eq!((cancelled.len(), &cancelled[0].id, world.circles), (1, last, 1));
        let JobPhase::Done { reason: Some(Reason::Cancelled(why)), .. } = &cancelled[0].jobs["first"].phase else {
            panic!()
        };
        assert!(why.starts_with("cancelled by a circle of waits: run 1 holds the concurrency group a and "), "{why}");
        // With its end the group is given back, and the others follow one by one.
        while let Some(id) = world.runs.iter().find_map(|(id, run)| next(run).map(|_| id.clone())) {
            goes(&mut world, &id);
        }
        for (id, run) in &world.runs {
            let RunPhase::Done { end, .. } = &run.phase else { panic!("{id} never ended") };
            assert_eq!(end.conclusion == Conclusion::Success, id != last, "{id}");
        }
    }
}

#[test]
fn a_wait_that_ends_by_itself_is_no_circle() {
    let mut world = World { now: 1_700_000_000_000, ..World::default() };
    // The second holds what the first waits for, and waits for nobody.
    let runs = [("a", "b"), ("b", "c"), ("d", "b")].map(|(run, job)| arrives(&mut world, run, job));
    for id in &runs {
        goes(&mut world, id);
        goes(&mut world, id);
    }
    assert_eq!(world.circles, 0);
    while let Some(id) = world.runs.iter().find_map(|(id, run)| next(run).map(|_| id.clone())) {
        goes(&mut world, &id);
    }
    let ended =
        |run: &RunState| matches!(&run.phase, RunPhase::Done { end, .. } if end.conclusion == Conclusion::Success);
    assert!(world.runs.values().all(ended));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_in_whatever_order_one_at_a_time_holds_a_group_and_every_run_ends(
        moves in prop::collection::vec(any_move(), 1..60),
    ) {
        let mut world = World { now: 1_700_000_000_000, ..World::default() };
        let mut all = moves.into_iter();
        for _ in 0..3_000 {
            let ids: Vec<RunId> = world.runs.keys().cloned().collect();
            match all.next() {
                Some(Move::Arrives { run, job }) => {
                    let serial = world.runs.len() as u64 + 1;
                    let id = RunId::from(format!("r{serial:03}"));
                    let made = NewRun { id: id.clone(), serial, ..new_run(RunRules::default(), false) };
                    world.runs.insert(id.clone(), run::create(made, world.now).0);
                    world.apply(&id, run::RunEvent::Planned(Box::new(plan_of(run, job))));
                }
                Some(Move::Cancelled(at)) if !ids.is_empty() => {
                    world.apply(&ids[at % ids.len()], run::RunEvent::Cancel { by: "somebody".into() });
                }
                Some(Move::Goes(at)) if !ids.is_empty() => {
                    let id = &ids[at % ids.len()];
                    if let Some(event) = next(&world.runs[id]) {
                        world.apply(id, event);
                    }
                }
                Some(_) => {}
                None => match world.runs.iter().find_map(|(id, state)| Some((id.clone(), next(state)?))) {
                    Some((id, event)) => world.apply(&id, event),
                    None => break,
                },
            }
            for name in GROUPS {
                let holding = world.holding(name);
                prop_assert!(holding.len() <= 1, "{} is held by {:?}", name, holding);
            }
            for group in world.groups.values() {
                prop_assert!(group.pending.len() <= LONGEST);
                prop_assert!(group.holder.is_some() || group.pending.is_empty(), "they wait for nobody: {:?}", group);
            }
        }
        for state in world.runs.values() {
            prop_assert!(matches!(state.phase, RunPhase::Done { .. }), "{} never ended: {:?}", state.id, state.phase);
        }
        for group in world.groups.values() {
            prop_assert!(group.holder.is_none(), "never given back: {:?}", group);
        }
    }
}
