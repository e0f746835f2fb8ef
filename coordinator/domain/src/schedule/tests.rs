#![allow(clippy::unwrap_used)]

use proptest::prelude::*;

use super::*;

fn job(name: &str, owner: &str, labels: &[&str]) -> QueuedJob {
    QueuedJob {
        run: "r".into(),
        job: name.into(),
        labels: labels.iter().map(ToString::to_string).collect(),
        avoid: Vec::new(),
        owner: owner.into(),
        since: 0,
        reason: String::new(),
    }
}

fn worker(id: &str, slots: usize, labels: &[&str]) -> WorkerView {
    WorkerView {
        id: id.into(),
        labels: Arc::new(labels.iter().map(ToString::to_string).collect()),
        slots,
        ..WorkerView::default()
    }
}

fn given(queue: &[QueuedJob], workers: &[WorkerView]) -> Vec<(String, String)> {
    let decision = assign(queue, workers);
    decision.assignments.into_iter().map(|a| (queue[a.job].job.to_string(), a.worker.to_string())).collect()
}

fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
    list.iter().map(|(job, worker)| (job.to_string(), worker.to_string())).collect()
}

#[test]
fn a_job_goes_to_a_worker_with_all_its_labels_and_most_room() {
    let workers = [
        worker("a", 1, &["linux"]),
        worker("b", 2, &["linux"]),
        worker("c", 9, &["mac"]),
        worker("d", 1, &["linux", "gpu"]),
    ];
    assert_eq!(given(&[job("1", "o", &["linux"])], &workers), pairs(&[("1", "b")]));
    assert_eq!(given(&[job("1", "o", &["gpu", "linux"])], &workers), pairs(&[("1", "d")]));
    assert_eq!(given(&[job("1", "o", &[])], &workers), pairs(&[("1", "c")]));
}

#[test]
fn owners_take_turns_and_who_has_least_running_is_first() {
    let mut workers = [worker("a", 4, &["linux"])];
    let queue = [job("a1", "a", &[]), job("a2", "a", &[]), job("a3", "a", &[]), job("b1", "b", &[])];
    let order: Vec<String> = given(&queue, &workers).into_iter().map(|(job, _)| job).collect();
    assert_eq!(order, ["a1", "b1", "a2", "a3"]);
    workers[0].busy = vec![Some("a".into()), None];
    let order: Vec<String> = given(&queue, &workers).into_iter().map(|(job, _)| job).collect();
    assert_eq!(order, ["b1", "a1"]);
}

#[test]
fn a_worker_that_lost_the_job_gets_it_only_where_no_other_fits() {
    let mut again = job("1", "o", &["linux"]);
    again.avoid = vec!["a".into()];
    let queue = [again];
    let alone = [worker("a", 3, &["linux"])];
    assert_eq!(given(&queue, &alone), pairs(&[("1", "a")]));
    let mut both = [worker("a", 3, &["linux"]), worker("b", 1, &["linux"])];
    assert_eq!(given(&queue, &both), pairs(&[("1", "b")]));
    both[1].busy = vec![Some("x".into())];
    assert_eq!(assign(&queue, &both).waiting, [(0, WaitReason::Avoided { slots: 1 })]);
    both[1].draining = true;
    assert_eq!(given(&queue, &both), pairs(&[("1", "a")]));
}

#[test]
fn who_waits_is_told_why() {
    let mut busy = worker("a", 2, &["ubuntu-latest"]);
    busy.busy = vec![Some("o".into()), None];
    let mut draining = worker("b", 2, &["ubuntu-latest", "gpu"]);
    draining.draining = true;
    let one = worker("c", 1, &["gpu"]);
    for (labels, workers, why, unmatched) in [
        (&["ubuntu-latest"][..], vec![], "no worker is connected", true),
        (
            &["macos-14"],
            vec![busy.clone(), one.clone()],
            "no worker has the label macos-14; connected workers offer: gpu, ubuntu-latest",
            true,
        ),
        (
            &["ubuntu-latest", "gpu"],
            vec![busy.clone(), one],
            "no worker has the labels ubuntu-latest, gpu; connected workers offer: gpu, ubuntu-latest",
            true,
        ),
        (&["x"], vec![worker("d", 1, &[])], "no worker has the label x; connected workers offer: none", true),
        (&["ubuntu-latest"], vec![busy], "all 2 slots of matching workers are busy", false),
        (&["gpu"], vec![draining], "the only matching worker is draining", false),
        (&["u"], vec![worker("d", 0, &["u"])], "all 0 slots of matching workers are busy", false),
    ] {
        let decision = assign(&[job("1", "o", labels)], &workers);
        assert!(decision.assignments.is_empty());
        let [(0, said)] = &decision.waiting[..] else { unreachable!("{decision:?}") };
        assert_eq!((said.to_string().as_str(), said.is_unmatched()), (why, unmatched));
    }
}

prop_compose! {
    fn any_worker()(slots in 0..4usize, busy in 0..4usize, labels in prop::collection::btree_set("[abc]", 0..3),
                    draining in any::<bool>(), owner in "[xyz]") -> WorkerView {
        WorkerView { slots, busy: vec![Some(owner.into()); busy], labels: labels.into(), draining, ..WorkerView::default() }
    }
}

prop_compose! {
    fn any_job()(labels in prop::collection::vec("[abc]", 0..3), owner in "[xyz]",
                 avoid in prop::collection::vec("[0-5]", 0..3)) -> QueuedJob {
        QueuedJob { labels, owner, avoid, ..job("", "", &[]) }
    }
}

proptest! {
    /// No job is lost or doubled, no slot is used twice, no job goes where it does not fit, and none waits beside a
    /// free slot that it could have.
    #[test]
    fn assigning_is_safe_and_wastes_nothing(
        mut workers in prop::collection::vec(any_worker(), 0..6),
        queue in prop::collection::vec(any_job(), 0..24),
    ) {
        for (position, worker) in workers.iter_mut().enumerate() {
            worker.id = position.to_string().into();
        }
        let decision = assign(&queue, &workers);
        let mut seen: Vec<usize> = decision.assignments.iter().map(|a| a.job).collect();
        seen.extend(decision.waiting.iter().map(|(job, _)| *job));
        seen.sort_unstable();
        prop_assert_eq!(seen, (0..queue.len()).collect::<Vec<_>>());

        let fits = |job: &QueuedJob, w: &WorkerView| !w.draining && job.labels.iter().all(|l| w.labels.contains(l));
        for worker in &workers {
            let given = decision.assignments.iter().filter(|a| a.worker == worker.id);
            let jobs: Vec<&QueuedJob> = given.map(|a| &queue[a.job]).collect();
            prop_assert!(jobs.is_empty() || worker.busy.len() + jobs.len() <= worker.slots);
            for job in jobs {
                prop_assert!(fits(job, worker));
                let other = workers.iter().any(|w| fits(job, w) && w.slots > 0 && !avoids(job, w));
                prop_assert!(!other || !avoids(job, worker));
            }
            let left = worker.busy.len() + decision.assignments.iter().filter(|a| a.worker == worker.id).count();
            for (waiting, _) in &decision.waiting {
                let could = fits(&queue[*waiting], worker) && !avoids(&queue[*waiting], worker);
                prop_assert!(!could || left >= worker.slots);
            }
        }
    }
}
