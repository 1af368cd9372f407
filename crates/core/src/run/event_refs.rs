//! The refs that an event's payload names: what `github.ref`, `github.base_ref` and `github.head_ref` are for it, as at GitHub.

use serde_json::Value;

/// `github.ref` for an event with this payload; `None` if the payload names none.
#[must_use]
pub fn event_reference(event: &str, payload: &Value) -> Option<String> {
    let text = |pointer: &str| payload.pointer(pointer).and_then(Value::as_str);
    match event {
        "pull_request" | "pull_request_review" | "pull_request_review_comment" => {
            let number = payload.get("number");
            let number = number.or_else(|| payload.pointer("/pull_request/number"));
            let number = number.and_then(Value::as_u64)?;
            Some(format!("refs/pull/{number}/merge"))
        }
        "pull_request_target" => {
            text("/pull_request/base/ref").map(|branch| format!("refs/heads/{branch}"))
        }
        "release" => text("/release/tag_name").map(|tag| format!("refs/tags/{tag}")),
        "create" => match text("/ref_type")? {
            "tag" => text("/ref").map(|tag| format!("refs/tags/{tag}")),
            _ => text("/ref").map(|branch| format!("refs/heads/{branch}")),
        },
        // The deleted ref is gone: the event is one of the default branch.
        "delete" => None,
        _ => {
            let reference = text("/ref").filter(|reference| reference.starts_with("refs/"));
            reference.map(str::to_owned)
        }
    }
}

/// `github.base_ref` and `github.head_ref`: the branches of a pull request; empty for other events.
pub(super) fn pull_request_branches<'p>(event: &str, payload: &'p Value) -> (&'p str, &'p str) {
    if !event.starts_with("pull_request") {
        return ("", "");
    }
    let text = |pointer: &str| payload.pointer(pointer).and_then(Value::as_str);
    let base = text("/pull_request/base/ref").unwrap_or_default();
    (base, text("/pull_request/head/ref").unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_event_has_the_ref_that_it_has_at_github() {
        let pull = json!({ "number": 7, "pull_request": { "base": { "ref": "main" }, "head": { "ref": "fix" } } });
        let tag = json!({ "ref": "v2", "ref_type": "tag" });
        for (event, payload, expected) in [
            ("pull_request", &pull, Some("refs/pull/7/merge")),
            ("pull_request_target", &pull, Some("refs/heads/main")),
            ("create", &tag, Some("refs/tags/v2")),
            ("delete", &tag, None),
            (
                "release",
                &json!({ "release": { "tag_name": "v1" } }),
                Some("refs/tags/v1"),
            ),
            (
                "push",
                &json!({ "ref": "refs/heads/next" }),
                Some("refs/heads/next"),
            ),
            ("push", &json!({ "ref": "next" }), None),
            ("issues", &json!({}), None),
        ] {
            assert_eq!(
                event_reference(event, payload).as_deref(),
                expected,
                "{event}"
            );
        }
        assert_eq!(
            pull_request_branches("pull_request", &pull),
            ("main", "fix")
        );
        assert_eq!(pull_request_branches("push", &pull), ("", ""));
    }
}
