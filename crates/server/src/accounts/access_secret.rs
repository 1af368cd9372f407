//! Random secrets of 256 bits: access tokens, sessions and setup links. Only their SHA-256 is kept.

use std::{fmt, io};

use rustix::rand::{GetRandomFlags, getrandom};
use shipway_core::ids::Digest;

/// The prefix of every access token: scanners find a published one by it.
pub(crate) const TOKEN_PREFIX: &str = "shipway_pat_";

/// A secret. `Debug` doesn't show it.
#[derive(Clone)]
pub(crate) struct AccessSecret(String);

impl AccessSecret {
    /// A random secret with a prefix.
    pub(crate) fn random(prefix: &str) -> io::Result<Self> {
        let mut bytes = [0u8; 32];
        if getrandom(&mut bytes, GetRandomFlags::empty())? != bytes.len() {
            return Err(io::Error::other("the system returned too few random bytes"));
        }
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Self(format!("{prefix}{hex}")))
    }

    /// One that a client presents.
    pub(crate) fn from_client(text: &str) -> Self {
        Self(text.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The SHA-256 that is recorded.
    pub(crate) fn hash(&self) -> Digest {
        Digest::compute(self.0.as_bytes())
    }

    /// The token against cross-site requests of a session with this secret: it can't be computed without the cookie.
    pub(crate) fn csrf_token(&self) -> String {
        let digest = Digest::compute(format!("csrf {}", self.0).as_bytes());
        digest.hex()[..40].to_owned()
    }
}

impl fmt::Debug for AccessSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessSecret")
    }
}
