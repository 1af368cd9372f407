//! The events of GitHub, with the keys and the activity types that each may have.

/// An event that Shipway keeps and doesn't raise itself.
pub(super) struct EventActivity {
    /// `pull_request`
    pub(super) name: &'static str,
    /// What `types` may name; empty when there is no such key.
    pub(super) types: &'static [&'static str],
    /// Other keys than `types`.
    pub(super) keys: &'static [&'static str],
}

const fn event(name: &'static str, types: &'static [&'static str]) -> EventActivity {
    EventActivity {
        name,
        types,
        keys: &[],
    }
}

const fn filtered(
    name: &'static str,
    types: &'static [&'static str],
    keys: &'static [&'static str],
) -> EventActivity {
    EventActivity { name, types, keys }
}

const CHANGES: &[&str] = &["created", "edited", "deleted"];
const BRANCHES: &[&str] = &["branches", "branches-ignore"];
const BRANCHES_AND_PATHS: &[&str] = &["branches", "branches-ignore", "paths", "paths-ignore"];

const DISCUSSION: &[&str] = &[
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
    "unanswered",
];

const ISSUES: &[&str] = &[
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
    "typed",
    "untyped",
    "field_added",
    "field_removed",
];

const PULL_REQUEST: &[&str] = &[
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
    "stacked",
];

const RELEASE: &[&str] = &[
    "published",
    "unpublished",
    "created",
    "edited",
    "deleted",
    "prereleased",
    "released",
];

/// `repository_dispatch` takes any.
pub(super) const ANY: &[&str] = &["*"];

/// All but those that Shipway raises itself.
pub(super) const EVENTS: [EventActivity; 33] = [
    event("branch_protection_rule", CHANGES),
    event(
        "check_run",
        &["created", "rerequested", "completed", "requested_action"],
    ),
    event("check_suite", &["completed"]),
    event("create", &[]),
    event("delete", &[]),
    event("deployment", &[]),
    event("deployment_status", &[]),
    event("discussion", DISCUSSION),
    event("discussion_comment", CHANGES),
    event("fork", &[]),
    event("gollum", &[]),
    filtered(
        "image_version",
        &["created", "ready", "deleted"],
        &["names", "versions"],
    ),
    event("issue_comment", CHANGES),
    event("issues", ISSUES),
    event("label", CHANGES),
    filtered("merge_group", &["checks_requested"], BRANCHES),
    event(
        "milestone",
        &["created", "closed", "opened", "edited", "deleted"],
    ),
    event("page_build", &[]),
    event(
        "project",
        &["created", "closed", "reopened", "edited", "deleted"],
    ),
    event(
        "project_card",
        &["created", "moved", "converted", "edited", "deleted"],
    ),
    event(
        "project_column",
        &["created", "updated", "moved", "deleted"],
    ),
    event("public", &[]),
    filtered("pull_request", PULL_REQUEST, BRANCHES_AND_PATHS),
    event("pull_request_comment", CHANGES),
    event("pull_request_review", &["submitted", "edited", "dismissed"]),
    event("pull_request_review_comment", CHANGES),
    filtered("pull_request_target", PULL_REQUEST, BRANCHES_AND_PATHS),
    event("registry_package", &["published", "updated"]),
    event("release", RELEASE),
    event("repository_dispatch", ANY),
    event("status", &[]),
    event("watch", &["started"]),
    filtered(
        "workflow_run",
        &["completed", "requested", "in_progress"],
        &["workflows", "branches", "branches-ignore"],
    ),
];

impl EventActivity {
    /// Whether an unknown key is an error. An event with filters of its own is strict: a mistyped filter would start the
    /// workflow too often. GitHub ignores the unknown keys of the others, and workflows rely on it.
    pub(super) const fn is_strict(&self) -> bool {
        !self.keys.is_empty()
    }

    /// The keys that it may have.
    pub(super) fn allowed_keys(&self) -> Vec<&'static str> {
        let types = (!self.types.is_empty()).then_some("types");
        types.into_iter().chain(self.keys.iter().copied()).collect()
    }
}
