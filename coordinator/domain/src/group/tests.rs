//! What a group does, case by case.
#![allow(clippy::unwrap_used)]

use super::*;

fn ask(cancel_in_progress: bool, queue: QueueMode) -> ConcurrencyRequest {
    ConcurrencyRequest { group: "deploy".into(), cancel_in_progress, queue }
}

fn member(serial: u64) -> Member {
    Member { run: format!("r{serial}").into(), serial, job: None, since: serial }
}

struct TestGroup {
    group: Group,
    told: Vec<String>,
}

impl TestGroup {
    fn new() -> Self {
        Self { group: Group::new(key("30617:o:r", "deploy")), told: Vec::new() }
    }

    fn take(&mut self, event: GroupEvent) -> Result<(), GroupRefusal> {
        let (group, effects) = advance(&self.group, event, 100)?;
        self.group = group;
        self.told = effects
            .into_iter()
            .map(|effect| match effect {
                GroupEffect::Granted(member) => format!("{} granted", member.run),
                GroupEffect::Waits { member, holder } => format!("{} waits for {}", member.run, holder.run),
                GroupEffect::Preempted { member, to } => format!("{} gives way to {to}", member.run),
            })
            .collect();
        Ok(())
    }

    fn asks(&mut self, serial: u64, ask: ConcurrencyRequest) -> Vec<String> {
        self.take(GroupEvent::JoinRequested { member: member(serial), ask }).unwrap();
        self.told.clone()
    }

    fn leaves(&mut self, serial: u64) -> Vec<String> {
        self.take(GroupEvent::Left { run: format!("r{serial}").into(), job: None }).unwrap();
        self.told.clone()
    }
}

#[test]
fn one_holds_and_the_newest_waits_in_the_place_of_those_before() {
    let mut group = TestGroup::new();
    let single = || ask(false, QueueMode::Single);
    assert_eq!(group.asks(1, single()), ["r1 granted"]);
    assert_eq!(group.asks(2, single()), ["r2 waits for r1"]);
    assert_eq!(group.asks(3, single()), ["r2 gives way to run 3 of the concurrency group deploy", "r3 waits for r1"]);
    assert_eq!(group.leaves(1), ["r3 granted"]);
    assert_eq!(group.leaves(3), [""; 0]);
    assert_eq!(group.asks(4, single()), ["r4 granted"]);
}

#[test]
fn cancel_in_progress_ends_the_holder_and_waits_until_it_is_gone() {
    let mut group = TestGroup::new();
    group.asks(1, ask(false, QueueMode::Single));
    assert_eq!(
        group.asks(2, ask(true, QueueMode::Single)),
        ["r1 gives way to run 2 of the concurrency group deploy", "r2 waits for r1"]
    );
    assert_eq!(group.group.holder.as_ref().unwrap().serial, 1);
    assert_eq!(group.leaves(1), ["r2 granted"]);
}

#[test]
fn a_long_queue_keeps_a_hundred_in_order_and_turns_the_next_away() {
    let mut group = TestGroup::new();
    let max = || ask(false, QueueMode::Max);
    group.asks(1, max());
    for serial in 2..102 {
        assert_eq!(group.asks(serial, max()), [format!("r{serial} waits for r1")]);
    }
    assert_eq!(group.asks(102, max()), ["r102 gives way to the concurrency group deploy, for which 100 wait already"]);
    let told = group.leaves(1);
    assert_eq!(told[..2], ["r2 granted", "r3 waits for r2"]);
    assert_eq!(told.len(), 100);
    for serial in 3..102 {
        assert_eq!(group.leaves(serial - 1)[0], format!("r{serial} granted"));
    }
}

#[test]
fn who_waits_may_go_and_nobody_enters_or_leaves_twice() {
    let mut group = TestGroup::new();
    let max = || ask(false, QueueMode::Max);
    for serial in 1..4 {
        group.asks(serial, max());
    }
    let before = group.group.clone();
    let again = |serial| GroupEvent::JoinRequested { member: member(serial), ask: max() };
    assert_eq!(group.take(again(1)), Err(GroupRefusal::Repeated));
    assert_eq!(group.take(again(3)), Err(GroupRefusal::Repeated));
    let stranger = GroupEvent::Left { run: "r1".into(), job: Some("a".into()) };
    assert_eq!(group.take(stranger), Err(GroupRefusal::Stranger));
    assert_eq!(group.group, before);
    assert_eq!(group.leaves(2), [""; 0]);
    assert_eq!(group.leaves(1), ["r3 granted"]);
    assert_eq!(group.group.holder.as_ref().unwrap().since, 100);
}

#[test]
fn a_group_belongs_to_a_repository_and_knows_no_case() {
    assert_eq!(key("30617:o:r", "Prod"), key("30617:o:r", "prod"));
    assert_ne!(key("30617:o:r", "prod"), key("30617:o:s", "prod"));
}
