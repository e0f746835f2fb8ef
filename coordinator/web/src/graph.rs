//! The graph of a run: its jobs in columns, each right of what it needs, a matrix as one box. Pure; the page draws it as
//! SVG.
//!
//! Lines that pass a column have a place of their own there, so that they never run through a box.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::time::span;
use domain::id::JobKey;
use domain::run::{Job, JobPhase, Millis, RunState};
use workflow::plan::Conclusion;

/// A box and the space around it, in pixels.
pub(super) const BOX: (usize, usize) = (224, 40);
const STEP: (usize, usize) = (280, 54);
/// Characters that fit a box, its time beside them.
const LETTERS: usize = 17;
/// Most boxes of a drawing; the list beside it has all jobs.
const DRAWN: usize = 200;
/// Most pieces of lines of a drawing.
const PIECES: usize = 3000;

/// Boxes and the lines between them.
#[derive(Debug, Default)]
pub(super) struct Graph {
    pub(super) width: usize,
    pub(super) height: usize,
    pub(super) boxes: Vec<Box>,
    /// As SVG has it in `d`.
    pub(super) edges: Vec<String>,
}

/// A job, or all jobs of a matrix.
#[derive(Debug)]
pub(super) struct Box {
    /// Position in the run's list of the job that tells most of it.
    pub(super) index: usize,
    pub(super) name: String,
    pub(super) label: String,
    pub(super) word: &'static str,
    /// How many of its jobs succeeded, and how many there are; none for a single one.
    pub(super) count: Option<(usize, usize)>,
    /// How long it took, or takes.
    pub(super) took: String,
    pub(super) x: usize,
    pub(super) y: usize,
}

/// Jobs of one box: their positions in the run's list.
#[derive(Debug)]
struct Group {
    name: String,
    jobs: Vec<usize>,
    needs: BTreeSet<usize>,
    column: usize,
}

/// What stands in a column: a box, or a line from a box on its way to a later column.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Node {
    Box(usize),
    Line(usize),
}

impl Graph {
    pub(super) fn of(state: &RunState, now: Millis) -> Self {
        let groups = grouped(state);
        let columns = arranged(&groups);
        let mut graph = Self::default();
        let mut rows: HashMap<(usize, Node), usize> = HashMap::new();
        for (column, places) in columns.iter().enumerate() {
            for (row, place) in places.iter().enumerate() {
                rows.insert((column, *place), row);
                graph.width = graph.width.max(column * STEP.0 + BOX.0 + 8);
                graph.height = graph.height.max(row * STEP.1 + BOX.1 + 10);
            }
        }
        let corner = |column: usize, place: Node| {
            let row = rows.get(&(column, place)).copied().unwrap_or_default();
            (column * STEP.0 + 4, row * STEP.1 + 4)
        };
        let jobs: Vec<&Job> = state.jobs.values().map(AsRef::as_ref).collect();
        let mut pieces = 0;
        for (number, group) in groups.iter().enumerate() {
            let (x, y) = corner(group.column, Node::Box(number));
            graph.boxes.push(drawn(group, &jobs, now, (x, y)));
            for need in &group.needs {
                let Some(from) = groups.get(*need) else { continue };
                pieces += group.column.saturating_sub(from.column).max(1);
                if pieces > PIECES {
                    break;
                }
                let begin = corner(from.column, Node::Box(*need));
                let mut path = format!("M{} {}", begin.0 + BOX.0, begin.1 + BOX.1 / 2);
                let mut at = (begin.0 + BOX.0, begin.1 + BOX.1 / 2);
                let mut pass = |to: (usize, usize), path: &mut String| {
                    let bend = (STEP.0 - BOX.0) / 2;
                    path.push_str(&format!(
                        "C{} {} {} {} {} {}",
                        at.0 + bend,
                        at.1,
                        to.0.saturating_sub(bend),
                        to.1,
                        to.0,
                        to.1
                    ));
                    at = (to.0 + BOX.0, to.1);
                };
                for column in from.column + 1..group.column {
                    let (x, y) = corner(column, Node::Line(*need));
                    pass((x, y + BOX.1 / 2), &mut path);
                    path.push_str(&format!("H{}", x + BOX.0));
                }
                pass((x, y + BOX.1 / 2), &mut path);
                graph.edges.push(path);
            }
        }
        graph
    }
}

/// Jobs by where they stand in their file, so that those of a matrix are one, with what each needs directly.
fn grouped(state: &RunState) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<(&JobKey, &str), usize> = HashMap::new();
    let mut of_job: HashMap<&JobKey, usize> = HashMap::new();
    for (index, (key, job)) in state.jobs.iter().enumerate() {
        let place = (&job.parent_call, job.id.as_str());
        let number = match known.get(&place) {
            Some(number) => *number,
            None if groups.len() == DRAWN => continue,
            None => {
                let name = if job.cell.total > 1 { &job.id } else { &job.name };
                groups.push(Group { name: name.clone(), jobs: Vec::new(), needs: BTreeSet::new(), column: 0 });
                known.insert(place, groups.len() - 1);
                groups.len() - 1
            }
        };
        of_job.insert(key, number);
        if let Some(group) = groups.get_mut(number) {
            group.jobs.push(index);
        }
    }
    // All jobs of a matrix need the same.
    for number in 0..groups.len() {
        let first = groups.get(number).and_then(|group| group.jobs.first());
        let Some((key, _)) = first.and_then(|index| state.jobs.get_index(*index)) else { continue };
        let needs = state.needed_by(key).into_iter().filter_map(|need| of_job.get(need).copied());
        let needs = needs.filter(|need| *need != number).collect();
        if let Some(group) = groups.get_mut(number) {
            group.needs = needs;
        }
    }
    place_in_columns(&mut groups);
    leave_out_implied(&mut groups);
    groups
}

/// Each group right of what it needs. A plan has no cycles; what is in one all the same stays where it is.
fn place_in_columns(groups: &mut [Group]) {
    for _ in 0..groups.len() {
        let mut changed = false;
        for number in 0..groups.len() {
            let after = |need: &usize| groups.get(*need).map_or(0, |need| need.column + 1);
            let column = groups.get(number).and_then(|group| group.needs.iter().map(after).max()).unwrap_or(0);
            if let Some(group) = groups.get_mut(number).filter(|group| group.column < column && column < DRAWN) {
                group.column = column;
                changed = true;
            }
        }
        if !changed {
            return;
        }
    }
}

/// Drops a need that another need has already: the line would say nothing new.
fn leave_out_implied(groups: &mut [Group]) {
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|number| groups.get(*number).map_or(0, |group| group.column));
    let mut below: Vec<BTreeSet<usize>> = vec![BTreeSet::new(); groups.len()];
    for number in order {
        let Some(group) = groups.get_mut(number) else { continue };
        let implied: BTreeSet<usize> =
            group.needs.iter().filter_map(|need| below.get(*need)).flatten().copied().collect();
        let all = implied.union(&group.needs).copied().collect();
        group.needs.retain(|need| !implied.contains(need));
        if let Some(known) = below.get_mut(number) {
            *known = all;
        }
    }
}

/// What stands in each column, from above: near to what it needs.
fn arranged(groups: &[Group]) -> Vec<Vec<Node>> {
    let mut columns: Vec<BTreeMap<Node, Vec<Node>>> = Vec::new();
    let mut pieces = 0;
    let before = |column: usize, need: usize| match groups.get(need) {
        Some(group) if group.column + 1 == column => Node::Box(need),
        _ => Node::Line(need),
    };
    for (number, group) in groups.iter().enumerate() {
        if columns.len() <= group.column {
            columns.resize_with(group.column + 1, BTreeMap::new);
        }
        let from = group.needs.iter().map(|need| before(group.column, *need)).collect();
        if let Some(column) = columns.get_mut(group.column) {
            column.insert(Node::Box(number), from);
        }
        for need in &group.needs {
            let begin = groups.get(*need).map_or(group.column, |need| need.column) + 1;
            let passed = (begin..group.column).take(PIECES - pieces);
            pieces += passed.len();
            for passed in passed {
                if let Some(column) = columns.get_mut(passed) {
                    column.insert(Node::Line(*need), vec![before(passed, *need)]);
                }
            }
        }
    }
    let mut arranged: Vec<Vec<Node>> = Vec::new();
    for column in columns {
        let rows: HashMap<Node, usize> =
            arranged.last().into_iter().flatten().enumerate().map(|(row, place)| (*place, row)).collect();
        // In hundredths of a row; what needs nothing comes last.
        let height = |from: &[Node]| {
            let rows: Vec<usize> = from.iter().filter_map(|place| rows.get(place).copied()).collect();
            rows.iter().sum::<usize>() * 100 / rows.len().max(1) + if rows.is_empty() { usize::MAX / 2 } else { 0 }
        };
        let mut places: Vec<(usize, Node)> = column.iter().map(|(place, from)| (height(from), *place)).collect();
        places.sort_by_key(|(height, place)| {
            let (Node::Box(number) | Node::Line(number)) = place;
            (*height, *number)
        });
        arranged.push(places.into_iter().map(|(_, place)| place).collect());
    }
    arranged
}

fn drawn(group: &Group, jobs: &[&Job], now: Millis, (x, y): (usize, usize)) -> Box {
    let jobs: Vec<(usize, &Job)> = group.jobs.iter().filter_map(|at| Some((*at, *jobs.get(*at)?))).collect();
    // The worst tells most: its log is what one wants to see.
    let worst = jobs.iter().min_by_key(|(_, job)| rank(word(job)));
    let word = worst.map_or("skipped", |(_, job)| word(job));
    let done = jobs.iter().filter(|(_, job)| self::word(job) == "success").count();
    let is_matrix = jobs.first().is_some_and(|(_, job)| job.cell.total > 1);
    let times = jobs.iter().filter_map(|(_, job)| took(job, now));
    Box {
        index: worst.map_or(0, |(index, _)| *index),
        name: group.name.clone(),
        label: short(&group.name, if is_matrix { LETTERS - 4 } else { LETTERS }),
        word,
        count: is_matrix.then_some((done, jobs.len())),
        took: times.max().map(span).unwrap_or_default(),
        x,
        y,
    }
}

/// Milliseconds that a job ran, or runs.
pub(super) fn took(job: &Job, now: Millis) -> Option<Millis> {
    let last = job.attempts.last()?;
    let begun = last.begun_at.unwrap_or(last.accepted_at);
    let ended = match &job.phase {
        JobPhase::Done { outcome, .. } => outcome.as_ref()?.finished_at,
        _ => now,
    };
    Some(ended.saturating_sub(begun))
}

/// The state of several jobs is that of the first in this order.
pub(super) fn rank(word: &str) -> usize {
    const ORDER: [&str; 12] = [
        "failure",
        "cancelling",
        "running",
        "waiting",
        "queued",
        "held",
        "blocked",
        "cancelled",
        "warning",
        "success",
        "skipped",
        "",
    ];
    ORDER.iter().position(|known| *known == word).unwrap_or(ORDER.len())
}

pub(super) fn short(name: &str, letters: usize) -> String {
    match name.chars().count() > letters {
        true => name.chars().take(letters - 1).chain(['…']).collect(),
        false => name.to_owned(),
    }
}

pub(super) fn word(job: &Job) -> &'static str {
    match &job.phase {
        JobPhase::Blocked => "blocked",
        JobPhase::Held => "held",
        JobPhase::Waiting { .. } => "waiting",
        JobPhase::Queued { .. } => "queued",
        JobPhase::Running { .. } => "running",
        JobPhase::Cancelling { .. } => "cancelling",
        JobPhase::Done { conclusion: Conclusion::Failure, .. } if job.tolerated => "warning",
        JobPhase::Done { conclusion, .. } => conclusion.as_str(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::run::testing::{TestRun, job};

    #[test]
    fn boxes_stand_right_of_what_they_need_and_lines_pass_them_by() {
        let mut run = TestRun::with(vec![
            ("build", job(&[])),
            ("lint", job(&[])),
            ("test", job(&["build"])),
            ("pack", job(&["test"])),
            ("publish", job(&["pack", "build", "lint"])),
        ]);
        run.run("build", Conclusion::Success);
        let graph = Graph::of(&run.state, 0);
        let place = |name: &str| {
            let found = graph.boxes.iter().find(|one| one.name == name);
            found.map(|one| ((one.x - 4) / STEP.0, (one.y - 4) / STEP.1))
        };
        assert_eq!((place("build"), place("lint")), (Some((0, 0)), Some((0, 1))));
        assert_eq!((place("test"), place("pack"), place("publish")), (Some((1, 0)), Some((2, 0)), Some((3, 0))));
        assert_eq!(graph.edges.len(), 4, "that publish needs build is implied");
        let passing: Vec<_> = graph.edges.iter().filter(|path| path.matches('H').count() == 2).collect();
        assert_eq!(passing.len(), 1, "from lint to publish");
        let row = 4 + STEP.1 + BOX.1 / 2;
        assert!(passing.iter().all(|path| path.contains(&format!("{} {row}H", 4 + STEP.0))), "{passing:?}");
        assert_eq!(short(&"ä".repeat(30), LETTERS).chars().count(), LETTERS);
    }
}
