//! Relays one request to git's HTTP backend, and ends git when the client disconnects.
//!
//! # Failure modes
//!
//! - The client disconnects before its request was complete, or during a fetch: git's input is closed; git exits and removes
//!   partial data. If it doesn't within [`GRACE`]: SIGTERM, then SIGKILL.
//! - The client disconnects after a complete push: git continues, its output is discarded.
//! - No byte in either direction for [`IDLE`]: git is terminated and the response is aborted.

use std::{
    future::pending,
    io,
    pin::{Pin, pin},
    process::ExitStatus,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame};
use shipway_core::ids::ServiceName;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    process::{Child, ChildStdin, ChildStdout},
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};

use super::{
    GitError,
    command::{ProcessGroup, STDERR_BYTES_MAX, describe_failure, exit_code, read_up_to},
    operation::GitOperation,
};

/// Idle timeout: longer than any pause of the server's output, and longer than git needs to check the largest pack.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// Grace for git to notice closed pipes and remove its temporary files; again after SIGTERM.
const GRACE: Duration = Duration::from_secs(5);
/// Queued chunks for a slow client: 16 × 64 KiB.
const CHUNKS_MAX: usize = 16;
const CHUNK_BYTES: usize = 64 << 10;
/// Upper bound for the CGI head; git's have a few hundred bytes.
const HEAD_BYTES_MAX: usize = 16 << 10;

/// A response body, streamed from git. It is dropped when the client disconnects.
#[derive(Debug)]
pub struct GitBody(pub(super) mpsc::Receiver<io::Result<Bytes>>);

impl Body for GitBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0
            .poll_recv(cx)
            .map(|chunk| chunk.map(|chunk| chunk.map(Frame::data)))
    }
}

type ResponseSender = oneshot::Sender<Result<http::Response<GitBody>, GitError>>;

/// Number of bytes transferred in both directions.
#[derive(Clone, Default)]
pub(super) struct RelayProgress(Arc<AtomicU64>);

impl RelayProgress {
    fn add_bytes(&self, bytes: usize) {
        self.0.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// How a request body ended.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum UploadEnd {
    /// Git has all of it, or stopped reading.
    Done,
    /// The client disconnected.
    Broken,
}

/// Streams the request body to git.
pub(super) async fn forward_upload<B>(
    body: B,
    mut stdin: ChildStdin,
    progress: RelayProgress,
) -> UploadEnd
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return UploadEnd::Broken;
        };
        let Ok(data) = frame.into_data() else {
            continue;
        };
        if stdin.write_all(&data).await.is_err() {
            return UploadEnd::Done;
        }
        progress.add_bytes(data.len());
    }
    UploadEnd::Done
}

/// State of the response to the client.
enum ClientState {
    /// Waits for the head; the part that git has written.
    Waiting(ResponseSender, BytesMut),
    /// The body is being streamed.
    Reading(mpsc::Sender<io::Result<Bytes>>),
    /// Disconnected.
    Gone,
}

/// Why the relay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExchangeEnd {
    /// Git closed its output.
    Whole,
    /// The client disconnected.
    Abandoned,
    /// No byte for [`IDLE`].
    Stuck,
    /// Git's output is not a CGI head.
    Garbled,
}

/// A running backend.
pub(super) struct BackendExchange {
    service: ServiceName,
    operation: GitOperation,
    child: Child,
    group: ProcessGroup,
    progress: RelayProgress,
}

impl BackendExchange {
    pub(super) fn new(
        service: ServiceName,
        operation: GitOperation,
        child: Child,
        progress: RelayProgress,
    ) -> Self {
        let group = ProcessGroup::from_child(&child);
        Self {
            service,
            operation,
            child,
            group,
            progress,
        }
    }

    /// Runs the relay to its end; git has exited when this returns.
    pub(super) async fn run(mut self, mut upload: JoinHandle<UploadEnd>, head: ResponseSender) {
        let mut stderr = tokio::spawn(read_up_to(self.child.stderr.take(), STDERR_BYTES_MAX));
        let mut client = ClientState::Waiting(head, BytesMut::new());
        let mut stdout = self.child.stdout.take().expect("it was piped");
        let end = self.relay(&mut stdout, &mut upload, &mut client).await;
        upload.abort();
        // Keep reading after a push: a git whose output is cut off leaves partial data behind. A fetch is cut off.
        let rest = (self.operation == GitOperation::Write).then_some(stdout);
        let drain = tokio::spawn(read_up_to(rest, 0));
        let mut status = timeout(GRACE, self.child.wait()).await;
        if status.is_err() {
            self.group.terminate();
            status = timeout(GRACE, self.child.wait()).await;
        }
        drain.abort();
        let said = match timeout(GRACE, &mut stderr).await {
            Ok(said) => said.unwrap_or_default().0,
            Err(_) => {
                stderr.abort(); // something git started holds it open
                Vec::new()
            }
        };
        let reason = match status {
            Ok(status) => {
                self.group.disarm();
                failure_reason(end, status, &said)
            }
            Err(_) => Some("it did not end after SIGTERM".to_owned()), // the group is killed as it is dropped
        };
        if let Some(reason) = &reason {
            tracing::warn!(service = %self.service, "git could not {}: {reason}", self.operation.description());
        }
        client.finish(end, self.operation, reason);
    }

    async fn relay(
        &mut self,
        stdout: &mut ChildStdout,
        upload: &mut JoinHandle<UploadEnd>,
        client: &mut ClientState,
    ) -> ExchangeEnd {
        let mut buffer = BytesMut::new();
        let mut arrived = None;
        let mut watchdog = tokio::time::interval_at(tokio::time::Instant::now() + IDLE, IDLE);
        let mut before = self.progress.bytes();
        loop {
            buffer.reserve(CHUNK_BYTES);
            tokio::select! {
                result = &mut *upload, if arrived.is_none() => arrived = Some(result.unwrap_or(UploadEnd::Broken)),
                () = client.wait_until_gone() => *client = ClientState::Gone,
                read = stdout.read_buf(&mut buffer) => match read {
                    Ok(0) | Err(_) => return ExchangeEnd::Whole,
                    Ok(bytes) => {
                        self.progress.add_bytes(bytes);
                        if client.forward_chunk(buffer.split().freeze()).await.is_err() {
                            return ExchangeEnd::Garbled;
                        }
                    }
                },
                _ = watchdog.tick() => {
                    let now = self.progress.bytes();
                    if now == before {
                        return ExchangeEnd::Stuck;
                    }
                    before = now;
                }
            }
            let gone = matches!(client, ClientState::Gone);
            match (self.operation, arrived) {
                (_, Some(UploadEnd::Broken)) => return ExchangeEnd::Abandoned,
                (GitOperation::Read, _) if gone => return ExchangeEnd::Abandoned,
                (GitOperation::Read, _) | (GitOperation::Write, None | Some(UploadEnd::Done)) => {}
            }
        }
    }
}

/// The reason to log, if git failed.
fn failure_reason(end: ExchangeEnd, status: io::Result<ExitStatus>, said: &[u8]) -> Option<String> {
    let code = status.map_or(-1, exit_code);
    match end {
        ExchangeEnd::Whole if code == 0 => None,
        ExchangeEnd::Whole => Some(describe_failure(said, code)),
        ExchangeEnd::Abandoned => None,
        ExchangeEnd::Stuck => Some(format!("no progress for {} minutes", IDLE.as_secs() / 60)),
        ExchangeEnd::Garbled => Some("its response is not HTTP".to_owned()),
    }
}

impl ClientState {
    /// Waits until the client disconnects; pending forever if it has.
    async fn wait_until_gone(&mut self) {
        match self {
            Self::Waiting(head, _) => head.closed().await,
            Self::Reading(chunks) => chunks.closed().await,
            Self::Gone => pending().await,
        }
    }

    /// Forwards git's output. Fails if the head can't be parsed.
    async fn forward_chunk(&mut self, chunk: Bytes) -> Result<(), ()> {
        match std::mem::replace(self, Self::Gone) {
            Self::Gone => {}
            Self::Reading(chunks) => {
                // A client that reads nothing for this long is considered disconnected.
                if let Ok(Ok(())) = timeout(IDLE, chunks.send(Ok(chunk))).await {
                    *self = Self::Reading(chunks);
                }
            }
            Self::Waiting(head, mut seen) => {
                seen.extend_from_slice(&chunk);
                let Some(end) = head_end(&seen) else {
                    let too_long = seen.len() > HEAD_BYTES_MAX;
                    *self = Self::Waiting(head, seen);
                    return if too_long { Err(()) } else { Ok(()) };
                };
                let body = seen.split_off(end).freeze();
                let (chunks, receiver) = mpsc::channel(CHUNKS_MAX);
                let Some(response) = parse_response(&seen, GitBody(receiver)) else {
                    *self = Self::Waiting(head, seen);
                    return Err(());
                };
                if !body.is_empty() {
                    let _ = chunks.try_send(Ok(body)); // there is room: it is the first
                }
                if head.send(Ok(response)).is_ok() {
                    *self = Self::Reading(chunks);
                }
            }
        }
        Ok(())
    }

    /// Reports a failure to the client.
    fn finish(self, end: ExchangeEnd, operation: GitOperation, reason: Option<String>) {
        let reason = reason.unwrap_or_else(|| "it exited without a response".to_owned());
        match self {
            Self::Waiting(head, _) => {
                let _ = head.send(Err(GitError::Failed {
                    what: operation.description(),
                    reason,
                }));
            }
            // Git's protocol reports failures in a complete response; everything else must look truncated.
            Self::Reading(chunks) if end != ExchangeEnd::Whole => {
                let _ = chunks.try_send(Err(io::Error::new(io::ErrorKind::TimedOut, reason)));
            }
            Self::Reading(_) | Self::Gone => {}
        }
    }
}

/// End of a CGI head, including the empty line.
fn head_end(bytes: &[u8]) -> Option<usize> {
    let find = |pattern: &[u8]| {
        bytes
            .windows(pattern.len())
            .position(|window| window == pattern)
    };
    find(b"\r\n\r\n")
        .map(|at| at + 4)
        .or_else(|| find(b"\n\n").map(|at| at + 2))
}

/// Parses a CGI head.
fn parse_response(head: &[u8], body: GitBody) -> Option<http::Response<GitBody>> {
    let mut response = http::Response::new(body);
    for line in std::str::from_utf8(head)
        .ok()?
        .lines()
        .filter(|line| !line.is_empty())
    {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("status") {
            *response.status_mut() = value.split(' ').next()?.parse().ok()?;
        } else {
            let name: http::HeaderName = name.parse().ok()?;
            response.headers_mut().append(name, value.parse().ok()?);
        }
    }
    Some(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgi_head_becomes_a_response() {
        let raw = b"Status: 403 Forbidden\r\nContent-Type: text/plain\r\nCache-Control: no-cache\r\n\r\nbody";
        let end = head_end(raw).unwrap();
        assert_eq!(&raw[end..], b"body");
        let (_, nothing) = mpsc::channel(1);
        let response = parse_response(&raw[..end], GitBody(nothing)).unwrap();
        assert_eq!(response.status(), 403);
        assert_eq!(response.headers()["content-type"], "text/plain");
        assert_eq!(head_end(b"Content-Type: text/plain\r\n"), None);
    }

    #[tokio::test]
    async fn a_head_that_never_ends_is_refused() {
        let (head, _answer) = oneshot::channel();
        let mut client = ClientState::Waiting(head, BytesMut::new());
        let line = Bytes::from_static(&[b'x'; 1024]);
        let mut refused = false;
        for _ in 0..=HEAD_BYTES_MAX / line.len() {
            refused = client.forward_chunk(line.clone()).await.is_err();
        }
        assert!(refused);
    }
}
