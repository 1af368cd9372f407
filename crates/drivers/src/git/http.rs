//! Smart HTTP by git's own backend, run as a CGI program. Bytes are streamed in both directions.
//!
//! # Invariants
//!
//! - Authorization is the caller's, by [`GitOperation::from_request`].
//! - Only the two services of smart HTTP exist, and only in the repository of the named service.
//! - A client that disconnects ends git, **except** after a complete push: the references may have been updated, so git finishes
//!   and its hook reports the push.

use std::{
    io,
    net::IpAddr,
    path::PathBuf,
    pin::Pin,
    process::Stdio,
    task::{Context, Poll},
};

use bytes::Bytes;
use hyper::body::{Body, Frame};
use shipway_core::{access::PushPrincipal, ids::ServiceName};
use tokio::sync::{mpsc, oneshot};

use super::{
    GitError, GitRepositories,
    hook::{self, HookToken},
    relay::{BackendExchange, RelayProgress, forward_upload},
};

/// The operation that a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GitOperation {
    /// Clone or fetch.
    Read,
    /// Push.
    Write,
}

impl GitOperation {
    /// The operation of `method` on `path` (the part after `/git/{service}/` or `/git/{service}.git/`); `None` for anything
    /// else, which must be answered with 404.
    #[must_use]
    pub fn from_request(method: &http::Method, path: &str, query: Option<&str>) -> Option<Self> {
        let service = match path {
            "info/refs" if method == http::Method::GET => query?
                .split('&')
                .find_map(|pair| pair.strip_prefix("service="))?,
            service if method == http::Method::POST => service,
            _ => return None,
        };
        match service {
            "git-upload-pack" => Some(Self::Read),
            "git-receive-pack" => Some(Self::Write),
            _ => None,
        }
    }
}

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

/// A response body, streamed from git. It is dropped when the client disconnects.
#[derive(Debug)]
pub struct GitBody(pub(super) mpsc::Receiver<io::Result<Bytes>>);

impl Body for GitBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
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

impl GitOperation {
    pub(super) const fn description(self) -> &'static str {
        match self {
            Self::Read => "answer a fetch",
            Self::Write => "answer a push",
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_smart_http_exists() {
        let of = |method: &str, path: &str, query: Option<&str>| {
            GitOperation::from_request(&method.parse().unwrap(), path, query)
        };
        assert_eq!(
            of("GET", "info/refs", Some("service=git-upload-pack")),
            Some(GitOperation::Read)
        );
        assert_eq!(
            of("GET", "info/refs", Some("a=b&service=git-receive-pack")),
            Some(GitOperation::Write)
        );
        assert_eq!(
            of("POST", "git-upload-pack", None),
            Some(GitOperation::Read)
        );
        assert_eq!(
            of("POST", "git-receive-pack", None),
            Some(GitOperation::Write)
        );
        for (method, path, query) in [
            ("GET", "info/refs", None),
            ("GET", "info/refs", Some("service=git-shell")),
            ("GET", "HEAD", None),
            ("GET", "objects/info/packs", None),
            ("POST", "info/refs", Some("service=git-upload-pack")),
            ("POST", "../x.git/git-upload-pack", None),
            ("DELETE", "git-receive-pack", None),
        ] {
            assert_eq!(of(method, path, query), None, "{method} {path}");
        }
    }
}
