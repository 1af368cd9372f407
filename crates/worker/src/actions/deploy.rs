//! `shipway/deploy`: deploys an artifact of the run to an environment and follows the rollout until it ends.

use std::{
    io::{BufRead, BufReader},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use shipway_workflow::job::{JournalBody, ServerAccess};
use tokio::sync::mpsc;

use super::{ActionContext, ActionEffects, run_blocking};

/// Polling interval for a rollout, in addition to change notifications, which stop when the server restarts.
const LOOK: Duration = Duration::from_secs(5);
/// How long an unreachable server is retried: it may be restarting.
const RETRY: Duration = Duration::from_secs(60);
/// Timeout of one request.
const ANSWER: Duration = Duration::from_secs(30);

pub(super) async fn run_deploy(call: &mut ActionContext<'_>) -> Result<ActionEffects, String> {
    let environment = call
        .input("environment")
        .ok_or("shipway/deploy needs `environment`")?
        .to_owned();
    let artifact = call.input("artifact").map(str::to_owned);
    let waits = call.input("wait").is_none() || call.bool_input("wait")?;
    let Some(server) = call.spec.server.clone().map(DeployClient) else {
        return Ok(ActionEffects::unsupported(format!(
            "left out: the deploy to {environment} needs a server, and this run has none; push to one to have it deployed"
        )));
    };
    let github = |name: &str| call.spec.contexts.github.get(name).to_text().to_string();
    let repository = github("repository");
    let own = repository.rsplit('/').next().unwrap_or_default();
    let service = call.input("service").unwrap_or(own).to_owned();
    let body = json!({
        "run": github("run_number"),
        "commit": github("sha"),
        "environment": environment,
        "artifact": artifact,
        "reason": call.input("release-notes").or(call.input("reason")),
    });
    let answer = server.request_deploy(&service, &body).await?;
    if let Some(why) = answer["dropped"].as_str() {
        return Err(format!("nothing is deployed: {why}"));
    }
    let release = answer["release"].to_string();
    let rollout = answer["rollouts"][0].as_str().map(str::to_owned);
    let held = answer["waits_for"]["hold"]["by"].as_str().map(|by| {
        format!("waits, {by} holds the environment until a person resumes it (shipway resume {service} --env {environment})")
    });
    let waiting = held.as_deref().unwrap_or("waits for its turn");
    let shown = rollout.as_deref().unwrap_or(waiting);
    call.log_message(&format!(
        "Release #{release} goes to {environment}: {shown}"
    ));
    let mut left = ActionEffects::with_outputs([
        ("release", release),
        ("rollout", rollout.clone().unwrap_or_default()),
    ]);
    left.entries.push(JournalBody::DeployAsked {
        environment,
        artifact,
        rollout: rollout.clone(),
    });
    if let Some(rollout) = rollout.filter(|_| waits) {
        follow_rollout(call, &server, &rollout.replace("/ro", "/")).await?;
    }
    Ok(left)
}

/// Prints a rollout's notes until it ends; an error if it didn't succeed.
async fn follow_rollout(
    call: &mut ActionContext<'_>,
    server: &DeployClient,
    rollout: &str,
) -> Result<(), String> {
    let mut changes = server.watch_stream(format!("rollout/{rollout}"));
    let mut told = 0;
    loop {
        let view = server
            .send_with_retries(format!("/api/v1/rollouts/{rollout}"), None)
            .await
            .map_err(RequestError::into_message)?;
        let notes = view["notes"].as_array().map_or(&[][..], Vec::as_slice);
        for note in notes.iter().skip(told) {
            call.log_message(note["text"].as_str().unwrap_or_default());
        }
        told = notes.len();
        match view["status"].as_str().unwrap_or_default() {
            "promoted" | "kept_warm" => return Ok(()),
            "rolled_back" | "aborted" | "rejected" | "superseded" | "failed" => {
                let why = view["ended"]["why"]
                    .as_str()
                    .unwrap_or("it was rolled back");
                return Err(format!("the rollout ended: {why}"));
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

/// Why a request failed.
enum RequestError {
    /// No response.
    Unreachable(String),
    /// Status and message of the server's error response.
    Response(u16, String),
}

impl RequestError {
    fn into_message(self) -> String {
        match self {
            Self::Unreachable(why) => format!("the server can't be reached: {why}"),
            Self::Response(_, why) => why,
        }
    }
}

impl DeployClient {
    /// Requests a deployment. Retries while an artifact of this job is not yet in the server's store.
    async fn request_deploy(&self, service: &str, body: &Value) -> Result<Value, String> {
        let begun = Instant::now();
        loop {
            let path = format!("/api/v1/services/{service}/deploys");
            match self.send_with_retries(path, Some(body.clone())).await {
                Err(RequestError::Response(409, why))
                    if why.contains("no such artifact") && begun.elapsed() < ANSWER =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                answer => return answer.map_err(RequestError::into_message),
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
                run_blocking(move || Ok(send_request(&access, &path, body.as_ref()))).await;
            match answer.unwrap_or_else(|why| Err(RequestError::Unreachable(why))) {
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

pub(super) fn bearer_header(access: &ServerAccess) -> String {
    format!("Bearer {}", access.token)
}

pub(super) fn http_agent(timeout: Option<Duration>) -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(timeout)
        .build()
        .into()
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
    let why = document["detail"]
        .as_str()
        .map_or_else(|| format!("the server answers {status}"), str::to_owned);
    Err(RequestError::Response(status.as_u16(), why))
}
