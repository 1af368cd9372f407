//! Immutable bytes by digest, as the engine's users need them.

use std::{io, path::PathBuf, pin::Pin};

use async_trait::async_trait;
use shipway_core::ids::Digest;
use tokio::io::AsyncRead;

/// A stream of bytes.
pub type Reader = Pin<Box<dyn AsyncRead + Send>>;

/// What was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredBlob {
    /// Its digest.
    pub digest: Digest,
    /// How many bytes.
    pub size: u64,
}

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// There is none of this digest.
    #[error("there is no blob {0}")]
    Missing(Digest),
    /// The bytes are not what their name says.
    #[error("blob {expected} is damaged: its bytes are {actual}")]
    Damaged {
        /// The name.
        expected: Digest,
        /// What the bytes are.
        actual: Digest,
    },
    /// Disk or source.
    #[error("{what}: {source}")]
    Io {
        /// What was being done.
        what: String,
        /// Why it failed.
        source: io::Error,
    },
}

/// Where artifacts are kept: by digest, once each.
#[async_trait]
pub trait Blobs: Send + Sync {
    /// Stores what `source` gives, to its end. Acknowledged means durable; a crash before leaves nothing under any digest.
    async fn put(&self, source: Reader) -> Result<StoredBlob, BlobError>;

    /// As [`Blobs::put`], refused when the bytes are not `expected`.
    async fn put_expecting(
        &self,
        source: Reader,
        expected: &Digest,
    ) -> Result<StoredBlob, BlobError>;

    /// The bytes; the reader fails at the end when they are not what their name says.
    async fn open(&self, digest: &Digest) -> Result<Reader, BlobError>;

    /// How many bytes; `None` when there is no such blob.
    async fn size(&self, digest: &Digest) -> Result<Option<u64>, BlobError>;

    /// A local file with the bytes, verified, for programs that need one.
    async fn file(&self, digest: &Digest) -> Result<PathBuf, BlobError>;

    /// Forgets a blob; none there is fine.
    async fn delete(&self, digest: &Digest) -> Result<(), BlobError>;
}
