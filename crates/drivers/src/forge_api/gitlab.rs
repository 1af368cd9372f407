//! GitLab's REST API.

use serde_json::json;
use shipway_core::forge::{CommitStatusReport, ReportedProgress};
use ureq::http::Method;

use super::{
    ForgeWrite,
    client::{ForgeApi, ForgeApiError},
    deployment_status,
    github::{find_comment, read_id},
    shorten,
};

pub(super) fn write(api: &ForgeApi, write: ForgeWrite) -> Result<Option<u64>, ForgeApiError> {
    match write {
        ForgeWrite::Status(status) => write_status(api, &status).map(|()| None),
        ForgeWrite::Deployment { report, .. } => {
            write_status(api, &deployment_status(&report)).map(|()| None)
        }
        ForgeWrite::Comment {
            pull_request,
            text,
            marker,
            known,
        } => {
            let project = project(api);
            let notes = format!("/projects/{project}/merge_requests/{pull_request}/notes");
            let known = match known {
                Some(id) => Some(id),
                None => find_comment(api, &notes, &marker, "body")?,
            };
            let body = json!({ "body": text });
            let written = match known {
                Some(id) => api.request(Method::PUT, &format!("{notes}/{id}"), &body)?,
                None => api.post(&notes, &body)?,
            };
            read_id(&written).map(Some)
        }
    }
}

/// The path of the project as one segment of an address.
fn project(api: &ForgeApi) -> String {
    api.project.replace('/', "%2F")
}

fn write_status(api: &ForgeApi, status: &CommitStatusReport) -> Result<(), ForgeApiError> {
    let state = match status.progress {
        ReportedProgress::Queued => "pending",
        ReportedProgress::Running => "running",
        ReportedProgress::Success => "success",
        ReportedProgress::Failure => "failed",
        ReportedProgress::Stopped => "canceled",
    };
    let path = format!("/projects/{}/statuses/{}", project(api), status.commit);
    let body = json!({
        "state": state,
        "name": status.context,
        "description": shorten(&status.description),
        "target_url": status.url,
    });
    match api.post(&path, &body) {
        // GitLab refuses a status that is the current one.
        Err(ForgeApiError::Refused { answer, .. }) if answer.contains("Cannot transition") => {
            Ok(())
        }
        other => other.map(drop),
    }
}
