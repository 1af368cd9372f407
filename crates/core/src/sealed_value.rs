//! A value encrypted with a key of the server, as events hold it.
//!
//! # Invariants
//!
//! - The log contains sealed values only; the key is a separate file. Without the key a value cannot be recovered.
//! - A sealed value can only be opened for the purpose that it was sealed for: two values in the log cannot be exchanged.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An encrypted value. Neither `Debug` nor an error shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealedValue {
    /// The key that opens it.
    pub key: SealingKeyId,
    /// The nonce and the ciphertext with its tag (XChaCha20-Poly1305), in base64.
    pub data: String,
}

/// Names a key: `k1`, and `k2` after the first rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SealingKeyId(pub u32);

impl fmt::Display for SealingKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "k{}", self.0)
    }
}

impl fmt::Debug for SealedValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedValue({})", self.key)
    }
}
