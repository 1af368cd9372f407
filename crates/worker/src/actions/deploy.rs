//! `shipway/deploy`: the run's artifact into an environment, and its rollout followed to the end.

use std::time::Duration;

use serde_json::{Value, json};
use shipway_workflow::job::JournalBody;

use super::{Call, Left};

/// From one look at the rollout to the next.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn run(call: &mut Call<'_>) -> Result<Left, String> {
    let environment = call
        .get("environment")
        .ok_or("shipway/deploy needs `environment`")?
        .to_owned();
    let artifact = call.get("artifact").map(str::to_owned);
    let Some(server) = call.spec.server.clone() else {
        call.say(format!(
            "The deploy to {environment} is left out: this run has no server."
        ));
        return Ok(Left::default());
    };
    let text = |name: &str| call.spec.contexts.github.get(name).to_text().to_string();
    let service = call.get("service").map_or_else(
        || {
            text("repository")
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned()
        },
        str::to_owned,
    );
    let body = json!({ "run": text("run_number"), "artifact": artifact, "environment": environment, "reason": call.get("reason") });
    let post = {
        let (server, service) = (server.clone(), service.clone());
        move || {
            request(
                &server.url,
                &server.token,
                &format!("/api/v1/services/{service}/deploys"),
                Some(&body),
            )
        }
    };
    let answer = blocking(post).await?;
    if let Some(why) = answer["dropped"].as_str() {
        return Err(format!("nothing is deployed: {why}"));
    }
    let release = answer["release"].clone();
    call.say(format!("Release #{release} goes to {environment}"));
    let rollout = answer["rollouts"][0].as_str().map(str::to_owned);
    let entries = vec![JournalBody::DeployAsked {
        environment: environment.clone(),
        artifact,
        rollout: rollout.clone(),
    }];
    let outputs = vec![
        ("release".to_owned(), release.to_string()),
        ("rollout".to_owned(), rollout.clone().unwrap_or_default()),
    ];
    let waits = call.get("wait") != Some("false");
    if let Some(rollout) = rollout.filter(|_| waits) {
        follow(
            call,
            &server.url,
            &server.token,
            &rollout.replace("/ro", "/"),
        )
        .await?;
    }
    Ok(Left { outputs, entries })
}

async fn follow(call: &mut Call<'_>, url: &str, token: &str, rollout: &str) -> Result<(), String> {
    let mut told = 0;
    loop {
        let (url, token, path) = (
            url.to_owned(),
            token.to_owned(),
            format!("/api/v1/rollouts/{rollout}"),
        );
        let view = blocking(move || request(&url, &token, &path, None)).await?;
        let notes = view["notes"].as_array().cloned().unwrap_or_default();
        for note in notes.iter().skip(told) {
            call.say(note["text"].as_str().unwrap_or_default());
        }
        told = notes.len();
        match view["status"].as_str().unwrap_or_default() {
            "promoted" | "kept_warm" => return Ok(()),
            "rolled_back" | "failed" => {
                return Err(format!(
                    "the rollout ended: {}",
                    view["ended"]["why"]
                        .as_str()
                        .unwrap_or("it was rolled back")
                ));
            }
            _ => tokio::time::sleep(LOOK).await,
        }
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| error.to_string())?
}

fn request(url: &str, token: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(30)))
        .build()
        .into();
    let (address, bearer) = (format!("{url}{path}"), format!("Bearer {token}"));
    let sent = match body {
        Some(body) => agent
            .post(address)
            .header("authorization", bearer)
            .header("x-shipway-user", "workflow")
            .send_json(body),
        None => agent.get(address).header("authorization", bearer).call(),
    };
    let mut answer = sent.map_err(|error| format!("the server can't be reached: {error}"))?;
    let fine = answer.status().is_success();
    let document: Value = answer
        .body_mut()
        .read_json()
        .map_err(|error| error.to_string())?;
    if fine {
        Ok(document)
    } else {
        Err(document["detail"]
            .as_str()
            .unwrap_or("the server refused")
            .to_owned())
    }
}
