#![allow(clippy::unwrap_used)]
use std::collections::HashMap;

use super::*;
use crate::dialect::surroundings::{NoSurroundings, RepositoryFile};

/// A repository with these files.
struct Files(HashMap<&'static str, &'static str>);

impl Surroundings for Files {
    fn file(&self, path: &str) -> RepositoryFile {
        self.0.get(path).map_or(RepositoryFile::Missing, |text| RepositoryFile::Text((*text).to_owned()))
    }
}

fn found(text: &str, around: &dyn Surroundings) -> Vec<Diagnostic> {
    let (_, found) = crate::github::parse("ci.yml", text);
    lint("ci.yml", text, found, around)
}

/// Every finding: the words it stands under, and what it says with its help.
fn said_around(text: &str, around: &dyn Surroundings) -> Vec<(String, String)> {
    let word = |span: Span| text.get(span.offset..span.offset + span.length).unwrap_or_default().to_owned();
    let shown = |one: &Diagnostic| format!("{}; {}", one.message, one.help.clone().unwrap_or_default());
    found(text, around).iter().map(|one| (word(one.span), shown(one))).collect()
}

fn assert_found(text: &str, around: &dyn Surroundings, word: &str, says: &str) {
    let found = said_around(text, around);
    assert!(matches!(&found[..], [(at, said)] if at == word && said.contains(says)), "{text}\n{found:#?}");
}

/// A file with such a job; further keys may stand before `steps`.
fn job(keys: &str) -> String {
    format!("on: push\njobs: {{a: {{runs-on: ubuntu-latest, {keys}}}}}\n")
}

fn step(step: &str) -> String {
    job(&format!("steps: [{{{step}}}]"))
}

const RUN: &str = "steps: [{run: make}]";

#[test]
fn what_newcomers_mistype_is_underlined_alone_and_answered_with_what_is_meant() {
    for (text, word, says) in [
        (step("run: 'echo ${{ github.evnt.number }}'"), "evnt", "`github` has no `evnt`; did you mean `event`?"),
        (step("run: 'echo ${{ github.event_nam }}'"), "event_nam", "did you mean `event_name`?"),
        (step("if: \"runner.oss == 'x'\", run: x"), "oss", "`runner` has no `oss`; did you mean `os`?"),
        (step("run: 'echo ${{ job.stats }}'"), "stats", "did you mean `status`?"),
        (step("run: 'echo ${{ steps.nope.outputs.v }}'"), "nope", "only steps of this job that come before"),
        (step("run: 'echo ${{ matrix.os }}'"), "os", "this job has no matrix"),
        (step("run: 'echo ${{ needs.b.result }}'"), "b", "name the job in `needs:`"),
        (step("run: 'echo ${{ inputs.level }}'"), "level", "declare it under `inputs:`"),
        (
            format!("on: push\njobs: {{a: {{runs-on: ubuntu-lates, {RUN}}}}}"),
            "ubuntu-lates",
            "did you mean `ubuntu-latest`?",
        ),
        (format!("on: push\njobs: {{a: {{runs-on: ubuntu-18.04, {RUN}}}}}"), "ubuntu-18.04", "GitHub has no runner"),
        (step("run: x, shell: bsh"), "bsh", "there is no shell `bsh`; did you mean `bash`?"),
        (step("run: x, shell: fish"), "fish", "`fish {0}`"),
        (step("uses: actions/checkout@v4, with: {fetch-dept: 0}"), "fetch-dept", "did you mean `fetch-depth`?"),
        (
            step("if: \"${{ github.ref }} == 'x'\", run: x"),
            "\"${{ github.ref }} == 'x'\"",
            "this condition always holds",
        ),
        (step("run: 'echo ::set-output name=a::b'"), "::set-output", "GITHUB_OUTPUT"),
        (
            step("run: 'echo ${{ github.event.pull_request.title }}'"),
            "github.event.pull_request.title",
            "an outsider chose",
        ),
        (step("uses: 'docker://'"), "'docker://'", "names no image"),
        (step("uses: 'docker://x:'"), "'docker://x:'", "tag of the image `x` is empty"),
        (step("run: x, uses: actions/checkout@v4"), "run", "either `run` or `uses`"),
        (step("runs: x"), "{", "did you mean `run`?"),
        (job(&format!("timeout: 10, {RUN}")), "timeout", "did you mean `timeout-minutes`?"),
        (step("uses: actions/checkout"), "actions/checkout", "add a version: `actions/checkout@v1`"),
        (step("if: github.ref == \"main\", run: x"), "\"", "single quotes"),
        (step("if: \"contain(github.ref, 'x')\", run: x"), "contain", "did you mean `contains`?"),
        (step("run: 'echo ${{ gihub.ref }}'"), "gihub", "did you mean `github`?"),
        (job(&format!("needs: [b], {RUN}}}, bb: {{runs-on: ubuntu-latest, {RUN}")), "b", "did you mean `bb`?"),
        (format!("on: push\njobs: {{a: {{run-on: x, {RUN}}}}}"), "run-on", "did you mean `runs-on`?"),
    ] {
        assert_found(&text, &NoSurroundings, word, says);
    }
}

#[test]
fn a_part_of_a_block_is_underlined_where_it_stands() {
    let text = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: |\n          echo one\n          \
                echo ${{ github.reff }} ${{ github.reff }}\n      - run: >-\n          x\n          ${{ runner.osss }}\n";
    let places: Vec<_> = found(text, &NoSurroundings).iter().map(|one| (one.span.line, one.span.column)).collect();
    assert_eq!(places, [(8, 27), (8, 46), (11, 22)]);
}

#[test]
fn the_first_of_two_is_named_by_its_line() {
    let text = "on: push\njobs:\n  a: &x\n    runs-on: ubuntu-latest\n    steps:\n      - {id: s, run: x}\n      - {id: S, run: x}\n  A:\n    runs-on: x\n";
    let found = said_around(text, &NoSurroundings);
    for says in ["the first one is in line 6", "`a` in line 3 is the same", "the anchor `&x` is used nowhere"] {
        assert!(found.iter().any(|(_, said)| said.contains(says)), "{says}: {found:#?}");
    }
    let twice = said_around("on: push\non: push\njobs: {}", &NoSurroundings);
    assert!(twice.iter().any(|(_, said)| said.contains("already there, in line 1")), "{twice:?}");
}

#[test]
fn what_actions_take_and_give_is_known_of_local_and_well_known_ones() {
    let around = Files(HashMap::from([
        (
            "mine/action.yml",
            "name: Mine\ndescription: x\ninputs: {level: {required: true}, old: {deprecationMessage: use level}}\n\
             outputs: {made: {value: x}}\nruns: {using: composite, steps: []}",
        ),
        ("bad/action.yaml", "name: Bad\ndescription: x\nruns: {using: node12, main: x.js}"),
        ("image/Dockerfile", "FROM scratch"),
        (
            ".github/workflows/called.yml",
            "on: {workflow_call: {outputs: {tag: {value: x}}}}\njobs: {x: {runs-on: ubuntu-latest}}",
        ),
    ]));
    let steps = |steps: &str| job(&format!("steps: [{{uses: actions/checkout@v4}}, {steps}]"));
    for (text, word, says) in [
        (steps("{uses: ./mine}"), "./mine", "`Mine` needs the input `level`"),
        (
            steps("{uses: ./mine, with: {Level: 1, lvl: 2}}"),
            "lvl",
            "`Mine` takes no input `lvl`; did you mean `level`?",
        ),
        (steps("{uses: ./mine, with: {level: 1, old: 2}}"), "old", "deprecated; use level"),
        (steps("{uses: ./bad}"), "./bad", "`node12` is not maintained"),
        (steps("{uses: ./none}"), "./none", "there is no action in `none`"),
        (steps("{id: m, uses: ./mine, with: {level: 1}}, {run: 'x ${{ steps.m.outputs.mad }}'}"), "mad", "`made`"),
        (
            steps(
                "{id: c, uses: actions/cache@v4, with: {path: x, key: x}}, {run: 'x ${{ steps.c.outputs.cache_hit }}'}",
            ),
            "cache_hit",
            "did you mean `cache-hit`?",
        ),
        (steps("{uses: actions/cache@v4, with: {path: x}}"), "actions/cache@v4", "needs the input `key`"),
        (steps("{uses: actions/cache@v3}"), "actions/cache@v3", "`actions/cache@v4` is the oldest"),
        (
            "on: push\njobs: {c: {uses: ./.github/workflows/called.yml}, d: {needs: c, runs-on: ubuntu-latest, steps: [{run: 'x ${{ needs.c.outputs.tga }}'}]}}".to_owned(),
            "tga",
            "did you mean `tag`?",
        ),
        (
            "on: push\njobs: {c: {uses: ./.github/workflows/none.yml}}".to_owned(),
            "./.github/workflows/none.yml",
            "there is no workflow",
        ),
    ] {
        assert_found(&text, &around, word, says);
    }
    for text in [
        steps("{uses: ./image, with: {anything: 1}}"),
        steps("{run: make}, {uses: ./made/by/make}"),
        steps("{uses: actions/github-script@v7, id: s, with: {script: x}}, {run: 'x ${{ steps.s.outputs.any }}'}"),
        steps("{uses: some/other@v1, id: s, with: {any: x}}, {run: 'x ${{ steps.s.outputs.any }}'}"),
    ] {
        assert_eq!(said_around(&text, &around), [], "{text}");
    }
}

#[test]
fn declarations_that_contradict_themselves_are_named() {
    let on = |on: &str| format!("on: {on}\njobs: {{a: {{runs-on: ubuntu-latest, {RUN}}}}}\n");
    let call = |input: &str| on(&format!("{{workflow_call: {{inputs: {{i: {{{input}}}}}}}}}"));
    let dispatch = |input: &str| on(&format!("{{workflow_dispatch: {{inputs: {{i: {{{input}}}}}}}}}"));
    for (text, word, says) in [
        (on("[schedule]"), "schedule", "`schedule` starts nothing"),
        (on("{schedule: [{cron: '*/4 * * * *'}]}"), "'*/4 * * * *'", "4 minutes apart"),
        (on("{schedule: [{cron: '0 25 * * *'}]}"), "'0 25 * * *'", "`25` is no hour"),
        (on("{push: {tags: ['v\\d+']}}"), "\\d", "means nothing in a pattern"),
        (on("{push: {paths: [./src]}}"), "./src", "as seen from the root"),
        (on("{push: {branches: []}}"), "[", "names nothing"),
        (call("type: number, default: x"), "x", "must be a number"),
        (call("type: string, required: true, default: x"), "x", "is never used"),
        (call("type: boolean, default: '${{ inputs.j }}'"), "j", "inputs that come before"),
        (dispatch("type: choice, options: [a, b], default: c"), "c", "none of its options"),
        (dispatch("type: choice, options: [a, a]"), "a", "already there, in line 1"),
        (dispatch("type: string, options: [a]"), "i", "have no effect"),
        (dispatch("type: choice"), "i", "has no `options`"),
    ] {
        assert_found(&text, &NoSurroundings, word, says);
    }
}

#[test]
fn what_jobs_say_of_themselves_is_held_against_itself() {
    let matrix = |matrix: &str| job(&format!("strategy: {{matrix: {{{matrix}}}}}, {RUN}"));
    for (text, word, says) in [
        (matrix("v: [1, 2, 1]"), "1", "has this value already"),
        (matrix("v: [1], exclude: [{w: 1}]"), "w", "`w`"),
        (matrix("v: [1], exclude: [{v: 2}]"), "2", "never has this value"),
        (job(&format!("timeout-minutes: 0, {RUN}")), "0", "more than zero"),
        (job(&format!("strategy: {{max-parallel: 1.5, matrix: {{v: [1]}}}}, {RUN}")), "1.5", "no whole number"),
        (job(&format!("env: {{'A B': x}}, {RUN}")), "'A B'", "it has a space in it"),
        (
            job(&format!("container: {{image: x, credentials: {{username: x, password: secret}}}}, {RUN}")),
            "secret",
            "stands in the file",
        ),
        (job("timeout-minutes: 1"), "a", "it does nothing"),
        (step("run: ''"), "''", "the script is empty"),
        (job(&format!("{RUN}}}, b: {{runs-on: ubuntu-latest, needs: [a, a], {RUN}")), "a", "names the job `a` twice"),
        (format!("on: push\njobs: {{a: {{runs-on: [], {RUN}}}}}"), "[", "names no label"),
        (matrix("v: '${{ github.ref }}'"), "github.ref", "a list is taken here"),
        (step("if: false, run: x"), "false", "always false"),
        (step("run: x, shell: cmd"), "cmd", "is not there on Linux"),
        (step("run: 'x ${{ github.event }}'"), "github.event", "puts the word `Object`"),
        (step("run: x, timeout-minutes: '${{ github.ref }}'"), "github.ref", "a number is taken here"),
        (
            format!("on: push\njobs: {{a: {{runs-on: [ubuntu-latest, windows-latest], {RUN}}}}}"),
            "windows-latest",
            "no runner has `windows-latest` and `ubuntu-latest`",
        ),
    ] {
        let found = said_around(&text, &NoSurroundings);
        let expected = |(at, said): &(String, String)| at == word && said.contains(says);
        assert!(found.iter().any(expected), "{text}\n{found:#?}");
    }
}

#[test]
fn what_is_no_yaml_is_answered_with_what_makes_it_some() {
    for (text, says) in [
        (
            "on: push\njobs:\n  a:\n    steps:\n      - run: echo \"note: this\"\n        x: foo: bar\n",
            "put the value in quotes",
        ),
        ("on: push\nname: x\n  jobs:\n", "begin the line as far right"),
        ("on: push\njobs:\n\ta: 1\n", "indented by spaces"),
    ] {
        let found = said_around(text, &NoSurroundings);
        assert!(found.iter().any(|(_, said)| said.contains(says)), "{text}\n{found:#?}");
    }
}

#[test]
fn what_is_right_is_left_alone() {
    for text in [
        job(&format!("strategy: {{matrix: {{include: [{{os: x}}]}}}}, name: '${{{{ matrix.os }}}}', {RUN}")),
        format!("on: push\njobs: {{a: {{runs-on: [self-hosted, gpu], {RUN}}}}}"),
        format!("on: push\njobs: {{a: {{runs-on: {{group: large}}, {RUN}}}}}"),
        format!("on: push\njobs: {{a: {{runs-on: '${{{{ vars.RUNNER }}}}', {RUN}}}}}"),
        step("env: '${{ fromJSON(vars.ENV) }}', run: x"),
        step("if: always() && github.ref == 'x', run: 'x ${{ secrets.ANY }} ${{ env.ANY }}'"),
        step("run: x, shell: 'perl {0}'"),
        "on: {workflow_dispatch: {inputs: {n: {type: number}}}}\njobs: {a: {runs-on: ubuntu-latest, timeout-minutes: '${{ inputs.n }}', steps: [{run: 'x ${{ github.event.inputs.n }}'}]}}".to_owned(),
    ] {
        assert_eq!(said_around(&text, &NoSurroundings), [], "{text}");
    }
}

#[test]
fn attack_08_a_large_file_of_mistakes_is_checked_in_bounded_time() {
    let start = std::time::Instant::now();
    let long: String =
        (0..5000).map(|at| format!("      - {{id: s{at}, run: 'x ${{{{ steps.t{at}.x }}}}'}}\n")).collect();
    found(&format!("on: push\njobs:\n  a:\n    runs-on: x\n    steps:\n{long}"), &NoSurroundings);
    let values: Vec<String> = (0..20_000).map(|at| at.to_string()).collect();
    let excludes = vec!["{v: x}"; 20_000].join(", ");
    found(
        &job(&format!("strategy: {{matrix: {{v: [{}], exclude: [{excludes}]}}}}, {RUN}", values.join(", "))),
        &NoSurroundings,
    );
    let wide: String = (0..1000)
        .map(|at| {
            format!(
                "  j{at}: {{runs-on: x, needs: [{}], steps: [{{run: '${{{{ needs.x }}}}'}}]}}\n",
                (0..at.min(9)).map(|need| format!("j{need}")).collect::<Vec<_>>().join(", ")
            )
        })
        .collect();
    found(&format!("on: push\njobs:\n{wide}"), &NoSurroundings);
    assert!(start.elapsed() < std::time::Duration::from_secs(20), "took {:?}", start.elapsed());
}

proptest::proptest! {
    #[test]
    fn no_file_makes_it_panic(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "on", "jobs", "a", "steps", "run", "uses", "needs", "matrix", "strategy", "with", "if", ": ", ":\n ", "\n",
                "\n  ", "- ", "[", "]", "{", "}", ",", "${{ ", " }}", "github.ref", "'", "&a ", "*a", "schedule", "cron",
                "runs-on", "ubuntu", "./x", "docker://", "::set-output name=", "ä", "|\n", "include", "exclude", "x@v1",
            ]),
            0..60,
        ),
    ) {
        let text = words.concat();
        let found = found(&text, &NoSurroundings);
        crate::diagnostic::render(&found, &text, crate::diagnostic::Colour::Plain);
    }
}
