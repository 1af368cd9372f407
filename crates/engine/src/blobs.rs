//! The interface of content-addressed storage.

use std::{io, path::PathBuf, pin::Pin};

use async_trait::async_trait;
use jiff::Timestamp;
use shipway_core::{ids::Digest, retention::BlobRecord};
use tokio::io::AsyncRead;

/// A stream of bytes.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// A stored blob.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Digest of the content.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is no blob with this digest.
    #[error("no such blob: {0}")]
    Missing(Digest),
    /// It was removed on purpose, with [`Blobs::remove_unused`].
    #[error("{digest} was removed by the retention rule on {}", .at.strftime("%Y-%m-%d"))]
    Removed {
        /// The removed blob.
        digest: Digest,
        /// When it was removed.
        at: Timestamp,
    },
    /// The content doesn't match the digest.
    #[error("blob {expected} is damaged: its bytes are {actual}")]
    Damaged {
        /// The expected digest.
        expected: Digest,
        /// The digest of the content.
        actual: Digest,
    },
    /// Reading or writing failed.
    #[error("{what}: {source}")]
    Io {
        /// The operation.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

/// Content-addressed storage of artifacts.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Stores `source` to its end. It is durable when this returns; after a crash before that there is no partial blob.
    async fn put(&self, source: Reader) -> Result<StoredBlob, BlobError>;

    /// Like [`Blobs::put`], but fails if the digest is not `expected`.
    async fn put_expecting(
        &self,
        source: Reader,
        expected: &Digest,
    ) -> Result<StoredBlob, BlobError>;

    /// Opens a blob; the reader fails at the end if the content doesn't match the digest.
    async fn open(&self, digest: &Digest) -> Result<Reader, BlobError>;

    /// Size in bytes; `None` if there is no such blob.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError>;

    /// Path of a local file with the verified content, for programs that need one.
    async fn file(&self, digest: &Digest) -> Result<PathBuf, BlobError>;

    /// Counts as a use of the blob, so that [`Blobs::remove_unused`] leaves it alone; false if there is no such blob.
    async fn renew(&self, digest: &Digest) -> Result<bool, BlobError>;

    /// All blobs, in any order.
    async fn list(&self) -> Result<Vec<BlobRecord>, BlobError>;

    /// Removes those of the blobs that were neither stored nor renewed since `used_since`; returns them. A blob that is stored or
    /// renewed at the same moment either stays, or is missing for the caller of [`Blobs::renew`]. The removal is recorded first: after a
    /// crash a missing blob is [`BlobError::Removed`], never [`BlobError::Missing`]. An open reader can read to the end.
    async fn remove_unused(
        &self,
        blobs: Vec<BlobRecord>,
        used_since: Timestamp,
    ) -> Result<Vec<BlobRecord>, BlobError>;

    /// Deletes a blob; succeeds if it doesn't exist.
    async fn delete(&self, digest: &Digest) -> Result<(), BlobError>;
}
