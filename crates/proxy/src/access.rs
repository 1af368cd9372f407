//! The access log: one JSON object a line, written by a thread of its own so that a slow disk holds up no request. When that thread
//! can't keep up, lines are dropped and their number is said; when the file is large enough, it becomes `.1`.

use std::{
    fs::File,
    io::{self, BufWriter, Write as _},
    net::IpAddr,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, SyncSender, TryRecvError, sync_channel},
    },
    thread::JoinHandle,
};

use http::{HeaderValue, Method};
use serde::Serialize;

use crate::{counters::Answered, protocol::Route};

/// Lines that wait to be written: about 2 MiB.
const WAITING_MAX: usize = 8_192;
/// The size at which a file is set aside.
const FILE_MAX: u64 = 64 << 20;

/// Where lines go.
#[derive(Clone, Debug)]
pub(crate) struct Log {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// The thread that writes; ends when no [`Log`] is left.
#[derive(Debug)]
pub(crate) struct Writer(JoinHandle<()>);

/// What is known of a request before it is answered.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) log: Log,
    pub(crate) client: IpAddr,
    pub(crate) method: Method,
    pub(crate) host: HeaderValue,
    pub(crate) path: String,
    pub(crate) request_id: Option<HeaderValue>,
    pub(crate) proxy_error: bool,
}

#[derive(Serialize)]
struct Json<'a> {
    at: jiff::Timestamp,
    service: &'a str,
    environment: &'a str,
    release: u32,
    instance: &'a str,
    client: IpAddr,
    method: &'a str,
    host: &'a str,
    path: &'a str,
    status: u16,
    ms: f64,
    bytes_in: u64,
    bytes_out: u64,
    request_id: &'a str,
    proxy_error: bool,
}

impl Line {
    /// Hands the line over. Never waits.
    pub(crate) fn write(&self, route: &Route, release: u32, instance: &str, answered: &Answered) {
        let json = Json {
            at: jiff::Timestamp::now(),
            service: &route.service,
            environment: &route.environment,
            release,
            instance,
            client: self.client,
            method: self.method.as_str(),
            host: self.host.to_str().unwrap_or_default(),
            path: &self.path,
            status: answered.status,
            ms: (answered.took.as_secs_f64() * 1e6).round() / 1e3,
            bytes_in: answered.bytes_in,
            bytes_out: answered.bytes_out,
            request_id: self
                .request_id
                .as_ref()
                .and_then(|id| id.to_str().ok())
                .unwrap_or_default(),
            proxy_error: self.proxy_error,
        };
        // Only a map with keys that aren't text could fail.
        let Ok(mut line) = serde_json::to_vec(&json) else {
            return;
        };
        line.push(b'\n');
        if self.log.lines.try_send(line).is_err() {
            self.log.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Opens the log, appending to what is there.
pub(crate) fn open(path: &Path) -> io::Result<(Log, Writer)> {
    let file = File::options().create(true).append(true).open(path)?;
    let (lines, waiting) = sync_channel(WAITING_MAX);
    let log = Log {
        lines,
        dropped: Arc::default(),
    };
    let mut writing = Writing {
        path: path.to_owned(),
        size: file.metadata()?.len(),
        file: BufWriter::new(file),
        dropped: log.dropped.clone(),
    };
    let thread = std::thread::Builder::new().name("access-log".to_owned());
    let thread = thread.spawn(move || writing.run(&waiting))?;
    Ok((log, Writer(thread)))
}

impl Writer {
    /// Waits until all is written.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}

struct Writing {
    path: PathBuf,
    file: BufWriter<File>,
    size: u64,
    dropped: Arc<AtomicU64>,
}

impl Writing {
    fn run(&mut self, waiting: &Receiver<Vec<u8>>) {
        let mut failing = false;
        loop {
            let (line, flushed) = match waiting.try_recv() {
                Ok(line) => (line, Ok(())),
                Err(TryRecvError::Disconnected) => break,
                // Nothing is waiting: a good moment to let readers see it.
                Err(TryRecvError::Empty) => {
                    let flushed = self.file.flush();
                    match waiting.recv() {
                        Ok(line) => (line, flushed),
                        Err(_) => break,
                    }
                }
            };
            let written = flushed.and_then(|()| self.write(&line));
            if let (Err(error), false) = (&written, failing) {
                tracing::error!(
                    "the access log {} can't be written: {error}",
                    self.path.display()
                );
            }
            failing = written.is_err();
        }
        let _ = self.file.flush();
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.size + line.len() as u64 > FILE_MAX {
            self.rotate()?;
        }
        let dropped = self.dropped.swap(0, Relaxed);
        if dropped > 0 {
            writeln!(self.file, "{{\"dropped\":{dropped}}}")?;
        }
        self.size += line.len() as u64;
        self.file.write_all(line)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.file.flush()?;
        let mut aside = self.path.clone().into_os_string();
        aside.push(".1");
        std::fs::rename(&self.path, aside)?;
        self.file = BufWriter::new(File::options().create(true).append(true).open(&self.path)?);
        self.size = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        File::create(&path).unwrap().set_len(FILE_MAX).unwrap();
        let (log, writer) = open(&path).unwrap();
        log.lines.try_send(b"{}\n".to_vec()).unwrap();
        drop(log);
        writer.join();
        assert_eq!(std::fs::read(&path).unwrap(), b"{}\n");
        assert_eq!(
            std::fs::metadata(folder.path().join("access.log.1"))
                .unwrap()
                .len(),
            FILE_MAX
        );
    }
}
