//! A server of its own for each test: ports, data and everything it starts are gone when the test is over.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU16, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::shop::Shop;

/// Longer than anything takes on a busy machine; a test that waits as long has failed.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// The binary under test.
pub const SHIPWAY: &str = env!("CARGO_BIN_EXE_shipway");

/// A command in a folder, without the configuration of the caller's environment.
pub fn shipway_in(folder: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(SHIPWAY);
    command.args(words).current_dir(folder);
    for name in ["SHIPWAY_TOKEN", "SHIPWAY_URL", "SHIPWAY_LABELS"] {
        command.env_remove(name);
    }
    command
}

/// A data directory with its ports; the server on it can be started, killed and started again.
pub struct Site {
    /// The folder of all that a test makes.
    pub folder: tempfile::TempDir,
    /// `127.0.0.1:port` of the API.
    pub listen: String,
    /// `127.0.0.1:port` of the proxy.
    pub proxy: String,
    /// Environment variables of the server.
    pub env: Vec<(&'static str, String)>,
    /// More flags of the server.
    pub flags: Vec<String>,
    /// What goes before the server's command: `faketime …`, for one.
    pub under: Vec<String>,
    server: Option<Child>,
}

impl Site {
    /// A folder and ports; nothing runs yet.
    pub fn new() -> Self {
        Self {
            folder: tempfile::Builder::new()
                .prefix("shipway-e2e-")
                .tempdir()
                .unwrap(),
            listen: free_address(),
            proxy: free_address(),
            env: Vec::new(),
            flags: Vec::new(),
            under: Vec::new(),
            server: None,
        }
    }

    /// A server that is ready.
    pub fn started() -> Self {
        let mut site = Self::new();
        site.start();
        site
    }

    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The server's command, not started.
    pub fn command(&self) -> Command {
        let mut words = self.under.iter().map(String::as_str).chain([SHIPWAY]);
        let mut command = Command::new(words.next().unwrap());
        command
            .args(words)
            .args(["server", "--data"])
            .arg(self.data())
            .args(["--listen", &self.listen, "--proxy-listen", &self.proxy])
            .args(["--proxy-workers", "1"])
            .args(&self.flags)
            .env_remove("SHIPWAY_TOKEN")
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null());
        command
    }

    /// Starts the server and waits until it is ready, or has ended (as one that crashes on purpose may).
    pub fn start(&mut self) {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log_path())
            .unwrap();
        let mut command = self.command();
        command.stdout(log.try_clone().unwrap()).stderr(log);
        self.server = Some(command.spawn().unwrap());
        until("the server to be ready", || {
            self.get("/readyz").is_some() || self.ended()
        });
    }

    fn log_path(&self) -> PathBuf {
        self.folder.path().join("server.log")
    }

    /// All that servers have said here.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// The process of the server, which runs.
    pub fn server_pid(&self) -> u32 {
        self.server.as_ref().unwrap().id()
    }

    /// Whether the server has ended.
    pub fn ended(&mut self) -> bool {
        self.server
            .as_mut()
            .is_none_or(|server| server.try_wait().unwrap().is_some())
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            server.wait().unwrap();
        }
    }

    /// SIGTERM, and its end: how it ended, if one was there.
    pub fn stop(&mut self) -> Option<ExitStatus> {
        let mut server = self.server.take()?;
        signal(server.id(), "TERM");
        until("the server to stop", || {
            server.try_wait().unwrap().is_some()
        });
        server.wait().ok()
    }

    /// What the API answers with 200.
    pub fn get(&self, path: &str) -> Option<Value> {
        let agent = agent();
        let mut answer = agent.get(self.url(path)).call().ok()?;
        (answer.status() == 200).then(|| answer.body_mut().read_json().unwrap_or(Value::Null))
    }

    /// What the API answers to a POST: status and document.
    pub fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let mut answer = agent().post(self.url(path)).send_json(body).unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_json().unwrap_or(Value::Null))
    }

    /// The same with an `Idempotency-Key`.
    pub fn post_once(&self, path: &str, key: &str, body: &Value) -> (u16, Value) {
        let request = agent().post(self.url(path)).header("idempotency-key", key);
        let mut answer = request.send_json(body).unwrap();
        let status = answer.status().as_u16();
        (status, answer.body_mut().read_json().unwrap_or(Value::Null))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.listen)
    }

    /// Status and body of a request through the proxy.
    pub fn ask(&self, path: &str) -> Option<(u16, String)> {
        let mut answer = agent()
            .get(format!("http://{}{path}", self.proxy))
            .call()
            .ok()?;
        let status = answer.status().as_u16();
        Some((
            status,
            answer.body_mut().read_to_string().unwrap_or_default(),
        ))
    }

    /// A command of the binary against this server.
    pub fn shipway(&self, words: &[&str]) -> Output {
        self.shipway_in(self.folder.path(), words)
    }

    /// The same in a folder.
    pub fn shipway_in(&self, folder: &Path, words: &[&str]) -> Output {
        let mut command = Command::new(SHIPWAY);
        command
            .args(words)
            .env("SHIPWAY_URL", self.url(""))
            .env("SHIPWAY_USER", "ann")
            .env_remove("SHIPWAY_TOKEN")
            .current_dir(folder);
        command.output().unwrap()
    }

    /// A repository with the shop; pushes go to this server.
    pub fn shop(&self) -> Shop {
        Shop::create(&self.folder.path().join("repo"), &self.url("/git/shop"))
    }

    /// All rollouts of the shop, the newest first.
    pub fn rollouts(&self) -> Vec<Value> {
        let page = self.get("/api/v1/rollouts?service=shop&limit=200");
        let items = page.map_or(Value::Null, |page| page["items"].clone());
        items.as_array().cloned().unwrap_or_default()
    }

    /// The rollout of a release into an environment, if it is there.
    pub fn rollout(&self, environment: &str, release: u64) -> Option<Value> {
        self.rollouts()
            .into_iter()
            .find(|rollout| rollout["environment"] == environment && rollout["release"] == release)
    }

    /// Waits until a release is promoted or its rollout has ended otherwise; the rollout.
    pub fn ended_rollout(&self, environment: &str, release: u64) -> Value {
        let mut found = None;
        until(&format!("the end of #{release} in {environment}"), || {
            found = self
                .rollout(environment, release)
                .filter(|rollout| !rollout["ended"].is_null() || rollout["status"] == "promoted");
            found.is_some()
        });
        found.unwrap()
    }

    /// The environment's entry in the overview.
    pub fn place(&self, environment: &str) -> Value {
        let page = self.get("/api/v1/environments").unwrap_or_default();
        let mut items = page["items"].as_array().cloned().unwrap_or_default();
        items.retain(|item| item["environment"] == environment);
        items.pop().unwrap_or_default()
    }

    /// The instances that run in an environment, by name: `shop.production.3.1`.
    pub fn instances(&self, environment: &str) -> Vec<String> {
        let place = self.place(environment);
        let instances = place["instances"].as_array().cloned().unwrap_or_default();
        let id = |instance: &Value| instance["id"].as_str().map(str::to_owned);
        instances.iter().filter_map(id).collect()
    }

    /// Stops everything the way an administrator would.
    pub fn stop_all(&mut self) {
        self.stop();
        let stopped = Command::new(SHIPWAY)
            .args(["admin", "stop-all", "--data"])
            .arg(self.data())
            .output()
            .unwrap();
        assert!(stopped.status.success(), "{}", said(&stopped));
    }

    /// The processes that know of this site's folder: by their command line or where they are.
    pub fn processes(&self) -> Vec<u32> {
        let folder = self.folder.path();
        let mine = |pid: &u32| {
            let proc = Path::new("/proc").join(pid.to_string());
            let words = fs::read(proc.join("cmdline")).unwrap_or_default();
            let inside = fs::read_link(proc.join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder));
            inside || String::from_utf8_lossy(&words).contains(&*folder.to_string_lossy())
        };
        all_processes().into_iter().filter(mine).collect()
    }
}

impl Drop for Site {
    /// Nothing may be left. After a failed test all processes are killed, and the folder is kept.
    fn drop(&mut self) {
        if thread::panicking() {
            self.folder.disable_cleanup(true);
            let kept = self.folder.path().display();
            eprintln!(
                "── kept for you to look at: {kept}\n── the server's log\n{}",
                self.log()
            );
            self.kill();
            for pid in self.processes() {
                signal(pid, "KILL");
            }
            return;
        }
        if self.data().exists() {
            self.stop_all();
        }
        let left = || -> Vec<_> { self.processes().into_iter().map(described).collect() };
        let deadline = Instant::now() + Duration::from_secs(10);
        while !left().is_empty() {
            assert!(Instant::now() < deadline, "left running: {:?}", left());
            thread::sleep(Duration::from_millis(50));
        }
    }
}

fn described(pid: u32) -> String {
    let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    format!(
        "{pid} {}",
        String::from_utf8_lossy(&words).replace('\0', " ")
    )
}

fn all_processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect()
}

/// The processes whose command line holds all of these words.
pub fn processes_with(words: &[&str]) -> Vec<u32> {
    let has_all = |pid: &u32| {
        let line = described(*pid);
        words.iter().all(|word| line.contains(word))
    };
    all_processes().into_iter().filter(has_all).collect()
}

pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .stderr(Stdio::null())
        .status();
    sent.unwrap();
}

/// Waits for something to become true; it is looked at twenty times a second.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// What a command printed, both streams.
pub fn said(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(20)))
        .build()
        .into()
}

/// An address that is free, outside of what the kernel gives to outgoing connections: nobody else takes it before the server.
pub fn free_address() -> String {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Tests run in processes of their own: each begins elsewhere.
    let begin = (std::process::id() % 8_000) as u16;
    for _ in 0..8_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = 10_000 + (begin.wrapping_mul(7).wrapping_add(step)) % 9_900;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return format!("127.0.0.1:{port}");
        }
    }
    panic!("no port is free");
}

/// One request on a connection of its own, as bytes; what comes back until its end.
pub fn raw(address: &str, request: &str) -> String {
    let mut connection = std::net::TcpStream::connect(address).unwrap();
    connection.set_read_timeout(Some(PATIENCE)).unwrap();
    connection.write_all(request.as_bytes()).unwrap();
    let mut lines = Vec::new();
    for line in BufReader::new(connection).lines().map_while(Result::ok) {
        lines.push(line);
    }
    lines.join("\n")
}
