//! Passwords, hashed with argon2id.

use argon2::{Algorithm, Argon2, Params, Version};
use rustix::rand::{GetRandomFlags, getrandom};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq as _;

/// Characters of a password at least.
const PASSWORD_CHARS_MIN: usize = 12;
/// Bytes of a password at most: hashing takes time for each.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// What OWASP recommends for argon2id: 19 MiB, 2 passes, 1 lane.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;
const HASH_BYTES: usize = 32;

/// Why a password is not accepted as a new one, or can't be hashed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("a password must have 12 to 1024 characters; a few random words are easy to remember")]
    Length,
    #[error("the password can't be hashed: {0}")]
    Hashing(String),
}

/// A hash with all that is needed to check a password against it.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct PasswordHash {
    memory_kib: u32,
    passes: u32,
    salt: [u8; 16],
    hash: [u8; HASH_BYTES],
}

impl PasswordHash {
    /// Hashes a new password.
    pub(super) fn new(password: &str) -> Result<Self, PasswordError> {
        let is_long_enough = password.chars().count() >= PASSWORD_CHARS_MIN;
        if !is_long_enough || password.len() > PASSWORD_BYTES_MAX {
            return Err(PasswordError::Length);
        }
        Self::compute(password)
    }

    /// A hash of no password: checking against it takes as long as against any other.
    pub(super) fn unusable() -> Result<Self, PasswordError> {
        Self::compute("")
    }

    fn compute(password: &str) -> Result<Self, PasswordError> {
        let mut salt = [0u8; 16];
        let random = getrandom(&mut salt, GetRandomFlags::empty());
        random.map_err(|error| PasswordError::Hashing(error.to_string()))?;
        let mut hashed = Self {
            memory_kib: MEMORY_KIB,
            passes: PASSES,
            salt,
            hash: [0; HASH_BYTES],
        };
        hashed.hash = hashed.compute_hash(password)?;
        Ok(hashed)
    }

    /// Whether it is the hash of this password.
    pub(super) fn matches(&self, password: &str) -> bool {
        if password.len() > PASSWORD_BYTES_MAX {
            return false;
        }
        let computed = self.compute_hash(password);
        computed.is_ok_and(|hash| bool::from(hash.ct_eq(&self.hash)))
    }

    fn compute_hash(&self, password: &str) -> Result<[u8; HASH_BYTES], PasswordError> {
        let error = |error: argon2::Error| PasswordError::Hashing(error.to_string());
        let params = Params::new(self.memory_kib, self.passes, 1, Some(HASH_BYTES));
        let params = params.map_err(error)?;
        let mut hash = [0u8; HASH_BYTES];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(password.as_bytes(), &self.salt, &mut hash)
            .map_err(error)?;
        Ok(hash)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_matches_its_hash_alone_and_short_ones_are_refused() {
        let hash = PasswordHash::new("correct horse battery").unwrap();
        let stored = serde_json::to_string(&hash).unwrap();
        let hash: PasswordHash = serde_json::from_str(&stored).unwrap();
        assert!(hash.matches("correct horse battery"));
        assert!(!hash.matches("correct horse batteri") && !hash.matches(""));
        assert!(!hash.matches(&"x".repeat(1 << 20)));
        assert!(!PasswordHash::unusable().unwrap().matches("x"));
        for wrong in ["", "eleven char", &"x".repeat(1_025)] {
            assert!(matches!(
                PasswordHash::new(wrong),
                Err(PasswordError::Length)
            ));
        }
    }
}
