//! Reads payloads of webhooks, whose signature has been verified. Unknown fields are ignored.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    change::{ForgeChange, PullRequestChange, PullRequestOrigin},
    connection::ForgeKind,
};
use crate::ids::CommitId;

/// Bytes of the name of a reference at most; git's own limit is that of a path.
const REFERENCE_BYTES_MAX: usize = 500;

/// The meaning of a payload.
#[derive(Clone, Debug, PartialEq)]
pub enum WebhookMeaning {
    /// A change of this project.
    Change {
        project: String,
        change: Box<ForgeChange>,
    },
    /// Nothing follows from it, and why.
    Ignored(String),
}

/// A payload that is not what its event should have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    #[error(
        "the body is not a JSON object: choose the content type application/json for the webhook"
    )]
    NotJson,
    #[error("a {event} event must have `{field}`, but this has none that can be read")]
    Field {
        event: &'static str,
        field: &'static str,
    },
}

/// Reads a payload; `event` is the value of the forge's event header.
pub fn read_webhook(
    forge: ForgeKind,
    event: &str,
    body: &[u8],
) -> Result<WebhookMeaning, PayloadError> {
    let payload: Value = serde_json::from_slice(body).map_err(|_| PayloadError::NotJson)?;
    if !payload.is_object() {
        return Err(PayloadError::NotJson);
    }
    match (forge, event) {
        (ForgeKind::Github | ForgeKind::Gitea, "push") => read_reference(
            &payload,
            "/repository/full_name",
            &["/sender/login", "/pusher/login", "/pusher/name"],
        ),
        (ForgeKind::Gitlab, "Push Hook" | "Tag Push Hook") => read_reference(
            &payload,
            "/project/path_with_namespace",
            &["/user_username"],
        ),
        (ForgeKind::Github | ForgeKind::Gitea, "pull_request" | "pull_request_sync") => {
            read_pull_request(payload)
        }
        (ForgeKind::Gitlab, "Merge Request Hook") => read_merge_request(&payload),
        (_, "ping") => Ok(WebhookMeaning::Ignored(
            "ping: the signature is right".to_owned(),
        )),
        (_, other) => {
            let shown: String = other.chars().filter(|c| !c.is_control()).take(60).collect();
            Ok(WebhookMeaning::Ignored(format!(
                "{shown}: only pushes, tags and pull requests are used"
            )))
        }
    }
}

fn text<'v>(payload: &'v Value, pointer: &str) -> Option<&'v str> {
    payload.pointer(pointer).and_then(Value::as_str)
}

fn commit(payload: &Value, pointer: &str) -> Option<CommitId> {
    text(payload, pointer)?.parse().ok()
}

fn sender(payload: &Value, pointers: &[&str]) -> Option<String> {
    let mut names = pointers.iter().filter_map(|pointer| text(payload, pointer));
    let name = names.find(|name| !name.is_empty())?;
    Some(name.chars().filter(|c| !c.is_control()).take(100).collect())
}

/// Whether git accepts it as the name of a branch or tag, and a refspec can't mean anything else by it.
fn is_reference(name: &str) -> bool {
    let short = name.strip_prefix("refs/heads/");
    let short = short.or_else(|| name.strip_prefix("refs/tags/"));
    let Some(short) = short.filter(|short| !short.is_empty()) else {
        return false;
    };
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with('.')
            && !part.ends_with(".lock")
            && !part.ends_with('.')
    };
    let is_allowed = |c: char| !c.is_control() && !" ~^:?*[\\".contains(c);
    name.len() <= REFERENCE_BYTES_MAX
        && short.split('/').all(is_part)
        && short.chars().all(is_allowed)
        && !short.contains("..")
        && !short.contains("@{")
        && !short.starts_with('-')
}

fn read_reference(
    payload: &Value,
    project: &'static str,
    senders: &[&str],
) -> Result<WebhookMeaning, PayloadError> {
    let missing = |field| PayloadError::Field {
        event: "push",
        field,
    };
    let project = text(payload, project).ok_or_else(|| missing("repository"))?;
    let reference = text(payload, "/ref").ok_or_else(|| missing("ref"))?;
    if !is_reference(reference) {
        return Ok(WebhookMeaning::Ignored(
            "push: the reference is neither a branch nor a tag".to_owned(),
        ));
    }
    Ok(WebhookMeaning::Change {
        project: project.to_owned(),
        change: Box::new(ForgeChange::Reference {
            reference: reference.to_owned(),
            sender: sender(payload, senders),
        }),
    })
}

const fn missing_in_pull_request(field: &'static str) -> PayloadError {
    PayloadError::Field {
        event: "pull_request",
        field,
    }
}

fn checked_branch(name: Option<&str>) -> Option<String> {
    let name = name.filter(|name| is_reference(&format!("refs/heads/{name}")))?;
    Some(name.to_owned())
}

/// GitHub's payload, which Gitea has nearly the same: it says `synchronized`.
fn read_pull_request(mut payload: Value) -> Result<WebhookMeaning, PayloadError> {
    let project = text(&payload, "/repository/full_name");
    let project = project.ok_or_else(|| missing_in_pull_request("repository.full_name"))?;
    let project = project.to_owned();
    let action = text(&payload, "/action").ok_or_else(|| missing_in_pull_request("action"))?;
    let action = match action {
        "synchronized" => "synchronize".to_owned(),
        action => action.chars().take(60).collect(),
    };
    payload["action"] = Value::from(action.clone());
    let number = payload.get("number");
    let number = number.or_else(|| payload.pointer("/pull_request/number"));
    let number = number.and_then(Value::as_u64);
    let id = |pointer: &str| payload.pointer(pointer).and_then(Value::as_u64);
    let (head, base) = (
        id("/pull_request/head/repo/id"),
        id("/pull_request/base/repo/id"),
    );
    let is_merged = payload.pointer("/pull_request/merged") == Some(&Value::Bool(true));
    let merged_as = commit(&payload, "/pull_request/merge_commit_sha").filter(|_| is_merged);
    let change = PullRequestChange {
        number: number.ok_or_else(|| missing_in_pull_request("number"))?,
        action,
        head: commit(&payload, "/pull_request/head/sha")
            .ok_or_else(|| missing_in_pull_request("pull_request.head.sha"))?,
        base_branch: checked_branch(text(&payload, "/pull_request/base/ref"))
            .ok_or_else(|| missing_in_pull_request("pull_request.base.ref"))?,
        origin: origin(head, base),
        merged_as,
        updated_at: text(&payload, "/pull_request/updated_at").and_then(|text| text.parse().ok()),
        sender: sender(&payload, &["/sender/login"]),
        payload,
    };
    Ok(WebhookMeaning::Change {
        project,
        change: Box::new(ForgeChange::PullRequest(Box::new(change))),
    })
}

const fn origin(head: Option<u64>, base: Option<u64>) -> PullRequestOrigin {
    match (head, base) {
        (Some(head), Some(base)) if head == base => PullRequestOrigin::SameRepository,
        // The repository of the head may have been deleted.
        _ => PullRequestOrigin::Fork,
    }
}

/// GitLab's merge request as a pull request.
fn read_merge_request(payload: &Value) -> Result<WebhookMeaning, PayloadError> {
    let project = text(payload, "/project/path_with_namespace")
        .ok_or_else(|| missing_in_pull_request("project.path_with_namespace"))?;
    let attributes = payload
        .get("object_attributes")
        .ok_or_else(|| missing_in_pull_request("object_attributes"))?;
    let Some(action) = merge_request_action(attributes) else {
        return Ok(WebhookMeaning::Ignored(
            "Merge Request Hook: the action changes no commits".to_owned(),
        ));
    };
    let number = attributes.get("iid").and_then(Value::as_u64);
    let id = |pointer: &str| attributes.pointer(pointer).and_then(Value::as_u64);
    let is_merged = text(attributes, "/action") == Some("merge");
    let mut change = PullRequestChange {
        number: number.ok_or_else(|| missing_in_pull_request("object_attributes.iid"))?,
        action: action.to_owned(),
        head: commit(attributes, "/last_commit/id")
            .ok_or_else(|| missing_in_pull_request("object_attributes.last_commit.id"))?,
        base_branch: checked_branch(text(attributes, "/target_branch"))
            .ok_or_else(|| missing_in_pull_request("object_attributes.target_branch"))?,
        origin: origin(id("/source_project_id"), id("/target_project_id")),
        merged_as: commit(attributes, "/merge_commit_sha").filter(|_| is_merged),
        updated_at: text(attributes, "/updated_at").and_then(parse_gitlab_time),
        sender: sender(payload, &["/user/username"]),
        payload: Value::Null,
    };
    change.payload = github_payload(&change, project, attributes);
    Ok(WebhookMeaning::Change {
        project: project.to_owned(),
        change: Box::new(ForgeChange::PullRequest(Box::new(change))),
    })
}

/// An action in GitHub's words; none for approvals and the like.
fn merge_request_action(attributes: &Value) -> Option<&'static str> {
    Some(match text(attributes, "/action")? {
        "open" => "opened",
        "reopen" => "reopened",
        "close" | "merge" => "closed",
        // An update has `oldrev` only when commits were pushed.
        "update" if attributes.get("oldrev").is_some_and(Value::is_string) => "synchronize",
        "update" => "edited",
        _ => return None,
    })
}

/// A merge request in the form of GitHub's payload, so that workflows for GitHub can read it.
fn github_payload(change: &PullRequestChange, project: &str, attributes: &Value) -> Value {
    let repository =
        |id: &str, name: Option<&str>| json!({ "id": attributes.get(id), "full_name": name });
    let (number, action) = (change.number, change.action.as_str());
    let sender = json!({ "login": change.sender });
    json!({
        "action": action,
        "number": number,
        "pull_request": {
            "number": number,
            "title": text(attributes, "/title"),
            "body": text(attributes, "/description"),
            "html_url": text(attributes, "/url"),
            "draft": attributes.get("draft"),
            "state": if action == "closed" { "closed" } else { "open" },
            "merged": change.merged_as.is_some(),
            "merge_commit_sha": change.merged_as,
            "user": sender,
            "head": {
                "ref": text(attributes, "/source_branch"),
                "sha": change.head,
                "repo": repository("source_project_id", text(attributes, "/source/path_with_namespace")),
            },
            "base": {
                "ref": change.base_branch,
                "repo": repository("target_project_id", text(attributes, "/target/path_with_namespace")),
            },
        },
        "repository": repository("target_project_id", Some(project)),
        "sender": sender,
    })
}

/// `2026-01-02 03:04:05 UTC`, or RFC 3339.
fn parse_gitlab_time(text: &str) -> Option<Timestamp> {
    let plain = text.strip_suffix(" UTC").map(|time| format!("{time}Z"));
    plain.as_deref().unwrap_or(text).parse().ok()
}
