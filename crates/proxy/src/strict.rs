//! Reads a client's bytes along with hyper, and spoils those that another reader might frame differently, so that hyper refuses them:
//! lines that end with a bare LF, and heads with both `Content-Length` and `Transfer-Encoding`. RFC 9112 (2.2 and 6.3) lets a server
//! take either, and hyper does; a proxy that others stand before should not.
//!
//! It must never decide where a message ends: hyper does that. It changes the end of a line to NUL, which ends none and is allowed
//! nowhere in a head, so what it gets wrong is refused and never smuggled. After an upgrade it looks no more.

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

/// As much of a line as is looked at: a name, and a length of 20 digits.
const LINE_MAX: usize = 64;
/// How HTTP/2 begins; its frames are none of our business.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r";

/// A connection that is read strictly.
#[derive(Debug)]
pub(crate) struct Strict<T> {
    io: T,
    framing: Framing,
    /// Set when the protocol was changed.
    switched: Arc<AtomicBool>,
}

impl<T> Strict<T> {
    pub(crate) fn new(io: T, switched: Arc<AtomicBool>) -> Self {
        let framing = Framing::default();
        Self {
            io,
            framing,
            switched,
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Strict<T> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer))?;
        if !this.switched.load(Relaxed) {
            this.framing.check(&mut buffer.filled_mut()[before..]);
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Strict<T> {
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

/// Where in a message the next byte is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum At {
    /// Before or in a request's first line.
    #[default]
    Start,
    Fields,
    /// So many bytes of a body, or of a chunk with its line end; then comes what is said.
    Bytes(u64, Then),
    ChunkSize,
    Trailers,
    /// It was refused, or is no HTTP/1.
    Over,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Start,
    ChunkSize,
}

/// A line is fit to be read.
enum Line {
    Fine,
    Bad,
}

#[derive(Debug, Default)]
struct Framing {
    at: At,
    /// The beginning of the line that the next byte is in.
    line: Vec<u8>,
    /// The whole line's length so far, and its last byte.
    length: usize,
    last: u8,
    content_length: Option<u64>,
    chunked: bool,
}

impl Framing {
    fn check(&mut self, mut bytes: &mut [u8]) {
        while !bytes.is_empty() {
            match self.at {
                At::Over => return,
                At::Bytes(left, then) => {
                    let skipped =
                        usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
                    let left = left - skipped as u64;
                    self.at = match (left, then) {
                        (0, Then::Start) => At::Start,
                        (0, Then::ChunkSize) => At::ChunkSize,
                        _ => At::Bytes(left, then),
                    };
                    bytes = &mut bytes[skipped..];
                }
                At::Start | At::Fields | At::ChunkSize | At::Trailers => {
                    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
                        return self.remember(bytes);
                    };
                    self.remember(&bytes[..end]);
                    let is_bare = self.last != b'\r';
                    // In the line of a chunk's size hyper refuses it itself, but might take a NUL.
                    let refused = is_bare && self.at == At::ChunkSize;
                    if is_bare || matches!(self.end_line(), Line::Bad) {
                        self.at = At::Over;
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

    /// A line with a proper end; it is only its CR when it is empty.
    fn end_line(&mut self) -> Line {
        let is_empty = self.length == 1;
        match self.at {
            At::Start if is_empty => {}
            At::Start if self.line == HTTP2 => self.at = At::Over,
            At::Start => self.at = At::Fields,
            At::Fields if is_empty => return self.end_head(),
            At::Fields => return self.field(),
            At::ChunkSize => {
                let digits = self.line.iter().take_while(|byte| byte.is_ascii_hexdigit());
                let digits = digits.count();
                let size = std::str::from_utf8(&self.line[..digits]).unwrap_or_default();
                match u64::from_str_radix(size, 16) {
                    _ if digits == LINE_MAX => return Line::Bad,
                    Ok(0) => self.at = At::Trailers,
                    Ok(size) => self.at = At::Bytes(size.saturating_add(2), Then::ChunkSize),
                    Err(_) => return Line::Bad,
                }
            }
            At::Trailers if is_empty => self.at = At::Start,
            At::Trailers | At::Bytes(..) | At::Over => {}
        }
        Line::Fine
    }

    fn field(&mut self) -> Line {
        let Some(colon) = self.line.iter().position(|byte| *byte == b':') else {
            // A longer name than any that matters; or none, which is not for us to say.
            return Line::Fine;
        };
        let (name, value) = (&self.line[..colon], &self.line[colon + 1..]);
        if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"content-length") {
            let number = std::str::from_utf8(value).map(|text| text.trim().parse());
            let (Ok(Ok(number)), true) = (number, self.length <= LINE_MAX) else {
                return Line::Bad;
            };
            self.content_length = Some(number);
        }
        Line::Fine
    }

    fn end_head(&mut self) -> Line {
        let chunked = std::mem::take(&mut self.chunked);
        self.at = match (self.content_length.take(), chunked) {
            (Some(_), true) => return Line::Bad,
            (_, true) => At::ChunkSize,
            (Some(length), false) if length > 0 => At::Bytes(length, Then::Start),
            (_, false) => At::Start,
        };
        Line::Fine
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of it, in whatever pieces it comes.
    fn checked(text: &str) -> String {
        let whole = |cut: usize| {
            let mut framing = Framing::default();
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
