//! Frameworks and servers as people use them: the examples for Django with PostgreSQL, socket.io and a static site, each pushed twice,
//! the second time under load; and the logs of a service.

use std::{
    env, fs,
    io::{BufRead, BufReader},
    os::unix::fs::{PermissionsExt as _, chown},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
};

use serde_json::Value;

use crate::{
    examples::{assert_no_failed_request, copied, root, wrk_at},
    shop::Shop,
    site::{PATIENCE, SHIPWAY, Site, free_address, said, signal, until},
};

/// Whether a registry gives an example its packages; in CI it must.
fn is_installed(output: &Output) -> bool {
    if output.status.success() {
        return true;
    }
    assert!(env::var_os("CI").is_none(), "{}", said(output));
    println!(
        "skipped, because the example's packages can't be installed: {}",
        said(output)
    );
    false
}

/// Asks the host of a service.
fn get(site: &Site, service: &str, path: &str) -> Value {
    let answer = curl(site, service, path, &[]);
    serde_json::from_str(&answer).unwrap_or(Value::String(answer))
}

fn curl(site: &Site, service: &str, path: &str, more: &[&str]) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "20", "--header"])
        .arg(format!("Host: {service}.localhost"))
        .args(more)
        .arg(format!("http://{}{path}", site.proxy));
    said(&curl.output().unwrap())
}

/// Ships a version under load.
fn is_shipped_again(site: &Site, shop: &Shop, service: &str, path: &str) {
    let host = format!("{service}.localhost");
    let wrk = wrk_at(&format!("http://{}{path}", site.proxy), &host);
    let told = said(&shop.ship("1.1.0"));
    assert!(told.contains("#2 serves production"), "{told}");
    let requests = assert_no_failed_request(wrk);
    println!("{service}: {requests} requests during the second push, none failed");
}

#[test]
fn a_static_site_is_shipped_and_shipped_again_under_load() {
    let site = Site::started();
    let shop = copied(&site, "static-site");
    let told = said(&shop.ship("1.0.0"));
    assert!(told.contains("#1 serves production"), "{told}");
    let page = get(&site, "static-site", "/");
    assert!(page.as_str().unwrap().contains("Edition 1.0.0"), "{page}");

    is_shipped_again(&site, &shop, "static-site", "/");
    let page = get(&site, "static-site", "/");
    assert!(page.as_str().unwrap().contains("Edition 1.1.0"), "{page}");
    let style = get(&site, "static-site", "/style.css");
    assert!(style.as_str().unwrap().contains("max-width"), "{style}");
}

/// A PostgreSQL cluster of its own on a loopback port, until it is dropped.
struct Postgres {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: String,
}

/// The folder of PostgreSQL's programs, the newest version's.
fn postgres_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let folders = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
    folders.filter(|bin| bin.join("initdb").exists()).max()
}

impl Postgres {
    /// `None` where the machine has no PostgreSQL; in CI it must.
    fn start() -> Option<Self> {
        let Some(programs) = postgres_programs() else {
            assert!(env::var_os("CI").is_none(), "PostgreSQL is not installed");
            println!("skipped, because PostgreSQL is not installed");
            return None;
        };
        let folder = tempfile::Builder::new()
            .prefix("shipway-e2e-pg-")
            .tempdir()
            .unwrap();
        if is_root() {
            // PostgreSQL refuses to run as root.
            let user = Command::new("id")
                .args(["-u", "postgres"])
                .output()
                .unwrap();
            let uid = String::from_utf8(user.stdout)
                .unwrap()
                .trim()
                .parse()
                .unwrap();
            chown(folder.path(), Some(uid), None).unwrap();
        }
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let address = free_address();
        let port = address.rsplit(':').next().unwrap().to_owned();
        let postgres = Self {
            folder,
            programs,
            port,
        };
        let data = postgres.data();
        postgres.run(
            "initdb",
            &[
                "--no-sync",
                "--auth=trust",
                "--username=guestbook",
                "--pgdata",
                &data,
            ],
        );
        let options = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c fsync=off -c unix_socket_directories=''",
            postgres.port
        );
        let log = format!("{data}/log");
        postgres.run(
            "pg_ctl",
            &[
                "start",
                "--wait",
                "--pgdata",
                &data,
                "--log",
                &log,
                "--options",
                &options,
            ],
        );
        postgres.run(
            "createdb",
            &[
                "--host=127.0.0.1",
                &format!("--port={}", postgres.port),
                "--username=guestbook",
                "guestbook",
            ],
        );
        Some(postgres)
    }

    fn data(&self) -> String {
        self.folder.path().join("data").display().to_string()
    }

    fn url(&self) -> String {
        format!("postgresql://guestbook@127.0.0.1:{}/guestbook", self.port)
    }

    fn run(&self, program: &str, words: &[&str]) {
        let program = self.programs.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(&program);
            command
        } else {
            Command::new(&program)
        };
        // Its output goes to a file: the server would hold a pipe open.
        let log = self.folder.path().join("output");
        let output = fs::File::create(&log).unwrap();
        let status = command
            .args(words)
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .status();
        assert!(
            status.unwrap().success(),
            "{}: {}",
            program.display(),
            fs::read_to_string(&log).unwrap_or_default()
        );
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.run(
            "pg_ctl",
            &["stop", "--mode=immediate", "--pgdata", &self.data()],
        );
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|it| std::os::unix::fs::MetadataExt::uid(&it) == 0)
}

const AUTHOR_MIGRATION: &str = r#"from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("guestbook", "0001_entry")]
    operations = [
        migrations.AddField("entry", "author", models.CharField(max_length=80, db_default="anonymous")),
    ]
"#;

#[test]
fn django_with_postgresql_is_shipped_and_shipped_again_with_a_migration_under_load() {
    let mut site = Site::new();
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
        .arg(site.folder.path().join("packages"))
        .arg("--requirement")
        .arg(root().join("examples/django-postgres/requirements.txt"));
    if !is_installed(&pip.output().unwrap()) {
        return;
    }
    let Some(postgres) = Postgres::start() else {
        return;
    };
    let secrets = site.folder.path().join("secrets");
    let text = format!(
        "DATABASE_URL={}\nDJANGO_SECRET_KEY=for-this-test-alone\n",
        postgres.url()
    );
    fs::write(&secrets, text).unwrap();
    fs::set_permissions(&secrets, fs::Permissions::from_mode(0o600)).unwrap();
    site.flags
        .extend(["--secrets".to_owned(), secrets.display().to_string()]);
    site.start();

    let (shop, service) = (copied(&site, "django-postgres"), "django-postgres");
    let told = said(&shop.ship("1.0.0"));
    assert!(told.contains("#1 serves production"), "{told}");
    let write = |text: &str| {
        let entry = format!("{{\"text\": \"{text}\"}}");
        let json = "Content-Type: application/json";
        curl(
            &site,
            service,
            "/entries",
            &["--header", json, "--data", &entry],
        )
    };
    assert_eq!(write("first"), "{\"entries\": 1}");
    assert_eq!(write("second"), "{\"entries\": 2}");

    shop.write("guestbook/migrations/0002_author.py", AUTHOR_MIGRATION);
    shop.edit(
        "guestbook/models.py",
        "    written_at",
        "    author = models.CharField(max_length=80, db_default=\"anonymous\")\n    written_at",
    );
    is_shipped_again(&site, &shop, service, "/entries");
    assert_eq!(get(&site, service, "/")["version"], "1.1.0");
    let entries = get(&site, service, "/entries");
    let wanted = serde_json::json!([
        { "text": "first", "author": "anonymous" },
        { "text": "second", "author": "anonymous" },
    ]);
    assert_eq!(entries["entries"], wanted);
    site.stop_all();
    drop(postgres);
}

/// Clients of the chat, half of them by long polling alone. Each sends a message every 100 ms. A line for each second says what
/// became of them so far.
const CLIENTS: &str = r#"
const { io } = require(process.argv[2]);
const [url, path] = process.argv.slice(3);
const told = { connected: 0, answered: 0, lost: 0, disconnects: 0, errors: [], versions: {} };
const sockets = [];
for (let number = 0; number < 16; number++) {
  const transports = number % 2 ? ["polling"] : ["polling", "websocket"];
  const socket = io(url, { transports, forceNew: true, withCredentials: true, path, reconnectionDelay: 50, reconnectionDelayMax: 500 });
  sockets.push(socket);
  socket.on("disconnect", () => told.disconnects++);
  socket.on("connect_error", (error) => told.errors.push(error.message));
  let waiting = false;
  setInterval(async () => {
    if (!socket.connected || waiting) return;
    waiting = true;
    try {
      const answer = await socket.timeout(5000).emitWithAck("message", "hello");
      told.answered++;
      told.versions[answer.version] = (told.versions[answer.version] ?? 0) + 1;
    } catch { told.lost++; }
    waiting = false;
  }, 100);
}
setInterval(() => {
  told.connected = sockets.filter((socket) => socket.connected).length;
  console.log(JSON.stringify(told));
}, 250);
"#;

struct ChatClients {
    node: Child,
    lines: Receiver<String>,
}

impl ChatClients {
    fn start(site: &Site, modules: &Path) -> Self {
        let script = site.folder.path().join("clients.js");
        fs::write(&script, CLIENTS).unwrap();
        let mut node = Command::new("node");
        node.arg(&script)
            .arg(modules.join("socket.io-client"))
            // By its path: this client can't set Host.
            .args([&format!("http://{}", site.proxy), "/chat-node/socket.io/"])
            .stdout(Stdio::piped());
        let mut node = node.spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(node.stdout.take().unwrap());
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { node, lines }
    }

    /// Waits until a report fulfils a condition.
    fn wait_for(&self, what: &str, is_met: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let deadline = std::time::Instant::now() + PATIENCE;
        while std::time::Instant::now() < deadline {
            let line = self.lines.recv_timeout(PATIENCE).expect("a report");
            last = serde_json::from_str(&line).unwrap();
            if is_met(&last) {
                return last;
            }
        }
        panic!("waited in vain for {what}: {last}");
    }
}

impl Drop for ChatClients {
    fn drop(&mut self) {
        let _ = self.node.kill();
        let _ = self.node.wait();
    }
}

#[test]
fn socket_io_keeps_its_sessions_and_connects_again_when_it_is_shipped_again() {
    let mut site = Site::new();
    let shop = copied(&site, "chat-node");
    let mut npm = Command::new("npm");
    npm.args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(&shop.path);
    let installed = npm.output();
    let Ok(installed) = installed else {
        println!("skipped, because npm is not installed");
        return;
    };
    if !is_installed(&installed) {
        return;
    }
    site.start();
    let told = said(&shop.ship("1.0.0"));
    assert!(told.contains("#1 serves production"), "{told}");

    let clients = ChatClients::start(&site, &shop.path.join("node_modules"));
    let sent = |report: &Value| report["answered"].as_u64().unwrap();
    let before = clients.wait_for("messages of all clients", |it| {
        it["connected"] == 16 && sent(it) > 400
    });
    assert_eq!(before["disconnects"], 0, "{before}");
    assert_eq!(before["lost"], 0, "{before}");
    assert_eq!(before["errors"].as_array().unwrap().len(), 0, "{before}");

    is_shipped_again(&site, &shop, "chat-node", "/");
    let new = |report: &Value| report["versions"]["1.1.0"].as_u64().unwrap_or(0);
    let after = clients.wait_for("messages to the new release", |it| {
        it["connected"] == 16 && new(it) > 400
    });
    println!("socket.io: {after}");
    assert_eq!(after["errors"].as_array().unwrap().len(), 0, "{after}");
    // Both instances of the old release ended, and a client may have been on the two of them, one after the other.
    let disconnects = after["disconnects"].as_u64().unwrap();
    assert!((16..=32).contains(&disconnects), "{after}");
}

/// `shipway logs` that goes on until it is dropped.
struct FollowedLog {
    command: Child,
    lines: Receiver<String>,
}

impl FollowedLog {
    fn start(site: &Site, words: &[&str]) -> Self {
        let mut command = Command::new(SHIPWAY);
        command
            .args(words)
            .env("SHIPWAY_URL", site.url(""))
            .env_remove("SHIPWAY_TOKEN")
            .stdout(Stdio::piped());
        let mut command = command.spawn().unwrap();
        let (sender, lines) = channel();
        let output = BufReader::new(command.stdout.take().unwrap());
        thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Self { command, lines }
    }

    /// Reads on to a line that contains this.
    fn wait_for(&self, text: &str) {
        loop {
            let line = self.lines.recv_timeout(PATIENCE);
            let line = line.unwrap_or_else(|_| panic!("no line with {text:?}"));
            if line.contains(text) {
                return;
            }
        }
    }
}

impl Drop for FollowedLog {
    fn drop(&mut self) {
        signal(self.command.id(), "KILL");
        let _ = self.command.wait();
    }
}

#[test]
fn the_logs_of_a_service_are_those_of_what_serves_and_are_followed_over_releases() {
    let mut site = Site::started();
    let shop = site.shop();
    shop.edit(
        "shipway.yaml",
        "    strategy: { canary: { steps: [{ weight: 20, hold: 1s }, { weight: 60, hold: 500ms }] } }",
        "    strategy: rolling",
    );
    let told = said(&shop.ship("1.0"));
    assert!(told.contains("#1 serves production"), "{told}");

    let all = said(&site.shipway(&["logs", "shop"]));
    for line in [
        "staging.1.1 │ serving 1.0",
        "production.1.1 │ serving 1.0",
        "production.1.2 │ serving 1.0",
    ] {
        assert!(all.contains(line), "{line:?} is not in\n{all}");
    }
    for words in [
        &["logs", "shop", "--env", "production"][..],
        &["logs", "shop/production"],
    ] {
        let told = said(&site.shipway(words));
        assert!(told.contains("production.1.2 │ serving"), "{told}");
        assert!(!told.contains("staging"), "{told}");
    }
    let last = said(&site.shipway(&["logs", "shop/staging", "--tail", "1"]));
    assert_eq!(last, "staging.1.1 │ serving 1.0\n");
    let refused = site.shipway(&["logs", "shop/prod"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        said(&refused).contains("its environments are staging, production"),
        "{}",
        said(&refused)
    );

    let log = FollowedLog::start(&site, &["logs", "shop/production", "--follow"]);
    log.wait_for("production.1.1 │ serving 1.0");
    let told = said(&shop.ship("1.1"));
    assert!(told.contains("#2 serves production"), "{told}");
    log.wait_for("production.2.1 │ serving 1.1");
    // It outlives a restart of the server, and repeats nothing.
    site.kill();
    site.start();
    let told = said(&shop.ship("1.2"));
    assert!(told.contains("#3 serves production"), "{told}");
    log.wait_for("production.3.1 │ serving 1.2");
    until("the stopped instances to be gone", || {
        site.instances("production").len() == 2
    });
}
