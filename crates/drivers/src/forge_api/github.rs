//! GitHub's REST API, and Gitea's, which has the same statuses and comments.

use serde_json::{Value, json};
use shipway_core::forge::{CommitStatusReport, DeploymentReport, ForgeKind, ReportedProgress};
use ureq::http::Method;

use super::{
    ForgeWrite,
    client::{ForgeApi, ForgeApiError},
    deployment_status, shorten, status_state,
};

/// Pages of comments that are searched for a comment of an earlier attempt.
const COMMENT_PAGES_MAX: u32 = 5;
/// Comments on a page; more than Gitea returns by default.
const PAGE_SIZE: usize = 50;

pub(super) fn write(api: &ForgeApi, write: ForgeWrite) -> Result<Option<u64>, ForgeApiError> {
    match write {
        ForgeWrite::Status(status) => write_status(api, &status).map(|()| None),
        ForgeWrite::Deployment { report, known } => match api.forge {
            ForgeKind::Github => write_deployment(api, &report, known).map(Some),
            ForgeKind::Gitea | ForgeKind::Gitlab => {
                write_status(api, &deployment_status(&report)).map(|()| None)
            }
        },
        ForgeWrite::Comment {
            pull_request,
            text,
            marker,
            known,
        } => write_comment(api, pull_request, &text, &marker, known),
    }
}

fn write_status(api: &ForgeApi, status: &CommitStatusReport) -> Result<(), ForgeApiError> {
    let path = format!("/repos/{}/statuses/{}", api.project, status.commit);
    let body = json!({
        "state": status_state(status.progress),
        "context": status.context,
        "description": shorten(&status.description),
        "target_url": status.url,
    });
    api.post(&path, &body).map(drop)
}

fn write_deployment(
    api: &ForgeApi,
    report: &DeploymentReport,
    known: Option<u64>,
) -> Result<u64, ForgeApiError> {
    let id = match known {
        Some(id) => id,
        None => find_or_create_deployment(api, report)?,
    };
    let state = match report.progress {
        ReportedProgress::Queued => "queued",
        ReportedProgress::Running => "in_progress",
        ReportedProgress::Success => "success",
        ReportedProgress::Failure => "failure",
        ReportedProgress::Stopped => "inactive",
    };
    let mut body = json!({
        "state": state,
        "description": shorten(&report.description),
        "log_url": report.url,
        "auto_inactive": true,
    });
    if let Some(url) = &report.environment_url {
        body["environment_url"] = Value::from(url.as_str());
    }
    let path = format!("/repos/{}/deployments/{id}/statuses", api.project);
    api.post(&path, &body).map(|_| id)
}

fn find_or_create_deployment(
    api: &ForgeApi,
    report: &DeploymentReport,
) -> Result<u64, ForgeApiError> {
    let path = format!("/repos/{}/deployments", api.project);
    let (commit, environment) = (&report.commit, &report.environment);
    let found = api.get(&format!("{path}?sha={commit}&environment={environment}"))?;
    let key = report.key();
    let is_this = |deployment: &&Value| {
        deployment
            .pointer("/payload/shipway_rollout")
            .and_then(Value::as_str)
            == Some(&key)
    };
    let found = found.as_array().and_then(|all| all.iter().find(is_this));
    if let Some(id) = found.and_then(|found| found.get("id")?.as_u64()) {
        return Ok(id);
    }
    let body = json!({
        "ref": commit,
        "task": "deploy",
        "environment": environment,
        "description": format!("{} {}", report.service, report.release),
        "auto_merge": false,
        "required_contexts": [],
        "payload": { "shipway_rollout": key },
        "production_environment": environment.as_str() == "production",
    });
    read_id(&api.post(&path, &body)?)
}

fn write_comment(
    api: &ForgeApi,
    pull_request: u64,
    text: &str,
    marker: &str,
    known: Option<u64>,
) -> Result<Option<u64>, ForgeApiError> {
    let list = format!("/repos/{}/issues/{pull_request}/comments", api.project);
    let known = match known {
        Some(id) => Some(id),
        None => find_comment(api, &list, marker, "body")?,
    };
    let body = json!({ "body": text });
    let written = match known {
        Some(id) => {
            let path = format!("/repos/{}/issues/comments/{id}", api.project);
            api.request(Method::PATCH, &path, &body)?
        }
        None => api.post(&list, &body)?,
    };
    read_id(&written).map(Some)
}

/// The comment that begins with the marker, which an earlier attempt may have left.
pub(super) fn find_comment(
    api: &ForgeApi,
    list: &str,
    marker: &str,
    field: &str,
) -> Result<Option<u64>, ForgeApiError> {
    for page in 1..=COMMENT_PAGES_MAX {
        let answer = api.get(&format!(
            "{list}?per_page={PAGE_SIZE}&limit={PAGE_SIZE}&page={page}"
        ))?;
        let comments = answer.as_array().cloned().unwrap_or_default();
        let is_own = |comment: &&Value| {
            let text = comment.get(field).and_then(Value::as_str);
            text.is_some_and(|text| text.starts_with(marker))
        };
        if let Some(found) = comments.iter().find(is_own) {
            return Ok(found.get("id").and_then(Value::as_u64));
        }
        if comments.len() < PAGE_SIZE {
            return Ok(None);
        }
    }
    Ok(None)
}

pub(super) fn read_id(answer: &Value) -> Result<u64, ForgeApiError> {
    let id = answer.get("id").and_then(Value::as_u64);
    id.ok_or_else(|| ForgeApiError::Refused {
        host: "the forge".to_owned(),
        answer: "a response without an id".to_owned(),
    })
}
