//! Inspects a client's bytes before hyper reads them, and corrupts those that another parser might frame differently, so that
//! hyper rejects them: lines that end with a bare LF, and heads with both `Content-Length` and `Transfer-Encoding`. RFC 9112
//! (2.2 and 6.3) lets a server accept either, and hyper does; a proxy should not.
//!
//! # Invariants
//!
//! - It never decides where a message ends: hyper does. It replaces the end of a line by NUL, which ends no line and is valid
//!   nowhere in a head: a mistake here leads to a rejected request, never to a smuggled one.
//! - After an upgrade it inspects nothing.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Inspected bytes of a line: a field name, and a length of 20 digits.
const LINE_MAX: usize = 64;
/// The HTTP/2 preface; its frames are not inspected.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r";

/// A stream that is inspected while it is read.
#[derive(Debug)]
pub(crate) struct FramingGuard<T> {
    io: T,
    framing: FramingParser,
    /// Set after an upgrade.
    upgraded: Arc<AtomicBool>,
}

impl<T> FramingGuard<T> {
    pub(crate) fn new(io: T, upgraded: Arc<AtomicBool>) -> Self {
        let framing = FramingParser::default();
        Self {
            io,
            framing,
            upgraded,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FramingGuard<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        if !this.upgraded.load(Relaxed) {
            this.framing.check(&mut buffer.filled_mut()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FramingGuard<T> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}

/// Position of the next byte in a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum FramingPosition {
    /// Before or in the request line.
    #[default]
    Start,
    Fields,
    /// In a body or chunk with this many bytes left; then the next state.
    Bytes(u64, AfterBytes),
    ChunkSize,
    Trailers,
    /// Rejected, or not HTTP/1.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AfterBytes {
    Start,
    ChunkSize,
}

/// Whether a line is accepted.
enum LineVerdict {
    Fine,
    Bad,
}

#[derive(Debug, Default)]
struct FramingParser {
    at: FramingPosition,
    /// The first bytes of the current line.
    line: Vec<u8>,
    /// Length of the current line so far, and its last byte.
    length: usize,
    last: u8,
    content_length: Option<u64>,
    chunked: bool,
}

impl FramingParser {
    fn check(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            match self.at {
                FramingPosition::Over => return,
                FramingPosition::Bytes(left, then) => {
                    let skipped =
                        usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let left = left - skipped as u64;
                    self.at = match (left, then) {
                        (0, AfterBytes::Start) => FramingPosition::Start,
                        (0, AfterBytes::ChunkSize) => FramingPosition::ChunkSize,
                        _ => FramingPosition::Bytes(left, then),
                    };
                    bytes = &mut bytes[skipped..];
                }
                FramingPosition::Start
                | FramingPosition::Fields
                | FramingPosition::ChunkSize
                | FramingPosition::Trailers => {
                    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                        return self.remember(bytes);
                    };
                    self.remember(&bytes[..end]);
                    let is_bare = self.last != b'\r';
                    // In a chunk size line hyper rejects a bare LF itself, but might accept a NUL.
                    let refused = is_bare && self.at == FramingPosition::ChunkSize;
                    if is_bare || matches!(self.end_line(), LineVerdict::Bad) {
                        self.at = FramingPosition::Over;
                        bytes[end] = if refused { b'\n' } else { 0 };
                    }
                    (self.length, self.last) = (0, 0);
                    self.line.clear();
                    bytes = &mut bytes[end + 1..];
                }
            }
        }
    }

    fn remember(&mut self, bytes: &[u8]) {
        let room = LINE_MAX.saturating_sub(self.line.len()).min(bytes.len());
        self.line.extend_from_slice(&bytes[..room]);
        self.length += bytes.len();
        self.last = bytes.last().copied().unwrap_or(self.last);
    }

    /// Handles a line that ended with CRLF; an empty line is only its CR.
    fn end_line(&mut self) -> LineVerdict {
        let is_empty = self.length == 1;
        match self.at {
            FramingPosition::Start if is_empty => {}
            FramingPosition::Start if self.line == HTTP2 => self.at = FramingPosition::Over,
            FramingPosition::Start => self.at = FramingPosition::Fields,
            FramingPosition::Fields if is_empty => return self.end_head(),
            FramingPosition::Fields => return self.field(),
            FramingPosition::ChunkSize => {
                let digits = self.line.iter().take_while(|byte| byte.is_ascii_hexdigit());
                let digits = digits.count();
                let size = std::str::from_utf8(&self.line[..digits]).unwrap_or_default();
                match u64::from_str_radix(size, 16) {
                    _ if digits == LINE_MAX => return LineVerdict::Bad,
                    Ok(0) => self.at = FramingPosition::Trailers,
                    Ok(size) => {
                        self.at =
                            FramingPosition::Bytes(size.saturating_add(2), AfterBytes::ChunkSize)
                    }
                    Err(_) => return LineVerdict::Bad,
                }
            }
            FramingPosition::Trailers if is_empty => self.at = FramingPosition::Start,
            FramingPosition::Trailers | FramingPosition::Bytes(..) | FramingPosition::Over => {}
        }
        LineVerdict::Fine
    }

    fn field(&mut self) -> LineVerdict {
        let Some(colon) = self.line.iter().position(|byte| *byte == b':') else {
            // The name is longer than any that matters, or missing, which hyper rejects.
            return LineVerdict::Fine;
        };
        let (name, value) = (&self.line[..colon], &self.line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let number = std::str::from_utf8(value).map(|text| text.trim().parse());
            let (Ok(Ok(number)), true) = (number, self.length <= LINE_MAX) else {
                return LineVerdict::Bad;
            };
            self.content_length = Some(number);
        }
        LineVerdict::Fine
    }

    fn end_head(&mut self) -> LineVerdict {
        let chunked = std::mem::take(&mut self.chunked);
        self.at = match (self.content_length.take(), chunked) {
            (Some(_), true) => return LineVerdict::Bad,
            (_, true) => FramingPosition::ChunkSize,
            (Some(length), false) if length > 0 => {
                FramingPosition::Bytes(length, AfterBytes::Start)
            }
            (_, false) => FramingPosition::Start,
        };
        LineVerdict::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of it, in whatever pieces it comes.
    fn checked(text: &str) -> String {
        let whole = |cut: usize| {
            let mut framing = FramingParser::default();
            let mut bytes = text.as_bytes().to_vec();
            let (first, second) = bytes.split_at_mut(cut);
            framing.check(first);
            framing.check(second);
            String::from_utf8(bytes).unwrap()
        };
        let result = whole(0);
        for cut in 1..text.len() {
            assert_eq!(whole(cut), result, "cut at {cut}");
        }
        result
    }

    #[test]
    fn what_is_framed_in_one_way_is_left_as_it_is() {
        for text in [
            "\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nContent-Length:  3 \r\n\r\n\n\n\nPOST / HTTP/1.1\r\nContent-Length: 0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;a\r\n\n\n\n\r\n000\r\nX: y\r\n\r\nGET / HTTP/1.1\r\n\r\n",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\n\n",
        ] {
            assert_eq!(checked(text), text);
        }
    }

    #[test]
    fn a_bare_line_feed_is_spoilt_wherever_a_line_is_read() {
        for (begin, end) in [
            ("", "GET / HTTP/1.1\r\n\r\n"),
            ("GET / HTTP/1.1", "Host: h\r\n\r\n"),
            ("GET / HTTP/1.1\r\nX: y", "Z: z\r\n\r\n"),
            ("GET / HTTP/1.1\r\nX: y\r\n", "GET /"),
            ("GET / HTTP/1.1\r\n\r\n", "GET /"),
            ("POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\n\n\n", "GET /"),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
                "GET /",
            ),
        ] {
            let text = format!("{begin}\n{end}");
            assert_eq!(checked(&text), format!("{begin}\0{end}"));
        }
    }

    #[test]
    fn a_length_and_a_coding_do_not_go_together() {
        for fields in [
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "transfer-encoding: x\r\nX: y\r\nCONTENT-LENGTH:5",
        ] {
            let text = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\n0\r\n\r\n");
            let spoilt = format!("POST / HTTP/1.1\r\n{fields}\r\n\r\00\r\n\r\n");
            assert_eq!(checked(&text), spoilt);
        }
        // One belongs to this request, the other to the next.
        let text = "POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\naPOST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
        assert_eq!(checked(text), text);
    }

    #[test]
    fn a_length_that_can_not_be_read_is_spoilt() {
        for value in [
            "",
            "x",
            "-1",
            "1 1",
            "99999999999999999999",
            &" ".repeat(LINE_MAX),
        ] {
            let text = format!("POST / HTTP/1.1\r\nContent-Length:{value}\r\n\r\n");
            let spoilt = format!("POST / HTTP/1.1\r\nContent-Length:{value}\r\0\r\n");
            assert_eq!(checked(&text), spoilt);
        }
    }
}
