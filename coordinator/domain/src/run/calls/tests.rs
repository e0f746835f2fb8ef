//! What a run does with the workflows it calls.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use workflow::{
    dialect::{
        call_graph::{CallGraph, CalledFiles, GraphBuild},
        workflow_ref::{RemoteRepository, WorkflowRef},
    },
    plan::{Conclusion::*, Dialect},
};

use super::super::{testing::*, *};

const TOP: &str = ".github/workflows/ci.yml";
const INNER: &str = "
on: {workflow_call: {inputs: {n: {type: number, default: 7}}, secrets: {key: {}}, outputs: {o: {value: '${{ jobs.build.outputs.o }} of ${{ inputs.n }}'}}}}
env: {WHERE: inner}
jobs:
  build: {runs-on: x, outputs: {o: '${{ steps.s.outputs.o }}'}}
  test: {runs-on: x, needs: build}
";

/// Text of [`TOP`] with what it calls.
fn graph(text: &str, known: &CalledFiles) -> CallGraph {
    match Dialect::default().load(TOP, text, known) {
        GraphBuild::Done(Some(graph), _) => *graph,
        other => panic!("{other:?}"),
    }
}

/// A run of `jobs:` as written, with `b.yml` and `c.yml` to be called.
fn run_of(jobs: &str, b: &str, c: &str) -> TestRun {
    let known =
        |name: &str, text: &str| (WorkflowRef::local(&format!(".github/workflows/{name}.yml")), Ok(text.to_owned()));
    let known = CalledFiles::from([known("b", b), known("c", c)]);
    let text = format!("on: push\nenv: {{WHERE: top}}\njobs:\n{jobs}");
    let graph = graph(&text, &known);
    let planned = Planned { plan: graph.plan, called: graph.called, ..planned(Vec::new()) };
    TestRun::under(RunRules::default(), true, planned)
}

const CALLS: &str =
    "  a: {uses: ./.github/workflows/b.yml, with: {n: 3}, secrets: inherit}\n  z: {runs-on: x, needs: a}\n";

fn give(run: &mut TestRun, job: &str, name: &str, value: &str) {
    let attempt = run.accept(job, "w1");
    let mut report = report(Success, None);
    report.outputs.insert(name.into(), value.into());
    run.finish(job, attempt, report);
}

#[test]
fn a_called_workflows_jobs_are_jobs_of_the_run() {
    let mut run = run_of(CALLS, INNER, INNER);
    assert_eq!(run.jobs(), "a/build=queued a/test=blocked z=blocked");
    assert_eq!(run.state.jobs["a/test"].name, "a / test");
    give(&mut run, "a/build", "o", "five");
    assert_eq!(run.jobs(), "a/build=success a/test=queued z=blocked");
    run.run("a/test", Success);
    assert_eq!(run.jobs(), "a/build=success a/test=success z=queued");
    let order = order(&run.state, &"z".into()).unwrap();
    assert_eq!(order.contexts["needs"]["a"], json!({"result": "success", "outputs": {"o": "five of 3"}}));
    run.run("z", Success);
    assert_eq!(run.ended(), "success 0");
    assert_eq!(run.state.needed_by(&"z".into()), ["a/build", "a/test"]);
}

#[test]
fn a_called_job_starts_after_what_its_caller_needs() {
    let mut run = run_of("  y: {runs-on: x}\n  a: {needs: y, uses: ./.github/workflows/b.yml}\n", INNER, INNER);
    assert_eq!(run.jobs(), "y=queued a=blocked");
    run.run("y", Success);
    assert_eq!(
        (run.state.needed_by(&"a/build".into()), run.state.needed_by(&"a/test".into())),
        (vec![&"y".into()], vec![&"a/build".into()])
    );
}

#[test]
fn a_called_job_sees_its_own_files_inputs_and_environment_and_the_runs_event() {
    let mut planned = Arc::unwrap_or_clone(run_of(CALLS, INNER, INNER).state.planned.unwrap());
    planned.context.insert("event_name".into(), "push".into());
    planned.inputs.insert("n".into(), "of the run".into());
    let run = TestRun::under(RunRules::default(), false, planned);
    let order = order(&run.state, &"a/build".into()).unwrap();
    assert_eq!((order.id.as_str(), order.key.as_str(), order.name.as_str()), ("build", "a/build", "a / build"));
    assert_eq!(order.contexts["inputs"], json!({"n": 3}));
    assert_eq!(order.contexts["github"], json!({"event_name": "push", "job": "build"}));
    assert_eq!(serde_json::to_value(&order.workflow_env).unwrap(), json!({"WHERE": "inner"}));
}

/// GitHub docs, "Contexts reference": the properties of `job`.
#[test]
fn a_job_is_told_which_file_it_stands_in_and_a_number_of_its_own() {
    let remote = "o/r/.github/workflows/b.yml@v1";
    let own = WorkflowRef::local(".github/workflows/b.yml");
    let other = RemoteRepository { repository: "o/r".into(), reference: "v1".into() };
    let known = CalledFiles::from([
        (own.clone(), Ok(INNER.to_owned())),
        (WorkflowRef::local(".github/workflows/d.yml"), Ok(INNER.to_owned())),
        (WorkflowRef { remote: Some(other), ..own }, Ok(INNER.to_owned())),
    ]);
    let text = format!(
        "on: push\njobs:\n  z: {{runs-on: x}}\n  a: {{uses: ./.github/workflows/b.yml}}\n  d: {{uses: \
         ./.github/workflows/d.yml}}\n  r: {{uses: {remote}}}\n"
    );
    let graph = graph(&text, &known);
    let definition = DefinitionOverride {
        path: ".github/workflows/d.yml".into(),
        event: "d".repeat(64),
        author: "a".repeat(64),
        sha256: String::new(),
        replaces: false,
    };
    let mut planned = Planned { plan: graph.plan, called: graph.called, ..planned(Vec::new()) };
    planned.context.insert("repository".into(), "npub1x/demo".into());
    planned.origins.insert("o/r@v1".into(), "5".repeat(40));
    planned.definitions.push(definition);
    let run = TestRun::under(RunRules::default(), true, planned);
    let told = |key: &str| order(&run.state, &key.into()).unwrap().contexts["job"].clone();
    let (commit, definition) = ("c".repeat(40), "d".repeat(64));
    for (key, reference, sha, repository, path) in [
        ("z", "npub1x/demo/.github/workflows/ci.yml@refs/heads/main", &commit, "npub1x/demo", TOP),
        (
            "a/build",
            "npub1x/demo/.github/workflows/b.yml@refs/heads/main",
            &commit,
            "npub1x/demo",
            ".github/workflows/b.yml",
        ),
        (
            "d/build",
            &format!("npub1x/demo/.github/workflows/d.yml@nostr:{definition}"),
            &definition,
            "npub1x/demo",
            ".github/workflows/d.yml",
        ),
        ("r/build", remote, &"5".repeat(40), "o/r", ".github/workflows/b.yml"),
    ] {
        let mut job = told(key);
        let number = job.as_object_mut().unwrap().remove("check_run_id").unwrap();
        let expected = json!({
            "workflow_ref": reference, "workflow_sha": sha, "workflow_repository": repository, "workflow_file_path": path,
        });
        assert_eq!(job, expected, "{key}");
        assert!(number.as_u64().is_some_and(|number| number > 0 && number < 1 << 53), "{key}: {number}");
        assert_eq!(number, told(key)["check_run_id"]);
    }
    let numbers: std::collections::BTreeSet<u64> =
        run.state.jobs.keys().filter_map(|key| told(key.as_str())["check_run_id"].as_u64()).collect();
    assert_eq!(numbers.len(), run.state.jobs.len());
}

#[test]
fn a_failed_call_fails_its_caller_and_skips_what_needs_it() {
    let mut run = run_of(
        "  a: {uses: ./.github/workflows/b.yml}\n  z: {runs-on: x, needs: a}\n  y: {runs-on: x, needs: a, if: 'failure() && needs.a.result == ''failure'''}\n",
        INNER,
        INNER,
    );
    run.run("a/build", Failure);
    assert_eq!(run.jobs(), "a/build=failure a/test=skipped z=skipped y=queued");
    run.run("y", Success);
    assert_eq!(run.ended(), "failure 3");
}

#[test]
fn a_caller_that_is_skipped_is_one_job_and_has_no_outputs() {
    let mut run = run_of(
        "  a: {uses: ./.github/workflows/b.yml, if: false}\n  z: {runs-on: x, needs: a}\n  y: {runs-on: x, needs: a, if: always()}\n",
        INNER,
        INNER,
    );
    assert_eq!(run.jobs(), "a=skipped z=skipped y=queued");
    let order = order(&run.state, &"y".into()).unwrap();
    assert_eq!(order.contexts["needs"]["a"], json!({"result": "skipped", "outputs": {}}));
    run.run("y", Success);
    assert_eq!(run.ended(), "success 0");
}

#[test]
fn calls_nest_and_inputs_and_outputs_go_through_every_level() {
    let middle = "
on: {workflow_call: {inputs: {m: {type: number}}, outputs: {up: {value: '<${{ jobs.deep.outputs.o }}>'}}}}
jobs: {deep: {name: Deep, uses: ./.github/workflows/c.yml, with: {n: '${{ inputs.m }}'}}}
";
    let mut run =
        run_of("  a: {uses: ./.github/workflows/b.yml, with: {m: 9}}\n  z: {runs-on: x, needs: a}\n", middle, INNER);
    assert_eq!(run.jobs(), "a/deep/build=queued a/deep/test=blocked z=blocked");
    assert_eq!(run.state.jobs["a/deep/build"].name, "a / Deep / build");
    give(&mut run, "a/deep/build", "o", "x");
    run.run("a/deep/test", Success);
    let order = order(&run.state, &"z".into()).unwrap();
    assert_eq!(order.contexts["needs"]["a"]["outputs"], json!({"up": "<x of 9>"}));
}

#[test]
fn a_matrix_of_calls_has_a_workflow_for_each_leg() {
    let jobs = "  a: {uses: ./.github/workflows/b.yml, with: {n: '${{ matrix.n }}'}, strategy: {matrix: {n: [1, 2]}, max-parallel: 1}}\n  z: {runs-on: x, needs: a}\n";
    let mut run = run_of(jobs, INNER, INNER);
    assert_eq!(run.jobs(), "a/0/build=queued a/0/test=blocked a/1=held z=blocked");
    assert_eq!(run.state.jobs["a/0/build"].name, "a (1) / build");
    assert_eq!(run.state.jobs["a/0/build"].id, "a/build");
    give(&mut run, "a/0/build", "o", "first");
    run.run("a/0/test", Success);
    assert_eq!(run.jobs(), "a/0/build=success a/0/test=success a/1/build=queued a/1/test=blocked z=blocked");
    give(&mut run, "a/1/build", "o", "second");
    run.run("a/1/test", Success);
    let order = order(&run.state, &"z".into()).unwrap();
    assert_eq!(order.contexts["needs"]["a"]["outputs"], json!({"o": "second of 2"}));
}

#[test]
fn one_failed_cell_of_calls_ends_the_others_unless_told_not_to() {
    for (fail_fast, others, stops) in [
        (true, "a/0/build=failure a/0/test=skipped a/1/build=cancelling a/1/test=blocked", vec!["a/1/build/1@w2"]),
        (false, "a/0/build=failure a/0/test=skipped a/1/build=running a/1/test=blocked", vec![]),
    ] {
        let jobs = format!(
            "  a: {{uses: ./.github/workflows/b.yml, strategy: {{matrix: {{n: [1, 2]}}, fail-fast: {fail_fast}}}}}\n"
        );
        let mut run = run_of(&jobs, INNER, INNER);
        run.accept("a/1/build", "w2");
        run.run("a/0/build", Failure);
        assert_eq!(run.jobs(), others);
        assert_eq!(run.stops(), stops);
        let attempt = run.state.jobs["a/1/build"].attempts.len() as u32;
        run.finish("a/1/build", attempt, report(Cancelled, Some(Reason::Cancelled("told".into()))));
        assert!(run.jobs().ends_with("a/1/build=cancelled a/1/test=skipped"), "{}", run.jobs());
        assert_eq!(run.ended(), "failure 3");
    }
}

#[test]
fn a_cancel_reaches_called_jobs_and_leaves_those_that_always_run() {
    let inner = "
on: workflow_call
jobs:
  build: {runs-on: x}
  clean: {runs-on: x, needs: build, if: always()}
";
    let mut run = run_of("  a: {uses: ./.github/workflows/b.yml}\n", inner, INNER);
    let attempt = run.accept("a/build", "w1");
    run.apply(RunEvent::Cancel { by: "somebody".into() }).unwrap();
    assert_eq!(run.jobs(), "a/build=cancelling a/clean=blocked");
    run.finish("a/build", attempt, report(Cancelled, Some(Reason::Cancelled("told".into()))));
    assert_eq!(run.jobs(), "a/build=cancelled a/clean=queued");
    run.run("a/clean", Success);
    assert_eq!(run.ended(), "cancelled 130");
}

#[test]
fn an_input_that_turns_out_wrong_fails_its_caller_with_the_reason() {
    let jobs = "  first: {runs-on: x, outputs: {n: x}}\n  a: {needs: first, uses: ./.github/workflows/b.yml, with: {n: '${{ needs.first.outputs.n }}'}}\n";
    let mut run = run_of(jobs, INNER, INNER);
    give(&mut run, "first", "n", "many");
    assert_eq!(run.jobs(), "first=success a=failure");
    let reason = run.end().reason.as_ref().map(ToString::to_string).unwrap();
    assert_eq!(
        reason,
        "jobs.a.with: input \"n\" takes a number, not the text \"many\"; `fromJSON(…)` makes one of text"
    );
}

#[test]
fn a_called_job_has_only_the_secrets_its_caller_hands_on() {
    let middle = |secrets: &str| {
        format!(
            "on: {{workflow_call: {{secrets: {{mine: {{}}}}}}}}\njobs:\n  m: {{uses: ./.github/workflows/c.yml, secrets: {secrets}}}\n  s: {{runs-on: x}}\n"
        )
    };
    let all = || vec![("A".to_owned(), SecretString::from("one")), ("B".to_owned(), SecretString::from("two"))];
    let seen = |run: &TestRun, job: &str| -> Vec<String> {
        let secrets = run.state.secrets_of(&job.into(), all());
        secrets.iter().map(|(name, value)| format!("{name}={}", value.expose_secret())).collect()
    };
    for (outer, inner, expected) in [
        ("", "inherit", [vec![], vec![]]),
        (", secrets: inherit", "inherit", [vec!["A=one", "B=two"], vec!["A=one", "B=two"]]),
        (", secrets: {mine: '${{ secrets.a }}!'}", "inherit", [vec!["mine=one!"], vec!["mine=one!"]]),
        (
            ", secrets: {mine: '${{ secrets.b }}'}",
            "{key: '${{ secrets.mine }}${{ secrets.a }}'}",
            [vec!["mine=two"], vec!["key=two"]],
        ),
        (", secrets: {mine: '${{ secrets.none }}'}", "inherit", [vec![], vec![]]),
    ] {
        let jobs = format!("  t: {{runs-on: x}}\n  a: {{uses: ./.github/workflows/b.yml{outer}}}\n");
        let run = run_of(&jobs, &middle(inner), INNER);
        assert_eq!(seen(&run, "t"), ["A=one", "B=two"]);
        assert_eq!([seen(&run, "a/s"), seen(&run, "a/m/build")], expected, "{outer} {inner}");
    }
}

#[test]
fn a_called_job_may_be_handed_the_token_of_its_own() {
    let middle = |secrets: &str| {
        format!(
            "on: {{workflow_call: {{secrets: {{mine: {{}}}}}}}}\njobs:\n  m: {{uses: ./.github/workflows/c.yml, secrets: {secrets}}}\n  s: {{runs-on: x}}\n"
        )
    };
    for (outer, inner, expected) in [
        ("", "inherit", [vec![], vec![]]),
        (", secrets: inherit", "inherit", [vec!["GITHUB_TOKEN"], vec!["GITHUB_TOKEN"]]),
        (", secrets: {mine: '${{ secrets.github_token }}'}", "inherit", [vec!["mine"], vec!["mine"]]),
        (
            ", secrets: {mine: '${{ secrets.GITHUB_TOKEN }}'}",
            "{key: '${{ secrets.mine }}'}",
            [vec!["mine"], vec!["key"]],
        ),
        (", secrets: {mine: '${{ secrets.OTHER || secrets.GITHUB_TOKEN }}'}", "inherit", [vec!["mine"], vec!["mine"]]),
        (", secrets: {mine: 'x ${{ secrets.GITHUB_TOKEN }}'}", "inherit", [vec![], vec![]]),
    ] {
        let jobs = format!("  t: {{runs-on: x}}\n  a: {{uses: ./.github/workflows/b.yml{outer}}}\n");
        let run = run_of(&jobs, &middle(inner), INNER);
        assert!(run.state.token_secrets(&"t".into()).is_empty());
        let seen = ["a/s", "a/m/build"].map(|job| run.state.token_secrets(&job.into()));
        assert_eq!(seen, expected, "{outer} {inner}");
    }
}

#[test]
fn a_call_holds_its_concurrency_group_until_its_jobs_have_ended() {
    let jobs = "  a: {uses: ./.github/workflows/b.yml, concurrency: g}\n";
    let mut run = run_of(jobs, INNER, INNER);
    assert_eq!(run.jobs(), "a=waiting");
    run.apply(RunEvent::Granted { job: Some("a".into()) }).unwrap();
    assert_eq!(run.jobs(), "a/build=queued a/test=blocked");
    let left = |run: &TestRun| run.effects.iter().any(|effect| matches!(effect, RunEffect::Leave { .. }));
    run.run("a/build", Success);
    assert!(!left(&run));
    run.run("a/test", Success);
    assert!(left(&run));
}

#[test]
fn a_call_gives_way_with_all_its_jobs() {
    let mut run = run_of("  a: {uses: ./.github/workflows/b.yml, concurrency: g}\n", INNER, INNER);
    run.apply(RunEvent::Granted { job: Some("a".into()) }).unwrap();
    run.apply(RunEvent::Preempted { job: "a".into(), to: "run 2".into() }).unwrap();
    assert_eq!(run.jobs(), "a/build=cancelled a/test=skipped");
    assert_eq!(run.end().conclusion, Cancelled);
}

#[test]
fn a_job_in_a_call_does_not_wait_for_the_group_that_the_call_holds() {
    let inner = "on: workflow_call\njobs: {build: {runs-on: x, concurrency: G}}\n";
    let mut run = run_of("  a: {uses: ./.github/workflows/b.yml, concurrency: g}\n", inner, INNER);
    run.apply(RunEvent::Granted { job: Some("a".into()) }).unwrap();
    assert_eq!(run.jobs(), "a/build=cancelled");
}

#[test]
fn attack_07_matrices_of_all_jobs_together_make_no_more_jobs_than_a_run_may_have() {
    let jobs: String = (0..20)
        .map(|job| format!("  j{job}: {{runs-on: x, strategy: {{matrix: {{a: [{}]}}}}}}\n", numbers(0..256)))
        .collect();
    let run = run_of(&jobs, INNER, INNER);
    let over = run.state.jobs.values().filter(|job| job.conclusion() == Some(Failure)).count();
    assert!(run.state.jobs.len() <= 4096 && over >= 4, "{} jobs, {over} failed", run.state.jobs.len());
    let failed = run.state.jobs.values().find(|job| job.conclusion() == Some(Failure)).unwrap();
    let JobPhase::Done { reason: Some(workflow::plan::Reason::Invalid(reason)), .. } = &failed.phase else {
        panic!("{:?}", failed.phase)
    };
    assert!(reason.contains("strategy: the run would have more than 4096 jobs"), "{reason}");
}

#[test]
fn attack_08_values_of_all_cells_and_calls_of_a_run_are_bounded() {
    let large = "x".repeat(100_000);
    let cells: String = (0..8)
        .map(|job| {
            format!(
                "  j{job}: {{runs-on: x, strategy: {{matrix: {{a: [1, 2, 3, 4, 5, 6, 7, 8], b: [\"{large}\"]}}}}}}\n"
            )
        })
        .collect();
    let inner = "on: {workflow_call: {inputs: {n: {type: string}}}}\njobs: {t: {runs-on: x}}\n";
    // A text with an expression in it has less than 21,000 characters.
    let large = &large[..20_000];
    let calls: String = (0..40)
        .map(|job| {
            let with = format!("with: {{n: '{large}${{{{matrix.a}}}}'}}");
            format!(
                "  j{job}: {{uses: ./.github/workflows/b.yml, strategy: {{matrix: {{a: [1, 2, 3, 4, 5, 6, 7, 8]}}}}, {with}}}\n"
            )
        })
        .collect();
    for (what, jobs) in [("cells", cells), ("inputs", calls)] {
        let run = run_of(&jobs, inner, INNER);
        let size = serde_json::to_string(&run.state.jobs).unwrap().len()
            + serde_json::to_string(&run.state.calls).unwrap().len();
        assert!(size < 7_000_000, "{what}: {size}");
        let failed = run.state.jobs.values().filter(|job| job.conclusion() == Some(Failure)).count();
        assert!(failed > 0, "{what}");
    }
}

fn numbers(of: std::ops::Range<usize>) -> String {
    of.map(|number| number.to_string()).collect::<Vec<_>>().join(",")
}

#[test]
fn attack_08_jobs_that_need_each_other_in_the_reverse_order_are_settled_in_little_time() {
    let job = |number: usize| {
        let needs: Vec<_> = (number + 1..(number + 11).min(900)).map(|need| format!("j{need}")).collect();
        format!("  j{number}: {{runs-on: x, if: '{}', needs: [{}]}}\n", number < 899, needs.join(","))
    };
    let jobs: String = (0..900).map(job).collect();
    let begun = std::time::Instant::now();
    let run = run_of(&jobs, INNER, INNER);
    assert!(run.state.jobs.values().all(|job| job.conclusion() == Some(Skipped)));
    assert!(begun.elapsed() < std::time::Duration::from_secs(60), "{:?}", begun.elapsed());
}

#[test]
fn attack_08_expressions_of_all_jobs_together_have_a_budget_for_each_event() {
    let big: Vec<_> = (0..600).map(|number| format!("éééééé{number}")).collect();
    let matrix = format!("{{i: [{}], big: [[{}]]}}", numbers(0..10), big.join(","));
    let dear = vec!["contains(matrix.big,'ÉÉÉÉÉÉx')"; 250].join(" || ");
    let jobs: String = (0..10)
        .map(|job| {
            let runs_on = format!("${{{{ ({dear}) && 'a' || 'b' }}}}");
            format!("  j{job}: {{strategy: {{fail-fast: false, matrix: {matrix}}}, runs-on: \"{runs_on}\"}}\n")
        })
        .collect();
    let run = run_of(&jobs, INNER, INNER);
    let failed: Vec<_> = run
        .state
        .jobs
        .values()
        .filter_map(|job| match &job.phase {
            JobPhase::Done { reason: Some(workflow::plan::Reason::Invalid(reason)), .. } => Some(reason),
            _ => None,
        })
        .collect();
    let queued = run.state.jobs.values().filter(|job| matches!(job.phase, JobPhase::Queued { .. })).count();
    assert!(queued >= 1 && failed.len() >= 8, "{queued} queued, {failed:?}");
    assert!(failed.iter().all(|reason| reason.contains("take too much together")), "{failed:?}");
}
