//! `shipway/deploy`: deploys an artifact of the run to an environment and follows the rollout until it ends.

use std::{
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use shipway_workflow::job::{JournalBody, ServerAccess};
use tokio::sync::mpsc;

use super::{
    action_error::ActionError,
    step_context::{StepContext, StepResult},
};
use crate::server_request::{RequestError, bearer_header, http_agent};

/// Polling interval for a rollout, in addition to change notifications, which stop when the server restarts.
const LOOK: Duration = Duration::from_secs(5);
/// How long an unreachable server is retried: it may be restarting.
const RETRY: Duration = Duration::from_secs(60);
/// Timeout of one request.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) async fn run_deploy(context: &mut StepContext<'_>) -> Result<StepResult, ActionError> {
    let environment = context
        .input("environment")
        .ok_or_else(|| ActionError::MissingInput {
            action: "shipway/deploy",
            input: "environment".to_owned(),
        })?
        .to_owned();
    let artifact = context.input("artifact").map(str::to_owned);
    let waits = context.input("wait").is_none() || context.bool_input("wait")?;
    let Some(server) = context.server.cloned().map(DeployClient) else {
        return Ok(StepResult::unsupported(format!(
            "skipped: the deploy to {environment} needs a server, and this run has none; push to a server to deploy"
        )));
    };
    let github = |name: &str| context.github.get(name).to_text().to_string();
    let repository = github("repository");
    let own = repository.rsplit('/').next().unwrap_or_default();
    let service = context.input("service").unwrap_or(own).to_owned();
    let body = json!({
        "run": github("run_number"),
        "commit": github("sha"),
        "environment": environment,
        "artifact": artifact,
        "reason": context.input("release-notes").or(context.input("reason")),
    });
    let answer = server.request_deploy(&service, &body).await?;
    if let Some(why) = answer["dropped"].as_str() {
        return Err(ActionError::NotDeployed(why.to_owned()));
    }
    let release = answer["release"].to_string();
    let rollout = answer["rollouts"][0].as_str().map(str::to_owned);
    let held = answer["waits_for"]["hold"]["by"].as_str().map(|by| {
        format!("waiting: {by} holds the environment until a person resumes it (shipway resume {service} --env {environment})")
    });
    let waiting = held.as_deref().unwrap_or("queued");
    let shown = rollout.as_deref().unwrap_or(waiting);
    context.log_message(&format!(
        "Deploying release #{release} to {environment}: {shown}"
    ));
    let mut left = StepResult::with_outputs([
        ("release", release),
        ("rollout", rollout.clone().unwrap_or_default()),
    ]);
    left.entries.push(JournalBody::DeployAsked {
        environment,
        artifact,
        rollout: rollout.clone(),
    });
    if let Some(rollout) = rollout.filter(|_| waits) {
        follow_rollout(context, &server, &rollout.replace("/ro", "/")).await?;
    }
    Ok(left)
}

/// Prints a rollout's notes until it ends; an error if it didn't succeed.
async fn follow_rollout(
    context: &mut StepContext<'_>,
    server: &DeployClient,
    rollout: &str,
) -> Result<(), ActionError> {
    let mut changes = server.watch_stream(format!("rollout/{rollout}"));
    let mut told = 0;
    loop {
        let view = server
            .send_with_retries(format!("/api/v1/rollouts/{rollout}"), None)
            .await?;
        let notes = view["notes"].as_array().map_or(&[][..], Vec::as_slice);
        for note in notes.iter().skip(told) {
            context.log_message(note["text"].as_str().unwrap_or_default());
        }
        told = notes.len();
        match view["status"].as_str().unwrap_or_default() {
            "promoted" | "kept_warm" => return Ok(()),
            "rolled_back" | "aborted" | "rejected" | "superseded" | "failed" => {
                let why = view["ended"]["why"]
                    .as_str()
                    .unwrap_or("it was rolled back");
                return Err(ActionError::RolloutFailed(why.to_owned()));
            }
            _ => {}
        }
        tokio::select! {
            Some(()) = changes.recv() => {}
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

struct DeployClient(ServerAccess);

impl DeployClient {
    /// Requests a deployment. Retries while an artifact of this job is not yet in the server's store.
    async fn request_deploy(&self, service: &str, body: &Value) -> Result<Value, ActionError> {
        let begun = Instant::now();
        loop {
            let path = format!("/api/v1/services/{service}/deploys");
            match self.send_with_retries(path, Some(body.clone())).await {
                Err(RequestError::ArtifactMissing(_)) if begun.elapsed() < ANSWER => {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                answer => return Ok(answer?),
            }
        }
    }

    /// Sends a request, which must be idempotent: it is repeated while the server is unreachable.
    async fn send_with_retries(
        &self,
        path: String,
        body: Option<Value>,
    ) -> Result<Value, RequestError> {
        let begun = Instant::now();
        loop {
            let (access, path, body) = (self.0.clone(), path.clone(), body.clone());
            let answer =
                tokio::task::spawn_blocking(move || send_request(&access, &path, body.as_ref()))
                    .await;
            match answer.unwrap_or_else(|error| Err(RequestError::Unreachable(error.to_string()))) {
                Err(RequestError::Unreachable(_)) if begun.elapsed() < RETRY => {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                answer => return answer,
            }
        }
    }

    /// Notifies of events in a stream of the server's log. Best effort: ends silently when the connection does.
    fn watch_stream(&self, stream: String) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel(1);
        let access = self.0.clone();
        // Ends with the process, or with the first event after the receiver was dropped.
        std::thread::spawn(move || {
            let url = format!("{}/api/v1/events?stream={stream}", access.url);
            let agent = http_agent(None);
            let Ok(answer) = agent
                .get(url)
                .header("authorization", bearer_header(&access))
                .call()
            else {
                return;
            };
            let lines = BufReader::new(answer.into_body().into_reader()).lines();
            for line in lines.map_while(Result::ok) {
                let happened = line.starts_with("data:");
                // The channel holds one notification: further ones are merged.
                if happened && sender.try_send(()).is_err() && sender.is_closed() {
                    return;
                }
            }
        });
        receiver
    }
}

fn send_request(
    access: &ServerAccess,
    path: &str,
    body: Option<&Value>,
) -> Result<Value, RequestError> {
    let (agent, url) = (http_agent(Some(ANSWER)), format!("{}{path}", access.url));
    let sent = match body {
        Some(body) => agent
            .post(url)
            .header("authorization", bearer_header(access))
            .send_json(body),
        None => agent
            .get(url)
            .header("authorization", bearer_header(access))
            .call(),
    };
    let mut answer = sent.map_err(|error| RequestError::Unreachable(error.to_string()))?;
    let status = answer.status();
    let document: Value = answer.body_mut().read_json().unwrap_or_default();
    if status.is_success() {
        return Ok(document);
    }
    Err(RequestError::from_problem(status, &document))
}
