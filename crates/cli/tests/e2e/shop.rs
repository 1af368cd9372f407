//! A git repository with a small real service, its `shipway.yaml` and its workflow; quick enough to be shipped in every test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

/// Answers with its version, to `/slow` after a while, to `/exit` by dying. The file `MOOD` says how it behaves: `good`, `bad` (500 to
/// all but `/ready`), `exits`, `never-ready`, `deaf` (to SIGTERM).
const SERVICE: &str = r#"
import http.server, os, pathlib, signal, sys, threading, time
version = pathlib.Path("VERSION").read_text().strip()
mood = pathlib.Path("MOOD").read_text().strip()
if mood == "exits":
    sys.exit("the shop: no stock, leaving")
if mood == "deaf":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        ready = mood != "never-ready" or not self.path.startswith("/ready")
        code = 500 if mood == "bad" and not self.path.startswith("/ready") else 200 if ready else 503
        if self.path == "/exit":
            os._exit(3)
        if self.path.startswith("/slow"):
            time.sleep(1)
        body = version.encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *arguments):
        pass
class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False
server = Server(("127.0.0.1", int(os.environ["PORT"])), Handler)
if mood != "deaf":
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
print("serving", version, flush=True)
server.serve_forever(poll_interval=0.02)
server.server_close()
"#;

/// Staging by recreate, production by a canary in two short steps.
pub const CONFIG: &str = "
service: shop
run:
  command: exec python3 shop.py
  health: { http: /ready, interval: 100ms, timeout: 2s }
environments:
  staging:
    strategy: recreate
    smoke: [{ get: /ready, expect: { status: 200 } }]
  production:
    instances: 2
    strategy: { canary: { steps: [{ weight: 20, hold: 1s }, { weight: 60, hold: 500ms }] } }
    smoke: [{ get: /ready, expect: { status: 200 } }]
    analysis: [{ metric: error-rate, max: 5%, interval: 500ms, min_requests: 10 }]
";

const WORKFLOW: &str = "
name: cd
on:
  push: { branches: [main] }
  workflow_dispatch:
jobs:
  build:
    runs-on: ubuntu-latest
    steps:
      - uses: actions/checkout@v4
      - run: python3 -m py_compile shop.py
      - uses: actions/upload-artifact@v4
        with: { name: shop, path: \"shop.py\\nVERSION\\nMOOD\", if-no-files-found: error }
";

/// The repository.
pub struct Shop {
    pub path: PathBuf,
    remote: String,
}

impl Shop {
    /// A repository of whatever is in a folder.
    pub fn of(path: &Path, remote: &str) -> Self {
        let shop = Self {
            path: path.to_owned(),
            remote: remote.to_owned(),
        };
        shop.git(&["init", "--quiet", "--initial-branch=main"]);
        shop
    }

    pub fn create(path: &Path, remote: &str) -> Self {
        fs::create_dir_all(path.join(".github/workflows")).unwrap();
        let shop = Self::of(path, remote);
        shop.write("shop.py", SERVICE);
        shop.write("MOOD", "good\n");
        shop.write("shipway.yaml", CONFIG);
        shop.write(".github/workflows/cd.yml", WORKFLOW);
        shop
    }

    /// Another clone of what a server has.
    pub fn clone_of(path: &Path, remote: &str) -> Self {
        let shop = Self {
            path: path.to_owned(),
            remote: remote.to_owned(),
        };
        fs::create_dir_all(path).unwrap();
        shop.git(&["clone", "--quiet", remote, "."]);
        shop
    }

    /// A new file, or a new text for one. A `shipway.yaml` that says nothing of `watch` gets `watch: none`, so that rollouts end
    /// with their promotion: tests of the guard say how long theirs is.
    pub fn write(&self, name: &str, text: &str) {
        let text = if name == "shipway.yaml" && !text.contains("watch:") {
            text.replace("    strategy:", "    watch: none\n    strategy:")
                .replace("{ strategy:", "{ watch: none, strategy:")
        } else {
            text.to_owned()
        };
        fs::write(self.path.join(name), text).unwrap();
    }

    /// Replaces a part of a file that must be there.
    pub fn edit(&self, name: &str, from: &str, to: &str) {
        let text = fs::read_to_string(self.path.join(name)).unwrap();
        assert!(text.contains(from), "{name} has no {from:?}");
        self.write(name, &text.replace(from, to));
    }

    /// Commits all there is as a version.
    pub fn commit(&self, version: &str) {
        self.write("VERSION", &format!("{version}\n"));
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message", version]);
    }

    /// Commits and pushes a version; its output once the push is over.
    pub fn ship(&self, version: &str) -> Output {
        self.commit(version);
        self.push("main")
    }

    /// Commits a version and begins to push it.
    pub fn ship_begun(&self, version: &str) -> Child {
        self.commit(version);
        self.push_begun("main")
    }

    /// `git push`, which follows what happens to the end.
    pub fn push(&self, refspec: &str) -> Output {
        self.push_begun(refspec).wait_with_output().unwrap()
    }

    /// A push that goes on meanwhile.
    pub fn push_begun(&self, refspec: &str) -> Child {
        let mut push = self.command(&["push", &self.remote, refspec]);
        push.stdout(Stdio::piped()).stderr(Stdio::piped());
        push.spawn().unwrap()
    }

    pub fn git(&self, words: &[&str]) {
        let done = self.command(words).output().unwrap();
        let why = String::from_utf8_lossy(&done.stderr);
        assert!(done.status.success(), "git {words:?}: {why}");
    }

    /// Git that reads nobody's configuration.
    fn command(&self, words: &[&str]) -> Command {
        let mut git = Command::new("git");
        git.args(words)
            .current_dir(&self.path)
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_TERMINAL_PROMPT", "0")
            .stdin(Stdio::null());
        for who in ["AUTHOR", "COMMITTER"] {
            git.env(format!("GIT_{who}_NAME"), "Ann")
                .env(format!("GIT_{who}_EMAIL"), "ann@example.com");
        }
        git
    }
}
