//! The access log: one JSON object per line, written by a dedicated thread so that a slow disk delays no request. If the thread
//! can't keep up, lines are dropped and counted; a file that reaches its size limit is renamed to `.1`.

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

use crate::{protocol::ServiceRoute, release_counters::CompletedResponse};

/// Queued lines, about 2 MiB.
const WAITING_MAX: usize = 8_192;
/// Size at which the file is rotated.
const FILE_MAX: u64 = 64 << 20;

/// Sender of log lines.
#[derive(Clone, Debug)]
pub(crate) struct AccessLog {
    lines: SyncSender<Vec<u8>>,
    dropped: Arc<AtomicU64>,
}

/// The writing thread; it ends with the last [`AccessLog`].
#[derive(Debug)]
pub(crate) struct AccessLogThread(JoinHandle<()>);

/// The fields of a line that are known before the response.
#[derive(Debug)]
pub(crate) struct AccessLogLine {
    pub(crate) log: AccessLog,
    pub(crate) client: IpAddr,
    pub(crate) method: Method,
    pub(crate) host: HeaderValue,
    pub(crate) path: String,
    pub(crate) request_id: Option<HeaderValue>,
    pub(crate) proxy_error: bool,
}

#[derive(Serialize)]
struct AccessLogJson<'a> {
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

impl AccessLogLine {
    /// Queues the line without waiting.
    pub(crate) fn write_response(
        &self,
        route: &ServiceRoute,
        release: u32,
        instance: &str,
        answered: &CompletedResponse,
    ) {
        let json = AccessLogJson {
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
        // Serialization fails only for maps with non-string keys.
        let Ok(mut line) = serde_json::to_vec(&json) else {
            return;
        };
        line.push(b'\n');
        if self.log.lines.try_send(line).is_err() {
            self.log.dropped.fetch_add(1, Relaxed);
        }
    }
}

/// Opens the log for appending.
pub(crate) fn open_access_log(path: &Path) -> io::Result<(AccessLog, AccessLogThread)> {
    let file = File::options().create(true).append(true).open(path)?;
    let (lines, waiting) = sync_channel(WAITING_MAX);
    let log = AccessLog {
        lines,
        dropped: Arc::default(),
    };
    let mut writing = AccessLogFile {
        path: path.to_owned(),
        size: file.metadata()?.len(),
        file: BufWriter::new(file),
        dropped: log.dropped.clone(),
    };
    let thread = std::thread::Builder::new().name("access-log".to_owned());
    let thread = thread.spawn(move || writing.run(&waiting))?;
    Ok((log, AccessLogThread(thread)))
}

impl AccessLogThread {
    /// Waits until all lines are written.
    pub(crate) fn join(self) {
        if self.0.join().is_err() {
            tracing::error!("the access log's thread panicked");
        }
    }
}

struct AccessLogFile {
    path: PathBuf,
    file: BufWriter<File>,
    size: u64,
    dropped: Arc<AtomicU64>,
}

impl AccessLogFile {
    fn run(&mut self, waiting: &Receiver<Vec<u8>>) {
        let mut failing = false;
        loop {
            let (line, flushed) = match waiting.try_recv() {
                Ok(line) => (line, Ok(())),
                Err(TryRecvError::Disconnected) => break,
                // The queue is empty: flush, so that readers see the lines.
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
        let (log, writer) = open_access_log(&path).unwrap();
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
