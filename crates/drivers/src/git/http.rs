//! Smart HTTP by git's own backend, run as a CGI program. Bytes are streamed in both directions.
//!
//! # Invariants
//!
//! - Authorization is the caller's, by [`GitOperation::from_request`].
//! - Only the two services of smart HTTP exist, and only in the repository of the named service.
//! - A client that disconnects ends git, **except** after a complete push: the references may have been updated, so git finishes
//!   and its hook reports the push.

use std::{net::IpAddr, path::PathBuf, process::Stdio};

use bytes::Bytes;
use hyper::body::Body;
use shipway_core::{access::PushPrincipal, ids::ServiceName};
use tokio::sync::{mpsc, oneshot};

use super::{
    GitError, GitRepositories,
    hook::{self, HookToken},
    operation::GitOperation,
    relay::{BackendExchange, GitBody, RelayProgress, forward_upload},
};

/// The requester, and how git's hook reaches the server.
#[derive(Clone, Debug)]
pub struct GitCaller {
    /// Whose pushes the hook reports.
    pub pusher: PushPrincipal,
    /// The client's address.
    pub address: Option<IpAddr>,
    /// How the hook reports. Without it a push is stored and not reported.
    pub hook: Option<HookTarget>,
}

/// Where git's post-receive hook reports a push, see [`super::hook`].
#[derive(Clone, Debug)]
pub struct HookTarget {
    /// The `shipway` binary: runs `shipway hook post-receive`.
    pub exe: PathBuf,
    /// The URL for reports.
    pub url: String,
    /// The bearer token of the hook.
    pub token: HookToken,
}

impl GitRepositories {
    /// Answers a smart HTTP request for `service`; `path` is the part after the service: `info/refs`, `git-upload-pack`,
    /// `git-receive-pack`. Anything else gets 404.
    ///
    /// # Errors
    /// When the service has no repository ([`GitError::Missing`]), or git can't be started or exits before it answers.
    pub async fn http_backend<B>(
        &self,
        service: &ServiceName,
        path: &str,
        request: http::Request<B>,
        caller: GitCaller,
    ) -> Result<http::Response<GitBody>, GitError>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Send,
    {
        let Some(operation) =
            GitOperation::from_request(request.method(), path, request.uri().query())
        else {
            return Ok(missing_repository_response());
        };
        if self.get(service).is_none() {
            return Err(GitError::Missing(self.path(service)));
        }
        let mut command = self.git().command();
        command.arg("http-backend").current_dir(self.root());
        command
            .env("GIT_PROJECT_ROOT", self.root())
            .env("GIT_HTTP_EXPORT_ALL", "1");
        command.env("PATH_INFO", format!("/{service}.git/{path}"));
        command
            .envs(request_environment(&request))
            .envs(caller_environment(service, caller));
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().map_err(GitError::Start)?;
        let stdin = child.stdin.take().expect("it was piped");
        let progress = RelayProgress::default();
        let exchange = BackendExchange::new(service.clone(), operation, child, progress.clone());
        let (head, answer) = oneshot::channel();
        // The tasks are not children of this future: a complete push must outlive its client. Both end with git, which ends by
        // itself or by the watchdog.
        let upload = tokio::spawn(forward_upload(request.into_body(), stdin, progress));
        tokio::spawn(exchange.run(upload, head));
        answer.await.unwrap_or(Err(GitError::Failed {
            what: operation.description(),
            reason: "it was ended".to_owned(),
        }))
    }
}

/// The CGI variables of the request; nothing else of it reaches git. No content length: git then reads its input to the end
/// without a copying process, and a truncated body is an end of input, after which git cleans up.
fn request_environment<B>(request: &http::Request<B>) -> Vec<(&'static str, String)> {
    let mut variables = vec![
        ("REQUEST_METHOD", request.method().to_string()),
        (
            "QUERY_STRING",
            request.uri().query().unwrap_or_default().to_owned(),
        ),
        ("SERVER_PROTOCOL", "HTTP/1.1".to_owned()),
    ];
    for (variable, header) in [
        ("CONTENT_TYPE", "content-type"),
        ("HTTP_CONTENT_ENCODING", "content-encoding"),
        ("HTTP_GIT_PROTOCOL", "git-protocol"),
    ] {
        if let Some(value) = request
            .headers()
            .get(header)
            .and_then(|value| value.to_str().ok())
        {
            variables.push((variable, value.to_owned()));
        }
    }
    variables
}

fn caller_environment(
    service: &ServiceName,
    caller: GitCaller,
) -> Vec<(&'static str, std::ffi::OsString)> {
    // Git writes the name into the reference log, where a control character would forge lines.
    let PushPrincipal { principal, name } = caller.pusher;
    let name: Option<String> = name.map(|name| name.chars().filter(|c| !c.is_control()).collect());
    let mut variables = vec![(hook::PRINCIPAL, String::from(principal).into())];
    if let Some(address) = caller.address {
        variables.push(("REMOTE_ADDR", address.to_string().into()));
    }
    if let Some(name) = name.filter(|name| !name.is_empty()) {
        variables.push(("REMOTE_USER", name.clone().into()));
        variables.push((hook::PUSHER, name.into()));
    }
    match caller.hook {
        Some(target) => variables.extend([
            (hook::EXE, target.exe.into()),
            (hook::SERVICE, service.to_string().into()),
            (hook::URL, target.url.into()),
            (hook::TOKEN, target.token.reveal().into()),
        ]),
        // The hook is always installed; without a target it runs `true`.
        None => variables.push((hook::EXE, "true".into())),
    }
    variables
}

fn missing_repository_response() -> http::Response<GitBody> {
    let (_, nothing) = mpsc::channel(1);
    let mut response = http::Response::new(GitBody(nothing));
    *response.status_mut() = http::StatusCode::NOT_FOUND;
    response
}
