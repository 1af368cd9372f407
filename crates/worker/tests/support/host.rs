//! A forge on loopback: git's HTTP backend, optionally with a login or temporary failures.

use std::{
    collections::BTreeMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
};

/// How requests are answered.
#[derive(Default)]
pub struct Door {
    /// The required `Authorization` header.
    pub wants: Option<String>,
    /// Number of requests to answer with 503 first.
    pub out_of_order: usize,
    /// A word that must not be on any command line during a request.
    pub secret: Option<String>,
}

/// Serves the bare repositories of a folder until dropped.
pub struct Host {
    pub address: String,
    state: Arc<State>,
    serving: Option<JoinHandle<()>>,
}

struct State {
    root: PathBuf,
    door: Door,
    requests: AtomicUsize,
    ending: AtomicBool,
    exposed: Mutex<Vec<String>>,
}

impl Host {
    /// Serves `root/owner/repo.git` as `/owner/repo`.
    pub fn of(root: &Path, door: Door) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            root: root.to_owned(),
            door,
            requests: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
            exposed: Mutex::new(Vec::new()),
        });
        let shared = Arc::clone(&state);
        let serving = std::thread::spawn(move || {
            for connection in listener.incoming().map_while(Result::ok) {
                if shared.ending.load(Ordering::SeqCst) {
                    return;
                }
                let state = Arc::clone(&shared);
                // Ignore errors: the client has disconnected.
                std::thread::spawn(move || drop(answer(&state, &connection)));
            }
        });
        Self {
            address,
            state,
            serving: Some(serving),
        }
    }

    /// Number of requests so far.
    pub fn requests(&self) -> usize {
        self.state.requests.load(Ordering::SeqCst)
    }

    /// Command lines that contained the secret.
    pub fn exposed(&self) -> Vec<String> {
        self.state.exposed.lock().unwrap().clone()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.state.ending.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address.trim_start_matches("http://"));
        if let Some(serving) = self.serving.take() {
            let _ = serving.join();
        }
    }
}

fn answer(state: &State, mut connection: &TcpStream) -> std::io::Result<()> {
    let mut reader = BufReader::new(connection);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut words = first.split_whitespace();
    let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        match line.trim_end().split_once(':') {
            Some((name, value)) => {
                headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
            }
            None => break,
        }
    }
    let body = body(&mut reader, &headers)?;
    let asked = state.requests.fetch_add(1, Ordering::SeqCst);
    if let Some(secret) = &state.door.secret {
        let seen = command_lines().filter(|line| line.contains(secret.as_str()));
        state.exposed.lock().unwrap().extend(seen);
    }
    if asked < state.door.out_of_order {
        return refuse(connection, "503 Service Unavailable", "");
    }
    let wants = state.door.wants.as_ref();
    if wants.is_some_and(|wants| headers.get("authorization") != Some(wants)) {
        let realm = "WWW-Authenticate: Basic realm=\"forge\"\r\n";
        return refuse(connection, "401 Unauthorized", realm);
    }
    let said = backend(state, method, target, &headers, &body)?;
    let end = said.windows(4).position(|it| it == b"\r\n\r\n");
    let (head, body) = said.split_at(end.unwrap_or(said.len()));
    let head = String::from_utf8_lossy(head).into_owned();
    let status = head.lines().find_map(|line| line.strip_prefix("Status: "));
    let status = status.unwrap_or("200 OK");
    write!(
        connection,
        "HTTP/1.1 {status}\r\nConnection: close\r\n{head}"
    )?;
    connection.write_all(body)
}

fn refuse(mut connection: &TcpStream, status: &str, more: &str) -> std::io::Result<()> {
    write!(
        connection,
        "HTTP/1.1 {status}\r\nConnection: close\r\n{more}Content-Length: 0\r\n\r\n"
    )
}

fn body(reader: &mut impl BufRead, headers: &BTreeMap<String, String>) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    if headers.get("expect").is_some() {
        return Ok(body);
    }
    if headers.get("transfer-encoding").is_some() {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).unwrap_or(0);
            reader.by_ref().take(size).read_to_end(&mut body)?;
            reader.read_line(&mut line)?;
            if size == 0 {
                return Ok(body);
            }
        }
    }
    let size = headers.get("content-length").and_then(|it| it.parse().ok());
    reader.take(size.unwrap_or(0)).read_to_end(&mut body)?;
    Ok(body)
}

fn backend(
    state: &State,
    method: &str,
    target: &str,
    headers: &BTreeMap<String, String>,
    body: &[u8],
) -> std::io::Result<Vec<u8>> {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut parts: Vec<String> = path.split('/').map(str::to_owned).collect();
    if let Some(repository) = parts.get_mut(2).filter(|it| !it.ends_with(".git")) {
        repository.push_str(".git");
    }
    let of = |name: &str| headers.get(name).cloned().unwrap_or_default();
    let mut git = Command::new("git")
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", &state.root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", parts.join("/"))
        .env("QUERY_STRING", query)
        .env("REQUEST_METHOD", method)
        .env("CONTENT_TYPE", of("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", of("content-encoding"))
        .env("HTTP_GIT_PROTOCOL", of("git-protocol"))
        .env("REMOTE_ADDR", "127.0.0.1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    // Requests of fetches are small enough for the pipe.
    git.stdin.take().unwrap().write_all(body)?;
    Ok(git.wait_with_output()?.stdout)
}

fn command_lines() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "))
}
