//! The part of the file below `jobs:`.

use super::{
    ANY, BOOLEAN, CONCURRENCY_KEYS, DEFAULTS_RUN, Key, Map, NON_EMPTY, NUMBER, Names, ONE_OR_MORE, Otherwise,
    PERMISSIONS, Rule, ScalarRule, TEXT, contexts, ignored, key, required,
};

const BEFORE_MATRIX: &[&str] = &["github", "inputs", "vars", "needs"];
const WITH_MATRIX: &[&str] = &["github", "inputs", "vars", "needs", "strategy", "matrix"];
const IN_JOB: &[&str] =
    &["github", "inputs", "vars", "needs", "strategy", "matrix", "secrets", "steps", "job", "runner", "env"];
const IN_STEP: Names = Names { contexts: IN_JOB, functions: &["hashFiles"] };

/// A job: steps of its own, or a called workflow.
pub(super) static JOB: Rule = Rule {
    scalar: ScalarRule::Refused,
    list: None,
    map: Map::Variants(&[("uses", &CALL)], Otherwise::Is(&FACTORY)),
    names: super::NOTHING,
};

static FACTORY: Rule = Rule::keys(&[
    key("name", &NAME),
    key("needs", &ONE_OR_MORE),
    key("if", &JOB_IF),
    key("strategy", &STRATEGY),
    required("runs-on", &RUNS_ON),
    key("timeout-minutes", &MINUTES),
    ignored("cancel-timeout-minutes", &MINUTES),
    key("continue-on-error", &FLAG),
    key("container", &CONTAINER),
    key("services", &SERVICES),
    key("env", &JOB_ENV),
    key("environment", &ENVIRONMENT),
    key("permissions", &PERMISSIONS),
    key("concurrency", &JOB_CONCURRENCY),
    key("outputs", &OUTPUTS),
    key("defaults", &JOB_DEFAULTS),
    key("steps", &STEPS),
    ignored("snapshot", &SNAPSHOT),
]);

static CALL: Rule = Rule::keys(&[
    key("name", &NAME),
    required("uses", &NON_EMPTY),
    key("with", &CALL_WITH),
    key("secrets", &CALL_SECRETS),
    key("needs", &ONE_OR_MORE),
    key("if", &JOB_IF),
    key("permissions", &PERMISSIONS),
    key("concurrency", &JOB_CONCURRENCY),
    key("strategy", &STRATEGY),
]);
static CALL_WITH: Rule = Rule::open(&CALL_VALUE);
static CALL_VALUE: Rule = Rule::scalar(ScalarRule::Any).with(contexts(WITH_MATRIX));
static CALL_SECRETS: Rule = Rule::open(&CALL_SECRET).or_scalar(ScalarRule::Words(&["inherit"]));
static CALL_SECRET: Rule = Rule::scalar(ScalarRule::Any)
    .with(contexts(&["github", "inputs", "vars", "needs", "secrets", "strategy", "matrix"]));

static NAME: Rule = Rule::scalar(ScalarRule::Text).with(contexts(WITH_MATRIX));
static MINUTES: Rule = Rule::scalar(ScalarRule::Number).with(contexts(WITH_MATRIX));
static FLAG: Rule = Rule::scalar(ScalarRule::Boolean).with(contexts(WITH_MATRIX));
static JOB_IF: Rule = Rule::scalar(ScalarRule::Condition)
    .with(Names { contexts: BEFORE_MATRIX, functions: &["always", "cancelled", "failure", "success"] });

static STRATEGY: Rule = Rule::keys(&[key("fail-fast", &BOOLEAN), key("max-parallel", &NUMBER), key("matrix", &MATRIX)])
    .with(contexts(BEFORE_MATRIX));
static MATRIX: Rule = Rule {
    scalar: ScalarRule::Refused,
    list: None,
    map: Map::Mixed(&[key("include", &CELLS), key("exclude", &CELLS)], &VECTOR),
    names: super::NOTHING,
};
static VECTOR: Rule = Rule::list(&ANY);
static CELLS: Rule = Rule::list(&CELL);
static CELL: Rule = Rule::open(&ANY);

static RUNS_ON: Rule = Rule::keys(&[key("group", &NON_EMPTY), key("labels", &ONE_OR_MORE)])
    .or_scalar(ScalarRule::NonEmpty)
    .or_list(&NON_EMPTY)
    .with(contexts(WITH_MATRIX));

static JOB_ENV: Rule =
    Rule::open(&TEXT).with(contexts(&["github", "inputs", "vars", "needs", "strategy", "matrix", "secrets"]));
static ENVIRONMENT: Rule =
    Rule::keys(&[required("name", &TEXT), key("url", &ENVIRONMENT_URL), key("deployment", &BOOLEAN)])
        .or_scalar(ScalarRule::Text)
        .with(contexts(WITH_MATRIX));
static ENVIRONMENT_URL: Rule = Rule::scalar(ScalarRule::Text).with(contexts(&["steps", "job", "runner", "env"]));
static JOB_CONCURRENCY: Rule = Rule::keys(CONCURRENCY_KEYS).or_scalar(ScalarRule::NonEmpty).with(contexts(WITH_MATRIX));
static OUTPUTS: Rule = Rule::open(&OUTPUT);
static OUTPUT: Rule = Rule::scalar(ScalarRule::Text).with(contexts(IN_JOB));
static JOB_DEFAULTS: Rule = Rule::keys(&[key("run", &JOB_DEFAULTS_RUN)]);
static JOB_DEFAULTS_RUN: Rule = Rule {
    scalar: ScalarRule::Refused,
    list: None,
    map: Map::Variants(&[], Otherwise::Is(&DEFAULTS_RUN)),
    names: contexts(&["github", "inputs", "vars", "strategy", "matrix", "needs", "env"]),
};
static SNAPSHOT: Rule = Rule::keys(&[
    required("image-name", &NON_EMPTY),
    key("if", &Rule::scalar(ScalarRule::Condition).with(contexts(WITH_MATRIX))),
    key("version", &NON_EMPTY),
])
.or_scalar(ScalarRule::NonEmpty);

static CONTAINER: Rule = Rule::keys(CONTAINER_KEYS).or_scalar(ScalarRule::Text).with(contexts(WITH_MATRIX));
const CONTAINER_KEYS: &[Key] = &[
    // An empty one is no container.
    key("image", &TEXT),
    key("options", &TEXT),
    key("env", &CONTAINER_ENV),
    key("ports", &NON_EMPTY_LIST),
    key("volumes", &NON_EMPTY_LIST),
    key("credentials", &CREDENTIALS),
];
static NON_EMPTY_LIST: Rule = Rule::list(&NON_EMPTY);
static CONTAINER_ENV: Rule = Rule::open(&OUTPUT);
static CREDENTIALS: Rule = Rule::keys(&[key("username", &NON_EMPTY), key("password", &NON_EMPTY)])
    .with(contexts(&["github", "inputs", "vars", "secrets", "env"]));
static SERVICES: Rule = Rule::open(&SERVICE).with(contexts(WITH_MATRIX));
static SERVICE: Rule = Rule::keys(&[
    key("image", &NON_EMPTY),
    key("options", &TEXT),
    key("env", &CONTAINER_ENV),
    key("ports", &NON_EMPTY_LIST),
    key("volumes", &NON_EMPTY_LIST),
    key("credentials", &CREDENTIALS),
    key("entrypoint", &TEXT),
    key("command", &TEXT),
])
.or_scalar(ScalarRule::NonEmpty);

static STEPS: Rule = Rule::list(&STEP);
static STEP: Rule = Rule {
    scalar: ScalarRule::Refused,
    list: None,
    map: Map::Variants(
        &[
            ("run", &RUN),
            ("uses", &USES),
            ("wait", &WAIT),
            ("wait-all", &WAIT_ALL),
            ("cancel", &CANCEL),
            ("parallel", &PARALLEL),
        ],
        Otherwise::Refused("a step needs `run` or `uses`, or one of `wait`, `wait-all`, `cancel` and `parallel`"),
    ),
    names: super::NOTHING,
};
static RUN: Rule = Rule::keys(&[
    key("name", &STEP_TEXT),
    key("id", &NON_EMPTY),
    key("if", &STEP_IF),
    key("timeout-minutes", &STEP_MINUTES),
    required("run", &STEP_TEXT),
    key("continue-on-error", &STEP_FLAG),
    key("env", &STEP_ENV),
    key("working-directory", &STEP_TEXT),
    key("shell", &NON_EMPTY_STEP),
    key("background", &BOOLEAN),
]);
static USES: Rule = Rule::keys(&[
    key("name", &STEP_TEXT),
    key("id", &NON_EMPTY),
    key("if", &STEP_IF),
    key("timeout-minutes", &STEP_MINUTES),
    key("continue-on-error", &STEP_FLAG),
    required("uses", &NON_EMPTY),
    key("with", &STEP_ENV),
    key("env", &STEP_ENV),
    key("background", &BOOLEAN),
]);
static WAIT: Rule = Rule::keys(&[
    key("name", &STEP_TEXT),
    key("id", &NON_EMPTY),
    key("continue-on-error", &STEP_FLAG),
    required("wait", &ONE_OR_MORE),
]);
static WAIT_ALL: Rule = Rule::keys(&[
    key("name", &STEP_TEXT),
    key("id", &NON_EMPTY),
    key("continue-on-error", &STEP_FLAG),
    required("wait-all", &Rule::scalar(ScalarRule::NullOrBoolean)),
]);
static CANCEL: Rule = Rule::keys(&[
    key("name", &STEP_TEXT),
    key("id", &NON_EMPTY),
    key("continue-on-error", &STEP_FLAG),
    required("cancel", &NON_EMPTY),
]);
static PARALLEL: Rule = Rule::keys(&[required("parallel", &GROUP)]);
static GROUP: Rule = Rule::list(&MEMBER);
/// All members of a group run in the background, and none waits for another.
static MEMBER: Rule = Rule {
    scalar: ScalarRule::Refused,
    list: None,
    map: Map::Variants(
        &[("run", &RUN), ("uses", &USES)],
        Otherwise::Refused("a step of a `parallel` group needs `run` or `uses`"),
    ),
    names: super::NOTHING,
};
static STEP_TEXT: Rule = Rule::scalar(ScalarRule::Text).with(IN_STEP);
static NON_EMPTY_STEP: Rule = Rule::scalar(ScalarRule::NonEmpty).with(IN_STEP);
static STEP_FLAG: Rule = Rule::scalar(ScalarRule::Boolean).with(IN_STEP);
static STEP_MINUTES: Rule = Rule::scalar(ScalarRule::Number).with(IN_STEP);
static STEP_ENV: Rule = Rule::open(&TEXT).with(IN_STEP);
static STEP_IF: Rule = Rule::scalar(ScalarRule::Condition).with(Names {
    contexts: &["github", "inputs", "vars", "needs", "strategy", "matrix", "steps", "job", "runner", "env"],
    functions: &["always", "cancelled", "failure", "success", "hashFiles"],
});
