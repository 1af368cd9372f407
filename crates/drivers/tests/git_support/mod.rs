//! What the tests of git share: a person with a working tree, and a server in front of the repositories.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::{
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{body::Frame, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use shipway_core::ids::CommitId;
use shipway_drivers::git::{
    GitRepositories,
    hook::{HookToken, PushReport},
    http::{GitCaller, HookTarget},
};
use tokio::{
    net::TcpListener,
    process::Command,
    sync::{Mutex, mpsc},
    task::{AbortHandle, JoinSet},
};

/// Far more than anything here takes; a test that waits this long has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A person with a home of their own.
pub(crate) struct Person {
    pub(crate) home: tempfile::TempDir,
}

impl Person {
    pub(crate) fn new() -> Self {
        Self {
            home: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.home.path().join(name)
    }

    pub(crate) fn command(&self, dir: &Path) -> Command {
        let mut git = Command::new("git");
        git.env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.home.path());
        git.env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("LC_ALL", "C");
        for role in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{role}_NAME"), "Ada")
                .env(format!("GIT_{role}_EMAIL"), "ada@example.com");
            git.env(format!("GIT_{role}_DATE"), "2026-01-02T03:04:05Z");
        }
        git.current_dir(dir).kill_on_drop(true);
        git
    }

    pub(crate) async fn try_git(&self, dir: &Path, args: &[&str]) -> Output {
        let work = self.command(dir).args(args).stdin(Stdio::null()).output();
        tokio::time::timeout(PATIENCE, work)
            .await
            .expect("git ends")
            .unwrap()
    }

    pub(crate) async fn git(&self, dir: &Path, args: &[&str]) -> String {
        let output = self.try_git(dir, args).await;
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert!(output.status.success(), "git {args:?}: {out}{err}");
        out.trim().to_owned()
    }

    /// A working tree on `main` with nothing in it.
    pub(crate) async fn init(&self, name: &str) -> PathBuf {
        let dir = self.path(name);
        std::fs::create_dir_all(&dir).unwrap();
        self.git(&dir, &["init", "-q", "-b", "main"]).await;
        dir
    }

    /// Writes a file and commits everything.
    pub(crate) async fn commit(
        &self,
        dir: &Path,
        file: &str,
        content: impl AsRef<[u8]>,
    ) -> CommitId {
        let path = dir.join(file);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
        self.git(dir, &["add", "-A"]).await;
        self.git(
            dir,
            &[
                "commit",
                "-q",
                "--allow-empty",
                "-m",
                &format!("change {file}"),
            ],
        )
        .await;
        self.head(dir).await
    }

    pub(crate) async fn head(&self, dir: &Path) -> CommitId {
        self.git(dir, &["rev-parse", "HEAD"]).await.parse().unwrap()
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

type Answer = http::Response<UnsyncBoxBody<Bytes, std::io::Error>>;

/// What the hook's report is answered with, line by line, by the test.
pub(crate) struct Reported {
    pub(crate) report: PushReport,
    pub(crate) authorization: String,
    /// The answer; ends when dropped.
    pub(crate) answer: mpsc::Sender<std::io::Result<Frame<Bytes>>>,
}

impl Reported {
    pub(crate) async fn say(&self, line: &str) {
        self.answer
            .send(Ok(Frame::data(Bytes::from(format!("{line}\n")))))
            .await
            .unwrap();
    }
}

/// A server: `/git/{service}/…` and `/hook`.
pub(crate) struct Server {
    pub(crate) repos: GitRepositories,
    pub(crate) address: std::net::SocketAddr,
    pub(crate) reports: Mutex<mpsc::Receiver<Reported>>,
    task: AbortHandle,
    _root: tempfile::TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct State {
    repos: GitRepositories,
    hook: Option<HookTarget>,
    reports: mpsc::Sender<Reported>,
}

impl Server {
    /// `hook_exe` stands for the `shipway` binary; without it pushes are reported to nobody.
    pub(crate) async fn start(hook_exe: Option<PathBuf>) -> Self {
        let root = tempfile::tempdir().unwrap();
        let repos = GitRepositories::open(root.path().join("git")).unwrap();
        repos.ensure(&"shop".parse().unwrap()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, reports) = mpsc::channel(8);
        let hook = hook_exe.map(|exe| HookTarget {
            exe,
            url: format!("http://{address}/hook"),
            token: HookToken::new("hook-secret".to_owned()),
        });
        let state = Arc::new(State {
            repos: repos.clone(),
            hook,
            reports: sender,
        });
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = state.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| serve(state.clone(), request));
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self {
            repos,
            address,
            reports: Mutex::new(reports),
            task: task.abort_handle(),
            _root: root,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/git/shop", self.address)
    }

    pub(crate) async fn report(&self) -> Reported {
        let mut reports = self.reports.lock().await;
        tokio::time::timeout(PATIENCE, reports.recv())
            .await
            .expect("the hook reports")
            .unwrap()
    }
}

async fn serve(
    state: Arc<State>,
    request: http::Request<Incoming>,
) -> Result<Answer, std::convert::Infallible> {
    let path = request.uri().path().to_owned();
    let plain = |status: u16, text: String| {
        let body = Full::new(Bytes::from(text)).map_err(|never| match never {});
        http::Response::builder()
            .status(status)
            .body(UnsyncBoxBody::new(body))
            .unwrap()
    };
    if path == "/hook" {
        let authorization = request.headers()["authorization"]
            .to_str()
            .unwrap()
            .to_owned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let report = serde_json::from_slice(&body).unwrap();
        let (answer, lines) = mpsc::channel(8);
        state
            .reports
            .send(Reported {
                report,
                authorization,
                answer,
            })
            .await
            .unwrap();
        let lines = futures_util::stream::unfold(lines, async |mut lines| {
            Some((lines.recv().await?, lines))
        });
        return Ok(http::Response::new(UnsyncBoxBody::new(StreamBody::new(
            lines,
        ))));
    }
    let Some((service, rest)) = path
        .strip_prefix("/git/")
        .and_then(|path| path.split_once('/'))
    else {
        return Ok(plain(404, String::new()));
    };
    let caller = GitCaller {
        pusher: shipway_core::access::Principal::person("ada").pusher(),
        address: None,
        hook: state.hook.clone(),
    };
    Ok(
        match state
            .repos
            .http_backend(&service.parse().unwrap(), rest, request, caller)
            .await
        {
            Ok(response) => response.map(UnsyncBoxBody::new),
            Err(error) => plain(500, error.to_string()),
        },
    )
}

/// A program that does what `shipway hook post-receive` does: this test binary, running its ignored test `as_the_hook`.
pub(crate) fn hook_exe(person: &Person) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let path = person.path("shipway");
    let this = std::env::current_exe().unwrap();
    let script = format!(
        "#!/bin/sh\n[ \"$*\" = 'hook post-receive' ] || exit 1\nexec '{}' --ignored --exact as_the_hook --nocapture\n",
        this.display()
    );
    std::fs::write(&path, script).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}
