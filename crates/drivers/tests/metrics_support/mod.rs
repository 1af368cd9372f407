//! A real Prometheus with a folder of its own, and small HTTP servers of the test for it to read.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a server of the test answers to the head and the body of a request; `None`: nothing, and the connection stays open.
type Answer = dyn Fn(&str, &str) -> Option<(u16, String)> + Send + Sync;

/// An HTTP server of the test, for as long as the test runs.
pub struct Fake {
    pub url: String,
}

impl Fake {
    pub fn serve(
        answer: impl Fn(&str, &str) -> Option<(u16, String)> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer: Arc<Answer> = Arc::new(answer);
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let answer = answer.clone();
                std::thread::spawn(move || talk(&connection, &*answer));
            }
        });
        Self { url }
    }
}

fn talk(connection: &TcpStream, answer: &Answer) -> Option<()> {
    let mut reader = BufReader::new(connection);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head).ok()? == 0 {
                return None;
            }
        }
        let lower = head.to_lowercase();
        let length = lower
            .lines()
            .find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.trim().parse().unwrap())];
        reader.read_exact(&mut body).ok()?;
        let Some((status, text)) = answer(&head, &String::from_utf8_lossy(&body)) else {
            // Until the other side has had enough.
            let _ = reader.read(&mut [0]);
            return None;
        };
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{text}"
        );
        (&mut &*connection).write_all(answer.as_bytes()).ok()?;
    }
}

/// A Prometheus with one scrape target.
pub struct Prometheus {
    child: Child,
    _folder: tempfile::TempDir,
    pub url: String,
}

impl Prometheus {
    /// Scrapes five times a second. `None` where it isn't installed.
    pub fn start(target: &Fake) -> Option<Self> {
        Self::start_with_interval(target, "200ms")
    }

    /// A scrape fails after its interval, and the series then has no value: a busy machine needs a longer one.
    pub fn start_with_interval(target: &Fake, interval: &str) -> Option<Self> {
        let found = Command::new("prometheus").arg("--version").output();
        if found.is_err() {
            assert!(
                std::env::var_os("CI").is_none(),
                "CI has no prometheus; ./test installs it"
            );
            println!("skipped, because prometheus is not installed");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let target = target.url.trim_start_matches("http://");
        let config = format!(
            "global: {{ scrape_interval: {interval}, scrape_timeout: {interval} }}\nscrape_configs: [{{ job_name: shop, honor_labels: true, static_configs: [{{ targets: ['{target}'] }}] }}]\n"
        );
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        // Another may take a free port before it does: then the next one.
        for _ in 0..5 {
            let address = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            let child = Command::new("prometheus")
                .arg(format!("--config.file={}", file.display()))
                .arg(format!(
                    "--storage.tsdb.path={}",
                    folder.path().join("data").display()
                ))
                .arg(format!("--web.listen-address={address}"))
                .arg("--log.level=error")
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let mut it = Self {
                child,
                _folder: tempfile::tempdir().unwrap(),
                url: format!("http://{address}"),
            };
            if it.becomes_ready() {
                it._folder = folder;
                return Some(it);
            }
        }
        panic!("prometheus doesn't start");
    }

    fn becomes_ready(&mut self) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if get(&format!("{}/-/ready", self.url)).is_some_and(|(status, _)| status == 200) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("prometheus isn't ready after {} s", PATIENCE.as_secs());
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until a query has series.
    pub fn until_has(&self, query: &str) {
        let deadline = Instant::now() + PATIENCE;
        let url = format!("{}/api/v1/query?query={query}", self.url);
        while !get(&url).is_some_and(|(_, text)| text.contains("\"value\"")) {
            assert!(Instant::now() < deadline, "prometheus never has {query}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Status and answer.
fn get(url: &str) -> Option<(u16, String)> {
    let (address, path) = url.strip_prefix("http://")?.split_once('/')?;
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(PATIENCE)).ok()?;
    write!(
        connection,
        "GET /{path} HTTP/1.0\r\nHost: {address}\r\n\r\n"
    )
    .ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer))
}
