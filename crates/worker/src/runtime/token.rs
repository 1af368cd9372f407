//! What an action shows to be let in: a token in the form that GitHub's toolkit takes apart, and signatures of addresses.
//!
//! Both are random and die with the job. Nothing of them is ever written to disk.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use rustix::rand::{GetRandomFlags, getrandom};
use serde_json::json;
use subtle::ConstantTimeEq as _;

use crate::hash;

/// A secret that is compared without telling by its time how much of it was right.
#[derive(Clone)]
pub(super) struct Secret(String);

impl Secret {
    /// 32 random bytes, as hex digits.
    pub(super) fn random() -> std::io::Result<Self> {
        random_bytes().map(|bytes| Self(hash::hex(&bytes)))
    }

    /// A token as GitHub's runner has it: the toolkit reads the run and the job from its claims, and nobody reads its
    /// signature, which is what makes it a secret.
    pub(super) fn token(run: &str, job: &str) -> std::io::Result<Self> {
        let encode = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = encode(json!({"typ": "JWT", "alg": "HS256"}));
        // Short: all its forms are looked for in every line of the log.
        let claims = encode(json!({
            "scp": format!("Actions.Results:{run}:{job}"),
            // Some clients want to see that it hasn't run out; the job ends it.
            "exp": jiff::Timestamp::now().as_second() + 7 * 24 * 3600,
        }));
        let signature = URL_SAFE_NO_PAD.encode(random_bytes()?);
        Ok(Self(format!("{head}.{claims}.{signature}")))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this was shown.
    pub(super) fn is(&self, shown: &str) -> bool {
        self.0.as_bytes().ct_eq(shown.as_bytes()).into()
    }
}

fn random_bytes() -> std::io::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    // Up to 256 bytes come whole.
    getrandom(&mut bytes, GetRandomFlags::empty())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_run_and_job_and_is_never_the_same() {
        let token = Secret::token("run-1", "job-2").unwrap();
        let parts: Vec<&str> = token.as_str().split('.').collect();
        let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        let scopes = claims["scp"].as_str().unwrap();
        assert_eq!(scopes, "Actions.Results:run-1:job-2");
        let other = Secret::token("run-1", "job-2").unwrap();
        assert!(token.is(token.as_str()) && !token.is(other.as_str()) && !token.is(""));
    }
}
