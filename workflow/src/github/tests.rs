//! What is taken, what is refused, and what authors are told.

#![allow(clippy::unwrap_used, clippy::panic)]

use proptest::prelude::*;

use super::*;
use crate::diagnostic::{Colour, Severity, render};
use crate::expression::{EvaluationLimits as Cost, NoHostFunctions, Object, Scope};
use crate::plan::{ControlAction, JobContent, StepAction, StepEntry};

/// The plan of a file that has no mistakes.
pub(super) fn plan_of(text: &str) -> Plan {
    let (plan, diagnostics) = parse("ci.yml", text);
    plan.unwrap_or_else(|| panic!("refused: {diagnostics:?}"))
}

/// The first job of such a file.
pub(super) fn job_of(keys: &str) -> crate::plan::Job {
    let text = format!("on: push\njobs:\n  a:\n    {}\n", keys.replace('\n', "\n    "));
    plan_of(&text).jobs.into_iter().map(|(_, job)| job).next().unwrap()
}

/// Evaluates with these contexts, given as JSON.
pub(super) fn with_contexts<T>(contexts: &serde_json::Value, then: impl FnOnce(&Scope<'_>) -> T) -> T {
    let entries = contexts.as_object().into_iter().flatten();
    let contexts: Object =
        entries.map(|(name, value)| (name.as_str(), crate::expression::Value::from_json(value))).collect();
    then(&Scope { contexts: &contexts, functions: &NoHostFunctions, limits: Cost::default() })
}

fn messages(text: &str) -> Vec<String> {
    parse("ci.yml", text).1.iter().map(ToString::to_string).collect()
}

/// actions/runner, `MatrixBuilder.cs`: what it refuses where no expression stands in the way.
#[test]
fn filters_of_a_matrix_that_can_never_be_right_are_refused_at_their_place() {
    let found = |matrix: &str| {
        let text = format!(
            "on: push\njobs:\n  a:\n    runs-on: x\n    strategy:\n      matrix: {matrix}\n    steps: [{{run: x}}]"
        );
        messages(&text)
    };
    for (matrix, expected) in [
        (
            "{os: [l, m], exclude: [{arch: arm}]}",
            "ci.yml:6:39: error: `matrix.exclude` names `arch`, which is no key of the matrix",
        ),
        ("{os: [l], exclude: [{}]}", "ci.yml:6:35: error: an item of `matrix.exclude` is empty"),
        ("{os: [l], include: [{}]}", "ci.yml:6:35: error: an item of `matrix.include` is empty"),
        ("{}", "ci.yml:6:15: error: the matrix has no combination"),
        ("{include: []}", "ci.yml:6:15: error: the matrix has no combination"),
        ("{exclude: [{os: l}]}", "ci.yml:6:27: error: `matrix.exclude` names `os`"),
    ] {
        let all = found(matrix);
        assert!(all.iter().any(|one| one.starts_with(expected)), "{matrix}: {all:?}");
    }
    for matrix in [
        "{OS: [l, m], exclude: [{os: l}]}",
        "{os: '${{ fromJSON(vars.L) }}', exclude: [{arch: x}]}",
        "{include: [{a: 1}]}",
    ] {
        assert_eq!(found(matrix), Vec::<String>::new(), "{matrix}");
    }
}

#[test]
fn actions_and_workflows_of_the_same_repository_are_named_without_a_version() {
    let step = |uses: &str| messages(&format!("on: push\njobs: {{a: {{runs-on: x, steps: [{{uses: {uses}}}]}}}}"));
    let call = |uses: &str| messages(&format!("on: push\njobs: {{a: {{uses: {uses}}}}}"));
    for uses in ["$/tools/greet", "$//tools/greet"] {
        assert_eq!(step(uses), Vec::<String>::new(), "{uses}");
    }
    assert_eq!(call("$/.github/workflows/b.yml"), Vec::<String>::new());
    for (found, part) in [
        (step("$/tools/greet@v1"), "can't name a version"),
        (step("$/"), "names nothing"),
        (call("$/.github/workflows/b.yml@v1"), "can't name a version"),
    ] {
        assert!(found.len() == 1 && found[0].contains(part), "{found:?}");
    }
}

/// actions/runner, `TemplateReader.ParseScalar`: it is that text before anything is checked.
#[test]
fn an_expression_that_is_one_text_is_that_text() {
    let plan = plan_of(
        "name: ${{ 'Nightly' }}\non: push\ndefaults: {run: {shell: \"${{ 'bash -x {0}' }}\"}}\njobs:\n  first: {runs-on: x, steps: \
         [{id: \"${{ 'say' }}\", run: echo}]}\n  second:\n    needs: ${{ 'first' }}\n    runs-on: x\n    steps:\n      - if: ${{ 'false' }}\n        \
         run: x\n      - if: ${{ '' }}\n        run: x\n",
    );
    assert_eq!((plan.name.as_str(), plan.defaults.shell.as_deref()), ("Nightly", Some("bash -x {0}")));
    assert_eq!(plan.jobs["second"].needs, ["first"]);
    let JobContent::Steps(steps) = &plan.jobs["second"].work else { panic!("a job with steps") };
    let conditions: Vec<_> = steps.iter().filter_map(StepEntry::step).map(|step| step.condition.as_deref()).collect();
    assert_eq!(conditions, [Some("false"), None]);
    let job =
        |keys: &str| messages(&format!("on: push\njobs:\n  a:\n    runs-on: x\n    {keys}\n    steps: [{{run: x}}]"));
    for keys in ["timeout-minutes: ${{ '5' }}", "continue-on-error: ${{ 'true' }}"] {
        assert_eq!(job(keys).len(), 1, "{keys}");
    }
}

/// actions/runner, `YamlObjectReader.AllowLiteral`.
#[test]
fn tags_count_on_scalars_alone() {
    let env = |value: &str| {
        messages(&format!("on: push\nenv: {{K: {value}}}\njobs: {{a: {{runs-on: x, steps: [{{run: x}}]}}}}"))
    };
    for tag in ["!!binary aGVsbG8=", "!own text", "!!timestamp 2001-12-14", "! x"] {
        let found = env(tag);
        assert!(found.len() == 1 && found[0].contains("unexpected tag"), "{tag}: {found:?}");
    }
    for value in ["!!str 5", "!!int 5", "!!null"] {
        assert_eq!(env(value), Vec::<String>::new(), "{value}");
    }
    let list = "on: push\njobs: {a: {runs-on: !own [ubuntu-latest], steps: !!seq [{run: x}]}}";
    assert_eq!(messages(list), Vec::<String>::new());
}

/// actions/runner, `ExpressionConstants.MaxLength`: the limit of a text with expressions is that of one expression.
#[test]
fn a_text_with_expressions_is_as_long_as_an_expression_may_be() {
    let run = |text: &str| messages(&format!("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n      - run: {text}"));
    let words = "x".repeat(20_950);
    assert_eq!(run(&format!("{words} ${{{{ github.sha }}}}")), Vec::<String>::new());
    for text in
        [format!("{words}{words} ${{{{ github.sha }}}}"), format!("x {} ${{{{ github.sha }}}}", "{".repeat(11_000))]
    {
        assert_eq!(run(&text), ["ci.yml:6:14: error: Exceeded max expression length 21000"]);
    }
    assert_eq!(run(&format!("{words}{words}")), Vec::<String>::new());
}

/// actions/runner, `ConvertToJobContainer`; actions/languageservices, `container.ts`.
#[test]
fn a_container_or_service_without_an_image_is_refused() {
    let job =
        |keys: &str| messages(&format!("on: push\njobs:\n  a:\n    runs-on: x\n    {keys}\n    steps: [{{run: x}}]"));
    for keys in [
        "services: {db: {ports: [5432]}}",
        "services: {db: {}}",
        "services: {db: 'docker://'}",
        "services: {db: {image: 'docker://'}}",
        "container: {env: {A: b}}",
        "container: 'docker://'",
    ] {
        let found = job(keys);
        assert!(found.iter().any(|found| found.contains("an image is missing")), "{keys}: {found:?}");
    }
    for keys in ["container: ''", "container:", "container: {image: ''}", "services: {db: {image: '${{ vars.I }}'}}"] {
        assert_eq!(job(keys), Vec::<String>::new(), "{keys}");
    }
}

#[test]
fn every_mistake_of_a_file_is_shown_with_its_line() {
    let text = "\
on: [push, pul_request]
nme: x
jobs:
  a:
    needs: b
    runs-on: ubuntu-latest
    steps:
      - run: echo ${{ secret.X }}
        shel: bash
      - {}
  b:
    needs: [a, ghost]
    steps: 3
";
    let (plan, diagnostics) = parse("ci.yml", text);
    assert_eq!(plan, None);
    insta::assert_snapshot!(render(&diagnostics, text, Colour::Plain));
}

#[test]
fn a_plan_keeps_what_was_written() {
    let plan = plan_of(
        "\
name: CI
on:
  push: {branches: [main]}
  schedule: [{cron: '0 5 * * 1'}]
  workflow_dispatch: {inputs: {level: {type: choice, options: [low, high], default: low}}}
  workflow_call: {outputs: {tag: {value: '${{ jobs.a.outputs.tag }}'}}}
env: {VERSION: 1.10, DEBUG: true, NONE:, SCRIPT: yes}
defaults: {run: {shell: bash}}
concurrency: group-${{ github.ref }}
permissions: read-all
jobs:
  a:
    runs-on: [self-hosted, linux]
    strategy: {matrix: {version: [1.10, '1.10']}, fail-fast: false}
    outputs: {tag: '${{ steps.tag.outputs.tag }}'}
    timeout-minutes: 5
    steps:
      - id: tag
        run: |
          echo one
          echo two
      - uses: actions/checkout@v4
        with: {fetch-depth: 0}
  b:
    needs: A
    if: always()
    uses: ./.github/workflows/x.yml
    with: {count: 3}
    secrets: inherit
",
    );
    insta::assert_json_snapshot!(plan);
}

#[test]
fn mistakes_are_named() {
    let job = |keys: &str| format!("on: push\njobs: {{a: {{runs-on: x, {keys}}}}}");
    for (text, expected) in [
        ("".to_owned(), "ci.yml:1:1: error: the file is empty"),
        ("on: push".to_owned(), "ci.yml:1:1: error: the key `jobs` is missing"),
        ("on: push\njobs: {}".to_owned(), "ci.yml:2:7: error: a workflow needs at least one job"),
        ("a: 1\n---\nb: 2".to_owned(), "ci.yml:3:1: error: a workflow file holds one YAML document"),
        ("on: push\njobs: {a.b: {runs-on: x}}".to_owned(), "ci.yml:2:8: error: `a.b` is no valid id"),
        (
            "on: push\njobs: {__a: {runs-on: x}}".to_owned(),
            "ci.yml:2:8: error: the id `__a` is reserved: it begins with `__`",
        ),
        ("on: push\njobs: {a: {runs-on: x}, A: {runs-on: x}}".to_owned(), "ci.yml:2:25: error: `A` is already there"),
        ("on: push\njobs: {a: {}}".to_owned(), "ci.yml:2:8: error: the key `runs-on` is missing"),
        (job("needs: b"), "ci.yml:2:31: error: `needs` names the job `b`, which is not in this file"),
        (job("needs: a"), "ci.yml:2:8: error: these jobs wait for each other: a → a"),
        (job("timeout-minutes: soon"), "ci.yml:2:41: error: `timeout-minutes` takes a number, not text"),
        (job("if: env.X"), "ci.yml:2:28: error: Unrecognized named-value: 'env'"),
        (job("name: '${{ secrets.X }}'"), "ci.yml:2:35: error: Unrecognized named-value: 'secrets'"),
        (job("strategy: {matrix: {os: []}}"), "ci.yml:2:48: error: the matrix key `os` has no values"),
        (job("steps: [{run: a, uses: b/c@d}]"), "ci.yml:2:33: error: a step has either `run` or `uses`, not both"),
        (job("steps: [{uses: checkout}]"), "ci.yml:2:39: error: `checkout` names no action"),
        (
            job("steps: [{id: a, run: x}, {id: A, run: x}]"),
            "ci.yml:2:54: error: another step of this job has the id `A`",
        ),
        (job("steps: [{run: a, <<: {env: {}}}]"), "ci.yml:2:41: error: GitHub knows no merge keys (`<<`)"),
        (
            job("concurrency: {group: g, queue: max, cancel-in-progress: true}"),
            "ci.yml:2:55: error: `queue: max` and `cancel-in-progress: true` can't be used together",
        ),
        (
            "on: push\nconcurrency: {group: g, cancel-in-progress: true, queue: max}\njobs: {a: {runs-on: x}}"
                .to_owned(),
            "ci.yml:2:58: error: `queue: max` and `cancel-in-progress: true` can't be used together",
        ),
        (job("concurrency: {group: g, queue: all}"), "ci.yml:2:55: error: `all` is no value for `queue`"),
        (job("concurrency: '${{ secrets.X }}'"), "ci.yml:2:42: error: Unrecognized named-value: 'secrets'"),
        (job("permissions: {id-token: read}"), "ci.yml:2:48: error: `read` is no value for `id-token`"),
        (
            "on: {push: {branches: a, branches-ignore: b}}\njobs: {a: {runs-on: x}}".to_owned(),
            "ci.yml:1:26: error: `branches` and `branches-ignore` can't be used together",
        ),
        (
            "on: {schedule: [{cron: '5 *'}]}\njobs: {a: {runs-on: x}}".to_owned(),
            "ci.yml:1:24: error: a cron line has five fields",
        ),
        (
            "name: ${{ 1 }}\non: push\njobs: {a: {runs-on: x}}".to_owned(),
            "ci.yml:1:7: error: no expression may stand here",
        ),
    ] {
        let found = messages(&text);
        assert!(
            found.iter().any(|message| message.starts_with(expected)),
            "{text}\nexpected {expected}\nfound {found:#?}"
        );
    }
}

#[test]
fn a_wait_or_cancel_names_a_step_before_it_that_runs_in_the_background() {
    let job = |steps: &str| format!("on: push\njobs: {{a: {{runs-on: x, steps: [{steps}]}}}}");
    for (steps, expected) in [
        ("{id: a, run: x, background: true}, {wait: a}, {wait: [a]}, {cancel: a}, {wait-all: }, {wait-all: true}", ""),
        ("{parallel: [{id: a, run: x}, {uses: ./b}]}, {wait: a}", ""),
        ("{wait: a}", "ci.yml:2:39: error: `wait` names the step `a`, which is not in this job"),
        ("{cancel: a}, {id: a, run: x, background: true}", "ci.yml:2:41: error: the step `a` comes later: nothing can"),
        ("{id: a, run: x, background: true}, {wait: [a, b]}", "ci.yml:2:78: error: `wait` names the step `b`"),
        ("{id: a, wait: A}", "ci.yml:2:46: error: the step `A` can't wait for itself"),
        ("{wait: __run}", "ci.yml:2:39: error: the id `__run` is reserved"),
        ("{id: a, run: x}, {wait: a}", "ci.yml:2:56: warning: `a` does not run in the background"),
        (
            "{id: a, run: x, background: true}, {cancel: [a]}",
            "ci.yml:2:76: error: `cancel` takes text that is not empty, not a list",
        ),
        ("{wait-all: false}", "ci.yml:2:43: error: `wait-all` takes nothing, or `true`"),
        ("{wait-all: , if: always()}", "ci.yml:2:45: error: unknown key `if`"),
        ("{run: x, background: '${{ true }}'}", "ci.yml:2:53: error: no expression may stand here"),
        ("{parallel: [{wait-all: }]}", "ci.yml:2:44: error: a step of a `parallel` group needs `run` or `uses`"),
        ("{parallel: [{parallel: []}]}", "ci.yml:2:44: error: a step of a `parallel` group needs"),
        ("{parallel: [{run: x, background: true}]}", "ci.yml:2:65: error: `background` can't stand in a `parallel`"),
        ("{parallel: [{id: a, run: x}]}, {id: a, run: y}", "ci.yml:2:68: error: another step of this job has the id"),
        ("{parallel: [{uses: x}]}", "ci.yml:2:51: error: `x` names no action"),
    ] {
        let found = messages(&job(steps));
        match expected {
            "" => assert!(found.is_empty(), "{steps}: {found:?}"),
            expected => assert!(matches!(&found[..], [one] if one.starts_with(expected)), "{steps}: {found:#?}"),
        }
    }
}

#[test]
fn a_parallel_group_is_its_steps_in_the_background_and_a_wait_for_them_alone() {
    let steps = "steps: [{id: a, run: x, background: true}, {parallel: [{run: y}, {id: z, uses: ./z}]}, {wait: [z, a]}, \
                 {cancel: a}, {name: All, wait-all: }]";
    let job = job_of(&format!("runs-on: x\n{steps}"));
    let JobContent::Steps(entries) = job.work else { panic!("it has steps") };
    let seen: Vec<_> = entries
        .iter()
        .map(|entry| match entry {
            StepEntry::Step(step) => (step.background.to_string(), None),
            StepEntry::Control(control) => (control.name.clone(), Some(control.control.clone())),
        })
        .collect();
    let background = || ("true".to_owned(), None);
    let control = |name: &str, control| (name.to_owned(), Some(control));
    assert_eq!(
        seen,
        [
            background(),
            background(),
            background(),
            control("Wait for parallel steps", ControlAction::Wait(vec![1, 2])),
            control("Wait", ControlAction::Wait(vec![2, 0])),
            control("Cancel", ControlAction::Cancel(0)),
            control("All", ControlAction::WaitAll),
        ]
    );
    let text = serde_json::to_string(&entries).unwrap();
    assert_eq!(serde_json::from_str::<Vec<StepEntry>>(&text).unwrap(), entries, "as it travels to a worker");
}

#[test]
fn a_circle_of_needs_is_named_whole_and_without_those_who_only_wait_for_it() {
    let text = "on: push\njobs: {w: {runs-on: x, needs: a}, a: {runs-on: x, needs: c}, b: {runs-on: x, needs: a}, \
                c: {runs-on: x, needs: b}}";
    assert_eq!(messages(text), ["ci.yml:2:35: error: these jobs wait for each other: a → c → b → a"]);
}

#[test]
fn what_has_no_effect_is_a_warning_and_the_plan_is_there() {
    let (plan, diagnostics) = parse("ci.yml", "on: push\njobs: {a: {runs-on: x, snapshot: image, steps: []}}");
    assert!(plan.is_some());
    assert!(
        matches!(diagnostics.as_slice(), [one] if one.severity == Severity::Warning && one.message.contains("snapshot"))
    );
}

#[test]
fn aliases_are_whole_values_and_their_mistakes_come_once() {
    let plan = plan_of("on: push\njobs:\n  a: &a {runs-on: x, steps: [{run: echo}]}\n  b: *a");
    let JobContent::Steps(steps) = &plan.jobs.get("b").unwrap().work else { panic!("b has steps") };
    let first = steps.first().and_then(StepEntry::step).unwrap();
    assert!(matches!(&first.action, StepAction::Run { script, .. } if script == "echo"));
    assert_eq!(messages("on: push\njobs:\n  a: &a {runs-on: x, stepz: []}\n  b: *a").len(), 1);
}

#[test]
fn attack_08_a_circle_of_ten_thousand_needs_is_found_in_bounded_time() {
    let start = std::time::Instant::now();
    let jobs: Vec<String> =
        (0..10_000).map(|at| format!("j{at}: {{runs-on: x, needs: j{}}}", (at + 1) % 10_000)).collect();
    assert!(
        messages(&format!("on: push\njobs: {{{}}}", jobs.join(", ")))
            .iter()
            .any(|message| message.contains("wait for each other"))
    );
    assert!(start.elapsed() < std::time::Duration::from_secs(10), "took {:?}", start.elapsed());
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,200}") {
        parse("ci.yml", &text);
    }

    #[test]
    fn no_file_of_known_words_makes_it_panic(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "on", "jobs", "a", "steps", "run", "uses", "needs", "matrix", "strategy", "with", "env", ": ", ":\n ", "\n",
                "\n  ", "- ", "[", "]", "{", "}", ",", "${{ ", " }}", "github.ref", "'", "&a ", "*a", "<<", "|\n", "!!int ", "ä",
            ]),
            0..60,
        ),
    ) {
        let text = words.concat();
        let (plan, diagnostics) = parse("ci.yml", &text);
        prop_assert_eq!(plan.is_none(), crate::diagnostic::has_errors(&diagnostics));
        render(&diagnostics, &text, Colour::Plain);
    }
}

#[test]
fn attack_08_a_file_has_a_number_of_jobs_and_of_needs() {
    let job = |number: usize, needs: usize| {
        let needs: Vec<_> = (0..needs).map(|need| format!("j{need}")).collect();
        format!("  j{number}: {{runs-on: x, steps: [{{run: x}}], needs: [{}]}}\n", needs.join(","))
    };
    let problems = |jobs: String| {
        let (_, problems) = parse("ci.yml", &format!("on: push\njobs:\n{jobs}"));
        problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
    };
    assert!(problems((0..1001).map(|number| job(number, 0)).collect()).contains("1001 jobs: it may have 1000"));
    assert_eq!(problems((0..150).map(|number| job(number, number.min(60))).collect()), "");
    let needs = problems((0..300).map(|number| job(number, number.min(60))).collect());
    assert!(needs.contains("they may need 10000"), "{needs}");
}
