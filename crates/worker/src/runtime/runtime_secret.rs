//! Credentials of actions: a token in the format that GitHub's toolkit parses, and signatures of URLs.
//!
//! Both are random, valid for the job, and never written to disk.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::file_hash;

/// A secret that is compared in constant time.
#[derive(Clone)]
pub(super) struct RuntimeSecret(String);

impl RuntimeSecret {
    /// 32 random bytes in hex.
    pub(super) fn random() -> std::io::Result<Self> {
        random_bytes().map(|bytes| Self(file_hash::to_hex(&bytes)))
    }

    /// A token like that of GitHub's runner: the toolkit parses run and job from its claims. Its signature is random
    /// and only makes the token secret.
    pub(super) fn new_token(run: &str, job: &str) -> std::io::Result<Self> {
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = encode(json!({"typ": "JWT", "alg": "HS256"}));
        // Keep it short: all its forms are searched for in every line of the log.
        let claims = encode(json!({
            "scp": format!("Actions.Results:{run}:{job}"),
            // Some clients check the expiry. The token ends with the job in any case.
            "exp": jiff::Timestamp::now().as_second() + 7 * 24 * 3600,
        }));
        let signature = URL_SAFE_NO_PAD.encode(random_bytes()?);
        Ok(Self(format!("{head}.{claims}.{signature}")))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `shown` is this secret.
    pub(super) fn matches(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

fn random_bytes() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // Up to 256 bytes are returned at once.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_run_and_job_and_is_never_the_same() {
        let token = RuntimeSecret::new_token("run-1", "job-2").unwrap();
        let parts: Vec<&str> = token.as_str().split('.').collect();
        let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let scopes = claims["scp"].as_str().unwrap();
        assert_eq!(scopes, "Actions.Results:run-1:job-2");
        let other = RuntimeSecret::new_token("run-1", "job-2").unwrap();
        assert!(
            token.matches(token.as_str()) && !token.matches(other.as_str()) && !token.matches("")
        );
    }
}
