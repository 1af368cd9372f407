//! Reads a file as it grows, woken by inotify instead of polling.

use std::{
    io::{self, SeekFrom},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use inotify::{EventStream, Inotify, WatchMask};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};

/// Bytes per read.
const CHUNK: usize = 64 * 1024;

/// How long a followed file may stay the same before its writer is checked.
const END_CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// Limit for [`read_last_lines`]: the reason of a failure is near the end of a log.
const LAST_BYTES: usize = 256 * 1024;

/// Bytes that are read for them: room for some very long lines, which are cut.
const READ_BYTES: u64 = 4 * 1024 * 1024;

/// Longest line of [`read_last_lines`] in bytes.
const LINE_BYTES: usize = 1_000;

/// The last complete lines of a file, up to 256 KiB; each is cut at 1,000 bytes, so that a long one doesn't displace the others.
pub fn read_last_lines(path: &Path) -> io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let from = file.metadata()?.len().saturating_sub(READ_BYTES);
    std::io::Seek::seek(&mut file, SeekFrom::Start(from))?;
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, READ_BYTES), &mut bytes)?;
    let mut lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    if from > 0 && !lines.is_empty() {
        // The first line may be incomplete.
        lines.remove(0);
    }
    let mut kept = 0;
    let mut length = 0;
    for line in lines.iter().rev() {
        length += line.len().min(LINE_BYTES + 1);
        if length > LAST_BYTES {
            break;
        }
        kept += 1;
    }
    let mut text = Vec::with_capacity(length.min(LAST_BYTES));
    for line in &lines[lines.len() - kept..] {
        let end = line.strip_suffix(b"\n").unwrap_or(line);
        text.extend_from_slice(&end[..end.len().min(LINE_BYTES)]);
        if end.len() < line.len() {
            text.push(b'\n');
        }
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// A file that another process appends to. It need not exist yet; its folder must.
pub struct FileTail {
    path: PathBuf,
    file: Option<File>,
    offset: u64,
    events: EventStream<Vec<u8>>,
}

impl FileTail {
    /// Follows `path` from `offset` on.
    pub fn open(path: &Path, offset: u64) -> io::Result<Self> {
        let folder = path.parent().unwrap_or(Path::new("."));
        let inotify = Inotify::init()?;
        inotify.watches().add(
            folder,
            WatchMask::MODIFY | WatchMask::CREATE | WatchMask::MOVED_TO,
        )?;
        let events = inotify.into_event_stream(vec![0; 4_096])?;
        Ok(Self {
            path: path.to_owned(),
            file: None,
            offset,
            events,
        })
    }

    /// Offset of the next read.
    #[must_use]
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads the appended bytes without waiting; empty if there are none.
    pub async fn read(&mut self) -> io::Result<Bytes> {
        if self.file.is_none() {
            match File::open(&self.path).await {
                Ok(mut file) => {
                    file.seek(SeekFrom::Start(self.offset)).await?;
                    self.file = Some(file);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Bytes::new()),
                Err(error) => return Err(error),
            }
        }
        let Some(file) = &mut self.file else {
            return Ok(Bytes::new());
        };
        let mut chunk = vec![0; CHUNK];
        let count = file.read(&mut chunk).await?;
        chunk.truncate(count);
        if count == 0 && self.is_rotated().await {
            (self.file, self.offset) = (None, 0);
            return Box::pin(self.read()).await;
        }
        self.offset += count as u64;
        Ok(chunk.into())
    }

    /// Whether another file has its name now. The open file doesn't grow any more.
    async fn is_rotated(&self) -> bool {
        let Some(file) = &self.file else { return false };
        let open = file.metadata().await;
        let named = tokio::fs::metadata(&self.path).await;
        matches!((open, named), (Ok(open), Ok(named)) if (open.dev(), open.ino()) != (named.dev(), named.ino()))
    }

    /// Waits for a change in the folder. May return for a change before the last [`FileTail::read`].
    pub async fn changed(&mut self) -> io::Result<()> {
        match self.events.next().await {
            Some(event) => event.map(|_| ()),
            None => Err(io::Error::other("the kernel reports no more changes")),
        }
    }
}

/// The bytes of a file from `offset` to its present end; with `is_over`, also the bytes appended until it returns true.
///
/// # Errors
/// When the file's folder can't be watched.
pub fn stream_file<F: Future<Output = bool> + Send>(
    path: &Path,
    offset: u64,
    is_over: Option<impl Fn() -> F + Send + Sync + 'static>,
) -> io::Result<BoxStream<'static, io::Result<Bytes>>> {
    let tail = FileTail::open(path, offset)?;
    let chunks = stream::unfold((tail, is_over), |(mut tail, is_over)| async move {
        let chunk = next_chunk(&mut tail, is_over.as_ref()).await;
        chunk.transpose().map(|chunk| (chunk, (tail, is_over)))
    });
    Ok(chunks.boxed())
}

async fn next_chunk<F: Future<Output = bool>>(
    tail: &mut FileTail,
    is_over: Option<&impl Fn() -> F>,
) -> io::Result<Option<Bytes>> {
    loop {
        let bytes = tail.read().await?;
        if !bytes.is_empty() {
            return Ok(Some(bytes));
        }
        let Some(is_over) = is_over else {
            return Ok(None);
        };
        let grew = tokio::time::timeout(END_CHECK_INTERVAL, tail.changed()).await;
        if grew.is_err() && is_over().await {
            // Bytes that were written before the end are read first.
            let rest = tail.read().await.unwrap_or_default();
            return Ok((!rest.is_empty()).then_some(rest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_that_is_rotated_is_followed_in_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        std::fs::write(&path, "one\n").unwrap();
        let mut tail = FileTail::open(&path, 2).unwrap();
        assert_eq!(tail.read().await.unwrap(), "e\n");
        assert_eq!(tail.read().await.unwrap(), "");
        std::fs::rename(&path, folder.path().join("log.1")).unwrap();
        assert_eq!(tail.read().await.unwrap(), "");
        std::fs::write(&path, "two\n").unwrap();
        assert_eq!(tail.read().await.unwrap(), "two\n");
        assert_eq!(tail.offset(), 4);
    }

    #[test]
    fn a_very_long_line_does_not_displace_the_lines_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let long = "x".repeat(1_100_000);
        std::fs::write(&path, format!("one\nerror: two\n{long}\nend")).unwrap();
        let text = read_last_lines(&path).unwrap();
        let cut = "x".repeat(LINE_BYTES);
        assert_eq!(text, format!("one\nerror: two\n{cut}\nend"));
        std::fs::write(&path, "a line\n".repeat(1_000_000)).unwrap();
        let text = read_last_lines(&path).unwrap();
        assert!(text.len() <= LAST_BYTES && text.len() > LAST_BYTES - 100);
        assert!(text.starts_with("a line\n") && text.ends_with("a line\n"));
    }
}
