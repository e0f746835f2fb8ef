//! A workflow and all workflows it calls, at any depth: which files are needed, and whether callers and called agree.

use std::collections::{HashMap, HashSet, VecDeque};

use indexmap::IndexMap;

use crate::diagnostic::{self, Diagnostic};
use crate::dialect::call_graph::{CallGraph, CalledFiles, GraphBuild, UnavailableFile};
use crate::dialect::workflow_ref::WorkflowRef;
use crate::plan::{JobContent, Plan};
use crate::yaml::{Span, YamlLimits, YamlNode, YamlValue};

use super::permissions::{DefaultPermissions, Permissions};
use super::report::Report;
use super::{call, read, workflow_ref};

/// How large a call graph may be (GitHub docs: "Reuse workflows", limitations).
#[derive(Debug, Clone, Copy)]
pub struct CallGraphLimits {
    /// Files in a chain of calls, the first included.
    pub levels: usize,
    /// Called files.
    pub files: usize,
    /// Jobs of all workflows, each as often as it is called, its callers included.
    pub jobs: usize,
    /// YamlLimits of one file.
    pub file: YamlLimits,
    /// Bytes and YAML nodes of all files together.
    pub all: (usize, usize),
    /// Permissions where none are written.
    pub permissions: DefaultPermissions,
}

/// GitHub's limits. It names none for jobs; this one keeps chains of calls from growing exponentially.
pub const CALL_GRAPH_LIMITS: CallGraphLimits = CallGraphLimits {
    levels: 10,
    files: 50,
    jobs: 1024,
    file: super::LIMITS,
    all: (2 << 20, 200_000),
    permissions: DefaultPermissions::Permissive,
};

/// Reads a workflow file and the called files that are known. Call it again with the files it needs until it is done:
/// each round needs at least one new file, and all rounds together at most [`CallGraphLimits::files`].
pub fn build(path: &str, text: &str, called: &CalledFiles, limits: CallGraphLimits) -> GraphBuild {
    let mut builder = Builder { limits, called, files: IndexMap::new(), diagnostics: Vec::new(), left: limits.all };
    let missing = builder.all(WorkflowRef::local(path), text);
    if !builder.failed() {
        if !missing.is_empty() {
            return GraphBuild::NeedsFiles(missing);
        }
        builder.check_calls();
    }
    let graph = if builder.failed() { None } else { builder.graph().map(Box::new) };
    GraphBuild::Done(graph, builder.diagnostics)
}

struct Builder<'a> {
    limits: CallGraphLimits,
    called: &'a CalledFiles,
    /// The first one is the workflow itself.
    files: IndexMap<WorkflowRef, File<'a>>,
    diagnostics: Vec<Diagnostic>,
    /// Bytes and nodes that the files may still have.
    left: (usize, usize),
}

struct File<'a> {
    text: &'a str,
    root: Option<YamlNode>,
    plan: Plan,
    /// Workflows that jobs call, by the job's id.
    calls: IndexMap<String, WorkflowRef>,
}

impl<'a> Builder<'a> {
    fn failed(&self) -> bool {
        diagnostic::has_errors(&self.diagnostics)
    }

    /// Reads level by level, and returns the files whose text is not known yet.
    fn all(&mut self, first: WorkflowRef, text: &'a str) -> Vec<WorkflowRef> {
        let called = self.called;
        let mut missing = Vec::new();
        let mut seen = HashSet::from([first.clone()]);
        let mut waiting = VecDeque::from([(first, text, 1)]);
        while let Some((place, text, level)) = waiting.pop_front() {
            let Some(mut file) = self.file(&place, text) else { continue };
            let mut report = Report::new(&file.plan.path, text);
            for (id, uses) in callers(file.root.as_ref()) {
                let written = uses.text().unwrap_or_default();
                let target = match workflow_ref::resolve(&place, written) {
                    Ok(target) => target,
                    Err(why) => {
                        report.error(uses.span, why);
                        continue;
                    }
                };
                file.calls.insert(id.to_owned(), target.clone());
                if level >= self.limits.levels {
                    report.error(uses.span, too_deep(self.limits.levels));
                } else if seen.insert(target.clone()) {
                    if seen.len() > self.limits.files + 1 {
                        report.error(uses.span, format!("more than {} workflows are called", self.limits.files));
                        break;
                    }
                    match called.get(&target) {
                        Some(Ok(text)) => waiting.push_back((target, text, level + 1)),
                        Some(Err(UnavailableFile::Missing(why))) => {
                            report.error(uses.span, format!("`{written}`: {why}"))
                        }
                        Some(Err(UnavailableFile::Skipped(why))) => {
                            report.warning(uses.span, format!("`{written}` is not followed: {why}"));
                        }
                        None => missing.push(target),
                    }
                }
            }
            self.diagnostics.extend(report.finish());
            self.files.insert(place, file);
        }
        missing
    }

    fn file(&mut self, place: &WorkflowRef, text: &'a str) -> Option<File<'a>> {
        let path = place.to_string();
        let mut too_much = |what: &str| {
            let mut report = Report::new(&path, text);
            report.error(Span { line: 1, column: 1, ..Span::default() }, format!(
                "this workflow and those before it that are called have more than {what} together: call fewer, or smaller ones"
            ));
            self.diagnostics.extend(report.finish());
        };
        let (bytes, nodes) = self.left;
        let Some(bytes) = bytes.checked_sub(text.len()) else {
            too_much(&format!("{} MiB", self.limits.all.0 >> 20));
            return None;
        };
        let (root, plan, diagnostics) = read(&path, text, self.limits.file);
        let Some(nodes) = nodes.checked_sub(root.as_ref().map_or(0, number)) else {
            too_much(&format!("{} YAML nodes", self.limits.all.1));
            return None;
        };
        self.left = (bytes, nodes);
        self.diagnostics.extend(diagnostics);
        Some(File { text, root, plan: plan?, calls: IndexMap::new() })
    }

    /// Checks callers against the workflows they call.
    fn check_calls(&mut self) {
        let order = self.order();
        let mut found = Vec::new();
        for file in self.files.values() {
            let mut report = Report::new(&file.plan.path, file.text);
            for (id, job) in jobs(file.root.as_ref()) {
                let called = file.calls.get(id).and_then(|place| self.files.get(place));
                if let (Some(uses), Some(called)) = (job.get("uses"), called) {
                    call::check(job, uses, &called.plan, &mut report);
                }
            }
            found.extend(report.finish());
        }
        self.diagnostics.extend(found);
        if let Some(order) = order.filter(|_| !self.failed()) {
            self.measure(&order);
            self.permissions();
        }
    }

    /// The files, each after all it calls; `None` where they call each other in a circle.
    fn order(&mut self) -> Option<Vec<usize>> {
        let calls = |file: &File<'_>| -> Vec<usize> {
            file.calls.values().filter_map(|place| self.files.get_index_of(place)).collect()
        };
        let edges: Vec<Vec<usize>> = self.files.values().map(calls).collect();
        match super::rules::cycle(&edges) {
            Some(circle) => {
                let names: Vec<String> = circle
                    .iter()
                    .filter_map(|at| self.files.get_index(*at))
                    .map(|(place, _)| place.to_string())
                    .collect();
                let first = circle.first().and_then(|at| self.files.get_index(*at)).map(|(_, file)| file);
                let next = circle.get(1).and_then(|at| self.files.get_index(*at)).map(|(place, _)| place);
                let caller = first.and_then(|file| file.calls.iter().find(|(_, place)| Some(*place) == next));
                if let (Some(file), Some((id, _))) = (first, caller) {
                    let message = format!("these workflows call each other: {}", names.join(" → "));
                    let found = at_caller(file, id, message);
                    self.diagnostics.extend(found);
                }
                None
            }
            None => {
                let (mut order, mut done) = (Vec::new(), vec![false; edges.len()]);
                // Without circles each pass ends at least one file.
                while order.len() < edges.len() {
                    for (at, targets) in edges.iter().enumerate() {
                        let ready = targets.iter().all(|target| done.get(*target) == Some(&true));
                        if let Some(done) = done.get_mut(at).filter(|done| !**done && ready) {
                            *done = true;
                            order.push(at);
                        }
                    }
                }
                Some(order)
            }
        }
    }

    /// The longest chain and the number of all jobs.
    fn measure(&mut self, order: &[usize]) {
        let mut sizes: HashMap<&WorkflowRef, (usize, usize)> = HashMap::new();
        for (place, file) in order.iter().filter_map(|at| self.files.get_index(*at)) {
            let called = file.calls.values().filter_map(|place| sizes.get(place));
            let (mut levels, mut jobs) = (1, file.plan.jobs.len());
            for (below, more) in called {
                levels = levels.max(below + 1);
                jobs = jobs.saturating_add(*more);
            }
            sizes.insert(place, (levels, jobs));
        }
        let Some((levels, jobs)) = self.files.first().and_then(|(place, _)| sizes.get(place)).copied() else { return };
        let problem = match (levels > self.limits.levels, jobs > self.limits.jobs) {
            (true, _) => too_deep(self.limits.levels),
            (_, true) => format!("the workflow has {jobs} jobs with those it calls; {} are possible", self.limits.jobs),
            _ => return,
        };
        let found = self.files.first().and_then(|(_, file)| {
            let (id, _) = file.calls.first()?;
            Some(at_caller(file, id, problem))
        });
        self.diagnostics.extend(found.into_iter().flatten());
    }

    /// No job may have more permissions than the job that calls its workflow.
    fn permissions(&mut self) {
        let Some((first, _)) = self.files.first() else { return };
        let mut waiting = vec![(first.clone(), Permissions::by_default(self.limits.permissions))];
        let mut seen = HashSet::new();
        let mut found = Vec::new();
        while let Some((place, given)) = waiting.pop() {
            if !seen.insert((place.clone(), given.clone())) {
                continue;
            }
            let Some(file) = self.files.get(&place) else { continue };
            let of_file = file.plan.permissions.as_ref().map(Permissions::written).unwrap_or(given);
            for (id, target) in &file.calls {
                let own = file.plan.jobs.get(id).and_then(|job| job.permissions.as_ref());
                let allowed = own.map_or_else(|| of_file.clone(), Permissions::written);
                let Some(called) = self.files.get(target) else { continue };
                for (who, asked) in permission_requests(&called.plan) {
                    if let Some((asked, allowed)) = asked.beyond(&allowed) {
                        let message = format!("{target}: {who} asks for {asked}, but this job has only {allowed}");
                        found.extend(at_caller(file, id, message));
                    }
                }
                waiting.push((target.clone(), allowed));
            }
        }
        self.diagnostics.extend(found);
    }

    fn graph(&mut self) -> Option<CallGraph> {
        let mut plans = std::mem::take(&mut self.files).into_iter().map(|(place, file)| {
            let mut plan = file.plan;
            for (id, target) in &file.calls {
                if let Some(JobContent::Call { uses, .. }) = plan.jobs.get_mut(id).map(|job| &mut job.work) {
                    *uses = target.to_string();
                }
            }
            (place.to_string(), plan)
        });
        let (_, plan) = plans.next()?;
        Some(CallGraph { plan, called: plans.collect() })
    }
}

fn too_deep(levels: usize) -> String {
    format!("workflows are called more than {levels} levels deep, the first one included")
}

/// Parts of a workflow that request permissions, and the permissions they request.
fn permission_requests(plan: &Plan) -> impl Iterator<Item = (String, Permissions)> {
    let file = plan.permissions.iter().map(|tree| ("the workflow".to_owned(), Permissions::written(tree)));
    let jobs = plan
        .jobs
        .iter()
        .filter_map(|(id, job)| Some((format!("its job `{id}`"), Permissions::written(job.permissions.as_ref()?))));
    file.chain(jobs)
}

fn at_caller(file: &File<'_>, id: &str, message: String) -> Vec<Diagnostic> {
    let mut report = Report::new(&file.plan.path, file.text);
    if let Some((_, uses)) = callers(file.root.as_ref()).find(|(caller, _)| *caller == id) {
        report.error(uses.span, message);
    }
    report.finish()
}

/// Nodes of a tree; an alias counts as what it stands for.
fn number(root: &YamlNode) -> usize {
    let (mut number, mut open) = (0, vec![root]);
    while let Some(node) = open.pop() {
        number += 1;
        match &node.value {
            YamlValue::Scalar(_) => {}
            YamlValue::Sequence(items) | YamlValue::Tagged(_, items) => open.extend(items),
            YamlValue::Mapping(entries) => open.extend(entries.iter().flat_map(|(key, value)| [key, value])),
        }
    }
    number
}

fn jobs(root: Option<&YamlNode>) -> impl Iterator<Item = (&str, &YamlNode)> {
    let jobs = root.and_then(|root| root.get("jobs")).map(YamlNode::entries).unwrap_or_default();
    jobs.iter().filter_map(|(id, job)| Some((id.text()?, job)))
}

fn callers(root: Option<&YamlNode>) -> impl Iterator<Item = (&str, &YamlNode)> {
    jobs(root).filter_map(|(id, job)| Some((id, job.get("uses")?)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::panic)]
mod tests {
    use super::*;

    const CALLED: &str = "on: {workflow_call: {inputs: {n: {type: number, required: true}, s: {type: string}}, secrets: \
                          {key: {required: true}}}}\njobs: {inner: {runs-on: x}}";

    fn caller(keys: &str) -> String {
        format!("on: push\njobs:\n  a:\n    uses: ./.github/workflows/b.yml\n    {}\n", keys.replace('\n', "\n    "))
    }

    fn known(files: &[(&str, &str)]) -> CalledFiles {
        let own = WorkflowRef::local("");
        files.iter().map(|(uses, text)| (workflow_ref::resolve(&own, uses).unwrap(), Ok((*text).to_owned()))).collect()
    }

    fn read(text: &str, files: &[(&str, &str)]) -> Result<CallGraph, Vec<String>> {
        match build(".github/workflows/a.yml", text, &known(files), CALL_GRAPH_LIMITS) {
            GraphBuild::Done(Some(graph), _) => Ok(*graph),
            GraphBuild::Done(None, found) => Err(found.iter().map(ToString::to_string).collect()),
            GraphBuild::NeedsFiles(missing) => panic!("missing: {missing:?}"),
        }
    }

    #[test]
    fn files_are_requested_until_none_is_missing() {
        let top =
            "on: push\njobs:\n  a: {uses: ./.github/workflows/b.yml}\n  z: {uses: o/r/.github/workflows/c.yml@v1}";
        let middle = "on: workflow_call\njobs: {m: {uses: ./.github/workflows/d.yml}}";
        let leaf = "on: workflow_call\njobs: {l: {runs-on: x}}";
        let mut files = Vec::new();
        let mut rounds = Vec::new();
        let graph = loop {
            match build(".github/workflows/a.yml", top, &known(&files), CALL_GRAPH_LIMITS) {
                GraphBuild::NeedsFiles(places) => {
                    let names: Vec<String> = places.iter().map(ToString::to_string).collect();
                    for name in &names {
                        let text = if name.contains("/c.yml") { middle } else { leaf };
                        let uses = if name.contains('@') { name.clone() } else { format!("./{name}") };
                        files.push((String::leak(uses) as &str, text));
                    }
                    rounds.push(names);
                }
                GraphBuild::Done(graph, found) => break graph.unwrap_or_else(|| panic!("{found:?}")),
            }
        };
        assert_eq!(
            rounds,
            [vec![".github/workflows/b.yml", "o/r/.github/workflows/c.yml@v1"], vec!["o/r/.github/workflows/d.yml@v1"]]
        );
        let calls = |plan: &Plan, id: &str| match &plan.jobs[id].work {
            JobContent::Call { uses, .. } => uses.clone(),
            JobContent::Steps(_) => panic!("no call"),
        };
        assert_eq!(graph.called.len(), 3);
        // `./` in a file of another repository means that repository.
        assert_eq!(calls(&graph.called[&calls(&graph.plan, "z")], "m"), "o/r/.github/workflows/d.yml@v1");
    }

    #[test]
    fn inputs_and_secrets_are_held_against_what_is_declared() {
        let files = [("./.github/workflows/b.yml", CALLED)];
        for keys in [
            "with: {n: 1}\nsecrets: inherit",
            "with: {N: '${{ fromJSON(1) }}', s: true}\nsecrets: {KEY: '${{ secrets.other }}'}",
        ] {
            assert!(read(&caller(keys), &files).is_ok(), "{keys}");
        }
        let at = ".github/workflows/a.yml:";
        let b = ".github/workflows/b.yml";
        for (keys, expected) in [
            ("secrets: inherit", format!("{at}4:11: error: {b} needs the input `n`: give it under `with:`")),
            ("with: {n: one}\nsecrets: inherit", format!("{at}5:15: error: the input `n` takes a number")),
            ("with: {n: 1, x: 2}\nsecrets: inherit", format!("{at}5:18: error: {b} declares no input `x`")),
            (
                "with: {n: 1}",
                format!("{at}4:11: error: {b} needs the secret `key`: give it under `secrets:`, or `secrets: inherit`"),
            ),
            ("with: {n: 1}\nsecrets: {key: a, k: b}", format!("{at}6:23: error: {b} declares no secret `k`")),
        ] {
            let found = read(&caller(keys), &files).unwrap_err();
            assert!(found.contains(&expected), "{keys}: {found:?}");
        }
    }

    #[test]
    fn what_can_not_be_called_is_told_where_it_is_called() {
        let uses = "on: push\njobs: {a: {uses: ./.github/workflows/b.yml}}";
        let found = read(uses, &[("./.github/workflows/b.yml", "on: push\njobs: {a: {runs-on: x}}")]).unwrap_err();
        assert_eq!(
            found,
            [".github/workflows/a.yml:2:18: error: .github/workflows/b.yml can't be called by another workflow"]
        );
        let mut known = CalledFiles::new();
        known.insert(
            WorkflowRef::local(".github/workflows/b.yml"),
            Err(UnavailableFile::Missing("there is no such file".into())),
        );
        let GraphBuild::Done(None, found) = build(".github/workflows/a.yml", uses, &known, CALL_GRAPH_LIMITS) else {
            panic!("taken")
        };
        assert!(found[0].to_string().ends_with("`./.github/workflows/b.yml`: there is no such file"), "{found:?}");
        known.insert(
            WorkflowRef::local(".github/workflows/b.yml"),
            Err(UnavailableFile::Skipped("it is far away".into())),
        );
        let GraphBuild::Done(Some(_), found) = build(".github/workflows/a.yml", uses, &known, CALL_GRAPH_LIMITS) else {
            panic!("refused")
        };
        let expected = "2:18: warning: `./.github/workflows/b.yml` is not followed: it is far away";
        assert!(found[0].to_string().ends_with(expected), "{found:?}");
        let mistaken = "on: workflow_call\njobs: {a: {runs-on: x, stepz: []}}";
        let found = read(uses, &[("./.github/workflows/b.yml", mistaken)]).unwrap_err();
        assert_eq!(found, [".github/workflows/b.yml:2:24: error: unknown key `stepz`"]);
    }

    /// `0` calls `1` calls … calls the last, which runs.
    fn chain(levels: usize) -> (String, Vec<(String, String)>) {
        let file = |at: usize| match at + 1 == levels {
            true => "on: workflow_call\njobs: {a: {runs-on: x}}".to_owned(),
            false => format!("on: workflow_call\njobs: {{a: {{uses: ./.github/workflows/{}.yml}}}}", at + 1),
        };
        (file(0), (1..levels).map(|at| (format!("./.github/workflows/{at}.yml"), file(at))).collect())
    }

    #[test]
    fn ten_levels_are_taken_and_no_more() {
        for (levels, taken) in [(10, true), (11, false)] {
            let (top, files) = chain(levels);
            let files: Vec<_> = files.iter().map(|(uses, text)| (uses.as_str(), text.as_str())).collect();
            let read = read(&top, &files);
            assert_eq!(read.is_ok(), taken, "{levels}: {read:?}");
        }
    }

    #[test]
    fn a_chain_is_as_long_as_its_longest_way() {
        let (_, mut files) = chain(10);
        files.push(("./.github/workflows/x.yml".into(), files[0].1.replace("1.yml", "2.yml")));
        let top = "on: push\njobs: {a: {uses: ./.github/workflows/9.yml}, b: {uses: ./.github/workflows/1.yml}}";
        let refs: Vec<_> = files.iter().map(|(uses, text)| (uses.as_str(), text.as_str())).collect();
        assert!(read(top, &refs).is_ok());
        let over = "on: workflow_call\njobs: {a: {uses: ./.github/workflows/1.yml}}";
        let mut refs = refs;
        refs.push(("./.github/workflows/0.yml", over));
        // `9.yml` is known at the second level, and lies at the eleventh.
        let top = "on: push\njobs: {a: {uses: ./.github/workflows/9.yml}, b: {uses: ./.github/workflows/0.yml}}";
        assert!(read(top, &refs).unwrap_err()[0].contains("more than 10 levels deep"));
    }

    #[test]
    fn attack_08_called_workflows_have_a_size_together() {
        let calls: String = (0..20).map(|at| format!("  j{at}: {{uses: ./.github/workflows/f{at}.yml}}\n")).collect();
        let top = format!("on: push\njobs:\n{calls}");
        let large = format!("# {}\non: workflow_call\njobs: {{a: {{runs-on: x}}}}", "x".repeat(150_000));
        let keys: String = (0..6000).map(|key| format!("K{key}: x, ")).collect();
        let many = format!("on: workflow_call\nenv: {{{keys}}}\njobs: {{a: {{runs-on: x}}}}");
        for (text, what) in [(&large, "more than 2 MiB together"), (&many, "more than 200000 YAML nodes together")] {
            let names: Vec<_> = (0..20).map(|at| format!("./.github/workflows/f{at}.yml")).collect();
            let files: Vec<_> = names.iter().map(|name| (name.as_str(), text.as_str())).collect();
            let found = read(&top, &files).unwrap_err();
            assert!(found.iter().any(|problem| problem.contains(what)), "{found:?}");
        }
    }

    #[test]
    fn attack_08_calls_in_circles_and_bombs_of_calls_end_before_any_job_runs() {
        let circle = "on: workflow_call\njobs: {a: {uses: ./.github/workflows/b.yml}}";
        let found = read(circle, &[("./.github/workflows/b.yml", circle)]).unwrap_err();
        assert!(found[0].contains("these workflows call each other"), "{found:?}");

        let many = |count: usize| {
            let jobs: String =
                (0..count).map(|at| format!("  j{at}: {{uses: ./.github/workflows/f{at}.yml}}\n")).collect();
            format!("on: push\njobs:\n{jobs}")
        };
        let leaf = "on: workflow_call\njobs: {a: {runs-on: x}}";
        for (count, taken) in [(50, true), (51, false)] {
            let names: Vec<_> = (0..count).map(|at| format!("./.github/workflows/f{at}.yml")).collect();
            let files: Vec<_> = names.iter().map(|name| (name.as_str(), leaf)).collect();
            assert_eq!(read(&many(count), &files).is_ok(), taken, "{count}");
        }

        let wide = |next: &str| {
            let jobs: String =
                (0..20).map(|at| format!("  j{at}: {{uses: ./.github/workflows/{next}.yml}}\n")).collect();
            format!("on: workflow_call\njobs:\n{jobs}")
        };
        let files = [
            ("./.github/workflows/b.yml", wide("c")),
            ("./.github/workflows/c.yml", wide("d")),
            ("./.github/workflows/d.yml", leaf.to_owned()),
        ];
        let files: Vec<_> = files.iter().map(|(uses, text)| (*uses, text.as_str())).collect();
        assert!(read(&wide("b"), &files).unwrap_err()[0].contains("1024 are possible"));
    }

    #[test]
    fn permissions_are_never_raised_by_a_call() {
        let called = "on: workflow_call\njobs: {a: {runs-on: x, permissions: {contents: write}}}";
        for (permissions, taken) in
            [("write-all", true), ("{contents: write}", true), ("read-all", false), ("{issues: write}", false)]
        {
            let top = format!("on: push\npermissions: {permissions}\njobs: {{a: {{uses: ./.github/workflows/b.yml}}}}");
            let read = read(&top, &[("./.github/workflows/b.yml", called)]);
            assert_eq!(read.is_ok(), taken, "{permissions}: {read:?}");
        }
    }
}
