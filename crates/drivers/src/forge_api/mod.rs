//! The APIs of forges: statuses of commits, deployments, and comments on pull requests.
//!
//! [`ForgeClient::send`] sends one report, and its error says whether a retry may succeed; order and retries belong to the caller.
//! A report may be sent twice: statuses replace each other, and deployments and comments of an earlier attempt are found at the forge.

mod client;
mod github;
mod gitlab;

pub use client::{ForgeApiError, ForgeClient};

use shipway_core::forge::{
    CommitStatusReport, DeploymentReport, ForgeConnection, ForgeKind, ReportedProgress,
};

/// One report to write.
#[derive(Clone, Debug)]
pub enum ForgeWrite {
    /// The state of a run.
    Status(CommitStatusReport),
    /// The state of a rollout.
    Deployment {
        /// What to write.
        report: DeploymentReport,
        /// The forge's id of it, from an earlier report of the same rollout.
        known: Option<u64>,
    },
    /// The comment on a pull request.
    Comment {
        /// The number of the pull request.
        pull_request: u64,
        /// In Markdown.
        text: String,
        /// By which a comment of an earlier attempt is found.
        marker: String,
        /// The forge's id of it.
        known: Option<u64>,
    },
}

/// Characters of the description of a status at most, as GitHub allows.
const DESCRIPTION_CHARS_MAX: usize = 140;

impl ForgeClient {
    /// Writes one report; returns the forge's id of the deployment or the comment.
    ///
    /// # Errors
    /// When the forge can't be reached, or doesn't answer with success.
    pub async fn send(
        &self,
        connection: &ForgeConnection,
        token: &str,
        write: ForgeWrite,
    ) -> Result<Option<u64>, ForgeApiError> {
        let api = client::ForgeApi::new(self.clone(), connection, token);
        tokio::task::spawn_blocking(move || match api.forge {
            ForgeKind::Github | ForgeKind::Gitea => github::write(&api, write),
            ForgeKind::Gitlab => gitlab::write(&api, write),
        })
        .await
        .unwrap_or(Err(ForgeApiError::Stopped))
    }
}

/// A rollout as the status of its commit, for forges whose API has no deployments that fit.
fn deployment_status(report: &DeploymentReport) -> CommitStatusReport {
    CommitStatusReport {
        commit: report.commit.clone(),
        context: report.context(),
        progress: report.progress,
        description: report.description.clone(),
        url: report.url.clone(),
        pull_request: None,
    }
}

fn shorten(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).collect();
    if text.chars().count() <= DESCRIPTION_CHARS_MAX {
        return text;
    }
    let start = text.chars().take(DESCRIPTION_CHARS_MAX - 1);
    start.chain(['…']).collect()
}

/// The state of a commit's status in the words of GitHub and Gitea.
const fn status_state(progress: ReportedProgress) -> &'static str {
    match progress {
        ReportedProgress::Queued | ReportedProgress::Running => "pending",
        ReportedProgress::Success => "success",
        ReportedProgress::Failure => "failure",
        ReportedProgress::Stopped => "error",
    }
}
