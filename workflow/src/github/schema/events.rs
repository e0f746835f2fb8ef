//! The part of the file below `on:`, and the activity types of each event (GitHub docs: "Events that trigger
//! workflows").

use super::{
    ANY, BOOLEAN, Key, Map, NON_EMPTY, NOTHING, ONE_OR_MORE, Rule, ScalarRule, TEXT, TEXTS, contexts, ignored, key,
    required,
};

/// `on:` as one event, a list of them, or a mapping.
pub(super) static ON: Rule =
    Rule { scalar: ScalarRule::Words(EVENTS), list: Some(&EVENT), map: Map::Keys(EVENT_KEYS), names: NOTHING };
static EVENT: Rule = Rule::scalar(ScalarRule::Words(EVENTS));

/// Every event GitHub knows.
pub(crate) const EVENTS: &[&str] = &[
    "branch_protection_rule",
    "check_run",
    "check_suite",
    "create",
    "delete",
    "deployment",
    "deployment_status",
    "discussion",
    "discussion_comment",
    "fork",
    "gollum",
    "image_version",
    "issue_comment",
    "issues",
    "label",
    "merge_group",
    "milestone",
    "page_build",
    "project",
    "project_card",
    "project_column",
    "public",
    "pull_request",
    "pull_request_comment",
    "pull_request_review",
    "pull_request_review_comment",
    "pull_request_target",
    "push",
    "registry_package",
    "release",
    "repository_dispatch",
    "schedule",
    "status",
    "watch",
    "workflow_call",
    "workflow_dispatch",
    "workflow_run",
];

const EVENT_KEYS: &[Key] = &[
    key("branch_protection_rule", &BRANCH_PROTECTION_RULE),
    key("check_run", &CHECK_RUN),
    key("check_suite", &CHECK_SUITE),
    key("create", &BARE),
    key("delete", &BARE),
    key("deployment", &BARE),
    key("deployment_status", &BARE),
    key("discussion", &DISCUSSION),
    key("discussion_comment", &DISCUSSION_COMMENT),
    key("fork", &BARE),
    key("gollum", &BARE),
    key("image_version", &IMAGE_VERSION),
    key("issue_comment", &ISSUE_COMMENT),
    key("issues", &ISSUES),
    key("label", &LABEL),
    key("merge_group", &MERGE_GROUP),
    key("milestone", &MILESTONE),
    key("page_build", &BARE),
    key("project", &PROJECT),
    key("project_card", &PROJECT_CARD),
    key("project_column", &PROJECT_COLUMN),
    key("public", &BARE),
    key("pull_request", &PULL_REQUEST),
    key("pull_request_comment", &ISSUE_COMMENT),
    key("pull_request_review", &PULL_REQUEST_REVIEW),
    key("pull_request_review_comment", &PULL_REQUEST_REVIEW_COMMENT),
    key("pull_request_target", &PULL_REQUEST),
    key("push", &PUSH),
    key("registry_package", &REGISTRY_PACKAGE),
    key("release", &RELEASE),
    key("repository_dispatch", &REPOSITORY_DISPATCH),
    key("schedule", &SCHEDULE),
    key("status", &BARE),
    key("watch", &WATCH),
    key("workflow_call", &WORKFLOW_CALL),
    key("workflow_dispatch", &WORKFLOW_DISPATCH),
    key("workflow_run", &WORKFLOW_RUN),
];

/// An event that takes no filters.
static BARE: Rule = Rule::scalar(ScalarRule::Null);

/// An event with filters, which may all be left out.
const fn event(keys: &'static [Key]) -> Rule {
    Rule::keys(keys).or_scalar(ScalarRule::Null)
}

/// One of these words, or a list of them.
macro_rules! types {
    ($($word:literal),+) => {{
        const WORD: Rule = Rule::scalar(ScalarRule::Words(&[$($word),+]));
        Rule { list: Some(&WORD), ..WORD }
    }};
}

static BRANCH_PROTECTION_RULE: Rule = event(&[key("types", &types!("created", "edited", "deleted"))]);
static CHECK_RUN: Rule = event(&[key("types", &types!("completed", "created", "rerequested", "requested_action"))]);
static CHECK_SUITE: Rule = event(&[key("types", &types!("completed"))]);
static DISCUSSION: Rule = event(&[key(
    "types",
    &types!(
        "created",
        "edited",
        "deleted",
        "transferred",
        "pinned",
        "unpinned",
        "labeled",
        "unlabeled",
        "locked",
        "unlocked",
        "category_changed",
        "answered",
        "unanswered"
    ),
)]);
static DISCUSSION_COMMENT: Rule = event(&[key("types", &types!("created", "edited", "deleted"))]);
static IMAGE_VERSION: Rule = event(&[
    key("types", &types!("created", "ready", "deleted")),
    key("names", &ONE_OR_MORE),
    key("versions", &ONE_OR_MORE),
]);
static ISSUE_COMMENT: Rule = event(&[key("types", &types!("created", "edited", "deleted"))]);
static ISSUES: Rule = event(&[key(
    "types",
    &types!(
        "opened",
        "edited",
        "deleted",
        "transferred",
        "pinned",
        "unpinned",
        "closed",
        "reopened",
        "assigned",
        "unassigned",
        "labeled",
        "unlabeled",
        "locked",
        "unlocked",
        "milestoned",
        "demilestoned",
        "field_added",
        "field_removed",
        "typed",
        "untyped"
    ),
)]);
static LABEL: Rule = event(&[key("types", &types!("created", "edited", "deleted"))]);
static MERGE_GROUP: Rule = event(&[
    key("types", &types!("checks_requested")),
    key("branches", &ONE_OR_MORE),
    key("branches-ignore", &ONE_OR_MORE),
]);
static MILESTONE: Rule = event(&[key("types", &types!("created", "closed", "opened", "edited", "deleted"))]);
static PROJECT: Rule = event(&[key("types", &types!("created", "closed", "reopened", "edited", "deleted"))]);
static PROJECT_CARD: Rule = event(&[key("types", &types!("created", "moved", "converted", "edited", "deleted"))]);
static PROJECT_COLUMN: Rule = event(&[key("types", &types!("created", "updated", "moved", "deleted"))]);
static PULL_REQUEST: Rule = event(&[
    key(
        "types",
        &types!(
            "assigned",
            "unassigned",
            "labeled",
            "unlabeled",
            "opened",
            "edited",
            "closed",
            "reopened",
            "synchronize",
            "converted_to_draft",
            "locked",
            "unlocked",
            "enqueued",
            "dequeued",
            "milestoned",
            "demilestoned",
            "ready_for_review",
            "review_requested",
            "review_request_removed",
            "auto_merge_enabled",
            "auto_merge_disabled",
            "stacked"
        ),
    ),
    key("branches", &ONE_OR_MORE),
    key("branches-ignore", &ONE_OR_MORE),
    key("paths", &ONE_OR_MORE),
    key("paths-ignore", &ONE_OR_MORE),
]);
static PULL_REQUEST_REVIEW: Rule = event(&[key("types", &types!("submitted", "edited", "dismissed"))]);
static PULL_REQUEST_REVIEW_COMMENT: Rule = event(&[key("types", &types!("created", "edited", "deleted"))]);
static PUSH: Rule = event(&[
    key("branches", &ONE_OR_MORE),
    key("branches-ignore", &ONE_OR_MORE),
    key("tags", &ONE_OR_MORE),
    key("tags-ignore", &ONE_OR_MORE),
    key("paths", &ONE_OR_MORE),
    key("paths-ignore", &ONE_OR_MORE),
]);
static REGISTRY_PACKAGE: Rule = event(&[key("types", &types!("published", "updated"))]);
static RELEASE: Rule = event(&[key(
    "types",
    &types!("published", "unpublished", "created", "edited", "deleted", "prereleased", "released"),
)]);
static REPOSITORY_DISPATCH: Rule = event(&[key("types", &ONE_OR_MORE)]);
static WATCH: Rule = event(&[key("types", &types!("started"))]);
static WORKFLOW_RUN: Rule = event(&[
    key("types", &types!("requested", "completed", "in_progress")),
    key("workflows", &ONE_OR_MORE),
    key("branches", &ONE_OR_MORE),
    key("branches-ignore", &ONE_OR_MORE),
]);

static SCHEDULE: Rule = Rule::list(&CRON);
static CRON: Rule = Rule::keys(&[required("cron", &NON_EMPTY), ignored("timezone", &NON_EMPTY)]);

static WORKFLOW_CALL: Rule =
    event(&[key("inputs", &CALL_INPUTS), key("secrets", &CALL_SECRETS), key("outputs", &CALL_OUTPUTS)]);
static CALL_INPUTS: Rule = Rule::open(&CALL_INPUT);
static CALL_INPUT: Rule = Rule::keys(&[
    required("type", &Rule::scalar(ScalarRule::Words(&["string", "boolean", "number"]))),
    key("description", &TEXT),
    key("required", &BOOLEAN),
    key("default", &CALL_DEFAULT),
]);
static CALL_DEFAULT: Rule = Rule::scalar(ScalarRule::Any).with(contexts(&["github", "inputs", "vars"]));
static CALL_SECRETS: Rule = Rule::open(&CALL_SECRET);
static CALL_SECRET: Rule = event(&[key("description", &TEXT), key("required", &BOOLEAN)]);
static CALL_OUTPUTS: Rule = Rule::open(&CALL_OUTPUT);
static CALL_OUTPUT: Rule = Rule::keys(&[key("description", &TEXT), required("value", &CALL_OUTPUT_VALUE)]);
static CALL_OUTPUT_VALUE: Rule = Rule::scalar(ScalarRule::Text).with(contexts(&["github", "inputs", "vars", "jobs"]));

/// GitHub's service ignores what it does not know here.
static WORKFLOW_DISPATCH: Rule = Rule {
    scalar: ScalarRule::Null,
    list: None,
    map: Map::Mixed(&[key("inputs", &DISPATCH_INPUTS)], &ANY),
    names: NOTHING,
};
static DISPATCH_INPUTS: Rule = Rule::open(&DISPATCH_INPUT).or_scalar(ScalarRule::Null);
static DISPATCH_INPUT: Rule = event(&[
    key("type", &Rule::scalar(ScalarRule::Words(&["string", "boolean", "number", "choice", "environment"]))),
    key("description", &TEXT),
    key("deprecationMessage", &TEXT),
    key("required", &BOOLEAN),
    key("default", &Rule::scalar(ScalarRule::Any)),
    key("options", &TEXTS),
]);
