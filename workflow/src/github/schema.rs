//! The shape of a workflow file: which keys may stand where, what they take, and which contexts an expression may
//! use there (GitHub docs: "Workflow syntax" and "Contexts", context availability).

mod events;
mod jobs;

pub(crate) use self::events::EVENTS;

/// What may stand at one position. Scalars, lists and mappings never overlap, so each kind has at most one form.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) scalar: ScalarRule,
    /// What each item of a list must be.
    pub(super) list: Option<&'static Rule>,
    pub(super) map: Map,
    /// Added to those of the position around it. Where a position has none at all, it takes no expression.
    pub(super) names: Names,
}

/// Contexts and functions beyond those that are known everywhere.
#[derive(Debug, Clone, Copy)]
pub(super) struct Names {
    pub(super) contexts: &'static [&'static str],
    pub(super) functions: &'static [&'static str],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScalarRule {
    Refused,
    /// Anything: numbers, booleans and nothing become text.
    Text,
    NonEmpty,
    Boolean,
    Number,
    Null,
    NullOrBoolean,
    Words(&'static [&'static str]),
    /// An `if:` condition.
    Condition,
    /// A value that keeps its type.
    Any,
}

#[derive(Debug)]
pub(super) enum Map {
    Refused,
    Keys(&'static [Key]),
    /// Any key, each with such a value.
    Open(&'static Rule),
    /// These keys, and any other with such a value.
    Mixed(&'static [Key], &'static Rule),
    /// The rule that belongs to the first of these keys that is there, or the other one where none is.
    Variants(&'static [(&'static str, &'static Rule)], Otherwise),
}

/// What holds where no key says which variant a mapping is.
#[derive(Debug)]
pub(super) enum Otherwise {
    Is(&'static Rule),
    /// The mapping is refused with this message.
    Refused(&'static str),
}

/// A key of a mapping.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: &'static str,
    pub(super) rule: &'static Rule,
    pub(super) need: Need,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    Optional,
    Required,
    /// Known to GitHub, without effect here: a warning.
    Ignored,
}

const fn key(name: &'static str, rule: &'static Rule) -> Key {
    Key { name, rule, need: Need::Optional }
}

const fn required(name: &'static str, rule: &'static Rule) -> Key {
    Key { name, rule, need: Need::Required }
}

const fn ignored(name: &'static str, rule: &'static Rule) -> Key {
    Key { name, rule, need: Need::Ignored }
}

const NOTHING: Names = Names { contexts: &[], functions: &[] };

const fn contexts(contexts: &'static [&'static str]) -> Names {
    Names { contexts, functions: &[] }
}

impl Rule {
    const fn scalar(scalar: ScalarRule) -> Self {
        Self { scalar, list: None, map: Map::Refused, names: NOTHING }
    }

    const fn list(item: &'static Self) -> Self {
        Self { scalar: ScalarRule::Refused, list: Some(item), map: Map::Refused, names: NOTHING }
    }

    const fn keys(keys: &'static [Key]) -> Self {
        Self { scalar: ScalarRule::Refused, list: None, map: Map::Keys(keys), names: NOTHING }
    }

    const fn open(value: &'static Self) -> Self {
        Self { scalar: ScalarRule::Refused, list: None, map: Map::Open(value), names: NOTHING }
    }

    const fn or_list(self, item: &'static Self) -> Self {
        Self { list: Some(item), ..self }
    }

    const fn or_scalar(self, scalar: ScalarRule) -> Self {
        Self { scalar, ..self }
    }

    const fn with(self, names: Names) -> Self {
        Self { names, ..self }
    }
}

static TEXT: Rule = Rule::scalar(ScalarRule::Text);
static NON_EMPTY: Rule = Rule::scalar(ScalarRule::NonEmpty);
static BOOLEAN: Rule = Rule::scalar(ScalarRule::Boolean);
static NUMBER: Rule = Rule::scalar(ScalarRule::Number);
static ANY: Rule = Rule { scalar: ScalarRule::Any, list: Some(&ANY), map: Map::Open(&ANY), names: NOTHING };
static TEXTS: Rule = Rule::list(&TEXT);
static ONE_OR_MORE: Rule = Rule::scalar(ScalarRule::NonEmpty).or_list(&NON_EMPTY);

/// The whole file.
pub(super) static ROOT: Rule = Rule::keys(&[
    required("on", &events::ON),
    key("name", &TEXT),
    key("description", &TEXT),
    key("run-name", &RUN_NAME),
    key("defaults", &DEFAULTS),
    key("env", &ENV),
    key("permissions", &PERMISSIONS),
    key("concurrency", &CONCURRENCY),
    required("jobs", &JOBS),
]);
static RUN_NAME: Rule = Rule::scalar(ScalarRule::Text).with(contexts(&["github", "inputs", "vars"]));
static ENV: Rule = Rule::open(&TEXT).with(contexts(&["github", "inputs", "vars", "secrets"]));
static DEFAULTS: Rule = Rule::keys(&[key("run", &DEFAULTS_RUN)]);
static DEFAULTS_RUN: Rule = Rule::keys(&[key("shell", &NON_EMPTY), key("working-directory", &NON_EMPTY)]);
static CONCURRENCY: Rule =
    Rule::keys(CONCURRENCY_KEYS).or_scalar(ScalarRule::Text).with(contexts(&["github", "inputs", "vars"]));
const CONCURRENCY_KEYS: &[Key] = &[
    required("group", &NON_EMPTY),
    key("cancel-in-progress", &BOOLEAN),
    key("queue", &Rule::scalar(ScalarRule::Words(&["single", "max"]))),
];
static JOBS: Rule = Rule::open(&jobs::JOB);

static PERMISSIONS: Rule = Rule::keys(&[
    key("actions", &LEVEL),
    key("artifact-metadata", &LEVEL),
    key("attestations", &LEVEL),
    key("checks", &LEVEL),
    key("code-quality", &LEVEL),
    key("contents", &LEVEL),
    key("copilot-requests", &WRITE_OR_NONE),
    key("deployments", &LEVEL),
    key("discussions", &LEVEL),
    key("drives", &LEVEL),
    key("id-token", &WRITE_OR_NONE),
    key("issues", &LEVEL),
    key("models", &READ_OR_NONE),
    key("packages", &LEVEL),
    key("pages", &LEVEL),
    key("pull-requests", &LEVEL),
    key("repository-projects", &LEVEL),
    key("security-events", &LEVEL),
    key("statuses", &LEVEL),
    key("vulnerability-alerts", &READ_OR_NONE),
])
.or_scalar(ScalarRule::Words(&["read-all", "write-all"]));
static LEVEL: Rule = Rule::scalar(ScalarRule::Words(&["read", "write", "none"]));
static WRITE_OR_NONE: Rule = Rule::scalar(ScalarRule::Words(&["write", "none"]));
static READ_OR_NONE: Rule = Rule::scalar(ScalarRule::Words(&["read", "none"]));
