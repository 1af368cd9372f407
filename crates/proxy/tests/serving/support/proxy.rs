//! The proxy in a process of its own: this test binary, run again. It ends with its test, however that ends.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    net::SocketAddr,
    ops::Deref,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};
use shipway_proxy::{
    ProxyOptions,
    control_client::ControlClient,
    protocol::{DrainRequest, ReleaseTotals, RouteSnapshot, TrafficTotals},
};
use tokio::sync::oneshot;

use super::{SHOP, within};

const START: &str = "PROXY_START";

/// Not a test: what the others start.
#[test]
#[ignore = "run by the other tests as the proxy"]
fn as_the_proxy() {
    let start: ProxyStart = serde_json::from_str(&std::env::var(START).unwrap()).unwrap();
    // Whoever started it holds the other end.
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(3);
    });
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    let mut proxy = shipway_proxy::Proxy::new(ProxyOptions {
        listen: vec![start.listen],
        control: start.control,
        state: start.state,
        workers: start.workers,
        trusted: start.trusted.iter().map(|it| it.parse().unwrap()).collect(),
    });
    if let Some(path) = start.access_log {
        proxy = proxy.with_access_log(path);
    }
    if let Some(limit) = start.head_within {
        proxy = proxy.with_head_timeout(limit);
    }
    if start.take_over {
        proxy = proxy.with_takeover();
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ready = |addresses: &[SocketAddr]| println!("\nlistening {}", addresses[0]);
    if let Err(error) = runtime.block_on(proxy.run(ready)) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

/// How a proxy is started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ProxyStart {
    pub listen: SocketAddr,
    pub control: PathBuf,
    pub state: PathBuf,
    pub workers: usize,
    pub access_log: Option<PathBuf>,
    pub head_within: Option<Duration>,
    pub take_over: bool,
    pub trusted: Vec<String>,
}

/// The folder of a proxy and those after it.
pub struct House(tempfile::TempDir);

impl House {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Two workers at any free port, in nobody's place.
    pub fn usual(&self) -> ProxyStart {
        ProxyStart {
            listen: "127.0.0.1:0".parse().unwrap(),
            control: self.path("control"),
            state: self.path("state"),
            workers: 2,
            access_log: None,
            head_within: None,
            take_over: false,
            trusted: Vec::new(),
        }
    }

    pub async fn proxy(&self) -> Proxy {
        Proxy::start(&self.usual()).await.unwrap()
    }

    /// A proxy that replaces the one that runs.
    pub async fn successor(&self) -> Proxy {
        let start = ProxyStart {
            take_over: true,
            ..self.usual()
        };
        Proxy::start(&start).await.unwrap()
    }
}

/// A running proxy; also its control socket.
pub struct Proxy {
    child: Child,
    log: PathBuf,
    control: ControlClient,
    pub address: SocketAddr,
}

impl Deref for Proxy {
    type Target = ControlClient;

    fn deref(&self) -> &ControlClient {
        &self.control
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Proxy {
    /// Starts one and waits until it serves; what it said, if it doesn't.
    pub async fn start(start: &ProxyStart) -> Result<Self, String> {
        let folder = start.control.parent().unwrap();
        let log = tempfile::Builder::new()
            .prefix("log.")
            .tempfile_in(folder)
            .unwrap();
        let (log, path) = log.keep().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "support::proxy::as_the_proxy"])
            .arg("--nocapture")
            .env(START, serde_json::to_string(start).unwrap())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .unwrap();
        let out = child.stdout.take().unwrap();
        let (ready, is_ready) = oneshot::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(out).lines().map_while(Result::ok);
            let listening = lines.find_map(|line| line.strip_prefix("listening ")?.parse().ok());
            listening.map(|address| ready.send(address));
            lines.for_each(drop);
        });
        match within("a proxy starts", is_ready).await {
            Ok(address) => Ok(Self {
                child,
                log: path,
                control: ControlClient::new(&start.control),
                address,
            }),
            Err(_) => {
                let _ = child.wait();
                Err(std::fs::read_to_string(path).unwrap())
            }
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits until it ends by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut status = None;
        super::until("the proxy ends", async || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        })
        .await;
        status.unwrap()
    }

    pub async fn put(&self, routes: &RouteSnapshot) {
        self.send_routes(routes).await.unwrap();
    }

    /// How much memory it has.
    pub fn resident_bytes(&self) -> u64 {
        let path = format!("/proc/{}/statm", self.child.id());
        let text = std::fs::read_to_string(path).unwrap();
        let pages: u64 = text.split(' ').nth(1).unwrap().parse().unwrap();
        pages * rustix::param::page_size() as u64
    }

    /// The counts of the shop's release; `None` when it was never in a route.
    pub async fn counted(&self, release: u32) -> Option<TrafficTotals> {
        let entries = self.counters().await.unwrap().entries;
        let mine = |entry: &ReleaseTotals| entry.service == SHOP && entry.release == release;
        entries.into_iter().find(mine).map(|it| it.totals)
    }

    /// The counts of the shop's release, which is or was in a route.
    pub async fn count(&self, release: u32) -> TrafficTotals {
        self.counted(release).await.unwrap()
    }

    /// How much of the shop's release is open after this time at most.
    pub async fn open_after(&self, release: u32, timeout: Duration) -> u64 {
        let wait = DrainRequest {
            service: SHOP.to_owned(),
            environment: "production".to_owned(),
            release,
            instances: Vec::new(),
            timeout_ms: u64::try_from(timeout.as_millis()).unwrap(),
        };
        self.wait_until_drained(&wait).await.unwrap().open
    }

    /// A line of `/proc/<pid>/status` in bytes.
    pub fn memory(&self, line: &str) -> u64 {
        let status = Path::new("/proc")
            .join(self.pid().to_string())
            .join("status");
        let status = std::fs::read_to_string(status).unwrap();
        let found = status.lines().find_map(|it| it.strip_prefix(line)).unwrap();
        let number = found.split_whitespace().nth(1).unwrap();
        number.parse::<u64>().unwrap() << 10
    }
}
