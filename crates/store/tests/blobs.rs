//! Bytes by digest: once each, whole or not at all, and what the name says or an error.

use std::{
    fs, io,
    path::{Path, PathBuf},
    pin::Pin,
    task::{Context, Poll},
};

use jiff::Timestamp;
use shipway_core::{ids::Digest, retention::BlobRecord};
use shipway_engine::{BlobError, Blobs, Reader};
use shipway_store::FileBlobs;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};

fn blobs() -> (TempDir, FileBlobs) {
    let folder = tempfile::tempdir().unwrap();
    let blobs = FileBlobs::open(folder.path()).unwrap();
    (folder, blobs)
}

fn bytes(bytes: &'static [u8]) -> Reader {
    Box::pin(bytes)
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
}

async fn read(blobs: &FileBlobs, digest: &Digest) -> io::Result<Vec<u8>> {
    let mut found = Vec::new();
    let mut reader = blobs.open(digest).await.unwrap();
    reader.read_to_end(&mut found).await.map(|_| found)
}

/// Gives so many bytes of one kind, a chunk at a time, then ends as it is told.
struct Source {
    left: u64,
    end: Option<io::ErrorKind>,
}

impl AsyncRead for Source {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.left == 0 {
            return Poll::Ready(self.end.map_or(Ok(()), |kind| Err(kind.into())));
        }
        let count = buffer.remaining().min(self.left as usize);
        buffer.initialize_unfilled_to(count).fill(b'x');
        buffer.advance(count);
        self.left -= count as u64;
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn what_was_put_is_read_by_its_digest() {
    let (_folder, blobs) = blobs();
    for content in [&b""[..], b"a", b"hello\0world"] {
        let stored = blobs.put(bytes(content)).await.unwrap();
        assert_eq!(stored.digest, Digest::compute(content));
        assert_eq!(stored.size, content.len() as u64);
        assert_eq!(read(&blobs, &stored.digest).await.unwrap(), content);
        assert_eq!(blobs.size(&stored.digest).await.unwrap(), Some(stored.size));
        let file = blobs.file(&stored.digest).await.unwrap();
        assert_eq!(fs::read(file).unwrap(), content);
    }
}

#[tokio::test]
async fn the_same_bytes_are_kept_once() {
    let (folder, blobs) = blobs();
    let first = blobs.put(bytes(b"twice")).await.unwrap();
    let (second, third) = tokio::join!(blobs.put(bytes(b"twice")), blobs.put(bytes(b"twice")));
    assert_eq!((second.unwrap(), third.unwrap()), (first.clone(), first));
    assert_eq!(files(folder.path()).len(), 1);
}

#[tokio::test]
async fn a_missing_blob_is_said_to_be_missing() {
    let (_folder, blobs) = blobs();
    let digest = Digest::compute(b"never stored");
    assert!(
        matches!(blobs.open(&digest).await.err(), Some(BlobError::Missing(it)) if it == digest)
    );
    assert!(matches!(
        blobs.file(&digest).await,
        Err(BlobError::Missing(_))
    ));
    assert_eq!(blobs.size(&digest).await.unwrap(), None);
    blobs.delete(&digest).await.unwrap();
}

#[tokio::test]
async fn damaged_bytes_are_never_passed_off_as_the_blob() {
    let (folder, blobs) = blobs();
    let digest = blobs.put(bytes(b"precious bytes")).await.unwrap().digest;
    let path = files(folder.path()).pop().unwrap();
    for damaged in [
        &b"precious byteZ"[..],
        b"precious",
        b"",
        b"precious bytes and more",
    ] {
        fs::write(&path, damaged).unwrap();
        let error = read(&blobs, &digest).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let error = blobs.file(&digest).await.unwrap_err();
        let BlobError::Damaged { expected, actual } = &error else {
            panic!("{error}");
        };
        assert_eq!((expected, actual), (&digest, &Digest::compute(damaged)));
    }
}

#[tokio::test]
async fn putting_the_bytes_again_heals_a_damaged_blob() {
    let (folder, blobs) = blobs();
    let digest = blobs.put(bytes(b"precious bytes")).await.unwrap().digest;
    fs::write(files(folder.path()).pop().unwrap(), b"precious").unwrap();
    blobs.put(bytes(b"precious bytes")).await.unwrap();
    assert_eq!(read(&blobs, &digest).await.unwrap(), b"precious bytes");
}

#[tokio::test]
async fn bytes_of_another_digest_are_refused_and_leave_nothing() {
    let (folder, blobs) = blobs();
    let wanted = Digest::compute(b"this");
    let refused = blobs
        .put_expecting(bytes(b"that"), &wanted)
        .await
        .unwrap_err();
    assert!(
        matches!(&refused, BlobError::Damaged { expected, actual } if *expected == wanted && *actual == Digest::compute(b"that")),
        "{refused}"
    );
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
    blobs.put_expecting(bytes(b"this"), &wanted).await.unwrap();
    assert_eq!(read(&blobs, &wanted).await.unwrap(), b"this");
}

#[tokio::test]
async fn a_source_that_breaks_off_leaves_nothing() {
    let (folder, blobs) = blobs();
    let end = Some(io::ErrorKind::ConnectionReset);
    let source = Source { left: 600_000, end };
    let error = blobs.put(Box::pin(source)).await.unwrap_err();
    assert!(matches!(error, BlobError::Io { .. }), "{error}");
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_half_written_blob_is_not_visible_and_is_gone_after_a_restart() {
    let (folder, blobs) = blobs();
    let (to_blobs, mut ours) = tokio::io::duplex(64);
    let mut put = Box::pin(blobs.put(Box::pin(to_blobs)));
    tokio::select! {
        _ = &mut put => panic!("its source goes on"),
        written = tokio::io::AsyncWriteExt::write_all(&mut ours, &[b'x'; 4_096]) => written.unwrap(),
    }
    let half = files(folder.path());
    assert_eq!(half.len(), 1);
    assert!(half[0].starts_with(folder.path().join("unfinished")));
    // As a crash leaves it: what would have tidied up never runs.
    std::mem::forget(put);
    let blobs = FileBlobs::open(folder.path()).unwrap();
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
    blobs.put(bytes(b"it goes on")).await.unwrap();
}

#[tokio::test]
async fn a_put_that_is_given_up_leaves_nothing() {
    let (folder, blobs) = blobs();
    let (to_blobs, mut ours) = tokio::io::duplex(64);
    let mut put = Box::pin(blobs.put(Box::pin(to_blobs)));
    tokio::select! {
        _ = &mut put => panic!("its source goes on"),
        written = tokio::io::AsyncWriteExt::write_all(&mut ours, &[b'x'; 4_096]) => written.unwrap(),
    }
    drop(put);
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
}

#[tokio::test]
async fn a_deleted_blob_is_gone_and_can_come_again() {
    let (folder, blobs) = blobs();
    let digest = blobs.put(bytes(b"come and go")).await.unwrap().digest;
    blobs.delete(&digest).await.unwrap();
    assert_eq!(blobs.size(&digest).await.unwrap(), None);
    assert_eq!(files(folder.path()), [] as [PathBuf; 0]);
    blobs.put(bytes(b"come and go")).await.unwrap();
    assert_eq!(read(&blobs, &digest).await.unwrap(), b"come and go");
}

/// The most memory that this process has had, in KiB.
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_large_blob_is_streamed_in_little_memory() {
    const SIZE: u64 = 96 << 20;
    let (_folder, blobs) = blobs();
    let before = peak_kib();
    let source = Source {
        left: SIZE,
        end: None,
    };
    let stored = blobs.put(Box::pin(source)).await.unwrap();
    assert_eq!(stored.size, SIZE);
    let mut reader = blobs.open(&stored.digest).await.unwrap();
    let copied = tokio::io::copy(&mut reader, &mut tokio::io::sink())
        .await
        .unwrap();
    assert_eq!(copied, SIZE);
    let grown = peak_kib() - before;
    assert!(
        grown < 24 << 10,
        "{grown} KiB for a blob of {} KiB",
        SIZE >> 10
    );
}

/// The only blob, which was used long ago.
async fn old_blob(folder: &TempDir, blobs: &FileBlobs) -> BlobRecord {
    for path in files(&folder.path().join("sha256")) {
        let file = fs::File::open(path).unwrap();
        file.set_modified(std::time::UNIX_EPOCH).unwrap();
    }
    blobs.list().await.unwrap().pop().unwrap()
}

#[tokio::test]
async fn an_unused_blob_is_removed_and_whoever_opens_it_hears_why() {
    let (folder, blobs) = blobs();
    let stored = blobs.put(bytes(b"content")).await.unwrap();
    let old = old_blob(&folder, &blobs).await;
    assert_eq!((&old.digest, old.size), (&stored.digest, 7));
    let mut reading = blobs.open(&stored.digest).await.unwrap();
    let other = BlobRecord {
        digest: Digest::compute(b"never stored"),
        ..old.clone()
    };
    let both = vec![old.clone(), other];
    let removed = blobs
        .remove_unused(both.clone(), Timestamp::now())
        .await
        .unwrap();
    assert_eq!(removed, std::slice::from_ref(&old));
    assert_eq!(blobs.list().await.unwrap(), []);
    let mut downloaded = Vec::new();
    reading.read_to_end(&mut downloaded).await.unwrap();
    assert_eq!(downloaded, b"content", "a download is not interrupted");

    let again = FileBlobs::open(folder.path()).unwrap();
    let error = again.open(&stored.digest).await.err().unwrap();
    assert!(
        error
            .to_string()
            .contains("was removed by the retention rule on 2"),
        "{error}"
    );
    let lost = again.open(&Digest::compute(b"lost")).await.err();
    assert!(matches!(lost, Some(BlobError::Missing(_))));
    assert!(!again.renew(&stored.digest).await.unwrap());
    let removed = again.remove_unused(both, Timestamp::now()).await.unwrap();
    assert_eq!(removed, [], "a second removal counts nothing twice");

    // Stored again, it is a new file.
    again.put(bytes(b"content")).await.unwrap();
    let removed = again
        .remove_unused(vec![old.clone()], old.used_at)
        .await
        .unwrap();
    assert_eq!(removed, []);
    assert_eq!(read(&again, &stored.digest).await.unwrap(), b"content");
}

#[tokio::test]
async fn a_crash_between_the_record_and_the_removal_leaves_a_readable_blob() {
    let (folder, blobs) = blobs();
    let stored = blobs.put(bytes(b"content")).await.unwrap();
    let line = format!("\n{} 2026-11-30T12:00:00Z\nsha256:incompl", stored.digest);
    fs::write(folder.path().join("removed"), line).unwrap();
    assert_eq!(read(&blobs, &stored.digest).await.unwrap(), b"content");
    let old = old_blob(&folder, &blobs).await;
    let removed = blobs
        .remove_unused(vec![old.clone()], Timestamp::now())
        .await;
    assert_eq!(removed.unwrap(), [old]);
    let error = blobs.open(&stored.digest).await.err();
    let today = Timestamp::now() - jiff::SignedDuration::from_mins(5);
    assert!(matches!(error, Some(BlobError::Removed { at, .. }) if at > today));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_blob_that_is_used_while_it_is_removed_is_either_there_or_missing_for_its_user() {
    let (folder, blobs) = blobs();
    for round in 0..60 {
        let stored = blobs.put(bytes(b"content")).await.unwrap();
        let old = old_blob(&folder, &blobs).await;
        let (user, remover) = (blobs.clone(), blobs.clone());
        let digest = stored.digest.clone();
        let uploads = round % 2 == 0;
        let using = tokio::spawn(async move {
            match uploads {
                true => user.put(bytes(b"content")).await.is_ok(),
                false => user.renew(&digest).await.unwrap(),
            }
        });
        let used_since = Timestamp::now() - jiff::SignedDuration::from_secs(5);
        let removing =
            tokio::spawn(async move { remover.remove_unused(vec![old], used_since).await });
        let (is_usable, removed) = (using.await.unwrap(), removing.await.unwrap().unwrap());
        let is_there = blobs.size(&stored.digest).await.unwrap().is_some();
        assert_eq!(is_usable, is_there, "round {round}: {removed:?}");
    }
}
