//! `shipway demo`: a real service, three releases, one of them bad; ends with a summary and links.
//!
//! Nothing is staged: a server is started, a git repository is pushed to it, requests go through the proxy, and the numbers of
//! the summary are those that the proxy and the clients counted.

mod shop;
mod summary;
mod traffic;

use std::{
    io::{BufRead, BufReader, IsTerminal, Read},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use shipway_api::ApiClient;
use shipway_core::rollout::{RolloutStatus, RolloutView};

use crate::{
    client::ServerConnection,
    exit::Failure,
    print::{error_line, line},
};
use summary::{Shipped, Summary};
use traffic::Traffic;

/// The last environment of the demo's service.
const PRODUCTION: &str = "production";
/// Requests a second that are sent all the time.
const RATE: u32 = 250;
/// The server is there within this, or something is wrong.
const START_MAX: Duration = Duration::from_secs(20);
/// From one look at the numbers to the next.
const LOOK: Duration = Duration::from_millis(250);

/// Run a real service with three releases, one of them bad, and print a summary with links
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Stop everything at the end instead of keeping the server running
    #[arg(long)]
    exit: bool,

    /// Keep the directory with the repository and the server's data
    #[arg(long)]
    keep: bool,
}

/// Runs the demo; fails when it did not go as it says.
pub fn run(args: &Args) -> Result<(), Failure> {
    let folder = tempfile::Builder::new()
        .prefix("shipway-demo-")
        .disable_cleanup(args.keep)
        .tempdir()
        .map_err(failed("creating a folder"))?;
    let screen = Screen::new();
    screen.say(&format!("Shipway demo in {}", folder.path().display()));
    let server = DemoServer::start(folder.path())?;
    screen.say(&format!(
        "The server is running: {} (pages and API), {} (proxy)",
        server.client.server, server.proxy
    ));
    let repo = shop::Repository::create(&folder.path().join("shop"))?;
    let summary = ship_versions(&screen, &server, &repo)?;
    screen.end();
    line(&format!("\n{summary}"));
    if !args.exit {
        line(&format!(
            "\nThe server keeps running: open {}. Press Ctrl-C to stop it.",
            server.client.server
        ));
        wait_for_interrupt();
    }
    drop(server);
    summary
        .verdict()
        .map_err(|error| Failure::Failed(error.to_string()))
}

/// A version of the demo's service.
struct DemoVersion {
    version: &'static str,
    /// The share of requests that fail.
    error_share: &'static str,
    what: &'static str,
}

const FIRST_VERSION: DemoVersion = DemoVersion {
    version: "1.0",
    error_share: "0",
    what: "the first release",
};
/// The versions that are pushed while there is traffic.
const NEXT_VERSIONS: [DemoVersion; 2] = [
    DemoVersion {
        version: "1.1",
        error_share: "0",
        what: "a good change",
    },
    DemoVersion {
        version: "1.2",
        error_share: "0.05",
        what: "a change that fails 5% of its requests",
    },
];

/// Ships all versions, and counts the requests meanwhile.
fn ship_versions(
    screen: &Screen,
    server: &DemoServer,
    repo: &shop::Repository,
) -> Result<Summary, Failure> {
    let mut shipped = vec![ship_version(screen, server, repo, &FIRST_VERSION, None)?];
    let traffic = Traffic::start(&format!("{}/shop/", server.proxy), RATE);
    screen.say(&format!(
        "Steady traffic: {RATE} requests a second, each from a new user"
    ));
    for version in &NEXT_VERSIONS {
        shipped.push(ship_version(screen, server, repo, version, Some(&traffic))?);
    }
    // The requests after the last rollback count, too.
    std::thread::sleep(Duration::from_secs(1));
    Ok(Summary {
        shipped,
        counted: traffic.stop(),
        page: server.client.server.clone(),
    })
}

/// Pushes a version and follows it to its end.
fn ship_version(
    screen: &Screen,
    server: &DemoServer,
    repo: &shop::Repository,
    pushed: &DemoVersion,
    traffic: Option<&Traffic>,
) -> Result<Shipped, Failure> {
    let DemoVersion {
        version,
        error_share,
        what,
    } = pushed;
    screen.say(&format!("\n── push {version}: {what}"));
    repo.commit(version, error_share, what)?;
    let before = traffic.map(Traffic::counted);
    let begun = Instant::now();
    let mut push = repo.push(&server.git_url())?;
    let (lines, heard) = mpsc::channel();
    let stderr = push.stderr.take();
    let reader = std::thread::spawn(move || {
        for line in stderr
            .into_iter()
            .flat_map(|stderr| BufReader::new(stderr).lines())
            .map_while(Result::ok)
        {
            if let Some(text) = line.strip_prefix("remote: ") {
                let _ = lines.send(text.trim_end().to_owned());
            }
        }
    });
    loop {
        match heard.recv_timeout(LOOK) {
            Ok(line) => screen.say(&format!("   {line}")),
            Err(mpsc::RecvTimeoutError::Timeout) => screen.draw(&server.client, traffic),
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    // Its end says that all lines were read.
    let _ = reader.join();
    let status = push.wait().map_err(failed("git push"))?;
    if !status.success() {
        return Err(Failure::Failed(format!(
            "git push of {version} failed; the server's log is {}",
            server.log.display()
        )));
    }
    let rollout = server.await_rollout(version)?;
    let after = traffic.map(Traffic::counted);
    Ok(Shipped::read(
        version,
        &rollout,
        begun.elapsed(),
        before.zip(after),
    ))
}

/// The output: lines that stay, and on a terminal a progress line below them.
struct Screen {
    bar: Option<ProgressBar>,
}

impl Screen {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner();
            bar.set_style(
                ProgressStyle::with_template("{spinner} {msg}")
                    .unwrap_or_else(|_| ProgressStyle::default_spinner()),
            );
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar }
    }

    fn say(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.suspend(|| line(text)),
            None => line(text),
        }
    }

    /// Weights and error rates as they are now.
    fn draw(&self, client: &ServerConnection, traffic: Option<&Traffic>) {
        let Some(bar) = &self.bar else { return };
        let Ok(environments) = client.environments() else {
            return;
        };
        let mut environments = environments.iter();
        let Some(production) = environments.find(|it| it.environment.as_str() == PRODUCTION) else {
            return;
        };
        let mut text: Vec<String> = Vec::new();
        for (release, weight) in production.split.releases() {
            let mut counters = production.traffic.iter();
            let counters = counters.find(|it| it.release == release);
            let (requests, errors) = counters.map_or((0, 0), |it| (it.requests, it.errors));
            let width = (weight.percent() / 5.0).round() as usize;
            text.push(format!(
                "{release} {:20} {:>3.0}%  errors {:.1}%",
                "█".repeat(width),
                weight.percent(),
                errors as f64 * 100.0 / requests.max(1) as f64
            ));
        }
        let sent = traffic
            .map(|traffic| format!("   {} requests", traffic.counted().sent()))
            .unwrap_or_default();
        bar.set_message(format!("production  {}{sent}", text.join("   ")));
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The server of the demo; ended with all that it started when dropped.
struct DemoServer {
    child: Child,
    client: ServerConnection,
    proxy: String,
    data: PathBuf,
    log: PathBuf,
}

impl DemoServer {
    fn start(folder: &Path) -> Result<Self, Failure> {
        let (listen, proxy) = (free_address()?, free_address()?);
        let (data, log) = (folder.join("data"), folder.join("server.log"));
        let exe = std::env::current_exe().map_err(failed("locating this program"))?;
        let output = std::fs::File::create(&log).map_err(failed("creating the server's log"))?;
        let mut command = Command::new(exe);
        command.args(["server", "--data"]).arg(&data).args([
            "--listen",
            &listen,
            "--proxy-listen",
            &proxy,
        ]);
        command
            .env_remove("SHIPWAY_TOKEN")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output);
        let child = command.spawn().map_err(failed("starting the server"))?;
        let client = ServerConnection {
            server: format!("http://{listen}"),
            token: None,
            user: Some("demo".to_owned()),
        };
        let mut server = Self {
            child,
            client,
            proxy: format!("http://{proxy}"),
            data,
            log,
        };
        server.wait_until_ready()?;
        Ok(server)
    }

    fn wait_until_ready(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + START_MAX;
        while self.client.readiness().is_err() {
            let gone = matches!(self.child.try_wait(), Ok(Some(_)));
            if gone || Instant::now() > deadline {
                let log = std::fs::read_to_string(&self.log).unwrap_or_default();
                return Err(Failure::Failed(format!(
                    "the server did not start: {}",
                    log.trim()
                )));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn git_url(&self) -> String {
        format!("{}/git/shop", self.client.server)
    }

    /// The production rollout of a version, once it is promoted or has ended.
    fn await_rollout(&self, version: &str) -> Result<RolloutView, Failure> {
        let deadline = Instant::now() + Duration::from_secs(90);
        loop {
            let rollouts = self.client.rollouts("shop", 50)?;
            let is_of_version = |rollout: &RolloutView| {
                rollout.environment.as_str() == PRODUCTION && rollout.subject.starts_with(version)
            };
            let rollout = rollouts.into_iter().find(is_of_version);
            let has_ended =
                |it: &RolloutView| it.ended.is_some() || it.status == RolloutStatus::Promoted;
            if let Some(rollout) = rollout.filter(has_ended) {
                return Ok(rollout);
            }
            if Instant::now() > deadline {
                return Err(Failure::Failed(format!(
                    "the rollout of {version} did not finish; the server's log is {}",
                    self.log.display()
                )));
            }
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for DemoServer {
    /// The server first, so that it starts nothing again; then what it leaves running on purpose.
    fn drop(&mut self) {
        let exe = std::env::current_exe().unwrap_or_else(|_| "shipway".into());
        signal(self.child.id(), rustix::process::Signal::TERM);
        let _ = self.child.wait();
        let stopped = Command::new(exe)
            .args(["admin", "stop-all", "--data"])
            .arg(&self.data)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status();
        if !stopped.is_ok_and(|status| status.success()) {
            error_line(&format!(
                "shipway: processes of the demo may still be running; its data directory is {}",
                self.data.display()
            ));
        }
    }
}

fn signal(pid: u32, signal: rustix::process::Signal) {
    if let Some(pid) = i32::try_from(pid)
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        // Gone already is as good.
        let _ = rustix::process::kill_process(pid, signal);
    }
}

fn free_address() -> Result<String, Failure> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(failed("finding a free port"))?;
    listener
        .local_addr()
        .map(|address| address.to_string())
        .map_err(failed("finding a free port"))
}

/// Returns at Ctrl-C, or when the input ends.
fn wait_for_interrupt() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let waited = runtime.is_ok_and(|runtime| runtime.block_on(tokio::signal::ctrl_c()).is_ok());
    if !waited {
        let _ = std::io::stdin().read(&mut [0]);
    }
}

fn failed(what: &'static str) -> impl Fn(std::io::Error) -> Failure {
    move |error| Failure::Failed(format!("{what}: {error}"))
}
